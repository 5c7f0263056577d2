"""Backup, restoration and rotation: whole or not at all, and nothing is to be had from a copy that may lack entries."""

import hashlib
import json
import shutil
import stat
import threading
import zipfile

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from client import backup as backup_module
from client import rotation
from client.backup import FILES, MANIFEST, Manifest, read_backup, write_backup
from client.home import Home, check_unlocked, install_charter
from client.install import install
from client.node_key import read_runtime_secret
from client.officer import custody
from client.restoration import begin, statement_file
from client.unlock import Opener, unlock
from client.vault import Vault
from federation.errors import ConsilienceError, StorageError
from federation.founding import as_file
from federation.heads import coordinator_name, origin_of
from federation.note import Checkpoint, cosign, sign_checkpoint
from federation.signing import public_hex
from privacy.keys import create_identity, load_identity, read_public
from privacy.ledger import Ledger, LedgerReader, verify
from tests.client import vault_home
from tests.client.officer_desk import sealed_key

PLAIN = Opener(None, allow_plain=True)


def run(*arguments, code=0):
    app = typer.Typer()
    custody.register(app)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if isinstance(result.exception, ConsilienceError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def refused(code, call, *arguments, **named):
    with pytest.raises(ConsilienceError) as caught:
        call(*arguments, **named)
    assert caught.value.code == code, caught.value
    return caught.value


@pytest.fixture(scope="module")
def founded(tmp_path_factory):
    """A town in which alder granted one study and answered two rounds of it."""
    town = vault_home.found(tmp_path_factory.mktemp("custody") / "town")
    vault = town.vault()
    spec = town.spec()
    town.grant(vault, spec)
    for number in (1, 2):
        vault.answer("train", town.train(spec, number))
    return town


@pytest.fixture
def town(founded, tmp_path):
    """A copy of that town, to be changed at will."""
    shutil.copytree(founded.homes["alder"].root.parent, tmp_path / "town")
    homes = {member: Home(tmp_path / "town" / member) for member in founded.homes}
    return vault_home.Town(homes, founded.charter, founded.coordinator, founded.officers)


@pytest.fixture
def alder(town):
    return town.homes["alder"]


def head_of(home):
    with LedgerReader.read(home.ledger_file, read_public(home.identity_key)) as reader:
        return reader.tree_head()


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# Backup


@pytest.mark.parametrize("name", ["copy", "copy.zip"])
def test_a_backup_holds_what_the_vault_needs_and_nothing_else(alder, tmp_path, name):
    (alder.root / "passphrase").write_text("secret")
    (alder.root / "lists" / "today.list").write_bytes(b"names")
    (alder.root / "replies" / ".half.reply").write_bytes(b"temporary")
    text = run("backup", tmp_path / name, "--home", alder.root)
    head = head_of(alder)
    assert f"Tree head {head.size}:{head.root}" in text
    (tmp_path / "out").mkdir()
    manifest = read_backup(tmp_path / name, tmp_path / "out")
    assert (manifest.size, manifest.root, manifest.key) == (head.size, head.root, read_public(alder.identity_key))
    names = {item.path for item in manifest.files}
    assert {"ledger.sqlite", "keys/identity.key", "keys/holdout.key", "keys/store.key"} <= names
    assert {"policy.yaml", "charter.json", "node.yaml", "withdrawn.bin", "contracts/shop.yaml"} <= names
    assert sum(item.startswith("replies/") for item in names) == 3 and any(
        item.startswith("studies/") for item in names
    )
    assert not any(
        "customers.csv" in item or "passphrase" in item or "lists/" in item or "/." in item for item in names
    )
    for item in names:
        if item != "ledger.sqlite":
            assert (tmp_path / "out" / item).read_bytes() == (alder.root / item).read_bytes()
    assert verify(tmp_path / "out" / "ledger.sqlite", manifest.key).valid
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_backup_is_closed_to_others_and_written_over_nothing(alder, tmp_path):
    run("backup", tmp_path / "a.zip", "--home", alder.root)
    run("backup", tmp_path / "a", "--home", alder.root)
    assert stat.S_IMODE((tmp_path / "a.zip").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in (tmp_path / "a").rglob("*"))
    for name in ("a.zip", "a"):
        refused("CSL-C740", run, "backup", tmp_path / name, "--home", alder.root)
    refused("CSL-C741", run, "backup", tmp_path / "none" / "a.zip", "--home", alder.root)
    found = json.loads(run("backup", tmp_path / "b", "--home", alder.root, "--json"))
    assert found["member"] == "alder" and found["plain_keys"] is True


def test_a_backup_of_a_ledger_that_is_written_to_is_one_moment_of_it(alder, town, tmp_path):
    stop = threading.Event()

    def write():
        with town.ledger() as ledger:
            while not stop.is_set():
                ledger.refuse("CSL-P201", "x", "why")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        manifests = [write_backup(alder, tmp_path / f"copy{number}", "now") for number in range(5)]
    finally:
        stop.set()
        writer.join()
    for number, manifest in enumerate(manifests):
        result = verify(tmp_path / f"copy{number}" / "ledger.sqlite", manifest.key)
        assert result.valid and (result.head.size, result.head.root) == (manifest.size, manifest.root)
    assert manifests[0].size <= manifests[-1].size <= head_of(alder).size


def test_plain_keys_are_copied_from_a_simulations_home_only(alder, tmp_path):
    text = alder.node_file.read_text()
    alder.node_file.write_text(text.replace("plain_keys: true\n", ""))
    refused("CSL-C742", write_backup, alder, tmp_path / "copy", "now")
    assert not (tmp_path / "copy").exists()


def test_a_home_with_sealed_keys(tmp_path):
    home = Home(tmp_path / "home")
    install(home, "alder", b"a long passphrase")
    assert not write_backup(home, tmp_path / "copy", "now").plain_keys
    found = {path.name: path.read_bytes() for path in (tmp_path / "copy" / "keys").iterdir()}
    assert b"BEGIN OPENSSH PRIVATE KEY" in found.pop("node.key"), "the link knows the node by it; it opens nothing"
    assert set(found) == {"identity.key", "holdout.key", "store.key"}, "the runtime secret is of one machine"
    assert all(b'"sealing":{' in content for content in found.values())


def test_what_is_no_plain_file_stops_a_backup(alder, tmp_path):
    (alder.root / "replies" / "link").symlink_to("/etc/hostname")
    refused("CSL-C744", write_backup, alder, tmp_path / "copy", "now")
    (alder.root / "replies" / "link").unlink()
    (alder.root / "contracts" / "odd name.yaml").touch()
    refused("CSL-C744", write_backup, alder, tmp_path / "copy", "now")


def test_a_full_disk_leaves_no_half_a_backup(alder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup_module, "_copy", full)
    for name in ("copy", "copy.zip"):
        error = refused("CSL-C741", write_backup, alder, tmp_path / name, "now")
        assert "No space left" in error.cause
    assert sorted(path.name for path in tmp_path.iterdir()) == ["town"]


# Reading a backup back


@pytest.fixture(scope="module")
def kept(founded, tmp_path_factory):
    """A backup as a folder and as one file."""
    folder = tmp_path_factory.mktemp("kept")
    write_backup(founded.homes["alder"], folder / "copy", "now")
    write_backup(founded.homes["alder"], folder / "copy.zip", "now")
    return folder


def test_every_change_of_a_folder_is_found(kept, tmp_path):
    source = tmp_path / "copy"

    def code(change):
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(kept / "copy", source)
        change()
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return refused("CSL-C746", read_backup, source, out)

    code((source / "policy.yaml").unlink)
    code((source / "extra").touch)
    code((source / "keys" / "extra.key").touch)
    code(lambda: (source / "policy.yaml").write_bytes(b"x" * (source / "policy.yaml").stat().st_size))
    code(lambda: (source / "policy.yaml").write_bytes(b"institution: alder"))
    code((source / MANIFEST).unlink)
    code(lambda: (source / MANIFEST).write_bytes(b"{}"))
    code(lambda: (source / "link").symlink_to("/etc/hostname"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_zip_is_not_taken_for_the_backup(kept, tmp_path, place, value, cut):
    """Whatever byte is changed, or wherever the file ends: it is refused, or its files are the very same."""
    content = bytearray((kept / "copy.zip").read_bytes())
    index = int(place * len(content))
    if cut:
        del content[index:]
    else:
        content[index] ^= value
    (tmp_path / "bad.zip").write_bytes(content)
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    try:
        manifest = read_backup(tmp_path / "bad.zip", out)
    except ConsilienceError as error:
        assert error.code in ("CSL-C745", "CSL-C746")
        return
    assert manifest.canonical() == (kept / "copy" / MANIFEST).read_bytes()
    assert all((out / item.path).read_bytes() == (kept / "copy" / item.path).read_bytes() for item in manifest.files)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "keys/../../outside", "tmp/x", "LOCKED", "keys/.x", "k\0ey"]
)
def test_no_file_leads_out_of_the_home(kept, tmp_path, name):
    manifest = Manifest.from_canonical((kept / "copy" / MANIFEST).read_bytes())
    item = manifest.files[0].model_copy(update={"path": name})
    forged = manifest.model_copy(update={"files": (*manifest.files, item)})
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(MANIFEST, forged.canonical())
        for entry in manifest.files:
            archive.write(kept / "copy" / entry.path, entry.path)
        archive.writestr(zipfile.ZipInfo(name), (kept / "copy" / manifest.files[0].path).read_bytes())
    (tmp_path / "out").mkdir()
    refused("CSL-C746", read_backup, tmp_path / "bad.zip", tmp_path / "out")
    assert not (tmp_path / "outside").exists()


def test_what_is_packed_is_not_unpacked(kept, tmp_path):
    """A backup is stored, not compressed: nothing in it can be larger than the file itself."""
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, b" " * 50_000_000)
    (tmp_path / "out").mkdir()
    refused("CSL-C746", read_backup, tmp_path / "bomb.zip", tmp_path / "out")
    (tmp_path / "text.zip").write_bytes(b"no zip")
    refused("CSL-C746", read_backup, tmp_path / "text.zip", tmp_path / "out")
    refused("CSL-C745", read_backup, tmp_path / "none.zip", tmp_path / "out")


