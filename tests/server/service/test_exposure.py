"""Who reaches what: the checks find what is open, and say nothing of what is closed."""

import pytest

from server.service import exposure
from server.service.exposure import CLOSED, FLEET_PATH, own_addresses

FIB = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 10.1.2.3
        /32 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 10.1.2.255
        /32 link BROADCAST
"""
V6 = """00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000000000000000abcd 02 40 20 80     eth0
20010db8000000000000000000000005 02 40 00 80     eth0
"""


def answers(others: int, fleet: int = 401):
    return lambda method, path: fleet if (method, path) == ("POST", FLEET_PATH) else others


def away(method, path):
    raise ConnectionRefusedError(111, "Connection refused")


def test_the_fleet_has_to_pass():
    assert exposure.check_fleet("here", answers(404)).ok
    assert not exposure.check_fleet("here", answers(404, fleet=404)).ok
    behind = exposure.check_fleet("here", answers(404, fleet=502))
    assert not behind.ok and "behind it" in behind.what
    assert "Connection refused" in exposure.check_fleet("here", away).what


@pytest.mark.parametrize("path", [path for _, path in CLOSED])
def test_every_open_path_is_found(path):
    def ask(method, asked):
        return 200 if asked == path else 404

    finding = exposure.check_closed("here", ask)
    assert not finding.ok and path in finding.what and finding.action


def test_a_closed_address_is_well_and_a_silent_one_is_not():
    assert exposure.check_closed("here", answers(404)).level == "ok"
    assert not exposure.check_closed("here", away).ok


def test_a_redirect_or_a_refusal_is_not_the_same_as_not_there():
    for status in (200, 301, 401, 403, 500):
        assert not exposure.check_closed("here", answers(status)).ok


def test_the_links_port_must_be_closed_at_every_other_address():
    closed = exposure.check_loopback_only(18000, ["10.1.2.3", "2001:db8::5"], lambda address, port: False)
    assert closed.level == "ok" and "2 other" in closed.what
    found = exposure.check_loopback_only(18000, ["10.1.2.3", "10.1.2.4"], lambda address, port: address.endswith("4"))
    assert not found.ok and "10.1.2.4" in found.what and "10.1.2.3" not in found.what


def test_addresses_are_the_kernels_without_loopback(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "fib_trie").write_text(FIB)
    (tmp_path / "net" / "if_inet6").write_text(V6)
    assert own_addresses(tmp_path) == ("10.1.2.3", "2001:db8::5")


def test_a_system_that_lists_none_is_asked_by_its_name(tmp_path, monkeypatch):
    entries = [(0, 0, 0, "", ("192.0.2.7", 0)), (0, 0, 0, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(exposure.socket, "getaddrinfo", lambda *arguments: entries)
    assert own_addresses(tmp_path) == ("192.0.2.7",)


def test_a_port_that_nobody_listens_on_takes_no_connection():
    with exposure.socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert not exposure.connects("127.0.0.1", port)
        probe.listen()
        assert exposure.connects("127.0.0.1", port)
