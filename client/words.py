"""Figures, times and digests as reports and commands write them."""

import re
import time

LAST_MOMENT = 253_402_300_799_000  # the end of the year 9999, in milliseconds
SHOWN = 12  # digits of a digest that are shown
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def day_of(ts: int) -> str:
    """Return a time (milliseconds since 1970) as a date in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(min(ts, LAST_MOMENT) / 1000))


def moment_of(ts: int) -> str:
    """Return a time (milliseconds since 1970) as date and time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(min(ts, LAST_MOMENT) / 1000))


def plain(value: float) -> str:
    """Return a figure with three digits that count."""
    return f"{value:.3g}"


def percent(share: float) -> str:
    """Return a share in percent, never 100% for what is not whole."""
    text = f"{share:.1%}"
    return f"{share:.3%}" if text == "100.0%" and share < 1.0 else text


def size_of(count: int) -> str:
    """Return a number of bytes in words."""
    for unit, power in (("GB", 30), ("MB", 20), ("kB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count} bytes"


def short_digests(text: str) -> str:
    """Return a text in which each digest (64 hexadecimal digits) is cut to its beginning; what is stored keeps it whole."""
    return _DIGEST.sub(lambda found: f"{found[0][:SHOWN]}…", text)
