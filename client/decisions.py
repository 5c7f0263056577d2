"""What the institution decided about each delivered model, sealed at home, and which model is in use."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from client.adoption import Adoption
from client.calibration import Calibration, CalibrationReport
from client.home import Home
from federation.contract import Name
from federation.document import Document
from federation.errors import IntegrityError
from federation.signing import Hex32
from privacy.sealing import read_sealed

KIND = "decision"


class Decision(Document):
    """What the institution decided about one delivered model; local only."""

    study: Name
    rid: Hex32
    model: Hex32
    card: Hex32
    decided: str
    adoption: Adoption
    calibration: Calibration | None = None
    report: CalibrationReport | None = None
    listed: Annotated[int, Field(ge=0)] | None = None
    list_file: str | None = None


def decision_file(home: Home, rid: str) -> Path:
    """Return where the sealed decision about a study's model lies."""
    return home.folder("models") / f"{rid}.decision.json"


def read_decision(home: Home, rid: str, store_key: bytes) -> Decision | None:
    """Open what was decided about a study's model; None where nothing was yet.

    Raises
    ------
    IntegrityError
        CSL-C552 when it is damaged; as `privacy.sealing.unseal`.
    StorageError
        CSL-P523 when the file cannot be read.
    """
    content = read_sealed(decision_file(home, rid), store_key, KIND)
    try:
        return None if content is None else Decision.model_validate_json(content)
    except ValidationError as error:
        raise IntegrityError(
            "CSL-C552", f"The decision about study {rid[:12]} is damaged.", "Restore it from the backup."
        ) from error


class InUse(Document):
    """Which study's model is in use for one contract and purpose."""

    rid: Hex32
    model: Hex32
