"""`consilience officer budget` and `budget plan`: what is spent and left, and what a study would do to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Annotated, Any

import typer
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from client.budget_plot import draw_history, history
from client.desk import HERE, HomeOption, JsonOption, home_at, open_reader, print_json
from client.home import Home
from client.inbox import PendingStudy
from client.officer.budget_view import budget_facts, print_budget, slot_rows, slot_table
from client.officer.studies import find_study
from client.officer.study_view import outlook_facts, print_outlook, printable
from client.outlook import Outlook, Spec, how_often, largest_epsilon, look_ahead
from client.roles import require_for
from federation.charter import Charter
from federation.contract import FeatureContract
from federation.document import MAX_DOCUMENT_BYTES, Document
from federation.drafts import load_draft
from federation.errors import DocumentError, StorageError
from federation.files import atomic_write
from federation.measures import MOST_CELLS
from federation.signing import Signature, verify
from federation.statistics import MOST_ROUNDS, StatisticsDraft, StatisticsPlan, StatisticsSpec
from federation.study import CONTEXT, Draft, SecurePlan, StudySpec, Training
from privacy.ledger import LedgerReader, system_clock

MOST_ENTRIES = 20_000  # above, the tight figure is computed only when asked for
PATIENCE_SECONDS = 2.0
PLANNED_SHARE = 16_384.0  # the share of noise, in grid units, that the coordinator plans secret sums with
_PARTS = (1.0, 0.5, 0.25)

app = typer.Typer(invoke_without_command=True)


class SignedStudy(Document):
    """A planned study with the coordinator's signature, as the coordinator's checkpoints hold it."""

    spec: StudySpec | StatisticsSpec
    signature: Signature


def register(app_: typer.Typer) -> None:
    """Add the commands to `consilience officer`."""
    app_.add_typer(app, name="budget")


@app.callback()
def budget(
    context: typer.Context,
    home: HomeOption = HERE,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw what was spent over time to FILE, .svg or .png.", show_default=False),
    ] = None,
    tight: Annotated[
        bool | None,
        typer.Option(
            "--tight/--no-tight",
            help=f"Compute the tight figure too; unless said, for ledgers of up to {MOST_ENTRIES:,} entries.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was spent of the privacy budget, what is reserved, and what is left.

    Two accounts, training and hold-out: no customer is in both, so each has
    the whole budget. The figures decide; the one marked * is information only.
    """
    if context.invoked_subcommand is not None:
        return
    place = home_at(home)
    require_for(place, "officer budget")
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise DocumentError("CSL-C670", f"{plot} names no format.", "Name a file that ends in .svg or .png.")
    with open_reader(place) as reader, _patience("Reading every entry of the ledger…"):
        size = reader.tree_head().size
        computed = size <= MOST_ENTRIES if tight is None else tight
        now = system_clock()
        facts = budget_facts(reader, now, computed)
        if plot is not None:
            atomic_write(plot, _picture(reader, now, plot))
    if as_json:
        print_json(facts)
        return
    print_budget(Console(highlight=False), facts, None if computed else _left_out(size, tight))
    if plot is not None:
        typer.echo(f"Drawn: {plot}")


def _left_out(size: int, tight: bool | None) -> str:
    if tight is False:
        return "* Left out, as you said."
    return f"* Left out: over {size:,} entries it takes minutes. --tight computes it."


def _picture(reader: LedgerReader, now: int, plot: Path) -> bytes:
    return draw_history(history(reader, now), plot.suffix.removeprefix("."), reader.state().member or "")