def test_a_backup_names_each_kind_of_file_once():
    assert len(set(FILES)) == len(FILES) and MANIFEST not in FILES


# Restoration


def start(town, tmp_path, *options):
    run("backup", tmp_path / "copy.zip", "--home", town.homes["alder"].root)
    new = tmp_path / "new"
    run("restore", "begin", tmp_path / "copy.zip", "--home", new, "--reason", "The disk failed", *options)
    return Home(new)


def sign_both(town, tmp_path, home):
    for which in (0, 1):
        run("restore", "sign", statement_file(home), *sealed_key(town, tmp_path, which))


def test_a_restored_home_is_locked_until_two_officers_have_signed(town, tmp_path):
    home = start(town, tmp_path)
    refused("CSL-C006", check_unlocked, home)
    refused("CSL-C006", run, "rotate", "--home", home.root, "--reason", "x")
    refused("CSL-C006", run, "backup", tmp_path / "again", "--home", home.root)
    refused("CSL-C006", Vault.open, home.root, unlock(home))
    refused("CSL-P315", run, "restore", "finish", "--home", home.root)
    first = sealed_key(town, tmp_path, 0)
    text = run("restore", "sign", statement_file(home), *first)
    assert "nothing remains to spend" in text and "1 of 2" in text
    refused("CSL-C757", run, "restore", "sign", statement_file(home), *first)
    refused("CSL-P315", run, "restore", "finish", "--home", home.root)
    assert home.lock_file.exists()
    run("restore", "sign", statement_file(home), *sealed_key(town, tmp_path, 1))
    text = run("restore", "finish", "--home", home.root)
    assert "Nothing remains to spend" in text and town.key("alder") in text
    check_unlocked(home)
    assert not list(home.root.glob("restore.*"))
    refused("CSL-C758", run, "restore", "finish", "--home", home.root)
    with Ledger.open(home.ledger_file, unlock(home).identity) as ledger:
        assert ledger.state().exhausted
    assert verify(home.ledger_file, town.key("alder")).valid
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_a_restored_home_goes_by_the_charter_that_was_accepted(town, tmp_path):
    alder = town.homes["alder"]
    install_charter(alder, as_file(alder.sealed_charter(), [vault_home.CONTRACT]))
    alder.membership_file.write_text("title: Alder\n")
    node_key = alder.node_key.read_bytes()
    home = start(town, tmp_path)
    assert home.charter() == town.charter and home.accepted_file(town.charter.digest()).exists()
    assert home.membership_file.read_text() == "title: Alder\n"
    assert home.node_key.read_bytes() == node_key and stat.S_IMODE(home.node_key.stat().st_mode) == 0o600
    assert read_runtime_secret(home) != read_runtime_secret(alder), "a secret of its own for the new machine"


