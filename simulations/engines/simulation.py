"""What a simulation computes: data, partners, model, algorithm, budgets and faults, as a YAML file says it.

The engine and the seed are not part of it: the same simulation runs on any engine, with any seed.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from federation.contract import Name, Text
from federation.document import Document
from federation.study import AdditiveModel, Epsilon, Model

Share = Annotated[float, Field(ge=0, le=1)]
Above = Annotated[float, Field(gt=0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Path = Annotated[str, Field(min_length=1, max_length=1000)]
MOST_ROUNDS = 10_000
_LONGEST_PULL = 2.0


class PublicData(Document):
    """A public data set by its name: `bank` (UCI bank-full), `cdnow`, `grocery` (Complete Journey)."""

    kind: Literal["public"] = "public"
    set: Literal["bank", "cdnow", "grocery"] = "bank"


class PopulationData(Document):
    """Customers of the synthetic bank-and-shop population; `institutions` is how many of this kind it founds."""

    kind: Literal["population"]
    of: Literal["bank", "shop"] = "bank"
    label: Literal["churned", "subscribed"] = "churned"
    customers: Annotated[int, Field(ge=100, le=20_000_000)] = 20_000
    institutions: Count = 8
    overlap: Share = 0.2
    seed: int = 1


class TableData(Document):
    """A CSV or Parquet table in a contract's own columns and units, with its label column; for public or synthetic data.

    `institution` and `time` name columns of it that say who holds a row and when it was written; both may be absent.
    """

    kind: Literal["table"]
    path: Path
    contract: Path
    institution: str | None = None
    time: str | None = None


Data = Annotated[PublicData | PopulationData | TableData, Field(discriminator="kind")]


class Own(Document):
    """Every institution keeps the rows that the data give it; with a `count` on the partners, the largest so many."""

    kind: Literal["own"] = "own"


class ByColumn(Document):
    """One institution for each value of a column; with a `count`, values are put together until so many are left."""

    kind: Literal["column"]
    column: Name


class Dealt(Document):
    """Rows dealt out at random: institutions of equal size that differ by chance alone."""

    kind: Literal["dealt"]


class LabelSkew(Document):
    """Each class is dealt out by shares from a symmetric Dirichlet distribution: the smaller `alpha`, the more base rates differ."""

    kind: Literal["labels"]
    alpha: Above = 0.5


class FeatureSkew(Document):
    """Each category, or tenth of a numeric column, is dealt out by Dirichlet shares: institutions have unlike customers."""

    kind: Literal["features"]
    column: Name
    alpha: Above = 0.5


class QuantitySkew(Document):
    """Sizes follow Dirichlet shares: the smaller `alpha`, the more unequal."""

    kind: Literal["quantity"]
    alpha: Above = 1.0


class ByTime(Document):
    """Institutions hold consecutive stretches of time, as markets entered one after the other."""

    kind: Literal["time"]


By = Annotated[Own | ByColumn | Dealt | LabelSkew | FeatureSkew | QuantitySkew | ByTime, Field(discriminator="kind")]


class Lacking(Document):
    """Institutions that have no such columns: each institution lacks them with probability `share`, at least one has them."""

    columns: Annotated[tuple[Name, ...], Field(min_length=1)]
    share: Share = 0.5


class Partners(Document):
    """Who takes part: how rows become institutions, how many, and how small one may be.

    `smallest` is the least number of customers who train at an institution; `heldout` the share that is held out to be judged on,
    at random or the last of each institution by time. Who belongs to whom is drawn from `seed`, and is the same in every run; who is
    held out at random is drawn from the run's own.
    """

    by: By = Own()
    count: Count | None = None
    smallest: Annotated[int, Field(ge=10, le=1_000_000)] = 30
    heldout: Annotated[float, Field(ge=0.05, le=0.8)] = 0.2
    heldout_by: Literal["random", "time"] = "random"
    lacking: Lacking | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1


class FedSGD(Document):
    """Every round each institution sends one noisy gradient sum.

    `noise`: with `shared`, which needs secure sums, all institutions together add what one customer needs.
    `weights`: `recipe` as real studies are weighed; `size` by declared sizes; `precision` by the inverse variance of what each sends.
    """

    kind: Literal["fedsgd"] = "fedsgd"
    noise: Literal["local", "shared"] = "local"
    colluders: Annotated[int, Field(ge=0, le=1000)] = 1
    weights: Literal["recipe", "size", "precision"] = "recipe"
    server: Literal["recipe", "fedavgm", "fedadam"] = "recipe"

    @model_validator(mode="after")
    def _shared_by_recipe(self) -> Self:
        if self.noise == "shared" and self.weights != "recipe":
            raise ValueError("shared noise is common to all members: it has no weights but the recipe's")
        return self


class FedAvg(Document):
    """Every round each institution takes local DP-SGD steps and sends the change.

    `proximal` is FedProx's mu: a pull back to the round's weights. `server`: the recipe's descent on the mean change, plain averaging, or
    momentum or Adam on it. `steps` and `rate` are those of a local round; the rule's where absent.
    """

    kind: Literal["fedavg"]
    steps: Annotated[int, Field(ge=1, le=1000)] = 2
    rate: Above | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    proximal: Annotated[float, Field(ge=0, le=1000)] = 0.0
    weights: Literal["recipe", "size", "precision"] = "recipe"
    server: Literal["recipe", "average", "fedavgm", "fedadam"] = "recipe"

    @model_validator(mode="after")
    def _recipe_reads_gradients(self) -> Self:
        if self.server == "recipe" and (self.momentum or self.proximal):
            raise ValueError("server: recipe reads a change as gradients: momentum and proximal need another server")
        if self.rate is not None and self.rate * self.proximal >= _LONGEST_PULL:
            raise ValueError(
                "rate * proximal must be below 2: longer steps back lead beyond the round's weights, farther each time"
            )
        return self


class Scaffold(Document):
    """SCAFFOLD (Karimireddy et al. 2020): local steps corrected by control variates, which follow from the noisy changes alone."""

    kind: Literal["scaffold"]
    steps: Annotated[int, Field(ge=1, le=1000)] = 4
    rate: Above | None = None


class Alone(Document):
    """Every institution trains by itself, without noise: nothing leaves it."""

    kind: Literal["alone"]


class Pooled(Document):
    """Everybody's records in one place, without noise: what nobody may do."""

    kind: Literal["pooled"]


