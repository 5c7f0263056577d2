"""The strategy map: the first rule that fits decides, and what is wrong with a map is found by trying every combination."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from client.home import Home
from client.strategy import (
    ANY,
    DEFAULT,
    UNPLACED,
    Checked,
    DecileBands,
    NextAction,
    ProbabilityBands,
    Rule,
    Strategy,
    check_strategy,
    load_strategy,
    strategy_of,
)
from federation.document import parse_yaml
from federation.errors import DocumentError

DELIVERED = Path(__file__).parents[2] / "configs" / "strategies"
SEGMENTS, STAGES, BANDS = ("gold", "grey"), ("new", "old"), ("high", "mid", "low")
ACTIONS = [NextAction(product=name, channel="post", message="hello") for name in ("book", "pen")]


def strategy(rules: list[Rule], default: NextAction | str = "nothing", **changes: Any) -> Strategy:
    fields: dict[str, Any] = {
        "title": "A map",
        "contract": "shop",
        "score": "churn",
        "segments": SEGMENTS,
        "stages": STAGES,
        "bands": ProbabilityBands(kind="probability", at_least={"high": 0.6, "mid": 0.2, "low": 0.0}),
        "products": {"book": "A book", "pen": "A pen"},
        "channels": {"post": "A letter"},
        "messages": {"hello": "Hello"},
        "rules": tuple(rules),
        "default": default,
    }
    return Strategy(**(fields | changes))


def rule(segment: Any = ANY, stage: Any = ANY, band: Any = ANY, then: Any = ACTIONS[0]) -> Rule:
    return Rule(segment=segment, stage=stage, band=band, then=then)


def wanted(names: tuple[str, ...]) -> st.SearchStrategy[Any]:
    return st.just(ANY) | st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True).map(tuple)


rules = st.lists(
    st.builds(
        rule,
        segment=wanted((*SEGMENTS, "stranger")),
        stage=wanted(STAGES),
        band=wanted(BANDS),
        then=st.sampled_from([*ACTIONS, "nothing"]),
    ),
    max_size=7,
)


def fits(item: Rule, cell: tuple[str, str, str]) -> bool:
    axes = zip((item.segment, item.stage, item.band), cell, strict=True)
    return all(names == ANY or own in names for names, own in axes)


def cells() -> Iterator[tuple[str, str, str]]:
    return product((*SEGMENTS, UNPLACED), (*STAGES, UNPLACED), BANDS)


def of(found: Checked, what: str) -> list[tuple[int, ...]]:
    return [item.rules for item in found.findings if item.what == what]


@settings(max_examples=150)
@given(rules=rules)
def test_the_findings_are_those_of_trying_every_combination(rules: list[Rule]) -> None:
    found = check_strategy(strategy(rules))
    matched = [{cell for cell in cells() if fits(item, cell)} for item in rules]
    deciding = {cell: next((n for n, own in enumerate(matched, 1) if cell in own), DEFAULT) for cell in cells()}
    assert found.decides == tuple(list(deciding.values()).count(n) for n in range(len(rules) + 1))
    assert found.cells == 27 == sum(found.decides)
    idle = {n for n, own in enumerate(matched, 1) if own and n not in deciding.values()}
    assert {numbers[0] for numbers in of(found, "unreachable")} == idle
    strangers = [n for n, item in enumerate(rules, 1) if item.segment != ANY and "stranger" in item.segment]
    assert [numbers[0] for numbers in of(found, "unknown name")] == strangers
    gap = [cell for cell, n in deciding.items() if n == DEFAULT and UNPLACED not in cell]
    assert of(found, "gap") == ([(DEFAULT,)] if gap else [])
    assert all(f" {len(gap)} of 12 " in item.text for item in found.findings if item.what == "gap")


@settings(max_examples=100)
@given(rules=rules)
def test_rules_without_an_overlap_can_change_places(rules: list[Rule]) -> None:
    """Two neighbours that share combinations either are said to contend, or are fallback and exception, alike, or idle."""
    found = check_strategy(strategy(rules))
    contend = set(of(found, "overlap"))
    for number in range(1, len(rules)):
        one, two = rules[number - 1], rules[number]
        first, second = ({cell for cell in cells() if fits(item, cell)} for item in (one, two))
        shared = bool(first & second)
        assert shared or (number, number + 1) not in contend
        if (number, number + 1) in contend:
            assert one.then != two.then and not first <= second and not second <= first


@settings(max_examples=100)
@given(rules=rules, score=st.floats(0, 1), decile=st.integers(1, 10), data=st.data())
def test_the_first_rule_that_fits_decides(rules: list[Rule], score: float, decile: int, data: st.DataObject) -> None:
    made = strategy(rules, default=ACTIONS[1])
    segment = data.draw(st.sampled_from([*SEGMENTS, UNPLACED, "unheard_of"]))
    stage = data.draw(st.sampled_from([*STAGES, UNPLACED]))
    decided = made.decide(segment, stage, score, decile)
    assert decided.band == ("high" if score >= 0.6 else "mid" if score >= 0.2 else "low")
    first = next((n for n, item in enumerate(rules, 1) if fits(item, (segment, stage, decided.band))), DEFAULT)
    then = rules[first - 1].then if first else ACTIONS[1]
    assert decided.rule == first and decided.action == (None if then == "nothing" else then)


def test_what_contends_is_said_and_a_fallback_does_not() -> None:
    champions, old, high = (
        rule(segment=("gold",)),
        rule(stage=("old",), then=ACTIONS[1]),
        rule(band=("high",), then=ACTIONS[1]),
    )
    assert of(check_strategy(strategy([champions, old])), "overlap") == [(1, 2)]
    both = rule(segment=("gold",), band=("high", "mid"))
    assert of(check_strategy(strategy([both, high])), "overlap") == []  # the exception, then its fallback
    assert of(check_strategy(strategy([champions, rule(stage=("old",))])), "overlap") == []  # they say the same


def test_who_is_placed_nowhere_or_in_a_strange_segment_fits_any_alone() -> None:
    made = strategy([rule(segment=("gold",)), rule(band=("high",), then=ACTIONS[1])])
    assert made.decide(UNPLACED, UNPLACED, 0.9, 1).rule == made.decide("strange", "odd", 0.9, 1).rule == 2
    assert made.decide("gold", UNPLACED, 0.9, 1).rule == 1 and made.decide(UNPLACED, "new", 0.1, 9).rule == DEFAULT
    assert made.knows("gold", UNPLACED) and not made.knows("strange", "new") and not made.knows("gold", "odd")


def test_bands_by_decile() -> None:
    bands = DecileBands(kind="decile", up_to={"top": 1, "next": 4, "rest": 10})
    assert [bands.of(0.5, decile) for decile in (1, 2, 4, 5, 10)] == ["top", "next", "next", "rest", "rest"]
    made = strategy([rule(band=("next",))], bands=bands)
    assert made.decide(UNPLACED, UNPLACED, 0.0, 3).rule == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"bands": {"kind": "probability", "at_least": {"high": 0.5, "low": 0.1}}},
        {"bands": {"kind": "probability", "at_least": {"low": 0.0, "high": 0.5}}},
        {"bands": {"kind": "decile", "up_to": {"high": 3, "low": 9}}},
        {"bands": {"kind": "decile", "up_to": {"high": 3, "mid": 3, "low": 10}}},
        {"segments": ["gold", "gold"]},
        {"stages": ["any"]},
        {"rules": [{"then": "something"}]},
        {"rules": [{"segment": "gold", "then": "nothing"}]},
        {"rules": [{"segment": [], "then": "nothing"}]},
        {"default": None},
        {"surprise": 1},
    ],
)
def test_what_is_no_map_is_refused(changes: dict[str, Any]) -> None:
    plain = strategy([rule()]).model_dump(mode="json")
    assert parse_yaml(yaml.safe_dump(plain, sort_keys=False).encode(), Strategy, "map").title == "A map"
    with pytest.raises(DocumentError, match="CSL-F105"):
        parse_yaml(yaml.safe_dump(plain | changes, sort_keys=False).encode(), Strategy, "map")


def test_a_map_needs_a_default() -> None:
    plain = strategy([rule()]).model_dump(mode="json")
    del plain["default"]
    with pytest.raises(DocumentError, match="default"):
        parse_yaml(yaml.safe_dump(plain, sort_keys=False).encode(), Strategy, "map")


def test_a_map_with_faults_is_not_used_and_every_fault_is_named(tmp_path: Path) -> None:
    broken = strategy(
        [
            rule(segment=("gold", "silver"), then=NextAction(product="car", channel="post", message="hello")),
            rule(),
            rule(band=("high",)),
        ],
        default=NextAction(product="pen", channel="smoke", message="hello"),
    )
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump(broken.model_dump(mode="json"), sort_keys=False))
    with pytest.raises(DocumentError, match="CSL-C763") as caught:
        load_strategy(path)
    for part in (
        "4 faults",
        "segment silver",
        "product car",
        "default",
        "channel smoke",
        "Rule 3 never decides: rules 1, 2 before",
    ):
        assert part in caught.value.cause


def test_names_that_no_rule_uses_are_noted() -> None:
    found = check_strategy(strategy([rule()]))
    assert [item.text for item in found.findings] == ["No rule uses the product pen."] and not found.faults


@pytest.mark.parametrize("name", ["bank", "shop"])
def test_the_delivered_maps_have_no_fault_and_no_gap(name: str) -> None:
    made = load_strategy(DELIVERED / f"{name}.yaml")
    found = check_strategy(made)
    assert {item.what for item in found.findings} <= {"overlap"} and found.decides[DEFAULT] == 0
    assert made.decide(UNPLACED, UNPLACED, 0.0, 10).action is None


def test_a_home_has_one_map_for_each_contract(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert strategy_of(home, "rfm") is None
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "rfm.yaml").write_bytes((DELIVERED / "shop.yaml").read_bytes())
    found = strategy_of(home, "rfm")
    assert found is not None and found.score == "churn"
    (tmp_path / "strategies" / "shop.yaml").write_bytes((DELIVERED / "shop.yaml").read_bytes())
    with pytest.raises(DocumentError, match="CSL-C764"):
        strategy_of(home, "shop")
