"""Small campaigns for the tests: candidates, designs, and outcomes with a known effect."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from client.campaign.draw import CONTROL, Candidate
from client.campaign.frame import Frame, draw_campaign
from client.campaign.record import Arm, Design, OutcomeRecord, Window
from client.campaign.store import Campaign, Outcomes
from client.names import Listed

KEY = b"s" * 32
WHEN = datetime(2026, 4, 1, 9, 0, tzinfo=UTC)
WINDOW = Window(contact_from=date(2026, 4, 2), contact_until=date(2026, 4, 9), outcome_until=date(2026, 5, 9))
SHARES = {"mail": 0.4, "call": 0.4}


def candidates(n: int, listed: int, segments: tuple[str, ...] = ("loyal", "new")) -> list[Candidate]:
    """n customers by rank, the first of them listed."""
    return [
        Candidate(f"c{place:05d}", 1 - place / n, 1 + place * 10 // n, segments[place % len(segments)], place < listed)
        for place in range(n)
    ]


def design(**changes: Any) -> Design:
    fields: dict[str, Any] = {
        "name": "spring",
        "arms": (Arm(name="mail", share=0.4, cost=0.5), Arm(name="call", share=0.4, cost=4.0)),
        "random_share": 0.25,
        "seed": "a seed",
        "window": WINDOW,
        "unit": "euro",
    }
    return Design(**(fields | changes))


def ranked(n: int) -> list[Listed]:
    return [
        Listed(item.customer, place, item.score, item.decile, None, None, ("", "", ""))
        for place, item in enumerate(candidates(n, 0), start=1)
    ]


def frame(n: int = 2000, listed: int = 600, **changes: Any) -> Frame:
    people = ranked(n)
    fields: dict[str, Any] = {
        "study": "churn",
        "model": "ab" * 32,
        "ranked": people,
        "listed": frozenset(line.customer for line in people[:listed]),
        "listed_by": "a list",
        "segments": {line.customer: ("loyal", "new")[place % 2] for place, line in enumerate(people)},
        "placed_by": "own table",
        "running": {},
    }
    return Frame(**(fields | changes))


def drawn(n: int = 2000, listed: int = 600, **changes: Any) -> Campaign:
    return draw_campaign(design(**changes), frame(n, listed), "refuse", WHEN)


def with_outcomes(campaign: Campaign, effects: dict[str, float], base: float = 0.1, seed: int = 1) -> Campaign:
    """Give a campaign outcomes: everybody converts with probability `base`, more by her arm's effect; spend 20 for each conversion."""
    generator = np.random.default_rng(seed)
    rates = np.array([base + effects.get(member.arm, 0.0) for member in campaign.members])
    conversion = (generator.random(len(rates)) < rates).astype(np.float64)
    outcomes = Outcomes(
        known=np.ones(len(rates), dtype=bool),
        conversion=conversion,
        visit=np.maximum(conversion, generator.random(len(rates)) < 0.3).astype(np.float64),
        retained=np.full(len(rates), np.nan),
        spend=20.0 * conversion,
    )
    kept = OutcomeRecord(
        file_sha256="cd" * 32, mapping_sha256="ef" * 32, read="2026-05-10", rows=len(rates), matched=len(rates),
        left_out={}, noted={}, spoken_of=("conversion", "visit", "spend"),
    )  # fmt: skip
    record = campaign.record.model_copy(update={"outcomes": kept})
    return Campaign(campaign.stem, record, campaign.members, outcomes)


def arms_of(campaign: Campaign) -> dict[str, list[str]]:
    names = (*campaign.record.design.shares, CONTROL)
    return {name: [member.customer for member in campaign.members if member.arm == name] for name in names}
