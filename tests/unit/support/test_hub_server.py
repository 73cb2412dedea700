"""The tests' own hub answers as huggingface_hub expects of the real one."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request

import pytest

from tests.support.hub_server import TOKEN, HubServer, tiny_sst2

WEIGHTS = bytes(range(256)) * 64
REVISION = "c0ffee00" * 5
CALL = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
try:
    print(json.dumps({code}))
except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
    print(json.dumps(type(error).__name__))
"""


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text('{"mean": true}')
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    with HubServer(standard=False) as server:
        server.add_model("own/model", folder, revision=REVISION)
        server.add_model("own/secret", folder, revision=REVISION, private=True)
        yield server


def ask(env, code):
    source = CALL.replace("{code}", code)
    done = subprocess.run([sys.executable, "-c", source], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_snapshot_is_downloaded_with_its_folders(hub, tmp_path):
    folder = tmp_path / ask(hub.env(tmp_path), "snapshot_download('own/model')")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "1_Pooling" / "config.json").read_text() == '{"mean": true}'
    assert folder.name == REVISION


def test_a_pinned_file_is_downloaded_once(hub, tmp_path):
    code = f"hf_hub_download('own/model', 'model.safetensors', revision='{REVISION}')"
    assert ask(hub.env(tmp_path), code) == ask(hub.env(tmp_path), code)
    assert hub.downloads("model.safetensors") == 1


def test_the_tree_is_listed(hub, tmp_path):
    listed = ask(hub.env(tmp_path), "sorted(HfApi().list_repo_files('own/model'))")
    assert listed == ["1_Pooling/config.json", "config.json", "model.safetensors"]


def test_paths_are_described(hub, tmp_path):
    code = "[f.size for f in HfApi().get_paths_info('own/model', ['model.safetensors', 'none.json'])]"
    assert ask(hub.env(tmp_path), code) == [len(WEIGHTS)]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("hf_hub_download('own/model', 'none.json')", "RemoteEntryNotFoundError"),
        ("hf_hub_download('own/model', 'config.json', revision='v9')", "RevisionNotFoundError"),
        ("hf_hub_download('own/none', 'config.json')", "RepositoryNotFoundError"),
    ],
)
def test_what_is_not_there_is_told_apart(hub, tmp_path, code, error):
    assert ask(hub.env(tmp_path), code) == error


def test_a_private_model_does_not_exist_without_the_token(hub, tmp_path):
    assert ask(hub.env(tmp_path), "hf_hub_download('own/secret', 'config.json')") == "RepositoryNotFoundError"


def test_a_private_model_is_downloaded_with_the_token(hub, tmp_path):
    path = ask(hub.env(tmp_path, token=TOKEN), "hf_hub_download('own/secret', 'model.safetensors')")
    assert REVISION in path
    assert hub.downloads("model.safetensors") == 1
    assert not any(request.authorized for request in hub.requests if request.path.startswith("/large/"))


def test_a_part_of_a_file_is_sent_where_it_is_asked_for(hub):
    url = f"{hub.url}/own/model/resolve/main/model.safetensors"
    request = urllib.request.Request(url, headers={"Range": "bytes=3-6"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 206
        assert answer.read() == WEIGHTS[3:7]


def test_no_sentence_of_the_tiny_data_set_stands_in_two_splits():
    texts = [text for split in ("train", "validation", "test") for text, _ in tiny_sst2(split)]
    assert len(set(texts)) == len(texts)
