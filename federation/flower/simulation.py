"""Flower's own simulation runtime, which runs the virtual nodes of one app in Ray's worker processes, without a word to anybody."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from flwr.common.constant import PARTITION_ID_KEY
from flwr.simulation import run_simulation
from flwr.supercore import telemetry
from flwr.supercore.logger import FLOWER_LOGGER

__all__ = ["PARTITION_KEY", "run_simulation", "silence"]

PARTITION_KEY = PARTITION_ID_KEY
"""The key of a virtual node's configuration that says which one it is, from 0."""


@contextmanager
def silence() -> Iterator[None]:
    """Keep Flower from writing to the screen as long as this lasts, and from reporting its use for good.

    The environment variable against reports is read when Flower is first imported, which may have been long before. Its last report is
    sent by a thread of its own, perhaps after the end: so reports stay off.
    """
    telemetry.FLWR_TELEMETRY_ENABLED = "0"
    level = FLOWER_LOGGER.level
    # What went wrong comes back as an error; the log would say it a second time, with a stack of Ray's own calls.
    FLOWER_LOGGER.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        FLOWER_LOGGER.setLevel(level)
