"""Targets of a plan as people write them: `lift@10% >= 2.5`, `auc >= pooled - 0.01`, `within 0.01 of pooled`.

    target     =  metric comparison bound  |  [metric] "within" number "of" reference
    comparison =  ">=" | "<="
    bound      =  number  |  reference [("+" | "-") number]
    reference  =  "pooled" | "pooled_dp" | "alone"

A metric that is better when it is larger takes `>=`, the others `<=`. `within` says the same of a reference less (or plus) the number, and
is about the AUC, mean over institutions, where no metric is named; for everybody's customers in one ranking name `auc_ranking`.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from federation.errors import DocumentError
from simulations.sweeps.metrics import Metric, metric_of

Reference = Literal["pooled", "pooled_dp", "alone"]
REFERENCES: tuple[Reference, ...] = get_args(Reference)

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_METRIC = r"[a-z_]+(?:\s*@\s*\d+\s*%)?"
_WITHIN = re.compile(rf"(?:(?P<metric>{_METRIC})\s+)?within\s+(?P<number>{_NUMBER})\s+of\s+(?P<reference>\w+)")
_COMPARED = re.compile(rf"(?P<metric>{_METRIC})\s*(?P<comparison>[<>]=?|=+)\s*(?P<bound>\S.*)")
_BOUND = re.compile(rf"(?P<reference>[a-z]\w*)(?:\s*(?P<sign>[+-])\s*(?P<number>{_NUMBER}))?|(?P<alone>-?{_NUMBER})")
_HOW = 'Write it as "lift@10% >= 2.5", "auc >= pooled - 0.01" or "within 0.01 of pooled".'


@dataclass(frozen=True)
class Target:
    """What is to be reached: a metric at least (or, where less is better, at most) as good as a bound.

    Attributes
    ----------
    metric:
        What is looked at.
    reference:
        A reference run whose figure, at the same seed, the bound is counted from; None for a plain number.
    offset:
        What is added to the reference, or the number itself.
    """

    metric: Metric
    reference: Reference | None
    offset: float

    def __str__(self) -> str:
        comparison = ">=" if self.metric.rises else "<="
        return f"{self.metric.name} {comparison} {self._bound()}"

    def _bound(self) -> str:
        if self.reference is None:
            return _text(self.offset)
        if self.offset == 0:
            return self.reference
        return f"{self.reference} {'+' if self.offset > 0 else '-'} {_text(abs(self.offset))}"


def _text(number: float) -> str:
    return repr(number).removesuffix(".0")


def parse_target(text: str) -> Target:
    """Read a target.

    Raises
    ------
    DocumentError
        CSL-M245 when the text is no target; CSL-M246 for an unknown metric; CSL-M247 for a number that the metric cannot have; CSL-M248
        when the comparison asks for a worse model.
    """
    plain = " ".join(text.lower().replace("≥", ">=").replace("≤", "<=").replace("\u2212", "-").split())
    within, compared = _WITHIN.fullmatch(plain), _COMPARED.fullmatch(plain)
    if within is not None:
        metric = metric_of(within["metric"] or "auc")
        return _checked(Target(metric, _reference(within["reference"]), -metric.sign * float(within["number"])), text)
    if compared is None:
        raise DocumentError("CSL-M245", f'"{text}" is not understood as a target.', _HOW)
    metric = metric_of(compared["metric"])
    _check_direction(metric, compared["comparison"], text)
    return _checked(_target(metric, compared["bound"], text), text)


def _target(metric: Metric, bound: str, text: str) -> Target:
    found = _BOUND.fullmatch(bound)
    if found is None:
        raise DocumentError("CSL-M245", f'"{bound}" in "{text}" is neither a number nor a reference.', _HOW)
    if found["alone"] is not None:
        return Target(metric, None, float(found["alone"]))
    offset = float(found["number"] or 0.0)
    return Target(metric, _reference(found["reference"]), -offset if found["sign"] == "-" else offset)


def _reference(name: str) -> Reference:
    for known in REFERENCES:
        if name == known:
            return known
    raise DocumentError("CSL-M245", f'There is no reference "{name}".', f"Use one of: {', '.join(REFERENCES)}.")


def _check_direction(metric: Metric, comparison: str, text: str) -> None:
    wanted = ">=" if metric.rises else "<="
    if comparison == wanted:
        return
    if comparison == wanted[0] or "=" == comparison[0]:
        raise DocumentError("CSL-M245", f'"{comparison}" in "{text}" is no comparison of a target.', f"Write {wanted}.")
    better = "larger" if metric.rises else "smaller"
    raise DocumentError(
        "CSL-M248", f'"{text}" asks for a worse model: {metric.name} is better when it is {better}.', f"Write {wanted}."
    )


def _checked(target: Target, text: str) -> Target:
    """Refuse numbers that say nothing: outside the metric's range, or so far from a reference that everything or nothing reaches them."""
    metric, offset = target.metric, target.offset
    if target.reference is None:
        fits = metric.low <= offset <= metric.high and math.isfinite(offset)
    else:
        fits = abs(offset) <= min(metric.high - metric.low, 100.0)
    if not fits:
        span = f"from {metric.low:g} to {metric.high:g}" if math.isfinite(metric.high) else f"at least {metric.low:g}"
        hint = " Write 75 per cent as 0.75." if metric.name.startswith("auc") else ""
        raise DocumentError("CSL-M247", f'"{text}" cannot be: {metric.name} is {span}.', f"Correct the number.{hint}")
    return target
