"""The coordinator's configuration, coordinator.yaml: where institutions reach it, which ports it takes, how its keys are opened."""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from federation.charter import Address, split_address
from federation.contract import Name
from federation.document import Document, load_yaml

LINK_PORT = 18_000
LOOPBACK = ("localhost", "127.0.0.1")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST_NAME = 253

Port = Annotated[int, Field(ge=1, le=65_535)]


def is_ip(name: str) -> bool:
    """Return whether a host is an IP address, and not a name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine alone."""
    return host == "localhost" or (is_ip(host) and ipaddress.ip_address(host).is_loopback)


def _host(name: str) -> str:
    labels = name.split(".")
    looks_like_ip = labels[-1].isdigit()
    named = len(name) <= _LONGEST_NAME and not looks_like_ip and all(_LABEL.fullmatch(label) for label in labels)
    if not (named or is_ip(name)):
        raise ValueError("give a host's name in small letters, or an IP address, without a port")
    return name


def _host_of_address(address: str) -> str:
    _host(split_address(address)[0])
    return address


Host = Annotated[str, AfterValidator(_host)]


class CoordinatorConfig(Document):
    """How one coordinator runs.

    Attributes
    ----------
    federation, address, names:
        The federation; where institutions reach it (host:port, as the charter says); further names and addresses that the server's
        certificate is for.
    link_port:
        Where the link listens, on 127.0.0.1.
    proxy, listen:
        `nginx` stands before the link, lets institutions through to the fleet's paths and nothing else, and listens at `listen`; by default
        at the address' port on all interfaces (those of IPv6 alone where the address is one), or on 127.0.0.1 where the address is
        this machine. `none` where everybody is on this
        machine, or where a proxy of your own does the same.
    memory_state:
        Whether the link keeps its state in memory: faster, but a restart of the link ends the running studies, which then go on
        from their checkpoints.
    metrics_port:
        Where metrics are served for Prometheus, on 127.0.0.1; nowhere unless given.
    passphrase_file, plain_keys:
        The file with the passphrase of the coordinator's keys (relative to the home), or that they have none (simulations).
    """

    federation: Name
    address: Annotated[Address, AfterValidator(_host_of_address)]
    names: Annotated[tuple[Host, ...], Field(max_length=100)] = ()
    link_port: Port = LINK_PORT
    proxy: Literal["none", "nginx"] = "none"
    listen: Annotated[Address, AfterValidator(_host_of_address)] | None = None
    memory_state: bool = False
    metrics_port: Port | None = None
    passphrase_file: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")] | None = None
    plain_keys: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.passphrase_file is not None and self.plain_keys:
            raise ValueError("give passphrase_file or plain_keys, not both")
        if self.proxy == "none" and self.listen is not None:
            raise ValueError("listen is where nginx listens: it needs proxy: nginx")
        ports = {"link_port": self.link_port, "metrics_port": self.metrics_port}
        if self.proxy == "nginx":
            ports["listen"] = split_address(self.listens)[1]
        taken = [port for port in ports.values() if port is not None]
        if len(set(taken)) != len(taken):
            raise ValueError(f"{', '.join(ports)} must be different ports; with nginx, set link_port to a free one")
        return self

    @property
    def listens(self) -> str:
        """Where nginx listens, host:port."""
        if self.listen is not None:
            return self.listen
        host, port = split_address(self.address)
        if not is_loopback(host):
            return f"[::]:{port}" if ":" in host else f"0.0.0.0:{port}"
        return self.address if is_ip(host) else f"127.0.0.1:{port}"

    def hosts(self) -> tuple[str, ...]:
        """Return every name and IP address that the server's certificate is for, each once: the address' host comes first."""
        return tuple(dict.fromkeys((split_address(self.address)[0], *self.names, *LOOPBACK)))


def load_coordinator(path: Path) -> CoordinatorConfig:
    """Read a coordinator.yaml. Raises DocumentError as `federation.document.load_yaml`."""
    return load_yaml(path, CoordinatorConfig)


_PAGE = """\
# How this coordinator runs. A change counts from the next start; after one of address or names, renew the server's certificate.
federation: {federation!r}

# Where institutions reach the coordinator. The charter says the same: another address is another charter.
address: {address!r}

# Further names and IP addresses that the server's certificate is for.
names: [{names}]

# nginx stands before the link and lets institutions through to the fleet's paths alone. Say none where all parties are on this
# machine, or where a proxy of your own does the same. The link itself listens on 127.0.0.1 only.
proxy: {proxy}
link_port: {link_port}
{more}
# Whether the link keeps its state in memory: faster, but when the link ends, its runs end with it, and studies go on from their
# checkpoints in new ones.
memory_state: {memory_state}

# {keys_comment}
{keys}
"""


def config_yaml(config: CoordinatorConfig) -> str:
    """Return a configuration as `coordinator init` writes it: YAML with a word about every part, which reads back as the same."""
    plain = config.plain_keys or config.passphrase_file is None
    return _PAGE.format(
        federation=config.federation,
        address=config.address,
        names=", ".join(repr(name) for name in config.names),
        proxy=config.proxy,
        link_port=config.link_port,
        more="".join(_more(config)),
        memory_state="true" if config.memory_state else "false",
        keys_comment="The keys lie open on the disk: for simulations alone."
        if plain
        else "The file (0600) with the passphrase of keys/identity.key and tls/ca.key, relative to this folder unless absolute.",
        keys="plain_keys: true" if plain else "passphrase_file: " + _quoted(config.passphrase_file or ""),
    )


def _more(config: CoordinatorConfig) -> Iterator[str]:
    """Yield the lines of what is only written where it was set."""
    if config.listen is not None:
        yield f"listen: {_quoted(config.listen)}\n"
    if config.metrics_port is not None:
        yield f"metrics_port: {config.metrics_port}\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
