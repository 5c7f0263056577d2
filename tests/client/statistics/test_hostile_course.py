"""What one customer, a crash, a withdrawal or a report can change in the course of a statistics study: nothing that is not paid for."""

import math

import numpy as np
import pytest

from client.reports import Reports
from client.statistics import delivered, room
from client.statistics.measuring import measure_all
from federation.answers import AnswerTable, Row
from federation.errors import FederationError, PolicyError
from federation.measures import BinsAxis, Cells, Term
from federation.messages import ReportReceipt, StatisticsRelease, read_tensors, unpack
from privacy.accounting import epsilon
from privacy.decision import Terms
from privacy.events import SecureSum, SubsampledGaussian
from privacy.ledger import Ledger, verify
from server.secure.calls import Peer
from server.statistics.rounds import PlainCounting
from tests.client.entries import kinds, raw, reasons, refused, written
from tests.client.secure.town import copied
from tests.client.statistics.town import (
    PURPOSE,
    SHARE,
    by_job,
    delivery,
    found,
    grant,
    of_age,
    report,
    request,
    spec,
)
from tests.client.test_vault_at_home import withdraw
from tests.client.vault_home import CANARY, CONTRACT, Town


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return found(tmp_path_factory.mktemp("course") / "town")


@pytest.fixture
def town(founded: Town, tmp_path) -> Town:
    return copied(founded, tmp_path / "town")


def answered(town: Town, vault, asked, number: int, *measures, length: int = 3) -> np.ndarray:
    reply = vault.answer("query.measure", request(town, asked, number, *measures))
    return read_tensors(unpack(reply, StatisticsRelease, town.key("alder"))[1], {"sums": ((length,), "int64")})["sums"]


def exact(vault, asked, *measures) -> np.ndarray:
    """What the vault's customers give, without noise."""
    held = vault._rooms.counting(vault._studies.statistics(asked.digest()))
    return measure_all(measures, held.people, held.contract)


def releases(town: Town) -> list[tuple[int, str]]:
    return [(data["number"], data["account"]) for data in written(town, "release")]


# One customer's presence.


@pytest.mark.parametrize("agreed", [0, 1, 2])
def test_an_empty_cohort_answers_as_one_of_a_single_customer(town, agreed):
    """Nobody, one or two who agreed: the same entries in the ledger, the same kinds of reply, noise over all of them."""
    home, asked = town.homes["alder"], spec(town)
    lines = ["customer,may_profile,may_contact"]
    lines += [f"{CANARY}-alder-{i},{'yes' if i < agreed else 'no'},no" for i in range(400)]
    home.root.joinpath("consent.csv").write_text("\n".join(lines) + "\n")
    with town.vault() as vault:
        grant(town, vault, asked)
        assert len(answered(town, vault, asked, 1, by_job(1))) == 3
        assert exact(vault, asked, by_job(1)).sum() == agreed
    assert kinds(town)[-4:] == ["reserve", "consent", "release", "release"] and reasons(town) == []


