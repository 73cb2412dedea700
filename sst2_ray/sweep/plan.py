"""What a sweep will do, in numbers, before it starts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.table import Table

from sst2_ray import formatting
from sst2_ray.config.sweep import AXES, SweepConfig
from sst2_ray.config.train import config_from_dict
from sst2_ray.errors import InputError
from sst2_ray.records import Status
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import Prepared
from sst2_ray.storage import address
from sst2_ray.sweep.budget import Durations, budget_of, makespan
from sst2_ray.sweep.concurrency import Concurrency
from sst2_ray.sweep.configurations import Unit, planned_points, random_point, units_of
from sst2_ray.sweep.data import Footprint, footprint
from sst2_ray.sweep.queue import most_trials
from sst2_ray.training.step_counts import total_steps


def history(table: ResultsTable, num_train_rows: int, *, use_gpu: bool) -> Durations:
    """What runs of any name in this table took, on the same kind of device, an example."""
    durations = Durations(num_train_rows)
    columns = ["config_json", "seconds", "status", "attempt", "device", "num_train_rows"]
    for row in table.read("trials", columns=columns, attempts="latest").to_pylist():
        finished = row["status"] == Status.SUCCEEDED and row["attempt"] == 0 and row["seconds"] and row["config_json"]
        if finished and row["device"] == ("cuda" if use_gpu else "cpu") and row["num_train_rows"]:
            try:
                config = config_from_dict(json.loads(row["config_json"]))
            except InputError:
                continue  # of another version
            durations.add_earlier(config, row["seconds"], row["num_train_rows"])
    return durations


def expected_units(config: SweepConfig) -> list[Unit]:
    """The trials of the whole sweep, at most; those of a search that learns are stood in for by random ones."""
    points = (
        [random_point(config, i) for i in range(config.sample_count)]
        if config.search == "optuna"
        else planned_points(config)
    )
    units = [units_of(config, point) for point in points]
    if config.scheduler == "none":
        return [of_point[seed] for seed in range(config.num_seeds) for of_point in units]
    first = [of_point[0] for of_point in units]
    num_others = most_trials(config, len(first)) - len(first)
    others = [of_point[seed] for seed in range(1, config.num_seeds) for of_point in units]
    return first + others[:num_others]


def describe_sweep(
    config: SweepConfig,
    prepared: dict[str, Prepared],
    table: ResultsTable,
    placement: Placement,
    at_once: Concurrency,
    others: Sequence[str] = (),
) -> list[tuple[str, str]]:
    """Rows of the plan: trials, what each needs, how many at once, how long, how much money and storage."""
    units = expected_units(config)
    first = next(iter(prepared.values()))
    num_rows = len(first.tokens["train"])
    prints = {model: footprint(one, table, num_workers=placement.num_workers) for model, one in prepared.items()}
    durations = history(table, num_rows, use_gpu=placement.use_gpu)
    steps = sum(total_steps(unit.config, num_rows) for unit in units)
    held_out = (
        f", {len(first.tokens['selection']):,} held out of train to choose by; dev is scored once, for the chosen"
        if "selection" in first.tokens
        else ""
    )
    splits = first.checked.splits
    return [
        ("sweep", f"{config.name}: {_trials_words(config, len(units))}"),
        ("axes", _axes_words(config)),
        (
            "data",
            f"{splits.source}: {num_rows:,} train rows, {len(first.tokens['dev']):,} {splits.eval_split}{held_out}",
        ),
        ("steps", f"{'at most ' if config.scheduler != 'none' else ''}{steps:,} in all"),
        ("a trial", _trial_words(config, placement, prints)),
        ("at once", str(at_once) + (f"; the rest is held by {', '.join(others)}" if others else "")),
        *_time_rows(config, units, durations, at_once),
        ("storage", _storage_words(config, units, prints, at_once)),
    ]


def _trials_words(config: SweepConfig, num_trials: int) -> str:
    points = config.sample_count if config.search != "grid" else len(planned_points(config))
    seeds = formatting.count(config.num_seeds, "seed")
    how = {
        "grid": f"{formatting.count(points, 'configuration')}, every combination",
        "random": f"{formatting.count(points, 'configuration')}, drawn at random",
        "optuna": f"{formatting.count(points, 'configuration')}, suggested by Optuna's TPE",
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


def _trial_words(config: SweepConfig, placement: Placement, prints: dict[str, Footprint]) -> str:
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
    config: SweepConfig, units: Sequence[Unit], durations: Durations, at_once: Concurrency
) -> list[tuple[str, str]]:
    budget = budget_of(config, num_nodes=at_once.num_nodes)
    expected = [durations.predict(unit.config) for unit in units]
    unknown = sorted({unit.model for unit, seconds in zip(units, expected, strict=True) if seconds is None})
    if unknown:
        time_words = (
            f"not known: no run of {formatting.join(unknown)} in this results table yet; known after its first trial"
        )
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
    config: SweepConfig, units: Sequence[Unit], prints: dict[str, Footprint], at_once: Concurrency
) -> str:
    running = (config.base.keep_checkpoints + 2) * max(p.checkpoint_gib for p in prints.values()) * at_once.chosen
    exports = sum(prints[unit.model].export_gib for unit in units)
    if config.base.selection_fraction > 0:
        exports *= 2  # the last weights as well, until dev has been scored
    kept = config.keep_models * max(p.export_gib for p in prints.values())
    return (
        f"{address(config.base.storage_path, config.name)}: up to {running + exports:.1f} GiB while it runs "
        f"({running:.1f} of checkpoints, the rest exported models), {kept:.1f} GiB when it has ended"
    )


def trials_table(config: SweepConfig) -> Table:
    """Every configuration with its seeds, in the order in which they start."""
    table = Table(title="configurations, in the order in which they start", title_justify="left")
    for column in ("#", "configuration", "seeds"):
        table.add_column(column, justify="right" if column == "#" else "left", no_wrap=True)
    if config.search == "optuna":
        table.add_row("", "suggested one by one", " ".join(map(str, config.seeds)))
        return table
    for number, point in enumerate(planned_points(config), start=1):
        units = units_of(config, point)
        table.add_row(str(number), units[0].configuration, " ".join(str(unit.config.seed) for unit in units))
    return table
