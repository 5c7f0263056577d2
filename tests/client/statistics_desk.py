"""Statistics studies as tests of the officers' views need them: on the small contract of `vault_home`, and the policy's rule for them."""

from typing import Any

from client.inbox import Inbox, PendingStudy
from federation.signing import sign
from federation.statistics import StatisticsDraft, StatisticsPlan, StatisticsSpec
from federation.study import CONTEXT, SecurePlan
from tests.client.vault_home import CONTRACT, Town

RULE = {
    "contract": "shop",
    "purposes": ["marketing.propensity"],
    "max_epsilon": 1.0,
    "max_delta": 1.0e-5,
    "automatic_epsilon": 0.0,
}
QUERIES: list[dict[str, Any]] = [
    {"id": "by_job", "kind": "count", "title": "Who they are", "by": [{"column": "job"}]},
    {
        "id": "older_buyers",
        "kind": "mean",
        "of": "bought",
        "where": [{"column": "age", "ge": 60.0}],
        "accuracy": {"within": 0.05},
    },
]
YAML = """
kind: statistics
name: who
title: Who our customers are
purpose: marketing.propensity
contract: shop
epsilon: {epsilon}
queries:
  - {{id: by_job, kind: count, by: [{{column: job}}]}}
"""


def statistics(
    town: Town, epsilon: float | None = 1.0, secure: dict[str, Any] | None = None, rounds: int = 2, **changes: object
) -> StatisticsSpec:
    """Return a planned statistics study; `secure` holds noise, n_min and c."""
    aggregation = {} if secure is None else {"aggregation": "secure", **secure}
    fields = {
        "kind": "statistics",
        "name": "who",
        "title": "Who our customers are",
        "purpose": "marketing.propensity",
        "contract": "shop",
        "epsilon": epsilon,
        "queries": QUERIES,
    }
    draft = StatisticsDraft.model_validate(fields | aggregation | changes, strict=False)
    return StatisticsSpec(
        draft=draft,
        federation=town.charter.federation,
        charter=town.charter.digest(),
        contract_digest=CONTRACT.digest(),
        plan=StatisticsPlan(rounds=rounds, dimension=12, share=16_384.0),
        nonce="0" * 32,
        secure=None if secure is None else SecurePlan(share=16_384.0, **secure),
    )


def wait_for(town: Town, spec: StatisticsSpec, member: str = "alder") -> PendingStudy:
    """Put a statistics study into a member's inbox, as its vault does when officers must decide."""
    with town.ledger(member) as ledger:
        policy = ledger.state().policy_digest
    assert policy is not None
    study = PendingStudy(
        spec=spec,
        signature=sign(town.coordinator, CONTEXT, spec),
        policy=policy,
        epsilon=1.0 if spec.draft.epsilon is None else spec.draft.epsilon,
        delta=1e-5,
        received=1_700_000_000_000,
    )
    Inbox(town.homes[member].root / "inbox").keep(study)
    return study
