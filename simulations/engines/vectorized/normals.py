"""Seeded normal numbers, fast: noise is a large part of what a simulated local step costs."""

import math

import numpy as np
import torch
from torch import Tensor

from simulations.engines.draws import NOISE, stream
from simulations.engines.vectorized.place import Buffers

_PIECE = 1 << 14  # pairs made at once: what is written between the steps stays in the cache
_HALF = 2.0**-31
_WORD = (1 << 63) - 1


class Normals:
    """A stream of standard normal float32 numbers, told apart by a seed and a path.

    On the CPU: 64 random bits of SFC64 make two numbers by Box and Muller's transform (1958). The radius comes from 31 bits, so that no
    number lies beyond 6.6; a true normal does once in 10^10. On a GPU: torch's own counter-based generator, hence other numbers.
    Seeded noise: nothing that is made with it is private.
    """

    def __init__(self, device: torch.device, seed: int, *path: int) -> None:
        self._source = stream(seed, NOISE, *path)
        self._own: torch.Generator | None = None
        if device.type != "cpu":
            self._own = torch.Generator(device)
            self._own.manual_seed(int(self._source.integers(_WORD)))

    def scaled(self, scale: Tensor, out: Tensor, buffers: Buffers) -> None:
        """Write normal numbers to `out` [G, P], row g with standard deviation scale[g] (float32 [G, 1])."""
        pairs = -(-out.numel() // 2)
        plain = buffers.take("normals", 2 * pairs)
        if self._own is not None:
            plain.normal_(generator=self._own)
        else:
            for start in range(0, pairs, _PIECE):
                stop = min(start + _PIECE, pairs)
                self._pairs(plain[2 * start : 2 * stop], stop - start, buffers)
        torch.mul(plain[: out.numel()].view(out.shape), scale, out=out)

    def _pairs(self, out: Tensor, count: int, buffers: Buffers) -> None:
        words = self._source.integers(-(1 << 63), _WORD, endpoint=True, dtype=np.int64, size=count)
        bits = torch.from_numpy(words).view(torch.int32)
        radius, angle = buffers.take("radius", count), buffers.take("angle", count)
        # 1 to 2^31 over 2^31, never 0: small values, which make large numbers, keep all their bits.
        radius.copy_(bits[:count].bitwise_and_((1 << 31) - 1)).add_(1.0).mul_(_HALF).log_().mul_(-2.0).sqrt_()
        angle.copy_(bits[count:]).mul_(math.pi * _HALF)
        torch.cos(angle, out=out[:count]).mul_(radius)
        torch.sin(angle, out=out[count:]).mul_(radius)
