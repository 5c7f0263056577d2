import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.errors import DocumentError
from server.config import CoordinatorConfig, config_yaml, is_loopback, load_coordinator


def config(**changes: object) -> CoordinatorConfig:
    return CoordinatorConfig.model_validate({"federation": "test", "address": "coord.example.org:443"} | changes)


@pytest.mark.parametrize(
    ("changes", "listens"),
    [
        ({"proxy": "nginx"}, "0.0.0.0:443"),
        ({"proxy": "nginx", "address": "127.0.0.1:443"}, "127.0.0.1:443"),
        ({"proxy": "nginx", "address": "[::1]:443"}, "[::1]:443"),
        ({"proxy": "nginx", "address": "[2001:db8::1]:443"}, "[::]:443"),
        ({"proxy": "nginx", "address": "localhost:443"}, "127.0.0.1:443"),
        ({"proxy": "nginx", "listen": "10.0.0.1:8443"}, "10.0.0.1:8443"),
    ],
)
def test_where_nginx_listens(changes, listens):
    assert config(**changes).listens == listens


def test_the_certificate_is_for_every_name_once():
    made = config(address="[2001:db8::1]:443", names=("10.0.0.1", "localhost", "b.example"))
    assert made.hosts() == ("2001:db8::1", "10.0.0.1", "localhost", "b.example", "127.0.0.1")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"passphrase_file": "p", "plain_keys": True}, "not both"),
        ({"listen": "0.0.0.0:443"}, "needs proxy"),
        ({"metrics_port": 18_000}, "different ports"),
        ({"proxy": "nginx", "link_port": 443}, "different ports"),
        ({"proxy": "nginx", "metrics_port": 443}, "different ports"),
        ({"proxy": "caddy"}, "proxy"),
        ({"link_port": 0}, "link_port"),
        ({"link_port": "18000"}, "link_port"),
        ({"address": "coord.example.org"}, "address"),
        ({"address": "999.1.1.1:443"}, "address"),
        ({"address": "a..b:443"}, "address"),
        ({"names": ("host:443",)}, "names"),
        ({"names": ("Host",)}, "names"),
        ({"names": ("-a",)}, "names"),
        ({"names": ("*.example.org",)}, "names"),
        ({"names": ("1.2.3",)}, "names"),
        ({"names": ("a" * 64,)}, "names"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_is_refused(changes, part):
    with pytest.raises(ValidationError, match=part):
        config(**changes)


NAMES = st.one_of(
    st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True), st.sampled_from(["no", "yes", "null", "on", "true", "y"])
)
HOSTS = st.one_of(
    st.ip_addresses().map(str), st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{1,5}){0,3}", fullmatch=True)
)
FILES = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=30)


@given(
    NAMES,
    st.lists(HOSTS, max_size=5),
    st.sampled_from([("none", None), ("nginx", None), ("nginx", "10.0.0.1:9443")]),
    st.none() | FILES,
    st.booleans(),
    st.none() | st.just(9_200),
)
def test_what_init_writes_reads_back_as_the_same(
    tmp_path_factory, federation, names, between, passphrase_file, memory_state, metrics_port
):
    made = config(
        federation=federation,
        names=tuple(names),
        proxy=between[0],
        listen=between[1],
        memory_state=memory_state,
        metrics_port=metrics_port,
        passphrase_file=passphrase_file,
        plain_keys=passphrase_file is None,
    )
    path = tmp_path_factory.getbasetemp() / "coordinator.yaml"
    path.write_text(config_yaml(made), encoding="utf-8")
    assert load_coordinator(path) == made


def test_all_faults_are_named_with_their_lines(tmp_path):
    path = tmp_path / "coordinator.yaml"
    path.write_text("federation: Not Good\naddress: nowhere\nlink_port: many\n")
    with pytest.raises(DocumentError) as caught:
        load_coordinator(path)
    assert caught.value.code == "CSL-F105"
    assert all(part in caught.value.cause for part in ("line 1: federation", "line 2: address", "line 3: link_port"))


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("a.org", False),
    ],
)
def test_this_machine(host, here):
    assert is_loopback(host) == here
