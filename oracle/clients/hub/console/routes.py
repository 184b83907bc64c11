"""The console's pages. They read; whatever changes something is a call of the `/v1` API."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from starlette.requests import Request

from oracle.client import JobState as ChainState
from oracle.client import JobStatus
from oracle.clients.hub import policies
from oracle.clients.hub.callers import Caller, JobId, SessionToken, TheHub
from oracle.clients.hub.console.pages import HOME, ROOT, Page, Reader, Signed, failure, show
from oracle.clients.hub.console.waterfall import WIDTH, bars
from oracle.clients.hub.errors import ChainUnavailable, JobUnknown, RegistrationClosed
from oracle.clients.hub.jobs import FINISHED
from oracle.clients.hub.service import CatalogueQuery
from settlement.amounts import parse_usdc
from settlement.errors import InvalidInput
from settlement.hub.account import Registration, RegistrationState, Role, Scope
from settlement.hub.market import MAX_PAGE, EscrowOffer, JobDetail, QuoteRequest

PAGE = 50
DEADLINES = ((3_600, "1 hour"), (6 * 3_600, "6 hours"), (86_400, "1 day"), (3 * 86_400, "3 days"))
Text = Annotated[str, Query(max_length=200)]

root = APIRouter(include_in_schema=False)
router = APIRouter(prefix=ROOT, include_in_schema=False, route_class=Page)


@root.get("/")
def front() -> RedirectResponse:
    """People who open the hub's address want its console."""
    return RedirectResponse(f"{ROOT}/", status_code=303)


@router.get("/")
def connect(request: Request, hub: TheHub, _caller: Caller, token: SessionToken) -> Response:
    """Connect a wallet and sign in; whoever has, goes on."""
    session = hub.access.session(token) if token is not None else None
    if session is not None:
        return RedirectResponse(f"{ROOT}/{HOME[session.role]}", status_code=303)
    return show(request, hub, "connect.html", None)


# Who one is


@router.get("/account")
def account(reader: Signed) -> Response:
    """Registration and its review, API keys, and what happened."""
    hub, principal = reader.hub, reader.principal
    registration = _registration(reader)
    may_register = principal.role is Role.APPLICANT and (
        registration is None or registration.state is RegistrationState.REJECTED
    )
    terms = None
    if may_register:
        try:
            terms = hub.access.registration_terms()
        except RegistrationClosed:
            may_register = False
    manages = Scope.MANAGE in principal.scopes
    trail = hub.access.audit(principal, None, 20) if Scope.READ in principal.scopes else None
    return reader.show(
        "account.html",
        registration=registration,
        terms=terms,
        may_register=may_register,
        keys=hub.access.keys(principal) if manages else None,
        scopes=sorted(principal.scopes),
        trail=trail,
    )


def _registration(reader: Reader) -> Registration | None:
    known = reader.session.registration_id
    return reader.hub.access.registration(known) if known is not None else None


# What there is


@router.get("/catalogue")
def catalogue(
    reader: Signed,
    modality: Text = "",
    text: Text = "",
    column: Text = "",
    min_records: Text = "",
    max_price: Text = "",
    attested: bool = False,
    after: Annotated[int, Query(ge=0, lt=2**64)] = 0,
) -> Response:
    """Dataset profiles; the search form asks for this page again, and swaps its table."""
    reader.needs_reading()
    wrong = None
    try:
        query = CatalogueQuery(
            modality=modality or None,
            text=text or None,
            columns=frozenset(name.strip() for name in column.split(",") if name.strip()),
            min_records=_count(min_records),
            max_price_per_record=parse_usdc(max_price) if max_price else None,
            attested=attested,
        )
    except InvalidInput as error:
        query, wrong = CatalogueQuery(), str(error)
    found = reader.hub.service.catalogue(query, after, PAGE)
    return reader.show(
        "catalogue.html",
        page=found,
        wrong=wrong,
        modalities=_modalities(reader),
        asked={
            "modality": modality,
            "text": text,
            "column": column,
            "min_records": min_records,
            "max_price": max_price,
            "attested": attested,
        },
    )


