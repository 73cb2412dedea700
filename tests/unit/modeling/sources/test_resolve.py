"""Names, folders and hub ids: found, downloaded once, labelled, or refused in one line. The hub is one on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from sst2_ray.config.registry import MODELS
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.modeling.sources import max_positions, resolve_model
from tests.support import models
from tests.support.families import family_folder
from tests.support.hub_server import (
    PRIVATE_MODEL_ID,
    PRIVATE_REVISION,
    TOKEN,
    HubServer,
    hub_env,
    packaged_sbert_folder,
    unreachable_hub_env,
)

MINILM = MODELS["sbert-minilm"]

RESOLVE = """
import dataclasses, json, sys
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.modeling.sources import local_folder, resolve_model
try:
    resolved = resolve_model(TrainConfig(**json.loads(sys.argv[1])))
    print(json.dumps({"torch": "torch" in sys.modules, **dataclasses.asdict(resolved), "local": str(local_folder(resolved))}))
except InputError as error:
    print(json.dumps({"refused": str(error)}))
"""
BUILD = """
import json, sys
from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.build import build_classifier
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.tokenizers import load_tokenizer
resolved = resolve_model(TrainConfig(**json.loads(sys.argv[1])))
print(json.dumps(vars(build_classifier(resolved, load_tokenizer(resolved), seed=0).info)))
"""

needs_package = pytest.mark.skipif(packaged_sbert_folder() is None, reason="the demo extra is not installed")


def resolve(env, code=RESOLVE, **config):
    # The limit only ends a hang: an unreachable hub must not be retried for long.
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(config)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def refusal(env, **config):
    message = resolve(env, **config)["refused"]
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("hub-cache")


# ---- the hub


@needs_package
def test_a_named_model_comes_from_the_hub_at_its_pinned_commit(hub, cache):
    found = resolve(hub.env(cache), model="sbert-minilm")
    assert (found["info"]["source"], found["info"]["revision"]) == ("hub", MINILM.revision)
    assert (found["info"]["label"], found["info"]["notes"]) == ("sbert-minilm", [])
    assert found["local"].startswith(str(cache))
    assert not found["torch"]


@needs_package
def test_it_is_downloaded_once_and_then_asked_for_no_more(hub, cache):
    resolve(hub.env(cache), model="sbert-minilm")
    assert hub.downloads("/model.safetensors") == 1
    hub.requests.clear()
    assert resolve(hub.env(cache), model="sbert-minilm")["info"]["source"] == "hub"
    assert resolve(unreachable_hub_env(cache), model="sbert-minilm")["info"]["source"] == "hub"
    assert hub.requests == []


@needs_package
def test_workers_of_one_node_download_it_once_together(hub, tmp_path):
    hub.requests.clear()
    env = hub.env(tmp_path)
    command = [sys.executable, "-c", RESOLVE, json.dumps({"model": MINILM.hub_id})]
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [json.loads(p.communicate(timeout=120)[0])["info"]["source"] for p in running] == ["hub"] * 3
    assert hub.downloads("/model.safetensors") == 1


@needs_package
def test_a_hub_id_is_resolved_to_a_commit_and_built(hub, cache):
    info = resolve(hub.env(cache), BUILD, model=MINILM.hub_id, model_revision="main")
    assert (info["kind"], info["revision"], info["label"]) == ("sbert", MINILM.revision, MINILM.hub_id)
    assert info["num_parameters"] == 22_566_146


@needs_package
def test_a_private_model_needs_the_token_and_never_shows_it(hub, tmp_path):
    assert "no such model on the hub, or a private one: check the name, or set HF_TOKEN" in refusal(
        hub.env(tmp_path), model=PRIVATE_MODEL_ID
    )
    found = resolve(hub.env(tmp_path, token=TOKEN), model=PRIVATE_MODEL_ID)
    assert found["info"]["revision"] == PRIVATE_REVISION
    assert TOKEN not in json.dumps(found)


PARTIAL = """
import sys
from huggingface_hub import hf_hub_download
for name in sys.argv[3:]:
    hf_hub_download(sys.argv[1], name, revision=sys.argv[2])
