"""The README's picture is the report's: one drawing, rendered by `python tests/simulations/test_picture.py`."""

from pathlib import Path

from jinja2 import Environment, PackageLoader

PICTURE = Path(__file__).parents[2] / "docs" / "who-holds-what.svg"


def render() -> str:
    environment = Environment(
        loader=PackageLoader("simulations"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    drawing = environment.get_template("who_holds_what.svg.j2").render()
    drawing = drawing.replace("var(--sans)", "Helvetica, Arial, sans-serif", 1)
    drawing = drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return drawing.replace("<defs>", '<rect width="100%" height="100%" fill="#fff"/><defs>', 1).strip() + "\n"


def test_the_picture_is_the_reports():
    assert PICTURE.read_text() == render()


if __name__ == "__main__":
    PICTURE.write_text(render())
