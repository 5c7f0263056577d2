import json
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.cohort import load_cohort
from client.config import load_node
from client.home import Home
from client.policy_files import read_signatures
from client.unlock import unlock
from client.vault import Vault
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import StorageError
from federation.signing import public_hex
from federation.study import StudyDraft
from privacy.keys import load_identity
from privacy.ledger import LedgerReader, verify
from privacy.ledger.authority import check_authority
from privacy.policy import Policy
from simulations.datasets import consent
from simulations.institutions import Federation, Founding, found, policy
from simulations.sites import BANKS, SHOPS, TEST_POSITION, Site

CONFIGS = Path(__file__).parents[2] / "configs"
BANK_CONTRACT = load_yaml(CONFIGS / "contracts" / "bank_campaign.yaml", FeatureContract)
RFM = load_yaml(CONFIGS / "contracts" / "rfm.yaml", FeatureContract)
PROPENSITY = load_yaml(CONFIGS / "studies" / "propensity.yaml", StudyDraft)
CHURN = load_yaml(CONFIGS / "studies" / "churn.yaml", StudyDraft)
ROWS = 60


def bank_rows(site: Site) -> pd.DataFrame:
    draw = np.random.default_rng(7)
    months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
    frame = pd.DataFrame(
        {
            "customer": [f"K{number:04d}" for number in range(ROWS)],
            "age": draw.integers(18, 90, ROWS),
            "job": draw.choice(["admin.", "retired", None], ROWS),
            "marital": draw.choice(["divorced", "married", "single"], ROWS),
            "education": draw.choice(["primary", "secondary", None], ROWS),
            "default": pd.array(draw.integers(0, 2, ROWS), dtype="Int64"),
            "balance": draw.integers(-900, 19_000, ROWS),
            "housing": pd.array(draw.integers(0, 2, ROWS), dtype="Int64"),
            "loan": pd.array(draw.integers(0, 2, ROWS), dtype="Int64"),
            "contact": draw.choice(["cellular", "telephone", None], ROWS),
            "day": draw.integers(1, 32, ROWS),
            "month": draw.choice(months, ROWS),
            "campaign": draw.integers(1, 20, ROWS),
            "pdays": pd.array([pd.NA if number % 3 else number * 2 for number in range(ROWS)], dtype="Float64"),
            "previous": draw.integers(0, 9, ROWS),
            "poutcome": draw.choice(["failure", "other", "success", None], ROWS),
            "subscribed": pd.array(draw.integers(0, 2, ROWS), dtype="Int64"),
            "position": np.arange(ROWS) * (TEST_POSITION // 40),
        }
    )
    return frame.drop(columns=list(site.lacks))


def shop_rows(site: Site) -> pd.DataFrame:
    assert site.window is not None
    draw = np.random.default_rng(11)
    start = pd.Timestamp(site.window.as_of) - pd.Timedelta(days=site.window.window_days)
    days = draw.integers(0, site.window.window_days, 4 * ROWS)
    frame = pd.DataFrame(
        {
            "customer": [f"{number % ROWS:05d}" for number in range(4 * ROWS)],
            "day": start + pd.to_timedelta(days, unit="D"),
            "amount": draw.integers(1, 9_000, 4 * ROWS) / 100,
        }
    )
    frame["category"] = draw.choice(["DELI", "GROCERY"], 4 * ROWS)
    return frame


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    banks = [site for site in BANKS if site.id in {"bank_offices", "bank_retired", "bank_workers"}]
    foundings = [Founding(site, bank_rows(site), BANK_CONTRACT, PROPENSITY) for site in banks]
    foundings += [Founding(site, shop_rows(site), RFM, CHURN) for site in SHOPS]
    assert {site.style for site in banks} == {"csv", "parquet", "sqlite"} == {site.style for site in SHOPS}
    return found(tmp_path_factory.mktemp("sim") / "federation", foundings)


@pytest.mark.parametrize("member", ["bank_offices", "bank_retired", "bank_workers"])
def test_what_a_bank_wrote_in_its_own_way_is_read_back_by_its_mapping(federation: Federation, member: str) -> None:
    site = next(item for item in BANKS if item.id == member)
    home = federation.homes[member]
    declaration = federation.charter.member(member).declaration("bank_campaign")
    assert declaration is not None
    cohort, findings = load_cohort(load_node(home.node_file), BANK_CONTRACT, declaration, "profiling", "learn")
    rows = bank_rows(site)
    agreed = consent(rows["customer"], site)
    expected = (
        rows[rows["customer"].isin(agreed["customer"][agreed["profiling"]])].set_index("customer").loc[cohort.ids]
    )
    assert len(cohort) == len(expected) == int(agreed["profiling"].sum())
    for column in BANK_CONTRACT.columns:
        got, want = cohort.columns[column.name], expected[column.name]
        if column.kind == "categorical":
            codes = want.map({name: code for code, name in enumerate(column.categories)}).fillna(-1)
            np.testing.assert_array_equal(got, codes.to_numpy(np.int64))
        else:
            np.testing.assert_allclose(got, want.astype("Float64").to_numpy(np.float64, na_value=np.nan))
    assert cohort.label is not None and cohort.position is not None
    np.testing.assert_array_equal(cohort.label, expected["subscribed"].to_numpy(np.float64))
    np.testing.assert_array_equal(cohort.position, expected["position"])
    assert not [item for item in findings.items if item.severity != "note"]


@pytest.mark.parametrize("site", SHOPS, ids=lambda site: site.id)
def test_logs_in_three_formats_give_the_same_features(federation: Federation, site: Site) -> None:
    home = federation.homes[site.id]
    declaration = federation.charter.member(site.id).declaration("rfm")
    assert declaration is not None and site.window is not None
    cohort, findings = load_cohort(load_node(home.node_file), RFM, declaration, "profiling", "learn")
    rows = shop_rows(site)
    totals = rows.groupby(["customer", "day"])["amount"].sum().groupby("customer").mean()
    want = totals.loc[cohort.ids] / site.window.typical_purchase
    np.testing.assert_allclose(cohort.columns["monetary"], want.to_numpy(), rtol=1e-9)
    assert not [item for item in findings.items if item.severity != "note"]


def test_a_vault_opens_on_every_home(federation: Federation) -> None:
    for member, home in federation.homes.items():
        vault = Vault.open(home.root, unlock(home))
        assert vault.member == member
        for key in (home.identity_key, home.holdout_key, home.store_key):
            assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_every_policy_is_in_force_signed_by_two_officers_and_lets_its_study_through(federation: Federation) -> None:
    for member, home in federation.homes.items():
        key = federation.charter.member(member).key
        assert verify(home.ledger_file, key).valid
        with LedgerReader.read(home.ledger_file, key) as ledger:
            policy_in_force = ledger.policy()
        written = load_yaml(home.policy_file, Policy)
        signatures = read_signatures(home.policy_file, written)
        assert policy_in_force == written
        check_authority(None, written, signatures)
        assert {item.key for item in signatures} == {officer.key for officer in written.officers}
        assert len(written.officers) == 2 and written.studies[0].automatic_epsilon == written.studies[0].max_epsilon
        for officer in written.officers:
            path = federation.root / "officers" / f"{member}-{officer.id}.key"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert public_hex(load_identity(path, use="officer", allow_plain=True)) == officer.key


def test_the_charter_declares_public_round_numbers(federation: Federation) -> None:
    assert [member.id for member in federation.charter.members] == sorted(federation.homes)
    for member in federation.charter.members:
        assert member.declares[0].size % 100 == 0
    root = federation.root / "coordinator"
    assert Home(root).charter() == federation.charter


def test_documents_say_that_consent_is_simulated(federation: Federation) -> None:
    for home in federation.homes.values():
        for path in (home.node_file, home.policy_file):
            assert "Consent is simulated" in path.read_text().splitlines()[0]


def test_a_simulation_replaces_its_own_folder_and_no_other(tmp_path: Path) -> None:
    site = BANKS[0]
    founding = Founding(site, bank_rows(site), BANK_CONTRACT, PROPENSITY)
    first = found(tmp_path / "federation", [founding])
    (tmp_path / "federation" / "left-over").write_text("old")
    second = found(tmp_path / "federation", [founding])
    assert first.charter.digest() != second.charter.digest()
    assert not (tmp_path / "federation" / "left-over").exists()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("mine")
    with pytest.raises(StorageError) as caught:
        found(tmp_path / "foreign", [founding])
    assert caught.value.code == "CSL-M120"
    assert (tmp_path / "foreign" / "letter.txt").read_text() == "mine"


@given(size=st.integers(1, 10**7))
def test_delta_stays_below_its_limit_and_close_to_it(size: int) -> None:
    delta = replace(BANKS[0], size=size).delta
    assert delta <= 1 / (100 * size)
    assert delta >= 0.9 / (100 * size)


@pytest.mark.parametrize("site", [*BANKS, *SHOPS], ids=lambda site: site.id)
def test_every_policy_is_valid_and_differs_in_epsilon(site: Site) -> None:
    draft = CHURN if site.window else PROPENSITY
    document = policy(site, draft, ["1" * 64, "2" * 64])
    assert 1.0 <= document.studies[0].max_epsilon <= 4.0
    assert document.studies[0].holdout == draft.holdout
    assert json.loads(document.canonical())["institution"] == site.id
    assert len({item.epsilon for item in BANKS}) > 3
    assert len({(item.learns, item.contacts) for item in (*BANKS, *SHOPS)}) == len(BANKS) + len(SHOPS)
