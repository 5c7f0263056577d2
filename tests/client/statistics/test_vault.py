"""A statistics study at the vault: what is granted and paid, what is refused, and what leaves."""

import math

import numpy as np
import pytest
from scipy import stats

from client.reports import Reports
from client.statistics.pricing import statistics_events
from federation.errors import PolicyError, StorageError
from federation.measures import Cells, GroupsAxis, Term
from federation.messages import Refusal, ReportReceipt, StatisticsRelease, read_tensors, unpack
from federation.study import SecurePlan
from privacy.accounting import epsilon
from privacy.decision import Terms
from privacy.ledger import LedgerReader
from tests.client.statistics.town import (
    PURPOSE,
    RULE,
    SHARE,
    by_job,
    delivery,
    found,
    grant,
    of_age,
    offer,
    report,
    request,
    spec,
)
from tests.client.vault_home import CANARY, Town


@pytest.fixture
def town(tmp_path) -> Town:
    return found(tmp_path)


def refused(town: Town, vault, kind: str, records) -> str:
    """Answer a request that must be refused, and return the ledger's reason."""
    unpack(vault.answer(kind, records), Refusal, town.key(vault.member))
    with LedgerReader.read(town.homes[vault.member].ledger_file, town.key(vault.member)) as reader:
        last = [entry.body for entry in reader.entries() if entry.body.kind == "refuse"][-1]
    return last.data.code


def sums(town: Town, vault, asked, number, *measures) -> np.ndarray:
    answer = vault.answer("query.measure", request(town, asked, number, *measures))
    header, payload = unpack(answer, StatisticsRelease, town.key(vault.member))
    assert (header.study, header.round) == (asked.digest(), number)
    return read_tensors(payload, {"sums": ((3,), "int64")})["sums"]


def test_a_grant_costs_what_it_says_on_both_accounts(town):
    asked = spec(town)
    with town.vault() as vault:
        found_ = grant(town, vault, asked)
    with LedgerReader.read(town.homes["alder"].ledger_file, town.key("alder")) as reader:
        (held,) = [entry.body.data for entry in reader.entries() if entry.body.kind == "reserve"]
    assert held.work == "statistics"
    assert [charge.account for charge in held.charges] == ["training", "holdout"]
    for charge in held.charges:
        (event,) = charge.events
        assert (event.sampling_rate, event.steps, charge.releases) == (1.0, 2, 2)
        # the events' noise is that of the grant: sqrt(share^2 - 4) over the sensitivity
        assert event.noise_multiplier * found_.sensitivity == pytest.approx(math.sqrt(SHARE**2 - 4), rel=1e-12)
        assert 0.99 * found_.epsilon <= epsilon([event], found_.delta) <= found_.epsilon


def test_the_ledger_refuses_statistics_that_one_account_alone_pays(town):
    asked = spec(town)
    with town.vault() as vault:
        paid = grant(town, vault, asked)
    terms = Terms(
        policy=policy_digest(town),
        epsilon=1.0,
        delta=1e-5,
        purpose=PURPOSE,
        consent="profiling",
        contract="shop",
        holdout=None,
        declared_size=400,
        work="statistics",
    )
    events = statistics_events(asked, paid)
    with town.ledger() as ledger:
        for charges in (
            {"training": events["training"]},
            {"training": events["training"], "holdout": events["holdout"]},
        ):
            releases = {name: place + 1 for place, name in enumerate(charges)}
            with pytest.raises(PolicyError, match="CSL-P218"):
                ledger.reserve("f" * 64, study="one sided", charges=charges, releases=releases, terms=terms)


def policy_digest(town: Town) -> str:
    with town.ledger() as ledger:
        digest = ledger.state().policy_digest
    assert digest is not None
    return digest


def test_without_a_rule_for_statistics_nothing_is_granted(town):
    town.change("alder", statistics=[])
    with town.vault() as vault:
        assert refused(town, vault, "query.offer", offer(town, spec(town))) == "CSL-P202"


