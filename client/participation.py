"""Who took part in which study: sealed records of keyed tags, so that a later withdrawal can say which models saw a customer.

A tag says nothing without the store key, and the record is sealed besides. It is deleted when the policy's retention says so;
from then on participation is unknown, and reports say that.
"""

import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from client.home import Home
from client.tags import TAG_BYTES, join_tags, list_digest, split_tags, tags_of
from federation.errors import IntegrityError
from privacy.sealing import read_sealed, subkey, write_sealed

KIND = "participation"
SUFFIX = ".part"
_COUNTS = struct.Struct("<QQ")


@dataclass(frozen=True)
class Seen:
    """How many of some customers a study's data held: for training, and held out to evaluate it."""

    training: int
    heldout: int

    def __bool__(self) -> bool:
        """Return whether it held any."""
        return bool(self.training or self.heldout)


@dataclass(frozen=True)
class _Record:
    training: frozenset[bytes]
    heldout: frozenset[bytes]


def record(home: Home, store_key: bytes, rid: str, training: Iterable[str], heldout: Iterable[str]) -> None:
    """Write down whose data a study read, before anything is computed from them.

    A later reading of the same study (after a restart, or a withdrawal) adds to the record: whoever was ever read stays in it.

    Raises
    ------
    StorageError
        CSL-F301 when it cannot be written, CSL-P523 when the record before cannot be read.
    IntegrityError
        CSL-C546 and as `privacy.sealing.unseal` when the record before is damaged.
    """
    key = _key(store_key)
    new = _Record(tags_of(key, training), tags_of(key, heldout))
    before = _read(_path(home, rid), store_key)
    if before is not None:
        new = _Record(new.training | before.training, new.heldout | before.heldout)
        if new == before:
            return
    content = _COUNTS.pack(len(new.training), len(new.heldout)) + join_tags(new.training) + join_tags(new.heldout)
    write_sealed(_path(home, rid), store_key, KIND, content)


def consent_digest(store_key: bytes, consented: Iterable[str]) -> str:
    """Return the salted digest of a consent snapshot, which the ledger keeps: HMAC-SHA256 under a key of its own over the
    sorted identifiers of all who agreed to the purpose; 64 hexadecimal digits.

    Whoever holds the list and the store key can show later that this was the list; the digest alone tells nothing.
    """
    return list_digest(subkey(store_key, "consent digest"), consented)


def studies_of(home: Home, store_key: bytes, customers: Iterable[str]) -> dict[str, Seen]:
    """Return rid -> how many of the customers the study's data held, for every study whose record is still there.

    A study that held none of them is in it with zeros; one whose record was deleted is not in it. Raises as `record`.
    """
    tags = tags_of(_key(store_key), customers)
    found: dict[str, Seen] = {}
    for path in sorted(home.folder("participation").glob(f"*{SUFFIX}")):
        held = _read(path, store_key)
        if held is not None:
            found[path.stem] = Seen(len(held.training & tags), len(held.heldout & tags))
    return found


def recorded(home: Home) -> Collection[str]:
    """Return the rids of the studies whose record is there; needs no key."""
    return {path.stem for path in home.folder("participation").glob(f"*{SUFFIX}")}


def _key(store_key: bytes) -> bytes:
    return subkey(store_key, "participation")


def _path(home: Home, rid: str) -> Path:
    return home.folder("participation") / f"{rid}{SUFFIX}"


def _read(path: Path, store_key: bytes) -> _Record | None:
    content = read_sealed(path, store_key, KIND)
    if content is None:
        return None
    if len(content) < _COUNTS.size:
        raise _damaged(path)
    training, heldout = _COUNTS.unpack_from(content)
    tags = content[_COUNTS.size :]
    if len(tags) != (training + heldout) * TAG_BYTES:
        raise _damaged(path)
    cut = training * TAG_BYTES
    return _Record(split_tags(tags[:cut]), split_tags(tags[cut:]))


def _damaged(path: Path) -> IntegrityError:
    return IntegrityError(
        "CSL-C547", f"The participation record {path.name} is damaged.", "Restore it from the backup."
    )
