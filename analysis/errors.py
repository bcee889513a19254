"""The one error that a user of `analysis` can cause, and errors of others in one line."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """The folder, its study.json or a name that was asked for cannot be used; the message is one line for the user."""


def one_line(error: BaseException) -> str:
    """The first line of an error's message, its type where it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """What to say to a name that does not exist: the nearest ones, or all where none is near."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    near = near or [other for other in names if name.lower() in other.lower()][:3]
    if near:
        return InputError(f"no {kind} is called {name!r}; nearest: {', '.join(near)}")
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return InputError(f"no {kind} is called {name!r}; there are: {shown or 'none'}")
