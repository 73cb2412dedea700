"""torch.compile of an encoder's layers, for GPUs: fewer and fused kernels where a batch is too small to fill the chip.

The layers are compiled one by one, for any number of rows and tokens: those of an encoder are alike, so that few graphs
serve them all. On a CPU they are slower than uncompiled ones (benchmarks/NOTES.md).
"""

from __future__ import annotations

import os
import shutil

from torch import nn

from sst2_ray.errors import InputError

_GRAPHS = 64
"""Of one layer's code at most, then it runs uncompiled: ModernBERT has three kinds of layers, each is trained and evaluated,
in bf16 and in fp32, and torch's own limit is 8."""


def compile_layers(model: nn.Module, *, backend: str = "inductor") -> None:
    """From the next call on, the layers of the encoder inside `model` are compiled. For workers: in this process the
    compiler is then on. Raises InputError where it cannot work."""
    if not (os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))):
        raise InputError("--compile: no C compiler (cc, gcc, clang or $CC) on this worker; install one or leave it out")
    os.environ.pop("TORCHDYNAMO_DISABLE", None)
    import torch._dynamo.config as dynamo

    dynamo.disable = False
    dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
    # The encoder's layers are the longest list of modules.
    lists = [list(module.children()) for module in model.modules() if isinstance(module, nn.ModuleList)]
    for layer in max(lists, key=len):
        layer.compile(dynamic=True, backend=backend)
