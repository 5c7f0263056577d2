"""Networks that a study may name: built from the contract alone, so that every member holds the same tensors by name and shape.

No batch normalisation: it would mix customers, and one customer's gradient would no longer be hers alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from federation.basis import Basis, Columns, on_scale
from federation.contract import CategoricalColumn, FeatureContract, NumericColumn
from federation.errors import DocumentError, IntegrityError
from federation.study import MlpModel, Model

_START = 20_260_101  # starting weights are public: nothing secret is ever drawn from this number
Layer = TypeVar("Layer", bound=nn.Module)

_BLOCK = 1024
_TANH_GAIN = (
    5.0 / 3.0
)  # keeps the variance of activations from layer to layer (Glorot and Bengio 2010, with LeCun's tanh)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a network reads, one row a customer.

    Parameters
    ----------
    dense:
        float32 [n, d].
    codes:
        int64 [n, k]: for the k-th embedding table the row to look up; k = 0 for linear models.
    """

    dense: Tensor
    codes: Tensor

    def __len__(self) -> int:
        return self.dense.shape[0]

    @cached_property
    def inverse_norms(self) -> Tensor:
        """1 / sqrt(|x|^2 + 1) of each row x of `dense`, float64 [n], 0 for a row with NaN or infinity: found once, read every round."""
        found = torch.empty(len(self), dtype=torch.float64)
        for start in range(0, len(self), _BLOCK):
            part = slice(start, start + _BLOCK)
            norms = torch.linalg.vector_norm(self.dense[part].to(torch.float64), dim=1)
            found[part] = norms.square_().add_(1.0).rsqrt_().nan_to_num_(nan=0.0)
        return found

    def take(self, rows: Tensor | NDArray[np.int64]) -> "Inputs":
        """Return the rows at these positions (int64)."""
        index = torch.as_tensor(rows)
        codes = self.codes.index_select(0, index) if self.codes.shape[1] else self.codes.new_empty((len(index), 0))
        return Inputs(self.dense.index_select(0, index), codes)


class Network(nn.Module):
    """A model of one yes/no answer: `forward(dense, codes)` returns logits [n]."""

    def forward(self, dense: Tensor, codes: Tensor) -> Tensor:
        """Return logits, float32 [n], for dense [n, d] and codes [n, k]."""
        raise NotImplementedError


class LinearNetwork(Network):
    """One linear layer that starts at zero: logistic regression on whatever encoding enters it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = _linear(width, 1)

    def forward(self, dense: Tensor, codes: Tensor) -> Tensor:
        """Return logits, float32 [n]; `codes` has no columns."""
        logits: Tensor = self.linear(dense)
        return logits.squeeze(1)


class MlpNetwork(Network):
    """Embeddings beside dense columns, tanh layers, and a head that starts at zero.

    Parameters
    ----------
    dense_width:
        Number of dense columns.
    tables:
        Name and number of rows of each embedding table, in the order of the columns of `codes`.
    embedding:
        Width of an embedding.
    hidden:
        Widths of the hidden layers.
    """

    def __init__(
        self, dense_width: int, tables: Sequence[tuple[str, int]], embedding: int, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        start = torch.Generator().manual_seed(_START)
        # The prefix keeps a column called "type" or "keys" from clashing with an attribute of torch's containers.
        self.embeddings = nn.ModuleDict(
            {f"column_{name}": _empty(nn.Embedding(rows, embedding, device="meta")) for name, rows in tables}
        )
        widths = [dense_width + embedding * len(tables), *hidden]
        self.hidden = nn.ModuleList(_linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.head = _linear(widths[-1], 1)
        for table in self.embeddings.values():
            nn.init.normal_(_weight(table), std=1.0 / math.sqrt(embedding), generator=start)
        for layer in self.hidden:
            nn.init.xavier_uniform_(_weight(layer), gain=_TANH_GAIN, generator=start)

    def forward(self, dense: Tensor, codes: Tensor) -> Tensor:
        """Return logits, float32 [n]."""
        parts = [table(codes[:, place]) for place, table in enumerate(self.embeddings.values())]
        state = torch.cat([dense, *parts], dim=1) if parts else dense
        for layer in self.hidden:
            state = torch.tanh(layer(state))
        logits: Tensor = self.head(state)
        return logits.squeeze(1)


def build(model: Model, contract: FeatureContract) -> Network:
    """Return the network that a study names, with its public starting weights (always the same; the head is zero)."""
    if isinstance(model, MlpModel):
        tables = [(column.name, len(column.categories) + 1) for column in _categorical(contract)]
        dense = 2 * (len(contract.columns) - len(tables))
        return MlpNetwork(dense, tables, model.embedding, model.hidden)
    return LinearNetwork(Basis.of_model(contract, model).width)


def tensor_shapes(model: Model, contract: FeatureContract) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return name -> (shape, "float32") of every tensor, as `federation.messages.read_tensors` expects them."""
    return dict(_shapes(model, contract))


@lru_cache(maxsize=32)
def _shapes(model: Model, contract: FeatureContract) -> tuple[tuple[str, tuple[tuple[int, ...], str]], ...]:
    """Build the network once: every message of a round asks for its shapes."""
    network = build(model, contract).state_dict()
    return tuple((name, (tuple(tensor.shape), "float32")) for name, tensor in network.items())


