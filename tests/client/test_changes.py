"""What changed since the last scoring: kept without names, taken apart exactly, and rid of whoever withdrew."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit

from client import scorings
from client.calibration import Calibration
from client.changes import Comparison, compare, in_words
from client.cohort import Cohort
from client.home import Home
from client.names import TopCustomers, choose, deciles
from client.scores import Scores
from client.scoring import score
from client.scorings import Scoring, forget, keep, previous
from client.withdrawal import Withdrawals, create_register, register
from federation.contract import FeatureContract
from federation.errors import IntegrityError
from federation.networks import weights_of
from federation.study import AdditiveModel, LogisticModel, MlpModel, Model
from privacy.sealing import write_sealed
from tests.client.test_scoring import PLAIN, SMALL, customers, trained

STORE = b"s" * 32
KEY = b"k" * 32
TAGS = b"t" * 32
FIRST = datetime(2026, 2, 1, 9, 0, tzinfo=UTC)
LATER = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
SHIFTED = Calibration(intercept=-0.7, slope=0.6, method="slope and intercept", note="Fitted.")
TOLERANCE = 2e-4  # terms are kept as float32


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    create_register(home, STORE)
    return home


def scored(model: Model, cohort: Cohort, weights: int = 0, calibration: Calibration = PLAIN) -> Scores:
    return score(model, SMALL, trained(model, SMALL, weights), calibration, cohort)


def scoring(found: Scores, when: datetime = FIRST, model: str = "ab" * 32, key: bytes = TAGS) -> Scoring:
    return Scoring.of(found, deciles(found, KEY), key, study="churn", purpose="retention.churn", model=model, when=when)


def part(cohort: Cohort, chosen: list[int]) -> Cohort:
    return cohort.take(np.array(chosen, dtype=np.int64))


def comparison(before: Scores, after: Scores) -> Comparison:
    return Comparison(after, scoring(after, LATER), scoring(before))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    model=st.sampled_from(
        [AdditiveModel(), AdditiveModel(pairs=(("recency", "loan"),)), LogisticModel(kind="logistic")]
    ),
    weights=st.integers(0, 3),
    calibration=st.sampled_from([PLAIN, SHIFTED]),
)
def test_the_change_of_the_score_is_taken_apart_exactly(
    seed: int, model: Model, weights: int, calibration: Calibration
) -> None:
    """Whatever changed, features, weights or calibration: base and terms add up to the change of the calibrated logit."""
    before = scored(model, customers(SMALL, 30, seed), 0)
    after = scored(model, customers(SMALL, 30, seed + 1), weights, calibration)
    found = comparison(before, after)
    assert found.how == "exact"
    change = found.shift + found.delta(np.arange(30)).sum(axis=1)
    assert change == pytest.approx(logit(after.probability) - logit(before.probability), abs=TOLERANCE)
    if weights == 0 and calibration is PLAIN:
        assert found.shift == pytest.approx(0.0, abs=TOLERANCE)


def test_only_what_changed_is_a_reason_whatever_the_others_are() -> None:
    """The reasons of one scoring are against its average customer; a change must not be, or everybody's would move hers."""
    cohort = customers(SMALL, 40, 3)
    columns = {name: values.copy() for name, values in cohort.columns.items()}
    columns["loan"] = np.where(np.arange(40) < 39, 1.0 - np.nan_to_num(columns["loan"]), columns["loan"])
    after = scored(AdditiveModel(), Cohort(ids=cohort.ids, columns=columns))
    found = comparison(scored(AdditiveModel(), cohort), after)
    delta = found.delta(np.arange(40))
    assert delta[39] == pytest.approx(0.0, abs=TOLERANCE) and delta[:, :2] == pytest.approx(0.0, abs=TOLERANCE)
    assert np.abs(delta[:39, 2]).min() > 0.001
    ids = [str(name) for name in cohort.ids]
    lines = {line.customer: line for line in found.applied(choose(after, TopCustomers(customers=40), ids, KEY))}
    assert lines[ids[39]].risen == lines[ids[39]].fallen == ""
    assert all(bool(lines[name].risen) != bool(lines[name].fallen) for name in ids[:39])
    texts = [text for name in ids[:39] for text in (lines[name].risen, lines[name].fallen) if text]
    assert all(text.startswith("Has a loan: now ") and "approximate" not in text for text in texts)
    summary = found.summary()
    assert (
        summary.columns[0].column == "loan" and summary.same_model and summary.shift == pytest.approx(0, abs=TOLERANCE)
    )


