"""One population for the tests that only look at it."""

import pytest

from simulations.population.generate import Population, generate
from simulations.population.parameters import PopulationParameters


@pytest.fixture(scope="session")
def town() -> Population:
    return generate(PopulationParameters(customers=30_000), 1, purchases=True)
