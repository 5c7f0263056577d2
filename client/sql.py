"""SQL text for the query engine: quoting, and expressions that parse a raw column without ever failing on a value.

Names of the institution's columns reach SQL through `identifier` only, texts from the mapping through `literal` only.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

OK, MISSING, UNREADABLE, NOT_FINITE = 0, 1, 2, 3
"""States of a parsed value. For categories and flags, UNREADABLE means outside the vocabulary."""

LARGEST = 1e15
_FRACTIONS = ("FLOAT", "DOUBLE", "DECIMAL")
_INTEGERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
)
_TIMES = ("DATE", "TIMESTAMP")
_SCALARS = (*_FRACTIONS, *_INTEGERS, *_TIMES, "VARCHAR", "BOOLEAN", "UUID", "ENUM", "TIME", "NULL")


def identifier(name: str) -> str:
    """Quote a name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text."""
    return "'" + text.replace("'", "''") + "'"


def day(value: date) -> str:
    """Return a date literal."""
    return f"DATE '{value.isoformat()}'"


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(literal(text) for text in texts)


@dataclass(frozen=True)
class Field:
    """A raw column inside a relation: its safe alias and the engine's type."""

    alias: str
    type: str

    @property
    def scalar(self) -> bool:
        """Whether one value is one text, number, truth value or time."""
        return self.type.startswith(_SCALARS) and not self.type.endswith("]")

    @property
    def text(self) -> str:
        """The value as trimmed text, NULL when empty; 7.0 is '7', so that identifiers agree across kinds of source."""
        plain = f"CAST({self.alias} AS VARCHAR)"
        if self.type.startswith(_FRACTIONS):
            # isfinite first: Parquet statistics leave NaN out, and the engine may drop a comparison that they decide
            whole = (
                f"isfinite({self.alias}) AND {self.alias} = trunc({self.alias}) AND abs({self.alias}) < {LARGEST:.0f}"
            )
            plain = f"CASE WHEN {whole} THEN CAST(TRY_CAST({self.alias} AS BIGINT) AS VARCHAR) ELSE {plain} END"
        elif self.type == "VARCHAR":
            plain = self.alias
        elif self.type.startswith(_INTEGERS):
            return plain
        return f"nullif(trim({plain}), '')"

    @property
    def absent(self) -> str:
        """Whether there is no value: NULL, or text that is empty."""
        return f"({self.text if self.type == 'VARCHAR' else self.alias} IS NULL)"


@dataclass(frozen=True)
class Parsed:
    """A value expression and a state expression (OK, MISSING, UNREADABLE, NOT_FINITE); a value counts only if OK."""

    value: str
    state: str


def _missing(field: Field, spellings: Iterable[str]) -> str:
    listed = _listed(text.lower() for text in spellings)
    return f"({field.absent} OR lower({field.text}) IN ({listed}))" if listed else field.absent


def number(field: Field, missing: Iterable[str] = ()) -> Parsed:
    """Parse a number as DOUBLE."""
    numeric = field.type.startswith((*_FRACTIONS, *_INTEGERS))
    value = f"TRY_CAST({field.alias if numeric else field.text} AS DOUBLE)"
    state = (
        f"CASE WHEN {_missing(field, missing)} THEN {MISSING} WHEN {value} IS NULL THEN {UNREADABLE} "
        f"WHEN NOT isfinite({value}) OR abs({value}) > {LARGEST:.0f} THEN {NOT_FINITE} ELSE {OK} END"
    )
    return Parsed(value, state)


def category(field: Field, own: dict[str, str], categories: tuple[str, ...], missing: Iterable[str]) -> Parsed:
    """Parse a category as its index in `categories`; `own` maps own names, others are taken as they are."""
    codes = {name: index for index, name in enumerate(categories)}
    codes.update({name.strip(): codes[target] for name, target in own.items()})
    place = f"list_position([{_listed(codes)}], {field.text})"
    value = f"list_extract([{', '.join(str(code) for code in codes.values())}], {place})"
    state = f"CASE WHEN {_missing(field, missing)} THEN {MISSING} WHEN {value} IS NULL THEN {UNREADABLE} ELSE {OK} END"
    return Parsed(value, state)


def flag(field: Field, yes: Iterable[str], no: Iterable[str], missing: Iterable[str] = ()) -> Parsed:
    """Parse yes or no as 1.0 or 0.0, whatever the case of the letters."""
    lower = f"lower({field.text})"
    value = (
        f"CASE WHEN {lower} IN ({_listed(text.lower() for text in yes)}) THEN 1.0::DOUBLE "
        f"WHEN {lower} IN ({_listed(text.lower() for text in no)}) THEN 0.0::DOUBLE END"
    )
    state = (
        f"CASE WHEN {_missing(field, missing)} THEN {MISSING} WHEN ({value}) IS NULL THEN {UNREADABLE} ELSE {OK} END"
    )
    return Parsed(value, state)


def whole(field: Field) -> Parsed:
    """Parse a whole number from 0 as BIGINT."""
    value = f"TRY_CAST({field.text} AS BIGINT)"
    bad = f"{value} IS NULL OR {value} < 0 OR TRY_CAST({field.text} AS DOUBLE) <> {value}"
    return Parsed(value, f"CASE WHEN {field.absent} THEN {MISSING} WHEN {bad} THEN {UNREADABLE} ELSE {OK} END")


def calendar_day(field: Field, pattern: str | None) -> Parsed:
    """Parse a date or timestamp as the DATE it falls on (a stamp with an offset: on its day in UTC)."""
    if field.type.startswith(_TIMES) and pattern is None:
        value = f"CAST({field.alias} AS DATE)"
    elif pattern is None:
        value = f"CAST(TRY_CAST({field.text} AS TIMESTAMP) AS DATE)"
    else:
        value = f"CAST(try_strptime({field.text}, {literal(pattern)}) AS DATE)"
    bad = f"{value} IS NULL OR NOT isfinite({value})"
    return Parsed(value, f"CASE WHEN {field.absent} THEN {MISSING} WHEN {bad} THEN {UNREADABLE} ELSE {OK} END")
