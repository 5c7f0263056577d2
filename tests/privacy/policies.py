"""Policies with officers, and what officers sign: shared by the tests of policy, ledger and custody."""

import json
from copy import deepcopy
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.document import parse_yaml
from federation.signing import Signature, public_hex, sign
from privacy.ledger.entries import (
    APPROVAL_CONTEXT,
    RESTORE_CONTEXT,
    ApprovalStatement,
    ApproveData,
    RestoreData,
    RestoreStatement,
)
from privacy.policy import CONTEXT, Policy


def officer_key(name: str) -> Ed25519PrivateKey:
    """Return the key of an officer in tests, always the same one."""
    return Ed25519PrivateKey.from_private_bytes(f"officer {name}".encode().ljust(32, b"."))


FIRST, SECOND, THIRD = officer_key("first"), officer_key("second"), officer_key("third")

POLICY = f"""
institution: alder
version: 1
issued: 2026-01-01
expires: 2030-01-01
officers:
  - {{id: first, key: {public_hex(FIRST)}}}
  - {{id: second, key: {public_hex(SECOND)}}}
approval: {{eyes: 1}}
purposes:
  - {{id: marketing.churn, meaning: Keep customers, consent: profiling}}
contact_consent: contact
studies:
  - contract: shop
    purposes: [marketing.churn]
    models: [additive]
    modes: [fedsgd]
    max_epsilon: 1.0
    max_delta: 1.0e-6
    automatic_epsilon: 1.0
    holdout: {{kind: hash, share: 0.2}}
budget:
  mode: open
  unit: customer
  neighbours: add_or_remove_one
  period: {{days: 30, epsilon: 2.0, delta: 1.0e-6}}
  life: {{epsilon: 3.0, delta: 1.0e-6}}
smallest_cohort: 500
smallest_partners: 3
aggregation: plain
reply_grid_seconds: 1.0
retention: {{name_lists_days: 90, replies_days: 30, participation_days: 3650}}
"""


def policy_of(text: str = POLICY) -> Policy:
    """Parse a policy as its file is parsed."""
    return parse_yaml(text.encode(), Policy, "policy.yaml")


def policy(**changes: object) -> Policy:
    """Return the policy of the tests with other values: `a__b=value` stands for the field b of a; checked anew."""
    return _changed(policy_of().model_dump(mode="json"), changes)


def after(old: Policy, **changes: object) -> Policy:
    """Return the next version of a policy: `prev` and `version` follow, other changes as in `policy`."""
    fields = old.model_dump(mode="json")
    return _changed(fields | {"version": old.version + 1, "prev": old.digest()}, changes)


def _changed(fields: dict[str, Any], changes: dict[str, object]) -> Policy:
    for path, value in changes.items():
        *parents, name = path.split("__")
        target: Any = fields
        for parent in parents:
            target = target[int(parent)] if isinstance(target, list) else target[parent]
        target[name] = deepcopy(value)  # a later path may change what is inside
    return Policy.model_validate_json(json.dumps(fields))


def officers(**keys: Ed25519PrivateKey) -> list[dict[str, str]]:
    """Return officers as they stand in a policy, by id and key."""
    return [{"id": name, "key": public_hex(key)} for name, key in keys.items()]


def signed(document: Policy, *keys: Ed25519PrivateKey) -> tuple[Signature, ...]:
    """Return officers' signatures of a policy; of its first two officers unless keys are given."""
    return tuple(sign(key, CONTEXT, document) for key in keys or (FIRST, SECOND))


def decision(
    study: str,
    document: Policy,
    key: Ed25519PrivateKey = FIRST,
    *,
    decision: str = "approve",
    reason: str = "Worth it.",
) -> ApproveData:
    """Return an officer's signed decision about a study."""
    statement = ApprovalStatement(study=study, policy=document.digest(), decision=decision, reason=reason)
    return ApproveData(name="study", statement=statement, signature=sign(key, APPROVAL_CONTEXT, statement))


def restoration(
    member: str, size: int, root: str, *keys: Ed25519PrivateKey, complete: bool = False, note: str = ""
) -> RestoreData:
    """Return a restoration that officers signed; the first two unless keys are given."""
    statement = RestoreStatement(member=member, size=size, root=root, complete=complete, reason="The disk failed.")
    signatures = tuple(sign(key, RESTORE_CONTEXT, statement) for key in keys or (FIRST, SECOND))
    return RestoreData(statement=statement, signatures=signatures, note=note)
