"""SQL over the trials, run by DuckDB: which runs count, and one row per configuration."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from sst2_ray.errors import FailureClass, InputError
from sst2_ray.records import Status

STATUS_ORDER = (Status.SUCCEEDED, Status.EARLY_STOPPED, Status.STOPPED, Status.FAILED, Status.LOST, Status.RUNNING)

CONFIGURATION = "coalesce(configuration_id, experiment || '/' || trial_id)"
"""Key of a configuration, whose runs differ in their seed only; a run without a configuration id stands for itself."""

_COUNTED = f"""
select *, {CONFIGURATION} as configuration
from trials
where status = 'succeeded'
    and coalesce(selection_accuracy, best_dev_accuracy, last_dev_accuracy, selection_score, best_score) is not null
qualify row_number() over (
    partition by configuration, data_fingerprint, eval_split, coalesce(seed, hash(experiment, trial_id))
    order by written_at desc, experiment
) = 1
"""
"""The runs that count: succeeded, and one per seed of a configuration (the later, when a seed was run twice)."""

_SETTINGS = (
    "model", "model_kind", "random_weights", "data", "learning_rate", "batch_size", "weight_decay", "epochs",
    "warmup_fraction", "engine", "num_dev_rows",
)  # fmt: skip

_LEADERBOARD = f"""
with counted as ({_COUNTED}),
quality as (
    select configuration, data_fingerprint, eval_split,
        count(*) as seeds,
        avg(best_dev_accuracy) as accuracy, stddev_samp(best_dev_accuracy) as accuracy_sd,
        avg(last_dev_accuracy) as last_accuracy, stddev_samp(last_dev_accuracy) as last_accuracy_sd,
        case when count(selection_accuracy) = count(*) then avg(selection_accuracy) end as selection_accuracy,
        case when count(selection_score) = count(*) then avg(selection_score) end as selection_score,
        avg(best_score) as best_score, stddev_samp(best_score) as best_score_sd,
        avg(best_dev_f1) as f1, avg(best_dev_loss) as loss
    from counted group by all
),
everything as (
    select {CONFIGURATION} as configuration, data_fingerprint, eval_split,
        {", ".join(f"any_value({name}) as {name}" for name in _SETTINGS)},
        coalesce(any_value(chosen_by), 'accuracy') as chosen_by,
        avg(examples_per_sec) as examples_per_sec,
        avg(seconds) filter (status = 'succeeded') as seconds,
        sum(cost_usd) as cost_usd,
        {", ".join(f"count(*) filter (status = '{s}') as {s}" for s in (Status.SUCCEEDED, Status.FAILED, Status.RUNNING))},
        count(*) filter (status in ('stopped', 'early_stopped')) as stopped,
        count(*) filter (status = 'lost') as lost,
        count(*) filter (failure_class = '{FailureClass.NON_FINITE}') as diverged,
        case when count(distinct experiment) = 1 then any_value(experiment) end as experiment,
        count(*) as trials
    from trials group by all
)
select e.*, coalesce(q.seeds, 0) as seeds, q.* exclude (configuration, data_fingerprint, eval_split, seeds),
    if(chosen_by = 'accuracy', coalesce(selection_accuracy, accuracy), coalesce(selection_score, best_score)) as score,
    if(if(chosen_by = 'accuracy', selection_accuracy, selection_score) is null, 'dev', 'selection') as scored_on
from everything e left join quality q
    on e.configuration = q.configuration
    and e.data_fingerprint is not distinct from q.data_fingerprint
    and e.eval_split is not distinct from q.eval_split
