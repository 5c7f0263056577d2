"""Study specs: one piece of joint work. The coordinator signs the spec; its digest is in every message."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from federation.contract import Name, Text
from federation.document import Document
from federation.signing import Hex32

CONTEXT = "csl1/study"
Purpose = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")]
Epsilon = Annotated[float, Field(gt=0, le=100)]
Rounds = Annotated[int, Field(ge=5, le=10_000)]
Aggregation = Literal["plain", "secure"]
Noise = Literal["local", "shared"]
Direction = Literal["increasing", "decreasing"]


class AdditiveModel(Document):
    """Logistic regression on the hat basis of each numeric column, one weight a category: a differentially private additive model.

    `monotone` says of numeric columns which way their curves may go: the released weights are projected, which costs no budget. `pairs`
    names pairs of columns that get a surface of their own beside their two curves. Neither is in the encoding where it is empty, so that
    studies from before it was known keep their digests.
    """

    kind: Literal["additive"] = "additive"
    monotone: Annotated[dict[Name, Direction], Field(max_length=500, exclude_if=lambda value: not value)] = Field(
        default_factory=dict
    )
    pairs: Annotated[tuple[tuple[Name, Name], ...], Field(max_length=10, exclude_if=lambda value: not value)] = ()

    # a mapping has no hash of its own, and what is built from a model is kept by model
    def __hash__(self) -> int:
        return hash((self.kind, frozenset(self.monotone.items()), self.pairs))

    @model_validator(mode="after")
    def _pairs_fit(self) -> Self:
        for pair in self.pairs:
            if pair[0] == pair[1]:
                raise ValueError(f"pairs: {pair[0]} is paired with itself")
            if clash := sorted(set(pair) & set(self.monotone)):
                raise ValueError(
                    f"pairs: {clash[0]} is to be monotone, and a pair would bend it anew for every value of the other"
                )
        if len({frozenset(pair) for pair in self.pairs}) != len(self.pairs):
            raise ValueError("pairs: a pair is named twice")
        return self


class LogisticModel(Document):
    """Logistic regression on columns scaled linearly by their public bounds."""

    kind: Literal["logistic"]


class MlpModel(Document):
    """A multi-layer perceptron (tanh) with an embedding for each categorical column; no batch normalisation."""

    kind: Literal["mlp"]
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1, max_length=4)] = (32, 16)
    embedding: Annotated[int, Field(ge=1, le=64)] = 4


Model = Annotated[AdditiveModel | LogisticModel | MlpModel, Field(discriminator="kind")]


class HashHoldout(Document):
    """Hold out a share of customers by a keyed hash of their identifier; the key stays in the vault."""

    kind: Literal["hash"]
    share: Annotated[float, Field(gt=0, lt=1)]


class PositionHoldout(Document):
    """Hold out the records stamped at or after a fixed position: a property of the record alone, never a share of the rows."""

    kind: Literal["position"]
    position: Annotated[int, Field(ge=0)]


Holdout = Annotated[HashHoldout | PositionHoldout, Field(discriminator="kind")]


class Training(Document):
    """The plan of a training run; every number is derived from public quantities before a vault is asked.

    `sampling_rate` (q) and `steps` in all (T) price the run; for `fedavg`, each of `rounds` rounds runs `steps / rounds` local steps.
    """

    mode: Literal["fedsgd", "fedavg"]
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    steps: Annotated[int, Field(ge=1, le=100_000)]
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    server_optimizer: Literal["recipe", "fedavgm", "fedadam"] = "recipe"

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.steps % self.rounds:
            raise ValueError("steps must be a multiple of rounds")
        if self.mode == "fedsgd" and self.steps != self.rounds:
            raise ValueError("fedsgd takes one step a round: steps must equal rounds")
        return self


class Evaluation(Document):
    """Evaluation by score histograms on held-out customers, with discrete Gaussian noise, charged to the hold-out's account."""

    bins: Annotated[int, Field(ge=4, le=64)] = 12


