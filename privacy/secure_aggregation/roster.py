"""Who adds up together, by whose keys, and how many must take part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from federation.charter import Charter
from federation.errors import ConsilienceError, IntegrityError, PolicyError
from federation.secure import Statement, verify_statement

LEAST_BESIDE_COLLUDERS = 3


class Signed(Protocol):
    """A statement with its member's signature (128 hexadecimal digits)."""

    @property
    def message(self) -> Statement:
        """The statement."""
        ...

    @property
    def signature(self) -> str:
        """The signature."""
        ...


S = TypeVar("S", bound=Signed)


@dataclass(frozen=True)
class Roster:
    """The members of one epoch.

    Attributes
    ----------
    digest:
        The charter's digest.
    coordinator:
        The coordinator's Ed25519 key, 64 hexadecimal digits.
    keys:
        Member -> Ed25519 key, of those who take part.
    n_min, c:
        How many must survive, and how many of the members may collude with the coordinator: n_min >= c + 3.

    Raises
    ------
    PolicyError
        CSL-P801 when n_min is below c + 3 or above the number of members.
    """

    digest: str
    coordinator: str
    keys: Mapping[str, str]
    n_min: int
    c: int

    def __post_init__(self) -> None:
        check_terms(self.n_min, self.c)
        if self.n_min > len(self.keys):
            raise PolicyError(
                "CSL-P801",
                f"A sum over at least {self.n_min} members cannot be made by {len(self.keys)}.",
                "Wait for more members, or plan the study with a smaller n_min.",
            )

    @classmethod
    def of(cls, charter: Charter, members: Sequence[str], n_min: int, c: int) -> "Roster":
        """Return the roster of some of a charter's members. Raises as the constructor, and CSL-F203."""
        keys = {member: charter.member(member).key for member in sorted(members)}
        return cls(charter.digest(), charter.coordinator_key, keys, n_min, c)

    def survivors_needed(self, asked: int) -> int:
        """Return the least number of survivors among `asked` members: no two disjoint sets of so many exist, colluders apart."""
        return max(self.n_min, (asked + self.c) // 2 + 1)

    def key(self, member: str) -> str:
        """Return a member's key. Raises IntegrityError CSL-P802 when it does not take part."""
        if member not in self.keys:
            raise IntegrityError(
                "CSL-P802", "A statement names a member that does not take part.", "The sum was stopped: ask again."
            )
        return self.keys[member]

    def check(self, statements: Sequence[Signed], names: Sequence[str]) -> None:
        """Check that statements are sorted by their members' names, each once, all of this roster, and signed by their members.

        Parameters
        ----------
        names:
            The members that the statements claim to be of, in the same order.

        Raises
        ------
        IntegrityError
            CSL-P803 for another order or a name twice, CSL-P802 for a stranger, CSL-F202 for a wrong signature.
        """
        if list(names) != sorted(set(names)):
            raise IntegrityError(
                "CSL-P803",
                "Statements are not sorted by their members' names, or one stands twice.",
                "The sum was stopped: both sides must run the same release.",
            )
        for statement, name in zip(statements, names, strict=True):
            verify_statement(statement.message, statement.signature, self.key(name))


def check_terms(n_min: int, c: int) -> None:
    """Refuse terms under which a sum would show too much. Raises PolicyError CSL-P801."""
    if c < 0 or n_min < c + LEAST_BESIDE_COLLUDERS:
        raise PolicyError(
            "CSL-P801",
            f"n_min {n_min} is below c + {LEAST_BESIDE_COLLUDERS} with c {c}: beside the colluders three members must remain.",
            "Raise n_min, or lower c.",
        )


def out_of_order(what: str) -> ConsilienceError:
    """Return the refusal of a call that does not fit where the sum stands."""
    return IntegrityError(
        "CSL-P804", f"A call came out of order: {what}.", "Nothing was opened by this call: ask for the sum anew."
    )
