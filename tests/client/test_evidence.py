"""A pack says what the ledger says, is the same bytes every time, and any change to it is found."""

import datetime
import io
import json
import random
import shutil
import struct
import zipfile
import zlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from client.evidence.archive import Archive, Folder, write_archive
from client.evidence.build import Span, build_evidence
from client.evidence.manifest import (
    APPROVALS,
    AROUND,
    CONTEXT,
    EDGES,
    EDGES_PROOFS,
    ENTRIES,
    GUIDE,
    MANIFEST,
    NOTE,
    PROOFS,
    REPORT,
    SIGNATURE,
    START,
    FileRecord,
    Manifest,
    entry_line,
    parse_entry_line,
)
from client.evidence.verdict import Trust, verify_pack
from federation.encoding import canonical, sha256_hex
from federation.errors import ConsilienceError, DataError, DocumentError, IntegrityError, StorageError
from federation.signing import public_hex, sign_bytes
from privacy.keys import load_identity
from privacy.ledger import TreeHead
from privacy.ledger.entries import SIGNING_PREFIX
from tests.client.evidence_home import live, months

OTHER = Ed25519PrivateKey.from_private_bytes(b"other".ljust(32, b"."))
FEBRUARY = {"since": datetime.date(2026, 2, 1), "until": datetime.date(2026, 2, 28)}


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    return months(live(tmp_path_factory.mktemp("past")))


@pytest.fixture(scope="module")
def whole(past, tmp_path_factory):
    path = tmp_path_factory.mktemp("packs") / "whole.zip"
    build_evidence(past.home, past.key, path)
    return path


@pytest.fixture(scope="module")
def part(past, tmp_path_factory):
    path = tmp_path_factory.mktemp("packs") / "part.zip"
    build_evidence(past.home, past.key, path, **FEBRUARY)
    return path


def codes(path, **trust):
    return sorted({(item.code, item.file) for item in verify_pack(path, Trust(**trust)).findings})


