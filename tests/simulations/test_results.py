import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from simulations.closing import show
from simulations.results import HELPED_BY, StudyResult
from simulations.sites import BANKS
from tests.simulations.synthetic import demo_result, study_result


def with_gains(gains: list[float], margin: float = 0.02) -> StudyResult:
    study = study_result("propensity", "t", BANKS[: len(gains)])
    sites = [
        replace(site, alone=0.7, federated=0.7 + gain, pooled=0.72, margin=margin)
        for site, gain in zip(study.sites, gains, strict=True)
    ]
    return replace(study, sites=tuple(sites))


@given(gains=st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=8))
def test_everybody_is_told_once(gains: list[float]) -> None:
    study = with_gains(gains)
    told = [*study.helped, *study.unchanged, *study.not_helped]
    assert sorted(site.id for site in told) == sorted(site.id for site in study.sites)
    assert all(site.gain > HELPED_BY for site in study.helped)
    assert all(site.gain < -HELPED_BY for site in study.not_helped)


def test_the_verdict_names_those_whom_federating_did_not_help() -> None:
    text = with_gains([0.05, -0.03, 0.001]).verdict()
    assert "1 of 3 gained 0.050 of AUC (Bank for businesses)." in text
    assert "1 of 3 saw next to no change (Bank for managers)." in text
    assert "1 of 3 would have done better with a model of their own, by 0.030 (Bank for households)." in text
    assert "2 of these 3 changes are larger than chance explains" in text
    assert "0.013 below the reference" in text


def test_a_verdict_on_all_needs_no_names() -> None:
    assert (
        with_gains([0.01, 0.019])
        .verdict()
        .startswith("All of 2 gained 0.010 to 0.019 of AUC. None of these 2 changes are")
    )
    assert "above the reference" in with_gains([0.05, 0.05]).verdict()


@pytest.mark.parametrize("width", [60, 88, 140])
def test_the_closing_table_shows_everybody_at_any_width(width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    result = demo_result()
    show(result, console)
    text = console.export_text()
    for study in result.studies:
        for site in study.sites:
            assert f"{site.federated:.3f}" in text
            assert f"{site.budget.training:.2f}" in text
    assert "Seen by no party" in text
    assert "simulated" in text
