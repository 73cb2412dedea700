"""`sst2-ray power`: how many seeds and sentences a difference takes, from the variance of the table's own runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sst2_ray import formatting
from sst2_ray.config.fields import AtLeastOne, Positive, RunName
from sst2_ray.config.flags import parse
from sst2_ray.errors import InputError
from sst2_ray.results.analysis import evidence, wording
from sst2_ray.results.analysis.ranking import Configuration, model_label, rank
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics import crossed, power
from sst2_ray.statistics.crossed import Estimate
from sst2_ray.tables import Column, Tabular
from sst2_ray.terminal import busy, console

SEEDS = (2, 3, 5, 10, 20)
SENTENCES = (872, 1821, 5000, 20_000)
"""SST-2's dev and test splits, and more."""
_ASSUMED = (
    "an assumed variance: two models of 94 % accuracy that disagree on 5.5 % of the sentences, their seeds on 3 %"
)
_NO_SEEDS = "no number of seeds is enough: it takes more sentences"


@dataclass(frozen=True, kw_only=True)
class PowerConfig:
    """Say how many seeds and sentences it takes to show a difference in four of five studies."""

    difference: Positive[float] = 0.5
    """Difference in accuracy, points."""
    storage_path: str = "runs"
    """Folder or URI whose subfolder `results` holds runs to take the variance from."""
    experiment: RunName | None = None
    """Only this run or sweep; None: all of them."""
    sentences: AtLeastOne | None = None
    """Sentences of the evaluation data; None: those of the table, else SST-2's 872."""
    json: bool = False
    """Print JSON."""


def variance_of(config: PowerConfig) -> tuple[Estimate, str]:
    """Return the variance components of a difference, and where they come from.

    From the two best configurations of different models with several seeds and stored answers, else of one model; else,
    and where no answer of theirs differs from another, assumed.
    """
    table = ResultsTable(config.storage_path)
    if table.exists():
        trials = table.read("trials", experiment=config.experiment, attempts="latest")
        for group in rank(trials):
            found = evidence.load(table, group.configurations, "dev")
            pair = _pair(found, group.configurations)
            samples = [found.sample(c) for c in pair]
            if len(pair) == 2 and samples[0] and samples[1] and samples[0].is_on_sentences_of(samples[1]):
                variances = found.variance(pair[0]), found.variance(pair[1])
                estimate = crossed.compare(samples[0].correct, samples[1].correct, seed_variance=variances)
                names = " and ".join(c.label for c in pair)
                if power.knows_noise(estimate):
                    return estimate, f"the variance of {names} in {table.location}"
                return power.typical_difference(of_models=True), f"{_ASSUMED} ({names} answer all alike)"
    if config.experiment is not None:
        raise InputError(
            f"--experiment {config.experiment}: no two configurations with several seeds and stored sentences"
        )
    return power.typical_difference(of_models=True), _ASSUMED


def _pair(found: evidence.Evidence, configurations: Sequence[Configuration]) -> list[Configuration]:
    """Return the two best with a variance, of different models if there are."""
    several = [c for c in configurations if found.sample(c) is not None and found.variance(c) is not None]
    best: dict[str, Configuration] = {}
    for c in several:
        best.setdefault(model_label(c.setting), c)
    return list(best.values())[:2] if len(best) > 1 else several[:2]


@dataclass(frozen=True, kw_only=True, repr=False)
class PowerResult(Tabular):
    """Seeds and sentences that a difference takes, and the smallest difference that designs show in four of five studies."""

    difference: float
    """Points of accuracy."""
    source: str
    """Origin of the variance, in words."""
    estimate: Estimate
    """Variance components."""
    num_sentences: int

    @property
    def num_seeds_needed(self) -> int | None:
        """Seeds of each on `num_sentences`; None: no number of seeds shows the difference."""
        planned = functools.partial(power.planned_difference, self.estimate, num_sentences=self.num_sentences)
        return power.smallest(planned, self.difference / 100)

    @property
    def num_sentences_needed(self) -> dict[int, int | None]:
        """Sentences by number of seeds; None: no number of sentences shows the difference."""
        return {
            n: power.smallest(functools.partial(power.planned_difference, self.estimate, n), self.difference / 100)
            for n in SEEDS
        }

    @property
    def smallest_difference(self) -> dict[int, dict[int, float]]:
        """Points of accuracy by number of seeds and of sentences."""
        sentences = sorted({self.num_sentences, *SENTENCES})
        return {n: {s: 100 * power.planned_difference(self.estimate, n, s) for s in sentences} for n in SEEDS}

    def table(self) -> tuple[Sequence[Column], Sequence[Sequence[str]]]:
        """Return a row for each number of seeds."""
        shown, takes = self.smallest_difference, self.num_sentences_needed
        heads = [
            "seeds of each",
            *(f"{s:,} sentences" for s in shown[SEEDS[0]]),
            f"sentences for {self.difference:g} points",
        ]
        rows = []
        for n in SEEDS:
            needed = takes[n]
            last = f"{needed:,}" if needed else "more seeds"
            rows.append((str(n), *(f"{value:.2f}" for value in shown[n].values()), last))
        # What is planned for comes last and stays; of the sentences, the most are left out first.
        return [Column(title=h, min_width=10, rank=int(1 < i < len(heads) - 1)) for i, h in enumerate(heads)], rows

    def notes(self) -> Sequence[str]:
        """Return what the table shows, what the difference takes, and what the variance consists of."""
        seeds = self.num_seeds_needed
        size, on = f"{self.difference:g} points", f"on {self.num_sentences:,} sentences"
        if seeds:
            takes = f"{size} {on} take {formatting.count(seeds, 'seed of each', 'seeds of each')}"
        else:
            too_few = [n for n, needed in self.num_sentences_needed.items() if needed is None]
            both = f", and more than {too_few[-1]} seeds of each" if too_few else ""
            takes = f"For {size} {on} {_NO_SEEDS}{both}"
        return [
            f"Differences in points of accuracy that are shown in four of five studies, from {self.source}.",
            f"{takes}.",
            wording.variance_split(self.estimate),
        ]

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values, as `--json` prints it."""
        return {
            "difference": self.difference,
            "source": self.source,
            "num_sentences": self.num_sentences,
            "num_seeds_needed": self.num_seeds_needed,
            "num_sentences_needed": {str(n): needed for n, needed in self.num_sentences_needed.items()},
            "variance_shares": dict(
                zip(("sentences", "seeds", "both"), power.variance_shares(self.estimate), strict=True)
            ),
            "smallest_difference": {
                str(n): {str(s): v for s, v in row.items()} for n, row in self.smallest_difference.items()
            },
        }


def planned(config: PowerConfig) -> PowerResult:
    """Compute what a difference takes. Raises InputError."""
    estimate, source = variance_of(config)
    num = config.sentences or estimate.num_sentences
    return PowerResult(difference=config.difference, source=source, estimate=estimate, num_sentences=num)


def main(argv: list[str]) -> int:
    """Run `sst2-ray power`."""
    config = parse(PowerConfig, argv, prog="sst2-ray power")
    with busy(f"reading {config.storage_path}"):
        found = planned(config)
    if config.json:
        print(json.dumps(found.to_dict(), indent=1))
    else:
        found.show(console())
    return 0
