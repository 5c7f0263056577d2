"""The institution's Flower ClientApp: hands each message to the vault named by the node's own configuration."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from client.home import Home
from client.unlock import unlock
from client.vault import Vault, where
from federation.errors import StorageError
from federation.messages import REFUSED

logger = logging.getLogger("consilience.vault")
CLIENT_APP_FAILED = 2  # Flower's ErrorCode.CLIENT_APP_RAISED_EXCEPTION
ACTIONS = ("hello", "offer", "model", "receipts", "head", "cosign", "cosigned")


class VaultShelf:
    """Opens each vault once and keeps it open: the data of a study are read once, and the ledger has one writer."""

    def __init__(self) -> None:
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
                self._vaults[path] = Vault.open(path, keys)
            return self._vaults[path]


def make_app(find_vault: Callable[[Context], Vault]) -> ClientApp:
    """Return a ClientApp that answers the protocol's exact message types, and no alias of them."""
    app = ClientApp()

    def handle(message: Message, context: Context) -> Message:
        try:
            reply = find_vault(context).answer(message.metadata.message_type, message.content)
        except Exception as error:  # noqa: BLE001 - the process's boundary
            logger.error("no answer to %.40r: %s", message.metadata.message_type, where(error))
            return Message(error=Error(code=CLIENT_APP_FAILED, reason=REFUSED), reply_to=message)
        return Message(reply, reply_to=message)

    app.train()(handle)
    app.evaluate()(handle)
    for action in ACTIONS:
        app.query(action)(handle)
    return app


app = make_app(VaultShelf())
