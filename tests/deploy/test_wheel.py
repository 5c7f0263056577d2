"""A wheel holds everything that runs, and is the same app as the checkout it was built from."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from federation.flower.bundle import bundle_digest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("client", "federation", "privacy", "server", "simulations")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what the image is built from: a build leaves folders behind, which have no place in the checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def site(source, tmp_path_factory) -> Path:
    """The wheel's content, as it lies in a folder of packages."""
    out = tmp_path_factory.mktemp("wheel")
    build = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = out.glob("consilience-*.whl")
    zipfile.ZipFile(wheel).extractall(out / "site")
    return out / "site"


def files(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix() for name in PACKAGES for path in (root / name).rglob("*") if path.is_file()
    }


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(source, site):
    assert files(site) == files(source)
    assert {"simulations/data.lock", "client/evidence/templates/report.html.j2"} <= files(site)
    assert {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")} == set(PACKAGES)


def test_the_wheel_is_the_same_app_as_the_checkout(source, site):
    assert bundle_digest(site) == bundle_digest(source)


def test_another_line_is_another_app(source, site, tmp_path):
    for name in PACKAGES:
        shutil.copytree(site / name, tmp_path / name)
    with (tmp_path / "client" / "vault.py").open("a") as handle:
        handle.write("\n")
    assert bundle_digest(tmp_path) != bundle_digest(source)


def run(site: Path, folder: Path, *arguments: str) -> str:
    code = "import sys; from federation.command import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.e2e
def test_the_wheels_commands_make_a_node_and_a_coordinator(source, site, tmp_path):
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    assert {"node", "officer", "coordinator", "verify"} <= set(run(site, tmp_path, "--help").split())
    run(site, tmp_path, "node", "init", "node", "--member", "bank_north", "--passphrase-file", str(secret))
    run(
        *(site, tmp_path, "coordinator", "init", "coordinator", "--federation", "town"),
        *("--address", "coordinator.example.org:443", "--passphrase-file", str(secret)),
    )
    assert (tmp_path / "node" / "keys" / "node.key").exists()
    assert (tmp_path / "coordinator" / "tls" / "server.pem").exists()
    code = "from federation.flower.bundle import bundle_digest as d, __file__ as f; print(f, d())"
    found = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert found == [str(site / "federation" / "flower" / "bundle.py"), bundle_digest(source)]
