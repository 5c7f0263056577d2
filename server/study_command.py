"""`consilience coordinator study`: check and propose drafts, start, watch and stop studies, list them."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from federation.document import load_yaml
from federation.errors import ConsilienceError, DocumentError, ExitCode, FederationError
from federation.files import atomic_write
from federation.service_state import is_running
from federation.study import SecurePlan, StudyDraft, Training
from server.card import colluders
from server.derivation import derive_training
from server.desk import HERE, HomeOption, JsonOption, home_at, print_json
from server.events import Delivered, Published
from server.home import CoordinatorHome
from server.journal import read_journal
from server.office import ROSTER_SECONDS
from server.planning import check_draft, declared_sizes, least_partners, plan_aggregation
from server.registry import Registry
from server.service.studies import StudyBook, StudyRecord
from server.story import Story, told
from server.watch import watch

study = typer.Typer(
    no_args_is_help=True,
    help="Studies: what a person writes, the plan that follows from it, and how far each is.\n\n"
    "`propose` checks a draft and keeps it in the home, `start` says that it is wanted. The service (`coordinator start`) does the rest, "
    "and goes on with it after every interruption, until it is finished or `stop` says otherwise.",
)

Name = Annotated[str, typer.Argument(help="The study's name, as in its draft.", show_default=False)]
DraftFile = Annotated[Path, typer.Argument(help="The draft, such as configs/studies/churn.yaml.", show_default=False)]


@study.command("check")
def check(
    file: DraftFile,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="The coordinator's home folder; without it only the file itself is checked."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a draft and show the plan that follows from it.

    All problems are named at once, with line and key. With --home the draft is checked against charter and feature contract too, and
    the plan is derived from the declared sizes: rounds, and the share of customers that each round draws. Nothing is signed or sent.
    """
    draft = load_yaml(file, StudyDraft)
    result: dict[str, Any] = {"study": draft.name, "purpose": draft.purpose, "valid": True}
    count = None
    if home is not None:
        sizes, training = _plan(CoordinatorHome(home), draft)
        result |= {"members": sizes, "plan": training.model_dump(mode="json")}
        count = len(sizes)
    result |= _secure_terms(draft, count)
    typer.echo(json.dumps(result, indent=2) if as_json else _plan_text(draft, result))


@study.command("propose")
def propose(file: DraftFile, home: HomeOption = HERE, as_json: JsonOption = False) -> None:
    """Check a draft against charter and feature contract, show its plan, and keep it under studies/ in the home.

    Nothing is signed or sent: that begins with `study start`. A draft of the same name is replaced, unless its study is not finished.
    """
    place, draft = home_at(home), load_yaml(file, StudyDraft)
    sizes, training = _plan(place, draft)
    kept = place.root / "studies" / f"{draft.name}.yaml"
    content = file.read_bytes()
    if kept.exists() and kept.read_bytes() != content and _is_begun(place, draft.name):
        raise FederationError(
            "CSL-S805",
            f"The study {draft.name} is not finished, and {file} is another draft than the one it was begun with.",
            "Give the new draft another name; or stop the study and delete its file under checkpoints/, which gives it up.",
        )
    another = _differs(place, draft)
    # the draft first: a crash in between then leaves a study that asks for --again, and not one that costs budget unasked
    atomic_write(kept, content)
    if another:
        StudyBook(place.root).forget_delivered(draft.name)
    result = {"study": draft.name, "members": sizes, "plan": training.model_dump(mode="json"), "file": str(kept)}
    result |= _secure_terms(draft, len(sizes))
    if as_json:
        print_json(result)
    else:
        typer.echo(
            f"{_plan_text(draft, result)}\nKept as {kept}. Start it: consilience coordinator study start {draft.name}"
        )


@study.command("start")
def start(
    name: Name,
    home: HomeOption = HERE,
    keep_trying: Annotated[
        bool,
        typer.Option(
            "--keep-trying",
            help="When too few members are there, grant or answer, wait and try again instead of stopping.",
        ),
    ] = False,
    roster_seconds: Annotated[
        float, typer.Option(help="How long to wait for all members, before going on with those present.", min=0)
    ] = ROSTER_SECONDS,
    grant_seconds: Annotated[
        float, typer.Option(help="How long to ask those again who declined: officers may have to approve first.", min=0)
    ] = 0.0,
    again: Annotated[
        bool, typer.Option("--again", help="Run a finished study once more: a new study, which costs budget anew.")
    ] = False,
    follow: Annotated[bool, typer.Option("--watch", help="Watch it at once.")] = False,
) -> None:
    """Say that a study is to run. The service starts it at once; where none runs, at its next start.

    A study that was stopped or interrupted goes on after its last finished round, as the same study, and costs nothing again.
    """
    place = home_at(home)
    draft = place.draft(name)
    if draft.name != name:
        raise DocumentError(
            "CSL-S803",
            f"studies/{name}.yaml is the draft of {draft.name}.",
            f"Keep it by `study propose`, and start {draft.name}.",
        )
    _plan(place, draft)
    book = StudyBook(place.root)
    known = book.read(name)
    done = None if again else _finished_model(place, book, name)
    if done is not None:
        raise FederationError(
            "CSL-S804",
            f"The study {name} is finished: its model is {done}.",
            "To learn anew, from today's data, add --again: every institution then pays from its budget once more.",
        )
    runs_already = known is not None and known.wanted == "running" and not known.over
    book.want(name, keep_trying=keep_trying, roster_seconds=roster_seconds, grant_seconds=grant_seconds)
    typer.echo(f"{name}: {'is wanted already' if runs_already else 'wanted from now on'}.")
    if not is_running(place.run):
        typer.echo("The service does not run; it begins with this study at `consilience coordinator start`.")
    if follow:
        _watch(place, name, as_json=False)


