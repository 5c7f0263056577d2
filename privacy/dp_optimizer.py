"""DP-SGD's step: Opacus' `DPOptimizer` with book-keeping clipping and noise from an injected source.

Kept from Opacus 1.6.0: noise scaling (standard deviation `noise_multiplier * max_grad_norm`), loss reduction, skipped steps, step
hook. Replaced: per-customer gradients (never held, see `privacy.bookkeeping`) and noise (Opacus draws it from torch's global generator).

*Floating point* (Mironov 2012, "On significance of the least significant bits for differential privacy"). Sum and noise are
float64, and their sum is rounded to a grid that depends on clip and noise multiplier alone, so that the support of a release is the same
for all neighbours. What remains: noise is the inverse normal distribution function of uniforms with 53 significant bits, so that
within a grid cell not every float64 is reached (every cell is, to 12 standard deviations), which moves a cell's probability by some
2^-37 of itself in a pattern that follows the sum; and hidden layers run in float32 (see `privacy.bookkeeping`). Neither is covered by the
proof; both are far below the noise. Exact integer noise (the discrete Gaussian) is what would close the first.

Clips outside [10^-6, 10^6] are refused: near the smallest floats neither clipping nor noise would be what is accounted.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from torch import Tensor
from torch.optim import Optimizer

from federation.errors import ConsilienceError
from privacy.bookkeeping import BookKeeper
from privacy.randomness import RandomSource

SMALLEST_CLIP, LARGEST_CLIP = 1e-6, 1e6
GRID_BITS = 16  # grid cells in one standard deviation of the noise, as a power of two
_NOISE_TOGETHER = 1 << 14
_LIMIT = 2.0**40  # grid cells to which coordinates are clamped: finite whatever happens, never reached by honest sums


def grid_of(clip: float, noise_multiplier: float) -> float:
    """Return the public grid of a release: the power of two at or below 2^-16 of the noise's standard deviation."""
    return 2.0 ** (math.floor(math.log2(clip * noise_multiplier)) - GRID_BITS)


class BookKeepingOptimizer(DPOptimizer):  # type: ignore[misc]
    """`DPOptimizer` that clips by book-keeping; use `backward(loss)` instead of `loss.backward()`.

    Parameters
    ----------
    optimizer:
        Holds `keeper.flat`, the vector of all trainable parameters, and nothing else.
    keeper:
        Watches the network.
    noise_multiplier, max_grad_norm:
        Noise of standard deviation `noise_multiplier * max_grad_norm` is added to each coordinate of the sum.
    expected_batch_size:
        Public denominator for `loss_reduction="mean"`: sampling rate x *declared* cohort size, never the true batch's.
    source:
        Where the noise comes from.
    loss_reduction:
        "mean" (the loss is a mean over the batch, the step uses sum / expected_batch_size) or "sum".
    steps:
        How many steps are planned: noise of several is drawn together, which is faster. More steps may follow.

    Raises
    ------
    ConsilienceError
        CSL-P705 when the optimizer holds anything but `keeper.flat`, CSL-P706 for a bad clip or noise multiplier.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        keeper: BookKeeper,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: float | None,
        source: RandomSource,
        loss_reduction: str = "mean",
        steps: int = 1,
    ) -> None:
        if not (SMALLEST_CLIP <= max_grad_norm <= LARGEST_CLIP and 0.0 <= noise_multiplier < math.inf):
            raise ConsilienceError(
                "CSL-P706",
                f"Clip must be from {SMALLEST_CLIP:g} to {LARGEST_CLIP:g}, noise multiplier zero or above and finite.",
                "Correct the study's plan.",
            )
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            loss_reduction=loss_reduction,
        )
        if len(self.params) != 1 or self.params[0] is not keeper.flat:
            raise ConsilienceError(
                "CSL-P705", "The optimizer does not hold the network's parameters alone.", "Give it [keeper.flat]."
            )
        self._keeper = keeper
        self._source = source
        self._together = max(1, min(steps, _NOISE_TOGETHER // keeper.flat.numel()))
        self._noise: list[NDArray[np.float64]] = []
        self._summed: Tensor | None = None
        self._clipped = False

    @property
    def grad_samples(self) -> list[Tensor]:
        """The parameters: `DPOptimizer.pre_step` only asks whether there are any, and nobody's own gradient is held."""
        return list(self.params)

    @property
    def accumulated_iterations(self) -> int:
        """Always 1: every pass is its own Poisson batch or a part of one."""
        return 1

    def backward(self, loss: Tensor) -> None:
        """Find the output gradients of a scalar loss over the batch, reduced as `loss_reduction` says."""
        self._keeper.backward(loss)

    def clip_and_accumulate(self) -> None:
        """Add the batch's clipped sum (float64) to the sum to be released; a batch on which nothing ran adds zeros.

        Raises
        ------
        ConsilienceError
            CSL-P707 when the last batch was not cleared by `zero_grad()`.
        """
        if self._clipped:
            raise ConsilienceError(
                "CSL-P707", "The last batch's gradients were not cleared.", "Call zero_grad() before each forward pass."
            )
        total = self._keeper.clipped_sum(
            self.max_grad_norm, float(self._keeper.batch) if self.loss_reduction == "mean" else 1.0
        )
        self._summed = total if self._summed is None else self._summed + total
        self._clipped = True

    def add_noise(self) -> None:
        """Set `flat.grad` to the noisy sum, rounded to the public grid and clamped; without noise, to the sum as it is."""
        flat, noisy = self._keeper.flat, self._summed
        if noisy is None:
            raise ConsilienceError(
                "CSL-P709", "Nothing was clipped before noise was added.", "Call step(), which does both."
            )
        values = noisy.numpy()
        if self.noise_multiplier:
            grid = grid_of(
                self.max_grad_norm, self.noise_multiplier
            )  # a power of two: dividing and multiplying are exact
            values = (values + self._draw() * (self.noise_multiplier * self.max_grad_norm)) / grid
            values = np.minimum(np.maximum(np.rint(values), -_LIMIT), _LIMIT) * grid
        flat.grad = torch.from_numpy(values.astype(np.float32))

    @property
    def released(self) -> Tensor:
        """The last noisy sum (divided by the expected batch size for "mean"), like `keeper.flat`; all that may leave."""
        gradient = self._keeper.flat.grad
        if gradient is None:
            raise ConsilienceError("CSL-P708", "No noisy sum has been made yet.", "Call step() or pre_step() first.")
        return gradient

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients and what was kept of the last pass; sums of skipped steps stay, as in `DPOptimizer`."""
        self._keeper.flat.grad = None
        if not self._is_last_step_skipped:
            self._summed = None
        self._keeper.clear()
        self._clipped = False

    def _draw(self) -> NDArray[np.float64]:
        """Standard normal noise for one step, used once."""
        size = self._keeper.flat.numel()
        if not self._noise:
            self._noise = list(self._source.normal(self._together * size).reshape(self._together, size))
        return self._noise.pop()
