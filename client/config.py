"""A node's configuration: where an institution's own tables are and how its columns map to the feature contracts.

Nothing here holds data. Paths are relative to the folder of the YAML file, which is the node's home.
"""

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import sqlalchemy as sa
from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from client.units import CONVERSIONS
from federation.charter import MAX_PORT, Address
from federation.contract import Category, Name
from federation.document import Document, load_yaml
from federation.errors import DocumentError
from federation.study import Purpose

_FORMAT = re.compile(r"(?:%[YymdjbBHIMSfpz%-]|[^%])+")


def _spelling(value: Any) -> str:  # noqa: ANN401 - whatever the YAML holds
    """Take a number or a text as the text that the source holds; a bare yes or no is not one."""
    if isinstance(value, bool):
        raise ValueError("put it in quotes: YAML reads yes, no, true and false without quotes as truth values")
    if isinstance(value, int | float):
        return str(int(value)) if float(value).is_integer() else repr(value)
    if isinstance(value, str):
        return value.strip()
    raise ValueError("must be a text or a number")


OwnName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00]+$")]
Spelling = Annotated[str, BeforeValidator(_spelling), Field(max_length=256, pattern=r"^[^\x00]*$")]
Spellings = tuple[Spelling, ...]
Answers = Annotated[Spellings, Field(min_length=1)]
Unit = Annotated[str, Field(min_length=1, max_length=400)]

YES: Answers = ("yes", "y", "true", "t", "1")
NO: Answers = ("no", "n", "false", "f", "0")


def _distinct_answers(yes: Spellings, no: Spellings) -> None:
    if {text.lower() for text in yes} & {text.lower() for text in no}:
        raise ValueError("a spelling means yes or no, not both")


class CsvSource(Document):
    """A CSV file with a header line; every field is read as text and parsed by the mapping."""

    kind: Literal["csv"]
    path: OwnName
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"


class ParquetSource(Document):
    """A Parquet file."""

    kind: Literal["parquet"]
    path: OwnName


class SqlSource(Document):
    """A table or view of any database that SQLAlchemy reaches; a URL with a password comes from the environment."""

    kind: Literal["sql"]
    url: OwnName | None = None
    url_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = None
    table: OwnName
    namespace: OwnName | None = None

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give either url or url_env (the environment variable that holds the URL)")
        if self.url is not None:
            try:
                parsed = sa.make_url(self.url)
            except sa.exc.ArgumentError:
                raise ValueError("url is not a database URL such as sqlite:///customers.db") from None
            if parsed.password is not None:
                raise ValueError(
                    "a password must not stand in this file: put the URL in a variable and name it in url_env"
                )
        return self


Source = Annotated[CsvSource | ParquetSource | SqlSource, Field(discriminator="kind")]


class Quantity(Document):
    """A number of the institution's own: column, the unit it is in, and how it becomes the unit that is asked for.

    `convert` names a known conversion ("cents to euro"); `scale` is the public number of target units in one own unit.
    """

    column: OwnName
    unit: Unit | None = None
    convert: str | None = None
    scale: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_conversion(self) -> Self:
        if self.convert is not None and self.scale is not None:
            raise ValueError("give convert or scale, not both")
        if self.convert is not None and self.convert not in CONVERSIONS:
            raise ValueError(f"unknown conversion; known are: {', '.join(sorted(CONVERSIONS))}")
        return self


class ColumnMapping(Quantity):
    """Which own column is a contract column.

    Numeric: `unit`, with `convert` or `scale`. Categorical: `values`, own name -> contract category; names left out
    are taken as they are. Flag: `yes` and `no` list the own spellings. `missing` lists what means unknown, such as -1.
    """

    values: dict[str, Category] = {}
    yes: Answers = YES
    no: Answers = NO
    missing: Spellings = ()

    @model_validator(mode="after")
    def _apart(self) -> Self:
        _distinct_answers(self.yes, self.no)
        return self


class LabelMapping(Document):
    """The column that holds the outcome and its spellings; a row with neither takes no part in learning."""

    column: OwnName
    yes: Answers
    no: Answers

    @model_validator(mode="after")
    def _apart(self) -> Self:
        _distinct_answers(self.yes, self.no)
        return self


class Stake(Document):
    """The money at stake for each customer, in a unit of the institution's own choice."""

    column: OwnName
    unit: Unit


class ScoreRows(Document):
    """The customers to score: rows stamped at or after a position, or rows of a second table with the same columns."""

    from_position: Annotated[int, Field(ge=0)] | None = None
    source: Source | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.from_position is None) == (self.source is None):
            raise ValueError("give either from_position or source")
        return self


