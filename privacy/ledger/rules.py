"""The ledger's rules: which entry may follow, and what it changes.

The writer calls `advance` before an entry is written, the verifier calls it on every entry that it reads, so that a ledger
which the one could write is what the other accepts.
"""

from datetime import timedelta

from federation.errors import PolicyError
from federation.merkle import append
from federation.note import parse_note
from federation.signing import Signature, verify
from privacy.cost import NOTHING
from privacy.events import SecureSum, SubsampledGaussian, releases
from privacy.filter import Limits, check_fit
from privacy.ledger.authority import check_approval, check_restore, standing
from privacy.ledger.entries import (
    ROTATION_CONTEXT,
    Approve,
    Body,
    Close,
    Consent,
    Genesis,
    Known,
    PolicyEntry,
    Release,
    Reservation,
    Reserve,
    ReserveData,
    Restore,
    RestoreStatement,
    Rotate,
    Withdraw,
    Work,
)
from privacy.ledger.plans import check_slot, open_plan, retire_plan
from privacy.ledger.secrecy import check_secrecy
from privacy.ledger.state import EPOCH, KeySince, State
from privacy.ledger.succession import check_policy, holdouts_of
from privacy.policy import Policy, StatisticsRule, StudyRule


def advance(state: State, body: Body, leaf: bytes, known: Known) -> State:
    """Return the state after an entry, or refuse the entry.

    Parameters
    ----------
    state, body, leaf:
        The state before, the entry and its leaf (32 bytes).
    known:
        What earlier entries say about the entry's `rid`.

    Raises
    ------
    PolicyError
        CSL-P301 to P317 for a policy, decision, rotation or restoration, CSL-P401 to P419 for a reservation, release or close
        that the rules do not allow, CSL-P216 and P217 for one of sums in secret.
    IntegrityError
        CSL-P314 for signatures in it that do not fit.
    DocumentError
        CSL-F611 for a restoration's note that is malformed.
    """
    if isinstance(body, Genesis):
        changed = _genesis(state, body)
    elif state.size == 0:
        raise PolicyError("CSL-P306", "The first entry is no genesis.", "Create the ledger anew, or restore it.")
    elif isinstance(body, PolicyEntry):
        changed = _activate(state, body)
    elif isinstance(body, Rotate | Restore):
        changed = _rotate(state, body) if isinstance(body, Rotate) else _restore(state, body)
    elif isinstance(body, Withdraw):
        changed = state.model_copy(update={"withdrawn": max(state.withdrawn, body.data.registered)})
    elif body.rid is not None:
        changed = _of_study(state, body, known)
    else:
        changed = state
    return _extended(changed, body.ts, leaf)


def _of_study(state: State, body: Body, known: Known) -> State:
    if isinstance(body, Approve):
        _check_decision(state, body, known)
    elif isinstance(body, Reserve):
        return _reserve(state, body, known)
    elif isinstance(body, Release):
        check_release(state, body, known)
    elif isinstance(body, Close):
        return _close(state, body, known)
    elif isinstance(body, Consent):
        _open(known.reservation)
    return state


def skip(state: State, ts: int, leaf: bytes) -> State:
    """Return the state after an entry whose meaning is refused: it has its place in chain and tree, and no other
    effect."""
    return _extended(state, max(state.ts, ts), leaf)


def _genesis(state: State, body: Genesis) -> State:
    if state.size:
        raise PolicyError("CSL-P306", "A second genesis entry.", "Restore the ledger from its last backup.")
    return state.model_copy(update={"member": body.data.member, "keys": (KeySince(seq=0, key=body.data.key),)})


def _activate(state: State, body: PolicyEntry) -> State:
    data = body.data
    check_policy(state, data.policy, data.signatures)
    _check_valid(data.limits, body.day)
    accounts = retire_plan(state.plan, {"training": state.training, "holdout": state.holdout}, body.day)
    plan, accounts = open_plan(data, accounts, body.day)
    if plan is not None and state.exhausted:
        raise nothing_remains()
    update = {
        "policy_digest": data.sha256,
        "policy": data.policy,
        "limits": data.limits,
        "plan": plan,
        "holdouts": holdouts_of(state, data.policy),
        **accounts,
    }
    return state.model_copy(update=update)


def _check_valid(limits: Limits, day: int) -> None:
    today = EPOCH + timedelta(days=day)
    if today >= limits.expires:
        raise PolicyError(
            "CSL-P316",
            f"The policy expired on {limits.expires}; the ledger's date is {today}.",
            "Write a policy that is in force, and let it be signed.",
        )


