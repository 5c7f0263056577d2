"""A federation of fake vaults: real keys, real messages, deterministic answers."""

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.home import Home
from client.witness import Witness
from federation.charter import Charter, Declaration, Member, PinnedContract
from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from federation.encoding import sha256_hex
from federation.errors import ConsilienceError
from federation.messages import (
    Acknowledged,
    EvaluateRelease,
    EvaluateRequest,
    Grant,
    Hello,
    Identity,
    ModelDelivery,
    ModelReceipt,
    Offer,
    Receipts,
    Refusal,
    TrainRelease,
    TrainRequest,
    dump_tensors,
    load_tensors,
    pack,
    unpack,
)
from federation.signing import public_hex
from federation.study import HashHoldout, LogisticModel, StudyDraft, StudySpec, Training
from server.coordinator import Derive
from server.events import Event
from server.office import Office
from simulations.local_grid import Fault, LocalGrid
from tests.logs import FakeLog

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

SIZES = {"alpha": 1000, "beta": 2000, "gamma": 3000, "delta": 1500}
ROUNDS = 4
ENTRIES = 6
TIME = 1_800_000_000
Edit = Callable[["FakeVault", RecordDict, RecordDict], RecordDict]


def key_of(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def contract() -> FeatureContract:
    return FeatureContract(
        name="shoppers",
        version=1,
        title="Shoppers",
        source="table",
        columns=(
            NumericColumn(
                kind="numeric",
                name="age",
                meaning="Age",
                unit="years",
                low=18.0,
                high=90.0,
                knots=(18.0, 40.0, 60.0, 90.0),
            ),
            NumericColumn(
                kind="numeric",
                name="spent",
                meaning="Money",
                unit="euro",
                low=0.0,
                high=100.0,
                knots=(0.0, 10.0, 100.0),
            ),
            CategoricalColumn(kind="categorical", name="job", meaning="Job", categories=("clerk", "nurse", "cook")),
            FlagColumn(kind="flag", name="member", meaning="Is a member"),
        ),
        label=Label(name="bought", meaning="Bought"),
    )


def draft(**changes: object) -> StudyDraft:
    values: dict[str, object] = {
        "name": "spring",
        "title": "Who buys in spring",
        "purpose": "marketing.propensity",
        "contract": "shoppers",
        "model": LogisticModel(kind="logistic"),
        "holdout": HashHoldout(kind="hash", share=0.2),
        "min_partners": 3,
        "deadline_seconds": 20.0,
        "intended_use": "Order customers by their interest.",
        "limits": "Not for credit decisions.",
    }
    return StudyDraft(**{**values, **changes})  # type: ignore[arg-type]


def short(rounds: int = ROUNDS) -> Derive:
    """Plan few rounds, of which the first two are probes, with a draw of one half."""

    def derive(draft: StudyDraft, sizes: Mapping[str, int], contract: FeatureContract) -> Training:
        return Training(
            mode=draft.mode, rounds=rounds, steps=rounds, sampling_rate=0.5, server_optimizer=draft.server_optimizer
        )

    return derive


@dataclass
class FakeVault:
    """Answers like a vault, from a hash instead of data; `edits` change an answer by message type, `work` counts what was computed."""

    member: str
    charter: Charter
    size: int
    edits: dict[str, Edit] = field(default_factory=dict)
    work: list[str] = field(default_factory=list)
    kept: dict[bytes, RecordDict] = field(default_factory=dict)
    seen: list[Receipts] = field(default_factory=list)
    mode: str = "fedsgd"
    lock: threading.Lock = field(default_factory=threading.Lock)
    home: Path | None = None
    log: FakeLog = field(init=False)
    witness: Witness | None = None

    def __post_init__(self) -> None:
        self.log = FakeLog(self.member, (public_hex(self.key),))
        self.log.write(ENTRIES)
        self.open()

    def open(self) -> None:
        """Start the vault anew, on the ledger that it has."""
        self.kept.clear()
        if self.home is not None:
            self.witness = Witness(Home(self.home), self.log, self.charter, self.key, self.member, lambda: TIME)

    @property
    def key(self) -> Ed25519PrivateKey:
        return key_of(self.member)

    def app(self) -> ClientApp:
        app = ClientApp()

        def answer(message: Message, context: Context) -> Message:
            return Message(self.answer(message.metadata.message_type, message.content), reply_to=message)

        app.query("hello")(answer)
        app.query("offer")(answer)
        app.query("model")(answer)
        app.query("receipts")(answer)
        app.query("head")(answer)
        app.query("cosign")(answer)
        app.query("cosigned")(answer)
        app.train()(answer)
        app.evaluate()(answer)
        return app

    def answer(self, kind: str, request: RecordDict) -> RecordDict:
        with self.lock:
            header = bytes(request["consilience"]["header"])
            if header not in self.kept:
                self.work.append(kind)
                self.kept[header] = self._computed(kind, request)
            reply = self.kept[header]
        return self.edits[kind](self, request, reply) if kind in self.edits else reply

    def _computed(self, kind: str, request: RecordDict) -> RecordDict:
        try:
            return getattr(self, f"_{kind.removeprefix('query.')}")(request)
        except ConsilienceError:
            return pack(self.key, Refusal(member=self.member))

    def _head(self, request: RecordDict) -> RecordDict:
        return self.witness.head(request)

    def _cosign(self, request: RecordDict) -> RecordDict:
        return self.witness.cosign(request)

    def _cosigned(self, request: RecordDict) -> RecordDict:
        return self.witness.keep(request)

    def _hello(self, request: RecordDict) -> RecordDict:
        hello, _ = unpack(request, Hello, self.charter.coordinator_key)
        if self.witness is not None:
            self.witness.compare(hello.note)
        return pack(self.key, Identity(member=self.member, charter=hello.charter, nonce=hello.nonce))

    def _offer(self, request: RecordDict) -> RecordDict:
        offer, _ = unpack(request, Offer, self.charter.coordinator_key)
        self.mode = offer.spec.training.mode
        return pack(self.key, self.grant(offer.spec))

    def grant(self, spec: StudySpec, **changes: object) -> Grant:
        values: dict[str, object] = {
            "study": spec.digest(),
            "member": self.member,
            "declared_size": self.size,
            "epsilon": 1.0,
            "delta": 1.0 / (100 * self.size),
            "noise_multiplier": 1.0 + self.size / 1000,
            "sampling_rate": spec.training.sampling_rate,
            "steps": spec.training.steps,
            "histogram_sigma": 2.0,
        }
        return Grant(**{**values, **changes})  # type: ignore[arg-type]

    def _train(self, request: RecordDict) -> RecordDict:
        header, payload = unpack(request, TrainRequest, self.charter.coordinator_key)
        release = self.gradient(header.round, load_tensors(payload))
        if self.mode == "fedavg":
            release = {name: value / np.float32(-self.size) for name, value in release.items()}
        content = dump_tensors(release)
        return pack(
            self.key,
            TrainRelease(study=header.study, member=self.member, round=header.round, payload=sha256_hex(content)),
            content,
        )

    def gradient(self, number: int, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Sum over half of `size` customers of the gradient of |w - target|^2 / 40, plus something that looks like noise."""
        result = {}
        for name, value in weights.items():
            noise = _hashed(f"{self.member}/{number}/{name}", value.shape)
            result[name] = (self.size / 40 * (value - _hashed(f"target/{name}", value.shape)) + 3 * noise).astype(
                np.float32
            )
        return result

    def _evaluate(self, request: RecordDict) -> RecordDict:
        header, _ = unpack(request, EvaluateRequest, self.charter.coordinator_key)
        content = dump_tensors({"counts": self.counts(len(header.edges) + 1)})
        return pack(
            self.key, EvaluateRelease(study=header.study, member=self.member, payload=sha256_hex(content)), content
        )

    def counts(self, bins: int) -> np.ndarray:
        place = np.arange(bins)
        no, yes = self.size // 8 * (bins - place), self.size // 16 * (place + 1)
        return np.stack([no, yes]).astype(np.int64)

    def _model(self, request: RecordDict) -> RecordDict:
        header, payload = unpack(request, ModelDelivery, self.charter.coordinator_key)
        return pack(
            self.key, ModelReceipt(study=header.study, member=self.member, card=header.card, model=sha256_hex(payload))
        )

    def _receipts(self, request: RecordDict) -> RecordDict:
        header, _ = unpack(request, Receipts, self.charter.coordinator_key)
        self.seen.append(header)
        return pack(self.key, Acknowledged(study=header.study, member=self.member))


def refuse(vault: FakeVault, request: RecordDict, reply: RecordDict) -> RecordDict:
    return pack(vault.key, Refusal(member=vault.member))


def _hashed(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1) that look random and are always the same."""
    count = int(np.prod(shape, dtype=int))
    content = hashlib.shake_256(text.encode()).digest(4 * count)
    return (np.frombuffer(content, dtype="<u4") / 2**31 - 1.0).reshape(shape)


@dataclass
class FakeFederation:
    """Fake vaults under one charter, with the coordinator's office in `folder`."""

    folder: Path
    charter: Charter
    contract: FeatureContract
    vaults: dict[str, FakeVault]
    events: list[Event] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, sizes: Mapping[str, int] | None = None) -> "FakeFederation":
        sizes = sizes or SIZES
        agreed = contract()
        members = tuple(
            Member(
                id=name,
                title=name.title(),
                key=public_hex(key_of(name)),
                declares=(
                    Declaration(
                        contract="shoppers", size=size, as_of=date(2026, 1, 1), window_days=90, horizon_days=30
                    ),
                ),
            )
            for name, size in sorted(sizes.items())
        )
        charter = Charter(
            federation="test",
            version=1,
            coordinator_key=public_hex(key_of("coordinator")),
            members=members,
            contracts=(PinnedContract(name="shoppers", sha256=agreed.digest()),),
        )
        return cls(
            folder,
            charter,
            agreed,
            {name: FakeVault(name, charter, size, home=folder / "homes" / name) for name, size in sizes.items()},
        )

    @property
    def office(self) -> Office:
        return Office(
            self.charter,
            self.contract,
            key_of("coordinator"),
            self.folder / "checkpoints",
            self.folder / "registry",
            self.folder / "witness",
        )

    def node(self, member: str) -> int:
        return 100 + sorted(self.vaults).index(member)

    def grid(self, faults: Mapping[str, tuple[Fault, ...]] | None = None) -> LocalGrid:
        nodes = {self.node(name): (vault.app(), {}) for name, vault in self.vaults.items()}
        by_node = {self.node(name): value for name, value in (faults or {}).items()}
        return LocalGrid(nodes, faults=by_node, workers=2)

    def happened(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]
