"""torch.compile on a worker: whether it can be used, and how it is turned on."""

from __future__ import annotations

import importlib.util
import os
import shutil

_GRAPHS = 64
"""Compiled graphs of a layer's code before it runs uncompiled: ModernBERT has three kinds of layers, each trained and
evaluated, in bf16 and fp32; torch's own limit is 8."""


def has_compiler() -> bool:
    """Tell whether this machine has the C compiler that torch.compile needs."""
    return bool(os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang"))))


HAS_TRITON = has_compiler() and importlib.util.find_spec("triton") is not None
"""Whether kernels in Triton, which needs that compiler, can be used on a GPU. A constant: torch.compile reads it."""


def enable_compiler() -> None:
    """Turn the compiler on in this process: workers start without it, see run/environment.py."""
    os.environ.pop("TORCHDYNAMO_DISABLE", None)
    import torch._dynamo.config as dynamo

    dynamo.disable = False
    dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
