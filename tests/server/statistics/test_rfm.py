"""RFM: what is asked, what comes of it, and how far the noise moves it."""

from pathlib import Path

import numpy as np
import pytest

from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import FederationError
from federation.measures import Condition, Rule, problems_of, sensitivity
from federation.queries import Accuracy, Rfm
from federation.segments import LEVELS, TRADE, UNSCORED, place_of, rules_from, score, thresholds_from
from server.statistics.asking import Setting
from server.statistics.rfm import RfmAsker, check
from simulations.asker_play import play
from tests.server.statistics.shop import BUDGET, CONFIGS, RFM, SD, cohorts, exact, noisy, pooled, setting

QUERY = Rfm(kind="rfm", id="rfm", recency="recency", frequency="frequency", monetary="monetary")
Z = 1.959963984540054


@pytest.fixture(scope="module")
def shops():
    return cohorts(np.random.default_rng(3))


def starts(shops):
    return [{"start": shop["start"]} for shop in shops]


def scores(shops, cuts):
    return tuple(
        score(pooled(shops, name), four, axis)
        for name, four, axis in zip(("recency", "frequency", "monetary"), cuts, "rfm", strict=True)
    )


def sizes(shops, thresholds, rules=TRADE):
    return np.bincount(place_of(rules, *scores(shops, thresholds.cuts)), minlength=len(rules) + 2)


def test_a_query_that_does_not_fit_is_said_in_words():
    assert check(QUERY, RFM) == []
    wrong = QUERY.model_copy(
        update={
            "monetary": "recency",
            "frequency": "age",
            "segments": (Rule(name="a", where=(Condition(column="recency", ge=0.5),)),),
            "where": (Condition(column="lapsed", any_of=("yes",)),),
        }
    )
    said = " | ".join(check(wrong, RFM))
    for part in ("age is no column", "three columns", "recency is no score", "lapsed is the label"):
        assert part in said
    bank = load_yaml(Path(CONFIGS / "contracts" / "bank_campaign.yaml"), FeatureContract)
    words = check(QUERY.model_copy(update={"recency": "job", "frequency": "age", "monetary": "balance"}), bank)
    assert words == ["job is not numeric: it cannot be cut into scores"]


def test_without_noise_the_answer_is_the_federations_own(shops):
    answer = play(
        RfmAsker(QUERY, Setting(RFM, 6000, 0.0, 0.95)),
        RFM,
        starts(shops),
        budget=50_000.0,
        sd=0.0,
        generator=np.random.default_rng(0),
    )
    thresholds = thresholds_from(answer.table("thresholds"))
    assert rules_from(answer.table("rules")) == TRADE and answer.kind == "rfm"
    truth, worth = sizes(shops, thresholds), np.clip(pooled(shops, "monetary"), 0.0, 20.0)
    places = place_of(TRADE, *scores(shops, thresholds.cuts))
    for number, rule in enumerate(TRADE):
        assert answer.table("segments").value(rule.name) == pytest.approx(truth[number])
        assert answer.table("shares").value(rule.name) == pytest.approx(truth[number] / 6000)
        mine = worth[places == number]
        # a customer's worth is rounded to a grid unit of the cap
        assert answer.table("value").value(rule.name, "mean") == pytest.approx(mine.mean(), abs=1e-3)
        assert answer.table("value").value(rule.name, "total") == pytest.approx(mine.sum(), rel=1e-3)
    assert answer.table("segments").value(UNSCORED) == 0.0
    for name, found in zip("rfm", scores(shops, thresholds.cuts), strict=True):
        shares = [answer.table("scores").value(name, str(points)) for points in range(1, 6)]
        assert shares == pytest.approx(np.bincount(found, minlength=6)[1:] / 6000) and sum(shares) == pytest.approx(1)
    assert answer.table("ranks").value("m", "0.4") == pytest.approx(
        np.mean(pooled(shops, "monetary") < thresholds.cuts[2][1])
    )


