"""Documents: frozen, strict, canonical; read from YAML with every problem named at once."""

import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from federation.encoding import canonical, sha256_hex
from federation.errors import DocumentError

MAX_DOCUMENT_BYTES = 1 << 20
_MERGE_TAG = "tag:yaml.org,2002:merge"
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq", "timestamp")
}

_WORDS = {
    "missing": "this key is missing",
    "extra_forbidden": "unknown key",
    "float_type": "Input should be a valid number (small ones with a point, as 1.0e-6)",
}

_INPUT = "Input should be "

Path_ = tuple[int | str, ...]


class _Problem(NamedTuple):
    """One of pydantic's problems at the deepest key that stands in the file, or at the one that is missing."""

    path: Path_
    line: int
    kind: str
    said: str


class Document(BaseModel):
    """A frozen value with one canonical encoding; unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def canonical(self) -> bytes:
        """Return the RFC 8785 bytes of this document."""
        return canonical(self.model_dump(mode="json"))

    def digest(self) -> str:
        """Return the SHA-256 of the canonical bytes, 64 hexadecimal digits."""
        return sha256_hex(self.canonical())

    @classmethod
    def from_canonical(cls, content: bytes) -> Self:
        """Parse canonical bytes and refuse any other spelling of the same value.

        Raises
        ------
        DocumentError
            CSL-F102 when the bytes are not this document's canonical form.
        """
        try:
            document = cls.model_validate_json(content)
        except ValidationError as error:
            raise DocumentError(
                "CSL-F102",
                f"Not a valid {cls.__name__}: {_first_problem(error)}.",
                "Ask the sender for a correct document.",
            ) from error
        if document.canonical() != content:
            raise DocumentError(
                "CSL-F102", f"The {cls.__name__} is not in canonical form.", "Ask the sender to encode it by RFC 8785."
            )
        return document


D = TypeVar("D", bound=BaseModel)


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{key}: {first['msg']}" if key else first["msg"]


def load_yaml(path: Path, model: type[D]) -> D:
    """Read a YAML file as `model`.

    Raises
    ------
    DocumentError
        CSL-F103 when the file cannot be read or is larger than 1 MiB; CSL-F104 for YAML that is not plain data; CSL-F105
        with every problem, its line and its key, when the content does not fit.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DocumentError(
            "CSL-F103", f"{path} cannot be read: {error.strerror}.", "Check the path and its rights."
        ) from error
    if len(content) > MAX_DOCUMENT_BYTES:
        raise DocumentError("CSL-F103", f"{path} is larger than 1 MiB.", "A document is small: check the path.")
    return parse_yaml(content, model, str(path))


