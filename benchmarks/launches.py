"""Count the operators that a worker's step launches, by phase, counted on a CPU as a GPU would be given them. Nothing is timed.

    python -m benchmarks.launches [--models modernbert-base sbert-minilm] [--ways varlen padded compiled] [--json FILE]

A GPU runs what the host launches: 5 to 8 microseconds of Python and driver each, whatever their size. The step here is the
real one, on one micro-batch of 64 sentences in bf16: model, engine and loop of an attempt, in the layout of a GPU. A dispatch
mode counts what reaches torch's operators; views and allocations launch nothing and are left out. Ways: `varlen`, sentences
end to end, as GPUs of compute capability 8 get them; `padded`, as others do; `compiled`, varlen with compiled layers: the layers'
graphs are lowered and fused by Inductor, and every kernel and library call of its code counts one. Its CPU backend cuts them; a
GPU's may differ a little.

Models are counted at a fraction of their width, which takes seconds: operators depend on layers, not on what they hold.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.shared import data_name, finish, parser_of, process_group_of_one, provenance, task_of
from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling import dropout
from sst2_ray.modeling.attention import keyed
from sst2_ray.modeling.build import compile_layers
from sst2_ray.run.prepare import RunInputs, check
from sst2_ray.run.tokenizing import prepare
from sst2_ray.training.calibrate import loop_of
from sst2_ray.training.engine import base, zero
from sst2_ray.training.feed import prefetched
from sst2_ray.training.loop import Loop
from sst2_ray.training.task import DEFAULT_MICRO_BATCH_TOKENS

PHASES = ("forward", "backward", "communication", "optimizer")
WAYS = ("varlen", "padded", "compiled")

BATCH_SIZE = 64

NARROW: dict[str, dict[str, Any]] = {
    "modernbert-base": {"model_type": "modernbert", "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2},
    "sbert-minilm": {
        "model_type": "bert", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 6,
    },
}  # fmt: skip
"""The models' shapes, but for their width."""

_ALLOCATIONS = frozenset(
    {
        "empty",
        "empty_like",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
        "_unsafe_view",
        "detach",
        "lift_fresh",
        "_record_function_enter_new",
        "_record_function_exit",
    }
)
"""Operators that launch nothing, besides views: allocations, and marks for profilers."""


class LaunchCounter(TorchDispatchMode):
    """Counts operators by the phase that the loop's timer is in."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.timer = loop.context.timer
        self.launches: Counter[str] = Counter()
        self.names: dict[str, Counter[str]] = {}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let compiled layers run compiled although the mode is on."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[-1]
        if not func.is_view and name not in _ALLOCATIONS:
            self.add(name)
        return func(*args, **(kwargs or {}))

    def add(self, name: str, count: int = 1) -> None:
        """Count `count` launches of operator or kernel `name` in the phase that runs."""
        phase = str(self.timer.current)
        self.launches[phase] += count
        self.names.setdefault(phase, Counter())[name] += count


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="+", choices=NARROW, default=list(NARROW))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--top", type=int, default=0, help="print the most frequent operators of every phase as well")
    arguments = parser.parse_args()
    os.environ["DS_ACCELERATOR"] = "cpu"
    process_group_of_one()
    found = provenance()
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for model in arguments.models:
        for way in arguments.ways:
            counter = count(inputs_of(model), way)
            counts.setdefault(model, {})[way] = by_phase(counter)
            print(model, way, by_phase(counter), flush=True)
            for phase, names in counter.names.items() if arguments.top else ():
                print(f"  {phase}:", ", ".join(f"{n} {c}" for n, c in names.most_common(arguments.top)))
    finish({"batch_size": BATCH_SIZE, "counts": counts, **found}, table(counts), arguments.json)
    return 0


def config_of(model: str, **values: Any) -> TrainConfig:
    """A run of `model` on as many rows as a few steps need; base models from random weights where a tokenizer is named."""
    tokenizer = os.environ.get("SST2_RAY_TOKENIZER")
    random = model.startswith("modernbert-") and model != "modernbert-mini" and tokenizer is not None
    defaults = {
        "model": model, "data": data_name(), "batch_size": BATCH_SIZE, "train_rows": 4 * BATCH_SIZE,
        "dev_rows": BATCH_SIZE, "precision": "bf16", "epochs": 100, "micro_batch_tokens": DEFAULT_MICRO_BATCH_TOKENS["cuda"],
        **({"random_weights": True, "tokenizer": tokenizer} if random else {}),
    }  # fmt: skip
    return TrainConfig(**{**defaults, **values})


def inputs_of(model: str) -> RunInputs:
    """Prepare a run of a narrow `model` from random weights."""
    config = config_of("modernbert-mini" if model.startswith("modernbert") else model)
    found = prepare(check(config))
    info = dataclasses.replace(found.resolved.info, random_weights=True, origin="")
    return dataclasses.replace(
        found, resolved=dataclasses.replace(found.resolved, architecture=NARROW[model], info=info)
    )


def count(inputs: RunInputs, way: str) -> LaunchCounter:
    """The launches of a step after two that set everything up."""
    dropout._pairs.cache_clear()  # kept from another model of this process, they would not be launched
    with as_on_a_gpu():
        loop = loop_of(task_of(inputs), inputs.tokens)
        if way == "padded":
            loop.context.model.supports_packing = False
        else:
            loop.context.model.lay_end_to_end()
        graphs = GraphCounter()
        if way == "compiled":
            compile_layers(loop.context.model, backend=graphs)
        return counted(loop, graphs)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Choose inside as on a GPU: tables have dense gradients, clipping reads no norm, torch's sdpa computes padded attention."""
    rows, read, short = zero._TABLE_ROWS, base._READ_AT_ONCE, keyed._SHORT
    zero._TABLE_ROWS, base._READ_AT_ONCE, keyed._SHORT = sys.maxsize, "", 0
    try:
        yield
    finally:
        zero._TABLE_ROWS, base._READ_AT_ONCE, keyed._SHORT = rows, read, short


