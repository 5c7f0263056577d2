"""The security page names a test for every attack: each must exist where the page says."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)`|`(test_\w+)`")


def named_tests() -> list[tuple[str, str]]:
    """File and name of every test on the page; a file counts until the next one is named."""
    found, file = [], ""
    for path, name in NAMED.findall((ROOT / "docs" / "security.md").read_text()):
        file = path or file
        if name:
            found.append((file, name))
    return found


def test_every_test_that_the_security_page_names_exists() -> None:
    named = named_tests()
    missing = [f"{file}::{name}" for file, name in named if f"\ndef {name}(" not in (ROOT / file).read_text()]
    assert missing == []
    assert len(named) > 40 and len(set(named)) == len(named)
