import json
import subprocess
from collections import namedtuple
from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.doctor import (
    DISK_FAIL,
    DISK_WARN,
    Finding,
    check_disk,
    check_proxy,
    check_rights,
    check_service,
    check_telemetry,
    check_versions,
    environment_of,
    exit_code,
    fail,
    from_error,
    good,
    report,
    warn,
)
from federation.errors import ExitCode, PolicyError
from federation.service_state import ChildState, ServiceState

FINDINGS = [
    good("disk", "Enough."),
    warn("certificate", "12 days left.", "Renew it."),
    fail("clock", "[b]Off.", "Set it."),
]
Space = namedtuple("Space", "free")


def test_a_person_reads_findings_with_their_actions():
    text = report(FINDINGS, as_json=False)
    assert "fail  clock" in text and "[b]Off." in text and "\x1b" not in text
    assert text.index("12 days left.") < text.index("→ Renew it.") < text.index("Off.")
    assert text.rstrip().endswith("3 checks: 1 fails, 1 to look at.")
    assert "1 checks, all well." in report(FINDINGS[:1], as_json=False)
    assert "\x1b[" in report(FINDINGS, as_json=False, colour=True)


def test_a_machine_reads_the_same():
    parsed = json.loads(report(FINDINGS, as_json=True))
    assert parsed["ok"] is False
    assert parsed["findings"][1] == {
        "check": "certificate",
        "ok": True,
        "level": "warn",
        "what": "12 days left.",
        "action": "Renew it.",
    }


def test_only_what_fails_changes_the_exit_code():
    assert exit_code([]) == exit_code(FINDINGS[:2]) == 0
    assert exit_code(FINDINGS) == ExitCode.FEDERATION


def test_an_error_is_a_finding():
    assert from_error("policy", PolicyError("CSL-P201", "Not signed.", "Sign it.")) == Finding(
        "policy", False, "fail", "CSL-P201  Not signed.", "Sign it."
    )


class Installed:
    """Stands in for the installed packages."""

    def __init__(self, requires, python=">=3.11", **versions):
        self.version = "0.1.0"
        self.requires = requires
        self.metadata = {"Requires-Python": python}
        self._versions = versions

    def __call__(self, name):
        if name == "consilience":
            return self
        if name not in self._versions:
            raise metadata.PackageNotFoundError(name)
        return namedtuple("Other", "version")(self._versions[name])


def test_versions_as_pinned_are_one_finding():
    found = check_versions(
        find=Installed(["flwr==1.41.0", "torch==2.13.0", 'x==1; extra == "dev"'], flwr="1.41.0", torch="2.13.0+cpu")
    )
    assert [finding.level for finding in found] == ["ok"] and "2 packages" in found[0].what


def test_versions_that_differ_are_named_and_only_flower_s_fails():
    find = Installed(["flwr==1.41.0", "rich==14.3.4", "gone==1"], flwr="1.42.0", rich="14.3.5")
    found = {finding.what: finding.level for finding in check_versions(find=find, python=(3, 10, 2))}
    assert found == {
        "This is Python 3.10.2; >=3.11 is needed.": "fail",
        "flwr is 1.42.0; ==1.41.0 is what was tested.": "fail",
        "rich is 14.3.5; ==14.3.4 is what was tested.": "warn",
        "gone is not installed.": "fail",
    }


def test_an_installation_that_is_none_is_told():
    assert check_versions("no-such-package-of-anybody")[0].level == "fail"


def test_this_installation_has_the_pinned_flower():
    assert not [finding for finding in check_versions() if "flwr" in finding.what and not finding.ok]


@given(free=st.integers(0, 1 << 45))
def test_disk_levels(tmp_path_factory, free):
    finding = check_disk(tmp_path_factory.getbasetemp(), usage=lambda folder: Space(free))
    expected = "fail" if free < DISK_FAIL else "warn" if free < DISK_WARN else "ok"
    assert finding.level == expected and (finding.action is None) == (expected == "ok")


def test_a_folder_that_is_not_there_fails(tmp_path):
    finding = check_disk(tmp_path / "gone")
    assert finding.level == "fail" and "No such file" in finding.what
    assert "GiB free" in check_disk(tmp_path).what or "MiB free" in check_disk(tmp_path).what


def test_rights_of_secrets(tmp_path):
    closed, opened = tmp_path / "closed.key", tmp_path / "opened.key"
    for path, mode in ((closed, 0o600), (opened, 0o640)):
        path.write_text("secret")
        path.chmod(mode)
    assert [finding.level for finding in check_rights([closed])] == ["ok"]
    found = check_rights([closed, opened, tmp_path / "missing.key"])
    assert [finding.what[:8] for finding in found] == ["CSL-F312", "CSL-F311"]
    assert all(finding.level == "fail" and finding.action for finding in found)


@pytest.mark.parametrize(
    ("environment", "level", "named"),
    [
        ({"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}, "ok", None),
        ({"FLWR_TELEMETRY_ENABLED": "0"}, "fail", "FLWR_DISABLE_UPDATE_CHECK=1"),
        ({"FLWR_TELEMETRY_ENABLED": "1", "FLWR_DISABLE_UPDATE_CHECK": "1"}, "fail", "FLWR_TELEMETRY_ENABLED=0"),
        ({}, "fail", "FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1"),
    ],
)
def test_telemetry(environment, level, named):
    finding = check_telemetry(environment)
    assert finding.level == level and (named is None or named in finding.action)


def test_what_a_running_process_was_started_with_is_what_counts(monkeypatch):
    child = subprocess.Popen(["sleep", "60"], env={"FLWR_TELEMETRY_ENABLED": "1", "FLWR_DISABLE_UPDATE_CHECK": "1"})
    try:
        one = ChildState(name="link", pid=child.pid, state="up", restarts=0, last_exit=None, reason=None, since=1)
        state = ServiceState(pid=1, started=1, children=(one,))
        assert environment_of(state, "link") == {"FLWR_TELEMETRY_ENABLED": "1", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        assert check_telemetry(environment_of(state, "link")).level == "fail"
        assert environment_of(state, "supernode") is environment_of(None, "link") is None
    finally:
        child.kill()
        child.wait()
    assert not environment_of(state, "link")


def test_a_proxy_is_told_without_its_address():
    assert check_proxy({"HTTPS_PROXY": ""}) is None
    finding = check_proxy({"HTTPS_PROXY": "http://user:secret@proxy.example:3128"})
    assert finding.level == "warn" and "secret" not in finding.what + finding.action


def row(name, state, **more):
    fields = {"pid": 7, "restarts": 0, "last_exit": None, "reason": None, "since": 5, **more}
    return ChildState(name=name, state=state, **fields)


def test_the_service_s_processes_are_findings():
    rows = (row("link", "up"), row("vault", "waiting", pid=None, restarts=3, last_exit=6, reason="Wrong passphrase."))
    again = row("node", "up", restarts=2, last_exit=-9, reason="It was killed.")
    found = check_service(ServiceState(pid=1, started=1, children=(*rows, again)), "consilience node start")
    assert [finding.level for finding in found] == ["ok", "fail", "ok"]
    assert "Wrong passphrase." in found[1].what and "started again 2 times" in found[2].what
    assert check_service(None, "consilience node start")[0].action == "Start it: consilience node start"
    assert check_service(ServiceState(pid=1, started=0, children=()), "x")[0].level == "warn"