def test_lines_get_their_scores_and_deciles_before() -> None:
    cohort = customers(SMALL, 30)
    before, after = scored(AdditiveModel(), part(cohort, list(range(25)))), scored(AdditiveModel(), cohort, 1)
    old = dict(zip(before.cohort.ids, zip(before.probability, deciles(before, KEY), strict=True), strict=True))
    lines = comparison(before, after).applied(choose(after, TopCustomers(customers=30), list(cohort.ids), KEY))
    assert len(lines) == 30
    for line in lines:
        expected = old.get(line.customer, (None, None))
        assert (line.score_before, line.decile_before) == expected
        assert line.customer in old or line.risen == line.fallen == ""


@settings(max_examples=30)
@given(
    before=st.sets(st.integers(0, 39), min_size=1),
    after=st.sets(st.integers(0, 39), min_size=1),
    seed=st.integers(0, 99),
)
def test_everybody_is_counted_once(before: set[int], after: set[int], seed: int) -> None:
    cohort = customers(SMALL, 40, seed)
    one, two = (scored(AdditiveModel(), part(cohort, sorted(rows))) for rows in (before, after))
    summary = comparison(one, two).summary()
    assert (summary.matched, summary.new, summary.gone) == (
        len(before & after),
        len(after - before),
        len(before - after),
    )
    assert summary.up + summary.down + summary.same == summary.matched == sum(map(sum, summary.moves))
    above = sum(summary.moves[row][column] for row in range(10) for column in range(row))
    assert summary.up == above
    if before == after:
        assert summary.same == summary.matched and summary.mean_before == summary.mean_now


def test_an_mlp_is_compared_approximately_and_another_kind_of_model_not_at_all() -> None:
    cohort = customers(SMALL, 30)
    mlp = MlpModel(kind="mlp")
    one, two = scored(mlp, cohort), scored(mlp, customers(SMALL, 30, 1))
    near = comparison(one, two)
    lines = near.applied(choose(two, TopCustomers(customers=30), list(cohort.ids), KEY))
    texts = [text for line in lines for text in (line.risen, line.fallen)]
    assert near.how == "approximate (occlusion)" and near.shift == 0.0 and near.now.record.base is None
    assert any(texts) and all(text.endswith("(approximate)") for text in texts if text)
    apart = comparison(one, scored(AdditiveModel(), cohort))
    line = apart.applied(choose(apart.scores, TopCustomers(customers=1), list(cohort.ids), KEY))[0]
    assert apart.how == "not comparable" and line.score_before is not None and line.risen == line.fallen == ""
    assert apart.summary().columns == () and "cannot be compared" in in_words(apart.summary())[-1]


def test_another_contract_cannot_be_compared_by_its_reasons() -> None:
    cohort = customers(SMALL, 10)
    found = scored(AdditiveModel(), cohort)
    other = FeatureContract.model_validate(SMALL.model_dump() | {"version": 2})
    again = Scores(other, cohort, found.logit, found.probability, found.movement, found.typical, exact=True)
    assert Comparison(again, scoring(again, LATER), scoring(found)).how == "not comparable"


def test_words_for_the_first_time_and_for_another_model() -> None:
    assert "nothing to compare" in in_words(None)[0]
    cohort = customers(SMALL, 30)
    one, two = scored(AdditiveModel(), cohort), scored(AdditiveModel(), cohort, 0, SHIFTED)
    found = Comparison(two, scoring(two, LATER, "cd" * 32), scoring(one))
    text = " ".join(in_words(found.summary()))
    assert (
        "2026-02-01" in text
        and "another model (churn, abababab)" in text
        and f"model or calibration {found.shift:+.2f}" in text
    )
    bias = float(weights_of(trained(AdditiveModel(), SMALL))["linear.bias"][0])
    assert found.shift == pytest.approx(SHIFTED.intercept + SHIFTED.slope * bias - bias, abs=TOLERANCE)


def test_a_kept_scoring_is_read_as_it_was_and_names_nobody(home: Home) -> None:
    withdrawn = Withdrawals.load(home, STORE)
    found = scored(AdditiveModel(), customers(SMALL, 20))
    made = scoring(found, key=withdrawn.key)
    path = keep(home, STORE, made, withdrawn)
    assert path.name == "small-retention.churn-2026-02-01-abababab.scores" and path.stat().st_mode & 0o077 == 0
    assert path.read_bytes().startswith(b"csl-box1")
    assert b"c00003" not in scorings._encode(made) and b"churn" in scorings._encode(made)
    read = previous(home, STORE, scoring(found, LATER).record, withdrawn)
    assert read is not None and read.record == made.record and set(read.tags) == set(made.tags)
    order = [made.tags.index(item) for item in read.tags]
    assert list(read.tags) == sorted(made.tags)
    assert (read.probability == made.probability[order]).all() and (read.decile == made.decile[order]).all()
    assert (read.terms == made.terms[order]).all()


