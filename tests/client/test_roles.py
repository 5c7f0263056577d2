"""Roles: only whom roles.yaml names, behind sudo or not; and every command has its row in the table."""

import inspect
import os
import pwd
from collections.abc import Iterator
from types import SimpleNamespace

import click
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from client.home import Home
from client.roles import ROLE_OF, ROLES, RoleList, require, require_for, roles_for
from federation.errors import DocumentError, PolicyError, StorageError

OWN = os.getuid()
PEOPLE = {OWN: pwd.getpwuid(OWN).pw_name, 70_001: "chief", 70_002: "bob"}
YAML = "operators: [chief, olga]\nanalysts: [chief]\nofficers: [bob]\n"


@pytest.fixture(autouse=True)
def people(monkeypatch):
    def known(uid):
        if uid not in PEOPLE:
            raise KeyError(uid)
        return SimpleNamespace(pw_name=PEOPLE[uid])

    monkeypatch.setattr("client.roles.pwd", SimpleNamespace(getpwuid=known))
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.delenv("SUDO_USER", raising=False)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def sudo(monkeypatch, uid, name):
    monkeypatch.setenv("SUDO_UID", str(uid))
    monkeypatch.setenv("SUDO_USER", name)


def appoint(home, text=YAML):
    home.roles_file.write_text(text)
    home.roles_file.chmod(0o600)


def code_of(home, *roles):
    with pytest.raises(PolicyError) as caught:
        require(home, *roles)
    return caught.value.code


def test_without_roles_the_owner_acts_in_every_role(home, monkeypatch):
    actor = require(home, "officer", "auditor")
    assert (actor.account, actor.role, actor.roles) == (PEOPLE[OWN], "officer", frozenset(ROLES))
    sudo(monkeypatch, 70_001, "chief")
    assert code_of(home, "operator") == "CSL-C542"


def test_another_user_is_nobody(home, monkeypatch):
    monkeypatch.setattr("client.roles.os.getuid", lambda: 70_001)
    assert code_of(home, "operator") == "CSL-C544"
    appoint(home)
    assert code_of(home, "analyst") == "CSL-C544"
    sudo(monkeypatch, 70_002, "bob")  # says nothing for a user who is not the home's owner
    assert code_of(home, *ROLES) == "CSL-C544"


def test_a_colleagues_own_folder_with_links_to_the_vault_gives_no_role(home, monkeypatch):
    """`sudo -u vault consilience ... --home /home/chief/mine`: the roles in it are hers, the files behind its links are the vault's."""
    appoint(home, "officers: [chief]\n")
    sudo(monkeypatch, 70_001, "chief")
    assert require(home, "officer").account == "chief"
    monkeypatch.setattr("client.roles.os.getuid", lambda: OWN + 1)
    monkeypatch.setattr("client.roles.os.geteuid", lambda: OWN + 1)
    assert code_of(home, "officer") == "CSL-C544"


def test_behind_sudo_the_person_counts(home, monkeypatch):
    appoint(home)
    sudo(monkeypatch, 70_001, "chief")
    assert require(home, "analyst", "operator").role == "analyst"
    assert require(home, "officer", "operator").role == "operator"
    assert code_of(home, "officer") == "CSL-C542"
    sudo(monkeypatch, 70_002, "bob")
    assert require(home, "officer").account == "bob"


def test_with_roles_even_the_owner_needs_one(home):
    appoint(home)
    assert code_of(home, *ROLES) == "CSL-C542"
    appoint(home, f"auditors: [{PEOPLE[OWN]}]\n")
    assert require(home, *ROLES).role == "auditor"


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("70001", "bob"),
        ("70001", ""),
        ("abc", "chief"),
        ("-1", "chief"),
        ("9" * 11, "chief"),
        ("70009", "#70009"),
        ("²", "x"),
    ],
)
def test_what_sudo_could_not_have_said_is_refused(home, monkeypatch, uid, name):
    appoint(home)
    sudo(monkeypatch, uid, name)
    assert code_of(home, *ROLES) == "CSL-C544"


