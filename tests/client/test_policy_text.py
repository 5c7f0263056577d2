from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client.answers import Answers, answers_of
from client.interview import complete
from client.policy_draft import build
from client.policy_text import policy_yaml
from federation.document import load_yaml, parse_yaml
from privacy.policy import Policy
from tests.privacy.policies import policy

EXAMPLES = sorted((Path(__file__).parents[2] / "configs" / "policies").glob("*.yaml"))
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_read_back_from_what_is_written(path):
    example = load_yaml(path, Policy)
    text = policy_yaml(example)
    assert parse_yaml(text.encode(), Policy, "x") == example
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_answers_of_an_example_make_it_again(path):
    example = load_yaml(path, Policy)
    answers = complete(Answers(), answers_of(example, example.issued), None, example.issued)
    made = build(answers, example)
    assert made.model_copy(update={"version": 1, "prev": None}) == example


@settings(max_examples=40)
@example(meaning="a line\x85\u2028\u2029and another", epsilon=1.0, delta=1e-6, automatic=0.0)
@given(meaning=TEXTS, epsilon=st.floats(1e-6, 2.0), delta=st.floats(1e-8, 1e-6), automatic=st.floats(0, 1))
def test_whatever_is_written_reads_back(meaning, epsilon, delta, automatic):
    changed = policy(
        purposes__0__meaning=meaning,
        purposes__0__budget={"epsilon": epsilon, "delta": delta},
        studies__0__automatic_epsilon=automatic,
        statistics=[
            {
                "contract": "shop",
                "purposes": ["marketing.churn"],
                "max_epsilon": epsilon,
                "max_delta": delta,
                "automatic_epsilon": min(automatic, epsilon),
            }
        ],
        prev="1" * 64,
        version=2,
    )
    assert parse_yaml(policy_yaml(changed).encode(), Policy, "x") == changed
