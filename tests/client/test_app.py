"""The Flower ClientApp: exact message types in, one vault a home, and no exception's text out."""

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client import app as module
from client.app import VaultShelf, make_app
from federation.errors import StorageError
from federation.messages import REFUSED, Identity, unpack
from tests.client import vault_home


def context(**node_config) -> Context:
    return Context(run_id=1, node_id=1, node_config=node_config, state=RecordDict(), run_config={"home": "/etc"})


@pytest.fixture(autouse=True)
def task(monkeypatch):
    """Flower stamps every message with the task that makes it."""
    for name in ("run_id", "node_id", "task_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1, raising=False)


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return vault_home.found(tmp_path_factory.mktemp("town"))


def test_a_message_reaches_the_vault_of_the_nodes_own_configuration(town):
    app = make_app(VaultShelf())
    message = Message(town.hello(), 1, "query.hello")
    home = str(town.homes["birch"].root)
    reply = app(message, context(**{"home": home}))
    assert unpack(reply.content, Identity, town.key("birch"))[0].member == "birch"


def test_a_vault_is_opened_once(town):
    shelf = VaultShelf()
    one = context(**{"home": str(town.homes["cedar"].root)})
    assert shelf(one) is shelf(one)


def test_a_home_in_the_run_configuration_is_ignored():
    with pytest.raises(StorageError, match="CSL-C509"):
        VaultShelf()(context())


def test_an_exceptions_text_never_leaves(town):
    def broken(_context):
        raise RuntimeError("customer canary-17 has balance 5")

    message = Message(town.hello(), 1, "query.hello")
    reply = make_app(broken)(message, context())
    assert reply.has_error() and reply.error.reason == REFUSED


def test_an_alias_of_a_message_type_is_not_answered(town):
    app = make_app(VaultShelf())
    for alias in ("query.unknown", "query", "evaluate.other"):
        with pytest.raises(ValueError, match="registered|Invalid"):
            app(Message(town.hello(), 1, alias), context())


def test_the_module_offers_the_app_that_flower_loads():
    assert callable(module.app)
