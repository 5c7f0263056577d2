"""The institution's Flower ClientApp: hands each message to the vault named by the node's own configuration.

Flower routes an alias such as `train.default` to the handler of `train`; the vault is given the message's own type, and answers exact
types only.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, Self

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client.home import Home
from client.throttle import Throttle
from client.unlock import unlock
from client.vault import Vault
from federation.errors import StorageError
from federation.flower.errors import APP_FAILED
from federation.logs import where
from federation.messages import REFUSED

logger = logging.getLogger("consilience.vault")
ACTIONS = (
    "hello",
    "measure",
    "report",
    "offer",
    "model",
    "receipts",
    "head",
    "cosign",
    "cosigned",
    "epoch",
    "epoch_keys",
    "epoch_exchanges",
    "sum",
    "sum_readies",
    "sum_headers",
    "sum_acks",
)


class VaultShelf:
    """Opens each vault once and keeps it open: the data of a study are read once, and the ledger has one writer.

    A context manager, which closes them all.

    Parameters
    ----------
    throttle:
        Makes each vault's throttle; None for a process that plays all parties.
    """

    def __init__(self, throttle: Callable[[], Throttle] | None = None) -> None:
        self._throttle = throttle
        self._vaults: dict[Path, Vault] = {}
        self._lock = threading.Lock()

    def __call__(self, context: Context) -> Vault:
        """Return the vault at the node's `home`; run_config, which the coordinator can set, is never read.

        `passphrase-file` in the node configuration names the file that opens the keys; the home's node.yaml says it otherwise.

        Raises
        ------
        StorageError
            CSL-C509 when the node configuration names no home folder.
        """
        home = context.node_config.get("home")
        if not isinstance(home, str):
            raise StorageError(
                "CSL-C509",
                "The node has no home folder.",
                "Start the node with --node-config 'home=\"/path/to/home\"'.",
            )
        path = Path(home).resolve()
        with self._lock:
            if path not in self._vaults:
                file = context.node_config.get("passphrase-file")
                keys = unlock(Home(path), Path(file) if isinstance(file, str) else None)
                throttle = self._throttle() if self._throttle is not None else None
                self._vaults[path] = Vault.open(path, keys, throttle=throttle)
            return self._vaults[path]

    def close(self) -> None:
        """Close every vault; one that is asked for later is opened again."""
        with self._lock:
            while self._vaults:
                self._vaults.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Answers(Protocol):
    """Whatever answers a message: a vault."""

    def answer(self, message_type: str, request: RecordDict) -> RecordDict: ...  # noqa: D102


def respond(find_vault: Callable[[Context], Answers], message: Message, context: Context) -> Message:
    """Answer one message of whatever type by the vault of the context's node; what a type means is the vault's to say.

    Nothing that goes wrong is told to whoever asked, since an error's text may quote a customer: Flower's own error reply carries the same
    word as every refusal, and the log says where it went wrong.
    """
    try:
        reply = find_vault(context).answer(message.metadata.message_type, message.content)
    except Exception as error:  # noqa: BLE001 - the process's boundary
        logger.error("no answer to %.40r: %s", message.metadata.message_type, where(error))
        return Message(error=Error(code=APP_FAILED, reason=REFUSED), reply_to=message)
    return Message(reply, reply_to=message)


def make_app(find_vault: Callable[[Context], Vault]) -> ClientApp:
    """Return a ClientApp that answers the protocol's exact message types, and no alias of them; types that Flower does not route to it
    fail in Flower, before any vault is asked."""
    app = ClientApp()
    handle = partial(respond, find_vault)
    app.train()(handle)
    app.evaluate()(handle)
    for action in ACTIONS:
        app.query(action)(handle)
    return app


app = make_app(VaultShelf(Throttle))
