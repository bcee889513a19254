"""Named tables of the papers, by the name that `python -m analysis table --preset` takes."""

from collections.abc import Callable, Sequence

from analysis import presets_asbm, presets_ldsb
from analysis.results import Results
from analysis.tables import Table

PRESETS: dict[str, Callable[[Sequence[Results]], list[Table]]] = {**presets_ldsb.MAKERS, **presets_asbm.MAKERS}
