"""`consilience node scores`: the whole ranking by an adopted model, of which a name list is the head. It never leaves."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from client import lists
from client.changes import Compared, compare
from client.cohort import load_cohort
from client.config import load_node
from client.consent import consenting
from client.decisions import Decision, read_decision
from client.desk import HERE, HomeOption, JsonOption, home_at, open_reader, open_withdrawals, print_json
from client.home import Home, check_unlocked
from client.names import Listed, TopCustomers, choose, deciles
from client.node.lists import check_target, plain_compared, plain_line, print_lines
from client.officer.studies import granted_studies
from client.roles import require_for
from client.scores import Scores
from client.scorings import Scoring, keep
from client.studies import OpenStudy
from client.unlock import Keys, PassphraseFd, PassphraseFile, unlock
from client.withdrawal import Withdrawals
from federation.encoding import sha256_hex
from federation.errors import IntegrityError, PolicyError, StorageError
from federation.files import atomic_write
from federation.messages import read_tensors
from privacy.ledger import Ledger
from privacy.sealing import PRIVATE

SHOWN = 10
EVERYBODY = 1_000_000_000
SinceOption = Annotated[
    datetime | None,
    typer.Option(
        formats=["%Y-%m-%d"],
        help="Compare with the newest scoring of this day or before it; with the newest before this one otherwise.",
        show_default=False,
    ),
]


def scores(
    study: Annotated[str, typer.Option(help="The study's name: its newest adopted model scores.")],
    home: HomeOption = HERE,
    out: Annotated[
        Path | None, typer.Option(help="The file to write in clear (0600): .csv or .parquet.", show_default=False)
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Only so many, the highest scores first; 10 on the screen, all in a file."),
    ] = None,
    since: SinceOption = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Score every customer who agreed to be contacted, by the model in use: probability, rank, decile, why, and what changed.

    For analysts. The scoring is kept, sealed and without identifiers, and
    the next one is held against it: score and decile before, and which
    feature's part rose and fell most. A name list is the head of this ranking, at the capacity
    that lists.yaml sets; here all are scored anew, on today's tables. The
    ledger notes who asked, and for how many, before anything is shown or
    written. A file is yours to protect and to delete. Customers who withdrew
    their consent are not scored.
    """
    place = home_at(home)
    actor = require_for(place, "node scores")
    check_unlocked(place)
    if out is not None:
        check_target(out, (lists.CSV, lists.PARQUET))
    keys = unlock(place, passphrase_file, passphrase_fd)
    chosen, decision = adopted(place, study, keys.store)
    most = top or (SHOWN if out is None else EVERYBODY)
    ranking = rank(place, keys, chosen, decision, most, since)
    ranked = ranking.ranked
    called = f"scores of study {study}, model {decision.model[:8]}"
    with Ledger.open(place.ledger_file, keys.identity) as ledger:
        ledger.access(
            "view" if out is None else "export", called, actor=actor.account, role=actor.role, count=len(ranked)
        )
    if out is not None:
        write = lists.csv_of if out.suffix == lists.CSV else lists.parquet_of
        atomic_write(out, write(ranked), PRIVATE)
        _say_written(study, decision, out, len(ranked), as_json)
    elif as_json:
        rows = [plain_line(line) for line in ranked]
        print_json(
            {"study": study, "model": decision.model, "compared": plain_compared(ranking.compared), "rows": rows}
        )
    else:
        print_lines(f"{study}, model {decision.model[:8]}", ranked, ranking.compared)


def adopted(home: Home, study: str, store_key: bytes) -> tuple[OpenStudy, Decision]:
    """Return the study of this name whose model was adopted last, and the decision about it.

    Raises
    ------
    StorageError
        CSL-C615 when no model of such a study is in use.
    """
    found = [
        (item, decision)
        for item in granted_studies(home)
        if item.spec.draft.name == study and (decision := read_decision(home, item.rid, store_key)) is not None
        if decision.adoption.adopted
    ]
    if not found:
        raise StorageError(
            "CSL-C615", f"No model of a study {study} is in use here.", "See `consilience node studies`."
        )
    return max(found, key=lambda pair: pair[1].decided)


