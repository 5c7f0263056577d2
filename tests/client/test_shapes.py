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
from client.surfaces import surfaces
from federation.basis import Basis, on_scale
from federation.contract import CategoricalColumn, FeatureContract, NumericColumn
from federation.document import load_yaml
from federation.shape_noise import ShapeNoise

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


def test_what_matters_most_comes_first() -> None:
    found = [shape.importance for shape in shapes("additive", BANK, weights_for(BANK))]
    assert found == sorted(found, reverse=True) and len(found) == len(BANK.columns) and found[-1] > 0
    own = [shape.importance for shape in shapes("additive", BANK, weights_for(BANK), customers(BANK))]
    assert own == sorted(own, reverse=True) and own != found[: len(own)]


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


def noise_for(basis: Basis) -> tuple[ShapeNoise, ...]:
    """A card's word about every term."""
    sizes = {term: len(basis.table(term)) for term in basis.blocks}
    return tuple(ShapeNoise(term=term, deviations=(0.1,) * size, missing=0.2) for term, size in sizes.items())


def test_a_band_is_drawn_where_the_card_speaks_of_the_curve() -> None:
    basis, weights = Basis.of(BANK, "additive"), weights_for(BANK)
    plain = shapes("additive", BANK, weights)
    banded = shapes("additive", BANK, weights, noise=noise_for(basis))
    assert not any(len(shape.band) for shape in plain)
    for shape in banded:
        np.testing.assert_allclose(shape.band, 0.196)
        assert len(shape.band) == len(shape.effect) and shape.missing_band == pytest.approx(0.392)
    figure = draw(banded[:3], "Takes a term deposit")
    assert "95% of what privacy" in svg(figure).decode()
    assert "95%" not in svg(draw(plain[:3], "Takes a term deposit")).decode()
    grey_levels(figure)


def test_a_band_of_another_length_is_not_believed_and_none_is_drawn_around_own_customers() -> None:
    short = (ShapeNoise(term="age", deviations=(0.1,), missing=0.1),)
    assert not any(len(shape.band) for shape in shapes("additive", BANK, weights_for(BANK), noise=short))
    basis = Basis.of(BANK, "additive")
    own = shapes("additive", BANK, weights_for(BANK), customers(BANK), noise=noise_for(basis))
    assert not any(len(shape.band) for shape in own)


PAIRS = (("age", "balance"), ("contact", "month"))


def paired_weights() -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(0, 0.5, Basis.of(BANK, "additive", PAIRS).width).astype(np.float32)


def test_a_pair_is_a_heat_map_after_the_curves() -> None:
    basis, weights = Basis.of(BANK, "additive", PAIRS), paired_weights()
    found = surfaces(BANK, weights, PAIRS, noise=noise_for(basis))
    assert {surface.term for surface in found} == {"age*balance", "contact*month"}
    assert found[0].importance >= found[1].importance > 0
    for surface in found:
        np.testing.assert_allclose(surface.effect, basis.surface(weights, surface.term)[2])
        assert surface.band.shape == surface.effect.shape == (len(surface.at), len(surface.across))
    first = shapes("additive", BANK, weights, pairs=PAIRS)[:1]
    figure = draw(first, "Takes a term deposit", found)
    said = svg(figure).decode()
    assert "on top of both curves" in said and "(1.00)" in said and "cellular" in said
    assert all(f"{np.exp(value):.2f}" in said for value in found[0].effect.ravel())
    assert svg(draw(first, "Takes a term deposit", found)).decode() == said
    grey_levels(figure)


def test_without_pairs_there_is_no_surface() -> None:
    assert surfaces(BANK, weights_for(BANK, "logistic"), ()) == []


def test_with_pairs_a_curve_is_still_the_columns_own_term() -> None:
    basis, weights = Basis.of(BANK, "additive", PAIRS), paired_weights()
    for shape in shapes("additive", BANK, weights, pairs=PAIRS):
        effect = basis.shape(weights, shape.column.name)[1]
        np.testing.assert_allclose(shape.effect, effect - effect.mean(), atol=1e-9)