def test_above_the_automatic_epsilon_officers_decide(town):
    town.change("alder", statistics=[RULE | {"automatic_epsilon": 0.5}])
    asked = spec(town)
    with town.vault() as vault:
        assert refused(town, vault, "query.offer", offer(town, asked)) == "CSL-C528"
    town.approve(asked)
    with town.vault() as vault:
        assert grant(town, vault, asked).epsilon == 1.0


def test_the_release_is_the_exact_sums_plus_the_noise_that_was_paid_for(town):
    """Over many releases the noise has the grant's spread (chi-squared, two-sided 1e-6) and no bias (6 standard errors)."""
    asked, cap = spec(town, rounds=100), 50
    wide = Cells(axes=(GroupsAxis(column="job"),), terms=(Term(cap=cap),))
    with town.vault() as vault:
        assert grant(town, vault, asked).sensitivity >= cap
        draws = np.stack([sums(town, vault, asked, number, wide) for number in range(1, 101)])
    used = 360  # 9 of 10 of 400 customers agreed
    noise = draws.sum(axis=1) - cap * used
    assert abs(noise.mean()) < 6 * SHARE * math.sqrt(3 / 100)
    centred = draws - draws.mean(axis=0)
    ratio = float((centred**2).sum()) / SHARE**2
    assert stats.chi2(3 * 99).ppf(5e-7) < ratio < stats.chi2(3 * 99).ppf(1 - 5e-7)


def test_the_same_request_gets_the_same_bytes_and_another_one_none(town):
    asked = spec(town)
    with town.vault() as vault:
        grant(town, vault, asked)
        first = vault.answer("query.measure", request(town, asked, 1, by_job(10)))
        assert vault.answer("query.measure", request(town, asked, 1, by_job(10))) == first
        assert refused(town, vault, "query.measure", request(town, asked, 1, by_job(11))) == "CSL-C516"
    with town.vault() as vault:  # after a restart too
        assert vault.answer("query.measure", request(town, asked, 1, by_job(10))) == first
    with LedgerReader.read(town.homes["alder"].ledger_file, town.key("alder")) as reader:
        released = [
            (entry.body.data.number, entry.body.data.account)
            for entry in reader.entries()
            if entry.body.kind == "release"
        ]
    assert released == [(1, "training"), (3, "holdout")]


@pytest.mark.parametrize(
    ("number", "measure", "code"),
    [
        (3, by_job(10), "CSL-C512"),
        (1, Cells(axes=(GroupsAxis(column="loan"),), terms=(Term(cap=1),)), "CSL-C493"),
        (1, Cells(axes=(GroupsAxis(column="bought"),), terms=(Term(cap=1),)), "CSL-C493"),
        (1, Cells(axes=(GroupsAxis(column="nothing"),), terms=(Term(cap=1),)), "CSL-C495"),
        (1, by_job(1_000_000), "CSL-C475"),
    ],
)
def test_what_was_not_granted_is_refused_before_data_are_read(town, number, measure, code):
    asked = spec(town)
    with town.vault() as vault:
        grant(town, vault, asked)
        assert refused(town, vault, "query.measure", request(town, asked, number, measure)) == code
    with LedgerReader.read(town.homes["alder"].ledger_file, town.key("alder")) as reader:
        kinds = {entry.body.kind for entry in reader.entries()}
    assert not kinds & {"consent", "release"}


def test_a_measure_longer_than_planned_is_refused(town):
    asked = spec(town)
    with town.vault() as vault:
        grant(town, vault, asked)
        table = Cells(axes=(GroupsAxis(column="job"),) * 6, terms=tuple(Term(cap=1) for _ in range(2)))
        assert refused(town, vault, "query.measure", request(town, asked, 1, table)) == "CSL-C494"


def test_the_sensitivity_of_all_measures_together_counts(town):
    asked = spec(town)
    with town.vault() as vault:
        most = int(grant(town, vault, asked).sensitivity)
        answer = vault.answer("query.measure", request(town, asked, 1, by_job(most)))
        unpack(answer, StatisticsRelease, town.key("alder"))
        assert refused(town, vault, "query.measure", request(town, asked, 2, by_job(most), by_job(most))) == "CSL-C475"


