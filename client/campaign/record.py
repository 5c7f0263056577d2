"""What a campaign is, in documents: its arms, its window, whom it was drawn from, and what came back."""

from datetime import date, timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from client.campaign.draw import CONTROL, ChosenBy
from federation.contract import Name, Text
from federation.document import Document
from federation.errors import DocumentError
from federation.signing import Hex32

MOST_ARMS = 4
SMALLEST_CONTROL = 0.01
LONGEST = timedelta(days=366)
SEGMENTS = (
    "champions",
    "loyal",
    "potential_loyal",
    "new",
    "promising",
    "need_attention",
    "about_to_sleep",
    "at_risk",
    "sleeping_high_value",
    "hibernating",
    "lost",
    "other",
)
"""The segments of the campaign contract, by the trade's names."""
OTHER = "other"

Count = Annotated[int, Field(ge=0)]
Money = Annotated[float, Field(ge=0, le=1e6)]


class Arm(Document):
    """One way of approaching customers: its share of the members, and what one contact costs."""

    name: Name
    share: Annotated[float, Field(gt=0, lt=1)]
    cost: Money


class Window(Document):
    """When customers are contacted, and until when an outcome counts (all days included)."""

    contact_from: date
    contact_until: date
    outcome_until: date

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.contact_from <= self.contact_until <= self.outcome_until:
            raise ValueError("contact begins before it ends, and outcomes count until that day or later")
        if self.outcome_until - self.contact_from > LONGEST:
            raise ValueError(f"outcomes count until {LONGEST.days} days after the first contact at most")
        return self

    def check_after(self, draw: date) -> None:
        """Refuse a window that begins before the draw, or long after it.

        Raises
        ------
        DocumentError
            CSL-C797.
        """
        if not draw <= self.contact_from <= draw + LONGEST:
            raise DocumentError(
                "CSL-C797",
                f"Contacts would begin on {self.contact_from}, and the draw is on {draw}: who was approached before it was not drawn.",
                f"Let contacts begin on the day of the draw or within {LONGEST.days} days after it.",
            )


class Design(Document):
    """What is decided before the draw. `random_share` of the members are not on the model's list; `unit` is the money's."""

    name: Name
    arms: Annotated[tuple[Arm, ...], Field(min_length=1, max_length=MOST_ARMS)]
    random_share: Annotated[float, Field(ge=0, le=0.9)]
    seed: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[ -~]+$")]
    window: Window
    unit: Text

    @model_validator(mode="after")
    def _arms_fit(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names) or CONTROL in names:
            raise ValueError(f"arms have names of their own, and none is called {CONTROL}")
        if self.control_share < SMALLEST_CONTROL - 1e-9:
            raise ValueError(
                f"the arms' shares add up to at most {1 - SMALLEST_CONTROL:g}: the rest is the control group"
            )
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The share of each arm."""
        return {arm.name: arm.share for arm in self.arms}

    @property
    def control_share(self) -> float:
        """The share that is held back."""
        return 1 - sum(arm.share for arm in self.arms)

    def cost_of(self, arm: str) -> float:
        """Return what a contact of an arm costs; nothing for the control group."""
        return next((item.cost for item in self.arms if item.name == arm), 0.0)


class Overlap(Document):
    """Members who are in another running campaign as well, because somebody allowed it."""

    campaign: Name
    customers: Count


class Source(Document):
    """Whom the campaign was drawn from: `eligible` may be contacted today, `not_eligible` stood on the list and may not be, `elsewhere`
    were left out because another campaign runs with them. `placed_by` says where the segments are from; empty where nothing said them."""

    study: Name
    model: Hex32
    listed_by: Text
    eligible: Count
    not_eligible: Count
    elsewhere: Count
    placed_by: Annotated[str, Field(max_length=400)]


class Drawn(Document):
    """How many customers of a decile may be chosen this way."""

    chosen_by: ChosenBy
    decile: Annotated[int, Field(ge=1, le=10)]
    eligible: Count


class OutcomeRecord(Document):
    """What came back: the file's digest, its rows, what was left out and why, and which outcomes it spoke of."""

    file_sha256: Hex32
    mapping_sha256: Hex32
    read: Text
    rows: Count
    matched: Count
    left_out: dict[Text, Count]
    noted: dict[Text, Count]
    spoken_of: tuple[Literal["conversion", "visit", "retained", "spend"], ...]


class CampaignRecord(Document):
    """A campaign's sidecar; `members` is how many each arm was given at the draw, `sha256` the digest of its members once opened."""

    design: Design
    drawn: Text
    source: Source
    population: tuple[Drawn, ...]
    members: dict[str, Count]
    overlaps: tuple[Overlap, ...]
    sha256: Hex32
    outcomes: OutcomeRecord | None = None
    closed: Text | None = None

    @property
    def status(self) -> str:
        """`open`, `outcomes in`, or `closed`."""
        if self.closed is not None:
            return "closed"
        return "open" if self.outcomes is None else "outcomes in"


def parse_arms(text: str, costs: str) -> tuple[Arm, ...]:
    """Read arms as `mail=0.4,call=0.4`, and their costs as one number for all or as `mail=0.6,call=4`.

    Raises
    ------
    DocumentError
        CSL-C782 when they cannot be read, or an arm has no cost.
    ValidationError
        When a name, a share or a cost is none.
    """
    shares = _numbers(text)
    if not shares:
        raise _not_arms("No arm is named.")
    each = {} if "=" in costs else dict.fromkeys(shares, _number(costs))
    paid = each or _numbers(costs)
    if set(paid) != set(shares):
        raise _not_arms("The costs are not those of the arms.")
    return tuple(Arm(name=name, share=share, cost=paid[name]) for name, share in shares.items())


def parse_day(text: str, what: str) -> date:
    """Return a day written in ISO 8601.

    Raises
    ------
    DocumentError
        CSL-C792.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DocumentError("CSL-C792", f'{what} "{text[:40]}" is no day.', "Write days as 2026-03-31.") from None


def _numbers(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        if not equals or name.strip() in found:
            raise _not_arms(f'"{part.strip()[:60]}" is not NAME=NUMBER, each name once.')
        found[name.strip()] = _number(number)
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _not_arms(f'"{text.strip()[:60]}" is no number.') from None


def _not_arms(why: str) -> DocumentError:
    return DocumentError(
        "CSL-C782",
        f"The campaign's design does not fit. {why}",
        "Write --arms mail=0.4,call=0.4 and --cost 0.6 or --cost mail=0.6,call=4; what is missing to 1 is the control group.",
    )