class TableMapping(Document):
    """A contract with one row a customer."""

    kind: Literal["table"]
    source: Source
    customer: OwnName
    columns: Annotated[dict[Name, ColumnMapping], Field(min_length=1)]
    label: LabelMapping | None = None
    position: OwnName | None = None
    value: Stake | None = None
    score: ScoreRows | None = None

    @model_validator(mode="after")
    def _position_known(self) -> Self:
        if self.score is not None and self.score.from_position is not None and self.position is None:
            raise ValueError("score.from_position needs the position column")
        return self


class TimeMapping(Document):
    """The time of a purchase: a date or timestamp, or text in ISO 8601 or in `format` (strptime)."""

    column: OwnName
    format: str | None = None

    @model_validator(mode="after")
    def _format_known(self) -> Self:
        if self.format is not None and not (_FORMAT.fullmatch(self.format) and re.search("%[Yy]", self.format)):
            raise ValueError("format must be a strptime pattern with a year, such as %Y%m%d or %d.%m.%Y %H:%M")
        return self


class Basket(Document):
    """The institution's declared typical purchase: a public, round number, never computed from the log."""

    amount: Annotated[float, Field(gt=0)]
    unit: Unit


class TransactionMapping(Document):
    """A contract computed from a log of purchases, one row a purchase or a line of one.

    `complete_until`: the log holds every purchase before this day, so that a label that is not known yet is refused.
    `value: spend` puts the customer's spending, scaled to the horizon and in the basket's unit, at stake.
    """

    kind: Literal["transactions"]
    source: Source
    customer: OwnName
    time: TimeMapping
    amount: Quantity
    typical_basket: Basket
    category: OwnName | None = None
    complete_until: date | None = None
    value: Literal["spend"] | None = None


class ConsentColumns(Document):
    """One column a purpose."""

    layout: Literal["columns"]
    source: Source
    customer: OwnName
    purposes: Annotated[dict[Purpose, OwnName], Field(min_length=1)]
    yes: Answers = YES


class ConsentRows(Document):
    """One row for each customer and purpose; `names` says how the institution spells each purpose."""

    layout: Literal["rows"]
    source: Source
    customer: OwnName
    purpose: OwnName
    granted: OwnName
    names: dict[Purpose, Spelling] = {}
    yes: Answers = YES


Mapping = Annotated[TableMapping | TransactionMapping, Field(discriminator="kind")]
Consent = Annotated[ConsentColumns | ConsentRows, Field(discriminator="layout")]


Port = Annotated[int, Field(ge=1, le=MAX_PORT)]


class ServiceConfig(Document):
    """How `consilience node start` runs here; what is left out is right for most.

    `link` is another way to the coordinator than the charter's address, such as a gateway of one's own: `host:port`; its certificate
    must still come from the charter's authority. SuperNode and vault worker meet at `runtime_port`, and `metrics_port` (none unless given)
    shows figures for Prometheus, both on 127.0.0.1. `poll_seconds` is the shortest pause between two questions to the link.
    """

    link: Address | None = None
    runtime_port: Port = 19_100
    metrics_port: Port | None = None
    poll_seconds: Annotated[float, Field(ge=0.01, le=3.0)] = 0.1

    @model_validator(mode="after")
    def _ports_apart(self) -> Self:
        if self.runtime_port == self.metrics_port:
            raise ValueError("runtime_port and metrics_port must be two ports")
        return self


class NodeConfig(Document):
    """One institution's node: its member id, a mapping for each contract it takes part in, and its consent table.

    Without `consent` nobody has consented, and every study is refused. `memory_mb` bounds the query engine, which
    spills to the home's `tmp` folder and nowhere else. `passphrase_file` (relative to the home) holds the passphrase of the
    vault's keys; `plain_keys` says that they have none, for simulations alone. `service` is how the node runs in a federation.
    """

    member: Name
    contracts: Annotated[dict[Name, Mapping], Field(min_length=1)]
    consent: Consent | None = None
    memory_mb: Annotated[int, Field(ge=128, le=1_048_576)] = 1024
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    passphrase_file: OwnName | None = None
    plain_keys: bool = False
    service: ServiceConfig = ServiceConfig()
    _home: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_way_to_the_keys(self) -> Self:
        if self.passphrase_file is not None and self.plain_keys:
            raise ValueError("give passphrase_file or plain_keys, not both")
        return self

    def at(self, home: Path) -> "NodeConfig":
        """Return this configuration with its paths relative to the folder `home`."""
        placed = self.model_copy()
        placed._home = home.resolve()
        return placed

    @property
    def home(self) -> Path:
        """The node's home folder.

        Raises
        ------
        DocumentError
            CSL-C001 when the configuration was neither loaded from a file nor placed by `at`.
        """
        if self._home is None:
            raise DocumentError(
                "CSL-C001", "The node's configuration has no home folder.", "Load it from its node.yaml."
            )
        return self._home


def load_node(path: Path) -> NodeConfig:
    """Read a node's YAML; its folder is the node's home. Raises DocumentError as `federation.document.load_yaml`."""
    return load_yaml(path, NodeConfig).at(path.parent)