def encode(model: Model, contract: FeatureContract, columns: Columns) -> Inputs:
    """Turn columns in the contract's units into a network's inputs, by public bounds and categories alone.

    Linear models read the contract's basis. An `mlp` reads two dense columns for each numeric or flag column (its value, scaled to
    [-1, 1] by the public bounds, 0 where missing; and 1 where missing, else 0) and one code for each categorical column
    (its index; the last row of the table stands for unknown). A column that the institution lacks is missing throughout.

    Parameters
    ----------
    columns:
        By contract column name, all of length n: numeric float64 with NaN for missing, categorical int64 with -1 for unknown,
        flag float64 0 / 1 / NaN.

    Raises
    ------
    DocumentError
        CSL-F402 or CSL-F603 when a required column is absent, CSL-F403 or CSL-F604 when the columns differ in length.
    """
    if not isinstance(model, MlpModel):
        dense = np.asarray(Basis.of_model(contract, model).encode(columns), dtype=np.float32)
        return Inputs(torch.from_numpy(dense), torch.empty((len(dense), 0), dtype=torch.int64))
    n = _length(contract, columns)
    parts: list[NDArray[np.float64]] = []
    codes: list[NDArray[np.int64]] = []
    for column in contract.columns:
        if isinstance(column, CategoricalColumn):
            codes.append(_codes(columns.get(column.name), n, len(column.categories)))
            continue
        raw = columns.get(column.name)
        value = np.full(n, np.nan) if raw is None else np.asarray(raw, dtype=np.float64)
        scaled = _scaled(value, column) if isinstance(column, NumericColumn) else 2.0 * value - 1.0
        missing = np.isnan(scaled)
        parts += [np.where(missing, 0.0, scaled), missing.astype(np.float64)]
    return Inputs(torch.from_numpy(_stack(parts, n, np.float32)), torch.from_numpy(_stack(codes, n, np.int64)))


def weights_of(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return a copy of every tensor of a network by name, float32."""
    return {name: tensor.detach().to(torch.float32).numpy().copy() for name, tensor in network.state_dict().items()}


def load_weights(network: nn.Module, tensors: Mapping[str, NDArray[np.generic]]) -> None:
    """Copy tensors into a network, matched by name and shape, never by position; all or nothing.

    Raises
    ------
    IntegrityError
        CSL-F601 when the names differ, CSL-F602 when a shape differs.
    """
    own = network.state_dict()
    if set(own) != set(tensors):
        differing = ", ".join(sorted(set(own) ^ set(tensors)))
        raise IntegrityError(
            "CSL-F601",
            f"The model's tensors differ by name: {differing}.",
            "Check that both sides run the same release.",
        )
    for name, tensor in own.items():
        if tuple(tensor.shape) != tensors[name].shape:
            raise IntegrityError(
                "CSL-F602",
                f"Tensor {name} has shape {tensors[name].shape} instead of {tuple(tensor.shape)}.",
                "Check that study and contract are the ones that the model was made for.",
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.asarray(tensors[name], dtype=np.float32)))


def _length(contract: FeatureContract, columns: Columns) -> int:
    """Number of customers, after checking that the columns fit together."""
    absent = [column.name for column in contract.columns if column.required and column.name not in columns]
    if absent:
        raise DocumentError(
            "CSL-F603", f"Required columns are absent: {', '.join(absent)}.", "Map them in the node's configuration."
        )
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise DocumentError("CSL-F604", "The columns differ in length.", "Pass one value a customer for every column.")
    return lengths.pop() if lengths else 0


def _categorical(contract: FeatureContract) -> list[CategoricalColumn]:
    return [column for column in contract.columns if isinstance(column, CategoricalColumn)]


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _empty(layer: Layer) -> Layer:
    """Give memory to a layer made on the meta device: made otherwise, it would draw from torch's global generator."""
    return layer.to_empty(device="cpu")


def _linear(width: int, out: int) -> nn.Linear:
    """Return a linear layer of zeros."""
    layer = _empty(nn.Linear(width, out, device="meta"))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _scaled(value: NDArray[np.float64], column: NumericColumn) -> NDArray[np.float64]:
    """Map [low, high] to [-1, 1] on the column's scale."""
    low, high = on_scale(column, np.array([column.low, column.high])).tolist()
    scaled: NDArray[np.float64] = 2.0 * (on_scale(column, value) - low) / (high - low) - 1.0
    return scaled


def _codes(raw: NDArray[np.float64] | NDArray[np.int64] | None, n: int, unknown: int) -> NDArray[np.int64]:
    if raw is None:
        return np.full(n, unknown, dtype=np.int64)
    codes = np.asarray(raw, dtype=np.int64)
    return np.where((codes < 0) | (codes >= unknown), unknown, codes)


def _stack(
    parts: Sequence[NDArray[np.generic]], n: int, dtype: type[np.float32] | type[np.int64]
) -> NDArray[np.generic]:
    return np.stack(parts, axis=1).astype(dtype) if parts else np.empty((n, 0), dtype=dtype)