def test_ties_share_a_score_and_thresholds_are_as_near_as_values_allow(shops):
    """5 seeds, 12 thresholds: within 3 standard deviations of the rank's noise (0.3% each) and half a cell of a hundredth."""
    foretold = RfmAsker(QUERY, setting()).expected({1: BUDGET, 2: BUDGET})[0]
    assert foretold.unit == "percentile points"
    off = 3.0 / Z * foretold.within / 100.0 + 0.005
    assert off < 0.045
    for seed in range(5):
        answer = play(
            RfmAsker(QUERY, setting()), RFM, starts(shops), budget=BUDGET, sd=SD, generator=np.random.default_rng(seed)
        )
        thresholds = thresholds_from(answer.table("thresholds"))
        for name, cuts in zip(thresholds.columns, thresholds.cuts, strict=True):
            values = np.sort(pooled(shops, name))
            for level, cut in zip(LEVELS, cuts, strict=True):
                place = int(np.searchsorted(values, cut, side="left"))
                low = np.mean(values < values[max(place - 1, 0)])
                high = np.mean(values <= values[min(place, len(values) - 1)])
                assert low - off <= level <= high + off
        frequency = thresholds.cuts[1]
        assert all(cut.is_integer() and cut >= 2.0 for cut in frequency)
        assert np.abs(answer.table("segments").value("lost") - sizes(shops, thresholds)[10]) < 5 * 8.2 * 1.6


def test_every_round_stays_within_its_budget_and_its_question_is_decided_by_what_was_told(shops):
    first, second = RfmAsker(QUERY, setting()), RfmAsker(QUERY, setting())
    for asker in (first, second):
        measures = asker.ask(1, BUDGET)
        assert problems_of(measures, RFM) == [] and 0.97 * BUDGET < sensitivity(measures) <= BUDGET
        asker.told(1, noisy(measures, exact(measures, starts(shops)), np.random.default_rng(8)))
    one, other = first.ask(2, BUDGET), second.ask(2, BUDGET)
    assert one == other and 0.97 * BUDGET < sensitivity(one) <= BUDGET


def test_a_checkpoint_need_only_keep_the_sums(shops):
    asker, again = RfmAsker(QUERY, setting()), RfmAsker(QUERY, setting())
    for number in (1, 2):
        measures = asker.ask(number, BUDGET)
        sums = noisy(measures, exact(measures, starts(shops)), np.random.default_rng(number))
        asker.told(number, sums)
        again.told(number, sums)
    assert again.answer() == asker.answer()


def test_intervals_of_the_second_round_cover_at_the_confidence(shops):
    """600 repetitions: 95% +- 2.7 points is three standard deviations of the binomial; sizes that touch zero may cover more."""
    generator = np.random.default_rng(21)
    asker = RfmAsker(QUERY, setting())
    measures = asker.ask(1, BUDGET)
    asker.told(1, noisy(measures, exact(measures, starts(shops)), generator))
    measures = asker.ask(2, BUDGET)
    parts = exact(measures, starts(shops))
    thresholds = thresholds_from(_told(asker, measures, parts, generator).table("thresholds"))
    truth = _truth(shops, thresholds)
    covered = dict.fromkeys(truth, 0)
    repetitions = 600
    for _ in range(repetitions):
        answer = _told(asker, measures, parts, generator)
        for key, value in truth.items():
            low, high = _ends(answer, key)
            covered[key] += low - 1e-9 <= value <= high + 1e-9
    shares = {key: count / repetitions for key, count in covered.items()}
    assert {key: share for key, share in shares.items() if share < 0.923} == {}
    large = [key for key in truth if key[0] != "value" or key[2] == "mean"]
    large = [key for key in large if _size(truth, key) > 300 and truth[key] > 0.0]
    assert len(large) > 25 and {key: shares[key] for key in large if shares[key] > 0.977} == {}


def _size(truth, key):
    """Customers of the segment that a figure is about; many for scores and ranks."""
    return truth["segments", key[1]] if key[0] in ("segments", "shares", "value") and key[1] != "all" else 6000


def _told(asker, measures, parts, generator):
    asker.told(2, noisy(measures, parts, generator))
    return asker.answer()


def _ends(answer, key):
    row = next(row for row in answer.table(key[0]).rows if row.key == key[1:])
    return (-np.inf, np.inf) if row.low is None or row.high is None else (row.low, row.high)


