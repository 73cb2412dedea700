"""The plan of a sweep, in numbers, before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from sst2_ray import formatting
from sst2_ray.config.sweep import AXES, DEFAULT_SELECTION_FRACTION, SweepConfig
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import RunInputs
from sst2_ray.statistics import power
from sst2_ray.storage import address
from sst2_ray.sweep.budget import Durations, budget_of, makespan
from sst2_ray.sweep.concurrency import Concurrency, Footprint, footprint
from sst2_ray.sweep.configurations import (
    TrialSpec,
    configuration_name,
    most_configurations,
    planned_configurations,
    trials_of,
)
from sst2_ray.sweep.queue import Outcome, most_trials
from sst2_ray.sweep.resume import durations_of
from sst2_ray.training.step_counts import total_steps


def expected_trials(config: SweepConfig) -> list[TrialSpec]:
    """List the trials of the whole sweep, at most; random draws stand in for those of a search that learns."""
    trials = [trials_of(config, one) for one in planned_configurations(config)]
    first = [of_one[0] for of_one in trials]
    num_others = most_trials(config, len(first)) - len(first)
    others = [of_one[seed] for seed in range(1, config.num_seeds) for of_one in trials]
    return first + others[:num_others]


@dataclass(frozen=True, kw_only=True)
class Left:
    """The trials that an earlier session of a sweep left to run: all of them for a new one."""

    trials: list[TrialSpec]
    """At most; random draws stand in for those of a search that learns."""
    num_trials: int
    """Of the whole sweep."""
    num_over: int
    has_begun: bool

    def words(self) -> str:
        """Say how far the sweep is; empty for one that has not begun."""
        if not self.has_begun:
            return ""
        said = f"{self.num_over} of {formatting.count(self.num_trials, 'trial')} are over, and stay as they are"
        return f"goes on: {said}" if self.trials else f"nothing is left to run: {said}"


def trials_left(config: SweepConfig, past: Mapping[str, Outcome], num_trials: int | None) -> Left:
    """Take away what is over.

    Args:
        config: of the sweep.
        past: outcomes of the trials that have begun, by trial id.
        num_trials: of the whole sweep, as its earlier session knew it; None: the most there can be.
    """
    trials = expected_trials(config)
    num_trials = num_trials or len(trials)
    over = {trial_id for trial_id, outcome in past.items() if outcome.is_over}
    others = [trial for trial in trials if trial.trial_id not in over]
    return Left(
        trials=others[: max(0, num_trials - len(over))],
        num_trials=num_trials,
        num_over=len(over),
        has_begun=bool(past),
    )


def describe_sweep(
    config: SweepConfig,
    prepared: dict[str, RunInputs],
    table: ResultsTable,
    placement: Placement,
    at_once: Concurrency,
    left: Left,
    others: Sequence[str] = (),
) -> list[tuple[str, str]]:
    """Return the rows of the plan: trials, what each needs, how many at once, how long, how much money and storage."""
    trials = expected_trials(config)
    first = next(iter(prepared.values()))
    num_rows = len(first.tokens["train"])
    prints = {model: footprint(one, table, num_workers=placement.num_workers) for model, one in prepared.items()}
    durations = durations_of(table, num_rows, {}, use_gpu=placement.use_gpu)
    steps = sum(total_steps(trial.config, num_rows) for trial in trials)
    num_dev = len(first.tokens["dev"])
    num_held_out = len(first.tokens["selection"]) if "selection" in first.tokens else None
    splits = first.splits
    return [
        ("sweep", f"{config.name}: {_trials_words(config, len(trials))}"),
        ("axes", _axes_words(config)),
        (
            "data",
            f"{splits.source}: {num_rows:,} train rows, {num_dev:,} {splits.eval_split}"
            f"{_choice_words(config, num_dev, num_held_out)}",
        ),
        ("can show", _power_words(config, num_dev, num_held_out or num_dev)),
        ("steps", f"{'at most ' if config.scheduler != 'none' else ''}{steps:,} in all"),
        ("a trial", _trial_words(config, placement, prints)),
        ("at once", str(at_once) + (f"; the rest is held by {', '.join(others)}" if others else "")),
        *(_time_rows(config, left.trials, durations, at_once) if left.trials else ()),
        ("storage", _storage_words(config, trials, prints, at_once)),
    ]


def _choice_words(config: SweepConfig, num_dev: int, num_held_out: int | None) -> str:
    """Say what configurations are chosen on; on dev, what that costs."""
    if num_held_out is not None:
        return f", {num_held_out:,} held out of train to choose by; dev is scored once, for the chosen"
    number = most_configurations(config)
    if number < 2:
        return ""
    typical = power.typical_difference(of_models=len(config.models) > 1)
    bias = power.bias_of_best(typical, number, config.num_seeds, num_dev)
    return (
        f"; chosen on these as well: the best of {number} may look {formatting.plain_points(bias, 1)} points better than it "
        f"is (--selection-fraction {DEFAULT_SELECTION_FRACTION:g} avoids that)"
    )


def _power_words(config: SweepConfig, num_dev: int, num_chosen_on: int) -> str:
    """Say the smallest differences that the sweep's verdicts can show, from typical noise of seeds and sentences."""

    def smallest(*, of_models: bool, num_sentences: int) -> str:
        typical = power.typical_difference(of_models=of_models)
        shown = power.planned_difference(typical, config.num_seeds, num_sentences)
        return f"{formatting.plain_points(shown, 1)} points ({formatting.count(num_sentences, 'sentence')})"

    kinds = []
    if len(config.models) > 1:
        kinds.append(f"between models from {smallest(of_models=True, num_sentences=num_dev)}")
    if most_configurations(config) > len(config.models):
        kinds.append(f"between configurations of a model from {smallest(of_models=False, num_sentences=num_chosen_on)}")
    if not kinds:
        return "no difference: it has one configuration"
    seeds = formatting.count(config.num_seeds, "seed")
    what, share = ("models", "5.5") if len(config.models) > 1 else ("configurations", "3.5")
    typical = f", if noise is typical: 94 % accuracy, {what} that disagree on {share} % of the sentences"
    typical += f" ({what} that disagree more need more)"
    return f"differences {', '.join(kinds)}, in four of five such sweeps, {seeds} each{typical}"