def test_training_rounds_of_a_statistics_study_and_sums_of_a_plain_one_are_refused(town):
    asked, training = spec(town), town.spec()
    with town.vault() as vault:
        grant(town, vault, asked)
        town.grant(vault, training)
        as_training = town.train(training, 1)
        assert (
            refused(town, vault, "train", town.train(training.model_copy(update={"nonce": "1" * 32}), 1)) == "CSL-C511"
        )
        assert refused(town, vault, "query.measure", request(town, training, 1, by_job(1))) == "CSL-C492"  # type: ignore[arg-type]
        vault.answer("train", as_training)


def test_a_secret_study_never_answers_by_itself(town):
    town.change("alder", secure={"n_min": 3, "c": 0, "noise": ["local"]})
    plan = SecurePlan(noise="local", n_min=3, c=0, share=SHARE)
    asked = spec(town, secure=plan, aggregation="secure", noise="local", n_min=3, c=0)
    with town.vault() as vault:
        grant(town, vault, asked)
        assert refused(town, vault, "query.measure", request(town, asked, 1, by_job(1))) == "CSL-C470"


def test_the_report_ends_the_study_and_stays(town):
    asked = spec(town)
    with town.vault() as vault:
        grant(town, vault, asked)
        said, _ = unpack(
            vault.answer("query.report", delivery(town, asked, report(asked))), ReportReceipt, town.key("alder")
        )
        assert said.study == asked.digest()
        later = report(asked, title="Another title")
        assert refused(town, vault, "query.report", delivery(town, asked, later)) == "CSL-C499"
        unpack(vault.answer("query.report", delivery(town, asked, report(asked))), ReportReceipt, town.key("alder"))
        assert refused(town, vault, "query.measure", request(town, asked, 1, by_job(1))) == "CSL-C524"
    kept = Reports(town.homes["alder"].folder("reports"))
    assert kept.newest("shop", "count").report == report(asked)
    with pytest.raises(StorageError, match="CSL-C497"):
        kept.newest("shop", "rfm")


def test_a_report_about_another_study_is_refused(town):
    asked = spec(town)
    with town.vault() as vault:
        grant(town, vault, asked)
        other = report(asked, study="0" * 64)
        assert refused(town, vault, "query.report", delivery(town, asked, other)) == "CSL-C498"
        stranger = spec(town, title="Never offered")
        assert refused(town, vault, "query.report", delivery(town, stranger, report(stranger))) == "CSL-C511"


def test_a_fault_in_the_data_leaves_noise_over_nobody(town):
    home, asked = town.homes["alder"], spec(town)
    (home.root / "customers.csv").write_text("customer,other\n1,2\n")
    with town.vault() as vault:
        grant(town, vault, asked)
        values = sums(town, vault, asked, 1, by_job(600))
    assert np.abs(values).max() < 8 * SHARE
    assert "CSL-C" in (home.folder("studies") / f"{asked.digest()}.fault.json").read_text()


def test_only_the_named_columns_are_read(town, monkeypatch):
    from client import tables

    seen: list[list[str]] = []
    own = tables.own_columns
    monkeypatch.setattr(
        tables, "own_columns", lambda mapping, want: seen.append(own(mapping, want)) or own(mapping, want)
    )
    asked = spec(town)
    with town.vault() as vault:
        grant(town, vault, asked)
        vault.answer("query.measure", request(town, asked, 1, of_age(10)))
    assert seen and all(set(columns) == {"customer", "years", "profession"} for columns in seen)


def test_nothing_kept_at_home_names_a_customer(town):
    asked = spec(town)
    with town.vault() as vault:
        grant(town, vault, asked)
        vault.answer("query.measure", request(town, asked, 1, by_job(10)))
        vault.answer("query.report", delivery(town, asked, report(asked)))
    for path in town.homes["alder"].root.rglob("*"):
        if path.is_file() and path.name not in ("customers.csv", "consent.csv"):
            assert CANARY.encode() not in path.read_bytes(), path
