"""`coordinator doctor` names what is amiss, each with its next action, and changes nothing."""

import time
from datetime import timedelta

import pytest

from federation.doctor import Finding, good
from federation.service_state import ServiceLock
from server.service import doctor
from server.service.doctor import Look, check_clock, check_studies, examine
from server.service.studies import StudyBook
from tests.server.service.test_proxy import free_port
from tests.server.service.test_start import configure

ENVIRONMENT = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


@pytest.fixture
def ready(home):
    configure(home, link_port=free_port())
    return home


def look(**changes: object) -> Look:
    values: dict[str, object] = {
        "environment": ENVIRONMENT,
        "addresses": lambda: ("10.1.2.3",),
        "connects": lambda address, port: False,
        "asker": lambda address, authority: (
            lambda method, path: 401 if "heartbeat" in path and method == "POST" else 404
        ),
        "link": lambda address, authority: [good("reach", address)],
        "clock": lambda: 0,
    }
    return Look(**(values | changes))  # type: ignore[arg-type]


def bad(findings: list[Finding]) -> dict[str, str]:
    for finding in findings:
        assert finding.ok or finding.action
    return {finding.check: finding.what for finding in findings if not finding.ok}


def of(findings: list[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def test_a_sound_home_has_nothing_that_fails(ready):
    findings = examine(ready, look())
    assert bad(findings) == {}
    assert {"charter", "contracts", "private files", "studies", "telemetry", "disk"} <= {
        item.check for item in findings
    }
    assert of(findings, "service")[0].level == "warn" and not of(findings, "fleet")


def test_it_changes_nothing(ready):
    def marks():
        return {path: path.stat().st_mtime_ns for path in ready.root.rglob("*")}

    before = marks()
    examine(ready, look())
    assert marks() == before


@pytest.mark.parametrize("name", ["identity_key", "authority_key", "server_key", "link_secret"])
def test_open_rights_are_found(ready, name):
    getattr(ready, name).chmod(0o644)
    assert name.split("_")[0] and "private files" in bad(examine(ready, look()))


def test_a_certificate_near_its_end_and_one_that_is_over(ready):
    def at(days):
        return look(now=lambda: time.time() + timedelta(days=days).total_seconds())

    assert of(examine(ready, at(810)), "server.pem")[0].level == "warn"
    over = examine(ready, at(900))
    assert "server.pem" in bad(over) and "certificate renew" in of(over, "server.pem")[0].action


def test_a_certificate_for_other_names(ready):
    configure(ready, names=["second.example"])
    assert "CSL-S122" in bad(examine(ready, look()))["certificate"]


def test_a_charter_that_does_not_fit_this_home(ready):
    configure(ready, address="elsewhere.example:443", names=["coordinator.example"])
    assert "CSL-S808" in bad(examine(ready, look()))["charter"]
    ready.pin_file.write_text("0" * 64)
    assert "CSL-F204" in bad(examine(ready, look()))["charter"]


def test_a_contract_that_is_another_version_or_gone(ready):
    path = ready.root / "contracts" / "shoppers.yaml"
    path.write_text(path.read_text().replace("version: 1", "version: 2"))
    assert "not the version" in bad(examine(ready, look()))["contracts"]
    path.unlink()
    assert "contracts" in bad(examine(ready, look()))


def test_coordinator_yaml_that_is_no_configuration(ready):
    ready.config_file.write_text("federation: 5\n")
    assert "CSL-F105" in bad(examine(ready, look()))["coordinator.yaml"]


def test_while_it_runs_the_doors_are_tried(ready):
    asked = []

    def asker(address, authority):
        asked.append(address)
        return lambda method, path: 200

    with ServiceLock(ready.run):
        findings = examine(ready, look(asker=asker, connects=lambda address, port: True))
        well = examine(ready, look())
    assert asked == ["coordinator.example:443"]
    assert {"closed paths", "loopback"} <= set(bad(findings))
    assert not {"fleet", "closed paths", "loopback"} & set(bad(well)) and of(well, "fleet")


def test_a_link_that_is_its_own_address_is_for_one_machine_alone(ready):
    port = ready.config().link_port
    configure(ready, address=f"127.0.0.1:{port}")
    with ServiceLock(ready.run):
        (finding,) = of(examine(ready, look()), "closed paths")
    assert finding.level == "warn" and "nginx" in finding.action


def test_nginx_that_is_wanted_and_missing_or_old(ready, monkeypatch):
    configure(ready, proxy="nginx", listen=f"127.0.0.1:{free_port()}")
    monkeypatch.setattr("server.service.start.shutil.which", lambda *arguments, **options: None)
    assert "CSL-S810" in bad(examine(ready, look()))["nginx"]
    monkeypatch.setattr("server.service.start.shutil.which", lambda *arguments, **options: "/usr/sbin/nginx")
    with ServiceLock(ready.run):
        assert [item.level for item in of(examine(ready, look()), "nginx")] == ["ok", "warn"]


def test_telemetry_is_off_for_the_service_whatever_the_shell_says(ready):
    (finding,) = of(examine(ready, look(environment={})), "telemetry")
    assert finding.ok


def test_the_clock():
    assert check_clock(None) is None
    assert check_clock(0).level == "ok" and check_clock(5).level == "warn"
    assert doctor._clock_state() in (None, *range(6))


def test_studies_that_are_stuck_are_named(tmp_path):
    book = StudyBook(tmp_path, lambda: 1000.0)
    for name in ("asleep", "calm", "failing", "trying", "waiting"):
        book.want(name)
    book.settle("asleep", "running")
    book.settle("failing", "failed", "the disk is full")
    book.settle("trying", "waiting", "the link does not answer", "CSL-F331", tries=5)
    book.settle("calm", "finished")
    named = {item.what.split()[0] for item in check_studies(book, 1000.0 + 2000.0) if item.level == "warn"}
    assert named == {"asleep", "failing", "trying"}
    assert {item.what.split()[0] for item in check_studies(book, 1001.0)} == {"failing", "trying"}
    book.file("calm").write_text("{")
    assert not all(item.ok for item in check_studies(book, 1001.0))


def test_no_study_is_stuck_where_there_is_none(tmp_path):
    assert [item.level for item in check_studies(StudyBook(tmp_path), 0.0)] == ["ok"]