def test_kept_replies_go_on_and_nothing_new_is_granted(town, tmp_path):
    spec = town.spec()
    before = town.vault().answer("train", town.train(spec, 1))
    home = start(town, tmp_path)
    sign_both(town, tmp_path, home)
    run("restore", "finish", "--home", home.root)
    town.homes["alder"] = home
    for name in ("customers.csv", "consent.csv"):  # the tables are the institution's own, and no part of a backup
        shutil.copy(tmp_path / "town" / "alder" / name, home.root)
    vault = town.vault()
    assert vault.answer("train", town.train(spec, 1)) == before
    size = head_of(home).size
    vault.answer("train", town.train(spec, 3))
    with town.ledger() as ledger:
        assert ledger.entry(size).body.data.code == "CSL-P413"


def note_of(town, home, size=None, root=None, *, generation=0, key=None, witnesses=True, member="alder"):
    head = head_of(home)
    checkpoint = Checkpoint(origin_of("test", member, generation), size or head.size, root or head.root)
    text = sign_checkpoint(key or load_identity(home.identity_key, allow_plain=True), checkpoint)
    if witnesses:
        text = cosign(text, town.coordinator, coordinator_name("test"), 1_700_000_000)
    return text


def with_note(tmp_path, text):
    (tmp_path / "note").write_text(text)
    return ["--complete", "--note", tmp_path / "note"]


