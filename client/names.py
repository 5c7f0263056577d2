"""The name list: whom the institution should approach, how likely, worth how much, and why. It never leaves.

The label of a contract is the event that matters: for churn the list holds those most at risk, for propensity those
most likely to buy. Only customers who agreed to be contacted may stand on it; that is another consent than the one to
training.
"""

import hashlib
import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from client.calibration import Floats
from client.scores import Scores
from federation.document import Document
from federation.errors import DataError

TIES = b"csl1/list\0"
DECILES = 10


class TopCustomers(Document):
    """Capacity: the list holds so many customers, those with the highest probability."""

    kind: Literal["top"] = "top"
    customers: Annotated[int, Field(ge=1)]


class WorthWhile(Document):
    """Cost against benefit: everybody whom it pays to approach, highest expected gain first.

    probability x value x success_rate must exceed `cost` (in the money of the node's table). `success_rate` is the
    share of those approached for whom it makes the difference: the institution's own estimate. `at_most` limits the
    list as well.
    """

    kind: Literal["worthwhile"] = "worthwhile"
    cost: Annotated[float, Field(ge=0)]
    success_rate: Annotated[float, Field(gt=0, le=1)]
    at_most: Annotated[int, Field(ge=1)] | None = None


Capacity = Annotated[TopCustomers | WorthWhile, Field(discriminator="kind")]


@dataclass(frozen=True)
class Listed:
    """One line of a name list; `decile` 1 is the most probable tenth of those scored; unmapped money is None.

    `score_before` and `decile_before` are those of the scoring before, None for whoever was not in it; `risen` and `fallen` say which
    feature's part in her score grew and shrank most since then.
    """

    customer: str
    rank: int
    score: float
    decile: int
    expected_value: float | None
    expected_gain: float | None
    reasons: tuple[str, ...]
    score_before: float | None = None
    decile_before: int | None = None
    risen: str = ""
    fallen: str = ""


def choose(
    scores: Scores, capacity: TopCustomers | WorthWhile, contactable: Collection[str], key: bytes
) -> list[Listed]:
    """Choose whom to approach, best first.

    Customers with equal scores are ordered by HMAC-SHA256 of their identifier under `key`: the same at every run, and
    no one is favoured by her number or her place in the table.

    Parameters
    ----------
    scores:
        The scored customers.
    capacity:
        How many, or which are worth it.
    contactable:
        Identifiers of all customers who agreed to be contacted, as the consent table says.
    key:
        A secret of the vault, such as its hold-out key.

    Raises
    ------
    DataError
        CSL-C711 when a scored customer did not agree to be contacted, CSL-C712 for a customer scored twice, CSL-C713
        when the rule needs money and the node maps none.
    """
    ids = [str(customer) for customer in scores.cohort.ids]
    _check_customers(ids, contactable)
    ties = _ties(ids, key)
    by_score = np.lexsort((ties, -scores.probability))
    decile = _deciles(by_score)
    value = scores.cohort.value
    expected = None if value is None else scores.probability * value
    gain: Floats | None = None
    if isinstance(capacity, TopCustomers):
        rows = by_score[: capacity.customers]
    else:
        gain = _gain(expected, capacity)
        rows = _worthwhile(gain, ties, capacity.at_most)
    return [
        Listed(
            customer=ids[row],
            rank=place + 1,
            score=float(scores.probability[row]),
            decile=int(decile[row]),
            expected_value=_money(expected, row),
            expected_gain=_money(gain, row),
            reasons=reasons,
        )
        for place, (row, reasons) in enumerate(zip(rows, scores.reasons(rows), strict=True))
    ]


def deciles(scores: Scores, key: bytes) -> NDArray[np.int64]:
    """Return each scored customer's tenth by probability, int64 [n], in the cohort's order; 1 is the highest. Ties as in `choose`."""
    ties = _ties([str(customer) for customer in scores.cohort.ids], key)
    return _deciles(np.lexsort((ties, -scores.probability)))


def _deciles(by_score: NDArray[np.intp]) -> NDArray[np.int64]:
    decile = np.empty(len(by_score), dtype=np.int64)
    decile[by_score] = 1 + np.arange(len(by_score)) * DECILES // max(1, len(by_score))
    return decile


def _check_customers(ids: Sequence[str], contactable: Collection[str]) -> None:
    agreed = contactable if isinstance(contactable, (set, frozenset)) else frozenset(contactable)
    outside = sum(customer not in agreed for customer in ids)
    if outside:
        raise DataError(
            "CSL-C711",
            f"{outside} of the customers to be listed did not agree to be contacted; no list was written.",
            'Map the consent to purpose "contact" in the node\'s configuration and score again.',
        )
    twice = len(ids) - len(set(ids))
    if twice:
        raise DataError(
            "CSL-C712",
            f"{twice} customers were scored more than once; no list was written.",
            "Give the table one row a customer.",
        )


def _ties(customers: Sequence[str], key: bytes) -> NDArray[np.uint64]:
    digests = (hmac.digest(key, TIES + customer.encode(), hashlib.sha256)[:8] for customer in customers)
    return np.array([int.from_bytes(digest, "big") for digest in digests], dtype=np.uint64)


def _gain(expected: Floats | None, rule: WorthWhile) -> Floats:
    if expected is None:
        raise DataError(
            "CSL-C713",
            "A list by cost and benefit needs to know what each customer is worth, and the node maps no money.",
            "Map a value column in the node's configuration, or ask for a number of customers instead.",
        )
    gain: Floats = expected * rule.success_rate - rule.cost
    return gain


def _worthwhile(gain: Floats, ties: NDArray[np.uint64], at_most: int | None) -> NDArray[np.int64]:
    """Rows with a gain above zero, best first; a customer of unknown value (NaN) is never among them."""
    order = np.lexsort((ties, -np.nan_to_num(gain, nan=-np.inf)))
    return order[gain[order] > 0][:at_most].astype(np.int64)


def _money(amounts: Floats | None, row: int) -> float | None:
    return float(amounts[row]) if amounts is not None and np.isfinite(amounts[row]) else None
