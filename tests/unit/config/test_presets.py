"""Named experiments are the ones that they are named after, and valid."""

from __future__ import annotations

import dataclasses

import pytest

from sst2_ray.config.fields import describe_changes
from sst2_ray.config.presets import TRAIN_PRESETS, sweep_preset, train_preset
from sst2_ray.config.sources import read_train_command
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.sweep.command import read_sweep_command


@pytest.mark.parametrize("name", TRAIN_PRESETS)
def test_every_preset_is_a_valid_config_with_a_docstring(name):
    assert isinstance(train_preset(name), TrainConfig)
    assert TRAIN_PRESETS[name].__doc__


def test_the_paper_s_choice_for_base_and_large_is_table_6():
    base, large = train_preset("paper"), train_preset("paper-large")
    assert (base.model, base.learning_rate, base.weight_decay, base.epochs) == ("modernbert-base", 8e-5, 1e-5, 2)
    assert (large.model, large.learning_rate, large.weight_decay, large.epochs) == ("modernbert-large", 1e-5, 1e-6, 3)
    for config in (base, large):
        assert (config.batch_size, config.adam_beta1, config.adam_beta2, config.adam_eps) == (64, 0.9, 0.98, 1e-6)
        assert config.weight_decay_form == "fully_decoupled"
        assert config.data == "glue"


@pytest.mark.parametrize(
    ("task", "size", "expected"),
    [
        ("mnli", "", (5e-5, 5e-6, 1)),
        ("stsb", "-large", (8e-5, 1e-5, 10)),
        ("cola", "", (8e-5, 1e-6, 5)),
        ("qqp", "-large", (5e-5, 8e-6, 2)),
    ],
)
def test_the_paper_s_preset_follows_the_task(task, size, expected):
    config = config_of("--preset", f"paper{size}", "--data", f"glue/{task}")
    assert (config.learning_rate, config.weight_decay, config.epochs) == expected
    assert config.data == f"glue/{task}"
    assert config.max_length == (128 if task == "cola" else 256)
    assert config_of("--preset", "paper", "--data", f"glue/{task}", "--epochs", "7").epochs == 7


def test_the_paper_s_preset_of_other_data_is_that_of_sst2():
    assert dataclasses.replace(config_of("--preset", "paper", "--data", "x.csv"), data="glue") == train_preset("paper")
    assert config_of("--preset", "paper", "--data", "glue/sst2").learning_rate == 8e-5
    with pytest.raises(InputError, match="the paper has no settings for wnli"):
        config_of("--preset", "paper", "--data", "glue/wnli")


def test_the_paper_s_grid_has_more_epochs_for_some_tasks():
    few, many = sweep_preset("paper-grid", data="glue/rte"), sweep_preset("paper-grid", data="glue/qnli")
    assert (few.epochs, many.epochs) == ((1, 2, 3), (2, 5, 10))
    assert few.learning_rates == many.learning_rates == (1e-5, 3e-5, 5e-5, 8e-5)
    assert sweep_preset("paper-grid").epochs == (1, 2, 3)
    _, config = read_sweep_command(["--preset", "paper-grid", "--data", "glue/mrpc"])
    assert (config.base.data, config.epochs) == ("glue/mrpc", (2, 5, 10))


def test_the_notebook_s_text_and_code_differ_in_the_learning_rate_alone():
    code, text = train_preset("notebook").to_dict(), train_preset("notebook-text").to_dict()
    assert (code.pop("learning_rate"), text.pop("learning_rate")) == (2e-5, 8e-5)
    assert code == text


def test_the_notebook_s_runs_are_20_and_10_epochs_of_batches_of_32_padded_to_128():
    for name, model, epochs in (("notebook", "modernbert-base", 20), ("notebook-sbert", "sbert", 10)):
        config = train_preset(name)
        assert (config.model, config.epochs, config.batch_size) == (model, epochs, 32)
        assert (config.max_length, config.pad_to_max_length) == (128, True)


def test_the_demo_needs_no_hub():
    demo = train_preset("demo")
    assert (demo.model, demo.data, demo.epochs) == ("sbert-minilm", "rotten-tomatoes", 1)


def test_an_unknown_preset_is_answered_with_the_nearest_one():
    with pytest.raises(InputError, match="--preset papr: no such preset; did you mean paper"):
        train_preset("papr")


# ---- preset, then file, then flags


def config_of(*argv: str) -> TrainConfig:
    return read_train_command(argv, prog="job")[1]


def test_a_file_is_laid_over_the_preset_and_flags_over_both(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 7\nseed: 3\nprecision: fp32\n")
    config = config_of("--seed", "9", "--preset", "paper", "--config", str(file))
    assert (config.learning_rate, config.epochs, config.seed, config.precision) == (8e-5, 7, 9, "fp32")


def test_the_config_beside_a_run_is_a_config_file(tmp_path):
    import json

    file = tmp_path / "config.json"
    there = TrainConfig(model="modernbert-mini", epochs=3, attention="sdpa")
    described = {"config": there.to_dict(), "config_hash": there.config_hash, "data_fingerprint": "f"}
    file.write_text(json.dumps(described))
    assert config_of("--config", str(file)) == there


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"epochs: [1", "not YAML"),
        (b"- epochs", "must hold keys and values"),
        (b"", "must hold keys and values"),
        (b"config: 3", "must hold keys and values"),
        (b"epochs: 1\n\xff", "cannot be read"),
        (b"epoch: 1", "unknown key 'epoch'; did you mean epochs"),
        (b"1: 2", "unknown key 1"),
        (b"null: 2", "unknown key None"),
        (b"epochs: .inf", "epochs: inf is not an integer"),
    ],
)
def test_a_config_file_that_is_none_is_answered_in_one_line(tmp_path, content, line):
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        config_of("--config", str(file))
    assert line in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_file_that_is_not_there_is_said():
    with pytest.raises(InputError, match=r"--config missing\.yaml: cannot be read"):
        config_of("--config", "missing.yaml")


# ---- the flags of the command itself


def test_json_is_for_plans():
    with pytest.raises(InputError, match="--json: is for plans; give --dry-run with it"):
        read_train_command(["--json"], prog="job")
    command, _ = read_train_command(["--json", "--dry-run"], prog="job")
    assert (command.json, command.dry_run) == (True, True)


def test_calibrating_is_a_dry_run():
    command, _ = read_train_command(["--calibrate"], prog="job")
    assert command.dry_run


def test_help_shows_the_values_of_the_preset(capsys):
    with pytest.raises(SystemExit):
        read_train_command(["--preset", "paper", "--help"], prog="job")
    assert "[modernbert-base]" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("word", "meant"), [("--dryrun", "--dry-run"), ("--presets", "--preset"), ("--lr", "--learning-rate")]
)
def test_the_flags_of_the_command_are_suggested_as_well(word, meant):
    with pytest.raises(InputError, match=f"unknown flag {word}; did you mean {meant}"):
        read_train_command([word, "x"], prog="job")


def test_what_differs_from_the_defaults_is_told_in_words():
    assert describe_changes(TrainConfig()) == "all have their defaults"
    assert (
        describe_changes(train_preset("paper-large"))
        == "model modernbert-large, data glue, learning_rate 1e-5, epochs 3, weight_decay 1e-6, "
        "weight_decay_form fully_decoupled; the others have their defaults"
    )
