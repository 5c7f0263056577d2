"""What the demo found, as plain values: the report and the closing table are drawn from these and from nothing else.

True counts and exact AUCs are known here because the demo plays every party on one machine; in a federation no party
sees them.
"""

from dataclasses import dataclass

HELPED_BY = 0.002
"""A change of the AUC smaller than this counts as neither gain nor loss."""


@dataclass(frozen=True)
class Curve:
    """A line in a figure: `x` and `y` of one length; `role` is federated, pooled, released or calibrated."""

    role: str
    x: tuple[float, ...]
    y: tuple[float, ...]


REMARKABLE = 0.01
"""A federated AUC that is so far above the reference without privacy needs an explanation."""


@dataclass(frozen=True)
class Budget:
    """One institution's privacy budget, in epsilon at `delta`.

    Attributes
    ----------
    whole:
        What its policy allows over the budget's period, in each of the two accounts.
    granted:
        What it granted the study.
    training, holdout:
        What was spent in each account, by the privacy loss distribution of the ledger's events.
    charged_training, charged_holdout:
        What the ledger's filter holds against each account: a little more, because it must hold whatever studies come later.
    left:
        The largest study that still fits, as the ledger's filter prices it: budgets do not simply subtract.
    """

    whole: float
    granted: float
    delta: float
    training: float
    holdout: float
    charged_training: float
    charged_holdout: float
    left: float


@dataclass(frozen=True)
class SiteResult:
    """One institution in one study.

    Attributes
    ----------
    customers, tested:
        Customers used for training, and held out: true counts, seen by no party.
    declared:
        The size that the charter declares.
    alone, federated, pooled:
        Exact AUC on its held-out customers: of its own model without privacy, of the federation's, of the reference on
        pooled data.
    lift:
        Share of positives among its best-scored tenth over its base rate, federated model.
    margin:
        How far chance moves the gain on so many held-out customers (half of a 95% interval, DeLong, paired).
    consent:
        Share of its customers who agreed to profiling (simulated).
    """

    id: str
    title: str
    declared: int
    customers: int
    tested: int
    consent: float
    budget: Budget
    alone: float
    federated: float
    pooled: float
    lift: float
    margin: float

    @property
    def gain(self) -> float:
        """Federated AUC minus the AUC of the institution's own model."""
        return self.federated - self.alone


@dataclass(frozen=True)
class NameRow:
    """One line of a name list: pseudonymous customer, score as a probability, decile, and reasons in words."""

    customer: str
    score: float
    decile: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class NameList:
    """The head of one institution's name list; in a federation it never leaves the institution."""

    site: str
    listed: int
    rows: tuple[NameRow, ...]


@dataclass(frozen=True)
class Estimate:
    """A metric as the coordinator sees it: an estimate from noisy histograms with its interval; None where uninformative."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class StudyResult:
    """One study from offer to name list.

    Attributes
    ----------
    summary:
        What was predicted and how, in a sentence or two.
    roc, lift, calibration:
        Curves over all held-out customers together.
    names:
        The head of one name list; None when no institution adopted the model.
    shapes:
        The model's shape functions as one SVG element; empty where the model has none.
    card:
        The model card as (heading, text).
    sent, received:
        Bytes from coordinator to institutions and back.
    """

    name: str
    title: str
    summary: str
    model: str
    mode: str
    rounds: int
    seconds: float
    sent: int
    received: int
    base_rate: float
    sites: tuple[SiteResult, ...]
    roc: tuple[Curve, ...]
    lift: tuple[Curve, ...]
    calibration: tuple[Curve, ...]
    released_auc: Estimate
    shapes: str
    names: NameList | None
    card: tuple[tuple[str, str], ...]

    @property
    def not_helped(self) -> tuple[SiteResult, ...]:
        """Institutions whose own model would have ranked their customers at least as well (beyond `HELPED_BY`)."""
        return tuple(site for site in self.sites if site.gain < -HELPED_BY)

    @property
    def unchanged(self) -> tuple[SiteResult, ...]:
        """Institutions for which federating changed next to nothing."""
        return tuple(site for site in self.sites if abs(site.gain) <= HELPED_BY)

    @property
    def helped(self) -> tuple[SiteResult, ...]:
        """Institutions that gained by more than `HELPED_BY`."""
        return tuple(site for site in self.sites if site.gain > HELPED_BY)

    def mean(self, which: str) -> float:
        """Return the plain mean over institutions of `alone`, `federated`, `pooled` or `lift`."""
        values = [float(getattr(site, which)) for site in self.sites]
        return sum(values) / len(values)

    def verdict(self) -> str:
        """Say in a few sentences whom federating helped, whom it did not, and what privacy cost on average."""
        many = len(self.sites)
        told = [
            _told(self.helped, many, "gained {by} of AUC"),
            _told(self.unchanged, many, "saw next to no change"),
            _told(self.not_helped, many, "would have done better with a model of their own, by {by}"),
        ]
        clear = sum(abs(site.gain) > site.margin for site in self.sites)
        told.append(
            f"{_number(clear)} of these {many} changes {'is' if clear == 1 else 'are'} larger than chance explains "
            "on so many held-out customers."
        )
        price = self.mean("pooled") - self.mean("federated")
        against = f"{price:.3f} below" if price > 0 else f"{-price:.3f} above"
        told.append(f"On average the federated AUC is {against} the reference that pools all records without privacy.")
        if -price > REMARKABLE:
            told.append(
                "That is no merit of noise: fitted to the end, the reference follows its training customers too closely where those "
                "held out differ from them, as later ones do; the federation's few averaged steps follow them less."
            )
        return " ".join(part for part in told if part)


def _number(count: int) -> str:
    return "None" if count == 0 else str(count)


def _told(sites: tuple[SiteResult, ...], many: int, what: str) -> str:
    if not sites:
        return ""
    changes = sorted(abs(site.gain) for site in sites)
    by = f"{changes[0]:.3f}" if len(changes) == 1 else f"{changes[0]:.3f} to {changes[-1]:.3f}"
    names = "" if len(sites) == many else f" ({', '.join(site.title for site in sites)})"
    return f"{'All' if len(sites) == many else len(sites)} of {many} {what.format(by=by)}{names}."


@dataclass(frozen=True)
class DemoResult:
    """Everything that the demo shows."""

    version: str
    started: str
    seconds: float
    seed: int
    studies: tuple[StudyResult, ...]
    sources: tuple[tuple[str, str, str], ...]
