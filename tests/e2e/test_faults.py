"""Faults around the processes: network, time, disk, certificates, identities. A study goes on without whom they hit, says why, and takes
them back; nothing is released twice."""

import errno
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client.home import Home
from client.node.service import service_facts
from client.node_key import ensure_node_key
from client.service.paths import STANDING
from client.service.standing import read_standing
from federation.errors import ExitCode
from federation.flower.commands import environment
from federation.study import StudyDraft
from privacy.ledger import LedgerReader, verify
from server.certificates import issue_server, load_authority
from server.service.start import link_child
from server.service.studies import StudyBook
from simulations.deployment import free_port
from simulations.institutions import write_yaml
from tests.e2e.deployed import COORDINATOR, Deployed, deployed, draft, wait_for
from tests.e2e.relay import Relay

pytestmark = pytest.mark.e2e
ALDER, BIRCH, CEDAR = "alder", "birch", "cedar"
EPSILON = 0.3
DEADLINE = 10.0
ROUNDS = 24
DISK_BYTES = 24 << 20
CLOCK = """
import datetime
import os
import sys
import time

FILE = os.path.join(os.path.dirname(__file__), "ahead")
real, real_ns, Real = time.time, time.time_ns, datetime.datetime


def ahead():
    try:
        with open(FILE) as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


class Kind(type):
    def __instancecheck__(cls, thing):
        return isinstance(thing, Real)


class Shifted(Real, metaclass=Kind):
    @classmethod
    def now(cls, tz=None):
        return Real.now(tz) + datetime.timedelta(seconds=ahead())


time.time = lambda: real() + ahead()
time.time_ns = lambda: real_ns() + ahead() * 10**9
if "federation.flower.supernode" in sys.orig_argv:  # libraries in C, which the vault has, crash with a subclass
    datetime.datetime = Shifted
"""


