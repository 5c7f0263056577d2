"""Tensors as one flat vector and back: names in their order, each tensor in C order, so that every member's coordinates are the same."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Shapes = Mapping[str, tuple[int, ...]]


def flatten(tensors: Mapping[str, NDArray[np.floating]]) -> NDArray[np.float64]:
    """Return all tensors in one float64 vector [d], sorted by name."""
    return np.concatenate([np.asarray(tensors[name], dtype=np.float64).ravel() for name in sorted(tensors)])


def unflatten(vector: NDArray[np.float64], shapes: Shapes) -> dict[str, NDArray[np.float64]]:
    """Return a vector's parts, float64, by name and in their shapes.

    Raises
    ------
    ValueError
        When the vector is not as long as all shapes together.
    """
    if vector.shape != (dimension_of(shapes),):
        raise ValueError("the vector is not as long as the tensors together")
    parts, start = {}, 0
    for name in sorted(shapes):
        size = int(np.prod(shapes[name], dtype=np.int64))
        parts[name] = vector[start : start + size].reshape(shapes[name])
        start += size
    return parts


def dimension_of(shapes: Shapes) -> int:
    """Return how many numbers tensors of these shapes hold."""
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values())