@study.command("watch")
def watch_(name: Name, home: HomeOption = HERE, as_json: JsonOption = False) -> None:
    """Watch a study: rounds, who answered and who was left out, seconds by this machine's clock, bytes, declared epsilon.

    It reads what the study wrote down, so that it can be begun and left (Ctrl-C) at any time without touching the study. It ends when the
    study does.
    """
    _watch(home_at(home), name, as_json)


@study.command("stop")
def stop(name: Name, home: HomeOption = HERE) -> None:
    """Stop a study after what it is just doing; its checkpoint stays, and `study start` goes on from there."""
    place = home_at(home)
    book = StudyBook(place.root)
    record = book.unwant(name)
    if record.over:
        typer.echo(f"{name} is {record.state}; there is nothing to stop.")
    elif is_running(place.run):
        typer.echo(f"{name} stops within a few seconds; `study list` shows when it has.")
    else:
        book.settle(name, "stopped", "stopped by the coordinator")
        typer.echo(f"{name} is stopped.")


@study.command("list")
def list_(home: HomeOption = HERE, as_json: JsonOption = False) -> None:
    """List the studies: how far each is, with how many members, since when, and why it is not running."""
    place = home_at(home)
    book = StudyBook(place.root)
    rows = [_row(place, book, name) for name in sorted({*_drafts(place), *book.names()})]
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo("No study is kept here yet. Begin with `consilience coordinator study propose FILE`.")
    else:
        Console().print(_table(rows))


def _plan(place: CoordinatorHome, draft: StudyDraft) -> tuple[dict[str, int], Training]:
    """Check a draft against charter and contract, and return the declared sizes and the plan."""
    charter, contract = place.charter(), place.contract(draft.contract)
    check_draft(draft, charter, contract)
    sizes = declared_sizes(charter, draft.contract)
    return sizes, derive_training(draft, sizes, contract)


def _plan_text(draft: StudyDraft, result: dict[str, Any]) -> str:
    lines = [
        f"{draft.name}: the draft is valid. Purpose {draft.purpose}, {draft.model.kind} model on {draft.contract}, {draft.mode}."
    ]
    if "plan" not in result:
        return "\n".join([*lines, "Give --home to check it against the charter and to see the plan."])
    training, sizes = result["plan"], result["members"]
    named = "" if draft.rounds is None else ", as the draft says and not the rule"
    lines += [
        f"{len(sizes)} members declare {sum(sizes.values())} customers; the study needs {least_partners(draft)} members.",
        f"Plan: {training['rounds']} rounds{named}, {training['steps']} steps in all; each step draws every customer with probability "
        f"{training['sampling_rate']:g}.",
        f"Each vault's own policy decides its epsilon{'' if draft.epsilon is None else f', at most {draft.epsilon:g}'}; "
        f"the evaluation counts held-out customers in {draft.evaluation.bins} bins.",
    ]
    plan = plan_aggregation(draft)
    return "\n".join(lines if plan is None else [*lines, _secrecy(plan, least_partners(draft), len(sizes))])


def _secrecy(plan: SecurePlan, least: int, members: int) -> str:
    """Return in words how a study's vectors are added up in secret."""
    noise = {
        "local": "each vault adds the full noise itself",
        "shared": f"the noise of {plan.bearers} members counts, so that single vectors are protected by secrecy alone",
    }[plan.noise]
    return (
        f"Added up in secret: only sums over at least {plan.n_min} members are opened, and they hide what is in them while "
        f"{colluders(plan)} with the coordinator; {noise}. {_missing(plan, least, members)}"
    )


