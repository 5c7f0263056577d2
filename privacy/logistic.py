"""Clipped gradient sums of a one-layer logistic model in closed form: no autograd, and one clamp clips everybody.

The logistic loss's derivative by the logit z = w.x + b is g = sigmoid(z) - y, and a customer's gradient is g (x, 1), of norm
|g| r with r = sqrt(|x|^2 + 1). Clipping it to C is clamping g to [-C/r, C/r], and the sum over customers is g^T (x, 1). Everything
after the stored float32 inputs is float64, so that one customer's presence moves the rounding of the others' sum by about n * 2^-53 C.
"""

import torch
from torch import Tensor

from privacy.bookkeeping import MARGIN

_BLOCK_VALUES = 1 << 16  # a block of rows stays in the processor's cache, and its buffers are used again
_MIN_BLOCK, _MAX_BLOCK = 64, 8192


class LogisticSums:
    """Customers prepared for repeated clipped sums.

    Parameters
    ----------
    dense:
        float32 [n, d].
    squared_norms:
        float64 [n]: |x|^2 of each row.
    labels:
        float [n], 0 or 1. A customer with NaN or infinity in label or inputs contributes zero, always.
    clip:
        L2 norm to which each customer's gradient (weights and bias together) is clipped.
    """

    def __init__(self, dense: Tensor, squared_norms: Tensor, labels: Tensor, clip: float) -> None:
        width = dense.shape[1]
        self._block = min(_MAX_BLOCK, max(_MIN_BLOCK, _BLOCK_VALUES // max(1, width)))
        self._narrow = torch.empty((self._block, width), dtype=torch.float32)
        self._wide = torch.empty((self._block, width), dtype=torch.float64)
        self._logits = torch.empty(self._block, dtype=torch.float64)
        self._dense = dense
        self._labels = labels.to(torch.float64)
        self._limits = (squared_norms + 1.0).rsqrt_().mul_(clip * (1.0 - MARGIN))
        good = (self._limits > 0.0) & torch.isfinite(self._labels)  # the limit is 0 for infinite norms, NaN for NaN
        if not bool(good.all()):
            # Zero times NaN is NaN: the values themselves have to go, not only their weight.
            self._dense = dense.masked_fill(~good.unsqueeze(1), 0.0)
            self._labels.masked_fill_(~good, 0.0)
            self._limits.masked_fill_(~good, 0.0)

    def over(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the clipped sums over `rows` (int64) at `weight` [1, d] and `bias` [1]: float64 [d + 1], the bias last."""
        slope, offset = weight.detach().to(torch.float64)[0], bias.detach().to(torch.float64)
        sums = torch.zeros(slope.shape[0] + 1, dtype=torch.float64)
        total, total_bias = sums[:-1], sums[-1:]
        labels, limits = self._labels.index_select(0, rows), self._limits.index_select(0, rows)
        negative = -limits
        start = 0
        for part in rows.split(self._block):
            here = slice(start, start := start + part.shape[0])
            narrow, wide = self._narrow[: part.shape[0]], self._wide[: part.shape[0]]
            wide.copy_(torch.index_select(self._dense, 0, part, out=narrow))
            derivative = torch.addmv(offset, wide, slope, out=self._logits[: part.shape[0]]).sigmoid_().sub_(labels[here])
            derivative.clamp_(negative[here], limits[here])
            total.addmv_(wide.T, derivative)
            total_bias += derivative.sum()
        return sums
