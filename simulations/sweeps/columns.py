"""Tables that fit a terminal: figures are shown whole or not at all, words fold, and what finds no room is named."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

KEPT = 0
"""Rank of columns that are never left out."""

_WORDS = 14


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes
    ----------
    heading:
        May have several lines.
    rank:
        Where there is no room, columns of the highest rank are left out first, those of one rank together.
    words:
        0 for figures, which are never cut; else the width that words keep at least: what is longer folds.
    """

    heading: str
    rank: int = KEPT
    words: int = 0

    @property
    def name(self) -> str:
        """Its heading on one line."""
        return self.heading.replace(".\n", ".").replace("\n", " ")


def worded(heading: str, rank: int = KEPT, least: int = _WORDS) -> Column:
    """Return a column of words."""
    return Column(heading, rank, least)


class Grid:
    """A table that is shown as wide as the console is, or narrower."""

    def __init__(self, title: str, *columns: Column) -> None:
        self._title, self._columns = title, columns
        self._rows: list[tuple[tuple[str, ...], str, bool]] = []

    def add(self, *cells: str, style: str = "", after_line: bool = False) -> None:
        """Add a row of plain text, after a dividing line if asked."""
        self._rows.append((cells, style, after_line))

    def width(self, least: bool = False) -> int:
        """Return how wide all columns are together, or with words folded as much as they may be."""
        return _together([self._least(place) if least else self._natural(place) for place in range(len(self._columns))])

    def show(self, console: Console) -> tuple[str, ...]:
        """Print the table, and return the names of the columns that were left out."""
        places = self._fitting(console.width)
        widths = self._widths(places, console.width)
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), width=max(_together(widths), 1))
        for place, width in zip(places, widths, strict=True):
            column = self._columns[place]
            table.add_column(
                Text(column.heading),
                justify="left" if column.words else "right",
                width=width,
                no_wrap=not column.words,
                overflow="fold",
            )
        for cells, style, after_line in self._rows:
            if after_line:
                table.add_section()
            table.add_row(*(Text(cells[place]) for place in places), style=style)
        if self._title:
            console.print(Text(self._title, style="bold"))
        console.print(table, crop=False)  # a terminal too narrow for the kept columns breaks the lines itself
        return tuple(column.name for place, column in enumerate(self._columns) if place not in places)

    def _fitting(self, room: int) -> list[int]:
        """Return the places of the columns that have room."""
        places = list(range(len(self._columns)))
        while _together([self._least(place) for place in places]) > room:
            highest = max(self._columns[place].rank for place in places)
            if highest == KEPT:
                break
            places = [place for place in places if self._columns[place].rank < highest]
        return places

    def _widths(self, places: Sequence[int], room: int) -> list[int]:
        """Return the columns' widths: words give way, the widest first, as far as they may."""
        widths = [self._natural(place) for place in places]
        leasts = [self._least(place) for place in places]
        while _together(widths) > room and widths != leasts:
            spare = [width if width > least else 0 for width, least in zip(widths, leasts, strict=True)]
            widths[spare.index(max(spare))] -= 1
        return widths

    def _natural(self, place: int) -> int:
        texts = [*self._columns[place].heading.split("\n"), *(cells[place] for cells, _, _ in self._rows)]
        return max(map(cell_len, texts))

    def _least(self, place: int) -> int:
        natural, words = self._natural(place), self._columns[place].words
        return min(natural, words) if words else natural


def say_left_out(console: Console, names: Sequence[str]) -> None:
    """Say which columns found no room, each once."""
    if names:
        said = ", ".join(dict.fromkeys(names))
        console.print(
            f"Left out at {console.width} columns: {said}. A wider terminal, or --json, shows all.",
            style="dim",
            markup=False,
            soft_wrap=True,
        )


def _together(widths: Sequence[int]) -> int:
    """Return the width of a table: beside its columns an edge left and right, a space after each, and one between two."""
    return sum(widths) + 2 * len(widths) + 1
