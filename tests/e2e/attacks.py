"""What a hostile coordinator sends: messages that a vault must refuse, each with the code that its ledger must give for it."""

import json
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from safetensors.numpy import load

from federation.encoding import canonical
from federation.messages import RECORD, Offer, Refusal, dump_tensors, pack
from federation.signing import sign, sign_bytes
from federation.study import CONTEXT, PositionHoldout, StudySpec, Training
from privacy.keys import load_identity
from privacy.ledger import LedgerReader
from tests.e2e.deployed import Deployed
from tests.e2e.hostile import FIELDS, HostileCoordinator, Run, fields_of, figures

TRAITOR = "cedar"
LARGE = 24 << 20


@dataclass
class Siege:
    """Two vaults, the attacker before them, and the studies that it had with them while it behaved."""

    federation: Deployed
    hostile: HostileCoordinator
    run: Run
    ports: dict[str, int]
    old: StudySpec
    live: StudySpec
    played: list[tuple[str, RecordDict, dict[str, Message]]] = field(default_factory=list)

    @property
    def town(self):
        return self.federation.town

    def play(self, kind: str, records: RecordDict) -> dict[str, Message]:
        replies = self.hostile.ask(self.run, kind, records)
        self.played.append((kind, records, replies))
        for member, reply in replies.items():
            assert fields_of(reply) != self.refusal(member), f"{member} refused {kind}"
        return replies

    def refusal(self, member: str) -> tuple[bytes, ...]:
        """What every refusal of a member must be, to the last byte."""
        key = load_identity(self.town.homes[member].identity_key, allow_plain=True)
        record = pack(key, Refusal(member=member))[RECORD]
        return tuple(bytes(record[name]) for name in FIELDS)

    def refusals(self, member: str) -> Counter[str]:
        """Refusals by code, as the institution's own monitoring counts them."""
        prefix = 'consilience_vault_refusals_total{code="'
        found = figures(self.ports[member]).items()
        return Counter({name[len(prefix) :].rstrip('"}'): int(n) for name, n in found if name.startswith(prefix)})

    def budget(self, member: str) -> dict[str, object]:
        """All that the ledger holds of charges, and how many releases there were."""
        home = self.town.homes[member]
        with LedgerReader.read(home.ledger_file, self.town.key(member)) as reader:
            state = reader.state()
        kinds = Counter(self.federation.kinds(member))
        return {"training": state.training, "holdout": state.holdout, "n": (kinds["reserve"], kinds["release"])}


@dataclass(frozen=True)
class Attack:
    """A message, the code that the ledger must give for it, and what the ledger says it was about (its type, unless told)."""

    code: str
    kind: str
    records: Callable[[Siege], RecordDict]
    about: str | None = None


def record(header: object, signature: object = b"0" * 64, payload: object = b"", **more: object) -> RecordDict:
    return RecordDict({RECORD: ConfigRecord({"header": header, "signature": signature, "payload": payload, **more})})


def signed(key: Ed25519PrivateKey, kind: str, header: bytes, payload: bytes = b"") -> RecordDict:
    """A message whose header none of our own documents would make."""
    return record(header, bytes.fromhex(sign_bytes(key, f"csl1/{kind}", header).value), payload)


def changed(records: RecordDict, **changes: object) -> RecordDict:
    """A message that was altered on its way."""
    return RecordDict({RECORD: ConfigRecord({**records[RECORD], **changes})})


def train(siege: Siege, number: int = 2, **changes: object) -> RecordDict:
    """An honest request for the next round, its header changed and signed again."""
    honest = siege.town.train(siege.live, number if number else 1)[RECORD]
    header = json.loads(bytes(honest["header"])) | changes
    if not number:
        header["round"] = 0
    return signed(siege.town.coordinator, "train", canonical(header), bytes(honest["payload"]))


def weights(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Siege], RecordDict]:
    """A request with weights that are changed by `change`, which returns all of them or alters them in place."""

    def build(siege: Siege) -> RecordDict:
        tensors = {name: tensor.copy() for name, tensor in load(siege.town.weights(siege.live)).items()}
        other = change(tensors)
        return siege.town.train(siege.live, 2, dump_tensors(other if isinstance(other, dict) else tensors))

    return build


def payload(content: bytes) -> Callable[[Siege], RecordDict]:
    return lambda siege: siege.town.train(siege.live, 2, content)


def filled(value: float) -> Callable[[Siege], RecordDict]:
    return weights(lambda tensors: [tensor.fill(value) for tensor in tensors.values()])


def altered_offer(siege: Siege, spec: StudySpec) -> RecordDict:
    """Another study than the one that was signed, in an offer that is signed well."""
    key = siege.town.coordinator
    return pack(key, Offer(spec=spec, spec_signature=sign(key, CONTEXT, siege.live)))


def offered(code: str, **changes: object) -> Attack:
    """A study that is signed well, and that no policy or charter allows."""
    name = f"bad_{'_'.join(changes)}"
    return Attack(code, "query.offer", lambda siege: siege.town.offer(siege.town.spec(name=name, **changes)), name)


def offered_spec(code: str, name: str, **changes: object) -> Attack:
    def build(siege: Siege) -> RecordDict:
        return siege.town.offer(siege.town.spec(name=name).model_copy(update=changes))

    return Attack(code, "query.offer", build, name)


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path(self.path),))


def bomb(siege: Siege) -> bytes:
    return pickle.dumps(Bomb(str(siege.federation.root / "exploded")))


def traitor(siege: Siege) -> Ed25519PrivateKey:
    return load_identity(siege.town.homes[TRAITOR].identity_key, allow_plain=True)


