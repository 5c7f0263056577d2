"""The studies and policies under `configs`: they load, and what the pages say becomes of them does."""

from datetime import date
from pathlib import Path

import pytest

from federation.document import load_yaml
from federation.errors import PolicyError
from federation.study import StudyDraft
from privacy.decision import foresee
from privacy.policy import Policy

CONFIGS = Path(__file__).parents[2] / "configs"
STUDIES = sorted((CONFIGS / "studies").glob("*.yaml"))
TODAY = date(2026, 3, 1)


def policy(name):
    return load_yaml(CONFIGS / "policies" / f"{name}.yaml", Policy)


def study(name):
    return load_yaml(CONFIGS / "studies" / f"{name}.yaml", StudyDraft)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_loads_under_a_name_of_its_own(path):
    draft = load_yaml(path, StudyDraft)
    assert [other for other in STUDIES if load_yaml(other, StudyDraft).name == draft.name] == [path]
    assert (CONFIGS / "contracts" / f"{draft.contract}.yaml").exists()


def test_the_study_in_secret_fits_the_policy_that_takes_no_other():
    draft, plain = study("propensity"), study("propensity-plain")
    assert foresee(policy("secure"), draft, None, TODAY) == (1.0, 2)
    with pytest.raises(PolicyError, match="CSL-P213"):
        foresee(policy("secure"), plain, None, TODAY)
    for name in ("example", "plan"):
        with pytest.raises(PolicyError):
            foresee(policy(name), draft, None, TODAY)


def test_the_study_in_secret_is_the_plain_one_but_for_how_replies_are_added_up():
    draft, plain = (study(name).model_dump() for name in ("propensity", "propensity-plain"))
    different = {name for name in draft | plain if draft.get(name) != plain.get(name)}
    assert different == {"name", "title", "aggregation", "noise", "n_min", "c"}


def test_two_of_the_eight_banks_may_be_missing():
    """What the comments in the file say: a sum needs n_min survivors, and more than half of everybody beside the colluders."""
    draft = study("propensity")
    assert draft.n_min is not None and draft.c is not None
    assert max(draft.n_min, (8 + draft.c) // 2 + 1) == 6