def _truth(shops, thresholds):
    """The true figures of all tables with these thresholds."""
    found = scores(shops, thresholds.cuts)
    places, worth = place_of(TRADE, *found), np.clip(pooled(shops, "monetary"), 0.0, 20.0)
    truth = {("value", "all", "mean"): float(worth.mean()), ("value", "all", "total"): float(worth.sum())}
    for number, rule in enumerate(TRADE):
        mine = worth[places == number]
        truth["segments", rule.name], truth["shares", rule.name] = len(mine), len(mine) / len(worth)
        if len(mine):
            truth["value", rule.name, "mean"] = float(mine.mean())
            truth["value", rule.name, "total"] = float(mine.sum())
    for name, column, axis, cuts in zip("rfm", thresholds.columns, found, thresholds.cuts, strict=True):
        for points in range(1, 6):
            truth["scores", name, str(points)] = float(np.mean(axis == points))
        for level, cut in zip(LEVELS, cuts, strict=True):
            truth["ranks", name, f"{level:g}"] = float(np.mean(pooled(shops, column) < cut))
    return truth


def test_own_segments_may_leave_some_over_and_some_without_anybody(shops):
    rules = (
        Rule(name="best", where=(Condition(column="r", ge=5.0), Condition(column="m", ge=5.0))),
        Rule(name="twos", where=(Condition(column="f", ge=2.0, lt=3.0),)),
    )
    query = QUERY.model_copy(update={"segments": rules})
    assert check(query, RFM) == []
    answer = play(
        RfmAsker(query, setting()), RFM, starts(shops), budget=BUDGET, sd=SD, generator=np.random.default_rng(0)
    )
    thresholds = thresholds_from(answer.table("thresholds"))
    assert thresholds.cuts[1][0] == thresholds.cuts[1][1]  # nobody has f = 2: half of all bought once
    names = [row.key[0] for row in answer.table("segments").rows]
    assert names == ["best", "twos", "other", "unscored"]
    twos = next(row for row in answer.table("segments").rows if row.key == ("twos",))
    assert (twos.value, twos.low, twos.high) == (0.0, 0.0, 0.0)
    assert any("no customer can be in twos" in note for note in answer.notes)
    assert any("other are 96 of 125 combinations" in note for note in answer.notes)
    truth = sizes(shops, thresholds, rules)
    assert answer.table("segments").value("other") == pytest.approx(truth[2], abs=60)
    assert sum(answer.table("segments").value(name) for name in names) == pytest.approx(6000, abs=100)


def test_small_groups_are_told_from_nobody_only_where_noise_lets_them(shops):
    query = QUERY.model_copy(update={"where": (Condition(column="frequency", ge=9.0),)})
    answer = play(
        RfmAsker(query, setting()), RFM, starts(shops), budget=BUDGET, sd=SD, generator=np.random.default_rng(2)
    )
    assert any("cannot be told from 0" in note for note in answer.notes)
    assert all(row.low is None or row.low >= 0.0 for row in answer.table("segments").rows)


def test_a_budget_that_says_nothing_is_refused_and_a_sufficient_one_is_named():
    asker = RfmAsker(QUERY, setting())
    for number in (1, 2):
        with pytest.raises(FederationError, match="CSL-S730") as caught:
            asker.ask(number, 20.0)
        least = float(str(caught.value).split("it needs ")[1].split(".")[0].split(" ")[0])
        assert least > 20.0
        if number == 1:
            asker.ask(1, least)


def test_the_accuracy_asked_for_names_the_sensitivity_that_reaches_it(shops):
    query = QUERY.model_copy(update={"accuracy": Accuracy(within=60.0, confidence=0.9)})
    asker = RfmAsker(query, setting(confidence=0.9))
    first, second = asker.needed(1), asker.needed(2)
    assert first is not None and second is not None and RfmAsker(QUERY, setting()).needed(1) is None
    rank, size, mean = asker.expected({1: first, 2: second})
    assert rank.within * 6000 / 100 == pytest.approx(60.0, rel=0.02) and rank.within * 60 <= 60.0
    assert size.within == pytest.approx(60.0, rel=0.02) and size.within <= 60.0
    assert mean.unit == RFM.column("monetary").unit
    # what is foretold is what comes
    asker.told(1, noisy(measures := asker.ask(1, first), exact(measures, starts(shops)), np.random.default_rng(1)))
    asker.told(2, noisy(measures := asker.ask(2, second), exact(measures, starts(shops)), np.random.default_rng(1)))
    row = next(row for row in asker.answer().table("segments").rows if row.key == ("lost",))
    assert (row.high - row.low) / 2.0 == pytest.approx(size.within, rel=0.02)
