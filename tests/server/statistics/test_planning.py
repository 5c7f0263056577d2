"""Schedules and budgets: nothing above the grant, accuracies met, single rounds balanced, and the same every time."""

import json
import math
from datetime import date
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from federation.charter import Charter, Declaration, PinnedContract
from federation.contract import FeatureContract
from federation.errors import DocumentError, FederationError
from federation.measures import MOST_CELLS, dimension_of, problems_of, sensitivity
from federation.signing import verify
from federation.statistics import StatisticsDraft
from federation.study import CONTEXT
from server.planning import SHARE
from server.statistics.askers import make_asker
from server.statistics.asking import Setting
from server.statistics.planning import (
    Schedule,
    Turn,
    check_statistics,
    plan_statistics,
    problems_of_statistics,
    setting_of,
    sign_statistics,
)
from tests.server.fakes import SIZES, FakeFederation, contract, key_of
from tests.server.statistics.shop import RFM

CONTRACT = contract()
GRANTED = 5000.0
COUNT: dict[str, object] = {"kind": "count"}
MEAN: dict[str, object] = {"kind": "mean", "of": "age"}
QUANTILES: dict[str, object] = {"kind": "quantiles", "of": "spent"}
CORRELATION: dict[str, object] = {"kind": "correlation", "of": ["age", "spent"]}
TREE: dict[str, object] = {"kind": "tree", "of": ["age", "job"], "label": "bought", "depth": 2}
CLUSTERS: dict[str, object] = {"kind": "clusters", "of": ["age", "spent"], "k": 3, "steps": 3}
SINGLE = (COUNT, MEAN, QUANTILES, CORRELATION)


def draft(*queries: dict[str, object], **changes: object) -> StatisticsDraft:
    tree = {
        "kind": "statistics",
        "name": "people",
        "title": "Who they are",
        "purpose": "marketing.analytics",
        "contract": "shoppers",
        "epsilon": 1.0,
        "queries": [{"id": f"q{place}"} | query for place, query in enumerate(queries)],
    } | changes
    return StatisticsDraft.model_validate_json(json.dumps(tree))


def setting(asked: StatisticsDraft) -> Setting:
    return setting_of(asked, CONTRACT, SIZES)


def schedule(*queries: dict[str, object]) -> Schedule:
    asked = draft(*queries)
    return Schedule(asked, setting(asked))


@st.composite
def drafts(draw: st.DrawFn) -> StatisticsDraft:
    """Queries of one and of several rounds, some with weights, some with accuracies."""
    queries = []
    for _ in range(draw(st.integers(1, 6))):
        query = dict(draw(st.sampled_from([COUNT, MEAN, QUANTILES, TREE, CLUSTERS])))
        query["weight"] = draw(st.floats(0.1, 50.0))
        if query["kind"] in ("count", "mean") and draw(st.booleans()):
            query["accuracy"] = {"within": draw(st.floats(0.5, 500.0)), "confidence": draw(st.floats(0.5, 0.999))}
        queries.append(query)
    return draft(*queries)


@settings(max_examples=60)
@given(asked=drafts(), granted=st.floats(100.0, 1e5))
def test_a_round_never_asks_for_more_than_was_granted(asked, granted):
    plan = Schedule(asked, setting(asked))
    for number in range(1, plan.rounds + 1):
        try:
            budgets = plan.budgets(number, granted)
        except FederationError as error:
            assert error.code == "CSL-S780"
            assume(False)
        assert list(budgets) == list(plan.turns(number))
        assert all(value > 0.0 for value in budgets.values())
        assert math.sqrt(math.fsum(value * value for value in budgets.values())) <= granted
        assert math.fsum(value * value for value in budgets.values()) >= granted * granted * (1 - 1e-6) * bool(budgets)


@settings(max_examples=60)
@given(asked=drafts())
def test_every_query_has_all_its_rounds_once_one_after_another(asked):
    plan = Schedule(asked, setting(asked))
    found: dict[int, list[tuple[int, int]]] = {}
    for number in range(1, plan.rounds + 1):
        assert plan.turns(number), "no round is empty"
        places = [turn.place for turn in plan.turns(number)]
        assert places == sorted(set(places)), "each in its place, at most once a round"
        for turn in plan.turns(number):
            found.setdefault(turn.place, []).append((number, turn.local))
    for place, asker in enumerate(plan.askers):
        numbers, locals_ = zip(*found[place], strict=True)
        assert list(locals_) == list(range(1, asker.rounds + 1))
        assert list(numbers) == list(range(numbers[0], numbers[0] + asker.rounds))


