"""Vaults that allow statistics, and a coordinator that asks them."""

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict

from client.vault import Vault
from federation.answers import Answer, AnswerTable, MemberTerms, Row, StatisticsReport
from federation.encoding import sha256_hex
from federation.measures import BinsAxis, Cells, Factor, GroupsAxis, Term
from federation.messages import Offer, ReportDelivery, StatisticsGrant, StatisticsRequest, pack, unpack
from federation.signing import sign
from federation.statistics import StatisticsDraft, StatisticsPlan, StatisticsSpec
from federation.study import CONTEXT, SecurePlan
from tests.client import vault_home
from tests.client.vault_home import CONTRACT, Town

PURPOSE = "marketing.propensity"
RULE = {
    "contract": "shop",
    "purposes": [PURPOSE],
    "max_epsilon": 1.0,
    "max_delta": 1e-5,
    "automatic_epsilon": 1.0,
}
QUERIES = [
    {"id": "customers", "kind": "count", "by": [{"column": "job"}]},
    {"id": "age", "kind": "mean", "of": "age"},
]
SHARE = 16_384.0


def found(root: Path) -> Town:
    town = vault_home.found(root)
    for member in vault_home.MEMBERS:
        town.change(member, statistics=[RULE])
    return town


def draft(**changes: object) -> StatisticsDraft:
    tree = {
        "kind": "statistics",
        "name": "people",
        "title": "Who they are",
        "purpose": PURPOSE,
        "contract": "shop",
        "queries": QUERIES,
    } | changes
    return StatisticsDraft.model_validate_json(json.dumps(tree))


def spec(town: Town, rounds: int = 2, secure: SecurePlan | None = None, **changes: object) -> StatisticsSpec:
    return StatisticsSpec(
        draft=draft(**changes),
        federation=town.charter.federation,
        charter=town.charter.digest(),
        contract_digest=CONTRACT.digest(),
        plan=StatisticsPlan(rounds=rounds, dimension=1000, share=SHARE),
        nonce="0" * 32,
        secure=secure,
    )


def offer(town: Town, asked: StatisticsSpec, key: Ed25519PrivateKey | None = None) -> RecordDict:
    signer = key or town.coordinator
    return pack(signer, Offer(spec=asked, spec_signature=sign(signer, CONTEXT, asked)))


def grant(town: Town, vault: Vault, asked: StatisticsSpec) -> StatisticsGrant:
    return unpack(vault.answer("query.offer", offer(town, asked)), StatisticsGrant, town.key(vault.member))[0]


def by_job(cap: int) -> Cells:
    return Cells(axes=(GroupsAxis(column="job"),), terms=(Term(cap=cap),))


def of_age(cap: int) -> Cells:
    return Cells(axes=(BinsAxis(column="age", cuts=(40.0,)),), terms=(Term(cap=cap), Term(factors=(age(),), cap=cap)))


def age() -> Factor:
    return Factor(column="age", low=18.0, high=90.0)


def request(town: Town, asked: StatisticsSpec, number: int, *measures: Cells) -> RecordDict:
    return pack(town.coordinator, StatisticsRequest(study=asked.digest(), round=number, measures=measures))


def report(asked: StatisticsSpec, **changes: object) -> StatisticsReport:
    table = AnswerTable(name="customers", title="Customers", unit="customers", rows=(Row(key=(), value=1.0),))
    fields: dict[str, object] = {
        "study": asked.digest(),
        "name": asked.draft.name,
        "title": asked.draft.title,
        "purpose": asked.draft.purpose,
        "contract": asked.draft.contract,
        "aggregation": asked.draft.aggregation,
        "noise": asked.draft.noise,
        "confidence": 0.95,
        "rounds": asked.plan.rounds,
        "members": (MemberTerms(member="alder", declared_size=400, epsilon=1.0, delta=1e-5, rounds=2),),
        "answers": (Answer(id="customers", kind="count", title="Customers", tables=(table,)),),
    }
    return StatisticsReport(**(fields | changes))  # type: ignore[arg-type]


def delivery(town: Town, asked: StatisticsSpec, said: StatisticsReport) -> RecordDict:
    content = said.canonical()
    return pack(town.coordinator, ReportDelivery(study=asked.digest(), payload=sha256_hex(content)), content)
