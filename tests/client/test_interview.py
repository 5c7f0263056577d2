from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.answers import Answers, answers_of, largest_delta, read_flags
from client.interview import complete
from client.policy_draft import build
from client.questions import MANY, ONE
from federation.errors import DocumentError
from privacy.mistakes import best_order
from privacy.policy import SecureRule

TODAY = date(2026, 3, 1)
WHOSE_NOISE = next(question.words for question in ONE if question.name == "secure-noise")
KEYS = {"chief": "a" * 64, "deputy": "b" * 64}


class Scripted:
    """Somebody who answers by what a question is about; what is not in the script gets the proposed answer."""

    def __init__(self, answers, agreed=()):
        self.answers = {words: list(texts) for words, texts in answers.items()}
        self.agreed = list(agreed)
        self.heard = []
        self.asked = []

    def ask(self, question, default):
        self.asked.append((question, default))
        for words, texts in self.answers.items():
            if words in question and texts:
                return texts.pop(0)
        return default

    def agree(self, question, default):
        for words in self.agreed:
            if words in question:
                self.agreed.remove(words)
                return not default
        return default

    def say(self, text):
        self.heard.append(text)


def somebody(**changes):
    answers = {
        "institution's identifier": ["alder"],
        "An officer's name": ["chief", "deputy"],
        "Her public key": [KEYS["chief"], KEYS["deputy"]],
        "Customers that the charter declares": ["2000"],
        "in one sentence": ["Keep customers"],
        "Studies on which feature contract": ["shop"],
        "For which of the purposes": ["marketing.churn"],
    } | changes
    return Scripted(answers, ["Another officer"])


def interview(asker, given=None, before=None):
    return complete(given or Answers(), before, asker, TODAY)


def test_the_proposed_answers_make_a_sound_policy():
    policy = build(interview(somebody()))
    assert (policy.issued, policy.expires) == (TODAY, date(2027, 3, 1))
    assert [officer.id for officer in policy.officers] == ["chief", "deputy"] and policy.approval.eyes == 2
    assert policy.studies[0].automatic_epsilon == 0.0 and policy.aggregation == "plain"
    assert policy.budget.period.delta == policy.budget.life.delta == policy.studies[0].max_delta == 5e-6
    assert policy.purposes[0].budget is None


def test_an_answer_that_does_not_fit_is_asked_for_again():
    asker = somebody(
        **{
            "epsilon of the period": ["0", "nan", "inf", "2.0"],
            "epsilon of the life": ["1.0", "3.0"],
            "no longer in force": ["2026-03-01", "2026-09-01"],
            "delta of the period": ["1.0e-5", "1.0e-6"],
            "Her public key": ["nowhere.key", KEYS["chief"], KEYS["deputy"]],
        }
    )
    policy = build(interview(asker))
    assert (policy.budget.period.epsilon, policy.budget.life.epsilon) == (2.0, 3.0)
    assert policy.expires == date(2026, 9, 1) and policy.budget.period.delta == 1e-6
    assert len(asker.heard) == 7 and all("please" in text for text in asker.heard)


def test_an_item_that_contradicts_what_was_said_is_asked_for_again():
    asker = somebody(
        **{
            "For which of the purposes": ["marketing.other", "marketing.churn"],
            "largest epsilon of a study": ["3.0", "2.0"],
            "nobody's approval": ["2.5", "2.0"],
            "Who tests the model": ["half", "hash:0.25"],
            "budget of its own": ["4.0", "1.0"],
            "delta of that budget": ["1.0e-5", ""],
            "An officer's name": ["chief", "chief", "deputy"],
        }
    )
    policy = build(interview(asker))
    assert len(asker.heard) == 7
    rule, purpose = policy.studies[0], policy.purposes[0]
    assert (rule.max_epsilon, rule.automatic_epsilon, rule.holdout.share) == (2.0, 2.0, 0.25)
    assert (purpose.budget.epsilon, purpose.budget.delta) == (1.0, 5e-6)


def test_one_officer_cannot_be_four_eyes():
    asker = somebody(**{"approve a study": ["2", "1"]})
    asker.agreed = []
    assert build(interview(asker)).approval.eyes == 1 and "One officer" in asker.heard[0]


