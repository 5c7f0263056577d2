"""The inbox: each study once, whole or not there, and never one that its name does not say."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from client import inbox as module
from client.inbox import Inbox, PendingStudy
from federation.errors import ConsilienceError
from federation.signing import public_hex, sign
from federation.study import CONTEXT, HashHoldout, StudyDraft, StudySpec, Training

KEY = Ed25519PrivateKey.generate()


def pending(name: str = "propensity", nonce: int = 0, received: int = 5, **changes: object) -> PendingStudy:
    spec = StudySpec(
        draft=StudyDraft(
            name=name,
            title="A study",
            purpose="marketing.propensity",
            contract="shop",
            holdout=HashHoldout(kind="hash", share=0.25),
            intended_use="Tests",
            limits="None",
        ),
        federation="test",
        charter="c" * 64,
        contract_digest="d" * 64,
        training=Training(mode="fedsgd", rounds=3, steps=3, sampling_rate=0.5),
        nonce=f"{nonce:032x}",
    )
    fields = {"policy": "e" * 64, "epsilon": 1.0, "delta": 1e-6, "received": received} | changes
    return PendingStudy(spec=spec, signature=sign(KEY, CONTEXT, spec), **fields)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("**/*") if path.is_file())


def test_what_is_kept_is_found_by_name_and_by_digest_and_is_closed_to_others(tmp_path):
    inbox, study = Inbox(tmp_path / "inbox"), pending()
    assert inbox.list() == ()
    inbox.keep(study)
    assert inbox.list() == (study,) == (inbox.find("propensity"),) and inbox.find(study.rid[:9]) == study
    path = tmp_path / "inbox" / f"{study.rid}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    study.check(public_hex(KEY))


def test_a_study_waits_since_it_first_came_whatever_is_offered_again(tmp_path):
    inbox = Inbox(tmp_path)
    inbox.keep(pending(received=5))
    inbox.keep(pending(received=9))
    inbox.keep(pending(received=11, policy="f" * 64, epsilon=2.0))
    (study,) = inbox.list()
    assert (study.received, study.policy, study.epsilon) == (5, "f" * 64, 2.0)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=12))
def test_the_list_holds_each_study_once_by_time(tmp_path_factory, offers):
    inbox = Inbox(tmp_path_factory.mktemp("inbox"))
    first: dict[int, int] = {}
    for nonce, received in offers:
        inbox.keep(pending(nonce=nonce, received=received))
        first.setdefault(nonce, received)
    assert [study.received for study in inbox.list()] == sorted(first.values())


def test_two_of_one_name_must_be_named_by_digest(tmp_path):
    inbox = Inbox(tmp_path)
    for nonce in (1, 2):
        inbox.keep(pending(nonce=nonce))
    with pytest.raises(ConsilienceError, match="CSL-C652"):
        inbox.find("propensity")
    for text in ("churn", ""):
        with pytest.raises(ConsilienceError, match="CSL-C651"):
            inbox.find(text)


def test_a_full_inbox_takes_no_more_but_what_waits_already(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    inbox = Inbox(tmp_path)
    for nonce in (1, 2):
        inbox.keep(pending(nonce=nonce))
    with pytest.raises(ConsilienceError, match="CSL-C650"):
        inbox.keep(pending(nonce=3))
    inbox.keep(pending(nonce=2, epsilon=0.5))
    inbox.remove(pending(nonce=1).rid)
    inbox.remove(pending(nonce=1).rid)
    inbox.keep(pending(nonce=3))
    assert len(inbox.list()) == 2


def test_a_declined_study_lies_aside(tmp_path):
    inbox, study = Inbox(tmp_path), pending()
    inbox.keep(study)
    inbox.decline(study.rid)
    assert inbox.list() == () and inbox.declined() == (study,) and files(tmp_path) == [f"{study.rid}.json"]
    inbox.decline("0" * 64)


@pytest.mark.parametrize("change", ["swap", "cut", "field", "space"])
def test_a_file_that_is_not_the_study_of_its_name_is_refused(tmp_path, change):
    inbox, study = Inbox(tmp_path), pending()
    inbox.keep(study)
    path = tmp_path / f"{study.rid}.json"
    content = path.read_bytes()
    altered = {
        "swap": pending(nonce=7).canonical(),
        "cut": content[:-1],
        "field": content.replace(b'"rounds":3', b'"rounds":9').replace(b'"steps":3', b'"steps":9'),
        "space": content + b" ",
    }
    path.write_bytes(altered[change])
    with pytest.raises(ConsilienceError, match="CSL-C654"):
        inbox.list()


def test_a_study_of_another_coordinator_is_refused():
    with pytest.raises(ConsilienceError, match="CSL-F201"):
        pending().check(public_hex(Ed25519PrivateKey.generate()))
    forged = pending().model_copy(update={"spec": pending(nonce=1).spec})
    with pytest.raises(ConsilienceError, match="CSL-F202"):
        forged.check(public_hex(KEY))