def test_a_complete_copy_with_a_countersigned_head_goes_on(town, alder, tmp_path):
    home = start(town, tmp_path, *with_note(tmp_path, note_of(town, alder)))
    assert "goes on as it stood" in run("restore", "sign", statement_file(home), *sealed_key(town, tmp_path, 0))
    run("restore", "sign", statement_file(home), *sealed_key(town, tmp_path, 1))
    found = json.loads(run("restore", "finish", "--home", home.root, "--json"))
    assert found["exhausted"] is False and found["key"] == town.key("alder")
    with Ledger.open(home.ledger_file, unlock(home).identity) as ledger:
        assert not ledger.state().exhausted
        data = ledger.entry(ledger.state().size - 1).body.data
        assert data.statement.complete and data.note == (tmp_path / "note").read_text()
    assert verify(home.ledger_file, town.key("alder")).valid


def test_a_head_from_before_its_witnesses_were_written_down(town, alder, tmp_path):
    text = note_of(town, alder)
    head = head_of(alder)
    with town.ledger() as ledger:
        ledger.witnessed(head.size, head.root, ["the coordinator"])
    home = start(town, tmp_path, *with_note(tmp_path, text))
    sign_both(town, tmp_path, home)
    assert json.loads(run("restore", "finish", "--home", home.root, "--json"))["exhausted"] is False


