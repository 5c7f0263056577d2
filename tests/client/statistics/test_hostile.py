"""A coordinator that wants more of a statistics study than was granted: each attack is played at the vault's door."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from client.cohort import Cohort
from client.statistics.measuring import measure_all
from client.statistics.people import People
from client.statistics.room import CountingRoom
from client.studies import OpenStatistics, OpenStudy, Studies
from federation.measures import (
    LARGEST_CAP,
    MOST_CELLS,
    BinsAxis,
    Cells,
    Centres,
    Condition,
    Factor,
    GroupsAxis,
    Rule,
    RulesAxis,
    Term,
    sensitivity,
)
from federation.messages import StatisticsRelease, StatisticsRequest, pack, unpack
from tests.client.entries import kinds, reasons, refused, written
from tests.client.node_files import DECLARED, purchase, rfm, shop_node
from tests.client.statistics.test_measuring import CONTRACT, ROWS, people
from tests.client.statistics.town import (
    QUERIES,
    by_job,
    draft,
    found,
    grant,
    of_age,
    offer,
    request,
    spec,
)
from tests.client.vault_home import Town

STAGES = [{"name": "old", "where": [{"column": "age", "ge": 60.0}]}]
LABEL = [*QUERIES, {"id": "bought", "kind": "mean", "of": "bought"}]


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return found(tmp_path_factory.mktemp("statistics") / "town")


@pytest.fixture
def town(founded: Town, tmp_path) -> Town:
    from tests.client.secure.town import copied

    return copied(founded, tmp_path / "town")


def code(town: Town, vault, kind: str, records) -> str:
    """Ask for what must be refused, and return the reason in the ledger; nothing is read or released for it."""
    before = [name for name in kinds(town, vault.member) if name in ("consent", "release")]
    assert refused(town, vault.answer(kind, records), vault.member)
    assert [name for name in kinds(town, vault.member) if name in ("consent", "release")] == before
    return reasons(town, vault.member)[-1]


def answered(town: Town, vault, asked, number: int, *measures) -> bytes:
    reply = vault.answer("query.measure", request(town, asked, number, *measures))
    return unpack(reply, StatisticsRelease, town.key(vault.member))[1]


def exact(vault, asked, *measures) -> np.ndarray:
    """What the vault's customers give without noise."""
    held = vault._rooms.counting(vault._studies.statistics(asked.digest()))
    return measure_all(measures, held.people, held.contract)


# One customer's part of a sum.


@pytest.mark.parametrize("radius", [5e-324, 1e-310, 1e-7, 0.0])
def test_a_radius_next_to_zero_is_refused(town, radius):
    """Over it a way is infinite, times nothing: no number, and as an integer the least there is. One customer would show in it."""
    age = Factor(column="age", low=18.0, high=90.0)
    with pytest.raises(ValidationError, match="radius"):
        Centres(factors=(age,), centres=((0.0,),), radius=radius, cap=1, reach=1)
    forged = Centres.model_construct(
        kind="centres", factors=(age,), where=(), centres=((0.0,),), radius=radius, cap=1, reach=1
    )
    asked = spec(town)
    header = StatisticsRequest.model_construct(kind="measure", study=asked.digest(), round=1, measures=(forged,))
    with town.vault() as vault:
        grant(town, vault, asked)
        assert code(town, vault, "query.measure", pack(town.coordinator, header)) == "CSL-F102"


@pytest.mark.parametrize("place", [1.0 + 1e-9, -1e308, 1e154])
def test_a_centre_outside_of_where_customers_can_be_is_refused(place):
    with pytest.raises(ValidationError, match="centres"):
        Centres(factors=(Factor(column="age", low=0.0, high=1.0),), centres=((place,),), radius=1.0, cap=1, reach=1)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1e301"])
