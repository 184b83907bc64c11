"""What there is, what it costs, and what may come out of it."""

from typing import Annotated

from fastapi import APIRouter, Query

from oracle.clients.hub import policies
from oracle.clients.hub.callers import (
    Caller,
    Limit,
    NodeId,
    Operator,
    Reader,
    TheHub,
)
from oracle.clients.hub.service import CatalogueQuery
from settlement.dataset import Label
from settlement.hub.market import (
    CataloguePage,
    NodeViews,
    PolicyExplanation,
    PolicyLibrary,
    QuoteRequest,
    Quotes,
)
from settlement.hub.messages import CatalogueEntry, OutputPolicy

router = APIRouter(prefix="/v1", tags=["catalogue"])


@router.get("/catalogue")
def catalogue(
    hub: TheHub,
    _reader: Reader,
    modality: Annotated[Label | None, Query()] = None,
    text: Annotated[str | None, Query(max_length=200)] = None,
    column: Annotated[list[Label] | None, Query(max_length=64)] = None,
    min_records: Annotated[int, Query(ge=0, lt=2**64)] = 0,
    max_price_per_record: Annotated[int | None, Query(ge=0, lt=2**64)] = None,
    attested: bool = False,
    after: Annotated[int, Query(ge=0, lt=2**64)] = 0,
    limit: Limit = 50,
) -> CataloguePage:
    """Dataset profiles by node id, and whether each node is attested now.

    `text` has every word anywhere in description, modality or schema; `column` may come several
    times.
    """
    query = CatalogueQuery(
        modality=modality,
        text=text,
        columns=frozenset(column or ()),
        min_records=min_records,
        max_price_per_record=max_price_per_record,
        attested=attested,
    )
    return hub.service.catalogue(query, after, limit)


@router.get("/catalogue/{node_id}")
def entry(hub: TheHub, _reader: Reader, node_id: NodeId) -> CatalogueEntry:
    """One node's profile."""
    return hub.service.entry(node_id)


@router.post("/quotes")
def quotes(hub: TheHub, _reader: Reader, request: QuoteRequest) -> Quotes:
    """What a job would cost on each node, and why it would not go there; keeps nothing."""
    return hub.service.quotes(request)


@router.get("/policies")
def policy_library(hub: TheHub, _caller: Caller) -> PolicyLibrary:
    """Output policies to start from, and the rules that every node enforces besides."""
    return policies.library()


@router.post("/policies/explanation")
def explain_policy(hub: TheHub, _caller: Caller, policy: OutputPolicy) -> PolicyExplanation:
    """A policy in words, and its digest."""
    return policies.explain(policy)


@router.get("/operator/nodes", tags=["operator"])
def nodes(hub: TheHub, _operator: Operator) -> NodeViews:
    """Every node: when it was heard of, what it does, and whether it is attested."""
    return hub.service.nodes()
