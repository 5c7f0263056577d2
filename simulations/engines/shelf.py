"""A job as files in a folder, so that worker processes find its rows: arrays without pickle, mapped into memory and shared."""

import socket
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from federation.contract import FeatureContract
from federation.document import Document
from federation.errors import StorageError
from federation.files import atomic_write
from federation.study import Model
from simulations.engines.institution import Office
from simulations.engines.work import Job, Rows

_PLAN = "job.json"
_ARRAYS = ("dense", "codes", "labels", "offsets", "declared")


class Plan(Document):
    """All of a job but its arrays."""

    model: Model
    contract: FeatureContract
    seed: int


def write_job(job: Job, folder: Path) -> None:
    """Write a job into an empty folder; the file that names the model comes last, so that what is found is whole.

    Raises
    ------
    StorageError
        CSL-M218 when the rows cannot be written.
    """
    arrays = (job.rows.dense.numpy(), job.rows.codes.numpy(), job.rows.labels.numpy(), job.rows.offsets, job.declared)
    try:
        for name, array in zip(_ARRAYS, arrays, strict=True):
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
    except OSError as error:
        raise StorageError(
            "CSL-M218",
            f"The rows cannot be written to {folder}: {error.strerror}.",
            "Free space there, point TMPDIR to a larger disk, or take an engine that needs no files.",
        ) from error
    plan = Plan(model=job.model, contract=job.contract, seed=job.seed)
    atomic_write(folder / _PLAN, plan.model_dump_json().encode(), durable=False)


def read_job(folder: Path) -> Job:
    """Read what `write_job` wrote; rows are mapped, not read, and changes to them reach no file.

    Raises
    ------
    StorageError
        CSL-M214 when the folder is not there, as on a node of a cluster that does not share it.
    """
    if not (folder / _PLAN).is_file():
        raise StorageError(
            "CSL-M214",
            f"There are no rows in {folder} on {socket.gethostname()}.",
            "Set TMPDIR to a folder that all nodes of the cluster see under the same path.",
        )
    plan = Plan.model_validate_json((folder / _PLAN).read_bytes())
    dense, codes, labels, offsets, declared = (
        np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in _ARRAYS
    )
    rows = Rows(torch.from_numpy(dense), torch.from_numpy(codes), torch.from_numpy(labels), np.array(offsets))
    return Job(plan.model, plan.contract, rows, np.array(declared), plan.seed)


@lru_cache(maxsize=1)
def office_at(folder: Path) -> Office:
    """Return the office of the job in a folder; opened once in every process, which computes in one thread from then on.

    For worker processes: one for each core fills the machine.
    """
    torch.set_num_threads(1)
    return Office(read_job(folder))