def test_a_user_without_a_name_stands_in_no_role(home, monkeypatch):
    monkeypatch.setitem(PEOPLE, OWN, PEOPLE[OWN])
    monkeypatch.delitem(PEOPLE, OWN)
    assert require(home, "operator").account == f"#{OWN}"
    appoint(home, "operators: ['#0']\n")
    with pytest.raises(DocumentError, match="CSL-F105"):
        require(home, "operator")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_roles_that_others_could_write_are_no_roles(home, mode):
    appoint(home, f"officers: [{PEOPLE[OWN]}]\n")
    home.roles_file.chmod(mode)
    assert code_of(home, "officer") == "CSL-C543"


def test_roles_of_another_owner_or_behind_a_link_are_no_roles(home, monkeypatch, tmp_path):
    appoint(home, f"officers: [{PEOPLE[OWN]}]\n")
    real = home.roles_file.rename(tmp_path / "real.yaml")
    home.roles_file.symlink_to(real)
    assert code_of(home, "officer") == "CSL-C543"
    home.roles_file.unlink()
    home.roles_file.symlink_to(tmp_path / "nothing")
    assert code_of(home, "officer") == "CSL-C543"
    home.roles_file.unlink()
    real.rename(home.roles_file)
    monkeypatch.setattr("client.roles._owner", lambda root: OWN + 1)
    assert code_of(home, "officer") == "CSL-C544"


@pytest.mark.parametrize(
    "text",
    [
        "operators: chief\n",
        "chiefs: [chief]\n",
        "operators: [chief, 7]\n",
        "a: &x [1]\nb: *x\n",
        "operators: ['a b']\n",
    ],
)
def test_roles_that_are_no_roles_let_nobody_in(home, text):
    appoint(home, text)
    with pytest.raises(DocumentError, match="CSL-F10[345]"):
        require(home, *ROLES)


def test_a_home_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match="CSL-C550"):
        require(Home(tmp_path / "none"), "operator")


@given(
    st.lists(st.sampled_from(["chief", "bob", "eve"])),
    st.lists(st.sampled_from(["chief", "bob"])),
    st.sampled_from(["chief", "bob", "eve"]),
)
def test_a_person_has_the_roles_that_name_her(operators, auditors, name):
    roles = RoleList(operators=tuple(operators), auditors=tuple(auditors)).of(name)
    assert roles == {role for role, names in (("operator", operators), ("auditor", auditors)) if name in names}


def commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def registered() -> dict[str, click.Command]:
    from client.node_command import app as node
    from client.officer_command import app as officer

    groups = {"node": node, "officer": officer}
    return {
        name: command
        for prefix, app in groups.items()
        for name, command in commands(typer.main.get_command(app), prefix)
    }


def test_every_command_of_an_institution_has_its_roles():
    names = {*registered(), "officer witness"}  # checkpoint, consistency and cosign ask under one name
    assert [name for name in names if not roles_for(name)] == [], "commands without a row in ROLE_OF"
    used = {row for row in ROLE_OF if any(f"{name} ".startswith(f"{row} ") for name in names)}
    assert set(ROLE_OF) - used == set(), "rows of ROLE_OF without a command"


def test_every_command_with_a_home_lives_in_a_module_that_asks_for_roles():
    for name, command in registered().items():
        if any(option.name == "home" for option in command.params) and name != "node init":
            source = inspect.getsource(inspect.getmodule(inspect.unwrap(command.callback)))
            assert "require_for(" in source or "require(" in source, name


def test_a_command_without_a_row_is_refused_to_everybody(home):
    with pytest.raises(PolicyError, match="CSL-C542"):
        require_for(home, "node surprise")
    assert require_for(home, "node names").role == "analyst"
    assert roles_for("officer restore begin") == roles_for("officer restore") == ("officer",)
    assert roles_for("officer") == roles_for("") == roles_for("officer restored") == ()
