"""What a coordinator with its colluders can open from all that it was ever told.

A masked vector is its vector plus one keystream for its own key and one for each pair. The sum of the vectors of some honest members is
open to whoever knows all of their own keys and every pairwise key between them and the rest; nothing smaller is, for each unknown keystream
looks like uniform words. With the honest members as nodes and the pairwise keys that are unknown as edges, the smallest sums that can be
opened are therefore the connected parts of which every member's own key and masked vector are known. The attacker computes them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from federation.secure import Reveal
from privacy.secure_aggregation.derivation import pair_key
from privacy.secure_aggregation.epoch import EpochSecrets
from privacy.secure_aggregation.masking import add_streams, from_bytes, from_words, self_key


@dataclass
class View:
    """What is known of one transcript: who was ready, masked vectors, and all that honest members ever revealed."""

    asked: tuple[str, ...]
    w: int
    d: int
    vectors: dict[str, bytes] = field(default_factory=dict)
    reveals: dict[str, list[Reveal]] = field(default_factory=dict)

    def note(self, said: Reveal) -> None:
        self.reveals.setdefault(said.id, []).append(said)

    def shown(self, one: str, other: str) -> bytes | None:
        """Return the key between two honest members, if either showed it."""
        for teller, about in ((one, other), (other, one)):
            for said in self.reveals.get(teller, []):
                for pair in said.pairs:
                    if pair.id == about:
                        return bytes.fromhex(pair.key)
        return None


@dataclass
class Attacker:
    """The coordinator with colluders, whose pairwise keys it has."""

    colluders: Mapping[str, EpochSecrets] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)

    def open(self, t: str) -> dict[frozenset[str], NDArray[np.int64]]:
        """Return the smallest sums over honest members that can be opened from transcript `t`, by their members."""
        view = self.views[t]
        honest = [name for name in view.asked if name not in self.colluders]
        return {
            part: self._sum(t, view, part)
            for part in self._parts(view, honest)
            if all(name in view.vectors and name in view.reveals for name in part)
        }

    def _parts(self, view: View, honest: list[str]) -> Iterable[frozenset[str]]:
        left = set(honest)
        while left:
            part, border = set(), {min(left)}
            while border:
                part |= border
                border = {other for other in left - part if any(view.shown(one, other) is None for one in part)}
            left -= part
            yield frozenset(part)

    def _sum(self, t: str, view: View, part: frozenset[str]) -> NDArray[np.int64]:
        transcript = bytes.fromhex(t)
        total = np.zeros(view.d, dtype=np.uint32 if view.w == 32 else np.uint64)
        for name in part:
            total += from_bytes(view.vectors[name], view.w, view.d)
            add_streams(total, [(self_key(bytes.fromhex(view.reveals[name][0].b), transcript, name), -1)])
            for other in set(view.asked) - part:
                colluder = self.colluders.get(other)
                key = view.shown(name, other) if colluder is None else None
                if colluder is not None:
                    key = pair_key(colluder.root(name), transcript, name, other)
                assert key is not None
                add_streams(total, [(key, -1 if other > name else 1)])
        return from_words(total)
