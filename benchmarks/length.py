"""Tokens a second of a training step and peak memory by length: ModernBERT-base's shape against BERT-base's.

    python -m benchmarks.length [--lengths 64 128 512 2048 8192] [--repeats 2] [--json FILE] [--picture FILE.png]

Both have random weights from their transformers config, dropout 0 and this package's classifier and packing on top;
BERT-base's position table is enlarged to the length where that is above 512. A step is forward, backward, clipping and
fused AdamW on plain torch, matrix products in bf16 where the chip computes in it, over max(length, --tokens) tokens of
one length, or over the mixed set: lengths drawn log-uniformly from the shortest to the longest, as many tokens as the
longest. Every measurement is a process of its own, in alternation, so that its peak memory is its own.

Models are measured at 1 and 4 layers and extrapolated: ModernBERT's layers repeat in threes (two local, one global)
behind the first, so its 22 layers are 1 + 7 * 3, and BERT's 12 are alike. --whole measures all layers instead.

About 7 minutes on two cores whose bf16 products run at 800 GFLOP/s, counted from the arithmetic; --whole four times as
long. Where products run in fp32 at 100 GFLOP/s, --tokens 1024 --repeats 1 takes about 9.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any
from unittest import mock

from benchmarks.shared import finish, parser_of, provenance, with_the_workers_allocator

MODELS = {"modernbert": ("ModernBERT-base's shape", 22), "bert": ("BERT-base's shape", 12)}
"""Name and layers, both of transformers' default config."""

FEW, MORE, PERIOD = 1, 4, 3
"""Layers that are measured, and after how many they repeat."""

MIXED = 0
"""Stands for the mixed set among lengths."""


def main() -> int:
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(**json.loads(sys.argv[2]))))
        return 0
    parser = parser_of(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 512, 2048, 8192])
    parser.add_argument("--tokens", type=int, default=4096, help="a step where sentences are shorter")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="timed in a measurement; of steps above --tokens, one")
    parser.add_argument("--whole", action="store_true", help="all layers, nothing extrapolated")
    parser.add_argument("--picture", help="draw tokens/s and memory by length to this file")
    arguments = parser.parse_args()
    with_the_workers_allocator("benchmarks.length")
    found = provenance()
    runs: dict[str, dict[int, list[dict[str, Any]]]] = {m: {n: [] for n in [*arguments.lengths, MIXED]} for m in MODELS}
    for repeat in range(arguments.repeats):
        for length in [*arguments.lengths, MIXED]:
            for model in MODELS:
                runs[model][length].append(one(arguments, model, length))
                print(
                    f"{repeat + 1}/{arguments.repeats} {model}, {words(length)}: {said(runs[model][length][-1])}",
                    flush=True,
                )
    finish({**vars(arguments), "runs": runs, **found}, table(runs), arguments.json)
    if arguments.picture:
        draw(runs, arguments.picture, found["chip"])
    return 0


def words(length: int) -> str:
    return f"{length} tokens" if length else "mixed"


def said(run: dict[str, Any]) -> str:
    return f"{run['tokens_per_sec']:.0f} tokens/s, {run['peak_memory_gib']:.2f} GiB"


def one(arguments: Any, model: str, length: int) -> dict[str, Any]:
    """Measure the whole model once."""
    longest = max(arguments.lengths)
    lengths = (
        drawn(min(arguments.lengths), longest) if length == MIXED else [length] * max(1, arguments.tokens // length)
    )
    layers = MODELS[model][1]
    depths = [layers] if arguments.whole else [FEW, MORE]
    steps = arguments.steps if sum(lengths) <= arguments.tokens else 1
    job = json.dumps({"model": model, "lengths": lengths, "depths": depths, "steps": steps})
    command = [sys.executable, "-m", "benchmarks.length", "--measure", job]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr}")
    raw = json.loads(ended.stdout.splitlines()[-1])

    def whole(values: list[float]) -> float:
        if arguments.whole:
            return values[0]
        return values[0] + (layers - FEW) / PERIOD * (values[1] - values[0])

    seconds = whole([min(times) for times in raw["seconds"]])
    return {
        "tokens_per_sec": sum(lengths) / seconds,
        "seconds_per_step": seconds,
        "peak_memory_gib": whole(raw["peak_memory_gib"]),
        "tokens": sum(lengths),
        "depths": depths,
        "raw": raw,
    }


def drawn(shortest: int, longest: int) -> list[int]:
    """Draw the lengths of the mixed set, always the same: `longest` tokens in all."""
    import numpy as np

    random, lengths = np.random.default_rng(0), []
    while sum(lengths) < longest:
        lengths.append(round(float(np.exp(random.uniform(np.log(shortest), np.log(longest))))))
    lengths[-1] -= sum(lengths) - longest
    return sorted(lengths, reverse=True)


