"""Campaigns at rest: members with their outcomes, and a record, each sealed under the vault's store key, in the folder `campaigns`.

Files are called `<name>-<last day of outcomes>.<what>`: a campaign ages from that day on. The record is written last and holds the
digest of the members' file: what does not fit it was interrupted. `.table.parquet` alone lies in clear (0600): it is what a study on
the campaign contract reads.
"""

import io
import re
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from client.campaign.draw import Member
from client.campaign.record import CampaignRecord
from client.consent import Excluded
from federation.encoding import sha256_hex
from federation.errors import IntegrityError, StorageError
from federation.files import atomic_write
from privacy.sealing import PRIVATE, read_sealed, write_sealed

FOLDER = "campaigns"
KIND = "campaign"
MEMBERS, RECORD, TABLE = ".members", ".json", ".table.parquet"
SUFFIXES = (MEMBERS, RECORD, TABLE)
_STEM = re.compile(r"(?P<name>[a-z][a-z0-9_]{0,47})-(?P<day>\d{4}-\d{2}-\d{2})")
_MEMBER_TYPES = {"decile": pa.int8(), "score": pa.float64()}
_MEMBER_COLUMNS = ("customer", "arm", "chosen_by", "decile", "segment", "score")
OUTCOME_COLUMNS = ("known", "conversion", "visit", "retained", "spend")
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of n members, in their order: bool `known` [n] (her row could be read, or she had none and so no outcome), and
    float64 [n] each: conversion, visit, retained (0 or 1) and spend; NaN is unknown."""

    known: NDArray[np.bool_]
    conversion: Floats
    visit: Floats
    retained: Floats
    spend: Floats

    def take(self, chosen: NDArray[np.bool_]) -> "Outcomes":
        """Return those of a boolean array [n]."""
        return Outcomes(
            self.known[chosen], self.conversion[chosen], self.visit[chosen], self.retained[chosen], self.spend[chosen]
        )


@dataclass(frozen=True, eq=False)
class Campaign:
    """A campaign, opened: its record, its members by identifier, and their outcomes once they are in."""

    stem: str
    record: CampaignRecord
    members: tuple[Member, ...]
    outcomes: Outcomes | None = None

    @property
    def name(self) -> str:
        """The campaign's name."""
        return self.record.design.name

    def without(self, excluded: Excluded | None) -> "Campaign":
        """Return the campaign without those who withdrew; its record says how many there were at the draw."""
        if excluded is None or not self.members:
            return self
        stay = ~excluded([member.customer for member in self.members])
        if stay.all():
            return self
        members = tuple(member for member, kept in zip(self.members, stay, strict=True) if kept)
        return replace(self, members=members, outcomes=None if self.outcomes is None else self.outcomes.take(stay))


def stem_of(name: str, day: date) -> str:
    """Return what a campaign's files are called; `day` is the last of its outcomes."""
    return f"{name}-{day.isoformat()}"


def name_of(stem: str) -> str:
    """Return the campaign's name out of what its files are called."""
    match = _STEM.fullmatch(stem)
    return match["name"] if match else stem


def called(stem: str) -> str:
    """Return what a campaign is called in the ledger."""
    return f"{KIND} {stem}"


def day_of(stem: str) -> date | None:
    """Return the last day on which a campaign's outcomes count, as its name says; None for a name that says none."""
    match = _STEM.fullmatch(stem)
    try:
        return date.fromisoformat(match["day"]) if match else None
    except ValueError:
        return None


def stems(folder: Path) -> list[str]:
    """Return the names of the campaigns in a folder whose record was written; needs no key."""
    found = {path.name.removesuffix(RECORD) for path in folder.iterdir() if path.name.endswith(RECORD)}
    return sorted(stem for stem in found if _STEM.fullmatch(stem))