def test_notes_that_show_nothing(town, alder, tmp_path):
    old = note_of(town, alder)
    with town.ledger() as ledger:
        ledger.refuse("CSL-P201", "x", "later")
    run("backup", tmp_path / "copy.zip", "--home", alder.root)
    head = head_of(alder)
    stranger = Ed25519PrivateKey.generate()
    cases = {
        "an older head": (old, "CSL-C753"),
        "no witness": (note_of(town, alder, witnesses=False), "CSL-C753"),
        "a longer ledger": (note_of(town, alder, size=head.size + 1), "CSL-C753"),
        "another history": (note_of(town, alder, root="0" * 64), "CSL-C753"),
        "another generation": (note_of(town, alder, generation=1), "CSL-C753"),
        "another key": (note_of(town, alder, key=stranger), "CSL-F613"),
        "no note": ("nothing", "CSL-F611"),
    }
    for name, (text, code) in cases.items():
        options = with_note(tmp_path, text)
        error = refused(
            code, run, "restore", "begin", tmp_path / "copy.zip", "--home", tmp_path / "new", "--reason", name, *options
        )
        assert error.action and not (tmp_path / "new").exists(), name
    arguments = ["restore", "begin", tmp_path / "copy.zip", "--home", tmp_path / "new", "--reason", "x"]
    refused("CSL-C761", run, *arguments, "--complete")
    refused("CSL-C761", run, *arguments, *with_note(tmp_path, old)[1:])
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_does_not_begin(town, alder, tmp_path):
    run("backup", tmp_path / "copy", "--home", alder.root)
    arguments = ["restore", "begin", tmp_path / "copy", "--reason", "The disk failed", "--home"]
    refused("CSL-C740", run, *arguments, alder.root)
    refused("CSL-C760", run, "restore", "begin", tmp_path / "copy", "--home", tmp_path / "new", "--reason", " ")
    refused("CSL-C760", run, "restore", "begin", tmp_path / "copy", "--home", tmp_path / "new", "--reason", "x" * 301)
    refused("CSL-C741", run, *arguments, tmp_path / "none" / "new")

    def denied(_):
        raise StorageError("CSL-C999", "no", "no")

    refused("CSL-C999", begin, tmp_path / "copy", tmp_path / "new", "why", allowed=denied)
    assert not (tmp_path / "new").exists()


def test_a_backup_whose_ledger_was_changed_is_refused_whatever_its_manifest_says(town, alder, tmp_path):
    """Digests find accidents; signatures find whoever writes a manifest of his own."""
    copy = tmp_path / "copy"
    manifest = write_backup(alder, copy, "now")
    older = manifest.model_copy(update={"size": manifest.size - 1})
    (copy / MANIFEST).write_bytes(older.canonical())
    refused("CSL-C750", begin, copy, tmp_path / "new", "why", allowed=print)
    content = bytearray((copy / "ledger.sqlite").read_bytes())
    place = content.index(b'"study":"propensity"')
    content[place + 10 : place + 12] = b"XX"
    (copy / "ledger.sqlite").write_bytes(content)
    files = tuple(
        item.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
        if item.path == "ledger.sqlite"
        else item
        for item in manifest.files
    )
    (copy / MANIFEST).write_bytes(manifest.model_copy(update={"files": files}).canonical())
    refused("CSL-C750", begin, copy, tmp_path / "new", "why", allowed=print)
    assert not (tmp_path / "new").exists()


def test_signatures_of_strangers_and_of_other_statements(town, tmp_path):
    home = start(town, tmp_path)
    stranger = tmp_path / "stranger.key"
    (tmp_path / "pass").write_text("four plain words here")
    (tmp_path / "pass").chmod(0o600)
    create_identity(stranger, use="officer", passphrase=b"four plain words here")
    run("restore", "sign", statement_file(home), *sealed_key(town, tmp_path, 0))
    run("restore", "sign", statement_file(home), "--key", stranger, "--passphrase-file", tmp_path / "pass")
    refused("CSL-P314", run, "restore", "finish", "--home", home.root)
    content = statement_file(home).read_text().replace('"complete":false', '"complete":true')
    statement_file(home).write_text(content)
    refused("CSL-C756", run, "restore", "sign", statement_file(home), *sealed_key(town, tmp_path, 1))
    refused("CSL-C756", run, "restore", "finish", "--home", home.root)
    refused("CSL-C755", run, "restore", "sign", home.policy_file, *sealed_key(town, tmp_path, 1))
    refused("CSL-C754", run, "restore", "sign", home.root / "none", *sealed_key(town, tmp_path, 1))
    assert home.lock_file.exists()


