"""Who may do what at an institution: `roles.yaml` in the vault's home maps roles to login names.

One service account owns the home, and nobody else may open its files; people act through `sudo -u` of that account, and the
commands ask who stands behind it. This keeps colleagues from each other's work and gives the ledger a name to write down. It
is no protection from whoever can become the service account freely (see docs/roles.md).
"""

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from client.home import Home
from federation.document import Document, load_yaml
from federation.errors import PolicyError, StorageError

Role = Literal["operator", "analyst", "officer", "auditor"]
ROLES: tuple[Role, ...] = ("operator", "analyst", "officer", "auditor")
Logins = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}\$?$")], ...], Field(max_length=1000)
]

_OPERATE: tuple[Role, ...] = ("operator",)
_LOOK: tuple[Role, ...] = ("officer", "auditor")
_DECIDE: tuple[Role, ...] = ("officer",)

ROLE_OF: Mapping[str, tuple[Role, ...]] = {
    # A vault that is only being made has no roles yet: whoever makes it owns it.
    "node init": ROLES,
    "node card": ("operator", "officer"),
    "node charter show": ROLES,
    # The members whom a charter names are those whom the institution trusts with its sums: that is an officer's word.
    "node charter sign": _DECIDE,
    "node charter accept": ("operator", "officer"),
    "node check": _OPERATE,
    "node status": ("operator", "analyst", "officer", "auditor"),
    "node shapes": ("operator", "analyst", "officer", "auditor"),
    "node names": ("analyst",),
    "node export": ("analyst",),
    "node scores": ("analyst",),
    "node segments": ("analyst",),
    "node campaign": ("analyst",),
    "node actions": ("analyst",),
    # A map of names: no home is asked, and no customer is in it.
    "node strategy check": ROLES,
    "node value": ("analyst",),
    "node studies": ("operator", "analyst", "officer", "auditor"),
    "node start": _OPERATE,
    "node stop": _OPERATE,
    "node doctor": _OPERATE,
    "node purge": ("operator", "officer"),
    # An officer's own key is made on the officer's own machine; no home is asked.
    "officer init": ROLES,
    "officer policy new": _DECIDE,
    "officer policy check": _LOOK,
    "officer policy diff": _LOOK,
    "officer policy sign": _DECIDE,
    "officer policy activate": _DECIDE,
    "officer policy show": _LOOK,
    "officer inbox": _LOOK,
    "officer show": _LOOK,
    "officer approve": _DECIDE,
    "officer decline": _DECIDE,
    "officer close": _DECIDE,
    "officer budget": _LOOK,
    "officer calibrate": _LOOK,
    "officer ledger": _LOOK,
    "officer verify": _LOOK,
    "officer evidence": _LOOK,
    "officer withdraw": _DECIDE,
    "officer witness": ("operator", "officer"),
    "officer checkpoint": ("operator", "officer"),
    "officer consistency": ("operator", "officer"),
    "officer cosign": ("operator", "officer"),
    "officer backup": ("operator", "officer"),
    "officer restore": _DECIDE,
    "officer rotate": _DECIDE,
}
"""Which roles may run a command, any one of them; a row holds for the commands below it too ("officer restore" for "officer
restore begin"). A command without a row is refused to everybody."""


class RoleList(Document):
    """`roles.yaml`: the login names of each role. A person may have several."""

    operators: Logins = ()
    analysts: Logins = ()
    officers: Logins = ()
    auditors: Logins = ()

    def of(self, account: str) -> frozenset[Role]:
        """Return the roles of a login name."""
        held = dict(zip(ROLES, (self.operators, self.analysts, self.officers, self.auditors), strict=True))
        return frozenset(role for role in ROLES if account in held[role])


@dataclass(frozen=True)
class Actor:
    """Who acts: a login name, the roles that it has, and the one in which it acts here."""

    account: str
    roles: frozenset[Role]
    role: Role


def require(home: Home, *roles: Role) -> Actor:
    """Return who acts, if that person has one of the roles.

    Raises
    ------
    PolicyError
        CSL-C542 when the person has none of them, CSL-C543 when roles.yaml can be changed by others, CSL-C544 when it cannot be
        told who acts: also where the home is not that of the process's user.
    StorageError
        CSL-C550 when the home cannot be looked at.
    DocumentError
        CSL-F103 to F105 when roles.yaml cannot be read.
    """
    owner = _owner(home.root)
    uid = _acting_uid(owner)
    account = _login(uid)
    if home.roles_file.exists() or home.roles_file.is_symlink():
        _check_file(home.roles_file, owner)
        held = load_yaml(home.roles_file, RoleList).of(account)
    else:
        held = frozenset(ROLES) if uid == owner else frozenset()
    allowed = [role for role in roles if role in held]
    if not allowed:
        raise PolicyError(
            "CSL-C542",
            f"{account} may not do this: it needs the role {' or '.join(roles) or 'of nobody'}.",
            f"Ask a colleague who has it, or whoever keeps {home.roles_file}.",
        )
    return Actor(account, held, allowed[0])


def require_for(home: Home, command: str) -> Actor:
    """Return who acts, if that person may run a command such as "node names". Raises as `require`."""
    return require(home, *roles_for(command))


def roles_for(command: str) -> tuple[Role, ...]:
    """Return the roles that may run a command, from its own row or that of the group above it; none without a row."""
    words = command.split()
    rows = (" ".join(words[:count]) for count in range(len(words), 1, -1))
    return next((ROLE_OF[row] for row in rows if row in ROLE_OF), ())


def _owner(root: Path) -> int:
    try:
        return root.stat().st_uid
    except OSError as error:
        raise StorageError(
            "CSL-C550", f"{root} cannot be looked at: {error.strerror}.", "Name the vault's home, and check its rights."
        ) from error


def _acting_uid(owner: int) -> int:
    """Return the user behind the process: behind sudo to the home's owner the one whom sudo names, else the process's own.

    sudo sets both variables itself, whatever its caller's environment holds. Any other user than the home's owner is refused: a folder
    of his own, with a roles.yaml of his own and links to the vault's files, would otherwise let sudo act for him in every role.
    """
    own, behind = os.getuid(), os.environ.get("SUDO_UID")
    if own != owner or os.geteuid() != owner:
        raise _unclear("the home belongs to another user than the one who runs this")
    if behind is None:
        return own
    if not (behind.isascii() and behind.isdigit() and len(behind) <= 10):
        raise _unclear("SUDO_UID holds no number")
    uid = int(behind)
    if os.environ.get("SUDO_USER") != _login(uid) or _login(uid).startswith("#"):
        raise _unclear("SUDO_UID and SUDO_USER name different people")
    return uid


def _login(uid: int) -> str:
    """Return a user's login name; "#number" where there is none, as in a container, which stands in no roles.yaml."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"#{uid}"


def _check_file(path: Path, owner: int) -> None:
    """Refuse a roles.yaml that somebody else than the home's owner could have written."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != owner or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PolicyError(
            "CSL-C543",
            f"{path} is not a plain file that the home's owner alone can write.",
            f"Look through it, then run chown and chmod 600 on {path}.",
        )


def _unclear(why: str) -> PolicyError:
    return PolicyError(
        "CSL-C544",
        f"It cannot be told who acts: {why}.",
        "Log in as yourself, and use `sudo -u` of the vault's account.",
    )
