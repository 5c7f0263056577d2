"""`consilience officer inbox | show`: what waits for a person, and one study whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from client.desk import HERE, HomeOption, JsonOption, home_at, open_reader, print_json
from client.home import Home
from client.inbox import Inbox, PendingStudy, fits, pick
from client.officer.study_view import (
    STANDINGS,
    broken_words,
    decision_rows,
    missing_words,
    outlook_facts,
    print_outlook,
    print_study,
    printable,
    reservation_facts,
    secrecy_lines,
    secure_terms,
    standing_of,
    study_facts,
)
from client.outlook import Outlook, if_broken_at, look_ahead, terms_of
from client.roles import require_for
from client.studies import Opened, OpenStudy, Studies
from client.words import moment_of
from federation.charter import Charter
from federation.errors import IntegrityError, PolicyError
from federation.statistics import StatisticsSpec
from federation.study import StudySpec
from privacy.ledger import LedgerReader, system_clock

StudyArgument = Annotated[
    str, typer.Argument(help="The study's name, or the beginning of its digest.", show_default=False)
]


def inbox_of(home: Home) -> Inbox:
    """Return a home's inbox."""
    return Inbox(home.root / "inbox")


def inbox(home: HomeOption = HERE, as_json: JsonOption = False) -> None:
    """List the studies that wait for officers: what for, how much they ask, and what is missing.

    A study gets here when it asks for more than the policy lets through by
    itself. Nothing is reserved and no data are read while it waits. Look at
    one by `show`, then `approve` or `decline` it.
    """
    place = home_at(home)
    require_for(place, "officer inbox")
    charter = place.charter()
    with open_reader(place) as reader:
        rows = [_inbox_row(study, place, charter, reader) for study in inbox_of(place).list()]
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo("No study waits.")
        return
    console = Console(highlight=False)
    for row in rows:
        decisions = "; ".join(f"{item['officer']}: {item['decision']}" for item in row["decisions"] if item["counts"])
        console.print(f"[bold]{row['study']}[/]  {row['digest'][:12]}  {escape(printable(row['title']))}")
        console.print(
            f"    epsilon {row['epsilon']:g} at delta {row['delta']:g}, for {row['purpose']} on {row['contract']}"
        )
        if row["questions"] is not None:
            console.print(f"    statistics: {row['questions']} over all customers who agreed; both accounts pay")
        for line in secrecy_lines(row["secure"], row["if_broken"]):
            console.print(f"    {line}")
        console.print(f"    asked by the {row['asked_by']}; waits since {row['since']} (UTC)")
        console.print(
            f"    decisions: {decisions or 'none'}; {'missing: ' if row['status'] == 'waiting' else ''}{escape(row['missing'])}\n"
        )
    console.print(f"{len(rows)} in all. Look at one by `consilience officer show STUDY`.")


def _inbox_row(study: PendingStudy, home: Home, charter: Charter, reader: LedgerReader) -> dict[str, Any]:
    study.check(charter.coordinator_key)
    status, missing, refusal = standing_now(study, charter, reader)
    state, broken = reader.state(), None
    if refusal is None and study.spec.secure is not None:
        contract = home.contract(charter, study.spec.draft.contract)
        broken = if_broken_at(study.spec, charter, reader, system_clock(), contract)
    return {
        "kind": "statistics" if isinstance(study.spec, StatisticsSpec) else "training",
        "study": study.spec.draft.name,
        "digest": study.rid,
        "title": study.spec.draft.title,
        "purpose": study.spec.draft.purpose,
        "contract": study.spec.draft.contract,
        "asked_by": f"coordinator of {study.spec.federation}",
        "epsilon": study.epsilon,
        "delta": study.delta,
        "questions": _questions(study.spec),
        "aggregation": study.spec.draft.aggregation,
        "secure": secure_terms(study.spec.secure),
        "if_broken": broken,
        "since": moment_of(study.received),
        "status": status,
        "decisions": decision_rows(state.policy, state.policy_digest, reader.decisions(study.rid)),
        "missing": missing if refusal is None else f"{missing}: {refusal.code}",
    }


def _questions(spec: StudySpec | StatisticsSpec) -> str | None:
    """Say how much a statistics study asks; None for one of training."""
    if not isinstance(spec, StatisticsSpec):
        return None
    count, rounds = len(spec.draft.queries), spec.plan.rounds
    return f"{count} question{'' if count == 1 else 's'} in {rounds} round{'' if rounds == 1 else 's'}"


def standing_now(study: PendingStudy, charter: Charter, reader: LedgerReader) -> tuple[str, str, PolicyError | None]:
    """Return where a waiting study stands under the policy in force, in a word and in words, and why it would be refused."""
    state = reader.state()
    try:
        terms = terms_of(study.spec, charter, state, system_clock())
    except PolicyError as error:
        return "refused", STANDINGS["refused"], error
    status, missing = standing_of(terms.policy, terms.eyes, reader.decisions(study.rid))
    return status, missing_words(status, missing), None


@dataclass(frozen=True)
class Sight:
    """A study, as it was found: among those that wait, those granted, or those declined."""

    study: PendingStudy | Opened
    place: Literal["waiting", "granted", "declined"]