def test_an_institution_with_one_officer_cannot_restore(tmp_path, town, alder):
    policy = json.loads(alder.policy_file.read_text())
    town.change(officers=policy["officers"][:1], approval={"eyes": 1})
    run("backup", tmp_path / "copy", "--home", alder.root)
    refused(
        "CSL-C751",
        run,
        "restore",
        "begin",
        tmp_path / "copy",
        "--home",
        tmp_path / "new",
        "--reason",
        "The disk failed",
    )


# Rotation


def test_the_key_is_changed_and_the_old_one_destroyed(town, alder, tmp_path):
    old = read_public(alder.identity_key)
    secret = json.loads(alder.identity_key.read_bytes())["secret"]
    assert old in refused("CSL-C762", run, "rotate", "--reason", "Yearly", "--home", alder.root).cause
    upcoming = json.loads(run("rotate", "--prepare", "--home", alder.root, "--json"))["next"]
    assert run("rotate", "--prepare", "--home", alder.root).count(upcoming) == 1
    assert read_public(alder.identity_key) == old
    text = run("rotate", "--reason", "Yearly", "--home", alder.root)
    assert f"New public key: {upcoming}" in text
    assert upcoming in refused("CSL-C762", run, "rotate", "--reason", "Yearly", "--home", alder.root).cause
    assert read_public(alder.identity_key) == upcoming != old
    assert listing(alder.root / "keys") == ["holdout.key", "identity.key", "node.key", "runtime.secret", "store.key"]
    assert all(secret.encode() not in path.read_bytes() for path in alder.root.rglob("*") if path.is_file())
    with town.ledger() as ledger:
        ledger.refuse("CSL-P201", "x", "the new key writes")
    assert verify(alder.ledger_file, upcoming).valid and verify(alder.ledger_file, old).valid
    refused("CSL-C505", town.vault)  # until the charter names the new key
    home = start(town, tmp_path)
    sign_both(town, tmp_path, home)
    run("restore", "finish", "--home", home.root)


def test_a_rotation_that_was_interrupted_is_finished_by_the_same_command(town, alder, tmp_path, monkeypatch):
    old = read_public(alder.identity_key)
    upcoming = rotation.prepare(alder, PLAIN)
    monkeypatch.setattr(rotation.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    refused("CSL-C759", run, "rotate", "--reason", "Yearly", "--home", alder.root)
    monkeypatch.undo()
    with LedgerReader.read(alder.ledger_file, upcoming) as reader:
        size = reader.state().size
    refused("CSL-C743", write_backup, alder, tmp_path / "copy", "now")
    refused("CSL-P607", town.ledger)
    found = json.loads(run("rotate", "--reason", "Yearly", "--home", alder.root, "--json"))
    assert found == {"old": old, "new": upcoming} and read_public(alder.identity_key) == upcoming
    assert head_of(alder).size == size and not rotation.next_key_file(alder).exists()


def test_a_rotation_needs_a_reason_and_the_right_passphrase(tmp_path):
    home = Home(tmp_path / "home")
    install(home, "alder", b"a long passphrase")
    before = head_of(home)
    opener = Opener(b"a long passphrase", False)
    rotation.prepare(home, opener)
    refused("CSL-P507", rotation.rotate, home, Opener(b"a wrong passphrase", False), "why")
    refused("CSL-P507", rotation.prepare, home, Opener(b"a wrong passphrase", False))
    refused("CSL-P503", rotation.rotate, home, PLAIN, "why")
    assert head_of(home) == before
    done = rotation.rotate(home, opener, "why")
    assert public_hex(load_identity(home.identity_key, passphrase=b"a long passphrase")) == done.new


def test_a_reason_is_asked_for(alder):
    refused("CSL-C760", run, "rotate", "--home", alder.root)
