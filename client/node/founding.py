"""`consilience node card` and `node charter`: how an institution joins a federation, by files that hold public parts alone."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from client.desk import HERE, HomeOption, JsonOption, home_at, nobody_to_ask, print_json
from client.founding import (
    Membership,
    Own,
    card_of,
    check_confirmed,
    check_declared,
    check_follows,
    check_own_row,
    contract_lines,
    own_of,
    pinned_charter,
)
from client.home import PRIVATE, Home, check_unlocked, install_charter
from client.node_key import ensure_node_key
from client.officer.study_view import printable
from client.roles import require_for
from client.unlock import PassphraseFd, PassphraseFile, find_opener
from federation.charter import Charter
from federation.charter_text import describe, node_fingerprint, render
from federation.document import Document, load_yaml
from federation.errors import DocumentError, StorageError
from federation.files import atomic_write
from federation.founding import (
    MAX_PAPER_BYTES,
    CharterFile,
    as_file,
    check_file,
    parse_paper,
    read_paper,
    sealed,
    sign_card,
    sign_charter,
)
from privacy.keys import load_identity

PIPE = "-"
_TRIES = 3
FileArgument = Annotated[
    Path, typer.Argument(help="The charter's file, as the coordinator sent it; - reads a pipe.", show_default=False)
]
charter_app = typer.Typer(
    no_args_is_help=True,
    help="The charter: who is in the federation, under which keys. `show` it, `sign` the draft, `accept` what all have signed.",
)


def register(app: typer.Typer) -> None:
    """Add the commands to `consilience node`."""
    app.command("card")(card)
    charter_app.command("show")(show)
    charter_app.command("sign")(sign)
    charter_app.command("accept")(accept)
    app.add_typer(charter_app, name="charter")


def card(
    out: Annotated[Path, typer.Option(help="The file to write; - for a pipe.", show_default=False)],
    home: HomeOption = HERE,
    federation: Annotated[
        str | None,
        typer.Option(help="The federation's name; that of the pinned charter unless given.", show_default=False),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Title and declarations, YAML; kept in the home as membership.yaml, which is read unless given.",
            show_default=False,
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Write this institution's card: its name, its public keys and what it declares, signed. Send it to the coordinator.

    For operators and officers. Everything on it is public: declared sizes are
    figures that you state, never counted from your tables. Make a new card
    when something on it changes, as after `officer rotate --prepare`: the
    card then names the next key. A node key that was lost or became known is
    made anew here once the old file was moved away.
    """
    place = home_at(home)
    require_for(place, "node card")
    check_unlocked(place)
    _check_out(out)
    membership = load_yaml(source or place.membership_file, Membership)
    made = ensure_node_key(place)
    own = own_of(place)
    unsigned = card_of(place, own, federation, membership)
    opener = find_opener(place, passphrase_file, passphrase_fd)
    key_file = own.key_file(place, unsigned.member.key)
    key = load_identity(key_file, passphrase=opener.passphrase, allow_plain=opener.allow_plain)
    if source is not None and not (place.membership_file.exists() and place.membership_file.samefile(source)):
        atomic_write(place.membership_file, source.read_bytes(), PRIVATE)
    _write(out, sign_card(key, unsigned))
    shown = {
        "member": own.member,
        "federation": unsigned.federation,
        "key": unsigned.member.key,
        "node_key": node_fingerprint(own.node_key),
        "file": str(out),
    }
    if as_json:
        _print(out, shown)
        return
    _say(f"The card of {own.member} for {unsigned.federation}: {unsigned.member.title}", out)
    _say(f"  identity key  {unsigned.member.key}{_upcoming(own, unsigned.member.key)}", out)
    _say(f"  node key      {shown['node_key']}{' (made now)' if made else ''}", out)
    _say("Send it to the coordinator, and read the identity key to them over the telephone.", out)


def show(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The charter's file; - reads a pipe. The charter that is pinned here unless given.", show_default=False
        ),
    ] = None,
    home: HomeOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show a charter: its members, keys and contracts, who has signed, what it changes, and its 24 words.

    For everybody with a role. Read the words to the other members over the
    telephone: who hears the same words holds the same charter.
    """
    place = home_at(home)
    require_for(place, "node charter show")
    pinned = pinned_charter(place)
    if file is None:
        paper = _pinned_file(place)
    else:
        paper = _read(file)
        check_file(paper)
    shown = _described(paper, pinned)
    if as_json:
        print_json(shown)
        return
    typer.echo(_text(paper, shown, pinned))


def sign(
    file: FileArgument,
    out: Annotated[Path, typer.Option(help="The signature to write; - for a pipe.", show_default=False)],
    home: HomeOption = HERE,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without being asked.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a draft of the charter by the institution's identity key. Send the signature to the coordinator.

    For officers: the members whom it names are those whose sums hide your
    customers among theirs. Checked before: that your own row holds your own
    keys and what membership.yaml declares, and that the draft follows the
    charter that is pinned here. Nothing takes effect until all have signed
    and you accept.
    """
    place = home_at(home)
    require_for(place, "node charter sign")
    check_unlocked(place)
    _check_out(out)
    paper, own, pinned = _read(file), own_of(place), pinned_charter(place)
    check_file(paper)
    charter = paper.charter
    check_follows(pinned, charter)
    row = check_own_row(charter, own, pinned)
    check_declared(row, place)
    shown = _described(paper, pinned)
    if not as_json:
        typer.echo(_text(paper, shown, pinned), err=True)
    _agree(f"Sign it as {own.member}?", yes, file)
    opener = find_opener(place, passphrase_file, passphrase_fd)
    key_file = own.key_file(place, row.key)
    key = load_identity(key_file, passphrase=opener.passphrase, allow_plain=opener.allow_plain)
    _write(out, sign_charter(key, charter, own.member))
    if as_json:
        _print(out, {"member": own.member, "charter": charter.digest(), "version": charter.version, "file": str(out)})
        return
    _say(f"Signed version {charter.version} as {own.member}. Send the signature to the coordinator.", out)