def test_what_flags_answer_is_not_asked():
    given = read_flags({"institution": "cedar", "eyes": "1"}, {"officer": ["chief=" + KEYS["chief"]]})
    asker = somebody()
    policy = build(interview(asker, given))
    assert policy.institution == "cedar" and len(policy.officers) == 1
    assert not any("identifier" in question or "officers approve" in question for question, _ in asker.asked)


def test_a_plan_and_a_fixed_order_are_asked_for_only_where_they_matter():
    asker = somebody()
    interview(asker)
    assert not any("name for a slot" in question or "order of rdp" in question for question, _ in asker.asked)
    slot = {"A name for a slot": ["one"], "Its purpose": ["marketing.churn"], "Its feature": ["bank", "shop"]}
    asker = somebody(**slot, **{"open: studies": ["plan"], "How spending": ["rdp"], "epsilon of the study": ["1.0"]})
    policy = build(interview(asker))
    assert (
        policy.budget.filter.order == best_order([(2.5, 5e-6), (6.0, 5e-6)])
        and policy.budget.slots[0].noise_multiplier > 1
    )
    assert not any("noise multiplier" in question for question, _ in asker.asked)
    assert len(asker.heard) == 1 and "No rule" in asker.heard[0]


def test_an_earlier_policy_is_proposed_and_may_be_kept():
    first = build(interview(somebody()))
    asker = Scripted({"epsilon of the period": ["1.5"]})
    second = build(interview(asker, before=answers_of(first, date(2027, 1, 1))), first)
    assert (second.version, second.prev) == (2, first.digest())
    assert second.budget.period.epsilon == 1.5 and second.budget.life == first.budget.life
    assert second.officers == first.officers and second.studies == first.studies
    again = Scripted({"Fewer": ["10"]}, ["Keep what is there for officer"])
    again.answers |= {"An officer's name": ["third"], "Her public key": ["c" * 64], "approve a study": ["1"]}
    third = build(interview(again, before=answers_of(first, TODAY)), first)
    assert [officer.id for officer in third.officers] == ["third"]


def test_where_nobody_can_be_asked_the_earlier_policy_answers():
    first = build(interview(somebody()))
    second = build(complete(Answers(), answers_of(first, TODAY), None, TODAY), first)
    assert second.model_copy(update={"version": 1, "prev": None}) == first


def test_deltas_may_be_given_instead_of_a_size():
    given = interview(somebody())
    one = {name: text for name, text in given.one.items() if name != "size"}
    study = tuple(item | {"delta": "1.0e-6"} for item in given.many["study"])
    answers = complete(Answers(one, given.many | {"study": study}), None, None, TODAY)
    assert build(answers).studies[0].max_delta == 1e-6
    with pytest.raises(DocumentError, match="--size"):
        complete(Answers(one, given.many), None, None, TODAY)


def test_sums_in_secret_are_asked_for_only_where_they_matter():
    asker = somebody()
    assert build(interview(asker)).secure is None
    assert [question for question, _ in asker.asked if "Sums in secret" in question] == [WHOSE_NOISE]
    asker = somebody(**{"only sums over several": ["secure"]})
    policy = build(interview(asker))
    assert policy.aggregation == "secure" and policy.secure == SecureRule(n_min=5, c=1, noise=("local",))
    asker = somebody(**{"whose noise may count": ["local+shared"], "your own noise hold": ["0", "3.0"]})
    policy = build(interview(asker))
    assert policy.aggregation == "plain" and policy.secure.noise == ("local", "shared")
    assert policy.secure.local_noise_floor == 3.0 and len(asker.heard) == 1


def test_terms_of_sums_in_secret_that_cannot_be_are_asked_for_again():
    asker = somebody(
        **{
            "only sums over several": ["secure"],
            "whose noise may count": ["none", "none+local", "loud", "shared"],
            "work together": ["-1", "4"],
            "over how many": ["6", "8"],
        }
    )
    policy = build(interview(asker))
    assert policy.secure == SecureRule(n_min=8, c=4, noise=("shared",)) and len(asker.heard) == 5
    assert ("Sums in secret: over how many institutions is a sum opened, at least?", "7") in asker.asked


