"""Book-keeping: clip each customer's gradient without ever holding it (Bu, Wang, Zha, Karypis 2023, arXiv:2210.00038).

For a linear layer with activation a_i (what enters) and output gradient g_i, customer i's weight gradient is the outer product
g_i a_i^T, whose norm is |g_i| |a_i|; her bias gradient is g_i. An embedding's gradient is g_i, in the one row that she looks up.
So norms need a_i and g_i alone, and the clipped sum over customers is one matrix product, (c * g)^T a.

*Numerical care.* Norms and sums are float64, so that one customer's presence moves the rounding of the others' sum by about
n * 2^-53 of the clip, which no noise of ours fails to cover; C is lowered by `MARGIN` so that rounding never lets a norm pass it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from federation.errors import ConsilienceError

MARGIN = 1e-9  # above the relative error of a float64 norm over 10^6 entries, gamma_n = n u / (1 - n u) with u = 2^-53
_MATRIX = 2


@dataclass(eq=False)
class _Record:
    """One layer's activation [n, in] (codes [n] for an embedding), output [n, out] and its gradient, once known."""

    activation: Tensor
    output: Tensor | None
    gradient: Tensor | None


class BookKeeper:
    """Watches a network's linear and embedding layers through one forward and one backward pass.

    Parameters
    ----------
    network:
        Every trainable parameter must be the weight or bias of an `nn.Linear` or the weight of a plain `nn.Embedding`, in one layer only.

    Raises
    ------
    ConsilienceError
        CSL-P601 for a trainable parameter that no such layer owns, or that two layers share.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = _covered(network)
        self._records: dict[str, _Record] = {}
        self._handles: list[RemovableHandle] = [
            layer.register_forward_hook(self._hook(name)) for name, layer in self._layers.items()
        ]

    def close(self) -> None:
        """Take the hooks off the network and forget what was kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()

    def clear(self) -> None:
        """Forget the last pass."""
        self._records.clear()

    def backward(self, loss: Tensor) -> None:
        """Find each layer's output gradient of a scalar loss; the parameters' own gradients are never computed.

        Raises
        ------
        ConsilienceError
            CSL-P603 when the loss does not depend on a trainable layer, by name.
        """
        waiting = {name: record for name, record in self._records.items() if record.output is not None}
        outputs = [record.output for record in waiting.values() if record.output is not None]
        gradients = torch.autograd.grad(loss, outputs, allow_unused=True)
        for (name, record), gradient in zip(waiting.items(), gradients, strict=True):
            if gradient is None:
                raise _unused(name)
            record.gradient, record.output = gradient, None

    def observe(self, name: str, activation: Tensor, gradient: Tensor) -> None:
        """Enter a layer's activation [n, in] and output gradient [n, out], known without autograd."""
        self._enter(name, _Record(activation.detach(), None, gradient.detach()))

    def clipped_sums(self, clip: float, scale: float = 1.0) -> dict[nn.Parameter, Tensor]:
        """Return for each trainable parameter the float64 sum over customers of their gradients, each clipped to L2 norm `clip`.

        A customer with a NaN or infinite norm contributes zero. Nothing kept (an empty batch) gives zeros.

        Parameters
        ----------
        clip:
            Largest L2 norm of one customer's whole gradient.
        scale:
            Multiplies every output gradient first: the batch size where the loss was a mean, else 1.

        Raises
        ------
        ConsilienceError
            CSL-P603 when a layer was not used or no gradient is known.
        """
        if not self._records:
            return {p: torch.zeros_like(p, dtype=torch.float64) for p in self.parameters}
        kept = {name: self._complete(name, scale) for name in self._layers}
        squares = sum(_squared_norm(self._layers[name], a, g) for name, (a, g) in kept.items())
        assert isinstance(squares, Tensor)  # noqa: S101 - at least one layer is covered
        factor = (clip * (1.0 - MARGIN)) / torch.sqrt(squares)
        factor.clamp_(max=1.0)  # a zero gradient gives infinity, hence 1; NaN stays NaN
        good = torch.isfinite(squares)
        if not bool(good.all()):
            # Zero times NaN is NaN: the rows themselves have to go.
            kept = {name: (a[good], g[good]) for name, (a, g) in kept.items()}
            factor = factor[good]
        sums: dict[nn.Parameter, Tensor] = {}
        for name, (a, g) in kept.items():
            _add_sums(self._layers[name], a, g * factor.unsqueeze(1), sums)
        return sums

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Every parameter that is clipped, in the network's order."""
        return [parameter for layer in self._layers.values() for parameter in _trainable(layer)]

    @property
    def batch(self) -> int:
        """Number of customers in the pass that is kept; 0 when none is. As private as the batch itself."""
        return next((len(record.activation) for record in self._records.values()), 0)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def keep(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if torch.is_grad_enabled():
                self._enter(name, _Record(inputs[0].detach(), output, None))

        return keep

    def _enter(self, name: str, record: _Record) -> None:
        if name in self._records:
            raise ConsilienceError(
                "CSL-P602",
                f'Layer "{name}" was used twice before the gradients were cleared.',
                "Use each trainable layer once in a forward pass, and call zero_grad() between passes.",
            )
        expected = _MATRIX if isinstance(self._layers[name], nn.Linear) else 1
        if record.activation.dim() != expected:
            raise ConsilienceError(
                "CSL-P604",
                f'Layer "{name}" must get one row a customer, not an array of {record.activation.dim()} dimensions.',
                "Sequences and images are not supported by book-keeping clipping.",
            )
        self._records[name] = record

    def _complete(self, name: str, scale: float) -> tuple[Tensor, Tensor]:
        """Activation (float64, or codes as they are) and scaled float64 output gradient of a layer."""
        record = self._records.get(name)
        if record is None or record.gradient is None:
            raise _unused(name)
        linear = isinstance(self._layers[name], nn.Linear)
        gradient = record.gradient.to(torch.float64)
        return record.activation.to(torch.float64) if linear else record.activation, gradient if scale == 1.0 else gradient * scale


def _unused(name: str) -> ConsilienceError:
    return ConsilienceError(
        "CSL-P603",
        f'No gradient is known for layer "{name}".',
        "Use every trainable layer in the loss, and call the optimizer's backward(loss), not loss.backward().",
    )


def _trainable(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]


def _plain(layer: nn.Module) -> bool:
    """Whether the formulas above hold for a layer; subclasses may compute something else, and so may some options."""
    if type(layer) is nn.Embedding:
        return layer.padding_idx is None and layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
    return type(layer) is nn.Linear


def _covered(network: nn.Module) -> dict[str, nn.Module]:
    layers = {name: layer for name, layer in network.named_modules() if _plain(layer) and _trainable(layer)}
    owned = [id(parameter) for layer in layers.values() for parameter in _trainable(layer)]
    named = [(name, p) for name, p in network.named_parameters(remove_duplicate=False) if p.requires_grad]
    refused = [name for name, parameter in named if owned.count(id(parameter)) != 1]
    if refused or not layers:
        listing = ", ".join(refused) or "(none)"
        raise ConsilienceError(
            "CSL-P601",
            f"These trainable parameters cannot be clipped by book-keeping: {listing}.",
            "Use nn.Linear and plain nn.Embedding layers that share nothing, or freeze the parameter.",
        )
    return layers


def _squared_norm(layer: nn.Module, activation: Tensor, gradient: Tensor) -> Tensor:
    """Squared norm [n] of each customer's gradient of one layer: (|a|^2 [weight] + 1 [bias]) |g|^2."""
    square = torch.linalg.vector_norm(gradient, dim=1).square_()
    if isinstance(layer, nn.Embedding):
        return square
    weight, bias = layer.weight, layer.bias
    inner = torch.linalg.vector_norm(activation, dim=1).square_() if weight.requires_grad else torch.zeros_like(square)
    if bias is not None and bias.requires_grad:
        inner += 1.0
    return square.mul_(inner)


def _add_sums(layer: nn.Module, activation: Tensor, clipped: Tensor, sums: dict[nn.Parameter, Tensor]) -> None:
    """Enter the sums over customers of one layer's gradients, `clipped` = c * g, float64 [n, out]."""
    if isinstance(layer, nn.Embedding):
        table = torch.zeros_like(layer.weight, dtype=torch.float64)
        sums[layer.weight] = table.index_add_(0, activation, clipped)
        return
    if layer.weight.requires_grad:
        sums[layer.weight] = clipped.T @ activation
    if layer.bias is not None and layer.bias.requires_grad:
        sums[layer.bias] = clipped.sum(0)
