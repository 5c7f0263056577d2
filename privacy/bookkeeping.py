"""Book-keeping: clip each customer's gradient without ever holding it (Bu, Wang, Zha, Karypis 2023, arXiv:2210.00038).

For a linear layer with activation a_i (what enters) and output gradient g_i, customer i's weight gradient is the outer product
g_i a_i^T, whose norm is |g_i| |a_i|; her bias gradient is g_i. An embedding's gradient is g_i, in the one row that she looks up.
So norms need a_i and g_i alone, and the clipped sum over customers is one matrix product, (c * g)^T a.

*Numerical care.* Layers run in float32. C is lowered by a margin above the rounding error of a float32 norm, so that nobody's
contribution passes C, and a gradient so long that C would scale it below float32's normal numbers contributes zero. What remains is
that one customer's presence moves the rounding of the others' float32 sums. These are made over blocks of 1,024 customers and added up in
float64, so that the effect grows with the root of the batch: at most some 4 * 10^-3 C for 50,000 customers whose gradients all point
the same way, less with more threads (a test holds this; one float32 sum moved by 0.1 C). It is far below the noise, but not covered by
the proof. `privacy.logistic`, which the one-layer models use, sums in float64, where this effect is below 10^-9 C.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from federation.errors import ConsilienceError

_UNIT = 2.0**-24  # unit roundoff of float32
_ROUNDINGS = 8  # root, product of two norms, c, c * g and its conversion, each within one unit, and some to spare
_MATRIX = 2
_BLOCK = 1024  # customers in one float32 sum
_LONGEST = 2.0**100  # in units of the clip: beyond, the factor leaves float32's normal numbers and loses its precision


@dataclass(eq=False)
class _Record:
    """One layer's activation [n, in] (codes [n] for an embedding), output [n, out] and its gradient, once known."""

    activation: Tensor
    output: Tensor | None
    gradient: Tensor | None


