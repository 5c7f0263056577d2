"""Answers: what a statistics study found, as tables that are read by people, drawn, and taken home by the institutions.

Everything in an answer was released with noise, or follows from that and public numbers.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from federation.contract import Name, Text
from federation.document import Document
from federation.signing import Hex32

Long = Annotated[str, Field(min_length=1, max_length=2000)]
Label = Annotated[str, Field(max_length=200)]


class Row(Document):
    """One line: its labels, its value and the interval around it; None where the noise leaves nothing to say."""

    key: Annotated[tuple[Label, ...], Field(max_length=8)]
    value: float | None
    low: float | None = None
    high: float | None = None


class AnswerTable(Document):
    """Values of one meaning: `name` is what programs find it by, `key` says what the rows' labels are, `unit` what the values are in."""

    name: Name
    title: Text
    unit: Text
    key: Annotated[tuple[Label, ...], Field(max_length=8)] = ()
    rows: Annotated[tuple[Row, ...], Field(max_length=100_000)]

    def value(self, *key: str) -> float | None:
        """Return the value of the row with these labels; KeyError if there is none."""
        for row in self.rows:
            if row.key == key:
                return row.value
        raise KeyError(key)


class Answer(Document):
    """The answer to one query."""

    id: Name
    kind: Name
    title: Text
    tables: Annotated[tuple[AnswerTable, ...], Field(min_length=1, max_length=40)]
    notes: Annotated[tuple[Long, ...], Field(max_length=40)] = ()

    def table(self, name: str) -> AnswerTable:
        """Return a table by name; KeyError if there is none."""
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(name)


class MemberTerms(Document):
    """What one member granted, and in how many of the sums its customers are."""

    member: Name
    declared_size: Annotated[int, Field(ge=1)]
    epsilon: Annotated[float, Field(gt=0, le=100)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    rounds: Annotated[int, Field(ge=0)]


class StatisticsReport(Document):
    """What a statistics study found. The coordinator signs it, and every member of the study is given it.

    `members` may differ in what they granted; `aggregation` and `noise` are the draft's; `confidence` is that of all intervals, which hold
    the noise and, where `population` is said in a table's title, the chance of who became a customer.
    """

    kind: Literal["statistics_report"] = "statistics_report"
    study: Hex32
    name: Name
    title: Text
    purpose: str
    contract: Name
    aggregation: Literal["plain", "secure"]
    noise: Literal["local", "shared"]
    confidence: Annotated[float, Field(ge=0.5, le=0.999)]
    rounds: Annotated[int, Field(ge=1)]
    members: tuple[MemberTerms, ...]
    answers: tuple[Answer, ...]

    @model_validator(mode="after")
    def _named_once(self) -> "StatisticsReport":
        if len({answer.id for answer in self.answers}) != len(self.answers):
            raise ValueError("each answer has an id of its own")
        return self

    def answer(self, name: str) -> Answer:
        """Return the answer to a query by its id; KeyError if there is none."""
        for answer in self.answers:
            if answer.id == name:
                return answer
        raise KeyError(name)
