"""`consilience node strategy check`: looks a strategy map through and explains it; needs no home, and reads no customer."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.desk import JsonOption, print_json
from client.strategy import ANY, DEFAULT, Checked, NextAction, Rule, Strategy, Then, check_strategy, in_words
from federation.document import load_yaml
from federation.errors import DocumentError

app = typer.Typer(no_args_is_help=True, help="The strategy map: whom to offer what, through which channel.")


@app.callback()
def _group() -> None:
    """Keep `check` a command of its own while it is the only one."""


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The map, such as strategies/rfm.yaml.")], as_json: JsonOption = False
) -> None:
    """Explain a strategy map, and find rules that never decide, unknown names, overlaps and gaps.

    For everybody: the map holds no customer. Every combination of segment,
    stage and band is tried, also that of customers whom nobody placed.
    Exit code 3 when the map cannot be used.
    """
    strategy = load_yaml(file, Strategy)
    found = check_strategy(strategy)
    if as_json:
        print_json(_plain(strategy, found))
    else:
        _show(Console(), strategy, found)
    if found.faults:
        raise DocumentError(
            "CSL-C768", f"{file} cannot be used: it has {len(found.faults)} faults.", "Correct what is listed above."
        )


def _plain(strategy: Strategy, found: Checked) -> dict[str, object]:
    return {
        "title": strategy.title,
        "contract": strategy.contract,
        "usable": not found.faults,
        "cells": found.cells,
        "decides": list(found.decides),
        "findings": [
            {"kind": item.kind, "what": item.what, "rules": list(item.rules), "text": item.text}
            for item in found.findings
        ],
    }


def _show(console: Console, strategy: Strategy, found: Checked) -> None:
    lines = [
        f"{strategy.title}: scores of {strategy.contract} ({strategy.score}). The first rule that fits decides.",
        *(_rule(number, rule, found) for number, rule in enumerate(strategy.rules, start=1)),
        f" default  {_action(strategy.default)}  [{_share(found, DEFAULT)}]",
        *(f"{item.kind.capitalize()}: {item.text}" for item in found.findings),
    ]
    if not found.findings:
        lines.append("No faults, no overlaps, no gaps.")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _rule(number: int, rule: Rule, found: Checked) -> str:
    axes = (("segment", rule.segment), ("stage", rule.stage), ("band", rule.band))
    wanted = [f"{axis} {in_words(names)}" for axis, names in axes if names != ANY]
    return f"{number:>8}  {', '.join(wanted) or 'everybody'}: {_action(rule.then)}  [{_share(found, number)}]"


def _action(then: Then) -> str:
    return f"{then.product} by {then.channel}, message {then.message}" if isinstance(then, NextAction) else then


def _share(found: Checked, number: int) -> str:
    return f"{found.decides[number]} of {found.cells} combinations"
