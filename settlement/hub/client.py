"""The typed HTTP client of the hub, for developers and nodes alike. Retries are the caller's."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from settlement.errors import RaphaError
from settlement.hub.account import Registration, RegistrationRequest, RegistrationTerms
from settlement.hub.market import MAX_PAGE, CataloguePage
from settlement.hub.messages import (
    ArtifactName,
    CatalogueEntry,
    DatasetProfile,
    Failure,
    JobAssignment,
    JobCreated,
    JobRequest,
    JobView,
    Progress,
)
from settlement.types import to_hex

_PROBLEM_MEMBERS = frozenset({"type", "title", "status", "detail", "code", "final"})
T = TypeVar("T")


class HubUnavailable(RaphaError, ConnectionError):
    """The hub could not be reached or could not do its work; the same call may succeed later."""

    final = False

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(f"the hub at {url} is unavailable: {detail}")
        self.url = url
        self.detail = detail


class HubRefused(RaphaError, ValueError):
    """The hub said no. `code` is its error's stable name, `data` what it adds to the problem."""

    def __init__(
        self, code: str, status: int, detail: str, *, final: bool, data: dict[str, Any]
    ) -> None:
        super().__init__(f"the hub refused ({code}): {detail}")
        self._code = code
        self.status = status
        self.detail = detail
        self.final = final
        self.data = data

    @property
    def code(self) -> str:
        """The hub's name for the error."""
        return self._code


class HubClient:
    """One party's access to one hub. Every method raises `HubUnavailable` or `HubRefused`."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        transport: httpx.BaseTransport | None = None,
        *,
        timeout: float = 30.0,
    ) -> None:
        """`api_key` is None for those who have none yet: they may register."""
        self.base_url = base_url
        self._http = httpx.Client(
            base_url=base_url,
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            transport=transport,
            timeout=timeout,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the connections."""
        self._http.close()

    def health(self) -> None:
        """Return when the hub answers."""
        self._send("GET", "/healthz")

    def catalogue(self, **filters: str | int | bool) -> tuple[CatalogueEntry, ...]:
        """Every published profile that passes the filters, with its node's validity now."""
        entries: list[CatalogueEntry] = []
        after: str | None = "0"
        while after is not None:
            params = {**filters, "after": after, "limit": MAX_PAGE}
            page = self._get(CataloguePage, "/v1/catalogue", params)
            entries += page.entries
            after = page.next
        return tuple(entries)

    # For those who have no key yet.

    def registration_terms(self) -> RegistrationTerms:
        """What an identity proof has to be for a registration."""
        return self._get(RegistrationTerms, "/v1/registrations")

    def register(self, request: RegistrationRequest) -> Registration:
        """Register a developer; the same one again gets the same answer."""
        answer = self._send("POST", "/v1/registrations", json=request.model_dump(mode="json"))
        return self._parse(Registration, answer)

    def registration(self, registration_id: bytes) -> Registration:
        """Where a registration stands."""
        return self._get(Registration, f"/v1/registrations/{to_hex(registration_id)}")

    # For developers.

    def create_job(self, request: JobRequest) -> JobCreated:
        """Quote a job: it is routed and has terms, and costs nothing until it is escrowed."""
        answer = self._send("POST", "/v1/jobs", json=request.model_dump(mode="json"))
        return self._parse(JobCreated, answer)

    def job(self, job_id: bytes) -> JobView:
        """Where a job stands; for its developer and its node."""
        return self._get(JobView, f"/v1/jobs/{to_hex(job_id)}")

    def artifact(self, job_id: bytes, name: ArtifactName) -> bytes:
        """A delivered artifact, as its node uploaded it (weights are HPKE ciphertext)."""
        return self._send("GET", f"/v1/jobs/{to_hex(job_id)}/artifacts/{name}").content

    # For nodes.

    def put_profile(self, profile: DatasetProfile) -> DatasetProfile:
        """Publish, or replace, the profile of the node's dataset."""
        path = f"/v1/nodes/{profile.node_id}/profile"
        answer = self._send("PUT", path, json=profile.model_dump(mode="json"))
        return self._parse(DatasetProfile, answer)

    def heartbeat(self, node_id: int) -> None:
        """The node lives, and goes on with its job."""
        self._send("POST", f"/v1/nodes/{node_id}/heartbeat")

    def lease(self, node_id: int, *, wait: float = 0) -> JobAssignment | None:
        """The node's unfinished job, again after a crash; else the next funded one; else None.

        The hub waits for one up to `wait` seconds, 30 at most.
        """
        answer = self._send("POST", f"/v1/nodes/{node_id}/lease", params={"wait": wait})
        return None if answer.status_code == 204 else self._parse(JobAssignment, answer)

    def report_progress(self, job_id: bytes, progress: Progress) -> JobView:
        """Tell how far a running job is; counters that go backwards are ignored."""
        path = f"/v1/jobs/{to_hex(job_id)}/progress"
        answer = self._send("POST", path, json=progress.model_dump(mode="json"))
        return self._parse(JobView, answer)

    def put_artifact(self, job_id: bytes, name: ArtifactName, data: bytes) -> JobView:
        """Upload an artifact; the same bytes again are fine, others are refused."""
        path = f"/v1/jobs/{to_hex(job_id)}/artifacts/{name}"
        return self._parse(JobView, self._send("PUT", path, content=data))

    def report_failure(self, job_id: bytes, failure: Failure) -> JobView:
        """End a running job without a result."""
        path = f"/v1/jobs/{to_hex(job_id)}/failure"
        answer = self._send("POST", path, json=failure.model_dump(mode="json"))
        return self._parse(JobView, answer)

    def _get(self, kind: type[T], path: str, params: Mapping[str, Any] | None = None) -> T:
        return self._parse(kind, self._send("GET", path, params=params))

    def _parse(self, kind: type[T], answer: httpx.Response) -> T:
        try:
            return TypeAdapter(kind).validate_json(answer.content)
        except ValidationError as error:
            raise HubUnavailable(self.base_url, f"an answer of unknown form: {error}") from error

    def _send(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=json, content=content, params=params)
        except httpx.TransportError as error:
            raise HubUnavailable(self.base_url, str(error) or type(error).__name__) from error
        return accepted(self.base_url, answer)


def accepted(base_url: str, answer: httpx.Response) -> httpx.Response:
    """An answer by which the hub did what was asked.

    Raises:
        HubRefused: when it said no.
        HubUnavailable: when it, or something before it, could not do its work.
    """
    if answer.is_success:
        return answer
    problem = _problem(answer)
    detail = str(problem.get("detail", answer.reason_phrase))
    if answer.is_server_error:
        raise HubUnavailable(base_url, detail)
    raise HubRefused(
        str(problem.get("code", f"Http{answer.status_code}")),
        answer.status_code,
        detail,
        final=bool(problem.get("final", True)),
        data={key: value for key, value in problem.items() if key not in _PROBLEM_MEMBERS},
    )


def _problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem document (RFC 9457) of an answer; empty when a proxy answered instead."""
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
