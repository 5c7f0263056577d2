"""How tests hold a federation still at a moment of their choice, kill one of its processes there, and check what came of it."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from client.replies import Replies
from client.studies import OpenStudy, Studies
from client.unlock import unlock
from federation.encoding import sha256_hex
from federation.messages import dump_tensors, read_tensors
from federation.networks import tensor_shapes
from privacy.ledger import LedgerReader
from server.course import start_course
from tests.client.vault_home import CONTRACT, MEMBERS
from tests.e2e.deployed import COORDINATOR, Deployed, wait_for


@contextmanager
def still(pid: int) -> Iterator[None]:
    """Hold a process still; one that was killed meanwhile stays dead."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGCONT)


def alive(pid: int) -> bool:
    """Whether a process is there and no mere name of one that has ended."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(parent: int) -> list[int]:
    """Return the processes that a process started."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == parent:
            found.append(int(file.parent.name))
    return found


def study_pid(federation: Deployed) -> int:
    """Return the one study process that runs."""
    (pid,) = children_of(federation.pid(COORDINATOR, "executor"))
    return pid


def opened(federation: Deployed, name: str, member: str) -> OpenStudy:
    """Return a study as a vault granted it."""
    studies = Studies(federation.town.homes[member].folder("studies"))
    (found,) = [study for rid in studies.rids() if (study := studies.find(rid)).spec.draft.name == name]
    return found


def releases(federation: Deployed, name: str, member: str) -> dict[int, str]:
    """Return what a member released for a study, by the ledger: number -> digest."""
    rids = {body.rid for body in federation.entries(member, "reserve") if body.data.study == name}
    return {body.data.number: body.data.sha256 for body in federation.entries(member, "release") if body.rid in rids}


def kept(federation: Deployed, name: str, member: str) -> set[int]:
    """Return the numbers of the replies that a vault keeps for a study; cheap, and so what tests wait by."""
    (rid,) = {item["study"] for item in federation.events(name) if item["event"] == "StudySigned"}
    return {int(file.stem.partition("-")[2]) for file in (federation.home(member) / "replies").glob(f"{rid}-*.reply")}


def last_started(federation: Deployed, name: str) -> int:
    """Return the number of the last round that was begun."""
    return max((item["round"] for item in federation.events(name) if item["event"] == "RoundStarted"), default=0)


@contextmanager
def in_a_round(federation: Deployed, name: str, slow: str, after: int = 0) -> Iterator[int]:
    """Hold a study within a round beyond `after`: all have answered but `slow`, whose vault is held still. Yields the round."""
    story = federation.story(name)
    wait_for(lambda: last_started(federation, name) > after, f"{name} is beyond round {after}", story=story)
    with still(federation.pid(slow, "vault")):
        others = [member for member in MEMBERS if member != slow]

        def held() -> bool:
            number = last_started(federation, name)
            return number not in kept(federation, name, slow) and all(
                number in kept(federation, name, member)
                and not at_hand(federation, member)
                and nothing_on_its_way(federation, member)
                for member in others
            )

        wait_for(held, f"a round of {name} that waits for {slow}", story=story)
        yield last_started(federation, name)


@contextmanager
def between_rounds(federation: Deployed, name: str, slow: str, after: int = 0) -> Iterator[int]:
    """Hold a study between two rounds: everybody has answered, and the coordinator has not looked yet. Yields the round answered."""
    with in_a_round(federation, name, slow, after) as number:
        study = study_pid(federation)
        os.kill(study, signal.SIGSTOP)
    try:
        wait_for(
            lambda: (
                number in kept(federation, name, slow)
                and not at_hand(federation, slow)
                and nothing_on_its_way(federation, slow)
            ),
            f"round {number} of {name} is answered by {slow}",
            story=federation.story(name),
        )
        yield number
    finally:
        if alive(study):
            os.kill(study, signal.SIGCONT)


def at_hand(federation: Deployed, member: str) -> bool:
    """Whether a vault has a request at hand that is not answered yet."""
    return (federation.home(member) / "run" / "request.json").exists()


def nothing_on_its_way(federation: Deployed, member: str) -> bool:
    """Whether a SuperNode has passed on what it received: an answer that is being sent when the link dies may be lost for its round."""
    log = (federation.home(member) / "logs" / "supernode.log").read_text(errors="replace")
    return log.rfind("Sent successfully") > log.rfind("Received successfully")


def rounds_answered(federation: Deployed, name: str) -> dict[int, tuple[str, ...]]:
    """Return who answered which round; no round is done twice."""
    done = [item for item in federation.events(name) if item["event"] == "RoundDone"]
    assert len({item["round"] for item in done}) == len(done)
    return {item["round"]: tuple(item["answered"]) for item in done}


def check_model(federation: Deployed, name: str) -> None:
    """The published model is, bit for bit, what follows from the one reply that each vault keeps for each round, as its ledger names it."""
    answered = rounds_answered(federation, name)
    studies = {member: opened(federation, name, member) for member in MEMBERS}
    spec = studies[MEMBERS[0]].spec
    shapes = {key: (shape, "float32") for key, (shape, _) in tensor_shapes(spec.draft.model, CONTRACT).items()}
    course = start_course(spec, {member: study.grant for member, study in studies.items()}, CONTRACT)
    for number in range(1, spec.training.rounds + 1):
        found = {}
        for member in answered[number]:
            home = federation.town.homes[member]
            kept = Replies(home.folder("replies"), unlock(home).store).find(spec.digest(), number)
            assert kept is not None
            assert releases(federation, name, member)[number] == sha256_hex(kept.payload)
            found[member] = read_tensors(kept.payload, shapes)
        course = course.after(found)
    (published,) = {item["model"] for item in federation.events(name) if item["event"] == "Published"}
    assert published == sha256_hex(dump_tensors(course.model()))


def check_budgets(federation: Deployed, epsilon: float) -> None:
    """Every vault has charged each of its studies once, by its grant, and nothing else."""
    for member in MEMBERS:
        home = federation.town.homes[member]
        reserved = [body.data.study for body in federation.entries(member, "reserve")]
        assert len(reserved) == len(set(reserved))
        for body in federation.entries(member, "reserve"):
            assert body.data.epsilon <= epsilon
            assert body.data.epsilon == opened(federation, body.data.study, member).grant.epsilon
        with LedgerReader.read(home.ledger_file, federation.town.key(member)) as ledger:
            for account in ("training", "holdout"):
                charged = [
                    event
                    for entry in ledger.entries(kinds=("reserve",))
                    for charge in entry.body.data.charges
                    if charge.account == account
                    for event in charge.events
                ]
                assert list(ledger.events(account)) == charged


def log_time(file: Path, event: str, since: float) -> float | None:
    """Return when a line of JSON with this event was logged first after `since` (seconds of the epoch)."""
    for line in file.read_text(errors="replace").splitlines():
        if line.startswith("{"):
            entry = json.loads(line)
            moment = datetime.fromisoformat(entry["ts"]).timestamp()
            if entry.get("event") == event and moment > since:
                return moment
    return None
