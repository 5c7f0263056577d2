"""A certificate that expires while a study runs: open connections go on, new ones are refused by name, renewing it heals all."""

from datetime import UTC, datetime, timedelta

import pytest

from federation.errors import ExitCode
from server.certificates import SERVER_DAYS, issue_server, load_authority, read_certificate
from tests.client.vault_home import MEMBERS
from tests.e2e.deployed import COORDINATOR, Deployed, deployed, draft, wait_for
from tests.e2e.killing import check_budgets, check_model, last_started

pytestmark = pytest.mark.e2e
ALDER = MEMBERS[0]
NAME, EPSILON, ROUNDS, LASTS = "expiry", 0.3, 60, 75.0


def expire_soon(federation: Deployed, seconds: float) -> datetime:
    """Give the coordinator a certificate that is valid so much longer, and return when it ends."""
    office = federation.office
    authority = load_authority(office.authority_key, office.authority_file, allow_plain=True)
    begin = datetime.now(UTC) + timedelta(days=1, seconds=seconds) - timedelta(days=SERVER_DAYS)
    issue_server(authority, ["127.0.0.1", "localhost"], office.server_key, office.server_file, "test", begin)
    return read_certificate(office.server_file).not_valid_after_utc


def reason(federation: Deployed, member: str) -> str:
    return str(federation.state(member).get("supernode", {}).get("reason") or "")


def test_a_study_outlives_the_certificate_that_it_began_with(tmp_path):
    with deployed(tmp_path, epsilon=EPSILON) as federation:
        end = expire_soon(federation, LASTS)
        federation.start_all()
        federation.begin(draft(NAME, rounds=ROUNDS, deadline_seconds=20.0))
        federation.wait_event(NAME, "RoundDone")
        assert datetime.now(UTC) < end, "the study began before"
        wait_for(lambda: datetime.now(UTC) > end, "the certificate has expired", LASTS + 10)
        assert last_started(federation, NAME) < ROUNDS, "the study still runs"

        federation.kill(ALDER, "supernode")
        wait_for(lambda: "has expired" in reason(federation, ALDER), "the certificate is named as a reason")
        assert federation.stop(COORDINATOR) == 0
        refused = federation.coordinator("start", check=False)
        assert refused.returncode == ExitCode.INTEGRITY
        assert "CSL-S120" in refused.stderr and "certificate renew" in refused.stderr

        federation.coordinator("certificate", "renew")
        federation.start(COORDINATOR)
        federation.wait_up(COORDINATOR)
        federation.wait_finished(NAME, 300)
        rounds = [item for item in federation.events(NAME) if item["event"] == "RoundDone"]
        assert [item["round"] for item in rounds] == list(range(1, ROUNDS + 1))
        assert rounds[0]["answered"] == rounds[-1]["answered"] == list(MEMBERS)
        federation.assert_ledgers(studies=1, rounds=ROUNDS)
        check_budgets(federation, EPSILON)
        check_model(federation, NAME)
