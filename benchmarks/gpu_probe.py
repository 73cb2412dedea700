"""The cost of one worker's step on this machine's GPU, without Ray: where its time goes, and what the host does meanwhile.

    python -m benchmarks.gpu_probe [--models modernbert-base sbert-minilm] [--batch 64 2048] [--ways graphs launched ...]
                                   [--steps 20] [--json FILE] [--device cpu]

For every model, batch and way: milliseconds a step, tokens a second, share of the chip's peak; milliseconds by phase, of the
host and of the GPU; tokens a second of an evaluation; kernels and the share of the time that the GPU is busy (torch's profiler);
places in the code where the host waits for the GPU (torch's sync debug mode); peak memory. Ways: `graphs`, small micro-batches
replayed as CUDA graphs, as runs do by themselves; `launched`, without; `compiled`, as `graphs` with compiled layers; `padded`, through
torch's sdpa; `trainer`, the Hugging Face Trainer: bf16, fused AdamW, batches of like length, padded, sdpa. SST2_RAY_TOKENIZER: folder
of ModernBERT's tokenizer. Where torch sees no GPU: one line, exit code 2; --device cpu tries the script itself.
"""

from __future__ import annotations

import collections
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from benchmarks.launches import config_of
from benchmarks.shared import finish, parser_of, provenance, task_of
from sst2_ray.run.prepare import RunInputs, check
from sst2_ray.run.tokenizing import prepare
from sst2_ray.training.calibrate import loop_of, measure_steps
from sst2_ray.training.loop import Loop
from sst2_ray.training.throughput import PHASES, model_flops_per_token, peak_flops, peak_memory_gib

WAYS: dict[str, dict[str, Any]] = {
    "graphs": {"compile": False},
    "launched": {"compile": False, "cuda_graphs": False},
    "compiled": {"compile": True},
    "padded": {"compile": False, "attention": "sdpa"},
    "trainer": {},
}

WARM_UP_STEPS = 40
"""Steps in which every size of batches occurs twice: then its graph is captured."""

PROFILED_STEPS = 3


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", default=["modernbert-base", "sbert-minilm"])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 2048])
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
    if device.type == "cuda":
        found["chip"] = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
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
    config = config_of(model, batch_size=batch, train_rows=min(64 * batch, 20_000), precision="auto", **WAYS[way])
    prepared = prepare(check(config))
    if way == "trainer":
        return trained(prepared, batch, steps)
    begun = time.perf_counter()
    loop = loop_of(task_of(prepared, config), prepared.tokens, device=device)
    measure_steps(loop, WARM_UP_STEPS)
    set_up = time.perf_counter() - begun
    timer = loop.context.timer
    tokens, padded = timer.num_tokens, timer.num_padded_tokens
    before = timer.phase_seconds(), dict(timer.seconds)
    examples, seconds = measure_steps(loop, steps)
    after = timer.phase_seconds(), dict(timer.seconds)
    on_gpu, on_host = (
        {p: 1e3 * (b.get(p, 0.0) - a.get(p, 0.0)) / steps for p in PHASES} for a, b in zip(before, after, strict=True)
    )
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
        "gpu_ms": on_gpu,
        "host_ms": on_host,
        "evaluated_tokens_per_sec": evaluated(loop),
        "waits": waits(loop, device),
        **profiled(loop, device),
    }


def evaluated(loop: Loop) -> float:
    """Measure an evaluation in bf16 of all training rows, without the fp32 of those near the boundary: random weights put all there."""
    rows = loop.context.train
    loop.context.logits(loop.context.evaluation, close=0.0)
    start = time.perf_counter()
    loop.context.logits(rows, close=0.0)
    return len(rows.input_ids) / (time.perf_counter() - start)


def trained(prepared: RunInputs, batch: int, steps: int) -> dict[str, Any]:
    """Train the same architecture from random weights by the Trainer, on one GPU and without this process's group."""
    from datasets import Dataset
    from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

    rows = prepared.tokens["train"]
    texts = np.split(rows.input_ids, rows.offsets[1:-1])
    data = [
        {"input_ids": i.tolist(), "labels": int(y), "length": len(i)} for i, y in zip(texts, rows.labels, strict=True)
    ]
    pad_id = int(prepared.resolved.architecture.get("pad_token_id") or 0)

    def collated(some: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [torch.tensor(row["input_ids"]) for row in some]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad_id)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)
        return {"input_ids": padded, "attention_mask": mask, "labels": torch.tensor([row["labels"] for row in some])}

    marks: list[float] = []
    on_gpu = torch.cuda.is_available()

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **_):  # type: ignore[no-untyped-def]  # noqa: ARG002
            if state.global_step in (WARM_UP_STEPS, WARM_UP_STEPS + steps):
                if on_gpu:
                    torch.cuda.synchronize()
                marks.append(time.perf_counter())

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch, bf16=True, optim="adamw_torch_fused", per_device_train_batch_size=batch, learning_rate=8e-5,
            train_sampling_strategy="group_by_length", length_column_name="length", dataloader_num_workers=2,
            max_steps=WARM_UP_STEPS + steps, logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
            use_cpu=not on_gpu,
        )  # fmt: skip
        config = AutoConfig.for_model(**prepared.resolved.architecture)
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
        own: dict[str, Any] = {
            "train_dataset": Dataset.from_list(data),
            "data_collator": collated,
            "callbacks": [Clock()],
        }
        Trainer(model=model, args=arguments, **own).train()
    seconds = marks[1] - marks[0]
    return {
        "ms_a_step": 1e3 * seconds / steps,
        "examples_per_sec": batch * steps / seconds,
        "attention": "sdpa",
        "utilization": None,
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


_HEADS = (
    "model", "batch", "way", "ms a step", "examples/s", "utilization", "GPU ms forward, backward, optimizer", "kernels",
    "busy", "waits", "evaluation, tokens/s", "GiB",
)  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {' | '.join(_HEADS)} |", f"|{'---|' * len(_HEADS)}"]
    for row in rows:
        known = [row["model"], str(row["batch"]), row["way"]]
        if "error" in row:
            known += [row["error"].strip().splitlines()[-1][:100], *[""] * (len(_HEADS) - 4)]
        else:
            phases = (
                [f"{row['gpu_ms'][phase]:.1f}" for phase in ("forward", "backward", "optimizer")]
                if "gpu_ms" in row
                else []
            )
            known += [
                f"{row['ms_a_step']:.2f}",
                f"{row['examples_per_sec']:,.0f}",
                _said(row, "utilization", ".1%"),
                ", ".join(phases) or "–",
                _said(row, "kernels_a_step", ".0f"),
                _said(row, "busy_share", ".0%"),
                f"{sum(row['waits'].values()):.1f}" if "waits" in row else "–",
                _said(row, "evaluated_tokens_per_sec", ",.0f"),
                _said(row, "peak_memory_gib", ".1f"),
            ]
        lines.append(f"| {' | '.join(known)} |")
    return "\n".join(lines)


def _said(row: dict[str, Any], name: str, form: str) -> str:
    value = row.get(name)
    return "–" if value is None else format(value, form)


if __name__ == "__main__":
    sys.exit(main())
