"""Tests of what only a machine with NVIDIA GPUs can show: bf16 through ZeRO-2 with NCCL, attention, memory that runs out, parity.

python -m pytest tests/gpu
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.attention import varlen
from sst2_ray.modeling.attention.choice import VARLEN, choose_attention
from sst2_ray.modeling.attention.modernbert import turned_attention
from sst2_ray.modeling.attention.varlen import varlen_attention
from sst2_ray.modeling.dropout import drop_tokens
from sst2_ray.modeling.optimizer import build_optimizer
from sst2_ray.storage import Storage
from sst2_ray.training.calibrate import measure_steps
from sst2_ray.training.fault_injection import VARIABLE
from sst2_ray.training.feed import on_device
from sst2_ray.training.loop import Loop
from sst2_ray.training.task import DEFAULT_MICRO_BATCH_TOKENS
from tests.support import models
from tests.support.flash import places_of
from tests.support.runs import Runs, made_runs, started_ray
from tests.support.training import context_of, digest_of, training_rows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can compute on")

ROOT = Path(__file__).resolve().parents[2]

STEPS = 20
"""An epoch of 310 rows in batches of 16."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Yield runs on a Ray that finds this machine's GPUs. The first attempt of a run of more than three epochs is out of memory."""
    made = made_runs(tmp_path_factory.mktemp("runs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, json.dumps([{"kind": "oom", "attempt": 0, "rank": 0, "step": 3 * STEPS + 1}]))
        for _ in started_ray():
            yield made


def on_gpus(runs: Runs, name: str, **values):
    """Train with a worker a GPU, of at most 8; return the row of the run's last attempt."""
    workers = min(8, torch.cuda.device_count())
    runs.train(name, **{"num_workers": workers, "cpus_per_worker": None, "use_gpu": True, **values})
    return [row for row in runs.rows("trials", name) if row["status"] != "running"][-1]


@pytest.mark.parametrize("kind", ["sbert", "modernbert"])
def test_there_is_a_worker_a_gpu_and_bf16_where_the_chip_has_it(runs: Runs, kind: str) -> None:
    row = on_gpus(runs, f"bf16-{kind}", model=str(runs.folder / kind), precision="auto", epochs=2)
    assert row["status"] == "succeeded"
    assert row["engine"] == "zero2"
    assert row["precision"] == ("bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp32")
    assert (row["device"], row["chip"]) == ("cuda", torch.cuda.get_device_name())
    nodes = json.loads(row["node_types_json"])
    assert [node["gpu"] for node in nodes] == [torch.cuda.get_device_name()] * min(8, torch.cuda.device_count())
    assert row["peak_memory_gib"] > 0
    assert 0 < row["forward_seconds"] < row["seconds"]


def test_attention_is_flash_attention_where_it_can_be_had_and_sdpa_with_the_reason_elsewhere() -> None:
    attention, reason = choose_attention("auto", torch.device("cuda"))
    assert attention == (VARLEN if torch.cuda.get_device_capability()[0] >= 8 else "sdpa")
    assert reason
    assert choose_attention("sdpa", torch.device("cuda")) == ("sdpa", "asked for")


def test_where_memory_runs_out_the_micro_batch_is_halved(runs: Runs) -> None:
    row = on_gpus(runs, "out-of-memory", epochs=4)
    first = next(row for row in runs.rows("trials", "out-of-memory") if row["status"] == "failed")
    computed = first["micro_batch_tokens"]
    assert first["failure_class"] == "out_of_memory"
    assert 1 < computed < DEFAULT_MICRO_BATCH_TOKENS["cuda"]
    assert row["micro_batch_tokens"] == computed // 2
    assert (row["status"], row["last_global_step"]) == ("succeeded", 4 * STEPS)


@pytest.mark.parametrize("kind", ["sbert", "modernbert"])
def test_fp32_on_gpus_gives_the_losses_of_a_cpu(runs: Runs, kind: str) -> None:
    """Losses agree loosely: kernels sum in other orders, and a GPU may round the factors of fp32 products."""
    options = {
        "model": str(runs.folder / kind), "dropout": 0.0, "encoder_dropout": 0.0, "evaluations_per_epoch": STEPS,
    }  # fmt: skip
    on_gpus(runs, f"gpu-{kind}", **options)
    runs.train(f"cpu-{kind}", num_workers=1, use_gpu=False, **options)
    losses = {where: [row["train_loss"] for row in runs.rows("epochs", f"{where}-{kind}")] for where in ("gpu", "cpu")}
    assert len(losses["gpu"]) == STEPS
    np.testing.assert_allclose(losses["gpu"], losses["cpu"], rtol=1e-2)


needs_varlen = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] < 8, reason="needs compute capability 8.0"
)


