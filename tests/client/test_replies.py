"""Kept replies: the same bytes again, or an error; never something else."""

import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from client.replies import KeptReply, Replies, request_digest
from federation.errors import IntegrityError
from federation.messages import RECORD

RID = "a" * 64
KEY = b"k" * 32
REPLY = KeptReply("b" * 64, b"header", b"s" * 64, b"payload")


@settings(max_examples=40)
@given(st.binary(max_size=40), st.binary(max_size=70), st.binary(max_size=200))
def test_what_is_kept_comes_back(tmp_path_factory, header, signature, payload):
    replies, reply = Replies(tmp_path_factory.mktemp("r"), KEY), KeptReply("b" * 64, header, signature, payload)
    replies.keep(RID, 3, reply)
    assert replies.find(RID, 3) == reply
    assert replies.find(RID, 4) is None and replies.find("c" * 64, 3) is None


def test_a_reply_cut_short_or_grown_is_damaged_and_never_sent(tmp_path):
    replies = Replies(tmp_path, KEY)
    replies.keep(RID, 1, REPLY)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o077 == 0
    whole = path.read_bytes()
    assert REPLY.payload not in whole
    for content in [whole[:end] for end in (0, 31, 60, 100, len(whole) - 1)] + [whole + b"x"]:
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match="CSL-C503"):
            replies.find(RID, 1)


def test_a_request_is_told_from_another_by_header_payload_and_where_they_meet():
    def digest(header: bytes, payload: bytes) -> str:
        return request_digest(
            RecordDict({RECORD: ConfigRecord({"header": header, "signature": b"", "payload": payload})})
        )

    assert len({digest(b"ab", b"c"), digest(b"a", b"bc"), digest(b"ab", b"d"), digest(b"ac", b"c")}) == 4
    assert digest(b"ab", b"c") == digest(b"ab", b"c")


def test_a_reply_of_another_number_or_under_another_key_is_never_sent(tmp_path):
    replies = Replies(tmp_path, KEY)
    replies.keep(RID, 1, REPLY)
    with pytest.raises(IntegrityError, match="CSL-C503"):
        Replies(tmp_path, b"j" * 32).find(RID, 1)
    (tmp_path / f"{RID}-1.reply").rename(tmp_path / f"{RID}-2.reply")
    with pytest.raises(IntegrityError, match="CSL-C503"):
        replies.find(RID, 2)
