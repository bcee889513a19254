"""What papers print, from one file of numbers; shown beside own numbers, marked, and never mixed into them."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("published.csv")
SOURCES = {
    "LDSB": "Qiu et al. 2025, arXiv 2502.19754v2",
    "DDIM": "Song, Meng and Ermon 2021",
}


@dataclass(frozen=True)
class Published:
    """One printed number.

    Attributes:
        paper: a key of `SOURCES`.
        table: where in it.
        data: the data set, as printed.
        family: of the denoiser: DDIM or flow.
        row: which method.
        nfe: network calls a sample.
        t: the node, of a thousand; None where the number belongs to no node.
        quantity: FID, reduction (in per cent), a and b of a path, MB.
        text: as printed.
    """

    paper: str
    table: str
    data: str
    family: str
    row: str
    nfe: int
    t: int | None
    quantity: str
    text: str

    @property
    def value(self) -> float:
        """The number."""
        return float(self.text)


@cache
def published(paper: str, table: str) -> tuple[Published, ...]:
    """The numbers of one table, in the order printed."""
    return tuple(item for item in _all() if (item.paper, item.table) == (paper, table))


@cache
def _all() -> tuple[Published, ...]:
    with _FILE.open(encoding="utf-8", newline="") as lines:
        return tuple(
            Published(
                row["paper"], row["table"], row["data"], row["family"], row["row"], int(row["nfe"]),
                int(row["t"]) if row["t"] else None, row["quantity"], row["value"],
            )
            for row in csv.DictReader(lines)
        )  # fmt: skip