"""
TOKENIZER = ("config.json", "tokenizer.json", "tokenizer_config.json")


def fill_cache(env, hub_id, revision, *names) -> None:
    """Fill the cache as AutoTokenizer, AutoModel or a script of the user's does."""
    subprocess.run([sys.executable, "-c", PARTIAL, hub_id, revision, *names], env=env, timeout=120, check=True)


@needs_package
@pytest.mark.parametrize(
    "names",
    [("config.json",), ("tokenizer.json",), TOKENIZER, (*TOKENIZER, "model.safetensors"), ("modules.json",)],
    ids=["config", "tokenizer", "AutoTokenizer", "AutoModel", "modules"],
)
def test_a_cache_that_holds_some_files_of_the_commit_is_completed(hub, tmp_path, names):
    env = hub.env(tmp_path)
    fill_cache(env, MINILM.hub_id, MINILM.revision, *names)
    found = resolve(env, model="sbert-minilm")
    assert (found["info"]["source"], found["info"]["notes"]) == ("hub", [])
    assert found["stack"]["following"] == [["Normalize", "2_Normalize"]]


@needs_package
def test_without_a_hub_a_cache_that_holds_some_files_is_no_model(hub, tmp_path):
    fill_cache(hub.env(tmp_path), MINILM.hub_id, MINILM.revision, *TOKENIZER)
    assert resolve(unreachable_hub_env(tmp_path), model="sbert-minilm")["info"]["source"] == "packaged"
    message = refusal(unreachable_hub_env(tmp_path), model=MINILM.hub_id, model_revision=MINILM.revision)
    assert "the hub cannot be reached (" in message


def test_a_model_without_modules_is_whole_with_its_weights_and_tokenizer(tmp_path, modernbert_folder):
    """A model that was fetched file by file needs no hub any more."""
    revision, names = "b" * 40, ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    with HubServer(standard=False) as own:
        own.add_model("someone/modern", modernbert_folder, revision=revision)
        fill_cache(own.env(tmp_path), "someone/modern", revision, *names)
    found = resolve(unreachable_hub_env(tmp_path), model="someone/modern", model_revision=revision)
    assert (found["info"]["source"], found["info"]["kind"]) == ("hub", "modernbert")


def test_an_unknown_model_is_refused(hub, cache):
    message = refusal(hub.env(cache), model="nobody/nothing")
    assert message.startswith("--model nobody/nothing: no such model on the hub")


@needs_package
def test_an_unknown_revision_is_refused(hub, cache):
    message = refusal(hub.env(cache), model=MINILM.hub_id, model_revision="v9")
    assert message == f"--model {MINILM.hub_id}: the hub has no revision 'v9' of it"


