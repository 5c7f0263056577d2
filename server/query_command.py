"""`consilience coordinator query` and `reports`: ask statistics of the federation, after seeing their cost and expected error."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown

from federation.answers import StatisticsReport
from federation.contract import FeatureContract
from federation.drafts import load_statistics
from federation.errors import ConsilienceError, DocumentError
from federation.files import atomic_write
from federation.statistics import StatisticsDraft
from server.desk import HERE, HomeOption, JsonOption, home_at, print_json
from server.home import CoordinatorHome
from server.office import ROSTER_SECONDS
from server.service.studies import StudyBook
from server.statistics.readable import number, readable
from server.statistics.reports import SUFFIX, PublishedReport, ReportBook
from server.study_desk import keep_draft, want_study, watch_study


def query(
    file: Annotated[Path, typer.Argument(help="The queries, such as configs/queries/value.yaml.", show_default=False)],
    home: HomeOption = HERE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show cost and expected error, and ask nobody anything.")
    ] = False,
    epsilon: Annotated[
        float | None,
        typer.Option(
            min=1e-3,
            max=100,
            help="What each member may grant, for the preview: where the file names no epsilon, or with --dry-run another.",
        ),
    ] = None,
    start: Annotated[
        bool, typer.Option("--start", help="Say at once that it is wanted, as `study start` does.")
    ] = False,
    follow: Annotated[bool, typer.Option("--watch", help="With --start: watch it to its end.")] = False,
    grant_seconds: Annotated[
        float, typer.Option(help="How long to ask those again who declined: officers may have to approve first.", min=0)
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Check queries, show what they cost and how exact the answers will be, and keep them as a study of statistics.

    With --dry-run that is all: nothing is kept, signed or sent. Otherwise the
    draft is kept under studies/, and `coordinator study start NAME` (or
    --start) runs it: every member's policy decides, officers may have to
    approve, and the answers come back as a report that all members are given.
    A half width is that of the noise alone, at the file's confidence.
    """
    _check_options(dry_run, start, follow, as_json)
    # scipy's statistics and optimizers: most of a second that no other command needs
    from server.statistics.preview import preview  # noqa: PLC0415

    # a preview needs charter and contracts alone, and no home that was made to run a service
    place, draft = CoordinatorHome(home) if dry_run else home_at(home), load_statistics(file)
    if epsilon is not None and draft.epsilon not in (None, epsilon) and not dry_run:
        raise DocumentError(
            "CSL-S783",
            f"{file} says epsilon {draft.epsilon:g}, and --epsilon {epsilon:g}: what is asked is what stands in the file.",
            "Change the file, or look at another epsilon by --dry-run.",
        )
    result = preview(draft, place.charter(), _contract(place, draft), epsilon)
    told = []
    if not dry_run:
        result["file"] = str(keep_draft(place, draft, file))
        told.append(f"Kept as {result['file']}.")
        told.append(_start(place, draft, grant_seconds) if start else _how_to_start(draft))
    if as_json:
        print_json(result)
    else:
        typer.echo("\n".join([_text(draft, result), *told]))
    if follow:
        watch_study(place, draft.name, as_json=False)


def _check_options(dry_run: bool, start: bool, follow: bool, as_json: bool) -> None:
    if dry_run and start:
        raise typer.BadParameter("--dry-run asks nobody, and --start asks: give one of them.")
    if follow and not start:
        raise typer.BadParameter("--watch watches what --start begins: give both, or use `study watch NAME`.")
    if follow and as_json:
        raise typer.BadParameter("--json prints one document: watch the study by `study watch NAME --json`.")


def _contract(place: CoordinatorHome, draft: StatisticsDraft) -> FeatureContract:
    """Return the contract that a draft names.

    Raises
    ------
    DocumentError
        CSL-S784 when the charter pins none of this name; as `CoordinatorHome.contract`.
    """
    pinned = [item.name for item in place.charter().contracts]
    if draft.contract not in pinned:
        raise DocumentError(
            "CSL-S784",
            f"The charter pins no contract called {draft.contract}; it has {', '.join(pinned)}.",
            "Name one of these in the file, or have a charter sealed that pins the other.",
        )
    return place.contract(draft.contract)


def _start(place: CoordinatorHome, draft: StatisticsDraft, grant_seconds: float) -> str:
    return want_study(place, draft.name, roster_seconds=ROSTER_SECONDS, grant_seconds=grant_seconds)


def _how_to_start(draft: StatisticsDraft) -> str:
    return f"Start it: consilience coordinator study start {draft.name}"