def test_a_fault_of_the_arithmetic_leaves_the_noise_alone(town, monkeypatch):
    """A refusal has no noise: were it to hang on the data, it would tell of one customer for nothing."""
    asked = spec(town)

    def burst(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(room, "measure_all", burst)
    with town.vault() as vault:
        grant(town, vault, asked)
        assert np.abs(answered(town, vault, asked, 1, by_job(700))).max() < 8 * SHARE
    assert reasons(town) == [] and len(releases(town)) == 2


def test_a_withdrawal_between_two_rounds_counts_from_the_next_one_on(town):
    """The first round's bytes stay as they were; nothing is refused, nothing is drawn anew."""
    asked = spec(town)
    with town.vault() as vault:
        grant(town, vault, asked)
        first = raw(vault.answer("query.measure", request(town, asked, 1, by_job(1))))
        withdraw(town, f"{CANARY}-alder-1", f"{CANARY}-alder-2")
        answered(town, vault, asked, 2, by_job(1))
        assert exact(vault, asked, by_job(1)).sum() == 358
        assert raw(vault.answer("query.measure", request(town, asked, 1, by_job(1)))) == first
    assert kinds(town).count("consent") == 2 and reasons(town) == []


def test_the_noise_of_every_integer_is_its_own(town):
    """Two equal measures in one round and the same again in the next: uncorrelated, 6 standard errors (2e-9 each of 3)."""
    asked = spec(town)
    table = Cells(
        axes=(BinsAxis(column="age", cuts=tuple(float(cut) for cut in range(1000, 1498))),), terms=(Term(cap=1),)
    )
    with town.vault() as vault:
        grant(town, vault, asked)
        rounds = [answered(town, vault, asked, number, table, table, length=1000) for number in (1, 2)]
        noise = [part - exact(vault, asked, table) for sums in rounds for part in np.split(sums, 2)]
    for a, b in ((0, 1), (0, 2), (1, 3)):
        assert abs(float(np.corrcoef(noise[a], noise[b])[0, 1])) < 6 / math.sqrt(500)
    assert all(0.7 < float(part.std()) / SHARE < 1.3 for part in noise)  # 500 draws: 9 standard errors


# What is paid.


def test_every_round_is_paid_by_both_accounts(town):
    asked = spec(town)
    with town.vault() as vault:
        grant(town, vault, asked)
        for number in (2, 1):
            answered(town, vault, asked, number, by_job(1))
    assert releases(town) == [(2, "training"), (4, "holdout"), (1, "training"), (3, "holdout")]
    assert verify(town.homes["alder"].ledger_file, town.key("alder")).valid


@pytest.mark.parametrize("survive", [0, 1])
def test_a_crash_between_reply_and_entries_neither_loses_a_charge_nor_draws_again(town, monkeypatch, survive):
    """The process dies before the first entry, or between the two: the same request gets the kept bytes, once both stand."""
    asked, own = spec(town), Ledger.release
    done: list[int] = []

    def die(self, *args, **kwargs):
        if len(done) >= survive:
            raise KeyboardInterrupt
        done.append(1)
        own(self, *args, **kwargs)

    with town.vault() as vault:
        grant(town, vault, asked)
        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "release", die)
            with pytest.raises(KeyboardInterrupt):
                vault.answer("query.measure", request(town, asked, 1, by_job(1)))
        kept = vault._replies.find(asked.digest(), 1)
    assert kept is not None and len(releases(town)) == survive
    with town.vault() as vault:
        assert refused(town, vault.answer("query.measure", request(town, asked, 1, by_job(2))))
        assert raw(vault.answer("query.measure", request(town, asked, 1, by_job(1)))) == raw(kept.records())
    assert releases(town) == [(1, "training"), (3, "holdout")] and reasons(town) == ["CSL-C516"]


@pytest.mark.parametrize("survive", [0, 1])
def test_what_was_not_paid_when_the_study_ended_never_leaves(town, monkeypatch, survive):
    """The end gives an account back from which nothing was released: then the kept bytes stay at home for good."""
    asked, own = spec(town), Ledger.release
    done: list[int] = []

    def die(self, *args, **kwargs):
        if len(done) >= survive:
            raise KeyboardInterrupt
        done.append(1)
        own(self, *args, **kwargs)

    with town.vault() as vault:
        grant(town, vault, asked)
        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "release", die)
            with pytest.raises(KeyboardInterrupt):
                vault.answer("query.measure", request(town, asked, 1, by_job(1)))
        unpack(vault.answer("query.report", delivery(town, asked, report(asked))), ReportReceipt, town.key("alder"))
        for number in (1, 2):
            assert refused(town, vault.answer("query.measure", request(town, asked, number, by_job(1))))
    (closed,) = written(town, "close")
    assert closed["returned"] == (["training", "holdout"] if survive == 0 else ["holdout"])
    assert len(releases(town)) == survive


