"""The files to run it by: containers, units of systemd, monitoring, and the page about them."""

import configparser
import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry

from client.config import ServiceConfig
from client.metrics import VaultMetrics
from client.node_command import app as node_app
from client.officer_command import app as officer_app
from client.roles import RoleList, roles_for
from client.vault import ANOTHER_APP
from federation.child import Child, Pace
from federation.document import load_yaml
from federation.supervise import Supervisor
from server.command import app as coordinator_app
from server.config import LINK_PORT
from server.events import LeftOut
from server.metrics import STRANGER, StudyMetrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "configs" / "deploy"
PACKAGES = ("client", "federation", "privacy", "server", "simulations")
HOMES = {"node": "/var/lib/consilience/node", "coordinator": "/var/lib/consilience/coordinator"}
GROUPS = {"node": node_app, "officer": officer_app, "coordinator": coordinator_app}
LONGEST_STOP = Pace().stop
ACCOUNT = "10001:10001"


def told(command: list[str]) -> tuple[int, str]:
    """Return a command's exit code and what it says on standard error."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


# Whether a container is well


@pytest.fixture(scope="module")
def healthy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("healthy", DEPLOY / "healthy.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def becomes(wanted: int, ask, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if ask() == wanted:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(("command", "code"), [(("sleep", "60"), 0), (("false",), 1)])
def test_a_home_is_healthy_while_all_its_processes_are_up(healthy, tmp_path, command, code):
    assert healthy.main(str(tmp_path)) == 1  # nothing runs
    pace = Pace(first=30.0)
    supervisor = Supervisor(tmp_path / "run", [Child("idle", command, tmp_path / "idle.log")], pace=pace)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        assert becomes(1, lambda: int((tmp_path / "run" / "service.json").exists()))
        assert becomes(code, lambda: healthy.main(str(tmp_path)))
        time.sleep(0.2)
        assert healthy.main(str(tmp_path)) == code
    finally:
        supervisor.stop()
        thread.join(10)
    assert healthy.main(str(tmp_path)) == 1


def test_the_health_check_is_a_program(tmp_path):
    done = subprocess.run([sys.executable, str(DEPLOY / "healthy.py"), str(tmp_path)], check=False, timeout=30)
    assert done.returncode == 1


# Containers


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(document, dict)
    return document


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)s", text)
    assert match
    return float(match[1])


def substituted(text: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.mark.parametrize("party", HOMES)
def test_a_container_can_do_no_more_than_it_must(compose, party):
    service = compose["services"][party]
    assert service["read_only"] is True and service["init"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == ACCOUNT
    assert all("noexec" in mount and "size=" in mount for mount in service["tmpfs"])
    assert service["ulimits"]["core"] == 0 and service["pids_limit"] > 0
    assert not {"privileged", "network_mode", "pid", "ipc", "devices", "extra_hosts"} & set(service)


@pytest.mark.parametrize("party", HOMES)
def test_a_container_is_one_machines_own_and_comes_back(compose, party):
    service = compose["services"][party]
    assert service["profiles"] == [party] and service["networks"] == [party]
    assert service["restart"] == "unless-stopped"
    assert seconds(service["stop_grace_period"]) > max(30, LONGEST_STOP)
    check = service["healthcheck"]
    script = Path(check["test"][-2])
    assert check["test"][:3] == ["CMD", "python", "-I"] and check["test"][-1] == HOMES[party]
    assert (ROOT / script.relative_to("/opt/consilience")).is_file()
    assert seconds(check["timeout"]) < seconds(check["interval"])


def test_the_coordinators_public_port_is_the_only_one_published(compose):
    assert set(compose["services"]) == {"coordinator", "node"}
    assert "ports" not in compose["services"]["node"] and "expose" not in compose["services"]["node"]
    published = [substituted(port) for port in compose["services"]["coordinator"]["ports"]]
    assert published == ["443:443"]
    assert compose["services"]["coordinator"]["sysctls"] == {"net.ipv4.ip_unprivileged_port_start": 0}


@pytest.mark.parametrize("party", HOMES)
def test_homes_are_mounted_and_secrets_are_files_outside_them(compose, party):
    service = compose["services"][party]
    mounts = {mount["target"]: mount for mount in service["volumes"]}
    home = mounts.pop(HOMES[party])
    assert home["type"] == "bind" and home["bind"] == {"create_host_path": False} and "read_only" not in home
    assert all(mount["read_only"] is True for mount in mounts.values())
    (secret,) = service["secrets"]
    file = Path(substituted(compose["secrets"][secret]["file"]))
    assert not file.is_relative_to(substituted(home["source"]))
    assert "environment" not in service  # nothing secret in the open


def test_no_memory_of_the_vault_goes_to_swap(compose):
    node = compose["services"]["node"]
    assert node["memswap_limit"] == node["mem_limit"]


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0,
    reason="no docker compose here",
)
@pytest.mark.parametrize("party", HOMES)
def test_compose_itself_reads_it(party):
    command = ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "--profile", party, "config", "--quiet"]
    assert told(command) == (0, "")


def stages() -> dict[str, list[tuple[str, str]]]:
    """The Dockerfile's stages by name, each as (instruction, rest), continued lines joined."""
    text = "\n".join(line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            name = rest.split(" AS ")[1]
            found[name] = []
        if instruction:
            found[name].append((instruction, rest.strip()))
    return found


def said(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [rest for found, rest in stage if found == instruction]


def test_images_end_as_an_account_without_rights_and_start_their_own_party(compose):
    found = stages()
    assert set(found) == {"build", "node", "coordinator"}
    for party, home in HOMES.items():
        assert said(found[party], "USER")[-1] == ACCOUNT == compose["services"][party]["user"]
        assert said(found[party], "WORKDIR")[-1] == home
        assert said(found[party], "CMD") == [f'["consilience", "{party}", "start"]']
        build = compose["services"][party]["build"]
        assert build["target"] == party
        assert (DEPLOY / build["context"]).resolve() == ROOT and (ROOT / build["dockerfile"]).is_file()
    assert "useradd --uid 10001 --gid 10001" in " ".join(said(found["node"], "RUN"))


def test_images_come_from_the_pinned_python_and_pinned_packages():
    found = stages()
    assert [said(found[name], "FROM")[0].split()[0] for name in ("build", "node", "coordinator")] == [
        *("python:3.11-slim", "python:3.11-slim", "node")
    ]
    installs = re.findall(r"pip install [^&]*", " ".join(said(found["build"], "RUN")))
    assert len(installs) == 3 and all("--constraint constraints.txt" in line for line in installs)
    assert "torch==" in (ROOT / "constraints.txt").read_text()
    assert any("apt-get install" in line and "nginx" in line for line in said(found["coordinator"], "RUN"))
    assert not any("nginx" in rest for _, rest in found["node"])


def test_the_build_gets_the_packages_and_nothing_of_a_home():
    copied = {
        part for rest in said(stages()["build"], "COPY") for part in rest.split()[:-1] if not part.startswith("--")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    include = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert include == set(PACKAGES) == copied & set(PACKAGES)
    assert all((ROOT / name).exists() for name in copied)
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*" and {rule[1:] for rule in rules if rule.startswith("!")} == copied | {"configs"}


def test_the_images_variables_name_the_homes_and_nothing_secret():
    variables = " ".join(said(stages()["node"], "ENV")).split()
    values = dict(item.split("=", 1) for item in variables)
    assert values["CONSILIENCE_HOME"] == HOMES["node"] and values["CONSILIENCE_COORDINATOR"] == HOMES["coordinator"]
    assert values["FLWR_TELEMETRY_ENABLED"] == "0" and values["PYTHONSAFEPATH"] == "1"
    assert not any(word in name for name in values for word in ("PASS", "SECRET", "TOKEN"))


# Units of systemd


def unit(party: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / f"consilience-{party}.service")
    return parser["Service"]


@pytest.mark.parametrize("party", HOMES)
def test_a_unit_runs_the_installed_program_as_the_homes_account(party):
    service = unit(party)
    assert service["ExecStart"] == f"/opt/consilience/bin/consilience {party} start"
    assert service["User"] == service["Group"] == "consilience"
    text = (DEPLOY / f"consilience-{party}.service").read_text()
    assert f"={HOMES[party]}\n" in text and "FLWR_TELEMETRY_ENABLED=0" in text
    assert service["ReadWritePaths"] == service["WorkingDirectory"] == HOMES[party]


@pytest.mark.parametrize("party", HOMES)
def test_a_unit_comes_back_and_is_left_the_time_to_stop(party):
    service = unit(party)
    assert service["Restart"] == "on-failure" and service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > LONGEST_STOP


@pytest.mark.parametrize("party", HOMES)
def test_a_unit_gains_no_rights(party):
    service = unit(party)
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateDevices", "ProtectKernelModules", "RestrictNamespaces"):
        assert service[name] in ("yes", "true"), name
    assert service["ProtectSystem"] == "strict" and service["UMask"] == "0077" and service["LimitCORE"] == "0"
    assert service["CapabilityBoundingSet"] == ("" if party == "node" else "CAP_NET_BIND_SERVICE")
    assert "SystemCallFilter" in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("party", HOMES)
def test_systemd_itself_finds_no_fault_in_a_unit(party, tmp_path):
    text = (DEPLOY / f"consilience-{party}.service").read_text()
    copy = tmp_path / f"consilience-{party}.service"
    copy.write_text(re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    assert told(["systemd-analyze", "verify", str(copy)]) == (0, "")
    code, error = told(["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=30", str(copy)])
    assert code == 0 or "unrecognized option" in error  # of systemd before 250


def test_the_service_account_may_start_the_node():
    roles = load_yaml(DEPLOY / "roles.yaml", RoleList).of("consilience")
    assert roles & set(roles_for("node start"))


# Monitoring


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def series(registry: CollectorRegistry) -> set[str]:
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {family.name + ending for family in registry.collect() for ending in endings[family.type]}


def test_alerts_speak_of_metrics_that_there_are():
    known = series(VaultMetrics().registry) | series(StudyMetrics().registry)
    named = {name for rule in alerts() for name in re.findall(r"\bconsilience_\w+", rule["expr"])}
    assert named and named <= known


def test_alerts_ask_for_labels_that_are_given():
    vault, studies = VaultMetrics(), StudyMetrics()
    vault.refused(ANOTHER_APP, "CSL-C401", 0.1)
    vault.failed("other", 0.1)
    studies.take("churn", LeftOut("training", 1, "no member at all", "CSL-S401", "unknown"))
    given: dict[str, set[tuple[str, str]]] = {}
    for family in itertools.chain(vault.registry.collect(), studies.registry.collect()):
        for sample in family.samples:
            given.setdefault(sample.name, set()).update(sample.labels.items())
    asked = [
        (name, label, value)
        for rule in alerts()
        for name, matchers in re.findall(r"(consilience_\w+)\{([^}]*)\}", rule["expr"])
        for label, value in re.findall(r'(\w+)!?="([^"]*)"', matchers)
    ]
    assert {value for _, _, value in asked} == {ANOTHER_APP, STRANGER, "failed"}
    assert all((label, value) in given[name] for name, label, value in asked)
    by = {
        label.strip()
        for rule in alerts()
        for part in re.findall(r"by \(([^)]*)\)", rule["expr"])
        for label in part.split(",")
    }
    assert by <= {label for label, _ in given["consilience_left_out_total"]}


def test_alerts_are_told_apart_and_say_what_to_do():
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert set(rule["annotations"]) == {"summary", "action"} and rule["labels"]["severity"] in ("page", "ticket")
        assert all(known(line) for line in re.findall(r"consilience (?:node|officer|coordinator)[a-z -]*", str(rule)))


def test_prometheus_scrapes_loopback_alone_at_ports_of_its_own():
    config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    assert config["rule_files"] == ["alerts.yaml"]
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    asked = {job for rule in alerts() for job in re.findall(r'job="([^"]*)"', rule["expr"])}
    assert asked == set(jobs)
    places = [target.split(":") for targets in jobs.values() for target in targets]
    assert all(host == "127.0.0.1" for host, _ in places)
    assert {int(port) for _, port in places}.isdisjoint({LINK_PORT, ServiceConfig().runtime_port, 443})


# The page


def known(line: str) -> bool:
    """Whether a line that begins with `consilience` names a command that there is."""
    words = iter(line.split()[1:])
    group = next(words)
    command: click.Command = typer.main.get_command(GROUPS[group])
    while isinstance(command, click.Group):
        found = command.commands.get(next(words, ""))
        if found is None:
            return False
        command = found
    return True


def commands(text: str) -> Iterator[str]:
    yield from re.findall(r"consilience (?:node|officer|coordinator) [a-z][a-z -]*", text)


def test_a_command_that_there_is_not_is_found():
    assert known("consilience node charter accept") and not known("consilience node charter bless")


def test_the_page_names_commands_that_there_are():
    found = list(commands((ROOT / "docs" / "deploy.md").read_text()))
    assert len(found) >= 10
    assert [line for line in found if not known(line)] == []


def test_the_page_leads_to_files_that_there_are():
    text = (ROOT / "docs" / "deploy.md").read_text()
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links and [link for link in links if not (ROOT / "docs" / link).is_file()] == []


def test_the_page_and_the_figure_know_the_ports():
    text = (ROOT / "docs" / "deploy.md").read_text()
    figure = (ROOT / "docs" / "deployment.svg").read_text()
    for port in (LINK_PORT, ServiceConfig().runtime_port):
        assert f"127.0.0.1:{port}" in text and f"127.0.0.1:{port}" in figure
    scraped = re.findall(r"127\.0\.0\.1:\d+", (DEPLOY / "prometheus.yaml").read_text())
    assert all(place in text for place in scraped)
    assert ET.fromstring(figure).attrib["aria-label"]
