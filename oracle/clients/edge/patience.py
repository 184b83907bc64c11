"""Waiting for the oracle and the hub: asking again until they answer or the node stops."""

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set
from tenacity.wait import wait_random_exponential

from oracle.clients.edge.errors import NodeStopping
from settlement.errors import RaphaError

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 5.0

P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger(__name__)


class Patience:
    """Repeats calls that fail with a `RaphaError` which is not final."""

    def __init__(
        self, stop: threading.Event, *, longest_wait: float = LONGEST_WAIT_SECONDS
    ) -> None:
        self._retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_random_exponential(FIRST_WAIT_SECONDS, max=longest_wait),
            sleep=sleep_using_event(stop),
            stop=stop_when_event_set(stop),
            before_sleep=_tell,
            reraise=True,
        )
        self._stop = stop

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns at last.

        Raises:
            NodeStopping: when the node stops first.
            RaphaError: the final error of `function`.
        """
        try:
            return self._retrying.copy()(function, *args, **kwargs)
        except RaphaError as error:
            if self._stop.is_set() and not error.final:
                raise NodeStopping from error
            raise


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, RaphaError) and not error.final and not isinstance(error, NodeStopping)


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, RaphaError):
        log.warning(
            "unavailable", code=error.code, detail=str(error), attempts=state.attempt_number
        )
