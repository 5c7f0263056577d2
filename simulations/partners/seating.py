"""Institutions seated for an engine: customers divided, split into training and held out, encoded once, and put in order by institution."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from federation.contract import FeatureContract
from federation.errors import DocumentError
from federation.networks import encode
from federation.study import Model
from simulations.engines.draws import PARTITION, stream
from simulations.engines.simulation import Lacking, Partners
from simulations.engines.work import Floats, Integers, Rows
from simulations.partners.customers import Customers, nearest
from simulations.partners.holding import held_out, shared_people
from simulations.partners.kept import Newest
from simulations.partners.partition import partition
from simulations.quality import two_digits

_LACKING = 2  # a stream beside the partition's own and those of `holding`
_BLOCK = 50_000


@dataclass(frozen=True, eq=False)
class Seated:
    """K institutions ready to train and to be judged.

    Attributes
    ----------
    names:
        Distinct, in the order of the rows.
    training, heldout:
        Encoded customers by institution, in order of time within each.
    declared:
        int64 [K]: number of customers who train, rounded to two significant digits as an institution would publish it.
    delta:
        float64 [K]: 1 / (100 declared).
    lacks:
        By institution the optional columns that were taken from it; what the data lack anyway is not among them.
    shared_people:
        Share of the people, whether they train or are held out, who are customers of two institutions or more: each of these spends a
        budget at every one. 0 where the data do not say who is one person.
    """

    names: tuple[str, ...]
    training: Rows
    heldout: Rows
    declared: Integers
    delta: Floats
    lacks: tuple[tuple[str, ...], ...]
    shared_people: float = 0.0


_kept: Newest[Seated] = Newest(2)


def seat(customers: Customers, partners: Partners, model: Model, seed: int) -> Seated:
    """Divide, split and encode. The two results asked for last are kept in memory: engines must not write to them.

    Who belongs to whom, and who lacks columns, is drawn from `partners.seed`; who is held out at random from `seed`: a person is held out
    at every institution of hers or at none. By time it is the last of each institution, which cannot keep a person together: she may train
    at one and be judged at another.

    Raises
    ------
    DocumentError
        As `partition` and `holding.held_out`; CSL-M228 when a column that should be lacking is not in the contract, or is required;
        CSL-F420, CSL-F421 when the model's pairs do not fit the contract.
    """
    key = (
        customers,
        partners.canonical(),
        model.canonical(),
        seed,
    )  # the same data are the same object: `source.load` keeps them
    return _kept.get(key, lambda: _seat(customers, partners, model, seed))


def _seat(customers: Customers, partners: Partners, model: Model, seed: int) -> Seated:
    lacking = _check_lacking(customers.contract, partners.lacking)
    institutions = partition(customers, partners, partners.seed)
    held = held_out(institutions, customers.person, partners, seed)
    parts = [(rows[~flags], rows[flags]) for rows, flags in zip(institutions.rows, held, strict=True)]
    lacks = _who_lacks(len(institutions), partners.lacking, partners.seed)
    training = _rows(customers, model, [part[0] for part in parts], lacks, lacking)
    heldout = _rows(customers, model, [part[1] for part in parts], lacks, lacking)
    declared = np.array([two_digits(len(part[0])) for part in parts], dtype=np.int64)
    return Seated(
        names=institutions.names,
        training=training,
        heldout=heldout,
        declared=declared,
        delta=np.asarray(1.0 / (100.0 * declared), dtype=np.float64),
        lacks=tuple(lacking if lacks_some else () for lacks_some in lacks.tolist()),
        shared_people=shared_people(institutions.rows, customers.person),
    )


def _check_lacking(contract: FeatureContract, lacking: Lacking | None) -> tuple[str, ...]:
    known = {column.name: column for column in contract.columns}
    optional = ", ".join(name for name, column in known.items() if not column.required) or "none"
    for name in () if lacking is None else lacking.columns:
        if name not in known:
            raise DocumentError(
                "CSL-M228",
                f"The contract has no column {name}{nearest(name, known)}.",
                f"Name optional columns in partners.lacking; the contract has {optional}.",
            )
        if known[name].required:
            raise DocumentError(
                "CSL-M228",
                f"The contract requires the column {name}: every institution has it.",
                f"Name optional columns in partners.lacking; the contract has {optional}.",
            )
    return () if lacking is None else tuple(dict.fromkeys(lacking.columns))


def _who_lacks(count: int, lacking: Lacking | None, seed: int) -> NDArray[np.bool_]:
    """Draw who lacks the columns, bool [K]; if the draw is everybody, one of them, drawn too, has them."""
    if lacking is None:
        return np.zeros(count, dtype=np.bool_)
    draw = stream(seed, PARTITION, _LACKING)
    found: NDArray[np.bool_] = draw.random(count) < lacking.share
    lucky = int(draw.integers(count))
    if found.all():
        found[lucky] = False
    return found


def _rows(
    customers: Customers, model: Model, parts: Sequence[Integers], lacks: NDArray[np.bool_], lacking: tuple[str, ...]
) -> Rows:
    """Encode the customers of all institutions, one after the other."""
    sizes = [len(part) for part in parts]
    rows, without = np.concatenate(parts), np.repeat(lacks, sizes)
    dense, codes = _encoded(customers, model, rows, without, lacking)
    labels = torch.from_numpy(customers.labels[rows].astype(np.float32))
    return Rows(dense, codes, labels, np.cumsum([0, *sizes], dtype=np.int64))


def _encoded(
    customers: Customers, model: Model, rows: Integers, without: NDArray[np.bool_], lacking: tuple[str, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode in blocks, so that what encoding needs on the way does not grow with the number of customers.

    An institution without a column is encoded without it, as its own node would do: that is not the same as an unknown value in a pair.
    """
    shape = encode(model, customers.contract, customers.take(rows[:0]))
    dense = torch.empty((len(rows), shape.dense.shape[1]), dtype=torch.float32)
    codes = torch.empty((len(rows), shape.codes.shape[1]), dtype=torch.int64)
    for start in range(0, len(rows), _BLOCK):
        here = slice(start, start + _BLOCK)
        for left_out in (False, True):
            chosen = start + np.flatnonzero(without[here] == left_out)
            if len(chosen):
                columns = customers.take(rows[chosen], lacking if left_out else ())
                inputs = encode(model, customers.contract, columns)
                place = (
                    slice(start, start + len(chosen)) if len(chosen) == len(rows[here]) else torch.from_numpy(chosen)
                )
                dense[place], codes[place] = inputs.dense, inputs.codes
    return dense, codes
