"""A federation of real processes: from a proposed study to the model in every vault."""

import pytest

from tests.client.vault_home import MEMBERS
from tests.e2e.deployed import deployed, draft

pytestmark = pytest.mark.e2e


def test_a_study_runs_from_the_proposal_to_the_model_in_every_vault(tmp_path):
    with deployed(tmp_path) as federation:
        federation.start_all()
        federation.begin(draft())
        federation.wait_finished("propensity")
        rounds = [item for item in federation.events("propensity") if item["event"] == "RoundDone"]
        assert [item["answered"] for item in rounds] == [list(MEMBERS)] * 8
        federation.assert_ledgers(studies=1, rounds=8)
        for member in MEMBERS:
            assert federation.kinds(member).count("release") == 9
            assert "refuse" not in federation.kinds(member)
