"""A Flower ServerApp and ClientApp of a simulated study, and the session that sends rounds through a grid.

The ClientApp answers two messages: `query.place`, by which its node says which institution it is, and `train`, with a release. The
coordinator's side never sees rows; an institution reads those of its own place, whatever it is asked. Vectors travel as numpy arrays
(`flwr.app.Array`: `numpy.save` without pickle), everything else as one JSON document.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from federation.errors import ConsilienceError, FederationError
from federation.flower.errors import APP_FAILED
from federation.flower.local import LINK_NODE_ID, identify
from federation.flower.simulation import PARTITION_KEY
from simulations.engines.institution import Office, Order
from simulations.engines.work import Floats, Job, Work

Exchange = Callable[[Sequence[Message]], Iterable[Message]]
"""Sends messages and returns their replies, in any order; one that does not come may be missing."""

_ARRAYS, _ORDER, _NODE, _CONTROL = "arrays", "order", "node", "control"
_TASK = 1
_TOLD = 400  # last characters of an institution's error, which are said again


def client_app(find_office: Callable[[], Office]) -> ClientApp:
    """Return the institutions' app.

    Parameters
    ----------
    find_office:
        Called for every message, in the process that answers it: returns where the rows are. It is sent to that process along with the
        app, so that it must be small.
    """
    app = ClientApp()
    app.query("place")(_say_place)
    app.train()(partial(_train, find_office))
    return app


def server_app(run: Callable[[Grid], None]) -> ServerApp:
    """Return a coordinator's app that hands its grid to `run` and ends when that returns."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _context: Context) -> None:
        run(grid)

    return app


def _place(context: Context) -> int:
    place = context.node_config[PARTITION_KEY]
    assert isinstance(place, int)
    return place


def _say_place(message: Message, context: Context) -> Message:
    return Message(RecordDict({_NODE: ConfigRecord({"place": _place(context)})}), reply_to=message)


def _train(find_office: Callable[[], Office], message: Message, context: Context) -> Message:
    arrays, told = message.content.array_records[_ARRAYS], message.content.config_records[_ORDER]["order"]
    assert isinstance(told, bytes)
    order = Order.model_validate_json(told)
    weights, control = arrays["weights"].numpy(), arrays["control"].numpy() if "control" in arrays else None
    own = None if control is None else _own_control(context, len(control))
    correction = None if control is None or own is None else control - own
    try:
        release = find_office().release(_place(context), order, weights, correction)
    except ConsilienceError as error:
        return Message(Error(code=APP_FAILED, reason=str(error)), reply_to=message)
    if correction is not None and order.local is not None:
        # Option II of SCAFFOLD; what is kept follows from what is released, so that it costs no privacy.
        moved = -correction - release.astype(np.float64) / (order.local.steps * order.local.rate)
        context.state[_CONTROL] = ArrayRecord({"own": Array(moved)})
    return Message(RecordDict({_ARRAYS: ArrayRecord({"release": Array(release)})}), reply_to=message)


def _own_control(context: Context, width: int) -> Floats:
    """Return c_i as the node kept it, float64 [P]; zero at first."""
    if _CONTROL not in context.state:
        return np.zeros(width)
    return np.asarray(context.state.array_records[_CONTROL]["own"].numpy(), dtype=np.float64)


class FlowerSession:
    """Sends each round's work to the institutions that are present, and adds up what they release.

    Parameters
    ----------
    job:
        What the institutions hold.
    grid:
        Has one node for each institution, in any order: each is asked which one it is.
    exchange:
        Sends messages and waits for the replies.

    Raises
    ------
    FederationError
        CSL-M216 when an institution answers with an error, CSL-M217 when one does not answer; so do `combine` and `releases`.
    """

    def __init__(self, job: Job, grid: Grid, exchange: Exchange) -> None:
        self._grid, self._exchange = grid, exchange
        self._width, self._count = job.layout.width, job.rows.institutions
        self._identify()
        asked = {node: Message(RecordDict(), node, "query.place", group_id="start") for node in grid.get_node_ids()}
        replies = self._ask(asked, "node")
        self._nodes = {_place_of(reply): node for node, reply in replies}
        if sorted(self._nodes) != list(range(self._count)):
            raise FederationError(
                "CSL-M217",
                f"{len(self._nodes)} of {self._count} institutions can be told apart.",
                "Start the simulation again.",
            )

    def combine(self, work: Work, factors: Floats) -> Floats:
        """Return the sum over present institutions of factors[i] times release i, float64 [P], added in the order of institutions."""
        total = np.zeros(self._width)
        for place, release in self._releases(work):
            total += factors[place] * release.astype(np.float64)
        return total

    def releases(self, work: Work) -> Floats:
        """Return every institution's release, float64 [K, P]; zero for who is absent."""
        found = np.zeros((self._count, self._width))
        for place, release in self._releases(work):
            found[place] = release
        return found

    def _releases(self, work: Work) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield place and release of everybody who is present, in order."""
        self._identify()
        vectors = {"weights": Array(np.asarray(work.weights, dtype=np.float64))}
        if work.local is not None and work.local.control is not None:
            vectors["control"] = Array(np.asarray(work.local.control, dtype=np.float64))
        asked = {int(place): self._request(work, int(place), vectors) for place in np.flatnonzero(work.present)}
        for place, reply in self._ask(asked, "institution"):
            yield place, reply.content.array_records[_ARRAYS]["release"].numpy()

    def _identify(self) -> None:
        """Messages take their run from the process, where another session may have been at work since."""
        identify(_TASK, self._grid.run.run_id, LINK_NODE_ID)

    def _request(self, work: Work, place: int, vectors: dict[str, Array]) -> Message:
        order = ConfigRecord({"order": Order.of(work, place).model_dump_json().encode()})
        content = RecordDict({_ARRAYS: ArrayRecord(dict(vectors)), _ORDER: order})
        return Message(content, self._nodes[place], "train", group_id=str(work.number))

    def _ask(self, asked: dict[int, Message], whom: str) -> list[tuple[int, Message]]:
        """Return everybody's reply, in the order in which they were asked."""
        replies = {reply.metadata.reply_to_message_id: reply for reply in self._exchange(list(asked.values()))}
        found = [(key, replies.get(message.metadata.message_id)) for key, message in asked.items()]
        for key, reply in found:
            if reply is not None and reply.has_error():
                raise FederationError(
                    "CSL-M216",
                    f"Simulated {whom} {key} failed: {(reply.error.reason or 'no reason given').strip()[-_TOLD:]}",
                    "Correct what it says; if it says nothing of the study, run on another engine and report the difference.",
                )
        silent = [key for key, reply in found if reply is None]
        if silent:
            raise FederationError(
                "CSL-M217",
                f"{len(silent)} simulated {whom}s did not answer, the first of them number {silent[0]}.",
                "See whether memory ran out; take fewer processes, or the local engine.",
            )
        return [(key, reply) for key, reply in found if reply is not None]


def _place_of(reply: Message) -> int:
    place = reply.content.config_records[_NODE]["place"]
    assert isinstance(place, int)
    return place
