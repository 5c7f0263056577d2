"""How far a published curve may lie from the one that the same customers give without noise: part of a model's card."""

from typing import Annotated

from pydantic import Field

from federation.document import Document

BAND = 1.96
"""Deviations on either side that hold 95% of a normal distribution."""

Deviation = Annotated[float, Field(ge=0)]


class ShapeNoise(Document):
    """Standard deviations, in the logit, of what privacy's noise and draws put into one term of an additive model.

    Attributes
    ----------
    term:
        The contract column, or a pair as `age*balance`.
    deviations:
        At each of the term's points (a column's knots or categories, or no and yes), of the curve less its plain mean over these points; at
        each of a pair's cells, the second column's points fastest, of its surface as it is.
    missing:
        The same for a missing or unknown value; 0 for a pair.
    """

    term: Annotated[str, Field(min_length=1, max_length=100)]
    deviations: Annotated[tuple[Deviation, ...], Field(min_length=1, max_length=1000)]
    missing: Deviation