class Clock:
    """The clock of one member's processes, which may go wrong while they run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(CLOCK)
        self._file = folder / "ahead"
        before = os.environ.get("PYTHONPATH")
        self.environment = {"PYTHONPATH": os.pathsep.join([str(folder), *([before] if before else [])])}

    def set(self, ahead: int) -> None:
        """Let it go `ahead` seconds before the true time."""
        self._file.write_text(str(ahead))


class Disk:
    """The disk under one member's home: a small one of its own where this account may mount it, else a limit on what its vault writes."""

    def __init__(self, federation: Deployed, member: str) -> None:
        self._federation = federation
        self._member = member
        self._home = federation.home(member)
        self.mounted = False

    def mount(self) -> None:
        """Move the home to a small disk, if that is possible."""
        aside = self._home.with_name(f"{self._home.name}.aside")
        self._home.rename(aside)
        self._home.mkdir(mode=0o700)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "none", str(self._home)]
        with suppress(OSError):
            self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        shutil.copytree(aside, self._home, dirs_exist_ok=True)

    def fill(self) -> None:
        """Leave no byte free."""
        if not self.mounted:
            self._limit(0)
            return
        with (self._home / "filler").open("wb", buffering=0) as filler:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        filler.write(b"\0" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def free(self) -> None:
        """Make room again."""
        if self.mounted:
            (self._home / "filler").unlink()
        else:
            self._limit(resource.RLIM_INFINITY)

    def _limit(self, most: int) -> None:
        pid = self._federation.pid(self._member, "vault")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def unmount(self) -> None:
        """Take the disk away."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self._home)], check=False)


class Town:
    """Three members and a coordinator who work: alder behind a relay and with a clock of its own, cedar on a small disk."""

    def __init__(self, federation: Deployed, relay: Relay, clock: Clock, disk: Disk) -> None:
        self.federation = federation
        self.relay = relay
        self.clock = clock
        self.disk = disk

    def begin(self, study: StudyDraft, roster_seconds: float = 60.0) -> None:
        """Want a study, as `study propose` and `study start` do."""
        root = self.federation.office.root
        (root / "studies").mkdir(exist_ok=True)
        write_yaml(root / "studies" / f"{study.name}.yaml", study, study.title)
        StudyBook(root).want(study.name, roster_seconds=roster_seconds)

    def left_out(self, study: str, member: str, code: str) -> list[int]:
        """Return the rounds of a study in which a member was left out with a code."""
        items = self.federation.events(study)
        wanted = [
            item for item in items if item["event"] == "LeftOut" and (item["who"], item["code"]) == (member, code)
        ]
        return [item["round"] for item in wanted]

    def answered(self, study: str, member: str) -> list[int]:
        """Return the rounds of a study in which a member's answer counted."""
        items = self.federation.events(study)
        return [item["round"] for item in items if item["event"] == "RoundDone" and member in item["answered"]]

    def wait(self, holds: Callable[[], bool], what: str, study: str, seconds: float = 120.0) -> None:
        """Wait, and fail at once when the study is over before."""
        file = self.federation.office.root / "run" / "studies" / f"{study}.json"
        wait_for(lambda: holds() or _over(file), what, seconds, self.federation.story(study))
        assert holds(), f"the study ended before: {what}\n{file.read_text()}\n{self.federation.story(study)()}"

    def wait_left_out(self, study: str, member: str, code: str, after: int = 0) -> int:
        """Wait until a member was left out of a round after `after`; return the last such round."""
        found = lambda: [number for number in self.left_out(study, member, code) if number > after]  # noqa: E731
        self.wait(lambda: bool(found()), f"{member} is left out with {code}", study)
        return found()[-1]

    def wait_answered(self, study: str, member: str, after: int) -> int:
        """Wait until a member answered a round after `after`; return the first such round."""
        found = lambda: [number for number in self.answered(study, member) if number > after]  # noqa: E731
        self.wait(lambda: bool(found()), f"{member} answers again", study)
        return found()[0]

    def check_study(self, study: str, members: tuple[str, ...], rounds: int) -> None:
        """The members' ledgers verify; the study was paid for once, as the policy says, closed, and each number released once."""
        rid = next(item["study"] for item in self.federation.events(study) if item["event"] == "StudySigned")
        for member in members:
            bodies = entries(self.federation, self.federation.home(member), member)
            reserved = [body for body in bodies if body.kind == "reserve" and body.rid == rid]
            assert [body.data.epsilon for body in reserved] == [EPSILON]
            assert sum(body.kind == "close" and body.rid == rid for body in bodies) == 1
            numbers = [body.data.number for body in bodies if body.kind == "release" and body.rid == rid]
            assert len(numbers) == len(set(numbers)) <= rounds + 1
            assert set(self.answered(study, member)) <= set(numbers)


def _over(file: Path) -> bool:
    try:
        return any(f'"state": "{state}"' in file.read_text() for state in ("finished", "stopped", "failed"))
    except FileNotFoundError:
        return False


def entries(federation: Deployed, home: Path, member: str) -> list[Any]:
    """Return the bodies of a ledger that verifies."""
    key, path = federation.town.key(member), Home(home).ledger_file
    found = verify(path, key)
    assert found.valid, found.findings
    with LedgerReader.read(path, key) as ledger:
        return [entry.body for entry in ledger.entries()]


def reason(federation: Deployed, party: str, child: str) -> str:
    """Return why a process ended last, as the supervisor says it."""
    return str(federation.state(party).get(child, {}).get("reason") or "")


def connection(federation: Deployed, member: str) -> str | None:
    """Return how a member's SuperNode gets on with the link, as `node status` says it."""
    found = service_facts(Home(federation.home(member)))["link"]
    return None if found is None else str(found)


def wait_connected(federation: Deployed, member: str) -> None:
    wait_for(lambda: connection(federation, member) == "connected", f"{member} is connected", 180)


def wait_vault(federation: Deployed, member: str, before: int) -> None:
    """Wait until another process than the one before is a member's vault, and waits for requests."""
    home = Home(federation.home(member))

    def back() -> bool:
        said = read_standing(home.run_folder / STANDING)
        return said is not None and said.pid != before and said.phase == "waiting"

    wait_for(back, f"{member}'s vault is back", 180, lambda: federation.tail(member))


def doctor(federation: Deployed, member: str, variables: dict[str, str] | None = None) -> dict[str, str]:
    """Return what fails by `node doctor`: check -> what and action."""
    words = ["node", "doctor", "--home", str(federation.home(member)), "--json"]
    found = federation.cli_json(*words, variables=variables)["findings"]
    return {item["check"]: f"{item['what']} {item['action']}" for item in found if item["level"] == "fail"}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    root = tmp_path_factory.mktemp("town")
    with deployed(root, epsilon=EPSILON) as federation, Relay(federation.port) as relay:
        clock, disk = Clock(root / "clock"), Disk(federation, CEDAR)
        federation.serve(ALDER, link=relay.address)
        try:
            disk.mount()
            federation.start(COORDINATOR)
            federation.start(ALDER, clock.environment)
            federation.start(BIRCH)
            federation.start(CEDAR)
            for party in (COORDINATOR, ALDER, BIRCH, CEDAR):
                federation.wait_up(party)
            yield Town(federation, relay, clock, disk)
        finally:
            federation.stop_all()
            disk.unmount()


def test_a_network_that_is_cut_and_healed(town: Town) -> None:
    federation, relay, name = town.federation, town.relay, "network"
    rounds = 40  # a SuperNode pauses for up to 20 seconds between two attempts
    town.begin(draft(name, rounds=rounds, deadline_seconds=DEADLINE))
    town.wait(lambda: federation.count(name, "RoundDone") >= 2, "two rounds are done", name)
    cut = time.monotonic()
    relay.cut()
    wait_for(lambda: connection(federation, ALDER) == "trying", "alder's SuperNode tries to reach the link")
    assert "tries to reach the link" in federation.node(ALDER, "status").stdout
    lost = town.wait_left_out(name, ALDER, "CSL-S202")
    seconds = time.monotonic() - cut
    assert relay.knocked(cut) <= 6 + seconds, f"{relay.knocked(cut)} attempts in {seconds:.0f} s"
    relay.heal()
    back = town.wait_answered(name, ALDER, lost)
    relay.hold()  # now nothing is refused: it is only silent
    lost = town.wait_left_out(name, ALDER, "CSL-S202", back)
    relay.heal()
    town.wait_answered(name, ALDER, lost)
    federation.wait_finished(name)
    assert town.answered(name, BIRCH) == town.answered(name, CEDAR) == list(range(1, rounds + 1))
    town.check_study(name, (ALDER, BIRCH, CEDAR), rounds)


def test_a_slow_vault_and_a_full_disk(town: Town) -> None:
    federation, name = town.federation, "slow"
    town.begin(draft(name, rounds=ROUNDS, deadline_seconds=DEADLINE))
    town.wait(lambda: federation.count(name, "RoundDone") >= 2, "two rounds are done", name)
    slow = federation.kill(BIRCH, "vault", signal.SIGSTOP)
    try:
        lost = town.wait_left_out(name, BIRCH, "CSL-S202")
    finally:
        os.kill(slow, signal.SIGCONT)
    town.wait_answered(name, BIRCH, lost)
    assert federation.pid(BIRCH, "vault") == slow

    vault, restarts = federation.pid(CEDAR, "vault"), federation.state(CEDAR)["vault"]["restarts"]
    town.disk.fill()
    try:
        lost = town.wait_left_out(name, CEDAR, "CSL-S206")  # a refusal like any other
        assert verify(Home(federation.home(CEDAR)).ledger_file, federation.town.key(CEDAR)).valid
    finally:
        town.disk.free()
    town.wait_answered(name, CEDAR, lost)
    assert (federation.pid(CEDAR, "vault"), federation.state(CEDAR)["vault"]["restarts"]) == (vault, restarts)
    federation.wait_finished(name)
    town.check_study(name, (ALDER, BIRCH, CEDAR), ROUNDS)


def test_a_vault_that_is_killed_on_a_full_disk_starts_when_there_is_room(town: Town) -> None:
    if not town.disk.mounted:
        pytest.skip("this account may not mount a small disk")
    federation = town.federation
    before = federation.pid(CEDAR, "vault")
    town.disk.fill()
    try:
        federation.kill(CEDAR, "vault")
        time.sleep(3.0)  # it is started again in this time, at least once
    finally:
        town.disk.free()
    wait_vault(federation, CEDAR, before)
    assert verify(Home(federation.home(CEDAR)).ledger_file, federation.town.key(CEDAR)).valid


def test_a_clock_that_is_ten_minutes_off_and_a_node_that_exists_twice(town: Town) -> None:
    federation, name = town.federation, "clock"
    twin = _copy(federation, BIRCH, "twin")
    town.begin(draft(name, rounds=ROUNDS, deadline_seconds=DEADLINE))
    town.wait(lambda: federation.count(name, "RoundDone") >= 2, "two rounds are done", name)

    # A copy of birch's home, first with a node key that no charter names, then with birch's own while birch is on line.
    stranger = Home(twin)
    known = stranger.node_key.read_bytes()
    stranger.node_key.unlink()
    ensure_node_key(stranger)
    federation.start("twin")

    town.clock.set(600)
    wait_for(lambda: "clock" in reason(federation, ALDER, "supernode"), "the clock is named as a reason")
    lost = town.wait_left_out(name, ALDER, "CSL-S202")
    found = doctor(federation, ALDER, town.clock.environment)
    assert "10 minutes ahead" in found["clock"] and "time synchronisation" in found["clock"]
    assert "clock" in federation.node(ALDER, "status").stdout
    town.clock.set(-600)
    ends = federation.state(ALDER)["supernode"]["restarts"]
    wait_for(lambda: federation.state(ALDER)["supernode"]["restarts"] > ends + 1, "it was tried again")
    assert "clock" in reason(federation, ALDER, "supernode")
    assert "10 minutes behind" in doctor(federation, ALDER, town.clock.environment)["clock"]
    town.clock.set(0)

    wait_for(
        lambda: "does not let this node in" in reason(federation, "twin", "supernode"), "a stranger is let in by none"
    )
    assert "another node key" in doctor(federation, "twin")["charter"]
    federation.stop("twin")
    stranger.node_key.write_bytes(known)
    federation.start("twin")
    refused = "counts the SuperNode that ran before as still on line"
    wait_for(lambda: refused in reason(federation, "twin", "supernode"), "the second one is refused")
    assert connection(federation, BIRCH) == "connected"

    federation.wait_finished(name)
    assert lost not in town.answered(name, ALDER)  # the others went on without it
    assert town.answered(name, BIRCH) == town.answered(name, CEDAR) == list(range(1, ROUNDS + 1))
    town.check_study(name, (BIRCH, CEDAR), ROUNDS)
    wait_connected(federation, ALDER)  # by itself, once its clock was right and the link had forgotten the one before


def test_a_copied_home_in_the_place_of_the_first_releases_nothing(town: Town) -> None:
    federation, name, twin = town.federation, "copied", town.federation.home("twin")
    size = len(entries(federation, twin, BIRCH))
    federation.stop(BIRCH)
    wait_connected(federation, "twin")
    town.begin(draft(name, rounds=5, deadline_seconds=DEADLINE), roster_seconds=15.0)
    federation.wait_finished(name)
    assert town.left_out(name, BIRCH, "CSL-S706")
    assert not town.answered(name, BIRCH)
    assert town.answered(name, ALDER) == town.answered(name, CEDAR) == list(range(1, 6))
    kinds = [body.kind for body in entries(federation, twin, BIRCH)[size:]]
    assert "release" not in kinds and "reserve" not in kinds
    assert "older copy" in doctor(federation, "twin")["witness"]
    federation.stop("twin")
    federation.start(BIRCH)
    federation.wait_up(BIRCH)
    wait_connected(federation, BIRCH)
    town.check_study(name, (ALDER, CEDAR), 5)


def test_a_study_on_a_contract_that_a_node_does_not_serve(town: Town) -> None:
    federation, name = town.federation, "unserved"
    file = federation.home(CEDAR) / "node.yaml"
    text = file.read_text()
    vault = federation.pid(CEDAR, "vault")
    file.write_text(text.replace("  shop:\n", "  other:\n"))
    federation.kill(CEDAR, "vault", signal.SIGTERM)
    wait_vault(federation, CEDAR, vault)
    town.begin(draft(name, rounds=5, deadline_seconds=DEADLINE))
    federation.wait_finished(name)
    assert town.left_out(name, CEDAR, "CSL-S206")
    assert town.answered(name, ALDER) == town.answered(name, BIRCH) == list(range(1, 6))
    refused = [body.data for body in entries(federation, file.parent, CEDAR) if body.kind == "refuse"]
    assert [(item.code, item.study) for item in refused][-1] == ("CSL-C508", name)
    assert "CSL-C508" in doctor(federation, CEDAR)["contracts"]
    town.check_study(name, (ALDER, BIRCH), 5)


def _copy(federation: Deployed, member: str, name: str) -> Path:
    """Copy a member's home as somebody would who puts the machine's disk into another; it gets a port of its own here."""
    home = federation.home(name)
    shutil.copytree(federation.home(member), home, ignore=shutil.ignore_patterns("run", "logs"))
    federation.runtime_ports[name] = free_port()
    federation.serve(name)
    return home


# -- a coordinator that is not there, and one whose certificate has expired


@contextmanager
def link_by_hand(federation: Deployed) -> Iterator[None]:
    """Run the link alone, past the checks of `coordinator start`."""
    office = federation.office
    for folder in (office.run, office.logs):
        folder.mkdir(mode=0o700, exist_ok=True)
    child = link_child(office, office.config())
    with (office.logs / "link-by-hand.log").open("wb") as log:
        process = subprocess.Popen(
            child.command,
            env={**os.environ, **environment(office.run / "flower")},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for(lambda: _listens(federation.port) or process.poll() is not None, "the link listens")
            yield
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A founded federation in which nothing runs."""
    with deployed(tmp_path_factory.mktemp("idle"), epsilon=EPSILON) as federation:
        yield federation


def test_a_coordinator_that_is_not_there_and_one_whose_certificate_expired(idle: Deployed) -> None:
    with Relay(idle.port) as relay:
        idle.serve(ALDER, link=relay.address)
        relay.cut()
        idle.start(ALDER)
        idle.wait_up(ALDER)
        wait_for(lambda: connection(idle, ALDER) == "trying", "it tries to reach the link")
        _check_patience(idle, relay)

        office = idle.office
        authority = load_authority(office.authority_key, office.authority_file, allow_plain=True)
        long_ago = datetime.now(UTC) - timedelta(days=1000)
        issue_server(authority, ["127.0.0.1"], office.server_key, office.server_file, "test", long_ago)
        refused = idle.coordinator("start", check=False)
        assert refused.returncode == ExitCode.INTEGRITY
        assert "CSL-S120" in refused.stderr and "certificate renew" in refused.stderr

        with link_by_hand(idle):
            since, restarts = time.monotonic(), idle.state(ALDER)["supernode"]["restarts"]
            relay.heal()
            wait_for(lambda: "has expired" in reason(idle, ALDER, "supernode"), "the certificate is named as a reason")
            found = doctor(idle, ALDER)["tls"]
            assert "expired" in found and "certificate renew" in found
            assert "certificate has expired" in idle.node(ALDER, "status").stdout
            tries = idle.state(ALDER)["supernode"]["restarts"] - restarts
            # Each start knocks once; doctor knocks up to three times.
            assert relay.knocked(since) <= 2 * tries + 6
            assert tries <= 2 + (time.monotonic() - since) / 2

        idle.coordinator("certificate", "renew")
        idle.start(COORDINATOR)
        idle.wait_up(COORDINATOR)
        wait_connected(idle, ALDER)
        assert reason(idle, ALDER, "vault") == ""
        assert idle.stop(COORDINATOR) == idle.stop(ALDER) == 0


def _check_patience(federation: Deployed, relay: Relay, seconds: float = 8.0) -> None:
    """While the coordinator is not there, a node's processes do next to nothing."""
    pids = [federation.pid(ALDER, "supernode"), federation.pid(ALDER, "vault")]
    wait_for(lambda: service_facts(Home(federation.home(ALDER)))["vault"] == "waiting", "the vault is open")
    since, before = time.monotonic(), [cpu_seconds(pid) for pid in pids]
    time.sleep(seconds)
    assert relay.knocked(since) <= seconds
    used = sum(cpu_seconds(pid) - start for pid, start in zip(pids, before, strict=True))
    assert used < 0.15 * seconds, f"{used:.2f} s of CPU in {seconds:g} s"


# -- bad input: what is refused before anything runs, or said by a node that runs


def _another_digest(federation: Deployed, party: str) -> None:
    (federation.home(party) / "charter.digest").write_text("0" * 64 + "\n")


def _open_rights(federation: Deployed, party: str) -> None:
    (federation.home(party) / "keys" / ("link.secret" if party == COORDINATOR else "node.key")).chmod(0o644)


def _unknown_member(federation: Deployed, party: str) -> None:
    file = federation.home(party) / "node.yaml"
    file.write_text(file.read_text().replace(f"member: {party}", "member: dogwood"))


def _not_an_address(federation: Deployed, party: str) -> None:
    federation.serve(party, link="link.example")


@pytest.mark.parametrize(
    ("party", "spoil", "code", "action"),
    [
        (BIRCH, _another_digest, "CSL-F204", "charter"),
        (COORDINATOR, _another_digest, "CSL-F204", "charter"),
        (BIRCH, _open_rights, "CSL-F312", "chmod 600"),
        (COORDINATOR, _open_rights, "CSL-F312", "chmod 600"),
        (BIRCH, _unknown_member, "CSL-F203", "charter"),
        (BIRCH, _not_an_address, "CSL-F105", "service.link"),
    ],
)
def test_a_start_that_could_not_work_is_refused_with_the_next_action(
    idle: Deployed, party: str, spoil: Callable[[Deployed, str], None], code: str, action: str
) -> None:
    home = idle.home(party)
    kept = {path: (path.read_bytes(), path.stat().st_mode) for path in home.rglob("*") if path.is_file()}
    spoil(idle, party)
    try:
        group = "coordinator" if party == COORDINATOR else "node"
        done = idle.cli(group, "start", "--home", str(home), check=False)
        assert done.returncode not in (ExitCode.OK, ExitCode.INTERNAL)
        assert code in done.stderr and action in done.stderr and "Traceback" not in done.stderr
    finally:
        for path, (content, mode) in kept.items():
            if path.read_bytes() != content:
                path.write_bytes(content)
            path.chmod(mode)


def test_ports_that_are_taken_on_both_sides_and_a_name_that_nobody_knows(idle: Deployed) -> None:
    with socket.create_server(("127.0.0.1", idle.port)):
        done = idle.coordinator("start", check=False)
        assert done.returncode == ExitCode.FEDERATION and "CSL-S809" in done.stderr and "link_port" in done.stderr
    idle.serve(CEDAR, link="nobody.invalid:443")
    with socket.create_server(("127.0.0.1", idle.runtime_ports[CEDAR])):
        idle.start(CEDAR)
        wait_for(lambda: "runtime_port" in reason(idle, CEDAR, "supernode"), "the port that is taken is named")
        found = doctor(idle, CEDAR)
        assert "nobody.invalid is not a known name" in found["name"] and "spelling" in found["name"]
        assert "choose another port" in found[f"port {idle.runtime_ports[CEDAR]}"]
    wait_for(lambda: connection(idle, CEDAR) == "trying", "it goes on by itself, and tries to reach the link")
    assert idle.stop(CEDAR) == 0
