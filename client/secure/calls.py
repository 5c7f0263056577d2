"""The message types of secure sums, and what answers each."""

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict

from client.gate import Gate
from client.rooms import Rooms
from client.secure.epochs import Epochs
from client.secure.store import Secrets
from client.secure.sums import Sums
from client.studies import Studies
from federation.charter import Charter
from privacy.ledger import Ledger
from privacy.randomness import RandomSource


def sum_answerers(
    charter: Charter,
    identity: Ed25519PrivateKey,
    member: str,
    *,
    ledger: Ledger,
    gate: Gate,
    studies: Studies,
    rooms: Rooms,
    secrets: Secrets,
    source: RandomSource,
) -> dict[str, Callable[[RecordDict], RecordDict]]:
    """Return what answers a study's set-up, and the four calls of each of its sums; parameters as of `Epochs` and `Sums`."""
    epochs = Epochs(
        charter, identity, member, ledger=ledger, gate=gate, studies=studies, secrets=secrets, source=source
    )
    sums = Sums(
        charter,
        identity,
        member,
        ledger=ledger,
        gate=gate,
        studies=studies,
        rooms=rooms,
        secrets=secrets,
        source=source,
    )
    return {
        "query.epoch": epochs.keys,
        "query.epoch_keys": epochs.exchanges,
        "query.epoch_exchanges": epochs.agreed,
        "query.sum": sums.ready,
        "query.sum_readies": sums.masked,
        "query.sum_headers": sums.acknowledged,
        "query.sum_acks": sums.revealed,
    }