def find_study(home: Home, text: str) -> Sight:
    """Return the study of a name or digest: first among those that wait, then the granted, then the declined.

    Raises
    ------
    DocumentError
        CSL-C651 when there is none, CSL-C652 when several fit.
    IntegrityError
        CSL-C654, CSL-C659 when a file does not hold the study that its name says.
    """
    waiting = inbox_of(home)
    granted = {study.rid: study for study in opened_studies(home)}
    found: list[PendingStudy | Opened] = [study for study in waiting.list() if study.rid not in granted]
    if any(fits(text, study) for study in found):
        return Sight(pick(text, found), "waiting")
    if any(fits(text, study) for study in granted.values()):
        return Sight(pick(text, granted.values()), "granted")
    return Sight(pick(text, waiting.declined()), "declined")


def opened_studies(home: Home) -> Iterator[Opened]:
    """Yield the studies that were granted, of training and of statistics, by digest; notes of other kinds lie beside them.

    Raises as `find_study`.
    """
    shelf = Studies(home.root / "studies")
    for rid in shelf.rids():
        study = shelf.opened(rid)
        if not study.rid == study.spec.digest() == rid:
            raise IntegrityError(
                "CSL-C659",
                f"{home.root / 'studies' / rid}.json does not hold the study that its name says: it was altered or damaged.",
                "Restore it from a backup; what was reserved stands in the ledger.",
            )
        yield study


def granted_studies(home: Home) -> Iterator[OpenStudy]:
    """Yield the studies of training that were granted, by digest: those of which a model comes. Raises as `find_study`."""
    return (study for study in opened_studies(home) if isinstance(study, OpenStudy))


def show(study: StudyArgument, home: HomeOption = HERE, as_json: JsonOption = False) -> None:
    """Show one study whole: purpose, data, partners, what leaves and what stays, and the budget before and after it.

    Of a study of statistics every question is shown in plain words, with the
    columns that it looks at, and how far noise moves an answer.

    STUDY is its name or the beginning of its digest; found are studies that
    wait, that were granted and that were declined. The figures are those that
    the vault would reserve; nothing is changed.
    """
    place = home_at(home)
    require_for(place, "officer show")
    with open_reader(place) as reader:
        facts, outlook = study_sight(place, reader, find_study(place, study))
    if as_json:
        print_json(facts)
        return
    console = Console(highlight=False)
    print_study(console, facts)
    print_decisions(console, facts)
    if outlook is not None:
        print_outlook(console, outlook)
    if facts["granted"] is not None:
        _print_granted(console, facts["granted"])


def study_sight(home: Home, reader: LedgerReader, sight: Sight) -> tuple[dict[str, Any], Outlook | None]:
    """Return everything that an officer sees of a study, as a mapping, and its outlook where it is not decided yet.

    Raises
    ------
    IntegrityError
        CSL-F201, CSL-F202 when the charter's coordinator did not sign a study that waits.
    """
    charter, study = home.charter(), sight.study
    state = reader.state()
    if isinstance(study, PendingStudy):
        study.check(charter.coordinator_key)
    contract = home.contract(charter, study.spec.draft.contract)
    facts = study_facts(study.spec, charter, contract, state.policy)
    held, outlook, refusal = reader.reservation(study.rid), None, None
    if held is not None:
        status = "closed" if held.closed else "open"
        words = STANDINGS[status]
    elif isinstance(study, PendingStudy):
        status, words, refusal = standing_now(study, charter, reader)
        words = f"{STANDINGS['waiting']}: {words}" if status == "waiting" else words
    else:
        status, words = "waiting", "was never reserved: the coordinator may offer it again"
    if held is None and refusal is None and status not in ("declined",):
        outlook = look_ahead(study.spec, charter, reader, system_clock(), contract)
    facts |= {
        "status": status,
        "status_words": words if refusal is None else f"{words}: {refusal.code}  {refusal.cause}",
        "received": moment_of(study.received) if isinstance(study, PendingStudy) else None,
        "decisions": decision_rows(state.policy, state.policy_digest, reader.decisions(study.rid)),
        "outlook": outlook_facts(outlook) if outlook is not None else None,
        "granted": reservation_facts(held) if held is not None else None,
    }
    return facts, outlook


def print_decisions(console: Console, facts: dict[str, Any]) -> None:
    """Print what officers decided about a study."""
    for item in facts["decisions"]:
        old = "" if item["counts"] else " (under an earlier policy; does not count)"
        console.print(f"{item['officer']}: {item['decision']}{old}: {escape(printable(item['reason']))}")


def _print_granted(console: Console, held: dict[str, Any]) -> None:
    console.print(f"Reserved: epsilon {held['epsilon']:g} at delta {held['delta']:g} on each account.")
    if held["if_broken"] is not None:
        words = broken_words(held["if_broken"])
        console.print(f"{words[0].upper()}{words[1:]}.")
    for item in held["accounts"]:
        console.print(f"  {item['account']}: {item['released']} of {item['releases_allowed']} releases left the house.")