class BookKeeper:
    """Watches a network's linear and embedding layers through one forward and one backward pass.

    Its trainable parameters become views of one vector, `flat`, which an optimizer holds in their place: one tensor to sum, noise and
    step instead of many small ones. The network works as before.

    Parameters
    ----------
    network:
        Every trainable parameter must be the weight or bias of an `nn.Linear` or the weight of a plain `nn.Embedding`, in one layer only.

    Raises
    ------
    ConsilienceError
        CSL-P701 for a trainable parameter that no such layer owns, or that two layers share, and for batch normalisation.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = _covered(network)
        self._records: dict[str, _Record] = {}
        self._supplied: Tensor | None = None
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        parameters = [parameter for layer in self._layers.values() for parameter in _trainable(layer)]
        self.flat = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
        self._places: dict[str, tuple[slice, torch.Size]] = {}
        start = 0
        for parameter in parameters:
            place = slice(start, start := start + parameter.numel())
            self._places[names[id(parameter)]] = (place, parameter.shape)
            parameter.data = self.flat.detach()[place].view(parameter.shape)
        self._sums = torch.zeros_like(self.flat, requires_grad=False)
        self._parts = self.split(self._sums)
        self._margin = (max(size for parameter in parameters for size in parameter.shape) + _ROUNDINGS) * _UNIT
        self._handles: list[RemovableHandle] = [
            layer.register_forward_hook(self._hook(name)) for name, layer in self._layers.items()
        ]

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the parts of a vector like `flat` by parameter name, as views in the parameters' shapes."""
        return {name: vector[place].view(shape) for name, (place, shape) in self._places.items()}

    def close(self) -> None:
        """Take the hooks off the network and forget what was kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()

    def clear(self) -> None:
        """Forget the last pass."""
        self._records.clear()
        self._supplied = None

    def backward(self, loss: Tensor) -> None:
        """Find each layer's output gradient of a scalar loss; the parameters' own gradients are never computed.

        Raises
        ------
        ConsilienceError
            CSL-P703 when the loss does not depend on a trainable layer, by name.
        """
        waiting = {name: record.output for name, record in self._records.items() if record.output is not None}
        gradients = torch.autograd.grad(loss, list(waiting.values()), allow_unused=True)
        for name, gradient in zip(waiting, gradients, strict=True):
            if gradient is None:
                raise _unused(name)
            self._records[name].gradient, self._records[name].output = gradient, None

    def supply(self, sums: Tensor) -> None:
        """Enter a clipped sum (float64, like `flat`) that was found without a forward pass; the next `clipped_sum` returns it."""
        self._supplied = sums

    def clipped_sum(self, clip: float, scale: float = 1.0) -> Tensor:
        """Return the sum over customers of their gradients, each clipped to L2 norm `clip`: float64, like `flat`.

        A customer with a NaN or infinite norm, or one beyond 2^100 clips, contributes zero. Nothing kept (an empty batch) gives zeros.

        Parameters
        ----------
        clip:
            Largest L2 norm of one customer's whole gradient.
        scale:
            Multiplies every output gradient first: the batch size where the loss was a mean, else 1.

        Raises
        ------
        ConsilienceError
            CSL-P703 when a layer was not used or no gradient is known.
        """
        if self._supplied is not None:
            return self._supplied
        if not self._records:
            return torch.zeros_like(self._sums, dtype=torch.float64)
        kept = {name: self._complete(name, scale) for name in self._layers}
        squares = torch.zeros(self.batch, dtype=torch.float64)
        for name, (a, g) in kept.items():
            _add_squared_norms(self._layers[name], a, g, squares)
        good = squares <= (clip * _LONGEST) ** 2  # false for NaN
        factor = squares.rsqrt_().mul_(clip * (1.0 - self._margin)).clamp_(max=1.0).to(self.flat.dtype)
        if not bool(good.all()):
            # Zero times NaN is NaN: the rows themselves have to go.
            kept = {name: (a[good], g[good]) for name, (a, g) in kept.items()}
            factor = factor[good]
        return self._weighted_sum(kept, factor.unsqueeze(1))

    def _weighted_sum(self, kept: dict[str, tuple[Tensor, Tensor]], factor: Tensor) -> Tensor:
        total = torch.zeros_like(self._sums, dtype=torch.float64)
        for start in range(0, len(factor), _BLOCK):
            rows = slice(start, start + _BLOCK)
            for name, (a, g) in kept.items():
                weight, bias = self._parts.get(f"{name}.weight"), self._parts.get(f"{name}.bias")
                _sum(self._layers[name], a[rows], g[rows] * factor[rows], weight, bias)
            total += self._sums
        return total

    @property
    def batch(self) -> int:
        """Number of customers in the pass that is kept; 0 when none is. As private as the batch itself."""
        return next((record.activation.shape[0] for record in self._records.values()), 0)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def keep(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if torch.is_grad_enabled():
                self._enter(name, _Record(inputs[0].detach(), output, None))

        return keep

    def _enter(self, name: str, record: _Record) -> None:
        if name in self._records:
            raise ConsilienceError(
                "CSL-P702",
                f'Layer "{name}" was used twice before the gradients were cleared.',
                "Use each trainable layer once in a forward pass, and call zero_grad() between passes.",
            )
        expected = _MATRIX if isinstance(self._layers[name], nn.Linear) else 1
        if record.activation.dim() != expected:
            raise ConsilienceError(
                "CSL-P704",
                f'Layer "{name}" must get one row a customer, not an array of {record.activation.dim()} dimensions.',
                "Sequences and images are not supported by book-keeping clipping.",
            )
        self._records[name] = record

    def _complete(self, name: str, scale: float) -> tuple[Tensor, Tensor]:
        """Activation and scaled output gradient of a layer."""
        record = self._records.get(name)
        if record is None or record.gradient is None:
            raise _unused(name)
        return record.activation, record.gradient if scale == 1.0 else record.gradient * scale


def _unused(name: str) -> ConsilienceError:
    return ConsilienceError(
        "CSL-P703",
        f'No gradient is known for layer "{name}".',
        "Use every trainable layer in the loss, and call the optimizer's backward(loss), not loss.backward().",
    )


def _trainable(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]


def _plain(layer: nn.Module) -> bool:
    """Whether the formulas above hold for a layer; subclasses may compute something else, and so may some options."""
    if type(layer) is nn.Embedding:
        return (
            layer.padding_idx is None and layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
        )
    return type(layer) is nn.Linear


def _covered(network: nn.Module) -> dict[str, nn.Module]:
    layers = {name: layer for name, layer in network.named_modules() if _plain(layer) and _trainable(layer)}
    owned = [id(parameter) for layer in layers.values() for parameter in _trainable(layer)]
    named = [(name, p) for name, p in network.named_parameters(remove_duplicate=False) if p.requires_grad]
    refused = [name for name, parameter in named if owned.count(id(parameter)) != 1]
    # Batch normalisation has no gradient of its own to clip, but puts every customer into everybody's.
    refused += [name for name, layer in network.named_modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if refused or not layers:
        listing = ", ".join(refused) or "(none)"
        raise ConsilienceError(
            "CSL-P701",
            f"These parameters or layers cannot be clipped by book-keeping: {listing}.",
            "Use nn.Linear and plain nn.Embedding layers that share nothing, no batch normalisation, or freeze the parameter.",
        )
    return layers


def _add_squared_norms(layer: nn.Module, activation: Tensor, gradient: Tensor, squares: Tensor) -> None:
    """Add the squared norm of each customer's gradient of one layer to `squares` [n]: (|a|^2 [weight] + 1 [bias]) |g|^2."""
    square = torch.linalg.vector_norm(gradient, dim=1).to(torch.float64).square_()
    if isinstance(layer, nn.Embedding):
        squares += square
        return
    if layer.bias is not None and layer.bias.requires_grad:
        squares += square
    if layer.weight.requires_grad:
        squares.addcmul_(square, torch.linalg.vector_norm(activation, dim=1).to(torch.float64).square_())


def _sum(layer: nn.Module, activation: Tensor, clipped: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
    """Write the sums over customers of one layer's gradients, `clipped` = c * g [n, out], to `weight` and `bias`."""
    if weight is not None and isinstance(layer, nn.Embedding):
        weight.zero_().index_add_(0, activation, clipped)
    elif weight is not None:
        torch.mm(clipped.T, activation, out=weight)
    if bias is not None:
        torch.sum(clipped, 0, out=bias)
