"""Converted models against predict in torch, side by side, with the proof that they answer the same.

    python -m benchmarks.export [--model-dir DIR] [--train-steps 800] [--formats onnx openvino] [--json FILE]
    python -m benchmarks.export --random modernbert-base --formats openvino        # a shape alone: labels prove nothing

Without --model-dir, sbert-minilm is fine-tuned on SST2_RAY_DATA for `--train-steps` steps of 64 sentences; the tenth of train
that is held out takes part in the proof. Every model runs in a process of its own, as `sst2-ray predict` would; the medians
are of five rounds in alternation, at 1, 32 and 256 sentences a call, tokenization included. Then `predict` labels a file of
`--rows` sentences with torch and with the fastest model, `--repeats` times in alternation (`--formats` without a word: torch
alone); with `--before CHECKOUT` the predict of another checkout of this repository takes part.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.predict_rows import write_rows
from benchmarks.shared import REPOSITORY, commit_of, data_name, finish, parser_of, provenance
from sst2_ray import formatting
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.load import load_splits
from sst2_ray.modeling.export.meta import local_export
from sst2_ray.predict.export import unseen
from sst2_ray.predict.formats.convert import Export, convert
from sst2_ray.predict.formats.files import Backend, Variant
from sst2_ray.predict.measuring import Candidate
from sst2_ray.predict.proof import Row, fastest, interval_words, prove

MAX_LOSS = 0.005
HELD_OUT = 0.1
"""Share of train that the model trained here is not trained on."""


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--model-dir", help="an export, or the folder of a run; by default one is trained")
    parser.add_argument("--train-steps", type=int, default=800)
    parser.add_argument("--random", metavar="MODEL", help="a named model's shape from random numbers instead")
    parser.add_argument("--formats", nargs="*", choices=("onnx", "openvino"), default=["onnx", "openvino"])
    parser.add_argument("--prove-rows", type=int, help="label so many sentences; default: all of dev and held out")
    parser.add_argument("--rows", type=int, default=0, help="rows of a file to label as well")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--before", help="checkout whose predict labels the file as well")
    arguments = parser.parse_args()
    found = provenance()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        if arguments.random:
            random_export(arguments.random, folder)
        else:
            given = arguments.model_dir or trained(Path(scratch), arguments.train_steps)
            shutil.copytree(local_export(given), folder, ignore=shutil.ignore_patterns("onnx", "openvino"))
        held_out = 0.0 if arguments.random or arguments.model_dir else HELD_OUT
        splits = load_splits(TrainConfig(data=data_name(), batch_size=1, selection_fraction=held_out))
        sentences = unseen(splits, splits.classes.names, arguments.prove_rows)
        candidates = converted(folder, arguments.formats, splits.train.texts[:512])
        rows = prove(candidates, sentences, splits.classes.names)
        text = table(rows)
        given = {name: value for name, value in vars(arguments).items() if name not in ("model_dir", "before")}
        figures: dict[str, Any] = {**given, "rows_found": [as_json(row) for row in rows], **found}
        if arguments.rows:
            best = fastest(rows, MAX_LOSS)
            if arguments.before:
                figures["before"] = commit_of(arguments.before)
            seconds = labelled(Path(scratch), folder, splits.train.texts, best, arguments)
            figures["file_seconds"] = seconds
            text += "\n\n" + file_table(seconds, arguments.rows)
    finish(figures, text, arguments.json)
    return 0


def trained(scratch: Path, steps: int) -> str:
    """Fine-tune sbert-minilm as the main job does; returns the run's folder."""
    command = [
        sys.executable, "jobs/train.py", "--model=sbert-minilm", f"--data={data_name()}", "--epochs=100",
        f"--max-steps={steps}", "--learning-rate=8e-5", "--batch-size=64", f"--selection-fraction={HELD_OUT}",
        f"--storage-path={scratch}/runs", "--name=export",
    ]  # fmt: skip
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    return f"{scratch}/runs/export"


