"""A digest as 24 words that two people read to each other over the telephone: the English word list of BIP 39.

256 bits and 8 bits of their SHA-256 as a checksum make 24 words of 11 bits each (BIP 39, "Generating the mnemonic"), so that a word
that was misheard is noticed before anything is compared. The words are no secret.
"""

import re
from difflib import get_close_matches

from mnemonic import Mnemonic

from federation.errors import DocumentError

COUNT = 24
A_ROW = 6
_HEX = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[^\W\d_]+")


def words_of(digest: str) -> tuple[str, ...]:
    """Return the 24 words of a SHA-256 digest (64 hexadecimal digits)."""
    return tuple(Mnemonic("english").to_mnemonic(bytes.fromhex(digest)).split())


def rows_of(digest: str) -> tuple[str, ...]:
    """Return the words as people read them out: four rows of six, each with its number in front."""
    words = words_of(digest)
    rows = [words[start : start + A_ROW] for start in range(0, COUNT, A_ROW)]
    return tuple(
        f"{number}  " + " ".join(f"{word:<9}" for word in row).rstrip() for number, row in enumerate(rows, start=1)
    )


def read_digest(text: str) -> str:
    """Return the digest (64 hexadecimal digits) that a person typed: as 24 words or as digits.

    Capitals, spaces, line ends, commas and the numbers in front of rows do not matter.

    Raises
    ------
    DocumentError
        CSL-F220 for neither 24 words nor 64 digits, CSL-F221 for a word that is not in the list, CSL-F222 when the words do not
        belong together.
    """
    small = text.lower()
    digits = "".join(small.split())
    if _HEX.fullmatch(digits):
        return digits
    words = _WORD.findall(small)
    if len(words) != COUNT:
        raise DocumentError(
            "CSL-F220",
            f"A charter's digest is {COUNT} words or 64 hexadecimal digits; this has {len(words)} words.",
            "Copy all four rows of `charter show`, in their order.",
        )
    return _from_words(words)


def _from_words(words: list[str]) -> str:
    book = Mnemonic("english")
    places = {word: place for place, word in enumerate(book.wordlist)}
    for number, word in enumerate(words, start=1):
        if word not in places:
            near = get_close_matches(word, book.wordlist, n=1)
            raise DocumentError(
                "CSL-F221",
                f'Word {number}, "{word[:16]}", is not in the list of words.',
                f'Is it "{near[0]}"? Ask for it again.' if near else "Ask for it again.",
            )
    if not book.check(" ".join(words)):
        raise DocumentError(
            "CSL-F222",
            "These words do not belong together: one is wrong, or two changed places.",
            "Let the other side read all four rows once more.",
        )
    return bytes(book.to_entropy(words)).hex()


def is_digest_of(text: str, digest: str) -> bool:
    """Return whether what a person typed (words or hexadecimal digits) is this digest. Raises as `read_digest` for what is neither."""
    return read_digest(text) == digest
