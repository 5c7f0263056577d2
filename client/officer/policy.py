"""`consilience officer policy`: make, check, sign, activate, compare and show an institution's policy."""

import sys
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from client.answers import answers_of, read_flags
from client.desk import HERE, HomeOption, JsonOption, home_at, nobody_to_ask, open_reader, print_json
from client.home import Home
from client.interview import complete
from client.officer.keys import PassphraseFd, PassphraseFile
from client.policy_draft import build
from client.policy_files import install_policy, read_signatures, write_signatures
from client.policy_review import Standing, Verdict, standing_of, verdict_on
from client.policy_signing import add_signature, check_signer, check_unexpired, read_passphrase
from client.policy_text import policy_yaml
from client.questions import MANY, ONE
from client.roles import require_for
from client.unlock import PassphraseFd as VaultFd
from client.unlock import PassphraseFile as VaultFile
from client.unlock import unlock
from federation.document import load_yaml, parse_yaml
from federation.drafts import load_draft
from federation.errors import DocumentError, PolicyError, StorageError
from federation.files import atomic_write
from privacy.comparison import Change, changes
from privacy.explanation import explain
from privacy.keys import load_identity, read_public
from privacy.ledger import Ledger
from privacy.ledger.authority import eligible
from privacy.ledger.state import State
from privacy.ledger.succession import check_succession
from privacy.mistakes import mistakes
from privacy.policy import Policy

FileArgument = Annotated[Path, typer.Argument(help="The policy, a YAML file.", show_default=False)]
Compared = Annotated[
    Path | None,
    typer.Option(
        "--home", help="The vault's home folder: compares with its charter and its ledger.", show_default=False
    ),
]
Answer = str | None
_WORDS = {question.name: question.words for question in ONE}
_SIGNS = {"more": "+", "less": "-", "other": "~"}


def register(app: typer.Typer) -> None:
    """Add the commands to the group `policy`."""
    app.command("new")(new)
    app.command("check")(check)
    app.command("sign")(sign)
    app.command("activate")(activate)
    app.command("diff")(diff)
    app.command("show")(show)


def _one(name: str) -> Any:  # noqa: ANN401 - typer's own
    return typer.Option(help=_WORDS[name].rstrip("?") + ".", show_default=False)


def _many(name: str, more: str = "") -> Any:  # noqa: ANN401 - typer's own
    keys = ", ".join(f"{question.name}=" for question in MANY[name])
    return typer.Option(help=f"Repeatable: {more}{keys}", show_default=False)


def new(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The policy to write, a YAML file.", show_default=False)],
    old: Annotated[
        Path | None, typer.Option("--from", help="Begin with this policy and write its successor.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over FILE.")] = False,
    institution: Annotated[Answer, _one("institution")] = None,
    issued: Annotated[Answer, _one("issued")] = None,
    expires: Annotated[Answer, _one("expires")] = None,
    officer: Annotated[list[str] | None, _many("officer", "ID=KEY, or ")] = None,
    eyes: Annotated[Answer, _one("eyes")] = None,
    size: Annotated[Answer, _one("size")] = None,
    purpose: Annotated[list[str] | None, _many("purpose")] = None,
    contact_consent: Annotated[Answer, _one("contact-consent")] = None,
    study: Annotated[list[str] | None, _many("study")] = None,
    statistics: Annotated[list[str] | None, _many("statistics", "none, or ")] = None,
    mode: Annotated[Answer, _one("mode")] = None,
    filter: Annotated[Answer, _one("filter")] = None,
    order: Annotated[Answer, _one("order")] = None,
    period_days: Annotated[Answer, _one("period-days")] = None,
    period_epsilon: Annotated[Answer, _one("period-epsilon")] = None,
    period_delta: Annotated[Answer, _one("period-delta")] = None,
    life_epsilon: Annotated[Answer, _one("life-epsilon")] = None,
    life_delta: Annotated[Answer, _one("life-delta")] = None,
    slot: Annotated[list[str] | None, _many("slot")] = None,
    smallest_cohort: Annotated[Answer, _one("smallest-cohort")] = None,
    smallest_partners: Annotated[Answer, _one("smallest-partners")] = None,
    aggregation: Annotated[Answer, _one("aggregation")] = None,
    secure_noise: Annotated[Answer, _one("secure-noise")] = None,
    secure_c: Annotated[Answer, _one("secure-c")] = None,
    secure_n_min: Annotated[Answer, _one("secure-n-min")] = None,
    secure_floor: Annotated[Answer, _one("secure-floor")] = None,
    reply_grid: Annotated[Answer, _one("reply-grid")] = None,
    keep_name_lists: Annotated[Answer, _one("keep-name-lists")] = None,
    keep_replies: Annotated[Answer, _one("keep-replies")] = None,
    keep_participation: Annotated[Answer, _one("keep-participation")] = None,
) -> None:
    """Write a policy: answer the questions on a terminal, or give every answer by a flag.

    What a flag answers is not asked. Deltas follow from --size unless they
    are given. With --mode plan each --slot states its study's epsilon, and
    the noise is computed from it.

    Nothing takes effect: officers sign the file, then it is activated.
    """
    if file.exists() and not force:
        raise StorageError("CSL-C622", f"{file} exists.", "Choose another name, or write over it by --force.")
    before = load_yaml(old, Policy) if old is not None else None
    given = {name.replace("_", "-"): value for name, value in context.params.items()}
    flags = read_flags(
        {question.name: given[question.name] for question in ONE}, {name: given[name] or () for name in MANY}
    )
    today = _today()
    asker = _Terminal() if _somebody_is_there() else None
    answers = complete(flags, answers_of(before, today) if before is not None else None, asker, today)
    policy = build(answers, before)
    lines = [line for line in explain(policy) if "Slot" in line or "whole plan" in line]
    atomic_write(file, policy_yaml(policy).encode())
    written = load_yaml(file, Policy)
    if written != policy:
        raise StorageError(
            "CSL-C634",
            f"{file} does not read back as what was written.",
            "Do not sign it; check the disk, and try again.",
        )
    console = Console()
    console.print(f"Wrote {escape(str(file))}, version {written.version}.", highlight=False)
    for line in lines:
        console.print(f"- {escape(line)}", highlight=False)
    _print_warnings(console, mistakes(written, today=today))
    console.print(f"Digest {written.digest()}", highlight=False)
    console.print("Next: `consilience officer policy check`, then let the officers sign it.", highlight=False)


