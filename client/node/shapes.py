"""`consilience node shapes`: the adopted model as a picture, with its noise, and what matters most in it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from client.cohort import Columns, load_cohort
from client.config import load_node
from client.desk import HERE, HomeOption, JsonOption, home_at, open_reader, open_withdrawals, print_json
from client.home import Home, check_unlocked
from client.node.scores import adopted
from client.roles import require_for
from client.studies import OpenStudy
from client.unlock import PassphraseFd, PassphraseFile, unlock, unlock_store
from federation.contract import FeatureContract
from federation.errors import DocumentError, IntegrityError, PolicyError
from federation.files import atomic_write
from federation.messages import read_tensors
from federation.shape_noise import ShapeNoise
from federation.study import AdditiveModel, LogisticModel, MlpModel
from privacy.ledger import Ledger

if TYPE_CHECKING:  # matplotlib takes seconds to import, and few commands of the group need it
    from client.shapes import Shape
    from client.surfaces import Surface

_NOISE = TypeAdapter(tuple[ShapeNoise, ...])


def shapes_command(
    study: Annotated[str, typer.Option(help="The study's name; its newest adopted model is drawn.")],
    out: Annotated[Path, typer.Option(help="The picture to write, .svg or .png.")],
    home: HomeOption = HERE,
    own: Annotated[
        bool, typer.Option("--own", help="For analysts: against own customers, and by what matters among them.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Draw what the adopted model says of each feature, what matters most first: the picture is the model itself.

    For additive and logistic models, and for everybody with a role. Only
    contract, weights and the model's card are drawn, which every member holds;
    nothing about own customers is in the picture. Where the card says how far
    noise may have moved the curves, they have bands.

    With --own, for analysts: curves are centred on the average of the customers
    who agreed to be contacted, a strip shows where these lie, and the order is
    by what matters among them. Such a picture stays here; the ledger notes it.
    """
    place = home_at(home)
    actor = require_for(place, "node scores" if own else "node shapes")
    if own:
        check_unlocked(place)
        keys = unlock(place, passphrase_file, passphrase_fd)
        store_key = keys.store
    else:
        store_key = unlock_store(place, passphrase_file, passphrase_fd)
    chosen, decision = adopted(place, study, store_key)
    contract = place.contract(place.charter(), chosen.spec.draft.contract)
    model = _drawable(chosen, out)
    customers = None
    if own:
        customers, count = _own_customers(place, chosen, contract, store_key)
        called = f"shapes of study {study}, model {decision.model[:8]}, over own customers"
        with Ledger.open(place.ledger_file, keys.identity) as ledger:
            ledger.access("view", called, actor=actor.account, role=actor.role, count=count)
    told = _draw(place, chosen, contract, model, customers, out)
    if as_json:
        print_json({"study": study, "rid": chosen.rid, "file": str(out), "own": own, "terms": told})
    else:
        typer.echo(f"Wrote {out}.")


def _drawable(study: OpenStudy, out: Path) -> AdditiveModel | LogisticModel:
    model = study.spec.draft.model
    if isinstance(model, MlpModel) or out.suffix not in (".svg", ".png"):
        raise DocumentError(
            "CSL-C616",
            "Only additive and logistic models are drawn, as .svg or .png.",
            "Name a file that ends in .svg or .png.",
        )
    return model


def _draw(
    home: Home,
    study: OpenStudy,
    contract: FeatureContract,
    model: AdditiveModel | LogisticModel,
    customers: Columns | None,
    out: Path,
) -> list[dict[str, Any]]:
    """Write the picture, and return its terms for a machine, the most important first."""
    from client.shapes import draw, png, shapes, svg  # noqa: PLC0415
    from client.surfaces import surfaces  # noqa: PLC0415

    weights, noise = _weights(home, study, contract), card_noise(home, study.rid)
    pairs = model.pairs if isinstance(model, AdditiveModel) else ()
    found = shapes(model.kind, contract, weights, customers, pairs=pairs, noise=noise)
    paired = surfaces(contract, weights, pairs, customers, noise=noise)
    figure = draw(found, contract.label.meaning, paired)
    atomic_write(out, svg(figure) if out.suffix == ".svg" else png(figure))
    told = [*map(_told, found), *map(_told_pair, paired)]
    return sorted(told, key=lambda term: -float(term["importance"]))


def _weights(home: Home, study: OpenStudy, contract: FeatureContract) -> NDArray[np.float64]:
    from federation.networks import tensor_shapes  # noqa: PLC0415 - torch takes seconds to import

    content = (home.folder("models") / f"{study.rid}.safetensors").read_bytes()
    tensors = read_tensors(content, tensor_shapes(study.spec.draft.model, contract))
    return np.asarray(tensors["linear.weight"][0], dtype=np.float64)


def card_noise(home: Home, rid: str) -> tuple[ShapeNoise, ...]:
    """Return what a delivered model's card says of the noise in its curves; nothing where it does not say.

    Raises
    ------
    IntegrityError
        CSL-C750 when the card is there and cannot be read.
    """
    path = home.folder("models") / f"{rid}.card.json"
    if not path.exists():
        return ()
    try:
        card = json.loads(path.read_bytes())
        said = card.get("shape_noise", []) if isinstance(card, dict) else []
        return _NOISE.validate_json(json.dumps(said))
    except (OSError, ValueError, ValidationError) as error:
        raise IntegrityError(
            "CSL-C750", f"The model's card {path} cannot be read.", "Restore it from the backup."
        ) from error


def _own_customers(home: Home, study: OpenStudy, contract: FeatureContract, store_key: bytes) -> tuple[Columns, int]:
    """Return the columns of the customers who agreed to be contacted, and how many they are."""
    with open_reader(home) as reader:
        policy = reader.policy()
    if policy is None:
        raise PolicyError(
            "CSL-C751",
            "No policy is in force, so nothing says which consent a customer must have given.",
            "Bring a policy into force first.",
        )
    node = load_node(home.node_file)
    declaration = home.charter().member(node.member).declaration(contract.name)
    assert declaration is not None
    excluded = open_withdrawals(home, store_key).excluded
    cohort, _ = load_cohort(node, contract, declaration, policy.contact_consent, "score", excluded)
    return cohort.columns, len(cohort)


def _told(shape: "Shape") -> dict[str, Any]:
    """One curve for a machine: effects and half-widths of 95% bands in the logit; None where no band is known."""
    known = bool(len(shape.band))
    return {
        "term": shape.column.name,
        "importance": shape.importance,
        "points": list(shape.column.knots) if shape.column.kind == "numeric" else _listed(shape),
        "effect": shape.effect.tolist(),
        "band": shape.band.tolist() if known else None,
        "missing": shape.missing,
        "missing_band": shape.missing_band if known else None,
    }


def _listed(shape: "Shape") -> list[str]:
    return list(shape.column.categories) if shape.column.kind == "categorical" else ["no", "yes"]


def _told_pair(surface: "Surface") -> dict[str, Any]:
    return {
        "term": surface.term,
        "importance": surface.importance,
        "points": [list(surface.at), list(surface.across)],
        "effect": surface.effect.tolist(),
        "band": surface.band.tolist() if surface.band.size else None,
    }
