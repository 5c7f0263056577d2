"""What cannot be asked for is refused in words; what can be is drawn from the seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.document import load_yaml
from federation.errors import DocumentError
from simulations.population.parameters import PopulationParameters, stream


@pytest.mark.parametrize(
    ("asked", "code", "word"),
    [
        ({"customers": 0}, "CSL-M200", "0 customers"),
        ({"customers": -5}, "CSL-M200", "-5 customers"),
        ({"customers": 8}, "CSL-M200", "5 banks"),
        ({"customers": 60_000_000}, "CSL-M200", "50,000,000"),
        ({"banks": 0, "shops": 0}, "CSL-M201", "no institution"),
        ({"banks": -1}, "CSL-M201", "The number of banks is -1; it cannot be negative."),
        ({"banks": 0, "shops": -2}, "CSL-M201", "The number of shops is -2; it cannot be negative."),
        ({"overlap": 1.01}, "CSL-M203", "overlap is 1.01"),
        ({"across": -0.1}, "CSL-M203", "across"),
        ({"contacted": float("inf")}, "CSL-M203", "contacted"),
        ({"skew": -1.0}, "CSL-M203", "skew"),
        ({"response": 0.9, "uplift": 0.2}, "CSL-M203", "response + uplift"),
    ],
)
def test_what_cannot_be_is_refused_in_words(asked, code, word) -> None:
    with pytest.raises(DocumentError) as caught:
        PopulationParameters(**asked)
    assert caught.value.code == code
    assert word in str(caught.value)


def test_a_file_says_the_same(tmp_path) -> None:
    path = tmp_path / "population.yaml"
    path.write_text("customers: 2000\nbanks: 3\noverlap: 0.4\n")
    assert load_yaml(path, PopulationParameters) == PopulationParameters(customers=2000, banks=3, overlap=0.4)
    path.write_text("overlap: 4.0\n")
    with pytest.raises(DocumentError, match="CSL-M203"):
        load_yaml(path, PopulationParameters)
    path.write_text("overlaps: 0.4\n")
    with pytest.raises(DocumentError, match=r"CSL-F105.*\n.*line 1: overlaps"):
        load_yaml(path, PopulationParameters)


@given(st.integers(), st.sampled_from(["traits", "bank", "shop"]))
def test_a_stream_is_its_seed_and_its_part(seed, part) -> None:
    assert stream(seed, part).random() == stream(seed, part).random()
    assert stream(seed, part).random() != stream(seed + 1, part).random()
    assert stream(seed, part).random() != stream(seed, part + "/").random()


def test_streams_are_independent() -> None:
    draws = [stream(seed, part).standard_normal(20_000) for seed in (1, 2) for part in ("traits", "bank")]
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.03
