"""Flower's SuperLink with more patience for its own database: `python -m federation.flower.superlink ...` takes the stock flags.

Every request to a link writes to its SQLite file, and stock Flower gives up after 5 seconds without the lock: with two dozen
institutions at once a request is answered by an error then, and the message that it was about is lost. Here it waits as long as
those who ask do. Nothing else is changed.
"""

from flwr.supercore import sql_mixin
from flwr.supercore.constant import SQLITE_PRAGMAS
from flwr.superlink.cli.flower_superlink import flower_superlink

from federation.flower.version import check_version

BUSY_MILLISECONDS = 25_000  # below the 30 seconds after which Flower's own clients give a call up
_PRAGMA = "busy_timeout"


def wait_for_the_lock(milliseconds: int = BUSY_MILLISECONDS) -> None:
    """Let the link's database wait so long for its lock."""
    others = tuple((name, value) for name, value in SQLITE_PRAGMAS if name != _PRAGMA)
    vars(sql_mixin)["SQLITE_PRAGMAS"] = ((_PRAGMA, str(milliseconds)), *others)


def main() -> None:
    """Run the link of the command line."""
    check_version()
    wait_for_the_lock()
    flower_superlink()


if __name__ == "__main__":
    main()
