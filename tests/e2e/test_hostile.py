"""A hostile coordinator, and a hostile member, against vaults of real processes: everything is refused alike, and the data stay."""

import json
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict
from safetensors.numpy import load

from federation.encoding import sha256_hex
from federation.errors import FederationError
from federation.messages import RECORD, Acknowledged, Identity, TrainRelease, unpack
from privacy.ledger import verify
from privacy.ledger.refusals import RefusalsData
from tests.client.entries import decision
from tests.e2e.attacks import MESSAGES, OLD_STUDIES, STUDIES, TYPES, WEIGHTS, Attack, Siege, bomb, filled, train
from tests.e2e.deployed import deployed, free_port, wait_for
from tests.e2e.hostile import (
    WORD,
    HostileCoordinator,
    Piece,
    fields_of,
    holding,
    resident,
    scrape,
    shadowing_bundle,
    spoil,
)

pytestmark = pytest.mark.e2e
VICTIMS = ("alder", "birch")
FLOOD_SECONDS = 4.0
LEAST = 100
MOST_AN_HOUR = 60


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    with deployed(tmp_path_factory.mktemp("siege"), epsilon=0.3) as federation:
        spoil(federation)
        ports = {member: free_port() for member in VICTIMS}
        hostile = HostileCoordinator(federation, VICTIMS)
        try:
            for member, port in ports.items():
                federation.serve(member, metrics_port=port)
                federation.start(member)
            hostile.open()
            for member in VICTIMS:
                federation.wait_up(member)
            hostile.wait_online()
            town = federation.town
            old, live = town.spec(name="old"), town.spec(name="live")
            found = Siege(federation, hostile, hostile.run(), ports, old, live)
            behave(found)
            yield found
        finally:
            hostile.close()


def behave(siege: Siege) -> None:
    """Have one study from the offer to its end, and another to its first round."""
    town, old, live = siege.town, siege.old, siege.live
    model = town.weights(old, 0.1)
    siege.play("query.hello", town.hello())
    siege.play("query.offer", town.offer(old))
    siege.play("train", town.train(old, 1))
    siege.play("evaluate", town.evaluate(old))
    siege.play("query.model", town.model(old, model))
    siege.play("query.receipts", town.receipts(old, model))
    siege.play("query.offer", town.offer(live))
    siege.play("train", town.train(live, 1))


@pytest.mark.parametrize("attacks", [TYPES, STUDIES, WEIGHTS, MESSAGES, OLD_STUDIES])
def test_every_refusal_is_the_same_and_the_ledger_tells_them_apart(siege, attacks):
    before = {member: (siege.refusals(member), siege.budget(member)) for member in VICTIMS}
    sent: list[tuple[str, Attack, str]] = []
    for attack in attacks:
        content = attack.records(siege)
        messages = [siege.hostile.message(siege.run, member, attack.kind, content) for member in VICTIMS]
        names = siege.hostile.push(siege.run, messages)
        sent += [(member, attack, name) for member, name in zip(VICTIMS, names, strict=True)]
    replies = siege.hostile.pull(siege.run, [name for _, _, name in sent])
    for member, attack, name in sent:
        assert name in replies, f"{member} did not answer {attack}"
        assert fields_of(replies[name]) == siege.refusal(member), attack
    for member in VICTIMS:
        refusals, budget = before[member]
        assert siege.refusals(member) - refusals == Counter(attack.code for attack in attacks)
        told = {(entry.data.code, entry.data.study) for entry in siege.federation.entries(member, "refuse")}
        assert {(attack.code, attack.about or attack.kind) for attack in attacks} <= told
        assert siege.budget(member) == budget
    assert not (siege.federation.root / "exploded").exists()


def test_the_link_itself_lets_no_type_through_that_flower_does_not_know(siege):
    for kind in ("steal.data", "", "query.a.b", "query.not an identifier"):
        with pytest.raises(Exception, match="50[0-9]|40[0-9]"):
            siege.hostile.ask(siege.run, kind, siege.town.hello())


