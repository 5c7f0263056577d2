"""Arithmetic in 50 digits: costs are whole numbers of 1e-9 and 1e-15, rounded to the safe side, and no double may decide which."""

from typing import Any

import mpmath

_DIGITS = 50


def fifty_digits() -> Any:  # noqa: ANN401 - mpmath has no types
    """Return a context of 50 digits. Each computation has its own, and one for all its steps.

    mpmath changes a context's precision for as long as it computes, so that no two threads may share one; making one takes most of a
    millisecond.
    """
    context = mpmath.MPContext()
    context.dps = _DIGITS
    return context