def unpacked(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repack(files, target, key=None):
    """Write files as a pack; with a key, list and sign them anew, as an institution that cheats could."""
    if key is not None:
        manifest = Manifest.from_canonical(files[MANIFEST])
        rest = {name: content for name, content in files.items() if name not in (MANIFEST, SIGNATURE)}
        records = tuple(
            FileRecord(name=name, sha256=sha256_hex(rest[name]), bytes=len(rest[name])) for name in sorted(rest)
        )
        content = manifest.model_copy(update={"files": records}).canonical()
        files = rest | {MANIFEST: content, SIGNATURE: sign_bytes(key, CONTEXT, content).canonical()}
    staging = target.with_suffix(".d")
    shutil.rmtree(staging, ignore_errors=True)
    folder = Folder(staging)
    for name, content in files.items():
        folder.write(name, content)
    with target.open("wb") as handle:
        write_archive(folder, handle)
    return target


def test_a_pack_of_the_whole_ledger_is_valid_and_tells_the_reader_what_to_compare(past, whole):
    verdict = verify_pack(whole)
    assert verdict.valid and verdict.manifest.whole and verdict.key == public_hex(past.key)
    assert verdict.manifest.head.size == past.ledger.tree_head().size
    assert any(verdict.key in remark for remark in verdict.remarks)
    assert verdict.witnesses == (
        "consilience/test/birch (over 20 entries)",
        "consilience/test/the-coordinator (over 20 entries)",
    )


def test_with_the_charter_only_the_change_of_key_is_remarked(past, whole):
    (remark,) = verify_pack(whole, Trust(charter=past.town.charter)).remarks
    assert "an earlier key, replaced at entry 22" in remark and public_hex(past.key) in remark


def test_the_same_ledger_and_range_give_the_same_bytes(past, whole, part, tmp_path):
    build_evidence(past.home, past.key, tmp_path / "a.zip")
    build_evidence(past.home, past.key, tmp_path / "b.zip", **FEBRUARY)
    assert (tmp_path / "a.zip").read_bytes() == whole.read_bytes()
    assert (tmp_path / "b.zip").read_bytes() == part.read_bytes()


def test_python_reads_the_archive_too(whole):
    with zipfile.ZipFile(whole) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_pack_holds_no_customer_and_no_name_list(past, whole):
    content = whole.read_bytes()
    assert b"canary" not in content and b"holdout.key" not in content
    home = past.home
    sealed = (home.identity_key, home.holdout_key, home.store_key)
    secrets = [json.loads(path.read_text())["secret"].encode() for path in sealed]
    secrets += [home.runtime_secret.read_bytes(), *home.node_key.read_bytes().splitlines()[2:-2]]
    assert all(secret not in content for secret in secrets)


def test_a_part_rests_on_context_and_says_so(part):
    verdict = verify_pack(part)
    files = unpacked(part)
    assert verdict.valid and not verdict.manifest.whole and 0 < verdict.manifest.first < verdict.manifest.end
    assert START in files and AROUND in files
    kinds = [json.loads(parse_entry_line(line)[0])["kind"] for line in files[AROUND].splitlines()]
    assert kinds == ["genesis", "policy", "rotate"]
    assert any("rests on the institution's signature" in remark for remark in verdict.remarks)
    assert b"rests on the institution" in files[GUIDE] and b"begins after the ledger did" in files[REPORT]


def test_a_part_that_cuts_a_study_in_two_brings_its_beginning_along(past, tmp_path):
    """April holds the end of `autumn`, which is open, and nothing else needs March."""
    path = tmp_path / "april.zip"
    build_evidence(past.home, past.key, path, since=datetime.date(2026, 3, 1))
    verdict = verify_pack(path)
    assert verdict.valid and verdict.manifest.end == verdict.manifest.head.size


def test_an_empty_range_and_a_file_in_the_way_are_refused(past, tmp_path):
    with pytest.raises(DataError, match="CSL-C681"):
        build_evidence(past.home, past.key, tmp_path / "a.zip", since=datetime.date(2031, 1, 1))
    (tmp_path / "b.zip").write_text("mine")
    with pytest.raises(StorageError, match="CSL-C683"):
        build_evidence(past.home, past.key, tmp_path / "b.zip")
    with pytest.raises(StorageError, match="CSL-C685"):
        build_evidence(past.home, past.key, tmp_path / "missing" / "c.zip")
    assert not (tmp_path / "a.zip").exists() and (tmp_path / "b.zip").read_text() == "mine"


def test_only_the_newest_key_signs_evidence(past, tmp_path):
    old = load_identity(past.home.identity_key.with_suffix(".old"), allow_plain=True)
    with pytest.raises(IntegrityError, match="CSL-C687"):
        build_evidence(past.home, old, tmp_path / "a.zip")


def test_a_plan_and_a_part_that_begins_inside_a_study(tmp_path):
    past = live(tmp_path / "town")
    slot = {
        "id": "spring",
        "purpose": "marketing.propensity",
        "contract": "shop",
        "noise_multiplier": 8.0,
        "sampling_rate": 0.5,
        "steps": 3,
        "histogram_sigma": 8.0,
    }
    budget = json.loads(past.policy.budget.model_dump_json()) | {"mode": "plan", "slots": [slot]}
    past.change(budget=budget)
    rid = past.run(past.spec("planned"), rounds=1, close=False, evaluate=False)
    past.clock.pass_days(40)
    past.ledger.release(rid, 2, "training", "2" * 64, 4_096, what="noisy gradient sum")
    past.ledger.close(rid)
    for since in (None, datetime.date(2026, 2, 1)):
        path = tmp_path / f"{since}.zip"
        build_evidence(past.home, past.key, path, since=since)
        assert verify_pack(path).valid
    files = unpacked(path)
    kinds = [json.loads(parse_entry_line(line)[0])["kind"] for line in files[AROUND].splitlines()]
    assert kinds == ["genesis", "policy", "policy", "reserve", "consent", "release"]
    assert b"fills the plan&#39;s slot" in files[REPORT] or b"slot spring" in files[REPORT]
    without = lines(lambda rows: [row for row in rows if b'"kind":"release"' not in row])
    forged = edited(files, AROUND, without)
    assert not verify_pack(repack(forged, tmp_path / "forged.zip", past.key)).valid


def test_no_evidence_comes_from_documents_that_do_not_fit_the_ledger(past, tmp_path):
    studies = past.home.folder("studies")
    one, two = (studies / f"{past.specs[number].digest()}.json" for number in (0, 1))
    kept = one.read_bytes()
    try:
        one.write_bytes(two.read_bytes())
        with pytest.raises(IntegrityError, match="CSL-C682.*CSL-C808"):
            build_evidence(past.home, past.key, tmp_path / "a.zip")
    finally:
        one.write_bytes(kept)
    assert not any(tmp_path.iterdir())


# what the verifier brings along


def test_witnesses_count_by_the_charter_that_the_verifier_has(past, whole):
    """A pack with a made-up charter could name anybody as its witness."""
    charter = past.town.charter
    members = tuple(
        item if item.id != "birch" else item.model_copy(update={"key": public_hex(OTHER)}) for item in charter.members
    )
    verdict = verify_pack(whole, Trust(charter=charter.model_copy(update={"version": 2, "members": members})))
    assert verdict.valid and verdict.witnesses == ("consilience/test/the-coordinator (over 20 entries)",)
    assert any("the one given is another" in remark for remark in verdict.remarks)


def test_another_key_and_an_earlier_key(past, whole):
    assert codes(whole, key=public_hex(OTHER)) == [("CSL-P624", "pack")]
    verdict = verify_pack(whole, Trust(key=past.town.key("alder")))
    assert verdict.valid and any("replaced at entry 22" in remark for remark in verdict.remarks)


def test_heads_that_others_kept(past, whole, part):
    head = past.ledger.tree_head()
    assert codes(whole, head=head) == []
    assert codes(whole, head=TreeHead(head.size + 1, head.root)) == [("CSL-P625", "pack")]
    assert codes(whole, head=TreeHead(7, "0" * 64)) == [("CSL-P625", "pack")]
    assert any("cannot show" in text for text in verify_pack(part, Trust(head=TreeHead(3, "0" * 64))).remarks)
    note = (past.home.root / "witness" / "own.note").read_text()
    assert codes(whole, note=note, charter=past.town.charter) == []


def test_a_ledger_cut_off_before_the_pack_was_made_is_found_by_the_note(tmp_path):
    past = live(tmp_path / "town")
    past.run(past.spec("one"))
    saved = past.home.ledger_file.read_bytes()
    past.run(past.spec("two"))
    note = past.note()
    past.ledger.close_file()
    past.home.ledger_file.write_bytes(saved)
    (past.home.root / "witness" / "own.note").unlink()
    path = tmp_path / "cut.zip"
    build_evidence(past.home, past.key, path)
    assert verify_pack(path).valid
    verdict = verify_pack(path, Trust(note=note, charter=past.town.charter))
    assert any("newer than the pack" in remark for remark in verdict.remarks)
    assert codes(path, head=TreeHead(20, "0" * 64)) == [("CSL-P625", "pack")]


# the archive


def rezipped(path, target, compression=zipfile.ZIP_STORED, extra=None, comment=b"", duplicate=None):
    files = unpacked(path)
    with zipfile.ZipFile(target, "w", compression) as archive:
        archive.comment = comment
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name], compression)
        if duplicate:
            archive.writestr(duplicate, b"other")
        if extra:
            archive.writestr(zipfile.ZipInfo(extra), b"x")
    return target


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_in_another_form(whole, tmp_path):
    content = whole.read_bytes()
    forms = {
        "trailing": content + b"x",
        "prepended": b"#!/bin/sh\n" + content,
        "truncated": content[:-1],
        "half": content[: len(content) // 2],
    }
    for name, changed in forms.items():
        path = tmp_path / name
        path.write_bytes(changed)
        assert [item[0] for item in codes(path)] == ["CSL-C801"], name
    assert codes(rezipped(whole, tmp_path / "deflated", zipfile.ZIP_DEFLATED)) == [("CSL-C801", "archive")]
    assert codes(rezipped(whole, tmp_path / "comment", comment=b"hello")) == [("CSL-C801", "archive")]
    assert codes(rezipped(whole, tmp_path / "twice", duplicate=MANIFEST))[0][0] in ("CSL-C801", "CSL-C802")
    assert "compressed" in verify_pack(tmp_path / "deflated").findings[0].what


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a//b", "a/../b", ".hidden", "b\\c", "a/b/c/d", "x" * 200, ""]
)
def test_path_tricks(whole, tmp_path, name):
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 10, 0, 0, 0, 33, zlib.crc32(b""), 0, 0, len(name), 0)
    path = tmp_path / "evil.zip"
    path.write_bytes(local + name.encode() + whole.read_bytes())
    found = codes(path)
    assert found and found[0][0] in ("CSL-C801", "CSL-C802") and list(tmp_path.iterdir()) == [path]


