"""The dry run: what a study would find at this institution. Nothing of it may leave: every number here is private."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from client.cohort import Cohort, read_cohort, split
from client.config import NodeConfig
from client.consent import Excluded
from client.tables import Want
from client.validation import Findings
from federation.charter import Declaration
from federation.contract import FeatureContract
from federation.errors import DataError
from federation.study import HashHoldout, Holdout

NOTICE = "seen at this institution only"
_CLOSE = (0.8, 1.25)


@dataclass(frozen=True)
class Reading:
    """One reading of the data: its findings, the share of positive labels where there are labels, the refusal if any."""

    purpose: str
    findings: Findings
    positive: float | None = None
    refusal: dict[str, str] | None = None


@dataclass(frozen=True)
class CheckReport:
    """The dry run of one contract and purpose: learning, scoring, and how the true size compares with the declared one.

    `training` and `held_out` are customer counts after the study's split, None where no split was asked for.
    """

    member: str
    contract: str
    declared: int
    learn: Reading
    score: Reading
    training: int | None
    held_out: int | None
    advice: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the institution can take part in learning."""
        return self.learn.refusal is None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, as `--json` prints it."""
        return {
            "notice": NOTICE,
            "ok": self.ok,
            "member": self.member,
            "contract": self.contract,
            "declared": self.declared,
            "training": self.training,
            "held_out": self.held_out,
            "advice": list(self.advice),
            "learn": _plain(self.learn),
            "score": _plain(self.score),
        }

    def __rich__(self) -> Group:
        """Return what a terminal shows."""
        return Group(
            _counts(self),
            *([_columns(self.learn.findings)] if self.learn.findings.columns else []),
            *_lines("learning", self.learn),
            *_lines("scoring", self.score),
            *(Text(f"  {line}") for line in self.advice),
        )


def check(
    node: NodeConfig,
    contract: FeatureContract,
    declaration: Declaration,
    purpose: str,
    contact: str,
    holdout: Holdout | None = None,
    key: bytes | None = None,
    excluded: Excluded | None = None,
) -> CheckReport:
    """Read the data as a study with this purpose would, spend nothing and release nothing.

    A structural fault does not raise: it stands in the report's reading with its code. `holdout` (and, for a hash, the
    vault's hold-out `key`) adds the sizes of the two parts. Whom `excluded` names counts as without consent.
    """
    cohort, learn = _read(node, contract, declaration, purpose, "learn", excluded)
    _, score = _read(node, contract, declaration, contact, "score", excluded)
    training, held_out = _sizes(cohort, holdout, key)
    advice: tuple[str, ...] = ()
    if cohort is not None:
        expected = _expected(len(cohort), holdout) if training is None else training
        advice = _advice(declaration.size, expected, learn.findings)
    return CheckReport(node.member, contract.name, declaration.size, learn, score, training, held_out, advice)


def _read(
    node: NodeConfig,
    contract: FeatureContract,
    declaration: Declaration,
    purpose: str,
    want: Want,
    excluded: Excluded | None,
) -> tuple[Cohort | None, Reading]:
    findings = Findings()
    try:
        cohort = read_cohort(node, contract, declaration, purpose, want, findings, excluded)
    except DataError as error:
        return None, Reading(purpose, findings, refusal=error.as_dict())
    positive = None if cohort.label is None else float(cohort.label.mean())
    return cohort, Reading(purpose, findings, positive)


def _sizes(cohort: Cohort | None, holdout: Holdout | None, key: bytes | None) -> tuple[int | None, int | None]:
    if cohort is None or holdout is None or (isinstance(holdout, HashHoldout) and key is None):
        return None, None
    training, held = split(cohort, holdout, key or b"")
    return len(training), len(held)


def _expected(customers: int, holdout: Holdout | None) -> int:
    """Return how many customers will train, about: who is held out by a hash is known only under the vault's sealed key."""
    return round(customers * (1.0 - holdout.share)) if isinstance(holdout, HashHoldout) else customers


def _advice(declared: int, true: int, findings: Findings) -> tuple[str, ...]:
    """Say what a declared size far from the true one does; never suggest the true one itself as the new declaration."""
    if declared * _CLOSE[0] <= true <= declared * _CLOSE[1]:
        return ()
    findings.note("CSL-C213", "size", true, f"declared are {declared:,}")
    if true < declared:
        effect = (
            "the plan counts on more customers than there are: fewer carry the same noise, and steps come out short"
        )
    else:
        effect = "the plan counts on fewer customers than there are: it carries more noise for each than it has to"
    action = "declare a round number, chosen from what is public, with the next version of the charter"
    return (f"{true:,} customers would train, {declared:,} are declared: {effect}; {action}.",)


def _plain(reading: Reading) -> dict[str, Any]:
    found = reading.findings
    return {
        "purpose": reading.purpose,
        "refusal": reading.refusal,
        "rows": found.rows,
        "customers": found.customers,
        "without_consent": found.without_consent,
        "used": found.used,
        "positive": reading.positive,
        "findings": [asdict(item) for item in found.items],
        "columns": {name: asdict(facts) for name, facts in found.columns.items()},
    }


def _counts(report: CheckReport) -> Table:
    table = Table(title=f"{report.member}, {report.contract}: {NOTICE}", title_justify="left")
    table.add_column("")
    table.add_column(f"learning: {report.learn.purpose}", justify="right")
    table.add_column(f"scoring: {report.score.purpose}", justify="right")
    pair = (report.learn.findings, report.score.findings)
    table.add_row("rows read", *(f"{found.rows:,}" for found in pair))
    table.add_row("customers", *(f"{found.customers:,}" for found in pair))
    table.add_row("left out: no consent", *(f"{found.without_consent:,}" for found in pair))
    table.add_row("take part", *(f"{found.used:,}" for found in pair))
    if report.learn.positive is not None:
        table.add_row("label yes", f"{report.learn.positive:.1%}", "")
    if report.training is not None:
        table.add_row("for training", f"{report.training:,}", "")
        table.add_row("held out", f"{report.held_out:,}", "")
    table.add_row("declared", f"{report.declared:,}", "")
    return table


def _columns(findings: Findings) -> Table:
    title = f"columns: {NOTICE}"
    table = Table(title=title, title_justify="left", min_width=len(title) + 2)
    for name in ("column", "missing", "clipped"):
        table.add_column(name, justify="left" if name == "column" else "right")
    for name, facts in findings.columns.items():
        clipped = "" if facts.clipped is None else f"{facts.clipped:.1%}"
        table.add_row(name, f"{facts.missing:.1%}" if facts.mapped else "not mapped", clipped)
    return table


def _lines(title: str, reading: Reading) -> list[Text]:
    if reading.refusal is not None:
        text = f"{title}: {reading.refusal['code']}  {reading.refusal['cause']}\n{reading.refusal['action']}"
        return [Text(text, "red")]
    shown = [f"  {item.severity}: {item}" for item in reading.findings.items if item.code != "CSL-C211"]
    return [Text("\n".join([f"{title}:", *shown]))] if shown else [Text(f"{title}: nothing to report.")]