def _rotate(state: State, body: Rotate) -> State:
    said = body.data.statement
    if (said.member, said.seq, said.prev, said.old) != (state.member, state.size, state.head, state.key):
        raise PolicyError(
            "CSL-P317",
            "The key change is for another place, key or institution.",
            "Rotate the key on this very ledger.",
        )
    if any(item.key == said.new for item in state.keys):
        raise PolicyError("CSL-P317", "The new key was used before.", "Make a fresh key.")
    verify(Signature(key=said.new, value=body.data.accepted), ROTATION_CONTEXT, said, said.new)
    return state.model_copy(update={"keys": (*state.keys, KeySince(seq=state.size + 1, key=said.new))})


def _restore(state: State, body: Restore) -> State:
    said = body.data.statement
    if (said.member, said.size, said.root) != (state.member, state.size, state.tree_root()):
        raise PolicyError(
            "CSL-P317",
            f"The officers signed for a copy of {said.size} entries; this ledger has {state.size}, or other ones.",
            "Let them sign for this copy.",
        )
    if body.data.note:
        _check_note(said, body.data.note)
    check_restore(state.policy, body.data)
    lossy = body.data.exhausts
    return state.model_copy(update={"exhausted": state.exhausted or lossy, "restores": state.restores + lossy})


def _check_note(said: RestoreStatement, note: str) -> None:
    """Refuse a note of a longer ledger than the copy, or of another one of its size; who signed it is for its reader."""
    seen = parse_note(note).checkpoint
    if seen.size > said.size or (seen.size == said.size and seen.root != said.root):
        raise PolicyError(
            "CSL-P317",
            f"The note is of a head of {seen.size} entries; the copy has {said.size}, or other ones.",
            "Give the last note of this very copy, or restore a newer one.",
        )


def _check_decision(state: State, body: Approve, known: Known) -> None:
    if known.reservation is not None:
        raise PolicyError(
            "CSL-P418", "The study is granted already: a decision comes too late.", "Close it, if it must end."
        )
    if state.policy is None or state.policy_digest is None or body.data.statement.study != body.rid:
        raise PolicyError("CSL-P312", "No policy is in force, or the decision is about another study.", "Sign anew.")
    check_approval(state.policy, state.policy_digest, body.data, known.approvals)


def rule_for(policy: Policy, contract: str, purpose: str, work: Work = "training") -> StudyRule | StatisticsRule | None:
    """Return the rule under which a study on a contract for a purpose falls, or None."""
    rules: tuple[StudyRule | StatisticsRule, ...] = policy.statistics if work == "statistics" else policy.studies
    return next((item for item in rules if item.contract == contract and purpose in item.purposes), None)


def _reserve(state: State, body: Reserve, known: Known) -> State:
    if known.reservation is not None:
        raise PolicyError(
            "CSL-P402", "This study was reserved before, on other terms.", "Plan the study anew: it gets a new digest."
        )
    limits, data = _check_in_force(state, body), body.data
    _check_approved(state, body, known)
    accounts: dict[str, object] = {}
    if data.slot is not None or state.plan is not None:
        accounts["plan"] = check_slot(state.plan, data, body.rid)
    for charge in data.charges:
        account = state.account(charge.account)
        if data.slot is None:
            purpose = account.purpose(data.purpose)
            check_fit(
                limits,
                charge.account,
                data.purpose,
                account.all.spent(body.day, limits.period_days),
                account.life,
                purpose.spent(body.day, limits.period_days),
                charge.cost,
            )
        elif charge.cost != NOTHING:
            raise PolicyError("CSL-P401", "A study that fills a slot is charged once more.", "Decide again.")
        accounts[charge.account] = account.opened(None, charge.cost).opened(data.purpose, charge.cost)
    return state.model_copy(update=accounts)


def _check_in_force(state: State, body: Reserve) -> Limits:
    limits, policy, data = state.limits, state.policy, body.data
    if state.exhausted:
        raise nothing_remains()
    today = EPOCH + timedelta(days=body.day)
    if (
        limits is None
        or policy is None
        or data.policy != state.policy_digest
        or not limits.issued <= today < limits.expires
    ):
        raise PolicyError(
            "CSL-P401",
            "The terms are not those of a policy that is in force in the ledger.",
            "Activate the policy, then decide again.",
        )
    rule = rule_for(policy, data.contract, data.purpose, data.work)
    if rule is None or data.epsilon > rule.max_epsilon or data.delta > rule.max_delta:
        raise PolicyError("CSL-P401", "The study got more than the policy in force allows it.", "Decide again.")
    check_secrecy(policy, data)
    _check_everybody(data)
    for charge in data.charges:
        if charge.releases > sum(map(releases, charge.events)):
            raise PolicyError(
                "CSL-P419",
                f"{charge.releases} releases on the {charge.account} account are more than its events pay for.",
                "Plan the study anew: each reply needs a mechanism of its own.",
            )
    return limits


