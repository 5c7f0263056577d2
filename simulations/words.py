"""Numbers as people read them."""

_KIB = 1024
_TENTH = 0.1
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
THIN = "\u202f"


def count(value: int) -> str:
    """Write a count with thin spaces between thousands."""
    return f"{value:,}".replace(",", THIN)


def size(value: int) -> str:
    """Write a number of bytes."""
    if value < _KIB:
        return f"{value} bytes"
    kib = value / _KIB
    return f"{kib:.0f} KiB" if kib < _KIB else f"{kib / _KIB:.1f} MiB"


def share(value: float) -> str:
    """Write a share as a percentage, with one digit below ten per cent."""
    digits = 1 if value < _TENTH else 0
    return f"{100 * value:.{digits}f}{THIN}%"


def scientific(value: float) -> str:
    """Write a small number such as a delta: 5e-06 becomes 5.0 · 10⁻⁶."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}{THIN}·{THIN}10{str(int(exponent)).translate(_RAISED)}"
