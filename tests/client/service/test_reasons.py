"""Why a process ended, in plain words: from what Flower's SuperNode 1.41 really prints, and from what the worker leaves."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.service.reasons import connection, explain_supernode, explain_worker
from client.service.standing import Failure, Standing, now, write_standing
from client.service.worker_exit import WorkerExit
from federation.errors import ExitCode

START = "INFO :      Starting Flower SuperNode\nINFO:     Uvicorn running on http://127.0.0.1:19100\n"
FAILED = (
    "ERROR :     Exit Code: 305\nFailed to initialize the connection to the SuperLink.\n{}\n"
    "The SuperNode could not establish a connection to the SuperLink.\n"
)
HANDSHAKE = "ERROR :     SSL/TLS handshake error detected.\n"
SSL = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {} (_ssl.c:1006)"


def failed(what):
    return START + FAILED.format(what)


@pytest.mark.parametrize(
    ("code", "tail", "words"),
    [
        (1, failed("[code: 2004] Failed to activate SuperNode."), "does not know the node's key yet"),
        (1, failed("[code: 2004] Failed to activate SuperNode."), "about a minute"),
        (1, failed(SSL.format("certificate has expired")), "certificate renew"),
        (1, failed(SSL.format("certificate is not yet valid")), "clock"),
        (1, failed(SSL.format("unable to get local issuer certificate")), "not from the charter's authority"),
        (1, failed(SSL.format("self-signed certificate in certificate chain")), "inspecting firewall"),
        (1, failed(SSL.format("IP address mismatch, certificate is not valid for '127.0.0.1'.")), "another name"),
        (1, START + "ERROR: [Errno 98] error while attempting to bind: address already in use\n", "runtime_port"),
        (1, "ERROR :  Exit Code: 302\nUnable to parse the private key file.\n", "node.key"),
        (0, START + "INFO :      SuperNode terminated gracefully.\n", "clock"),
        (0, START + HANDSHAKE + SSL.format("certificate has expired") + "\n", "certificate renew"),
        (
            0,
            START + HANDSHAKE + "[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred (_ssl.c:1006)\n",
            "could not be made",
        ),
        (0, START, "without an error"),
        (-9, START, "killed"),
        (1, "Traceback: something with canary-17\n", "its log says more"),
    ],
)
def test_what_the_supernode_prints_becomes_a_reason(code, tail, words):
    said = explain_supernode(code, tail)
    assert words in said and "canary" not in said and "\n" not in said


@given(st.integers(-64, 255), st.text(max_size=300))
def test_no_text_of_a_log_is_passed_on(code, tail):
    marked = f"canary{tail}canary"
    assert "canary" not in explain_supernode(code, marked)


def test_a_worker_that_could_not_start_says_why_in_its_own_words(tmp_path):
    place = tmp_path / "vault.json"
    explain = explain_worker(place)
    assert explain(WorkerExit.KEYS, "") == "The vault's keys cannot be opened."
    failure = Failure(code="CSL-P505", cause="The passphrase is wrong.", action="Give the right one.")
    write_standing(place, Standing(phase="failed", since=now(), pid=1, failure=failure))
    assert explain(WorkerExit.KEYS, "") == (
        "The vault's keys cannot be opened. CSL-P505  The passphrase is wrong. Give the right one."
    )
    listed = failure.model_copy(update={"cause": "node.yaml has 1 problem:\n  line 4: contracts"})
    write_standing(place, Standing(phase="failed", since=now(), pid=1, failure=listed))
    assert "has 1 problem: line 4: contracts Give" in explain(WorkerExit.CONFIGURATION, "")
    assert "killed" in explain(-signal.SIGKILL, "")
    assert "CSL-P505" not in explain(1, "")


def test_every_exit_of_the_worker_has_its_own_words_and_is_no_exit_of_a_command(tmp_path):
    explain = explain_worker(tmp_path / "vault.json")
    words = {explain(code, "") for code in WorkerExit if code}
    assert len(words) == len(WorkerExit) - 1 and not any("exit code" in text for text in words)
    assert {int(code) for code in WorkerExit if code}.isdisjoint(int(code) for code in ExitCode)


def test_a_running_supernode_is_connected_or_tries():
    trying = START + "WARNING :   Connection attempt failed, retrying in 0.35 seconds\n"
    up = "INFO :      SuperNode ID: 6951824274238126252\n"
    assert connection("") == "starting" == connection(START)
    assert connection(trying) == "trying"
    assert connection(trying + up) == "connected"
    assert connection(START + up + trying.replace(START, "")) == "trying"
    assert connection(START + up + START) == "starting"
