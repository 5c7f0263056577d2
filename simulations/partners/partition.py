"""How rows become institutions: as the data say, by a column, by chance, by time, or skewed on purpose.

Every row goes to one institution at most; to exactly one but where `own` keeps the largest alone, and where a person would have several
at one institution: a budget is one customer's with all her rows there, so that she keeps one, the last in time. The same seed gives the
same institutions.

Codes: CSL-M221 too small, CSL-M224 no such column, CSL-M225 empty, CSL-M226 more institutions than rows, CSL-M227 a count that is missing
or cannot be had.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from federation.contract import CategoricalColumn, Column, FlagColumn
from federation.errors import DocumentError
from simulations.engines.draws import PARTITION, stream
from simulations.engines.simulation import (
    By,
    ByColumn,
    ByTime,
    Dealt,
    FeatureSkew,
    LabelSkew,
    Own,
    Partners,
    QuantitySkew,
)
from simulations.partners.customers import NOT_KNOWN, AnyArray, Customers, nearest
from simulations.partners.skew import dealt, dirichlet, heldout_count, least_size, tenths, together, topped_up

Integers = NDArray[np.int64]
Skewed = LabelSkew | FeatureSkew | QuantitySkew

_TURNS = 20
_FEWER = "Lower partners.count or partners.smallest, hold out less, or take more customers."


@dataclass(frozen=True, eq=False)
class Institutions:
    """Who takes part: distinct names, and each one's rows of the customers, int64, in order of time."""

    names: tuple[str, ...]
    rows: tuple[Integers, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class _Owners:
    """By row the place of its institution in `names`, int64 [n]; -1 for nobody."""

    names: tuple[str, ...]
    owner: Integers


def partition(customers: Customers, partners: Partners, seed: int) -> Institutions:
    """Divide customers among institutions.

    A Dirichlet skew may leave some institutions with too few customers, or none. Those are topped up to the least size from whoever is
    largest, with customers drawn from it at random: a very small alpha thus still gives usable institutions, a little less skewed than the
    shares alone. The other kinds leave sizes as they come.

    Parameters
    ----------
    partners:
        `smallest` counts the customers left to train on once the share `heldout` of each institution is set aside.

    Raises
    ------
    DocumentError
        CSL-M221 when an institution is smaller than `smallest`; CSL-M224 when there is no such column; CSL-M225 when an institution
        has no customer; CSL-M226 when there are more institutions than customers; CSL-M227 when a count is missing, or the data give
        fewer institutions.
    """
    by, count = partners.by, partners.count
    if count is not None and count > len(customers):
        raise DocumentError(
            "CSL-M226",
            f"{count:,} institutions are asked for, and there are {len(customers):,} customers.",
            "Lower partners.count.",
        )
    if isinstance(by, Own):
        found = _own(customers, count)
    elif isinstance(by, ByColumn):
        found = _by_column(customers, by, count)
    else:
        found = _made(customers, by, partners, seed)
    institutions = _in_order(customers, _Owners(found.names, _once(customers, found.owner)))
    _check_sizes(institutions, partners)
    return institutions


def _own(customers: Customers, count: int | None) -> _Owners:
    codes, values = pd.factorize(customers.institution, sort=True)
    names, owner = tuple(str(value) for value in values), codes.astype(np.int64)
    if count is None or count == len(names):
        return _Owners(names, owner)
    _check_given(count, len(names), "the data name")
    kept = np.sort(np.argsort(-np.bincount(owner, minlength=len(names)), kind="stable")[:count])
    place = np.full(len(names), -1, dtype=np.int64)
    place[kept] = np.arange(count)
    return _Owners(tuple(names[one] for one in kept), place[owner])


def _by_column(customers: Customers, by: ByColumn, count: int | None) -> _Owners:
    codes, names = _values(customers, by.column)
    if count is None or count == len(names):
        return _Owners(names, codes)
    _check_given(count, len(names), f"the column {by.column} gives")
    groups = together(np.bincount(codes, minlength=len(names)).tolist(), count)
    place = np.empty(len(names), dtype=np.int64)
    for number, group in enumerate(groups):
        place[group] = number
    return _Owners(tuple(_title([names[one] for one in group]) for group in groups), place[codes])


def _title(names: Sequence[str]) -> str:
    """Name values that were put together, by the most frequent of them."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _made(
    customers: Customers, by: Dealt | LabelSkew | FeatureSkew | QuantitySkew | ByTime, partners: Partners, seed: int
) -> _Owners:
    """Divide customers among institutions that the data do not know."""
    count = partners.count
    if count is None:
        raise DocumentError(
            "CSL-M227",
            f"Partners by {by.kind} need to know how many there are.",
            "Write partners.count.",
        )
    rows, draw = len(customers), stream(seed, PARTITION)
    if isinstance(by, Dealt):
        owner = dealt(rows, count, draw)
    elif isinstance(by, ByTime):
        owner = np.empty(rows, dtype=np.int64)
        owner[np.argsort(customers.time, kind="stable")] = np.arange(rows, dtype=np.int64) * count // rows
    else:
        owner = dirichlet(_strata(customers, by), by.alpha, count, draw)
        owner = _topped_up(customers, owner, count, least_size(partners.smallest, partners.heldout), draw)
    digits = len(str(count))
    return _Owners(tuple(f"partner_{number:0{digits}d}" for number in range(1, count + 1)), owner)


def _strata(customers: Customers, by: Skewed) -> Integers:
    if isinstance(by, LabelSkew):
        return customers.labels.astype(np.int64)
    if isinstance(by, QuantitySkew):
        return np.zeros(len(customers), dtype=np.int64)
    array = _array(customers, by.column)
    known = {column.name: column for column in customers.contract.columns}.get(by.column)
    if np.issubdtype(array.dtype, np.floating) and not isinstance(known, FlagColumn):
        return tenths(array.astype(np.float64))
    return _values(customers, by.column)[0]


def _values(customers: Customers, name: str) -> tuple[Integers, tuple[str, ...]]:
    """Return the place of every row's value, int64 [n], and the names of the values that occur; missing ones are the last."""
    array = _array(customers, name)
    known = {column.name: column for column in customers.contract.columns}.get(name)
    if isinstance(known, CategoricalColumn):
        array = np.where(array < 0, np.nan, array)
    codes, values = pd.factorize(array, sort=True)
    owner, names = codes.astype(np.int64), [_value_name(value, known) for value in values]
    if (owner < 0).any():
        owner[owner < 0] = len(names)
        names.append(NOT_KNOWN if NOT_KNOWN not in names else "missing")
    return owner, tuple(names)


def _value_name(value: object, column: Column | None) -> str:
    if isinstance(value, str):
        return value
    assert isinstance(value, int | float | np.number)
    if isinstance(column, CategoricalColumn):
        return column.categories[int(value)]
    if isinstance(column, FlagColumn):
        return "yes" if value > 0.5 else "no"
    return f"{float(value):.15g}"


def _array(customers: Customers, name: str) -> AnyArray:
    """Return a column of the contract, the label, or another column of the data."""
    found = {**customers.extra, customers.contract.label.name: customers.labels, **customers.columns}
    if name not in found:
        raise DocumentError(
            "CSL-M224",
            f"The data have no column {name}{nearest(name, found)}.",
            f"Name one of {', '.join(sorted(found))} in partners.by.",
        )
    return found[name]


def _check_given(count: int, given: int, who: str) -> None:
    if count > given:
        raise DocumentError(
            "CSL-M227",
            f"{count:,} institutions are asked for, and {who} {given:,}.",
            "Lower partners.count, or divide the customers another way (partners.by: dealt, labels, features, quantity or time).",
        )


def _in_order(customers: Customers, found: _Owners) -> Institutions:
    order = np.lexsort((customers.time, found.owner))
    order = order[found.owner[order] >= 0]
    sizes = np.bincount(found.owner[order], minlength=len(found.names))
    ends = np.cumsum(sizes)
    rows = tuple(order[end - size : end] for size, end in zip(sizes.tolist(), ends.tolist(), strict=True))
    return Institutions(found.names, rows)


def _once(customers: Customers, owner: Integers) -> Integers:
    """Return who gets each row, -1 for nobody, where a person's last row at an institution is her only one there."""
    if customers.person is None:
        return owner
    order = np.lexsort((customers.time, customers.person, owner))
    person, at = customers.person[order], owner[order]
    found = owner.copy()
    found[order[:-1][(np.diff(person) == 0) & (np.diff(at) == 0)]] = -1
    return found


def _topped_up(customers: Customers, owner: Integers, count: int, least: int, draw: np.random.Generator) -> Integers:
    """Top up whom skewed shares leave too small, each person once; rows that move may meet others of their person: again, a few times."""
    found = topped_up(owner, count, least, draw)
    for _ in range(_TURNS):
        once = _once(customers, found)
        if (once == found).all():
            break
        kept = once >= 0
        once[kept] = topped_up(once[kept], count, least, draw)
        found = once
    return found


def _check_sizes(institutions: Institutions, partners: Partners) -> None:
    sizes = [len(rows) for rows in institutions.rows]
    empty = sum(not size for size in sizes)
    if empty or not sizes:
        raise DocumentError(
            "CSL-M225", f"{empty:,} of {len(sizes):,} institutions have no customer at all.", _advice(partners.by)
        )
    training = [size - heldout_count(size, partners.heldout) for size in sizes]
    small = sum(size < partners.smallest for size in training)
    if small:
        place = int(np.argmin(training))
        raise DocumentError(
            "CSL-M221",
            f"{small:,} of {len(sizes):,} institutions have fewer than {partners.smallest:,} customers to train on; the smallest, "
            f"{institutions.names[place]}, has {training[place]:,}.",
            _advice(partners.by),
        )


def _advice(by: By) -> str:
    if isinstance(by, Own):
        return "Lower partners.smallest, or give a partners.count: the largest so many are kept."
    if isinstance(by, ByColumn):
        return "Lower partners.smallest, or give a partners.count: small values are put together."
    return _FEWER
