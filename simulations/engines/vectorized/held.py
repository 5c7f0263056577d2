"""Everybody's rows as kernels read them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from federation.errors import DataError
from simulations.engines.vectorized.kernels import Batch, Kernel
from simulations.engines.vectorized.place import Buffers, Place
from simulations.engines.work import Rows


@dataclass(frozen=True, eq=False)
class Chosen:
    """Rows of several steps, G institutions and b customers of each: `rows` int64 [steps, G, b], `labels` and `limits` float32."""

    rows: Tensor
    labels: Tensor
    limits: Tensor


class Held:
    """A job's rows on the engine's device, fit for a kernel. Rows with NaN or infinity in inputs or label hold zeros and count for nothing.

    Raises
    ------
    DataError
        CSL-M212 for a code that its table does not have.
    """

    def __init__(self, rows: Rows, kernel: Kernel, place: Place) -> None:
        inverses = rows.inputs().inverse_norms
        bad = ~((inverses > 0.0) & torch.isfinite(rows.labels))
        dense, labels = rows.dense.contiguous(), rows.labels
        if bool(bad.any()):
            dense, labels = dense.masked_fill(bad.unsqueeze(1), 0.0), labels.masked_fill(bad, 0.0)
            inverses = inverses.masked_fill(bad, 0.0)
        self._dense, self._labels = dense.to(place.device), labels.to(place.device)
        # Each table's entries are counted on from the last of the table before.
        self._codes = _joint(rows.codes, kernel.entries).to(place.device) if kernel.entries else None
        self._reach = kernel.reach(inverses).to(place.device)

    def choose(self, rows: Tensor, clips: Tensor) -> Chosen:
        """Find labels and limits of rows, int64 [steps, G, b]; `clips` is each one's clip, 0 for padding, float32 of the same shape."""
        flat = rows.view(-1)
        limits = self._reach.index_select(0, flat).view(rows.shape).mul_(clips)
        return Chosen(rows, self._labels.index_select(0, flat).view(rows.shape), limits)

    def batch(self, chosen: Chosen, step: int, part: slice, buffers: Buffers, scale: Tensor | None = None) -> Batch:
        """Gather inputs for one step and a part of each institution's customers; they hold until the next are gathered."""
        rows = chosen.rows[step, :, part]
        flat, dense = rows.reshape(-1), buffers.take("dense", *rows.shape, self._dense.shape[1])
        torch.index_select(self._dense, 0, flat, out=dense.view(len(flat), -1))
        codes = None if self._codes is None else self._codes.index_select(0, flat).view(rows.shape[0], -1)
        return Batch(
            dense.view(*rows.shape, -1), codes, chosen.labels[step, :, part], chosen.limits[step, :, part], scale
        )


def _joint(codes: Tensor, entries: tuple[int, ...]) -> Tensor:
    sizes = torch.tensor(entries, dtype=torch.int64)
    if len(codes) and not bool(((codes >= 0) & (codes < sizes)).all()):
        raise DataError(
            "CSL-M212",
            "A category's code lies outside its embedding table.",
            "Encode the rows with the same model and contract as the job's.",
        )
    return codes + (sizes.cumsum(0) - sizes)
