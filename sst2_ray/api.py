"""Commands as Python functions of the same name; `train` and `sweep` are defined in their own rooms."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from sst2_ray.config.presets import SWEEP_PRESETS, TRAIN_PRESETS
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.terminal import Column, html_table, text_console

if TYPE_CHECKING:
    import pyarrow as pa

    from sst2_ray.manage.runs import StoredRun
    from sst2_ray.predict.predictor import Prediction


@dataclass(frozen=True, kw_only=True, repr=False)
class Results:
    """The leaderboard of a results table: a row for each configuration, best first."""

    table: pa.Table
    """Every column, accuracies as fractions; `table.to_pandas()` and polars.from_arrow take it."""
    location: str
    ranked: bool

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        from rich.console import Console

        from sst2_ray.results.analysis.leaderboard import print_table

        out = text_console(max(Console().width, 80))
        print_table(self.table, out, title=self.location, ranked=self.ranked, limit=50)
        assert isinstance(out.file, io.StringIO)
        return out.file.getvalue().rstrip()

    def _repr_html_(self) -> str:
        from sst2_ray.results.analysis.leaderboard import to_markdown

        lines = [line for line in to_markdown(self.table).splitlines() if line.startswith("|")]
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return html_table([Column(title=title, align="left") for title in head], rows, caption=self.location)


def results(
    storage_path: str = "runs", *, experiment: str | None = None, where: str | None = None, sort: str | None = None
) -> Results:
    """Rank the configurations of a results table, as `sst2-ray results` does.

    Args:
        storage_path: Folder or URI that runs were written to.
        experiment: Only this run or sweep.
        where: SQL expression over the columns of `trials`, e.g. "batch_size >= 32".
        sort: SQL expression over the columns of the leaderboard, e.g. "examples_per_sec desc"; None: best first.

    Raises InputError if there is no results table.
    """
    from sst2_ray.results.analysis import leaderboard
    from sst2_ray.results.commands import open_table

    table = open_table(storage_path)
    board = leaderboard.load(table, where=where, sort=sort, experiment=experiment)
    return Results(table=board, location=table.location, ranked=sort is None)


def report(storage_path: str = "runs", *, out: str = "report", experiment: str | None = None) -> str:
    """Write the results as one HTML page with figures, as `sst2-ray report` does, and return the page's path.

    Args:
        storage_path: Folder or URI that runs were written to.
        out: Folder or URI of the report; an older report there is replaced.
        experiment: Only this run or sweep.

    Raises InputError if there is nothing to report.
    """
    from sst2_ray.results.commands import open_table
    from sst2_ray.results.report import page

    with warnings.catch_warnings(record=True) as skipped:
        made = page.build(open_table(storage_path), experiment=experiment)
    for notice in skipped:
        warnings.warn_explicit(notice.message, notice.category, notice.filename, notice.lineno)
    return page.write(made, out)


def runs(storage_path: str = "runs") -> list[StoredRun]:
    """Read every run and sweep of a storage folder, as `sst2-ray ls` does. Raises InputError if there is none."""
    from sst2_ray.manage.runs import list_runs

    return list_runs(storage_path)


def status(name: str, storage_path: str = "runs") -> StoredRun:
    """Read one run or sweep and its trials, as `sst2-ray status` does. Raises InputError for an unknown name."""
    from sst2_ray.manage.runs import find_run

    return find_run(storage_path, name)


@dataclass(frozen=True, repr=False)
class Presets:
    """The named experiments: `presets()["paper"]` is a config to train or sweep with."""

    configs: Mapping[str, TrainConfig | SweepConfig]
    summaries: Mapping[str, str]

    def __getitem__(self, name: str) -> TrainConfig | SweepConfig:
        return self.configs[name]

    def __repr__(self) -> str:
        width = max(map(len, self.summaries))
        return "\n".join(f"{name:<{width}}  {summary}" for name, summary in self.summaries.items())

    def _repr_html_(self) -> str:
        columns = [Column(title="preset", align="left"), Column(title="experiment", align="left")]
        return html_table(columns, [[name, summary] for name, summary in self.summaries.items()])


def presets() -> Presets:
    """Return the named experiments that `--preset` takes; those of sweeps begin with `sweep:`."""
    makers: dict[str, Callable[[], TrainConfig | SweepConfig]] = {**TRAIN_PRESETS}
    makers.update({f"sweep:{name}": make for name, make in SWEEP_PRESETS.items()})
    return Presets(
        configs={name: make() for name, make in makers.items()},
        summaries={name: " ".join((make.__doc__ or "").split("\n")[0].split()) for name, make in makers.items()},
    )


@overload
def predict(  # type: ignore[overload-overlap]
    model_dir: str | Path,
    texts: str | Mapping[str, str],
    *,
    device: str = ...,
    precision: str = ...,
    batch_tokens: int | None = ...,
) -> Prediction: ...
@overload
def predict(
    model_dir: str | Path,
    texts: Iterable[object],
    *,
    device: str = ...,
    precision: str = ...,
    batch_tokens: int | None = ...,
) -> list[Prediction]: ...
def predict(
    model_dir: str | Path,
    texts: str | Iterable[object],
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_tokens: int | None = None,
) -> object:
    """Label sentences with an exported model, as `sst2-ray predict` does; a Predictor keeps the model for more calls.

    Args:
        model_dir: Export, or the folder of a run; a path or a URI.
        texts: A sentence, a pandas Series, or any other iterable of sentences (a list, a column of a dataset). For a model
            of pairs a dict of the two texts (under the names of their columns, or text and text_pair), or an iterable of
            such dicts or of tuples of two.
        device: auto, cpu or cuda.
        precision: auto, fp32 or bf16.
        batch_tokens: Most padded tokens computed at once; None: chosen for the device.

    Returns:
        The same shape: a Prediction for a sentence; for a Series a DataFrame with its index and the columns of
        `--out`; else a list of Prediction.

    Raises InputError if `model_dir` is no whole, safe export, or if an item is no text.
    """
    from sst2_ray.data.texts import text_of
    from sst2_ray.predict.predictor import Predictor, added_columns, export_text_columns, predictions_of

    single = isinstance(texts, str | Mapping)
    columns = export_text_columns(str(model_dir))
    rows = [
        text_of(item, columns, f"texts: item {number}")
        for number, item in enumerate([texts] if single else list(texts))
    ]
    predictor = Predictor(model_dir, device=device, precision=precision, batch_tokens=batch_tokens)
    logits = predictor.logits(rows)
    if type(texts).__name__ == "Series":  # pandas is imported already if this is one of its own
        import pandas as pd

        return pd.DataFrame(added_columns(logits, predictor.classes), index=pd.Series(texts).index)
    predictions = predictions_of(rows, logits, predictor.classes)
    return predictions[0] if single else predictions


def best(out: str, storage_path: str = "runs", *, experiment: str | None = None) -> str:
    """Copy the best model to a new local folder, as `sst2-ray best` does, and return the folder.

    Raises InputError if the folder exists, or if no trial has its model left.
    """
    from sst2_ray.manage.cleanup import BestConfig, copy_best

    copy_best(BestConfig(storage_path=storage_path, out=out, experiment=experiment))
    return out


def stop(name: str, storage_path: str = "runs") -> None:
    """Ask a run or sweep to stop, as `sst2-ray stop` does. Raises InputError if nothing of it runs."""
    from sst2_ray.manage.runs import request_stop

    request_stop(storage_path, name)
