import warnings
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from federation.document import parse_yaml
from privacy.comparison import changes, grows
from privacy.policy import Policy, SecureRule, StatisticsRule

TEXT = """
institution: alder
version: 2
prev: "1111111111111111111111111111111111111111111111111111111111111111"
issued: 2026-01-01
expires: 2030-01-01
officers:
  - {id: chief, key: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}
  - {id: deputy, key: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb}
approval: {eyes: 2}
purposes:
  - {id: marketing.churn, meaning: Keep customers, consent: profiling, budget: {epsilon: 1.0, delta: 1.0e-7}}
  - {id: marketing.return, meaning: Win customers back, consent: profiling}
contact_consent: contact
studies:
  - kind: training
    contract: shop
    purposes: [marketing.churn]
    models: [additive]
    modes: [fedsgd]
    max_epsilon: 1.0
    max_delta: 1.0e-6
    automatic_epsilon: 0.5
    holdout: {kind: hash, share: 0.2}
budget:
  mode: plan
  filter: {kind: rdp, order: 32}
  unit: customer
  neighbours: add_or_remove_one
  period: {days: 30, epsilon: 2.0, delta: 1.0e-6}
  life: {epsilon: 3.0, delta: 1.0e-6}
  slots:
    - id: one
      purpose: marketing.churn
      contract: shop
      noise_multiplier: 4.0
      sampling_rate: 0.1
      steps: 100
      histogram_sigma: 8.0
smallest_cohort: 500
smallest_partners: 3
aggregation: plain
reply_grid_seconds: 1.0
retention: {name_lists_days: 90, replies_days: 30, participation_days: 3650}
"""
OLD = parse_yaml(TEXT.encode(), Policy, "policy.yaml")


