"""What the paper prints (Qiu et al. 2025, arXiv 2502.19754v2); shown beside own numbers, never mixed into them."""

from dataclasses import dataclass

STEPS = (5, 10, 20)


@dataclass(frozen=True)
class Row:
    """Reductions of FID in per cent at NFE 5, 10 and 20, for one data set and family of denoisers."""

    dataset: str
    name: str
    family: str
    source: str
    reductions: tuple[float, ...]


REDUCTIONS = (
    Row("cifar10", "CIFAR-10", "DDIM", "Tab. 4", (39.34, 48.50, 36.16)),
    Row("celeba", "CelebA", "DDIM", "Tab. 4", (34.34, 27.26, 25.58)),
    Row("cifar10", "CIFAR-10", "flow", "Tab. 5", (28.49, 17.15, 28.73)),
    Row("celeba_hq", "CelebA-HQ", "flow", "Tab. 5", (39.13, 36.67, 15.76)),
)
FILE_SIZES = {5: "0.040 MB", 10: "0.057 MB", 20: "0.091 MB"}
"""Tab. 3, by N: what it calls MB is the size in KiB, over 1000, of one network's checkpoint with Adam's moments."""
PARAMETERISATIONS = (
    "Published for CIFAR-10 with DDIM (Tab. 2, FID at NFE 5, 10, 20; one run): original 44.394, 18.678, 11.080; MLP "
    "66.884, 21.854, 15.328 (three times the KAN's size, and without a sigmoid); KAN 26.929, 9.619, 7.073."
)


def reductions(family: str, dataset: str) -> list[Row]:
    """The rows for a family of denoisers: the data set's own where the paper has it, else all of the family."""
    rows = [row for row in REDUCTIONS if row.family == family]
    return [row for row in rows if row.dataset == dataset] or rows
