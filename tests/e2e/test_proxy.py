"""A federation behind nginx: a study runs through it, nobody from outside reaches anything else, and `doctor` says which it is."""

import json
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from federation.doctor import Finding
from server.service.doctor import examine
from server.service.exposure import CLOSED, FLEET_PATH, own_addresses
from tests.client.vault_home import MEMBERS
from tests.e2e.deployed import COORDINATOR, Deployed, deployed, draft, free_port, wait_for
from tests.e2e.hostile import WORD, figures, holding, scrape, spoil

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/sbin")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]
ROUNDS = 6
EMPTY = "Content-Type: application/protobuf\r\nContent-Length: 0\r\n"
CONTROL = "/v1/control/list-runs"
TRICKS = (
    "//v1/control/list-runs",
    "/v1//control/list-runs",
    "/V1/CONTROL/list-runs",
    "/v1/fleet/../../v1/control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/%2e%2e%2fcontrol%2flist-runs",
    "/v1/fleet/..;/control/list-runs",
    "/v1/fleet/..\\control\\list-runs",
    "/v1/fleet/x/../../control/list-runs",
    "/v1/fleet/./../control/list-runs",
    "/v1/fleet/",
    "/v1/fleet/pull-messages/../../control/list-runs",
    "/v1/fleet?/../control/list-runs",
    "/v1/fleet/pull-messages?x=1",
    "/v1/fleet/pull-messages#/../../control/list-runs",
    "/v1/fleet/pull-messages%00",
    "/v1/control/list-runs?/v1/fleet/pull-messages",
    "/v1/control/list-runs%3f/v1/fleet/pull-messages",
    "/v1/control/start-run",
    "/v1/runtime/acquire-task",
    "/v1/runtime/pull-object",
    "/redoc",
    "/metrics",
)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with deployed(tmp_path_factory.mktemp("proxied"), proxy="nginx", epsilon=0.3) as found:
        spoil(found)
        found.ports = {party: free_port() for party in (COORDINATOR, *MEMBERS)}
        with (found.office.root / "coordinator.yaml").open("a") as file:
            file.write(f"metrics_port: {found.ports[COORDINATOR]}\n")
        for member in MEMBERS:
            found.serve(member, metrics_port=found.ports[member])
        found.start_all()
        yield found


def status(port: int, method: str, path: str, federation: Deployed, headers: str = "", body: str = "") -> int:
    """Send a request as it is written here, and return the status of the first answer; 0 where none comes."""
    context = ssl.create_default_context(cafile=federation.office.authority_file)
    request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n{body}"
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as stream:
            stream.sendall(request.encode())
            first = stream.makefile("rb").readline().split()
    return int(first[1]) if len(first) > 1 else 0


def found(federation: Deployed, check: str) -> Finding:
    (finding,) = [item for item in examine(federation.office) if item.check == check]
    return finding


def test_a_study_runs_through_it_and_both_sides_show_sensible_figures(federation):
    federation.begin(draft(rounds=ROUNDS))
    federation.wait_event("propensity", "RoundDone")
    for port in federation.ports.values():
        assert WORD.decode() not in scrape(port)
    federation.wait_finished("propensity")
    rounds = [item for item in federation.events("propensity") if item["event"] == "RoundDone"]
    assert [item["answered"] for item in rounds] == [list(MEMBERS)] * ROUNDS
    federation.assert_ledgers(studies=1, rounds=ROUNDS)
    for member in MEMBERS:
        shown = figures(federation.ports[member])
        assert shown['consilience_vault_requests_total{outcome="answered",type="train"}'] == ROUNDS
        assert shown['consilience_vault_releases_total{account="training"}'] == ROUNDS
        assert shown['consilience_vault_releases_total{account="holdout"}'] == 1
        assert shown["consilience_vault_studies_open"] == 0
        assert shown["consilience_vault_ledger_entries"] == len(federation.kinds(member))
        assert not [name for name in shown if name.startswith("consilience_vault_refusals_total")]
    wait_for(
        lambda: figures(federation.ports[COORDINATOR]).get('consilience_rounds_total{study="propensity"}') == ROUNDS,
        "rounds are counted",
    )
    shown = figures(federation.ports[COORDINATOR])
    for member in MEMBERS:
        assert shown[f'consilience_answers_total{{member="{member}",study="propensity"}}'] == ROUNDS
        assert 0 < shown[f'consilience_epsilon_declared{{member="{member}",study="propensity"}}'] <= 0.3
    assert shown['consilience_bytes_total{direction="received",study="propensity"}'] > 0


