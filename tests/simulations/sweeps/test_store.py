import errno
import json
import os

import duckdb
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.errors import IntegrityError, StorageError
from simulations.sweeps.document import cells, load_sweep
from simulations.sweeps.outcome import Outcome
from simulations.sweeps.store import SWEEP, Store, column
from simulations.sweeps.tables import rebuild
from tests.simulations.sweeps.samples import SMALL, made_up, parse

SWEEP_OF_12 = parse(SMALL)


def written(root, sweep=SWEEP_OF_12):
    store = Store(root)
    with store.opened(sweep):
        for cell in cells(sweep):
            outcome = Outcome.of(made_up(cell.simulation, cell.seed, cell.engine, None))
            store.write(cell, outcome, 1.5)
    return store


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One written cell: its store, digest and bytes."""
    store = written(tmp_path_factory.mktemp("one"))
    digest = store.present()[0]
    return store, digest, store.path(digest).read_bytes()


def test_a_cell_is_read_as_it_was_written(tmp_path):
    store = written(tmp_path)
    for cell in cells(SWEEP_OF_12):
        stored = store.read(cell.digest)
        outcome = Outcome.of(made_up(cell.simulation, cell.seed, cell.engine, None))
        rows = stored.table.to_pylist()
        assert {name: rows[0][name] for name in stored.overall} == outcome.overall
        assert rows[0]["epsilon_max"] is None  # no figure
        names = [name for name in stored.institutions if name != "institution"]
        assert [{name: row[name] for name in names} for row in rows[1:]] == [
            {name: row[name] for name in names} for row in outcome.institutions
        ]
        assert json.loads(stored.value("settings")) == cell.settings
        assert stored.value("seconds_in_all") == 1.5


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_never_taken_for_whole(one, tmp_path, data):
    store, digest, content = one
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        harmed = content[:place]
    else:
        harmed = content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    other = Store(tmp_path)
    (tmp_path / "cells").mkdir(exist_ok=True)
    other.path(digest).write_bytes(harmed)
    try:
        stored = other.read(digest)
    except IntegrityError as error:
        assert error.code == "CSL-M237" and str(other.path(digest)) in error.cause
    else:  # a byte that says nothing, such as a statistic that nobody reads
        assert stored.table.to_pylist() == store.read(digest).table.to_pylist()


def test_a_cell_under_another_s_name_is_damaged(tmp_path):
    store = written(tmp_path)
    first, second = store.present()[:2]
    store.path(first).write_bytes(store.path(second).read_bytes())
    with pytest.raises(IntegrityError, match="CSL-M237"):
        store.check()
    whole, moved = store.check(repair=True)
    assert moved == [first] and len(whole) == 11
    assert (tmp_path / "damaged" / f"{first}.parquet").exists() and first not in store.present()


def test_foreign_files_are_refused(tmp_path):
    written(tmp_path)
    (tmp_path / "thesis.docx").write_text("x")
    with pytest.raises(StorageError, match=r"CSL-M234 .*thesis\.docx"):
        Store(tmp_path).check_folder()
    (tmp_path / "thesis.docx").rename(tmp_path / "cells" / "notes.txt")
    with pytest.raises(StorageError, match=r"CSL-M234 .*notes\.txt"), Store(tmp_path).opened(SWEEP_OF_12):
        pass


def test_a_folder_has_one_run_at_a_time_and_loses_what_was_half_written(tmp_path):
    store = written(tmp_path)
    half = tmp_path / "cells" / f".{store.present()[0]}.parquet.x1y2"
    half.write_bytes(b"half")
    with store.opened(SWEEP_OF_12):
        assert not half.exists()
        with pytest.raises(StorageError, match="CSL-M235"), Store(tmp_path).opened(SWEEP_OF_12):
            pass
    with store.opened(SWEEP_OF_12):
        pass


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="CSL-M236"), Store(tmp_path / "file" / "out").opened(SWEEP_OF_12):
        pass


def test_the_folder_says_its_sweep(tmp_path):
    written(tmp_path)
    assert load_sweep(tmp_path / SWEEP) == SWEEP_OF_12


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    store = written(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "cells").iterdir()}

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    cell = cells(parse(SMALL.replace("seeds: 2", "seeds: [9]")))[0]
    outcome = Outcome.of(made_up(cell.simulation, cell.seed, cell.engine, None))
    with pytest.raises(StorageError, match="CSL-F301.*No space left"):
        store.write(cell, outcome, 1.0)
    with pytest.raises(StorageError, match="CSL-F301"):
        rebuild(store, store.present(), [])
    assert {path: path.read_bytes() for path in (tmp_path / "cells").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells", "sweep.yaml"]


def test_a_database_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    store = written(tmp_path)
    rebuild(store, store.present(), [])
    before = (tmp_path / "results.duckdb").read_bytes()

    def full(*_arguments):
        raise duckdb.IOException("no space")

    monkeypatch.setattr(duckdb, "connect", full)
    with pytest.raises(StorageError, match="CSL-M239"):
        rebuild(store, store.present(), [])
    assert (tmp_path / "results.duckdb").read_bytes() == before
    assert not list(tmp_path.glob(".results*"))


def test_the_tables_hold_what_the_cells_hold(tmp_path):
    store = written(tmp_path)
    wanted = cells(SWEEP_OF_12)
    rebuild(store, {cell.digest for cell in wanted}, SWEEP_OF_12.varied())
    with duckdb.connect(tmp_path / "results.duckdb", read_only=True) as connection:
        rows = connection.sql("SELECT * FROM cells").to_arrow_table().to_pylist()
        places = connection.sql("SELECT * FROM institutions").to_arrow_table().to_pylist()
        flat = connection.sql(f"SELECT * FROM '{tmp_path}/results.parquet'").to_arrow_table().to_pylist()
        assert connection.execute(
            "SELECT count(DISTINCT settings->>'$.\"privacy.epsilon\"') FROM cells"
        ).fetchone() == (3,)
    assert {row["cell"] for row in rows} == {cell.digest for cell in wanted} and all(row["current"] for row in rows)
    for cell in wanted:
        outcome = Outcome.of(made_up(cell.simulation, cell.seed, cell.engine, None))
        row = next(row for row in rows if row["cell"] == cell.digest)
        assert {name: row[name] for name in outcome.overall} == outcome.overall
        assert (row["seed"], row["engine"], row["computed_by"]) == (cell.seed, cell.engine, outcome.engine)
        own = [{**place, "name": place["institution"]} for place in places if place["cell"] == cell.digest]
        assert [{name: place[name] for name in outcome.institutions[0]} for place in own] == list(outcome.institutions)
    assert len(flat) == len(rows) + len(places)


def test_another_sweep_s_cells_are_kept_and_told_apart(tmp_path):
    written(tmp_path)
    further = parse(
        "{name: more, study: {name: b, data: {kind: population}}, over: {faults.dropout: [0.1]}, references: false}"
    )
    store = written(tmp_path, further)
    rebuild(store, {cell.digest for cell in cells(further)}, further.varied())
    with duckdb.connect(tmp_path / "results.duckdb", read_only=True) as connection:
        found = connection.execute("SELECT current, settings FROM cells ORDER BY current").fetchall()
    assert [current for current, _ in found] == [False] * 12 + [True]
    assert json.loads(found[-1][1]) == {"faults.dropout": 0.1, "privacy.epsilon": 1.0, "partners.count": None}
    assert {json.loads(settings)["faults.dropout"] for _, settings in found[:-1]} == {0.0}


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=3)
)


@given(st.lists(VALUES, max_size=6))
def test_a_column_keeps_its_values_or_says_them_as_json(values):
    back = column(values).to_pylist()
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds == {int, float}:
        assert back == values
    else:
        assert [None if value is None else json.loads(value) for value in back] == values


def test_the_note_of_a_sweep_has_no_aliases(tmp_path):
    shared = (2, 3)
    sweep = SWEEP_OF_12.model_copy(update={"over": {"partners.count": shared, "rounds": shared}})
    with Store(tmp_path).opened(sweep):
        pass
    assert (
        "&" not in (tmp_path / SWEEP).read_text() and yaml.safe_load((tmp_path / SWEEP).read_text())["name"] == "small"
    )
