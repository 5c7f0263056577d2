"""What a delivered report must be before it is kept: small enough to be read again and again, about its study, and fit to be shown.

The vault cannot check its figures: the coordinator made them from all members' sums. But what it says is applied to own customers and shown
in terminals, so that it must answer what was asked, and hold no characters that a terminal obeys.
"""

import json
import re
from collections.abc import Iterator

from client.studies import OpenStatistics
from federation.answers import StatisticsReport
from federation.errors import IntegrityError

LARGEST_REPORT = 32 << 20
# C0 and C1 controls but for tab and line feed, and those that turn the direction of writing: a line that looks like another one.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def check_report(study: OpenStatistics, payload: bytes) -> StatisticsReport:
    """Parse a report that was delivered for a study, and check it.

    Raises
    ------
    DocumentError
        CSL-F102 when it is no canonical report.
    IntegrityError
        CSL-C498 when it is about another study, or answers what was not asked; CSL-C880 when it is too large; CSL-C881 for control
        characters in it.
    """
    if len(payload) > LARGEST_REPORT:
        raise IntegrityError(
            "CSL-C880", f"The report is larger than {LARGEST_REPORT >> 20} MiB.", "Send a report with fewer rows."
        )
    report = StatisticsReport.from_canonical(payload)
    draft = study.spec.draft
    about = (report.study, report.name, report.purpose, report.contract, report.aggregation, report.noise)
    asked = {(query.id, query.kind) for query in draft.queries}
    answered = {(answer.id, answer.kind) for answer in report.answers}
    if not answered <= asked or about != (
        study.rid,
        draft.name,
        draft.purpose,
        draft.contract,
        draft.aggregation,
        draft.noise,
    ):
        raise IntegrityError(
            "CSL-C498",
            "The report is about another study than the one it was sent for, or answers what it did not ask.",
            "Send that study's report.",
        )
    if any(_OBEYED.search(text) for text in _texts(json.loads(payload))):
        raise IntegrityError(
            "CSL-C881",
            "The report holds control characters.",
            "Send it without them: texts of a report are one line each.",
        )
    return report


def _texts(tree: object) -> Iterator[str]:
    """Yield every text in plain data, keys included."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from _texts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value)
