"""Charters with a link: what members sign when they are on machines of their own."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from federation.charter import Address, Charter, NodeKey, Pem, check_successor, split_address
from federation.errors import IntegrityError
from tests.founding_parts import authority_pem, charter, member, node_key_of


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda data: data.update(prev="0" * 64), "no predecessor"),
        (lambda data: data.update(version=2), "no predecessor"),
        (lambda data: data["members"][0].update(node_key=None), "node key of its own"),
        (lambda data: data["members"][0].update(node_key=data["members"][1]["node_key"]), "node key of its own"),
        (lambda data: data["members"][1].update(id="coordinator"), "no member may be called"),
        (lambda data: data["members"][0].update(title="Al\x1b[2Jder"), "title"),
        (lambda data: data["members"][0].update(title="Al\u202eder"), "title"),
        (lambda data: data["link"].update(app="xyz"), "app"),
        (lambda data: data["link"].update(address="host"), "address"),
    ],
)
def test_inconsistent_charters_with_a_link(change, part):
    data = charter("alder", "zelkova").model_dump(mode="json")
    assert Charter.model_validate_json(json.dumps(data)) == charter("alder", "zelkova")
    change(data)
    with pytest.raises(ValueError, match=part):
        Charter.model_validate_json(json.dumps(data))


def test_a_successor_follows_directly():
    first = charter()
    second = charter("alder", version=2, prev=first.digest())
    check_successor(first, second)
    third = charter("alder", version=3, prev=second.digest())
    for old, new in ((first, third), (second, first), (first, first), (second, second)):
        with pytest.raises(IntegrityError, match="CSL-F210"):
            check_successor(old, new)
    for changes in ({"prev": "0" * 64}, {"federation": "other"}):
        with pytest.raises(IntegrityError, match="CSL-F210"):
            check_successor(first, charter("alder", **({"version": 2, "prev": first.digest()} | changes)))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("coordinator.example.org:443", ("coordinator.example.org", 443)),
        ("127.0.0.1:18000", ("127.0.0.1", 18000)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_addresses(text, parts):
    assert split_address(TypeAdapter(Address).validate_python(text)) == parts


@pytest.mark.parametrize(
    "text", ["host:0", "host:65536", "host:99999", "Host:1", "a b:1", ":1", "host:", "http://h:1", "h:1/", "h:1\n"]
)
def test_what_is_no_address(text):
    with pytest.raises(ValidationError):
        TypeAdapter(Address).validate_python(text)


def test_a_node_key_is_a_point_in_its_one_spelling():
    key = node_key_of("alder")
    take = TypeAdapter(NodeKey).validate_python
    assert take(key) == key
    kind, body = key.split()
    blob = bytearray(base64.b64decode(body))
    blob[-1] ^= 1
    off_the_curve = f"{kind} {base64.b64encode(blob).decode()}"
    twin = f"{kind} {body[:-3]}{chr(ord(body[-3]) + 1)}=="  # the same bytes: the last digit has bits that count for nothing
    assert base64.b64decode(twin.split()[1]) == base64.b64decode(body)
    for other in (off_the_curve, twin, key + " a comment", f"{key}\n", f"{kind}  {body}", f"ssh-ed25519 {body}"):
        with pytest.raises(ValidationError):
            take(other)


def test_an_authority_is_one_certificate_that_may_issue(tmp_path):
    from server.certificates import create_authority, issue_server
    from tests.founding_parts import NOW

    take = TypeAdapter(Pem).validate_python
    assert take(authority_pem()) == authority_pem()
    authority = create_authority(tmp_path / "ca.key", tmp_path / "ca.pem", "test", NOW, allow_plain=True)
    issue_server(authority, ["localhost"], tmp_path / "s.key", tmp_path / "s.pem", "test", NOW)
    lines = authority_pem().split("\n")
    for text in (
        (tmp_path / "s.pem").read_text(),
        (tmp_path / "s.key").read_text(),
        authority_pem() * 2,
        "\n".join([lines[0], "".join(lines[1:3]), *lines[3:]]),
        "\n".join([lines[0], "AAAA", *lines[2:]]),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ):
        with pytest.raises(ValidationError):
            take(text)


@given(st.text(min_size=1, max_size=40))
def test_a_title_never_moves_a_cursor(title):
    from federation.charter import Member

    row = member("alder").model_dump() | {"title": title}
    if title.isprintable():
        assert Member.model_validate(row).title == title
    else:
        with pytest.raises(ValidationError):
            Member.model_validate(row)
