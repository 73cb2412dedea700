"""Tests of what a configuration refuses from its values alone, and which of its fields make two runs the same run."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest

from sst2_ray.config.presets import around_paper
from sst2_ray.config.registry import MODELS
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig, config_from_dict, hash_of
from sst2_ray.errors import InputError

FIELDS = {f.name: f for f in dataclasses.fields(TrainConfig)}
RUN_ONLY = {name for name, f in FIELDS.items() if not f.metadata.get("affects_numbers", True)}

POSITIVE = (
    "learning_rate", "batch_size", "epochs", "max_steps", "adam_eps", "evaluations_per_epoch", "patience", "train_rows",
    "dev_rows", "num_workers", "cpus_per_worker", "micro_batch_tokens", "checkpoint_every_steps", "checkpoint_every_s",
    "keep_checkpoints", "placement_timeout_s", "step_timeout_s", "storage_timeout_s",
)  # fmt: skip
SHARES = (
    "dropout", "encoder_dropout", "warmup_fraction", "holdout_fraction", "selection_fraction", "adam_beta1", "adam_beta2",
)  # fmt: skip


def refusal(**values) -> str:
    with pytest.raises(InputError) as caught:
        TrainConfig(**values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- values


@pytest.mark.parametrize("value", [0, -1, -8e-5, math.nan, math.inf])
@pytest.mark.parametrize("name", POSITIVE)
def test_sizes_and_rates_must_be_finite_and_positive(name, value):
    assert refusal(**{name: value}).startswith(f"{name}={value}: must be")


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["weight_decay", "max_grad_norm", "seed", "max_retries", "price_per_hour"])
def test_decay_clipping_seed_retries_and_price_must_be_finite_and_not_negative(name, value):
    assert f"{name}={value}: " in refusal(**{name: value})
    assert getattr(TrainConfig(**{name: 0}), name) == 0


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, math.nan])
@pytest.mark.parametrize("name", SHARES)
def test_shares_lie_in_zero_to_one(name, value):
    assert f"{name}={value}: must be at least 0 and below 1" in refusal(**{name: value})


def test_a_config_of_version_0_1_0_keeps_its_hash():
    """Runs and sweeps of that version then go on, and stand beside new ones as the same configuration."""
    assert TrainConfig().config_hash == "84685b76b25b"
    assert TrainConfig(data="glue", batch_size=32).config_hash == "941d442c9b84"
    assert around_paper().trials_hash == "3eed1c5e7fc6"


def test_each_task_is_judged_by_its_own_metric_unless_another_is_given():
    own = {data: TrainConfig(data=data).metric for data in ("glue", "glue/cola", "glue/mrpc", "glue/qqp", "x.csv")}
    assert own == {"glue": "accuracy", "glue/cola": "mcc", "glue/mrpc": "f1", "glue/qqp": "f1", "x.csv": "accuracy"}
    assert TrainConfig(data="glue/cola", choose_by="loss").metric == "loss"


def test_a_regression_is_judged_by_a_correlation_or_its_loss():
    assert TrainConfig(data="glue/stsb").metric == TrainConfig(task="regression").metric == "spearman"
    assert TrainConfig(task="regression", choose_by="pearson").metric == "pearson"
    assert "a regression has pearson, spearman" in refusal(task="regression", choose_by="mcc")
    assert "are for classes" in refusal(data="glue/stsb", class_weights="balanced")


def test_classes_are_not_judged_by_a_correlation_of_values():
    assert refusal(choose_by="pearson").startswith("choose_by='pearson': is a metric of regression")
    assert "macro_f1" in refusal(choose_by="macro")


def test_what_may_be_left_open_may_be_none():
    open_fields = {name: None for name, f in FIELDS.items() if f.default is None}
    assert TrainConfig(**open_fields) == TrainConfig()


def test_a_sentence_needs_room_for_its_special_tokens():
    assert "max_length=3: must be at least 4 tokens" in refusal(max_length=3)


def test_plain_torch_runs_on_one_worker():
    assert "use engine='zero2'" in refusal(engine="torch", num_workers=2)
    assert TrainConfig(engine="torch", num_workers=1).engine == "torch"


@pytest.mark.parametrize("name", ["../escape", "a/b", "/absolute", ".hidden", "", "a b", "x" * 129, "a\n"])
def test_a_run_name_cannot_leave_the_storage_folder(name):
    assert "cannot leave the storage folder" in refusal(name=name)


def test_the_results_folder_is_not_a_run():
    assert "choose another name" in refusal(name="results")


def test_a_mistyped_model_is_answered_with_the_nearest_names():
    assert "did you mean modernbert-base" in refusal(model="modernbert-bse")
    assert f"valid: {', '.join(sorted(MODELS))} (or owner/name on the hub" in refusal(model="zzz")


@pytest.mark.parametrize("model", ["owner/name", "./folder", "/absolute/folder", "../folder"])
def test_hub_ids_and_folders_are_left_to_the_model_loader(model):
    assert TrainConfig(model=model).model == model


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        ({"batch_size": "64"}, "batch_size='64': must be an integer"),
        ({"epochs": 1.5}, "epochs=1.5: must be an integer"),
        ({"learning_rate": "8e-5"}, "learning_rate='8e-5': must be a number"),
        ({"precision": "fp16"}, "precision='fp16': must be one of auto, bf16, fp32"),
        ({"use_gpu": 1}, "use_gpu=1: must be true or false (or null)"),
        ({"model": None}, "model=None: must be a text"),
    ],
)
def test_values_of_another_type_are_refused_in_a_notebook_too(values, meant):
    assert refusal(**values) == meant


def test_data_of_another_kind_are_answered_in_one_line():
    assert refusal(data=["fine", "dull"]).startswith(
        "data: a list is not taken; give a DataFrame, a Dataset, or the path"
    )


def test_a_config_cannot_be_changed_and_takes_keywords_alone():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().seed = 1
    with pytest.raises(TypeError):
        TrainConfig("sbert-minilm")


def test_a_config_shows_what_differs_from_the_defaults_and_can_be_made_again_from_it():
    assert repr(TrainConfig()) == "TrainConfig()"
    config = TrainConfig(
        model="sbert", learning_rate=3e-5, data="reviews.csv", storage_path="s3://bucket/a/long/folder", seed=3
    )
    assert repr(config).splitlines()[:2] == ["TrainConfig(", "    model='sbert',"]
    assert eval(repr(config)) == config
    sweep = SweepConfig(num_seeds=5, base=config)
    assert eval(repr(sweep)) == sweep


def test_every_field_is_documented():
    import ast
    import inspect

    groups = [ast.parse(inspect.getsource(cls)).body[0].body for cls in TrainConfig.__mro__[:-1]]
    documented = {
        node.target.id
        for body in groups
        for node, following in itertools.pairwise(body)
        if isinstance(node, ast.AnnAssign)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    }
    assert documented == set(FIELDS)


# ---- the hash and the name


def test_where_and_how_a_run_runs_does_not_change_its_hash():
    changed = TrainConfig(
        engine="torch", num_workers=1, storage_path="s3://bucket", name="x", micro_batch_tokens=64, max_retries=0
    )
    assert changed.config_hash == TrainConfig().config_hash
    assert {"storage_path", "num_workers", "micro_batch_tokens", "checkpoint_every_steps"} <= RUN_ONLY


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"learning_rate": 9e-5}, {"batch_size": 32}, {"precision": "fp32"}, {"data": "glue"}]
)
def test_what_changes_the_numbers_changes_the_hash(changes):
    assert TrainConfig(**changes).config_hash != TrainConfig().config_hash


def test_equal_numbers_have_equal_hashes():
    assert TrainConfig(weight_decay=0).config_hash == TrainConfig(weight_decay=0.0).config_hash
    whole, exact = SweepConfig(weight_decays=(0, 0.01)), SweepConfig(weight_decays=(0.0, 0.01))
    assert whole.trials_hash == exact.trials_hash


def test_the_hash_does_not_depend_on_the_order_of_keys():
    assert hash_of({"a": 1, "b": None}) == hash_of({"b": None, "a": 1})
    assert len(hash_of({})) == 12


def test_a_run_without_a_name_is_named_after_model_data_and_hash():
    config = TrainConfig(model="sentence-transformers/all-mpnet-base-v2", data="s3://bucket/my reviews.csv")
    assert config.run_name == f"all-mpnet-base-v2-my-reviews-csv-{config.config_hash}"
    assert TrainConfig(name=config.run_name).run_name == config.run_name


# ---- files


def test_a_config_comes_back_from_its_json():
    config = TrainConfig(model="sbert", learning_rate=3e-5, patience=2, pad_to_max_length=True, name="again")
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [("learning_rate", "8e-5", 8e-5), ("epochs", "3", 3), ("batch_size", 64.0, 64), ("warmup_fraction", 0, 0.0)],
)
def test_yaml_numbers_become_what_the_field_is_declared_as(key, value, meant):
    read = getattr(config_from_dict({key: value}), key)
    assert read == meant
    assert type(read) is type(meant)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 1.5), ("epochs", "many"), ("epochs", True), ("epochs", None), ("batch_size", math.inf),
        ("learning_rate", "fast"), ("learning_rate", [1]), ("learning_rate", None), ("pad_to_max_length", "yes"),
        ("pad_to_max_length", 1), ("model", None), ("data", ["a", "b"]), ("name", True),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_with_key_and_value(key, value):
    with pytest.raises(InputError) as caught:
        config_from_dict({key: value}, source="run.yaml")
    assert str(caught.value).startswith(f"run.yaml: {key}: {value!r} is not ")


def test_choices_flags_and_texts_are_read_from_a_file():
    config = config_from_dict({"precision": "fp32", "attention": "sdpa", "random_weights": True, "name": 2024})
    assert (config.precision, config.attention, config.random_weights, config.name) == ("fp32", "sdpa", True, "2024")


def test_a_value_outside_its_choices_lists_them():
    with pytest.raises(InputError, match="precision: 'fp16' is not one of auto, bf16, fp32"):
        config_from_dict({"precision": "fp16"})


def test_an_unknown_key_is_answered_with_the_nearest_one():
    with pytest.raises(InputError, match="unknown key 'learning_rat'; did you mean learning_rate"):
        config_from_dict({"learning_rat": 1})


def test_values_of_a_file_are_checked_like_any_other():
    with pytest.raises(InputError, match="learning_rate=nan"):
        config_from_dict({"learning_rate": ".nan".lstrip(".")})
