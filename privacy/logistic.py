"""Clipped gradient sums of a one-layer logistic model in closed form: no autograd, and one clamp clips everybody.

`LogisticSums` is for noise that a vault adds in full; `IntegerSums` for secure sums, where a bound must hold to the last bit.

The logistic loss's derivative by the logit z = w.x + b is g = sigmoid(z) - y, and a customer's gradient is g (x, 1), of norm
|g| r with r = sqrt(|x|^2 + 1). Clipping it to C is clamping g to [-C/r, C/r], and the sum over customers is g^T (x, 1). Everything
after the stored float32 inputs is float64, so that one customer's presence moves the rounding of the others' sum by about n * 2^-53 C.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

_MARGIN = 1e-9  # above the relative error of a float64 norm over 10^6 entries, gamma_n = n u / (1 - n u) with u = 2^-53
_BLOCK_VALUES = 1 << 17  # a block of rows stays in the processor's cache, and its buffers are used again
_MIN_BLOCK = 64
_INPUT_BITS = 20
_FACTOR_BITS = 22
_LONGEST = 8.0  # of a row, the 1 of the intercept included; those of `federation.basis` reach sqrt(17)
_EXACT_ROWS = 1024  # each adds less than 2^42 to a sum, which float64 holds exactly up to 2^53
_LOW_BITS = 31
_BELOW = 1.0 - 1e-12  # above the rounding of a root and a division
Floats = NDArray[np.float64]


class LogisticSums:
    """Customers prepared for repeated clipped sums.

    Parameters
    ----------
    dense:
        float32 [n, d].
    inverses:
        float64 [n]: 1 / sqrt(|x|^2 + 1) of each row, 0 for a row with NaN or infinity (`Inputs.inverse_norms`).
    labels:
        float64 [n], 0 or 1. A customer with NaN or infinity in label or inputs contributes zero, always; so does one whose
        logit is NaN, at weights that have overflowed.
    clip:
        L2 norm to which each customer's gradient (weights and bias together) is clipped.
    """

    def __init__(self, dense: Tensor, inverses: Tensor, labels: Tensor, clip: float) -> None:
        width = dense.shape[1]
        self._block = max(_MIN_BLOCK, _BLOCK_VALUES // max(1, width))
        self._narrow = torch.empty((self._block, width), dtype=torch.float32)
        self._wide = torch.empty((self._block, width), dtype=torch.float64)
        self._dense, self._labels, self._limits = dense, labels, inverses * (clip * (1.0 - _MARGIN))
        if not bool(torch.isfinite(labels.sum()) & (inverses > 0.0).all()):
            # Zero times NaN is NaN: the values themselves have to go, not only their weight.
            bad = ~(torch.isfinite(labels) & (inverses > 0.0))
            self._dense = dense.masked_fill(bad.unsqueeze(1), 0.0)
            self._labels = labels.masked_fill(bad, 0.0)
            self._limits.masked_fill_(bad, 0.0)

    def over(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Return the clipped sums over `rows` (int64) at `weights` [d + 1], the bias last: float64 [d + 1]."""
        at = weights.to(torch.float64)
        slope, offset, sums = at[:-1], at[-1:], torch.zeros_like(at)
        derivatives = torch.empty(rows.shape[0], dtype=torch.float64)
        labels, limits = self._labels.index_select(0, rows), self._limits.index_select(0, rows)
        for start in range(0, rows.shape[0], self._block):
            here = slice(start, start + self._block)
            part, derivative, limit = rows[here], derivatives[here], limits[here]
            wide = self._wide[: part.shape[0]]
            wide.copy_(torch.index_select(self._dense, 0, part, out=self._narrow[: part.shape[0]]))
            torch.addmv(offset, wide, slope, out=derivative).sigmoid_().sub_(labels[here]).clamp_(-limit, limit)
            derivative.nan_to_num_(nan=0.0)  # clamping keeps NaN, and NaN in a sum would say that somebody was drawn
            sums[:-1].addmv_(wide.T, derivative)
        sums[-1] = derivatives.sum()
        return sums


class IntegerSums:
    """Customers prepared for clipped sums without any rounding that depends on who else is there.

    Inputs are rounded to multiples of 2^-20, and the clamped derivative, in units of C, towards zero to a multiple of 2^-22. Both are
    functions of a customer's own row: they are computed element by element, so that the place in a block changes no bit, and the
    clamp reads the norm of the rounded row, a root of an exact integer. So a customer's part is an integer vector times C 2^-42, of
    L2 norm at most C. Sums of such integers are exact in whichever order they are formed: up to 1,024 rows as float64 below 2^53, and
    blocks as int64. One customer more changes the exact sum by her own part and by nothing else, however large the batch.

    Parameters
    ----------
    dense:
        float32 [n, d]. A row with NaN or infinity, or of L2 norm above 8 with the intercept's 1, contributes zero.
    labels:
        float64 [n], 0 or 1. A customer with NaN in label or logit contributes zero.
    clip:
        L2 norm to which each customer's gradient (weights and bias together) is clipped, above 0.
    """

    def __init__(self, dense: NDArray[np.float32], labels: Floats, clip: float) -> None:
        self._dense, self._labels, self._clip = dense, labels, clip

    def over(self, rows: NDArray[np.int64], weights: Floats) -> Floats:
        """Return the clipped sum over `rows` at `weights` [d + 1], the bias last: float64 [d + 1], the exact sum rounded twice."""
        at = np.asarray(weights, dtype=np.float64)
        high = np.zeros(at.size, dtype=np.int64)
        low = np.zeros(at.size, dtype=np.int64)
        for start in range(0, len(rows), _EXACT_ROWS):
            part = self._block(rows[start : start + _EXACT_ROWS], at)
            high += part >> _LOW_BITS
            low += part & ((1 << _LOW_BITS) - 1)
        exact = high.astype(np.float64) * 2.0**_LOW_BITS + low
        return np.asarray(exact * (self._clip * 2.0 ** -(_INPUT_BITS + _FACTOR_BITS)), dtype=np.float64)

    def _block(self, rows: NDArray[np.int64], at: Floats) -> NDArray[np.int64]:
        """The exact sum over one block, in units of C 2^-42."""
        inputs = np.full((len(rows), at.size), 2.0**_INPUT_BITS)
        with np.errstate(invalid="ignore", over="ignore"):
            np.rint(self._dense[rows].astype(np.float64) * 2.0**_INPUT_BITS, out=inputs[:, :-1])
            lengths = np.sqrt(np.einsum("ij,ij->i", inputs, inputs))
            usable = lengths <= _LONGEST * 2.0**_INPUT_BITS  # False for NaN
            inputs[~usable] = 0.0
            derivatives = expit(_logits(inputs, at * 2.0**-_INPUT_BITS)) - self._labels[rows]
            limits = np.where(usable, 2.0 ** (_INPUT_BITS + _FACTOR_BITS) * _BELOW / lengths, 0.0)
            factors = np.trunc(np.clip(derivatives * (2.0**_FACTOR_BITS / self._clip), -limits, limits))
        return np.asarray(np.nan_to_num(factors, nan=0.0) @ inputs, dtype=np.float64).astype(np.int64)


def _logits(inputs: Floats, weights: Floats) -> Floats:
    """One column after the other: a matrix product adds up in an order that depends on where a row stands."""
    total = np.zeros(len(inputs))
    for column, weight in zip(np.ascontiguousarray(inputs.T), weights, strict=True):
        total += column * weight
    return total