def _missing(plan: SecurePlan, least: int, members: int) -> str:
    """Return in words who may be missing from a sum: from the beginning, and of all when they have said that they are ready."""
    if members == least:
        return "Nobody may be missing."
    # as `Roster.survivors_needed`: no two disjoint sets of so many exist, colluders apart
    needed = max(least, (members + plan.c) // 2 + 1)
    return (
        f"In a round {members - least} of {members} may be missing at the most. Of {members} that are ready, {needed} must send their "
        f"vectors: {members - needed} may drop out."
    )


def _secure_terms(draft: StudyDraft, members: int | None) -> dict[str, Any]:
    """Return the terms of sums alone for `--json`, none for other studies; without members it is not known how many may be missing."""
    plan, least = plan_aggregation(draft), least_partners(draft)
    if plan is None:
        return {}
    spare = None if members is None else members - least
    terms = {"noise": plan.noise, "n_min": plan.n_min, "c": plan.c, "least": least, "may_be_missing": spare}
    return {"secure": terms}


def _is_begun(place: CoordinatorHome, name: str) -> bool:
    record = StudyBook(place.root).read(name)
    wanted = record is not None and record.wanted == "running"
    return wanted or (place.root / "checkpoints" / f"{name}.checkpoint").exists()


def _differs(place: CoordinatorHome, draft: StudyDraft) -> bool:
    """Whether the draft kept under this name says something else; one that is gone or damaged says nothing."""
    try:
        return place.draft(draft.name) != draft
    except DocumentError:
        return False


def _finished_model(place: CoordinatorHome, book: StudyBook, name: str) -> str | None:
    """Return the model of a finished study; None where `start` begins a first one or goes on with one.

    Where the record is lost and no checkpoint says that there is something to go on with, journal and registry tell.
    """
    known = book.read(name)
    if known is not None:
        return (known.delivered or "in the registry") if known.state == "finished" else None
    if _is_begun(place, name):
        return None
    models = [
        found for found in Registry(place.registry).names() if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{12}}", found)
    ]
    return ", ".join(models) or _delivered_model(book.journal(name))


def _delivered_model(path: Path) -> str | None:
    """Return the last model that a journal says was delivered."""
    published = delivered = None
    for line in read_journal(path) if path.exists() else ():
        if isinstance(line.event, Published):
            published = line.event.name
        elif isinstance(line.event, Delivered):
            delivered = published or "no longer named"
    return delivered


def _drafts(place: CoordinatorHome) -> list[str]:
    return [path.stem for path in (place.root / "studies").glob("*.yaml")]


def _watch(place: CoordinatorHome, name: str, as_json: bool) -> None:
    book = StudyBook(place.root)
    if book.read(name) is None:
        raise FederationError(
            "CSL-S802", f"The study {name} was never started.", "See `coordinator study list` for its name."
        )
    # soft_wrap keeps a line whole where the output is a file
    watch(book.journal(name), Console(soft_wrap=True), ended=_ended(place, book, name), as_json=as_json)
    record = book.read(name)
    if record is not None and record.state != "finished":
        raise typer.Exit(int(ExitCode.FEDERATION))


def _ended(place: CoordinatorHome, book: StudyBook, name: str) -> Callable[[], str | None]:
    def ended() -> str | None:
        record = book.read(name)
        if record is None:
            return "It is no longer known here."
        if record.over:
            return _sentence(record)
        if not is_running(place.run):
            return "The service does not run; `consilience coordinator start` goes on with this study."
        return None

    return ended


def _sentence(record: StudyRecord) -> str:
    code = f"{record.code}  " if record.code else ""
    return f"{code}{record.state}: {record.reason}"


def _row(place: CoordinatorHome, book: StudyBook, name: str) -> dict[str, Any]:
    try:
        record, story = book.read(name), _story(book.journal(name))
    except ConsilienceError as error:
        return _fields(name, "damaged", None, Story(), f"{error.code}  {error.cause}")
    if record is None:
        return _fields(name, "proposed", None, Story(), "")
    stage = f" ({story.stage})" if record.state == "running" and story.study else ""
    reason = "" if record.state in ("running", "starting") else " ".join(filter(None, (record.code, record.reason)))
    return _fields(name, f"{record.state}{stage}", record.since, story, reason, record)


def _fields(
    name: str, state: str, since: float | None, story: Story, reason: str, record: StudyRecord | None = None
) -> dict[str, Any]:
    members = story.members()
    moment = None if since is None else datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    return {
        "study": name,
        "state": state,
        "wanted": None if record is None else record.wanted,
        "round": story.rounds_done,
        "rounds": story.rounds,
        "members": [item.member for item in members if item.present],
        "granted": sum(item.epsilon is not None for item in members),
        "since": moment,
        "reason": reason,
        "model": None if record is None else record.delivered,
    }


def _story(path: Path) -> Story:
    story = Story()
    if path.exists():
        for line in read_journal(path):
            story = told(story, line)
    return story


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("study", "state", "round", "members", "since (UTC)"):
        table.add_column(title, no_wrap=title == "study")
    table.add_column("why", overflow="fold")
    for row in rows:
        done = f"{row['round']}/{row['rounds']}" if row["rounds"] else ""
        since = "" if row["since"] is None else row["since"].removesuffix("+00:00").replace("T", " ")
        members = str(len(row["members"]) or "")
        table.add_row(*(Text(text) for text in (row["study"], row["state"], done, members, since, row["reason"])))
    return table
