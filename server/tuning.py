"""The public numbers that a study runs by, and where they come from: the plan before the offer, the tuning after the grants."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from federation.contract import FeatureContract
from federation.messages import Grant
from federation.study import StudyDraft, StudySpec, Training


@dataclass(frozen=True)
class Tuning:
    """Derived from declared sizes, granted noise and the network alone; every field is public.

    Attributes
    ----------
    clips, weights:
        By member: the L2 bound of one customer's gradient, and the weight of the member's release.
    learning_rate, momentum:
        The coordinator's step on the mean gradient (`fedsgd`) or on the mean change (`fedavg`), and the momentum between rounds.
    local_learning_rate, local_momentum:
        The vaults' own steps (`fedavg`).
    average_from:
        The first round whose weights enter the tail average.
    """

    clips: Mapping[str, float]
    weights: Mapping[str, float]
    learning_rate: float
    momentum: float
    local_learning_rate: float
    local_momentum: float
    average_from: int


class Recipe(Protocol):
    """The rule that derives a study's numbers; users never tune, because tuning costs budget."""

    def plan(self, draft: StudyDraft, sizes: Mapping[str, int], contract: FeatureContract) -> Training:
        """Return rounds, steps and sampling rate, from the declared sizes (by member) and the network that the contract gives."""
        ...

    def tune(self, spec: StudySpec, grants: Mapping[str, Grant], contract: FeatureContract) -> Tuning:
        """Return clips, weights and steps, from what was granted (by member)."""
        ...
