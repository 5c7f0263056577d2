"""Campaigns: exact without noise, covered with it, consistent always."""

import numpy as np
import pytest

from federation.queries import Accuracy, Campaign
from server.statistics.campaigns import CampaignAsker, check
from simulations.asker_play import play
from tests.server.statistics.town import ARMS, CONTRACT, Exact, coverage, setting, tolerance, town

TOWN = town(np.random.default_rng(11))
FULL = Campaign(
    id="c",
    kind="campaign",
    arm="arm",
    outcomes=("bought", "kept"),
    segment="region",
    chosen_by="chosen",
    spend="income",
    cost="cost",
    score="score",
    score_cuts=(0.25, 0.5, 0.75),
)


def _gain(outcome: str, arm: str, part: np.ndarray | None = None) -> float:
    frame = TOWN.frame if part is None else TOWN.frame[part]
    rates = frame.groupby("arm")[outcome].mean()
    return float(rates[arm] - rates["control"])


def test_without_noise_the_answer_is_that_of_pandas() -> None:
    asker = CampaignAsker(FULL, setting())
    answer = play(asker, CONTRACT, TOWN.cohorts, budget=3e6, sd=0.0, generator=np.random.default_rng(1))
    frame = TOWN.frame
    for arm in ARMS[1:]:
        for outcome in FULL.outcomes:
            for table in ("uplift", "uplift_noise"):
                assert answer.table(table).value(outcome, arm) == pytest.approx(_gain(outcome, arm), abs=1e-9)
            north = (frame["region"] == "north").to_numpy()
            assert answer.table("uplift_by_segment").value(outcome, arm, "north") == pytest.approx(
                _gain(outcome, arm, north), abs=1e-9
            )
            yes, no = ((frame["chosen"] == flag).to_numpy() for flag in (1, 0))
            assert answer.table("chosen_difference").value(outcome, arm, "yes") == pytest.approx(
                _gain(outcome, arm, yes) - _gain(outcome, arm, no), abs=1e-9
            )
        assert answer.table("spend_uplift").value(arm) == pytest.approx(_gain("income", arm), abs=1e-2)
        extra, gained = answer.table("cost_per_extra").value("bought", arm), _gain("bought", arm)
        if gained > 0.03:
            assert extra == pytest.approx(_gain("cost", arm) / gained, rel=1e-3)
        if gained < 0:
            assert extra is None
        assert answer.table("customers").value(arm) == (frame["arm"] == arm).sum()
    best = frame[frame["score"] >= 0.75].groupby("arm")["bought"].agg(["sum", "count"])
    first = (
        best.loc["call", "sum"] - best.loc["control", "sum"] * best.loc["call", "count"] / best.loc["control", "count"]
    )
    said = answer.table("qini").value("bought", "call", "0.75 and more")
    assert said == pytest.approx(first / (frame["arm"] == "call").sum(), abs=1e-9)


def test_intervals_of_the_noise_hold_as_often_as_they_say() -> None:
    query = FULL.model_copy(update={"chosen_by": None})
    exact, draws = Exact.of(CampaignAsker(query, setting()), TOWN, 12_000.0), 400
    truth = {(outcome, arm): _gain(outcome, arm) for outcome in FULL.outcomes for arm in ARMS[1:]}
    found = coverage(exact, "uplift_noise", truth, 36_000.0, draws)
    assert len(found) == 4
    assert max(abs(share - 0.95) for share in found.values()) <= tolerance(draws, 4)
    spend = {(arm,): _gain("income", arm) for arm in ARMS[1:]}
    found = coverage(exact, "spend_uplift_noise", spend, 36_000.0, draws)
    assert max(abs(share - 0.95) for share in found.values()) <= tolerance(draws, 2)


def test_a_wider_noise_is_predicted_and_says_less() -> None:
    asker = CampaignAsker(FULL, setting())
    answer = Exact.of(asker, TOWN, 3000.0).answer(np.random.default_rng(2), 36_000.0)
    within = asker.expected({1: 3000.0})[0].within
    halves = [((row.high or 0.0) - (row.low or 0.0)) / 2 for row in answer.table("uplift_noise").rows]
    assert max(halves) <= within * 1.05 and min(halves) > within / 3
    assert any("gains cannot be told from 0" in note for note in answer.notes)
    assert any("only where chance decided" in note for note in answer.notes)


def test_what_is_needed_is_enough() -> None:
    query = Campaign(id="c", kind="campaign", arm="arm", outcomes=("bought",), accuracy=Accuracy(within=0.02))
    asker = CampaignAsker(query, setting())
    needed = asker.needed(1)
    assert needed is not None
    answer = Exact.of(asker, TOWN, needed).answer(np.random.default_rng(2), 36_000.0)
    assert all((row.high or 0.0) - (row.low or 0.0) <= 0.04 * 1.05 for row in answer.table("uplift_noise").rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"control": "post"}, "has no arm post; it has control, letter, call"),
        ({"arm": "age"}, "give cuts"),
        ({"outcomes": ("age",)}, "is no yes or no"),
        ({"outcomes": ("shoe",)}, "is no column"),
        ({"spend": "kept"}, "is not numeric"),
        ({"segment": "age"}, "give cuts"),
        ({"segment": "arm"}, "stands twice"),
        ({"score_cuts": (0.5, 0.2)}, "must increase"),
        ({"score_cuts": tuple(x / 200 for x in range(1, 150))}, "at most 100"),
        ({"outcomes": ("kept", "kept")}, "more than one part"),
    ],
)
def test_problems_are_named(change: dict[str, object], words: str) -> None:
    assert check(FULL, CONTRACT) == []
    assert words in " ".join(check(FULL.model_copy(update=change), CONTRACT))
