"""The sum that is being made, in a file beside the study's checkpoint.

Before anybody is asked, the offer is noted, so that a coordinator that was killed asks by a later attempt. Before the members are asked for
their mask keys, everything that opens the sum is written down, because whoever gave its keys takes part in no other attempt. The file is
safetensors, like the checkpoint: the statements as metadata, the vectors' sum as words beside them, and a digest over both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from federation.document import Document
from federation.encoding import sha256_hex
from federation.errors import ConsilienceError, StorageError
from federation.files import atomic_write
from federation.secure import SignedAck, SignedMasked, SignedReady, SumOffer
from federation.signing import Hex32
from privacy.secure_aggregation.coordinator import Collected, Gathered
from privacy.secure_aggregation.derivation import transcript
from privacy.secure_aggregation.masking import Words

_TOTAL = "total"
_ENTRY = "sum"


class SumRecord(Document):
    """What was said so far: the offer alone, or everything up to the acknowledgements."""

    offer: SumOffer
    readies: tuple[SignedReady, ...] = ()
    headers: tuple[SignedMasked, ...] = ()
    acks: tuple[SignedAck, ...] = ()
    sha256: Hex32 | None = Field(default=None)


class KeptSum:
    """A record with the sum of the masked vectors, which is empty while only the offer is noted."""

    def __init__(self, record: SumRecord, total: Words) -> None:
        self.record = record
        self._total = total

    @property
    def acknowledged(self) -> bool:
        """Whether the members may have been asked for their mask keys."""
        return bool(self.record.acks)

    def collected(self) -> Collected:
        """Return the masked vectors' sum with who is in it."""
        record = self.record
        t = transcript(record.offer, [item.message for item in record.readies])
        return Collected(Gathered(record.offer, record.readies, t), record.headers, self._total)


class SumStore:
    """The one file of a study."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, offer: SumOffer) -> None:
        """Keep an offer that is about to be made. Raises StorageError CSL-F301."""
        self._write(SumRecord(offer=offer), np.zeros(0, dtype=np.uint32))

    def keep(self, collected: Collected, acks: Sequence[SignedAck]) -> None:
        """Keep a sum that is about to be opened. Raises StorageError CSL-F301."""
        gathered = collected.gathered
        record = SumRecord(offer=gathered.offer, readies=gathered.readies, headers=collected.headers, acks=tuple(acks))
        self._write(record, collected.total)

    def load(self) -> KeptSum | None:
        """Return what is kept, or None.

        Raises
        ------
        StorageError
            CSL-S226 when the file is damaged or of another release.
        """
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="numpy") as handle:
                record = SumRecord.from_canonical((handle.metadata() or {})[_ENTRY].encode())
                total = cast(Words, handle.get_tensor(_TOTAL))
            if record.sha256 != _seal(record, total):
                raise ValueError("the digest differs")
            return KeptSum(record, total)
        except (SafetensorError, OSError, KeyError, ValueError, ConsilienceError) as error:
            raise StorageError(
                "CSL-S226",
                f"The file {self._path} is damaged or of another release.",
                "Restore it from a backup. Without it, delete it and run the study again: it goes on unless a vault has opened this sum "
                "already; then give the study up.",
            ) from error

    def clear(self) -> None:
        """Delete the file; none is no error."""
        self._path.unlink(missing_ok=True)

    def _write(self, record: SumRecord, total: Words) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        sealed = record.model_copy(update={"sha256": _seal(record, total)})
        atomic_write(self._path, save({_TOTAL: total}, metadata={_ENTRY: sealed.canonical().decode()}), mode=0o600)


def _seal(record: SumRecord, total: Words) -> str:
    said = record.model_copy(update={"sha256": None}).canonical()
    return sha256_hex(said + str(total.dtype).encode() + total.tobytes())
