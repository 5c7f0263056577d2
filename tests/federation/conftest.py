import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.charter import Charter, Declaration, Member, PinnedContract
from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from federation.signing import public_hex
from federation.study import HashHoldout, StudyDraft, StudySpec, Training


def key_of(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"."))


@pytest.fixture
def contract() -> FeatureContract:
    return FeatureContract(
        name="shop",
        version=1,
        title="A small contract",
        source="table",
        columns=(
            NumericColumn(kind="numeric", name="age", meaning="Age", unit="years", low=18, high=90, knots=(18, 40, 90)),
            CategoricalColumn(kind="categorical", name="job", meaning="Job", categories=("clerk", "farmer")),
            FlagColumn(kind="flag", name="loan", meaning="Has a loan", required=False),
        ),
        label=Label(name="bought", meaning="Bought within a month"),
    )


@pytest.fixture
def keys() -> dict[str, Ed25519PrivateKey]:
    return {name: key_of(name) for name in ("alder", "birch", "cedar")}


@pytest.fixture
def coordinator() -> Ed25519PrivateKey:
    return key_of("coordinator")


@pytest.fixture
def charter(contract, keys, coordinator) -> Charter:
    members = tuple(
        Member(id=name, title=name.title(), key=public_hex(key), declares=(Declaration(contract="shop", size=1000),))
        for name, key in sorted(keys.items())
    )
    return Charter(
        federation="test",
        version=1,
        coordinator_key=public_hex(coordinator),
        members=members,
        contracts=(PinnedContract(name="shop", sha256=contract.digest()),),
    )


@pytest.fixture
def spec(charter, contract) -> StudySpec:
    draft = StudyDraft(
        name="lapse",
        title="A study",
        purpose="marketing.churn",
        contract="shop",
        holdout=HashHoldout(kind="hash", share=0.2),
        intended_use="Tests",
        limits="None",
    )
    return StudySpec(
        draft=draft,
        federation="test",
        charter=charter.digest(),
        contract_digest=contract.digest(),
        training=Training(mode="fedsgd", rounds=10, steps=10, sampling_rate=0.3),
        nonce="0" * 32,
    )
