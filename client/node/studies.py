"""`consilience node studies`: every study that this node knows of, where it stands, and what was refused."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.decisions import Decision, read_decision
from client.desk import HERE, HomeOption, JsonOption, home_at, open_reader, print_json
from client.home import Home
from client.inbox import PendingStudy
from client.officer.studies import inbox_of, opened_studies, standing_now
from client.officer.study_view import STANDINGS, printable
from client.reports import FOLDER as REPORTS
from client.reports import Reports
from client.roles import require_for
from client.secure.standing import in_words, standing_row, terms_row
from client.secure.store import FOLDER, Secrets
from client.studies import Opened, OpenStatistics
from client.unlock import PassphraseFd, PassphraseFile, unlock_store
from client.words import moment_of
from federation.charter import Charter
from federation.question_words import describe
from federation.statistics import StatisticsSpec
from federation.study import StudySpec
from privacy.ledger import LedgerReader
from privacy.ledger.entries import RefuseData
from privacy.ledger.refusals import RefusalsData

COUNTED = "counted only"
OTHERS = "other codes"


@dataclass(frozen=True)
class Refused:
    """One reason for which requests were refused: how often the ledger says so, and when it did last (milliseconds since 1970).

    The same refusal is written down once a day; `study` is "counted only" where a flood of them was summed up.
    """

    study: str
    code: str
    why: str
    times: int
    last: int


def studies(
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """List the studies that this node knows: waiting, granted, closed, declined; rounds released, epsilon, model, refusals.

    Of a study whose vectors are added up in secret it says on which terms, and how
    far set-up and sums got.

    For everybody with a role. What was refused stands below, by its code: the
    coordinator is never told which. Names no customer.
    """
    place = home_at(home)
    require_for(place, "node studies")
    store_key = unlock_store(place, passphrase_file, passphrase_fd)
    with open_reader(place) as reader:
        rows = study_rows(place, reader, store_key)
        refused = refusals(reader)
    if as_json:
        print_json({"studies": rows, "refused": [_refusal_row(item) for item in refused]})
        return
    console = Console(highlight=False)
    print_studies(console, rows)
    _print_refusals(console, refused)


def study_rows(home: Home, reader: LedgerReader, store_key: bytes) -> list[dict[str, Any]]:
    """Return all known studies as mappings: those that wait first, then the granted, then the declined.

    Raises
    ------
    ConsilienceError
        As `client.officer.studies.find_study` and `client.decisions.read_decision`.
    """
    granted = [granted_row(home, reader, store_key, study) for study in opened_studies(home)]
    known = {row["rid"] for row in granted}
    inbox, charter = inbox_of(home), home.charter()
    waiting = [_waiting_row(study, charter, reader) for study in inbox.list() if study.rid not in known]
    declined = [_row(study, "declined", STANDINGS["declined"]) for study in inbox.declined() if study.rid not in known]
    return waiting + granted + declined


def granted_row(home: Home, reader: LedgerReader, store_key: bytes, study: Opened) -> dict[str, Any]:
    """Return a study that was granted as a mapping; of statistics no model comes, and nothing is evaluated."""
    held, counting = reader.reservation(study.rid), isinstance(study, OpenStatistics)
    decision = None if counting else read_decision(home, study.rid, store_key)
    status = "unreserved" if held is None else ("closed" if held.closed else "open")
    words = STANDINGS.get(status, "was never reserved: the coordinator may offer it again")
    plan, secrets = study.spec.secure, Secrets(home.root / FOLDER, store_key)
    return _row(study, status, words) | {
        "secure": None if plan is None else standing_row(study, plan, held, secrets),
        "released": 0 if held is None else held.released.get("training", 0),
        "evaluated": not counting and held is not None and held.released.get("holdout", 0) > 0,
        "epsilon": study.grant.epsilon,
        "delta": study.grant.delta,
        "model": _outcome(home, study, decision),
        "listed": None if decision is None else decision.listed,
        "fault": _fault(home.root / "studies" / f"{study.rid}.fault.json"),
    }


def refusals(reader: LedgerReader) -> list[Refused]:
    """Return the reasons for which requests were refused, the latest first, from the ledger's entries."""
    found: dict[tuple[str, str], Refused] = {}
    for item in _refused(reader):
        before = found.get((item.study, item.code))
        times = item.times + (0 if before is None else before.times)
        found[item.study, item.code] = replace(item, times=times)
    return sorted(found.values(), key=lambda item: item.last, reverse=True)