def by_traitor(siege: Siege) -> RecordDict:
    honest = siege.town.train(siege.live, 2)[RECORD]
    return signed(traitor(siege), "train", bytes(honest["header"]), bytes(honest["payload"]))


TYPES = [
    Attack("CSL-C510", kind, lambda siege: siege.town.train(siege.live, 2))
    for kind in ("train.default", "train.round", "evaluate.default", "query", "query.Hello", "system", "system.stop")
] + [Attack("CSL-C510", kind, lambda siege: siege.town.hello()) for kind in ("reconnect", "get_parameters")]
STUDIES = [
    Attack("CSL-F202", "query.offer", lambda s: altered_offer(s, s.town.spec(name="live", title="Another"))),
    Attack("CSL-F202", "query.offer", lambda s: altered_offer(s, s.live.model_copy(update={"nonce": "f" * 32}))),
    offered_spec("CSL-C506", "other_charter", charter="0" * 64),
    offered_spec("CSL-C506", "other_federation", federation="elsewhere"),
    offered_spec("CSL-C507", "other_contract", contract_digest="0" * 64),
    offered("CSL-P204", epsilon=0.31),
    offered("CSL-P201", purpose="credit.scoring"),
    offered("CSL-P208", holdout=PositionHoldout(kind="position", position=1)),
    offered("CSL-P108", training=Training(mode="fedsgd", rounds=3, steps=3, sampling_rate=1e-9)),
    Attack("CSL-F202", "query.offer", lambda s: s.town.offer(s.town.spec(name="stranger"), traitor(s))),
]
WEIGHTS = [
    Attack("CSL-F207", "train", filled(np.nan)),
    Attack("CSL-F207", "train", filled(-np.inf)),
    Attack("CSL-C514", "train", filled(1.5e6)),
    Attack("CSL-C514", "train", filled(3e38)),
    Attack("CSL-F206", "train", weights(lambda tensors: {name: t[..., :-1] for name, t in tensors.items()})),
    Attack("CSL-F206", "train", weights(lambda tensors: {name: t.astype(np.float64) for name, t in tensors.items()})),
    Attack("CSL-F206", "train", weights(lambda tensors: tensors | {"more": np.zeros(1, np.float32)})),
    Attack("CSL-F206", "train", weights(lambda tensors: dict(list(tensors.items())[1:]))),
    Attack("CSL-F206", "train", weights(lambda _: {"linear.weight": np.zeros(LARGE // 4, np.float32)})),
    Attack("CSL-F205", "train", payload(b"")),
    Attack("CSL-F205", "train", payload(b"\xff" * LARGE)),
    Attack("CSL-F205", "train", lambda s: s.town.train(s.live, 2, bomb(s))),
]
MESSAGES = [
    Attack("CSL-F102", "train", lambda s: train(s, clip=1e-43)),
    Attack("CSL-F102", "train", lambda s: train(s, sigma=0.0)),
    Attack("CSL-F102", "train", lambda s: train(s, 0)),
    Attack("CSL-C512", "train", lambda s: train(s, 99)),
    Attack("CSL-F102", "query.hello", lambda s: signed(s.town.coordinator, "hello", b'{"kind": "hello"}')),
    Attack("CSL-F202", "evaluate", lambda s: s.town.train(s.live, 2)),
    Attack("CSL-F209", "train", lambda s: changed(s.town.train(s.live, 2), payload=s.town.weights(s.live, 0.5))),
    Attack("CSL-F202", "train", lambda s: changed(train(s), header=bytes(train(s, momentum=0.5)[RECORD]["header"]))),
    Attack("CSL-F202", "train", lambda s: changed(train(s), signature=bytes(64))),
    Attack("CSL-F208", "query.head", lambda s: record(b"{}", b"0" * 63)),
    Attack("CSL-F208", "query.cosign", lambda s: record("text", 1.5, [1, 2])),
    Attack("CSL-F208", "query.hello", lambda s: record(b" " * (2 << 20))),
    Attack("CSL-F208", "query.hello", lambda s: changed(s.town.hello(), home="/etc", extra=[1.0])),
    Attack("CSL-F208", "train", lambda s: RecordDict({**train(s), "more": MetricRecord({"epsilon": 99.0})})),
    Attack("CSL-F208", "query.model", lambda s: RecordDict({"config": s.town.hello()[RECORD]})),
    Attack("CSL-F208", "evaluate", lambda s: RecordDict({RECORD: ArrayRecord({"x": pickled(s)})})),
    Attack("CSL-F208", "query.receipts", lambda s: RecordDict()),
    Attack("CSL-F202", "train", by_traitor),
]
OLD_STUDIES = [
    Attack("CSL-C524", "train", lambda s: s.town.train(s.old, 2)),
    Attack("CSL-C516", "train", lambda s: s.town.train(s.old, 1, s.town.weights(s.old, 0.2))),
    Attack("CSL-C516", "train", lambda s: s.town.train(s.live, 1, learning_rate=0.2)),
    Attack("CSL-C516", "evaluate", lambda s: s.town.evaluate(s.old, tuple(np.linspace(-1, 1, 11)))),
    Attack("CSL-C513", "evaluate", lambda s: s.town.evaluate(s.live, tuple(np.linspace(1, -1, 11)))),
    Attack("CSL-C526", "query.model", lambda s: s.town.model(s.old, s.town.weights(s.old, 0.3))),
    Attack("CSL-C511", "query.receipts", lambda s: s.town.receipts(s.town.spec(name="never"), b"")),
]


def pickled(siege: Siege) -> Array:
    return Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=bomb(siege))
