"""Verdicts on a screen or as JSON, and a line that shows how far a long reading has come."""

import time
from types import TracebackType
from typing import Any, Self

import typer
from rich.console import Console
from rich.status import Status

from client.evidence.verdict import Verdict
from client.words import moment_of
from privacy.ledger import Finding, Verification

EVERY = 250
PATIENCE = 1.0


class Ticker:
    """Shows what is being done, once it takes longer than a second; nothing where nobody watches."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._shown = self._console.is_terminal and not quiet
        self._status: Status | None = None
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def step(self, what: str, count: int) -> None:
        """Show a number of entries."""
        if not self._shown or count % EVERY or time.monotonic() - self._begun < PATIENCE:
            return
        text = f"{what}: {count:,} entries"
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict on a pack for a machine."""
    manifest = verdict.manifest
    return {
        "kind": "pack",
        "valid": verdict.valid,
        "member": None if manifest is None else manifest.member,
        "federation": None if manifest is None else manifest.federation,
        "key": verdict.key,
        "first": None if manifest is None else manifest.first,
        "end": None if manifest is None else manifest.end,
        "size": None if manifest is None else manifest.head.size,
        "root": None if manifest is None else manifest.head.root,
        "witnesses": list(verdict.witnesses),
        "remarks": list(verdict.remarks),
        "findings": [_finding(item) for item in verdict.findings],
    }


def verification_json(result: Verification, witnesses: list[str], remarks: list[str]) -> dict[str, Any]:
    """Return a verdict on a ledger for a machine."""
    return {
        "kind": "ledger",
        "valid": result.valid,
        "member": result.state.member,
        "key": result.key,
        "key_standing": result.key_standing,
        "size": result.head.size,
        "root": result.head.root,
        "policy": result.state.policy_digest,
        "witnesses": witnesses,
        "remarks": remarks,
        "findings": [_finding(item) for item in result.findings],
    }


def print_verdict(name: str, verdict: Verdict) -> None:
    """Print a verdict on a pack."""
    manifest = verdict.manifest
    if verdict.valid and manifest is not None:
        span = "the whole ledger" if manifest.whole else f"entries {manifest.first} to {manifest.end - 1} of the ledger"
        typer.echo(
            f"Valid: {name}, {span} of {manifest.member} in {manifest.federation}, as of {moment_of(manifest.as_of)} UTC."
        )
    else:
        typer.echo(f"NOT valid: {name}")
        _print_findings(verdict.findings)
        typer.echo("Keep the pack as evidence, and ask the institution for it again.")
    if verdict.key is not None:
        typer.echo(f"Key {verdict.key}")
    if manifest is not None:
        typer.echo(f"Tree head {manifest.head.size}:{manifest.head.root}")
    _print_notes(verdict.witnesses, verdict.remarks)


def print_verification(name: str, result: Verification, witnesses: list[str], remarks: list[str]) -> None:
    """Print a verdict on a ledger."""
    if result.valid:
        typer.echo(f"Valid: {name}, {result.head.size} entries of {result.state.member}.")
    else:
        typer.echo(f"NOT valid: {name}")
        _print_findings(result.findings)
        typer.echo("Keep the file as evidence, stop the vault, and restore the ledger from its last backup.")
    typer.echo(f"Key {result.key}, {result.key_standing}")
    typer.echo(f"Tree head {result.head.size}:{result.head.root}")
    _print_notes(witnesses, remarks)


def _print_findings(findings: tuple[Finding, ...]) -> None:
    for item in findings:
        typer.echo(f"  {item.code}  {item.where}: {item.what}")


def _print_notes(witnesses: tuple[str, ...] | list[str], remarks: tuple[str, ...] | list[str]) -> None:
    for name in witnesses:
        typer.echo(f"Witnessed by {name}")
    for remark in remarks:
        typer.echo(f"Note: {remark}")


def _finding(item: Finding) -> dict[str, Any]:
    return {"code": item.code, "seq": item.seq, "file": item.file or None, "what": item.what}