@contextmanager
def _patience(text: str) -> Iterator[None]:
    """Say on the error output what is going on, once it has lasted for two seconds."""
    status = Status(text, console=Console(stderr=True))
    timer = Timer(PATIENCE_SECONDS, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


@app.command()
def plan(
    context: typer.Context,
    study: Annotated[
        str,
        typer.Argument(
            help="A study that waits (name or beginning of its digest), a planned study's JSON file, or a draft's YAML "
            "file with --rounds and --rate.",
            show_default=False,
        ),
    ],
    home: HomeOption = HERE,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="For a draft: the number of rounds.", show_default=False)
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="For a draft: the share of customers that a step draws.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, max=100_000, help="For a draft: steps in all; as many as rounds unless given.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a study would cost, what would be left, and for what else the rest would do.

    STUDY is a study that waits (its name, or the beginning of its digest), the
    JSON file of a planned study, or a draft's YAML file with --rounds and
    --rate (of statistics: with --rounds alone). The figures are those that the vault would reserve; nothing is.
    """
    parent = context.parent
    if parent is not None and context.get_parameter_source("home") == ParameterSource.DEFAULT:
        home = Path(parent.params.get("home", home))
    as_json = as_json or (parent is not None and bool(parent.params.get("as_json")))
    place = home_at(home)
    require_for(place, "officer budget")
    charter = place.charter()
    with open_reader(place) as reader, _patience("Pricing the study…"):
        spec = find_spec(place, charter, study, rounds, rate, steps)
        contract = place.contract(charter, spec.draft.contract)
        outlook = look_ahead(spec, charter, reader, system_clock(), contract)
        facts = {"study": spec.draft.name, "purpose": spec.draft.purpose, **outlook_facts(outlook)}
        facts |= _rest(spec, charter, reader, outlook, contract)
        facts["slots"] = slot_rows(reader, reader.state())
    if as_json:
        print_json(facts)
        return
    console = Console(highlight=False)
    console.print(f"[bold]{escape(printable(spec.draft.title))}[/]  ({spec.draft.name}, for {spec.draft.purpose})")
    print_outlook(console, outlook)
    _print_rest(console, outlook, facts)


def _rest(
    spec: Spec, charter: Charter, reader: LedgerReader, outlook: Outlook, contract: FeatureContract
) -> dict[str, Any]:
    """Return for what else the budget would do: the largest further study, and how many of some sizes."""
    largest = largest_epsilon(spec, charter, reader, outlook, contract)
    sizes = [] if largest is None else [part * outlook.terms.epsilon for part in _PARTS]
    return {
        "largest_epsilon": largest,
        "how_many": [
            {"epsilon": size, "studies": how_often(spec, charter, reader, outlook, contract, size)} for size in sizes
        ],
    }


def _print_rest(console: Console, outlook: Outlook, facts: dict[str, Any]) -> None:
    largest = facts["largest_epsilon"]
    if facts["slots"]:
        console.print(slot_table(facts["slots"]))
    if outlook.terms.slot is not None:
        free = sum(not slot["taken"] for slot in facts["slots"]) - 1
        console.print(f"After it, {free} slots of the plan are free.")
    elif not outlook.fits:
        fitting = "no epsilon of 0.01 or more would fit" if largest is None else f"epsilon {largest:g} would fit"
        console.print(f"[red]The study does not fit.[/] Of the same kind, {fitting}.")
    elif largest is None:
        console.print("After it, no study of this kind fits any more.")
    else:
        console.print(f"After it, the largest further study of this kind could have epsilon {largest:g}.")
    if facts["how_many"]:
        counts = ", ".join(f"{item['studies']} at epsilon {item['epsilon']:g}" for item in facts["how_many"])
        console.print(f"So many of this kind would fit {'after it' if outlook.fits else 'now'}: {counts}.")


def find_spec(
    home: Home, charter: Charter, text: str, rounds: int | None, rate: float | None, steps: int | None
) -> Spec:
    """Return the study that `text` names: a file's, or one that this home knows.

    Raises
    ------
    DocumentError
        CSL-C671 for a file that holds no study, CSL-C672 for a draft without its plan, CSL-C675 for a plan that cannot be,
        CSL-C673 for a contract that the charter does not pin; CSL-C651, CSL-C652 as `find_study`.
    IntegrityError
        CSL-F201, CSL-F202 when the coordinator did not sign it.
    """
    path = Path(text)
    if not path.is_file():
        found = find_study(home, text).study
        if isinstance(found, PendingStudy):
            found.check(charter.coordinator_key)
        return found.spec
    if path.suffix in (".yaml", ".yml"):
        return _drafted(path, charter, rounds, rate, steps)
    return _planned(path, charter)


def _planned(path: Path, charter: Charter) -> Spec:
    try:
        with path.open("rb") as handle:
            content = handle.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise StorageError("CSL-C674", f"{path} cannot be read: {error.strerror}.", "Check its rights.") from error
    for kind in (SignedStudy, PendingStudy):
        try:
            signed = kind.from_canonical(content)
        except DocumentError:
            continue
        verify(signed.signature, CONTEXT, signed.spec, charter.coordinator_key)
        return signed.spec
    for bare in (StudySpec, StatisticsSpec):
        try:
            return bare.from_canonical(content)
        except DocumentError:
            continue
    raise DocumentError(
        "CSL-C671",
        f"{path} holds no study in canonical JSON.",
        "Name a study that the coordinator planned, or a draft that ends in .yaml.",
    )


def _drafted(path: Path, charter: Charter, rounds: int | None, rate: float | None, steps: int | None) -> Spec:
    draft = load_draft(path)
    if isinstance(draft, StatisticsDraft):
        if rate is not None or steps is not None:
            raise DocumentError(
                "CSL-C870", "--rate and --steps belong to training; statistics count everybody.", "Give --rounds alone."
            )
        return _drafted_statistics(draft, charter, rounds)
    if rounds is None or rate is None:
        raise DocumentError(
            "CSL-C672",
            "A draft has no plan yet: the coordinator derives it.",
            "Give --rounds and --rate, and --steps for fedavg; `consilience coordinator study check` shows them.",
        )
    pinned = _pinned(draft, charter)
    total = rounds if steps is None else steps
    if not 0.0 < rate <= 1.0 or total % rounds or (draft.mode == "fedsgd" and total != rounds):
        raise DocumentError(
            "CSL-C675",
            "The plan does not hold: the rate is above 0 and at most 1, steps are a multiple of rounds, and fedsgd takes one "
            "step a round.",
            "Correct --rounds, --rate and --steps.",
        )
    training = Training(
        mode=draft.mode, rounds=rounds, steps=total, sampling_rate=rate, server_optimizer=draft.server_optimizer
    )
    return StudySpec(
        draft=draft,
        federation=charter.federation,
        charter=charter.digest(),
        contract_digest=pinned,
        training=training,
        nonce="0" * 32,
        secure=_secure(draft),
    )


def _drafted_statistics(draft: StatisticsDraft, charter: Charter, rounds: int | None) -> StatisticsSpec:
    """Return a spec as the coordinator plans it, but for the numbers of a round: as many as there may be, which cost the most."""
    if rounds is None or rounds > MOST_ROUNDS:
        raise DocumentError(
            "CSL-C672",
            "A draft has no plan yet: the coordinator derives it.",
            f"Give --rounds, {MOST_ROUNDS} at most; `consilience coordinator query --dry-run` shows them.",
        )
    return StatisticsSpec(
        draft=draft,
        federation=charter.federation,
        charter=charter.digest(),
        contract_digest=_pinned(draft, charter),
        plan=StatisticsPlan(rounds=rounds, dimension=MOST_CELLS, share=PLANNED_SHARE),
        nonce="0" * 32,
        secure=_secure(draft),
    )


def _pinned(draft: Draft, charter: Charter) -> str:
    pinned = charter.contract_digest(draft.contract)
    if pinned is None:
        raise DocumentError(
            "CSL-C673", f"The charter pins no contract called {draft.contract}.", "Correct the draft's contract."
        )
    return pinned


def _secure(draft: Draft) -> SecurePlan | None:
    if draft.n_min is None or draft.c is None:
        return None
    return SecurePlan(noise=draft.noise, n_min=draft.n_min, c=draft.c, share=PLANNED_SHARE)
