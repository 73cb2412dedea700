"""Model folders: what is damaged, pickled or leads elsewhere is refused in one line before anything is built."""

from __future__ import annotations

import json
import shutil

import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.sources.folders import SbertStack, read_stack, refuse_pickles
from tests.support import models


def refusal(folder, **config):
    with pytest.raises(InputError) as caught:
        resolve_model(TrainConfig(model=str(folder), **config))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def copy(tmp_path, sbert_folder):
    return shutil.copytree(sbert_folder, tmp_path / "copy")


def edit(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_the_modules_are_read(sbert_folder):
    assert read_stack(sbert_folder, source="x") == SbertStack(
        pooling_modes=("mean",),
        transformer_path="",
        pooling_path="1_Pooling",
        following=(("Normalize", "2_Normalize"),),
    )


@pytest.mark.parametrize("modes", [["cls"], ["cls", "max"], ["mean", "max"]])
def test_flags_of_older_versions_and_names_of_newer_ones_mean_the_same(tmp_path, modes):
    folder = models.sbert_folder(tmp_path / "old", modes=modes)
    old = read_stack(folder, source="x")
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"embedding_dimension": 32, "pooling_mode": old.pooling_modes})
    )
    assert read_stack(folder, source="x") == old
    assert set(old.pooling_modes) == set(modes)


def test_a_pooling_that_names_no_mode_is_the_mean(copy):
    (copy / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32}))
    assert read_stack(copy, source="x").pooling_modes == ("mean",)


def test_a_folder_without_modules_has_no_stack(modernbert_folder):
    assert read_stack(modernbert_folder, source="x") is None


def test_a_module_is_known_by_its_class_and_never_imported(copy):
    edit(copy / "modules.json", lambda modules: modules[2].update(type="os.system.Normalize"))
    assert read_stack(copy, source="x").following == (("Normalize", "2_Normalize"),)


@pytest.mark.parametrize("kinds", [["StaticEmbedding"], ["Transformer"], ["Transformer", "Pooling", "LSTM"]])
def test_other_modules_are_refused_by_name(copy, kinds):
    modules = [{"idx": i, "name": str(i), "path": f"{i}", "type": f"a.{kind}"} for i, kind in enumerate(kinds)]
    (copy / "modules.json").write_text(json.dumps(modules))
    assert f"its modules are {', '.join(kinds)}; " in refusal(copy)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "1_Pooling/../../x"])
def test_a_module_outside_the_folder_is_refused(copy, path):
    edit(copy / "modules.json", lambda modules: modules[1].update(path=path))
    assert "leads out of the model folder" in refusal(copy)


def test_an_unknown_pooling_mode_is_refused(copy):
    (copy / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "median"}))
    assert "pooling mode 'median' is not known; known: cls, max, mean" in refusal(copy)


@pytest.mark.parametrize("text", ["{", "[1]", "{}", "null", "\xff"])
def test_damaged_modules_are_refused(copy, text):
    (copy / "modules.json").write_text(text, encoding="latin-1")
    assert str(copy) in refusal(copy)


def test_a_missing_config_is_refused(copy):
    (copy / "config.json").unlink()
    assert refusal(copy) == f"--model {copy}: config.json is missing in {copy}; give a whole model folder"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_config_is_refused(copy, text):
    (copy / "config.json").write_text(text)
    assert "download or export the model again" in refusal(copy)


def test_an_architecture_that_transformers_does_not_know_is_refused(copy):
    edit(copy / "config.json", lambda config: config.update(model_type="bret"))
    assert "transformers has no architecture 'bret', and code of models is not run" in refusal(copy)


def test_settings_that_the_architecture_does_not_take_are_refused(copy):
    edit(copy / "config.json", lambda config: config.update(hidden_size="wide"))
    assert "its config.json does not describe a bert model" in refusal(copy)


@pytest.mark.parametrize("flag", ["is_decoder", "is_encoder_decoder"])
def test_a_decoder_is_refused(copy, flag):
    edit(copy / "config.json", lambda config: config.update({flag: True}))
    assert "only encoders are fine-tuned here" in refusal(copy)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(copy, share):
    weights = copy / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    assert f"{weights} is corrupt (" in refusal(copy)


def test_missing_weights_are_refused(copy):
    (copy / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refusal(copy)


def test_weights_that_are_a_pickle_only_are_refused_with_the_remedy(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    message = refusal(copy)
    assert "as a pickle only, which is never loaded; save them as safetensors" in message


def test_a_shard_that_is_missing_is_refused(copy):
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors is missing" in refusal(copy)


def test_a_dense_module_without_safetensors_is_refused(tmp_path):
    folder = models.sbert_folder(tmp_path / "dense", following=("Dense",))
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"")
    assert "2_Dense has its weights as a pickle only" in refusal(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "deep/training_args.PT", "x.pkl", "optimizer.ckpt"])
def test_a_planted_pickle_is_found_anywhere(copy, name):
    path = copy / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="may be a pickle, which runs code when it is loaded"):
        refuse_pickles(copy, source="--model-dir x")


def test_an_adapter_is_named_as_one_with_how_it_is_merged(tmp_path):
    settings = {"peft_type": "LORA", "base_model_name_or_path": "owner/base"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError) as caught:
        resolve_model(TrainConfig(model=str(tmp_path)))
    message = str(caught.value)
    assert f"--model {tmp_path}: it holds an adapter of owner/base, not a model; merge it (peft: " in message
    assert "merge_and_unload()" in message
    assert "\n" not in message