@settings(max_examples=30)
@given(asked=drafts(), granted=st.floats(1000.0, 1e5))
def test_a_restart_finds_the_same_schedule(asked, granted):
    first, second = (Schedule(asked, setting(asked)) for _ in range(2))
    assert first.rounds == second.rounds
    for number in range(1, first.rounds + 1):
        assert first.turns(number) == second.turns(number)
        try:
            budgets = first.budgets(number, granted)
        except FederationError:
            with pytest.raises(FederationError):
                second.budgets(number, granted)
        else:
            assert budgets == second.budgets(number, granted) == first.budgets(number, granted)


@settings(max_examples=30)
@given(kinds=st.lists(st.sampled_from(SINGLE), min_size=1, max_size=8), granted=st.floats(2000.0, 1e5))
def test_what_is_asked_for_in_the_first_round_stays_within_its_budget(kinds, granted):
    """The measures themselves, as a vault adds them up: together no customer changes them by more than was granted."""
    plan = schedule(*kinds)
    measures = [
        item
        for turn, value in plan.budgets(1, granted).items()
        for item in plan.askers[turn.place].ask(turn.local, value)
    ]
    assert problems_of(measures, CONTRACT) == []
    assert sensitivity(measures) <= granted
    assert dimension_of(measures, CONTRACT) <= MOST_CELLS


def test_queries_of_one_round_go_where_least_is_asked():
    plan = schedule(*[COUNT] * 6, TREE)
    assert plan.rounds == 3
    singles = [sum(turn.place != 6 for turn in plan.turns(number)) for number in (1, 2, 3)]
    assert singles == [2, 2, 2]
    heavy = schedule(COUNT | {"weight": 10.0}, COUNT, COUNT, TREE)
    assert [[turn.place for turn in heavy.turns(number)] for number in (1, 2, 3)] == [[0, 3], [1, 3], [2, 3]]


def test_the_longest_query_says_how_many_rounds_there_are():
    assert schedule(COUNT).rounds == 1
    assert schedule(COUNT, CLUSTERS).rounds == 4
    asked = draft(CLUSTERS, TREE)
    plan = plan_statistics(asked, setting(asked))
    assert (plan.rounds, plan.dimension, plan.share) == (4, MOST_CELLS, SHARE)


def test_weights_share_out_squares():
    one, three = schedule(COUNT, COUNT | {"weight": 3.0}).budgets(1, GRANTED).values()
    assert three / one == pytest.approx(math.sqrt(3.0))
    assert math.hypot(one, three) == pytest.approx(GRANTED)


def within(plan: Schedule, place: int, granted: float = GRANTED) -> float:
    """How far the noise may move the numbers of a query."""
    (said,) = plan.expected(granted)[place]
    return said.within


def test_an_accuracy_is_met_and_no_more_is_taken_than_it_needs():
    half = within(schedule(COUNT), 0)
    accurate = schedule(COUNT | {"accuracy": {"within": 2.0 * half}}, COUNT)
    # caps are whole numbers: at most one grid unit of a few thousand is given away
    assert 0.999 * 2.0 * half <= within(accurate, 0) <= 2.0 * half
    first, second = accurate.budgets(1, GRANTED).values()
    assert first == accurate.askers[0].needed(1)
    assert math.hypot(first, second) == pytest.approx(GRANTED)
    assert within(accurate, 1) < 2.0 * half


def test_a_confidence_of_its_own_counts_for_the_accuracy():
    half = within(schedule(COUNT), 0)
    needed = [
        schedule(COUNT | {"accuracy": {"within": 3.0 * half, "confidence": confidence}}).askers[0].needed(1)
        for confidence in (0.8, 0.95, 0.999)
    ]
    assert needed[0] < needed[1] < needed[2]  # type: ignore[operator]
    assert needed[2] / needed[1] == pytest.approx(3.2905 / 1.96, rel=2e-3)  # type: ignore[operator]


def test_what_nobody_needs_makes_everything_more_exact():
    half = within(schedule(COUNT), 0)
    easy = schedule(COUNT | {"accuracy": {"within": 10.0 * half}})
    assert within(easy, 0) == pytest.approx(half, rel=1e-3)
    two = schedule(COUNT | {"accuracy": {"within": 10.0 * half}}, COUNT | {"accuracy": {"within": 20.0 * half}})
    coarse, fine = within(two, 1), within(two, 0)
    assert coarse / fine == pytest.approx(2.0, rel=1e-2)  # caps are whole numbers
    assert fine < 10.0 * half


def test_too_much_accuracy_says_by_how_much():
    half = within(schedule(COUNT), 0)
    for factor in (1.5, 4.0, 4000.0):
        plan = schedule(COUNT | {"accuracy": {"within": half / factor}}, MEAN)
        with pytest.raises(FederationError, match="CSL-S780") as caught:
            plan.expected(GRANTED)
        said = caught.value.cause.split(" need ")[1].split(" times")[0].replace(",", "")
        assert factor * 0.999 <= float(said) <= factor * 1.01 + 1.0 * (factor >= 10)
        plan.budgets(1, GRANTED * float(said))