def _count(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput(f'"{text}" is not a number of records')
    return int(text)


def _modalities(reader: Reader) -> list[str]:
    entries = reader.hub.service.catalogue(CatalogueQuery(), 0, MAX_PAGE).entries
    return sorted({entry.profile.modality for entry in entries})


# Jobs


@router.get("/jobs")
def jobs(
    reader: Signed,
    before: Annotated[str | None, Query(pattern=r"^[0-9]{1,12}\.0x[0-9a-f]{64}$")] = None,
) -> Response:
    """The asker's jobs, the newest first."""
    reader.needs_reading()
    page = reader.hub.service.jobs(reader.principal, None, before, PAGE)
    return reader.show("jobs.html", page=page)


@router.get("/jobs/new")
def new_job(reader: Signed, modality: Text = "", node: Text = "") -> Response:
    """Bundle, dataset, output policy, budget: a job to be quoted."""
    reader.needs(Role.DEVELOPER)
    library = policies.library()
    return reader.show(
        "new_job.html",
        modalities=_modalities(reader),
        entries=reader.hub.service.catalogue(CatalogueQuery(), 0, MAX_PAGE).entries,
        wanted={"modality": modality, "node": node},
        policies=[
            (template, policies.explain(template.policy).sentences) for template in library.policies
        ],
        rules=library.rules,
        deadlines=DEADLINES,
    )


@router.get("/jobs/estimate")
def estimate(
    reader: Signed,
    modality: Text = "",
    epochs: Text = "",
    policy: Text = "",
    node_id: Text = "",
    budget: Text = "",
) -> Response:
    """What such a job costs at most on each node, for the form of a new job."""
    reader.needs(Role.DEVELOPER)
    known = {template.name: template.policy for template in policies.library().policies}
    try:
        wanted = QuoteRequest(
            modality=modality,
            epochs=max(1, _count(epochs)),
            policy=known.get(policy),
            min_records=known[policy].min_records if policy in known else 0,
        )
        offered = parse_usdc(budget) if budget else None
    except InvalidInput as error:
        return reader.show("part_estimate.html", wrong=str(error))
    except ValidationError:
        return reader.show("part_estimate.html", wrong="Choose a kind of data first.")
    found = reader.hub.service.quotes(wanted)
    shown = [quote for quote in found.quotes if node_id in ("", str(quote.node_id))]
    # those that could take it come first, the cheapest of them before the others
    best = next((quote for quote in shown if not quote.why_not), None)
    return reader.show(
        "part_estimate.html",
        wrong=None,
        quotes=shown,
        gas=found.gas,
        best=best,
        epochs=wanted.epochs,
        short=best is not None and offered is not None and offered < best.worst_case,
    )


@router.get("/jobs/{job_id}")
def job(reader: Signed, job_id: JobId) -> Response:
    """One job: sign, follow, verify, open, end."""
    reader.needs(Role.DEVELOPER)
    detail = reader.hub.service.detail(reader.principal, job_id)
    return reader.show("job.html", job=detail, **_live(reader, detail))


@router.get("/jobs/{job_id}/live")
def live(reader: Signed, job_id: JobId) -> Response:
    """What of a job's page moves by itself."""
    reader.needs(Role.DEVELOPER)
    detail = reader.hub.service.detail(reader.principal, job_id)
    return reader.show("part_live.html", job=detail, **_live(reader, detail))


def _live(reader: Reader, detail: JobDetail) -> dict[str, object]:
    service, job_id = reader.hub.service, detail.job_id
    try:
        status: JobStatus | None = service.settlement(reader.principal, job_id)
    except JobUnknown:
        status = None
    offer: EscrowOffer | None = None
    if status is None:
        offer = service.escrow(reader.principal, job_id)
    closed = status is not None and status.state is ChainState.CLOSED
    try:
        shares = service.shares(detail.terms.node_id)
    except ChainUnavailable:  # how it is split is not said then
        shares = None
    return {
        "status": status,
        "offer": offer,
        "bars": bars(status, shares) if status is not None else (),
        "width": WIDTH,
        # Nothing changes any more: the page stops asking.
        "settled": detail.state in FINISHED and (status is None or closed),
    }


# Money


@router.get("/balance")
def balance(reader: Signed) -> Response:
    """USDC at the vault: pay in, pay out."""
    return reader.show("balance.html")


@router.get("/earnings")
def earnings(reader: Signed) -> Response:
    """What the nodes of a wallet earned: distribute, withdraw."""
    wallet = reader.session.wallet
    return reader.show(
        "earnings.html",
        nodes=reader.hub.service.nodes_paying(wallet, PAGE),
        rules=policies.library().rules,
    )


# The operator


@router.get("/operator")
def operator(reader: Signed, state: RegistrationState | None = None) -> Response:
    """The review queue, and how the oracle is. Without a state: what is not decided."""
    reader.needs(Role.OPERATOR)
    asked = (state,) if state else (RegistrationState.PENDING, RegistrationState.ASKED)
    queue = [
        registration
        for each in asked
        for registration in reader.hub.access.registrations(each, None, PAGE).registrations
    ]
    return reader.show(
        "operator.html",
        queue=queue,
        state=state,
        states=tuple(RegistrationState),
        checks=reader.hub.service.readiness(),
        oracle=reader.hub.service.oracle_health(),
    )


@router.get("/operator/nodes")
def nodes(reader: Signed) -> Response:
    """Every node, when it was heard of, and what it does."""
    reader.needs(Role.OPERATOR)
    return reader.show("nodes.html", nodes=reader.hub.service.nodes().nodes)


@router.get("/{path:path}")
def nothing(request: Request, _caller: Caller, path: str) -> Response:
    """Everything else."""
    return failure(request, 404, "No such page", f"There is no page {path[:60]} here.")
