"""Study specs: one piece of joint work. The coordinator signs the spec; its digest is in every message."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from federation.contract import Name, Text
from federation.document import Document
from federation.signing import Hex32

CONTEXT = "csl1/study"
Purpose = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")]
Epsilon = Annotated[float, Field(gt=0, le=100)]
Rounds = Annotated[int, Field(ge=5, le=10_000)]


class AdditiveModel(Document):
    """Logistic regression on the hat basis of each numeric column, one weight a category: a differentially private additive model."""

    kind: Literal["additive"] = "additive"


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


class StudyDraft(Document):
    """What a person writes under `configs/studies`; the plan is derived and the draft becomes a `StudySpec`.

    `rounds` in all, the probes among them, takes the place of the recipe's number, for a study that only tries out a new federation. It is
    not in the encoding where it is not given, so that studies from before it was known keep their digests.
    """

    name: Name
    title: Text
    purpose: Purpose
    contract: Name
    model: Model = AdditiveModel()
    mode: Literal["fedsgd", "fedavg"] = "fedsgd"
    server_optimizer: Literal["recipe", "fedavgm", "fedadam"] = "recipe"
    epsilon: Epsilon | None = None
    rounds: Annotated[Rounds | None, Field(exclude_if=lambda value: value is None)] = None
    holdout: Holdout
    evaluation: Evaluation = Evaluation()
    min_partners: Annotated[int, Field(ge=1, le=200)] = 3
    deadline_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    intended_use: Text
    limits: Text


class StudySpec(Document):
    """A planned study: nothing left open. `epsilon` None means that each vault's own policy decides; a number may only ask for less."""

    draft: StudyDraft
    federation: Name
    charter: Hex32
    contract_digest: Hex32
    training: Training
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]

    @model_validator(mode="after")
    def _mode_agrees(self) -> Self:
        if self.training.mode != self.draft.mode:
            raise ValueError("the plan is for another mode than the draft")
        return self
