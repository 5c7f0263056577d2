"""The documents beside a pack's ledger: charter, contracts, studies, models' cards, the witnesses' note. Each must fit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from client.evidence.archive import Files
from client.evidence.check import Checked, fault, read_document
from client.evidence.gather import MOST_STUDIES
from client.evidence.manifest import (
    AROUND,
    AROUND_PROOFS,
    CHARTER,
    CONTRACTS,
    EDGES,
    EDGES_PROOFS,
    ENTRIES,
    FIXED,
    MANIFEST,
    MAX_DOCUMENT_BYTES,
    MODELS,
    NOTE,
    POLICIES,
    PROOFS,
    SIGNATURE,
    START,
    STUDIES,
    Manifest,
)
from client.pricing import events_of
from client.statistics.pricing import statistics_events
from client.studies import Opened, OpenStatistics, OpenStudy
from federation.charter import Charter, SealedCharter, open_charter
from federation.contract import FeatureContract
from federation.errors import ConsilienceError, DocumentError, IntegrityError
from federation.heads import Head, open_head
from federation.messages import ModelDelivery
from federation.note import MAX_NOTE_BYTES
from privacy.events import PrivacyEvent
from privacy.ledger import Account
from privacy.ledger.audit import Findings
from privacy.ledger.entries import ReserveData
from privacy.ledger.state import KeySince

_STUDY = re.compile(rf"{STUDIES}/([0-9a-f]{{64}})\.json", re.ASCII)
_MODEL = re.compile(rf"{MODELS}/([0-9a-f]{{64}})\.(card|delivery)\.json", re.ASCII)
_CONTRACT = re.compile(rf"{CONTRACTS}/([a-z][a-z0-9_]{{0,47}})\.json", re.ASCII)
_STATISTICS = b'"kind":"open_statistics"'  # within a text, canonical JSON would escape the quotes
_ASK = "Ask the institution for the pack again, and keep this one as evidence."


class _Loose(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class CardFigure(_Loose):
    """A figure of merit: its value and the interval in which the noise leaves it."""

    value: float | None = None
    noise: tuple[float, float] | None = None


class CardMetrics(_Loose):
    """How good a model is on held-out customers."""

    informative: bool = True
    auc: CardFigure = CardFigure()


class CardParticipant(_Loose):
    """One institution's part in a model."""

    member: str = ""
    title: str = ""
    epsilon: float | None = None
    delta: float | None = None


class Card(_Loose):
    """What a report says of a model's card; the card itself lies in the pack."""

    name: str = ""
    study: str | None = None
    model: str | None = None
    rounds: int | None = None
    protection: str = ""
    participants: tuple[CardParticipant, ...] = ()
    overall: CardMetrics = CardMetrics()


@dataclass(frozen=True)
class Delivered:
    """The digests of a delivered model's card and of its weights."""

    card: str
    model: str


@dataclass
class Papers:
    """The documents that fit: the charter, contracts by name, and by study its file, its model's delivery and card."""

    charter: Charter
    contracts: dict[str, FeatureContract] = field(default_factory=dict)
    studies: dict[str, Opened] = field(default_factory=dict)
    deliveries: dict[str, Delivered] = field(default_factory=dict)
    cards: dict[str, Card] = field(default_factory=dict)
    note: Head | None = None


def check_papers(files: Files, manifest: Manifest, checked: Checked, findings: Findings) -> Papers:
    """Check every document beside the ledger, and that there is no other file.

    Raises
    ------
    ConsilienceError
        When the charter cannot be read: without it nobody's key has a name.
    """
    papers = Papers(charter=_charter(files, manifest))
    _check_names(files, manifest, findings)
    _check_derived(files, checked, findings)
    for name in files.names:
        try:
            _check_file(files, name, checked, papers)
        except ConsilienceError as error:
            findings.add("CSL-C808", None, fault(error), name)
    _check_deliveries(files, papers, findings)
    try:
        papers.note = _note(files, manifest, papers.charter, checked.keys)
    except ConsilienceError as error:
        findings.add("CSL-C808", None, fault(error), NOTE)
    return papers


def _charter(files: Files, manifest: Manifest) -> Charter:
    sealed = read_document(files, CHARTER, SealedCharter, MAX_DOCUMENT_BYTES)
    charter = open_charter(sealed, manifest.charter)
    if charter.federation != manifest.federation:
        raise IntegrityError("CSL-C808", "The charter is another federation's.", _ASK)
    charter.member(manifest.member)
    return charter


def _check_names(files: Files, manifest: Manifest, findings: Findings) -> None:
    """Refuse a pack with a file that nothing asks for, or without one that it must have."""
    needed = {ENTRIES, PROOFS, CHARTER}
    if manifest.first:
        needed |= {START, AROUND, AROUND_PROOFS}
    if manifest.edges:
        needed |= {EDGES, EDGES_PROOFS}
    for name in sorted(needed - set(files.names)):
        findings.add("CSL-C802", None, "The file is missing.", name)
    for name in files.names:
        pattern = any(item.fullmatch(name) for item in (_STUDY, _MODEL, _CONTRACT))
        listed = name in (MANIFEST, SIGNATURE) or name in FIXED or name.startswith(f"{POLICIES}/")
        idle = (name == START and not manifest.first) or (name in (EDGES, EDGES_PROOFS) and not manifest.edges)
        if not (pattern or listed) or idle:
            findings.add("CSL-C802", None, "No pack holds such a file.", name)
    if (AROUND in files.names) != (AROUND_PROOFS in files.names):
        findings.add("CSL-C802", None, "Entries or their proofs are missing.", AROUND)


