"""Found a federation on one machine: every institution gets a home folder of its own, with keys, charter, policy and its own tables.

For simulations: keys are not sealed by a passphrase, and one process holds them all. Nothing else differs from a real
node's home.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as NameMap
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import TypeAdapter

from client.config import Consent, Mapping, NodeConfig
from client.home import Home
from client.install import install
from client.policy_files import write_signatures
from federation.charter import Charter, Declaration, Member, PinnedContract, SealedCharter, seal
from federation.contract import FeatureContract, NumericColumn
from federation.document import Document, load_yaml
from federation.errors import StorageError
from federation.files import atomic_write
from federation.signing import public_hex, sign
from federation.study import Holdout, StudyDraft
from privacy.keys import create_identity, load_identity
from privacy.ledger import Ledger
from privacy.policy import CONTEXT as POLICY_CONTEXT
from privacy.policy import Policy
from simulations.datasets import CONTACT, PROFILING, consent
from simulations.houses import BANK_NAMES, CATEGORY_NAMES, CONSENT, LOG_NAMES, TABLE, House, write_house
from simulations.sites import TEST_POSITION, Site

MARKER = "made-by-simulate"
FEDERATION = "demo"
OFFICERS = ("first", "second")
NAME_LISTS_DAYS, REPLIES_DAYS, PARTICIPATION_DAYS = 90, 400, 1830
COORDINATOR = "coordinator"
TABLES = "tables"
PERIOD_DAYS = 365
PERIOD_SHARE = 1.25
ANALYTICS = "marketing.analytics"
LIFE_SHARE = 2.0
SMALLEST_COHORT = 500
SMALLEST_PARTNERS = 3
_CURRENCY = "USD"


@dataclass(frozen=True)
class Founding:
    """One institution to be founded: who it is, its rows, and the contract that they serve.

    `counting` is the epsilon that its policy grants a statistics study for the purpose `ANALYTICS`, beside training; None for none.
    `names` are its own names of the rows' columns, by contract column; those of its house style where None.
    """

    site: Site
    rows: pd.DataFrame
    contract: FeatureContract
    draft: StudyDraft
    counting: float | None = None
    names: NameMap[str, str] | None = None


@dataclass(frozen=True)
class Federation:
    """A federation on one machine: the root folder, each institution's home by member id, and the coordinator's side."""

    root: Path
    homes: dict[str, Home]
    charter: Charter
    sealed: SealedCharter
    coordinator_key: Ed25519PrivateKey
    contracts: dict[str, FeatureContract]


def found(root: Path, foundings: Sequence[Founding]) -> Federation:
    """Make a federation under `root`; what an earlier simulation made there is replaced.

    Raises
    ------
    StorageError
        CSL-M120 when the folder holds something that no simulation made; CSL-F301 when a file cannot be written.
    """
    fresh(root)
    ordered = sorted(foundings, key=lambda item: item.site.id)
    homes = {item.site.id: Home(root / item.site.id) for item in ordered}
    keys = {item.site.id: _open_home(homes[item.site.id], item.site.id) for item in ordered}
    desk = root / COORDINATOR
    for folder in ("keys", "studies"):
        (desk / folder).mkdir(parents=True, mode=0o700)
    coordinator = create_identity(desk / "keys" / "identity.key", allow_plain=True)
    contracts = {item.contract.name: item.contract for item in ordered}
    charter = Charter(
        federation=FEDERATION,
        version=1,
        coordinator_key=public_hex(coordinator),
        members=tuple(_member(item, keys[item.site.id]) for item in ordered),
        contracts=tuple(PinnedContract(name=name, sha256=contracts[name].digest()) for name in sorted(contracts)),
    )
    sealed = seal(charter, keys, coordinator)
    for item in ordered:
        _furnish(homes[item.site.id], item, sealed)
    _install(desk, sealed, contracts.values())
    for draft in {item.draft.name: item.draft for item in ordered}.values():
        write_yaml(desk / "studies" / f"{draft.name}.yaml", draft, draft.title)
    return Federation(root, homes, charter, sealed, coordinator, contracts)


def fresh(root: Path) -> None:
    """Make an empty folder; only a folder that a simulation made is ever emptied.

    Raises
    ------
    StorageError
        CSL-M120 when it holds something else.
    """
    if root.exists() and any(root.iterdir()):
        if not (root / MARKER).is_file():
            raise StorageError(
                "CSL-M120", f"{root} holds files that no simulation made.", "Name an empty folder with --out."
            )
        for path in root.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif (
                path.name != MARKER
            ):  # kept to the end, so that an interruption leaves a folder that can be emptied again
                path.unlink()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    atomic_write(root / MARKER, b"This folder is made anew by every simulation: keep nothing here.\n")


def _open_home(home: Home, member: str) -> Ed25519PrivateKey:
    install(home, member, allow_plain=True)
    return load_identity(home.identity_key, allow_plain=True)


def _member(item: Founding, key: Ed25519PrivateKey) -> Member:
    site = item.site
    return Member(id=site.id, title=site.title, key=public_hex(key), declares=(declaration_of(item),))


def declaration_of(item: Founding) -> Declaration:
    """Return what an institution declares for its contract."""
    site, window = item.site, item.site.window
    return Declaration(
        contract=item.contract.name,
        size=site.size,
        as_of=window.as_of if window else None,
        window_days=window.window_days if window else None,
        horizon_days=window.horizon_days if window else None,
    )


def _furnish(home: Home, item: Founding, sealed: SealedCharter) -> None:
    """Write an institution's tables, node configuration and policy, and install charter and contract."""
    _install(home.root, sealed, [item.contract])
    note = note_of(item.site)
    write_yaml(home.node_file, node_config(item.site, write_tables(home, item), item.contract), note)
    _bring_into_force(home, item, note)


def note_of(site: Site) -> str:
    """Return the comment at the head of each file that a simulation writes for an institution."""
    return f"Of {site.title}, an institution that a simulation made. Consent is simulated."


def write_tables(home: Home, item: Founding) -> House:
    """Write an institution's customers and their consent into its home, in a format and with names of its own."""
    site = item.site
    names = item.names or (LOG_NAMES if site.window else BANK_NAMES)[site.style]
    return write_house(home.root / TABLES, site.style, item.rows, consent(item.rows["customer"], site), names)


def _bring_into_force(home: Home, item: Founding, note: str) -> None:
    """Let two officers, whose keys lie beside the home, sign the policy, and bring it into force in the ledger."""
    desk = home.root.parent / "officers"
    desk.mkdir(exist_ok=True, mode=0o700)
    keys = [create_identity(desk / f"{item.site.id}-{name}.key", use="officer", allow_plain=True) for name in OFFICERS]
    document = policy(item.site, item.draft, [public_hex(key) for key in keys], item.counting)
    write_yaml(home.policy_file, document, note)
    signatures = tuple(sign(key, POLICY_CONTEXT, document) for key in keys)
    write_signatures(home.policy_file, document, signatures)
    with Ledger.open(home.ledger_file, load_identity(home.identity_key, allow_plain=True)) as ledger:
        ledger.activate(document, signatures)


def _install(root: Path, sealed: SealedCharter, contracts: Iterable[FeatureContract]) -> None:
    atomic_write(root / "charter.json", sealed.canonical())
    atomic_write(root / "charter.digest", sealed.charter.digest().encode() + b"\n")
    folder = root / "contracts"
    folder.mkdir(exist_ok=True)
    for contract in contracts:
        write_yaml(folder / f"{contract.name}.yaml", contract, contract.title)


def write_yaml(path: Path, document: Document, note: str) -> None:
    """Write a document as YAML under a comment, and read it back: what stands there is what was meant."""
    tree = document.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)
    atomic_write(path, f"# {note}\n{text}".encode())
    if load_yaml(path, type(document)).canonical() != document.canonical():
        raise StorageError(
            "CSL-M121", f"{path} does not read back as it was written.", "Report this: it is a fault of the program."
        )


def node_config(site: Site, house: House, contract: FeatureContract) -> NodeConfig:
    """Return an institution's node configuration: its own columns, formats and spellings mapped to the contract."""
    mapping = _log_mapping(site, house) if site.window else _table_mapping(house, contract)
    return NodeConfig(
        member=site.id,
        contracts={contract.name: TypeAdapter[Mapping](Mapping).validate_json(json.dumps(mapping))},
        consent=TypeAdapter[Consent](Consent).validate_json(json.dumps(_consent(house))),
        threads=1,
        plain_keys=True,
    )


def _source(house: House, what: str) -> dict[str, object]:
    path = f"{TABLES}/{(house.data if what == TABLE else house.consent).name}"
    if house.style == "csv":
        return {"kind": "csv", "path": path, "delimiter": ";"}
    if house.style == "parquet":
        return {"kind": "parquet", "path": path}
    return {"kind": "sql", "url": f"sqlite:///{path}", "table": what}


def _consent(house: House) -> dict[str, object]:
    source = _source(house, CONSENT)
    if house.style == "csv":
        return {"layout": "rows", "source": source, "customer": "customer", "purpose": "purpose", "granted": "agreed"}
    return {
        "layout": "columns",
        "source": source,
        "customer": "customer",
        "purposes": {PROFILING: PROFILING, CONTACT: CONTACT},
    }


def _table_mapping(house: House, contract: FeatureContract) -> dict[str, object]:
    columns: dict[str, dict[str, object]] = {}
    for column in contract.columns:
        own = house.names.get(column.name)
        if own is None:
            continue
        columns[column.name] = {"column": own}
        if isinstance(column, NumericColumn):
            columns[column.name] |= _unit(house, column.name, column.unit)
        spelling = CATEGORY_NAMES[house.style].get(column.name)
        if spelling:
            columns[column.name]["values"] = {name: category for category, name in spelling.items()}
    mapping: dict[str, object] = {
        "kind": "table",
        "source": _source(house, TABLE),
        "customer": house.names["customer"],
        "columns": columns,
        "label": {"column": house.names[contract.label.name], "yes": ["yes", "1"], "no": ["no", "0"]},
    }
    if "position" in house.names:
        mapping |= {"position": house.names["position"], "score": {"from_position": TEST_POSITION}}
    return mapping


def _unit(house: House, column: str, unit: str) -> dict[str, object]:
    return {"unit": "cents", "convert": f"cents to {unit}"} if column in house.cents else {"unit": unit}


def _log_mapping(site: Site, house: House) -> dict[str, object]:
    assert site.window is not None
    mapping: dict[str, object] = {
        "kind": "transactions",
        "source": _source(house, TABLE),
        "customer": house.names["customer"],
        "time": {"column": house.names["day"]},
        "amount": {"column": house.names["amount"], **_unit(house, "amount", _CURRENCY)},
        "typical_basket": {"amount": site.window.typical_purchase, "unit": _CURRENCY},
        "complete_until": site.window.complete_until.isoformat(),
        "value": "spend",
    }
    if "category" in house.names:
        mapping["category"] = house.names["category"]
    return mapping


def policy(site: Site, draft: StudyDraft, officers: Sequence[str], counting: float | None = None) -> Policy:
    """Return an institution's policy: one purpose, its own epsilon, every model and mode that a study may name, nothing
    that waits for a person; `officers` are two public keys. `counting` as in `Founding`."""
    today = datetime.now(UTC).date()
    epsilon = site.epsilon + (counting or 0.0)
    tree: dict[str, Any] = {
        "institution": site.id,
        "version": 1,
        "issued": (today - timedelta(days=1)).isoformat(),
        "expires": (today + timedelta(days=PERIOD_DAYS)).isoformat(),
        "officers": [{"id": name, "key": key} for name, key in zip(OFFICERS, officers, strict=True)],
        "approval": {"eyes": 2},
        "purposes": [{"id": draft.purpose, "meaning": draft.title, "consent": PROFILING}],
        "contact_consent": CONTACT,
        "studies": [
            {
                "contract": draft.contract,
                "purposes": [draft.purpose],
                "models": ["additive", "logistic", "mlp"],
                "modes": ["fedsgd", "fedavg"],
                "max_epsilon": site.epsilon,
                "max_delta": site.delta,
                "automatic_epsilon": site.epsilon,
                "holdout": _holdout(draft.holdout),
            }
        ],
        "budget": {
            "mode": "open",
            "unit": "customer",
            "neighbours": "add_or_remove_one",
            "period": {"days": PERIOD_DAYS, "epsilon": PERIOD_SHARE * epsilon, "delta": site.delta},
            "life": {"epsilon": LIFE_SHARE * epsilon, "delta": site.delta},
        },
        "smallest_cohort": SMALLEST_COHORT,
        "smallest_partners": SMALLEST_PARTNERS,
        "aggregation": "plain",
        "secure": {"n_min": 4, "c": 1, "noise": ["local", "shared"]},
        "reply_grid_seconds": 0.1,
        "retention": {
            "name_lists_days": NAME_LISTS_DAYS,
            "replies_days": REPLIES_DAYS,
            "participation_days": PARTICIPATION_DAYS,
        },
    }
    if counting is not None:
        tree["purposes"].append({"id": ANALYTICS, "meaning": "Count customers together", "consent": PROFILING})
        tree["statistics"] = [
            {
                "contract": draft.contract,
                "purposes": [ANALYTICS],
                "max_epsilon": counting,
                "max_delta": site.delta,
                "automatic_epsilon": counting,
            }
        ]
    return Policy.model_validate_json(json.dumps(tree))


def _holdout(holdout: Holdout) -> object:
    return holdout.model_dump(mode="json")
