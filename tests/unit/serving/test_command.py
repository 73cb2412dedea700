"""`sst2-ray serve` refuses what cannot work before Ray is started; the application checks its own settings."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sst2_ray.errors import InputError
from sst2_ray.network import free_port
from sst2_ray.serving.app import settings_of
from sst2_ray.serving.command import main
from sst2_ray.serving.protocol import TOKEN_VARIABLE


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def test_an_address_that_others_reach_needs_a_token() -> None:
    with pytest.raises(InputError, match=rf"--host 0\.0\.0\.0: others can reach it.*set {TOKEN_VARIABLE}"):
        main(["model", "--host", "0.0.0.0"])


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: cannot listen"):
            main(["model", "--port", str(port)])


def test_a_folder_that_is_no_export_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is no export of this package"):
        main([str(tmp_path), "--port", str(free_port())])


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"model_dir": "m", "replicas": 2}, r"args\.replicas: is no setting.*num_replicas"),
        ({"require_token": False}, r"args\.model_dir: must be given"),
        ({"model_dir": "m"}, f"{TOKEN_VARIABLE}: is not set"),
    ],
)
def test_settings_of_a_config_file_are_checked(args: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        settings_of(args)


def test_a_config_file_needs_no_token_where_it_says_so() -> None:
    assert settings_of({"model_dir": "m", "require_token": False, "max_texts": 7}).limits.max_texts == 7