def _refused(reader: LedgerReader) -> Iterator[Refused]:
    for entry in reader.entries(kinds=("refuse",)):
        data = entry.body.data
        if isinstance(data, RefuseData):
            yield Refused(data.study, data.code, data.why, 1, entry.body.ts)
        elif isinstance(data, RefusalsData):
            for item in data.codes:
                yield Refused(COUNTED, item.code, "", item.times, data.last)
            if data.others:
                yield Refused(COUNTED, OTHERS, "", data.others, data.last)


def _waiting_row(study: PendingStudy, charter: Charter, reader: LedgerReader) -> dict[str, Any]:
    study.check(charter.coordinator_key)
    status, words, refusal = standing_now(study, charter, reader)
    if status == "waiting":
        words = f"waits for {words}"
    row = _row(study, status, words if refusal is None else f"{words}: {refusal.code}")
    return row | {"epsilon": study.epsilon, "delta": study.delta, "since": moment_of(study.received)}


def _row(study: PendingStudy | Opened, status: str, words: str) -> dict[str, Any]:
    draft, spec = study.spec.draft, study.spec
    return {
        "kind": "statistics" if isinstance(spec, StatisticsSpec) else "training",
        "study": draft.name,
        "rid": study.rid,
        "title": draft.title,
        "purpose": draft.purpose,
        "contract": draft.contract,
        "status": status,
        "status_words": words,
        "rounds": spec.plan.rounds if isinstance(spec, StatisticsSpec) else spec.training.rounds,
        "questions": [describe(query) for query in spec.draft.queries] if isinstance(spec, StatisticsSpec) else None,
        "released": 0,
        "evaluated": False,
        "epsilon": None,
        "delta": None,
        "model": _none_yet(spec),
        "listed": None,
        "fault": None,
        "secure": None if spec.secure is None else terms_row(spec.secure),
    }


def _none_yet(spec: StudySpec | StatisticsSpec) -> str:
    return "no report yet" if isinstance(spec, StatisticsSpec) else "none yet"


def _outcome(home: Home, study: Opened, decision: Decision | None) -> str:
    """Say what came of a granted study: a model and whether it is used, or a report."""
    if isinstance(study, OpenStatistics) and Reports(home.root / REPORTS).has(study.rid):
        return "report here"
    if decision is None:
        return _none_yet(study.spec)
    return "in use" if decision.adoption.adopted else "not adopted"


def _fault(path: Path) -> str | None:
    """Return what was wrong with a study's data, as the vault noted it for its own institution."""
    try:
        fault = json.loads(path.read_bytes()).get("fault")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        return f"{path} cannot be read"
    return str(fault)


def print_studies(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print studies as a table, and under it how any are added up in secret, and what was wrong with the data of any."""
    if not rows:
        console.print(
            "No study is known here. One appears once the coordinator offers it and a rule of the policy fits."
        )
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("study", "digest", "stands", "rounds", "epsilon", "model or report"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            row["study"],
            row["rid"][:12],
            escape(row["status_words"]),
            f"{row['released']} of {row['rounds']}{', evaluated' if row['evaluated'] else ''}",
            "-" if row["epsilon"] is None else f"{row['epsilon']:g}",
            row["model"],
        )
    console.print(table)
    _print_questions(console, rows)
    print_secret(console, rows)
    for row in rows:
        if row["fault"] is not None:
            console.print(f"{row['study']} {row['rid'][:12]}: no customer takes part, its releases are noise alone:")
            console.print(f"    {escape(printable(row['fault']))}", style="yellow")


def _print_questions(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print of each statistics study what it asks."""
    for row in (row for row in rows if row["questions"] is not None):
        console.print(f"{row['study']} {row['rid'][:12]} counts all customers who agreed:")
        for text in row["questions"]:
            console.print(f"    {escape(printable(text))}")


def print_secret(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print of each study that is added up in secret on which terms, and how far set-up and sums got."""
    for row in (row for row in rows if row["secure"] is not None):
        console.print(f"{row['study']} {row['rid'][:12]}", highlight=False)
        for line in in_words(row["secure"], row["status"] == "closed"):
            console.print(f"    {line}", highlight=False)


def _print_refusals(console: Console, refused: list[Refused]) -> None:
    if not refused:
        return
    console.print("Refused, by reason (the coordinator sees none of it):")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("about", "code", "times", "last (UTC)", "why"):
        table.add_column(column, overflow="fold")
    for item in refused:
        about, why = (escape(printable(text)) for text in (item.study, item.why))
        table.add_row(about, item.code, str(item.times), moment_of(item.last), why)
    console.print(table)


def _refusal_row(item: Refused) -> dict[str, Any]:
    return {
        "about": item.study,
        "code": item.code,
        "why": item.why,
        "times": item.times,
        "last": moment_of(item.last),
    }


def register(app: typer.Typer) -> None:
    """Add the command to `consilience node`."""
    app.command()(studies)
