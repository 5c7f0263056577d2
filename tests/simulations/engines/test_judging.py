"""Figures are those of known small cases, and missing where they do not exist."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from simulations.engines.judging import judge
from simulations.engines.work import Rows


def rows(labels, offsets):
    count = len(labels)
    return Rows(
        torch.zeros(count, 1),
        torch.zeros(count, 0, dtype=torch.int64),
        torch.tensor(labels, dtype=torch.float32),
        np.array(offsets, dtype=np.int64),
    )


def test_figures_overall_and_by_institution():
    labels = [0, 1, 0, 1, 1, 0, 0, 1]
    logits = np.array([-1.0, 2.0, 0.5, 0.3, 1.0, 3.0, -2.0, 0.1])
    judged = judge(rows(labels, [0, 4, 8]), logits)
    assert [part["auc"] for part in judged.by_institution] == [0.75, 0.5]
    assert judged.overall["auc_mean"] == 0.625
    assert judged.overall["auc_worst"] == 0.5
    assert judged.overall["base_rate"] == 0.5
    assert judged.overall["lift_mean"] == np.mean([part["lift_10"] for part in judged.by_institution]) == 1.0
    for share in ("01", "05", "10", "20"):
        own = [part[f"lift_{share}"] for part in judged.by_institution]
        assert judged.overall[f"lift_{share}_mean"] == np.mean(own)
    assert judged.overall["lift_05_mean"] != judged.overall["lift_05"]
    assert judged.overall["lift"] == judged.overall["lift_10"] == 0.0  # the one best score is a zero
    assert judged.overall["log_loss"] == pytest.approx(log_loss(labels, 1.0 / (1.0 + np.exp(-logits))))


def test_one_class_and_no_rows_have_no_auc_and_do_not_spoil_the_means():
    judged = judge(rows([1, 1, 0, 1], [0, 2, 2, 4]), np.array([0.0, 1.0, -1.0, 2.0]))
    assert [math.isnan(part["auc"]) for part in judged.by_institution] == [True, True, False]
    assert judged.overall["auc_mean"] == judged.overall["auc_worst"] == 1.0
    blind = judge(rows([1, 1], [0, 2]), np.zeros(2))
    assert math.isnan(blind.overall["auc"]) and math.isnan(blind.overall["auc_mean"])


def test_extreme_logits_give_finite_losses():
    assert judge(rows([1, 0], [0, 2]), np.array([-1e9, 1e9])).overall["log_loss"] == pytest.approx(30.0)


def test_without_a_model_there_are_no_figures_of_one():
    judged = judge(rows([1, 0, 1, 0], [0, 2, 4]), np.array([1.0, 0.0, np.nan, np.nan]))
    assert judged.by_institution[0]["auc"] == 1.0
    for figures in (judged.overall, judged.by_institution[1]):
        assert all(math.isnan(figures[name]) for name in ("auc", "log_loss", "lift_01", "lift_10"))
        assert figures["base_rate"] == 0.5
