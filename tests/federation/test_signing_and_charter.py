import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from federation.charter import Charter, SealedCharter, open_charter, seal
from federation.errors import IntegrityError
from federation.signing import Signature, public_hex, sign_bytes, verify_bytes

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


@given(st.binary(max_size=200), st.integers(0, 10_000))
def test_any_changed_byte_breaks_the_signature(content, position):
    signature = sign_bytes(KEY, "csl1/test", content)
    verify_bytes(signature, "csl1/test", content, public_hex(KEY))
    altered = bytearray(content or b"\0")
    altered[position % len(altered)] ^= 1
    with pytest.raises(IntegrityError, match="CSL-F202"):
        verify_bytes(signature, "csl1/test", bytes(altered) if content else b"\1", public_hex(KEY))


def test_another_context_or_key_is_refused():
    signature = sign_bytes(KEY, "csl1/a", b"x")
    with pytest.raises(IntegrityError, match="CSL-F202"):
        verify_bytes(signature, "csl1/b", b"x", public_hex(KEY))
    with pytest.raises(IntegrityError, match="CSL-F201"):
        verify_bytes(signature, "csl1/a", b"x", public_hex(Ed25519PrivateKey.generate()))


def test_a_key_that_is_no_point_is_refused_not_crashed():
    signature = Signature(key="ff" * 32, value="00" * 64)
    with pytest.raises(IntegrityError, match="CSL-F202"):
        verify_bytes(signature, "csl1/a", b"x", "ff" * 32)


def test_a_sealed_charter_opens_with_its_digest_only(charter, keys, coordinator):
    sealed = seal(charter, keys, coordinator)
    assert open_charter(SealedCharter.from_canonical(sealed.canonical()), charter.digest()) == charter
    with pytest.raises(IntegrityError, match="CSL-F204"):
        open_charter(sealed, "0" * 64)


def test_a_charter_lacking_one_members_signature_is_refused(charter, keys, coordinator):
    sealed = seal(charter, keys, coordinator)
    with pytest.raises(IntegrityError, match="CSL-F204"):
        open_charter(SealedCharter(charter=charter, signatures=sealed.signatures[:-1]), charter.digest())


def test_a_charter_signed_by_a_stranger_is_refused(charter, keys, coordinator):
    forged = seal(charter, {**keys, "birch": Ed25519PrivateKey.generate()}, coordinator)
    with pytest.raises(IntegrityError, match="CSL-F201"):
        open_charter(forged, charter.digest())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda data: data["members"].reverse(), "sorted by id"),
        (lambda data: data["members"].append(data["members"][-1]), "sorted by id"),
        (lambda data: data["members"][0].update(key=data["coordinator_key"]), "key of its own"),
        (lambda data: data["contracts"].append(data["contracts"][0]), "pinned once"),
        (lambda data: data["members"][0]["declares"][0].update(contract="other"), "not pinned"),
        (lambda data: data["members"][0]["declares"][0].update(as_of="2020-01-01"), "stand together"),
        (lambda data: data["members"][0].update(key="xyz"), "key"),
    ],
)
def test_inconsistent_charters(charter, change, part):
    data = charter.model_dump(mode="json")
    change(data)
    with pytest.raises(ValueError, match=part):
        Charter.model_validate_json(__import__("json").dumps(data))


def test_look_ups(charter):
    assert charter.member("birch").declaration("shop").size == 1000
    assert charter.member("birch").declaration("other") is None
    assert charter.contract_digest("other") is None
    with pytest.raises(IntegrityError, match="CSL-F203"):
        charter.member("stranger")
