"""Who is held out: the last of each institution, or a share drawn at random, by person where one person is a customer of several."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from federation.errors import DocumentError
from simulations.engines.draws import PARTITION, stream
from simulations.engines.simulation import Partners
from simulations.engines.work import Integers
from simulations.partners.partition import Institutions
from simulations.partners.skew import heldout_count

_HELDOUT, _PEOPLE = 1, 3  # streams beside the partition's own

Flags = NDArray[np.bool_]


def held_out(institutions: Institutions, person: Integers | None, partners: Partners, seed: int) -> list[Flags]:
    """Return by institution which of its rows are held out, bool: `skew.heldout_count` of them.

    At random, a person with several rows is held out with all of them or with none, so that nobody is judged whom another institution
    trained on: such people are drawn first, each with the probability `heldout`, as long as there is room at every institution of theirs;
    the others fill it up. By time no person can be kept together: who is late at one institution may be early at another.

    Parameters
    ----------
    person:
        int64 by row; None where every row is a person.

    Raises
    ------
    DocumentError
        CSL-M229 when nobody of an institution can be held out alone, since all of its customers are elsewhere as well.
    """
    parts = institutions.rows
    room = np.array([heldout_count(len(rows), partners.heldout) for rows in parts], dtype=np.int64)
    if partners.heldout_by == "time":
        return [np.arange(len(rows)) >= len(rows) - count for rows, count in zip(parts, room.tolist(), strict=True)]
    repeated = _repeated(parts, person)
    held = [np.zeros(len(rows), dtype=np.bool_) for rows in parts]
    if person is not None and any(flags.any() for flags in repeated):
        lone = np.array([np.count_nonzero(~flags) for flags in repeated], dtype=np.int64)
        chosen = _people(parts, person, repeated, room, lone, partners.heldout, seed)
        held = [flags & np.isin(person[rows], chosen) for rows, flags in zip(parts, repeated, strict=True)]
    for place, (flags, doubled) in enumerate(zip(held, repeated, strict=True)):
        alone = np.flatnonzero(~doubled)
        left = int(room[place]) - int(np.count_nonzero(flags))
        flags[alone[stream(seed, PARTITION, _HELDOUT, place).permutation(len(alone))[:left]]] = True
        if not flags.any():
            raise DocumentError(
                "CSL-M229",
                f"Nobody can be held out at {institutions.names[place]}: all its customers are elsewhere too, where no more can be.",
                "Lower the overlap, hold out more, take more customers, or hold out by time.",
            )
    return held


def shared_people(parts: Sequence[Integers], person: Integers | None) -> float:
    """Return the share of all people who are customers of two institutions or more."""
    if person is None:
        return 0.0
    _, number = np.unique(np.concatenate([np.unique(person[rows]) for rows in parts]), return_counts=True)
    return float(np.mean(number > 1))


def _repeated(parts: Sequence[Integers], person: Integers | None) -> list[Flags]:
    """Return by institution which rows are of people who have further ones, there or elsewhere."""
    if person is None:
        return [np.zeros(len(rows), dtype=np.bool_) for rows in parts]
    whole = np.concatenate([person[rows] for rows in parts])
    _, codes, number = np.unique(whole, return_inverse=True, return_counts=True)
    return np.split(number[codes] > 1, np.cumsum([len(rows) for rows in parts])[:-1])


def _people(
    parts: Sequence[Integers],
    person: Integers,
    repeated: Sequence[Flags],
    room: Integers,
    lone: Integers,
    share: float,
    seed: int,
) -> Integers:
    """Choose who of those with several rows is held out, int64; first by chance, then whoever fills what lone customers cannot."""
    who = np.concatenate([person[rows[flags]] for rows, flags in zip(parts, repeated, strict=True)])
    where = np.repeat(np.arange(len(parts)), [np.count_nonzero(flags) for flags in repeated])
    order = np.argsort(who, kind="stable")
    names, starts = np.unique(who[order], return_index=True)
    ends, at = [*starts[1:].tolist(), len(who)], where[order].tolist()
    chance = stream(seed, PARTITION, _PEOPLE).random(len(names))
    free, chosen = room.tolist(), []
    short = bool((room > lone).any())  # lone customers may not fill every institution's share
    for one in np.argsort(chance, kind="stable").tolist():
        if chance[one] >= share and not short:
            break
        mine = at[starts[one] : ends[one]]
        if chance[one] >= share and all(free[place] <= lone[place] for place in mine):
            continue
        for place in mine:
            free[place] -= 1
        if min(free[place] for place in mine) >= 0:
            chosen.append(names[one])
            continue
        for place in mine:
            free[place] += 1
    return np.array(chosen, dtype=np.int64)
