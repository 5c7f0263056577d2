"""Findings: every violation with a code, a place and a count, never a value; shown at the institution only."""

from dataclasses import dataclass, field
from typing import Literal

from federation.errors import DataError

Severity = Literal["fault", "dropped", "note"]

TITLES = {
    "CSL-C101": "source cannot be opened",
    "CSL-C102": "mapped column is not in the source",
    "CSL-C103": "required column is not mapped",
    "CSL-C104": "mapping names a column that the contract does not have",
    "CSL-C105": "mapping does not fit the kind of column",
    "CSL-C106": "unit mismatch",
    "CSL-C107": "label leaks into the features",
    "CSL-C108": "duplicate customers",
    "CSL-C109": "empty cohort",
    "CSL-C110": "label is not known yet",
    "CSL-C111": "contract is not mapped",
    "CSL-C112": "contract needs another kind of mapping",
    "CSL-C113": "no consent can be read",
    "CSL-C114": "source cannot be read to its end",
    "CSL-C115": "database cannot be read",
    "CSL-C116": "feature has no formula",
    "CSL-C117": "declaration lacks its dates",
    "CSL-C118": "wrong type",
    "CSL-C119": "mapping leads to a category that the contract does not have",
    "CSL-C120": "position is not mapped",
    "CSL-C121": "label is not mapped",
    "CSL-C122": "rows to score are not mapped",
    "CSL-C123": "not enough memory",
    "CSL-C201": "row without a customer",
    "CSL-C202": "not a number",
    "CSL-C203": "NaN, infinite or beyond 1e15",
    "CSL-C204": "date that does not parse",
    "CSL-C205": "label neither yes nor no",
    "CSL-C206": "negative amount: a return, not a purchase",
    "CSL-C207": "category outside the vocabulary, taken as unknown",
    "CSL-C208": "flag neither yes nor no, taken as unknown",
    "CSL-C209": "label not known",
    "CSL-C210": "position not a whole number from 0",
    "CSL-C211": "clipped by the contract's bounds",
    "CSL-C212": "all labels alike",
    "CSL-C213": "declared size far from the true one",
}
"""Code -> what it means. C1xx: structural faults, nothing is read on. C2xx: records, counted and dropped or noted."""


@dataclass(frozen=True)
class Finding:
    """One violation: `where` is a column or a part of the mapping, `count` the rows or customers it touches."""

    code: str
    severity: Severity
    where: str
    count: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        """Return one line for a person at the institution."""
        count = "" if self.count is None else f" ({self.count:,})"
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.code}  {self.where}: {TITLES[self.code]}{count}{detail}"


@dataclass(frozen=True)
class ColumnFacts:
    """What one contract column looks like at this institution, as shares of its customers."""

    mapped: bool
    missing: float
    clipped: float | None = None


@dataclass
class Findings:
    """Collects what a reading of the data found: counts, violations, and facts of each column; all of it is private."""

    items: list[Finding] = field(default_factory=list)
    columns: dict[str, ColumnFacts] = field(default_factory=dict)
    rows: int = 0
    customers: int = 0
    without_consent: int = 0
    used: int = 0
    consented: frozenset[str] = (
        frozenset()
    )  # everybody who agreed, by the same reading; only where it was read to learn

    def fault(self, code: str, where: str, detail: str = "", count: int | None = None) -> None:
        """Add a structural fault; `stop_on_faults` raises them together."""
        self.items.append(Finding(code, "fault", where, count, detail))

    def dropped(self, code: str, where: str, count: int, detail: str = "") -> None:
        """Add records that contribute nothing; a count of 0 adds nothing."""
        if count:
            self.items.append(Finding(code, "dropped", where, count, detail))

    def note(self, code: str, where: str, count: int, detail: str = "") -> None:
        """Add something to know that drops nothing; a count of 0 adds nothing."""
        if count:
            self.items.append(Finding(code, "note", where, count, detail))

    def of(self, severity: Severity) -> list[Finding]:
        """Return the findings of one severity, in the order found."""
        return [item for item in self.items if item.severity == severity]

    def stop_on_faults(self) -> None:
        """Raise every fault found so far as one error.

        Raises
        ------
        DataError
            The fault's own code (CSL-C1xx) when there is one kind, CSL-C100 when there are several kinds.
        """
        faults = self.of("fault")
        if not faults:
            return
        codes = {fault.code for fault in faults}
        listing = "\n".join(f"  {fault}" for fault in faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise DataError(
            codes.pop() if len(codes) == 1 else "CSL-C100",
            f"The institution's data and its mapping have {count}:\n{listing}",
            "Correct node.yaml or the source, and run `consilience node check` again.",
        )
