from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from federation.document import Document, load_yaml, parse_yaml
from federation.errors import DocumentError


class Sample(Document):
    name: str
    size: int
    rate: float = 0.5
    tags: tuple[str, ...] = ()


def problems(text: str) -> str:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text.encode(), Sample, "sample.yaml")
    return str(caught.value)


def test_a_good_file_is_read(tmp_path):
    path = tmp_path / "sample.yaml"
    path.write_text("# a comment\nname: x\nsize: 3\ntags: [a, b]\n")
    assert load_yaml(path, Sample) == Sample(name="x", size=3, tags=("a", "b"))


def test_every_problem_is_named_with_line_and_key():
    message = problems("name: 7\nsize: many\nrate: 0.1\ncolour: red\n")
    assert message.startswith("CSL-F105  sample.yaml has 3 problems")
    for part in ("line 1: name", "line 2: size", "line 4: colour"):
        assert part in message


def test_a_missing_key_is_named():
    assert problems("name: x\n").splitlines()[1] == "  line 1: size: this key is missing"


def test_a_key_that_nobody_knows_is_named_in_words():
    assert "line 3: colour: unknown key" in problems("name: x\nsize: 1\ncolour: red\n")


class Shelf(Document):
    samples: Annotated[tuple[Sample, ...], Field(min_length=1)]


def test_a_list_whose_only_item_is_wrong_is_one_problem():
    with pytest.raises(DocumentError) as caught:
        parse_yaml(b"samples:\n- name: x\n  size: many\n", Shelf, "shelf.yaml")
    assert "has 1 problem:\n  line 3: samples.0.size: " in caught.value.cause
    with pytest.raises(DocumentError, match="at least 1"):
        parse_yaml(b"samples: []\n", Shelf, "shelf.yaml")


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("name: x\nname: y\nsize: 1\n", "CSL-F105", "stands twice"),
        ("name: &a x\nsize: 1\ntags: [*a]\n", "CSL-F105", "anchors and aliases"),
        ("name: &a x\nsize: 1\ntags: [b]\n", "CSL-F105", "line 1: anchors and aliases"),
        ("name: x\nsize: 1\nrate: .nan\n", "CSL-F105", "finite"),
        ("name: x\nsize: 1\nrate: -.inf\n", "CSL-F105", "finite"),
        ("name: !!python/object:os.system {}\nsize: 1\n", "CSL-F105", "only plain"),
        ("? [a]\n: 1\n", "CSL-F105", "plain text"),
        ("<<: {size: 2}\nname: x\n", "CSL-F105", "plain text"),
        ("name: [x\n", "CSL-F104", "not YAML"),
        ("", "CSL-F104", "empty"),
        ("- a\n- b\n", "CSL-F105", "whole document"),
        ("name: yes\nsize: 1\n", "CSL-F105", "name"),
        ("name: x\nsize: true\n", "CSL-F105", "size"),
        ("name: x\nsize: 1.5\n", "CSL-F105", "size"),
    ],
)
def test_bad_yaml(text, code, part):
    message = problems(text)
    assert message.startswith(code) and part in message


def test_not_utf8_and_unreadable_and_too_large(tmp_path):
    with pytest.raises(DocumentError, match="CSL-F104"):
        parse_yaml(b"name: \xff\xfe", Sample, "s")
    with pytest.raises(DocumentError, match="CSL-F103"):
        load_yaml(tmp_path / "missing.yaml", Sample)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(DocumentError, match="CSL-F103"):
        load_yaml(large, Sample)


@given(st.text(max_size=200))
def test_arbitrary_text_gives_a_document_or_a_document_error(text):
    try:
        assert isinstance(parse_yaml(text.encode("utf-8", "surrogatepass"), Sample, "s"), Sample)
    except DocumentError as error:
        assert error.code in {"CSL-F104", "CSL-F105"}


@given(st.text(min_size=1, max_size=20), st.integers(-(2**53) + 1, 2**53 - 1), st.floats(-1e15, 1e15))
def test_canonical_round_trip(name, size, rate):
    sample = Sample(name=name, size=size, rate=rate)
    assert Sample.from_canonical(sample.canonical()).canonical() == sample.canonical()


def test_another_spelling_of_the_same_value_is_refused():
    content = Sample(name="x", size=1).canonical()
    for other in (b" " + content, content.replace(b"0.5", b"0.50"), b"{}", b"\x00"):
        with pytest.raises(DocumentError, match="CSL-F102"):
            Sample.from_canonical(other)


def test_documents_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Sample(name="x", size=1).size = 2  # type: ignore[misc]
