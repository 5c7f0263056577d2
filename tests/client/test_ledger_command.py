"""The listing: every kind of entry in words, what left and why, and filters that agree with reading everything."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from client.unlock import unlock
from federation.errors import ConsilienceError, ExitCode
from federation.signing import sign
from privacy.keys import create_identity
from privacy.ledger import Ledger
from privacy.ledger.entries import (
    APPROVAL_CONTEXT,
    RESTORE_CONTEXT,
    ApprovalStatement,
    ApproveData,
    Kind,
    RestoreData,
    RestoreStatement,
)
from tests.client.officer_desk import Clock, fresh_ledger, reserve, run
from tests.client.vault_home import Town, found

START = 20_000  # days since 1970


def approve(town: Town, ledger: Ledger, rid: str, which: int, decision: str = "approve") -> None:
    policy = ledger.state().policy_digest
    statement = ApprovalStatement(study=rid, policy=policy, decision=decision, reason="It is useful")
    signature = sign(town.officers["alder"][which], APPROVAL_CONTEXT, statement)
    ledger.approve(ApproveData(name="lapse", statement=statement, signature=signature))


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A ledger of nine days with an entry of every kind; its key changes and it is restored at the end."""
    town = found(tmp_path_factory.mktemp("town"), automatic=0.5)
    clock = Clock(START)
    with fresh_ledger(town, clock) as ledger:
        clock.forward(1)
        lapse = f"{1:064x}"
        for which in (0, 1):
            approve(town, ledger, lapse, which)
        reserve(ledger, 1, 1.0, "lapse")
        ledger.consent(lapse, purpose="marketing.propensity", consent="profiling", digest="5" * 64)
        clock.forward(1)
        ledger.release(lapse, 1, "training", "6" * 64, 12_345, what="round 1 of 3")
        ledger.close(lapse, "the study ended")
        clock.forward(1)
        reserve(ledger, 2, 0.4, "return", holdout=False)
        ledger.refuse("CSL-P201", "cross_sell", "The policy does not know [the] purpose \x1b[31m.")
        clock.forward(1)
        ledger.access("export", "the name list of lapse", actor="vera", role="analyst", count=40)
        ledger.withdraw(count=3, registered=3, digest="7" * 64, reason="letters of March", actor="login_one")
        head = ledger.tree_head()
        ledger.witnessed(head.size, head.root, ("coordinator", "birch"))
        clock.forward(1)
        new = Ed25519PrivateKey.generate()
        ledger.rotate(new, "yearly")
        head = ledger.tree_head()
        said = RestoreStatement(member="alder", size=head.size, root=head.root, complete=False, reason="disk broke")
        signatures = tuple(sign(key, RESTORE_CONTEXT, said) for key in town.officers["alder"])
        ledger.restore(RestoreData(statement=said, signatures=signatures))
    path = town.homes["alder"].identity_key
    path.unlink()
    seed = new.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    create_identity(path, allow_plain=True, random=lambda count: seed if count == len(seed) else os.urandom(count))
    return town


@pytest.fixture(scope="module")
def at(town):
    return "--home", town.homes["alder"].root


def rows(*arguments: object) -> list[dict[str, object]]:
    return [json.loads(line) for line in run("ledger", *arguments, "--json").splitlines()]


def test_every_kind_of_entry_is_said_in_words(town, at):
    said = {row["kind"]: row["text"] for row in reversed(rows(*at))}
    assert set(said) == set(Kind.__args__)
    expected = {
        "genesis": "The ledger of alder begins",
        "policy": "Policy version 1 comes into force",
        "approve": "first approves it under policy version 1: It is useful",
        "reserve": "Why: policy version 1, approved by first and second",
        "consent": "under the consent profiling",
        "release": "Left the house: round 1 of 3 (12,345 bytes",
        "close": "Nothing had left on holdout: its charge is given back",
        "refuse": "Refused, CSL-P201",
        "rotate": "The institution's key changes",
        "restore": "Nothing remains to spend",
        "access": "vera (analyst) exported the name list of lapse: 40 customers",
        "withdraw": "3 customers withdrew their consent",
        "witness": "countersigned by coordinator, birch",
    }
    for kind, part in expected.items():
        assert part in said[kind], said[kind]


def test_what_left_is_told_with_purpose_policy_and_who_approved(at):
    (row,) = rows(*at, "--kind", "release")
    assert row["text"].endswith(
        "paid by the training account for marketing.propensity, policy version 1, approved by first and second."
    )
    automatic = rows(*at, "--study", "return")[0]
    assert "within its automatic limits" in automatic["text"] and automatic["study"] == "return"