def test_a_released_round_is_said_again_after_the_end_and_draws_nothing(town):
    asked = spec(town)
    with town.vault() as vault:
        grant(town, vault, asked)
        first = raw(vault.answer("query.measure", request(town, asked, 1, by_job(1))))
        vault.answer("query.report", delivery(town, asked, report(asked)))
        assert raw(vault.answer("query.measure", request(town, asked, 1, by_job(1)))) == first
        vault._replies._path(asked.digest(), 1).unlink()
        assert refused(town, vault.answer("query.measure", request(town, asked, 1, by_job(1))))
    assert reasons(town) == ["CSL-C515"] and len(releases(town)) == 2


@pytest.mark.parametrize("steps", [1, 3, 100])
def test_plain_integers_cost_what_secure_ones_of_one_member_cost(town, steps):
    """The plain event leaves out what rounding noise to integers adds to delta: within what numbers are rounded up by anyway."""
    clear = math.sqrt(SHARE**2 - 4) / 900 * (1 - 1e-15)
    plain = SubsampledGaussian(noise_multiplier=clear, sampling_rate=1.0, steps=steps)
    secure = SecureSum(sigma=SHARE, members=1, sensitivity=900, sampling_rate=1.0, steps=steps, dimension=100_000)
    assert epsilon([plain], 1e-6) == pytest.approx(epsilon([secure], 1e-6), rel=1e-6)


@pytest.mark.parametrize("shift", [50, 200])
def test_the_price_of_a_sum_is_an_upper_bound_and_next_to_tight(shift):
    """The true delta of N_Z(0, 200^2) against itself shifted, by enumeration, at the epsilon that was charged for delta 1e-5."""
    sigma, delta = 200.0, 1e-5
    event = SubsampledGaussian(
        noise_multiplier=math.sqrt(sigma**2 - 4) / shift * (1 - 1e-15), sampling_rate=1.0, steps=1
    )
    charged, places = epsilon([event], delta), np.arange(-6000, 6001)
    mass = np.exp(-(places**2) / (2 * sigma**2))
    other = np.exp(-((places - shift) ** 2) / (2 * sigma**2)) / mass.sum()
    mass = mass / mass.sum()
    true = float(np.maximum(mass - math.exp(charged) * other, 0.0).sum())
    assert 0.9 * delta < true <= delta


def test_a_forged_reservation_of_statistics_by_samples_is_refused(town):
    """Statistics count everybody in every round: events of a sample would cost next to nothing."""
    with town.ledger() as ledger:
        digest = ledger.state().policy_digest
        assert digest is not None
        terms = Terms(
            policy=digest,
            epsilon=1.0,
            delta=1e-5,
            purpose=PURPOSE,
            consent="profiling",
            contract="shop",
            holdout=None,
            declared_size=400,
            work="statistics",
        )
        event = SubsampledGaussian(noise_multiplier=2.0, sampling_rate=0.01, steps=3)
        with pytest.raises(PolicyError, match="CSL-P218"):
            ledger.reserve(
                "e" * 64,
                study="sampled",
                charges={"training": (event,), "holdout": (event,)},
                releases={"training": 3, "holdout": 3},
                terms=terms,
            )


# What comes back, and what leaves.


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aggregation": "secure"}, "CSL-C498"),
        ({"noise": "shared"}, "CSL-C498"),
        ({"purpose": "somebody.else"}, "CSL-C498"),
        ({"contract": "other"}, "CSL-C498"),
        ({"title": "\x1b[2J\x1b[1;1HAll is well"}, "CSL-C881"),
        ({"title": "abc\u202edcba"}, "CSL-C881"),
        ({"title": "shown\rover"}, "CSL-C881"),
    ],
)
def test_a_report_that_says_what_the_study_was_not_is_not_kept(town, changes, reason):
    asked = spec(town)
    with town.vault() as vault:
        grant(town, vault, asked)
        assert refused(town, vault.answer("query.report", delivery(town, asked, report(asked, **changes))))
        answered(town, vault, asked, 1, by_job(1))  # and the study goes on
    assert reasons(town) == [reason] and Reports(town.homes["alder"].folder("reports")).all() == ()


