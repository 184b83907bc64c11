"""ape compiles to the shipped bytecode, runs the deployment, and its accounts drive the SDK."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from anvil import key
from eth_account import Account
from explorer_site import Etherscan
from rehearsal import parameters as rehearsed
from rehearsal import rehearsal, safe, signer

from scripts.chain import ROOT, anvil_binary, rpc
from scripts.deploy import run
from settlement.contracts import artifact
from settlement.deployment import Deployment
from settlement.networks import AMOY, POLYGON

pytestmark = pytest.mark.xdist_group("anvil")

SHIPPED = (
    "RaphaClearingVault",
    "RaphaNodeRegistry",
    "EnclaveRegistry",
    "PckCertificates",
    "RaphaTimelock",
    "RaphaLauncher",
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """ape with an empty home, anvil on its path, and the compiler where set-up linked it."""
    compilers = tmp_path / "vvm"
    compilers.mkdir()
    (compilers / "vyper-0.4.3").symlink_to(Path(sys.executable).parent / "vyper")
    return {
        **os.environ,
        "HOME": str(tmp_path),
        "APE_DATA_FOLDER": str(tmp_path / "ape"),
        "VVM_BINARY_PATH": str(compilers),
        "PATH": f"{anvil_binary().parent}:{os.environ['PATH']}",
    }


@pytest.fixture
def parameters(tmp_path: Path) -> Path:
    """Deployment parameters in which ape's first test account plays every role."""
    account = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    path = tmp_path / "parameters.json"
    path.write_text(
        json.dumps(
            {
                "proposers": [account],
                "guardian": account,
                "registrar": account,
                "protocol": account,
                "arbiter": account,
                "committee": [account],
                "threshold": 1,
                "grace_period": 86_400,
                "timelock_delay": 172_800,
            }
        )
    )
    return path


def ape(environment: dict[str, str], *arguments: str) -> str:
    """Run ape in the project; its output, and a failure with it."""
    command = [str(Path(sys.executable).parent / "ape"), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long("compiles everything again, as `make lint` does without ape")
def test_ape_compiles_to_the_shipped_bytecode(environment: dict[str, str]) -> None:
    ape(environment, "compile", "--force")
    built = json.loads((ROOT / ".build" / "__local__.json").read_text())["contractTypes"]
    for name in SHIPPED:
        bytecode = built[name]["deploymentBytecode"]["bytecode"].removeprefix("0x")
        assert bytecode == artifact(name).bytecode.hex(), name


def test_ape_run_deploy_writes_a_record(
    environment: dict[str, str], parameters: Path, tmp_path: Path
) -> None:
    record = tmp_path / "deployment.json"
    ape(
        environment,
        *("run", "deploy", "--network", "ethereum:local:foundry", "--account", "TEST::0"),
        *("--parameters", str(parameters), "--output", str(record), "--records", str(tmp_path)),
    )
    deployment = Deployment.model_validate_json(record.read_bytes())
    assert deployment.chain_id == 31337
    assert (deployment.grace_period, deployment.challenge_window) == (86_400, 0)


def test_ape_run_verify_checks_a_deployment_on_polygons_network(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with rehearsal(POLYGON.chain_id) as w3:
        run(w3, signer(w3), rehearsed(), tmp_path, name="ape")
        network = f"{POLYGON.choice}:{w3.provider.endpoint_uri}"  # type: ignore[attr-defined]
        record = str(tmp_path / "137-ape.json")
        told = ape(environment, "run", "verify", record, "--network", network)
    verdicts = [line.split()[0] for line in told.splitlines() if ":" in line and line[:5].strip()]
    assert verdicts.count("holds") == 5
    assert "FAILS" not in verdicts


def test_an_ape_account_signs_and_sends_for_the_sdk(
    environment: dict[str, str], parameters: Path
) -> None:
    session = Path(__file__).parent / "ape_session.py"
    command = [sys.executable, str(session), str(parameters)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = next(line for line in done.stdout.splitlines() if line.startswith("{"))  # amid ape's log
    assert json.loads(told) == {"state": "ASSIGNED", "funded": 5_000_000}


@pytest.mark.timeout(600)
@pytest.mark.long("ten runs of ape")
def test_every_script_runs_under_ape_on_a_rehearsed_amoy(
    environment: dict[str, str], etherscan: Etherscan, tmp_path: Path
) -> None:
    accounts = tmp_path / "ape" / "accounts"
    accounts.mkdir(parents=True)
    sealed = Account.encrypt(key("deployer").key, "open sesame", kdf="pbkdf2", iterations=1)
    (accounts / "rehearser.json").write_text(json.dumps(sealed))
    etherscan.patient, etherscan.chain_id = False, AMOY.chain_id
    with rehearsal(AMOY.chain_id) as w3:
        # ape waits for blocks after its own, as a live network has them
        rpc(w3, "evm_setIntervalMining", 1)
        deployer = signer(w3).address
        others = [key(name).address for name in ("new guardian", "new registrar", "new arbiter")]
        governance = dict(zip(("guardian", "registrar", "arbiter"), others, strict=True))
        members = sorted((key(f"member {i}").address for i in range(4)), key=str.lower)
        for name, content in {
            "parameters": rehearsed(registrar=deployer).model_dump(mode="json"),
            "payees": dict(zip(("owner", "hospital", "onboarder"), others, strict=True)),
            "members": {"members": members[:3], "threshold": 2},
            "others": {"members": members[1:], "threshold": 3},
            "governance": {"proposers": [safe(w3, 2)], **governance},
        }.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        endpoint = w3.provider.endpoint_uri  # type: ignore[attr-defined]
        session = Path(__file__).parent / "ape_scripts.py"
        done = subprocess.run(
            [sys.executable, str(session), endpoint, AMOY.choice, str(tmp_path)],
            cwd=ROOT,
            env={
                **environment,
                "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                "PASSPHRASE": "open sesame",
                "ETHERSCAN_API_KEY": "secret",
                "EXPLORER": etherscan.url,
            },
            capture_output=True,
            text=True,
            timeout=580,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("TOLD "))
    told = json.loads(line.removeprefix("TOLD "))
    deployment = Deployment.model_validate_json((tmp_path / "deployment.json").read_bytes())
    # the rehearsal on a fork says the addresses to come, and leaves nothing behind
    foretold = json.loads(told["dry run"].splitlines()[-1])["deployment"]
    assert foretold["vault"] == deployment.vault
    assert told["verify"].count("Pass - Verified") == len(etherscan.submitted) >= 7
    assert "FAILS" not in told["verify"]
    assert told["node"].splitlines()[-1].startswith("node 1, by 0x")
    assert "scheduled by 0x" in told["committee announce"]
    assert "executed by 0x" in told["committee execute"]
    assert "FAILS" in told["prove before"]
    assert "scheduled by 0x" in told["handover announce"]
    assert "executed by 0x" in told["handover execute"]
    assert "FAILS" not in told["prove"]
    printed = json.loads(told["printed"].splitlines()[-1])
    assert (printed["chainId"], printed["to"]) == (80002, deployment.timelock)
