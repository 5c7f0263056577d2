"""Shape plots: the curve is the model's own sum, the picture names every column, and bytes are stable."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from client.cohort import Columns
from client.reasons import short_meaning
from client.shapes import Shape, draw, png, shapes, svg
from federation.basis import Basis, on_scale
from federation.contract import CategoricalColumn, FeatureContract, NumericColumn
from federation.document import load_yaml

CONTRACTS = Path(__file__).parents[2] / "configs" / "contracts"
RFM = load_yaml(CONTRACTS / "rfm.yaml", FeatureContract)
BANK = load_yaml(CONTRACTS / "bank_campaign.yaml", FeatureContract)


def weights_for(contract: FeatureContract, kind: str = "additive") -> NDArray[np.float32]:
    """Weights as after training."""
    return np.random.default_rng(1).normal(0, 0.5, Basis.of(contract, kind).width).astype(np.float32)


def customers(contract: FeatureContract, count: int = 200) -> Columns:
    """Some customers, without the last column of the contract."""
    rng = np.random.default_rng(2)
    columns: Columns = {}
    for column in contract.columns[:-1]:
        if isinstance(column, NumericColumn):
            columns[column.name] = np.where(
                rng.random(count) < 0.1, np.nan, rng.uniform(column.low, column.high, count)
            )
        elif isinstance(column, CategoricalColumn):
            columns[column.name] = rng.integers(-1, len(column.categories), count)
        else:
            columns[column.name] = rng.choice([0.0, 1.0, np.nan], count)
    return columns


@pytest.mark.parametrize("kind", ["additive", "logistic"])
@pytest.mark.parametrize("contract", [RFM, BANK], ids=["rfm", "bank"])
def test_a_shape_is_what_the_model_adds_up(contract: FeatureContract, kind: str) -> None:
    weights, own, basis = weights_for(contract, kind), customers(contract), Basis.of(contract, kind)
    terms = basis.contributions(basis.encode(own), weights)
    moved = terms - terms.mean(axis=0)
    found = shapes(kind, contract, weights, own)
    assert {shape.column.name for shape in found} == set(own)
    for shape in found:
        place = [column.name for column in contract.columns].index(shape.column.name)
        values = own[shape.column.name]
        if isinstance(shape.column, CategoricalColumn):
            told = np.where(values < 0, shape.missing, shape.effect[np.maximum(values, 0).astype(int)])
            assert told == pytest.approx(moved[:, place], abs=1e-5)
        if isinstance(shape.column, NumericColumn):
            told = np.where(np.isnan(values), shape.missing, along(shape, shape.column, values))
            assert told == pytest.approx(moved[:, place], abs=1e-4)


def along(shape: Shape, column: NumericColumn, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Read a curve as the plot draws it: straight between knots on the basis' scale."""
    return np.interp(on_scale(column, values), on_scale(column, shape.at), shape.effect)


def test_without_customers_curves_are_centred_on_their_knots() -> None:
    for shape in shapes("additive", RFM, weights_for(RFM)):
        assert isinstance(shape.column, NumericColumn)
        assert shape.effect[np.isin(shape.at, shape.column.knots)].mean() == pytest.approx(0.0, abs=1e-6)
        assert not len(shape.share)


def test_the_furthest_reaching_feature_comes_first() -> None:
    reach = [shape.reach for shape in shapes("additive", BANK, weights_for(BANK))]
    assert reach == sorted(reach, reverse=True) and len(reach) == len(BANK.columns)


def test_shares_count_everybody_who_is_known() -> None:
    own = customers(BANK)
    for shape in shapes("additive", BANK, weights_for(BANK), own):
        values = own[shape.column.name]
        known = (
            np.isfinite(values) & (values >= 0) if isinstance(shape.column, CategoricalColumn) else np.isfinite(values)
        )
        assert shape.share.sum() == pytest.approx(known.mean())


def test_the_svg_is_one_element_names_every_column_and_is_stable() -> None:
    figure = draw(shapes("additive", RFM, weights_for(RFM), customers(RFM)), "No purchase within the horizon")
    content = svg(figure)
    root = ElementTree.fromstring(content)
    assert root.tag.endswith("svg")
    said = " ".join("".join(item.itertext()) for item in root.iter() if item.tag.endswith("text"))
    assert all(" ".join(short_meaning(column).split()[:3]) in said for column in RFM.columns[:-1])
    assert (
        svg(draw(shapes("additive", RFM, weights_for(RFM), customers(RFM)), "No purchase within the horizon"))
        == content
    )


def test_the_png_is_grey() -> None:
    figure = draw(shapes("additive", BANK, weights_for(BANK), customers(BANK)), "Takes a term deposit")
    assert png(figure, dpi=50).startswith(b"\x89PNG")
    pixels = grey_levels(figure)
    assert pixels.min() < 80


def grey_levels(figure: Figure) -> NDArray[np.int64]:
    """Draw and check that red, green and blue agree in every pixel."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba()).astype(np.int64)
    assert (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all()
    return pixels[..., 0]


def test_an_all_zero_model_can_be_drawn() -> None:
    zero = np.zeros(Basis.of(RFM, "additive").width, dtype=np.float32)
    assert svg(draw(shapes("additive", RFM, zero), "Nothing learnt")).startswith(b"<svg")
