"""Clipped gradient sums of a one-layer logistic model in closed form: no autograd, and one clamp clips everybody.

The logistic loss's derivative by the logit z = w.x + b is g = sigmoid(z) - y, and a customer's gradient is g (x, 1), of norm
|g| r with r = sqrt(|x|^2 + 1). Clipping it to C is clamping g to [-C/r, C/r], and the sum over customers is g^T (x, 1). Everything
after the stored float32 inputs is float64, so that one customer's presence moves the rounding of the others' sum by about n * 2^-53 C.
"""

import torch
from torch import Tensor

_MARGIN = 1e-9  # above the relative error of a float64 norm over 10^6 entries, gamma_n = n u / (1 - n u) with u = 2^-53
_BLOCK_VALUES = 1 << 17  # a block of rows stays in the processor's cache, and its buffers are used again
_MIN_BLOCK = 64


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