def test_data_that_do_not_parse_are_told_to_nobody(federation):
    faults = {member: list((federation.home(member) / "studies").glob("*.fault.json")) for member in MEMBERS}
    assert [bool(faults[member]) for member in MEMBERS] == [False, True, False]
    places = [federation.root / f"{party}.out" for party in (COORDINATOR, *MEMBERS)]
    places += [federation.home(member) / folder for member in MEMBERS for folder in ("logs", "run")]
    places += [*faults["birch"], federation.office.root]
    assert holding(WORD, federation.home("birch") / "customers.csv")
    assert not holding(WORD, *places)
    for member in MEMBERS:
        lines = (federation.home(member) / "logs" / "vault.log").read_text().splitlines()
        assert len([json.loads(line) for line in lines]) > ROUNDS
        assert WORD.decode() not in scrape(federation.ports[member])


def test_from_outside_there_is_the_fleet_and_nothing_else(federation):
    public, link = federation.port, federation.office.config().link_port
    assert status(link, "POST", CONTROL, federation, EMPTY) == 200, "the link answers anybody on loopback"
    assert status(public, "POST", FLEET_PATH, federation, EMPTY) == 401
    paths = [
        *CLOSED,
        *(("POST", path) for path in TRICKS),
        ("GET", CONTROL),
        ("PUT", FLEET_PATH),
        ("TRACE", FLEET_PATH),
    ]
    paths.append(("POST", f"https://127.0.0.1:{link}{CONTROL}"))
    told = {path: status(public, *path, federation, EMPTY) for path in paths}
    assert {path: code for path, code in told.items() if code not in (400, 404, 405)} == {}
    assert status(public, "CONNECT", f"127.0.0.1:{link}", federation) in (400, 404, 405)
    for header in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Path", "X-HTTP-Method-Override"):
        assert status(public, "POST", "/", federation, f"{header}: {CONTROL}\r\n{EMPTY}") == 404
    hidden = f"0\r\n\r\nPOST {CONTROL} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    both = f"Content-Type: application/protobuf\r\nContent-Length: {len(hidden)}\r\nTransfer-Encoding: chunked\r\n"
    assert status(public, "POST", FLEET_PATH, federation, both, hidden) == 400


def test_the_links_own_port_is_closed_at_every_other_address(federation):
    link = federation.office.config().link_port
    others = own_addresses()
    if not others:
        pytest.skip("this machine has no address but the loopback ones")
    for address in others:
        with pytest.raises(OSError):
            socket.create_connection((address, link), 3).close()
    assert found(federation, "loopback").ok
    with closing(socket.create_server((others[0], link), family=family_of(others[0]))):  # a door that leads nowhere
        finding = found(federation, "loopback")
        assert finding.level == "fail" and others[0] in finding.what


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def test_doctor_is_content_and_fails_once_the_proxy_lets_everything_through(federation):
    told = federation.coordinator("doctor", "--json", check=False)
    findings = {item["check"]: item for item in json.loads(told.stdout)["findings"]}
    assert told.returncode == 0, told.stdout
    assert all(findings[check]["level"] == "ok" for check in ("fleet", "closed paths", "loopback", "nginx"))
    config = federation.office.run / "nginx" / "nginx.conf"
    before = config.read_text()
    open_wide = before
    for closed, opened in (
        ("default 0;", "default 1;"),
        ("location / {\n            return 404;", "location / {\n            proxy_pass https://link;"),
    ):
        assert closed in open_wide
        open_wide = open_wide.replace(closed, opened)
    config.write_text(open_wide)
    try:
        reload(config, lambda: status(federation.port, "POST", CONTROL, federation, EMPTY) == 200)
        told = federation.coordinator("doctor", "--json", check=False)
        (finding,) = [item for item in json.loads(told.stdout)["findings"] if item["check"] == "closed paths"]
        assert told.returncode != 0 and finding["level"] == "fail" and f"POST {CONTROL}" in finding["what"]
    finally:
        config.write_text(before)
    reload(config, lambda: status(federation.port, "POST", CONTROL, federation, EMPTY) == 404)
    assert found(federation, "closed paths").ok


def reload(config: Path, holds) -> None:
    os.kill(int((config.parent / "nginx.pid").read_text()), signal.SIGHUP)
    wait_for(holds, "nginx works by its new configuration")
