"""Attacks on statistics that are added up in secret: other requests than offered, a plain answer, a second draw, half a payment."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from client.secure.store import FOLDER
from federation.encoding import sha256_hex
from federation.measures import Cells, GroupsAxis, Term
from federation.messages import StatisticsGrant, StatisticsRequest, TrainRequest, unpack
from federation.secure import SumOffer, SumRequest, request_digest, sign_statement
from federation.statistics import StatisticsSpec
from federation.study import SecurePlan
from privacy.ledger import Ledger, verify
from tests.client.entries import kinds, raw, reasons, refused, written
from tests.client.secure.town import Federation, copied
from tests.client.statistics.town import SHARE, by_job, found, offer, request, spec
from tests.client.vault_home import MEMBERS, Town

PLAN = SecurePlan(noise="local", n_min=3, c=0, share=SHARE)
CAP = 50
LENGTH = 3


def secret(town: Town, **changes: object) -> StatisticsSpec:
    return spec(town, secure=PLAN, aggregation="secure", noise="local", n_min=3, c=0, **changes)


class Asking(Federation):
    """Three vaults and the coordinator of one secret statistics study; `spec` is the study, whatever `Federation` calls it."""

    def grants(self) -> dict[str, StatisticsGrant]:  # type: ignore[override]
        return {
            member: unpack(self.ask(member, "query.offer", offer(self.town, self.study)), StatisticsGrant, key)[0]
            for member in MEMBERS
            for key in [self.town.key(member)]
        }

    @property
    def study(self) -> StatisticsSpec:
        found_: object = self.spec
        assert isinstance(found_, StatisticsSpec)
        return found_

    def sum_request(  # type: ignore[override]
        self,
        number: int,
        attempt: int = 1,
        /,
        *measures: Cells,
        payload: bytes = b"",
        named: str | None = None,
        **changes: object,
    ) -> RecordDict:
        asked = StatisticsRequest(study=self.rid, round=number, measures=measures or (by_job(CAP),))
        statement = self.offer(number, attempt, asked, **changes)  # type: ignore[arg-type]
        header = SumRequest(
            study=self.rid,
            offer=statement,
            signature=sign_statement(self.town.coordinator, statement),
            measure=asked,
            payload=named or sha256_hex(payload),
        )
        return self.packed(header, payload)

    def offer(self, number: int, /, attempt: int = 1, asked: object = None, **changes: object) -> SumOffer:  # type: ignore[override]
        fields: dict[str, object] = {
            "roster": self.town.charter.digest(),
            "epoch": self.rid,
            "number": number,
            "attempt": attempt,
            "request": request_digest(asked),  # type: ignore[arg-type]
            "d": LENGTH,
            "w": 64,
            "scale": 1.0,
            "share": PLAN.share,
            "n_min": PLAN.n_min,
            "c": PLAN.c,
        }
        return SumOffer(**(fields | changes))  # type: ignore[arg-type]

    def until_acknowledged(self, number: int, attempt: int = 1) -> dict[str, RecordDict]:
        ready = self.ready(number, attempt, MEMBERS)
        return self.acknowledged(number, self.masked(number, ready, attempt), attempt)

    def kept_vector(self, member: str = "alder") -> np.ndarray:
        return self.kept(1, member).vector


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Town:
    town = found(tmp_path_factory.mktemp("sums") / "town")
    for member in MEMBERS:
        town.change(member, secure={"n_min": 3, "c": 0, "noise": ["local"]})
    with Asking(town, secret(town)) as asking:  # type: ignore[arg-type]
        asking.grants()
        Federation.set_up(asking, MEMBERS)
    return town


@pytest.fixture
def asking(set_up: Town, tmp_path: Path) -> Iterator[Asking]:
    town = copied(set_up, tmp_path / "town")
    with Asking(town, secret(town)) as ready:  # type: ignore[arg-type]
        yield ready


def spends_nothing(asking: Asking, kind: str, records: RecordDict, code: str) -> None:
    """A call is refused by this code, before data are read; secrets and releases stay as they were."""
    folder = asking.town.homes["alder"].folder(FOLDER)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}, kinds(asking.town).count("release")
    rooms = len(asking.vault("alder")._rooms)
    assert refused(asking.town, asking.ask("alder", kind, records))
    assert reasons(asking.town)[-1] == code and len(asking.vault("alder")._rooms) == rooms
    after = {path.name: path.read_bytes() for path in folder.iterdir()}, kinds(asking.town).count("release")
    assert after == before


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"scale": 2.0}, "CSL-C472"),
        ({"scale": 1.0 + 1e-9}, "CSL-C472"),
        ({"d": LENGTH + 1}, "CSL-C474"),
        ({"share": 200.0}, "CSL-C474"),
        ({"c": 1, "n_min": 4}, "CSL-C474"),
        ({"number": 2}, "CSL-C473"),
        ({"epoch": "d" * 64}, "CSL-C472"),
        ({"request": "d" * 64}, "CSL-C472"),
        ({"named": "d" * 64}, "CSL-F209"),
        ({"payload": b"weights"}, "CSL-C472"),
    ],
)
def test_counts_on_other_terms_than_the_studys_are_refused(asking, changes, code):
    spends_nothing(asking, "query.sum", asking.sum_request(1, **changes), code)


def test_counts_by_which_a_customer_shows_more_than_was_granted_are_refused(asking):
    most = int(
        unpack(
            asking.ask("alder", "query.offer", offer(asking.town, asking.study)),
            StatisticsGrant,
            asking.town.key("alder"),
        )[0].sensitivity
    )
    loan = Cells(axes=(GroupsAxis(column="loan"),), terms=(Term(cap=1),))
    spends_nothing(asking, "query.sum", asking.sum_request(1, 1, by_job(most + 1)), "CSL-C475")
    spends_nothing(asking, "query.sum", asking.sum_request(1, 1, by_job(most), by_job(most), d=2 * LENGTH), "CSL-C475")
    spends_nothing(asking, "query.sum", asking.sum_request(1, 1, loan), "CSL-C493")
    spends_nothing(asking, "query.sum", asking.sum_request(3, number=3), "CSL-C473")


def test_a_secret_study_is_never_answered_plainly_nor_a_plain_one_in_secret(asking):
    spends_nothing(asking, "query.measure", request(asking.town, asking.study, 1, by_job(CAP)), "CSL-C470")
    plain = spec(asking.town, epsilon=0.3)
    unpack(asking.ask("alder", "query.offer", offer(asking.town, plain)), StatisticsGrant, asking.town.key("alder"))
    with Asking(asking.town, plain) as other:  # type: ignore[arg-type]
        asking.stop("alder")
        spends_nothing(other, "query.sum", other.sum_request(1), "CSL-C471")


def test_a_round_of_training_is_no_sum_of_statistics(asking):
    """Neither with the request in the place of the other, nor with its weights beside it."""
    asked = TrainRequest(study=asking.rid, round=1, clip=1.0, learning_rate=0.1, payload=sha256_hex(b"weights"))
    statement = asking.offer(1, 1, asked)
    header = SumRequest(
        study=asking.rid,
        offer=statement,
        signature=sign_statement(asking.town.coordinator, statement),
        train=asked,
        payload=sha256_hex(b"weights"),
    )
    spends_nothing(asking, "query.sum", asking.packed(header, b"weights"), "CSL-C473")


def test_a_digest_names_one_request_and_none_of_another_kind(asking):
    """Rounds differ, measures differ, kinds differ: so do the digests that members agree on."""
    one = StatisticsRequest(study=asking.rid, round=1, measures=(by_job(CAP),))
    digests = {
        request_digest(item)
        for item in (
            one,
            one.model_copy(update={"round": 2}),
            one.model_copy(update={"measures": (by_job(CAP + 1),)}),
            TrainRequest(study=asking.rid, round=1, clip=1.0, learning_rate=0.1, payload="0" * 64),
        )
    }
    assert len(digests) == 4 and one.digest() in digests


def test_a_later_attempt_masks_the_same_noise_and_other_measures_get_none(asking):
    asking.until_acknowledged(1)
    before = asking.kept_vector()
    asking.stop("alder")
    assert refused(asking.town, asking.ask("alder", "query.sum", asking.sum_request(1, 2, by_job(CAP - 1))))
    asking.ready(1, 2, MEMBERS)
    assert np.array_equal(asking.kept_vector(), before) and kinds(asking.town).count("consent") == 1
    assert reasons(asking.town) == ["CSL-C472"]


def test_an_opened_sum_is_paid_by_both_accounts_and_is_the_sum_of_what_was_kept(asking):
    statement = asking.offer(1, 1, StatisticsRequest(study=asking.rid, round=1, measures=(by_job(CAP),)))
    ready = asking.ready(1, 1, MEMBERS)
    expected = sum(asking.kept_vector(member) for member in MEMBERS)
    masked = asking.masked(1, ready)
    revealed = asking.revealed(1, asking.acknowledged(1, masked))
    assert np.array_equal(asking.opened(statement, ready, masked, revealed), expected)
    for member in MEMBERS:
        entries = written(asking.town, "release", member)
        assert [(data["number"], data["account"]) for data in entries] == [(1, "training"), (3, "holdout")]
        assert verify(asking.town.homes[member].ledger_file, asking.town.key(member)).valid
    spends_nothing(asking, "query.sum", asking.sum_request(1, 2), "CSL-C476")


def test_a_crash_between_the_two_entries_of_a_sum_is_mended_before_the_keys_leave(asking, monkeypatch):
    acks = asking.until_acknowledged(1)
    call = asking.sum_acks(1, asking.acks(acks))
    own, done = Ledger.release, []

    def die(self, *args, **kwargs):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        own(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "release", die)
        with pytest.raises(KeyboardInterrupt):
            asking.ask("alder", "query.sum_acks", call)
    asking.stop("alder")
    assert kinds(asking.town).count("release") == 1
    spends_nothing(asking, "query.sum", asking.sum_request(1, 2), "CSL-C476")
    first = raw(asking.ask("alder", "query.sum_acks", call))
    assert raw(asking.ask("alder", "query.sum_acks", call)) == first and kinds(asking.town).count("release") == 2


def test_older_secrets_draw_no_new_noise_for_an_opened_sum(asking, tmp_path):
    """A copy of the secrets from before the reveal, put back beside the ledger, speaks for no second sum over the same customers."""
    folder = asking.town.homes["alder"].folder(FOLDER)
    acks = asking.until_acknowledged(1)
    shutil.copytree(folder, tmp_path / "copy")
    asking.revealed(1, acks)
    asking.stop("alder")
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "copy", folder)
    spends_nothing(asking, "query.sum", asking.sum_request(1, 2), "CSL-C476")
    for path in folder.glob("*.sum"):
        path.unlink()
    spends_nothing(asking, "query.sum", asking.sum_request(1, 1), "CSL-C476")


def test_a_secret_study_that_was_read_gives_nothing_back(asking):
    """A masked vector may have left: the end of the study returns neither account, though nothing was opened."""
    asking.masked(1, asking.ready(1, 1, MEMBERS))
    with asking.vault("alder")._lock:
        asking.vault("alder")._ledger.close(asking.rid, "stopped")
    (closed,) = written(asking.town, "close")
    assert closed["returned"] == []
    (reserved,) = written(asking.town, "reserve")
    assert [claim["account"] for claim in reserved["if_broken"]] == ["training", "holdout"]
    assert json.dumps(reserved["charges"][0]["events"]) == json.dumps(reserved["charges"][1]["events"])
    (event,) = reserved["charges"][0]["events"]
    assert (event["dimension"], event["steps"], event["members"], event["sigma"]) == (1000, 2, 1, SHARE)
