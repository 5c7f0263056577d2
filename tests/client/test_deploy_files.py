"""The files to copy: roles.yaml is one that the vault reads."""

import shutil
from pathlib import Path

import pytest

from client.home import Home
from client.roles import RoleList, require
from federation.document import load_yaml
from federation.errors import PolicyError

DEPLOY = Path(__file__).resolve().parents[2] / "configs" / "deploy"


def test_the_example_of_roles_names_somebody_in_each_and_not_us(tmp_path):
    roles = load_yaml(DEPLOY / "roles.yaml", RoleList)
    assert all((roles.operators, roles.analysts, roles.officers, roles.auditors))
    assert set(roles.operators).isdisjoint(roles.analysts)
    home = Home(tmp_path)
    shutil.copy(DEPLOY / "roles.yaml", home.roles_file)
    home.roles_file.chmod(0o600)
    with pytest.raises(PolicyError, match="CSL-C542"):
        require(home, "operator")


def test_the_sudo_rules_allow_the_program_alone():
    rules = [line for line in (DEPLOY / "sudoers").read_text().splitlines() if not line.startswith("#")]
    granted = [line.split(")")[1] for line in rules if line.startswith("%")]
    assert granted and all(
        set(line.replace(",", " ").split()) <= {"CONSILIENCE_NODE", "CONSILIENCE_OFFICER"} for line in granted
    )
    assert all("/consilience/bin/consilience " in line for line in rules if line.startswith("Cmnd_Alias"))
    assert sum("!setenv" in line and "env_reset" in line for line in rules) == 2
