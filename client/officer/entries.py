"""`consilience officer ledger`: every entry in words, with what left the house and why."""

import json
import shutil
import sys
import textwrap
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any

import typer

from client.desk import HERE, HomeOption, home_at, open_reader
from client.officer.study_view import printable
from client.roles import require_for
from client.words import moment_of, short_digests
from federation.errors import DocumentError
from privacy.ledger import Entry, LedgerReader, Reservation
from privacy.ledger.entries import (
    Access,
    Approve,
    ApproveData,
    Body,
    Close,
    Consent,
    Genesis,
    Kind,
    PolicyEntry,
    Refuse,
    RefuseData,
    Release,
    Reserve,
    Restore,
    Rotate,
    Withdraw,
    Witnessed,
)

_STUDY_WIDTH = 18
_NARROWEST = 30
_COLOURS = {
    "reserve": typer.colors.BLUE,
    "release": typer.colors.MAGENTA,
    "refuse": typer.colors.RED,
    "approve": typer.colors.GREEN,
    "policy": typer.colors.CYAN,
}
_DONE = {"view": "looked at", "export": "exported", "erase": "deleted"}


def register(app: typer.Typer) -> None:
    """Add the command to `consilience officer`."""
    app.command()(ledger)


def ledger(
    home: HomeOption = HERE,
    since: Annotated[
        str | None, typer.Option("--from", help="From this day on, such as 2026-03-01 (UTC).", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Until this day, the day included (UTC).", show_default=False)
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Only this study: its name, or the beginning of its digest.", show_default=False),
    ] = None,
    purpose: Annotated[str | None, typer.Option(help="Only studies for this purpose.", show_default=False)] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only one kind of entry.", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most the first N that fit.", show_default=False)] = None,
    tail: Annotated[int | None, typer.Option(min=1, help="Only the last N that fit.", show_default=False)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines for a machine: one object for each entry.")
    ] = False,
) -> None:
    """List what the vault decided: what left the house and why, what was approved and refused.

    Entries are read one after another, each with its signature checked, so
    that a long ledger needs no memory. Whether the ledger is whole is another
    question: `consilience officer verify` answers it.
    """
    place = home_at(home)
    require_for(place, "officer ledger")
    first, last = _day("--from", since), _day("--to", until)
    if limit is not None and tail is not None:
        raise DocumentError("CSL-C664", "Both --limit and --tail are given.", "Give one of them.")
    with open_reader(place) as reader:
        known = Known(reader)
        rows = _chosen(reader, known, (first, last), study, purpose, kind, tail)
        shown = 0
        for entry in rows if tail is None else deque(rows, maxlen=tail):
            if shown == limit:
                break
            _print(entry, known, as_json, shown == 0)
            shown += 1
    if not shown and not as_json:
        typer.echo("No entry of the ledger fits.")


def _day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise DocumentError(
            "CSL-C665", f'{option} is a day such as 2026-03-01, not "{printable(text)}".', "Correct the date."
        ) from error


class Known:
    """What an entry refers to and does not say itself: its study's reservation and decisions, the policies' versions."""

    def __init__(self, reader: LedgerReader) -> None:
        self._versions: dict[str, int] = {}
        self._officers: dict[str, str] = {}
        for entry in reader.entries(kinds=("policy",)):
            if isinstance(entry.body, PolicyEntry):
                policy = entry.body.data.policy
                self._versions[entry.body.data.sha256] = policy.version
                self._officers |= {officer.key: officer.id for officer in policy.officers}
        self.reservation: Callable[[str], Reservation | None] = lru_cache(maxsize=1024)(reader.reservation)
        self.decisions: Callable[[str], tuple[ApproveData, ...]] = lru_cache(maxsize=1024)(reader.decisions)

    def policy(self, digest: str) -> str:
        """Name a policy by its version, or by its digest where it never came into force here."""
        version = self._versions.get(digest)
        return f"policy {digest[:12]}…" if version is None else f"policy version {version}"

    def officer(self, key: str) -> str:
        """Name an officer by the name that a policy gives her key."""
        return self._officers.get(key, f"{key[:12]}…")

    def why(self, rid: str, policy: str) -> str:
        """Say on whose word a study was let through."""
        counted = [item for item in self.decisions(rid) if item.statement.policy == policy]
        names = [self.officer(item.signature.key) for item in counted if item.statement.decision == "approve"]
        by = f"approved by {' and '.join(names)}" if names else "within its automatic limits"
        return f"{self.policy(policy)}, {by}"

    def study(self, body: Body) -> str | None:
        """Name the study of an entry, or None."""
        if body.rid is None:
            return body.data.study if isinstance(body, Refuse) and isinstance(body.data, RefuseData) else None
        held = self.reservation(body.rid)
        if held is not None:
            return held.data.study
        decisions = self.decisions(body.rid)
        return decisions[0].name if decisions else None

    def purpose(self, body: Body) -> str | None:
        """Return the purpose of an entry's study, or None."""
        held = self.reservation(body.rid) if body.rid is not None else None
        return held.data.purpose if held is not None else None


