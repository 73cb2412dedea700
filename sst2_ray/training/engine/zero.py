"""DeepSpeed ZeRO-2 behind the engine protocol; the only module that knows DeepSpeed."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from types import ModuleType

import torch
from torch import Tensor, nn

from sst2_ray.modeling.compiler import HAS_TRITON
from sst2_ray.training.engine.base import (
    STATE_NAMES,
    GradientNorm,
    OptimizerShard,
    Span,
    clip_scale,
    collect_gradients,
    parameter_names,
    skips,
)
from sst2_ray.training.engine.collectives import (
    exchange_rows,
    gather_parameters,
    global_norm,
    make_tables_sparse,
    sum_to_shards,
)
from sst2_ray.training.engine.overlap import OverlappedSums, pays

_TABLE_ROWS = 4096
"""Rows from which on an embedding table has sparse gradients on a CPU: a batch looks up few of them."""

PRIVATE_NAMES = {
    "deepspeed.runtime.engine:DeepSpeedEngine": ("_flush_coalesced_reduction_zero12", "coalesce_grad_reduction"),
    "deepspeed.runtime.zero.stage_1_and_2": ("all_gather_dp_groups", "GradPartitionBufferGroup"),
    "deepspeed.runtime.zero.stage_1_and_2:DeepSpeedZeroOptimizer": (
        "_grad_acc_hooks",
        "_update_model_bit16_weights",
        "averaged_gradients",
        "bit16_groups",
        "bit16_groups_flat",
        "round_robin_bit16_offsets",
        "single_partition_of_fp32_groups",
    ),
}
"""Names of DeepSpeed that are used here without being public API, by module and class."""

_CONFIG = {
    "train_micro_batch_size_per_gpu": 1,  # bookkeeping only: data.batching decides what a step holds
    "gradient_accumulation_steps": 1,
    "gradient_clipping": 0.0,
    "zero_optimization": {
        "stage": 2,
        "compute_grad_norm": False,
        "overlap_comm": False,  # DeepSpeed's own; see overlap.py
    },
    "zero_allow_untested_optimizer": True,
    "steps_per_print": 10**9,
    "wall_clock_breakdown": False,
    "timers": {"throughput": {"enabled": False}},  # it waits for the GPU before every forward pass
}


class ZeroEngine:
    """DeepSpeed ZeRO-2 over the default process group: every rank keeps its share of AdamW's state.

    DeepSpeed lays the parameters out, shards AdamW's state, updates the shards and gathers the parameters. Gradients are
    reduced here instead: DeepSpeed's way (bucket, division, message, back into the bucket, partition, flat vector, norm
    in fp64) passes over all gradients eight times; this one is a copy, the messages and a norm. On a CPU, the gradient of
    a token embedding is written and sent as the rows that the batch looked up: 1 % of half of MiniLM's parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.AdamW,
        *,
        max_grad_norm: float,
        device: torch.device,
        overlap_comm: bool,
    ) -> None:
        groups = [list(group["params"]) for group in optimizer.param_groups]
        self.names = parameter_names(model, groups)
        self.max_grad_norm = max_grad_norm
        self.world_size = torch.distributed.get_world_size()
        self.rank = torch.distributed.get_rank()
        deepspeed = _import_deepspeed(device)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model, optimizer=optimizer, dist_init_required=False, config=_CONFIG
        )
        self.module = self.engine.module
        self.engine._flush_coalesced_reduction_zero12 = self._reduce
        if device.type == "cpu":
            deepspeed.runtime.zero.stage_1_and_2.all_gather_dp_groups = gather_parameters
        self._prepare_gradients(device, overlap_comm)
        self._lighten()

    def _lighten(self) -> None:
        """Switch off what DeepSpeed does in every step for features that are not used here, and free what it keeps."""
        # Masters and parameters are both fp32: the shard is a view of the parameters, so that DeepSpeed's copy after
        # every step copies nothing.
        for master, flat in zip(self._partitions(), self.optimizer.bit16_groups_flat, strict=True):
            master.data = flat.detach().narrow(0, self.rank * master.numel(), master.numel())
        # Views of the first masters, for a lookup of single parameters' state: they would keep a second copy of the shard.
        for group in self.optimizer.bit16_groups:
            for parameter in group:
                parameter._hp_mapping = None
        # Parameters are views of the flat vectors, which are updated in place: there is nothing to point to anew.
        self.optimizer._update_model_bit16_weights = lambda _: None
        # A hook a parameter that counts towards a reduction which never happens: see _reduce.
        for hook in self.optimizer._grad_acc_hooks:
            hook.remove()
        self.optimizer._grad_acc_hooks.clear()
        if HAS_TRITON and self.optimizer.bit16_groups_flat[0].is_cuda:
            from sst2_ray.modeling.optimizer_kernel import step_in_one_pass

            self.optimizer.optimizer.step = partial(step_in_one_pass, self.optimizer.optimizer)

    def _prepare_gradients(self, device: torch.device, overlap_comm: bool) -> None:
        """Allocate the flat gradients, and choose how those of each group and table are reduced."""
        self._gradients = [torch.zeros_like(flat) for flat in self.optimizer.bit16_groups_flat]
        every = range(len(self._gradients))
        early = [i for i in every if overlap_comm and self.world_size > 1 and pays(self._gradients[i])]
        self._late = [i for i in every if i not in early]
        self._overlapped = OverlappedSums([(self._gradients[i], self._places(i)) for i in early]) if early else None
        # For each table: the rows of this rank's shard that are not 0 in `_gradients`.
        of_cpu = device.type == "cpu" and not early
        self._touched = make_tables_sparse(self.module, least_rows=_TABLE_ROWS) if of_cpu else {}
        self._dense = [self._dense_pieces(index) for index in every]
        self._held: list[tuple[nn.Parameter, Tensor]] = []

    def hold_gradients(self) -> None:
        """See TrainEngine: that memory are the flat vectors, and nothing is copied into them."""
        assert self._overlapped is None and not self._touched, "other ways to reduce replace the gradients"
        for index, flat in enumerate(self._gradients):
            self._held += [(p, flat.narrow(0, at, p.numel()).view_as(p)) for p, at in self._places(index)]

    def collect(self, *, first: bool) -> None:
        collect_gradients(self._held, first=first)

    def accumulation(self) -> AbstractContextManager[object]:
        context: AbstractContextManager[object] = self.engine.coalesce_grad_reduction()
        return context

    def _reduce(self, optimizer: torch.optim.Optimizer) -> None:
        """Sum each group's gradients over all ranks into this rank's shard. DeepSpeed calls it when accumulation ends."""
        from deepspeed.runtime.zero.stage_1_and_2 import GradPartitionBufferGroup

        if self._overlapped is not None:
            self._overlapped.finish()
        for index in self._late:
            self._sum(index)
        for index, flat in enumerate(self._gradients):
            size = self._partitions()[index].numel()
            shard = flat.narrow(0, self.rank * size, size)
            optimizer.averaged_gradients[index] = GradPartitionBufferGroup([shard], shard)

    def _sum(self, index: int) -> None:
        """Reduce a group's gradients after the backward pass."""
        flat, places, gradients = self._gradients[index], [], []
        for parameter, offset in () if self._held else self._places(index):
            place = flat.narrow(0, offset, parameter.numel()).view_as(parameter)
            if parameter in self._touched:
                self._sum_rows(parameter, place, self._shares(index, offset, parameter))
            elif parameter.grad is None:  # nothing of this batch reached it
                place.zero_()
            else:
                places.append(place)
                gradients.append(parameter.grad)
            parameter.grad = None
        if places:
            torch._foreach_copy_(places, gradients)
        if self.world_size > 1:
            sum_to_shards(flat, self._dense[index])

    def _sum_rows(self, parameter: nn.Parameter, table: Tensor, shares: list[tuple[int, int]]) -> None:
        """Write the sum of the ranks' gradients of `parameter` to this rank's share of `table` [rows, size]."""
        gradient = parameter.grad
        if gradient is None:
            ids, rows = torch.empty(0, dtype=torch.int64), parameter.new_empty(0, parameter.size(1))
        else:
            gradient = gradient.coalesce() if gradient.is_sparse else gradient.to_sparse(1)
            ids, rows = gradient.indices()[0], gradient.values()
        parts = exchange_rows(ids, rows, shares)
        table.index_fill_(0, self._touched[parameter], 0.0)
        for ids, rows in parts:
            table.index_add_(0, ids, rows)
        self._touched[parameter] = torch.cat([ids for ids, _ in parts])

    def _shares(self, index: int, offset: int, table: Tensor) -> list[tuple[int, int]]:
        """Return, for each rank, the range of rows that its shard of the group holds a part of.

        `table` [rows, size] begins at `offset` of the flat vector.
        """
        rows, size = table.shape
        ends = [rank * self._partitions()[index].numel() - offset for rank in range(self.world_size + 1)]
        return [(min(max(start // size, 0), rows), min(max(-(-end // size), 0), rows)) for start, end in pairwise(ends)]

    def _dense_pieces(self, index: int) -> list[list[Tensor]]:
        """Return, for each rank, the views of its shard of a group's gradients that belong to no table."""
        flat, size = self._gradients[index], self._partitions()[index].numel()
        tables = sorted((offset, offset + p.numel()) for p, offset in self._places(index) if p in self._touched)
        starts, ends = [0, *(end for _, end in tables)], [*(start for start, _ in tables), flat.numel()]
        return [
            [
                flat[max(start, first) : min(end, first + size)]
                for start, end in zip(starts, ends, strict=True)
                if max(start, first) < min(end, first + size)
            ]
            for first in range(0, flat.numel(), size)
        ]

    def backward(self, loss: Tensor, *, is_last: bool = False) -> None:
        if self._overlapped is not None and is_last:
            self._overlapped.last_backward()
        self.engine.backward(loss, scale_wrt_gas=False)
        for table in self._touched:
            # Micro-batches append the rows that they look up: sum them before they outgrow the table.
            if table.grad is not None and table.grad.is_sparse and table.grad._nnz() > table.size(0):
                table.grad = table.grad.coalesce()

    def step(self, learning_rate: float) -> GradientNorm:
        norm = global_norm([gradients.flat_partition for gradients in self.optimizer.averaged_gradients.values()])
        adamw = self.optimizer.optimizer
        adamw.grad_scale = clip_scale(norm, self.max_grad_norm)
        adamw.found_inf = skips(norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.engine.step()
        return GradientNorm(norm)

    def _partitions(self) -> list[Tensor]:
        """Return this rank's fp32 shard of every group."""
        partitions: list[Tensor] = list(self.optimizer.single_partition_of_fp32_groups)
        return partitions

    def _places(self, index: int) -> list[tuple[nn.Parameter, int]]:
        """Return a group's parameters with their offsets in its flat vector."""
        offsets = map(int, self.optimizer.round_robin_bit16_offsets[index])
        return list(zip(self.optimizer.bit16_groups[index], offsets, strict=True))

    def _layout(self) -> tuple[tuple[int, ...], tuple[Span, ...]]:
        """Return where this rank's shards start and where every parameter lies."""
        starts = tuple(self.rank * partition.numel() for partition in self._partitions())
        spans = tuple(
            Span(name=name, group=index, offset=offset, numel=parameter.numel())
            for index, names in enumerate(self.names)
            for name, (parameter, offset) in zip(names, self._places(index), strict=True)
        )
        return starts, spans

    def optimizer_shard(self) -> OptimizerShard:
        state = self.optimizer.optimizer.state
        tensors, step = {}, 0.0
        for index, partition in enumerate(self._partitions()):
            for name in STATE_NAMES:
                tensors[f"{index}.{name}"] = (
                    state[partition][name] if partition in state else torch.zeros_like(partition)
                )
            step = float(state[partition]["step"]) if partition in state else 0.0
        starts, spans = self._layout()
        return OptimizerShard(tensors=tensors, starts=starts, spans=spans, step=step)

    def load_optimizer_shard(self, shard: OptimizerShard) -> None:
        for index, partition in enumerate(self._partitions()):
            moments = {name: shard.tensors[f"{index}.{name}"].clone().to(partition.device) for name in STATE_NAMES}
            self.optimizer.optimizer.state[partition] = {
                "step": torch.tensor(shard.step, device=partition.device),
                **moments,
            }


def _import_deepspeed(device: torch.device) -> ModuleType:
    """Import DeepSpeed quietly, without the minute that it may spend compiling at its first start on a CPU."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    else:  # DeepSpeed computes on cuda:LOCAL_RANK, which need not be the device that Ray gave
        os.environ["LOCAL_RANK"] = str(device.index or 0)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    # It would compile a shared-memory collective that nothing here calls. The table of compatible ops is not public
    # API; without the entry, compiling takes up to a minute, and nothing else changes. DeepSpeed makes the table when it
    # is first looked at, by running a compiler for every op; one that is there already is taken as it is.
    if device.type == "cpu":
        vars(deepspeed.ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed
