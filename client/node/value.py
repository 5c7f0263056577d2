"""`consilience node value`: what the own customers are worth by the federation's model, in tiers. Nothing of it leaves."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client import lists
from client.cohort import load_cohort
from client.config import TransactionMapping, load_node
from client.desk import HERE, HomeOption, JsonOption, home_at, open_reader, open_withdrawals, print_json
from client.home import Home, check_unlocked
from client.lifetime import Tier, Values, lifetime_values
from client.lifetime_terms import Terms, TierTerms
from client.node.lists import check_target
from client.reports import Found, Reports
from client.roles import require_for
from client.unlock import Keys, PassphraseFd, PassphraseFile, unlock
from federation.document import load_yaml
from federation.errors import DataError, DocumentError, PolicyError
from federation.files import atomic_write
from privacy.ledger import Ledger
from privacy.sealing import PRIVATE

TERMS = "tiers.yaml"
PIPE = Path("-")
SHOWN = 10
COLUMNS = ("customer", "tier", "value", "net", "payback_years", "purchases", "alive")
_KIND = "lifetime"


def value(
    home: HomeOption = HERE,
    study: Annotated[
        str | None,
        typer.Option(
            help="The statistics study's name; the newest report on lifetime value otherwise.", show_default=False
        ),
    ] = None,
    terms: Annotated[
        Path | None, typer.Option(help="Margin, costs and cuts; tiers.yaml in the home otherwise.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many customers to show on the screen.")] = SHOWN,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A file to write all customers to, in clear (0600): .csv; - for CSV to a pipe.", show_default=False
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Say what each own customer is worth: still a customer, purchases to come, value, and her tier.

    For analysts. The model comes from the newest report on lifetime value;
    margin, costs and cuts from tiers.yaml, which is the institution's own.
    Everybody who agreed to be contacted is valued on today's tables, and
    nothing leaves. The ledger notes who looked, and at how many, before
    anything is shown or written. A file is yours to protect and to delete.
    Customers who withdrew their consent are left out.
    """
    place = home_at(home)
    actor = require_for(place, "node value")
    check_unlocked(place)
    if out not in (None, PIPE):
        check_target(out, (lists.CSV,))
    keys = unlock(place, passphrase_file, passphrase_fd)
    own = read_terms(place, terms)
    found = Reports(place.folder("reports")).newest(own.contract, _KIND, study)
    values = valued(place, keys, own, found)
    order = ranked(values)
    rows = len(order) if out is not None else min(top, len(order))
    called = f"lifetime values by the report {found.report.name}, {found.report.study[:8]}"
    with Ledger.open(place.ledger_file, keys.identity) as ledger:
        ledger.access("view" if out is None else "export", called, actor=actor.account, role=actor.role, count=rows)
    content = b"" if out is None else lists.csv_table(COLUMNS, [_row(values, each) for each in order])
    if out == PIPE:
        sys.stdout.buffer.write(content)
        return
    if out is not None:
        atomic_write(out, content, PRIVATE)
    _say(values, found, order[:top] if out is None else [], out, as_json)


def _say(values: Values, found: Found, shown: list[int], out: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(_plain(values, found, shown, out))
        return
    _print(values, found, shown)
    if out is not None:
        typer.echo(f"Wrote {out}: {len(values)} customers with their values, in clear. Delete it when it was used.")


def read_terms(home: Home, path: Path | None) -> TierTerms:
    """Read the institution's terms.

    Raises
    ------
    DocumentError
        CSL-C810 when there is no such file; CSL-F103 to F105 when it cannot be read.
    """
    chosen = home.root / TERMS if path is None else path
    if not chosen.exists():
        raise DocumentError(
            "CSL-C810",
            f"{chosen} is not there, and margin, costs and cuts are the institution's own.",
            "Copy configs/value/tiers.yaml there, and put in your numbers.",
        )
    return load_yaml(chosen, TierTerms)


def valued(home: Home, keys: Keys, terms: TierTerms, found: Found) -> Values:
    """Value this institution's customers who agreed to be contacted; who withdrew is left out, also meanwhile.

    Raises
    ------
    PolicyError
        CSL-C811 while no policy is in force, which says which consent is needed.
    DataError
        CSL-C813 when node.yaml has no log of purchases for the contract, or the charter no declaration; as `load_cohort`.
    """
    with open_reader(home) as reader:
        policy = reader.policy()
    if policy is None:
        raise PolicyError(
            "CSL-C811",
            "No policy is in force, so nothing says which consent a customer must have given.",
            "Bring a policy into force first.",
        )
    charter, node = home.charter(), load_node(home.node_file)
    contract = home.contract(charter, terms.contract)
    declaration, mapping = charter.member(node.member).declaration(contract.name), node.contracts.get(contract.name)
    if declaration is None or declaration.window_days is None or not isinstance(mapping, TransactionMapping):
        raise DataError(
            "CSL-C813",
            f"{contract.name} has no log of purchases here: node.yaml must map one, and the charter declare its window.",
            "Let tiers.yaml name the contract of the log.",
        )
    own = Terms.of(terms, mapping, declaration.window_days)
    withdrawn = open_withdrawals(home, keys.store)
    cohort, _ = load_cohort(node, contract, declaration, policy.contact_consent, "score", withdrawn.excluded)
    now = open_withdrawals(home, keys.store)
    if now.version != withdrawn.version and now.excluded is not None:
        cohort = cohort.take(~np.asarray(now.excluded(list(cohort.ids))))
    return lifetime_values(cohort, found.report, own, found.answer.id)


def ranked(values: Values) -> list[int]:
    """Return places of customers, the highest value first, equal ones by identifier; those without a value last."""
    keys = np.where(np.isnan(values.value), -np.inf, values.value)
    return sorted(range(len(values)), key=lambda place: (-keys[place], str(values.ids[place])))


def _row(values: Values, place: int) -> tuple[str | int | float | None, ...]:
    columns = (values.value, values.net, values.payback, values.purchases, values.alive)
    numbers = [None if np.isnan(column[place]) else round(float(column[place]), 6) for column in columns]
    return (str(values.ids[place]), str(values.tier[place]), *numbers)


def _plain(values: Values, found: Found, shown: list[int], out: Path | None) -> dict[str, Any]:
    new = values.newcomer
    return {
        "report": found.report.name,
        "study": found.report.study,
        "horizon_years": values.horizon_years,
        "unit": values.unit,
        "confidence": values.model.confidence,
        "tiers": [_plain_tier(tier) for tier in values.tiers],
        "newcomer": {"purchases": new.purchases, "value": new.value, "net": new.net, "payback_years": new.payback},
        "customers": len(values),
        "rows": [dict(zip(COLUMNS, _row(values, place), strict=True)) for place in shown],
        **({} if out is None else {"file": str(out)}),
    }


def _plain_tier(tier: Tier) -> dict[str, Any]:
    return {
        "tier": tier.name,
        "customers": tier.customers,
        "share": tier.share,
        "value": tier.value,
        "low": tier.low,
        "high": tier.high,
        "mean": tier.mean,
        "alive": tier.alive,
        "purchases": tier.purchases,
        "payback_years": tier.payback,
    }


def _print(values: Values, found: Found, shown: list[int]) -> None:
    console = Console()
    came = datetime.fromtimestamp(found.received / 1000, UTC).date().isoformat()
    console.print(
        f"[bold]{escape(found.report.title)}[/bold], delivered {came}. Value: discounted margin in the next "
        f"{values.horizon_years:.2g} years, in {escape(values.unit)}."
    )
    table = Table("tier", "customers", "share", "value", "interval", "each", "still there", "purchases", "paid back")
    for tier in values.tiers:
        if tier.name == "unknown":
            table.add_row(tier.name, str(tier.customers), f"{tier.share:.1%}", *[""] * 6)
            continue
        table.add_row(
            tier.name,
            str(tier.customers),
            f"{tier.share:.1%}",
            f"{tier.value:,.0f}",
            f"{tier.low:,.0f} to {tier.high:,.0f}",
            f"{tier.mean:,.2f}",
            f"{tier.alive:.0%}",
            f"{tier.purchases:.2f}",
            _years(tier.payback),
        )
    console.print(table)
    new = values.newcomer
    console.print(
        f"A customer who is just won: worth {new.value:,.2f}, {new.net:,.2f} after what it costs to win her; "
        + ("not paid back in that time." if new.payback is None else f"paid back after {_years(new.payback)}."),
        highlight=False,
    )
    console.print(
        f"Intervals ({values.model.confidence:.0%}) hold the federation's noise and who became a customer, not whether the model is right.",
        highlight=False,
    )
    if shown:
        _print_customers(console, values, shown)


def _print_customers(console: Console, values: Values, shown: list[int]) -> None:
    table = Table("customer", "tier", "value", "net", "purchases", "still there")
    for place in shown:
        known = not np.isnan(values.value[place])
        columns = ((values.value, ",.2f"), (values.net, ",.2f"), (values.purchases, ".2f"), (values.alive, ".0%"))
        numbers = [format(float(column[place]), style) if known else "" for column, style in columns]
        table.add_row(escape(str(values.ids[place])), str(values.tier[place]), *numbers)
    console.print(table)


def _years(years: float | None) -> str:
    return "beyond" if years is None else f"{years:.2f} years"
