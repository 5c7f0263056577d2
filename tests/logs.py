"""A ledger in memory, for tests of what is said about ledgers' heads: entries are leaf hashes, and nothing else."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from federation.merkle import append, leaf_hash, tree_root
from privacy.ledger.state import KeySince, State


@dataclass
class FakeLog:
    """Leaves of `name/number`; `keys` are the institution's, oldest first; `restores` as the ledger counts them."""

    name: str
    keys: tuple[str, ...]
    hashes: list[bytes] = field(default_factory=list)
    restores: int = 0
    heard: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def write(self, count: int) -> None:
        start = len(self.hashes)
        self.hashes += [leaf_hash(f"{self.name}/{number}".encode()) for number in range(start, start + count)]

    def state(self) -> State:
        frontier: tuple[bytes, ...] = ()
        for size, leaf in enumerate(self.hashes):
            frontier = append(size, frontier, leaf)
        return State(
            size=len(self.hashes),
            frontier=tuple(node.hex() for node in frontier),
            keys=tuple(KeySince(seq=number, key=key) for number, key in enumerate(self.keys)),
            restores=self.restores,
        )

    def leaves(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return iter(self.hashes[start:end])

    def witnessed(self, size: int, root: str, witnesses: Sequence[str]) -> None:
        assert root == tree_root(self.hashes, size).hex()
        self.heard.append((size, tuple(witness.split(" ")[0] for witness in witnesses)))
        self.write(1)
