import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mnemonic import Mnemonic

from federation.errors import DocumentError
from federation.words import is_digest_of, read_digest, rows_of, words_of

DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
DIGEST = hashlib.sha256(b"a charter").hexdigest()


def test_the_published_vectors():
    # BIP 39's reference vectors for 256 bits: all zeros, 7f.., 80.., all ones.
    assert words_of("00" * 32) == ("abandon",) * 23 + ("art",)
    assert words_of("ff" * 32) == ("zoo",) * 23 + ("vote",)
    eight = ("legal", "winner", "thank", "year", "wave", "sausage", "worth", "useful")
    assert words_of("7f" * 32) == (*eight, *eight, *eight[:7], "title")


@given(DIGESTS)
def test_words_rows_and_digits_read_back(digest):
    words = words_of(digest)
    assert len(words) == 24
    for text in (" ".join(words), "\n".join(rows_of(digest)), digest, digest.upper(), ", ".join(words).title()):
        assert read_digest(text) == digest and is_digest_of(text, digest)


@given(DIGESTS, DIGESTS)
def test_two_digests_never_share_their_words(one, other):
    assert (words_of(one) == words_of(other)) == (one == other)
    assert is_digest_of(" ".join(words_of(one)), other) == (one == other)


@given(DIGESTS, st.integers(0, 23), st.integers(0, 23))
def test_words_that_changed_places_never_pass_as_the_digest(digest, one, other):
    words = list(words_of(digest))
    words[one], words[other] = words[other], words[one]
    try:
        assert is_digest_of(" ".join(words), digest) == (words == list(words_of(digest)))
    except DocumentError as error:
        assert error.code == "CSL-F222"


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_by_a_code(text):
    try:
        assert len(read_digest(text)) == 64
    except DocumentError as error:
        assert error.code in ("CSL-F220", "CSL-F221", "CSL-F222")


def test_what_is_wrong_is_said():
    words = list(words_of(DIGEST))
    with pytest.raises(DocumentError, match=r"CSL-F220.*23 words"):
        read_digest(" ".join(words[:23]))
    with pytest.raises(DocumentError, match=r"CSL-F221.*Word 3, \"zebrra\".*\"zebra\""):
        read_digest(" ".join([*words[:2], "zebrra", *words[3:]]))
    with pytest.raises(DocumentError, match=r"CSL-F221.*Word 1"):
        read_digest(" ".join(["qqqqqqqq", *words[1:]]))
    book = Mnemonic("english").wordlist
    wrong = book[book.index(words[23]) ^ 1]
    with pytest.raises(DocumentError, match="CSL-F222"):
        read_digest(" ".join([*words[:23], wrong]))
    with pytest.raises(DocumentError, match="CSL-F220"):
        read_digest("00" * 31)


def test_rows_are_numbered_and_whole():
    rows = rows_of(DIGEST)
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4"]
    assert tuple(word for row in rows for word in row.split()[1:]) == words_of(DIGEST)