def test_pickles_on_the_hub_are_not_even_downloaded(tmp_path, sbert_folder):
    import shutil

    folder = shutil.copytree(sbert_folder, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with HubServer(standard=False) as own:
        own.add_model("someone/pickled", folder, revision="a" * 40)
        assert "model.safetensors is missing" in refusal(own.env(tmp_path / "cache"), model="someone/pickled")
        assert own.downloads(".bin") == 0


def test_the_weights_of_what_cannot_be_used_are_not_downloaded(tmp_path, sbert_folder):
    import shutil

    folder = shutil.copytree(sbert_folder, tmp_path / "model")
    modules = (folder / "modules.json").read_text().replace("models.Pooling", "models.LSTM")
    (folder / "modules.json").write_text(modules)
    with HubServer(standard=False) as own:
        own.add_model("someone/else", folder, revision="a" * 40)
        assert "its modules are Transformer, LSTM" in refusal(own.env(tmp_path / "cache"), model="someone/else")
        assert own.downloads(".safetensors") == 0


def test_random_weights_download_no_weights(tmp_path, sbert_folder):
    with HubServer(standard=False) as own:
        own.add_model("someone/shape", sbert_folder, revision="a" * 40)
        info = resolve(own.env(tmp_path), BUILD, model="someone/shape", random_weights=True)
        assert (info["source"], info["label"]) == ("random", "someone/shape (random weights)")
        assert own.downloads(".safetensors") == 0


RESOLVE_ALL = """
import json, sys
from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.build import build_classifier
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.tokenizers import load_tokenizer
found = {}
for name in json.loads(sys.argv[1])["names"]:
    for random in (False, True):
        resolved = resolve_model(TrainConfig(model=name, random_weights=random))
        info = build_classifier(resolved, load_tokenizer(resolved), seed=0).info
        found.setdefault(name, []).append([info.kind, info.source, info.label])
print(json.dumps(found))
"""
FAMILY_OF = {
    "bert": "bert", "roberta": "roberta", "xlm": "xlm-roberta", "deberta": "deberta-v2", "eurobert": "eurobert",
    "mmbert": "modernbert", "ettin": "modernbert",
}  # fmt: skip


def test_named_encoders_come_from_the_hub_with_their_weights_or_with_random_ones(tmp_path):
    """Tiny encoders of the same families stand for them on the tests' hub."""
    specs = [spec for spec in MODELS.values() if spec.architecture is None]
    with HubServer(standard=False) as own:
        for spec in specs:
            folder = tmp_path / spec.name
            family_folder(FAMILY_OF[spec.name.split("-")[0]], folder, max_position_embeddings=600)
            own.add_model(spec.hub_id, folder, revision="c" * 40)
        found = resolve(own.env(tmp_path / "cache"), RESOLVE_ALL, names=[spec.name for spec in specs])
    assert found == {
        spec.name: [[spec.kind, "hub", spec.name], [spec.kind, "random", f"{spec.name} (random weights)"]]
        for spec in specs
    }


def test_weights_that_are_on_the_hub_as_a_pickle_only_are_refused_with_the_way_out(tmp_path):
    folder = family_folder("deberta-v2", tmp_path / "model", max_position_embeddings=600)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with HubServer(standard=False) as own:
        own.add_model(MODELS["deberta-v3-base"].hub_id, folder, revision="a" * 40)
        message = refusal(own.env(tmp_path / "cache"), model="deberta-v3-base")
    assert "its weights are a pickle, which is never loaded; where you trust it, run AutoModel" in message


# ---- no hub


@needs_package
def test_without_a_hub_minilm_is_the_packaged_copy_and_says_so(tmp_path):
    found = resolve(unreachable_hub_env(tmp_path), model="sbert-minilm")
    assert (found["info"]["source"], found["info"]["revision"]) == ("packaged", None)
    (note,) = found["info"]["notes"]
    assert note == "without a connection to the model hub, sbert-minilm is the copy that the demo extra packages"


@needs_package
def test_a_hub_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = hub_env(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        assert resolve(env, model="sbert-minilm")["info"]["source"] == "packaged"


@needs_package
def test_offline_is_unreachable(tmp_path):
    env = unreachable_hub_env(tmp_path) | {"HF_HUB_OFFLINE": "1"}
    assert resolve(env, model="sbert-minilm")["info"]["source"] == "packaged"


def test_modernbert_without_a_hub_is_refused_with_the_remedies(tmp_path):
    message = refusal(unreachable_hub_env(tmp_path), model="modernbert-base")
    assert message.startswith("--model modernbert-base: the hub cannot be reached (")
    assert message.endswith("; give a local folder as --model, or --random-weights with --tokenizer FOLDER")


def test_random_weights_without_a_hub_ask_for_the_tokenizer(tmp_path):
    message = refusal(unreachable_hub_env(tmp_path), model="modernbert-base", random_weights=True)
    assert message.endswith("; give a local folder with its tokenizer as --tokenizer")


def test_a_tokenizer_that_cannot_be_reached_is_refused(tmp_path):
    message = refusal(unreachable_hub_env(tmp_path), model="modernbert-mini", tokenizer="owner/name")
    assert message.startswith("--tokenizer owner/name: the hub cannot be reached (")


def test_a_hub_id_without_a_hub_is_refused(tmp_path):
    message = refusal(unreachable_hub_env(tmp_path), model="owner/name")
    assert message.endswith("; give a local folder as --model")


# ---- names and folders


def test_a_folder_is_told_by_what_it_holds(modernbert_folder, sbert_folder):
    assert [resolve_model(TrainConfig(model=str(f))).info.kind for f in (modernbert_folder, sbert_folder)] == [
        "modernbert",
        "sbert",
    ]


def test_a_sentence_transformers_model_on_modernbert_is_an_sbert(tmp_path):
    folder = models.modernbert_folder(tmp_path / "embedder")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    types = [("", "Transformer"), ("1_Pooling", "Pooling")]
    (folder / "modules.json").write_text(
        json.dumps([{"path": p, "type": f"sentence_transformers.models.{t}"} for p, t in types])
    )
    model, tokenizer, _ = models.build(folder)
    assert model.info.kind == "sbert"
    assert model(*models.encode(tokenizer)).shape == (len(models.SENTENCES), 2)


def test_a_folder_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"--model \./nowhere: no such folder; give a folder, owner/name on the hub"):
        resolve_model(TrainConfig(model="./nowhere"))


def test_a_tokenizer_folder_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"--tokenizer nowhere: no such folder"):
        resolve_model(TrainConfig(model="modernbert-mini", tokenizer="nowhere"))


