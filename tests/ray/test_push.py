"""`sst2-ray push` to a hub on loopback: private, whole, with the token of the environment alone, and loadable again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.hub_server import TOKEN, HubServer
from tests.support.models import export_of, sbert_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push")
    return export_of(sbert_folder(folder / "sbert"), folder / "export", corpora=("glue",))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(standard=False) as server:
        yield server


def push(
    hub: HubServer, home: Path, *words: str, token: str | None = TOKEN, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    variables = {
        **hub.env(home / "cache", token=token),
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
        **(env or {}),
    }
    return subprocess.run(
        [sys.executable, "-m", "sst2_ray", "push", *words], env=variables, capture_output=True, text=True, timeout=120
    )


def test_a_new_repository_is_private_and_holds_the_whole_export(hub: HubServer, export: Path, tmp_path: Path) -> None:
    (export / "notes.key").write_text("secret")
    done = push(hub, tmp_path, str(export), "me/model")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"sent to {hub.url}/me/model (private)\n")
    repo = hub.repos["models", "me/model"]
    assert repo.private
    own = {path.relative_to(export).as_posix() for path in export.rglob("*") if path.is_file()} - {"notes.key"}
    assert set(repo.files) == own
    assert all(repo.files[name].read() == (export / name).read_bytes() for name in own)
    assert TOKEN not in done.stdout + done.stderr


def test_the_card_states_its_results_as_the_hub_reads_them(export: Path) -> None:
    from huggingface_hub.repocard_data import model_index_to_eval_results

    front = yaml.safe_load((export / "README.md").read_text().split("---")[1])
    name, results = model_index_to_eval_results(front["model-index"])
    assert name == "sbert"
    assert {one.metric_type: one.metric_value for one in results}["accuracy"] == pytest.approx(775 / 872, abs=1e-6)
    assert {one.dataset_name for one in results} == {"dev of the tests' own"}


def test_what_was_pushed_is_trained_from_again(hub: HubServer, export: Path, tmp_path: Path) -> None:
    assert push(hub, tmp_path, str(export), "me/model").returncode == 0
    code = (
        "from sst2_ray.modeling.sources import resolve_model\n"
        "from sst2_ray.config.train import TrainConfig\n"
        "print(resolve_model(TrainConfig(model='me/model')).info.trained_on)"
    )
    env = {**hub.env(tmp_path / "cache", token=TOKEN), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout == "('glue',)\n", done.stderr


def test_a_public_repository_is_refused_without_the_flag(hub: HubServer, export: Path, tmp_path: Path) -> None:
    assert push(hub, tmp_path, str(export), "me/open", "--public").stdout.endswith("(public)\n")
    refused = push(hub, tmp_path, str(export), "me/open")
    assert refused.returncode == 2
    assert refused.stderr == "error: me/open: exists and is public; pass --public, or take another name\n"


def test_without_a_token_in_the_environment_nothing_is_asked(hub: HubServer, export: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "token").write_text(TOKEN)  # as a login leaves it
    refused = push(hub, tmp_path, str(export), "me/model", token=None)
    assert (refused.returncode, hub.requests) == (2, [])
    assert "HF_TOKEN: is not set" in refused.stderr


def test_a_place_that_the_token_may_not_write_to_is_one_line(hub: HubServer, export: Path, tmp_path: Path) -> None:
    refused = push(hub, tmp_path, str(export), "somebody-else/model")
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: somebody-else/model: the hub does not let the token of HF_TOKEN write there (403)\n"
    )


def test_a_dry_run_lists_the_files_and_asks_nothing(hub: HubServer, export: Path, tmp_path: Path) -> None:
    done = push(hub, tmp_path, str(export), "me/model", "--dry-run", token=None)
    assert (done.returncode, hub.requests) == (0, [])
    assert "encoder/model.safetensors" in done.stdout


@pytest.mark.parametrize("name", ["model", "me/", "/model", "me/my/model"])
def test_a_name_that_is_none_is_refused(hub: HubServer, export: Path, tmp_path: Path, name: str) -> None:
    refused = push(hub, tmp_path, str(export), name)
    assert (refused.returncode, hub.requests) == (2, [])
    assert "must have the form OWNER/NAME" in refused.stderr
