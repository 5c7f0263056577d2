"""Says by its exit code whether every process of a home's service is up: `python -I healthy.py HOME`, for a container's health check.

`consilience node status` says more, but opens the vault's keys for it, asks for a role, and takes seconds of work each time.
"""

import sys
from pathlib import Path

from federation.service_state import read_service


def main(home: str) -> int:
    """Return 0 when the service of this home runs with all its processes, 1 otherwise."""
    state = read_service(Path(home) / "run")
    return 0 if state is not None and state.up else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