@pytest.mark.parametrize(
    "template",
    [
        '{"kind":"cells","terms":[{"cap":1,"factors":[{"column":"age","low":0.0,"high":%s}]}]}',
        '{"kind":"cells","terms":[{"cap":1,"factors":[{"column":"age","low":%s,"high":1.0}]}]}',
        '{"kind":"centres","factors":[{"column":"age","low":0.0,"high":1.0}],"centres":[[%s]],"radius":1.0,"cap":1,"reach":1}',
        '{"kind":"centres","factors":[{"column":"age","low":0.0,"high":1.0}],"centres":[[0.0]],"radius":%s,"cap":1,"reach":1}',
    ],
)
def test_bounds_and_centres_that_are_no_numbers_are_refused(template, text):
    with pytest.raises(ValidationError):
        (Centres if "centres" in template else Cells).model_validate_json(template % text)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_cuts_and_conditions_that_are_no_numbers_are_refused(text):
    for template in (
        '{"kind":"cells","axes":[{"kind":"bins","column":"age","cuts":[%s]}],"terms":[{"cap":1}]}',
        '{"kind":"cells","where":[{"column":"age","ge":%s}],"terms":[{"cap":1}]}',
    ):
        with pytest.raises(ValidationError):
            Cells.model_validate_json(template % text)


edge = st.sampled_from([0.0, 5e-324, -5e-324, 1e-310, 1.0, math.nextafter(1.0, 2.0), -1.0, 1e300, -1e300, 1e16, 40.0])
number = st.one_of(edge, st.floats(-1e300, 1e300, allow_nan=False))
bounds = st.tuples(number, number).filter(lambda pair: pair[0] < pair[1])
factor = st.builds(
    lambda pair, scale: Factor(column="age", low=pair[0], high=pair[1], scale=scale),
    bounds,
    st.sampled_from(["linear", "log"]),
)
cap = st.sampled_from([1, 2, 3, 1000, LARGEST_CAP])


@st.composite
def hostile(draw):  # type: ignore[no-untyped-def]
    """Measures anywhere in the language, at its edges above all."""
    factors = draw(st.lists(factor, min_size=1, max_size=3))
    cut = st.lists(number, min_size=1, max_size=3, unique=True).map(lambda cuts: tuple(sorted(cuts)))
    rules = RulesAxis(rules=(Rule(name="a", where=(Condition(column="age", ge=draw(number)),)),))
    axes = (BinsAxis(column="age", cuts=draw(cut)), rules)
    terms = (Term(cap=draw(cap)), Term(factors=tuple(factors[:2]), cap=draw(cap)))
    place = st.lists(st.floats(-1.0, 1.0), min_size=len(factors), max_size=len(factors)).map(tuple)
    centres = Centres(
        factors=tuple(factors),
        centres=tuple(draw(st.lists(place, min_size=1, max_size=3))),
        radius=draw(st.one_of(st.sampled_from([1e-6, 100.0]), st.floats(1e-6, 100.0))),
        cap=draw(cap),
        reach=draw(cap),
    )
    return [Cells(axes=axes, terms=terms), centres]


@settings(max_examples=200)
@given(hostile(), st.one_of(number, st.floats()))
def test_no_measure_shows_more_of_a_customer_than_its_sensitivity(items, age) -> None:  # type: ignore[no-untyped-def]
    """Whatever her record says, infinities included; and without a warning of the arithmetic, which would stand for no number."""
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        before = measure_all(items, people(ROWS), CONTRACT)
        after = measure_all(items, people([*ROWS, ("x", age, 0, 1.0, 0.0)]), CONTRACT)
    assert sum(value * value for value in (after - before).tolist()) <= sensitivity(items) ** 2


@settings(max_examples=40)
@given(hostile(), st.integers(0, 1000))
def test_what_she_adds_is_the_same_bit_for_bit_whoever_is_counted_beside_her(items, seed) -> None:  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(seed)
    crowd = [(f"c{i}", float(generator.normal(40, 30)), 0, 1.0, 0.0) for i in range(37)]
    alone = sum(measure_all(items, people([row]), CONTRACT) for row in crowd)
    assert np.array_equal(measure_all(items, people(crowd), CONTRACT), alone)
    assert np.array_equal(measure_all(items, people(crowd[::-1]), CONTRACT), alone)


