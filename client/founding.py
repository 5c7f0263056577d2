"""The institution's side of a charter: its own card, and what is checked before it signs or pins anything.

Nobody else can check these things: that the charter's row of this institution holds its own keys and says what it declared itself.
That the other rows are those of the other institutions is what their signatures say, and the digest that people compare by telephone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from client.home import Home
from client.node_key import node_key_line
from client.rotation import next_key_file
from federation.charter import Charter, Declaration, Member, Title, check_successor
from federation.document import Document, load_yaml
from federation.errors import DocumentError, IntegrityError
from federation.founding import CharterFile, MemberCard
from federation.words import is_digest_of
from privacy.keys import read_public
from privacy.ledger import LedgerReader


class Membership(Document):
    """`membership.yaml`: what an institution says of itself, its title and the number of customers for each contract."""

    title: Title
    declares: Annotated[tuple[Declaration, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [item.contract for item in self.declares]
        if len(set(names)) != len(names):
            raise ValueError("each contract is declared once")
        return self


@dataclass(frozen=True)
class Own:
    """The public parts of a home: its member's identifier, identity key, prepared next key (or None), and node key."""

    member: str
    identity: str
    upcoming: str | None
    node_key: str

    def key_file(self, home: Home, key: str) -> Path:
        """Return the file of one of the two identity keys, by its public half."""
        return home.identity_key if key == self.identity else next_key_file(home)


def own_of(home: Home) -> Own:
    """Read the public parts of a home; no passphrase is needed.

    Raises
    ------
    ConsilienceError
        As `client.node_key.node_key_line`, `privacy.keys.read_public` and `privacy.ledger.LedgerReader.read`.
    """
    identity = read_public(home.identity_key)
    with LedgerReader.read(home.ledger_file, identity) as reader:
        member = reader.state().member
    assert member is not None
    upcoming = next_key_file(home)
    return Own(member, identity, read_public(upcoming) if upcoming.exists() else None, node_key_line(home))


def card_of(home: Home, own: Own, federation: str | None, membership: Membership) -> MemberCard:
    """Return the card of an institution, still unsigned; it names the next identity key where one is prepared.

    Parameters
    ----------
    federation:
        The federation's name; that of the pinned charter where None is given.

    Raises
    ------
    DocumentError
        CSL-C456 when nothing says which federation; CSL-C457 when it is another than the one of the pinned charter.
    """
    pinned = pinned_charter(home)
    name = federation or (pinned.federation if pinned is not None else None)
    if name is None:
        raise DocumentError(
            "CSL-C456",
            "No charter is pinned here, so nothing says for which federation the card is.",
            "Give --federation NAME, as the coordinator calls it.",
        )
    if pinned is not None and pinned.federation != name:
        raise DocumentError(
            "CSL-C457",
            f"This vault belongs to the federation {pinned.federation}, not to {name}.",
            "Make another vault for another federation: budgets are counted for each apart.",
        )
    member = Member(
        id=own.member,
        title=membership.title,
        key=own.upcoming or own.identity,
        declares=membership.declares,
        node_key=own.node_key,
    )
    return MemberCard(federation=name, member=member)


def pinned_charter(home: Home) -> Charter | None:
    """Return the charter that is pinned, or None where none is yet. Raises as `Home.charter`."""
    return home.charter() if home.pin_file.exists() else None


def check_follows(pinned: Charter | None, charter: Charter) -> None:
    """Check that a charter has an address, and is the pinned one, its successor, or the first here.

    Raises
    ------
    DocumentError
        CSL-C458 when it names no address.
    IntegrityError
        CSL-F210 when it does not follow the pinned one.
    """
    if charter.link is None:
        raise DocumentError(
            "CSL-C458",
            "This charter names no address of the coordinator: it is one of a simulation.",
            "Ask the coordinator for the charter of the federation.",
        )
    if pinned is not None and pinned.digest() != charter.digest():
        check_successor(pinned, charter)


def check_own_row(charter: Charter, own: Own, pinned: Charter | None) -> Member:
    """Check that a charter names this institution with its own keys, and return its row.

    Raises
    ------
    IntegrityError
        CSL-C459 when it is not a member; CSL-C460 for another identity key, CSL-C461 for another node key.
    """
    row = next((member for member in charter.members if member.id == own.member), None)
    if row is None:
        left = pinned is not None and any(member.id == own.member for member in pinned.members)
        how = "no longer names" if left else "does not name"
        raise IntegrityError(
            "CSL-C459",
            f"This charter {how} {own.member} as a member; only members sign and pin it.",
            "If you leave the federation, stop the node and keep the home: nothing more is to be signed. If not, send "
            "the coordinator a card by `consilience node card`.",
        )
    if row.key not in (own.identity, own.upcoming):
        raise IntegrityError(
            "CSL-C460",
            f"This charter names an identity key for {own.member} that is not in this home.",
            "Do not sign. Send the coordinator a new card by `consilience node card`, and ask how that key came there.",
        )
    if row.node_key != own.node_key:
        raise IntegrityError(
            "CSL-C461",
            f"This charter names a node key for {own.member} that is not in this home.",
            "Do not sign. Send the coordinator a new card by `consilience node card`, and ask how that key came there.",
        )
    return row


def check_declared(row: Member, home: Home) -> None:
    """Check that a row says what `membership.yaml` says.

    Raises
    ------
    IntegrityError
        CSL-C462 when it says something else.
    DocumentError
        CSL-F103 to F105 when membership.yaml cannot be read.
    """
    membership = load_yaml(home.membership_file, Membership)
    same = sorted(row.declares, key=_name) == sorted(membership.declares, key=_name)
    if row.title != membership.title or not same:
        raise IntegrityError(
            "CSL-C462",
            f"This charter says something else of {row.id} than {home.membership_file}: another "
            f"{'declaration' if row.title == membership.title else 'title'}.",
            "Do not sign. Correct membership.yaml, or send the coordinator a new card by `consilience node card`.",
        )


def _name(declaration: Declaration) -> str:
    return declaration.contract


def check_confirmed(charter: Charter, text: str) -> None:
    """Check the 24 words, or the digest, that somebody else read out.

    Raises
    ------
    IntegrityError
        CSL-C463 when they are another charter's.
    DocumentError
        CSL-F220 to F222 when they are no digest at all.
    """
    if not is_digest_of(text, charter.digest()):
        raise IntegrityError(
            "CSL-C463",
            "These are the words of another charter than the one in this file.",
            "Do not accept it. Ask a member whose number you know which charter they hold; somebody may have exchanged the "
            "file on its way.",
        )


def contract_lines(file: CharterFile) -> list[str]:
    """Return one line for each contract in a file: what a member that signs lets studies ask for."""
    return [
        f"{item.name}, version {item.version}: {item.title} ({len(item.columns)} columns from {item.source}; "
        f"label: {item.label.meaning})"
        for item in file.contracts
    ]
