"""The fields of a document by their paths, as `partners.by.alpha`: which there are, and how one is read and set in a JSON tree."""

import difflib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel, JsonValue

Tree = dict[str, Any]
Loc = tuple[int | str, ...]

KIND = "kind"


@lru_cache(maxsize=8)
def paths(model: type[BaseModel]) -> dict[str, tuple[str, ...]]:
    """Return every path that a model has, whichever member of a union holds it, with the kinds that do (empty: all).

    Lists and maps are leaves: they are set as a whole.
    """
    found: dict[str, list[str]] = {}
    _walk(model, "", found)
    return {path: tuple(kinds) for path, kinds in found.items()}


def _walk(model: type[BaseModel], prefix: str, found: dict[str, list[str]]) -> None:
    tag = model.model_fields.get(KIND)
    kinds = [str(kind) for kind in get_args(tag.annotation)] if tag is not None else []
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        found.setdefault(path, []).extend(kinds)
        for child in _models(field.annotation):
            _walk(child, f"{path}.", found)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the documents that a field may hold itself, not those in its lists."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, BaseModel):
            yield annotation
    elif get_origin(annotation) not in {tuple, dict, list}:
        for part in get_args(annotation):
            yield from _models(part)


def telling(model: type[BaseModel], path: str, value: JsonValue) -> JsonValue:
    """Return what stands at a path without the parts of an object that have their defaults; its kind stays."""
    if not isinstance(value, dict):
        return value
    documents = [model]
    for part in path.split("."):
        found = [one.model_fields[part].annotation for one in documents if part in one.model_fields]
        documents = [document for annotation in found for document in _models(annotation)]
    for document in documents:
        tag = document.model_fields.get(KIND)
        if tag is None or value.get(KIND) in get_args(tag.annotation):
            plain = document.model_construct().model_dump(mode="json", warnings=False)
            return {name: part for name, part in value.items() if name == KIND or part != plain.get(name)}
    return value


def nearest(word: str, known: list[str]) -> str | None:
    """Return the known path most like a word, or None; a last part alone counts as the path that ends so."""
    ends: dict[str, str] = {}
    for path in known:
        ends.setdefault(path.rsplit(".", 1)[-1], path)
    if close := difflib.get_close_matches(word, known, n=1):
        return close[0]
    close = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(ends), n=1)
    return ends[close[0]] if close else None


def order(path: str) -> tuple[int, bool, str]:
    """Return the place of a path among those to be set: whole objects before their parts, a kind before what it brings."""
    parts = path.split(".")
    return len(parts), parts[-1] != KIND, path


def put(tree: Tree, path: str, value: JsonValue) -> None:
    """Set a path, in place. Another kind drops the fields of the kind that was there; an absent object is begun."""
    *parents, last = path.split(".")
    node = tree
    for part in parents:
        child = node.get(part)
        if not isinstance(child, dict):
            child = {}
            node[part] = child
        node = child
    if last == KIND and node.get(KIND) != value:
        node.clear()
    node[last] = value


def look(tree: Tree, path: str) -> JsonValue:
    """Return what stands at a path; None where nothing does."""
    node: Any = tree
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    value: JsonValue = node
    return value


def place(loc: Loc, tree: Tree) -> str:
    """Return the path to which one of pydantic's locations belongs: the deepest part that stands in the tree, without union tags."""
    found: list[str] = []
    node: Any = tree
    for part in loc:
        inside = isinstance(node, dict) and part in node
        if inside or (isinstance(node, list) and isinstance(part, int)):
            found.append(str(part))
            node = node[part]
    return ".".join(found)
