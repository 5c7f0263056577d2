"""What a grid within one process needs of Flower, where no link gives it."""

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["LINK_NODE_ID", "Run", "empty_run", "identify"]

LINK_NODE_ID = SUPERLINK_NODE_ID
"""The node id from which the link itself answers."""


def empty_run(run_id: int) -> Run:
    """Return a run that no link knows."""
    return Run.create_empty(run_id)


def identify(task_id: int, run_id: int, node_id: int) -> None:
    """Name the task that this process works on: Flower's Message objects take their sender from it."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task_id, run_id, node_id
