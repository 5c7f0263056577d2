"""Calibration: the noise that is shown gives the epsilon that is shown, and nonsense is refused by its code."""

import json

import pytest

from federation.document import load_yaml
from federation.errors import ConsilienceError
from privacy.accounting import epsilon as true_epsilon
from privacy.events import DiscreteGaussianHistogram, DiscreteLaplaceHistogram, SubsampledGaussian
from privacy.policy import Policy
from tests.client.officer_desk import run
from tests.client.vault_home import found

SGD = ("--rate", "0.3", "--steps", "30")
TERMS = ("--epsilon", "1", "--delta", "1e-6")
CASES = {
    "sgd": (SGD, lambda noise: SubsampledGaussian(noise_multiplier=noise, sampling_rate=0.3, steps=30)),
    "counts": (("--counts", "12"), lambda noise: DiscreteGaussianHistogram(sigma=noise, count=12)),
    "laplace": (("--counts", "12", "--laplace"), lambda noise: DiscreteLaplaceHistogram(scale=noise, count=12)),
}


@pytest.mark.parametrize("mechanism", CASES)
def test_the_noise_gives_the_epsilon_and_not_much_less(mechanism):
    options, build = CASES[mechanism]
    value = json.loads(run("calibrate", *TERMS, *options, "--json"))
    assert value["mechanism"] == mechanism
    assert (
        value["epsilon"] == pytest.approx(true_epsilon([build(value["noise"])], 1e-6)) and 0.998 < value["epsilon"] <= 1
    )
    wanted = [row["wanted_epsilon"] for row in value["table"]]
    noise = [row["noise"] for row in value["table"]]
    assert wanted == [0.5, 0.75, 1.0, 1.5, 2.0] and noise == sorted(noise, reverse=True)
    assert f"{value['noise']:.4g}" in run("calibrate", *TERMS, *options)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--epsilon", "0", "--delta", "1e-6", *SGD), "CSL-P105"),
        (("--epsilon", "-1", "--delta", "1e-6", *SGD), "CSL-P105"),
        (("--epsilon", "inf", "--delta", "1e-6", *SGD), "CSL-P105"),
        (("--epsilon", "nan", "--delta", "1e-6", *SGD), "CSL-P105"),
        (("--epsilon", "1", "--delta", "1", *SGD), "CSL-P104"),
        (("--epsilon", "1", "--delta", "1.5", *SGD), "CSL-P104"),
        (("--epsilon", "1", "--delta", "0", *SGD), "CSL-P104"),
        (("--epsilon", "1", "--delta", "nan", *SGD), "CSL-P104"),
        ((*TERMS, "--rate", "1.5", "--steps", "3"), "CSL-P108"),
        ((*TERMS, "--rate", "nan", "--steps", "3"), "CSL-P108"),
        ((*TERMS, "--rate", "0.5", "--steps", "0"), "CSL-P108"),
        ((*TERMS, "--counts", "0"), "CSL-P108"),
        (("--epsilon", "1e-6", "--delta", "1e-6", "--counts", "1"), "CSL-P107"),
        (TERMS, "CSL-C666"),
        ((*TERMS, "--rate", "0.5"), "CSL-C666"),
        ((*TERMS, "--laplace", *SGD), "CSL-C666"),
        ((*TERMS, "--counts", "3", *SGD), "CSL-C666"),
    ],
)
def test_nonsense_is_refused(options, code):
    with pytest.raises(ConsilienceError, match=code):
        run("calibrate", *options)


def test_with_a_home_it_says_what_it_costs_there(tmp_path):
    town = found(tmp_path, active=False)
    root = town.homes["alder"].root
    with pytest.raises(ConsilienceError, match="CSL-C667"):
        run("calibrate", *TERMS, *SGD, "--home", root)
    with pytest.raises(ConsilienceError, match="CSL-C005"):
        run("calibrate", *TERMS, *SGD, "--home", tmp_path)
    town.activate(load_yaml(town.homes["alder"].policy_file, Policy))
    value = json.loads(run("calibrate", *TERMS, *SGD, "--home", root, "--json"))
    period, life = value["budgets"]
    assert (period["budget"], life["budget"]) == ("365 days", "life") and 0 < life["share"] < period["share"] < 1
    assert period["fits_times"] == int(1 / period["share"])
    assert "takes of life" in run("calibrate", *TERMS, *SGD, "--home", root)
    large = json.loads(run("calibrate", "--epsilon", "90", "--delta", "1e-6", *SGD, "--home", root, "--json"))
    assert large["budgets"][0]["fits_times"] == 0 and len(large["table"]) == 1
