"""Writes docs/errors.md from the code itself: `python tests/errors_page.py > docs/errors.md`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from federation import errors
from federation.errors import ConsilienceError, ExitCode

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "F": "federation",
    "P": "privacy",
    "C": "client",
    "S": "server",
    "M": "simulations",
    "R": "federation",
}
CODE = re.compile(r"CSL-[FPCSMR]\d{3}")
EXITS = {
    name: kind.exit_code
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, ConsilienceError)
}
MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.INTERNAL: "a fault of the program",
    ExitCode.USAGE: "the command line is not understood",
    ExitCode.DOCUMENT: "a document (charter, contract, study, policy, node configuration) is not valid",
    ExitCode.DATA: "an institution's own tables do not fit its mapping or the contract",
    ExitCode.POLICY: "policy or budget does not allow it",
    ExitCode.INTEGRITY: "a signature, digest, chain or key does not check out",
    ExitCode.OFFLINE: "something that must be fetched cannot be reached",
    ExitCode.FEDERATION: "the federation cannot go on: too few partners, or a reply that does not fit",
    ExitCode.STORAGE: "a file cannot be written or read",
    ExitCode.INTERRUPTED: "interrupted from the keyboard",
}
# What a use names only through a variable.
FIXED = {
    "CSL-R000": "All that a coordinator sees of a refusal; the reason stands in the institution's ledger.",
    "CSL-C100": "Several faults in an institution's tables at once, each listed with its own code.",
    "CSL-P403": "The study would take more than is left of the period's budget.",
    "CSL-P404": "The study would take more than is left of the life budget.",
    "CSL-P412": "The study would take more than is left of its purpose's budget.",
    "CSL-P623": "The ledger's table of releases is not what its entries give.",
    "CSL-P513": "The ledger's file cannot be read or written.",
}


def text_of(node: ast.expr | None) -> str | None:
    """A literal's text, what is filled in shown as an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "…" for part in node.values)
    if isinstance(node, ast.IfExp):
        return text_of(node.body)
    if isinstance(node, ast.BinOp):
        return (text_of(node.left) or "…") + (text_of(node.right) or "…")
    return None


def uses(tree: ast.AST) -> Iterator[tuple[str, str | None, str | None, str]]:
    """Yield (code, cause, action, name of what is called) for every literal code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            for place, argument in enumerate(node.args):
                code = text_of(argument)
                if code and CODE.fullmatch(code):
                    texts = [text for item in node.args[place + 1 : place + 4] if (text := text_of(item))] + [
                        None,
                        None,
                    ]
                    yield code, texts[0], texts[1], name
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                code = text_of(key)
                if code and CODE.fullmatch(code):
                    yield code, text_of(value), None, "dict"


def literals(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
            yield node.value


def collect() -> dict[str, dict[str, str]]:
    """Return code -> package, cause, action, exit; what a use does not say is an empty text."""
    found: dict[str, dict[str, str]] = {}
    for package in sorted(set(PACKAGES.values())):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            for code in literals(tree):
                entry = found.setdefault(code, {"package": package, "cause": "", "action": "", "exit": ""})
                if package == PACKAGES[code[4]]:  # another package may name it as well, in a finding or beside its own
                    entry["package"] = package
            for code, cause, action, name in uses(tree):
                entry = found[code]
                if name in EXITS:
                    entry["exit"] = str(int(EXITS[name]))
                better = name in EXITS or name == "dict" or not entry["cause"]
                if cause and better and len(cause) > 3:
                    entry["cause"], entry["action"] = cause, action or entry["action"]
    for code, cause in FIXED.items():
        found[code]["cause"] = cause
    return found


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def page() -> str:
    lines = [
        "# Errors and exit codes",
        "",
        "Every error has a stable code, a cause and the next action. Towards the coordinator every refusal is",
        "`CSL-R000`; the reason stays at home, in the ledger. This page is made from the code by",
        "`python tests/errors_page.py`, and a test holds it to it.",
        "",
        "| exit | meaning |",
        "| --- | --- |",
        *(f"| {code.value} | {MEANINGS[code]} |" for code in ExitCode),
    ]
    entries = collect()
    for letter in ("F", "P", "C", "S", "M", "R"):
        codes = sorted(code for code in entries if code[4] == letter)
        if not codes:
            continue
        title = "refusals towards the coordinator" if letter == "R" else f"`{PACKAGES[letter]}`"
        lines += [
            "",
            f"## CSL-{letter}: {title}",
            "",
            "| code | exit | what happened | what to do |",
            "| --- | --- | --- | --- |",
        ]
        lines += [
            f"| {code} | {entries[code]['exit']} | {cell(entries[code]['cause'])} | {cell(entries[code]['action'])} |"
            for code in codes
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
