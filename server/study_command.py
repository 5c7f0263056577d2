"""`consilience coordinator study`: check and propose drafts, start, watch and stop studies, list them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from federation.drafts import AnyDraft, load_draft
from federation.errors import DocumentError
from federation.service_state import is_running
from federation.statistics import StatisticsDraft
from federation.study import SecurePlan, StudyDraft, Training
from server.card import colluders
from server.derivation import derive_training
from server.desk import HERE, HomeOption, JsonOption, home_at, print_json
from server.home import CoordinatorHome
from server.office import ROSTER_SECONDS
from server.planning import check_draft, declared_sizes, least_partners, plan_aggregation
from server.service.studies import StudyBook
from server.study_desk import keep_draft, want_study, watch_study
from server.study_list import study_rows, study_table

study = typer.Typer(
    no_args_is_help=True,
    help="Studies: what a person writes, the plan that follows from it, and how far each is.\n\n"
    "`propose` checks a draft and keeps it in the home, `start` says that it is wanted. The service (`coordinator start`) does the rest, "
    "and goes on with it after every interruption, until it is finished or `stop` says otherwise.\n\n"
    "Statistics are checked and kept by `coordinator query`; `start`, `watch`, `stop` and `list` are for studies of both kinds.",
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
    draft = _training_draft(file)
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
    place, draft = home_at(home), _training_draft(file)
    sizes, training = _plan(place, draft)
    kept = keep_draft(place, draft, file)
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
            f"Keep it by `study propose` or `query`, and start {draft.name}.",
        )
    check_any(place, draft)
    typer.echo(
        want_study(
            place,
            name,
            again=again,
            keep_trying=keep_trying,
            roster_seconds=roster_seconds,
            grant_seconds=grant_seconds,
        )
    )
    if follow:
        watch_study(place, name, as_json=False)


@study.command("watch")
def watch_(name: Name, home: HomeOption = HERE, as_json: JsonOption = False) -> None:
    """Watch a study: rounds, who answered and who was left out, seconds by this machine's clock, bytes, declared epsilon.

    It reads what the study wrote down, so that it can be begun and left (Ctrl-C) at any time without touching the study. It ends when the
    study does.
    """
    watch_study(home_at(home), name, as_json)


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
    rows = study_rows(place)
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo(
            "No study is kept here yet. Begin with `consilience coordinator study propose FILE`, or `consilience coordinator query FILE`."
        )
    else:
        Console().print(study_table(rows))


def check_any(place: CoordinatorHome, draft: AnyDraft) -> None:
    """Check a draft against charter and contract, whichever kind it is. Raises DocumentError CSL-S101."""
    if isinstance(draft, StatisticsDraft):
        from server.statistics.planning import check_statistics  # noqa: PLC0415 - half a second that only statistics need

        check_statistics(draft, place.charter(), place.contract(draft.contract))
    else:
        _plan(place, draft)


def _training_draft(file: Path) -> StudyDraft:
    """Read a draft of training.

    Raises
    ------
    DocumentError
        CSL-S782 for a draft of statistics; as `federation.drafts.load_draft`.
    """
    draft = load_draft(file)
    if isinstance(draft, StatisticsDraft):
        raise DocumentError(
            "CSL-S782",
            f"{file} asks for statistics, and trains nothing.",
            f"Give it to `consilience coordinator query {file}`; with --dry-run that shows cost and expected error, and keeps nothing.",
        )
    return draft


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