def measure(model: str, lengths: list[int], depths: list[int], steps: int) -> dict[str, Any]:
    """Measure the seconds of `steps` steps after one of warm-up and the peak of this process, at every depth."""
    from sst2_ray.training.throughput import peak_memory_gib

    seconds, peaks = [], []
    for depth in depths:
        step, device = _step(model, lengths, depth)
        step()
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        del step
        seconds.append(times)
        peaks.append(peak_memory_gib(device))
    return {"seconds": seconds, "peak_memory_gib": peaks}


def _step(model: str, lengths: list[int], layers: int) -> tuple[Any, Any]:
    import torch

    from sst2_ray.config.train import TrainConfig
    from sst2_ray.modeling.optimizer import build_optimizer
    from sst2_ray.training.engine.torch import TorchEngine
    from sst2_ray.training.precision import bf16_is_native

    device = torch.device("cpu")
    classifier = _classifier(model, layers, max(lengths)).train()
    engine = TorchEngine(classifier, build_optimizer(classifier, TrainConfig()), max_grad_norm=1.0)
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()  # [rows, width]
    ids = torch.randint(1000, 30_000, mask.shape, generator=generator) * mask
    labels = torch.randint(0, 2, (len(lengths),), generator=generator)
    bf16 = bf16_is_native(device)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = classifier(ids, mask)
        engine.backward(torch.nn.functional.cross_entropy(logits.float(), labels))
        engine.step(1e-5)

    return step, device


def _classifier(model: str, layers: int, width: int) -> Any:
    import torch
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING, AutoConfig, initialization

    from sst2_ray.modeling.build import load_backbone
    from sst2_ray.modeling.classifier import ModernBertClassifier, SbertClassifier
    from sst2_ray.modeling.sources import ModelInfo
    from sst2_ray.modeling.sources.folders import SbertStack

    info = ModelInfo(
        kind="modernbert" if model == "modernbert" else "sbert", source="random", revision=None, random_weights=True,
        label=MODELS[model][0], attention="sdpa",
    )  # fmt: skip
    if model == "modernbert":
        config = AutoConfig.for_model("modernbert", num_hidden_layers=layers)
        head = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
        # Its truncated normal distribution takes a minute to draw on a CPU; these numbers mean nothing.
        normal = {"trunc_normal_": lambda tensor, mean, std, **_: torch.nn.init.normal_(tensor, mean, std)}
        with mock.patch.dict(initialization.TORCH_INIT_FUNCTIONS, normal):
            return ModernBertClassifier(info, load_backbone(head, config, None, "sdpa", source=model))
    config = AutoConfig.for_model(
        "bert", num_hidden_layers=layers, max_position_embeddings=max(512, width), hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    backbone = load_backbone(MODEL_MAPPING[type(config)], config, None, "sdpa", source=model)
    return SbertClassifier(info, backbone, SbertStack(), dropout=0.0)


def medians(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the median tokens/s and GiB."""
    return tuple(statistics.median(row[name] for row in rows) for name in ("tokens_per_sec", "peak_memory_gib"))  # type: ignore[return-value]


def table(runs: dict[str, dict[int, list[dict[str, Any]]]]) -> str:
    """Render medians and ratios by length in Markdown."""
    names = [name for name, _ in MODELS.values()]
    lines = [
        f"| length | tokens a step | {names[0]}, tokens/s | {names[1]}, tokens/s | ratio | {names[0]}, GiB | {names[1]}, GiB | ratio |",
        f"|{'---|' * 8}",
    ]
    for length in runs["bert"]:
        (a, a_gib), (b, b_gib) = (medians(runs[model][length]) for model in MODELS)
        tokens = runs["bert"][length][0]["tokens"]
        lines.append(
            f"| {words(length)} | {tokens:,} | {a:.0f} | {b:.0f} | {a / b:.2f} | {a_gib:.2f} | {b_gib:.2f} | {a_gib / b_gib:.2f} |"
        )
    return "\n".join(lines)


def draw(runs: dict[str, dict[int, list[dict[str, Any]]]], path: str, chip: str) -> None:
    """Draw two panels over the length; the mixed set as a dotted line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, place, title in zip(figure.subplots(1, 2), (0, 1), ("tokens/s", "peak memory, GiB"), strict=True):
        for colour, (model, (name, _)) in zip(("#1b6ca8", "#c8553d"), MODELS.items(), strict=True):
            fixed = [length for length in runs[model] if length]
            axes.plot(fixed, [medians(runs[model][n])[place] for n in fixed], "o-", color=colour, label=name)
            mixed = medians(runs[model][MIXED])[place]
            axes.axhline(mixed, color=colour, linestyle=":", label=f"{name}, mixed lengths")
        axes.set_xscale("log", base=2)
        axes.set_xticks(fixed, [f"{n:,}" for n in fixed])
        axes.set_xlabel("tokens a sentence")
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(f"A training step, random weights, {chip}", fontsize=9)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
