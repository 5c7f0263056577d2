import json
import random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import DataError, DocumentError
from simulations.engines.registry import NAMES
from simulations.sweeps.document import EngineName, Sweep, cells, load_sweep
from tests.simulations.sweeps.samples import SMALL, parse

AXES = {
    "privacy.epsilon": [0.1, 0.5, 1, 2, None],
    "partners.count": [2, 4, 8],
    "partners.by": [{"kind": "dealt"}, {"kind": "labels", "alpha": 0.1}],
    "algorithm": [{"kind": "fedsgd"}, {"kind": "fedavg", "steps": 3}],
    "faults.dropout": [0, 0.25],
}


@st.composite
def trees(draw):
    chosen = draw(st.lists(st.sampled_from(sorted(AXES)), unique=True, max_size=3))
    over = {path: draw(st.lists(st.sampled_from(AXES[path]), min_size=1, max_size=3)) for path in chosen}
    return {
        "name": "some",
        "study": {"name": "study", "rounds": 9, "partners": {"smallest": 50, "heldout": 0.3}},
        "over": over,
        "seeds": draw(st.one_of(st.integers(1, 3), st.lists(st.integers(0, 50), min_size=1, max_size=3))),
        "references": draw(st.booleans()),
        "pooled_dp": draw(st.booleans()),
    }


def shuffled(value, chance):
    if isinstance(value, dict):
        items = list(value.items())
        chance.shuffle(items)
        return {key: shuffled(part, chance) for key, part in items}
    return value


def digests(tree):
    return [cell.digest for cell in cells(parse(json.dumps(tree)))]


@settings(max_examples=20)
@given(trees(), st.integers())
def test_the_order_of_keys_does_not_matter(tree, seed):
    assert set(digests(tree)) == set(digests(shuffled(tree, random.Random(seed))))


@settings(max_examples=20)
@given(trees())
def test_the_grid_is_the_product_and_each_cell_is_once(tree):
    found = cells(parse(json.dumps({**tree, "references": False})))
    seeds = tree["seeds"] if isinstance(tree["seeds"], list) else list(range(1, tree["seeds"] + 1))
    expected = len(set(seeds))
    for values in tree["over"].values():
        expected *= len({json.dumps(value) for value in values})
    assert len(found) == len({cell.digest for cell in found}) == expected
    assert all(set(cell.settings) == set(tree["over"]) for cell in found)


@settings(max_examples=20)
@given(trees())
def test_a_sweep_survives_its_own_yaml(tree):
    sweep = parse(json.dumps(tree))
    again = parse(yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False))
    assert again == sweep
    assert [cell.digest for cell in cells(again)] == [cell.digest for cell in cells(sweep)]


def test_defaults_written_out_and_whole_numbers_are_the_same_cells():
    short = parse("{name: a, study: {name: b}, over: {privacy.epsilon: [1]}, references: false}")
    long = parse(
        "{name: c, study: {name: d, title: Else, partners: {by: {kind: own}}}, over: {privacy.epsilon: [1.0, 1]}, references: false}"
    )
    assert [cell.digest for cell in cells(short)] == [cell.digest for cell in cells(long)]


def test_seed_and_engine_are_part_of_a_cell():
    base = {"name": "a", "study": {"name": "b"}, "references": False}
    found = {digests({**base, **more})[0] for more in ({}, {"seeds": [7]}, {"engine": "local"})}
    assert len(found) == 3


def test_references_stand_once_for_each_data_partners_model_and_seed():
    sweep = parse(
        "{name: a, study: {name: b, rounds: 9}, over: {privacy.epsilon: [1, 2, null], partners.count: [2, 3], "
        "faults.dropout: [0, 0.1]}, seeds: 2, pooled_dp: true}"
    )
    kinds = [cell.simulation.algorithm.kind for cell in cells(sweep)]
    assert kinds.count("fedsgd") == 3 * 2 * 2 * 2
    assert kinds.count("alone") == kinds.count("pooled") == 2 * 2
    assert kinds.count("pooled_dp") == 2 * 2 * 2  # none without a budget
    lone = next(cell for cell in cells(sweep) if cell.simulation.algorithm.kind == "alone")
    assert lone.simulation.faults.dropout == 0 and lone.simulation.rounds is None
    assert lone.settings == {"privacy.epsilon": None, "partners.count": 2, "faults.dropout": 0.0}


def test_also_adds_single_cells():
    sweep = parse(
        "{name: a, study: {name: b}, over: {partners.count: [2, 3]}, also: [{algorithm: {kind: scaffold}, partners.count: 5}], "
        "references: false}"
    )
    assert [cell.simulation.algorithm.kind for cell in cells(sweep)] == ["fedsgd", "fedsgd", "scaffold"]
    assert sweep.varied() == ("partners.count", "algorithm")


def test_cells_that_share_data_partners_model_and_seed_are_one_group():
    assert len({cell.group for cell in cells(parse(SMALL))}) == 2 * 2


def test_unknown_fields_are_named_with_the_nearest(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("{name: a, study: {name: b}, over: {partners.cuont: [2], epsilon: [1], title: [x]}}")
    with pytest.raises(DocumentError, match="CSL-M230") as caught:
        load_sweep(path)
    assert "partners.cuont: no such field; did you mean partners.count?" in caught.value.cause
    assert "epsilon: no such field; did you mean privacy.epsilon?" in caught.value.cause
    assert "title: no such field" in caught.value.cause


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ("partners.count: [2, four]", 'partners.count = "four": Input should be a valid integer'),
        (
            "privacy.epsilon: [-1]",
            "privacy.epsilon = -1: Input should be a valid array or Input should be greater than 0",
        ),
        ("partners.by.alpha: [0.5]", "partners.by has it only where its kind is labels or features or quantity"),
        ("algorithm: [fedavg]", 'algorithm = "fedavg": Input should be an object'),
        ("partners.lacking.share: [0.2]", "columns is missing"),
        ("algorithm.noise: [shared], algorithm.weights: [size]", "shared noise is common to all members"),
    ],
)
def test_values_that_do_not_fit_are_named(over, said):
    with pytest.raises(DocumentError, match="CSL-M231") as caught:
        cells(parse(f"{{name: a, study: {{name: b}}, over: {{{over}}}}}"))
    assert said in caught.value.cause


def test_too_many_cells_are_refused_before_they_are_made():
    values = list(range(1, 400))
    tree = {"name": "a", "study": {"name": "b"}, "over": {"partners.count": values, "rounds": values}}
    with pytest.raises(DocumentError, match="CSL-M232"):
        cells(parse(json.dumps(tree)))


def test_a_table_that_changes_makes_other_cells(tmp_path):
    table, contract = tmp_path / "table.csv", tmp_path / "contract.yaml"
    tree = {
        "name": "a",
        "study": {"name": "b", "data": {"kind": "table", "path": str(table), "contract": str(contract)}},
    }
    with pytest.raises(DataError, match="CSL-M233"):
        digests(tree)
    table.write_text("a\n1\n")
    contract.write_text("x")
    first = digests(tree)
    table.write_text("a\n1\n2\n")
    assert not set(first) & set(digests(tree))


def test_engines_are_those_there_are():
    assert set(EngineName.__args__) == set(NAMES)


def test_the_file_s_own_limits_hold():
    for bad in ("seeds: 0", "seeds: []", "engine: cluster", "over: {rounds: []}"):
        with pytest.raises(DocumentError, match="CSL-F105"):
            parse(f"{{name: a, study: {{name: b}}, {bad}}}")
    assert isinstance(parse("{name: a, study: {name: b}}"), Sweep)
