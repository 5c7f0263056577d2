"""`consilience officer`: read and check the policy, see what was spent on what, and verify the ledger."""

import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.home import Home
from federation.document import load_yaml
from federation.errors import DocumentError, ExitCode, IntegrityError
from privacy import accounting
from privacy.explanation import explain
from privacy.keys import read_public
from privacy.ledger import LedgerReader, Spending, TreeHead, Verification, verify
from privacy.ledger.entries import Body, Close, Entry, Genesis, PolicyEntry, Refuse, Release, Reserve
from privacy.ledger.state import check_policy as check_next
from privacy.policy import Policy

app = typer.Typer(no_args_is_help=True, help="For compliance officers: the policy, the budget, and the proof of both.")
policy_app = typer.Typer(no_args_is_help=True, help="The policy: what the institution's vault may do.")
app.add_typer(policy_app, name="policy")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a machine instead of tables.")]
HomeArgument = Annotated[Path, typer.Argument(help="The vault's home folder.", show_default=False)]
_HEAD = re.compile(r"(\d{1,15}):([0-9a-f]{64})")
_HEX_KEY = re.compile(r"[0-9a-f]{64}")


@policy_app.command("check")
def check_policy(
    file: Annotated[Path, typer.Argument(help="The policy, a YAML file.", show_default=False)],
    home: Annotated[
        Path | None, typer.Option(help="A vault's home folder: compares with its charter and its ledger, too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say in plain words what a policy allows, and warn of common mistakes.

    Nothing is changed or sent. With --home, delta and cohort are compared
    with what the charter declares, and you learn whether the vault's ledger
    would take the policy.
    """
    policy = load_yaml(file, Policy)
    lines = explain(policy, Home(home).charter() if home is not None else None)
    if not policy.issued <= datetime.now(UTC).date() < policy.expires:
        lines.append("Warning: by today's date the policy is not in force: every study would be refused.")
    if home is not None and Home(home).ledger_file.exists():
        with _ledger(Home(home)) as opened:
            state = opened.state()
        if state.policy == policy.digest():
            lines.append("This policy is in force in the vault's ledger.")
        else:
            check_next(state, policy)
            lines.append("The vault's ledger would take this policy.")
    if as_json:
        _print_json({"policy": policy.digest(), "valid": True, "lines": lines})
        return
    console = Console()
    for line in lines:
        console.print(
            f"[yellow]{escape(line)}[/]" if line.startswith("Warning: ") else f"- {escape(line)}", highlight=False
        )
    console.print(f"Digest {policy.digest()}", highlight=False)


@app.command()
def budget(home: HomeArgument, as_json: JsonOption = False) -> None:
    """Show what was spent of the privacy budget, what is reserved, and what is left.

    Two accounts, training and hold-out: no customer is in both, so each has the whole budget.
    Reserved is what open studies hold; it counts as used until they are closed.
    Left is the largest epsilon that one more study could have.

    These figures decide. The last column is information only:
    the tight figure for what is used, had all of it been planned beforehand.
    """
    with _ledger(Home(home)) as opened:
        rows = [_budget_row(opened, item) for item in opened.spending(time.time_ns() // 1_000_000)]
    if as_json:
        _print_json(rows)
        return
    if not rows:
        typer.echo("No policy is in force in this ledger yet, so nothing can be spent.")
        return
    table = Table(title="Privacy budget: epsilon at the policy's delta", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("account", "budget"):
        table.add_column(column, no_wrap=True)
    for column in ("delta", "allowed", "spent", "reserved", "left", "tight*"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        tight = "" if row["tight_epsilon"] is None else f"{row['tight_epsilon']:.3f}"
        figures = [f"{row[name + '_epsilon']:.3f}" for name in ("allowed", "spent", "reserved", "left")]
        table.add_row(row["account"], row["budget"], f"{row['delta']:.1e}", *figures, tight)
    console = Console()
    console.print(table)
    console.print(
        "Epsilons do not add up like money. Left: the largest that one more study could have.\n"
        "* For information: the privacy loss distribution's figure for all that was spent. What is enforced is a little "
        "above it, because it must hold whatever studies come later.",
        highlight=False,
    )


def _budget_row(opened: LedgerReader, item: Spending) -> dict[str, Any]:
    tight = accounting.epsilon(opened.events(item.account), item.delta) if item.budget == "life" else None
    return {
        "account": item.account,
        "budget": item.budget,
        "delta": item.delta,
        "allowed_epsilon": item.epsilon,
        "spent_epsilon": item.epsilon_of(item.spent),
        "reserved_epsilon": item.epsilon_of(item.reserved),
        "used_epsilon": item.epsilon_of(item.used),
        "left_epsilon": item.left_epsilon,
        "used_share": item.used.mu_squared_nano / max(item.capacity.mu_squared_nano, 1),
        "tight_epsilon": tight,
    }


@app.command()
def ledger(
    home: HomeArgument,
    study: Annotated[
        str | None, typer.Option(help="Only this study: its name, or the beginning of its digest.")
    ] = None,
    kind: Annotated[
        Literal["genesis", "policy", "reserve", "release", "close", "refuse"] | None,
        typer.Option(help="Only one kind of entry."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what the vault decided: what left the house and why, what was reserved, closed and refused."""
    with _ledger(Home(home)) as opened:
        chosen = [_entry_row(entry, name) for entry, name in _named(opened) if _fits(entry.body, name, study, kind)]
    if as_json:
        _print_json(chosen)
        return
    if not chosen:
        typer.echo("No entry of the ledger is of this study and kind.")
        return
    table = Table(title="Ledger (times in UTC)", title_justify="left")
    for column in ("no.", "time", "kind", "study", "what"):
        table.add_column(column, overflow="fold")
    for row in chosen:
        table.add_row(
            str(row["seq"]),
            str(row["time"]),
            str(row["kind"]),
            escape(str(row["study"] or "")),
            escape(str(row["text"])),
        )
    Console().print(table)


def _named(opened: LedgerReader) -> Iterator[tuple[Entry, str | None]]:
    """Yield every entry with the name of its study: releases and closes carry only the study's digest."""
    names: dict[str, str] = {}
    for entry in opened.entries():
        body = entry.body
        if isinstance(body, Reserve):
            names[body.rid] = body.data.study
        own = body.data.study if isinstance(body, Refuse) else None
        yield entry, own if body.rid is None else names.get(body.rid)


def _fits(body: Body, name: str | None, study: str | None, kind: str | None) -> bool:
    by_study = study is None or name == study or (body.rid is not None and body.rid.startswith(study))
    return by_study and (kind is None or body.kind == kind)


def _entry_row(entry: Entry, name: str | None) -> dict[str, Any]:
    body = entry.body
    return {
        "seq": body.seq,
        "time": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(body.ts / 1000)),
        "kind": body.kind,
        "study": name,
        "rid": body.rid,
        "text": _in_words(body),
        "data": body.data.model_dump(mode="json"),
        "leaf": entry.leaf.hex(),
    }


def _in_words(body: Body) -> str:
    if isinstance(body, Genesis):
        return f"The ledger of {body.data.member} begins."
    if isinstance(body, PolicyEntry):
        return f"Policy version {body.data.policy.version} comes into force ({body.data.sha256[:12]})."
    if isinstance(body, Reserve):
        plan = ", ".join(f"{charge.releases} on {charge.account}" for charge in body.data.charges)
        terms = f"epsilon {body.data.epsilon:g}, delta {body.data.delta:g}"
        return f"Reserved for {body.data.purpose}: {terms}; releases: {plan}."
    if isinstance(body, Release):
        return f"{body.data.what} left ({body.data.bytes} bytes, {body.data.sha256[:12]}), paid by {body.data.account}."
    if isinstance(body, Close):
        back = f"; nothing had left on {', '.join(body.data.returned)}, which is returned" if body.data.returned else ""
        return f"Closed: {body.data.reason}{back}."
    return f"Refused, {body.data.code}: {body.data.why}"


@app.command("verify")
def verify_ledger(
    target: Annotated[Path, typer.Argument(help="A vault's home folder, or a ledger's file.", show_default=False)],
    key: Annotated[
        str | None,
        typer.Option(
            help="The institution's public key (64 hexadecimal digits) or its key file; needed for a bare file."
        ),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="A tree head that somebody kept, SIZE:ROOT: shows whether the end was cut off.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a ledger from its first entry to its last, with the public key alone.

    Chain, signatures, Merkle tree, time, rules, and all arithmetic, computed
    anew from the privacy events. Exit code 6 when anything is wrong.

    A ledger whose last entries were cut off is consistent in itself:
    keep a tree head elsewhere and give it by --head.
    """
    path = Home(target).ledger_file if target.is_dir() else target
    public_key = _public_key(target, key)
    result = verify(path, public_key, _tree_head(head))
    if result.unsigned:
        raise IntegrityError(
            "CSL-C603",
            f"No entry of {path} is signed by the key {public_key[:16]}….",
            "Give the key of the ledger's institution by --key.",
        )
    if as_json:
        _print_json(_verification(result))
    else:
        _print_verification(path, result)
    if not result.valid:
        raise typer.Exit(int(ExitCode.INTEGRITY))


def _verification(result: Verification) -> dict[str, Any]:
    findings = [{"code": item.code, "seq": item.seq, "what": item.what} for item in result.findings]
    return {
        "valid": result.valid,
        "member": result.state.member,
        "size": result.head.size,
        "root": result.head.root,
        "policy": result.state.policy,
        "findings": findings,
    }


def _print_verification(path: Path, result: Verification) -> None:
    if result.valid:
        typer.echo(f"Valid: {path}, {result.head.size} entries of {result.state.member}.")
    else:
        typer.echo(f"NOT valid: {path}")
        for item in result.findings:
            where = "file" if item.seq is None else f"entry {item.seq}"
            typer.echo(f"  {item.code}  {where}: {item.what}")
        typer.echo("Keep the file as evidence, stop the vault, and restore the ledger from its last backup.")
    typer.echo(f"Tree head {result.head.size}:{result.head.root}")


def _tree_head(text: str | None) -> TreeHead | None:
    if text is None:
        return None
    match = _HEAD.fullmatch(text)
    if match is None:
        raise DocumentError(
            "CSL-C601", "A tree head is SIZE:ROOT, the root 64 hexadecimal digits.", "Copy it as verify prints it."
        )
    return TreeHead(int(match[1]), match[2])


def _ledger(home: Home) -> LedgerReader:
    return LedgerReader.read(home.ledger_file, _public_key(home.root, None))


def _public_key(target: Path, key: str | None) -> str:
    """Find the public key to verify with: the one given, or the one that the home's charter names."""
    if key is not None:
        return key if _HEX_KEY.fullmatch(key) else read_public(Path(key))
    if not target.is_dir():
        raise DocumentError(
            "CSL-C602",
            "A bare ledger file needs its institution's public key.",
            "Give --key; the charter names every member's.",
        )
    home = Home(target)
    member = load_yaml(home.policy_file, Policy).institution
    return home.charter().member(member).key


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
