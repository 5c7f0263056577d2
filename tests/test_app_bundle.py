"""The root is a Flower App: a build of it ships code and public configuration, and nothing else."""

import io
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.clientapp import ClientApp
from flwr.common.config import validate_config
from flwr.serverapp import ServerApp

ROOT = Path(__file__).parents[1]
PLANTED = (
    "secrets.json",
    "client/identity.key",
    "client/ledger.sqlite",
    "client/customers.csv",
    "server/keys/coordinator.key",
    "configs/studies/customers.parquet",
    "configs/policies/policy.yaml",
    "out/demo/homes/bank/ledger.sqlite",
    "privacy/notes.txt",
    "tests/test_secret.py",
    "shared/customers.csv",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("app")
    for name in ("federation", "privacy", "client", "server", "simulations", "configs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for name in PLANTED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"secret")
    return zipfile.ZipFile(io.BytesIO(build_fab_from_disk(folder)))


def test_it_holds_code_and_public_configuration_only(bundle):
    for name in bundle.namelist():
        parts = Path(name).parts
        code = parts[0] in {"federation", "privacy", "client", "server"} and name.endswith(".py")
        public = parts[:2] in {("configs", "contracts"), ("configs", "studies")} and name.endswith(".yaml")
        assert code or public or name in {"pyproject.toml", "README.md", "LICENSE"} or parts[0] == ".info", name


def test_nothing_planted_is_in_it(bundle):
    assert not set(PLANTED) & set(bundle.namelist())
    assert all(bundle.read(name) != b"secret" for name in bundle.namelist())


def test_both_apps_are_in_it(bundle):
    assert {"server/app.py", "client/app.py"} <= set(bundle.namelist())


def test_flower_accepts_the_root_as_an_app():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    valid, problems, warnings = validate_config(config, check_module=True, project_dir=ROOT)
    assert valid and not problems, (problems, warnings)


def test_both_components_load():
    import client.app
    import server.app

    assert isinstance(client.app.app, ClientApp) and isinstance(server.app.app, ServerApp)


def test_two_builds_are_the_same_bytes(tmp_path):
    builds = []
    for name in ("one", "two"):
        shutil.copytree(ROOT / "configs", tmp_path / name / "configs")
        for package in ("federation", "privacy", "client", "server"):
            shutil.copytree(
                ROOT / package,
                tmp_path / name / package,
                ignore=shutil.ignore_patterns("__pycache__"),
                copy_function=shutil.copyfile,
            )
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(ROOT / file, tmp_path / name / file)
        builds.append(build_fab_from_disk(tmp_path / name))
    assert builds[0] == builds[1]
