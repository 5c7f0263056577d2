"""Scorings at rest: what every customer's score was, and what each feature added to it, so that the next scoring can say what changed.

One sealed file for each contract, purpose, day and model in `scorings/`; the same again replaces it. It holds no identifiers, only the
keyed tags of the withdrawal register: customers can be matched by the vault, and whoever withdraws is found and taken out. The policy's
retention of name lists holds for it as well.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from client.calibration import Floats
from client.home import Home
from client.scores import Scores
from client.tags import TAG_BYTES, tag
from client.withdrawal import Withdrawals
from federation.contract import Name
from federation.document import Document
from federation.errors import ConsilienceError, IntegrityError
from federation.signing import Hex32
from federation.study import Purpose
from privacy.sealing import read_sealed, write_sealed

KIND = "scoring"
FOLDER = "scorings"
SUFFIX = ".scores"
_STEM = re.compile(r"(?P<of>[a-z][a-z0-9_]*-[a-z][a-z0-9_.]*)-(?P<date>\d{4}-\d{2}-\d{2})-[0-9a-f]{8}", re.ASCII)
_RECORD = b"consilience"


class ScoringRecord(Document):
    """Where a scoring came from. `base` is what the calibrated logit is with no feature counted, None for models without terms."""

    format: Literal["consilience-scoring-1"] = "consilience-scoring-1"
    study: Name
    contract: Name
    contract_sha256: Hex32
    purpose: Purpose
    model: Hex32
    written: str
    exact: bool
    base: float | None
    columns: Annotated[tuple[Name, ...], Field(min_length=1, max_length=500)]

    @property
    def stem(self) -> str:
        """The name of its file, without the ending."""
        return f"{self.contract}-{self.purpose}-{self.written[:10]}-{self.model[:8]}"


@dataclass(frozen=True, eq=False)
class Scoring:
    """One scoring of n customers: tags [n]; calibrated `probability` and `decile` [n]; `terms` float32 [n, columns].

    A term is what a column adds to the calibrated logit: with `base` all terms add up to it where the record says `exact`; else it is the
    movement by occlusion.
    """

    record: ScoringRecord
    tags: tuple[bytes, ...]
    probability: Floats
    decile: NDArray[np.int64]
    terms: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        scores: Scores,
        decile: NDArray[np.int64],
        tag_key: bytes,
        *,
        study: str,
        purpose: str,
        model: str,
        when: datetime,
    ) -> "Scoring":
        """Describe a scoring, in the cohort's order.

        Parameters
        ----------
        scores, decile:
            The scored customers, and each one's tenth [n].
        tag_key:
            The key of the withdrawal register's tags.
        study, purpose, model:
            The study's name, its purpose, and the digest of the model.
        when:
            The time of the scoring; its day is that of the file.
        """
        calibration = scores.calibration
        average = np.asarray(scores.average or np.zeros(len(scores.contract.columns)))
        base = None
        if scores.exact:
            centre = float(scores.logit.mean() - average.sum()) if len(scores) else 0.0
            base = calibration.intercept + calibration.slope * centre
        record = ScoringRecord(
            study=study,
            contract=scores.contract.name,
            contract_sha256=scores.contract.digest(),
            purpose=purpose,
            model=model,
            written=when.isoformat(timespec="seconds"),
            exact=scores.exact,
            base=base,
            columns=tuple(column.name for column in scores.contract.columns),
        )
        tags = tuple(tag(tag_key, str(customer)) for customer in scores.cohort.ids)
        terms = (calibration.slope * (scores.movement + average)).astype(np.float32)
        return cls(record, tags, scores.probability, decile, terms)

    def without(self, gone: frozenset[bytes]) -> "Scoring":
        """Return the scoring without the customers of these tags."""
        kept = np.array([item not in gone for item in self.tags], dtype=bool)
        if kept.all():
            return self
        tags = tuple(item for item, stays in zip(self.tags, kept, strict=True) if stays)
        return Scoring(self.record, tags, self.probability[kept], self.decile[kept], self.terms[kept])


def keep(home: Home, store_key: bytes, scoring: Scoring, withdrawn: Withdrawals) -> Path:
    """Seal and write a scoring, and return its file; whoever withdrew while it was made is taken out of it.

    The register is looked at again after the writing, as for a name list: one side or the other takes her out.

    Raises
    ------
    StorageError
        CSL-F301 when it cannot be written.
    """
    path = home.folder(FOLDER) / f"{scoring.record.stem}{SUFFIX}"
    write_sealed(path, store_key, KIND, _encode(scoring))
    now = Withdrawals.load(home, store_key)
    if now.version != withdrawn.version:
        write_sealed(path, store_key, KIND, _encode(scoring.without(now.tags)))
    return path


def previous(
    home: Home, store_key: bytes, record: ScoringRecord, withdrawn: Withdrawals, until: date | None = None
) -> Scoring | None:
    """Open the newest scoring of the same contract and purpose that another day or another model made; None where there is none.

    Parameters
    ----------
    record:
        The scoring that is compared.
    withdrawn:
        Whose customers are left out.
    until:
        The last day to look at; all days otherwise.

    Raises
    ------
    IntegrityError
        CSL-C765 when it is damaged; as `privacy.sealing.unseal`.
    StorageError
        CSL-P523 when it cannot be read.
    """
    of = f"{record.contract}-{record.purpose}"
    days = [
        (day, path)
        for path in files(home)
        if (match := _STEM.fullmatch(path.stem)) and match["of"] == of and path.stem != record.stem
        if (day := day_of(path.stem)) is not None and (until is None or day <= until)
    ]
    newest = max((day for day, _ in days), default=None)
    found = [_read(path, store_key) for day, path in days if day == newest]
    last = max(found, key=lambda item: item.record.written, default=None)
    return None if last is None else last.without(withdrawn.tags)


def forget(home: Home, store_key: bytes, withdrawn: Withdrawals) -> list[str]:
    """Take whoever withdrew out of every scoring, and return the names of those for which it failed: one must not keep the others."""
    failed: list[str] = []
    for path in files(home):
        try:
            before = _read(path, store_key)
            after = before.without(withdrawn.tags)
            if after is not before:
                write_sealed(path, store_key, KIND, _encode(after))
        except ConsilienceError:
            failed.append(path.stem)
    return failed


def files(home: Home) -> list[Path]:
    """Return the files of all scorings, by name; needs no key."""
    found = home.folder(FOLDER).glob(f"*{SUFFIX}")
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and _STEM.fullmatch(path.stem))


def called(stem: str) -> str:
    """Return what a scoring is called in the ledger."""
    return f"{KIND} {stem}"


def day_of(stem: str) -> date | None:
    """Return the day (UTC) of a scoring, as its name says; None for a name that says none."""
    match = _STEM.fullmatch(stem)
    try:
        return date.fromisoformat(match["date"]) if match else None
    except ValueError:
        return None


def _encode(scoring: Scoring) -> bytes:
    """Return a scoring as Parquet with its record in the metadata, in the order of the tags: nothing of the table's order is left."""
    order = sorted(range(len(scoring.tags)), key=scoring.tags.__getitem__)
    tags = pa.array([scoring.tags[row] for row in order], type=pa.binary(TAG_BYTES))
    columns = {"tag": tags, "probability": scoring.probability[order], "decile": scoring.decile[order].astype(np.int8)}
    terms = {f"term_{place}": scoring.terms[order, place] for place in range(scoring.terms.shape[1])}
    table = pa.table({**columns, **terms}).replace_schema_metadata({_RECORD: scoring.record.canonical()})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _read(path: Path, store_key: bytes) -> Scoring:
    content = read_sealed(path, store_key, KIND)
    try:
        return _decode(content or b"")
    except (ValidationError, pa.ArrowException, KeyError, TypeError) as error:
        raise IntegrityError(
            "CSL-C765",
            f"The kept scoring {path.stem} is damaged.",
            f"Delete {path}: the next scoring is then compared with the one before it.",
        ) from error


def _decode(content: bytes) -> Scoring:
    table = pq.read_table(io.BytesIO(content))
    record = ScoringRecord.model_validate_json((table.schema.metadata or {})[_RECORD])
    terms = list(_floats(table, len(record.columns)))
    return Scoring(
        record,
        tuple(table["tag"].to_pylist()),
        table["probability"].to_numpy(),
        table["decile"].to_numpy().astype(np.int64),
        np.stack(terms, axis=1).astype(np.float32),
    )


def _floats(table: pa.Table, count: int) -> Iterator[NDArray[np.float32]]:
    for place in range(count):
        yield table[f"term_{place}"].to_numpy()
