import ast
import errno
import io
import json
import logging
import os
import stat
import sys
import threading
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from federation import logs as module
from federation.errors import DataError, StorageError
from federation.log_records import JsonLines, is_ours
from federation.logs import RotatingFile, log_event, setup_logs, where

ROOT = Path(module.__file__).parents[1]
CANARY = "canary-7731-Meier"
OURS = logging.getLogger("consilience.test")


def written(act: Callable[[], object], **options: bool) -> list[dict[str, object]]:
    out = io.StringIO()
    with setup_logs("vault", out, **options):
        act()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_says_what_when_and_where() -> None:
    (line,) = written(lambda: OURS.warning("refused %.40r after %d tries", "train.default", 3))
    assert datetime.fromisoformat(str(line["ts"])).utcoffset() is not None and str(line["ts"]).endswith("Z")
    assert line | {"ts": ""} == {
        "ts": "",
        "level": "warning",
        "process": "vault",
        "logger": "consilience.test",
        "event": "refused 'train.default' after 3 tries",
    }


def test_an_event_has_fields_of_its_own() -> None:
    def act() -> None:
        log_event(OURS, "round done", round=3, seconds=0.5, ok=True, member="north", none=None)
        log_event(OURS, "odd", level="x", nan=float("nan"), severity=logging.ERROR)

    first, second = written(act)
    assert (first["event"], first["round"], first["seconds"], first["ok"]) == ("round done", 3, 0.5, True)
    assert (first["member"], first["none"], first["level"]) == ("north", None, "info")
    assert (second["level"], second["nan"]) == ("error", "nan")


def test_numbers_of_numpy_are_numbers() -> None:
    (line,) = written(lambda: OURS.info("%d of %.1f", np.int64(3), np.float32(0.5)))
    assert line["event"] == "3 of 0.5"


class Speaking:
    def __str__(self) -> str:
        return CANARY

    __repr__ = __str__


def raised(act: Callable[[], object]) -> BaseException:
    try:
        act()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError


def pandas_error() -> object:
    return pd.Series([CANARY]).astype("int64")


def duckdb_error() -> object:
    return duckdb.sql(f"SELECT CAST('{CANARY}' AS INTEGER)").fetchall()


def sqlite_error() -> object:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        return connection.execute(sa.text("SELECT * FROM nothing WHERE name = :name"), {"name": CANARY})


def nested_error() -> object:
    try:
        return pandas_error()
    except ValueError as error:
        raise KeyError(CANARY) from error


ERRORS = [pandas_error, duckdb_error, sqlite_error, nested_error, lambda: open(f"/nowhere/{CANARY}")]


@pytest.mark.parametrize("failing", ERRORS)
def test_no_error_ever_brings_its_words(failing: Callable[[], object]) -> None:
    error = raised(failing)
    assert CANARY in f"{error!s}{error!r}{error.__dict__}{getattr(error, 'filename', '')}", (
        "the canary must sing by itself"
    )
    foreign = logging.getLogger("pandas.core")

    def act() -> None:
        OURS.error("failed: %s", error)
        OURS.error("failed: %s", where(error))
        OURS.error("failed", exc_info=error)
        OURS.error(error)
        foreign.error("failed", exc_info=error)
        foreign.error("failed: %s", error)
        sys.excepthook(type(error), error, error.__traceback__)
        sys.unraisablehook(type("Args", (), {"exc_value": error, "object": Speaking()})())
        thread = threading.Thread(target=failing)
        thread.start()
        thread.join()

    lines = written(act)
    assert len(lines) == 9
    assert CANARY not in json.dumps(lines)
    name = type(error).__name__
    assert lines[0]["event"] == f"failed: <{name}>" and lines[2]["error"] == name
    assert any("test_logs.py:" in frame for frame in lines[2]["frames"])  # type: ignore[attr-defined]


def test_causes_are_named_by_type() -> None:
    (line,) = written(lambda: OURS.error("failed", exc_info=raised(nested_error)))
    assert (line["error"], line["because"]) == ("KeyError", ["ValueError"])


