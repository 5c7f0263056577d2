"""Where customers stand and what they are worth, for `consilience node actions`: by delivered reports, or by a table of one's own."""

import sys
from pathlib import Path

import numpy as np

from client.home import Home
from client.node.segments import placed_customers, reports_of
from client.node.value import TERMS, read_terms, valued
from client.placed import LARGEST_FILE, Place, Placed, Placements, Worth, read_placements
from client.reports import FOLDER, Reports
from client.unlock import Keys
from federation.errors import DocumentError, StorageError

PIPE = Path("-")
_LIFETIME = "lifetime"
_NO_REPORT = frozenset({"CSL-C497", "CSL-C800"})


def standing(home: Home, keys: Keys, contract: str, table: Path | None) -> Placements:
    """Return segments, stages and worth of own customers, and what says so.

    Parameters
    ----------
    contract:
        That of the scores. Reports on it come before those on another: identifiers are the institution's, whatever the contract.
    table:
        A CSV table of one's own. Places or worth in it count instead of the reports; what it has no column for is taken from them.

    Raises
    ------
    DocumentError
        CSL-C767 when the table cannot be read, and as `read_placements`; as the reports' own commands when a report does not fit.
    """
    own = Placements() if table is None else read_placements(_content(table))
    placed, placed_by = (own.placed, own.placed_by) if own.placed_by else _by_reports(home, keys, contract)
    worth, worth_from = _lifetime(home, keys) if own.worth is None else (own.worth, own.worth_from)
    return Placements(placed, worth, placed_by, worth_from)


def _content(path: Path) -> bytes:
    try:
        if path == PIPE:
            return sys.stdin.buffer.read(LARGEST_FILE + 1)
        with path.open("rb") as handle:
            return handle.read(LARGEST_FILE + 1)
    except OSError as error:
        raise DocumentError(
            "CSL-C767", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error


def _by_reports(home: Home, keys: Keys, contract: str) -> tuple[Placed, str]:
    """Place customers by the newest reports with segments or stages; nobody where none was delivered."""
    for wanted in (contract, None):
        try:
            reports = reports_of(home, wanted)
        except StorageError as error:
            if error.code not in _NO_REPORT:
                raise
            continue
        found = placed_customers(home, keys, reports)
        rows = zip(found.ids, found.segment, found.stage, strict=True)
        placed = {str(customer): Place(str(segment), str(stage)) for customer, segment, stage in rows}
        return placed, f"report {', '.join(item.name for item in reports)}"
    return {}, ""


def _lifetime(home: Home, keys: Keys) -> tuple[Worth | None, str]:
    """Value customers by the newest report on lifetime value; None without a report, or without terms of one's own (tiers.yaml)."""
    if not (home.root / TERMS).exists():
        return None, ""
    terms = read_terms(home, None)
    try:
        found = Reports(home.folder(FOLDER)).newest(terms.contract, _LIFETIME)
    except StorageError as error:
        if error.code not in _NO_REPORT:
            raise
        return None, ""
    values = valued(home, keys, terms, found)
    rows = zip(values.ids, values.value, strict=True)
    worth = {str(customer): float(value) for customer, value in rows if np.isfinite(value)}
    return worth, f"lifetime value by report {found.report.name}, in {values.unit}"
