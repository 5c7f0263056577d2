"""What the coordinator sees on the command line, and the ServerApp that reads its home folder."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from federation.charter import seal
from federation.errors import DocumentError, IntegrityError, StorageError
from privacy.keys import create_identity
from server.app import app as flower_app
from server.app import build_app
from server.command import app
from server.events import Published
from server.registry import Registry
from simulations.local_grid import run_study as run_on_grid
from tests.server.fakes import ROUNDS, FakeFederation, draft, key_of

RUNNER = CliRunner()


@pytest.fixture
def federation(tmp_path: Path) -> FakeFederation:
    """Lay out a coordinator's home folder: everything a person would put there."""
    made = FakeFederation.make(tmp_path)
    for name in ("contracts", "studies", "keys"):
        (tmp_path / name).mkdir()
    sealed = seal(made.charter, {name: key_of(name) for name in made.vaults}, key_of("coordinator"))
    (tmp_path / "charter.json").write_bytes(sealed.canonical())
    (tmp_path / "charter.digest").write_text(made.charter.digest() + "\n")
    (tmp_path / "contracts" / "shoppers.yaml").write_text(yaml.safe_dump(made.contract.model_dump(mode="json")))
    (tmp_path / "studies" / "spring.yaml").write_text(yaml.safe_dump(draft().model_dump(mode="json")))
    seed = key_of("coordinator").private_bytes_raw()
    create_identity(
        tmp_path / "keys" / "identity.key", passphrase=b"correct horse battery", random=lambda count: seed[:count]
    )
    (tmp_path / "passphrase").write_text("correct horse battery\n")
    (tmp_path / "passphrase").chmod(0o600)
    return made


def configuration(federation: FakeFederation, **changes: object) -> dict:
    home = federation.folder
    return {"coordinator-home": str(home), "study": "spring", "passphrase-file": str(home / "passphrase"), **changes}


def test_check_shows_the_plan(federation: FakeFederation) -> None:
    file = str(federation.folder / "studies" / "spring.yaml")
    alone = RUNNER.invoke(app, ["study", "check", file])
    assert alone.exit_code == 0 and "draft is valid" in alone.output and "--home" in alone.output
    found = RUNNER.invoke(app, ["study", "check", file, "--home", str(federation.folder), "--json"])
    result = json.loads(found.output)
    assert result["members"] == {name: vault.size for name, vault in federation.vaults.items()}
    assert result["plan"]["rounds"] > 2 and 0 < result["plan"]["sampling_rate"] <= 1
    text = RUNNER.invoke(app, ["study", "check", file, "--home", str(federation.folder)]).output
    assert f"{result['plan']['rounds']} rounds" in text and "4 members declare 7500 customers" in text


def test_check_names_all_problems_of_a_file(federation: FakeFederation, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: Not Good\nepsilon: -1\nsurprise: 1\n")
    caught = RUNNER.invoke(app, ["study", "check", str(bad)]).exception
    assert isinstance(caught, DocumentError) and caught.code == "CSL-F105"
    assert all(word in caught.cause for word in ("name", "epsilon", "surprise", "purpose", "line 2"))


def test_a_study_by_the_server_app_is_listed_and_shown(federation: FakeFederation) -> None:
    with federation.grid() as grid:
        run_on_grid(build_app(federation.events.append), grid, configuration(federation))
    name = federation.happened(Published)[0].name
    home = ["--home", str(federation.folder)]
    listed = json.loads(RUNNER.invoke(app, ["models", "list", *home, "--json"]).output)
    assert [row["name"] for row in listed] == [name] and listed[0]["partners"] == 4 and listed[0]["rounds"] > ROUNDS
    assert f"{listed[0]['auc']:.3f}" in RUNNER.invoke(app, ["models", "list", *home]).output
    assert "Not for credit decisions" in RUNNER.invoke(app, ["models", "show", name, *home]).output
    shown = RUNNER.invoke(app, ["models", "show", name, *home, "--json"]).output.strip()
    assert shown.encode() == Registry(federation.folder / "registry").load(name).sealed.canonical()


def test_an_empty_registry_says_what_to_do(tmp_path: Path) -> None:
    assert "No model is published yet" in RUNNER.invoke(app, ["models", "list", "--home", str(tmp_path)]).output


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"coordinator-home": ""}, DocumentError, "CSL-S105"),
        ({"study": "../secret"}, DocumentError, "CSL-S104"),
        ({"study": "absent"}, DocumentError, "CSL-F103"),
        ({"coordinator-home": "/nowhere"}, DocumentError, "CSL-F103"),
        ({"passphrase-file": "/nowhere"}, StorageError, "CSL-P502"),
        ({"passphrase-file": ""}, DocumentError, "CSL-P503"),
    ],
)
def test_what_is_missing_is_named(federation: FakeFederation, changes: dict, error: type, code: str) -> None:
    with federation.grid() as grid, pytest.raises(error, match=code):
        run_on_grid(flower_app, grid, configuration(federation, **changes))


def test_a_charter_that_is_not_pinned_is_refused(federation: FakeFederation) -> None:
    (federation.folder / "charter.digest").write_text("0" * 64)
    with federation.grid() as grid, pytest.raises(IntegrityError, match="CSL-F204"):
        run_on_grid(flower_app, grid, configuration(federation))
    (federation.folder / "charter.digest").unlink()
    with federation.grid() as grid, pytest.raises(StorageError, match="CSL-S103"):
        run_on_grid(flower_app, grid, configuration(federation))


@pytest.mark.parametrize("words", ["", "study check", "models list", "models show"])
def test_help_teaches(words: str) -> None:
    result = RUNNER.invoke(app, [*words.split(), "--help"])
    assert result.exit_code == 0 and len(result.output) > 300
