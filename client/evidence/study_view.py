"""Studies in a report: what was asked, who approved, what left, and which model came of it."""

from typing import Any

from client.evidence.budget_view import ACCOUNT_NAMES
from client.evidence.gather import Gathered, ReleaseGroup, Study
from client.evidence.papers import Papers
from client.studies import Opened, OpenStatistics
from client.words import moment_of, plain, short_digests, size_of
from federation.question_words import describe
from privacy.events import SecureSum
from privacy.ledger.entries import ApproveData, ReserveData


class StudyNames:
    """Titles of studies and names of officers, where the pack's documents tell them."""

    def __init__(self, gathered: Gathered, papers: Papers) -> None:
        self._gathered = gathered
        self._papers = papers
        self._officers: dict[str, str] = {}
        for body in gathered.policies.rows:
            self._officers |= {item.key: item.id for item in body.data.policy.officers}

    def officer(self, key: str) -> str:
        """Return an officer's name, else the beginning of the key."""
        return self._officers.get(key, f"{key[:16]}…")


def approval_rows(gathered: Gathered, names: StudyNames) -> list[dict[str, Any]]:
    """Return every officer's decision about a study, in order."""
    rows = [(seq, ts, study, data) for study in gathered.studies.values() for seq, ts, data in study.decisions]
    return [_approval(seq, ts, study, data, names) for seq, ts, study, data in sorted(rows, key=lambda row: row[0])]


def _approval(seq: int, ts: int, study: Study, data: ApproveData, names: StudyNames) -> dict[str, Any]:
    return {
        "seq": seq,
        "time": moment_of(ts),
        "study": data.name,
        "rid": study.rid,
        "officer": names.officer(data.signature.key),
        "decision": "approved" if data.statement.decision == "approve" else "declined",
        "reason": data.statement.reason,
    }


def study_blocks(gathered: Gathered, papers: Papers) -> list[dict[str, Any]]:
    """Return one block for each study that was reserved or of which something left in the stretch."""
    shown = [item for item in gathered.studies.values() if item.reserved is not None and _in_stretch(item)]
    names = StudyNames(gathered, papers)
    return [_block(item, item.reserved, papers.studies.get(item.rid), names) for item in shown if item.reserved]


def shared_noise(gathered: Gathered) -> bool:
    """Return whether some study of the stretch rests on noise that institutions share."""
    charges = [
        charge
        for study in gathered.studies.values()
        if study.reserved is not None and _in_stretch(study)
        for charge in study.reserved.charges
    ]
    return any(isinstance(event, SecureSum) and event.members > 1 for charge in charges for event in charge.events)


def _in_stretch(study: Study) -> bool:
    return not study.before or bool(study.releases) or study.closed is not None


def _block(study: Study, reserved: ReserveData, found: Opened | None, names: StudyNames) -> dict[str, Any]:
    return {
        "name": reserved.study,
        "title": reserved.study if found is None else found.spec.draft.title,
        "statistics": reserved.work == "statistics",
        "rid": study.rid,
        "purpose": reserved.purpose,
        "contract": reserved.contract,
        "epsilon": plain(reserved.epsilon),
        "delta": plain(reserved.delta),
        "reserved": moment_of(study.reserved_ts),
        "seq": study.reserved_seq,
        "slot": reserved.slot,
        "secret": None if reserved.if_broken is None else _secret(reserved, found),
        "policy": reserved.policy,
        "approvals": _approvals(study, reserved, names),
        **_planned(found),
        "releases": [_release(item) for item in study.releases.values()],
        "consents": [(item.data.consent, moment_of(item.ts), item.data.salted) for item in study.consents],
        "closed": None if study.closed is None else (moment_of(study.closed.ts), study.closed.data.reason),
        "returned": [] if study.closed is None else [ACCOUNT_NAMES[name] for name in study.closed.data.returned],
    }


def _planned(found: Opened | None) -> dict[str, Any]:
    """Return what a study's document says beyond the ledger: a model's use and limits, or questions in plain words; None without one."""
    if found is None or isinstance(found, OpenStatistics):
        queries = () if found is None else found.spec.draft.queries
        questions = [(query.id, query.title or "", describe(query)) for query in queries]
        return {"use": None, "limits": None, "model": None, "questions": questions}
    draft = found.spec.draft
    model = f"{draft.model.kind}, {draft.mode}"
    return {"use": draft.intended_use, "limits": draft.limits, "model": model, "questions": []}


def _secret(reserved: ReserveData, found: Opened | None) -> dict[str, Any]:
    """Return how a study was added up in secret, and what its own noise alone would hold; the plan where its document is there."""
    plan = None if found is None else found.spec.secure
    claims = reserved.if_broken or ()
    return {
        "plan": None if plan is None else (plan.noise, plan.n_min, plan.c),
        "broken": [(ACCOUNT_NAMES[claim.account], plain(claim.epsilon)) for claim in claims],
    }


def _approvals(study: Study, reserved: ReserveData, names: StudyNames) -> str:
    own = [item for _, _, item in study.decisions if item.statement.policy == reserved.policy]
    if not own:
        return "within the policy's automatic limits: no officer had to decide"
    return "approved by " + ", ".join(names.officer(item.signature.key) for item in own)


def _release(item: ReleaseGroup) -> dict[str, Any]:
    return {
        "what": short_digests(item.what),
        "account": ACCOUNT_NAMES[item.account],
        "count": item.count,
        "size": size_of(item.size),
        "times": moment_of(item.first_ts)
        if item.first_ts == item.last_ts
        else f"{moment_of(item.first_ts)} to {moment_of(item.last_ts)}",
        "entries": f"{item.first_seq}" if item.first_seq == item.last_seq else f"{item.first_seq} to {item.last_seq}",
    }


def model_rows(gathered: Gathered, papers: Papers) -> list[dict[str, Any]]:
    """Return the model of each training study of the stretch, with what its card says; studies without one are named, too."""
    rows = []
    for study in gathered.studies.values():
        if study.reserved is None or study.reserved.work == "statistics" or not _in_stretch(study):
            continue
        delivered, card = papers.deliveries.get(study.rid), papers.cards.get(study.rid)
        auc = None if card is None else card.overall.auc
        rows.append(
            {
                "study": study.reserved.study,
                "rid": study.rid,
                "model": None if delivered is None else delivered.model,
                "card": None if delivered is None else delivered.card,
                "name": None if card is None else card.name,
                "rounds": None if card is None else card.rounds,
                "protection": None if card is None else card.protection,
                "participants": [] if card is None else [item.title or item.member for item in card.participants],
                "auc": None if auc is None or auc.value is None else plain(auc.value),
                "interval": None if auc is None or auc.noise is None else tuple(map(plain, auc.noise)),
            }
        )
    return rows
