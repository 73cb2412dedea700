"""Examples a second of this package and of its peers, side by side on one machine, in alternation.

    python -m benchmarks.throughput [--batch-size 64] [--repeats 5] [--ways main-job zero2 ...] [--like-avx2] [--json FILE]

Real SST-2 from the folder SST2_RAY_DATA where that is set, else the packaged movie reviews; all-MiniLM-L6-v2. Beside the
ways, the rate of matrix products of 2048 is measured in every round, in the precision that the ways compute in: shares of
it compare machines. The main job is the command, Ray included. Steps count after 64 of
warm-up; of the notebook's way, whose shapes never change, after 2. With --like-avx2 all ways run as on a CPU with AVX2 only.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import torch

from benchmarks import peers
from benchmarks.shared import (
    WARM_UP_STEPS,
    data_name,
    finish,
    parser_of,
    process_group_of_one,
    provenance,
    with_the_workers_allocator,
)
from sst2_ray.config.train import TrainConfig
from sst2_ray.training.throughput import model_flops_per_token

WAYS: dict[str, tuple[str, Callable[[peers.Job], peers.Run]]] = {
    "main-job": ("this package's main job: Ray Train, DeepSpeed ZeRO-2, 1 worker", peers.main_job),
    "zero2": ("its worker's loop alone, without Ray", lambda job: peers.ours(job, "zero2")),
    "bare": ("the same loop on plain torch, without Ray and DeepSpeed", lambda job: peers.ours(job, "torch")),
    "trainer": ("Hugging Face Trainer, random batches", lambda job: peers.trainer(job, grouped=False)),
    "trainer-grouped": ("Hugging Face Trainer, batches of like length", lambda job: peers.trainer(job, grouped=True)),
    "ray-example": ("the way of Ray's DeepSpeed example: ZeRO-2, padded to the longest of a batch", peers.ray_example),
    "notebook": ("the notebook study's way: fp32, padded to 128, batch 32", peers.notebook),
}


STEPS_OF = {"main-job": 64, "zero2": 64, "bare": 64, "notebook": 2}
"""A repeat: about a quarter of a minute; 16 of the other ways, which take longer."""


LIKE_AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""What keeps torch's own kernels, oneDNN's and MKL's from AVX512, in every process that inherits it."""


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument(
        "--like-avx2", action="store_true", help="without AVX512, in fp32, which runs choose on such a CPU"
    )
    arguments = parser.parse_args()
    with_the_workers_allocator("benchmarks.throughput", LIKE_AVX2 if arguments.like_avx2 else None)
    found = provenance()
    job = _job(arguments.batch_size, "fp32" if arguments.like_avx2 else "auto")
    runs = {name: WAYS[name][1](job) for name in arguments.ways}
    rates: dict[str, list[float]] = {name: [] for name in arguments.ways}
    products = []
    for repeat in range(arguments.repeats):
        products.append(matmul_flops(torch.bfloat16 if job.bf16 else torch.float32))
        for name, run in runs.items():
            rates[name].append(run(STEPS_OF.get(name, 16)))
            print(f"{repeat + 1}/{arguments.repeats} {name}: {rates[name][-1]:.1f} examples/s", flush=True)
    figures = {
        "batch_size": arguments.batch_size,
        "model_flops_per_example": flops_per_example(job),
        "num_threads": torch.get_num_threads(),
        "bf16": job.bf16,
        "like_avx2": arguments.like_avx2,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "matmul_flops": products,
        "examples_per_sec": rates,
        **found,
    }
    finish(figures, table(figures), arguments.json)
    return 0


def _job(batch_size: int, precision: Literal["auto", "fp32"]) -> peers.Job:
    config = TrainConfig(
        model="sbert-minilm",
        data=data_name(),
        batch_size=batch_size,
        epochs=100,
        learning_rate=8e-5,
        precision=precision,
        train_rows=WARM_UP_STEPS * batch_size,
    )
    process_group_of_one()
    return peers.job_of(config)


def flops_per_example(job: peers.Job) -> float:
    """Model FLOP, forward and backward, of a training sentence."""
    tokens = job.prepared.tokens["train"]
    return model_flops_per_token(peers.PeerModel(job.folder)) * len(tokens.input_ids) / len(tokens)


def matmul_flops(dtype: torch.dtype, size: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of matrix products of `size`, the median of `repeats`."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times)


def table(figures: dict[str, Any]) -> str:
    """Markdown: the median, the spread, and how it compares with the first way."""
    rates = figures["examples_per_sec"]
    first = statistics.median(next(iter(rates.values())))
    precision = "bf16" if figures["bf16"] else "fp32"
    if figures["like_avx2"]:
        precision += ", AVX512 switched off"
    lines = [
        f"Batch {figures['batch_size']}, {figures['num_threads']} threads, {figures['chip']}, {precision}, matrix "
        f"products of 2048 at {statistics.median(figures['matmul_flops']) / 1e9:.0f} GFLOP/s.",
        "",
        "| way | examples/s, median | lowest to highest | of the first |",
        "|---|---|---|---|",
    ]
    for name, runs in rates.items():
        median = statistics.median(runs)
        lines.append(f"| {WAYS[name][0]} | {median:.0f} | {min(runs):.0f} to {max(runs):.0f} | {median / first:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
