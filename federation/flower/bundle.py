"""The app bundle (FAB) that the coordinator pushes and whose digest the charter names, built from the code that is installed here.

No vault runs it: the digest says which release of the code a federation has agreed upon, and every party can build it for itself. The
same sources give the same bytes, on every machine: names are sorted, dates are fixed, and the pieces are stored uncompressed, since
compression differs between libraries.
"""

import io
import zipfile
from importlib.metadata import version
from pathlib import Path

from flwr.cli.build import build_fab_from_files

from federation.encoding import sha256_hex

PACKAGES = ("client", "federation", "privacy", "server")
_DATE = (1980, 1, 1, 0, 0, 0)
_PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "consilience"
version = "{version}"
description = "Privacy-preserving federated analytics for banks and e-commerce platforms"
license = "Apache-2.0"
dependencies = ["flwr=={flower}"]

[tool.flwr.app]
publisher = "consilience"
fab-include = ["client/**/*.py", "federation/**/*.py", "privacy/**/*.py", "server/**/*.py"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
study = ""
"""


def build_bundle(root: Path | None = None) -> bytes:
    """Return the bundle of the code under `root`, by default of the code that runs."""
    root = root or Path(__file__).parents[2]
    files: dict[str, bytes | Path] = {
        path.relative_to(root).as_posix(): path.read_bytes().replace(b"\r\n", b"\n")
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    files["pyproject.toml"] = _PROJECT.format(version=version("consilience"), flower=version("flwr")).encode()
    return _restored(build_fab_from_files(files)[0])


def bundle_digest(root: Path | None = None) -> str:
    """Return the SHA-256 of the bundle, 64 hexadecimal digits: what a charter names as its app."""
    return sha256_hex(build_bundle(root))


def _restored(bundle: bytes) -> bytes:
    """Write an archive anew with every piece stored as it is."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle)) as old, zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            new.writestr(entry, old.read(name))
    return written.getvalue()
