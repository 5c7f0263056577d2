"""How many customers an institution can approach, by contract: `lists.yaml` in its home."""

from client.home import Home
from client.names import Capacity, TopCustomers
from federation.contract import Name
from federation.document import Document, load_yaml

DEFAULT_CAPACITY = TopCustomers(customers=100)


class ListRules(Document):
    """How many customers the institution can approach, by contract; `lists.yaml` in the home folder, 100 where it says nothing."""

    capacity: dict[Name, Capacity] = {}


def list_rules(home: Home) -> ListRules:
    """Read the home's `lists.yaml`; the defaults where there is none. Raises DocumentError as `federation.document.load_yaml`."""
    file = home.root / "lists.yaml"
    return load_yaml(file, ListRules) if file.exists() else ListRules()
