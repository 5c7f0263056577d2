import hashlib
import io
import shutil
import zipfile
from pathlib import Path

from flwr.common.config import get_metadata_from_config, validate_config

from federation.flower.bundle import PACKAGES, build_bundle, bundle_digest

ROOT = Path(__file__).parents[3]


def test_the_same_code_gives_the_same_bytes_wherever_it_lies(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, copy_function=shutil.copyfile)
    (tmp_path / "client" / "customers.csv").write_text("never")
    (tmp_path / "client" / "identity.key").write_text("never")
    assert build_bundle(tmp_path) == build_bundle()
    assert bundle_digest() == hashlib.sha256(build_bundle()).hexdigest()


def test_another_line_of_code_gives_another_digest(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, copy_function=shutil.copyfile)
    with (tmp_path / "client" / "vault.py").open("a") as file:
        file.write("# x\n")
    assert bundle_digest(tmp_path) != bundle_digest()


def test_it_holds_code_alone_and_flower_accepts_it():
    import tomllib

    with zipfile.ZipFile(io.BytesIO(build_bundle())) as archive:
        names = archive.namelist()
        config = tomllib.loads(archive.read("pyproject.toml").decode())
    assert all(name.endswith(".py") or name in ("pyproject.toml", ".info/CONTENT") for name in names)
    assert {"client/app.py", "server/app.py"} <= set(names)
    valid, problems, _ = validate_config(config, check_module=False)
    assert valid, problems
    assert get_metadata_from_config(config)[0]
