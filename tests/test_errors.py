"""Error codes are stable and documented: each stands in docs/errors.md once, and none stands there that the code does not raise."""

import re
from pathlib import Path

from federation.errors import ExitCode

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"CSL-[FPCSMR]\d{3}")
PACKAGES = ("federation", "privacy", "client", "server", "simulations")


def raised() -> dict[str, set[str]]:
    """Codes in string literals of the packages, with the packages that hold them."""
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for code in re.findall(r"\"(CSL-[FPCSMR]\d{3})\"", path.read_text()):
                found.setdefault(code, set()).add(package)
    return found


def documented() -> list[str]:
    return re.findall(r"^\| (CSL-[FPCSMR]\d{3}) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)


def test_every_code_is_documented_once_and_none_is_left_over():
    listed = documented()
    assert len(listed) == len(set(listed))
    assert set(listed) == set(raised())


def test_every_exit_code_is_documented():
    text = (ROOT / "docs" / "errors.md").read_text()
    assert all(re.search(rf"^\| {code.value} \|", text, re.MULTILINE) for code in ExitCode)


def test_a_letter_belongs_to_one_package():
    letters = {"F": "federation", "P": "privacy", "C": "client", "S": "server", "M": "simulations"}
    for code, packages in raised().items():
        if code != "CSL-R000":
            assert packages == {letters[code[4]]}, code