def test_a_bomb_is_refused_by_its_header(tmp_path):
    """A compressed file, and one that claims to be of 4 GiB."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("VERIFY.md", b"\0" * 50_000_000)
        archive.writestr("manifest.sig", b"")
    path = tmp_path / "bomb.zip"
    path.write_bytes(bomb.getvalue())
    assert codes(path) == [("CSL-C801", "archive")]
    header = struct.pack("<4s5H3L2H", b"PK\x03\x04", 10, 0, 0, 0, 33, 0, 2**32 - 1, 2**32 - 1, 9, 0)
    path.write_bytes(header + b"VERIFY.md" + b"\0" * 1000)
    assert codes(path) == [("CSL-C801", "archive")]


def test_a_file_that_is_no_pack(tmp_path):
    for number, content in enumerate((b"", b"hello", b"PK\x03\x04", b"\0" * 5000)):
        path = tmp_path / str(number)
        path.write_bytes(content)
        with pytest.raises(DocumentError, match="CSL-C690"):
            verify_pack(path)
    foreign = tmp_path / "foreign.zip"
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("letter.txt", "Dear Sir")
    with pytest.raises(DocumentError, match="CSL-C690"):
        verify_pack(foreign)
    with pytest.raises(StorageError, match="CSL-C692"):
        verify_pack(tmp_path / "missing.zip")


# files and contents


def test_extra_missing_and_changed_files(whole, tmp_path):
    files = unpacked(whole)
    assert codes(repack(files | {"notes.txt": b"hello"}, tmp_path / "extra.zip"))[0] == ("CSL-C802", "notes.txt")
    assert ("CSL-C802", APPROVALS) in codes(
        repack({k: v for k, v in files.items() if k != APPROVALS}, tmp_path / "m.zip")
    )
    changed = files | {REPORT: files[REPORT].replace(b"studies granted", b"studies refused")}
    assert codes(repack(changed, tmp_path / "c.zip")) == [("CSL-C803", REPORT)]
    for name in (MANIFEST, SIGNATURE):
        assert codes(repack({k: v for k, v in files.items() if k != name}, tmp_path / "n.zip"))[0][0] == "CSL-C804"


def test_a_manifest_signed_by_another_key(past, whole, tmp_path):
    path = repack(unpacked(whole), tmp_path / "a.zip", OTHER)
    assert ("CSL-C805", SIGNATURE) in codes(path)


def test_another_institutions_pack(past, whole):
    assert ("CSL-P624", "pack") in codes(whole, key=past.town.key("birch"))


def edited(files, name, change):
    return files | {name: change(files[name])}


def lines(change):
    def apply(content):
        rows = content.splitlines(keepends=True)
        return b"".join(change(rows))

    return apply


def swap(rows):
    rows[3], rows[4] = rows[4], rows[3]
    return rows


def test_an_institution_cannot_sign_a_pack_that_tells_another_story(past, whole, tmp_path):
    """Each is listed and signed anew by the institution itself."""
    files = unpacked(whole)
    study = next(name for name in files if name.startswith("studies/"))
    card = next(name for name in files if name.endswith(".card.json"))
    policy = next(name for name in files if name.startswith("policies/") and name.endswith(".json"))
    cases = {
        "edit": (edited(files, ENTRIES, lambda text: text.replace(b"cross_sell", b"crosssell", 1)), "CSL-P615"),
        "delete": (edited(files, ENTRIES, lines(lambda rows: rows[:5] + rows[6:])), "CSL-P612"),
        "swap": (edited(files, ENTRIES, lines(swap)), "CSL-P614"),
        "insert": (edited(files, ENTRIES, lines(lambda rows: [*rows[:5], rows[4], *rows[5:]])), "CSL-P612"),
        "tail": (edited(files, ENTRIES, lines(lambda rows: rows[:-1])), "CSL-C806"),
        "proof": (edited(files, PROOFS, lambda text: text.replace(b"a", b"b", 1)), "CSL-C806"),
        "approval": (edited(files, APPROVALS, lambda text: text.replace(b"Worth", b"worth")), "CSL-C807"),
        "no approvals": (edited(files, APPROVALS, lambda text: b""), "CSL-C807"),
        "policy": (edited(files, policy, lambda text: text.replace(b"alder", b"birch")), "CSL-C807"),
        "study": (edited(files, study, lambda text: text.replace(b"Tests", b"Tasts", 1)), "CSL-C808"),
        "card": (edited(files, card, lambda text: text.replace(b"0.748", b"0.948")), "CSL-C808"),
        "report": (edited(files, REPORT, lambda text: text.replace(b">2</dd>", b">0</dd>", 1)), "CSL-C809"),
        "guide": (edited(files, GUIDE, lambda text: text + b"Trust us.\n"), "CSL-C809"),
        "note": (edited(files, NOTE, lambda text: text.replace(b"birch", b"cedar")), "CSL-C809"),
        "no note": ({k: v for k, v in files.items() if k != NOTE}, None),
        "stranger": (files | {"customers.csv": b"chief,1\n"}, "CSL-C802"),
        "other study": (files | {f"studies/{'0' * 64}.json": files[study]}, "CSL-C808"),
        "other policy": (files | {f"policies/{'0' * 64}.json": files[policy]}, "CSL-C802"),
        "no charter": ({k: v for k, v in files.items() if k != "charter.json"}, "CSL-C804"),
    }
    for name, (changed, expected) in cases.items():
        assert changed != files
        found = [item[0] for item in codes(repack(changed, tmp_path / "case.zip", past.key))]
        assert expected in found if expected else "CSL-C809" in found, (name, found)


def test_a_forged_manifest_field_is_found(past, whole, part, tmp_path):
    for path, changes in (
        (whole, {"as_of": 5}),
        (whole, {"end": 5}),
        (whole, {"member": "birch"}),
        (whole, {"federation": "elsewhere"}),
        (whole, {"charter": "0" * 64}),
        (whole, {"keys": [{"seq": 0, "key": public_hex(past.key)}]}),
        (whole, {"head": {"size": 31, "root": "0" * 64}}),
        (whole, {"head": {"size": 40, "root": "0" * 64}}),
        (whole, {"claims": ["Certified by the regulator."]}),
        (whole, {"since": "2026-01-06"}),
        (whole, {"until": "2026-02-28"}),
        (part, {"since": "2026-01-05"}),
        (part, {"since": None}),
        (part, {"first": 0}),
        (part, {"first": 11}),
        (part, {"consistency": []}),
        (part, {"end": 31}),
    ):
        files = unpacked(path)
        manifest = json.loads(files[MANIFEST]) | changes
        changed = repack(files | {MANIFEST: canonical(manifest)}, tmp_path / "case.zip", past.key)
        assert not verify_pack(changed).valid, changes


def test_totals_at_the_start_cannot_contradict_the_context(past, part, tmp_path):
    files = unpacked(part)
    start = json.loads(files[START])
    for change in (
        {"keys": [{"seq": 0, "key": public_hex(OTHER)}]},
        {"policy_digest": "0" * 64},
        {"exhausted": True},
        {"restores": 1},
        {"member": "birch"},
        {"frontier": start["frontier"][:-1]},
        {"frontier": ["0" * 64 for _ in start["frontier"]]},
        {"head": "0" * 64},
        {"size": start["size"] + 1},
        {"ts": start["ts"] + 10**12},
    ):
        changed = files | {START: canonical(start | change)}
        assert not verify_pack(repack(changed, tmp_path / "case.zip", past.key)).valid, change


class _Fewer(Span):
    """A run that leaves out the last entries of its days, or the first."""

    def visit(self, row, body, before):
        if row[0] not in self.hidden:
            super().visit(row, body, before)


@pytest.mark.parametrize("days", [FEBRUARY, {}])
@pytest.mark.parametrize("hidden", [range(18, 31), range(12)])
def test_a_part_cannot_leave_out_entries_of_its_days(past, tmp_path, monkeypatch, days, hidden):
    monkeypatch.setattr(_Fewer, "hidden", hidden, raising=False)
    monkeypatch.setattr("client.evidence.build.Span", _Fewer)
    with pytest.raises(IntegrityError, match="CSL-C682.*CSL-C804"):
        build_evidence(past.home, past.key, tmp_path / "a.zip", **days)


def test_the_entries_next_to_a_part_are_the_ledgers(past, part, tmp_path):
    files = unpacked(part)
    start = json.loads(files[START])
    cases = (
        edited(files, EDGES, lines(lambda rows: rows[:1])),
        edited(files, EDGES, lines(lambda rows: rows[::-1])),
        edited(files, EDGES, lines(lambda rows: [*rows, rows[-1]])),
        edited(files, EDGES, lines(lambda rows: [b"0" * 128 + rows[0][128:], rows[1]])),
        {name: content for name, content in files.items() if name not in (EDGES, EDGES_PROOFS)},
        files | {START: canonical(start | {"ts": start["ts"] - 1})},
    )
    for case in cases:
        assert case != files
        assert not verify_pack(repack(case, tmp_path / "case.zip", past.key)).valid


# nothing survives at random


@settings(max_examples=500)
@given(st.integers(0, 10**9), st.integers(0, 7))
def test_no_flipped_bit_survives(whole, tmp_path_factory, place, bit):
    content = bytearray(whole.read_bytes())
    content[place % len(content)] ^= 1 << bit
    assert not survives(bytes(content), tmp_path_factory)


@settings(max_examples=500)
@given(
    st.sampled_from(["cut", "delete", "insert", "copy", "swap"]),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.binary(min_size=1, max_size=40),
)
def test_no_rearranged_bytes_survive(part, tmp_path_factory, kind, first, second, new):
    content = part.read_bytes()
    low, high = sorted((first % (len(content) - 1), second % (len(content) - 1)))
    high += 1
    span = min(high - low, 3000)
    changed = {
        "cut": content[:high],
        "delete": content[:low] + content[low + span :],
        "insert": content[:low] + new + content[low:],
        "copy": content[: low + span] + content[low:],
        "swap": content[:low] + content[low : low + span][::-1] + content[low + span :],
    }[kind]
    if changed != content:
        assert not survives(changed, tmp_path_factory)


def survives(content, factory):
    path = factory.getbasetemp() / "mutant.zip"
    path.write_bytes(content)
    try:
        with Archive.open(path) as archive:
            names = archive.names
    except ConsilienceError:
        return False
    return bool(names) and verify_pack(path).valid


@pytest.fixture(scope="module")
def mutants(past, whole, part):
    """Signed packs' ledger parts, as lines, ready to be rearranged."""
    return {"whole": unpacked(whole), "part": unpacked(part)}


