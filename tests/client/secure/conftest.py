"""A town is founded once; each test gets a copy of it, with a study granted, or set up as well."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.secure import town as towns
from tests.client.secure.town import Federation
from tests.client.vault_home import Town


@pytest.fixture(scope="session")
def granted_town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    town = towns.found(tmp_path_factory.mktemp("granted") / "town")
    with Federation(town) as federation:
        federation.grants()
    return town


@pytest.fixture(scope="session")
def agreed_town(granted_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Town:
    town = towns.copied(granted_town, tmp_path_factory.mktemp("agreed") / "town")
    with Federation(town) as federation:
        federation.set_up()
    return town


@pytest.fixture
def granted(granted_town: Town, tmp_path: Path) -> Iterator[Federation]:
    """A study that was granted by all five, and nothing more."""
    with Federation(towns.copied(granted_town, tmp_path / "town")) as federation:
        yield federation


@pytest.fixture
def agreed(agreed_town: Town, tmp_path: Path) -> Iterator[Federation]:
    """A study that is set up among all five."""
    with Federation(towns.copied(agreed_town, tmp_path / "town")) as federation:
        yield federation
