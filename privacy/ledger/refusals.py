"""What a ledger says of many refusals at once: a flood of requests must not become a flood of entries."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from federation.document import Document

Code = Annotated[str, Field(pattern=r"^CSL-[A-Z][0-9]{3}$")]
Times = Annotated[int, Field(ge=1, le=1_000_000_000_000)]
Moment = Annotated[int, Field(ge=0)]
MOST_CODES = 100


class CodeTimes(Document):
    """How often one code refused."""

    code: Code
    times: Times


class RefusalsData(Document):
    """Refusals that were counted and not written one by one, because too many had been within the hour.

    `first` and `last` are the ledger's times of the first and the last of them, milliseconds since 1970; `codes` stand in their order.
    `count` may be more than their sum: more than a hundred different codes are not told apart.
    """

    count: Times
    first: Moment
    last: Moment
    codes: Annotated[tuple[CodeTimes, ...], Field(min_length=1, max_length=MOST_CODES)]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        names = [item.code for item in self.codes]
        if names != sorted(set(names)):
            raise ValueError("codes must be sorted, each once")
        if self.last < self.first:
            raise ValueError("the last refusal must not come before the first")
        if self.others < 0:
            raise ValueError("the codes must not add up to more than the count")
        return self

    @property
    def others(self) -> int:
        """How many had codes that are not told apart."""
        return self.count - sum(item.times for item in self.codes)

    @classmethod
    def of(cls, count: int, first: int, last: int, codes: Mapping[str, int]) -> Self:
        """Return the data for so many refusals by code, between two times in milliseconds since 1970."""
        rows = tuple(CodeTimes(code=code, times=codes[code]) for code in sorted(codes))
        return cls(count=count, first=first, last=last, codes=rows)