def _check_derived(files: Files, checked: Checked, findings: Findings) -> None:
    """Compare files that are written from entries with the entries."""
    expected = checked.derived.digests()
    present = {name for name in files.names if name.startswith(f"{POLICIES}/") or name in expected}
    for name in sorted(present | expected.keys()):
        if name not in expected:
            findings.add("CSL-C802", None, "No entry of the pack asks for this file.", name)
        elif name not in present:
            findings.add("CSL-C802", None, "The file is missing.", name)
        elif files.digest(name) != expected[name]:
            findings.add("CSL-C807", None, "It is not what the ledger's entries say.", name)


def _check_file(files: Files, name: str, checked: Checked, papers: Papers) -> None:
    contract, study, model = (pattern.fullmatch(name) for pattern in (_CONTRACT, _STUDY, _MODEL))
    if contract is not None:
        document = read_document(files, name, FeatureContract, MAX_DOCUMENT_BYTES)
        if document.name != contract[1] or document.digest() != papers.charter.contract_digest(contract[1]):
            raise IntegrityError("CSL-C808", "It is not the contract that the charter pins.", _ASK)
        papers.contracts[document.name] = document
    elif study is not None:
        found = _opened(files, name)
        held = checked.audit.facts.reservation(study[1])
        _check_study(found, study[1], None if held is None else held.data)
        if len(papers.studies) < MOST_STUDIES:
            papers.studies[study[1]] = found
    elif model is not None and model[2] == "delivery":
        delivery = read_document(files, name, ModelDelivery, MAX_DOCUMENT_BYTES)
        if delivery.study != model[1] or checked.audit.facts.reservation(model[1]) is None:
            raise IntegrityError("CSL-C808", "It is the delivery of another study's model.", _ASK)
        papers.deliveries[model[1]] = Delivered(delivery.card, delivery.payload)
    elif model is not None:
        _check_card(files, name, model[1], papers)


def _opened(files: Files, name: str) -> Opened:
    """Return a granted study, of training or of statistics: its `kind` says which. Raises DocumentError CSL-C804."""
    if name in files.names and _STATISTICS in files.read(name, MAX_DOCUMENT_BYTES):
        return read_document(files, name, OpenStatistics, MAX_DOCUMENT_BYTES)
    return read_document(files, name, OpenStudy, MAX_DOCUMENT_BYTES)


def _check_study(found: Opened, rid: str, reserved: ReserveData | None) -> None:
    """Refuse a study's file that is not the one that the ledger reserved: spec by digest, grant by its events."""
    draft, grant = found.spec.draft, found.grant
    if found.spec.digest() != rid or grant.study != rid:
        raise IntegrityError("CSL-C808", "It is not the study of this digest.", _ASK)
    if reserved is None:
        raise IntegrityError("CSL-C808", "The ledger's entries in this pack reserve no such study.", _ASK)
    work = "statistics" if isinstance(found, OpenStatistics) else "training"
    said = (draft.name, draft.purpose, draft.contract, grant.epsilon, grant.delta, work)
    booked = (reserved.study, reserved.purpose, reserved.contract, reserved.epsilon, reserved.delta, reserved.work)
    events = {charge.account: charge.events for charge in reserved.charges}
    if said != booked or events != _paid_for(found):
        raise IntegrityError("CSL-C808", "The study was reserved on other terms than these.", _ASK)


def _paid_for(found: Opened) -> Mapping[Account, tuple[PrivacyEvent, ...]]:
    if isinstance(found, OpenStatistics):
        return statistics_events(found.spec, found.grant)
    return events_of(found.grant, found.spec.secure)


def _check_card(files: Files, name: str, rid: str, papers: Papers) -> None:
    try:
        card = Card.model_validate_json(files.read(name, MAX_DOCUMENT_BYTES))
    except ValidationError as error:
        raise DocumentError("CSL-C808", "It is no model's card.", _ASK) from error
    if card.study not in (None, rid):
        raise IntegrityError("CSL-C808", "It is the card of another study's model.", _ASK)
    papers.cards[rid] = card


def _check_deliveries(files: Files, papers: Papers, findings: Findings) -> None:
    """Hold each card against the delivery of its model, which names the card's digest."""
    for rid, card in papers.cards.items():
        name, delivered = f"{MODELS}/{rid}.card.json", papers.deliveries.get(rid)
        if delivered is None:
            findings.add("CSL-C808", None, "A card lies here without its model's delivery.", name)
        elif files.digest(name) != delivered.card or card.model not in (None, delivered.model):
            findings.add("CSL-C808", None, "The card is not the one that came with the model.", name)


def _note(files: Files, manifest: Manifest, charter: Charter, keys: tuple[KeySince, ...]) -> Head | None:
    """Return the head that witnesses signed, held against the pack's by a proof in the manifest."""
    if NOTE not in files.names:
        return None
    text = files.read(NOTE, MAX_NOTE_BYTES).decode("utf-8", "replace")
    head = open_by(text, charter, keys)
    if head.member != manifest.member:
        raise IntegrityError("CSL-C808", "The note is another institution's.", _ASK)
    if not reaches(manifest, head.size, head.root):
        raise IntegrityError("CSL-C806", "The head that witnesses signed is not shown to be part of the pack's.", _ASK)
    return head


def open_by(text: str, charter: Charter, keys: tuple[KeySince, ...]) -> Head:
    """Open a note of a ledger by whichever of its keys signed it. Raises as `federation.heads.open_head`."""
    for item in keys[:-1]:
        try:
            return open_head(text, charter, key=item.key)
        except IntegrityError:
            continue
    return open_head(text, charter, key=keys[-1].key if keys else None)


def reaches(manifest: Manifest, size: int, root: str) -> bool:
    """Return whether the manifest shows this head to be the pack's own, or its beginning."""
    heads = {(manifest.head.size, manifest.head.root), *((item.size, item.root) for item in manifest.consistency)}
    return (size, root) in heads