def test_what_is_no_message_is_refused_like_one_and_the_vault_goes_on(siege):
    head = siege.hostile.message(siege.run, "alder", "train", RecordDict())
    body = head.deflate().split(b"\0", 1)[1]
    config = Piece("ConfigRecord", siege.town.hello()[RECORD].deflate().split(b"\0", 1)[1])
    deep = config
    for _ in range(40):
        deep = Piece("RecordDict", b"{}", (deep,))
    garbage = [
        Piece("Message", b"\xff\xff garbage"),
        Piece("Message", body),
        Piece("ArrayChunk", b"no message"),
        Piece("Message", body, (config,)),
        Piece("Message", body, (Piece("RecordDict", b"\x80\x04no json"),)),
        Piece("Message", body, (Piece("RecordDict", bomb(siege)),)),
        Piece("Message", body, (Piece("RecordDict", json.dumps({RECORD: "0" * 64}).encode(), (config,)),)),
        Piece("Message", body, (Piece("RecordDict", b"{}", (Piece("ConfigRecord", b"\xff\xff\xff\xff"),)),)),
        Piece("Message", body, (deep,)),
    ]
    before = siege.refusals("alder")
    messages = [siege.hostile.message(siege.run, "alder", "train", RecordDict()) for _ in garbage]
    names = [siege.hostile.push_pieces(siege.run, head, piece) for head, piece in zip(messages, garbage, strict=True)]
    replies = siege.hostile.pull(siege.run, names)
    assert [fields_of(replies[name]) == siege.refusal("alder") for name in names] == [True] * len(garbage)
    assert siege.refusals("alder") - before == Counter({"CSL-F208": len(garbage)})
    assert siege.federation.state("alder")["vault"]["restarts"] == 0
    assert not (siege.federation.root / "exploded").exists()


def test_the_same_message_again_gets_the_same_bytes_and_costs_nothing(siege):
    before = {member: (siege.budget(member), siege.federation.kinds(member)) for member in VICTIMS}
    assert {kind for kind, *_ in siege.played} >= {"query.offer", "train", "evaluate", "query.model", "query.receipts"}
    for kind, content, first in siege.played:
        again = siege.hostile.ask(siege.run, kind, content)
        for member in VICTIMS:
            assert fields_of(again[member]) == fields_of(first[member]), kind
    for member, (budget, kinds) in before.items():
        assert siege.budget(member) == budget
        assert siege.federation.kinds(member) == kinds


def test_weights_next_to_nothing_are_answered_by_numbers_as_noisy_as_any(siege):
    """Denormal numbers are within the bounds: what is released for them is on the grid of the noise, like all else."""
    replies = siege.play("train", filled(1e-42)(siege))
    for member, reply in replies.items():
        _, content = unpack(reply.content, TrainRelease, siege.town.key(member))
        assert all(np.isfinite(tensor).all() and np.abs(tensor).max() > 0.01 for tensor in load(content).values())


def test_another_app_is_refused_and_nothing_of_it_is_installed_imported_or_run(siege, tmp_path):
    root = siege.federation.root
    trap = root / "sprung"
    bundle = shadowing_bundle(trap, siege.federation.home("alder") / "customers.csv")
    assert springs(bundle, tmp_path, trap), "the trap must work where somebody imports the app"
    before = {member: (siege.refusals(member), siege.budget(member)) for member in VICTIMS}
    run = siege.hostile.run(bundle)
    for kind, content in {"query.hello": siege.town.hello(), "train": train(siege, 3), "system": RecordDict()}.items():
        for member, reply in siege.hostile.ask(run, kind, content).items():
            assert fields_of(reply) == siege.refusal(member)
    digest = sha256_hex(bundle)
    for member in VICTIMS:
        refusals, budget = before[member]
        assert siege.refusals(member) - refusals == Counter({"CSL-C401": 3})
        assert any(
            digest in e.data.why for e in siege.federation.entries(member, "refuse") if e.data.code == "CSL-C401"
        )
        assert siege.budget(member) == budget
        home = siege.federation.home(member)
        assert not [
            path for path in home.rglob("*") if path.name in ("apps", "client", "client.py") or ".fab" in path.name
        ]
        assert not holding(b"Not the app that was agreed on", home)
    assert not trap.exists()
    assert holding(b"Not the app that was agreed on", siege.federation.office.run), (
        "the link has it, so that could be seen"
    )


def springs(bundle: bytes, folder: Path, trap: Path) -> bool:
    with zipfile.ZipFile(BytesIO(bundle)) as archive:
        archive.extractall(folder)
    done = subprocess.run([sys.executable, "-c", "import client"], cwd=folder, capture_output=True, check=False)
    sprung = trap.exists() and WORD in done.stdout
    trap.unlink(missing_ok=True)
    return sprung