class PooledDP(Document):
    """Everybody's records in one place, with the budget: what one party that everybody trusts could do."""

    kind: Literal["pooled_dp"]


Algorithm = Annotated[FedSGD | FedAvg | Scaffold | Alone | Pooled | PooledDP, Field(discriminator="kind")]


class Personal(Document):
    """After the last round each institution goes on by itself, on its own customers, without noise: the result never leaves it.

    `head` moves the last layer alone. `steps` full-batch steps of length `rate` on the mean gradient.
    """

    part: Literal["all", "head"] = "all"
    steps: Annotated[int, Field(ge=1, le=10_000)] = 20
    rate: Above = 0.2


class Privacy(Document):
    """Everybody's epsilon, or several that are dealt to the institutions in turn, or None for no noise. delta is 1 / (100 n)."""

    epsilon: Annotated[tuple[Epsilon, ...], Field(min_length=1)] | Epsilon | None = 1.0

    def of(self, place: int) -> float | None:
        """Return the epsilon of the institution in this place."""
        if isinstance(self.epsilon, tuple):
            return self.epsilon[place % len(self.epsilon)]
        return self.epsilon


class Poisoners(Document):
    """Institutions that lie: `labels` trains on swapped labels; `reverse` sends its release times minus `strength`."""

    count: Annotated[int, Field(ge=0, le=100_000)] = 0
    attack: Literal["labels", "reverse"] = "reverse"
    strength: Above = 1.0


class Faults(Document):
    """What goes wrong: `dropout` is the chance that an institution misses a round; `lost` the share that leaves for good half-way.

    `stragglers`: every institution's time for a round is lognormal with this spread; who is later than `deadline` times the median
    misses the round, and has paid for it all the same.
    """

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lost: Annotated[float, Field(ge=0, lt=1)] = 0.0
    stragglers: Annotated[float, Field(ge=0, le=5)] = 0.0
    deadline: Annotated[float, Field(gt=0, le=1000)] = 3.0
    poisoners: Poisoners = Poisoners()


class Simulation(Document):
    """One simulated study."""

    name: Name
    title: Text = "A simulated study"
    data: Data = PublicData()
    partners: Partners = Partners()
    model: Model = AdditiveModel()
    algorithm: Algorithm = FedSGD()
    privacy: Privacy = Privacy()
    faults: Faults = Faults()
    personal: Personal | None = None
    rounds: Annotated[int | None, Field(ge=1, le=MOST_ROUNDS)] = None
    sampling_rate: Annotated[float | None, Field(gt=0, le=1)] = None
    clip: Annotated[float | None, Field(ge=1e-6, le=1e4)] = None
