"""Verifying contracts on Polygonscan: Etherscan's API v2, "Verify Vyper Source Code".

https://docs.etherscan.io/api-reference/endpoint/verifyvyper
"""

import json
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import httpx
from vyper.compiler import compile_from_file_input
from vyper.compiler.input_bundle import FilesystemInputBundle

from scripts.artifacts import ROOT, sources
from settlement.errors import InvalidInput, RaphaError
from settlement.record import CreatedContract, DeploymentRecord

API = "https://api.etherscan.io/v2/api"
PAUSE = 5.0
"""Seconds between two questions about one verification."""
ATTEMPTS = 24
ALREADY = "already verified"


class VerificationRefused(RaphaError):
    """The explorer did not accept a contract's source. `answer` is its own word."""

    def __init__(self, contract: str, answer: str) -> None:
        self.contract, self.answer = contract, answer
        super().__init__(
            f"the explorer refused {contract}: {answer}; check its code with `ape run verify`, "
            "then try again"
        )


class ExplorerUnavailable(RaphaError, ConnectionError):
    """The explorer gave no usable answer; try again later."""

    final = False

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the explorer is unavailable: {reason}; try again later")


@cache
def standard_json(contract: str) -> dict[str, object]:
    """All sources of a contract and the compiler's settings, as Vyper's JSON input has them.

    Raises:
        InvalidInput: for a contract that is not among the sources.
    """
    found = [path for path in sources() if path.stem == contract]
    if not found:
        raise InvalidInput(f"there is no source of {contract} in contracts/")
    site_packages = Path(str(distribution("snekmate").locate_file("")))
    bundle = FilesystemInputBundle([ROOT, site_packages])
    with bundle.search_path(ROOT):
        source = bundle.load_file(found[0].relative_to(ROOT))
    output = compile_from_file_input(source, input_bundle=bundle, output_formats=["solc_json"])
    made: dict[str, object] = output["solc_json"]
    return made


def source_name(contract: str) -> str:
    """The contract as the explorer names it: its file, and its name."""
    path = next(path for path in sources() if path.stem == contract)
    return f"{path.relative_to(ROOT)}:{contract}"


class Explorer:
    """The explorer of one chain."""

    def __init__(
        self,
        chain_id: int,
        key: str,
        *,
        api: str = API,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`key` is one of Etherscan's API keys, good for every chain."""
        self._chain_id, self._key = chain_id, key
        self._pause = pause
        self._api = api
        self._http = httpx.Client(timeout=60)

    def __enter__(self) -> "Explorer":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def verify(self, record: DeploymentRecord, created: CreatedContract) -> str:
        """Submit a contract's source and wait for the verdict, which is returned.

        Raises:
            VerificationRefused: when the explorer says no.
            ExplorerUnavailable: when it does not answer, or not in time.
        """
        compiler, number = record.compiler.split(" ")
        submitted = self._ask(
            "POST",
            {"action": "verifysourcecode"},
            {
                "codeformat": "vyper-json",
                "sourceCode": json.dumps(standard_json(created.contract)),
                "constructorArguments": created.arguments.hex(),
                "contractaddress": created.address,
                "contractname": source_name(created.contract),
                "compilerversion": f"{compiler}:{number}",
                "optimizationUsed": "1",
            },
        )
        if ALREADY in submitted[1].lower():
            return submitted[1]
        if not submitted[0]:
            raise VerificationRefused(created.contract, submitted[1])
        for _ in range(ATTEMPTS):
            self._pause(PAUSE)
            done, answer = self._ask(
                "GET", {"action": "checkverifystatus", "guid": submitted[1]}, None
            )
            if "pending" in answer.lower():
                continue
            if done or ALREADY in answer.lower():
                return answer
            raise VerificationRefused(created.contract, answer)
        raise ExplorerUnavailable(f"{created.contract} is still pending")

    def _ask(
        self, method: str, query: dict[str, str], form: dict[str, str] | None
    ) -> tuple[bool, str]:
        """Whether the explorer said OK, and its result. Never tells the key."""
        address = {"chainid": str(self._chain_id), "module": "contract", **query}
        try:
            response = self._http.request(
                method, self._api, params={**address, "apikey": self._key}, data=form
            )
            response.raise_for_status()
            answer = response.json()
            return answer["status"] == "1", str(answer["result"])
        except httpx.HTTPStatusError as error:
            raise ExplorerUnavailable(f"HTTP {error.response.status_code}") from None
        except httpx.HTTPError as error:
            raise ExplorerUnavailable(type(error).__name__) from None
        except (ValueError, KeyError, TypeError) as error:
            raise ExplorerUnavailable("its answer is not the documented one") from error