def accept(
    file: FileArgument,
    home: HomeOption = HERE,
    words: Annotated[
        str | None,
        typer.Option(help="The 24 words, as another party read them to you.", show_default=False),
    ] = None,
    digest: Annotated[
        str | None, typer.Option(help="Instead of the words: the digest, 64 hexadecimal digits.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pin a charter that all parties have signed: from the node's next start on, the vault goes by it.

    For operators and officers. It takes the words from another party, over
    another way than the file: without --words or --digest they are asked for.
    Writes charter.json, charter.digest and contracts/; a crash leaves the old
    charter or the new one, and the same command again finishes.
    """
    place = home_at(home)
    require_for(place, "node charter accept")
    check_unlocked(place)
    paper, own, pinned = _read(file), own_of(place), pinned_charter(place)
    check_file(paper)
    sealed(paper)
    charter = paper.charter
    check_follows(pinned, charter)
    row = check_own_row(charter, own, pinned)
    if words is not None and digest is not None:
        raise DocumentError("CSL-C464", "Both --words and --digest are given.", "Give one of them.")
    given = words if words is not None else digest
    if given is not None:
        check_confirmed(charter, given)
    else:
        typer.echo(_text(paper, _described(paper, pinned), pinned, digest=False), err=True)
        _ask_words(charter, file)
    install_charter(place, paper)
    if as_json:
        print_json({"charter": charter.digest(), "version": charter.version, "member": own.member})
        return
    typer.echo(f"Pinned version {charter.version} of {charter.federation}. {len(paper.contracts)} contracts installed.")
    if row.key == own.upcoming:
        typer.echo("It names your next identity key: run `consilience officer rotate --reason TEXT` now.")
    typer.echo("Next: `consilience node check`, and restart the node: it goes by this charter from then on.")


def _pinned_file(place: Home) -> CharterFile:
    """Return the pinned charter as a file, with the contracts that this institution takes part in."""
    whole, member = place.sealed_charter(), own_of(place).member
    names = [item.contract for item in whole.charter.member(member).declares]
    return as_file(whole, [place.contract(whole.charter, name) for name in names])


def _read(file: Path) -> CharterFile:
    if str(file) == PIPE:
        return parse_paper(sys.stdin.buffer.read(MAX_PAPER_BYTES + 1), CharterFile, "The pipe")
    return read_paper(file, CharterFile)


def _described(paper: CharterFile, pinned: Charter | None) -> dict[str, Any]:
    return describe(paper, pinned) | {"pinned": None if pinned is None else pinned.digest()}


def _text(paper: CharterFile, shown: dict[str, Any], pinned: Charter | None, *, digest: bool = True) -> str:
    """Return a charter as text: its contracts by their titles, where it stands, and last the words."""
    if pinned is None:
        stand = "No charter is pinned here: this would be the first."
    elif pinned == paper.charter:
        stand = "This is the charter that is pinned here."
    else:
        stand = f"Version {pinned.version} is pinned here."
    contracts = "\n".join(f"  {printable(line)}" for line in contract_lines(paper))
    return f"{stand}\n\nWhat studies may ask for\n{contracts}\n\n{render(shown, digest=digest)}"


def _agree(question: str, yes: bool, file: Path) -> None:
    if yes:
        return
    if str(file) == PIPE or not sys.stdin.isatty():
        raise nobody_to_ask()
    if not typer.confirm(question, err=True):
        raise typer.Abort


def _ask_words(charter: Charter, file: Path) -> None:
    """Ask for the words that another party reads out; what is no digest at all is asked for again."""
    if str(file) == PIPE or not sys.stdin.isatty():
        raise DocumentError(
            "CSL-C465",
            "Nobody can be asked here for the charter's words.",
            "Give --words or --digest, as another party read them to you.",
        )
    typer.echo("\nLet another party read you the words of its charter (`charter show`), over the telephone.", err=True)
    for left in reversed(range(_TRIES)):
        try:
            check_confirmed(charter, typer.prompt("The 24 words", err=True))
            return
        except DocumentError as error:
            if not left:
                raise
            typer.echo(f"{error.cause} {error.action}", err=True)


def _upcoming(own: Own, key: str) -> str:
    return "" if key == own.identity else "  (the next one, which was prepared)"


def _check_out(out: Path) -> None:
    if str(out) == PIPE:
        return
    if not out.parent.is_dir():
        raise StorageError("CSL-C466", f"{out.parent} is no folder.", "Make it first, or name another path.")
    if out.exists() or out.is_symlink():
        raise StorageError("CSL-C466", f"{out} exists.", "Choose another path, or move the file away.")


def _write(out: Path, paper: Document) -> None:
    """Write a paper with a line's end: public parts alone, readable by everybody."""
    content = paper.canonical() + b"\n"
    if str(out) == PIPE:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        atomic_write(out, content)


def _say(text: str, out: Path) -> None:
    """Print a line; beside a paper that goes down the pipe, on the other stream."""
    typer.echo(text, err=str(out) == PIPE)


def _print(out: Path, value: dict[str, Any]) -> None:
    if str(out) != PIPE:
        print_json(value)
