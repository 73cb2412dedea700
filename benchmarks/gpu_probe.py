"""The cost of one worker's step on this machine's GPU, without Ray: where its time goes, and what the host does meanwhile.

    python -m benchmarks.gpu_probe [--models modernbert-base sbert-minilm] [--batch 64 1024] [--ways default uncompiled sdpa]
                                   [--steps 20] [--json FILE] [--device cpu]

For every model, batch and way: milliseconds a step, tokens a second, share of the chip's peak; kernels launched and the share of
the time that the GPU is busy (torch's profiler); places in the code where the host waits for the GPU (torch's sync debug mode);
peak memory. Ways: what a run does by itself; without compiled layers; with padded batches through torch's sdpa. SST2_RAY_TOKENIZER:
folder of ModernBERT's tokenizer. Where torch sees no GPU: one line, exit code 2; --device cpu tries the script itself.
"""

from __future__ import annotations

import collections
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterable
from typing import Any

import torch

from benchmarks.launches import config_of
from benchmarks.shared import finish, parser_of, provenance, task_of
from sst2_ray.run.prepare import check, prepare
from sst2_ray.training.calibrate import loop_of, measure_steps
from sst2_ray.training.loop import Loop
from sst2_ray.training.throughput import model_flops_per_token, peak_flops, peak_memory_gib

WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "uncompiled": {"compile": False},
    "sdpa": {"attention": "sdpa", "compile": False},
}

WARM_UP_STEPS = 8
PROFILED_STEPS = 3


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", default=["modernbert-base", "sbert-minilm"])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no GPU: torch sees none on this machine, so there is nothing to probe", file=sys.stderr)
        return 2
    device = torch.device("cuda:0" if arguments.device == "cuda" else "cpu")
    start_group(device)
    found = provenance()
    rows = []
    for model in arguments.models:
        for batch in arguments.batch:
            for way in arguments.ways:
                rows.append(
                    {"model": model, "batch": batch, "way": way, **probed(model, batch, way, arguments, device)}
                )
                print(table(rows[-1:]).splitlines()[-1], flush=True)
    finish({"steps": arguments.steps, "device": str(device), "rows": rows, **found}, table(rows), arguments.json)
    return 1 if any("error" in row for row in rows) else 0


def start_group(device: torch.device) -> None:
    """A process group of one, as ZeRO-2 asks for it."""
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)


def probed(model: str, batch: int, way: str, arguments: Any, device: torch.device) -> dict[str, Any]:
    """The figures of one way, or the error that it ended with: memory may be too small for one and enough for the next."""
    try:
        return measured(model, batch, way, arguments.steps, device)
    except Exception:
        return {"error": traceback.format_exc()[-2000:]}
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def measured(model: str, batch: int, way: str, steps: int, device: torch.device) -> dict[str, Any]:
    config = config_of(model, batch_size=batch, train_rows=16 * batch, precision="auto", **WAYS[way])
    prepared = prepare(check(config))
    begun = time.perf_counter()
    loop = loop_of(task_of(prepared, config), prepared.tokens, device=device)
    measure_steps(loop, WARM_UP_STEPS)
    set_up = time.perf_counter() - begun
    timer = loop.context.timer
    tokens, padded = timer.num_tokens, timer.num_padded_tokens
    examples, seconds = measure_steps(loop, steps)
    rate = (timer.num_tokens - tokens) / seconds
    peak = peak_flops(device, bf16=loop.context.bf16)
    return {
        "ms_a_step": 1e3 * seconds / steps,
        "examples_per_sec": examples / seconds,
        "tokens_a_step": (timer.num_tokens - tokens) / steps,
        "padding": 1 - (timer.num_tokens - tokens) / (timer.num_padded_tokens - padded),
        "utilization": model_flops_per_token(loop.context.model) * rate / peak if peak else None,
        "attention": loop.context.model.info.attention,
        "peak_memory_gib": peak_memory_gib(device),
        "set_up_s": set_up,
        "waits": waits(loop, device),
        **profiled(loop, device),
    }


def waits(loop: Loop, device: torch.device, steps: int = 2) -> dict[str, float]:
    """Count how often a step the host waits for the GPU, by place: the library's line, and the one of this project above it."""
    places: collections.Counter[str] = collections.Counter()
    if device.type != "cuda":
        return {}

    def seen(message: Warning | str, *_: object, **__: object) -> None:
        if "synchroniz" in str(message):
            frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()[:-1]]
            own = [frame for frame in frames if "/sst2_ray/" in frame]
            places[" <- ".join(_short(frame) for frame in (frames[-1], *own[-1:]))] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = seen
        torch.cuda.set_sync_debug_mode("warn")
        try:
            measure_steps(loop, steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {place: count / steps for place, count in places.most_common()}


def _short(frame: str) -> str:
    """Return a path without the machine's folders."""
    for mark in ("site-packages/", "/sst2_ray/"):
        if mark in frame:
            return frame[frame.rindex(mark) :].removeprefix("site-packages/").lstrip("/")
    return frame.rpartition("/")[2]


def profiled(loop: Loop, device: torch.device) -> dict[str, Any]:
    """Kernels a step and the GPU's busy share while profiled, which takes its own time."""
    from torch.profiler import ProfilerActivity, profile

    gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as profiler:
        _, seconds = measure_steps(loop, PROFILED_STEPS)
    events = list(profiler.events() or [])
    kernels = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    return {
        "kernels_a_step": len(kernels) / PROFILED_STEPS,
        "operators_a_step": sum(event.name.startswith("aten::") for event in events) / PROFILED_STEPS,
        "busy_share": sum(event.time_range.elapsed_us() for event in kernels) / 1e6 / seconds if gpu else None,
        "longest_ms": _longest(kernels),
    }


def _longest(kernels: Iterable[Any], count: int = 8) -> dict[str, float]:
    """Milliseconds a step of the kernels that take most."""
    times: collections.Counter[str] = collections.Counter()
    for event in kernels:
        times[event.name[:80]] += event.time_range.elapsed_us() / 1e3 / PROFILED_STEPS
    return dict(times.most_common(count))


def table(rows: list[dict[str, Any]]) -> str:
    heads = (
        "model",
        "batch",
        "way",
        "attention",
        "ms a step",
        "examples/s",
        "utilization",
        "kernels",
        "busy",
        "waits",
        "GiB",
    )
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        known = [f"{row['model']} | {row['batch']} | {row['way']}"]
        if "error" in row:
            lines.append(f"| {known[0]} | {row['error'].strip().splitlines()[-1][:100]} |{' |' * 7}")
            continue
        share, busy = row["utilization"], row["busy_share"]
        known += [
            row["attention"], f"{row['ms_a_step']:.2f}", f"{row['examples_per_sec']:,.0f}",
            "–" if share is None else f"{share:.1%}", f"{row['kernels_a_step']:.0f}",
            "–" if busy is None else f"{busy:.0%}", f"{sum(row['waits'].values()):.1f}", f"{row['peak_memory_gib']:.1f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(known)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
