import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.errors import OfflineError
from simulations import data_command
from simulations.catalogue import CATALOGUE

runner = CliRunner()


def test_list_names_source_licence_and_what_is_missing(tmp_path: Path) -> None:
    result = runner.invoke(data_command.app, ["list", "--cache", str(tmp_path)])
    assert result.exit_code == 0
    for item in CATALOGUE:
        assert item.name in result.output
        assert f"Licence: {item.licence}" in result.output
    assert result.output.count("not here") == len(CATALOGUE)


def test_list_as_json(tmp_path: Path) -> None:
    result = runner.invoke(data_command.app, ["list", "--cache", str(tmp_path), "--json"])
    told = json.loads(result.output)
    assert [row["name"] for row in told["sets"]] == [item.name for item in CATALOGUE]
    assert not any(row["present"] for row in told["sets"])


def test_fetch_as_json_keeps_progress_off_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(cache: Path, *, say: object) -> dict[str, bool]:
        say("bank_full: ready")  # type: ignore[operator]
        return {"bank_full": True}

    monkeypatch.setattr(data_command, "fetch", fake)
    result = runner.invoke(data_command.app, ["fetch", "--cache", str(tmp_path), "--json"])
    assert json.loads(result.stdout) == {"cache": str(tmp_path), "fetched": {"bank_full": True}}
    assert "bank_full: ready" in result.stderr


def test_errors_rise_to_the_dispatcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(cache: Path, *, say: object) -> dict[str, bool]:
        raise OfflineError("CSL-M102", "No way there.", "Connect.")

    monkeypatch.setattr(data_command, "fetch", offline)
    result = runner.invoke(data_command.app, ["fetch", "--cache", str(tmp_path)])
    assert isinstance(result.exception, OfflineError)
