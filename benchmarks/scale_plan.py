"""What a search at the size of ImageNet would take, by the figures that `benchmarks/scale.py` kept."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from scale_growth import MIB, Row, bytes_per_trial, cpu_of, digits, of_kind, searches, suggestion_law
from tables import table

# The plan: trials and validation images; one row each.
PLANS = ((100, 5_000), (200, 10_000), (500, 10_000), (500, 50_000))
WORKERS = (1, 4, 16, 50)
TRIALS_PER_WORKER = 10  # as docs/distributed_search.md advises
SIGN_OF_LIFE = 60 / 5  # seconds between two of them, with the default worker_timeout
IMAGENET_TRAIN = 1_281_167  # images of ILSVRC 2012
PROMOTED = 3  # default of RatioTuner


@dataclass(frozen=True)
class Basis:
    """What a search at 224 x 224 pixels rests on; times are CPU seconds of all cores.

    Attributes:
        row: the measurement.
    """

    row: Row

    def of_image(self, step: str) -> float:
        """CPU seconds an image."""
        return cpu_of(self.row, step) / float(self.row["images"])

    def trial(self, validation: int) -> float:
        """CPU seconds of a trial on so many validation images."""
        batch_norms = self.row["calibration"] * self.of_image("re_estimating")
        return cpu_of(self.row, "assigning") + batch_norms + validation * self.of_image("evaluating")

    @property
    def cores(self) -> int:
        return int(self.row["processor"].rsplit(",", 1)[1].split()[0])


def suggesting(content: Row, dimensions: int, trials: int) -> float:
    """CPU seconds of all suggestions of a search, by the fitted law.

    Raises:
        ValueError: that many dimensions were not measured, or too briefly.
    """
    rows = [row for row in searches(content) if row["method"] == "ours" and row["dimensions"] == dimensions]
    if not rows:
        raise ValueError(f"Expected a search with {dimensions} dimensions. Received: none.")
    law = suggestion_law(rows[0])
    return sum(law(number) for number in range(1, trials + 1))


def hours(basis: Basis, trials: int, validation: int, workers: int, chief: float) -> float:
    """Hours of a search on workers whose cores do nothing else.

    Trials run in rounds, after the twin was built; the chief's ``chief`` seconds for suggestions come one after the
    other, as if no worker did anything meanwhile.
    """
    rounds = math.ceil(trials / workers)
    return ((rounds * basis.trial(validation) + cpu_of(basis.row, "twin")) / basis.cores + chief) / 3600


def basis_table(content: Row) -> str:
    """The measured figures of the plan."""
    found = [Basis(row) for row in sorted(of_kind(content, "pixels"), key=lambda row: row["depth"])]
    lines = [
        ["groups (dimensions)", *(str(basis.row["groups"]) for basis in found)],
        ["building and tracing the twin, once a worker, s", *(digits(cpu_of(basis.row, "twin")) for basis in found)],
        ["setting a plan, s", *(digits(cpu_of(basis.row, "assigning")) for basis in found)],
        ["re-estimating batch norms, s an image", *(digits(basis.of_image("re_estimating")) for basis in found)],
        ["evaluating, s an image", *(digits(basis.of_image("evaluating")) for basis in found)],
        ["training the slim model, s an image", *(digits(basis.of_image("training")) for basis in found)],
        ["a trial's statistics on disk, KiB", *(f"{basis.row['statistics_bytes'] / 1024:,.0f}" for basis in found)],
        ["whole process with all of this, MiB", *(f"{basis.row['peak_rss'] / MIB:,.0f}" for basis in found)],
    ]
    return table(["CPU seconds, all cores", *(f"ResNet-{basis.row['depth']}" for basis in found)], lines)


def plan_table(content: Row) -> str:
    """Hours for trials, images and workers; the arithmetic stands in the page."""
    lines = []
    for row in sorted(of_kind(content, "pixels"), key=lambda row: row["depth"]):
        basis = Basis(row)
        for trials, validation in PLANS:
            trial = basis.trial(validation)
            try:
                chief = suggesting(content, row["groups"], trials)
            except ValueError:
                chief = None
            shared = [
                "-"
                if workers * TRIALS_PER_WORKER > trials
                else digits(hours(basis, trials, validation, workers, chief or 0.0))
                for workers in WORKERS
            ]
            lines.append(
                [
                    f"ResNet-{row['depth']}, {trials} trials, {validation:,} images", digits(trial),
                    digits(trials * trial / 3600), "-" if chief is None else digits(chief / 3600), *shared,
                    *_moved(content, row, trials, trial / basis.cores, validation),
                ]
            )  # fmt: skip
    header = [
        "search", "a trial, CPU s", "all trials, core-hours", "suggestions, hours",
        *(f"{workers} worker{'s' * (workers > 1)}, hours" for workers in WORKERS),
        "traffic, MB", "folder, MB", "images of a worker, GB",
    ]  # fmt: skip
    return table(header, lines)


def _moved(content: Row, row: Row, trials: int, seconds: float, validation: int) -> list[str]:
    """Megabytes over the wire and on disk, gigabytes of images in a worker's memory (float32)."""
    images = (row["calibration"] + validation) * row["side"] ** 2 * 3 * 4
    kept = f"{trials * row['statistics_bytes'] / 1e6:,.0f}"
    traffic = [own for own in of_kind(content, "traffic") if own["dimensions"] == row["groups"]]
    if not traffic:
        return ["-", kept, f"{images / 1e9:.1f}"]
    alive = statistics.median(traffic[0]["bytes"]["alive"]) * seconds / SIGN_OF_LIFE
    wire = trials * (bytes_per_trial(traffic[0]) + alive)
    return [digits(wire / 1e6), kept, f"{images / 1e9:.1f}"]


def tuning_table(content: Row) -> str:
    """Fine-tuning the best few for an epoch of ImageNet on cores like these."""
    lines = []
    for row in sorted(of_kind(content, "pixels"), key=lambda row: row["depth"]):
        epoch = IMAGENET_TRAIN * Basis(row).of_image("training") / 3600
        most = max(Basis(row).trial(validation) * trials for trials, validation in PLANS) / 3600
        cells = [digits(epoch), digits(PROMOTED * epoch), digits(PROMOTED * epoch / most)]
        lines.append([f"ResNet-{row['depth']}", *cells])
    header = [
        "slim model", "an epoch, core-hours", f"{PROMOTED} plans, one epoch, core-hours", "of the largest search above",
    ]  # fmt: skip
    return table(header, lines)
