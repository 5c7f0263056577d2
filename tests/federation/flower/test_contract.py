"""What is used of Flower's internals is there, and means what the adapter takes it to mean; fails loudly on another version."""

import ast
import importlib
import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from flwr.common import constant
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.exit import ExitCode
from flwr.supercore.inflatable import inflatable_utils
from flwr.superlink.routers.control import router as control_router
from flwr.superlink.routers.fleet import node_auth
from flwr.superlink.routers.fleet.router import router as fleet_router
from flwr.supernode import start_client_internal

from federation.errors import FederationError, IntegrityError, OfflineError
from federation.flower import backoff, commands, printed, supernode
from federation.flower.errors import UNREACHABLE, explain, is_gone
from federation.flower.version import FLOWER, check_version

ROOT = Path(__file__).parents[3]
flower_superlink = importlib.import_module("flwr.superlink.cli.flower_superlink")
flower_supernode = importlib.import_module("flwr.supernode.cli.flower_supernode")
INTERNAL = re.compile(r"flwr\.(common|supercore|superlink|supernode|proto|cli|server|compat|simulation)(\.|$)")


def test_the_installed_flower_is_the_one_that_this_was_written_against():
    check_version()
    assert version("flwr") == FLOWER


def test_another_flower_is_refused():
    with pytest.raises(IntegrityError, match="CSL-F330"):
        check_version("1.42.0")


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [item.name for item in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return found


@pytest.mark.parametrize("package", ["federation", "privacy", "client", "server", "simulations"])
def test_nothing_but_the_adapter_imports_flowers_internals(package):
    adapter = ROOT / "federation" / "flower"
    paths = [path for path in (ROOT / package).rglob("*.py") if not path.is_relative_to(adapter)]
    assert paths
    offenders = {str(path): name for path in paths for name in imports(path) if INTERNAL.match(name)}
    assert offenders == {}


def test_the_supernodes_loop_sleeps_as_long_as_the_launcher_takes_for_its_marks():
    pauses = sorted(set(re.findall(r"time\.sleep\(([\d.]+)\)", inspect.getsource(start_client_internal))))
    assert pauses == ["0.5", "3"]
    assert (supernode.IDLE_SECONDS, supernode.REPLY_SECONDS) == (3.0, 0.5)
    assert set(re.findall(r"\btime\.(\w+)", inspect.getsource(start_client_internal))) == {"sleep"}


def test_the_first_pause_for_a_messages_pieces_is_a_default_that_can_be_shortened():
    defaults = inflatable_utils.pull_objects.__kwdefaults__
    assert defaults is not None and {"initial_backoff", "backoff_cap"} <= set(defaults)
    assert backoff.FIRST_SECONDS < 1.0


def flags(parser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def given(command: tuple[str, ...]) -> list[str]:
    return [word for word in command if word.startswith("--")]


def test_the_links_command_uses_flags_that_it_has(tmp_path):
    command = commands.superlink_command(
        port=1, certificate=tmp_path, key=tmp_path, authority=tmp_path, secret=tmp_path, database=tmp_path
    )
    assert set(given(command)) <= flags(flower_superlink._parse_args_run_superlink())
    assert "--enable-supernode-auth" in command and "--insecure" not in command
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--isolation") + 1] == "process"


def test_a_supernodes_command_uses_flags_that_it_has(tmp_path):
    command = commands.supernode_command(
        link="a:1", authority=tmp_path, node_key=tmp_path, runtime_port=1, secret=tmp_path, poll_seconds=0.1
    )
    assert set(given(command)) - {"--poll-seconds"} <= flags(flower_supernode._parse_args_run_supernode())
    assert "--insecure" not in command and "--node-config" not in command


def test_the_environment_turns_telemetry_and_update_checks_off(tmp_path):
    from flwr.supercore import telemetry, update_check

    variables = commands.environment(tmp_path)
    assert variables["FLWR_TELEMETRY_ENABLED"] == "0" and variables["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert "FLWR_TELEMETRY_ENABLED" in inspect.getsource(telemetry)
    assert "FLWR_DISABLE_UPDATE_CHECK" in inspect.getsource(update_check) + inspect.getsource(
        __import__("flwr.supercore.constant", fromlist=["constant"])
    )


def test_fleet_paths_and_control_paths_can_be_told_apart_by_their_beginning():
    assert {route.path.split("/")[2] for route in fleet_router.routes} == {"fleet"}
    assert {route.path.split("/")[2] for route in control_router.routes} == {"control"}


def test_how_far_a_clock_may_be_off():
    assert (constant.TIMESTAMP_TOLERANCE, constant.SYSTEM_TIME_TOLERANCE) == (300, 5)
    assert "SYSTEM_TIME_TOLERANCE" in inspect.getsource(node_auth)


def test_how_long_a_killed_node_still_counts_as_on_line():
    assert constant.HEARTBEAT_DEFAULT_INTERVAL * constant.HEARTBEAT_PATIENCE == 60


def test_errors_of_unreachable_nodes_have_their_codes():
    assert int(constant.ErrorCode.NODE_UNAVAILABLE) in UNREACHABLE and len(UNREACHABLE) == 3


def test_a_link_that_is_away_and_one_that_refuses_are_told_apart():
    import httpx

    request = httpx.Request("POST", "https://127.0.0.1:1/x")
    refused = httpx.HTTPStatusError("", request=request, response=httpx.Response(403, text="{}"))
    assert isinstance(explain(httpx.ConnectError("x"), "a:1"), OfflineError)
    assert isinstance(explain(refused, "a:1"), FederationError)
    assert is_gone(refused) and not is_gone(httpx.ConnectError("x"))


def test_what_a_supernode_prints_is_what_is_looked_for():
    names = ("flwr.supercore.retry.http_retry", "flwr.supernode.start_client_internal")
    text = "".join(inspect.getsource(importlib.import_module(name)) for name in names)
    for phrase in (printed.TLS_FAILED, printed.ENDED, printed.RETRIES, *printed.CONNECTED):
        assert phrase in text
    assert 'f"[code: {flower_error.code}]' in inspect.getsource(
        importlib.import_module("flwr.supernode.fleet_http_connection")
    )
    assert printed.NOT_LET_IN == f"[code: {int(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED)}]"
    codes = {
        printed.KEY_INVALID: ExitCode.SUPERNODE_NODE_AUTH_KEY_INVALID,
        printed.SECRET_UNREADABLE: ExitCode.SUPEREXEC_AUTH_SECRET_LOAD_FAILED,
        printed.ADDRESS_INVALID: ExitCode.COMMON_ADDRESS_INVALID,
        printed.VERSIONS_DIFFER: ExitCode.RUNTIME_VERSION_INCOMPATIBLE,
    }
    assert all(phrase == f"Exit Code: {code}" for phrase, code in codes.items())
    assert "Exit Code: " in inspect.getsource(importlib.import_module("flwr.supercore.exit.exit"))