def _chosen(
    reader: LedgerReader,
    known: Known,
    days: tuple[date | None, date | None],
    study: str | None,
    purpose: str | None,
    kind: str | None,
    tail: int | None,
) -> Iterator[Entry]:
    """Yield the entries that fit; the first is found by bisection, since time never goes back in a ledger."""
    size = reader.tree_head().size
    start = 0 if days[0] is None else _first_at(reader, size, _milliseconds(days[0]))
    end = None if days[1] is None else _milliseconds(days[1] + timedelta(days=1))
    if tail is not None and study is None and purpose is None and kind is None and end is None:
        start = max(start, size - tail)
    for entry in reader.entries(start, None if kind is None else (kind,)):
        if end is not None and entry.body.ts >= end:
            return
        if _fits(entry.body, known, study, purpose):
            yield entry


def _milliseconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _first_at(reader: LedgerReader, size: int, ts: int) -> int:
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reader.entry(middle).body.ts >= ts else (middle + 1, high)
    return low


def _fits(body: Body, known: Known, study: str | None, purpose: str | None) -> bool:
    if purpose is not None and known.purpose(body) != purpose:
        return False
    by_digest = body.rid is not None and study is not None and body.rid.startswith(study)
    return study is None or by_digest or known.study(body) == study


def entry_row(entry: Entry, known: Known) -> dict[str, Any]:
    """Return an entry as a mapping: number, time, kind, study, what it says in words, and its data as they stand."""
    body = entry.body
    return {
        "seq": body.seq,
        "time": moment_of(body.ts),
        "kind": body.kind,
        "study": known.study(body),
        "rid": body.rid,
        "purpose": known.purpose(body),
        "text": in_words(body, known),
        "data": body.data.model_dump(mode="json"),
        "leaf": entry.leaf.hex(),
    }


def _print(entry: Entry, known: Known, as_json: bool, first: bool) -> None:
    row = entry_row(entry, known)
    if as_json:
        sys.stdout.write(json.dumps(row, separators=(",", ":")) + "\n")
        return
    if first:
        typer.secho(f"{'no.':>7}  {'time (UTC)':<19}  {'kind':<8}  {'study':<{_STUDY_WIDTH}}  what", bold=True)
    name = textwrap.shorten(printable(row["study"] or ""), _STUDY_WIDTH, placeholder="…")
    margin = 7 + 19 + 8 + _STUDY_WIDTH + 4 * 2
    width = max(shutil.get_terminal_size().columns - margin, _NARROWEST)
    lines = textwrap.wrap(printable(row["text"]), width) or [""]
    kind = typer.style(f"{row['kind']:<8}", fg=_COLOURS.get(row["kind"]))
    typer.echo(f"{row['seq']:>7}  {row['time']}  {kind}  {name:<{_STUDY_WIDTH}}  {lines[0]}")
    for line in lines[1:]:
        typer.echo(" " * margin + line)


def in_words(body: Body, known: Known) -> str:
    """Say what an entry means."""
    return _WORDS[type(body)](body, known)


def _genesis(body: Genesis, known: Known) -> str:
    return f"The ledger of {body.data.member} begins, under the key {body.data.key[:12]}…."


def _policy(body: PolicyEntry, known: Known) -> str:
    data = body.data
    names = " and ".join(known.officer(item.key) for item in data.signatures)
    period, life = data.limits.period, data.limits.life
    plan = f"; a plan of {len(data.policy.budget.slots)} slots is charged" if data.plan else ""
    return (
        f"Policy version {data.policy.version} comes into force ({data.sha256[:12]}…), signed by {names}: epsilon "
        f"{period.epsilon:g} within {data.limits.period_days} days, {life.epsilon:g} for life{plan}."
    )


