"""Tokens a second of an evaluation against training, on the same rows, and what its precision changes.

    python -m benchmarks.evaluation [--model sbert-minilm] [--precision auto] [--batch-size 64] [--steps 32] [--repeats 5] [--json FILE]

One worker's loop of the main job (ZeRO-2, as in throughput.py) takes `--steps` steps over `--steps` * `--batch-size` rows,
then `compute_logits` evaluates these rows as the loop does, then with everything in fp32; this in alternation. The model
is trained by it all the while, so that labels mean something: they are compared at the end, on the same rows and on dev.
About 2 minutes on two cores with the default model. Data: the folder SST2_RAY_DATA, else the packaged movie reviews.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np
import torch

from benchmarks.shared import (
    data_name,
    finish,
    parser_of,
    process_group_of_one,
    provenance,
    task_of,
    with_the_workers_allocator,
)
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.run.prepare import check
from sst2_ray.run.tokenizing import prepare
from sst2_ray.training.calibrate import first_rows, loop_of, measure_steps
from sst2_ray.training.evaluate import compute_logits, evaluation_tokens
from sst2_ray.training.loop import Loop

WARM_UP_STEPS = 8


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="sbert-minilm")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="as of a run")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with_the_workers_allocator("benchmarks.evaluation")
    found = provenance()
    loop = made_loop(arguments)
    rows = loop.context.train
    measure_steps(loop, WARM_UP_STEPS)
    rates: dict[str, list[float]] = {"training": [], "evaluation": [], "evaluation in fp32": []}
    for repeat in range(arguments.repeats):
        before = loop.context.timer.num_tokens
        seconds = measure_steps(loop, arguments.steps)[1]
        rates["training"].append((loop.context.timer.num_tokens - before) / seconds)
        for name, bf16 in (("evaluation", loop.context.bf16), ("evaluation in fp32", False)):
            start = time.perf_counter()
            evaluated(loop, rows, bf16=bf16)
            rates[name].append(len(rows.input_ids) / (time.perf_counter() - start))
        line = ", ".join(f"{name} {runs[-1]:.0f} tokens/s" for name, runs in rates.items())
        print(f"{repeat + 1}/{arguments.repeats} {line}", flush=True)
    compared = {"the training rows": difference(loop, rows), "dev": difference(loop, loop.context.evaluation)}
    figures = {
        **vars(arguments),
        "bf16": loop.context.bf16,
        "data": data_name(),
        "num_rows": len(rows),
        "tokens_per_sec": rates,
        "compared": compared,
    }
    finish({**figures, **found}, table(figures), arguments.json)
    return 0


def made_loop(arguments: Any) -> Loop:
    """Over the first rows of train, as many as the steps of one repeat take."""
    config = TrainConfig(
        model=arguments.model,
        data=data_name(),
        precision=arguments.precision,
        batch_size=arguments.batch_size,
        epochs=100,
        learning_rate=8e-5,
    )
    process_group_of_one()
    prepared = prepare(check(config))
    train = first_rows(prepared.tokens["train"], arguments.steps * arguments.batch_size)
    return loop_of(task_of(prepared), {**prepared.tokens, "train": train})


def evaluated(loop: Loop, rows: TokenArrays, *, bf16: bool) -> np.ndarray:
    """float32 [rows, 2], as the loop evaluates; bf16: but for rows near the decision boundary."""
    return compute_logits(
        loop.context.model,
        rows,
        bf16=bf16,
        pad_id=loop.context.pad_id,
        max_tokens=evaluation_tokens(loop.context.micro_batch_tokens, loop.context.device),
        device=loop.context.device,
    )


def difference(loop: Loop, rows: TokenArrays) -> dict[str, Any]:
    """Return the difference of the evaluation as it is from one that is fp32 throughout."""
    logits, exact = (evaluated(loop, rows, bf16=bf16) for bf16 in (loop.context.bf16, False))
    return {
        "num_rows": len(rows),
        "labels_that_differ": int((logits.argmax(1) != exact.argmax(1)).sum()),
        "max_logit_difference": float(np.abs(logits - exact).max()),
        "accuracy": float((logits.argmax(1) == rows.labels).mean()),
    }


def table(figures: dict[str, Any]) -> str:
    """Markdown: medians against training, and what differs."""
    rates = figures["tokens_per_sec"]
    training = statistics.median(rates["training"])
    lines = [
        f"{figures['model']}, batch {figures['batch_size']}, {figures['num_rows']:,} rows, {torch.get_num_threads()} threads, training in "
        f"{'bf16' if figures['bf16'] else 'fp32'}.",
        "",
        "| | tokens/s, median | lowest to highest | of training |",
        "|---|---|---|---|",
    ]
    for name, runs in rates.items():
        median = statistics.median(runs)
        lines.append(f"| {name} | {median:.0f} | {min(runs):.0f} to {max(runs):.0f} | {median / training:.2f} |")
    lines.append("")
    for name, said in figures["compared"].items():
        lines.append(
            f"{name}, {said['num_rows']:,} rows: {said['labels_that_differ']} labels differ from an fp32 evaluation, logits by "
            f"at most {said['max_logit_difference']:.2g}; accuracy {said['accuracy']:.4f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