def test_digests_in_words_are_cut_on_display_and_whole_in_the_ledger(tmp_path):
    town, survivors = found(tmp_path, automatic=0.5), "ab" * 32
    what = f"round 1 of 3, masked, for the sum over 5 institutions {survivors}"
    with fresh_ledger(town, Clock(START)) as ledger:
        rid = reserve(ledger, 1, 0.4, "lapse")
        ledger.release(rid, 1, "training", "6" * 64, 40, what=what)
        ledger.access("erase", f"secrets of the sums of study {rid}", actor="vault", role="vault", count=4)
        (entry,) = ledger.entries(kinds=("release",))
        assert entry.body.data.what == what
    at = "--home", town.homes["alder"].root
    (row,) = rows(*at, "--kind", "release")
    assert (
        f"for the sum over 5 institutions {survivors[:12]}… (40 bytes" in row["text"] and survivors not in row["text"]
    )
    (row,) = rows(*at, "--kind", "access")
    assert row["text"] == f"vault (vault) deleted secrets of the sums of study {rid[:12]}…: 4 files."
    assert survivors not in "".join(run("ledger", *at).split())


def test_the_table_wraps_and_keeps_to_the_terminal(at):
    output = run("ledger", *at, width=100)
    assert all(len(line) <= 100 for line in output.splitlines()) and "[the] purpose" in " ".join(output.split())
    assert "\x1b[31m." not in output


def test_filters(at):
    assert [row["kind"] for row in rows(*at, "--study", "lapse")] == [
        "approve",
        "approve",
        "reserve",
        "consent",
        "release",
        "close",
    ]
    assert rows(*at, "--study", f"{1:064x}"[:62]) == rows(*at, "--purpose", "marketing.propensity")
    assert [row["kind"] for row in rows(*at, "--kind", "reserve", "--purpose", "marketing.propensity")] == [
        "reserve"
    ] * 2
    assert rows(*at, "--study", "cross_sell")[0]["data"]["code"] == "CSL-P201"
    assert rows(*at, "--purpose", "nothing") == [] and "No entry" in run("ledger", *at, "--study", "nothing")
    everything = rows(*at)
    assert [row["seq"] for row in everything] == list(range(len(everything)))
    assert rows(*at, "--tail", 3) == everything[-3:] and rows(*at, "--limit", 4) == everything[:4]
    assert rows(*at, "--kind", "approve", "--tail", 1) == [row for row in everything if row["kind"] == "approve"][-1:]
    assert rows(*at, "--tail", 99) == everything == rows(*at, "--limit", 99)


@settings(max_examples=15)
@given(st.integers(-2, 8), st.integers(-2, 8))
def test_days_agree_with_reading_everything(at, first, last):
    days = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=START + offset) for offset in (first, last)]
    since, until = (day.date().isoformat() for day in days)
    expected = [row for row in rows(*at) if since <= str(row["time"])[:10] <= until]
    assert rows(*at, "--from", since, "--to", until) == expected


def test_wrong_arguments_are_named(at):
    assert run("ledger", *at, "--kind", "relase", code=int(ExitCode.USAGE)) == ""
    with pytest.raises(ConsilienceError, match="CSL-C664"):
        run("ledger", *at, "--limit", 1, "--tail", 1)
    for day in ("yesterday", "2026-13-01", ""):
        with pytest.raises(ConsilienceError, match="CSL-C665"):
            run("ledger", *at, "--from", day)
    with pytest.raises(ConsilienceError, match="CSL-C005"):
        run("ledger", "--home", at[1].parent)
    assert "JSON lines" in run("ledger", "--help")


def test_the_home_may_come_from_the_environment(town, at, monkeypatch):
    monkeypatch.setenv("CONSILIENCE_HOME", str(at[1]))
    assert rows() == rows(*at) and unlock(town.homes["alder"])


def test_refusals_that_were_only_counted_are_told_by_code(tmp_path):
    town, clock = found(tmp_path / "town"), Clock(START)
    with fresh_ledger(town, clock) as ledger:
        first = ledger.now()
        clock.forward(1)
        ledger.refuse_many(1950, first, ledger.now(), {"CSL-C510": 1900, "CSL-F208": 49})
    at = ("--home", town.homes["alder"].root)
    (row,) = rows(*at, "--kind", "refuse")
    assert row["text"].startswith("Refused 1,950 more between 20")
    assert row["text"].endswith("one by one: 1,900 times CSL-C510, 49 times CSL-F208, 1 times others.")
    assert row["study"] is None and row["data"]["count"] == 1950
    assert "1,900 times CSL-C510" in " ".join(run("ledger", *at).split())
