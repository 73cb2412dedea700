"""Write docs/speed.md, and the README's rows about speed, from the figures in benchmarks/results.

    python -m benchmarks.speed_page

A figure that nobody has measured is said to be missing.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.aims import aims
from benchmarks.shared import REPOSITORY

RESULTS = REPOSITORY / "benchmarks/results"
README = REPOSITORY / "README.md"
PAGE = REPOSITORY / "docs/speed.md"
_BEGIN, _END = "<!-- throughput -->", "<!-- end of throughput -->"


@dataclass(frozen=True)
class Section:
    """A heading, its files in RESULTS, the command that writes them, and what the table is to be read for."""

    heading: str
    files: tuple[str, ...]
    command: str
    about: str


SIDE_BY_SIDE = ("throughput-64.json", "throughput-32.json")
SECTIONS = (
    Section(
        "Side by side",
        SIDE_BY_SIDE,
        "benchmarks.throughput --batch-size SIZE",
        "The batches here are random and hold exactly as many sentences as asked for; the Trainer's batches of like length "
        "change which sentences share a batch. Steps count after 64 of warm-up (of the notebook's way, whose shapes never "
        "change, after 2). Only the first row writes a checkpoint in its 64 steps. The second row less the first is what Ray "
        "costs; the third less the second, what DeepSpeed costs (here nothing: plain torch is no faster).",
    ),
    Section(
        "Side by side, without AVX512",
        ("throughput-64-avx2.json",),
        "benchmarks.throughput --batch-size 64 --like-avx2 --ways main-job zero2 trainer-grouped",
        "As on a CPU with AVX2 only: AVX512 is switched off in torch, oneDNN and MKL, and every way computes in fp32, which runs "
        "choose by themselves on such a CPU.",
    ),
    Section(
        "Does the faster one learn the same?",
        ("accuracy.json",),
        "benchmarks.accuracy",
        "Dev accuracy after equal epochs, the same seeds: a way that learns less is not faster. The claim is that the main job "
        "is not inferior: the 95 % interval of the difference, for new seeds and new sentences, lies above minus the margin. "
        "Differences that are smaller than the interval is wide cannot be seen with so few seeds and sentences.",
    ),
    Section(
        "One worker's cores shared out to two",
        ("workers.json", "workers-modernbert.json"),
        "benchmarks.workers",
        "The same global batch and the same cores: the second row against the first is the price of gradients on the wire.",
    ),
    Section(
        "More workers, each with the same work",
        ("weak-scaling.json",),
        "benchmarks.weak_scaling",
        "Workers beyond the machine's cores share them.",
    ),
    Section(
        "From the command to the first step",
        ("startup.json",),
        "benchmarks.startup",
        "One worker, Ray started and ended by the command.",
    ),
    Section(
        "A trial of a sweep, besides its steps",
        ("sweep-overhead.json",),
        "benchmarks.sweep_overhead",
        "The wall-clock of a whole sweep of eight trials, one after the other, less the time in optimizer steps and "
        "evaluations, per trial. [Where the seconds go](../benchmarks/NOTES.md#where-the-seconds-of-a-start-go).",
    ),
    Section(
        "The demo's sweep, before and now",
        ("sweep-before.json",),
        "benchmarks.sweep_before --before CHECKOUT",
        "Eight trials of the sweep of `make demo`, the whole command, in alternation with the same at the commit before trials "
        "shared warm workers.",
    ),
    Section(
        "Killed workers",
        ("goodput-short.json", "goodput.json"),
        "benchmarks.goodput --steps 1600 --every-s 90 --kills 4 --rounds 1",
        "One run undisturbed and one with workers killed (SIGKILL), sbert-minilm, two workers of one core, batch 32, a checkpoint "
        "every 10 s, then as often as loses the least time; 700 steps, and 1,600 of an "
        "earlier commit. The weights at the end are the same, bit for bit.",
    ),
    Section(
        "Killed nodes",
        ("goodput-node.json",),
        "benchmarks.goodput --what node --steps 700 --every-s 75 --kills 2 --rounds 1",
        "The same run on a Ray cluster of two nodes on this machine, whose two cores they share; one of them is killed (every process, "
        "SIGKILL) after a third has joined. Beyond Ray's detection: since Ray marked the node dead, or since the kill where the attempt "
        "ended before that, because the other worker's connection broke.",
    ),
    Section(
        "On a GPU",
        ("gpu-probe-h200-short.json", "gpu-probe-h200.json"),
        "benchmarks.gpu_probe",
        "One worker's loop without Ray, ModernBERT-base from random weights, sentences of SST-2 (13.6 tokens) laid end to end, bf16. "
        "`graphs`, as runs do by themselves: small micro-batches replayed as CUDA graphs, which gives the weights that launching "
        "every kernel gives, bit for bit; `compiled`: with compiled layers besides (at 2,048 sentences nothing is replayed); "
        "`trainer`: the Hugging Face Trainer, bf16, fused AdamW, batches of like length, padded. The first table is of today's "
        "attention (short sentences in tiles of whole ones), AdamW in one pass and few launches for gradients, beside those in "
        "place before; the second of an earlier day and commit. The machines' hosts are slow: they launch a kernel in 27 us (first) and "
        "45 us (second), which the ways without graphs pay for every kernel. Rows of one way are runs of their own. "
        "The whole job under Ray, at the earlier commit: 3,085 examples/s over its first 150 steps of 64, 42 s from the command's "
        "start to its workers. "
        "[What the time goes to, and what was not measured](../benchmarks/NOTES.md#on-a-gpu).",
    ),
    Section(
        "Many rows",
        ("holdouts.json",),
        "benchmarks.holdouts",
        "From the command to checked splits, before anything is tokenized.",
    ),
    Section(
        "Ten million rows",
        ("many-rows.json",),
        "benchmarks.many_rows",
        "What `train` does before it starts anything, beside `datasets.map` with as many processes, which compares nothing; a "
        "second time, from what was [kept](data.md#many-rows). Memory is that of the process itself, mapped files included. The "
        "main job's seconds are those from the command to its first step.",
    ),
    Section(
        "Evaluation",
        ("evaluation.json",),
        "benchmarks.evaluation",
        "Tokens per second on the rows that were trained on.",
    ),
    Section(
        "Recording",
        ("recording.json",),
        "benchmarks.recording",
        "The shortest step that there is, without the work in its phases.",
    ),
    Section(
        "A million sentences through predict",
        ("predict-rows.json",),
        "benchmarks.predict_rows",
        "Memory must not grow with the file.",
    ),
    Section(
        "What the forecast says, and what came",
        ("forecast.json",),
        "benchmarks.forecast",
        "`--dry-run --calibrate` against the run itself. On more GPUs, on paper: [scaling](scaling.md).",
    ),
    Section(
        "Long sentences",
        ("length.json",),
        "benchmarks.length --picture docs/images/length.png",
        "ModernBERT-base's shape against BERT-base's, random weights: speed and memory, not accuracy. Measured at 1 and 4 "
        "layers and extrapolated to all of them; one run.\n\n"
        "![Speed and memory by length](images/length.png)",
    ),
    Section(
        "Waiting for a command",
        ("commands.json",),
        "benchmarks.commands",
        "From Enter to the first line in a terminal, and to the end on large storage; all runs are made up.",
    ),
    Section(
        "The results table at scale",
        ("results_table.json",),
        "benchmarks.results_table",
        "A made-up table on a local disk, one command after the other in fresh processes.",
    ),
    Section(
        "Checkpoints",
        ("checkpoint-cost.json",),
        "benchmarks.checkpoint_cost",
        "ModernBERT-base's shape from random weights, a checkpoint every 60 s.",
    ),
)


def main() -> int:
    found = read(RESULTS)
    PAGE.write_text(page(found))
    README.write_text(with_rows(README.read_text(), found))
    return 0


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The results that there are, by file name."""
    names = [name for section in SECTIONS for name in section.files]
    return {name: json.loads((folder / name).read_text()) for name in names if (folder / name).is_file()}


