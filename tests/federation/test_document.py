from typing import Annotated, Literal

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


class Round(Document):
    kind: Literal["round"]
    radius: float


class Square(Document):
    kind: Literal["square"]
    length: float
    angle: Literal["right"] | Annotated[float, Field(gt=0)] | tuple[Annotated[float, Field(gt=0)], ...] = 90.0


class Picture(Document):
    shape: Annotated[Round | Square, Field(discriminator="kind")]
    shapes: tuple[Annotated[Round | Square, Field(discriminator="kind")], ...] = ()
    owners: dict[str, Sample] = {}
    frame: Sample | Round | float | None = None
    edges: Sample | Shelf | None = None


def picture(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text.encode(), Picture, "picture.yaml")
    return caught.value.cause.splitlines()[1:]


SQUARE = "shape: {kind: square, length: 1.0}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nam: x\nname: y\nsize: 1\n", "nam: unknown key"),  # what is there already is not meant
        ("name: x\nsiz: 1\n", "siz: unknown key; did you mean size?"),
    ],
)
def test_a_misspelt_key_gets_the_nearest_that_is_not_there(text, said):
    assert said in [line.split(": ", 1)[1] for line in problems(text).splitlines()[1:-1]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SQUARE + "shaps: []\n", "line 2: shaps: unknown key; did you mean shapes?"),
        ("shape: {kind: square, length: 1.0, angel: right}", "shape.angel: unknown key; did you mean shape.angle?"),
        ("shape: {kind: round, radius: 1.0, angel: right}", "shape.angel: unknown key"),  # only squares have angles
        (
            SQUARE + "shapes: [{kind: square, length: 1.0}, {kind: round, radius: 1.0, radios: 2.0}]",
            "shapes.1.radios: unknown key",
        ),
        (
            SQUARE + "shapes: [{kind: square, length: 1.0, angles: 2.0}]",
            "shapes.0.angles: unknown key; did you mean shapes.0.angle?",
        ),
        (
            SQUARE + "owners: {me: {name: x, size: 1, tag: [a]}}",
            "owners.me.tag: unknown key; did you mean owners.me.tags?",
        ),
    ],
)
def test_nearest_keys_are_those_of_the_place(text, said):
    (line,) = picture(text)
    assert line.removeprefix("  line 1: ").removeprefix("  line 2: ") == said.removeprefix("line 2: ")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "wide",
            "shape.angle: Input should be 'right' or a valid number (small ones with a point, as 1.0e-6) or a valid array",
        ),
        ("-1", "shape.angle: Input should be 'right' or greater than 0"),
        ("[1, -1]", "shape.angle.1: Input should be greater than 0"),
    ],
)
def test_a_value_that_fits_no_member_of_a_union_is_one_problem(value, said):
    assert picture(f"shape: {{kind: square, length: 1.0, angle: {value}}}") == [f"  line 1: {said}"]


def test_a_key_that_one_member_of_a_union_knows_is_not_unknown():
    said = picture(SQUARE + "edges: {name: 3, size: 1}")
    assert "  line 2: edges.name: Input should be a valid string" in said
    assert not any("edges.name: unknown" in line for line in said)


def test_a_map_for_a_union_with_a_number_is_told_of_its_keys_alone():
    said = picture(SQUARE + "frame: {name: x, size: 1, rats: 1.0}")
    assert "  line 2: frame.rats: unknown key; did you mean frame.rate?" in said  # the nearest of one member will do
    assert not any("frame: " in line for line in said)


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