@needs_varlen
@pytest.mark.parametrize("kind", ["sbert", "modernbert"])
def test_sentences_laid_end_to_end_train_as_padded_ones_do(runs: Runs, kind: str) -> None:
    """bf16 rounds, and FlashAttention sums in another order."""
    options = {
        "model": str(runs.folder / kind), "precision": "bf16", "num_workers": 1, "dropout": 0.0, "encoder_dropout": 0.0,
        "evaluations_per_epoch": STEPS, "cuda_graphs": False,
    }  # fmt: skip
    for attention in (VARLEN, "sdpa"):
        row = on_gpus(runs, f"{attention}-{kind}", attention=attention, **options)
        assert attention != VARLEN or row["padding_fraction"] == 0
    losses = {name: [row["train_loss"] for row in runs.rows("epochs", f"{name}-{kind}")] for name in (VARLEN, "sdpa")}
    np.testing.assert_allclose(losses[VARLEN], losses["sdpa"], rtol=2e-2)


@needs_varlen
@pytest.mark.parametrize("kind", ["sbert", "modernbert"])
def test_graphs_train_as_launched_kernels_do_bit_for_bit(tmp_path: Path, kind: str) -> None:
    """Several micro-batches a step, dropout by keys and of attention by the GPU's generator, clipping; sizes that recur."""
    folder = getattr(models, f"{kind}_folder")(tmp_path / kind)
    config = TrainConfig(
        model=str(folder), engine="torch", batch_size=16, precision="bf16", max_grad_norm=1e-3, dropout=0.1, encoder_dropout=0.1,
        attention=VARLEN,
    )  # fmt: skip
    found = []
    for replayed in (True, False):
        rows = training_rows(96), training_rows(8)
        context = context_of(config, *rows, Storage.open(str(tmp_path / str(replayed))), device="cuda")
        context.cuda_graphs, context.micro_batch_tokens = True, 128
        context.engine.hold_gradients()
        loop = Loop(context)
        if not replayed:
            loop.gradients.graphs = None
        measure_steps(loop, 30)
        assert not replayed or any(loop.gradients.graphs._graphs.values()), "nothing was captured"
        found.append((digest_of(context.model), loop.sums.tolist()))
    assert found[0] == found[1]


@needs_varlen
@pytest.mark.parametrize("window", [-1, 3, 20])
@pytest.mark.parametrize(("size", "short"), [(8, 64), (32, 0), (64, 0), (32, 64), (64, 64), (128, 64)])
def test_kernels_of_attention_give_what_their_contract_in_plain_torch_gives(
    monkeypatch: pytest.MonkeyPatch, window: int, size: int, short: int
) -> None:
    """Check torch's kernels and ours, which takes sentences that are `short`."""
    monkeypatch.setattr(varlen, "_SHORT", short)
    ends = torch.tensor([0, 7, 8, 20, 90, 155, 200], dtype=torch.int32)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(200, 2, size, generator=generator).bfloat16() for _ in range(4)]
    found = {}
    for device in ("cpu", "cuda"):
        q, k, v = (x.to(device).requires_grad_() for x in inputs[:3])
        output, log_sum, _ = varlen_attention(
            q, k, v, *(x.to(device) for x in places_of(ends)), 70, size**-0.5, window, 0.0
        )
        gradients = torch.autograd.grad(output, (q, k, v), inputs[3].to(device))
        found[device] = [x.float().cpu() for x in (output, log_sum, *gradients)]
    torch.testing.assert_close(found["cuda"], found["cpu"], rtol=2e-2, atol=2e-2)


@needs_varlen
@pytest.mark.parametrize("window", [-1, 3, 20])
def test_attention_that_turns_its_queries_and_keys_gives_what_its_contract_gives(window: int) -> None:
    ends = torch.tensor([0, 7, 8, 20, 90, 155, 200], dtype=torch.int32)
    generator = torch.Generator().manual_seed(0)
    qkv, given = (torch.randn(*shape, 2, 64, generator=generator).bfloat16() for shape in ((200, 3), (200,)))
    angles = torch.rand(200, 32, generator=generator).mul(6).repeat(1, 2)
    found = {}
    for device in ("cpu", "cuda"):
        inputs = qkv.to(device).requires_grad_()
        cos, sin = angles.cos().to(device), angles.sin().to(device)
        output, log_sum = turned_attention(inputs, cos, sin, *(x.to(device) for x in places_of(ends)), 0.125, window)
        (gradient,) = torch.autograd.grad(output, inputs, given.to(device))
        found[device] = [x.float().cpu() for x in (output, log_sum, gradient)]
    torch.testing.assert_close(found["cuda"], found["cpu"], rtol=2e-2, atol=2e-2)