@dataclass(frozen=True)
class Ranking:
    """The first of a ranking, highest probability first, and what changed since the scoring before (None the first time)."""

    ranked: list[Listed]
    compared: Compared | None


def rank(
    home: Home, keys: Keys, study: OpenStudy, decision: Decision, most: int, since: datetime | None = None
) -> Ranking:
    """Score this institution's customers, keep the scoring, and return the first `most`; who withdrew meanwhile is left out.

    `since` is the last day whose scoring may be compared with. Raises as follows, and as `scorings.previous` and `scorings.keep`.

    Raises
    ------
    PolicyError
        CSL-C431 while no policy is in force, which says which consent is needed.
    IntegrityError
        CSL-C432 when the kept model is not the one that was decided about.
    StorageError
        CSL-C433 when it cannot be read.
    DataError
        When the customers cannot be read.
    """
    with open_reader(home) as reader:
        policy = reader.policy()
    if policy is None:
        raise PolicyError(
            "CSL-C431",
            "No policy is in force, so nothing says which consent a customer must have given.",
            "Bring a policy into force first.",
        )
    content = _weights(home, study, decision)
    withdrawn = open_withdrawals(home, keys.store)
    found = _score(home, study, decision, content, policy.contact_consent, withdrawn)
    agreed = consenting(load_node(home.node_file), policy.contact_consent, withdrawn.excluded)
    ranked = choose(found, TopCustomers(customers=most), agreed, keys.holdout)
    draft, decile = study.spec.draft, deciles(found, keys.holdout)
    scoring = Scoring.of(
        found, decile, withdrawn.key, study=draft.name, purpose=draft.purpose, model=decision.model, when=_now()
    )
    comparison = compare(home, keys.store, found, scoring, withdrawn, None if since is None else since.date())
    keep(home, keys.store, scoring, withdrawn)
    if comparison is not None:
        ranked = comparison.applied(ranked)
    return Ranking(
        _still_there(home, keys.store, withdrawn, ranked), None if comparison is None else comparison.summary()
    )


def _weights(home: Home, study: OpenStudy, decision: Decision) -> bytes:
    path = home.folder("models") / f"{study.rid}.safetensors"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(
            "CSL-C433", f"{path} cannot be read: {error.strerror}.", "Restore it from the backup."
        ) from error
    if sha256_hex(content) != decision.model:
        raise IntegrityError(
            "CSL-C432", f"{path} is not the model that was decided about.", "Restore it from the backup."
        )
    return content


def _score(
    home: Home, study: OpenStudy, decision: Decision, content: bytes, contact: str, withdrawn: Withdrawals
) -> Scores:
    # torch takes seconds to import, and few commands of the group need it
    from client.scoring import score  # noqa: PLC0415
    from federation.networks import build, load_weights, tensor_shapes  # noqa: PLC0415

    charter, node = home.charter(), load_node(home.node_file)
    contract = home.contract(charter, study.spec.draft.contract)
    declaration = charter.member(node.member).declaration(contract.name)
    assert declaration is not None and decision.calibration is not None
    cohort, _ = load_cohort(node, contract, declaration, contact, "score", withdrawn.excluded)
    model = study.spec.draft.model
    network = build(model, contract)
    load_weights(network, read_tensors(content, tensor_shapes(model, contract)))
    return score(model, contract, network, decision.calibration, cohort)


def _still_there(home: Home, store_key: bytes, before: Withdrawals, ranked: list[Listed]) -> list[Listed]:
    """Leave out who withdrew while the others were being scored."""
    now = open_withdrawals(home, store_key)
    if now.version == before.version or now.excluded is None:
        return ranked
    gone = now.excluded([line.customer for line in ranked])
    return [line for line, out in zip(ranked, gone, strict=True) if not out]


def _say_written(study: str, decision: Decision, out: Path, rows: int, as_json: bool) -> None:
    if as_json:
        print_json({"study": study, "model": decision.model, "rows": rows, "file": str(out)})
    else:
        typer.echo(f"Wrote {out}: {rows} customers with their scores, in clear. Delete it when it was used.")


def _now() -> datetime:
    return datetime.now(UTC)