def _check_everybody(data: ReserveData) -> None:
    """Statistics count customers who train and customers who are held out alike: both accounts pay the same."""
    if data.work != "statistics":
        return
    training, holdout = data.charge("training"), data.charge("holdout")
    alike = (
        training is not None
        and holdout is not None
        and (training.events, training.releases) == (holdout.events, holdout.releases)
    )
    events = [event for charge in data.charges for event in charge.events]
    everybody = all(
        isinstance(event, SubsampledGaussian | SecureSum) and event.sampling_rate == 1.0 for event in events
    )
    if not (alike and everybody):
        raise PolicyError(
            "CSL-P218",
            "A statistics study counts everybody, and is not charged to both accounts alike, or as if it counted a sample.",
            "Price the study anew.",
        )


def _check_approved(state: State, body: Reserve, known: Known) -> None:
    policy, digest = state.policy, state.policy_digest
    assert policy is not None and digest is not None
    rule = rule_for(policy, body.data.contract, body.data.purpose, body.data.work)
    assert rule is not None
    eyes = policy.approval.eyes if body.data.epsilon > rule.automatic_epsilon else 0
    found = standing(digest, eyes, known.approvals)
    if found == "declined":
        raise PolicyError("CSL-P416", "An officer declined the study.", "Plan another one, or ask why.")
    if found == "waiting":
        raise PolicyError(
            "CSL-P415",
            f"The study waits: {eyes} officer{'s' if eyes > 1 else ''} must approve it under the policy in force.",
            "See `consilience officer inbox`.",
        )


def nothing_remains() -> PolicyError:
    """Return the refusal of a ledger that may lack entries."""
    return PolicyError(
        "CSL-P413",
        "The ledger was restored from a copy that may lack entries: nothing remains to spend.",
        "See the restore entry; a budget that was lost does not come back.",
    )


def check_release(state: State, body: Release, known: Known) -> None:
    """Refuse a release that nothing was reserved for.

    Raises
    ------
    PolicyError
        CSL-P405 no reservation, CSL-P406 closed, CSL-P407 nothing reserved on the account, CSL-P408 all reserved
        releases were used, CSL-P409 the number was used for another release, CSL-P413 entries may have been lost.
    """
    reservation = _open(known.reservation)
    if state.exhausted:
        raise nothing_remains()
    charge = reservation.data.charge(body.data.account)
    if charge is None:
        raise PolicyError(
            "CSL-P407", f"Nothing is reserved on the {body.data.account} account.", "Reserve the whole study first."
        )
    if known.number_taken:
        raise PolicyError(
            "CSL-P409",
            f"Number {body.data.number} of the study was released before, with other bytes.",
            "Send the reply that was kept.",
        )
    if reservation.released.get(body.data.account, 0) >= charge.releases:
        raise PolicyError(
            "CSL-P408",
            f"All {charge.releases} releases reserved on the {body.data.account} account were used.",
            "Plan a new study.",
        )


def _close(state: State, body: Close, known: Known) -> State:
    reservation = _open(known.reservation)
    if body.data.returned != reservation.untouched():
        raise PolicyError(
            "CSL-P410",
            "A close returns exactly the accounts from which nothing was released.",
            "Restore the ledger from its last backup.",
        )
    data, update = reservation.data, dict[str, object]()
    for charge in data.charges:
        returned = charge.account in body.data.returned
        account = state.account(charge.account).closed(None, body.day, charge.cost, returned)
        update[charge.account] = account.closed(data.purpose, body.day, charge.cost, returned)
    if data.slot is not None and state.plan is not None:
        update["plan"] = state.plan.without(body.rid)
    return state.model_copy(update=update)


def _open(reservation: Reservation | None) -> Reservation:
    if reservation is None:
        raise PolicyError(
            "CSL-P405", "Nothing is reserved for this study.", "Reserve the whole study before anything leaves."
        )
    if reservation.closed:
        raise PolicyError("CSL-P406", "The study is closed.", "Plan a new study.")
    return reservation


def _extended(state: State, ts: int, leaf: bytes) -> State:
    nodes = append(state.size, [bytes.fromhex(node) for node in state.frontier], leaf)
    update = {"size": state.size + 1, "head": leaf.hex(), "ts": ts, "frontier": tuple(node.hex() for node in nodes)}
    return state.model_copy(update=update)
