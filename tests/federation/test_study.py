import json

import pytest

from federation.study import StudyDraft, StudySpec, Training


def test_the_digest_covers_every_field(spec):
    other = spec.model_copy(update={"nonce": "1" * 32})
    assert other.digest() != spec.digest()
    assert StudySpec.from_canonical(spec.canonical()) == spec


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"mode": "fedsgd", "rounds": 10, "steps": 20, "sampling_rate": 0.1}, "one step a round"),
        ({"mode": "fedavg", "rounds": 10, "steps": 25, "sampling_rate": 0.1}, "multiple of rounds"),
        ({"mode": "fedavg", "rounds": 10, "steps": 20, "sampling_rate": 1.5}, "less than or equal to 1"),
        ({"mode": "fedavg", "rounds": 0, "steps": 20, "sampling_rate": 0.5}, "greater than or equal to 1"),
    ],
)
def test_impossible_plans(fields, part):
    with pytest.raises(ValueError, match=part):
        Training(**fields)


@pytest.mark.parametrize("epsilon", [0, -1, 1e9])
def test_impossible_epsilon(spec, epsilon):
    data = spec.draft.model_dump(mode="json") | {"epsilon": epsilon}
    with pytest.raises(ValueError, match="epsilon"):
        StudyDraft.model_validate_json(json.dumps(data))


def test_the_plan_must_be_for_the_drafts_mode(spec):
    data = spec.model_dump(mode="json")
    data["draft"]["mode"] = "fedavg"
    with pytest.raises(ValueError, match="another mode"):
        StudySpec.model_validate_json(json.dumps(data))


def test_rounds_that_are_not_given_leave_no_trace_in_the_encoding(spec):
    assert b'"rounds"' not in spec.draft.canonical()
    named = spec.draft.model_copy(update={"rounds": 10})
    assert b'"rounds":10' in named.canonical() and named.digest() != spec.draft.digest()
    assert StudyDraft.from_canonical(named.canonical()) == named
    assert StudyDraft.from_canonical(spec.draft.canonical()) == spec.draft


@pytest.mark.parametrize("rounds", [0, 4, 10_001, 7.5, "10"])
def test_impossible_rounds(spec, rounds):
    data = spec.draft.model_dump(mode="json") | {"rounds": rounds}
    with pytest.raises(ValueError, match="rounds"):
        StudyDraft.model_validate_json(json.dumps(data))