"""

_RANKED_TOGETHER = ("eval_split", "data_fingerprint", "chosen_by", "scored_on")

_DEFAULT_ORDER = """
eval_split nulls last, data_fingerprint nulls last, chosen_by, scored_on desc, score is null, diverged > 0,
round(if(chosen_by = 'loss', -score, score), 12) desc nulls last, last_accuracy desc nulls last, loss nulls last, configuration
"""

NEEDED = (
    "experiment", "trial_id", "attempt", "status", "written_at", "configuration_id", "data_fingerprint", "eval_split",
    "seed", "failure_class", "best_global_step", "best_dev_accuracy", "last_dev_accuracy", "selection_accuracy", "best_dev_f1",
    "best_dev_loss", "chosen_by", "selection_score", "best_score", "examples_per_sec", "seconds", "cost_usd", *_SETTINGS,
)  # fmt: skip
"""Columns of `trials` that the leaderboard reads."""


def connect(trials: pa.Table) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection with a table `trials`.

    Expressions come from the command line, so the connection can reach neither files nor the network.
    """
    connection = duckdb.connect(config={"enable_external_access": "false", "python_enable_replacements": "false"})
    connection.execute("set lock_configuration = true")
    connection.register("trials", trials)
    return connection


def matching(trials: pa.Table, where: str) -> pa.Table:
    """Select the rows for which an SQL expression over the columns is true. Raises InputError."""
    connection, query = connect(trials), f"select * from trials where ({where})"
    try:
        if len(connection.extract_statements(query)) != 1:
            raise InputError(f"--where {where!r}: one SQL expression, without a semicolon")
        return connection.sql(query).to_arrow_table()
    except duckdb.Error as error:
        raise InputError(f"--where {where!r}: {_explain(error)}") from None


def leaderboard(trials: pa.Table) -> pa.Table:
    """Aggregate the latest attempts of all trials to one row per configuration and evaluation split, best first.

    Columns beyond the aggregates: score (the mean of the metric chosen_by on the held-out part of train when runs chose on it,
    else on dev) and rank (1 for the best score on the same data, those that diverged under a seed last; null when nothing succeeded).

    Args:
        trials: latest attempts, with their totals, with the columns `NEEDED`.
    """
    board = connect(trials).sql(f"select * from ({_LEADERBOARD}) order by {_DEFAULT_ORDER}").to_arrow_table()
    return _with_ranks(board)


def counted_runs(trials: pa.Table) -> pa.Table:
    """Select the runs that count (see `_COUNTED`), with their `configuration`, from the latest attempts of all trials."""
    return connect(trials).sql(f"select * from ({_COUNTED}) order by configuration, seed, trial_id").to_arrow_table()


def _with_ranks(board: pa.Table) -> pa.Table:
    """Add ranks among configurations that may be compared (`_RANKED_TOGETHER`) to a board in the default order."""
    ranks: list[int | None] = []
    group: tuple[object, ...] | None = None
    keys = zip(*(board.column(name).to_pylist() for name in _RANKED_TOGETHER), strict=True)
    rank = 0
    for key, score in zip(keys, board.column("score").to_pylist(), strict=True):
        rank = rank + 1 if key == group else 1
        group = key
        ranks.append(rank if score is not None else None)
    return board.append_column("rank", pa.array(ranks, pa.int64()))


def sort_rows(board: pa.Table, sort: str) -> pa.Table:
    """Sort a leaderboard by an SQL expression over its columns, e.g. ``accuracy desc``. Raises InputError."""
    connection = connect(board)
    try:
        if len(connection.extract_statements(f"select * from trials order by {sort}")) != 1:
            raise InputError(f"--sort {sort!r}: SQL expressions, without a semicolon")
        return connection.sql(f"select * from trials order by {sort}").to_arrow_table()
    except duckdb.Error as error:
        raise InputError(f"--sort {sort!r}: {_explain(error)}") from None


def _explain(error: duckdb.Error) -> str:
    message = " ".join(line.strip() for line in str(error).splitlines() if line.strip() and "^" not in line)
    said = message.split(" LINE ")[0].removesuffix(".")
    return f"{said}; text stands in single quotes: model = 'sbert'" if "Referenced column" in said else said