def test_no_rearranged_entries_survive_even_signed_by_the_institution(past, mutants, tmp_path):
    """Lines of entries, proofs and context: edited, deleted, inserted, moved, cut off, signed anew."""
    draw = random.Random(20260105)
    for number in range(200):
        files = dict(mutants["whole" if number % 2 else "part"])
        name = draw.choice([item for item in files if item.startswith("ledger/") and item.endswith(".txt")])
        rows = files[name].splitlines(keepends=True)
        before = list(rows)
        _rearrange(draw, rows, past.key)
        if rows == before:
            continue
        files[name] = b"".join(rows)
        assert not verify_pack(repack(files, tmp_path / "case.zip", past.key)).valid, (number, name)


def _rearrange(draw, rows, key):
    at, other = draw.randrange(len(rows)), draw.randrange(len(rows))
    kind = draw.choice(["delete", "insert", "move", "cut", "edit", "resign"])
    if kind == "delete":
        del rows[at]
    elif kind == "insert":
        rows.insert(at, rows[other])
    elif kind == "move":
        rows.insert(at, rows.pop(other))
    elif kind == "cut":
        del rows[max(at, 1) :]
    elif kind == "edit":
        line = bytearray(rows[at])
        line[draw.randrange(len(line) - 1)] ^= 1
        rows[at] = bytes(line)
    elif b"{" in rows[at]:
        body = parse_entry_line(rows[at].rstrip(b"\n"))[0].replace(b'"ts":1', b'"ts":2', 1)
        rows[at] = entry_line(body, key.sign(SIGNING_PREFIX + body))
