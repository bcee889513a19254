"""What the LDSB paper prints of reductions and sizes, as its tables here need it."""

from dataclasses import dataclass

from analysis.published import published

STEPS = (5, 10, 20)
_DATA = {"CIFAR-10": "cifar10", "CelebA": "celeba", "CelebA-HQ": "celeba_hq"}


@dataclass(frozen=True)
class Row:
    """Reductions of FID in per cent at NFE 5, 10 and 20, for one data set and family of denoisers."""

    dataset: str
    name: str
    family: str
    source: str
    reductions: tuple[float, ...]


def _reductions() -> tuple[Row, ...]:
    printed = [item for table in ("Tab. 4", "Tab. 5") for item in published("LDSB", table)]
    printed = [item for item in printed if item.quantity == "reduction"]
    return tuple(
        Row(_DATA[data], data, family, table, tuple(
            item.value for item in printed if (item.table, item.data, item.family) == (table, data, family)
        ))
        for table, data, family in dict.fromkeys((item.table, item.data, item.family) for item in printed)
    )  # fmt: skip


def _parameterisations() -> str:
    rows: dict[str, list[str]] = {}
    for item in published("LDSB", "Tab. 2"):
        rows.setdefault(item.row, []).append(item.text)
    found = {row: ", ".join(texts) for row, texts in rows.items()}
    return (
        f"Published for CIFAR-10 with DDIM (Tab. 2, FID at NFE 5, 10, 20; one run): original {found['original']}; MLP "
        f"{found['MLP']} (three times the KAN's size, and without a sigmoid); KAN {found['KAN']}."
    )


REDUCTIONS = _reductions()
FILE_SIZES = {item.nfe: f"{item.text} MB" for item in published("LDSB", "Tab. 3")}
"""Tab. 3, by N: what it calls MB is the size in KiB, over 1000, of one network's checkpoint with Adam's moments."""
PARAMETERISATIONS = _parameterisations()


def reductions(family: str, dataset: str) -> list[Row]:
    """The rows for a family of denoisers: the data set's own where the paper has it, else all of the family."""
    rows = [row for row in REDUCTIONS if row.family == family]
    return [row for row in rows if row.dataset == dataset] or rows
