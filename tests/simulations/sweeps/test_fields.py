from hypothesis import given
from hypothesis import strategies as st

from simulations.engines.simulation import Simulation
from simulations.sweeps import fields


def test_paths_reach_into_unions_and_optional_parts():
    found = fields.paths(Simulation)
    assert found["partners.by.alpha"] == ("labels", "features", "quantity")
    assert found["privacy.epsilon"] == ()
    assert {"algorithm.proximal", "personal.steps", "faults.poisoners.count", "data.path", "model.hidden"} <= set(found)
    assert "model.monotone.age" not in found


def test_the_nearest_field_is_found_by_its_last_part_too():
    known = list(fields.paths(Simulation))
    assert fields.nearest("partner.count", known) == "partners.count"
    assert fields.nearest("epsilon", known) == "privacy.epsilon"
    assert fields.nearest("dropuot", known) == "faults.dropout"
    assert fields.nearest("qqqqqqqq", known) is None


def test_another_kind_drops_what_the_old_one_had():
    tree = {"partners": {"by": {"kind": "labels", "alpha": 0.1}, "count": 3}}
    fields.put(tree, "partners.by.kind", "dealt")
    assert tree == {"partners": {"by": {"kind": "dealt"}, "count": 3}}


def test_an_absent_part_is_begun():
    tree = {"personal": None}
    fields.put(tree, "personal.steps", 3)
    assert tree == {"personal": {"steps": 3}}


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join),
    st.one_of(st.none(), st.integers(), st.text(max_size=5)),
)
def test_what_is_put_is_found(path, value):
    tree = {"a": {"b": 1}, "c": None}
    fields.put(tree, path, value)
    assert fields.look(tree, path) == value


def test_a_location_loses_its_union_tags():
    tree = {"partners": {"by": {"kind": "labels", "alpha": 0}}, "list": [{"x": 1}]}
    assert fields.place(("partners", "by", "labels", "alpha"), tree) == "partners.by.alpha"
    assert fields.place(("list", 0, "x"), tree) == "list.0.x"
    assert fields.place(("gone",), tree) == ""
