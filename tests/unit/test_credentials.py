"""Credentials in URIs of object stores: they open what they are for, and stand in no message, plan, table or file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from sst2_ray import terminal
from sst2_ray.cli import run
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.files import local_copy
from sst2_ray.data.load import load_splits
from sst2_ray.errors import InputError, RunFailedError
from sst2_ray.formatting import hide_secrets, without_secret
from sst2_ray.predict.predictor import model_folder
from sst2_ray.results.report import page
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.prepare import check, check_run, run_description
from sst2_ray.run.train import dry_run
from sst2_ray.storage import Storage, address
from sst2_ray.sweep import start
from sst2_ray.sweep.command import leave_config, read_sweep_command, resumed
from sst2_ray.sweep.start import check_existing
from tests.support.models import sbert_folder
from tests.support.object_store import BUCKET, object_store_here
from tests.support.records import trial
from tests.support.reviews import reviews, write_csv

SECRET = "hiddenWord"
USER = f"KEY:{SECRET}@"
WRONG = ("%zz", "/w", "/", "?w", "#w", " w", "[w", "\n", "@w", "@/w")
"""Ends of a secret with letters that stand for themselves in no URI."""


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Return the URI of a bucket, with credentials."""
    with object_store_here():
        yield f"s3://{USER}{BUCKET}"


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command, and returns what it printed."""

    def call(*words: str, code: int = 0) -> str:
        assert run(words[0], list(words[1:])) == code
        printed = capfd.readouterr()
        assert SECRET not in printed.out + printed.err
        return printed.out + printed.err

    return call


# ---- the rule


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"s3://{USER}bucket/x?region=eu", "s3://bucket/x?region=eu"),
        (f"s3://{USER}bucket", "s3://bucket"),
        ("s3://KEY@bucket/x", "s3://bucket/x"),
        (f"https://me@there.org:{SECRET}@host/x", "https://host/x"),
        (f"s3://bucket/x?endpoint_override=http://me:{SECRET}@host", "s3://bucket/x?endpoint_override=http://host"),
        *((f"s3://KEY:{SECRET}{end}@bucket/x", "s3://bucket/x") for end in WRONG),
        (f"abfss://c@account.dfs.net/x?client_secret={SECRET}", "abfss://c@account.dfs.net/x"),
        (
            f"abfss://c@account.dfs.net/x?sig={SECRET}%3D&sv=2024&sas_token={SECRET}",
            "abfss://c@account.dfs.net/x?sv=2024",
        ),
        (f"s3://{USER}bucket/x?region=eu&secret_key={SECRET}&scheme=http", "s3://bucket/x?region=eu&scheme=http"),
        (f"https://host/x.csv?X-Amz-Security-Token={SECRET}&key={SECRET}#part", "https://host/x.csv#part"),
        (f"gs://bucket/x?AccessToken={SECRET} w&project_id=me", "gs://bucket/x?project_id=me"),
    ],
)
def test_no_part_of_a_secret_is_shown(uri: str, shown: str) -> None:
    assert without_secret(uri) == shown
    assert address(uri, "run").startswith(address(shown).partition("?")[0])


@pytest.mark.parametrize(
    "uri",
    [
        *("s3://bucket/a@b", "s3://bucket/at:9@b", "s3://bucket/day=3?x=a@b", "gs://bucket", "http://host:8265/x"),
        *(
            "s3://bucket/x?",
            "gs://bucket/x?project_id=a&tokens=3&keys",
            "data/why?key=1",
            "abfss://c@a/x?credential_kind=cli",
        ),
        *("hdfs://host:8020/x", "abfss://container@account.dfs.core.windows.net/x", "runs/a:b@c", "/a@b://c"),
    ],
)
def test_a_path_without_credentials_stays_as_it_is(uri: str) -> None:
    assert without_secret(uri) == uri


def test_a_message_keeps_the_words_around_its_uris() -> None:
    text = f"--data s3://{USER}b/x.csv: was gs://b/y?token={SECRET}&a=1; at http://host:8265 ask me@home? key=1"
    assert hide_secrets(text) == "--data s3://b/x.csv: was gs://b/y?a=1; at http://host:8265 ask me@home? key=1"
    for error in (InputError(text), RunFailedError(text)):
        assert str(error) == hide_secrets(text)


# ---- messages


@pytest.mark.parametrize(
    ("end", "scheme", "proxy"),
    [
        *((end, scheme, "") for end in WRONG if not end.startswith("@") for scheme in ("s3", "s3x", "gs")),
        *((end, "s3", "http://127.0.0.1:9") for end in ("/w", "/", "?w", "#w", "[w")),
    ],
)
def test_a_uri_that_cannot_be_opened_is_refused_without_its_secret(
    end: str, scheme: str, proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    uri = f"{scheme}://KEY:{SECRET}{end}@bucket/x"
    with pytest.raises(InputError) as opened:
        Storage.open(uri)
    with pytest.raises(InputError) as copied:
        local_copy(uri, tmp_path, "--data")
    with pytest.raises(InputError) as loaded, model_folder(uri):
        pass
    for caught in (opened, copied, loaded):
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("secret", ["12/34", "/34"])
def test_a_secret_that_looks_like_a_port_and_a_path_opens_no_other_bucket(secret: str) -> None:
    with pytest.raises(InputError, match=r"write '/' in them as %2F"):
        Storage.open(f"s3://KEY:{secret}@bucket/x")


def test_what_a_terminal_shows_meanwhile_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(terminal, "Console", lambda **_: Console(file=file, force_terminal=True, width=200))
    with terminal.busy(f"reading s3://{USER}bucket/x"):
        pass
    assert "s3://bucket/x" in file.getvalue() and SECRET not in file.getvalue()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ls"], "no run there"),
        (["status", "one"], "no such run"),
        (["results"], "no results table there"),
        (["report"], "no results table there"),
        (["best", "--out", "model"], "no trial succeeded yet"),
        (["sweep", "--resume"], "no config.json there"),
    ],
)
def test_an_empty_folder_is_answered_without_the_secret(
    bucket: str, said: Callable[..., str], words: list[str], line: str
) -> None:
    flag = [] if words[-1] == "--resume" else ["--storage-path"]
    assert line in said(*words, *flag, f"{bucket}/nothing", code=2)


def test_the_commands_that_look_after_runs_name_the_storage_without_the_secret(
    bucket: str, said: Callable[..., str]
) -> None:
    uri, shown = f"{bucket}/kept", f"s3://{BUCKET}/kept"
    Storage.open(uri).write_json("one/config.json", {"sweep": {}, "config": {}})
    ResultsTable(uri).write("trials", [trial("one-seed0", experiment="one")])
    assert f"nothing runs in {shown}" in said("status", "--storage-path", uri)
    assert f"--storage-path {shown} --trial" in said("logs", "one", "--storage-path", uri)
    ResultsTable(uri).write("trials", [trial("one-seed1", experiment="one", status="running")])
    assert f"--storage-path {shown}" in said("stop", "one", "--storage-path", uri)


def test_the_path_of_a_report_holds_no_secret(bucket: str) -> None:
    made = page.Report(html="", figures=(), headlines=())
    assert page.write(made, f"{bucket}/report") == f"s3://{BUCKET}/report/report.html"


# ---- plans, hashes and files


@pytest.fixture
def config(bucket: str, tmp_path: Path) -> TrainConfig:
    """Return the config of a run whose data and storage lie in the bucket."""
    sbert_folder(tmp_path / "model")
    write_csv(tmp_path / "reviews.csv", reviews(64))
    Storage.open(bucket).upload(tmp_path / "reviews.csv", "data/reviews.csv")
    return TrainConfig(
        model=str(tmp_path / "model"), data=f"{bucket}/data/reviews.csv", storage_path=f"{bucket}/runs", batch_size=8,
        holdout_fraction=0.25, num_workers=1, name="one",
    )  # fmt: skip


@pytest.mark.parametrize("as_json", [True, False])
def test_a_dry_run_shows_no_secret(config: TrainConfig, capfd: pytest.CaptureFixture[str], as_json: bool) -> None:
    dry_run(config, as_json=as_json)
    start.dry_run(SweepConfig(models=(config.model,), batch_sizes=(8,), base=config), as_json=as_json)
    printed = capfd.readouterr()
    assert f"s3://{BUCKET}/data/reviews.csv" in printed.out
    assert f"s3://{BUCKET}/runs" in printed.out
    assert SECRET not in printed.out + printed.err


def test_the_rows_of_data_with_credentials_are_named_without(config: TrainConfig) -> None:
    splits = load_splits(config)
    assert (splits.source, splits.eval_split) == (f"s3://{BUCKET}/data/reviews.csv", "hold-out of reviews.csv")
    assert TrainConfig(data=f"s3://{USER}bucket").run_name.startswith("sbert-minilm-bucket-")


def test_a_run_goes_on_by_a_config_that_holds_no_secret(config: TrainConfig) -> None:
    inputs, storage = check(config), Storage.open(config.storage_path)
    storage.write_json("one/config.json", run_description(inputs))
    text = storage.read_bytes("one/config.json").decode()
    assert SECRET not in text and json.loads(text)["config"]["storage_path"] == f"s3://{BUCKET}/runs"
    assert check_run(storage, inputs) is None
    other = check(TrainConfig(**{**config.to_dict(), "seed": 3}))
    with pytest.raises(InputError, match=r"another config \(seed 0 -> 3\)"):
        check_run(storage, other)
    storage.delete("one")


def test_a_sweep_goes_on_by_a_config_that_holds_no_secret(config: TrainConfig) -> None:
    sweep = SweepConfig(models=(config.model,), batch_sizes=(8,), base=config)
    leave_config(sweep)
    folder = Storage.open(config.storage_path).child("one")
    assert SECRET not in folder.read_bytes("config.json").decode()
    check_existing(folder, sweep, start.check_sweep(sweep))
    found = resumed(f"{config.storage_path}/one")
    assert (found.base.storage_path, found.trials_hash) == (config.storage_path, sweep.trials_hash)
    again = read_sweep_command(["--resume", f"{config.storage_path}/one", "--data", config.data])[1]
    assert (again.base.data, again.trials_hash) == (config.data, sweep.trials_hash)
    folder.delete("config.json")


@pytest.mark.parametrize("query", ["", f"?client_secret={SECRET}"])
def test_the_expression_that_makes_a_config_holds_no_secret(query: str) -> None:
    uri = f"s3://{USER}bucket/x{query}"
    config = TrainConfig(data=uri, storage_path=uri, labels=(uri, "it's"), price_per_hour=1.5)
    assert "data='s3://bucket/x'" in repr(config) and "storage_path='s3://bucket/x'" in repr(config)
    assert """labels=('s3://bucket/x', "it's")""" in repr(config) and "price_per_hour=1.5" in repr(config)
    sweep = SweepConfig(models=(uri,), base=config)
    assert "models=('s3://bucket/x',)" in repr(sweep)
    assert SECRET not in repr(config) + repr(sweep)


def test_credentials_are_no_part_of_what_a_run_is() -> None:
    plain = TrainConfig(data="s3://bucket/x.csv", storage_path="s3://bucket/runs")
    own = TrainConfig(data=f"s3://{USER}bucket/x.csv", storage_path=f"s3://{USER}bucket/runs")
    assert own.config_hash == plain.config_hash
    assert SweepConfig(base=own).trials_hash == SweepConfig(base=plain).trials_hash
