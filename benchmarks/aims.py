"""The aims, and how the figures in benchmarks/results tell whether it was reached: the table that begins docs/speed.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.values import (
    Found,
    Ratio,
    after_lost_nodes,
    faster_sweep,
    leaderboard,
    of_accuracy,
    of_command,
    of_evaluation,
    of_forecast,
    of_gpu,
    of_kills,
    of_many_rows,
    of_restarts,
    of_start,
    of_workers,
    ratio,
    share_of_products,
    worst_first_line,
)

ACCURACY_MARGIN = 2.0
"""Points of dev accuracy by which one way of training may be behind another and counts as no worse."""


@dataclass(frozen=True)
class Aim:
    """An aim, at least or at most, and how the figures tell whether it was reached. `why` stands beside what is missed."""

    words: str
    value: Callable[[Found], float]
    at_least: float | None = None
    at_most: float | None = None
    why: str = ""

    @property
    def limit(self) -> str:
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"

    def is_reached(self, value: float) -> bool:
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)


BATCH_32, BATCH_64 = "throughput-32.json", "throughput-64.json"
EVALUATED = of_gpu("evaluated_tokens_per_sec", batch=2048, way="compiled", file="gpu-probe-h200.json")

RAYS_PRICE = (
    "[Ray's processes interrupt the two threads](../benchmarks/NOTES.md#the-price-of-ray-on-a-machine-of-its-own)"
)
TWO_WORKERS = "[messages of 0.5 GB a step](../benchmarks/NOTES.md#two-workers-in-the-place-of-one)"
FORECAST = "[what a forecast has to count](../benchmarks/NOTES.md#what-a-forecast-has-to-count)"
WHERE = "[where a step goes](../benchmarks/NOTES.md#what-was-tried-for-speed-and-what-came-of-it)"
START = "[where the seconds of a start go](../benchmarks/NOTES.md#where-the-seconds-of-a-start-go)"
KILLS = "[what a kill costs](../benchmarks/NOTES.md#killed-workers)"
WAITING = "[what a command waits for](../benchmarks/NOTES.md#waiting-for-a-command)"
GPU = "[where the milliseconds go](../benchmarks/NOTES.md#on-a-gpu)"
ROWS = "[where the seconds of many rows go](../benchmarks/NOTES.md#many-rows)"
LESS = "[the table says how far apart they may be](../docs/speed.md#does-the-faster-one-learn-the-same)"
AIMS = (
    Aim(
        "speed of the main job over the Trainer's best, batch 32",
        Ratio(BATCH_32, "main-job", "trainer-grouped"),
        1.0,
        why=RAYS_PRICE,
    ),
    Aim("the same, batch 64", Ratio(BATCH_64, "main-job", "trainer-grouped"), 1.2, why=RAYS_PRICE),
    Aim(
        "the same on a CPU with AVX2 only, in fp32",
        Ratio("throughput-64-avx2.json", "main-job", "trainer-grouped"),
        1.2,
        why=RAYS_PRICE,
    ),
    Aim(
        "speed of the main job over the notebook study's way, batch 64",
        Ratio(BATCH_64, "main-job", "notebook"),
        20,
        why=RAYS_PRICE,
    ),
    Aim(
        "points of dev accuracy by which the main job may be behind the Trainer after equal epochs (lower end of the 95 % "
        "interval, for new seeds and new sentences), random batches",
        of_accuracy("trainer"),
        at_most=ACCURACY_MARGIN,
        why=LESS,
    ),
    Aim(
        "the same, the Trainer's batches of like length",
        of_accuracy("trainer-grouped"),
        at_most=ACCURACY_MARGIN,
        why=LESS,
    ),
    Aim("model FLOP/s in per cent of matrix products of 2048, batch 64", share_of_products, 50, why=WHERE),
    Aim(
        "speed of the main job over its loop on plain torch, batch 64",
        Ratio(BATCH_64, "main-job", "bare"),
        0.9,
        why=RAYS_PRICE,
    ),
    Aim("the same, over its own loop without Ray", Ratio(BATCH_64, "main-job", "zero2"), 0.9, why=RAYS_PRICE),
    Aim(
        "speed of two workers of one core over one of two cores, sbert-minilm, batch 64",
        of_workers("workers.json"),
        0.8,
    ),
    Aim("the same, ModernBERT-base's shape", of_workers("workers-modernbert.json"), 0.95, why=TWO_WORKERS),
    Aim("seconds from the command to the first step, data that are new", of_start("new"), at_most=8, why=START),
    Aim("the same, data that an earlier command has read", of_start("kept"), at_most=8, why=START),
    Aim(
        "seconds of a sweep's trial besides its steps, evaluation included",
        lambda found: found["sweep-overhead.json"]["ways"]["forked"]["overhead_with_evaluation_per_trial_s"],
        at_most=3,
        why=START,
    ),
    Aim(
        "speed of eight trials of the demo's sweep over the same before trials shared warm workers",
        faster_sweep,
        1.3,
        why=START,
    ),
    Aim(
        "seconds from the start of an attempt after a killed worker to its first step",
        of_restarts,
        at_most=5,
        why=KILLS,
    ),
    Aim(
        "seconds beyond Ray's detection of a killed node to the first step of the next attempt, the longest",
        after_lost_nodes,
        at_most=20,
        why=KILLS,
    ),
    Aim("per cent of the time in steps that counted, 1,600 steps with four killed workers", of_kills(4), 90, why=KILLS),
    Aim(
        "seconds to read 1.6 million rows and hold some out that share no phrase with the rest",
        lambda found: found["holdouts.json"]["seconds"]["hold-out"],
        at_most=60,
    ),
    Aim(
        "peak memory of the main job's driver on 10 million rows, GiB",
        lambda found: max(of_many_rows(job, "gib")(found) for job in ("main job", "main job again")),
        at_most=2,
        why=ROWS,
    ),
    Aim(
        "rate of reading, checking, comparing and tokenizing 1 million rows over `datasets.map`, which reads and tokenizes",
        ratio(of_many_rows("datasets.map", tenth=True), of_many_rows("train", tenth=True)),
        0.8,
        why=ROWS,
    ),
    Aim(
        "seconds a row, 10 million rows over 1 million",
        lambda found: of_many_rows("train")(found) / of_many_rows("train", tenth=True)(found) / 10,
        at_most=1.2,
        why=ROWS,
    ),
    Aim(
        "speed of two cores over one, 1 million rows",
        ratio(of_many_rows("train", tenth=True, cores=1), of_many_rows("train", tenth=True)),
        1.6,
        why=ROWS,
    ),
    Aim(
        "seconds until a second run on 10 million rows has its tokens",
        of_many_rows("train again"),
        at_most=10,
        why=ROWS,
    ),
    Aim("speed of evaluation over training, tokens/s", of_evaluation, 3),
    Aim(
        "per cent of a step that recording its times costs",
        lambda found: 100 * found["recording.json"]["share"],
        at_most=1,
    ),
    Aim(
        "peak memory of predict, 1,000,000 rows over 100,000",
        lambda found: max(found["predict-rows.json"]["growth"].values()),
        at_most=1.25,
    ),
    Aim(
        "largest error of the forecast in per cent: time of a step",
        of_forecast("seconds_per_step"),
        at_most=20,
        why=FORECAST,
    ),
    Aim("the same, time in all", of_forecast("wall_s"), at_most=20, why=FORECAST),
    Aim("the same, memory of a worker", of_forecast("peak_memory_gib"), at_most=10, why=FORECAST),
    Aim(
        "ModernBERT-base on an H200, compiled: milliseconds a step of 64 sentences",
        of_gpu("ms_a_step", batch=64, way="compiled"),
        at_most=8,
        why=GPU,
    ),
    Aim(
        "the same: per cent of the bf16 peak, steps of 27,200 tokens",
        lambda found: 100 * of_gpu("utilization", batch=2048, way="compiled")(found),
        40,
        why=GPU,
    ),
    Aim(
        "the same: thousands of tokens a second in an evaluation",
        lambda found: EVALUATED(found) / 1000,
        700,
    ),
    Aim("seconds to the first line of a command, the slowest of all", worst_first_line, at_most=1, why=WAITING),
    Aim("seconds of `sst2-ray --help`", of_command("`--help`"), at_most=0.3),
    Aim("seconds of `results`, 1,000 trials", of_command("`results`, 1,000 trials"), at_most=2, why=WAITING),
    Aim("seconds of `results`, 100,000 trials", leaderboard, at_most=3, why=WAITING),
    Aim("seconds of `ls`, 1,000 trials", of_command("`ls`, 1,000 trials"), at_most=2, why=WAITING),
    Aim(
        "seconds of `ls`, 1,000 runs in an object store",
        of_command("`ls`, 1,000 runs in an object store"),
        at_most=3,
        why=WAITING,
    ),
    Aim(
        "seconds of `status`, the same",
        of_command("`status`, 1,000 runs in an object store"),
        at_most=3,
        why=WAITING,
    ),
    Aim("seconds of `report`, 100 trials", of_command("`report`, 100 trials"), at_most=10, why=WAITING),
)


def aims(found: Found) -> list[str]:
    """Return the table and how many aims were reached."""
    lines, num_reached = ["| | aim | measured | |", "|---|---|---|---|"], 0
    for aim in AIMS:
        try:
            value = aim.value(found)
        except KeyError:
            lines.append(f"| {aim.words} | {aim.limit} | not measured | |")
            continue
        num_reached += aim.is_reached(value)
        said = "reached" if aim.is_reached(value) else f"**not reached**{': ' if aim.why else ''}{aim.why}"
        rounds = aim.value.rounds(found) if isinstance(aim.value, Ratio) else None
        spread = f" (in a round {min(rounds):.3g} to {max(rounds):.3g})" if rounds else ""
        lines.append(f"| {aim.words} | {aim.limit} | {value:.3g}{spread} | {said} |")
    return [f"This project's own aims: {num_reached} of {len(AIMS)} reached.", "", *lines]
