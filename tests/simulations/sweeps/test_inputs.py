import shutil

import pytest

from federation.errors import DataError
from simulations.catalogue import CATALOGUE, DataSet, Member
from simulations.engines.simulation import PopulationData, PublicData, TableData
from simulations.partners.named import CONFIGS, SETS
from simulations.sweeps import document, inputs
from simulations.sweeps.document import cells
from simulations.sweeps.outcome import Outcome
from simulations.sweeps.reading import read
from simulations.sweeps.running import run_sweep
from simulations.sweeps.store import Store
from tests.simulations.sweeps.samples import SMALL, made_up, parse

EVERY = [PublicData(set=name) for name in SETS] + [PopulationData(kind="population", of=of) for of in ("bank", "shop")]


@pytest.fixture
def configs(tmp_path):
    shutil.copytree(CONFIGS / "contracts", tmp_path / "configs" / "contracts")
    return tmp_path / "configs"


@pytest.mark.parametrize("data", EVERY, ids=str)
def test_a_contract_that_is_edited_makes_other_inputs(configs, data):
    before = inputs.inputs(data, configs)
    name = next(name for name in before if name.startswith("contracts/"))
    path = configs / name
    assert before == inputs.inputs(data)  # by name and content, wherever they lie
    path.write_text(path.read_text() + "\n# edited\n")
    after = inputs.inputs(data, configs)
    assert {key for key in before if before[key] != after[key]} == {name}
    path.unlink()
    with pytest.raises(DataError, match="CSL-M233"):
        inputs.inputs(data, configs)


def test_a_public_set_is_known_by_its_pinned_members():
    found = inputs.inputs(PublicData(set="grocery"))
    members = {part.name: part.sha256 for one in CATALOGUE if one.name == "complete_journey" for part in one.members}
    assert members and {f"complete_journey/{name}": pin for name, pin in members.items()}.items() <= found.items()


def test_a_set_pinned_anew_makes_other_inputs(monkeypatch):
    before = inputs.inputs(PublicData())
    other = DataSet("bank_full", "t", "s", "l", "w-1", (Member("p", "bank_full.csv.gz", 1, "0" * 64),))
    monkeypatch.setattr(inputs, "CATALOGUE", (other,))
    inputs._pinned.cache_clear()
    try:
        assert (
            inputs.inputs(PublicData())["bank_full/bank_full.csv.gz"]
            == "0" * 64
            != before["bank_full/bank_full.csv.gz"]
        )
    finally:
        inputs._pinned.cache_clear()


def test_all_source_that_is_named_is_there_and_counts(tmp_path):
    parts = (*inputs._RULES, *inputs._LOGS, *inputs._POPULATION)
    sources = list(inputs._sources(parts, inputs.ROOT))
    assert len(sources) == len(set(sources)) > len(parts) and all(path.is_file() for path in sources)
    (tmp_path / "one" / "deep").mkdir(parents=True)
    for number, place in enumerate(("rule.py", "one/a.py", "one/deep/b.py")):
        (tmp_path / place).write_text("x = 1")
        inputs.source_digest.cache_clear()
        before = inputs.source_digest(("rule.py", "one"), tmp_path)
        (tmp_path / place).write_text(f"x = {number + 2}")
        assert inputs.source_digest(("rule.py", "one"), tmp_path) == before  # once in a process
        inputs.source_digest.cache_clear()
        assert inputs.source_digest(("rule.py", "one"), tmp_path) != before
    inputs.source_digest.cache_clear()


def test_each_kind_of_data_has_its_own_source(tmp_path):
    (tmp_path / "t.csv").write_text("a\n")
    (tmp_path / "c.yaml").write_text("x")
    table = TableData(kind="table", path=str(tmp_path / "t.csv"), contract=str(tmp_path / "c.yaml"))
    assert len({inputs.inputs(data)["source"] for data in (table, EVERY[0], EVERY[-1])}) == 3


def test_cells_of_other_code_are_computed_anew_and_not_mixed_in(tmp_path, monkeypatch):
    sweep = parse(SMALL)
    run_sweep(sweep, tmp_path, run=made_up)
    old = set(Store(tmp_path).present())
    monkeypatch.setattr(document, "inputs", lambda data: {**inputs.inputs(data), "source": "f" * 64})
    assert not old & {cell.digest for cell in cells(sweep)}
    assert read(tmp_path).finished() == (0, 12)
    assert run_sweep(sweep, tmp_path, run=made_up).computed == 12
    results = read(tmp_path)
    assert results.finished() == (12, 12) and not old & set(results.cells["digest"])
    first = cells(sweep)[0]
    expected = Outcome.of(made_up(first.simulation, first.seed, first.engine, None)).overall["auc_mean"]
    assert results.cells.set_index("digest").loc[first.digest, "auc_mean"] == expected
