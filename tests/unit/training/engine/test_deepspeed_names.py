"""Every private name of DeepSpeed that the ZeRO-2 engine uses is still there, with the same meaning as far as that shows."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import deepspeed
import pytest

from sst2_ray.training.engine.zero import PRIVATE_NAMES, _import_deepspeed


@pytest.mark.parametrize(("place", "name"), [(place, name) for place, names in PRIVATE_NAMES.items() for name in names])
def test_deepspeed_still_has(place, name):
    module_name, _, class_name = place.partition(":")
    owner = importlib.import_module(module_name)
    owner = getattr(owner, class_name, None) if class_name else owner
    remedy = f"DeepSpeed {deepspeed.__version__} no longer has {name} in {place}: adapt training/engine/zero.py"
    assert owner is not None, remedy
    # Attributes of instances are assigned in the source of their class.
    assert hasattr(owner, name) or f"self.{name} = " in inspect.getsource(owner), remedy


def test_the_functions_that_are_replaced_or_called_take_the_same_arguments():
    stage = importlib.import_module("deepspeed.runtime.zero.stage_1_and_2")
    engine = importlib.import_module("deepspeed.runtime.engine").DeepSpeedEngine
    found = {
        "all_gather_dp_groups": list(inspect.signature(stage.all_gather_dp_groups).parameters),
        "GradPartitionBufferGroup": list(inspect.signature(stage.GradPartitionBufferGroup.__init__).parameters)[1:],
        "_flush_coalesced_reduction_zero12": list(
            inspect.signature(engine._flush_coalesced_reduction_zero12).parameters
        )[1:],
    }
    assert found == {
        "all_gather_dp_groups": [
            "groups_flat", "partitioned_param_groups", "dp_process_group", "start_alignment_factor",
            "allgather_bucket_size",
        ],
        "GradPartitionBufferGroup": ["grad_buffers", "flat_partition"],
        "_flush_coalesced_reduction_zero12": ["optimizer"],
    }, f"DeepSpeed {deepspeed.__version__} calls these with other arguments: adapt training/engine/zero.py"  # fmt: skip
    assert "scale_wrt_gas" in inspect.getsource(engine), (
        f"DeepSpeed {deepspeed.__version__} scales losses otherwise: adapt ZeroEngine.backward"
    )


def test_the_table_of_compatible_ops_is_still_there():
    import torch

    remedy = f"DeepSpeed {deepspeed.__version__} may compile for a minute at its first start"
    comm = importlib.import_module("deepspeed.comm.torch")
    assert "__compatible_ops__" in inspect.getsource(deepspeed.ops), remedy
    assert "deepspeed.ops.__compatible_ops__.get(" in inspect.getsource(comm.build_shm_op), remedy
    table = getattr(_import_deepspeed(torch.device("cpu")).ops, "__compatible_ops__", None)
    assert isinstance(table, dict), remedy
    assert table[comm.get_accelerator().create_op_builder("ShareMemCommBuilder").NAME] is False, remedy
    assert comm.build_shm_op() is None


def test_the_table_of_compatible_ops_is_not_made_by_running_a_compiler():
    code = (
        "import torch, deepspeed.ops\n"
        "from sst2_ray.training.engine.zero import _import_deepspeed\n"
        "_import_deepspeed(torch.device('cpu'))\n"
        "from deepspeed.comm.torch import build_shm_op\n"
        "print(build_shm_op(), deepspeed.ops.__compatible_ops__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "None {'deepspeed_shm_comm': False}"
