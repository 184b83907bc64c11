"""`rapha node`: a hospital's node and what it earns."""

from typing import Annotated

import typer

from oracle.commands.answers import Answer, usdc
from oracle.commands.options import ADDRESS, WORD, Picture, reading, sending, signer_of
from oracle.commands.signing import sent
from settlement.accounts import node_account
from settlement.client import Settlement
from settlement.history import newest_block, read_events
from settlement.ledger import NodeStatus
from settlement.picture import draw_earnings
from settlement.types import to_hex

app = typer.Typer(help="Register nodes, see and share out what they earn.", no_args_is_help=True)

NodeId = Annotated[int, typer.Argument(metavar="NODE", min=1, help="The node's number.")]
Payee = Annotated[str, typer.Option(**ADDRESS)]


@app.command()
@sending
def register(
    settlement: Settlement,
    owner: Payee,
    hospital: Payee,
    onboarder: Payee,
    hardware: Annotated[
        bytes, typer.Option(**WORD, help="Salted digest of the machine's identity.")
    ],
) -> Answer:
    """Register a hospital's machine, as the registrar."""
    signer_of(settlement)
    functions = settlement.nodes.functions
    receipt = settlement.transact(functions.register_node(owner, hospital, onboarder, hardware))
    number = int(functions.node_of_hardware(hardware).call())
    return sent(receipt, {"node": number}, node=str(number))


@app.command()
@reading
def show(settlement: Settlement, node: NodeId) -> Answer:
    """Say whose a node is and who shares its earnings."""
    functions = settlement.nodes.functions
    status, hospital, onboarder, hardware = settlement.call(functions.node(node))
    payees = settlement.call(functions.payees(node))
    bps = dict(zip(("node_owner_bps", "onboarder_bps", "protocol_bps"), payees[-3:], strict=True))
    owner = functions.ownerOf(node).call()
    state = NodeStatus(status).name
    data = {
        "node": node,
        "status": state,
        "owner": owner,
        "hospital": hospital,
        "onboarder": onboarder,
        "hardware": to_hex(bytes(hardware)),
        **bps,
    }
    return Answer(
        data,
        (
            ("node", str(node)),
            ("status", state),
            ("owner", f"{owner}, {bps['node_owner_bps'] / 100:g} %"),
            ("hospital", f"{hospital}, {100 - sum(bps.values()) / 100:g} %"),
            ("onboarder", f"{onboarder}, {bps['onboarder_bps'] / 100:g} %"),
            ("protocol", f"{bps['protocol_bps'] / 100:g} %"),
        ),
    )


@app.command()
@reading
def earnings(settlement: Settlement, node: NodeId, picture: Picture = None) -> Answer:
    """Say what a node has earned and not yet shared out; with --picture, over time."""
    found = settlement.earnings(node)
    if picture:
        deployment, last = settlement.deployment, newest_block(settlement.w3)
        events = read_events(settlement.w3, deployment, last)
        draw_earnings(node_account(deployment, events, node), picture)
    return Answer(
        {"node": node, **found.model_dump(mode="json"), "total": found.total},
        (
            ("node", str(node)),
            ("can be shared out", usdc(found.matured)),
            ("waits", usdc(found.fresh + found.earlier)),
            ("open disputes", str(found.disputes)),
            ("next", f"rapha node distribute {node}, then rapha withdraw"),
        ),
    )


@app.command()
@sending
def distribute(
    settlement: Settlement,
    nodes: Annotated[list[int], typer.Argument(metavar="NODES", help="Numbers of nodes.")],
) -> Answer:
    """Share out what nodes have earned among their payees. Anyone may."""
    signer_of(settlement)
    return sent(settlement.distribute(*nodes), {"nodes": nodes})
