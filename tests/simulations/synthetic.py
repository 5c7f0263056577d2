"""A made-up demo result: the report's tests draw this, so that they need neither data nor a federation."""

import math

from simulations.results import (
    Budget,
    Curve,
    DemoResult,
    Estimate,
    NameList,
    NameRow,
    SiteResult,
    StudyResult,
)
from simulations.sites import BANKS, SHOPS, Site

SHAPES = """<svg xmlns="http://www.w3.org/2000/svg" width="300pt" height="100pt" viewBox="0 0 300 100"><g id="a">
<path id="b" d="M0 0 L300 100" clip-path="url(#b)"/><text style="font: 7px 'DejaVu Sans', sans-serif">age</text></g></svg>"""


def site_result(site: Site, number: int) -> SiteResult:
    federated = 0.66 + 0.012 * (number % 5)
    return SiteResult(
        id=site.id,
        title=site.title,
        declared=site.size,
        customers=site.size + 37 * number,
        tested=site.size // 4,
        consent=site.learns,
        budget=Budget(
            whole=1.25 * site.epsilon,
            granted=site.epsilon,
            delta=site.delta,
            training=0.99 * site.epsilon,
            holdout=0.98 * site.epsilon,
            charged_training=1.02 * site.epsilon,
            charged_holdout=1.01 * site.epsilon,
            left=0.5 * site.epsilon,
        ),
        alone=federated - 0.03 + 0.011 * number,
        federated=federated,
        pooled=federated + 0.006,
        lift=1.4 + 0.1 * number,
        margin=0.02,
    )


def study_result(name: str, title: str, sites: tuple[Site, ...]) -> StudyResult:
    grid = tuple(i / 20 for i in range(21))
    bumps = tuple((i + 0.5) / 10 for i in range(10))
    return StudyResult(
        name=name,
        title=title,
        summary="Who takes a term deposit in a telephone campaign, from what a bank knows before it calls.",
        model="additive",
        mode="fedsgd",
        rounds=30,
        seconds=21.4,
        sent=1_234_567,
        received=987_654,
        base_rate=0.316,
        sites=tuple(site_result(site, number) for number, site in enumerate(sites)),
        roc=(
            Curve("pooled", grid, tuple(x**0.5 for x in grid)),
            Curve("federated", grid, tuple(x**0.55 for x in grid)),
            Curve("released", grid[::3], tuple(x**0.56 for x in grid[::3])),
        ),
        lift=(
            Curve("pooled", grid[1:], tuple(2.2 - 1.2 * x for x in grid[1:])),
            Curve("federated", grid[1:], tuple(2.1 - 1.1 * x for x in grid[1:])),
        ),
        calibration=(
            Curve("federated", bumps, tuple(0.8 * x for x in bumps)),
            Curve("calibrated", bumps, tuple(x + 0.02 * math.sin(9 * x) for x in bumps)),
        ),
        released_auc=Estimate(0.684, 0.671, 0.697),
        shapes=SHAPES,
        names=NameList(
            sites[0].title,
            170,
            tuple(
                NameRow(f"BU{n:06d}", 0.71 - 0.03 * n, 1, ("success of the earlier campaign", "no housing loan"))
                for n in range(1, 7)
            ),
        ),
        card=(
            ("Study", "propensity 3f0a…"),
            ("Intended use", "Ranking own customers."),
            ("Limits", "Not for credit decisions."),
        ),
    )


def demo_result() -> DemoResult:
    return DemoResult(
        version="0.1.0",
        started="2026-01-02",
        seconds=93.0,
        seed=20_261,
        studies=(
            study_result("propensity", "Propensity: who takes a term deposit", BANKS),
            study_result("churn", "Churn: who stops buying", SHOPS),
        ),
        sources=(("UCI Bank Marketing", "UCI Machine Learning Repository", "CC BY 4.0"),),
    )
