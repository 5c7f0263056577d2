import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import ConsilienceError, DocumentError
from simulations.planner.target import REFERENCES, Target, parse_target
from simulations.sweeps.metrics import METRICS, metric_of


@st.composite
def targets(draw: st.DrawFn) -> Target:
    metric = draw(st.sampled_from(list(METRICS.values())))
    reference = draw(st.sampled_from([None, *REFERENCES]))
    if reference is None:
        return Target(metric, None, draw(st.floats(metric.low, min(metric.high, 1e6))))
    reach = min(metric.high - metric.low, 100.0)
    return Target(metric, reference, draw(st.floats(-reach, reach)))


@given(targets())
def test_every_target_is_read_back_from_its_own_words(target: Target) -> None:
    assert parse_target(str(target)) == target


@given(targets(), st.sampled_from(["  ", " ", "\t"]), st.booleans())
def test_spaces_and_capitals_do_not_matter(target: Target, space: str, upper: bool) -> None:
    text = str(target).replace(" ", space)
    assert parse_target(text.upper() if upper else text) == target


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_a_clear_error(text: str) -> None:
    try:
        parse_target(text)
    except ConsilienceError as error:
        assert error.code in {"CSL-M245", "CSL-M246", "CSL-M247", "CSL-M248"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("auc >= .75", "auc >= 0.75"),
        ("lift >= 2.5", "lift@10% >= 2.5"),
        ("lift@5% ≥ 3", "lift@5% >= 3"),
        ("lift @ 5 % >= 3", "lift@5% >= 3"),
        ("log_loss<=.3", "log_loss <= 0.3"),
        ("auc_worst >= alone", "auc_worst >= alone"),
        ("auc >= pooled \u2212 .01", "auc >= pooled - 0.01"),
        ("auc >= pooled - 1e-2", "auc >= pooled - 0.01"),
        ("within 0.01 of pooled", "auc >= pooled - 0.01"),
        ("log_loss within .02 of pooled_dp", "log_loss <= pooled_dp + 0.02"),
        ("auc >= alone + .03", "auc >= alone + 0.03"),
    ],
)
def test_what_people_write(text: str, said: str) -> None:
    assert str(parse_target(text)) == said


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("as good as possible", "CSL-M245", "lift@10%"),
        ("auc > .7", "CSL-M245", "Write >="),
        ("auc = .7", "CSL-M245", "Write >="),
        ("auc >= .7 .8", "CSL-M245", "neither"),
        ("auc >= best - .1", "CSL-M245", "pooled"),
        ("within .01 of everybody", "CSL-M245", "alone"),
        ("accuracy >= .9", "CSL-M246", "auc_worst"),
        ("lift@7% >= 2", "CSL-M246", "lift@5%"),
        ("auc >= 75", "CSL-M247", "0.75"),
        ("lift@10% >= 12", "CSL-M247", "from 0 to 10"),
        ("auc >= -1", "CSL-M247", "from 0 to 1"),
        ("log_loss >= .3", "CSL-M248", "Write <="),
        ("auc <= .3", "CSL-M248", "Write >="),
    ],
)
def test_errors_name_the_trouble_and_the_remedy(text: str, code: str, hint: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_target(text)
    assert caught.value.code == code
    assert hint in str(caught.value)


def test_lift_is_lift_at_ten() -> None:
    assert metric_of("lift") is metric_of("LIFT@10%") is METRICS["lift@10%"]
