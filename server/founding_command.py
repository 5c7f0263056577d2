"""`consilience coordinator init`, `certificate` and `charter`: how a federation is founded, grows, and changes its keys."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from federation.charter_text import describe, render
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import DocumentError
from federation.founding import CharterFile, CharterSignature, SignedCard, check_file, missing, open_card, read_paper
from federation.words import words_of
from privacy.keys import passphrase_from_file
from server.certificates import (
    WARN_DAYS,
    CertificateFacts,
    check_server,
    facts_of,
    issue_server,
    load_authority,
    read_certificate,
)
from server.config import LINK_PORT, CoordinatorConfig, is_loopback
from server.desk import HERE, HomeOption, JsonOption, home_at, print_json
from server.founding import Outline, Papers, add, app_digest, remove
from server.home import CoordinatorHome
from server.install import install
from server.unlock import PassphraseFd, PassphraseFile, find_opener

certificate = typer.Typer(
    no_args_is_help=True,
    help="The server's certificate for TLS: until when it is valid, and a new one before it ends. "
    "The authority behind it is the coordinator's own, lasts ten years, and stands in the charter.",
)
charter = typer.Typer(
    no_args_is_help=True,
    help="The charter: who is in the federation, with which keys.\n\n"
    "`draft` begins one, `add-member` adds the card that an institution made by `node card`, then charter/draft.json goes to all "
    "members. They compare the 24 words of `show` over the telephone and send their signatures; `seal` collects them, and "
    "charter/sealed.json goes to all. A member who joins or leaves, a lost key, another address or release of the program: "
    "each is a next charter, by the same steps.",
)


def init(
    home: Annotated[Path, typer.Argument(help="The folder to make.", show_default=False)],
    federation: Annotated[
        str, typer.Option(help="The federation's name: small letters, digits, underscores.", show_default=False)
    ],
    address: Annotated[
        str,
        typer.Option(
            help="Where institutions reach the coordinator, HOST:PORT; it stands in the charter.", show_default=False
        ),
    ],
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="A further host name or IP address that the certificate is for; may be repeated.", show_default=False
        ),
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="A file (0600) that holds the passphrase for the keys.", show_default=False),
    ] = None,
    plain_keys: Annotated[
        bool, typer.Option("--plain-keys", help="Keys without a passphrase: for simulations alone.")
    ] = False,
    proxy: Annotated[
        str | None,
        typer.Option(
            help="nginx or none: what stands before the link. nginx, unless the address is this machine.",
            show_default=False,
        ),
    ] = None,
    link_port: Annotated[
        int | None,
        typer.Option(
            help=f"Where the link listens on 127.0.0.1: {LINK_PORT}, or without a proxy the address' port.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a coordinator's folders, keys and certificates. Private keys never leave the folder; nothing is sent anywhere.

    Run it as the service account that shall own the home. It makes the identity
    key (Ed25519) that signs charters and studies, a certificate authority of its
    own (P-384, ten years) and the server's certificate (825 days), both keys
    sealed by the passphrase. Keep a copy of keys/ and tls/ and one of the
    passphrase, apart from each other.
    """
    config = _configuration(federation, address, name or [], passphrase_file, plain_keys, proxy, link_port, home)
    passphrase = None if passphrase_file is None else passphrase_from_file(passphrase_file)
    made = install(CoordinatorHome(home), config, passphrase, datetime.now(UTC))
    if as_json:
        facts = {"authority": _facts(made.authority), "server": _facts(made.server)}
        print_json({"home": str(home), "federation": federation, "key": made.key, **facts})
        return
    typer.echo(f"Made {home}, the coordinator of {federation} at {address}.")
    typer.echo(f"Identity key  {made.key}")
    typer.echo(f"Authority     {made.authority.fingerprint}")
    typer.echo(f"Certificate   for {', '.join(made.server.hosts)}, until {made.server.not_after:%Y-%m-%d}")
    typer.echo(
        f"Next: `consilience coordinator charter draft --home {home} --contract FILE`, then the members' cards by "
        "`charter add-member`."
    )