def reports(
    name: Annotated[
        str | None, typer.Argument(help="The report, or the study whose newest report it is; a list without it.")
    ] = None,
    home: HomeOption = HERE,
    out: Annotated[
        Path | None, typer.Option(help="Write the page (.md) or the signed report (.json) to a file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the reports of finished statistics studies, or show one: every answer with its interval, noise included.

    The signature is checked against the charter's coordinator key first. Where the output is no terminal, the page is Markdown.
    """
    place = CoordinatorHome(home)
    if name is None and out is not None:
        raise typer.BadParameter("--out writes one report: name it, or the study that it is of.")
    if out is not None and out.suffix not in (".md", ".json"):
        raise typer.BadParameter(f"--out takes a file that ends in .md or .json, and not {out.name}.")
    if name is None:
        _list(place, as_json)
        return
    book = ReportBook(place.reports)
    found = book.load(_newest(place, book, name), place.charter().coordinator_key)
    if out is not None:
        _write(found, out, as_json)
    elif as_json:
        print_json(found.report.model_dump(mode="json"))
    else:
        _show(found.report)


def _list(place: CoordinatorHome, as_json: bool) -> None:
    book = ReportBook(place.reports)
    key = place.charter().coordinator_key
    rows = [_row(book, name, key) for name in book.names()]
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo("No report yet. Ask for one by `consilience coordinator query FILE`.")
    else:
        typer.echo("\n".join(_row_text(row) for row in rows))


def _row(book: ReportBook, name: str, key: str) -> dict[str, Any]:
    """Return a report's line in the list; one that was changed says so, and hides no other."""
    try:
        report = book.load(name, key).report
    except ConsilienceError as error:
        return {"report": name, "problem": f"{error.code}  {error.cause}"}
    return {
        "report": name,
        "title": report.title,
        "answers": len(report.answers),
        "members": [item.member for item in report.members],
        "epsilon": max((item.epsilon for item in report.members), default=None),
    }


def _row_text(row: dict[str, Any]) -> str:
    if "problem" in row:
        return f"{row['report']}  {row['problem']}"
    answers = "1 answer" if row["answers"] == 1 else f"{row['answers']} answers"
    spent = "" if row["epsilon"] is None else f", ε up to {row['epsilon']:g}"
    return f"{row['report']}  {row['title']}: {answers} of {len(row['members'])} members{spent}"


def _write(found: PublishedReport, out: Path, as_json: bool) -> None:
    atomic_write(out, found.sealed.canonical() if out.suffix == ".json" else readable(found.report).encode())
    if as_json:
        print_json({"file": str(out)})
    else:
        typer.echo(f"Written: {out}")


def _show(report: StatisticsReport) -> None:
    console = Console()
    if console.is_terminal:
        console.print(Markdown(readable(report)))
    else:
        typer.echo(readable(report), nl=False)


def _text(draft: StatisticsDraft, result: dict[str, Any]) -> str:
    sizes, rounds = result["members"], result["rounds"]
    how = "only sums are opened" if draft.aggregation == "secure" else "each member's noisy sums are seen"
    queries = "1 query" if len(draft.queries) == 1 else f"{len(draft.queries)} queries"
    lines = [
        f"{draft.name}: {queries} on {draft.contract} for {draft.purpose}; {how}.",
        f"{len(sizes)} members declare {sum(sizes.values()):,} customers; the study needs {result['least']} members and "
        f"{'1 round' if rounds == 1 else f'{rounds} rounds'}.",
        f"It costs every customer of a member ε {result['epsilon']:g}, whether she trains models or is held out. "
        f"Half widths of the noise, at {draft.confidence:.0%}:",
    ]
    for item in result["queries"]:
        lines.append(f"  {item['id']}: {item['asks']}")
        lines += [f"      {entry['what']}: ± {number(entry['within'])} {entry['unit']}" for entry in item["expected"]]
    return "\n".join(lines)


def _newest(place: CoordinatorHome, book: ReportBook, name: str) -> str:
    """Return a report's name: as given, or the last that was written of a study of this name."""
    if name in book.names():
        return name
    known = StudyBook(place.root).read(name)
    delivered = None if known is None else known.delivered
    mine = [item for item in book.names() if item.rpartition("-")[0] == name]
    by_time = sorted(mine, key=lambda item: (place.reports / f"{item}{SUFFIX}").stat().st_mtime)
    return delivered if delivered in mine and delivered is not None else (by_time or [name])[-1]