def test_an_answer_that_was_not_asked_for_is_not_kept(town):
    """It would be applied to own customers at home, though officers saw no such question."""
    asked = spec(town)
    (answer,) = report(asked).answers
    with town.vault() as vault:
        grant(town, vault, asked)
        for changes in ({"kind": "rfm"}, {"id": "segments"}):
            said = report(asked, answers=(answer.model_copy(update=changes),))
            assert refused(town, vault.answer("query.report", delivery(town, asked, said)))
    assert set(reasons(town)) == {"CSL-C498"}  # equal refusals are written down once


def test_labels_that_a_terminal_obeys_and_reports_without_end_are_not_kept(town, monkeypatch):
    asked = spec(town)
    (answer,) = report(asked).answers
    table = AnswerTable(name="customers", title="Customers", unit="x", rows=(Row(key=("\x9b31m",), value=1.0),))
    with town.vault() as vault:
        grant(town, vault, asked)
        said = report(asked, answers=(answer.model_copy(update={"tables": (table,)}),))
        assert refused(town, vault.answer("query.report", delivery(town, asked, said)))
        monkeypatch.setattr(delivered, "LARGEST_REPORT", 100)
        assert refused(town, vault.answer("query.report", delivery(town, asked, report(asked))))
    assert reasons(town) == ["CSL-C881", "CSL-C880"]


def test_a_report_cannot_end_a_study_of_training_or_one_that_was_never_granted(town):
    training, asked = town.spec(), spec(town)
    with town.vault() as vault:
        town.grant(vault, training)
        assert refused(
            town, vault.answer("query.report", delivery(town, training, report(asked, study=training.digest())))
        )  # type: ignore[arg-type]
        assert refused(town, vault.answer("query.report", delivery(town, asked, report(asked))))
    assert reasons(town) == ["CSL-C492", "CSL-C511"] and "close" not in kinds(town)


@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1, 2**45 + 1, -(2**45) - 1])
def test_sums_beyond_all_bounds_stay_at_home_whatever_made_them(town, monkeypatch, value):
    """The least int64 has no absolute value; a vault that made it must not let it out."""
    asked = spec(town)
    monkeypatch.setattr(room, "add_noise", lambda exact, *_: np.full_like(exact, value))
    with town.vault() as vault:
        grant(town, vault, asked)
        for _ in range(2):  # the same again gets no second draw
            assert refused(town, vault.answer("query.measure", request(town, asked, 1, of_age(1))))
    assert set(reasons(town)) == {"CSL-C402"} and len(releases(town)) == 2


@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1])
def test_a_member_whose_sums_would_wrap_around_is_left_out(town, monkeypatch, value):
    asked, left = spec(town), []

    class OneLine:
        members = ("alder",)
        peers = {"alder": Peer("alder", 1, town.key("alder"))}

        def gather(self, _, records, number, accept):
            found = accept("alder", forged)
            return {}, {"alder": found}

    monkeypatch.setattr(room, "add_noise", lambda exact, *_: np.full_like(exact, value))
    with town.vault() as vault:
        grant(town, vault, asked)
        vault._outgoing.check = lambda *_: None  # type: ignore[method-assign]
        forged = vault.answer("query.measure", request(town, asked, 1, by_job(1)))
    counting = PlainCounting(asked, CONTRACT, town.coordinator, OneLine(), 1, left.append)  # type: ignore[arg-type]
    with pytest.raises(FederationError, match="CSL-S501"):
        counting.count(1, [by_job(1)])
    assert [event.code for event in left] == ["CSL-S209"]