def _configuration(
    federation: str,
    address: str,
    names: list[str],
    passphrase_file: Path | None,
    plain_keys: bool,
    proxy: str | None,
    link_port: int | None,
    home: Path,
) -> CoordinatorConfig:
    if (passphrase_file is None) != plain_keys:
        raise DocumentError(
            "CSL-S124",
            "Say how the keys are kept: --passphrase-file FILE or --plain-keys, one of the two.",
            "Write a passphrase of several random words into a file (0600), and name it.",
        )
    host, _, port = address.rpartition(":")
    proxy = proxy or ("none" if is_loopback(host.strip("[]")) else "nginx")
    if link_port is None:
        link_port = int(port) if proxy == "none" and port.isdigit() and port.isascii() else LINK_PORT
    values = {
        "federation": federation,
        "address": address,
        "names": tuple(names),
        "proxy": proxy,
        "link_port": link_port,
        "passphrase_file": None if passphrase_file is None else _as_seen_from(home, passphrase_file),
        "plain_keys": plain_keys,
    }
    try:
        return CoordinatorConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DocumentError(
            "CSL-S123",
            f"{where or 'These options'}: {str(first['msg']).removeprefix('Value error, ')}.",
            "Give a name such as regional_retail, an address such as coordinator.example.org:443, and each --name without a port.",
        ) from error


def _as_seen_from(home: Path, path: Path) -> str:
    inside, there = path.absolute(), home.absolute()
    return str(inside.relative_to(there)) if inside.is_relative_to(there) else str(inside)


def _facts(facts: CertificateFacts) -> dict[str, Any]:
    return {
        "subject": facts.subject,
        "hosts": list(facts.hosts),
        "not_before": facts.not_before.isoformat(),
        "not_after": facts.not_after.isoformat(),
        "days_left": facts.days_left(datetime.now(UTC)),
        "sha256": facts.fingerprint,
    }


@certificate.command("show")
def certificate_show(home: HomeOption = HERE, as_json: JsonOption = False) -> None:
    """Show until when the server's certificate and its authority are valid, and check that they fit. Exit code 6 when they do not.

    Renew in good time: 60 days before the end this command begins to say so.
    """
    place = home_at(home)
    server, authority = (facts_of(read_certificate(path)) for path in (place.server_file, place.authority_file))
    if as_json:
        print_json({"server": _facts(server), "authority": _facts(authority)})
    else:
        typer.echo(f"Server     for {', '.join(server.hosts)}\n           {_period(server)}")
        typer.echo(f"Authority  {authority.fingerprint}\n           {_period(authority)}")
    now = datetime.now(UTC)
    check_server(place.server_key, place.server_file, place.authority_file, place.config().hosts(), now)
    if not as_json and server.days_left(now) < WARN_DAYS:
        typer.echo("Renew it by `consilience coordinator certificate renew`.")


def _period(facts: CertificateFacts) -> str:
    left = facts.days_left(datetime.now(UTC))
    return f"valid {facts.not_before:%Y-%m-%d} to {facts.not_after:%Y-%m-%d}, {left} days left"


