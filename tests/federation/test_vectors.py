import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from federation.vectors import dimension_of, flatten, unflatten

SHAPES = st.dictionaries(st.text(min_size=1, max_size=4), arrays.array_shapes(max_dims=3, max_side=4), min_size=1)


@given(SHAPES, st.integers(0, 2**32))
def test_a_vector_gives_back_the_tensors_that_it_was_made_of(shapes, seed):
    generator = np.random.default_rng(seed)
    tensors = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    vector = flatten(tensors)
    assert vector.shape == (dimension_of(shapes),)
    again = unflatten(vector, shapes)
    assert again.keys() == tensors.keys() and all(np.array_equal(again[name], tensors[name]) for name in tensors)


def test_the_order_is_that_of_the_names_and_not_of_the_mapping():
    one, other = np.array([[1.0, 2.0]]), np.array([3.0])
    assert flatten({"b": other, "a": one}).tolist() == flatten({"a": one, "b": other}).tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("length", [0, 2, 4])
def test_a_vector_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match="not as long"):
        unflatten(np.zeros(length), {"a": (1, 2), "b": (1,)})