def random_export(model: str, folder: Path) -> None:
    """Export a named model's shape with random weights."""
    from sst2_ray.modeling.build import build_classifier
    from sst2_ray.modeling.export.card import CardFacts
    from sst2_ray.modeling.export.folder import export_model
    from sst2_ray.modeling.sources import resolve_model
    from sst2_ray.modeling.tokenizers import load_tokenizer

    config = TrainConfig(model=model, random_weights=True, tokenizer=os.environ.get("SST2_RAY_TOKENIZER"))
    resolved = resolve_model(config)
    tokenizer = load_tokenizer(resolved, list)
    classifier = build_classifier(resolved, tokenizer, seed=0).eval()
    nothing = CardFacts(
        config=config, info=classifier.info, source="nothing", eval_split="nothing", corpora=(), num_train_rows=0,
        num_dev_rows=1, accuracy=0.0, f1=0.0, loss=0.0, epoch=0.0, global_step=0,
    )  # fmt: skip
    export_model(classifier, tokenizer, folder, nothing)


def converted(folder: Path, formats: list[str], sample: list[str]) -> list[tuple[Candidate, int]]:
    """Convert an export to all precisions of the formats; returns them behind torch in fp32 and as predict has it."""
    own = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    candidates = [(Candidate(model_dir=str(folder), precision=precision), own) for precision in ("fp32", "auto")]
    export = Export.load(folder)
    for name in formats:
        made, left_out = convert(export, Backend(name), tuple(Variant), sample)
        print(*(f"{name} {variant}: {reason}" for variant, reason in left_out.items()), sep="\n", flush=True)
        for variant in made.variants:
            one = Candidate(model_dir=str(folder), backend=name, variant=str(variant))
            candidates.append((one, made.num_bytes(variant)))
    return candidates


def labelled(scratch: Path, folder: Path, texts: list[str], best: Row | None, arguments: Any) -> dict[str, list[float]]:
    """Take the seconds of `predict` on a file, by way, each way once a round."""
    file = scratch / "rows.parquet"
    write_rows(file, texts, arguments.rows)
    ways: dict[str, tuple[Path, list[str]]] = {}
    if arguments.before:
        ways["torch before"] = (Path(arguments.before).resolve(), [])
    ways["torch"] = (REPOSITORY, [])
    if best is not None:
        ways[best.candidate.name] = (
            REPOSITORY, [f"--backend={best.candidate.backend}", f"--variant={best.candidate.variant}"],
        )  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, (checkout, words) in ways.items():
            output = scratch / "labelled.parquet"
            command = [
                sys.executable, "jobs/predict.py", f"--model-dir={folder}", f"--input={file}", f"--output={output}",
                "--overwrite", *words,
            ]  # fmt: skip
            start = time.perf_counter()
            environment = {**os.environ, "PYTHONPATH": str(checkout)}
            subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
            print(f"{name}: {arguments.rows / seconds[name][-1]:,.0f} rows/s", flush=True)
    return seconds


def as_json(row: Row) -> dict[str, Any]:
    return {
        "model": row.candidate.name,
        "accuracy": row.accuracy,
        "interval": None
        if row.difference is None
        else [row.difference.value, row.difference.interval.low, row.difference.interval.high],
        "changed": len(row.changes),
        "sentences_per_sec": row.rates,
        "peak_bytes": row.peak_bytes,
        "file_bytes": row.file_bytes,
        "load_s": row.load_s,
    }


def table(rows: list[Row]) -> str:
    """Markdown; rates with their ratio to predict in torch."""
    base = next(row for row in rows if row.candidate.backend == "torch" and row.candidate.precision == "auto")
    sizes = list(base.rates)
    titles = ["model", "file", "memory", "accuracy %", "minus fp32, points", "labels changed"]
    titles += [f"sentences/s, {size} a call" for size in sizes]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for row in rows:
        rates = [f"{formatting.number(row.rates[s])} ({row.rates[s] / base.rates[s]:.2f})" for s in sizes]
        cells = [
            row.candidate.name, formatting.size(row.file_bytes), formatting.size(row.peak_bytes),
            formatting.percent(row.accuracy), interval_words(row.difference), str(len(row.changes)), *rates,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def file_table(seconds: dict[str, list[float]], rows: int) -> str:
    """Markdown: medians, start and loading included."""
    base = statistics.median(next(iter(seconds.values())))
    lines = [f"| predict, {rows:,} rows | s | rows/s | ratio |", "|---|---|---|---|"]
    for name, runs in seconds.items():
        median = statistics.median(runs)
        lines.append(f"| {name} | {median:.1f} | {rows / median:,.0f} | {base / median:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
