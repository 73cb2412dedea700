"""Labelling of folders on a Ray cluster: Ray Data hands parts out to actors, each of which reads, computes and writes them."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sst2_ray.data.options import ReadOptions
from sst2_ray.data.texts import Text, stripped
from sst2_ray.errors import InputError, RunFailedError, Sst2RayError, first_line
from sst2_ray.predict.config import PredictConfig
from sst2_ray.predict.labelling import Labelled, label_file
from sst2_ray.predict.output_folder import OutputFolder
from sst2_ray.predict.parts import (
    FileFacts,
    InputFile,
    Part,
    PartInput,
    PartReader,
    check_file,
    check_together,
    cut,
    find_inputs,
    fingerprint,
)
from sst2_ray.predict.places import placement_of, wait_for_place
from sst2_ray.predict.predictor import export_label_column
from sst2_ray.predict.progress import RowProgress
from sst2_ray.predict.scoring import column_note, refuse_leak, scores_of
from sst2_ray.storage import absolute
from sst2_ray.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

    from sst2_ray.modeling.export.meta import ExportMeta
    from sst2_ray.predict.predictor import Predictor
    from sst2_ray.run.planning.placement import Placement

_MAX_RESTARTS = 10
"""Times that Ray starts a lost actor again before the command fails."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Checked input, and what is left to do of it."""

    schema: pa.Schema
    has_labels: bool
    parts: list[Part]
    todo: list[Part]
    notes: list[str | None]


def label_folder(config: PredictConfig) -> tuple[Labelled, ExportMeta, list[str | None]]:
    """Label every row of the files of a folder on the cluster of RAY_ADDRESS, or on a Ray of this machine's own.

    Parts that the output folder has already are kept: the same command, given again, does what is missing.

    Returns:
        Counts of all rows, the model's facts, and remarks.

    Raises:
        InputError: Something is wrong; nothing was computed.
        InfeasibleError: The cluster can never hold so many workers, or none has found a place in time.
        RunFailedError: A part cannot be written.
        StoppedError: Ctrl-C or SIGTERM; what is finished stays.
    """
    from sst2_ray.run.connect import start_ray, starts_ray_here
    from sst2_ray.run.planning.nodes import cluster_view, this_machine

    assert config.input is not None and config.out is not None
    # Workers run in folders of their own.
    job = dataclasses.replace(config, model_dir=absolute(config.model_dir), out=absolute(config.out))
    files, output = find_inputs(config.input), OutputFolder(absolute(config.out))
    output.check(overwrite=job.overwrite)
    if starts_ray_here():
        placement_of(job, this_machine())
    predictor, model = _checked_model(job)
    ray = start_ray()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    placement = placement_of(job, cluster_view())
    wait_for_place(ray, job, placement)
    options = job.read_options(predictor.text_columns, export_label_column(job.model_dir))
    plan = _plan(job, options, predictor, model, _checked_files(ray, files, options), output)
    scores = scores_of(predictor.classes) if plan.has_labels else None
    total = Labelled(classes=predictor.classes, scores=scores)
    missing = {part.number for part in plan.todo}
    for part in plan.parts:
        if part.number not in missing:
            total.merge(output.counts(part), part.first_row)
    worker = PartLabeller(job, options, plan.parts, plan.schema, plan.has_labels, placement.cpus_per_worker)
    with RowProgress(sum(part.num_rows for part in plan.parts), done=total.num_rows) as progress:
        for number in _labelled(worker, placement, sorted(missing)):
            total.merge(output.counts(plan.parts[number]), plan.parts[number].first_row)
            progress.show(total.num_rows)
    output.finish()
    return total, predictor.meta, plan.notes


def _plan(
    job: PredictConfig,
    options: ReadOptions,
    predictor: Predictor,
    model: str,
    facts: Sequence[FileFacts],
    output: OutputFolder,
) -> _Plan:
    """Check what the files hold together, cut them into parts, and begin or find the output folder."""
    assert job.input is not None
    check_together(facts, job.input)
    predictor.check_pairs(pairs=facts[0].reads_pairs, flag="--text-columns")
    has_labels = facts[0].has_labels and not job.ignore_labels
    texts = _texts(facts, options)
    note = refuse_leak(predictor.meta, texts, job.allow_leak) if has_labels else None
    parts = cut(facts)
    return _Plan(
        schema=facts[0].schema,
        has_labels=has_labels,
        parts=parts,
        todo=output.begin(_manifest(job, options, model, facts), parts, overwrite=job.overwrite),
        notes=[
            note,
            column_note(options, facts[0].schema.names) if has_labels else None,
            *dict.fromkeys(line for one in facts for line in one.notes),
        ],
    )


def _checked_model(job: PredictConfig) -> tuple[Predictor, str]:
    """Load the model once here, so that a damaged one is found before anything is started; returns its hash as well."""
    from sst2_ray.predict.predictor import Predictor, model_folder

    with model_folder(job.model_dir) as folder:
        options = dataclasses.replace(job, device="cpu").predictor_options
        return Predictor(folder, **options), fingerprint(folder)


