"""`consilience officer verify` and `evidence`: prove what was spent on what, to oneself and to a stranger."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from client.desk import HERE, HomeOption, JsonOption, home_at, print_json
from client.evidence.build import build_evidence
from client.evidence.manifest import Manifest
from client.evidence.screen import Ticker
from client.evidence.verdict import Trust
from client.home import Home, check_unlocked
from client.roles import require_for
from client.unlock import PassphraseFd, PassphraseFile, find_opener
from client.verify_command import HeadOption, KeyOption, read_head, read_key, verify_file
from federation.errors import DocumentError, IntegrityError
from federation.heads import read_note
from privacy.keys import load_identity
from privacy.ledger.verify import member_of

DAY = ["%Y-%m-%d"]


def register(app: typer.Typer) -> None:
    """Add the commands to the group `officer`."""
    app.command("verify")(verify)
    app.command("evidence")(evidence)


def verify(
    target: Annotated[
        Path | None,
        typer.Argument(
            help="A ledger's file, an evidence pack, or a vault's home; the home's ledger unless given.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = HERE,
    key: KeyOption = None,
    head: HeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the ledger from its first entry to its last, with the public key alone.

    Chain, signatures, Merkle tree, time, rules, policies, approvals, and all
    arithmetic, computed anew from the privacy events. Exit code 6 when
    anything is wrong.

    A ledger whose last entries were cut off is consistent in itself: heads
    that others kept show it. The one in the home is compared, and another
    one by --head.
    """
    text, bare = read_head(head)
    if target is not None and not target.is_dir():
        verify_file(target, Trust(key=read_key(key), note=text, head=bare), as_json)
        return
    place = home_at(home if target is None else target)
    require_for(place, "officer verify")
    charter = place.charter()
    own = place.folder("witness") / "own.note"
    if text is None and own.exists():
        text = read_note(own)
    trust = Trust(key=read_key(key) or charter.member(_member(place)).key, charter=charter, note=text, head=bare)
    verify_file(place.ledger_file, trust, as_json)


def evidence(
    out: Annotated[Path, typer.Option("--out", help="Where the pack goes, a .zip.", show_default=False)],
    since: Annotated[
        datetime | None,
        typer.Option("--from", formats=DAY, help="The first day (UTC).", show_default="the ledger's first"),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", formats=DAY, help="The last day (UTC).", show_default="the ledger's last")
    ] = None,
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Write one signed file from which a stranger can check what was spent on what, and why it was allowed.

    It holds the ledger's entries of these days with their proofs, policies,
    studies, approvals, models' cards, the charter, a report for people, and
    VERIFY.md. The same ledger and the same days give the same bytes.

    No customer's data and no name list go in. Officers' reasons, and the
    names under which people acted, stand in it word for word.
    """
    place = home_at(home)
    require_for(place, "officer evidence")
    check_unlocked(place)
    first, last = (None if day is None else day.date() for day in (since, until))
    if first is not None and last is not None and first > last:
        raise DocumentError(
            "CSL-C686", f"The range ends on {last}, before it begins on {first}.", "Correct --from and --to."
        )
    opener = find_opener(place, passphrase_file, passphrase_fd)
    identity = load_identity(place.identity_key, passphrase=opener.passphrase, allow_plain=opener.allow_plain)
    with Ticker(quiet=as_json) as ticker:
        manifest = build_evidence(place, identity, out, since=first, until=last, step=ticker.step)
    if as_json:
        print_json(_summary(out, manifest))
        return
    span = (
        "the whole ledger"
        if manifest.whole
        else f"entries {manifest.first} to {manifest.end - 1} of {manifest.head.size}"
    )
    typer.echo(f"Written: {out} ({out.stat().st_size:,} bytes), {span}, {len(manifest.files)} files.")
    typer.echo(f"Tree head {manifest.head.size}:{manifest.head.root}")
    typer.echo(
        "It holds officers' reasons and the names of people who acted, no customer's data. Check it: consilience verify "
        + str(out)
    )


def _summary(out: Path, manifest: Manifest) -> dict[str, object]:
    return {
        "pack": str(out),
        "bytes": out.stat().st_size,
        "first": manifest.first,
        "end": manifest.end,
        "size": manifest.head.size,
        "root": manifest.head.root,
        "key": manifest.keys[-1].key,
        "files": len(manifest.files),
    }


def _member(home: Home) -> str:
    member = member_of(home.ledger_file)
    if member is None:
        raise IntegrityError(
            "CSL-C603",
            f"{home.ledger_file} does not say whose ledger it is.",
            "Restore the ledger from its last backup.",
        )
    return member