def _trials_words(config: SweepConfig, num_trials: int) -> str:
    configurations = formatting.count(most_configurations(config), "configuration")
    seeds = formatting.count(config.num_seeds, "seed")
    how = {
        "grid": f"{configurations}, every combination",
        "random": f"{configurations}, drawn at random",
        "optuna": f"{configurations}, suggested by Optuna's TPE",
    }[config.search]
    if config.scheduler == "none":
        return f"{how}, under {seeds}: {formatting.count(num_trials, 'trial')}"
    name = {"asha": f"ASHA (1 in {config.reduction_factor} goes on)", "median": "median stopping"}[config.scheduler]
    return f"{how}; {name} decides on the first seed, survivors run {seeds}: at most {formatting.count(num_trials, 'trial')}"


def _axes_words(config: SweepConfig) -> str:
    said = []
    for axis in AXES:
        values = config.values(axis)
        shown = [formatting.learning_rate(v) if isinstance(v, float) else str(v) for v in values]
        said.append(f"{axis.replace('_', ' ')} {' '.join(shown)}")
    return "; ".join(said)


def _trial_words(config: SweepConfig, placement: Placement, prints: Mapping[str, Footprint]) -> str:
    engine = "DeepSpeed ZeRO-2" if config.base.engine == "zero2" else "plain torch"
    said = f"{placement}, {engine}; its driver holds no core"
    if placement.use_gpu:
        return said
    memory = ", ".join(
        f"{model} about {p.memory_gib:.1f} GiB ({'measured' if p.measured else 'computed'})"
        for model, p in prints.items()
    )
    return f"{said}; a worker of {memory}"


def _time_rows(
    config: SweepConfig, trials: Sequence[TrialSpec], durations: Durations, at_once: Concurrency
) -> list[tuple[str, str]]:
    budget = budget_of(config, num_nodes=at_once.num_nodes)
    expected = [durations.predict(trial.config) for trial in trials]
    unknown = sorted({trial.config.model for trial, seconds in zip(trials, expected, strict=True) if seconds is None})
    if unknown:
        time_words = f"not known: no comparable run of {formatting.join(unknown)} in this results table yet; known after its first trial"
        cost = None
    else:
        seconds = makespan([s for s in expected if s is not None], at_once.chosen)
        at_most = "at most " if config.scheduler != "none" else ""
        time_words = f"{at_most}{formatting.duration(seconds)}, from earlier runs in this results table"
        cost = budget.cost(seconds)
    rows = [("time", time_words)]
    if cost is not None:
        nodes = formatting.count(at_once.num_nodes, "node")
        rows.append(
            ("cost", f"{formatting.dollars(cost)}: {nodes} at {formatting.dollars(config.base.price_per_hour)} an hour")
        )
    elif config.base.price_per_hour is not None:
        rate = config.base.price_per_hour * at_once.num_nodes
        rows.append(("cost", f"{formatting.dollars(rate)} an hour ({formatting.count(at_once.num_nodes, 'node')})"))
    if budget.limit_s is not None:
        rows.append(("budget", f"no trial starts that would end after {formatting.duration(budget.limit_s)}"))
    return rows


def _storage_words(
    config: SweepConfig, trials: Sequence[TrialSpec], prints: Mapping[str, Footprint], at_once: Concurrency
) -> str:
    checkpoints = (config.base.keep_checkpoints + 2) * max(p.checkpoint_gib for p in prints.values()) * at_once.chosen
    exports = sum(prints[trial.config.model].export_gib for trial in trials)
    if config.held_out_fraction > 0:
        exports *= 2  # the last weights as well, until dev has been scored
    kept = config.keep_models * max(p.export_gib for p in prints.values())
    return (
        f"{address(config.base.storage_path, config.name)}: up to {_size(checkpoints + exports)} while it runs "
        f"({_size(checkpoints)} of checkpoints, the rest exported models), {_size(kept)} when it has ended"
    )


def _size(gib: float) -> str:
    return formatting.size(gib * 2**30)


def trials_table(config: SweepConfig) -> Table:
    """Make the table of every configuration with its seeds, in the order in which they start."""
    table = Table(title="configurations, in their order", title_justify="left")
    for column in ("#", "configuration", "seeds"):
        table.add_column(column, justify="right" if column == "#" else "left", no_wrap=True)
    if config.search == "optuna":
        table.add_row("", "suggested one by one", " ".join(map(str, config.seeds)))
        return table
    for number, configuration in enumerate(planned_configurations(config), start=1):
        table.add_row(str(number), configuration_name(config, configuration), " ".join(map(str, config.seeds)))
    return table
