"""What changed since the last time: each customer's score before and after, and which features' parts in it rose or fell most.

For `additive` and `logistic` models a change is taken apart exactly: the calibrated logit is a base and one term a column, so its change is
that of the base (another model or calibration, the same for everybody) and those of the terms. For `mlp` the parts are approximate.
Changes are in log-odds. Where contracts or kinds of model differ, scores are compared and reasons are not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from client.home import Home
from client.names import DECILES, Listed
from client.reasons import own_value, short_meaning
from client.scores import Scores
from client.scorings import Scoring, previous
from client.withdrawal import Withdrawals
from federation.document import Document

# A change of a term below this shows as 0.00.
SMALLEST_CHANGE = 0.005
SHOWN_COLUMNS = 3

How = Literal["exact", "approximate (occlusion)", "not comparable"]


class ColumnChange(Document):
    """How a column's part in the scores changed on average, in log-odds, over the customers in both scorings."""

    column: str
    meaning: str
    mean: float


class Compared(Document):
    """Two scorings side by side; local only.

    `shift` is the change of the base, in log-odds, the same for everybody. `up`, `down` and `same` count those in both scorings by the
    move of their decile, up being towards the highest tenth; `moves` counts them by decile before (row) and now (column).
    """

    since: str
    study: str
    model: str
    same_model: bool
    reasons: How
    shift: float
    matched: int
    new: int
    gone: int
    up: int
    down: int
    same: int
    mean_before: float | None
    mean_now: float | None
    moves: tuple[tuple[int, ...], ...]
    columns: tuple[ColumnChange, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The scoring of today, in the cohort's order, held against one before."""

    scores: Scores
    now: Scoring
    before: Scoring

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Each customer's row in the scoring before, int64 [n]; -1 for whoever was not in it."""
        places = {item: row for row, item in enumerate(self.before.tags)}
        return np.array([places.get(item, -1) for item in self.now.tags], dtype=np.int64)

    @property
    def how(self) -> How:
        """How far reasons can be compared."""
        one, two = self.before.record, self.now.record
        if one.contract_sha256 != two.contract_sha256 or one.exact != two.exact:
            return "not comparable"
        return "exact" if two.exact else "approximate (occlusion)"

    @property
    def shift(self) -> float:
        """The change of the base, in log-odds; 0 where there is none to compare."""
        before, now = self.before.record.base, self.now.record.base
        return 0.0 if before is None or now is None or self.how != "exact" else now - before

    def delta(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the change of each term for customers who are in both scorings, float64 [chosen, columns]; needs comparable reasons."""
        now = self.now.terms[chosen].astype(np.float64)
        difference: NDArray[np.float64] = now - self.before.terms[self.rows[chosen]]
        return difference

    def applied(self, listed: Sequence[Listed]) -> list[Listed]:
        """Return lines with their scores before and what changed; whoever was not scored before stays as she is."""
        places = {str(customer): row for row, customer in enumerate(self.scores.cohort.ids)}
        found = list(listed)
        known = [(at, row) for at, line in enumerate(found) if self.rows[row := places[line.customer]] >= 0]
        changes = self._words(np.array([row for _, row in known], dtype=np.int64))
        for (at, row), (risen, fallen) in zip(known, changes, strict=True):
            old = self.rows[row]
            found[at] = replace(
                found[at],
                score_before=float(self.before.probability[old]),
                decile_before=int(self.before.decile[old]),
                risen=risen,
                fallen=fallen,
            )
        return found

    def summary(self) -> Compared:
        """Count the moves and the columns' average changes, the largest first."""
        chosen = np.flatnonzero(self.rows >= 0)
        old, new = self.before.decile[self.rows[chosen]], self.now.decile[chosen]
        moves = np.zeros((DECILES, DECILES), dtype=np.int64)
        np.add.at(moves, (old - 1, new - 1), 1)
        record = self.before.record
        return Compared(
            since=record.written[:10],
            study=record.study,
            model=record.model,
            same_model=record.model == self.now.record.model,
            reasons=self.how,
            shift=self.shift,
            matched=len(chosen),
            new=len(self.rows) - len(chosen),
            gone=len(self.before.tags) - len(chosen),
            up=int(np.count_nonzero(new < old)),
            down=int(np.count_nonzero(new > old)),
            same=int(np.count_nonzero(new == old)),
            mean_before=float(self.before.probability[self.rows[chosen]].mean()) if len(chosen) else None,
            mean_now=float(self.now.probability[chosen].mean()) if len(chosen) else None,
            moves=tuple(tuple(int(count) for count in row) for row in moves),
            columns=self._columns(chosen),
        )

    def _columns(self, chosen: NDArray[np.int64]) -> tuple[ColumnChange, ...]:
        if self.how == "not comparable" or not len(chosen):
            return ()
        mean = self.delta(chosen).mean(axis=0)
        columns = self.scores.contract.columns
        order = np.argsort(-np.abs(mean), kind="stable")
        return tuple(
            ColumnChange(column=columns[place].name, meaning=short_meaning(columns[place]), mean=float(mean[place]))
            for place in order
        )

    def _words(self, chosen: NDArray[np.int64]) -> Iterator[tuple[str, str]]:
        """Yield for each customer which column's part rose and which fell most, in words; empty where none did."""
        if self.how == "not comparable":
            yield from [("", "")] * len(chosen)
            return
        delta = self.delta(chosen)
        for row, change, up, down in zip(chosen, delta, delta.argmax(axis=1), delta.argmin(axis=1), strict=True):
            yield self._change(int(row), int(up), change[up]), self._change(int(row), int(down), -change[down])

    def _change(self, row: int, place: int, size: float) -> str:
        """Say what a customer has now, for a column whose part changed by `size` in the direction that is asked for."""
        if size < SMALLEST_CHANGE:
            return ""
        column = self.scores.contract.columns[place]
        values = self.scores.cohort.columns.get(column.name)
        value = self.scores.typical[place] if values is None else float(values[row])
        remark = "" if self.scores.exact else " (approximate)"
        return f"{short_meaning(column)}: now {own_value(column, value)}; by {size:.2f}{remark}"


def compare(
    home: Home, store_key: bytes, scores: Scores, now: Scoring, withdrawn: Withdrawals, until: date | None = None
) -> Comparison | None:
    """Hold a scoring against the newest kept one of the same contract and purpose; None the first time. Raises as `scorings.previous`."""
    before = previous(home, store_key, now.record, withdrawn, until)
    return None if before is None else Comparison(scores, now, before)


def in_words(compared: Compared | None) -> list[str]:
    """Return a comparison as lines for a person; the first time there is nothing to compare, and that is said."""
    if compared is None:
        return ["First time: nothing to compare with, as no earlier scoring was kept."]
    other = "the same model" if compared.same_model else f"another model ({compared.study}, {compared.model[:8]})"
    lines = [
        f"Against the scoring of {compared.since} by {other}: {compared.matched} customers in both, {compared.new} new, "
        f"{compared.gone} no longer scored.",
        f"Decile: {compared.up} moved up, {compared.down} down, {compared.same} stayed.",
    ]
    if compared.mean_before is not None and compared.mean_now is not None:
        lines[1] += f" Average probability: {compared.mean_before:.3f} before, {compared.mean_now:.3f} now."
    if compared.reasons == "not comparable":
        return [*lines, "Contract or kind of model differ: reasons cannot be compared."]
    moved = [item for item in compared.columns if abs(item.mean) >= SMALLEST_CHANGE][:SHOWN_COLUMNS]
    words = "; ".join(f"{item.meaning} {item.mean:+.2f}" for item in moved) or "no feature's part changed"
    remark = "" if compared.reasons == "exact" else " (approximate)"
    shift = f"; model or calibration {compared.shift:+.2f}" if abs(compared.shift) >= SMALLEST_CHANGE else ""
    return [*lines, f"On average, in log-odds: {words}{shift}{remark}."]
