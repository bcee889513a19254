"""Which settings, and in which of their places, belong to a factor or to the grid of crossed factors."""

from collections.abc import Sequence

from analysis import formats
from analysis.design import Design, Setting


def of_factor(design: Design, settings: Sequence[Setting], path: str) -> list[Setting]:
    """The levels of one factor, all others at the centre, in the order of the design; one a level."""
    found = [
        place for setting in settings if setting.arm is None for place in setting.places()
        if place.changed <= {path} and place.level(path) is not None
    ]  # fmt: skip
    if design.cells:
        first: dict[str, Setting] = {}
        for place in sorted(found, key=lambda place: len(place.changed)):
            first.setdefault(formats.level(place.level(path)), place)
        found = list(first.values())
        if len({place.digest for place in found}) < 2:
            return []  # the factor does nothing there
    factor = design.factor(path)
    values = [formats.level(value) for value in factor.values] if factor else []
    return sorted(found, key=lambda setting: _index(values, formats.level(setting.level(path))))


def of_grid(design: Design, settings: Sequence[Setting]) -> list[Setting]:
    """The cells of the grid in which two or three factors are crossed."""
    if len(design.grid) not in (2, 3):
        return []
    found = [
        place for setting in settings if setting.arm is None for place in setting.places()
        if all(place.level(path) is not None for path in design.grid)
    ]
    grid = set(design.grid)
    if design.cells:
        # A cell of the grid may bring other levels with it; of those with the same crossed levels the nearest is it.
        first: dict[tuple[str, ...], Setting] = {}
        for place in sorted(found, key=lambda place: (len(place.changed - grid), place.place[1])):
            first.setdefault(crossed(design, place), place)
        found = sorted(first.values(), key=lambda place: place.place[1])
    else:
        found = [setting for setting in found if setting.changed <= grid]
    # With one level of any factor it is the table of the others over again.
    whole = all(len({formats.level(setting.level(path)) for setting in found}) > 1 for path in design.grid)
    return found if whole else []


def crossed(design: Design, setting: Setting) -> tuple[str, ...]:
    """A cell's levels of the crossed factors, for people."""
    return tuple(formats.level(setting.level(path)) for path in design.grid)


def shared(design: Design, cells: Sequence[Setting]) -> str:
    """That several cells hold the same runs, in a sentence; nothing where none do."""
    again = len(cells) - len({cell.digest for cell in cells})
    if not again:
        return ""
    idle = [design.label(path) for path in design.grid if _idle(cells, path)]
    return (
        f"{formats.plural(again, 'cell')} {'shows' if again == 1 else 'show'} the same runs as another: there "
        f"{' and '.join(idle) or 'a factor'} {'does' if len(idle) < 2 else 'do'} nothing."
    )


def _idle(cells: Sequence[Setting], path: str) -> bool:
    levels: dict[str, set[str]] = {}
    for cell in cells:
        levels.setdefault(cell.digest, set()).add(formats.level(cell.level(path)))
    return any(len(held) > 1 for held in levels.values())


def by_level(design: Design, settings: Sequence[Setting], path: str) -> list[Setting]:
    """Settings in the order of one factor's levels."""
    factor = design.factor(path)
    levels = factor.values if factor else ()
    order = {formats.level(value): rank for rank, value in enumerate(levels)}
    return sorted(settings, key=lambda setting: order.get(formats.level(setting.level(path)), len(order)))


def _index(values: Sequence[str], value: str) -> tuple[int, str]:
    return (values.index(value) if value in values else len(values), value)
