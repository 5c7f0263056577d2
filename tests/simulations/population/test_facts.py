"""The population beside published aggregates, and these beside the public sets where they are at hand."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simulations.fetch import default_cache
from simulations.population import table
from simulations.population.facts import FACTS, SOURCES, check, view
from simulations.population.generate import START, generate
from simulations.population.parameters import PopulationParameters
from simulations.population.purchases import RHYTHMS, WINDOW_DAYS, Buyers, draw_purchases
from simulations.population.sources import fit_rhythm, public_table

PAGE = Path(__file__).parents[3] / "docs" / "population.md"
DATA = Path(os.environ.get("CONSILIENCE_DATA", ""))
PUBLISHED = pytest.mark.skipif(not DATA.name, reason="CONSILIENCE_DATA names no folder of public sets")


def test_the_population_lies_within_every_tolerance(town) -> None:
    checked = check(town)
    assert [item.fact for item in checked] == list(FACTS)
    assert {item.fact.name: item.generated for item in checked if not item.holds} == {}


def test_another_seed_does_too() -> None:
    made = generate(PopulationParameters(customers=30_000), 77, purchases=True)
    assert {item.fact.name: item.generated for item in check(made) if not item.holds} == {}


def test_tolerances_tell_other_populations_apart() -> None:
    """A fact that everything fits would say nothing: wrong rates and wrong shops fall outside."""
    wrong = PopulationParameters(customers=10_000, subscribed_bank=0.2, response=0.2, uplift=0.2)
    outside = {item.fact.name for item in check(generate(wrong, 1, purchases=True)) if not item.holds}
    assert {"subscribed", "subscribed_free", "visit_control", "visit_uplift"} <= outside
    made = generate(PopulationParameters(customers=10_000, banks=0), 1, purchases=True)
    swapped = {"occasional": "regular", "regular": "occasional"}
    other = replace(made, institutions=tuple(replace(item, style=swapped[item.style]) for item in made.institutions))
    outside = {item.fact.name for item in check(other) if not item.holds}
    assert {"cdnow_once", "cdnow_purchases", "retail_once", "retail_purchases", "retail_lapsed"} <= outside


def test_what_a_population_has_not_is_not_measured() -> None:
    made = generate(PopulationParameters(customers=300, banks=0, shops=1), 1)
    assert {item.fact.source for item in check(made)} == {"hillstrom"}
    made = generate(PopulationParameters(customers=300, banks=0, shops=1), 1, purchases=True)
    assert {item.fact.source for item in check(made)} == {"hillstrom", "cdnow"}
    assert view(made, "online_retail") is None
    lonely = generate(PopulationParameters(customers=2, banks=1, shops=1), 1, purchases=True)
    assert all(item.generated == item.generated for item in check(lonely))


def test_each_fact_is_named_once_and_sourced() -> None:
    assert len({fact.name for fact in FACTS}) == len(FACTS)
    assert {fact.source for fact in FACTS} == set(SOURCES)
    assert all(fact.tolerance > 0 for fact in FACTS)
    assert [fact.name for fact in FACTS if fact.tolerance > 0.6 * fact.published] == []


def test_the_fit_finds_the_process_that_made_a_log() -> None:
    log = drawn_log("regular", 12_000)
    r, alpha, a, b = fit_rhythm(log, START + pd.Timedelta(days=728))
    rhythm = RHYTHMS["regular"]
    assert r == pytest.approx(rhythm.r, rel=0.1)
    assert r / alpha == pytest.approx(rhythm.r / rhythm.alpha, rel=0.1)
    assert a / (a + b) == pytest.approx(rhythm.a / (rhythm.a + rhythm.b), rel=0.35)


def drawn_log(style: str, n: int) -> pd.DataFrame:
    """A log of one style whose customers differ by the process alone."""
    rng = np.random.default_rng(4)
    draws, ones = rng.standard_normal((3, n)), np.ones(n)
    entry = np.floor(300 * rng.random(n))
    log, _ = draw_purchases(Buyers(draws[0], draws[1], draws[2], ones, ones, entry), style, ones, rng)
    seen = log.day < WINDOW_DAYS
    return pd.DataFrame(
        {"customer": log.customer[seen], "day": START + pd.to_timedelta(log.day[seen], unit="D"), "amount": 1.0}
    )


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_the_page_shows_what_the_code_gives() -> None:
    on_page = [row for row in rows(PAGE.read_text()) if len(row) == 5 and row[1] in SOURCES]
    population = table.shown()
    given = [row for row in rows(table.markdown(check(population))) if row[1] in SOURCES]
    assert [row[:4] for row in on_page] == [row[:4] for row in given]
    for shown, now in zip(on_page, given, strict=True):
        assert float(shown[4]) == pytest.approx(float(now[4]), rel=0.01)
    (shown,) = (row for row in rows(PAGE.read_text()) if row[:2] == ["shop", "churned"])
    found = table.learnable(population, "shop", "churned")
    assert [float(cell) for cell in shown[2:]] == pytest.approx([found.rate, found.pooled, found.ceiling], abs=0.002)


@PUBLISHED
@pytest.mark.parametrize("source", SOURCES)
def test_the_published_figures_are_those_of_the_public_set(source) -> None:
    public = public_table(source, default_cache(), DATA)
    for fact in (fact for fact in FACTS if fact.source == source):
        assert fact.measure(public) == pytest.approx(fact.published, rel=0.01), fact.name


@PUBLISHED
@pytest.mark.parametrize(
    ("source", "style", "end"), [("cdnow", "occasional", "1998-06-30"), ("online_retail", "regular", "2011-12-09")]
)
def test_the_rhythm_is_near_what_the_public_log_gives(source, style, end) -> None:
    fitted = fit_rhythm(public_table(source, default_cache(), DATA), pd.Timestamp(end))
    rhythm = RHYTHMS[style]
    assert list(fitted) == pytest.approx([rhythm.r, rhythm.alpha, rhythm.a, rhythm.b], rel=0.11)