def page(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# Speed, measured",
        "",
        "Every table names the commit that it was measured at; later ones may differ. On your own GPUs: `make bench-gpu`. The raw "
        "runs and the versions are in [the benchmarks' figures](../benchmarks/results), from which "
        "`python -m benchmarks.speed_page` writes this page. To measure again: "
        "`SST2_RAY_DATA=FOLDER SST2_RAY_TOKENIZER=FOLDER make bench bench-more`, with the folders of GLUE's SST-2 and of "
        "ModernBERT's tokenizer, as here; without them the packaged reviews are read. Checkpoints and commands: the command "
        "at the table. What was tried for speed, with which result: [notes](../benchmarks/NOTES.md).",
        "",
        "## What was aimed at, and what was reached",
        "",
        *aims(found),
        "",
        "Side by side: ratios of medians over rounds in which every way ran once.",
    ]
    for section in SECTIONS:
        lines += ["", f"## {section.heading}", "", f"`python -m {section.command}`. {section.about}"]
        for name in section.files:
            figures = found.get(name)
            lines += (
                ["", f"`{name}`: not measured."] if figures is None else ["", figures["table"], "", origin(figures)]
            )
    return "\n".join(lines) + "\n"


def origin(figures: dict[str, Any]) -> str:
    return f"*{figures['chip']}, commit {figures['git_commit'][:7]}.*"


def with_rows(readme: str, found: dict[str, dict[str, Any]]) -> str:
    """Write the README's table about throughput anew."""
    figures = [found[name] for name in SIDE_BY_SIDE if name in found]
    table = "\n".join(throughput_rows(figures))
    return re.sub(f"({_BEGIN}\n).*?({_END})", lambda m: f"{m[1]}{table}\n{m[2]}", readme, flags=re.DOTALL)


def throughput_rows(figures: Sequence[dict[str, Any]]) -> list[str]:
    """Format the README's table: a row for each way, a column for each batch size."""
    ways = (
        ("this package, one worker under Ray", "main-job"),
        ("Hugging Face Trainer, random batches", "trainer"),
        ("Hugging Face Trainer, batches of like length", "trainer-grouped"),
        ("Ray's DeepSpeed example", "ray-example"),
        ("fp32, padded to 128, batch 32", "notebook"),
    )
    rows = [["examples a second, `sbert-minilm`", *(f"batch {one['batch_size']}" for one in figures)]]
    rows.append(["---"] * len(rows[0]))
    for words, way in ways:
        rows.append([words, *(f"{statistics.median(one['examples_per_sec'][way]):.0f}" for one in figures)])
    runs = {len(one["examples_per_sec"]["main-job"]) for one in figures}
    speeds = " and ".join(f"{statistics.median(one['matmul_flops']) / 1e9:.0f}" for one in figures)
    return [
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"Medians of {' and '.join(map(str, sorted(runs)))} runs; matrix products at {speeds} GFLOP/s.",
    ]


if __name__ == "__main__":
    sys.exit(main())
