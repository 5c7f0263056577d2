"""Real processes that are killed or interrupted in the middle of their work."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from privacy.ledger import LedgerReader, verify
from tests.client import vault_home
from tests.simulations import test_whole_study

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
RUN = """
import sys
from pathlib import Path
from client.app import VaultShelf, make_app
from server.app import build_app
from simulations.local_grid import LocalGrid, run_study
root = Path(sys.argv[1])
shelf = make_app(VaultShelf())
nodes = {n: (shelf, {"home": str(root / m)}) for n, m in enumerate(("alder", "birch", "cedar"), 1)}
config = {"coordinator-home": str(root / "coordinator"), "study": "propensity", "allow-plain-key": True}
with LocalGrid(nodes) as grid:
    run_study(build_app(lambda event: print(type(event).__name__, flush=True)), grid, config)
"""


def start(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(root)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )


def follow(process: subprocess.Popen[str], event: str, times: int) -> bool:
    """Read the process's lines until `event` was printed so often; False when it ended before."""
    assert process.stdout is not None
    for line in process.stdout:
        times -= line.strip() == event
        if times <= 0:
            return True
    return False


@pytest.mark.parametrize(
    ("event", "times"), [("StudySigned", 1), ("GrantsReceived", 1), ("RoundStarted", 4), ("RoundDone", 20)]
)
def test_everybody_killed_in_the_middle_of_a_study_goes_on_and_pays_once(tmp_path, event, times):
    town = vault_home.found(tmp_path, epsilon=4.0)
    test_whole_study.furnish(town, tmp_path, test_whole_study.DRAFT)
    first = start(tmp_path)
    assert follow(first, event, times)
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=30)
    second = start(tmp_path)
    assert second.wait(timeout=120) == 0
    for member, home in town.homes.items():
        found = verify(home.ledger_file, town.key(member))
        assert found.valid, found.findings
        with LedgerReader.read(home.ledger_file, town.key(member)) as ledger:
            kinds = [entry.body.kind for entry in ledger.entries()]
        assert (kinds.count("reserve"), kinds.count("release"), kinds.count("close")) == (1, 33, 1)
        # consent stands there once for each reading: the second process reads again what is left to do
        assert kinds.count("consent") in (1, 2) and (kinds.count("witness"), kinds.count("refuse")) == (1, 0)


def test_the_demo_interrupted_from_the_keyboard_says_so_and_can_be_run_again(tmp_path):
    command = [str(Path(sys.executable).parent / "consilience"), "simulate", "demo", "--out", str(tmp_path / "demo")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A shell that runs this in the background ignores the keyboard, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,  # noqa: PLW1509
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "signed" in line:
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Interrupted" in errors
    assert not (tmp_path / "demo" / "report.html").exists()


def test_every_command_of_the_readme_runs(tmp_path):
    """In the README's order, in a copy of the repository; `make test` is what runs this, so it is left out."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    commands = [line for line in lines if line and not line.startswith(("make test", "source "))]
    assert len(commands) > 12
    for name in ("configs", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "100"}
    done = set()
    for command in commands:
        runnable = command.replace("make demo", "consilience simulate demo --out out/demo").replace(
            "make federation", "consilience simulate federation --out out/federation --members 3 --rounds 5"
        )
        if runnable in done:  # `make demo` is what a researcher runs by its own name
            continue
        done.add(runnable)
        result = subprocess.run(
            ["bash", "-c", runnable],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
    assert (tmp_path / "out" / "demo" / "report.html").stat().st_size > 100_000
