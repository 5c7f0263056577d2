"""How the coordinator puts a charter together: an outline of contracts and members, the draft that follows from it, and its sealing.

The outline is what the coordinator decides; the draft is derived from it, from this home's keys and configuration, and from the
charter that is pinned. Members sign the draft's digest, so a change of the outline is another draft, and signatures under the old one
count no more.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from federation.charter import COORDINATOR, Charter, Link, Member, PinnedContract, SealedCharter
from federation.contract import FeatureContract
from federation.document import Document
from federation.errors import DocumentError, IntegrityError, StorageError
from federation.files import atomic_write
from federation.founding import (
    CharterFile,
    CharterSignature,
    MemberCard,
    as_file,
    changes,
    check_file,
    collect,
    missing,
    pin,
    read_paper,
)
from federation.founding import sign_charter as sign
from privacy.keys import read_public
from server.home import CoordinatorHome
from server.unlock import Opener, unlock_identity


class Outline(Document):
    """Contracts and members of the next charter; both sorted by name."""

    format: Literal["consilience-outline-1"] = "consilience-outline-1"
    contracts: Annotated[tuple[FeatureContract, ...], Field(min_length=1)]
    members: tuple[Member, ...] = ()


def app_digest() -> str:
    """Return the digest of the app that this installation pushes; vaults answer the one in the charter alone."""
    from federation.flower.bundle import bundle_digest  # noqa: PLC0415 - loads Flower, which most commands do not need

    return bundle_digest()


def begin(
    base: Outline | None, contracts: Sequence[FeatureContract], leave: Sequence[str] = (), drop: Sequence[str] = ()
) -> Outline:
    """Return the outline of a first charter, or of one that goes on from the members and contracts of another.

    Parameters
    ----------
    base:
        What it goes on from: the pinned charter's outline, or the present one; None for a first charter.
    contracts:
        Feature contracts to pin; one of the same name takes the place of the earlier one.
    leave, drop:
        Members who leave, and contracts that are pinned no more.

    Raises
    ------
    DocumentError
        CSL-S155 for a member that there is not, CSL-S161 without any contract, CSL-S162 for a contract given twice or one to drop that
        is not pinned, CSL-S153 when a member still declares one that is dropped.
    """
    members = {} if base is None else {member.id: member for member in base.members}
    kept = {} if base is None else {contract.name: contract for contract in base.contracts}
    for name in leave:
        _take(members, name)
    for name in drop:
        if kept.pop(name, None) is None:
            raise DocumentError(
                "CSL-S162",
                f"The contract {name} cannot be dropped: it is not pinned.",
                "See `coordinator charter show`.",
            )
    given = {contract.name: contract for contract in contracts}
    if len(given) != len(contracts):
        raise DocumentError(
            "CSL-S162", "Two files hold a contract of the same name.", "Give each contract once, in its newest version."
        )
    kept |= given
    if not kept:
        raise DocumentError(
            "CSL-S161",
            "A charter pins one feature contract at least.",
            "Give one by --contract, as configs/contracts/rfm.yaml.",
        )
    for member in members.values():
        _check_declarations(member, kept)
    return Outline(contracts=_by_name(kept), members=_by_id(members))


def add(outline: Outline, card: MemberCard, federation: str) -> Outline:
    """Return the outline with the member of a card, which takes the place of an earlier row of the same identifier.

    `open_card` must have checked its signature.

    Raises
    ------
    DocumentError
        CSL-S152 for a card of another federation, CSL-S153, CSL-S154 for a declaration that does not fit the contracts, CSL-S159 for one
        without node key or with the coordinator's name, CSL-S156 when another member has one of its keys.
    """
    member = card.member
    if card.federation != federation:
        raise DocumentError(
            "CSL-S152",
            f'The card is for the federation "{card.federation}", and this one is "{federation}".',
            f"Ask {member.id} for a card by `node card --federation {federation}`.",
        )
    if member.node_key is None or member.id == COORDINATOR:
        raise DocumentError(
            "CSL-S159",
            f"The card of {member.id} has no node key, or the name that stands for the coordinator.",
            "Ask for a card by `node card`, under another identifier if need be.",
        )
    _check_declarations(member, {contract.name: contract for contract in outline.contracts})
    members = {item.id: item for item in outline.members} | {member.id: member}
    for other in members.values():
        if other.id != member.id and (other.key == member.key or other.node_key == member.node_key):
            raise DocumentError(
                "CSL-S156",
                f"{member.id} and {other.id} name the same key.",
                "Every institution makes its own keys by `node init`; ask both for their cards again.",
            )
    return outline.model_copy(update={"members": _by_id(members)})


def remove(outline: Outline, member_id: str) -> Outline:
    """Return the outline without a member.

    Raises
    ------
    DocumentError
        CSL-S155 when it is not in the outline.
    """
    members = {item.id: item for item in outline.members}
    _take(members, member_id)
    return outline.model_copy(update={"members": _by_id(members)})


def compose(outline: Outline, federation: str, key: str, link: Link, pinned: Charter | None) -> CharterFile | None:
    """Return the draft that follows from an outline, or None while it has no member.

    Raises
    ------
    DocumentError
        CSL-S157 when it does not make a charter; CSL-S163 when the pinned charter is of another federation.
    """
    if not outline.members:
        return None
    if pinned is not None and pinned.federation != federation:
        raise DocumentError(
            "CSL-S163",
            f'The pinned charter is of "{pinned.federation}", and coordinator.yaml says "{federation}".',
            "Correct `federation` in coordinator.yaml.",
        )
    try:
        charter = Charter(
            federation=federation,
            version=1 if pinned is None else pinned.version + 1,
            prev=None if pinned is None else pinned.digest(),
            coordinator_key=key,
            link=link,
            members=outline.members,
            contracts=tuple(PinnedContract(name=item.name, sha256=item.digest()) for item in outline.contracts),
        )
    except ValidationError as error:
        reasons = "; ".join(
            str(item["msg"]).removeprefix("Value error, ") for item in error.errors(include_input=False)
        )
        raise DocumentError(
            "CSL-S157", f"This does not make a charter: {reasons}.", "Correct the cards, and add them again."
        ) from error
    return CharterFile(charter=charter, contracts=outline.contracts)


def _take(members: dict[str, Member], name: str) -> None:
    if members.pop(name, None) is None:
        raise DocumentError(
            "CSL-S155", f'There is no member "{name}".', "See `coordinator charter show` for the members' identifiers."
        )


def _check_declarations(member: Member, contracts: dict[str, FeatureContract]) -> None:
    for item in member.declares:
        contract = contracts.get(item.contract)
        if contract is None:
            raise DocumentError(
                "CSL-S153",
                f"{member.id} declares customers for {item.contract}, which this charter does not pin.",
                "Draft it with --contract, or ask for a card without it.",
            )
        if (contract.source == "transactions") != (item.as_of is not None):
            wants = "needs" if contract.source == "transactions" else "must not have"
            raise DocumentError(
                "CSL-S154",
                f"{member.id}: a declaration for {item.contract} {wants} as_of, window_days and horizon_days.",
                "Ask for a card that says so.",
            )


def _by_id(members: dict[str, Member]) -> tuple[Member, ...]:
    return tuple(members[name] for name in sorted(members))


def _by_name(contracts: dict[str, FeatureContract]) -> tuple[FeatureContract, ...]:
    return tuple(contracts[name] for name in sorted(contracts))


class Papers:
    """The folder `charter/` of a home: outline, draft, what has been collected, what is sealed."""

    def __init__(self, home: CoordinatorHome, app: str) -> None:
        """Take the home, and the digest of the app that it pushes."""
        self._home = home
        self._app = app

    def pinned(self) -> CharterFile | None:
        """Return the charter in force with its contracts, or None where none is pinned yet.

        Raises
        ------
        IntegrityError
            CSL-F204 when it is not the one that is pinned, CSL-F211 when contracts differ from those that it pins.
        """
        home = self._home
        if not home.charter_file.exists() and not home.pin_file.exists():
            return None
        charter = home.charter()
        whole = SealedCharter.from_canonical(home.charter_file.read_bytes())
        file = as_file(whole, (home.contract(item.name) for item in charter.contracts))
        check_file(file)
        return file

    def outline(self) -> Outline:
        """Return the outline that is being worked on.

        Raises
        ------
        StorageError
            CSL-S150 when there is none, or when its charter is sealed already.
        """
        draft = self.draft()
        if self._home.outline_file.exists() and not self._is_pinned(draft):
            return read_paper(self._home.outline_file, Outline)
        raise StorageError(
            "CSL-S150",
            "No charter is being drafted, or the draft is sealed already.",
            "Begin the next one by `coordinator charter draft`.",
        )

    def start(
        self, contracts: Sequence[FeatureContract], leave: Sequence[str], drop: Sequence[str], again: bool
    ) -> Outline:
        """Return the outline of the next charter: after the pinned one, or (`again`) after the draft that is there.

        Raises
        ------
        StorageError
            CSL-S164 when there is a draft and `again` is not given, CSL-S150 for the opposite.
        DocumentError
            As `begin`.
        """
        if again:
            return begin(self.outline(), contracts, leave, drop)
        if self._home.outline_file.exists() and not self._is_pinned(self.draft()):
            raise StorageError(
                "CSL-S164",
                "A charter is being drafted already.",
                "Go on with `charter add-member`, or draft it again from the members that it has by --again.",
            )
        pinned = self.pinned()
        base = None if pinned is None else Outline(contracts=pinned.contracts, members=pinned.charter.members)
        return begin(base, contracts, leave, drop)

    def draft(self) -> CharterFile | None:
        """Return the draft, or None while there is none or it has no members."""
        return read_paper(self._home.draft_file, CharterFile) if self._home.draft_file.exists() else None

    def collected(self) -> CharterFile | None:
        """Return the draft with the signatures that have come in for it."""
        draft = self.draft()
        if draft is None or not self._home.collected_file.exists():
            return draft
        held = read_paper(self._home.collected_file, CharterFile)
        return held if held.charter == draft.charter else draft

    def write(self, outline: Outline) -> CharterFile | None:
        """Write an outline and the draft that follows from it, and return the draft."""
        draft = self._compose(outline)
        home = self._home
        atomic_write(home.outline_file, outline.canonical())
        home.collected_file.unlink(missing_ok=True)
        if draft is None:
            home.draft_file.unlink(missing_ok=True)
        else:
            atomic_write(home.draft_file, draft.canonical())
        return draft

    def seal(self, signatures: Iterable[CharterSignature], opener: Opener) -> CharterFile:
        """Add signatures and the coordinator's own; once all are there, write the sealed file and pin it. Returns what is collected.

        Raises
        ------
        StorageError
            CSL-S151 without a draft that has members.
        IntegrityError
            CSL-S158 when the draft is not what this home would draft now; CSL-F201, CSL-F202, CSL-F212 for a wrong signature.
        """
        self._finish_pinning()
        draft = self.collected()
        if draft is None:
            raise StorageError(
                "CSL-S151",
                "There is no draft with members.",
                "Draft one, and add the members' cards, before it is sealed.",
            )
        if not self._is_pinned(draft):
            self._check_fresh(draft)
        held = collect(draft, signatures)
        if COORDINATOR in missing(held):
            held = collect(held, [sign(unlock_identity(self._home, opener), held.charter, COORDINATOR)])
        atomic_write(self._home.collected_file, held.canonical())
        if not missing(held):
            atomic_write(self._home.sealed_file, held.canonical())
            pin(self._home.root, held)
        return held

    def _compose(self, outline: Outline) -> CharterFile | None:
        home, config, pinned = self._home, self._home.config(), self.pinned()
        try:
            link = Link(address=config.address, authority=home.authority_file.read_text("ascii"), app=self._app)
        except (OSError, ValueError) as error:
            raise IntegrityError(
                "CSL-S160",
                f"{home.authority_file} is not the certificate of an authority.",
                "Restore it from its backup.",
            ) from error
        charter = None if pinned is None else pinned.charter
        return compose(outline, config.federation, read_public(home.identity_key), link, charter)

    def _check_fresh(self, draft: CharterFile) -> None:
        now = self._compose(read_paper(self._home.outline_file, Outline))
        if now is None or now.charter != draft.charter:
            told = [] if now is None else changes(draft.charter, now.charter)
            raise IntegrityError(
                "CSL-S158",
                f"The draft is not what this home would draft now. {' '.join(told) or 'Its members or its predecessor changed.'}",
                "Run `coordinator charter draft --again`, and let the members sign the new draft.",
            )

    def _is_pinned(self, draft: CharterFile | None) -> bool:
        if draft is None or not self._home.pin_file.exists():
            return False
        return self._home.pin_file.read_text("ascii", "replace").strip() == draft.charter.digest()

    def _finish_pinning(self) -> None:
        """Pin what an earlier call sealed and was cut off before all of it was pinned."""
        if not self._home.sealed_file.exists():
            return
        file, draft = read_paper(self._home.sealed_file, CharterFile), self.draft()
        if draft is not None and file.charter == draft.charter and not self._is_pinned(file):
            pin(self._home.root, file)
