"""The registry: one folder for each published model, with its weights, its signed card, and the card for people."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from federation.encoding import sha256_hex
from federation.errors import ConsilienceError, DocumentError, FederationError, IntegrityError, StorageError
from federation.files import atomic_write, sync_folder
from federation.messages import dump_tensors
from federation.signing import sign, verify
from server.card import CONTEXT, ModelCard, SealedCard, render
from server.planning import least_partners

MODEL_FILE = "model.safetensors"
CARD_FILE = "card.json"
READABLE_FILE = "card.md"


@dataclass(frozen=True)
class PublishedModel:
    """A model as it lies in the registry, with everything checked."""

    folder: Path
    sealed: SealedCard
    content: bytes

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self.sealed.card


def model_name(study_name: str, study: str) -> str:
    """Return the name of a study's model: the study's, and the first 12 digits of its digest."""
    return f"{study_name}-{study[:12]}"


class Registry:
    """Published models in a folder; a published model is never changed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(
        self, card: ModelCard, weights: Mapping[str, NDArray[np.float32]], key: Ed25519PrivateKey
    ) -> PublishedModel:
        """Write a model with its signed card: the folder appears whole or not at all. The same model again changes nothing.

        Raises
        ------
        FederationError
            CSL-S601 below the study's smallest number of partners.
        IntegrityError
            CSL-S602 when the card speaks of other weights, CSL-S603 when another model has the name.
        StorageError
            CSL-S604 when it cannot be written.
        """
        content = dump_tensors(weights)
        _check_partners(card)
        if sha256_hex(content) != card.model:
            raise IntegrityError(
                "CSL-S602", "The card speaks of other weights than these.", "Make the card from the model published."
            )
        sealed = SealedCard(card=card, signature=sign(key, CONTEXT, card))
        folder = self._root / card.name
        if folder.exists():
            known = self.load(card.name)
            if known.sealed != sealed:
                raise IntegrityError(
                    "CSL-S603",
                    f"Another model is published as {card.name}.",
                    "A published model is never changed: sign a new study.",
                )
            return known
        files = {MODEL_FILE: content, CARD_FILE: sealed.canonical(), READABLE_FILE: render(card).encode()}
        try:
            self._place(folder, files)
        except OSError as error:
            raise StorageError(
                "CSL-S604",
                f"{folder} cannot be written: {error.strerror}.",
                "Free space or correct the rights, and run the study again.",
            ) from error
        return PublishedModel(folder, sealed, content)

    def _place(self, folder: Path, files: Mapping[str, bytes]) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self._root))
        try:
            for name, content in files.items():
                atomic_write(draft / name, content)
            draft.chmod(0o755)
            os.rename(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        sync_folder(self._root)

    def names(self) -> list[str]:
        """Return the names of all published models, sorted."""
        if not self._root.is_dir():
            return []
        return sorted(entry.name for entry in self._root.iterdir() if entry.is_dir() and not entry.name.startswith("."))

    def load(self, name: str, coordinator_key: str | None = None) -> PublishedModel:
        """Return a model after checking its card's signature and its weights' digest.

        Parameters
        ----------
        coordinator_key:
            The key that must have signed, from the charter; without it, the signature is only checked against the key that it names.

        Raises
        ------
        DocumentError
            CSL-S605 when there is no such model.
        IntegrityError
            CSL-S606 when card or weights were changed, CSL-F201/F202 for the signature.
        """
        folder = self._root / name
        if name not in self.names():
            raise DocumentError(
                "CSL-S605", f'No model "{name}" is published here.', "See `consilience coordinator models list`."
            )
        try:
            sealed = SealedCard.from_canonical((folder / CARD_FILE).read_bytes())
            content = (folder / MODEL_FILE).read_bytes()
        except (OSError, ConsilienceError) as error:
            raise _changed(name) from error
        verify(sealed.signature, CONTEXT, sealed.card, coordinator_key or sealed.signature.key)
        if (
            sha256_hex(content) != sealed.card.model
            or sealed.card.name != name
            or sealed.card.study != sealed.card.spec.digest()
        ):
            raise _changed(name)
        return PublishedModel(folder, sealed, content)


def _check_partners(card: ModelCard) -> None:
    least = least_partners(card.spec.draft)
    took_part = sum(participant.rounds > 0 for participant in card.participants)
    if min(took_part, card.fewest_partners) < least:
        raise FederationError(
            "CSL-S601",
            f"{took_part} partners took part, {card.fewest_partners} in the thinnest round; the study publishes from {least} on.",
            "Nothing is published. Run a new study with more partners.",
        )


def _changed(name: str) -> IntegrityError:
    return IntegrityError(
        "CSL-S606",
        f"Card or weights of {name} are missing or were changed.",
        "Restore the model's folder from a backup; do not use it.",
    )
