"""A report with a lifetime answer, as a coordinator delivers it, for the tests of what becomes of it."""

import numpy as np

from federation.answers import Answer, AnswerTable, MemberTerms, Row, StatisticsReport
from federation.lifetime import NAMES

VALUES = {"r": 0.243, "alpha": 0.113, "a": 0.793, "b": 2.426, "p": 6.25, "q": 3.74, "v": 0.5}


def answer(name: str = "worth", spread: float = 0.05, horizon: float = 1.0, **changes: float | None) -> Answer:
    values = VALUES | changes
    rows = []
    for each in NAMES:
        value = values[each]
        pair = (None, None) if value is None else (value * np.exp(-spread), max(value * np.exp(spread), 1.001))
        rows.append(Row(key=(each,), value=value, low=pair[0], high=pair[1]))
    matrix = np.eye(len(NAMES)) * spread**2
    cells = [
        Row(key=(one, two), value=float(matrix[i, j])) for i, one in enumerate(NAMES) for j, two in enumerate(NAMES)
    ]
    tables = (
        AnswerTable(name="parameters", title="Parameters", unit="mixed", key=("parameter",), rows=tuple(rows)),
        AnswerTable(name="covariance", title="Covariance", unit="logs", key=("one", "two"), rows=tuple(cells)),
        AnswerTable(name="horizon", title="Horizon", unit="windows", rows=(Row(key=(), value=horizon),)),
    )
    return Answer(id=name, kind="lifetime", title="Lifetime value", tables=tables)


def report(*answers: Answer, contract: str = "rfm") -> StatisticsReport:
    return StatisticsReport(
        study="ab" * 32,
        name="worth_study",
        title="What customers are worth",
        purpose="marketing.statistics",
        contract=contract,
        aggregation="plain",
        noise="local",
        confidence=0.95,
        rounds=1,
        members=(MemberTerms(member="alder", declared_size=100, epsilon=1.0, delta=1e-6, rounds=1),),
        answers=answers or (answer(),),
    )
