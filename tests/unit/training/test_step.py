"""A step without waste: the host reads nothing that a GPU would still be computing, and nothing is kept twice."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from sst2_ray.config.train import TrainConfig
from sst2_ray.storage import Storage
from sst2_ray.training.engine.base import GradientNorm, NonFiniteError, skips
from sst2_ray.training.engine.zero import ZeroEngine
from sst2_ray.training.feed import prefetched
from sst2_ray.training.loop import Loop
from sst2_ray.training.taken_step import TakenStep
from tests.support import models
from tests.support.host_reads import HostReadError, no_host_reads
from tests.support.training import context_of, group_of_one, training_rows


@pytest.fixture(scope="module", autouse=True)
def of_one():
    """ZeRO-2 asks for a process group."""
    with group_of_one():
        yield


@pytest.fixture
def loop_of(tmp_path):
    def make(kind: str = "sbert", *, way: str = "varlen", **values) -> Loop:
        folder = getattr(models, f"{kind}_folder")(tmp_path / kind)
        defaults = {"engine": "zero2", "batch_size": 16, "precision": "bf16", "max_grad_norm": 1e-3}
        config = TrainConfig(model=str(folder), **{**defaults, **values})
        context = context_of(config, training_rows(96), training_rows(8), Storage.open(str(tmp_path / "run")))
        if way == "varlen":
            context.model.lay_end_to_end()
        context.model.supports_packing = False
        return Loop(context)

    return make


@pytest.mark.parametrize("way", ["varlen", "padded"])
@pytest.mark.parametrize("kind", ["sbert", "modernbert"])
@pytest.mark.parametrize("engine", ["zero2", "torch"])
def test_the_host_reads_nothing_in_a_step(loop_of, kind, way, engine):
    """Clipped, with dropout, and several micro-batches: the loss that is shown every 20 steps is the only read."""
    loop = loop_of(kind, way=way, engine=engine, encoder_dropout=0.1, dropout=0.1)
    loop.context.micro_batch_tokens = 64
    with ThreadPoolExecutor(1) as pool:
        batches = prefetched(loop.context, 0, pool)
        loop.train_step(next(batches))
        batch = next(batches)
        assert len(batch.inputs) > 1
        with no_host_reads():
            loop.train_step(batch)
    assert loop.grad_norm > 1e-3, "nothing was clipped"


def test_batches_filled_up_for_graphs_train_as_they_are(loop_of):
    """Weights, loss, right predictions and number of examples; the gradients lie where they lay."""
    found = []
    for cuda_graphs in (False, True):
        loop = loop_of("modernbert", precision="fp32", max_grad_norm=1.0)
        loop.context.micro_batch_tokens, loop.context.cuda_graphs = 64, cuda_graphs
        if cuda_graphs:
            loop.context.engine.hold_gradients()
        with ThreadPoolExecutor(1) as pool:
            batches = prefetched(loop.context, 0, pool)
            for _ in range(3):
                batch = next(batches)
                assert all((len(inputs[0][0]) % 64 == 0) >= cuda_graphs for inputs in batch.inputs)
                loop.train_step(batch)
        assert (loop.context.timer.num_padded_tokens > loop.context.timer.num_tokens) == cuda_graphs
        found.append([loop.sums, *loop.context.model.parameters()])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_a_read_is_refused():
    numbers = torch.arange(3)
    for read in (
        lambda: numbers[0].item(), lambda: bool(numbers[1] > 0), lambda: numbers.tolist(), lambda: numbers.nonzero(),
        lambda: numbers[numbers > 0], lambda: torch.repeat_interleave(numbers), lambda: numbers.masked_select(numbers > 0),
    ):  # fmt: skip
        with pytest.raises(HostReadError), no_host_reads():
            read()


def test_the_step_after_one_that_is_not_finite_raises_and_the_weights_are_those_before(loop_of):
    loop = loop_of(engine="zero2", precision="fp32")
    with ThreadPoolExecutor(1) as pool:
        batches = prefetched(loop.context, 0, pool)
        for _ in range(2):
            loop.train_step(next(batches))
        weight = loop.context.model.head.weight
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.fill_(torch.inf)
        loop.train_step(next(batches))
        assert bool(weight.isinf().all()), "nothing was updated"
        with torch.no_grad():
            weight.copy_(kept)
        shard = {name: tensor.clone() for name, tensor in loop.context.engine.optimizer_shard().tensors.items()}
        assert all(bool(tensor.isfinite().all()) for tensor in shard.values())
        assert loop.context.engine.optimizer_shard().step == 2
        with pytest.raises(NonFiniteError, match="at step 3 of "):
            loop.train_step(next(batches))


def test_a_step_that_is_not_finite_names_a_few_rows_and_advises_and_the_log_has_all(caplog):
    taken = TakenStep(GradientNorm(torch.tensor(torch.inf)), 4, 18, 7.5, np.arange(64))
    with pytest.raises(NonFiniteError) as caught, caplog.at_level("ERROR", logger="sst2_ray"):
        taken.grad_norm()
    assert str(caught.value) == (
        "gradient norm inf at step 4 of 18, learning rate 7.5, training rows 0, 1, 2, 3, 4, ... (64 rows; all in the log); "
        "try a lower --learning-rate"
    )
    assert "62, 63]" in caplog.text


def test_a_checkpoint_after_a_step_that_is_not_finite_is_refused(loop_of):
    loop = loop_of(engine="zero2", precision="fp32", checkpoint_every_steps=1, max_steps=3)
    loop.context.on_step = lambda done: loop.context.model.head.weight.data.fill_(torch.nan) if done == 1 else None
    with pytest.raises(NonFiniteError, match="at step 2 of 3"):
        loop.train()
    assert loop.saved_step == 1


@pytest.mark.parametrize("norm", [0.3, 1.0, 7.0])
def test_clipping_on_the_device_gives_the_bits_of_clipping_by_the_host(norm):
    def step(scale: torch.Tensor | None, found: torch.Tensor | None) -> list[torch.Tensor]:
        weight = torch.nn.Parameter(torch.randn(4099, generator=torch.Generator().manual_seed(0)))
        adamw = torch.optim.AdamW([weight], lr=1e-2, fused=True)
        for seed in (1, 2):
            weight.grad = torch.randn(4099, generator=torch.Generator().manual_seed(seed))
            adamw.grad_scale, adamw.found_inf = scale, found
            adamw.step()
        return [weight.detach(), *adamw.state[weight].values()]

    of_host = torch.tensor(norm / 1.0) if norm > 1.0 else None
    device = torch.tensor(norm, dtype=torch.float64)
    of_device = (device / 1.0).clamp_(min=1.0).to(torch.float32)
    for one, other in zip(step(of_host, None), step(of_device, skips(device)), strict=True):
        assert torch.equal(one, other)


def test_weights_are_held_once(loop_of):
    """DeepSpeed's first copy of the fp32 shard is freed: what is as large as the shard is the weights and the gradients."""
    before = _tensors()  # kept, so that nothing new lies where they lie
    engine = loop_of().context.engine
    assert isinstance(engine, ZeroEngine)
    flat = engine.optimizer.bit16_groups_flat[0]
    gc.collect()
    of_others = {tensor.untyped_storage().data_ptr() for tensor in before}
    held = {
        tensor.untyped_storage().data_ptr() for tensor in _tensors() if tensor.untyped_storage().nbytes() == flat.nbytes
    } - of_others
    assert flat.data_ptr() in held
    assert held <= {flat.data_ptr(), engine._gradients[0].data_ptr()}
    assert not any(parameter._hp_mapping for parameter in engine.module.parameters())


def _tensors() -> list[torch.Tensor]:
    kinds = (torch.Tensor, torch.nn.Parameter)
    return [thing for thing in gc.get_objects() if type(thing) in kinds and thing.layout is torch.strided]


def test_nothing_hangs_on_a_parameter_but_what_is_used(loop_of):
    engine = loop_of().context.engine
    assert not any(parameter._post_accumulate_grad_hooks for parameter in engine.module.parameters())
