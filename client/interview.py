"""The interview by which a policy is made, where a person can be asked; elsewhere, what is missing is named."""

from datetime import date, timedelta
from typing import Protocol

from client.answers import Answers, Texts, largest_delta, officer_key, without_deltas
from client.questions import MANY, NONE_OF, ONE, Question
from federation.errors import ConsilienceError, DocumentError
from privacy.mistakes import best_order
from privacy.policy import CUSTOMERS_PER_DELTA

_NEEDS_SIZE = ("period-delta", "life-delta")
_ONE_OF = {"statistics": "rule for statistics"}
_SECURE_TERMS = ("secure-c", "secure-n-min", "secure-floor")


class Asker(Protocol):
    """A person at a terminal."""

    def ask(self, question: str, default: str) -> str:
        """Return the answer to a question; the default where there is one and nothing is typed."""

    def agree(self, question: str, default: bool) -> bool:
        """Return the answer to a question that takes yes or no."""

    def say(self, text: str) -> None:
        """Show a line."""


def complete(given: Answers, before: Answers | None, asker: Asker | None, today: date) -> Answers:
    """Return all the answers that a policy needs.

    Parameters
    ----------
    given:
        What flags say; never asked again.
    before:
        The answers of an earlier policy: proposed at a terminal, taken where nobody can be asked.
    asker:
        The person at the terminal; None where nobody can be asked.
    today:
        The first day in force, unless another is given.

    Raises
    ------
    DocumentError
        CSL-C621 naming every flag that is missing, where nobody can be asked.
    """
    if asker is not None:
        return _Interview(given, before, asker, today).run()
    earlier = before or Answers()
    if "size" in given.one:
        earlier = without_deltas(earlier)
    one = {question.name: question.default for question in ONE if question.assumed and question.default}
    answers = Answers(one | {"issued": str(today)} | earlier.one | given.one, earlier.many | given.many)
    if answers.one["mode"] == "plan" and "statistics" not in given.many:
        answers.many.pop("statistics", None)  # a plan has slots for training alone
    idle = [name for name in _SECURE_TERMS if name in given.one and not _matters(answers.one, name)]
    if idle:
        raise DocumentError(
            "CSL-C623",
            f"--{idle[0]}: it belongs to sums in secret, and --secure-noise allows none.",
            "Give --secure-noise local, shared or local+shared.",
        )
    missing = _missing(answers, before is not None)
    if missing:
        raise DocumentError(
            "CSL-C621",
            f"Nobody can be asked here, and these flags are missing: {', '.join('--' + name for name in missing)}.",
            "Give them all, begin with an earlier policy by --from, or run it on a terminal.",
        )
    return answers


def _missing(answers: Answers, has_before: bool) -> list[str]:
    missing = [
        question.name
        for question in ONE
        if question.name not in answers.one and not question.optional and question.name not in _NEEDS_SIZE
        if _matters(answers.one, question.name)
    ]
    if answers.one.get("aggregation") == "secure" and answers.one.get("secure-noise", "none") == "none":
        missing += ["secure-noise", *(name for name in ("secure-c", "secure-n-min") if name not in answers.one)]
    missing += [name for name in ("officer", "purpose", "study") if name not in answers.many]
    if answers.one.get("mode") == "plan" and "slot" not in answers.many:
        missing.append("slot")
    deltas = all(name in answers.one for name in _NEEDS_SIZE)
    rules = (*answers.many.get("study", ()), *answers.many.get("statistics", ()))
    deltas = deltas and all("delta" in item for item in rules)
    if "size" not in answers.one and not deltas and not has_before:
        missing.append("size")
    return missing


def _matters(one: Texts, name: str) -> bool:
    """Return whether a question matters, after what was answered."""
    if name in _SECURE_TERMS:
        return one.get("secure-noise", "none") != "none"
    if name == "secure-noise":
        return one.get("mode") != "plan"
    return name != "order" or one.get("filter") == "rdp"