def parse_yaml(content: bytes, model: type[D], source: str) -> D:
    """Parse YAML bytes as `model`; `source` names them in messages. Raises as `load_yaml`."""
    try:
        text = content.decode("utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        tokens = yaml.scan(text) if "&" in text else ()  # a second reading, for what has an anchor's sign
        anchors = [token.start_mark.line + 1 for token in tokens if isinstance(token, yaml.AnchorToken)]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f", line {line + 1}"
        reason = getattr(error, "problem", None) or "it is not UTF-8 text"
        raise DocumentError("CSL-F104", f"{source}{where}: not YAML: {reason}.", "Correct the file.") from error
    if root is None:
        raise DocumentError("CSL-F104", f"{source} is empty.", "Write the document, or check the path.")
    lines: dict[Path_, int] = {}
    problems = [f"line {line}: anchors and aliases are not allowed; write the value out" for line in anchors]
    tree = _plain(root, (), lines, problems, set())
    if not problems:
        try:
            return model.model_validate_json(json.dumps(tree))
        except ValidationError as error:
            problems = _problems(error, lines, model)
    listing = "\n".join(f"  {problem}" for problem in problems)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise DocumentError("CSL-F105", f"{source} has {count}:\n{listing}", "Correct every line named, and try again.")


def _problems(error: ValidationError, lines: dict[Path_, int], model: type[BaseModel]) -> list[str]:
    """Say each problem once: a list that counts as too short only because its items are wrong is none of its own."""
    found = error.errors(include_url=False, include_input=False)
    places = [item["loc"] for item in found]
    told = [
        _problem(item["loc"], item["type"], item["msg"], lines, model)
        for item in found
        if item["type"] != "too_short" or not any(place[:-1][: len(item["loc"])] == item["loc"] for place in places)
    ]
    by_place: dict[tuple[int, Path_], list[_Problem]] = {}
    for problem in told:
        if not _other_member(problem, told):
            by_place.setdefault((problem.line, problem.path), []).append(problem)
    return [
        f"line {line}: {_dotted(path) or '(whole document)'}: {_folded([problem.said for problem in here])}"
        for (line, path), here in by_place.items()
    ]


def _other_member(problem: _Problem, told: Sequence[_Problem]) -> bool:
    """Say whether a problem is of a member of a union that was not meant: another one knew the key, or took the value's type."""
    size = len(problem.path)
    others = [other for other in told if other is not problem and other.path[:size] == problem.path]
    if problem.kind == "extra_forbidden":
        return any(other.kind != problem.kind for other in others)
    if not _alien(problem.kind):
        return False
    literal = problem.kind == "literal_error"  # words that were meant may be beside text of another form
    return any(len(other.path) > size or not (literal or _alien(other.kind)) for other in others)


def _alien(kind: str) -> bool:
    """Say whether a value is of another type, so that nothing else was looked at; an unknown key has none at all."""
    return kind.endswith("_type") or kind in {"literal_error", "extra_forbidden"}


def _folded(said: Sequence[str]) -> str:
    """Say as one what the members of a union say of one value: "Input should be a valid array or a valid number"."""
    first, *others = dict.fromkeys(said)
    if first.startswith(_WORDS["extra_forbidden"]):
        return first
    return " or ".join(
        [first, *(other.removeprefix(_INPUT) if first.startswith(_INPUT) else other for other in others)]
    )


def _problem(loc: Path_, kind: str, message: str, lines: dict[Path_, int], model: type[BaseModel]) -> _Problem:
    """Name the deepest key that stands in the file (pydantic's location may hold union tags), and the key that is missing."""
    path: Path_ = ()
    for part in loc:
        if (*path, part) in lines:
            path = (*path, part)
    said = _WORDS.get(kind, message.removeprefix("Value error, "))
    if kind == "extra_forbidden":
        said += _nearest(path, [name for name in _keys(model, loc[:-1]) if (*path[:-1], name) not in lines])
    return _Problem((*path, loc[-1]) if kind == "missing" else path, lines.get(path, 1), kind, said)


def _dotted(path: Path_) -> str:
    return ".".join(str(part) for part in path)


def _nearest(path: Path_, known: Sequence[str]) -> str:
    """Return the known key that is most like the last one of a path, as a question; nothing where none is."""
    close = difflib.get_close_matches(str(path[-1]), known, n=1) if path else []
    return f"; did you mean {_dotted((*path[:-1], close[0]))}?" if close else ""


def _keys(model: type[BaseModel], loc: Path_) -> list[str]:
    """Return the keys that the document at one of pydantic's locations may have."""
    models = [model]
    for part in loc:
        held = [
            one.model_fields[part].annotation for one in models if isinstance(part, str) and part in one.model_fields
        ]
        if held:
            models = [inner for annotation in held for inner in _models(annotation)]
        else:  # an item of a list, a key of a map, or the tag of a union's member
            models = [one for one in models if isinstance(part, str) and part in _tags(one)] or models
    return list(dict.fromkeys(name for one in models for name in one.model_fields))


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the documents that a field may hold, itself or in its lists and maps."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in get_args(annotation):
        yield from _models(part)


def _tags(model: type[BaseModel]) -> set[object]:
    """Return by what pydantic calls a document in a union: its name, or the value of the key that tells it apart."""
    kinds = [field.annotation for field in model.model_fields.values() if get_origin(field.annotation) is Literal]
    return {model.__name__, *(tag for kind in kinds for tag in get_args(kind))}


def _plain(node: yaml.Node, path: Path_, lines: dict[Path_, int], problems: list[str], seen: set[int]) -> Any:  # noqa: ANN401 - any JSON value
    """Turn a YAML node into JSON values; note each key's line, and every construct that JSON does not have."""
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if id(node) in seen:
        problems.append(f"line {line}: anchors and aliases are not allowed; write the value out")
        return None
    seen.add(id(node))
    if node.tag not in _PLAIN_TAGS:
        problems.append(
            f"line {line}: {node.tag.rsplit(':', 1)[-1]}: only plain text, numbers, lists and maps are allowed"
        )
        return None
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node, path, lines, problems, seen)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, (*path, index), lines, problems, seen) for index, child in enumerate(node.value)]
    return _scalar(node, line, problems)


def _plain_mapping(
    node: yaml.MappingNode, path: Path_, lines: dict[Path_, int], problems: list[str], seen: set[int]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if key_node.tag == _MERGE_TAG or not isinstance(key_node, yaml.ScalarNode):
            problems.append(f"line {line}: a key must be plain text")
            continue
        if key in result:
            problems.append(f"line {line}: {'.'.join(str(part) for part in (*path, key))}: the key stands twice")
            continue
        lines[(*path, key)] = line
        result[key] = _plain(value_node, (*path, key), lines, problems, seen)
    return result


def _scalar(node: yaml.Node, line: int, problems: list[str]) -> None | bool | int | float | str:
    if node.tag.endswith(":timestamp"):
        return str(node.value)  # dates stay text; the model that wants a date parses it
    value = yaml.SafeLoader("").construct_object(node)
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        problems.append(f"line {line}: {node.value}: numbers must be finite")
        return None
    assert value is None or isinstance(value, bool | int | float | str)
    return value
