"""Units: a number enters a study in the contract's unit, by a conversion that somebody named, or not at all."""

_FACTORS = {
    ("days", "years"): 1 / 365.25,
    ("weeks", "years"): 7 / 365.25,
    ("months", "years"): 1 / 12,
    ("years", "months"): 12.0,
    ("weeks", "days"): 7.0,
    ("months", "days"): 365.25 / 12,
    ("years", "days"): 365.25,
    ("hours", "days"): 1 / 24,
    ("minutes", "hours"): 1 / 60,
    ("seconds", "minutes"): 1 / 60,
    ("percent", "share"): 0.01,
    ("cents", "euro"): 0.01,
    ("thousand euro", "euro"): 1000.0,
    ("cents", "USD"): 0.01,
    ("thousand USD", "USD"): 1000.0,
    ("pence", "GBP"): 0.01,
    ("thousand GBP", "GBP"): 1000.0,
}

CONVERSIONS = {f"{own} to {target}": (own, target, factor) for (own, target), factor in _FACTORS.items()}
"""Name of a conversion -> (own unit, target unit, target units in one own unit); years are Julian, 365.25 days."""


def factor(unit: str | None, target: str, convert: str | None, scale: float | None) -> float | str:
    """Return the number of `target` units in one own unit, or the problem as a sentence.

    Equal units need nothing; otherwise the mapping must name a known conversion or state a scale.
    """
    if unit is None:
        return f'the mapping must state its unit; the contract asks for "{target}"'
    if scale is not None:
        return scale
    if convert is not None:
        own, to, value = CONVERSIONS[convert]
        return value if (own, to) == (unit, target) else f'"{convert}" does not lead from "{unit}" to "{target}"'
    if unit == target:
        return 1.0
    known = f"{unit} to {target}"
    hint = (
        f"write `convert: {known}`" if known in CONVERSIONS else "state the `scale`, if the two measure the same thing"
    )
    return f'the mapping is in "{unit}", the contract asks for "{target}": {hint}'