def test_the_configuration_of_a_run_changes_nothing(siege):
    hello = siege.played[0]
    assert hello[0] == "query.hello"
    for config in ({"home": str(siege.federation.home("birch"))}, {"passphrase-file": "/etc/passwd"}):
        with pytest.raises(FederationError, match="CSL-F332"):
            siege.hostile.run(config=config)
    run = siege.hostile.run(config={"study": "../../keys/identity.key"})
    replies = siege.hostile.ask(run, "query.hello", siege.town.hello())
    for member in VICTIMS:
        unpack(replies[member].content, Identity, siege.town.key(member))
        assert fields_of(replies[member]) == fields_of(hello[2][member])


def test_a_flood_is_answered_at_the_vaults_own_pace_and_summed_up(siege):
    federation, hostile = siege.federation, siege.hostile
    written = {member: len(federation.entries(member, "refuse")) for member in VICTIMS}
    before = {member: siege.refusals(member).total() for member in VICTIMS}
    memory = {member: resident(federation.pid(member, "vault")) for member in VICTIMS}
    run, began, sent = hostile.run(), time.monotonic(), 0
    while time.monotonic() - began < FLOOD_SECONDS or sent < LEAST:
        kinds = [f"query.flood{sent + number}" for number in range(20)]
        hostile.push(run, [hostile.message(run, m, kind, siege.town.hello()) for m in VICTIMS for kind in kinds])
        sent += len(kinds)
    rate = 2 * sent / (time.monotonic() - began)
    enough = {member: before[member] + MOST_AN_HOUR - written[member] + 10 for member in VICTIMS}
    wait_for(lambda: all(siege.refusals(m).total() >= enough[m] for m in VICTIMS), "the flood is counted")
    hostile.control.stop_run(run.run_id)
    seconds = time.monotonic() - began
    for member, reply in hostile.ask(siege.run, "query.hello", siege.town.hello()).items():
        unpack(reply.content, Identity, siege.town.key(member))
    for member in VICTIMS:
        answered = siege.refusals(member).total() - before[member]
        print(f"{member}: sent {sent} ({rate:.0f}/s in all), answered {answered} in {seconds:.1f} s")
        assert answered <= 200 + 20 * seconds + 1
        assert len(federation.entries(member, "refuse")) == MOST_AN_HOUR
        assert answered > MOST_AN_HOUR - written[member]
        growth = resident(federation.pid(member, "vault")) - memory[member]
        print(f"{member}: the vault's memory {memory[member] >> 20} MiB, then {growth / 2**20:+.1f} MiB")
        assert growth < 24 << 20


def test_a_model_that_others_were_not_given_is_acknowledged_alike_and_not_adopted(siege):
    model = siege.town.weights(siege.live, 0.1)
    siege.play("query.model", siege.town.model(siege.live, model))
    replies = siege.play("query.receipts", siege.town.receipts(siege.live, model, others="f" * 64))
    for member, reply in replies.items():
        unpack(reply.content, Acknowledged, siege.town.key(member))
        assert decision(siege.town, siege.live.digest(), member) is None
    assert decision(siege.town, siege.old.digest(), "alder") is not None


def test_in_the_end_the_ledgers_are_whole_and_no_customer_was_seen_anywhere(siege):
    federation, texts = siege.federation, [scrape(port).encode() for port in siege.ports.values()]
    refusals = {member: siege.refusals(member) for member in VICTIMS}
    for member in VICTIMS:
        assert {child["restarts"] for child in federation.state(member).values()} == {0}
        faults = list((federation.home(member) / "studies").glob("*.fault.json"))
        assert bool(faults) == (member == "birch"), "one file could not be read at all, one row could not at the other"
        assert federation.stop(member) == 0
        assert verify(federation.town.homes[member].ledger_file, federation.town.key(member)).valid
        *single, summed = [entry.data for entry in federation.entries(member, "refuse")]
        assert isinstance(summed, RefusalsData) and len(single) == MOST_AN_HOUR
        print(member, dict(refusals[member]), "summed up:", summed.count)
        assert 10 <= summed.count <= refusals[member].total() - MOST_AN_HOUR
        assert {item.code for item in summed.codes} == {"CSL-C510"}
    looked_at = [federation.home(member) / name for member in VICTIMS for name in ("logs", "run")]
    looked_at += [federation.root / f"{member}.out" for member in VICTIMS]
    assert holding(WORD, federation.home("alder") / "customers.csv")
    assert holding(b"refused", *looked_at)
    assert not holding(WORD, federation.office.root, *looked_at)
    assert siege.hostile.returned and not [text for text in (*siege.hostile.returned, *texts) if WORD in text]