def test_the_newest_of_another_day_or_model_is_compared_with(home: Home) -> None:
    withdrawn = Withdrawals.load(home, STORE)
    found = scored(AdditiveModel(), customers(SMALL, 12))
    assert compare(home, STORE, found, scoring(found), withdrawn) is None
    for day, model in ((1, "ab"), (5, "ab"), (9, "ab"), (9, "cd")):
        keep(home, STORE, scoring(found, datetime(2026, 2, day, tzinfo=UTC), model * 32), withdrawn)

    def last(day: int, model: str = "ab", until: date | None = None) -> str | None:
        record = scoring(found, datetime(2026, 2, day, tzinfo=UTC), model * 32).record
        before = previous(home, STORE, record, withdrawn, until)
        return None if before is None else f"{before.record.written[8:10]} {before.record.model[:2]}"

    assert last(9) == "09 cd" and last(9, "cd") == "09 ab"  # the same day and model again: not held against itself
    assert last(9, "cd", date(2026, 2, 8)) == "05 ab" and last(9, "ab", date(2026, 1, 31)) is None
    other = scoring(found).record.model_copy(update={"purpose": "marketing.propensity"})
    assert previous(home, STORE, other, withdrawn) is None


def test_the_same_day_and_model_again_replaces(home: Home) -> None:
    withdrawn = Withdrawals.load(home, STORE)
    for hour in (9, 15):
        keep(home, STORE, scoring(scored(AdditiveModel(), customers(SMALL, 5)), FIRST.replace(hour=hour)), withdrawn)
    assert len(scorings.files(home)) == 1


def test_who_withdraws_is_taken_out_of_every_scoring(home: Home) -> None:
    withdrawn = Withdrawals.load(home, STORE)
    cohort = customers(SMALL, 20)
    found = scored(AdditiveModel(), cohort)
    kept = [keep(home, STORE, scoring(found, when, key=withdrawn.key), withdrawn) for when in (FIRST, LATER)]
    now = register(home, STORE, list(cohort.ids[:3]))
    record = scoring(found, datetime(2026, 4, 1, tzinfo=UTC)).record
    before = previous(home, STORE, record, now)
    assert before is not None and len(before.tags) == 17  # at once, before the files are rewritten
    assert forget(home, STORE, now) == []
    for path in kept:
        assert len(scorings._read(path, STORE).tags) == 17
    again = [path.read_bytes() for path in kept]
    assert forget(home, STORE, now) == [] and [path.read_bytes() for path in kept] == again


def test_who_withdraws_while_a_scoring_is_written_is_not_in_it(home: Home) -> None:
    before = Withdrawals.load(home, STORE)
    cohort = customers(SMALL, 20)
    made = scoring(scored(AdditiveModel(), cohort), key=before.key)
    register(home, STORE, [str(cohort.ids[0])])
    assert len(scorings._read(keep(home, STORE, made, before), STORE).tags) == 19


def test_a_damaged_scoring_has_its_code_and_does_not_keep_the_others(home: Home) -> None:
    withdrawn = Withdrawals.load(home, STORE)
    cohort = customers(SMALL, 6)
    found = scored(AdditiveModel(), cohort)
    whole = keep(home, STORE, scoring(found, key=withdrawn.key), withdrawn)
    torn = whole.with_name("small-retention.churn-2026-02-20-abababab.scores")
    write_sealed(torn, STORE, scorings.KIND, b"no scoring")
    record = scoring(found, LATER).record
    with pytest.raises(IntegrityError, match="CSL-C765"):
        previous(home, STORE, record, withdrawn)
    now = register(home, STORE, [str(cohort.ids[0])])
    assert forget(home, STORE, now) == [torn.stem] and len(scorings._read(whole, STORE).tags) == 5
    torn.write_bytes(b"csl-box1 cut off")
    with pytest.raises(IntegrityError, match="CSL-P520"):
        previous(home, STORE, record, withdrawn)


def test_strangers_in_the_folder_are_no_scorings(home: Home) -> None:
    folder = home.folder(scorings.FOLDER)
    for name in ("notes.txt", "a-b-2026-13-40-abababab.scores", "x.scores", ".small-a-2026-02-01-abababab.scores.tmp"):
        (folder / name).write_text("x")
    (folder / "small-a-2026-02-01-abababab.scores").symlink_to(folder / "notes.txt")
    assert [path.name for path in scorings.files(home)] == ["a-b-2026-13-40-abababab.scores"]
    assert scorings.day_of("a-b-2026-13-40-abababab") is None
    assert scorings.day_of("a-b.c-2026-02-03-abababab") == date(2026, 2, 3)
