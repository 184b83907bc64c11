"""`make run` as a user sees it: the results, the files, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.numpy import load

from scripts.chain import ROOT
from settlement.verify import ReceiptBundle, check_bundle

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(600)]

FILES = {
    "logs",
    "metrics.json",
    "receipts.json",
    "settlement.png",
    "summary.json",
    "terms.json",
    "weights.safetensors",
}


class Run:
    """One `scripts.run` with an empty home, whose every descendant can be told by a mark."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.output = folder / "runs"
        self.mark = f"RAPHA_TEST_RUN={folder.name}-{os.getpid()}"
        self._stderr = folder / "stderr"

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        name, _, value = self.mark.partition("=")
        command = [sys.executable, "-m", "scripts.run", "--output", str(self.output), *arguments]
        with self._stderr.open("w") as stderr:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "HOME": str(self.home), name: value},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    @property
    def said(self) -> str:
        return self._stderr.read_text()

    def wait_for(self, text: str, process: "subprocess.Popen[str]") -> None:
        """Wait until the run has said something on stderr."""
        end = time.monotonic() + 180
        while text not in self.said:
            assert process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.1)

    def processes(self) -> dict[int, str]:
        """The run's processes that are still there: id -> command line."""
        found = {}
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                if self.mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        return {pid: command for pid, command in found.items() if command}

    def survivors(self) -> list[str]:
        """The command lines of the run's processes that are still there."""
        return list(self.processes().values())


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="default"),
        pytest.param(("--framework", "jax"), id="jax", marks=pytest.mark.long("a second run")),
    ],
)
def test_a_job_is_settled_to_the_unit_and_delivered(run: Run, options: tuple[str, ...]) -> None:
    process = run.start("--json", *options)
    stdout, _ = process.communicate(timeout=400)
    assert process.returncode == 0, run.said
    summary = json.loads(stdout)

    assert summary["records"] == 569
    assert summary["held_out_accuracy"] >= 0.94
    assert summary["paid"] == 569 * 50_000 + summary["epochs"] * 200_000
    assert summary["paid"] + summary["refunded"] == summary["budget"]
    amounts = {payout["who"]: payout["amount"] for payout in summary["payouts"]}
    paid = summary["paid"]
    assert amounts == {
        "hospital": paid - paid * 20 // 100 - 2 * (paid * 5 // 100),
        "node owner": paid * 20 // 100,
        "onboarder": paid * 5 // 100,
        "protocol": paid * 5 // 100,
        "payer": summary["refunded"],
    }
    settlements = [t for t in summary["transactions"] if t["what"] == "Settled"]
    assert len(settlements) > 1, "it settles while it trains"

    folder = Path(summary["folder"])
    assert folder == run.output / summary["job_id"]
    assert {path.name for path in folder.iterdir()} == FILES
    assert load((folder / "weights.safetensors").read_bytes())
    assert (folder / "settlement.png").read_bytes().startswith(b"\x89PNG")
    bundle = ReceiptBundle.model_validate_json((folder / "receipts.json").read_bytes())
    assert all(check.holds for check in check_bundle(bundle, paid=paid))

    assert run.survivors() == []
    assert list(run.home.iterdir()) == []


def test_ctrl_c_in_the_middle_leaves_nothing(run: Run) -> None:
    process = run.start()
    run.wait_for("oracles and hub: ", process)
    assert len(run.survivors()) > 5
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "interrupted" in run.said
    assert run.survivors() == []


def test_a_node_that_dies_fails_the_run_by_name_and_leaves_nothing(run: Run) -> None:
    process = run.start()
    run.wait_for("oracles and hub: ", process)
    for pid, command in run.processes().items():
        if "rapha-edge" in command:
            os.kill(pid, signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    assert "ProcessDied" in run.said
    assert "node ended with status -9" in run.said
    assert run.survivors() == []
    assert any((run.output / "failed").rglob("node.log"))


@pytest.mark.long("brings up all processes a third time")
def test_killing_the_run_itself_leaves_nothing(run: Run) -> None:
    process = run.start()
    run.wait_for("oracles and hub: ", process)
    process.kill()
    process.wait()
    end = time.monotonic() + 30
    while run.survivors() and time.monotonic() < end:
        time.sleep(0.1)
    assert run.survivors() == []