def test_other_libraries_lose_their_text_and_keep_their_place() -> None:
    foreign = logging.getLogger(f"sqlalchemy.engine.{CANARY}")

    def act() -> None:
        foreign.warning("row %s", CANARY)
        foreign.error(CANARY, stack_info=True, extra={"row": CANARY, "consilience_fields": {"row": CANARY}})
        logging.getLogger("pandas").critical(CANARY)
        logging.getLogger(CANARY).critical(CANARY)
        logging.getLogger("consiliences").error(CANARY)
        logging.getLogger("sqlalchemy").info(CANARY)
        logging.warning(CANARY)
        warnings.warn(CANARY, stacklevel=1)

    lines = written(act)
    assert CANARY not in json.dumps(lines)
    assert [line["logger"] for line in lines] == [
        "sqlalchemy.engine",
        "sqlalchemy.engine",
        "pandas",
        "other",
        "other",
        "root",
        "py.warnings",
    ]
    assert {line["event"] for line in lines} == {"text withheld"}
    assert all(str(line["where"]).startswith("test_logs:") for line in lines[:-1])


def test_handlers_of_others_see_nothing_either() -> None:
    """A library that brings its own handler, before or after, prints no text."""
    early, late = io.StringIO(), io.StringIO()
    foreign = logging.getLogger("foreign.library")
    before = logging.StreamHandler(early)
    foreign.addHandler(before)

    def act() -> None:
        after = logging.StreamHandler(late)
        foreign.addHandler(after)
        foreign.error("row %s", CANARY, exc_info=ValueError(CANARY))
        OURS.addHandler(after)
        OURS.error("row %s", Speaking(), exc_info=ValueError(CANARY))
        OURS.removeHandler(after)

    try:
        assert len(written(act)) == 2
        assert foreign.handlers == [before]
    finally:
        foreign.removeHandler(before)
    assert early.getvalue() == "" and CANARY not in late.getvalue()
    assert late.getvalue().splitlines() == ["text withheld", "row <Speaking>"]


def test_records_made_elsewhere_are_no_exception() -> None:
    lines = JsonLines("vault")
    plain = logging.LogRecord("consilience.vault", logging.ERROR, "x.py", 1, CANARY, (), None)
    assert CANARY not in lines.format(plain)

    def act() -> None:
        logging.getLogger().handle(logging.makeLogRecord({"name": "consilience.vault", "msg": CANARY, "levelno": 50}))

    assert CANARY not in json.dumps(written(act))


@given(st.one_of(st.binary(), st.lists(st.text(min_size=1)), st.dictionaries(st.text(), st.text()), st.dates()))
def test_of_anything_but_numbers_and_texts_only_the_type_is_named(value: object) -> None:
    for template in ("%s", "%r", "%d", "%(a)s", "%s %s", "%"):
        (line,) = written(lambda template=template: OURS.info(template, value))  # type: ignore[misc]
        assert line["event"] in (template, f"<{type(value).__name__}>", f"'<{type(value).__name__}>'")


@given(st.text())
def test_texts_are_cut_and_cannot_move_a_cursor(text: str) -> None:
    (line,) = written(lambda: OURS.info("%s", text))
    event = str(line["event"])
    assert event.isprintable() and len(event) <= 200
    (fields,) = written(lambda: log_event(OURS, "constant", text=text))
    assert fields["text"] == event


def test_errors_of_ours_show_a_code_and_only_where_no_customer_is_seen_a_cause() -> None:
    error = DataError("CSL-C109", f"{CANARY} has 48 customers.", "Look.")
    assert written(lambda: OURS.error("refused: %s", error))[0]["event"] == "refused: CSL-C109"
    assert CANARY in str(written(lambda: OURS.error("refused: %s", error), causes=True)[0]["event"])
    line = written(lambda: OURS.error("refused", exc_info=error))[0]
    assert (line["error"], line["code"]) == ("DataError", "CSL-C109")
    odd = DataError(CANARY, "", "")
    assert CANARY not in json.dumps(written(lambda: OURS.error("refused: %s", odd, exc_info=odd)))


def test_everything_is_put_back() -> None:
    def state() -> tuple[object, ...]:
        root = logging.getLogger()
        hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, logging.getLogRecordFactory()
        return (list(root.handlers), root.level, logging.raiseExceptions, OURS.parent and OURS.parent.level, *hooks)

    before = state()
    with setup_logs("vault", io.StringIO()) as logs:
        assert state() != before
    assert state() == before
    logs.close()
    assert state() == before