def _checked_files(ray: ModuleType, files: Sequence[InputFile], options: ReadOptions) -> list[FileFacts]:
    """Check all files, on all CPUs of the cluster. Raises InputError for the first that is wrong."""

    def check(file: InputFile) -> FileFacts | str:
        try:
            return check_file(file, options)
        except InputError as error:
            return str(error)
        except OSError as error:
            return f"--input {file.name}: cannot be read ({first_line(error)})"

    task = ray.remote(num_cpus=1)(check)
    facts = []
    for found in ray.get([task.remote(file) for file in files]):
        if isinstance(found, str):
            raise InputError(found)
        facts.append(found)
    return facts


def _texts(facts: Sequence[FileFacts], options: ReadOptions) -> Iterator[list[Text]]:
    """Yield the texts of all files, a piece at a time, without the blank ones."""
    for one in facts:
        whole = Part(number=0, file=one.file, first_piece=0, num_pieces=len(one.pieces), num_rows=0, first_row=0)
        for file, piece in PartReader(options).pieces(whole):
            yield [text for text in file.texts(piece) if text is not None and stripped(text) is not None]


def _manifest(job: PredictConfig, options: ReadOptions, model: str, facts: Sequence[FileFacts]) -> dict[str, object]:
    """Return what the output depends on; the order is that in which a difference is told."""
    settings = {name: value for name, value in job.predictor_options.items() if name != "device"}
    return {
        "version": __version__,
        "model": model,
        "input": [{"name": one.file.name, "hash": one.fingerprint, "rows": sum(one.pieces)} for one in facts],
        "way of reading or computing": {
            **settings, **{name: value for name, value in vars(options).items() if value},
            "ignore_labels": job.ignore_labels,
        },
    }  # fmt: skip


def _labelled(worker: PartLabeller, placement: Placement, numbers: Sequence[int]) -> Iterator[int]:
    """Have actors label parts, and yield the number of each when it is written."""
    if not numbers:
        return
    import ray.data as data

    from sst2_ray.run.environment import worker_env

    data.DataContext.get_current().enable_progress_bars = False
    threads = str(placement.cpus_per_worker)
    env = worker_env(use_gpu=placement.use_gpu) | {
        "OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true",
    }  # fmt: skip
    rows = (
        data.from_items(list(numbers), override_num_blocks=len(numbers))  # a block a part
        .map(
            _Actor,
            fn_constructor_args=(worker,),
            compute=data.ActorPoolStrategy(
                size=min(placement.num_workers, len(numbers)), max_tasks_in_flight_per_actor=1
            ),
            num_cpus=placement.cpus_per_worker,
            num_gpus=1 if placement.use_gpu else None,
            ray_remote_args_fn=lambda: {"max_restarts": _MAX_RESTARTS},
            runtime_env={"env_vars": env},
        )
        .iter_rows()
    )
    for row in rows:
        if row["error"]:
            raise (InputError if row["is_input_error"] else RunFailedError)(row["error"])
        yield int(row["number"])


class _Actor:
    """The callable that Ray Data keeps in each actor."""

    def __init__(self, worker: PartLabeller) -> None:
        self._worker = worker

    def __call__(self, row: dict[str, int]) -> dict[str, object]:
        """Label the part whose number stands in a row; what is wrong becomes a row, which travels without a stack trace."""
        number = int(row["item"])
        try:
            self._worker.label(number)
        except Sst2RayError as error:
            return {"number": number, "error": str(error), "is_input_error": isinstance(error, InputError)}
        except OSError as error:  # a full disk, a store that refuses
            return {"number": number, "error": f"--out or --input: {first_line(error)}", "is_input_error": False}
        return {"number": number, "error": "", "is_input_error": False}


class PartLabeller:
    """The labelling of parts in one process: the model is loaded once, and a file is read once."""

    def __init__(
        self,
        job: PredictConfig,
        options: ReadOptions,
        parts: Sequence[Part],
        schema: pa.Schema,
        has_labels: bool,
        num_threads: int,
    ) -> None:
        assert job.out is not None
        self._options = options
        self._job, self._output, self._parts, self._schema = job, job.out, parts, schema
        self._has_labels, self._num_threads = has_labels, num_threads
        self._predictor: Predictor | None = None

    def label(self, number: int) -> None:
        """Read, compute and write one part."""
        predictor = self._loaded()
        part = self._parts[number]
        rows = PartInput(part=part, reader=self._reader, schema=self._schema, has_labels=self._has_labels)
        with tempfile.TemporaryDirectory(prefix="sst2-ray-") as scratch:
            file = Path(scratch, part.output)
            done = label_file(rows, predictor, str(file))
            OutputFolder(self._output).write(part, file, done)

    def _loaded(self) -> Predictor:
        if self._predictor is None:
            import torch

            from sst2_ray.predict.predictor import Predictor
            from sst2_ray.run.environment import compute_at_once

            compute_at_once()
            torch.set_num_threads(self._num_threads)
            self._predictor = Predictor(self._job.model_dir, **self._job.predictor_options)
            self._reader = PartReader(self._options)
        return self._predictor