def test_more_tokens_than_positions_are_refused(sbert_folder):
    with pytest.raises(InputError, match=r"--max-length 513: .* has 512 positions; use 512 or less"):
        resolve_model(TrainConfig(model=str(sbert_folder), max_length=513))
    assert resolve_model(TrainConfig(model=str(sbert_folder), max_length=512)).max_length == 512


@pytest.mark.parametrize(
    ("architecture", "positions"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "modernbert", "max_position_embeddings": 8192}, 8192),
        ({"model_type": "t5"}, None),
    ],
)
def test_positions_that_a_sentence_can_use(architecture, positions):
    assert max_positions(architecture) == positions


@pytest.mark.parametrize(("architecture", "length"), [("roberta", 8), ("mpnet", 8), ("bert", 10)])
def test_the_last_position_can_be_used_and_the_next_cannot(architecture, length):
    # What max_positions says, against the architectures themselves, 10 rows of positions each.
    import torch
    from transformers import AutoConfig, AutoModel

    settings = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "vocab_size": 20,
    }
    config = AutoConfig.for_model(architecture, max_position_embeddings=10, pad_token_id=1, **settings)
    assert max_positions(config.to_dict()) == length
    model = AutoModel.from_config(config).eval()
    model(input_ids=torch.full((1, length), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, length + 1), 5))


def test_a_fine_tuned_export_says_what_it_was_trained_on(tmp_path, sbert_folder):
    export = models.export_of(sbert_folder, tmp_path / "export", corpora=("rotten-tomatoes",))
    assert resolve_model(TrainConfig(model=str(export))).info.trained_on == ("rotten-tomatoes",)


def test_a_run_starts_from_an_export_of_the_same_model(tmp_path, sbert_folder):
    run = tmp_path / "runs" / "mnli"
    models.export_of(sbert_folder, run / "model")
    name = json.loads((run / "model" / "sst2_ray.json").read_text())["model"]
    for folder in (run, run / "model"):
        found = resolve_model(TrainConfig(model=name, start_from=str(folder)))
        assert (found.name, found.info.source) == (name, "folder")
        assert found.info.label == f"{name}, from {folder}"
        assert found.info.origin.startswith(str(run / "model"))


@pytest.mark.parametrize("name", ["model", "sbert", "reviews", "./runs/reviews"])
def test_a_run_starts_from_a_folder_that_is_named_from_here(tmp_path, monkeypatch, sbert_folder, name):
    models.export_of(sbert_folder, tmp_path / name)
    of = json.loads((tmp_path / name / "sst2_ray.json").read_text())["model"]
    monkeypatch.chdir(tmp_path)
    found = resolve_model(TrainConfig(model=of, start_from=name))
    assert found.info.label == f"{of}, from {name}"
    assert found.info.origin.startswith(str((tmp_path / name).resolve()))


def test_another_model_or_what_is_no_export_is_not_started_from(tmp_path, sbert_folder):
    models.export_of(sbert_folder, tmp_path / "export")
    with pytest.raises(InputError, match=r"--start-from .*export: was fine-tuned from .*, not from modernbert-base"):
        resolve_model(TrainConfig(model="modernbert-base", start_from=str(tmp_path / "export")))
    with pytest.raises(InputError, match="is no exported model"):
        resolve_model(TrainConfig(start_from=str(sbert_folder)))
    with pytest.raises(InputError, match=r"--start-from s3://b/run: is not on this machine; copy it to a folder"):
        resolve_model(TrainConfig(start_from="s3://b/run"))
    with pytest.raises(InputError, match="random_weights=True: give one of the two"):
        TrainConfig(start_from="x", random_weights=True)