def test_sums_are_exact_however_many_customers_there_are() -> None:
    """Largest cap, one customer more in a crowd: the sum grows by exactly her part. 2^53 is reached by 9 thousand million customers."""
    size = 300_000
    ages = {("age", "start"): np.tile([20.0, 33.0, 60.0], size // 3)}
    codes: dict[Any, Any] = {("age", "start"): np.full(size, -1)}
    crowd = People(size, codes, ages, {"start": np.ones(size, dtype=bool)})  # type: ignore[arg-type]
    item = Cells(terms=(Term(cap=LARGEST_CAP), Term(factors=(Factor(column="age", low=20.0, high=60.0),), cap=999_983)))
    part = measure_all([item], people([("a", 33.0, 0, 1.0, 0.0)]), CONTRACT)
    assert measure_all([item], crowd, CONTRACT).tolist() == [size * LARGEST_CAP, size // 3 * int(part[1])]
    assert LARGEST_CAP * 9_000_000_000 < 2**53


def test_at_two_times_a_customer_is_still_one() -> None:
    """She changes one cell of one table by the cap, though she is read twice."""
    axes = (BinsAxis(column="age", cuts=(50.0,)), BinsAxis(column="age", at="end", cuts=(50.0,)))
    both = Cells(axes=axes, terms=(Term(cap=7),))

    def table(start: str, end: str) -> np.ndarray:
        cohorts = {
            at: Cohort(ids=np.array(list(ids), dtype=object), columns={"age": np.full(len(ids), 40.0)})
            for at, ids in (("start", start), ("end", end))
        }
        return measure_all([both], People.of(CONTRACT, cohorts), CONTRACT)  # type: ignore[arg-type]

    moved = table("ab", "bc") - table("a", "c")
    assert sorted(moved.tolist()) == [0] * 8 + [7]
    assert sorted((table("ab", "b") - table("a", "")).tolist()) == [0] * 8 + [7]  # the last one at the end


def test_a_log_is_added_up_in_one_order_whoever_else_is_in_it(tmp_path) -> None:
    """Several threads would add her purchases up in an order that hangs on the others, and a cut shows the last bit."""
    generator = np.random.default_rng(5)
    days, paid = generator.integers(1, 4, 260_000), np.round(generator.random(260_000) * 100, 2)
    rows = [purchase(f"w{i % 500}", int(days[i]), float(paid[i])) for i in range(len(days))]
    asked = draft(contract="rfm", queries=[{"id": "spend", "kind": "mean", "of": "spend"}])
    study: Any = SimpleNamespace(spec=SimpleNamespace(draft=asked))

    def spend(*more: dict[str, Any]) -> np.ndarray:
        home = tmp_path / str(len(more))
        home.mkdir()
        held = CountingRoom.read(shop_node(home, [*more, *rows], names=False), rfm("spend"), DECLARED, study, "study")
        assert held.fault is None
        return held.people.number("spend", "start")

    assert np.array_equal(spend(purchase("~", 3)), np.append(spend(), 1.0))


# What is asked for at the door.


@pytest.mark.parametrize(
    ("measure", "reason"),
    [
        (Cells(where=(Condition(column="bought", any_of=("yes",)),), terms=(Term(cap=1),)), "CSL-C495"),
        (
            Cells(
                axes=(RulesAxis(rules=(Rule(name="a", where=(Condition(column="bought", missing=True),)),)),),
                terms=(Term(cap=1),),
            ),
            "CSL-C495",
        ),
        (Cells(axes=(BinsAxis(column="age", at="end", cuts=(50.0,)),), terms=(Term(cap=1),)), "CSL-C495"),
        (Cells(axes=(GroupsAxis(column="bought", at="end"),), terms=(Term(cap=1),)), "CSL-C495"),
        (Cells(terms=(Term(factors=(Factor(column="loan", low=0.0, high=1.0),), cap=1),)), "CSL-C493"),
        (Cells(where=(Condition(column="loan", missing=True),), terms=(Term(cap=1),)), "CSL-C493"),
    ],
)
def test_the_label_other_times_and_other_columns_come_in_by_no_back_door(town, measure, reason):
    asked = spec(town, queries=LABEL)
    with town.vault() as vault:
        grant(town, vault, asked)
        assert code(town, vault, "query.measure", request(town, asked, 1, by_job(1), measure)) == reason


def test_a_table_too_large_is_refused_before_it_is_laid_out(town):
    asked = spec(town)
    cuts = tuple(float(value) for value in range(4096))
    huge = Cells(axes=(BinsAxis(column="age", cuts=cuts),) * 6, terms=(Term(cap=1),) * 600)
    many = Cells(axes=(BinsAxis(column="age", cuts=cuts),), terms=(Term(cap=1),))
    assert 4098**6 * 600 > 2**63 > MOST_CELLS
    with town.vault() as vault:
        grant(town, vault, asked)
        assert code(town, vault, "query.measure", request(town, asked, 1, huge)) == "CSL-C495"
        assert code(town, vault, "query.measure", request(town, asked, 1, many)) == "CSL-C494"


def test_many_small_measures_are_one_large_one(town):
    """The root of the sum of all squares counts, over measures, terms, centres and their ways."""
    asked = spec(town)
    age = Factor(column="age", low=18.0, high=90.0)
    with town.vault() as vault:
        most = grant(town, vault, asked).sensitivity
        part = int(most / math.sqrt(8)) + 1
        centre = Centres(factors=(age,), centres=((0.0,),), radius=1.0, cap=part, reach=part)
        split = [Cells(terms=(Term(cap=part), Term(cap=part))), *[by_job(part)] * 2, centre, *[of_age(part)]]
        assert code(town, vault, "query.measure", request(town, asked, 1, *split)) == "CSL-C475"


def test_a_request_of_another_study_or_signed_by_a_member_is_refused(town):
    asked, other = spec(town), spec(town, title="Another title")
    with town.vault() as vault:
        grant(town, vault, asked)
        assert code(town, vault, "query.measure", request(town, other, 1, by_job(1))) == "CSL-C511"
        header = StatisticsRequest(study=asked.digest(), round=1, measures=(by_job(1),))
        forged = pack(town.officers["alder"][0], header)
        assert code(town, vault, "query.measure", forged) == "CSL-F202"
        assert code(town, vault, "query.offer", offer(town, other, town.officers["alder"][0])) == "CSL-F202"


def test_two_studies_with_one_nonce_are_two_studies(town):
    """Each is charged, and answers with noise of its own."""
    asked, other = spec(town, epsilon=0.3), spec(town, epsilon=0.3, title="Another title")
    assert asked.nonce == other.nonce
    with town.vault() as vault:
        grant(town, vault, asked)
        grant(town, vault, other)
        assert answered(town, vault, asked, 1, by_job(1)) != answered(town, vault, other, 1, by_job(1))
    assert len(written(town, "reserve")) == 2 and kinds(town).count("release") == 4


def test_a_study_of_training_that_calls_itself_statistics_stays_one_of_training(town):
    """A text cannot pass for the kind by which a kept study is read."""
    trick = '"kind":"open_statistics"'
    training = town.spec(title=trick)
    asked = spec(town, title='"kind":"open_study"', epsilon=0.3)
    with town.vault() as vault:
        town.grant(vault, training)
        grant(town, vault, asked)
        assert trick in training.draft.title
        assert code(town, vault, "query.measure", request(town, training, 1, by_job(1))) == "CSL-C492"  # type: ignore[arg-type]
    studies = Studies(town.homes["alder"].folder("studies"))
    assert isinstance(studies.opened(training.digest()), OpenStudy)
    assert isinstance(studies.opened(asked.digest()), OpenStatistics)


def test_what_a_round_may_show_is_what_was_asked_of_officers_not_of_tables(town):
    """Rows to be scored, positions and money at stake are none of the columns that officers saw; they are not read."""
    home = town.homes["alder"]
    text = home.node_file.read_text()
    home.node_file.write_text(
        text.replace("    score:", "    position: years\n    value: {column: loan, unit: euro}\n    score:")
    )
    asked = spec(town, queries=[*LABEL, {"id": "stages", "kind": "lifecycle", "stages": STAGES}])
    with town.vault() as vault:
        grant(town, vault, asked)
        answered(town, vault, asked, 1, by_job(1))
        held = vault._rooms.counting(vault._studies.statistics(asked.digest()))
        # `loan` as money would drop every record: it holds no numbers
        assert held.fault is None and held.people.size == 360 and set(held.people.present) == {"start"}
