from pathlib import Path

import pytest

from oracle.clients.edge.config import EdgeSettings
from oracle.clients.edge.node import build_isolation
from oracle.clients.edge.sandbox import wan
from oracle.clients.edge.sandbox.errors import DevelopmentSandboxRefused, WanGuardUnavailable
from settlement.deployment import REAL_CHAINS


def settings(**changes):
    return EdgeSettings(
        node_id=1,
        oracle_url="http://192.0.2.2:80",
        hub_url="http://192.0.2.1:80",
        hub_key_file=Path("key"),
        deployment_file=Path("deployment"),
        state_dir=Path("state"),
        platform_dir=Path("platform"),
        price_per_record=1,
        price_per_epoch=1,
        **changes,
    )


def test_a_sandbox_is_required_and_the_network_closed_where_allowed_unless_said_otherwise():
    chosen = settings()
    assert (chosen.sandbox, chosen.wan_guard, chosen.wan_allows) == (
        "required",
        "if_allowed",
        "hub",
    )


@pytest.mark.parametrize("chain_id", sorted(REAL_CHAINS))
def test_no_development_sandbox_on_a_chain_with_real_money(chain_id):
    build_isolation(settings(sandbox="required"), chain_id)
    build_isolation(settings(sandbox="development"), 31337)
    with pytest.raises(DevelopmentSandboxRefused, match=f"chain {chain_id}; set it to required"):
        build_isolation(settings(sandbox="development"), chain_id)


def test_what_stays_reachable_is_the_hub_and_the_oracle_if_allowed(monkeypatch):
    monkeypatch.setattr(wan, "obstacle", lambda: None)
    rules = []
    monkeypatch.setattr(wan, "_nft", rules.append)
    for allowed in ("hub", "hub_and_oracle"):
        with build_isolation(settings(wan_allows=allowed), 31337).guard.closed():
            pass
    assert ("192.0.2.2" in rules[0], "192.0.2.2" in rules[2]) == (False, True)
    assert "192.0.2.1" in rules[0]
    assert rules[1] == rules[3]


def test_a_required_guard_that_is_not_allowed_stops_the_node(monkeypatch):
    monkeypatch.setattr(wan, "obstacle", lambda: "the node has no CAP_NET_ADMIN")
    guard = build_isolation(settings(wan_guard="required"), 31337).guard
    with pytest.raises(WanGuardUnavailable, match="no CAP_NET_ADMIN"):
        guard.check()
    with pytest.raises(WanGuardUnavailable, match="no CAP_NET_ADMIN"), guard.closed():
        pytest.fail("it went on")


@pytest.fixture
def broken_nft(monkeypatch, tmp_path):
    """A machine that seems to have nftables, and whose kernel does not."""
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\necho no nf_tables here >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(wan, "obstacle", lambda: None)


def test_a_kernel_without_nftables_is_quoted_where_the_guard_is_required(broken_nft):
    guard = build_isolation(settings(wan_guard="required"), 31337).guard
    with pytest.raises(WanGuardUnavailable, match="nft says: no nf_tables here"):
        guard.clear()
    with pytest.raises(WanGuardUnavailable, match="nft says: no nf_tables here"), guard.closed():
        pytest.fail("it went on")


def test_a_kernel_without_nftables_is_in_the_evidence_where_it_is_not(broken_nft):
    guard = build_isolation(settings(wan_guard="if_allowed"), 31337).guard
    guard.clear()
    with guard.closed() as evidence:
        assert evidence == {"guard": "none", "why": "nft says: no nf_tables here"}
