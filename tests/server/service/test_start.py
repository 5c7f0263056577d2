"""Before anything is started, everything that could not work is named; and what is started is what it should be."""

import socket
import sys
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from federation.errors import ConsilienceError
from federation.files import atomic_write
from privacy.keys import create_identity
from server.home import CoordinatorHome
from server.service import start
from server.service.executor import CharterReader, check_app, make_reconciler
from tests.server.service.conftest import found
from tests.server.service.test_proxy import free_port


def configure(home: CoordinatorHome, **changes: object) -> None:
    values = yaml.safe_load(home.config_file.read_text()) | changes
    home.config_file.write_text(yaml.safe_dump(values))


@pytest.fixture
def ready(home: CoordinatorHome) -> CoordinatorHome:
    configure(home, link_port=free_port())
    return home


def code_of(home: CoordinatorHome, now: datetime | None = None) -> str:
    with pytest.raises(ConsilienceError) as caught:
        start.check_ready(home, now)
    assert caught.value.cause and caught.value.action
    return caught.value.code


def test_a_home_that_is_complete_may_start(ready):
    start.check_ready(ready)


def test_a_port_that_is_taken_is_named(ready):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ready.config().link_port))
        taken.listen()
        assert code_of(ready) == "CSL-S809"


def test_an_address_of_another_machine_cannot_be_listened_on():
    with pytest.raises(ConsilienceError, match="CSL-S809"):
        start.check_port("192.0.2.1", 18000, "listen")


def test_another_release_than_the_charters_is_refused(tmp_path):
    home = found(tmp_path / "home", "c" * 64)
    assert code_of(home) == "CSL-S806"


def test_a_charter_without_a_link_is_refused(charter, app):
    with pytest.raises(ConsilienceError, match="CSL-S807"):
        check_app(charter.model_copy(update={"link": None}), app)


def test_no_charter(ready):
    ready.pin_file.unlink()
    assert code_of(ready) == "CSL-S103"
    ready.pin_file.write_text("0" * 64)
    assert code_of(ready) == "CSL-F204"


def test_another_address_or_authority_than_the_charters(ready, tmp_path):
    configure(ready, address="elsewhere.example:443", names=["coordinator.example"])
    assert code_of(ready) == "CSL-S808"
    configure(ready, address="coordinator.example:443", names=[])
    other = found(tmp_path / "other", "c" * 64)
    ready.authority_file.write_bytes(other.authority_file.read_bytes())
    assert code_of(ready) == "CSL-S808"


def test_a_certificate_that_expired_or_is_for_others(ready):
    assert code_of(ready, datetime.now(UTC) + timedelta(days=900)) == "CSL-S120"
    configure(ready, names=["second.example"])
    assert code_of(ready) == "CSL-S122"


@pytest.mark.parametrize(
    ("name", "code"), [("link_secret", "CSL-F312"), ("server_key", "CSL-F312"), ("identity_key", "CSL-P505")]
)
def test_private_files_that_others_may_read(ready, name, code):
    getattr(ready, name).chmod(0o640)
    assert code_of(ready) == code


def test_another_identity_than_the_charters(ready):
    ready.identity_key.unlink()
    create_identity(ready.identity_key, allow_plain=True)
    assert code_of(ready) == "CSL-S102"


def test_nginx_that_is_not_there(ready, monkeypatch):
    configure(ready, proxy="nginx", listen=f"127.0.0.1:{free_port()}")
    monkeypatch.setattr(start.shutil, "which", lambda *arguments, **options: None)
    assert code_of(ready) == "CSL-S810"


def test_what_runs_link_and_executor_and_nginx_where_it_is_wanted(ready, monkeypatch):
    link, executor = start.children(ready)
    port = str(ready.config().link_port)
    assert link.name == "link" and executor.name == "executor"
    assert link.command[link.command.index("--port") + 1] == port
    assert link.command[link.command.index("--host") + 1] == "127.0.0.1"
    assert str(ready.run.absolute() / "link.sqlite") in link.command
    assert link.environment["FLWR_TELEMETRY_ENABLED"] == "0" and link.environment["FLWR_HOME"].startswith(
        str(ready.run)
    )
    assert executor.command == (sys.executable, "-m", "server.service.executor", "--home", str(ready.root))
    monkeypatch.setattr(start.shutil, "which", lambda *arguments, **options: "/usr/sbin/nginx")
    configure(ready, proxy="nginx", listen=f"127.0.0.1:{free_port()}", memory_state=True)
    link, _, nginx = start.children(ready)
    assert not any(part.endswith("link.sqlite") for part in link.command)
    file = ready.run / "nginx" / "nginx.conf"
    assert nginx.command[0] == "/usr/sbin/nginx" and str(file.absolute()) in nginx.command
    assert f"server 127.0.0.1:{port};" in file.read_text() and file.stat().st_mode & 0o077 == 0


def test_the_charter_is_read_again_when_it_changed(ready, tmp_path, app):
    reader = CharterReader(ready)
    first = reader()
    assert reader() is first
    other = found(tmp_path / "other", app)
    atomic_write(ready.charter_file, other.charter_file.read_bytes())
    with pytest.raises(ConsilienceError, match="CSL-F204"):
        reader()
    atomic_write(ready.pin_file, other.pin_file.read_bytes())
    assert reader() == other.charter() != first


def test_the_executor_refuses_a_secret_that_others_may_read(ready):
    make_reconciler(ready, b"bundle")
    ready.link_secret.chmod(0o604)
    with pytest.raises(ConsilienceError, match="CSL-F312"):
        make_reconciler(ready, b"bundle")


def test_a_home_that_cannot_be_written_is_named(ready):
    ready.run.rmdir()
    ready.run.write_text("a file stands in the way")
    with pytest.raises(ConsilienceError, match="CSL-S816"):
        start.children(ready)