class _Terminal:
    """The person at this terminal."""

    def ask(self, question: str, default: str) -> str:
        """Ask a question; without a default an empty answer is possible."""
        return str(typer.prompt(question, default=default, show_default=bool(default)))

    def agree(self, question: str, default: bool) -> bool:
        """Ask for yes or no."""
        return typer.confirm(question, default=default)

    def say(self, text: str) -> None:
        """Show a line."""
        typer.echo(text)


def check(
    file: FileArgument,
    home: Compared = None,
    study: Annotated[
        list[Path] | None,
        typer.Option(help="Repeatable: a study's draft (YAML); says what would become of it.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say in plain words what a policy allows and refuses, and warn of the common mistakes.

    Nothing is changed or sent. With --home, deltas and cohorts are compared
    with the charter, and you learn whether the vault's ledger would take the
    policy, and whose signatures are missing.
    """
    policy, today = load_yaml(file, Policy), _today()
    place = _compared(home, "officer policy check")
    charter = place.charter() if place is not None else None
    warnings = mistakes(policy, charter, today)
    verdicts = [verdict_on(policy, load_draft(path), charter, today) for path in study or ()]
    signatures = read_signatures(file, policy)
    standing = standing_of(_state(place), policy, signatures) if place is not None else None
    lines = explain(policy)
    if as_json:
        print_json(_check_json(policy, lines, warnings, verdicts, standing))
        return
    console = Console()
    for line in [*lines, *(verdict.line() for verdict in verdicts), *(standing.lines() if standing else ())]:
        console.print(f"- {escape(line)}", highlight=False)
    _print_warnings(console, warnings)
    console.print(f"Digest {policy.digest()}", highlight=False)


def _check_json(
    policy: Policy, lines: list[str], warnings: list[str], verdicts: list[Verdict], standing: Standing | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"policy": policy.digest(), "valid": True, "lines": lines, "warnings": warnings}
    found["studies"] = [asdict(verdict) for verdict in verdicts]
    if standing is not None:
        obstacle = standing.obstacle if not standing.in_force else None
        found["standing"] = {
            "in_force": standing.in_force,
            "obstacle": None if obstacle is None else obstacle.as_dict(),
            "needed": standing.needed,
            "signed": standing.signed,
            "may_sign": standing.may_sign,
            "two_must_sign_because": standing.grown,
        }
    return found


def sign(
    file: FileArgument,
    key: Annotated[Path, typer.Option(help="Your officer's key file.", show_default=False)],
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    home: Compared = None,
    before: Annotated[
        Path | None,
        typer.Option(help="The policy in force as a file, where you cannot look into the home.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking once more.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sign a policy with your own key; the signature goes into the file beside it, FILE with the ending .sig.

    Signed is the policy's content, not its comments. Before you sign you are
    shown the warnings and the digest: compare it with the other officers'.
    A changed policy needs new signatures.

    Who may sign a later policy are the officers of the one in force: name the
    home, or that policy's file, if they are not the same.
    """
    policy, today = load_yaml(file, Policy), _today()
    check_unexpired(policy, today)
    signatures = read_signatures(file, policy)
    state = _state_before(home, before)
    officers = policy.officers
    if state is not None:
        check_succession(state, policy)
        officers = eligible(state.policy, policy)
    officer = check_signer(policy, read_public(key), officers, signatures)
    passphrase = read_passphrase(passphrase_file, passphrase_fd)
    opened = load_identity(key, use="officer", passphrase=passphrase)
    if not as_json:
        _show_before_signing(policy, state, mistakes(policy, today=today))
    _confirm(f"Sign version {policy.version} as {officer.id}?", yes)
    signatures = add_signature(policy, opened, signatures)
    path = write_signatures(file, policy, signatures)
    standing = standing_of(state, policy, signatures) if state is not None else None
    if as_json:
        content = {"policy": policy.digest(), "officer": officer.id, "file": str(path), "signatures": len(signatures)}
        print_json(content)
        return
    typer.echo(f"Signed by {officer.id}: {path}, {len(signatures)} in all.")
    for line in standing.lines() if standing is not None else ():
        typer.echo(line)


def _show_before_signing(policy: Policy, state: State | None, warnings: list[str]) -> None:
    console = Console()
    if state is not None and state.policy is not None:
        console.print("What changes against the policy in force:", highlight=False)
        for change in changes(state.policy, policy):
            console.print(escape(_change_line(change)), highlight=False)
    _print_warnings(console, warnings)
    console.print(f"Digest {policy.digest()}", highlight=False)


def activate(
    file: FileArgument,
    home: HomeOption = HERE,
    passphrase_file: VaultFile = None,
    passphrase_fd: VaultFd = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a signed policy into force: into the vault's ledger, and its files into the home.

    The ledger checks the signatures: the first policy needs two of its own
    officers (one, if it names only one); a later one needs an officer of the
    policy in force, and two where the budget grows. A running vault goes by
    it from the next request on.
    """
    place = home_at(home)
    require_for(place, "officer policy activate")
    content = _read(file)
    policy, today = parse_yaml(content, Policy, str(file)), _today()
    check_unexpired(policy, today)
    signatures = read_signatures(file, policy)
    if not signatures:
        raise PolicyError(
            "CSL-C631", f"{file} is not signed by any officer.", "Sign it by `consilience officer policy sign`."
        )
    warnings = mistakes(policy, place.charter(), today)
    keys = unlock(place, passphrase_file, passphrase_fd)
    with Ledger.open(place.ledger_file, keys.identity) as ledger:
        before = ledger.state().policy_digest
        ledger.activate(policy, signatures)
    install_policy(content, file, place.policy_file, policy, signatures)
    if as_json:
        print_json({"policy": policy.digest(), "version": policy.version, "already": before == policy.digest()})
        return
    _print_warnings(Console(), warnings)
    known = "was in force already" if before == policy.digest() else "is in force"
    typer.echo(f"Version {policy.version} {known}. Digest {policy.digest()}")


def diff(
    before: Annotated[Path, typer.Argument(help="The policy before.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="The policy after.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Say in plain words what changes between two policies: + more is allowed, - less, ~ neither.

    Marked by !! is what a second, distinct officer must sign; by XX, what no signature can change.
    """
    found = changes(load_yaml(before, Policy), load_yaml(after, Policy))
    if as_json:
        print_json([asdict(change) for change in found])
        return
    for change in found:
        typer.echo(_change_line(change))
    if not found:
        typer.echo("The two policies say the same.")
    elif any(change.fixed for change in found):
        typer.echo("It can never follow: what is marked by XX is fixed for a ledger's life, whoever signs.")
    elif any(change.budget for change in found):
        typer.echo("Two distinct officers must sign it, for what is marked by !!.")
    else:
        typer.echo("One officer's signature is enough.")


def _change_line(change: Change) -> str:
    return f"{_SIGNS[change.effect]} {change.text}{' XX' if change.fixed else ' !!' if change.budget else ''}"


def show(home: HomeOption = HERE, as_json: JsonOption = False) -> None:
    """Print the policy in force, as the ledger holds it, not as a file says it."""
    place = home_at(home)
    require_for(place, "officer policy show")
    policy = _state(place).policy
    if policy is None:
        raise PolicyError(
            "CSL-C636",
            "No policy is in force in this ledger.",
            "Bring one into force by `consilience officer policy activate`.",
        )
    if as_json:
        print_json({"digest": policy.digest(), "policy": policy.model_dump(mode="json")})
        return
    sys.stdout.write(f"# In force. Digest {policy.digest()}\n{policy_yaml(policy)}")


def _state(place: Home) -> State:
    with open_reader(place) as reader:
        return reader.state()


def _state_before(home: Path | None, before: Path | None) -> State | None:
    """Return what a policy follows: what the home's ledger holds, or what a file of the policy in force says."""
    if home is not None and before is not None:
        raise DocumentError("CSL-C637", "Both --home and --before are given.", "Give one of the two.")
    place = _compared(home, "officer policy sign")
    if place is not None:
        return _state(place)
    if before is None:
        return None
    old = load_yaml(before, Policy)
    return State(member=old.institution, policy=old, policy_digest=old.digest())


def _compared(home: Path | None, command: str) -> Home | None:
    """Return the home that a policy is compared with, if one is given and the person may look into it."""
    if home is None:
        return None
    place = home_at(home)
    require_for(place, command)
    return place


def _today() -> date:
    return datetime.now(UTC).date()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StorageError(
            "CSL-C628", f"{file} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not _somebody_is_there():
        raise nobody_to_ask()
    if not typer.confirm(question):
        raise typer.Abort


def _print_warnings(console: Console, warnings: list[str]) -> None:
    for text in warnings:
        console.print(f"[yellow]Warning: {escape(text)}[/]", highlight=False)
