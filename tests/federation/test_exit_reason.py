import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import ExitCode
from federation.exit_reason import plain_reason

CANARY = "Mrs Canary, born 1970"


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (-9, "killed (signal 9)"),
        (-15, "told to stop"),
        (-11, "SIGSEGV"),
        (-200, "signal 200"),
        (127, "cannot be started"),
    ],
)
def test_signals_and_programs_that_cannot_start_are_named(code, word):
    assert word in plain_reason(code, "")


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_exit_code_of_ours_has_a_meaning(code):
    assert "exit code" not in plain_reason(int(code), "")


def test_other_exit_codes_are_shown():
    assert plain_reason(77, "") == "It ended with exit code 77; its log says more."


def test_an_error_of_ours_is_passed_on_and_its_action_is_not_mixed_in():
    tail = "starting\nCSL-P507  keys/identity.key: wrong passphrase.\nGive the right one.\n"
    assert plain_reason(6, tail) == "CSL-P507 keys/identity.key: wrong passphrase."


def test_an_error_as_json_and_a_grave_log_line_are_passed_on():
    error = json.dumps({"error": {"code": "CSL-F330", "cause": "Another version.", "action": "Install."}})
    assert plain_reason(6, error) == "CSL-F330 Another version."
    grave = json.dumps({"level": "ERROR", "event": "ended", "code": "CSL-C123"})
    assert plain_reason(1, grave) == "CSL-C123"


def test_a_refusal_in_the_log_is_not_why_the_process_ended():
    refusal = json.dumps({"level": "warning", "event": "refused", "code": "CSL-P403"})
    assert "CSL-P403" not in plain_reason(1, refusal)
    assert "CSL-P507" not in plain_reason(-9, "CSL-P507  x: wrong passphrase.")


def test_the_last_known_phrase_counts_and_the_caller_s_come_first():
    phrases = {"Exit Code: 305": "The link does not know this node.", "Exit Code: 604": "A path is wrong."}
    tail = "Exit Code: 604\nAddress already in use\nExit Code: 305\n"
    assert plain_reason(1, tail, phrases) == "The link does not know this node."
    assert plain_reason(1, tail) == "Its port is taken by another process."


@given(
    code=st.integers(-64, 255),
    tail=st.text(max_size=200) | st.sampled_from(['{"level": 3}', "[1]", '{"error": "x"}', '{"error": {}}', "CSL-"]),
)
def test_unknown_text_is_never_quoted(code, tail):
    said = plain_reason(code, f"{tail}\nValueError: {CANARY}\n")
    assert "Canary" not in said and "\n" not in said and len(said) <= 400
