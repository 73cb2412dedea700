"""The attention implementation: taken on auto where it can be had, refused by name where it cannot, and why."""

from __future__ import annotations

import pytest
import torch

from sst2_ray.errors import InputError
from sst2_ray.modeling.attention import choice as attention
from sst2_ray.modeling.attention.choice import choose_attention

ALL = frozenset({"eager", "sdpa", "flash_attention_2"})


def choose(requested, capability=(9, 0), half_precision=True, supported=ALL, problem=None):
    return attention._choose(requested, capability, half_precision, supported, lambda: problem)


def test_auto_on_the_cpu_is_sdpa():
    assert choose_attention("auto", torch.device("cpu")) == (
        "sdpa",
        "flash attention needs an NVIDIA GPU, and the model is on the CPU",
    )


def test_auto_on_a_new_gpu_with_the_package_is_flash():
    assert choose("auto") == ("flash_attention_2", "the GPU and the flash-attn package allow it")


@pytest.mark.parametrize(
    ("circumstances", "reason"),
    [
        ({"capability": (7, 5)}, "this GPU has 7.5"),
        ({"half_precision": False}, "16 bits only"),
        ({"problem": "the package flash-attn is not installed"}, "not installed"),
        ({"supported": frozenset({"eager", "sdpa"})}, "does not implement"),
    ],
)
def test_auto_says_why_it_is_not_flash(circumstances, reason):
    chosen, why = choose("auto", **circumstances)
    assert chosen == "sdpa"
    assert reason in why


@pytest.mark.parametrize(
    "circumstances",
    [
        {"capability": None},
        {"capability": (7, 0)},
        {"half_precision": False},
        {"problem": "not installed: pip install x"},
    ],
)
def test_flash_by_name_is_never_replaced(circumstances):
    with pytest.raises(InputError, match="--attention flash_attention_2: "):
        choose("flash_attention_2", **circumstances)


def test_the_refusal_names_the_install_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "flash_attn", None)
    assert "pip install --no-build-isolation -e '.[flash]'" in attention._flash_attn_problem()


def test_an_architecture_without_sdpa_computes_eagerly():
    assert choose("auto", capability=None, supported=frozenset({"eager"})) == (
        "eager",
        "this architecture has no other",
    )
    with pytest.raises(InputError, match="has only eager"):
        choose("sdpa", supported=frozenset({"eager"}))


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_what_is_asked_for_by_name_is_taken(name):
    assert choose(name) == (name, "asked for")
