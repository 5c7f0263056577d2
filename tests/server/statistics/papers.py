"""Reports and grants of made-up statistics studies."""

from federation.answers import Answer, AnswerTable, MemberTerms, Row, StatisticsReport


def answer(name: str = "customers", rows: tuple[Row, ...] | None = None, **changes: object) -> Answer:
    """An answer of one table."""
    given = (Row(key=("clerk",), value=10.0, low=5.0, high=15.0),) if rows is None else rows
    table = AnswerTable(name="customers", title="Customers", unit="customers", key=("job",), rows=given)
    fields: dict[str, object] = {"id": name, "kind": "count", "title": "How many", "tables": (table,)}
    return Answer(**(fields | changes))  # type: ignore[arg-type]


def report(**changes: object) -> StatisticsReport:
    """A report that two members granted."""
    fields: dict[str, object] = {
        "study": "ab" * 32,
        "name": "people",
        "title": "Who they are",
        "purpose": "marketing.analytics",
        "contract": "shop",
        "aggregation": "plain",
        "noise": "local",
        "confidence": 0.95,
        "rounds": 2,
        "members": (
            MemberTerms(member="alder", declared_size=4000, epsilon=1.0, delta=1e-6, rounds=2),
            MemberTerms(member="birch", declared_size=400, epsilon=0.5, delta=1e-5, rounds=1),
        ),
        "answers": (answer(),),
    }
    return StatisticsReport(**(fields | changes))  # type: ignore[arg-type]
