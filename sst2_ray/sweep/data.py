"""Data and models of a sweep: checked once, tokenized once a tokenizer, put into the object store once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.data.leaks import check_known_leak
from sst2_ray.data.load import load_splits
from sst2_ray.data.tokens import TokenArrays
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.planning.placement import check_batch
from sst2_ray.run.planning.summary import num_parameters, worker_memory
from sst2_ray.run.prepare import Checked, Prepared, prepare
from sst2_ray.run.supervisor import Shared

PROCESS_GIB = 0.9
"""Resident memory of a CPU worker before it has a model: Python, torch, transformers, DeepSpeed, Ray; measured."""

KEPT_GIB = 0.4
"""What the allocator of a CPU worker has been given back and keeps for a while (environment.JEMALLOC_CONF); measured."""


def check_sweep(config: SweepConfig) -> dict[str, Checked]:
    """By model: its data and weights, found and checked. Nothing is written. Raises InputError with one line."""
    base = dataclasses.replace(config.base, model=config.models[0], batch_size=max(config.batch_sizes))
    splits = load_splits(base)
    for batch_size in config.batch_sizes:
        check_batch(dataclasses.replace(base, batch_size=batch_size), len(splits.train))
    checked = {}
    for model in config.models:
        of_model = dataclasses.replace(base, model=model)
        resolved = resolve_model(of_model)
        leak = check_known_leak(resolved.info.trained_on, splits.corpus, allow=base.allow_leak)
        checked[model] = Checked(config=of_model, splits=splits, resolved=resolved, allowed_leak=leak)
    return checked


def prepare_sweep(checked: dict[str, Checked]) -> dict[str, Prepared]:
    """By model; models with the same tokenizer share the token arrays."""
    prepared: dict[str, Prepared] = {}
    tokens: dict[tuple[str, int], dict[str, TokenArrays]] = {}
    for model, one in checked.items():
        made = prepare(one)
        shared = tokens.setdefault((made.tokenizer_json, one.resolved.max_length), made.tokens)
        prepared[model] = dataclasses.replace(made, tokens=shared)
    return prepared


def share(prepared: dict[str, Prepared], ray: Any) -> dict[str, Shared]:
    """Everything in the object store once, however many models use it."""
    refs: dict[int, Any] = {}

    def put(value: Any) -> Any:
        if id(value) not in refs:
            refs[id(value)] = ray.put(value)
        return refs[id(value)]

    return {
        model: Shared(
            checked=one.checked,
            tokenizer_json=one.tokenizer_json,
            splits={name: put(tokens) for name, tokens in one.tokens.items()},
            texts=put(one.checked.splits.dev.texts),
        )
        for model, one in prepared.items()
    }


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a trial of a model needs besides cores."""

    memory_gib: float
    """Of a worker on CPU."""
    measured: bool
    """True: the peak of earlier trials. False: computed from the model's shape."""
    checkpoint_gib: float
    """Weights and two moments in fp32."""
    export_gib: float


def footprint(prepared: Prepared, table: ResultsTable, *, num_workers: int) -> Footprint:
    """Of a model, from the peaks that the results table has of it, else from its shape."""
    parameters = num_parameters(prepared.checked.resolved, prepared.vocab_size)
    part = worker_memory(prepared, num_workers=num_workers, use_gpu=False)
    # Beside what a step needs: a checkpoint's copy of the weights and of the worker's share of the moments.
    computed = PROCESS_GIB + KEPT_GIB + (part.total + 4 * parameters + part.optimizer) / 2**30
    peaks = [
        row["peak_memory_gib"]
        for row in table.read("trials", columns=["model", "device", "peak_memory_gib", "status"]).to_pylist()
        if row["model"] == prepared.checked.config.model and row["device"] == "cpu" and row["peak_memory_gib"]
    ]
    return Footprint(
        memory_gib=max(peaks) if peaks else computed,
        measured=bool(peaks),
        checkpoint_gib=12 * parameters / 2**30,
        export_gib=4 * parameters / 2**30,
    )
