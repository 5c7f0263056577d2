"""A charter as people check it, the same words on every side: members, keys, contracts, who signed, and the 24 words."""

import base64
import hashlib
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from federation.charter import Charter, Member
from federation.founding import CharterFile, changes, declared, missing, parties
from federation.words import rows_of, words_of


def node_fingerprint(node_key: str) -> str:
    """Return the fingerprint of an OpenSSH public key as `ssh-keygen -l` prints it: SHA256 and base64 without padding."""
    blob = base64.b64decode(node_key.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def authority_fingerprint(pem: str) -> str:
    """Return the SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` prints it."""
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(SHA256()).hex(":").upper()


def describe(file: CharterFile, pinned: Charter | None = None) -> dict[str, Any]:
    """Return everything that is shown of a charter as plain values, as `--json` prints it.

    `pinned` is the charter that is in force where this is read: the successor's changes against it are told, None where there is none
    or where it is this very charter.
    """
    charter = file.charter
    lacking = missing(file)
    link = charter.link
    return {
        "federation": charter.federation,
        "version": charter.version,
        "prev": charter.prev,
        "digest": charter.digest(),
        "words": list(words_of(charter.digest())),
        "coordinator_key": charter.coordinator_key,
        "address": None if link is None else link.address,
        "authority": None if link is None else authority_fingerprint(link.authority),
        "app": None if link is None else link.app,
        "members": [_member(member) for member in charter.members],
        "contracts": [{"name": item.name, "sha256": item.sha256} for item in charter.contracts],
        "signed": [party for party in parties(charter) if party not in lacking],
        "missing": list(lacking),
        "changes": None if pinned is None or pinned == charter else changes(pinned, charter),
    }


def _member(member: Member) -> dict[str, Any]:
    return {
        "id": member.id,
        "title": member.title,
        "declares": [item.model_dump(mode="json", exclude_none=True) for item in member.declares],
        "in_words": [declared(item) for item in member.declares],
        "key": member.key,
        "node_key": None if member.node_key is None else node_fingerprint(member.node_key),
    }


def render(shown: dict[str, Any], *, digest: bool = True) -> str:
    """Return what `describe` gives as text for a person; without digest and words where somebody is to be asked for them."""
    lines = [f"Charter of {shown['federation']}, version {shown['version']}"]
    if shown["address"] is not None:
        lines += [
            f"  address    {shown['address']}",
            f"  authority  {shown['authority']}",
            f"  app        {shown['app']}",
        ]
    lines += [f"  coordinator's key  {shown['coordinator_key']}", "", "Members"]
    for member in shown["members"]:
        lines.append(f"  {member['id']}: {member['title']}")
        lines += [f"    declares {text}" for text in member["in_words"]]
        lines.append(f"    identity key  {member['key']}")
        if member["node_key"] is not None:
            lines.append(f"    node key      {member['node_key']}")
    lines += ["", "Feature contracts", *(f"  {item['name']}  {item['sha256']}" for item in shown["contracts"]), ""]
    if shown["changes"] is not None:
        told = shown["changes"] or ["Nothing but the version."]
        lines += ["What changes against the charter that is pinned here", *(f"  {text}" for text in told), ""]
    lines += [f"Signed by   {', '.join(shown['signed']) or 'nobody yet'}"]
    if shown["missing"]:
        lines.append(f"Missing     {', '.join(shown['missing'])}")
    if not digest:
        return "\n".join(lines)
    lines += ["", f"Digest  {shown['digest']}", "In words, to be compared over the telephone:"]
    return "\n".join([*lines, *(f"  {row}" for row in rows_of(shown["digest"]))])
