"""Kept replies: the same request again gets the same bytes, and spends nothing."""

import struct
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ConfigRecord, RecordDict

from federation.encoding import sha256_hex
from federation.errors import IntegrityError
from federation.messages import RECORD
from privacy.sealing import read_sealed, write_sealed

KIND = "reply"
SUFFIX = ".reply"
_LENGTHS = struct.Struct("<QQQQ")


@dataclass(frozen=True)
class KeptReply:
    """A reply as it was signed, with the digest of the request that it answers."""

    request: str
    header: bytes
    signature: bytes
    payload: bytes

    def records(self) -> RecordDict:
        """Return the reply as Flower carries it."""
        record = ConfigRecord({"header": self.header, "signature": self.signature, "payload": self.payload})
        return RecordDict({RECORD: record})


def request_digest(records: RecordDict) -> str:
    """Return the SHA-256 over a request's signed header and payload."""
    record = records[RECORD]
    assert isinstance(record, ConfigRecord)
    header, payload = record["header"], record["payload"]
    assert isinstance(header, bytes) and isinstance(payload, bytes)
    return sha256_hex(struct.pack("<Q", len(header)) + header + payload)


class Replies:
    """Replies by reservation and number, one sealed file each, written before the ledger's release entry."""

    def __init__(self, folder: Path, store_key: bytes) -> None:
        self._folder = folder
        self._key = store_key

    def find(self, rid: str, number: int) -> KeptReply | None:
        """Return the reply kept under (rid, number), or None.

        Raises
        ------
        IntegrityError
            CSL-C503 when the file is damaged, or sealed by another store key.
        StorageError
            CSL-P523 when it cannot be read.
        """
        try:
            content = read_sealed(self._path(rid, number), self._key, KIND)
        except IntegrityError as error:
            raise self._damaged(rid, number) from error
        if content is None:
            return None
        try:
            lengths = _LENGTHS.unpack_from(content)
        except struct.error as error:
            raise self._damaged(rid, number) from error
        if len(content) != _LENGTHS.size + sum(lengths):
            raise self._damaged(rid, number)
        parts, start = [], _LENGTHS.size
        for length in lengths:
            parts.append(content[start : start + length])
            start += length
        return KeptReply(parts[0].decode("ascii"), parts[1], parts[2], parts[3])

    def keep(self, rid: str, number: int, reply: KeptReply) -> None:
        """Write a reply durably, whole or not at all (0600)."""
        parts = (reply.request.encode("ascii"), reply.header, reply.signature, reply.payload)
        content = _LENGTHS.pack(*map(len, parts)) + b"".join(parts)
        write_sealed(self._path(rid, number), self._key, KIND, content)

    def _path(self, rid: str, number: int) -> Path:
        return self._folder / f"{rid}-{number}{SUFFIX}"

    def _damaged(self, rid: str, number: int) -> IntegrityError:
        return IntegrityError(
            "CSL-C503",
            f"The kept reply {number} of study {rid[:12]} is damaged, or sealed by another key.",
            "Restore the folder replies, and keys/store.key, from the last backup.",
        )


def kept(request: RecordDict, reply: RecordDict) -> KeptReply:
    """Return what is kept of a reply that was packed for a request."""
    record = reply[RECORD]
    assert isinstance(record, ConfigRecord)
    header, signature, payload = record["header"], record["signature"], record["payload"]
    assert isinstance(header, bytes) and isinstance(signature, bytes) and isinstance(payload, bytes)
    return KeptReply(request_digest(request), header, signature, payload)
