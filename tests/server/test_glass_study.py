"""A whole study of an additive model with a monotone curve and a pair: what is published holds it, and its card says how noisy it is."""

from pathlib import Path

import numpy as np
import pytest

from federation.basis import Basis
from federation.errors import DocumentError
from federation.messages import read_tensors
from federation.networks import tensor_shapes
from federation.study import AdditiveModel
from server.card import render
from server.events import RoundDone
from tests.server.fakes import FakeFederation, contract
from tests.server.test_coordinator import run

MODEL = AdditiveModel(monotone={"age": "decreasing"}, pairs=(("spent", "job"),))


def test_the_published_model_is_monotone_and_its_card_has_bands_interrupted_or_not(tmp_path: Path) -> None:
    whole = run(FakeFederation.make(tmp_path / "whole"), model=MODEL)
    basis = Basis.of_model(contract(), MODEL)
    weights = read_tensors(whole.content, tensor_shapes(MODEL, contract()))["linear.weight"][0]
    assert (np.diff(basis.shape(weights, "age")[1]) <= 0.0).all()
    assert [item.term for item in whole.card.shape_noise] == list(basis.blocks)
    assert "**Held monotone after training:** age decreasing" in render(whole.card)
    federation = FakeFederation.make(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        run(federation, model=MODEL, stop_at=lambda event: isinstance(event, RoundDone) and event.round == 2)
    again = run(federation, model=MODEL)
    assert again.sealed == whole.sealed and again.content == whole.content


def test_a_draft_whose_model_does_not_fit_the_contract_is_refused_with_the_columns_there_are(tmp_path: Path) -> None:
    wrong = AdditiveModel(monotone={"job": "increasing", "wealth": "increasing"}, pairs=(("age", "height"),))
    with pytest.raises(DocumentError) as caught:
        run(FakeFederation.make(tmp_path), model=wrong)
    assert caught.value.code == "CSL-S101"
    assert "job is no number" in caught.value.cause and "age, spent" in caught.value.cause
    assert "no column wealth" in caught.value.cause and "no column height" in caught.value.cause
