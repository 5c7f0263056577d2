"""`consilience officer checkpoint | consistency | cosign`: witnessing by file, where the coordinator is not to carry the notes.

What a witness needs is one text: `old`, the proof, and the note, as C2SP tlog-witness defines it. It comes back as the note with one more
signature.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from client.config import load_node
from client.desk import HERE, HomeOption, JsonOption, home_at, print_json
from client.home import Home
from client.roles import require_for
from client.unlock import PassphraseFd, PassphraseFile, unlock
from client.witness import Witness
from federation.charter import Charter
from federation.errors import IntegrityError
from federation.files import atomic_write
from federation.heads import Head, open_head, read_note
from federation.note import Submission, dump_submission, parse_submission
from privacy.ledger import Ledger

COMMAND = "officer witness"
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Write to this file instead of the terminal.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands to `consilience officer`."""
    for command in (checkpoint, consistency, cosign):
        app.command()(command)


def checkpoint(
    home: HomeOption = HERE,
    kept: Annotated[bool, typer.Option("--kept", help="Show the witnessed heads that are kept here instead.")] = False,
    keep: Annotated[
        Path | None,
        typer.Option(help="Take a cosigned note of this ledger back, and keep it.", show_default=False),
    ] = None,
    out: OutOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the ledger's head as a note that a witness can cosign.

    The note says how many entries there are, and their Merkle root: nothing of what stands in them. Whoever keeps it can show later that
    entries were cut off or changed. --kept shows what witnesses signed so far; --keep brings a cosigned note home.
    """
    place = home_at(home)
    require_for(place, COMMAND)
    with _opened(place, passphrase_file, passphrase_fd) as (witness, charter):
        if keep is not None:
            head = witness.keep_own(read_note(keep))
            _show([_row(head, charter)], as_json)
        elif kept:
            own = witness.own()
            heads = [*([own] if own is not None else []), *witness.others()]
            _show([_row(head, charter) for head in heads], as_json)
        elif as_json:
            print_json({"note": witness.prove()[0]})
        else:
            _write(witness.prove()[0], out)


def consistency(
    note: Annotated[
        Path, typer.Argument(help="An older note of this ledger: the last that the witness signed.", show_default=False)
    ],
    home: HomeOption = HERE,
    out: OutOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Prove that today's ledger goes on from an older note, for a witness to cosign.

    Writes the proof and today's signed head as one file. Give it to a witness: `consilience officer cosign` at another institution, or
    any witness that speaks C2SP tlog-witness.
    """
    place = home_at(home)
    require_for(place, COMMAND)
    text = read_note(note)
    with _opened(place, passphrase_file, passphrase_fd) as (witness, _):
        if not witness.compare(text):
            raise IntegrityError(
                "CSL-C538", f"{note} is no head that this ledger signed.", "Give an older note of this very ledger."
            )
        old = witness.size_in(text)
        today, proof = witness.prove(old)
        _write(dump_submission(Submission(old, proof, today)), out)


def cosign(
    file: Annotated[
        Path,
        typer.Argument(help="Another member's note with its proof, or its first note alone.", show_default=False),
    ],
    home: HomeOption = HERE,
    out: OutOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Witness another member's ledger: check that its head continues the last one that was signed here, and sign it.

    The first head of a member is taken as it is; after that every one needs the proof (`consilience officer consistency` there). A head
    that contradicts an earlier one is never signed, and is kept as evidence.
    """
    place = home_at(home)
    require_for(place, COMMAND)
    submission = parse_submission(read_note(file))
    with _opened(place, passphrase_file, passphrase_fd) as (witness, _):
        _write(witness.witness(submission), out)


@contextmanager
def _opened(home: Home, passphrase_file: Path | None, passphrase_fd: int | None) -> Iterator[tuple[Witness, Charter]]:
    keys, charter = unlock(home, passphrase_file, passphrase_fd), home.charter()
    with Ledger.open(home.ledger_file, keys.identity) as ledger:
        witness = Witness(home, ledger, charter, keys.identity, load_node(home.node_file).member)
        witness.check_start()
        yield witness, charter


def _row(head: Head, charter: Charter) -> dict[str, Any]:
    try:
        cosigners = dict(open_head(head.text, charter).cosigners)
    except IntegrityError:  # signed under a key from before a rotation, which the charter no longer names
        cosigners = {}
    return {
        "member": head.member,
        "restorations": head.generation,
        "entries": head.size,
        "root": head.root,
        "witnesses": {name: _day(time) for name, time in sorted(cosigners.items())},
        "note": head.text,
    }


def _day(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} seconds after 1970"


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo("No witnessed head is kept here yet: one comes after every study.")
    for row in rows:
        again = f" after {row['restorations']} restorations" if row["restorations"] else ""
        typer.echo(f"{row['member']}: {row['entries']} entries{again}, root {row['root']}")
        for name, day in row["witnesses"].items():
            typer.echo(f"  witnessed by {name}, {day} UTC")


def _write(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
        return
    atomic_write(out, text.encode())
    typer.echo(f"Written to {out}.", err=True)
