"""A study whose vectors are added up in secret, by real processes: it survives kills in the middle of a sum, and opens each sum once."""

import json
import os
from pathlib import Path

import pytest

from tests.client.vault_home import MEMBERS
from tests.e2e.deployed import COORDINATOR, Deployed, deployed, draft, wait_for
from tests.e2e.killing import rounds_answered, study_pid

pytestmark = pytest.mark.e2e
FIRST = MEMBERS[0]
EPSILON, ROUNDS, NAME = 0.3, 6, "secret"
RULE = {"n_min": 3, "c": 0, "noise": ["local", "shared"]}
TERMS: dict[str, object] = {"aggregation": "secure", "noise": "shared", "n_min": 3, "c": 0}


@pytest.fixture(scope="module")
def deadly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that names the call after which the first member's vault is to kill itself."""
    return tmp_path_factory.mktemp("deadly") / "call"


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, deadly: Path):
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent / "deadly"), os.environ.get("PYTHONPATH")]))
    with deployed(tmp_path_factory.mktemp("secret"), epsilon=EPSILON) as found:
        for member in MEMBERS:
            found.town.change(member, aggregation="secure", secure=RULE)
        for party in (COORDINATOR, *MEMBERS):
            found.start(party, {"PYTHONPATH": path, "CONSILIENCE_TEST_DEADLY": str(deadly)} if party == FIRST else None)
        for party in (COORDINATOR, *MEMBERS):
            found.wait_up(party)
        yield found


def standing(federation: Deployed, member: str) -> dict[str, object]:
    """What a member says of the study's sums."""
    known = json.loads(federation.node(member, "studies", "--json").stdout)["studies"]
    (row,) = [row for row in known if row["study"] == NAME]
    return row["secure"]


def die(federation: Deployed, deadly: Path, call: str) -> None:
    deadly.write_text(call)
    wait_for(lambda: not deadly.exists(), f"{FIRST} dies after {call}", story=federation.story(NAME))


def test_a_vault_that_asks_for_secret_sums_grants_no_plain_study(federation):
    federation.begin(draft("plain", rounds=ROUNDS))
    federation.wait_event("plain", "GrantsReceived")
    (granted,) = [item for item in federation.events("plain") if item["event"] == "GrantsReceived"]
    assert sorted(granted["declined"]) == sorted(MEMBERS)
    assert federation.kinds(FIRST).count("reserve") == 0
    federation.coordinator("study", "stop", "plain")


def test_a_secure_study_survives_kills_in_the_middle_of_its_sums(federation, deadly):
    federation.begin(draft(NAME, rounds=ROUNDS, deadline_seconds=90.0, **TERMS))
    federation.wait_event(NAME, "RoundDone")
    for call in ("client.secure.store Secrets.keep_sum", "client.secure.sums Sums.revealed"):
        die(federation, deadly, call)
    done = federation.count(NAME, "RoundDone")
    os.kill(study_pid(federation), 9)
    federation.wait_event(NAME, "Resumed")
    federation.wait_event(NAME, "RoundDone", done + 1)
    federation.kill(COORDINATOR, "link")
    federation.wait_finished(NAME, 300)

    assert rounds_answered(federation, NAME) == {number: MEMBERS for number in range(1, ROUNDS + 1)}
    (published,) = [item for item in federation.events(NAME) if item["event"] == "Published"]
    card = json.loads((Path(published["folder"]) / "card.json").read_text())["card"]
    assert card["spec"]["secure"]["noise"] == "shared" and card["members"] == []
    for member in MEMBERS:
        entries = federation.entries(member, "release")
        assert [body.data.number for body in entries] == list(range(1, ROUNDS + 2)), "each sum was opened once"
        (reserved,) = federation.entries(member, "reserve")
        for charge in reserved.data.charges:
            assert [event.kind for event in charge.events] == ["secure_sum"]
        broken = {claim.account: claim.epsilon for claim in reserved.data.if_broken}
        assert all(epsilon is None or epsilon >= EPSILON for epsilon in broken.values())
        wait_for(lambda member=member: federation.kinds(member).count("close") == 1, f"{member} closed it")
        assert standing(federation, member)["noise"] == "shared"
    federation.assert_ledgers(studies=1, rounds=ROUNDS)


def test_once_a_study_is_closed_no_secret_of_its_sums_is_left(federation):
    for member in MEMBERS:
        assert [file for file in (federation.home(member) / "secure").rglob("*") if file.is_file()] == []
