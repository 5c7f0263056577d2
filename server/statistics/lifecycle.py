"""Life-cycle stages: how many customers are in each at both times, and how they moved.

One round, one table: stage at the as-of date by stage at the end of the horizon. Everything else is sums and quotients of its cells, so
that margins, flows and probabilities agree with each other. Intervals hold the noise alone.
"""

import math

import numpy as np

from federation.answers import Answer, AnswerTable
from federation.contract import FeatureContract
from federation.measures import At, Cells, Centres, Rule, RulesAxis, Term, problems_of
from federation.queries import Lifecycle
from federation.segments import OTHER, problems_of_stages, rules_table
from server.statistics import consistency
from server.statistics.asking import Setting, Sum
from server.statistics.consistency import Floats
from server.statistics.histograms import shares_of
from server.statistics.intervals import Ratio, Span, amount, around
from server.statistics.tables import OneRound, Spread, answer_table, hidden, row

TIMES: tuple[At, At] = ("start", "end")
_WORST = 0.2  # of all customers: a stage whose size may be off by more says nothing
_AT = ("stage", "time")
_MOVED = ("stage at start", "stage at end")


def check(query: Lifecycle, contract: FeatureContract) -> list[str]:
    """Return what keeps a query from being asked of a contract, in words; empty when nothing does."""
    if contract.source != "transactions":
        return [f"{contract.name} shows each customer at one time alone: stages at two times need a log of purchases"]
    found = problems_of_stages(query.stages)
    return found or problems_of([_table(query, 1)], contract)


class LifecycleAsker(OneRound[Lifecycle]):
    """Asks for one table of stages by stages."""

    def __init__(self, query: Lifecycle, setting: Setting) -> None:
        super().__init__(query, setting)
        self._stages = (*(rule.name for rule in query.stages), OTHER)

    def _shares(self) -> tuple[float, ...]:
        return (1.0,)

    def _least(self) -> float:
        size = self.setting.z * self.setting.sd * math.sqrt(len(self._stages))
        return max(1.0, math.ceil(size / (_WORST * self.setting.customers)))

    def _measures(self, caps: tuple[int, ...]) -> tuple[Cells | Centres, ...]:
        return (_table(self.query, caps[0]),)

    def _spreads(self) -> tuple[Spread, ...]:
        sd = self.setting.sd
        return (
            Spread("customers who moved from one stage to another", sd, "customers"),
            Spread("customers in a stage", sd * math.sqrt(len(self._stages)), "customers"),
            Spread("share that moved on from a fifth of all customers", sd / (0.2 * self.setting.customers), "share"),
        )

    def answer(self) -> Answer:
        """Return moves, probabilities, sizes at both times, net flows, and the rules that they follow."""
        raw, sd = _customers(self._sums[0])
        shown = consistency.table(raw)
        moves, moved = self._moves(raw, shown, sd)
        transitions, silent = self._transitions(raw, shown, sd)
        notes = [
            "Intervals hold the noise alone, not who happened to become a customer.",
            "start is the as-of date, end is the end of the horizon after it, each with its own observation window. "
            f"{OTHER} are customers whom no rule takes, or who are not there at that time.",
            hidden("a number of customers who moved", moved, self.setting.z * sd, "customers"),
        ]
        if silent:
            notes.append(f"Too few to say where they went from here: {', '.join(silent)}.")
        rules = rules_table(self.query.stages, "Rules of the stages, in order: the first that fits decides")
        tables = (moves, transitions, *self._sizes(raw, shown, sd), self._flows(raw, shown, sd), rules)
        return self._answer("Life-cycle stages, and how customers moved between them", tables, notes)

    def _moves(self, raw: Floats, shown: Floats, sd: float) -> tuple[AnswerTable, list[Span]]:
        places = list(np.ndindex(*raw.shape))
        spans = [amount(float(raw[at]), sd, self.setting.z, float(shown[at])) for at in places]
        rows = [row((self._stages[i], self._stages[j]), span) for (i, j), span in zip(places, spans, strict=True)]
        return answer_table("moves", "Customers by their stage at start and at end", "customers", _MOVED, rows), spans

    def _transitions(self, raw: Floats, shown: Floats, sd: float) -> tuple[AnswerTable, list[str]]:
        """Return the shares of each row, and the stages with too few customers to have any."""
        rows, silent = [], []
        for name, noisy, fitted in zip(self._stages, raw, shown, strict=True):
            total, size = float(noisy.sum()), float(fitted.sum())
            spans = [
                Ratio.of_part(part, total - part, sd**2, (len(noisy) - 1) * sd**2)
                .span(self.setting.z)
                .clipped(0.0, 1.0)
                for part in noisy.tolist()
            ]
            if size <= 0.0 or not all(span.known for span in spans):
                silent.append(name)
                spans = [Span(None, 0.0, 1.0)] * len(spans)
            else:
                spans = [span.with_value(float(part) / size) for span, part in zip(spans, fitted, strict=True)]
            rows += [row((name, other), span) for other, span in zip(self._stages, spans, strict=True)]
        title = "Share of a stage's customers at start who are in each stage at end"
        return answer_table("transitions", title, "share of the stage at start", _MOVED, rows), silent

    def _sizes(self, raw: Floats, shown: Floats, sd: float) -> tuple[AnswerTable, AnswerTable]:
        """Return the customers in each stage, and each stage's share of those whom a rule takes."""
        wide = sd * math.sqrt(len(self._stages))
        sizes, shares = [], []
        for at, axis in zip(TIMES, (1, 0), strict=True):
            noisy, fitted = raw.sum(axis=axis), shown.sum(axis=axis)
            for name, size, value in zip(self._stages, noisy.tolist(), fitted.tolist(), strict=True):
                sizes.append(row((name, at), amount(size, wide, self.setting.z, value)))
            parts = shares_of(noisy[:-1], wide, self.setting.z)
            shares += [row((name, at), span) for name, span in zip(self._stages[:-1], parts, strict=True)]
        return (
            answer_table("stages", "Customers in each stage", "customers", _AT, sizes),
            answer_table("shares", "Share of each stage in the customers whom a rule takes", "share", _AT, shares),
        )

    def _flows(self, raw: Floats, shown: Floats, sd: float) -> AnswerTable:
        # whoever stayed stands in both margins, and so does that cell's noise
        wide = sd * math.sqrt(2 * (len(self._stages) - 1))
        noisy, fitted = ((table.sum(axis=0) - table.sum(axis=1)).tolist() for table in (raw, shown))
        rows = [
            row((name,), around(flow, wide, self.setting.z).with_value(value))
            for name, flow, value in zip(self._stages, noisy, fitted, strict=True)
        ]
        title = "Customers whom a stage won from start to end, less those whom it lost"
        return answer_table("flows", title, "customers", ("stage",), rows)


def _customers(item: Sum) -> tuple[Floats, float]:
    assert isinstance(item.measure, Cells)
    cap = item.measure.terms[0].cap
    return np.asarray(item.values[0] / cap, dtype=np.float64), item.sd / cap


def _table(query: Lifecycle, cap: int) -> Cells:
    start, end = (RulesAxis(rules=tuple(_at(rule, at) for rule in query.stages)) for at in TIMES)
    return Cells(axes=(start, end), where=query.where, terms=(Term(cap=cap),))


def _at(rule: Rule, at: At) -> Rule:
    return Rule(name=rule.name, where=tuple(item.model_copy(update={"at": at}) for item in rule.where))
