import subprocess
from datetime import date
from shutil import which

import pytest

from federation.charter import COORDINATOR, Declaration
from federation.charter_text import authority_fingerprint, describe, node_fingerprint, render
from federation.founding import collect, sign_charter
from federation.words import words_of
from tests.founding_parts import APP, authority_pem, charter, charter_file, key_of, member, node_key_of


def test_everything_that_must_be_compared_is_shown():
    file = charter_file()
    file = collect(file, [sign_charter(key_of("birch"), file.charter, "birch")])
    shown = describe(file)
    assert shown["words"] == list(words_of(file.charter.digest())) and shown["changes"] is None
    assert shown["signed"] == ["birch"] and shown["missing"] == ["alder", COORDINATOR]
    text = render(shown)
    row = member("birch")
    for part in (
        "Charter of test, version 1",
        "127.0.0.1:18443",
        APP,
        file.charter.coordinator_key,
        "birch: The Birch",
        "1000 customers for shop",
        row.key,
        node_fingerprint(row.node_key or ""),
        authority_fingerprint(authority_pem()),
        file.charter.contracts[0].sha256,
        file.charter.digest(),
        "Signed by   birch",
        "Missing     alder, coordinator",
        *words_of(file.charter.digest()),
    ):
        assert part in text, part
    rows = [line.split() for line in text.splitlines()[-4:]]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"] and all(len(row) == 7 for row in rows)


def test_changes_stand_before_the_words():
    old = charter("alder")
    text = render(describe(charter_file(version=2, prev=old.digest()), old))
    assert "birch (The Birch) joins" in text
    assert "Nothing but the version" in render(describe(charter_file("alder", version=2, prev=old.digest()), old))
    assert "What changes" not in render(describe(charter_file("alder"), old))


def test_a_charter_without_a_link_and_windows_are_shown():
    log = Declaration(contract="shop", size=5, as_of=date(2026, 1, 1), window_days=365, horizon_days=90)
    rows = (member("alder", node_key=None, declares=(log,)),)
    text = render(describe(charter_file("alder", link=None, members=rows)))
    assert "address" not in text and "as of 2026-01-01" in text and "365" in text and "within 90 days" in text


@pytest.mark.skipif(which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_a_node_keys_fingerprint_is_that_of_ssh(tmp_path):
    path = tmp_path / "node.pub"
    path.write_text(node_key_of("alder") + "\n")
    printed = subprocess.run(["ssh-keygen", "-lf", str(path)], check=True, capture_output=True, text=True).stdout
    assert node_fingerprint(node_key_of("alder")) == printed.split()[1]


@pytest.mark.skipif(which("openssl") is None, reason="needs openssl")
def test_an_authoritys_fingerprint_is_that_of_openssl():
    arguments = ["openssl", "x509", "-noout", "-fingerprint", "-sha256"]
    printed = subprocess.run(arguments, input=authority_pem(), check=True, capture_output=True, text=True).stdout
    assert printed.strip().endswith("=" + authority_fingerprint(authority_pem()))
