"""How a vault agrees on pairwise keys with the other members of a study, before its first sum.

Three calls, each answered by the same bytes when it comes again. A later attempt begins anew, with fresh keys, as long as no sum was asked
for; from then on the keys stay, because what was masked under them must be opened under them or not at all.
"""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict

from client.gate import Gate
from client.secure.granted import granted_study, roster_of
from client.secure.store import Agreed, EpochState, Secrets
from client.studies import Opened, Studies
from federation.charter import Charter
from federation.errors import IntegrityError, PolicyError
from federation.messages import pack, unpack
from federation.secure import (
    EpochExchanges,
    EpochKeys,
    EpochReady,
    EpochRequest,
    Exchanges,
    KeyExchange,
    SignedExchange,
    sign_statement,
)
from privacy.ledger import Ledger
from privacy.randomness import RandomSource
from privacy.secure_aggregation.derivation import digest_of
from privacy.secure_aggregation.epoch import (
    KeysMade,
    KeysSent,
    derive_roots,
    keys_digest,
    make_keys,
    send_keys,
)


class Epochs:
    """The set-ups of one vault's studies.

    Parameters
    ----------
    charter, identity, member:
        Who is in the federation, the key that statements are signed with, and the institution's identifier.
    ledger, gate, studies, secrets:
        The vault's.
    source:
        Where fresh bytes come from.
    """

    def __init__(
        self,
        charter: Charter,
        identity: Ed25519PrivateKey,
        member: str,
        *,
        ledger: Ledger,
        gate: Gate,
        studies: Studies,
        secrets: Secrets,
        source: RandomSource,
    ) -> None:
        self._charter = charter
        self._identity = identity
        self._member = member
        self._ledger = ledger
        self._gate = gate
        self._studies = studies
        self._secrets = secrets
        self._source = source

    def keys(self, request: RecordDict) -> RecordDict:
        """Answer `query.epoch`: this member's fresh public keys.

        Raises
        ------
        PolicyError
            As `client.secure.granted.granted_study`; CSL-C479 when a sum was asked for already.
        IntegrityError
            CSL-F201 to F209 for the message, CSL-C478 for an attempt that was superseded.
        """
        header, _ = unpack(request, EpochRequest, self._charter.coordinator_key)
        study = granted_study(self._studies, self._gate, header.study)
        state = self._secrets.epoch(study.rid)
        if state is None or header.attempt > state.attempt:
            self._check_unused(study)
            state = EpochState(attempt=header.attempt, stage=make_keys(self._charter.digest(), study.rid, self._member))
            self._secrets.keep_epoch(study.rid, state)
        _check_attempt(state, header.attempt)
        return pack(self._identity, state.statement)

    def exchanges(self, request: RecordDict) -> RecordDict:
        """Answer `query.epoch_keys`: random bytes for each of the others, sealed to their keys.

        Raises
        ------
        PolicyError
            As `client.secure.granted`.
        IntegrityError
            CSL-F201 to F209 for the message; CSL-C478 for another attempt, or other keys than before; as
            `privacy.secure_aggregation.epoch.send_keys`.
        """
        header, _ = unpack(request, EpochKeys, self._charter.coordinator_key)
        study = granted_study(self._studies, self._gate, header.study)
        state = self._at(study, header.attempt)
        if isinstance(state.stage, KeysMade):
            roster = roster_of(self._charter, study, (item.message.id for item in header.keys))
            sent = send_keys(state.stage, roster, header.keys, self._source.bytes)
            state = EpochState(attempt=state.attempt, stage=sent)
            self._secrets.keep_epoch(study.rid, state)
        stage = state.stage
        assert not isinstance(stage, KeysMade)
        known = stage.secrets.keys if isinstance(stage, Agreed) else keys_digest(stage.keys)
        if keys_digest(header.keys) != known:
            raise _another("other keys than before were shown")
        return pack(
            self._identity, Exchanges(study=study.rid, member=self._member, exchanges=self._signed(stage.exchanges))
        )

    def agreed(self, request: RecordDict) -> RecordDict:
        """Answer `query.epoch_exchanges`: the pairwise keys are there, and one's own private keys gone.

        Raises
        ------
        PolicyError
            As `client.secure.granted`.
        IntegrityError
            CSL-F201 to F209 for the message; CSL-C478 for another attempt, out of order, or other content than before; as
            `privacy.secure_aggregation.epoch.derive_roots`.
        """
        header, _ = unpack(request, EpochExchanges, self._charter.coordinator_key)
        study = granted_study(self._studies, self._gate, header.study)
        state = self._at(study, header.attempt)
        received = digest_of([item.message for item in header.exchanges])
        if isinstance(state.stage, KeysSent):
            roster = roster_of(self._charter, study, (item.message.id for item in state.stage.keys))
            done = Agreed(
                statement=state.statement,
                exchanges=state.stage.exchanges,
                received=received,
                secrets=derive_roots(state.stage, roster, header.exchanges),
            )
            state = EpochState(attempt=state.attempt, stage=done)
            self._secrets.keep_epoch(study.rid, state)
        if not isinstance(state.stage, Agreed) or state.stage.received != received:
            raise _another("what the others sent is not what belongs here")
        return pack(self._identity, EpochReady(study=study.rid, member=self._member, keys=state.stage.secrets.keys))

    def _at(self, study: Opened, attempt: int) -> EpochState:
        state = self._secrets.epoch(study.rid)
        if state is None:
            raise _another("it was not begun")
        _check_attempt(state, attempt)
        return state

    def _check_unused(self, study: Opened) -> None:
        """Refuse to begin anew once a sum was asked for; the ledger remembers it where the secrets were lost."""
        held = self._ledger.reservation(study.rid)
        if self._secrets.numbers(study.rid) or (held is not None and any(held.released.values())):
            raise PolicyError(
                "CSL-C479",
                "A sum of the study was asked for already: its keys are not made again.",
                "Go on with the study's sums, or plan a new study.",
            )

    def _signed(self, exchanges: tuple[KeyExchange, ...]) -> tuple[SignedExchange, ...]:
        return tuple(SignedExchange(message=item, signature=sign_statement(self._identity, item)) for item in exchanges)


def _check_attempt(state: EpochState, attempt: int) -> None:
    if state.attempt != attempt:
        raise _another(f"it stands in attempt {state.attempt}, not {attempt}")


def _another(what: str) -> IntegrityError:
    return IntegrityError(
        "CSL-C478",
        f"A call does not fit where the study's set-up stands: {what}.",
        "Repeat the call exactly, or begin the set-up anew with a later attempt.",
    )
