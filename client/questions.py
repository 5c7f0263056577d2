"""What a policy needs to be told: one question for each answer, with its type, and what is proposed."""

import re
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic import Field as Limit

from federation.contract import Name, Text
from federation.signing import Hex32
from federation.study import Epsilon, Purpose
from privacy.policy import Consent, Days, Delta, Kept

Held = Annotated[
    str, Limit(pattern=r"^(hash:(0?\.[0-9]{1,18}|[1-9](\.[0-9]{1,17})?e-[0-9]{1,3})|position:[0-9]{1,15})$")
]
_PLAIN = ConfigDict(allow_inf_nan=False)


@dataclass(frozen=True)
class Question:
    """One answer that a policy needs.

    Attributes
    ----------
    name, words:
        The flag (or the key within a flag) that answers it, and the question in one line.
    kind:
        The type that the answer must have.
    default:
        What is proposed at a terminal; empty for none.
    several:
        Whether several values are given, joined by `+`.
    optional:
        Whether it may stay open.
    assumed:
        Whether its default also holds where nobody can be asked.
    form:
        What an answer must be whose type is a pattern, in words.
    """

    name: str
    words: str
    kind: Any
    default: str = ""
    several: bool = False
    optional: bool = False
    assumed: bool = False
    form: str = "of small letters, digits, underscores (and points, for purposes and consents), and begin with a letter"

    def value(self, text: str) -> Any:  # noqa: ANN401 - of the question's own type
        """Return the answer in its type. Raises ValueError in words where it does not fit."""
        if self.several:
            return [self._one(part) for part in re.split(r"[+\s]+", text.strip()) if part]
        return self._one(text.strip())

    def _one(self, text: str) -> Any:  # noqa: ANN401 - of the question's own type
        try:
            return TypeAdapter(self.kind, config=_PLAIN).validate_strings(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            message = f"It must be {self.form}" if first["type"] == "string_pattern_mismatch" else first["msg"]
            raise ValueError(message) from error


ONE = (
    Question("institution", "The institution's identifier, as the charter has it", Name),
    Question("issued", "First day in force", date, assumed=True),
    Question("expires", "From which day on is it no longer in force? A year is a good rhythm", date),
    Question("eyes", "How many officers approve a study that waits? 1, or 2 for four eyes", Literal["1", "2"], "2"),
    Question(
        "size",
        "Customers that the charter declares (the largest of the contracts); delta is at most 1/(100 x this)",
        Annotated[int, Limit(ge=1, le=1_000_000)],
        optional=True,
    ),
    Question("contact-consent", "The consent without which nobody stands on a name list", Consent, "contact"),
    Question(
        "mode",
        "open: studies come as they come; plan: slots fixed beforehand",
        Literal["open", "plan"],
        "open",
        assumed=True,
    ),
    Question(
        "filter",
        "How spending adds up, for good. tokens: close to the exact figure; rdp: one fixed order, simpler to recompute",
        Literal["tokens", "rdp"],
        "tokens",
        assumed=True,
    ),
    Question("period-days", "The period's budget holds within how many days on end?", Days, "365"),
    Question(
        "period-epsilon", "epsilon of the period's budget: 1 is strict, 3 is common, 10 promises little", Epsilon, "2.5"
    ),
    Question("period-delta", "delta of the period's budget", Delta, assumed=True),
    Question("life-epsilon", "epsilon of the life budget, which can never be changed", Epsilon, "6.0"),
    Question("life-delta", "delta of the life budget, which can never be changed", Delta, assumed=True),
    Question("order", "The order of rdp, for good", Annotated[int, Limit(ge=2, le=256)]),
    Question(
        "smallest-cohort",
        "Fewer declared customers than this, and a study is declined",
        Annotated[int, Limit(ge=1)],
        "500",
    ),
    Question(
        "smallest-partners",
        "Fewer partners than this, and a study is declined",
        Annotated[int, Limit(ge=1, le=200)],
        "3",
    ),
    Question(
        "aggregation",
        "plain: replies may be seen one by one; secure: only sums over several institutions are ever opened",
        Literal["plain", "secure"],
        "plain",
        assumed=True,
    ),
    Question(
        "secure-noise",
        "Sums in secret: whose noise may count? local, shared or local+shared; none: no such sums",
        Literal["none", "local", "shared"],
        "none",
        several=True,
        assumed=True,
    ),
    Question(
        "secure-c",
        "Sums in secret: how many other institutions may work together with the coordinator?",
        Annotated[int, Limit(ge=0, le=197)],
        "1",
    ),
    Question(
        "secure-n-min",
        "Sums in secret: over how many institutions is a sum opened, at least?",
        Annotated[int, Limit(ge=3, le=200)],
        "5",
    ),
    Question(
        "secure-floor",
        "Sums in secret: which epsilon must your own noise hold alone, should they fail? empty for none",
        Epsilon,
        optional=True,
    ),
    Question(
        "reply-grid",
        "Replies leave on a time grid of how many seconds? 0 gives no cover",
        Annotated[float, Limit(ge=0, le=3600)],
        "1.0",
    ),
    Question("keep-name-lists", "After how many days are name lists deleted?", Kept, "90"),
    Question("keep-replies", "After how many days are kept replies deleted?", Kept, "30"),
    Question("keep-participation", "After how many days are records of who took part deleted?", Kept, "3650"),
)
MANY: dict[str, tuple[Question, ...]] = {
    "officer": (
        Question("id", "An officer's name", Name),
        Question("key", "Her public key: 64 hexadecimal digits, or her key file", Hex32, form="64 hexadecimal digits"),
    ),
    "purpose": (
        Question("id", "Why may customer data be used? A short name", Purpose, "marketing.churn"),
        Question("meaning", "What does that mean, in one sentence?", Text),
        Question("consent", "Which consent must a customer have given?", Consent, "profiling"),
        Question("epsilon", "epsilon of a budget of its own within a period; empty for none", Epsilon, optional=True),
        Question("delta", "delta of that budget; empty for the period's", Delta, optional=True),
    ),
    "study": (
        Question("contract", "Studies on which feature contract?", Name),
        Question("purposes", "For which of the purposes? Join several by +", Purpose, several=True),
        Question(
            "models",
            "Which models? additive is explained exactly",
            Literal["additive", "logistic", "mlp"],
            "additive+logistic",
            True,
        ),
        Question("modes", "Which ways of training?", Literal["fedsgd", "fedavg"], "fedsgd", True),
        Question("epsilon", "The largest epsilon of a study", Epsilon, "1.0"),
        Question("delta", "The delta of a study; empty for the largest that is sound", Delta, optional=True),
        Question(
            "automatic",
            "Up to which epsilon does a study need nobody's approval? 0: all wait",
            Annotated[float, Limit(ge=0, le=100)],
            "0.0",
        ),
        Question(
            "holdout",
            "Who tests the model? hash:SHARE or position:NUMBER, for good",
            Held,
            "hash:0.2",
            form="such as hash:0.2 or position:36168",
        ),
    ),
    "statistics": (
        Question("contract", "Statistics on which feature contract?", Name),
        Question("purposes", "For which of the purposes? Join several by +", Purpose, several=True),
        Question("epsilon", "The largest epsilon of a statistics study; both accounts pay it", Epsilon, "1.0"),
        Question("delta", "The delta of a study; empty for the largest that is sound", Delta, optional=True),
        Question(
            "automatic",
            "Up to which epsilon does a study need nobody's approval? 0: all wait",
            Annotated[float, Limit(ge=0, le=100)],
            "0.0",
        ),
    ),
    "slot": (
        Question("id", "A name for a slot of the plan", Name),
        Question("purpose", "Its purpose", Purpose),
        Question("contract", "Its feature contract", Name),
        Question(
            "epsilon", "The epsilon of the study that fills it; the noise is computed from it", Epsilon, optional=True
        ),
        Question(
            "rate",
            "The share of customers in a step, above 0 and at most 1",
            Annotated[float, Limit(ge=1e-6, le=1)],
            "0.3",
        ),
        Question("steps", "The number of steps", Annotated[int, Limit(ge=1, le=1_000_000)], "30"),
        Question("noise", "The noise multiplier, where no epsilon is given", float, optional=True),
        Question("histogram", "The evaluation's sigma, where no epsilon is given", float, optional=True),
    ),
}
NONE_OF = {"statistics": "Allow statistics studies, which count customers and add up what is known of them?"}
"""Lists that may be empty: the flag's value `none` says so, and at a terminal this question asks whether they are."""