class _Interview:
    """One interview: `answers` grows, question by question."""

    def __init__(self, given: Answers, before: Answers | None, asker: Asker, today: date) -> None:
        self._before = before or Answers()
        self._asker = asker
        self._today = today
        self._answers = Answers(dict(given.one), dict(given.many))

    def run(self) -> Answers:
        after = {"expires": ("officer",), "order": ("purpose", "study", "statistics")}
        for question in ONE:
            if question.name not in self._answers.one and _matters(self._answers.one, question.name):
                text = self._ask(question, self._default(question))
                if text:
                    self._answers.one[question.name] = text
            for name in after.get(question.name, ()):
                self._several(name)
        if self._answers.one["mode"] == "plan":
            self._several("slot")
            self._answers.one.setdefault("secure-noise", "none")
        return self._answers

    def _default(self, question: Question) -> str:
        one = self._answers.one
        if question.name == "issued":
            return str(self._today)
        if question.name == "eyes" and len(self._answers.many["officer"]) == 1:
            return "1"
        if question.name == "expires":
            year = timedelta(days=365)
            return self._before.one.get("expires") or str(date.fromisoformat(one["issued"]) + year)
        if question.name == "secure-noise" and one["aggregation"] == "secure":
            earlier = self._before.one.get(question.name, "none")
            return "local" if earlier == "none" else earlier
        if question.name == "secure-n-min":
            return str(max(int(self._before.one.get(question.name, question.default)), int(one["secure-c"]) + 3))
        fixed = self._before.one.get("life-delta")
        if question.name in _NEEDS_SIZE and "size" in one and not (question.name == "life-delta" and fixed):
            return repr(min(largest_delta(int(one["size"])), float(fixed or 1.0)))
        if question.name == "order" and "order" not in self._before.one:
            budgets = [(float(one[f"{name}-epsilon"]), float(one[f"{name}-delta"])) for name in ("period", "life")]
            return str(best_order(budgets))
        return self._before.one.get(question.name, question.default)

    def _ask(self, question: Question, default: str, item: str = "", fields: Texts | None = None) -> str:
        """Ask until the answer fits; `item` and `fields` say of which list's item, and what is known of it."""
        while True:
            text = self._asker.ask(question.words, default).strip()
            if not text and question.optional:
                return ""
            try:
                question.value(text)
                problem = contradiction(self._answers, item, question.name, text, fields or {})
            except ValueError as error:
                problem = str(error)
            if not problem:
                return text
            self._asker.say(f"  {problem}. Again, please.")

    def _several(self, name: str) -> None:
        """Ask for the items of one list, one after another."""
        if name in self._answers.many or (name == "statistics" and self._answers.one["mode"] == "plan"):
            return
        before = without_deltas(self._before) if "size" in self._answers.one else self._before
        earlier = before.many.get(name, ())
        first = MANY[name][0].name
        if earlier:
            listed = ", ".join(item[first] for item in earlier)
            if self._asker.agree(f"Keep what is there for {name}: {listed}?", True):
                self._answers.many[name] = earlier
                return
        if name in NONE_OF and not self._asker.agree(NONE_OF[name], False):
            self._answers.many[name] = ()
            return
        items = [self._item(name, [])]
        while self._asker.agree(f"Another {_ONE_OF.get(name, name)}?", False):
            items.append(self._item(name, items))
        self._answers.many[name] = tuple(items)

    def _item(self, name: str, before: list[Texts]) -> Texts:
        fields: Texts = {}
        for question in MANY[name]:
            if (name, question.name) == ("officer", "key"):
                fields["key"] = self._ask_key(question)
            elif not _settled(name, question.name, fields):
                text = self._ask(
                    question, "" if before and question is MANY[name][0] else question.default, name, fields
                )
                if question is MANY[name][0] and any(item[question.name] == text for item in before):
                    self._asker.say(f"  {text} is there already. Again, please.")
                    return self._item(name, before)
                if text:
                    fields[question.name] = text
        return fields

    def _ask_key(self, question: Question) -> str:
        while True:
            try:
                return officer_key(self._asker.ask(question.words, "").strip())
            except ConsilienceError as error:
                self._asker.say(f"  {error.cause} Again, please.")


def _settled(item: str, name: str, fields: Texts) -> bool:
    """Return whether an earlier answer makes a question idle."""
    if item == "slot" and name in ("noise", "histogram"):
        return "epsilon" in fields
    return item == "purpose" and name == "delta" and "epsilon" not in fields


def contradiction(answers: Answers, item: str, name: str, text: str, fields: Texts) -> str:
    """Return in words how an answer contradicts earlier ones; empty where it does not.

    `item` is the list that the answer belongs to (empty for none), `fields` what is known of that item.
    """
    check = _CONTRADICTIONS.get(item)
    return "" if check is None else check(answers, name, text, fields)


def _of_policy(answers: Answers, name: str, text: str, fields: Texts) -> str:
    one = answers.one
    if name == "expires" and text <= one["issued"]:
        return f"It must be after {one['issued']}"
    if name == "eyes" and int(text) > len(answers.many.get("officer", ())):
        return "One officer is named, so that 1 approves"
    if name in ("aggregation", "secure-noise", "secure-n-min"):
        return _of_secrecy(one, name, text)
    lower = {"life-epsilon": "period-epsilon", "life-delta": "period-delta"}.get(name)
    if lower is not None and float(text) < float(one[lower]):
        return f"It must be at least the period's, {one[lower]}"
    if name == "period-delta" and "size" in one and float(text) > 1.0 / (CUSTOMERS_PER_DELTA * int(one["size"])):
        return f"It must be at most {largest_delta(int(one['size']))!r} for that many customers"
    return ""


def _of_secrecy(one: Texts, name: str, text: str) -> str:
    if name == "aggregation" and text == "secure" and one["mode"] == "plan":
        return "A plan's slots describe plain studies"
    if name == "secure-noise" and "none" in text and (text != "none" or one["aggregation"] == "secure"):
        return "It must be local, shared or local+shared" + (
            " where only sums are opened" if text == "none" else ", or none"
        )
    if name == "secure-n-min" and int(text) < int(one["secure-c"]) + 3:
        return f"It must be at least {int(one['secure-c']) + 3}, three more than may work together with the coordinator"
    return ""


def _of_purpose(answers: Answers, name: str, text: str, fields: Texts) -> str:
    return _within_period(answers, name, text)


def _of_study(answers: Answers, name: str, text: str, fields: Texts) -> str:
    if name == "purposes":
        known = [purpose["id"] for purpose in answers.many["purpose"]]
        if any(part not in known for part in text.replace("+", " ").split()):
            return f"The purposes are {', '.join(known)}"
    if name == "automatic" and float(text) > float(fields["epsilon"]):
        return f"It must be at most {fields['epsilon']}"
    return _within_period(answers, name, text)


def _of_slot(answers: Answers, name: str, text: str, fields: Texts) -> str:
    if name == "contract":
        for study in answers.many["study"]:
            if study["contract"] == text and fields["purpose"] in study["purposes"].replace("+", " ").split():
                return ""
        return f"No rule allows studies for {fields['purpose']} on it"
    return ""


def _within_period(answers: Answers, name: str, text: str) -> str:
    if name in ("epsilon", "delta") and float(text) > float(answers.one[f"period-{name}"]):
        return f"It must be at most the period's, {answers.one[f'period-{name}']}"
    return ""


_CONTRADICTIONS = {
    "": _of_policy,
    "purpose": _of_purpose,
    "study": _of_study,
    "statistics": _of_study,
    "slot": _of_slot,
}
