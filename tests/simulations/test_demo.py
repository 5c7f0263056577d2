import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from federation import command as dispatcher
from federation.errors import DataError, OfflineError, StorageError
from simulations import command, datasets, demo
from simulations.live import LiveView
from simulations.sites import BANKS, SHOPS, TEST_POSITION

ROWS = 700
FEWER = (demo.Plan("propensity", BANKS[:6]), demo.Plan("churn", SHOPS))


def bank_frame() -> pd.DataFrame:
    draw = np.random.default_rng(5)
    n = ROWS * len(BANKS)
    months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
    housing = draw.integers(0, 2, n)
    return pd.DataFrame(
        {
            "age": draw.integers(18, 90, n),
            "job": draw.choice(["admin.", "retired", "management"], n),
            "marital": draw.choice(["divorced", "married", "single"], n),
            "education": draw.choice(["primary", "secondary", "tertiary"], n),
            "default": pd.array(draw.integers(0, 2, n), dtype="Int64"),
            "balance": draw.integers(-900, 19_000, n),
            "housing": pd.array(housing, dtype="Int64"),
            "loan": pd.array(draw.integers(0, 2, n), dtype="Int64"),
            "contact": draw.choice(["cellular", "telephone"], n),
            "day": draw.integers(1, 32, n),
            "month": draw.choice(months, n),
            "campaign": draw.integers(1, 20, n),
            "pdays": pd.array([pd.NA] * (n - 1) + [30.0], dtype="Float64"),
            "previous": draw.integers(0, 9, n),
            "poutcome": draw.choice(["failure", "other", "success"], n),
            "subscribed": pd.array((draw.random(n) < 0.15 + 0.5 * housing).astype(int), dtype="Int64"),
            "group": np.resize([site.group for site in BANKS], n),
            "position": np.arange(n) * (TEST_POSITION * 5 // 4) // n,
        }
    )


def log_frame(groups: list[str]) -> pd.DataFrame:
    parts = []
    for site in SHOPS:
        if site.group in groups:
            assert site.window is not None
            draw = np.random.default_rng(len(site.id))
            n = 6 * ROWS
            start = pd.Timestamp(site.window.as_of) - pd.Timedelta(days=site.window.window_days)
            span = site.window.window_days + site.window.horizon_days
            days = pd.to_timedelta(draw.integers(0, span, n), unit="D")
            customers = [f"{site.group[:2]}{number:05d}" for number in (draw.random(n) ** 2 * ROWS).astype(int)]
            parts.append(
                pd.DataFrame(
                    {"customer": customers, "day": start + days, "amount": draw.random(n) * 50, "group": site.group}
                )
            )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def offline_data(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = demo.load_draft
    monkeypatch.setattr(demo, "PLANS", FEWER)
    monkeypatch.setattr(demo, "load_draft", lambda *where: whole(*where).model_copy(update={"rounds": 10}))
    monkeypatch.setattr(demo, "fetch", lambda cache, *, say: {})
    monkeypatch.setattr(datasets, "bank_full", lambda cache: bank_frame())
    monkeypatch.setattr(datasets, "cdnow", lambda cache: log_frame(["january", "february", "march"]))
    monkeypatch.setattr(datasets, "complete_journey", lambda cache: log_frame(["grocery"]))


def quiet() -> LiveView:
    return LiveView(Console(quiet=True))


@pytest.mark.usefixtures("offline_data")
def test_both_studies_run_to_their_end(tmp_path: Path) -> None:
    with quiet() as view:
        result = demo.run_demo(tmp_path / "demo", tmp_path / "cache", view)
    assert [study.name for study in result.studies] == ["propensity", "churn"]
    page = (tmp_path / "demo" / "report.html").read_text()
    for study, sites in zip(result.studies, (plan.sites for plan in FEWER), strict=True):
        assert [site.id for site in study.sites] == [site.id for site in sites]
        assert study.title in page
        assert study.sent > 0 and study.received > 0
        assert study.names is not None and study.names.rows
        for site, public in zip(study.sites, sites, strict=True):
            assert site.budget.granted == public.epsilon
            for spent in (site.budget.training, site.budget.holdout):
                assert 0.5 * public.epsilon < spent <= public.epsilon * (1 + 1e-9)
            for charged in (site.budget.charged_training, site.budget.charged_holdout):
                assert public.epsilon * 0.9 < charged <= site.budget.whole
            assert 0 < site.customers < ROWS
            assert site.tested > 0
            assert all(0.0 <= value <= 1.0 for value in (site.alone, site.federated, site.pooled))
    assert result.studies[0].mean("pooled") > 0.65  # housing decides; the reference finds it


@pytest.mark.usefixtures("offline_data")
def test_missing_configurations_are_told(tmp_path: Path) -> None:
    with quiet() as view, pytest.raises(StorageError) as caught:
        demo.run_demo(tmp_path / "demo", tmp_path / "cache", view, tmp_path / "nowhere")
    assert caught.value.code == "CSL-M122"
    assert not (tmp_path / "demo").exists()


def test_an_unfetched_set_stops_the_demo_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "fetch", lambda cache, *, say: {})
    with quiet() as view, pytest.raises(DataError) as caught:
        demo.run_demo(tmp_path / "demo", tmp_path / "cache", view)
    assert caught.value.code == "CSL-M110"
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (OfflineError("CSL-M102", "No way.", "Connect."), 7)]
)
def test_the_command_ends_with_the_right_code(
    error: BaseException, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(command, "run_demo", stop)
    assert dispatcher.run(["simulate", "demo", "--out", str(tmp_path)]) == code


def test_json_stands_alone_on_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.simulations.synthetic import demo_result

    monkeypatch.setattr(command, "run_demo", lambda *_: demo_result())
    result = CliRunner().invoke(command.app, ["demo", "--json", "--out", str(tmp_path)])
    told = json.loads(result.stdout)
    assert told["report"] == str(tmp_path / "report.html")
    assert [study["name"] for study in told["studies"]] == ["propensity", "churn"]


def test_help_teaches() -> None:
    result = CliRunner().invoke(command.app, ["demo", "--help"])
    for word in ("report.html", "differential privacy", "--cache", "--json"):
        assert word in result.output