def test_adamw_in_one_pass_is_torch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    from sst2_ray.modeling.optimizer_kernel import step_in_one_pass  # imports Triton

    """Clipped or not; a step that is left out changes nothing."""
    vectors = [torch.nn.Parameter(torch.linspace(-1, 1, 5000, device="cuda")) for _ in range(2)]
    options = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.1, "fused": True}
    ours, torchs = (torch.optim.AdamW([vector], **options) for vector in vectors)
    monkeypatch.setattr(ours, "step", partial(step_in_one_pass, ours))
    for step, (scale, skipped) in enumerate([(2.5, 0.0), (None, 0.0), (1.0, 0.0), (1.0, 1.0)]):
        before = vectors[0].detach().clone()
        for optimizer, vector in zip((ours, torchs), vectors, strict=True):
            vector.grad = torch.sin(torch.arange(5000, device="cuda") * (step + 1.0))
            optimizer.grad_scale = None if scale is None else torch.tensor(scale, device="cuda")
            optimizer.found_inf = torch.tensor(skipped, device="cuda")
            optimizer.step()
        torch.testing.assert_close(*vectors, rtol=1e-5, atol=1e-6)
        assert torch.equal(before, vectors[0]) == bool(skipped)


@needs_varlen
def test_attention_s_dropout_drops_the_share_and_repeats_with_the_generator_s_seed() -> None:
    ends = torch.tensor([0, 64], dtype=torch.int32, device="cuda")
    q, k = (torch.zeros(64, 2, 64, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    v = torch.eye(64, dtype=torch.bfloat16, device="cuda")[:, None].expand(64, 2, 64).contiguous().requires_grad_()
    outputs = []
    for seed in (1, 1, 2):
        torch.cuda.manual_seed(seed)
        output = varlen_attention(q, k, v, *places_of(ends), 64, 1.0, -1, 0.25)[
            0
        ]  # the probabilities that were kept, over 48
        outputs.append(output)
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    assert (outputs[0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    gradient = torch.autograd.grad(outputs[2].sum(), v)[0]
    torch.testing.assert_close(gradient[:, 0, 0], outputs[2][:, 0].sum(0), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_by_key_drops_on_a_gpu_what_it_drops_on_a_cpu(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 96, generator=generator).to(dtype)
    keys, offsets = (torch.randint(-(2**31), 2**31, (100,), generator=generator).int() for _ in range(2))
    values = (x, keys, offsets, torch.tensor(3, dtype=torch.int32))
    there = drop_tokens(*(value.cuda() for value in values), 0.1)
    torch.testing.assert_close(there.cpu(), drop_tokens(*values, 0.1), rtol=1e-2, atol=0)


@pytest.mark.parametrize("encoder_dropout", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["sbert", "modernbert"])
def test_compiled_layers_train_as_uncompiled_ones_do(runs: Runs, kind: str, encoder_dropout: float) -> None:
    """Train as a run does by itself: in bf16, with FlashAttention where it can be had."""
    options = {
        "model": str(runs.folder / kind), "num_workers": 1, "evaluations_per_epoch": STEPS, "precision": "auto",
        "encoder_dropout": encoder_dropout,
    }  # fmt: skip
    names = [f"compile-{compiled}-{kind}-{encoder_dropout}" for compiled in (True, False)]
    for name in names:
        on_gpus(runs, name, compile="True" in name, **options)
    losses = [[row["train_loss"] for row in runs.rows("epochs", name)] for name in names]
    np.testing.assert_allclose(*losses, rtol=2e-2)


def test_gradients_that_travel_during_the_backward_pass_are_the_same(runs: Runs) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    for overlap in (True, False):
        on_gpus(runs, f"overlap-{overlap}", model="sbert-minilm", overlap_comm=overlap, evaluations_per_epoch=STEPS)
    losses = [[row["train_loss"] for row in runs.rows("epochs", f"overlap-{o}")] for o in (True, False)]
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_the_benchmark_prints_its_tables(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--steps", "10", "--repeats", "1", "--batch-per-gpu", "16"]
    done = subprocess.run([*command, "--json", str(tmp_path / "gpu.json")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tables = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    assert tables[0]["model"] == "sbert-minilm"
    assert "| workers | examples/s, median |" in done.stdout


def test_adamw_is_one_fused_kernel_and_batches_come_from_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(2, 2).cuda()
    assert build_optimizer(model, TrainConfig()).defaults["fused"]
    pinned: list[bool] = []
    copy = torch.Tensor.to

    def seen(tensor: torch.Tensor, *values: object, **named: object) -> torch.Tensor:
        if named.get("non_blocking"):
            pinned.append(tensor.is_pinned())
        return copy(tensor, *values, **named)

    monkeypatch.setattr(torch.Tensor, "to", seen)
    assert on_device(torch.ones(3), torch.device("cuda")).is_cuda
    assert pinned == [True]