def test_more_epsilon_is_never_less_exact():
    queries = (COUNT, MEAN, CORRELATION, TREE, CLUSTERS)
    coarse, fine = schedule(*queries).expected(GRANTED), schedule(*queries).expected(4 * GRANTED)
    pairs = [(a, b) for one, other in zip(coarse, fine, strict=True) for a, b in zip(one, other, strict=True)]
    assert len(pairs) >= len(queries)
    assert all(0 < b.within < a.within and a.what == b.what for a, b in pairs)


def test_the_setting_is_made_of_public_numbers():
    asked = draft(COUNT, confidence=0.9)
    found = setting(asked)
    assert (found.customers, found.confidence) == (sum(SIZES.values()), 0.9)
    assert found.sd == SHARE * math.sqrt(len(SIZES))
    assert found.z == pytest.approx(1.6449, abs=1e-4)
    assert setting_of(asked, CONTRACT, {"alpha": 7}, share=300.0).sd == 300.0


# -- drafts against charter and contract

CHARTER = FakeFederation.make(Path("unused")).charter


def charter(agreed: FeatureContract = CONTRACT, **declared: object) -> Charter:
    """The fakes' charter, with all members declaring customers for one contract."""
    given_ = {"contract": agreed.name, "size": 1000} | declared
    members = tuple(item.model_copy(update={"declares": (Declaration(**given_),)}) for item in CHARTER.members)  # type: ignore[arg-type]
    pinned = (PinnedContract(name=agreed.name, sha256=agreed.digest()),)
    return CHARTER.model_copy(update={"members": members, "contracts": pinned})


def test_a_draft_that_fits_has_no_problem():
    check_statistics(draft(COUNT, MEAN), CHARTER, CONTRACT)
    assert problems_of_statistics(draft(COUNT), charter(), CONTRACT) == []


@pytest.mark.parametrize(
    ("asked", "under", "words"),
    [
        (draft(COUNT, contract="walkers"), CHARTER, "the charter pins no contract called walkers"),
        (draft(COUNT), charter(RFM), "the charter pins no contract called shoppers"),
        (draft(COUNT), charter(RFM), "nobody declares customers for shoppers"),
        (draft(COUNT, min_partners=5), CHARTER, "5 are needed, and 4 declare customers for shoppers"),
        (
            draft(COUNT, aggregation="secure", noise="shared", n_min=9, c=1),
            CHARTER,
            "9 are needed, and 4 declare customers for shoppers",
        ),
        (draft({"kind": "mean", "of": "agee"}), CHARTER, "q0: agee is no column"),
    ],
)
def test_what_does_not_fit_is_said(asked, under, words):
    assert any(words in problem for problem in problems_of_statistics(asked, under, CONTRACT))
    with pytest.raises(DocumentError, match="CSL-S101") as caught:
        check_statistics(asked, under, CONTRACT)
    assert words in caught.value.cause


def test_another_version_of_the_contract_is_noticed():
    newer = CONTRACT.model_copy(update={"version": 2})
    (problem,) = problems_of_statistics(draft(COUNT), CHARTER, newer)
    assert "not the version that the charter pins" in problem


def test_purchases_need_an_as_of_date_of_everybody():
    asked = draft(COUNT, contract="rfm")
    (problem,) = problems_of_statistics(asked, charter(RFM), RFM)
    assert problem == "members: no as-of date is declared by alpha, beta, delta, gamma"
    dated = charter(RFM, as_of=date(2026, 1, 1), window_days=365, horizon_days=90)
    assert problems_of_statistics(asked, dated, RFM) == []


def test_a_signed_study_says_all_that_was_planned():
    asked = draft(COUNT, TREE)
    signed = sign_statistics(asked, CHARTER, CONTRACT, "0" * 32, key_of("coordinator"))
    verify(signed.signature, CONTEXT, signed.spec, CHARTER.coordinator_key)
    assert (signed.spec.draft, signed.spec.plan.rounds, signed.spec.secure) == (asked, 3, None)
    assert (signed.spec.charter, signed.spec.contract_digest) == (CHARTER.digest(), CONTRACT.digest())
    other = sign_statistics(asked, CHARTER, CONTRACT, "1" * 32, key_of("coordinator"))
    assert other.spec.digest() != signed.spec.digest()


def test_turns_name_queries_by_their_place():
    asked = draft(TREE, COUNT)
    plan = Schedule(asked, setting(asked))
    assert plan.turns(1)[0] == Turn(0, 1)
    assert [type(asker) for asker in plan.askers] == [type(make_asker(item, setting(asked))) for item in asked.queries]
