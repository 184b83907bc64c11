"""Nodes that wait for work, and how they are woken. One per process."""

import asyncio
from collections import defaultdict


class Wakeups:
    """Long polls by node. `wake` may be called from any thread, `wait` in the event loop."""

    def __init__(self) -> None:
        self._waiting: defaultdict[int, set[asyncio.Event]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self, node_id: int) -> None:
        """There may be work for a node now."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._set, node_id)

    async def wait(self, node_id: int, seconds: float) -> None:
        """Return when there may be work for the node, after `seconds` at the latest."""
        self._loop = asyncio.get_running_loop()
        event = asyncio.Event()
        self._waiting[node_id].add(event)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            self._waiting[node_id].discard(event)
            if not self._waiting[node_id]:
                del self._waiting[node_id]

    def _set(self, node_id: int) -> None:
        for event in self._waiting.get(node_id, ()):
            event.set()