def _approve(body: Approve, known: Known) -> str:
    said = body.data.statement
    done = "approves" if said.decision == "approve" else "declines"
    return f"{known.officer(body.data.signature.key)} {done} it under {known.policy(said.policy)}: {said.reason}"


def _reserve(body: Reserve, known: Known) -> str:
    data = body.data
    releases = ", ".join(f"{charge.releases} on {charge.account}" for charge in data.charges)
    slot = f" in slot {data.slot} of the plan" if data.slot is not None else ""
    kind = ", statistics over all customers who agreed," if data.work == "statistics" else ""
    broken = ""
    if data.if_broken is not None:
        figures = ", ".join(f"{claim.epsilon:.3f} on {claim.account}" for claim in data.if_broken)
        broken = f"; added up in secret: should the protocol fail, its own noise alone holds epsilon {figures}"
    return (
        f"Granted{kind} for {data.purpose} on {data.contract}{slot}: epsilon {data.epsilon:g}, delta {data.delta:g}{broken}; may leave: "
        f"{releases}. Why: {known.why(body.rid, data.policy)}."
    )


def _consent(body: Consent, known: Known) -> str:
    data = body.data
    return f"Data are read under the consent {data.consent} for {data.purpose}; salted digest {data.salted[:12]}…."


def _release(body: Release, known: Known) -> str:
    data, held = body.data, known.reservation(body.rid)
    why = "" if held is None else f" for {held.data.purpose}, {known.why(body.rid, held.data.policy)}"
    return (
        f"Left the house: {short_digests(data.what)} ({data.bytes:,} bytes, {data.sha256[:12]}…), paid by the {data.account} "
        f"account{why}."
    )


def _close(body: Close, known: Known) -> str:
    back = ", ".join(body.data.returned)
    returned = f" Nothing had left on {back}: its charge is given back." if back else ""
    return f"Closed: {body.data.reason}.{returned}"


def _refuse(body: Refuse, known: Known) -> str:
    data = body.data
    if isinstance(data, RefuseData):
        return f"Refused, {data.code}: {data.why}"
    codes = [f"{item.times:,} times {item.code}" for item in data.codes]
    codes += [f"{data.others:,} times others"] if data.others else []
    since, until = moment_of(data.first), moment_of(data.last)
    return f"Refused {data.count:,} more between {since} and {until}, too many to be written one by one: {', '.join(codes)}."


def _rotate(body: Rotate, known: Known) -> str:
    said = body.data.statement
    return f"The institution's key changes from {said.old[:12]}… to {said.new[:12]}…: {body.data.reason}"


def _restore(body: Restore, known: Known) -> str:
    data = body.data
    names = " and ".join(known.officer(item.key) for item in data.signatures)
    rest = "Nothing remains to spend." if data.exhausts else "Nothing is missing, by their word and the witnesses'."
    return f"The ledger goes on from a copy of {data.statement.size} entries, signed by {names}: {data.statement.reason} {rest}"


def _access(body: Access, known: Known) -> str:
    data = body.data
    counted = "files" if data.action == "erase" else "customers"
    return f"{data.actor} ({data.role}) {_DONE[data.action]} {short_digests(data.what)}: {data.count:,} {counted}."


def _withdraw(body: Withdraw, known: Known) -> str:
    data = body.data
    return (
        f"{data.count:,} customers withdrew their consent (salted digest {data.salted[:12]}…), entered by {data.actor}: "
        f"{data.reason}"
    )


def _witness(body: Witnessed, known: Known) -> str:
    return f"The head of {body.data.size} entries was countersigned by {', '.join(body.data.witnesses)}."


_WORDS: dict[type[Any], Callable[[Any, Known], str]] = {
    Genesis: _genesis,
    PolicyEntry: _policy,
    Approve: _approve,
    Reserve: _reserve,
    Consent: _consent,
    Release: _release,
    Close: _close,
    Refuse: _refuse,
    Rotate: _rotate,
    Restore: _restore,
    Access: _access,
    Withdraw: _withdraw,
    Witnessed: _witness,
}