def files_of(folder: Path, stem: str) -> tuple[Path, ...]:
    """Return the paths of a campaign's files that are there."""
    return tuple(path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").exists())


def write_campaign(folder: Path, campaign: Campaign, store_key: bytes) -> Campaign:
    """Seal and write a campaign, the record last, and return it with the digest that it now has; the same again replaces it.

    Raises
    ------
    StorageError
        CSL-F301 when a file cannot be written.
    """
    content = _rows_bytes(campaign)
    record = campaign.record.model_copy(update={"sha256": sha256_hex(content)})
    write_sealed(folder / f"{campaign.stem}{MEMBERS}", store_key, KIND, content)
    return write_record(folder, replace(campaign, record=record), store_key)


def write_record(folder: Path, campaign: Campaign, store_key: bytes) -> Campaign:
    """Seal and write a campaign's record alone. Raises as `write_campaign`."""
    content = campaign.record.model_dump_json(indent=2).encode()
    write_sealed(folder / f"{campaign.stem}{RECORD}", store_key, KIND, content)
    return campaign


def read_record(folder: Path, stem: str, store_key: bytes) -> CampaignRecord:
    """Open a campaign's record. Raises as `read_campaign`."""
    content = read_sealed(folder / f"{stem}{RECORD}", store_key, KIND)
    if content is None:
        raise _not_whole(stem)
    try:
        return CampaignRecord.model_validate_json(content)
    except ValidationError as error:
        raise _not_whole(stem) from error


def read_campaign(folder: Path, stem: str, store_key: bytes, *, whole: bool = True) -> Campaign:
    """Open a campaign; with `whole` false also one whose record was not written after its rows, by a command that writes it anew.

    Raises
    ------
    IntegrityError
        CSL-C785 when a file is missing or the record does not fit (its writing was interrupted); as `privacy.sealing.unseal`.
    StorageError
        CSL-P523 when a file cannot be read.
    """
    found, fits = _read(folder, stem, store_key)
    if whole and not fits:
        raise _not_whole(stem)
    return found


def stem_named(folder: Path, name: str) -> str:
    """Return what the files of the campaign of a name are called.

    Raises
    ------
    StorageError
        CSL-C780 when there is none.
    """
    for stem in stems(folder):
        if name_of(stem) == name:
            return stem
    raise StorageError("CSL-C780", f"There is no campaign {name}.", "See `consilience node campaign list`.")


def strip(folder: Path, stem: str, store_key: bytes, excluded: Excluded | None) -> int:
    """Rewrite a campaign without those who withdrew, and return how many members it lost; a table in clear loses them first.

    A rewriting that was interrupted is finished by the next one. Raises as `read_campaign`, and StorageError CSL-F301.
    """
    _strip_table(folder / f"{stem}{TABLE}", excluded)
    before, fits = _read(folder, stem, store_key)
    after = before.without(excluded)
    if after is not before or not fits:
        write_campaign(folder, after, store_key)
    return len(before.members) - len(after.members)


def _strip_table(path: Path, excluded: Excluded | None) -> None:
    if excluded is None or not path.exists():
        return
    table = pq.read_table(path)
    stay = ~excluded([str(customer) for customer in table["customer"].to_pylist()])
    if not stay.all():
        atomic_write(path, parquet_bytes(table.filter(pa.array(stay))), PRIVATE)


def _read(folder: Path, stem: str, store_key: bytes) -> tuple[Campaign, bool]:
    """Open a campaign, and say whether its rows are those of the record; outcomes count once the record speaks of them."""
    record = read_record(folder, stem, store_key)
    content = read_sealed(folder / f"{stem}{MEMBERS}", store_key, KIND)
    if content is None:
        raise _not_whole(stem)
    try:
        table = pq.read_table(io.BytesIO(content))
        members = tuple(Member(**row) for row in table.select(list(_MEMBER_COLUMNS)).to_pylist())
        outcomes = None
        if record.outcomes is not None:
            outcomes = Outcomes(**{name: table[name].to_numpy() for name in OUTCOME_COLUMNS})
    except (pa.ArrowException, TypeError, KeyError) as error:
        raise _not_whole(stem) from error
    return Campaign(stem, record, members, outcomes), sha256_hex(content) == record.sha256


def _rows_bytes(campaign: Campaign) -> bytes:
    columns: dict[str, object] = {
        name: [getattr(member, name) for member in campaign.members] for name in _MEMBER_COLUMNS
    }
    schema = [(name, _MEMBER_TYPES.get(name, pa.string())) for name in _MEMBER_COLUMNS]
    if campaign.outcomes is not None:
        columns |= {name: getattr(campaign.outcomes, name) for name in OUTCOME_COLUMNS}
        schema += [(name, pa.bool_() if name == "known" else pa.float64()) for name in OUTCOME_COLUMNS]
    return parquet_bytes(pa.table(columns, schema=pa.schema(schema)))


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file's bytes; equal tables give equal bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _not_whole(stem: str) -> IntegrityError:
    return IntegrityError(
        "CSL-C785",
        f"The campaign {stem} is not whole: its writing was interrupted.",
        "Run the interrupted command again (`node campaign outcomes`, `officer withdraw`), or restore the file from a copy.",
    )
