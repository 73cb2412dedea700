"""Commands as Python functions of the same name; `train` and `sweep` are defined in their own rooms.

By place a function takes what it is about (two sides, a name, a difference), then the storage; all else by keyword.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from sst2_ray.config.python_calls import takes_out_first, told_in_python
from sst2_ray.tables import Column, html_table
from sst2_ray.terminal import text_console

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import TypedDict, Unpack

    from sst2_ray.manage.stored_run import StoredRun
    from sst2_ray.predict.export import ExportResult, Format
    from sst2_ray.predict.shapes import Prediction
    from sst2_ray.results.compare import CompareResult
    from sst2_ray.results.power import PowerResult

    Location = str | Path

    class PredictOptions(TypedDict, total=False):
        """Options of `predict`."""

        text_column: str | None
        device: str
        precision: str
        batch_tokens: int | None
        backend: str
        variant: str | None


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
        print_table(self.table, out, title=self.location, ranked=self.ranked, limit=50, whole=".table.to_pandas()")
        assert isinstance(out.file, io.StringIO)
        return out.file.getvalue().rstrip()

    def _repr_html_(self) -> str:
        from sst2_ray.results.analysis.leaderboard import to_markdown

        lines = [line for line in to_markdown(self.table).splitlines() if line.startswith("|")]
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return html_table([Column(title=title, align="left") for title in head], rows, caption=self.location)


@told_in_python
def results(
    storage_path: Location = "runs", *, experiment: str | None = None, where: str | None = None, sort: str | None = None
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

    table = open_table(str(storage_path))
    board = leaderboard.load(table, where=where, sort=sort, experiment=experiment)
    return Results(table=board, location=table.location, ranked=sort is None)


@told_in_python
def report(
    storage_path: Location = "runs", *, out: Location = "report", experiment: str | None = None, margin: float | None = None,
) -> str:  # fmt: skip
    """Write the results as one HTML page with figures, as `sst2-ray report` does, and return the page's path.

    Args:
        storage_path: Folder or URI that runs were written to.
        out: Folder or URI of the report; an older report there is replaced.
        experiment: Only this run or sweep.
        margin: Points of accuracy that count as no difference; None: what the sweeps were given, else 0.5.

    Raises InputError if there is nothing to report.
    """
    from sst2_ray.results.commands import open_table
    from sst2_ray.results.report import page

    with warnings.catch_warnings(record=True) as skipped:
        made = page.build(open_table(str(storage_path)), experiment=experiment, margin=margin)
    for notice in skipped:
        warnings.warn_explicit(notice.message, notice.category, notice.filename, notice.lineno)
    return page.write(made, str(out))


@told_in_python
def compare(
    a: Location,
    b: Location,
    storage_path: Location = "runs",
    *,
    other_storage_path: Location | None = None,
    experiment: str | None = None,
    margin: float | None = None,
) -> CompareResult:
    """Say whether the difference of two is real, as `sst2-ray compare` does.

    Args:
        a: A configuration id, a run (SWEEP/TRIAL or its name), a model or a sweep (its best), or a file of predictions.
        b: The other one.
        storage_path: Folder or URI that runs were written to.
        other_storage_path: That of b; None: the same.
        experiment: Only this run or sweep, on both sides.
        margin: Points of accuracy that count as no difference; None: what the sweeps were given, else 0.5.

    Raises InputError if one is not found, or if they cannot be compared.
    """
    from sst2_ray.results.compare import CompareConfig, CompareResult, compared

    other = None if other_storage_path is None else str(other_storage_path)
    config = CompareConfig(
        a=str(a), b=str(b), storage_path=str(storage_path), other_storage_path=other, experiment=experiment, margin=margin
    )  # fmt: skip
    return CompareResult(compared=compared(config))


@told_in_python
def power(
    difference: float = 0.5, storage_path: Location = "runs", *, experiment: str | None = None, sentences: int | None = None,
) -> PowerResult:  # fmt: skip
    """Say how many seeds and sentences a difference takes, as `sst2-ray power` does.

    Args:
        difference: Points of accuracy.
        storage_path: Folder or URI with runs to take the variance from; without any, a typical one is assumed.
        experiment: Only this run or sweep.
        sentences: Sentences of the evaluation data; None: those of the table, else SST-2's 872.
    """
    from sst2_ray.results.power import PowerConfig, planned

    return planned(
        PowerConfig(difference=difference, storage_path=str(storage_path), experiment=experiment, sentences=sentences)
    )


@told_in_python
def runs(storage_path: Location = "runs") -> list[StoredRun]:
    """Read every run and sweep of a storage folder, as `sst2-ray ls` does. Raises InputError if there is none."""
    from sst2_ray.manage.runs import list_runs

    return list_runs(str(storage_path))


@told_in_python
def status(name: str, storage_path: Location = "runs") -> StoredRun:
    """Read one run or sweep and its trials, as `sst2-ray status` does. Raises InputError for an unknown name."""
    from sst2_ray.manage.runs import find_run

    return find_run(str(storage_path), name)


@overload
def predict(  # type: ignore[overload-overlap]
    model_dir: str | Path, texts: str | Mapping[str, str], **options: Unpack[PredictOptions]
) -> Prediction: ...
@overload
def predict(model_dir: str | Path, texts: Sequence[object], **options: Unpack[PredictOptions]) -> list[Prediction]: ...
@overload
def predict(model_dir: str | Path, texts: object, **options: Unpack[PredictOptions]) -> Any: ...
@told_in_python
def predict(
    model_dir: str | Path,
    texts: object,
    *,
    text_column: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_tokens: int | None = None,
    backend: str = "torch",
    variant: str | None = None,
) -> Any:
    """Label sentences with an exported model, as `sst2-ray predict` does.

    Each call loads the model; a `Predictor` keeps it: `Predictor(model_dir).predict(texts)`.

    Args:
        model_dir: Export, or the folder of a run; a path or a URI.
        texts: A sentence; a list or any iterable of sentences; a Series; a DataFrame (pandas, polars), pyarrow Table or
            datasets.Dataset with a column of sentences; several of these by split (a dict or a DatasetDict). For a model of
            pairs a dict of the two texts (under the names of their columns, or text and text_pair), an iterable of such dicts
            or of tuples of two, or a table with both columns.
        text_column: Column with the sentence; None: sentence or text.
        device: auto, cpu or cuda.
        precision: auto, fp32 or bf16.
        batch_tokens: Most padded tokens computed at once; None: chosen for the device.
        backend: torch, onnx or openvino: the format that `export` has written into the model's folder.
        variant: fp32, fp16, int8 or int8-static, of that format; None: fp32, or the one that was kept.

    Returns:
        The same shape: a Prediction for a sentence; a list of Prediction for sentences; for a Series a DataFrame with the
        columns that `--out` adds (of pandas with its index); a table with these columns for a table; a dict of them for
        splits.

    Raises InputError if `model_dir` is no whole, safe export, if an item is no text, or a table has no text column.
    """
    from sst2_ray.predict.predictor import Predictor

    predictor = Predictor(
        model_dir, device=device, precision=precision, batch_tokens=batch_tokens, backend=backend, variant=variant
    )
    return predictor.predict(texts, text_column=text_column)


@told_in_python
def export(
    model_dir: str | Path,
    *,
    to: Format | Sequence[Format] = "onnx",
    fp16: bool = False,
    int8: bool = False,
    calibration_rows: int = 512,
    data: str | None = None,
    prove: bool = False,
    prove_rows: int | None = None,
    keep_best: bool = False,
    max_loss: float = 0.5,
) -> ExportResult:
    """Convert a trained model to ONNX or OpenVINO, as `sst2-ray export` does.

    Args:
        model_dir: Exported model: the folder `model` of a run, or the run's own folder.
        to: onnx, openvino, or both; each gets a folder of its name inside the model's.
        fp16, int8: Also with weights in 16 bits; also in int8, with ranges found at run time and with measured ones.
        calibration_rows: Sentences of train that those ranges are measured on.
        data: Data set with these sentences and those of the proof; None: the one that the model was trained on.
        prove: Label dev and what was held out of train with each, compare with fp32 in torch, measure speed and memory.
        prove_rows: Label so many of these sentences, dev's first; None: all.
        keep_best, max_loss: Then keep the fastest whose accuracy is shown to be less than `max_loss` points below.

    Raises InputError if `model_dir` is no whole, safe export, or a library is not installed.
    """
    from sst2_ray.predict.export import ExportConfig, export_model

    config = ExportConfig(
        model_dir=str(model_dir), to=tuple([to] if isinstance(to, str) else to), fp16=fp16, int8=int8, max_loss=max_loss,
        calibration_rows=calibration_rows, data=data, prove=prove, prove_rows=prove_rows, keep_best=keep_best,
    )  # type: ignore[arg-type]  # fmt: skip
    return export_model(config, text_console(100))


@takes_out_first
@told_in_python
def best(
    storage_path: Location = "runs", *, out: Location, experiment: str | None = None, overwrite: bool = False
) -> str:
    """Copy the best model to the local folder `out`, as `sst2-ray best` does, and return the folder.

    Raises InputError if the folder exists, unless `overwrite` replaces a model in it, or if no trial has its model left.
    """
    from sst2_ray.manage.cleanup import BestConfig, copy_best

    config = BestConfig(storage_path=str(storage_path), out=str(out), experiment=experiment, overwrite=overwrite)
    copy_best(config)
    return config.out


@told_in_python
def stop(name: str, storage_path: Location = "runs") -> None:
    """Ask a run or sweep to stop, as `sst2-ray stop` does. Raises InputError if nothing of it runs."""
    from sst2_ray.manage.runs import request_stop

    request_stop(str(storage_path), name)