def test_a_plan_and_sums_in_secret_do_not_go_together():
    slot = {"A name for a slot": ["one"], "Its purpose": ["marketing.churn"], "Its feature": ["shop"]}
    answers = {
        "open: studies": ["plan"],
        "epsilon of the study": ["1.0"],
        "only sums over several": ["secure", "plain"],
    }
    asker = somebody(**slot, **answers)
    policy = build(interview(asker))
    assert policy.budget.mode == "plan" and policy.secure is None
    assert "describe plain studies" in asker.heard[0] and not any("Sums in secret" in words for words, _ in asker.asked)


def test_an_earlier_rule_for_sums_in_secret_is_proposed():
    first = build(
        interview(somebody(**{"whose noise may count": ["shared"], "your own noise hold": ["3.0"], "over how": ["9"]}))
    )
    second = build(interview(Scripted({}), before=answers_of(first, date(2027, 1, 1))), first)
    assert second.secure == first.secure and second.secure.n_min == 9
    third = build(
        interview(Scripted({"whose noise may count": ["none"]}), before=answers_of(first, date(2027, 1, 1))), first
    )
    assert third.secure is None


@given(size=st.integers(1, 1_000_000))
def test_the_largest_delta_is_sound_and_close(size):
    assert largest_delta(size) * 100 * size <= 1.0
    assert largest_delta(size) >= 0.85 / (100 * size)


def test_every_question_has_words_and_its_default_fits():
    for question in (*ONE, *(item for items in MANY.values() for item in items)):
        assert question.words and len(question.words) < 120
        if question.default:
            question.value(question.default)


STATISTICS = {
    "Statistics on which": ["shop"],
    "For which of the purposes": ["marketing.churn", "marketing.other", "marketing.churn"],
    "epsilon of a statistics study": ["3.0", "0.5"],
    "nobody's approval": ["0.0", "0.6", "0.25"],
}


def test_statistics_are_allowed_only_where_somebody_says_so():
    asker = somebody()
    assert build(interview(asker)).statistics == () and not any("Statistics on" in words for words, _ in asker.asked)
    asker = somebody(**STATISTICS)
    asker.agreed.append("Allow statistics")
    (rule,) = build(interview(asker)).statistics
    assert (rule.contract, rule.purposes, rule.max_delta) == ("shop", ("marketing.churn",), 5e-6)
    assert (rule.max_epsilon, rule.automatic_epsilon) == (0.5, 0.25)
    assert len(asker.heard) == 3


def test_a_plan_is_never_asked_about_statistics_and_takes_none_over():
    asker = somebody(**STATISTICS)
    asker.agreed.append("Allow statistics")
    before = build(interview(asker))
    asker = somebody(**{"A name for a slot": ["one"], "Its purpose": ["marketing.churn"], "Its feature": ["shop"]})
    asker.answers |= {"open: studies": ["plan"], "epsilon of the study": ["1.0"]}
    assert build(interview(asker, before=answers_of(before, TODAY)), before).statistics == ()
    slots = {"slot": ["id=one,purpose=marketing.churn,contract=shop,epsilon=1.0"]}
    flags = read_flags({"mode": "plan"}, slots)
    assert build(complete(flags, answers_of(before, TODAY), None, TODAY), before).statistics == ()


def test_a_successor_keeps_the_rule_for_statistics_unless_it_says_none():
    asker = somebody(**STATISTICS)
    asker.agreed.append("Allow statistics")
    before = build(interview(asker))
    kept = build(complete(Answers(), answers_of(before, TODAY), None, TODAY), before)
    assert kept.statistics == before.statistics
    smaller = build(complete(read_flags({"size": "20000"}, {}), answers_of(before, TODAY), None, TODAY), before)
    assert smaller.statistics[0].max_delta == smaller.budget.period.delta == 5e-7
    gone = complete(read_flags({}, {"statistics": ["none"]}), answers_of(before, TODAY), None, TODAY)
    assert build(gone, before).statistics == ()
