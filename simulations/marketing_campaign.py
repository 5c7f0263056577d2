"""A simulated campaign: real customers and a real draw, outcomes that were made up by stated rules and a stated seed.

No public log of purchases holds a campaign with a control group of several shops. So the customers of the shops' logs who agreed to
be contacted are ranked, placed in segments by the federation's own report and drawn into arms as `client.campaign.draw` draws them;
what became of them is drawn from `TRUTH`. Comparing what the study finds with `TRUTH` shows that it finds what is there, and nothing
about real campaigns.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from client.campaign.draw import Candidate, Member, draw
from client.cohort import Cohort
from client.segments import place
from federation.answers import StatisticsReport
from federation.contract import FeatureContract
from simulations.sites import Site

SEED = 20_262
"""Seed of the draw and of the outcomes; stated wherever they are shown."""
CONTROL = "control"
COLUMNS = ("customer", "arm", "chosen_by", "decile", "segment", "visit", "retained", "spend", "cost", "conversion")
RANDOM_SHARE = 0.4
_DECILES = 10
TOP_DECILES = 5


@dataclass(frozen=True)
class Arm:
    """One way of approaching a customer: its share of those drawn, euro a contact, and what it adds to the chance of buying.

    `best` is added in the deciles 1 to `TOP_DECILES` by the score, `rest` in the others; both are shares of customers.
    """

    name: str
    title: str
    share: float
    cost: float
    best: float
    rest: float

    def effect(self, decile: int) -> float:
        """Return what it adds to the chance of buying of a customer in a decile."""
        return self.best if decile <= TOP_DECILES else self.rest


TRUTH = (
    Arm("arm_1", "e-mail", 0.35, 0.10, 0.01, 0.01),
    Arm("arm_2", "letter with voucher", 0.40, 1.20, 0.10, 0.03),
)
"""What is true of the made-up outcomes: the control group gets what the arms' shares leave."""
_BASE_LAST, _BASE_STEP = 0.03, 0.01
_SPEND_LEAST, _SPEND_MORE = 15.0, 25.0
_VISIT, _RETAINED, _RETAINED_MORE = 0.10, 0.80, 0.15


def base(decile: int) -> float:
    """Return the chance of buying without any approach: 3% in the last decile, a point more in each better one."""
    return _BASE_LAST + _BASE_STEP * (_DECILES - decile)


def built_in(arm: Arm) -> float:
    """Return what an arm truly adds to the chance of buying, over everybody who is drawn: the list is the deciles 1 to `TOP_DECILES`."""
    return (1.0 - RANDOM_SHARE) * arm.best + RANDOM_SHARE * arm.rest


def simulated(
    cohort: Cohort, contacts: frozenset[str], contract: FeatureContract, report: StatisticsReport, site: Site
) -> pd.DataFrame:
    """Return one shop's campaign in the columns of the campaign contract, one row a customer who was drawn.

    Parameters
    ----------
    cohort:
        The shop's customers with their features as of the day of the report (contract `rfm`).
    contacts:
        Who agreed to be contacted.
    report:
        What was counted together: its thresholds and rules say who is in which segment.
    """
    members = draw(
        candidates(cohort, contacts, contract, report),
        {arm.name: arm.share for arm in TRUTH},
        RANDOM_SHARE,
        "simulated",
        f"{SEED}/{site.id}",
    )
    return outcomes(members, site)


def candidates(
    cohort: Cohort, contacts: frozenset[str], contract: FeatureContract, report: StatisticsReport
) -> list[Candidate]:
    """Rank who may be contacted by a plain score (more often and more recently is better); the upper half is the list."""
    placed = place(cohort, contract, report)
    kept = np.array([name in contacts for name in cohort.ids], dtype=bool)
    score = np.log(cohort.columns["frequency"]) - 2.0 * cohort.columns["recency"]
    ids, score, segment = cohort.ids[kept], score[kept], placed.segment[kept]
    deciles = _deciles(score)
    return [
        Candidate(str(name), float(value), int(tenth), str(named), int(tenth) <= TOP_DECILES)
        for name, value, tenth, named in zip(ids, score, deciles, segment, strict=True)
    ]


def _deciles(score: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the tenth of each customer, 1 the highest; the order of identifiers decides between equal scores."""
    ranks = np.empty(len(score), dtype=np.int64)
    ranks[np.argsort(-score, kind="stable")] = np.arange(len(score))
    return ranks * _DECILES // max(len(score), 1) + 1


def outcomes(members: Sequence[Member], site: Site) -> pd.DataFrame:
    """Make up what became of everybody who was drawn, from `TRUTH` and `SEED`."""
    key = int.from_bytes(hashlib.sha256(f"{SEED}/outcomes/{site.id}".encode()).digest()[:16], "big")
    generator = np.random.default_rng(key)
    arms = {arm.name: arm for arm in TRUTH}
    chance = np.array([base(item.decile) + _effect(arms, item) for item in members])
    bought = generator.random(len(members)) < chance
    spent = _SPEND_LEAST + generator.exponential(_SPEND_MORE, len(members))
    visited = bought | (generator.random(len(members)) < _VISIT)
    stayed = generator.random(len(members)) < np.where(bought, _RETAINED + _RETAINED_MORE, _RETAINED)
    return pd.DataFrame(
        {
            "customer": [item.customer for item in members],
            "arm": [item.arm for item in members],
            "chosen_by": [item.chosen_by for item in members],
            "decile": [item.decile for item in members],
            "segment": [item.segment for item in members],
            "visit": _flags(visited),
            "retained": _flags(stayed),
            "spend": np.where(bought, spent, 0.0).round(2),
            "cost": [arms[item.arm].cost if item.arm in arms else 0.0 for item in members],
            "conversion": _flags(bought),
        },
        columns=list(COLUMNS),
    )


def _effect(arms: dict[str, Arm], member: Member) -> float:
    return arms[member.arm].effect(member.decile) if member.arm in arms else 0.0


def _flags(values: NDArray[np.bool_]) -> list[str]:
    return ["yes" if value else "no" for value in values]


def campaign_site(site: Site) -> Site:
    """Return a shop as it stands in the campaign's federation: nobody is asked for consent twice, and its size is that of a campaign."""
    size = max(500, round(site.size * site.contacts * site.learns / 100) * 100)
    return replace(site, style="parquet", size=size, learns=1.0, contacts=1.0, window=None)
