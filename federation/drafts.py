"""Drafts as people write them: a study of training, or one of statistics (`kind: statistics`)."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from federation.document import load_yaml
from federation.errors import DocumentError
from federation.statistics import StatisticsDraft
from federation.study import StudyDraft

AnyDraft = StudyDraft | StatisticsDraft


class _Kind(BaseModel):
    """The lines by which drafts differ; a draft of training has neither."""

    model_config = ConfigDict(extra="ignore")
    kind: object = None
    queries: object = None


def load_draft(path: Path) -> AnyDraft:
    """Read a draft, whichever kind it is; one with queries is of statistics, also where its kind is wrong or missing, and is told so.

    Raises
    ------
    DocumentError
        As `federation.document.load_yaml`.
    """
    said = load_yaml(path, _Kind)
    if said.kind == "statistics" or said.queries is not None:
        return load_yaml(path, StatisticsDraft)
    return load_yaml(path, StudyDraft)


def load_statistics(path: Path) -> StatisticsDraft:
    """Read a draft of statistics.

    Raises
    ------
    DocumentError
        CSL-F440 for a draft of training; as `load_draft`.
    """
    draft = load_draft(path)
    if isinstance(draft, StudyDraft):
        raise DocumentError(
            "CSL-F440",
            f"{path} is the draft of a training study.",
            "Give it to `consilience coordinator study propose`.",
        )
    return draft