def test_full_files_are_rotated_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "vault.log"
    with setup_logs("vault", path, max_bytes=1000, keep=2):
        for number in range(60):
            log_event(OURS, "constant", number=number)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["vault.log", "vault.log.1", "vault.log.2"]
    assert all(file.stat().st_size <= 1000 and stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    numbers = [json.loads(line)["number"] for file in reversed(files) for line in file.read_text().splitlines()]
    assert numbers == list(range(60 - len(numbers), 60))


def test_a_file_without_old_ones_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "vault.log"
    out = RotatingFile(path, max_bytes=10, keep=0)
    for _ in range(3):
        out.write("12345678\n")
    out.close()
    assert path.read_text() == "12345678\n" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_loses_lines_and_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "vault.log", os.write
    with setup_logs("vault", path):
        OURS.info("first")
        full = OSError(errno.ENOSPC, "no space left")
        monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(full))
        OURS.info("second")
        monkeypatch.setattr(os, "write", lambda descriptor, content: real(descriptor, content[:5]))
        OURS.info("third")
        monkeypatch.setattr(os, "write", real)
        OURS.info("fourth")
        OURS.info("fifth")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["event"], line.get("lost")) for line in lines] == [("first", None), ("fourth", 2), ("fifth", None)]


def test_a_log_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "no" / "vault.log", tmp_path / "link"):
        with pytest.raises(StorageError, match="CSL-F370"):
            setup_logs("vault", path)


def _logging_calls() -> list[tuple[Path, ast.Module, ast.Call]]:
    """Calls of loggers in all code that a vault's process may run."""
    found = []
    for package in ("federation", "privacy", "client"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and _logs(node.func) and path != Path(module.__file__):
                    found.append((path, tree, node))
    return found


def _is_constant(template: ast.expr, tree: ast.Module) -> bool:
    """Return whether it is a text of our code: written in its place, or a name that only ever stands for such.

    An `event` that is passed on is one: whoever hands it over (`_on_event`) is looked at like a call of a logger.
    """
    if isinstance(template, ast.Name):
        if template.id == "event":
            return any(isinstance(node, ast.arg) and node.arg == "event" for node in ast.walk(tree))
        meant = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == template.id for target in node.targets)
        ]
        return bool(meant) and all(_is_constant(value, ast.Module([], [])) for value in meant)
    return isinstance(template, ast.Constant) and isinstance(template.value, str)


def _logs(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id == "log_event"
    if not isinstance(function, ast.Attribute):
        return False
    levels = ("debug", "info", "warning", "error", "critical", "exception", "log")
    known = isinstance(function.value, ast.Name) and function.value.id in ("logger", "_logger", "log")
    return function.attr == "_on_event" or (known and function.attr in levels)


def _makes_text(node: ast.AST) -> bool:
    """Return whether a text is made of something here: only numbers of runs and nodes, too large for JSON, may become one."""
    if not (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("str", "repr", "format")
    ):
        return isinstance(node, ast.JoinedStr)
    (argument,) = node.args
    return not (isinstance(argument, ast.Attribute) and argument.attr in ("run_id", "node_id", "task_id"))


def test_what_we_log_are_constants_and_no_text_is_made_on_the_way() -> None:
    """The promise above rests on it: an f-string or a str() around an error would carry its words past the rules."""
    calls = _logging_calls()
    assert len(calls) > 8
    for path, tree, call in calls:
        place = f"{path.relative_to(ROOT)}:{call.lineno}"
        name = call.func.attr if isinstance(call.func, ast.Attribute) else "log_event"
        template = call.args[1] if name in ("log", "log_event") else call.args[0]
        assert _is_constant(template, tree), place
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        assert not any(_makes_text(node) for value in values for node in ast.walk(value)), place


def test_our_loggers_have_our_name() -> None:
    """A logger of another name would lose its text."""
    for package in ("federation", "privacy", "client", "server"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr == "getLogger"
                ):
                    names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                    assert all(is_ours(name) for name in names), path
                    assert path.parent.name == "federation" or names, f"{path}: name the logger by a constant"