def leaves(value, path=()):
    """Yield (path, value) of everything in a document that has no parts."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from leaves(getattr(value, name), (*path, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def with_value(document, path, value):
    """Return a copy with one part exchanged, unchecked: what no valid policy could hold must be seen as well."""
    if not path:
        return value
    head, *rest = path
    if isinstance(document, tuple):
        inner = with_value(document[head], rest, value)
        return (*document[:head], inner, *document[head + 1 :])
    return document.model_copy(update={head: with_value(getattr(document, head), rest, value)})


def other(value, step=1):
    """Return another value of the same type, larger for numbers and dates when `step` is positive."""
    if value is None:
        return {"epsilon": 0.5, "delta": 1e-8}
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, date):
        return value + timedelta(days=step)
    return value + step if isinstance(value, int) else value * (1 + step * 1e-12)


PATHS = dict(leaves(OLD))
RULE = SecureRule(n_min=6, c=2, noise=("local",), local_noise_floor=3.0)
SECRET = OLD.model_copy(update={"aggregation": "secure", "secure": RULE})


def seen(new, old=OLD):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of values that no valid policy could hold
        return changes(old, new)


def named(path):
    return ".".join(str(part) for part in path)


@pytest.mark.parametrize("path", PATHS, ids=named)
@pytest.mark.parametrize("step", [1, -1])
def test_no_field_changes_unseen(path, step):
    found = seen(with_value(OLD, path, RULE if path == ("secure",) else other(PATHS[path], step)))
    assert found and all("\n" not in change.text for change in found)
    assert not any(change.budget and change.effect == "less" for change in found)


def test_there_are_words_for_every_field():
    """A path with dots in a text would be the last resort for a field that has no words."""
    for path, value in PATHS.items():
        for change in seen(with_value(OLD, path, RULE if path == ("secure",) else other(value))):
            assert ".*." not in change.text and not change.text.startswith(f"{path[0]}."), change.text


def test_nothing_changes_between_equal_policies():
    assert changes(OLD, OLD) == () == grows(OLD, OLD)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("budget", "period", "epsilon"), 2.5),
        (("budget", "period", "delta"), 2e-6),
        (("budget", "period", "days"), 29),
        (("budget", "life", "epsilon"), 3.5),
        (("budget", "mode"), "open"),
        (("budget", "filter", "order"), 33),
        (("budget", "slots", 0, "noise_multiplier"), 3.9),
        (("budget", "slots", 0, "sampling_rate"), 0.11),
        (("budget", "slots", 0, "steps"), 101),
        (("budget", "slots", 0, "histogram_sigma"), 7.9),
        (("budget", "slots", 0, "purpose"), "marketing.return"),
        (("budget", "slots", 0, "contract"), "bank"),
        (("budget", "slots", 0, "id"), "two"),
        (("purposes", 0, "budget", "epsilon"), 1.1),
        (("purposes", 0, "budget", "delta"), 1.1e-7),
        (("purposes", 0, "budget"), None),
        (("studies", 0, "max_epsilon"), 1.1),
        (("studies", 0, "max_delta"), 1.1e-6),
        (("studies", 0, "automatic_epsilon"), 0.6),
        (("studies", 0, "purposes"), ("marketing.churn", "marketing.return")),
        (("studies", 0, "contract"), "bank"),
        (("approval", "eyes"), 1),
        (("officers",), OLD.officers[:1]),
        (("officers", 0, "key"), "c" * 64),
        (("officers", 1, "id"), "third"),
        (("institution",), "birch"),
    ],
)
def test_a_second_officer_is_needed_for(path, value):
    new = with_value(OLD, path, value)
    assert grows(OLD, new) == tuple(change.text for change in changes(OLD, new) if change.budget) != ()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("smallest_cohort",), 1),
        (("smallest_partners",), 1),
        (("reply_grid_seconds",), 0.0),
        (("contact_consent",), "anybody"),
        (("purposes", 0, "consent"), "anybody"),
    ],
)
def test_two_officers_for_what_lets_more_customers_in_or_shows_more(path, value):
    assert grows(OLD, with_value(OLD, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("budget", "period", "epsilon"), 1.5),
        (("budget", "period", "days"), 31),
        (("budget", "slots", 0, "noise_multiplier"), 4.1),
        (("budget", "slots"), ()),
        (("purposes", 1, "budget"), OLD.purposes[0].budget),
        (("purposes", 0, "budget", "epsilon"), 0.9),
        (("studies", 0, "max_epsilon"), 0.9),
        (("studies", 0, "automatic_epsilon"), 0.0),
        (("studies",), ()),
        (("smallest_cohort",), 60_000),
        (("smallest_partners",), 9),
        (("reply_grid_seconds",), 3000.0),
        (("expires",), date(2031, 1, 1)),
        (("retention", "replies_days"), 60),
        (("version",), 3),
    ],
)
def test_one_officer_is_enough_for(path, value):
    new = with_value(OLD, path, value)
    assert changes(OLD, new) and grows(OLD, new) == ()


def test_the_words_say_which_way_it_goes():
    def only(path, value):
        (change,) = changes(OLD, with_value(OLD, path, value))
        return change.effect, change.text

    assert only(("smallest_cohort",), 400) == ("more", "The smallest cohort falls from 500 to 400.")
    assert only(("smallest_cohort",), 600) == ("less", "The smallest cohort rises from 500 to 600.")
    assert only(("expires",), date(2029, 1, 1))[0] == "less"
    assert only(("budget", "period", "epsilon"), 2.0000001) == (
        "more",
        "The epsilon of the period's budget rises from 2.0 to 2.0000001.",
    )
    assert only(("purposes", 0, "budget"), None)[0] == "more"
    assert only(("officers",), OLD.officers[::-1]) == (
        "other",
        "The list officers stands in another order, which changes nothing else.",
    )


def test_a_field_without_words_needs_two_officers():
    class Longer(Policy):
        surprise: int = 0

    old = Longer(**{name: getattr(OLD, name) for name in Policy.model_fields})
    new = old.model_copy(update={"surprise": 1})
    assert grows(old, new) == ("surprise changes from 0 to 1.",)


@given(data=st.data())
def test_what_grows_one_way_does_not_grow_the_other(data):
    """Numbers only: whatever needs two officers in one direction takes one in the other."""
    numbers = [path for path, value in PATHS.items() if isinstance(value, int | float)]
    path = data.draw(st.sampled_from(numbers))
    new = with_value(OLD, path, other(PATHS[path], data.draw(st.sampled_from([1, -1]))))
    fixed = ("filter" in path) or ("holdout" in path)
    assert fixed or not (grows(OLD, new) and grows(new, OLD))


@pytest.mark.parametrize(
    ("path", "value", "effect", "budget", "words"),
    [
        (("aggregation",), "plain", "more", True, "Plain studies are allowed again"),
        (("secure", "n_min"), 5, "more", True, "least number of members in a sum falls from 6 to 5"),
        (("secure", "n_min"), 7, "less", False, "rises from 6 to 7"),
        (("secure", "c"), 1, "more", True, "colluding members that a study must withstand falls from 2 to 1"),
        (("secure", "c"), 3, "less", False, "rises from 2 to 3"),
        (("secure", "noise"), ("local", "shared"), "more", True, "shared noise is new"),
        (("secure", "noise"), (), "less", False, "local noise is gone"),
        (("secure", "local_noise_floor"), 4.0, "more", True, "one's own noise alone must hold rises from 3 to 4"),
        (("secure", "local_noise_floor"), 2.0, "less", False, "falls from 3 to 2"),
        (("secure", "local_noise_floor"), None, "more", True, "the floor for one's own noise (epsilon 3) is gone"),
        (("secure",), None, "less", False, "the rule is gone"),
    ],
)
def test_what_loosens_and_what_tightens_sums_in_secret(path, value, effect, budget, words):
    (change,) = changes(SECRET, with_value(SECRET, path, value))
    assert (change.effect, change.budget, change.fixed) == (effect, budget, False) and words in change.text


def test_a_first_rule_for_sums_in_secret_and_a_first_floor_are_named():
    (change,) = changes(OLD, with_value(OLD, ("secure",), RULE))
    assert change.effect == "more" and change.budget
    assert (
        "sums over 6 members at least, up to 2 colluding, local noise, one's own noise alone must hold epsilon 3"
        in change.text
    )
    (change,) = changes(OLD, with_value(OLD, ("aggregation",), "secure"))
    assert (change.effect, change.budget) == ("less", False) and "refused from now on" in change.text
    bare = with_value(SECRET, ("secure", "local_noise_floor"), None)
    (change,) = changes(bare, SECRET)
    assert (change.effect, change.budget) == ("less", False)
    (change,) = changes(OLD, with_value(OLD, ("secure",), bare.secure))
    assert "no floor" in change.text


@given(n_min=st.integers(3, 20), c=st.integers(0, 17), floor=st.none() | st.floats(0.1, 50))
def test_two_officers_sign_whatever_a_study_would_have_been_refused_for(n_min, c, floor):
    new = with_value(SECRET, ("secure",), RULE.model_copy(update={"n_min": n_min, "c": c, "local_noise_floor": floor}))
    looser = n_min < 6 or c < 2 or floor is None or floor > 3.0
    assert bool(grows(SECRET, new)) == looser


COUNTING = StatisticsRule(
    contract="shop", purposes=("marketing.churn",), max_epsilon=0.5, max_delta=1e-7, automatic_epsilon=0.1
)
OPEN = OLD.model_copy(
    update={
        "budget": OLD.budget.model_copy(update={"mode": "open", "slots": ()}),
        "statistics": (COUNTING,),
    }
)
COUNTED = {path: value for path, value in leaves(OPEN) if path[0] == "statistics"}


@pytest.mark.parametrize("path", COUNTED, ids=named)
@pytest.mark.parametrize("step", [1, -1])
def test_no_field_of_a_rule_for_statistics_changes_unseen_or_without_words(path, step):
    found = seen(with_value(OPEN, path, other(COUNTED[path], step)), OPEN)
    assert found and all("tatistics on" in change.text and ".*." not in change.text for change in found)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("max_epsilon",), 0.6, "Statistics on shop: the largest epsilon of a study rises from 0.5 to 0.6."),
        (("max_delta",), 2e-7, "Statistics on shop: the largest delta of a study rises from 1e-07 to 2e-07."),
        (
            ("automatic_epsilon",),
            0.2,
            "Statistics on shop: the largest epsilon that needs nobody's approval rises from 0.1 to 0.2.",
        ),
        (
            ("purposes",),
            ("marketing.churn", "marketing.return"),
            "Statistics on shop: purpose marketing.return is new.",
        ),
        (("contract",), "bank", "The rule for statistics on bank is new."),
    ],
)
def test_what_allows_more_statistics_needs_two_officers_and_less_one(path, value, words):
    new = with_value(OPEN, ("statistics", 0, *path), value)
    assert grows(OPEN, new) == (words,)
    assert path == ("contract",) or grows(new, OPEN) == () != changes(new, OPEN)


def test_a_first_rule_for_statistics_needs_two_officers_and_its_end_one():
    without = OPEN.model_copy(update={"statistics": ()})
    assert grows(without, OPEN) == ("The rule for statistics on shop is new.",)
    assert [change.text for change in changes(OPEN, without)] == ["The rule for statistics on shop is gone."]
    assert grows(OPEN, without) == ()
    twice = OPEN.model_copy(update={"statistics": (COUNTING, COUNTING.model_copy(update={"contract": "bank"}))})
    assert grows(OPEN, twice) == ("The rule for statistics on bank is new.",) and grows(twice, OPEN) == ()
