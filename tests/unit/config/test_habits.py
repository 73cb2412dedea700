"""Flags, commands and names that people bring from other tools: each is answered in one helpful line."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sst2_ray
from sst2_ray import cli
from sst2_ray.config import habits
from sst2_ray.config.registry import MODELS
from sst2_ray.config.sources import read_train_command, sweep_command_line, train_command_line
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig, config_from_dict
from sst2_ray.errors import InputError, did_you_mean

MEANT = {
    "--lr": "--learning-rate", "--bs": "--batch-size", "--per_device_train_batch_size": "--batch-size",
    "--num_train_epochs": "--epochs", "--learningRate": "--learning-rate", "--warmup_ratio": "--warmup-fraction",
    "--output_dir": "--storage-path", "--default_root_dir": "--storage-path", "--seed_everything": "--seed",
    "--gpus": "--num-workers", "--n_gpus": "--num-workers", "--devices": "--num-workers", "--num_processes": "--num-workers",
    "--accelerator": "--use-gpu", "--model_name_or_path": "--model", "--dataset": "--data", "--dataset_name": "--data",
    "--train_file": "--data", "--validation_file": "--dev-data", "--max_seq_length": "--max-length", "--wd": "--weight-decay",
    "--mixed_precision": "--precision", "--fp16": "--precision", "--bf16": "--precision", "--max_epochs": "--epochs",
    "--gradient_clip_val": "--max-grad-norm", "--early_stopping_patience": "--patience", "--save_steps": "--checkpoint-every-steps",
    "--save_total_limit": "--keep-checkpoints", "--eval_steps": "--evaluations-per-epoch", "--report_to": "--trackers",
    "--metric_for_best_model": "--choose-by", "--run_name": "--name", "--max_failures": "--max-retries",
    "--max_train_samples": "--train-rows", "--text_col": "--text-column", "--strategy": "--engine", "--torch_compile": "--compile",
    "--dryrun": "--dry-run", "--epoch": "--epochs", "-lr": "--learning-rate", "-epochs": "--epochs", "-bs": "--batch-size",
}  # fmt: skip
ADVISED = {
    "--gradient_accumulation_steps": "--micro-batch-tokens", "--resume_from_checkpoint": "the same command resumes",
    "--lr_scheduler_type": "falls linearly to 0", "--optim": "--adam-beta1", "--logging_steps": "logs/", "--num-seeds": "sst2-ray sweep",
    "--push_to_hub": "sst2-ray push", "--do_train": "no flag is needed", "--num_nodes": "--num-workers", "--seeds": "sst2-ray sweep",
    "--load_best_model_at_end": "kept", "--trust_remote_code": "never run", "--verbose": "sst2-ray logs", "-v": "sst2-ray logs",
}  # fmt: skip


def refusal(*argv: str) -> str:
    with pytest.raises(InputError) as caught:
        read_train_command(argv, prog="sst2-ray train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("word", MEANT)
def test_the_flag_of_another_tool_is_answered_with_ours(word: str) -> None:
    assert refusal(word, "1") == f"unknown flag {word}; did you mean {MEANT[word]}?"


@pytest.mark.parametrize("word", ADVISED)
def test_what_has_no_flag_here_is_answered_with_advice(word: str) -> None:
    line = refusal(word, "1")
    assert line.startswith(f"unknown flag {word}; ")
    assert ADVISED[word] in line


FIELDS = {f.name for f in dataclasses.fields(TrainConfig)}
KEYS = {word.lstrip("-"): meant.lstrip("-").replace("-", "_") for word, meant in MEANT.items()}


@pytest.mark.parametrize("name", [name for name, meant in KEYS.items() if name not in FIELDS and meant in FIELDS])
def test_the_key_or_keyword_of_another_tool_is_answered_with_ours(name: str) -> None:
    with pytest.raises(InputError, match=f"^run.yaml: unknown key '{name}'; did you mean {KEYS[name]}\\?$"):
        config_from_dict({name: 1}, source="run.yaml")
    with pytest.raises(TypeError, match=f"^TrainConfig: no setting '{name}'; did you mean {KEYS[name]}\\?$"):
        TrainConfig(**{name: 1})


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("learning_rate", "did you mean learning_rates?"),
        ("lr", "did you mean learning_rates?"),
        ("seeds", "did you mean num_seeds?"),
        ("data", "did you mean base=TrainConfig(data=...)?"),
        ("dataset", "did you mean base=TrainConfig(data=...)?"),
        ("num_workers", "did you mean base=TrainConfig(num_workers=...)?"),
        ("frobnicate", "sst2-ray train --help-all lists the settings"),
    ],
)
def test_a_keyword_of_a_sweep_is_answered_with_where_it_belongs(word: str, end: str) -> None:
    with pytest.raises(TypeError, match=f"^SweepConfig: no setting '{word}'; {re.escape(end)}$"):
        SweepConfig(**{word: 1})


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: sst2_ray.train({"epochs": 1}), "expected a TrainConfig, not a dict; TrainConfig(**values) makes one"),
        (lambda: sst2_ray.train(SweepConfig()), "expected a TrainConfig, not a SweepConfig"),
        (lambda: sst2_ray.sweep(TrainConfig()), "expected a SweepConfig, not a TrainConfig"),
        (lambda: SweepConfig(base={}), "expected a TrainConfig, not a dict; TrainConfig(**values) makes one"),
    ],
)
def test_what_is_no_config_is_named(call: Callable[[], object], line: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(line)}$"):
        call()


def test_one_value_and_an_array_stand_for_a_tuple() -> None:
    config = SweepConfig(models="sbert-minilm", learning_rates=np.array([1e-4, 1e-3]), batch_sizes=32)
    assert (config.models, config.learning_rates, config.batch_sizes) == (("sbert-minilm",), (1e-4, 1e-3), (32,))
    assert config == SweepConfig(learning_rates=[1e-4, 1e-3], batch_sizes=[32])


def test_numbers_of_numpy_and_paths_are_taken_as_what_they_stand_for() -> None:
    config = TrainConfig(batch_size=np.int64(32), learning_rate=np.float64(3e-5), storage_path=Path("runs"))
    assert config == TrainConfig(batch_size=32, learning_rate=3e-5, storage_path="runs")
    assert type(config.batch_size) is int
    assert SweepConfig(batch_sizes=np.array([16, 32])).batch_sizes == (16, 32)


def test_a_set_is_refused_since_its_order_differs_from_process_to_process() -> None:
    with pytest.raises(InputError, match=r"^batch_sizes=\{.*\}: a set has no order; give a list or a tuple$"):
        SweepConfig(batch_sizes={32, 64})


def test_a_sweep_answers_with_its_own_flags() -> None:
    line = sweep_command_line("sst2-ray sweep")
    for word, meant in (
        ("--lr", "--learning-rates"),
        ("--seeds", "--num-seeds"),
        ("--n_trials", "--num-samples"),
    ):
        with pytest.raises(InputError, match=f"unknown flag {word}; did you mean {meant}?"):
            line.read([word, "1"])


def test_every_flag_that_is_suggested_exists() -> None:
    known = {*train_command_line("job").kinds, *sweep_command_line("job").kinds}
    others = {"out", "input", "text", "model_dir", "lines", "watch", "limit"}  # of other commands
    assert set(habits.FLAGS) <= known | others
    assert set(habits.COMMANDS) <= set(cli.COMMANDS)


def test_a_word_behind_no_flag_is_taken_for_data() -> None:
    assert "did you mean --data reviews.csv?" in refusal("reviews.csv")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("modernbert_base", "modernbert-base"), ("ModernBERT-base", "modernbert-base"), ("all-MiniLM-L6-v2", "sbert-minilm"),
        ("bert-base-uncased", "bert-base"), ("roberta_base", "roberta-base"), ("sbert-minilm-l6", "sbert-minilm"),
    ],
)  # fmt: skip
def test_a_model_is_found_by_other_spellings(name: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"model='{name}': no such model; did you mean {meant}") as caught:
        TrainConfig(model=name)
    assert "\n" not in str(caught.value)
    assert meant in MODELS


def test_a_bare_family_means_its_models_rather_than_what_is_spelled_alike() -> None:
    with pytest.raises(InputError, match=r"did you mean bert-base\? "):
        TrainConfig(model="bert")
    with pytest.raises(InputError, match="did you mean ettin-17m or ettin-32m or "):
        TrainConfig(model="ettin")


def test_models_with_a_comma_between_are_told_apart() -> None:
    with pytest.raises(InputError, match=r"^models='sbert,bert-base': give each by itself: sbert bert-base$"):
        SweepConfig(models=("sbert,bert-base",))
    with pytest.raises(InputError, match=r"give each by itself: \./a owner/b$"):
        SweepConfig(models=("./a,owner/b",))


def test_a_long_list_of_valid_names_is_cut() -> None:
    line = did_you_mean("zzz", [f"run-{number:04d}" for number in range(1000)])
    assert line.startswith("valid: run-0000, ") and line.endswith("and 976 more")


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        sys.argv = ["sst2-ray", *argv]
        cli.main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture(autouse=True)
def own_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("fit", "train"), ("finetune", "train"), ("tune", "sweep"), ("list", "ls"), ("evaluate", "predict"), ("eval", "predict"),
        ("leaderboard", "results"), ("kill", "stop"), ("launch", "up"), ("clean", "gc"), ("TRAIN", "train"), ("convert", "export"),
    ],
)  # fmt: skip
def test_the_command_of_another_tool_is_answered_with_ours(capsys, word, meant) -> None:
    assert said(capsys, word) == (2, "", f"error: no command '{word}'; did you mean {meant}?\n")


def test_a_command_that_nobody_knows_is_pointed_to_the_list(capsys) -> None:
    assert said(capsys, "xyzzy") == (2, "", "error: no command 'xyzzy'; sst2-ray --help lists them\n")


def test_a_flag_without_a_command_is_told_where_flags_stand(capsys) -> None:
    code, out, err = said(capsys, "--preset", "demo")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "sst2-ray train --preset ..." in err


@pytest.mark.parametrize(
    ("argv", "usage"), [(("help", "train"), "sst2-ray train"), (("train", "help"), "sst2-ray train")]
)
def test_help_is_taken_before_and_behind_a_command(capsys, argv, usage) -> None:
    code, out, err = said(capsys, *argv)
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: {usage}")


@pytest.mark.parametrize("word", ["-v", "version"])
def test_the_version_is_printed_for_other_words_as_well(capsys, word) -> None:
    assert said(capsys, word)[0] == 0


def test_a_list_with_commas_is_told_how_lists_are_written() -> None:
    with pytest.raises(InputError, match="several stand behind each other: 1e-5 2e-5"):
        sweep_command_line("sst2-ray sweep").read(["--learning-rates", "1e-5,2e-5"])


def test_a_missing_word_is_told_its_choices(capsys) -> None:
    assert said(capsys, "completion")[2] == (
        "error: SHELL: must be given: bash, zsh or fish (see sst2-ray completion --help)\n"
    )


def test_a_file_that_is_not_there_is_answered_with_the_one_beside_it(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text("text,label\n")
    code, _, err = said(capsys, "train", "--data", "revews.csv")
    assert code == 2
    assert err.endswith("; did you mean reviews.csv?\n")


def test_a_model_folder_that_is_not_there_is_said_to_be_missing(capsys) -> None:
    assert said(capsys, "export", "nowhere/model")[2].startswith("error: --model-dir nowhere/model: no such folder")
