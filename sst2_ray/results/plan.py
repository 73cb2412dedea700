"""`sst2-ray power`: how many seeds and sentences a difference takes, from the variance of the table's own runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sst2_ray import formatting
from sst2_ray.config.fields import AtLeastOne, Positive
from sst2_ray.config.flags import parse
from sst2_ray.errors import InputError
from sst2_ray.results.analysis import evidence
from sst2_ray.results.analysis.ranking import Configuration, model_label, rank
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics import crossed, power
from sst2_ray.statistics.crossed import Estimate
from sst2_ray.terminal import Column, console, print_table

SEEDS = (2, 3, 5, 10, 20)
SENTENCES = (872, 1821, 5000, 20_000)
"""SST-2's dev and test splits, and more."""
_NO_SEEDS = "no number of seeds: more sentences are needed"


@dataclass(frozen=True, kw_only=True)
class PowerConfig:
    """Say how many seeds and sentences it takes to show a difference in four of five studies."""

    difference: Positive[float] = 0.5
    """Difference in accuracy, points."""
    storage_path: str = "runs"
    """Folder or URI whose subfolder `results` holds runs to take the variance from."""
    experiment: str | None = None
    """Only this run or sweep; None: all of them."""
    sentences: AtLeastOne | None = None
    """Sentences of the evaluation data; None: those of the table, else SST-2's 872."""
    json: bool = False
    """Print JSON."""


def variance_of(config: PowerConfig) -> tuple[Estimate, str]:
    """Return the variance components of a difference, and where they come from.

    From the two best configurations of different models with several seeds and stored answers, else of one model; else
    assumed.
    """
    table = ResultsTable(config.storage_path)
    if table.exists():
        trials = table.read("trials", experiment=config.experiment, attempts="latest")
        for group in rank(trials):
            found = evidence.load(table, group.configurations, "dev")
            several = [c for c in group.configurations if found.sample(c) is not None and found.variance(c) is not None]
            best: dict[str, Configuration] = {}
            for c in several:
                best.setdefault(model_label(c.setting), c)
            pair = list(best.values())[:2] if len(best) > 1 else several[:2]
            samples = [found.sample(c) for c in pair]
            if len(pair) == 2 and samples[0] and samples[1] and samples[0].is_on_sentences_of(samples[1]):
                variances = found.variance(pair[0]), found.variance(pair[1])
                estimate = crossed.compare(samples[0].correct, samples[1].correct, seed_variance=variances)
                names = " and ".join(c.label for c in pair)
                return estimate, f"the variance of {names} in {table.location}"
    if config.experiment is not None:
        raise InputError(
            f"--experiment {config.experiment}: no two configurations with several seeds and stored sentences"
        )
    return (
        power.typical_difference(of_models=True),
        "an assumed variance: two models of 94 % accuracy that disagree on 5.5 % of the sentences, their seeds on 3 %",
    )


def main(argv: list[str]) -> int:
    """Run `sst2-ray power`."""
    config = parse(PowerConfig, argv, prog="sst2-ray power")
    estimate, source = variance_of(config)
    num = config.sentences or estimate.num_sentences
    difference = config.difference / 100
    columns = sorted({num, *SENTENCES})
    shown = {n: {s: power.planned_difference(estimate, n, s) for s in columns} for n in SEEDS}
    seeds = power.smallest(lambda n: power.planned_difference(estimate, n, num), difference)
    takes = {n: power.smallest(lambda s, n=n: power.planned_difference(estimate, n, s), difference) for n in SEEDS}  # type: ignore[misc]
    if config.json:
        values = {
            "difference": config.difference, "source": source, "num_sentences": num, "num_seeds_needed": seeds,
            "num_sentences_needed": {str(n): v for n, v in takes.items()},
            "smallest_difference": {str(n): {str(s): 100 * v for s, v in row.items()} for n, row in shown.items()},
        }  # fmt: skip
        print(json.dumps(values, indent=1))
        return 0
    out = console()
    heads = ["seeds of each", *(f"{s:,} sentences" for s in columns), f"for {config.difference:g} points"]
    rows = [_row(n, shown[n].values(), takes[n]) for n in SEEDS]
    print_table(out, [Column(title=h) for h in heads], rows)
    out.print(
        f"Differences in points of accuracy that are shown in four of five studies, from {source}.", soft_wrap=True
    )
    found = formatting.count(seeds, "seed of each", "seeds of each") if seeds else _NO_SEEDS
    out.print(f"{config.difference:g} points on {num:,} sentences take {found}.", soft_wrap=True, highlight=False)
    return 0


def _row(num_seeds: int, differences: Iterable[float], num_sentences: int | None) -> tuple[str, ...]:
    needed = formatting.count(num_sentences, "sentence") if num_sentences else "never"
    return (str(num_seeds), *(f"{100 * value:.2f}" for value in differences), needed)
