"""What a simulation is judged by: the names that people type, the columns that results have, and which way is better."""

from dataclasses import dataclass

from federation.errors import DocumentError


@dataclass(frozen=True)
class Metric:
    """One figure of a result.

    Attributes
    ----------
    name, column, short, title:
        As it is typed, as results call it, and as people read it, shortly and in full.
    rises:
        True where more is better.
    low, high:
        Where every value lies, however good or bad the model.
    digits:
        Digits after the point that are shown.
    own:
        The column of each institution's own figure; None where there is none.
    """

    name: str
    column: str
    short: str
    title: str
    rises: bool
    low: float
    high: float
    digits: int
    own: str | None = None

    @property
    def sign(self) -> float:
        """+1 where more is better, else -1: times a difference it is a gain."""
        return 1.0 if self.rises else -1.0

    @property
    def averaged(self) -> bool:
        """True where it is the mean of institutions' own figures, so that each of these can be held against the same bound."""
        return self.own is not None and self.column == f"{self.own}_mean"

    def shown(self, value: float, *, signed: bool = False) -> str:
        """Write a value, or a dash where there is none; a true minus sign."""
        if value != value:
            return "–"
        return f"{value:{'+' if signed else ''}.{self.digits}f}".replace("-", "\u2212")


def _lift(percent: int) -> Metric:
    """Return the lift among the best-scored of this share, which institutions have each of their own."""
    title = f"lift among the best-scored {percent}\u202f%, mean over institutions"
    own = "lift" if percent == 10 else f"lift_{percent:02d}"
    return Metric(
        f"lift@{percent}%", f"{own}_mean", f"lift@{percent}\u202f%", title, True, 0.0, 100.0 / percent, 2, own
    )


METRICS = {
    metric.name: metric
    for metric in (
        Metric("auc", "auc_mean", "AUC", "AUC, mean over institutions", True, 0.0, 1.0, 3, "auc"),
        Metric(
            "auc_ranking",
            "auc",
            "AUC in one ranking",
            "AUC of all held-out customers in one ranking",
            True,
            0.0,
            1.0,
            3,
        ),
        Metric("auc_worst", "auc_worst", "worst AUC", "AUC of the institution that is served worst", True, 0.0, 1.0, 3),
        Metric(
            "log_loss",
            "log_loss",
            "log loss",
            "log loss over all held-out customers",
            False,
            0.0,
            float("inf"),
            4,
            "log_loss",
        ),
        *(_lift(percent) for percent in (1, 5, 10, 20)),
    )
}
_ALIASES = {"lift": "lift@10%", "auc_mean": "auc"}

MEANING = (
    "auc and lifts are means over institutions, each judged on its own customers; auc_ranking and log_loss are over everybody's in one "
    "list, where a model that knows its institution's base rate has an advantage."
)


def metric_of(name: str) -> Metric:
    """Return the metric of this name; `lift` is `lift@10%`, and `auc_mean` is `auc`.

    Raises
    ------
    DocumentError
        CSL-M246 when there is no such metric.
    """
    plain = "".join(name.lower().split())
    found = METRICS.get(_ALIASES.get(plain, plain))
    if found is None:
        raise DocumentError("CSL-M246", f'There is no metric "{name}".', f"Use one of: {', '.join(METRICS)}.")
    return found
