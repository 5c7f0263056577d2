"""What a vault does with data, once a study is granted: read them, train on them, count them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.cohort import Cohort, load_cohort, split
from client.config import NodeConfig
from client.consent import Excluded
from client.rowwise import rowwise_logits
from client.studies import OpenStudy
from client.training import clipped_sum, gradient_sum, local_steps
from federation.charter import Declaration
from federation.contract import FeatureContract
from federation.errors import ConsilienceError
from federation.files import atomic_write
from federation.messages import Tensors, TrainRequest
from federation.networks import Inputs, LinearNetwork, Network, build, encode, load_weights
from federation.vectors import flatten
from privacy.mechanisms.discrete_gaussian import DiscreteGaussian
from privacy.randomness import RandomSource
from privacy.secure_aggregation.quantisation import add_noise, quantise

COUNT_LIMIT = 1 << 40


@dataclass(frozen=True)
class Workroom:
    """The data of one granted study, read once: a snapshot for all its rounds and its evaluation.

    `fault` holds what was wrong with the data when they could not be read; then both parts are empty, and releases carry noise alone.
    """

    contract: FeatureContract
    network: Network
    training: Inputs
    training_labels: NDArray[np.float64]
    heldout: Cohort
    training_ids: NDArray[np.object_]
    consented: frozenset[str]
    fault: str | None

    @classmethod
    def read(
        cls,
        node: NodeConfig,
        contract: FeatureContract,
        declaration: Declaration,
        study: OpenStudy,
        consent: str,
        holdout_key: bytes,
        excluded: Excluded | None = None,
    ) -> "Workroom":
        """Read the consenting customers who did not withdraw, split off those held out, and encode the rest."""
        draft = study.spec.draft
        fault = None
        try:
            cohort, findings = load_cohort(node, contract, declaration, consent, "learn", excluded)
            consented = findings.consented  # of the very reading that the cohort is from
            learning, heldout = split(cohort, draft.holdout, holdout_key)
            training = encode(draft.model, contract, learning.columns)
        except Exception as error:  # noqa: BLE001 - after the grant no fault may show, foreseen or not: nobody takes part instead
            fault = str(error) if isinstance(error, ConsilienceError) else f"Internal error: {type(error).__name__}."
            consented, learning = frozenset(), empty_cohort(contract)
            heldout = learning
            training = encode(draft.model, contract, learning.columns)
        assert learning.label is not None
        return cls(
            contract=contract,
            network=build(draft.model, contract),
            training=training,
            training_labels=learning.label,
            heldout=heldout,
            training_ids=learning.ids,
            consented=consented,
            fault=fault,
        )

    def train(
        self, study: OpenStudy, request: TrainRequest, weights: Tensors, source: RandomSource
    ) -> dict[str, NDArray[np.float32]]:
        """Return one round's release: a noisy clipped gradient sum (`fedsgd`) or the noisy change of the weights (`fedavg`)."""
        load_weights(self.network, weights)
        training, grant = study.spec.training, study.grant
        if training.mode == "fedsgd":
            return gradient_sum(
                self.network,
                self.training,
                self.training_labels,
                clip=request.clip,
                noise_multiplier=grant.noise_multiplier,
                sampling_rate=grant.sampling_rate,
                source=source,
            )
        return local_steps(
            self.network,
            self.training,
            self.training_labels,
            clip=request.clip,
            noise_multiplier=grant.noise_multiplier,
            sampling_rate=grant.sampling_rate,
            steps=training.steps // training.rounds,
            declared_size=grant.declared_size,
            learning_rate=request.learning_rate,
            momentum=request.momentum,
            source=source,
        )

    def histogram(
        self, study: OpenStudy, weights: Tensors, edges: tuple[float, ...], source: RandomSource
    ) -> dict[str, NDArray[np.int64]]:
        """Return noisy counts of held-out customers by label and score: int64 [2, len(edges) + 1].

        One customer changes one cell by 1 (add or remove one; L1 = L2 = 1); noise is N_Z(0, sigma^2) in each cell, with the grant's
        sigma (Canonne, Kamath, Steinke 2020, Theorem 2.1 for the mechanism). Scores are `rowwise_logits`: were they products of
        matrices, one customer's presence would move the last bits of others' scores, and with edges put there, others' cells.
        """
        counts = self._counts(study, weights, edges)
        noise = DiscreteGaussian(study.grant.histogram_sigma).sample(counts.size, source)
        return {"counts": np.clip(counts + noise, -COUNT_LIMIT, COUNT_LIMIT).reshape(2, len(edges) + 1)}

    def sum_vector(
        self,
        study: OpenStudy,
        request: TrainRequest,
        weights: Tensors,
        *,
        scale: float,
        x_max: float,
        share: float,
        source: RandomSource,
    ) -> NDArray[np.int64]:
        """Return this institution's part of one round's secure sum, int64 [d]: the clipped gradient sum over a fresh Poisson draw, times
        `request.weight`, on a grid of `scale` units to 1, with this institution's share of the noise.

        Parameters
        ----------
        scale, x_max, share:
            As in `privacy.secure_aggregation.quantisation.quantise`, which says what one customer changes.
        """
        assert isinstance(self.network, LinearNetwork)  # specs hold it: no other model has exact sums
        load_weights(self.network, weights)
        sums = clipped_sum(
            self.network,
            self.training,
            self.training_labels,
            clip=request.clip,
            sampling_rate=study.grant.sampling_rate,
            source=source,
        )
        vector = flatten(sums) * (1.0 if request.weight is None else request.weight)
        return quantise(vector, scale=scale, x_max=x_max, share=share, source=source)

    def count_vector(
        self,
        study: OpenStudy,
        weights: Tensors,
        edges: tuple[float, ...],
        *,
        scale: int,
        x_max: float,
        share: float,
        source: RandomSource,
    ) -> NDArray[np.int64]:
        """Return this institution's part of the secure sum of score histograms, int64 [2 * (len(edges) + 1)]: label no, then label yes.

        Counts are multiplied by the integer `scale`, cut at `x_max`, and get this institution's share of the noise: one customer changes
        one cell by `scale` at most.
        """
        counts = np.minimum(self._counts(study, weights, edges) * scale, int(x_max))
        return add_noise(counts, share, source)

    def _counts(self, study: OpenStudy, weights: Tensors, edges: tuple[float, ...]) -> NDArray[np.int64]:
        """Return the exact counts of held-out customers by label and score, int64 [2 * (len(edges) + 1)]: never to leave without noise."""
        bins = len(edges) + 1
        labels = self.heldout.label
        assert labels is not None
        load_weights(self.network, weights)
        scores = rowwise_logits(self.network, encode(study.spec.draft.model, self.contract, self.heldout.columns))
        cells = np.searchsorted(np.asarray(edges), scores, side="right") + bins * (labels > 0)
        return np.bincount(cells.astype(np.int64), minlength=2 * bins).astype(np.int64)

    def note_fault(self, folder: Path, rid: str) -> None:
        """Write a data fault where the institution itself can read it; nobody else does."""
        if self.fault is not None:
            atomic_write(folder / f"{rid}.fault.json", json.dumps({"fault": self.fault}).encode(), mode=0o600)


def empty_cohort(contract: FeatureContract) -> Cohort:
    """Return a cohort of nobody, with every column of the contract."""
    columns = {
        column.name: np.empty(0, dtype=np.int64 if column.kind == "categorical" else np.float64)
        for column in contract.columns
    }
    nothing = np.empty(0)
    return Cohort(
        ids=np.empty(0, dtype=object), columns=columns, label=nothing, position=np.empty(0, dtype=np.int64), value=None
    )
