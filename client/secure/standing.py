"""Where a secure study stands, and on which terms, for the institution's own eyes."""

from typing import Any

from client.secure.store import Agreed, KeptSum, Secrets
from client.studies import Opened, OpenStatistics
from federation.study import SecurePlan
from privacy.ledger.entries import Reservation
from privacy.secure_aggregation.epoch import KeysMade
from privacy.secure_aggregation.institution import AckedState, MaskedState, ReadyState

NOT_BEGUN = "not begun"


def terms_row(plan: SecurePlan) -> dict[str, Any]:
    """Return a study's terms as a mapping; where it stands is not known yet."""
    return {
        "aggregation": "secure",
        "noise": plan.noise,
        "n_min": plan.n_min,
        "c": plan.c,
        "epsilon_if_broken": None,
        "set_up": NOT_BEGUN,
        "attempt": None,
        "participants": [],
        "sum": None,
    }


def standing_row(study: Opened, plan: SecurePlan, held: Reservation | None, secrets: Secrets) -> dict[str, Any]:
    """Return a granted study's terms and where it stands as a mapping.

    `epsilon_if_broken` holds by account what would be left if the masks broke, as the ledger states it; None in it: no epsilon that
    can be named. `sum` is the last sum that was asked for: its number of how many, stage and attempt.

    Raises
    ------
    ConsilienceError
        As `client.secure.store.Secrets`.
    """
    row = terms_row(plan)
    if held is not None and held.data.if_broken is not None:
        row["epsilon_if_broken"] = {claim.account: claim.epsilon for claim in held.data.if_broken}
    state = secrets.epoch(study.rid)
    if state is not None:
        stage = state.stage
        row["attempt"] = state.attempt
        row["set_up"] = (
            "keys made" if isinstance(stage, KeysMade) else "done" if isinstance(stage, Agreed) else "keys sent"
        )
        if not isinstance(stage, KeysMade):
            row["participants"] = (
                list(stage.secrets.members) if isinstance(stage, Agreed) else [item.message.id for item in stage.keys]
            )
    numbers = secrets.numbers(study.rid)
    last = secrets.sum(study.rid, numbers[-1]) if numbers else None
    if last is not None:
        row["sum"] = {
            "number": last.offer.number,
            "of": study.spec.plan.rounds if isinstance(study, OpenStatistics) else study.evaluation_number,
            "stage": stage_of(last),
            "attempt": last.offer.attempt,
        }
    return row


def stage_of(kept: KeptSum) -> str:
    """Return how far a sum got: ready, masked, acknowledged or opened."""
    if isinstance(kept.state, ReadyState):
        return "ready"
    if isinstance(kept.state, MaskedState):
        return "masked"
    return "acknowledged" if isinstance(kept.state, AckedState) else "opened"


def in_words(row: dict[str, Any], closed: bool) -> list[str]:
    """Return a study's terms, and where it stands, in lines for a person."""
    many = f"up to {row['c']} may" if row["c"] else "none may"
    lines = [
        f"adds up in secret ({row['noise']} noise): sums are opened over {row['n_min']} institutions at least, of which {many} collude "
        "with the coordinator",
    ]
    broken = row["epsilon_if_broken"]
    if broken is not None:
        said = ", ".join(
            f"{'beyond 1000' if value is None else format(value, '.3g')} for {account}"
            for account, value in broken.items()
        )
        lines.append(f"if the masks broke, by its own noise alone: epsilon {said}")
    if closed:
        return [*lines, "closed: the keys of its sums are erased"]
    last = row["sum"]
    if last is not None:
        again = "" if last["attempt"] == 1 else f", attempt {last['attempt']}"
        return [*lines, f"sum {last['number']} of {last['of']}: {last['stage']}{again}"]
    again = "" if row["attempt"] in (None, 1) else f", attempt {row['attempt']}"
    others = f" among {len(row['participants'])} institutions" if row["participants"] else ""
    return [*lines, f"set-up{others}: {row['set_up']}{again}"]
