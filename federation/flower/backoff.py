"""Shorter first pauses where Flower waits for the pieces of a message, which follow the message itself by some milliseconds."""

from flwr.supercore.inflatable import inflatable_utils

FIRST_SECONDS = 0.02
LONGEST_SECONDS = 0.5


def shorten_backoff() -> None:
    """Make this process look again after 20 ms, growing to half a second, where Flower's default begins with a whole second."""
    defaults = inflatable_utils.pull_objects.__kwdefaults__ or {}
    defaults["initial_backoff"], defaults["backoff_cap"] = FIRST_SECONDS, LONGEST_SECONDS
