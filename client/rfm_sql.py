"""The formulas of the features that a transaction log yields, one entry each, and the query that computes them.

The query reads one relation, `observed`, which holds the purchases before the cut and no other; the caller builds it.
Let W be the window's length in days and, of one customer, d_1 < ... < d_k her days with a purchase before the cut c.
"""

# ruff: noqa: S608 - every name and value in a query is quoted by client.sql

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from client.sql import day


@dataclass(frozen=True)
class Formula:
    """An aggregate over one customer's rows of `days` or `shares`.

    `days` has a row for each day of purchase: spent (in the basket's unit), age = c - d_i, gap = d_i - d_(i-1) (NULL
    for the first), oldest = c - d_1. `shares` has a row for each named category: spent. `{window}` is W in days,
    `{basket}` the declared typical purchase.
    """

    sql: str
    relation: Literal["days", "shares"] = "days"


FORMULAS = {
    # (c - d_k) / W
    "recency": Formula("min(age) / {window}"),
    # k
    "frequency": Formula("count(*)"),
    # sum of spending / k, in typical purchases
    "monetary": Formula("sum(spent ORDER BY spent) / count(*) / {basket}"),
    # sum of spending, in typical purchases
    "spend": Formula("sum(spent ORDER BY spent) / {basket}"),
    # (c - d_1) / W
    "tenure": Formula("max(age) / {window}"),
    # mean of d_i - d_(i-1), over W; missing for k = 1
    "gap_mean": Formula("avg(gap) / {window}"),
    # population standard deviation of the gaps over their mean; missing for k < 3
    "gap_spread": Formula("CASE WHEN count(gap) >= 2 THEN stddev_pop(gap ORDER BY gap) / avg(gap) END"),
    # (c - d_k) / mean gap; missing for k = 1
    "overdue": Formula("min(age) / avg(gap)"),
    # mean over d_2..d_k of +1 when d_i lies in the later half of [d_1, c], else -1; missing for k = 1
    "trend": Formula("avg(CASE WHEN gap IS NULL THEN NULL WHEN 2 * age <= oldest THEN 1.0 ELSE -1.0 END)"),
    # largest category's spending over all categories'; missing where nothing was spent in a named category
    "main_share": Formula("max(spent) / nullif(sum(spent ORDER BY spent), 0)", "shares"),
    # number of distinct named categories
    "variety": Formula("count(*)", "shares"),
}
"""Contract column -> formula; each is computed in double precision. A new feature is a new entry.

Sums that may round are taken in the order of their values: in the order in which threads hand rows in, the last bits of one customer's
features would depend on other people's rows and on timing, and privacy counts on their depending on her own rows alone."""

_DAYS = """
    SELECT customer, spent,
        date_diff('day', day, {cut})::DOUBLE AS age,
        date_diff('day', lag(day) OVER own, day)::DOUBLE AS gap,
        date_diff('day', first_value(day) OVER own, {cut})::DOUBLE AS oldest
    FROM (SELECT customer, day, sum(amount ORDER BY amount) AS spent FROM observed GROUP BY customer, day)
    WINDOW own AS (PARTITION BY customer ORDER BY day)"""

_SHARES = """
    SELECT customer, category, sum(amount ORDER BY amount) AS spent FROM observed
    WHERE category IS NOT NULL GROUP BY customer, category"""


def feature_query(names: Sequence[str], cut: date, window_days: int, basket: float) -> str:
    """Return the query over `observed`: one row a customer, `customer` and each named feature (DOUBLE, NULL = missing).

    It also returns `total_spent`, in the basket's unit. `names` must be keys of FORMULAS.
    """
    numbers = {"window": f"{float(window_days)!r}::DOUBLE", "basket": f"{float(basket)!r}::DOUBLE"}
    by_relation: dict[str, list[str]] = {"days": ["sum(spent ORDER BY spent)::DOUBLE AS total_spent"], "shares": []}
    for name in names:
        formula = FORMULAS[name]
        by_relation[formula.relation].append(f"({formula.sql.format(**numbers)})::DOUBLE AS {name}")
    query = _grouped(_DAYS.format(cut=day(cut)), by_relation["days"])
    if by_relation["shares"]:
        shares = _grouped(_SHARES, by_relation["shares"])
        query = f"SELECT * FROM ({query}) LEFT JOIN ({shares}) USING (customer)"
    return query


def _grouped(relation: str, aggregates: list[str]) -> str:
    return f"SELECT customer, {', '.join(aggregates)} FROM ({relation}) GROUP BY customer"
