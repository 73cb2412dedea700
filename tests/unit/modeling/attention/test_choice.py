"""The attention implementation: taken on auto where it can be had, refused by name where it cannot, and why."""

from __future__ import annotations

import pytest
import torch

from sst2_ray.errors import InputError
from sst2_ray.modeling.attention import choice as attention
from sst2_ray.modeling.attention.choice import choose_attention

ALL = frozenset({"eager", "sdpa", "varlen", "flash_attention_2"})


def choose(requested, capability=(9, 0), half_precision=True, supported=ALL, problem=None, of_torch=None):
    problems = {"varlen": lambda: of_torch, "flash_attention_2": lambda: problem}
    return attention._choose(requested, capability, half_precision, supported, problems)


def test_auto_on_the_cpu_is_sdpa():
    assert choose_attention("auto", torch.device("cpu")) == (
        "sdpa",
        "flash attention needs an NVIDIA GPU, and the model is on the CPU",
    )


def test_auto_on_a_new_gpu_needs_no_package():
    assert choose("auto", problem="not installed") == ("varlen", "the GPU and torch allow it")


@pytest.mark.parametrize("circumstances", [{"supported": ALL - {"varlen"}}, {"of_torch": "torch is too old"}])
def test_the_package_is_the_second_choice(circumstances):
    assert choose("auto", **circumstances) == (
        "flash_attention_2",
        "the GPU and the flash-attn package allow it",
    )


@pytest.mark.parametrize(
    ("circumstances", "reason"),
    [
        ({"capability": (7, 5)}, "this GPU has 7.5"),
        ({"half_precision": False}, "16 bits only"),
        (
            {"of_torch": "torch is too old", "problem": "flash-attn is not installed"},
            "too old; flash-attn is not installed",
        ),
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
        {"problem": "not installed: pip install x", "of_torch": "too old"},
    ],
)
@pytest.mark.parametrize("name", ["varlen", "flash_attention_2"])
def test_flash_by_name_is_never_replaced(name, circumstances):
    with pytest.raises(InputError, match=f"--attention {name}: "):
        choose(name, **circumstances)


def test_varlen_is_refused_by_name_for_an_architecture_that_needs_padding():
    with pytest.raises(InputError, match="--attention varlen: this architecture does not implement varlen"):
        choose("varlen", supported=ALL - {"varlen"})


def test_this_torch_has_flash_attention_over_variable_lengths(monkeypatch):
    monkeypatch.setattr(attention.torch.backends.cuda, "is_flash_attention_available", lambda: True)
    assert attention._varlen_problem() is None


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
