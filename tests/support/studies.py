"""Studies in a results table, made of how many sentences every run got wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sst2_ray.results.analysis.comparison import MARGIN
from sst2_ray.results.analysis.findings import Study, studies
from sst2_ray.results.store.table import ResultsTable
from tests.support.records import epoch, prediction, trial

NUM_SENTENCES = 400
STEP = 100


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A configuration whose runs, under seeds 0, 1, ..., get so many of 400 sentences wrong."""

    model: str
    wrong: Sequence[int] | None
    """On dev; None: not scored there."""
    held_out: Sequence[int] | None = None
    """On a held-out part of train, of as many sentences; None: none was held out."""
    apart: int = 7
    """Distance, in sentences, from where one seed begins to be wrong to where the next does."""
    begin: int = 0
    """The first sentence that seed 0 gets wrong."""
    stored: bool = True
    """True if the predictions were stored."""
    evaluations: bool = True
    """True if the evaluations on the way were stored."""
    learning_rate: float = 8e-5
    status: str = "succeeded"
    values: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of `trials`."""

    @property
    def name(self) -> str:
        """Id of the configuration."""
        return f"{self.model}-{self.learning_rate:g}"

    @property
    def seeds(self) -> range:
        """Seeds that it ran under."""
        return range(len(self.wrong or self.held_out or ()))


def write(table: ResultsTable, *tried: Tried, margin: float = MARGIN) -> list[Study]:
    """Write configurations to a table and return its studies."""
    for one in tried:
        for seed in one.seeds:
            _write_run(table, one, seed)
    return studies(table, table.read("trials", attempts="latest"), margin=margin)


def _write_run(table: ResultsTable, one: Tried, seed: int) -> None:
    run = f"{one.name}-{one.values.get('seed', seed)}"
    values: dict[str, Any] = {
        "model": one.model, "model_kind": "modernbert" if one.model.startswith("modernbert") else "sbert", "seed": seed,
        "learning_rate": one.learning_rate, "batch_size": 32, "best_global_step": STEP, "eval_split": "reviews dev",
        "configuration_id": one.name, "status": one.status, **one.values,
    }  # fmt: skip
    splits = {}
    if one.held_out is not None and one.status == "succeeded":
        splits["selection"] = one.held_out[seed]
        values["selection_accuracy"] = 1 - one.held_out[seed] / NUM_SENTENCES
    if one.wrong is not None and one.status == "succeeded":
        splits["dev"] = one.wrong[seed]
        values |= dict.fromkeys(("best_dev_accuracy", "last_dev_accuracy"), 1 - one.wrong[seed] / NUM_SENTENCES)
    for split, num_wrong in splits.items():
        accuracy = 1 - num_wrong / NUM_SENTENCES
        if one.evaluations:
            table.write("epochs", [epoch(STEP, run, split=split, dev_accuracy=accuracy, seconds=60.0)])
        if one.stored:
            table.write("predictions", _answers(one, seed, run, split, num_wrong))
    table.write("trials", [trial(run, **values)])


def _answers(one: Tried, seed: int, run: str, split: str, num_wrong: int) -> list[Any]:
    """Labels alternate; the wrong answers lie side by side, from a sentence on that moves with the seed."""
    found = []
    for row in range(NUM_SENTENCES):
        wrong = (row - one.begin - one.apart * seed) % NUM_SENTENCES < num_wrong
        label = row % 2
        found.append(prediction(row, run, split=split, global_step=STEP, label=label, predicted=abs(label - wrong)))
    return found