def counted(loop: Loop, graphs: GraphCounter, *, warm_up_steps: int = 2) -> LaunchCounter:
    """The launches of one step of `loop`, with those of compiled graphs."""
    counter = LaunchCounter(loop)
    with ThreadPoolExecutor(1) as pool:
        batches = prefetched(loop.context, loop.global_step, pool)
        for _ in range(warm_up_steps):
            loop.train_step(next(batches))
        batch = next(batches)
        assert len(batch.inputs) == 1, "one micro-batch a step"
        graphs.counter = counter
        with counter:
            loop.train_step(batch)
    loop.read_norm()
    return counter


def by_phase(counter: LaunchCounter) -> dict[str, int]:
    """The phases' counts and their sum; what happens between phases is in the sum."""
    return {**{phase: counter.launches[phase] for phase in PHASES}, "total": counter.launches.total()}


def table(counts: dict[str, dict[str, dict[str, int]]]) -> str:
    lines = [f"| model | way | {' | '.join((*PHASES, 'in all'))} |", f"|{'---|' * (len(PHASES) + 3)}"]
    lines += [
        f"| {model} | {way} | {' | '.join(f'{count:,}' for count in found.values())} |"
        for model, ways in counts.items()
        for way, found in ways.items()
    ]
    return "\n".join(lines)


class GraphCounter:
    """A compiler's backend that counts what Inductor would launch for a graph, and runs the graph as it was traced.

    Inductor lowers, fuses and writes its code for real; only its C++ is not compiled, so that no compiler is needed.
    """

    def __init__(self) -> None:
        self.counter: LaunchCounter | None = None
        """Counter of graph calls; None: they are not counted."""

    def __call__(self, graph: Any, inputs: Any) -> Any:
        from torch._dynamo.backends.common import aot_autograd
        from torch._inductor.decomposition import select_decomp_table

        return aot_autograd(fw_compiler=self._lower, decompositions=select_decomp_table())(graph, inputs)

    def _lower(self, graph: Any, inputs: Any) -> Any:
        import copy

        from torch._inductor.async_compile import AsyncCompile
        from torch._inductor.compile_fx import compile_fx_inner

        compile_code, AsyncCompile.cpp_pybinding = AsyncCompile.cpp_pybinding, _nothing_compiled  # type: ignore[method-assign]
        try:
            with torch._inductor.config.patch(force_disable_caches=True):
                compiled = compile_fx_inner(copy.deepcopy(graph), inputs)
        finally:
            AsyncCompile.cpp_pybinding = compile_code  # type: ignore[method-assign]
        calls = len(re.findall(_KERNEL_CALLS, compiled.source_code.partition("def call(")[2], re.MULTILINE))

        def run(*arguments: Any) -> Any:
            if self.counter is None:
                return graph(*arguments)
            self.counter.add("compiled kernel", calls)
            with torch.utils._python_dispatch._disable_current_modes():
                return graph(*arguments)

        return run


_KERNEL_CALLS = r"^\s+(?:\w+ = )?(?:cpp_fused_\w+|extern_kernels\.\w+|torch\.ops\.[\w.]+|aten\.[\w.]+)\("


def _nothing_compiled(*_: Any, **__: Any) -> Any:
    return lambda *_: None


if __name__ == "__main__":
    sys.exit(main())