class SecurePlan(Document):
    """How a study's vectors are added up by secure aggregation (PSA-1), so that nobody sees one institution's.

    Attributes
    ----------
    noise:
        `local`: each member's own noise is enough for its budget. `shared`: the honest members' noise together is.
    n_min, c:
        The sum is opened over at least `n_min` members, of whom up to `c` may collude with the coordinator; n_min >= c + 3.
    share:
        Parameter sigma_i, in grid units, of the discrete Gaussian noise that every member adds to every coordinate.
    """

    noise: Noise
    n_min: Annotated[int, Field(ge=3, le=200)]
    c: Annotated[int, Field(ge=0, le=197)]
    share: Annotated[float, Field(ge=4.0, le=65_536.0)]

    @model_validator(mode="after")
    def _three_remain(self) -> Self:
        _check_remaining(self.n_min, self.c)
        return self

    @property
    def bearers(self) -> int:
        """How many members' noise surely counts: 1 for `local`; n_min less those who may collude, oneself at least, for `shared`."""
        return 1 if self.noise == "local" else self.n_min - max(self.c, 1)

    @property
    def sigma(self) -> float:
        """Parameter of the noise that surely counts, in grid units."""
        return self.share * math.sqrt(self.bearers)


class Draft(Document):
    """What every study's draft says, whatever it computes: what for, on which contract, with whom, and how vectors are added up.

    `epsilon` None means that each vault's own policy decides. `aggregation` and what goes with it are not in the encoding where
    everything is plain, so that studies from before it was known keep their digests. `n_min` and `c` are those of `SecurePlan`.
    """

    name: Name
    title: Text
    purpose: Purpose
    contract: Name
    epsilon: Epsilon | None = None
    min_partners: Annotated[int, Field(ge=1, le=200)] = 3
    deadline_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    aggregation: Annotated[Aggregation, Field(exclude_if=lambda value: value == "plain")] = "plain"
    noise: Annotated[Noise, Field(exclude_if=lambda value: value == "local")] = "local"
    n_min: Annotated[int | None, Field(ge=3, le=200, exclude_if=lambda value: value is None)] = None
    c: Annotated[int | None, Field(ge=0, le=197, exclude_if=lambda value: value is None)] = None

    @model_validator(mode="after")
    def _aggregation_fits(self) -> Self:
        given = (self.n_min is not None, self.c is not None)
        if self.aggregation == "plain":
            if any(given) or self.noise == "shared":
                raise ValueError("n_min, c and shared noise belong to aggregation: secure")
            return self
        if self.n_min is None or self.c is None:
            raise ValueError(
                "aggregation: secure needs n_min (members in a sum, at least) and c (how many may collude)"
            )
        _check_remaining(self.n_min, self.c)
        return self


class StudyDraft(Draft):
    """What a person writes under `configs/studies`; the plan is derived and the draft becomes a `StudySpec`.

    `rounds` in all, the probes among them, takes the place of the recipe's number, for a study that only tries out a new federation. It is
    not in the encoding where it is not given, so that studies from before it was known keep their digests.
    """

    model: Model = AdditiveModel()
    mode: Literal["fedsgd", "fedavg"] = "fedsgd"
    server_optimizer: Literal["recipe", "fedavgm", "fedadam"] = "recipe"
    rounds: Annotated[Rounds | None, Field(exclude_if=lambda value: value is None)] = None
    holdout: Holdout
    evaluation: Evaluation = Evaluation()
    intended_use: Text
    limits: Text

    @model_validator(mode="after")
    def _exact_sums(self) -> Self:
        if self.aggregation == "secure" and (
            self.mode != "fedsgd" or self.server_optimizer != "recipe" or self.model.kind == "mlp"
        ):
            raise ValueError(
                "aggregation: secure adds up exact gradient sums: it needs mode: fedsgd, server_optimizer: recipe, and an additive or "
                "logistic model"
            )
        return self


class StudySpec(Document):
    """A planned study: nothing left open. `epsilon` None means that each vault's own policy decides; a number may only ask for less."""

    draft: StudyDraft
    federation: Name
    charter: Hex32
    contract_digest: Hex32
    training: Training
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    secure: Annotated[SecurePlan | None, Field(exclude_if=lambda value: value is None)] = None

    @model_validator(mode="after")
    def _mode_agrees(self) -> Self:
        if self.training.mode != self.draft.mode:
            raise ValueError("the plan is for another mode than the draft")
        return self

    @model_validator(mode="after")
    def _aggregation_agrees(self) -> Self:
        draft, plan = self.draft, self.secure
        planned = None if plan is None else (plan.noise, plan.n_min, plan.c)
        if planned != (None if draft.aggregation == "plain" else (draft.noise, draft.n_min, draft.c)):
            raise ValueError("the plan is for another aggregation than the draft")
        return self


def _check_remaining(n_min: int, c: int) -> None:
    if n_min < c + 3:
        raise ValueError(f"n_min must be at least c + 3 = {c + 3}: beside the colluders three members must remain")
