"""A node as real processes, with no coordinator there: it waits, says so, loses nothing when it is killed, and shows itself to nobody."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from federation.doctor_ports import listeners
from federation.errors import ExitCode
from tests.client import vault_home
from tests.founding_parts import link

pytestmark = pytest.mark.e2e
CLI = (sys.executable, "-c", "from federation.command import main; main()")


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def wait_for(what, seconds=60.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to pass in time")


class Node:
    def __init__(self, root: Path) -> None:
        town = vault_home.found(root, link=link(address=f"127.0.0.1:{free_port()}"))
        self.home = town.homes["alder"]
        self.port, self.metrics = free_port(), free_port()
        with self.home.node_file.open("a") as file:
            file.write(f"service: {{runtime_port: {self.port}, metrics_port: {self.metrics}}}\n")
        environment = {**os.environ, "CUSTOMERS_URL": "sqlite:///secret-canary", "OMP_NUM_THREADS": "1"}
        self.output = (root / "out").open("wb")
        command = [*CLI, "node", "start", "--home", str(self.home.root)]
        self.process = subprocess.Popen(
            command, env=environment, stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True
        )

    def run(self, *words):
        return subprocess.run(
            [*CLI, "node", *words, "--home", str(self.home.root)], capture_output=True, text=True, check=False
        )

    def pid(self, child):
        state = json.loads((self.home.run_folder / "service.json").read_text())
        return next(item["pid"] for item in state["children"] if item["name"] == child)

    def phase(self):
        try:
            return json.loads((self.home.run_folder / "vault.json").read_text())
        except (OSError, ValueError):
            return {"phase": None, "pid": None}

    def close(self):
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.output.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    made = Node(tmp_path_factory.mktemp("node"))
    try:
        wait_for(lambda: made.phase()["phase"] == "waiting")
        yield made
    finally:
        made.close()


def test_it_tries_to_reach_a_coordinator_that_is_not_there_and_says_so(node):
    wait_for(lambda: "retrying" in (node.home.logs_folder / "supernode.log").read_text())
    out = node.run("status").stdout
    assert "tries to reach the link" in out and "vault: up, waits for requests" in out
    found = json.loads(node.run("doctor", "--json").stdout)["findings"]
    failing = [item["check"] for item in found if item["level"] == "fail"]
    assert failing == ["reach"]


def test_nothing_listens_beyond_this_machine(node):
    for port in (node.port, node.metrics):
        assert listeners(port)
        with socket.create_connection(("127.0.0.1", port), 2):
            pass
    tables = Path(f"/proc/{node.pid('vault')}/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in tables if line.split()[3] == "0A"]
    ours = [entry for entry in listening if int(entry.rpartition(":")[2], 16) in (node.port, node.metrics)]
    assert len(ours) == 2 and all(entry.startswith("0100007F:") for entry in ours)


def test_the_supernode_knows_no_password_and_the_vault_leaves_no_core(node):
    supernode, vault = node.pid("supernode"), node.pid("vault")
    assert "secret-canary" not in Path(f"/proc/{supernode}/environ").read_text()
    assert str(node.home.identity_key) not in Path(f"/proc/{supernode}/cmdline").read_text()
    limits = Path(f"/proc/{vault}/limits").read_text().splitlines()
    assert next(line.split()[4:6] for line in limits if line.startswith("Max core")) == ["0", "0"]
    opened = [os.readlink(entry) for entry in Path(f"/proc/{supernode}/fd").iterdir() if entry.exists()]
    assert not [path for path in opened if path.endswith((".sqlite", "identity.key", "store.key"))]


def test_a_second_start_is_refused(node):
    done = node.run("start")
    assert done.returncode == ExitCode.FEDERATION and "CSL-F310" in done.stderr


def test_a_vault_that_was_killed_comes_back(node):
    before = node.pid("vault")
    os.kill(before, signal.SIGKILL)
    began = time.monotonic()
    wait_for(lambda: node.phase()["phase"] == "waiting" and node.phase()["pid"] != before)
    seconds = time.monotonic() - began
    assert seconds < 40, f"{seconds:.1f} s"  # at most 15 on a machine that has nothing else to do: docs/benchmarks.md
    assert "started again 1 times" in node.run("status").stdout


def test_a_supernode_that_was_killed_is_started_again_and_the_vault_waits_for_it(node):
    vault, before = node.pid("vault"), node.pid("supernode")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: node.pid("supernode") not in (None, before))
    wait_for(lambda: node.phase()["phase"] == "waiting")
    assert node.pid("vault") == vault


def test_it_stops_when_told_and_nothing_is_left(node):
    pids = [node.process.pid, node.pid("vault"), node.pid("supernode")]
    done = node.run("stop")
    assert done.returncode == 0 and "was stopped" in done.stdout
    assert node.process.wait(timeout=20) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert node.phase()["phase"] == "stopped"
    for log in ("vault.log", "supernode.log"):
        text = (node.home.logs_folder / log).read_text()
        assert "canary" not in text and (node.home.logs_folder / log).stat().st_mode & 0o077 == 0
    for line in (node.home.logs_folder / "vault.log").read_text().splitlines():
        json.loads(line)