@certificate.command("renew")
def certificate_renew(
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Issue a new server certificate, with a new key, for the address and names in coordinator.yaml.

    Institutions need to do nothing: their charter names the authority, which stays the same. Restart the coordinator afterwards.
    """
    place = home_at(home)
    config, opener = place.config(), find_opener(place, passphrase_file, passphrase_fd)
    authority = load_authority(
        place.authority_key, place.authority_file, passphrase=opener.passphrase, allow_plain=opener.allow_plain
    )
    issued = facts_of(
        issue_server(
            authority, config.hosts(), place.server_key, place.server_file, config.federation, datetime.now(UTC)
        )
    )
    if as_json:
        print_json({"server": _facts(issued)})
    else:
        typer.echo(f"A new certificate for {', '.join(issued.hosts)}, until {issued.not_after:%Y-%m-%d}.")
        typer.echo("Next: restart the coordinator.")


@charter.command("draft")
def charter_draft(
    contract: Annotated[
        list[Path] | None,
        typer.Option(help="A feature contract to pin (YAML); may be repeated.", show_default=False),
    ] = None,
    leave: Annotated[
        list[str] | None, typer.Option(help="A member who leaves; may be repeated.", show_default=False)
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="A contract that is pinned no more; may be repeated.", show_default=False)
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Draft anew from the members and contracts of the present draft.")
    ] = False,
    home: HomeOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Begin a charter: the first one, or the next one with the members and contracts of the one that is pinned.

    A next charter names the digest of the one before it. The address, the
    authority and the app come from this home and this installation. Run it
    with --again when one of these has changed since.
    """
    papers = Papers(home_at(home), app_digest())
    contracts = [load_yaml(path, FeatureContract) for path in contract or []]
    outline = papers.start(contracts, leave or [], drop or [], again)
    _tell(
        home,
        outline,
        papers.write(outline),
        f"Drafted on {', '.join(item.name for item in outline.contracts)}.",
        as_json,
    )


@charter.command("add-member")
def add_member(
    card: Annotated[
        Path, typer.Argument(help="The card that the institution made by `node card`.", show_default=False)
    ],
    home: HomeOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Add an institution's card to the draft, or put it in the place of its earlier row (new keys, other declarations).

    Checked: the card's signature by its own key, the federation's name, the
    contracts that it declares, and that no two members share a key. Whose card
    it is no program can check: read its key to the institution by telephone.
    """
    place = home_at(home)
    papers = Papers(place, app_digest())
    opened = open_card(read_paper(card, SignedCard))
    before = papers.outline()
    known = {member.id: member for member in before.members}.get(opened.member.id)
    outline = add(before, opened, place.config().federation)
    said = f"{opened.member.id} ({opened.member.title}), identity key {opened.member.key}"
    if known is not None:
        said += ": takes the place of its earlier row" + (
            "." if known.key == opened.member.key else ", with ANOTHER identity key: make sure that it is theirs."
        )
    _tell(home, outline, papers.write(outline), said, as_json)


@charter.command("remove-member")
def remove_member(
    member: Annotated[str, typer.Argument(help="The member's identifier.", show_default=False)],
    home: HomeOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Take an institution out of the draft. The charter that is in force stays as it is until the next one is sealed."""
    papers = Papers(home_at(home), app_digest())
    outline = remove(papers.outline(), member)
    _tell(home, outline, papers.write(outline), f"{member} is not in the draft any more.", as_json)


def _tell(home: Path, outline: Outline, draft: CharterFile | None, said: str, as_json: bool) -> None:
    members = [member.id for member in outline.members]
    digest = None if draft is None else draft.charter.digest()
    if as_json:
        version = None if draft is None else draft.charter.version
        print_json({"version": version, "digest": digest, "members": members, "file": _draft_of(home, draft)})
        return
    typer.echo(said)
    if draft is None:
        typer.echo("No members yet. Next: `consilience coordinator charter add-member CARD` for each.")
        return
    typer.echo(f"Version {draft.charter.version}, members: {', '.join(members)}.")
    typer.echo(f"When all are in, send {_draft_of(home, draft)} to them to sign; see `coordinator charter show`.")


def _draft_of(home: Path, draft: CharterFile | None) -> str | None:
    return None if draft is None else str(CoordinatorHome(home).draft_file)


@charter.command("show")
def charter_show(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="A charter's file; unless given, the draft, or else the charter in force.", show_default=False
        ),
    ] = None,
    home: HomeOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show a charter: members, declarations, keys, contracts, who has signed, what changes, and the 24 words of its digest.

    To compare it over the telephone, one side reads the words row by row and
    the other follows on its own screen. 24 equal words are an equal charter.
    """
    papers = Papers(home_at(home), "")
    pinned = papers.pinned()
    shown = papers.collected() or pinned if file is None else read_paper(file, CharterFile)
    if shown is None:
        outline = papers.outline()
        _tell(home, outline, None, f"A draft on {', '.join(item.name for item in outline.contracts)}.", as_json)
        return
    check_file(shown)
    values = describe(shown, None if pinned is None else pinned.charter)
    if as_json:
        print_json(values)
    else:
        typer.echo(render(values))


@charter.command("seal")
def charter_seal(
    signatures: Annotated[
        list[Path] | None,
        typer.Argument(help="Files that members made by `node charter sign`.", show_default=False),
    ] = None,
    home: HomeOption = HERE,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    as_json: JsonOption = False,
) -> None:
    """Collect signatures for the draft, in one call or several, and add the coordinator's own.

    When all are there, charter/sealed.json is written and this home goes by it: charter.json, charter.digest, contracts/. Send it to all
    members, who accept it after comparing the words.
    """
    place = home_at(home)
    items = [read_paper(path, CharterSignature) for path in signatures or []]
    held = Papers(place, app_digest()).seal(items, find_opener(place, passphrase_file, passphrase_fd))
    lacking, digest = missing(held), held.charter.digest()
    state: Literal["sealed", "waiting"] = "waiting" if lacking else "sealed"
    if as_json:
        sealed_file = None if lacking else str(place.sealed_file)
        print_json(
            {"state": state, "digest": digest, "words": words_of(digest), "missing": lacking, "file": sealed_file}
        )
    elif lacking:
        typer.echo(f"{len(held.signatures)} signatures are there. Missing: {', '.join(lacking)}.")
    else:
        typer.echo(f"Sealed: version {held.charter.version} of {held.charter.federation}, {digest}.")
        typer.echo(f"Next: send {place.sealed_file} to all members, let them accept it, and restart the coordinator.")
