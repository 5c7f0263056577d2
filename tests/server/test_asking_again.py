"""Members that decline are asked again: their officers may have to approve the study first."""

import time
from pathlib import Path

import pytest
from flwr.app import RecordDict

from federation.errors import FederationError
from federation.messages import RECORD
from server.events import GrantsReceived, Resumed
from server.exchange import Clock
from server.gathering import OFFER_PAUSE_SECONDS
from tests.server.fakes import FakeFederation, FakeVault, refuse
from tests.server.test_coordinator import left_out, run


@pytest.fixture
def federation(tmp_path: Path) -> FakeFederation:
    return FakeFederation.make(tmp_path)


class Hours:
    """A clock on which hours pass at once: `pauses` are the long ones, `each` is called after each of them."""

    def __init__(self, each) -> None:
        self.pauses: list[float] = []
        self.ahead, self.each = 0.0, each

    def clock(self) -> Clock:
        return Clock(lambda: time.monotonic() + self.ahead, self.sleep)

    def sleep(self, seconds: float) -> None:
        if seconds < 1.0:  # waiting for a reply
            time.sleep(seconds)
            return
        self.ahead += seconds
        self.pauses.append(seconds)
        self.each(len(self.pauses))


def offers(federation: FakeFederation) -> tuple[dict[str, list[bytes]], set[str]]:
    """Let every vault note the offers that it gets; alpha and beta decline until they are taken out of the second value."""
    asked: dict[str, list[bytes]] = {name: [] for name in federation.vaults}

    def note(vault: FakeVault, request: RecordDict, reply: RecordDict) -> RecordDict:
        asked[vault.member].append(bytes(request[RECORD]["header"]))
        return refuse(vault, request, reply) if vault.member in declining else reply

    declining = {"alpha", "beta"}
    for vault in federation.vaults.values():
        vault.edits["query.offer"] = note
    return asked, declining


def test_who_declined_is_asked_again_until_officers_have_approved(federation: FakeFederation) -> None:
    asked, declining = offers(federation)
    hours = Hours(lambda count: declining.discard({3: "alpha", 5: "beta"}.get(count, "")))
    card = run(federation, grant_seconds=7200.0, clock=hours.clock()).card
    assert [item.member for item in card.participants] == ["alpha", "beta", "delta", "gamma"]
    assert {name: len(found) for name, found in asked.items()} == {"alpha": 4, "beta": 6, "delta": 1, "gamma": 1}
    assert len({header for found in asked.values() for header in found}) == 1  # the very same offer every time
    assert hours.pauses == [OFFER_PAUSE_SECONDS] * 5
    assert federation.happened(GrantsReceived)[0].declined == ()
    assert not left_out(federation)


def test_who_goes_on_declining_is_left_out_when_the_time_is_over(federation: FakeFederation) -> None:
    asked, declining = offers(federation)
    hours = Hours(lambda count: declining.discard("alpha") if count == 2 else None)
    card = run(federation, grant_seconds=60.0, clock=hours.clock()).card
    assert [item.member for item in card.participants] == ["alpha", "delta", "gamma"]
    assert left_out(federation) == {("beta", 0): "CSL-S206"}
    assert len(asked["beta"]) == 7 and 60.0 <= hours.ahead < 60.0 + OFFER_PAUSE_SECONDS


def test_only_a_plain_no_is_asked_again(federation: FakeFederation) -> None:
    """Garbage and silence are no answer that an officer could change."""
    hours = Hours(lambda count: None)
    federation.vaults["alpha"].edits["query.offer"] = lambda v, q, r: RecordDict()
    card = run(federation, grant_seconds=3600.0, clock=hours.clock()).card
    assert hours.pauses == [] and left_out(federation) == {("alpha", 0): "CSL-S207"}
    assert [item.member for item in card.participants] == ["beta", "delta", "gamma"]


def test_when_too_few_granted_the_same_study_is_offered_at_the_next_run(federation: FakeFederation) -> None:
    asked, declining = offers(federation)
    with pytest.raises(FederationError, match="CSL-S503"):
        run(federation, grant_seconds=20.0, clock=Hours(lambda count: None).clock())
    assert federation.happened(GrantsReceived)[-1].granted == ("delta", "gamma")
    assert not any("train" in vault.work for vault in federation.vaults.values())
    declining.clear()
    card = run(federation).card
    assert card.study == federation.happened(Resumed)[0].study
    assert [item.member for item in card.participants] == ["alpha", "beta", "delta", "gamma"]
    assert len({header for found in asked.values() for header in found}) == 1
    assert all(vault.work.count("query.offer") == 1 for vault in federation.vaults.values())  # so nobody paid twice
