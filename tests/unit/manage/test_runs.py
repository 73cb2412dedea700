"""`sst2-ray ls | status | logs | stop | gc | best` over a storage folder made by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sst2_ray.cli import run
from sst2_ray.manage import runs
from sst2_ray.manage.runs import find_run
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.lease import Lease
from sst2_ray.run.messages import Progress
from sst2_ray.run.progress_file import PROGRESS_FILE, ProgressFile
from sst2_ray.storage import Storage
from sst2_ray.training.names import Phase
from tests.support.object_store import BUCKET, object_store_here
from tests.support.records import at, epoch, prediction, trial
from tests.support.waiting import waited

TRIALS = {
    "a-seed0": {"best_dev_accuracy": 0.91, "seed": 0, "learning_rate": 8e-5},
    "a-seed1": {"best_dev_accuracy": 0.93, "seed": 1, "learning_rate": 8e-5},
    "b-seed0": {"best_dev_accuracy": 0.90, "seed": 0, "learning_rate": 4e-5},
    "b-seed1": {"best_dev_accuracy": 0.90, "seed": 1, "learning_rate": 4e-5},
}


def record(trial_id: str, **values: object):
    defaults = {
        "experiment": "sweep", "started_at": at(0), "model": "sbert", "model_kind": "sbert", "batch_size": 64,
        "eval_split": "dev of x", "data_fingerprint": "f", "seconds": 40.0,
    }  # fmt: skip
    values = {**defaults, **values}
    return trial(trial_id, configuration_id=f"{values.get('learning_rate')}", **values)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A finished sweep of two configurations, what a kill has left of it, and a run that was stopped."""
    root = tmp_path / "runs"
    for trial_id in TRIALS:
        model = root / "sweep" / trial_id / "model"
        model.mkdir(parents=True)
        (model / "weights").write_text(trial_id)
        (root / "sweep" / trial_id / "logs").mkdir()
        for attempt in (2, 10):
            (root / "sweep" / trial_id / "logs" / f"attempt-{attempt}-rank-0.log").write_text(f"one\n{attempt}\n")
    for folder in ("sweep/a-seed0/checkpoints/step-00000001", "sweep/a-seed0/ray/attempt-0", "alone/checkpoints/step"):
        (root / folder).mkdir(parents=True)
        (root / folder / "file").write_bytes(b"x" * 1024)
    (root / "sweep" / "config.json").write_text(json.dumps({"sweep": {}, "config": {}}))
    (root / "alone" / "config.json").write_text(json.dumps({"config": {}}))
    table = ResultsTable(str(root))
    table.write("trials", [record(trial_id, **values) for trial_id, values in TRIALS.items()])
    table.write("trials", [record("alone", experiment="alone", status="stopped", failure_class="user_stop")])
    table.write("epochs", [epoch(200, "a-seed0", experiment="sweep", dev_accuracy=0.91)])
    return root


@pytest.fixture
def command(storage: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(name: str, *words: str) -> tuple[int, str, str]:
        code = run(name, [*words, "--storage-path", str(storage)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_ls_shows_runs_and_sweeps(command) -> None:
    code, out, _ = command("ls")
    assert code == 0
    sweep = next(line for line in out.splitlines() if "│ sweep " in line)
    alone = next(line for line in out.splitlines() if "│ alone " in line)
    assert "succeeded" in sweep
    assert "93.00" in sweep
    assert "stopped" in alone
    assert "2 runs" in out


def test_ls_of_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ls", ["--storage-path", str(tmp_path)]) == 2
    assert "no run there" in capsys.readouterr().err


def test_a_damaged_config_of_a_folder_without_rows_is_one_line(command, storage: Path) -> None:
    (storage / "new").mkdir()
    for content in ('{"config": {},}', "3"):
        (storage / "new" / "config.json").write_text(content)
        code, _, err = command("ls")
        assert code == 2
        assert err.startswith(f"error: new: {storage}/new/config.json is damaged (") and err.count("\n") == 1
    (storage / "sweep" / "config.json").write_text("")  # what has rows is known by them
    (storage / "new" / "config.json").write_text("{}")
    assert command("ls")[0] == 0


def test_a_run_that_was_killed_is_told_from_one_that_runs(command, storage: Path) -> None:
    import os

    ResultsTable(str(storage)).write("trials", [record("c-seed0", status="running", seconds=None)])
    assert "running;" in command("status", "sweep")[1]
    for file in (storage / "sweep").rglob("*"):
        os.utime(file, (0, 0))
    assert "running? silent for" in command("status", "sweep")[1]


def test_scores_on_the_held_out_part_of_train_are_marked(command, storage: Path) -> None:
    assert "held out" not in command("ls")[1] + command("status", "sweep")[1]
    ResultsTable(str(storage)).write("trials", [record("c-seed0", selection_accuracy=0.95)])
    listed, trials = command("ls")[1], command("status", "sweep")[1]
    assert "95.00*" in listed and "* on the part of train that was held out" in listed
    assert (
        "95.00*" in trials
        and "91.00*" not in trials
        and "best accuracy 95.00 % on the held-out part of train" in trials
    )


def test_ls_and_status_answer_in_json(command) -> None:
    runs = json.loads(command("ls", "--json")[1])
    assert [(run["name"], run["kind"], run["status"]) for run in runs] == [
        ("alone", "run", "stopped"),
        ("sweep", "sweep", "succeeded"),
    ]
    sweep = json.loads(command("status", "sweep", "--json")[1])
    assert sweep["best_accuracy"] == 0.93
    assert [trial["accuracy"] for trial in sweep["trials"]] == [0.91, 0.93, 0.90, 0.90]


def test_a_sweep_whose_trials_have_not_all_begun_is_no_success(command, storage: Path, tmp_path: Path) -> None:
    assert "not run" not in command("best", "--experiment", "sweep", "--out", str(tmp_path / "a"))[1]
    clock = storage / "sweep" / "clock.json"
    clock.write_text(json.dumps({"sessions": [], "num_trials": 7}))
    listed = json.loads(command("ls", "--json")[1])[1]
    assert (listed["status"], listed["num_planned"]) == ("stopped, 4 of 7 trials", 7)
    assert "stopped, 4 of 7 trials" in command("status", "sweep")[1]
    assert "3 of 7 trials have not run" in command("best", "--experiment", "sweep", "--out", str(tmp_path / "b"))[1]
    ResultsTable(str(storage)).write("trials", [record("c-seed0", status="running", seconds=None)])
    assert "running, 4 of 7 trials" in command("status", "sweep")[1]
    for whole in ('{"sessions": [], "num_trials": 5}', '{"sessions": []}', "damaged"):
        clock.write_text(whole)
        ResultsTable(str(storage)).write("trials", [record("c-seed0", best_dev_accuracy=0.5, seed=0)])
        assert json.loads(command("ls", "--json")[1])[1]["status"] == "succeeded"


def test_a_sweep_in_an_object_store_is_the_same_in_ls_as_in_status(storage: Path) -> None:
    def states() -> dict[str, str]:
        return {run.name: run.status for run in runs.list_runs(f"{uri}/runs", states_only=True)}

    with object_store_here():
        uri = f"s3://{BUCKET}/{storage.parent.name}"
        Storage.open(uri).upload(storage, "runs")
        folder = Storage.open(f"{uri}/runs")
        cases = {
            '{"sessions": [], "num_trials": 7}': "stopped, 4 of 7 trials",
            '{"sessions": [], "num_trials": 4}': "succeeded",
            '{"sessions": []}': "succeeded",
            "damaged": "succeeded",
        }
        assert states() == {"alone": "stopped", "sweep": "succeeded"}
        for clock, status in cases.items():
            folder.write_bytes("sweep/clock.json", clock.encode())
            assert states() == {"alone": "stopped", "sweep": status}
            assert find_run(f"{uri}/runs", "sweep").status == status
        folder.write_bytes("sweep/clock.json", b'{"sessions": [], "num_trials": 7}')
        ResultsTable(f"{uri}/runs").write("trials", [record("c-seed0", status="running", seconds=None)])
        assert states()["sweep"].startswith("running, 4 of 7 trials")


def test_status_without_a_name_lists_what_runs(command, storage: Path) -> None:
    assert command("status")[1].startswith("nothing runs in")
    assert json.loads(command("status", "--json")[1]) == []
    ResultsTable(str(storage)).write("trials", [record("c-seed0", status="running", seconds=None)])
    out = command("status")[1]
    assert "sweep" in out
    assert "alone" not in out


def test_status_watches_until_nothing_runs(command, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ResultsTable(str(storage)).write("trials", [record("c-seed0", status="running", seconds=None)])
    ended = dataclasses.replace(record("c-seed0", status="succeeded"), written_at=at(9))
    monkeypatch.setattr("time.sleep", lambda _: ResultsTable(str(storage)).write("trials", [ended]))
    code, out, _ = command("status", "sweep", "--watch")
    assert code == 0
    assert [line.split(", ")[2].split(";")[0] for line in out.splitlines() if line.startswith("sweep: ")] == [
        "running",
        "succeeded",
    ]


def test_status_shows_every_trial(command) -> None:
    code, out, _ = command("status", "sweep")
    assert code == 0
    assert all(trial_id in out for trial_id in TRIALS)
    assert "91.00" in next(line for line in out.splitlines() if "a-seed0" in line)


@pytest.mark.parametrize("name", ["status", "logs", "stop"])
def test_an_unknown_name_is_answered_with_the_nearest(command, name: str) -> None:
    code, _, err = command(name, "swep")
    assert code == 2
    assert err.startswith("error: swep: no such run below")
    assert "did you mean sweep?" in err


def test_logs_are_those_of_the_newest_attempt(command) -> None:
    assert command("logs", "sweep", "--trial", "a-seed0", "--lines", "1")[:2] == (0, "10\n")
    assert command("logs", "sweep", "--trial", "a-seed0", "--lines", "0")[:2] == (0, "one\n10\n")


def test_logs_of_a_sweep_are_listed(command) -> None:
    assert "b-seed1: attempt-10-rank-0.log" in command("logs", "sweep")[1]
    assert "did you mean" in command("logs", "sweep", "--trial", "a-seed")[2]
    assert "no log of rank 3" in command("logs", "sweep", "--trial", "a-seed0", "--rank", "3")[2]


def test_logs_are_what_the_terminal_showed_where_that_was_kept(command, storage: Path) -> None:
    (storage / "sweep" / "logs").mkdir()
    (storage / "sweep" / "logs" / "driver.log").write_text("plan\nresult\n")
    assert command("logs", "sweep", "--lines", "1")[1] == "result\n"
    assert command("logs", "sweep", "--trial", "a-seed0", "--rank", "0", "--lines", "1")[1] == "10\n"


def test_status_of_what_runs_ends_with_the_newest_line_of_its_driver(command, storage: Path) -> None:
    ResultsTable(str(storage)).write("trials", [record("c-seed0", status="running", seconds=None)])
    (storage / "sweep" / "logs").mkdir()
    log = "2026-01-01T00:00:00Z INFO driver: plan\n2026-01-01T00:00:20Z INFO driver: step 30 of 421: loss 0.31\n"
    (storage / "sweep" / "logs" / "driver.log").write_text(log)
    line = "sweep: 2026-01-01T00:00:20Z step 30 of 421: loss 0.31"
    assert command("status", "sweep")[1].splitlines()[-1] == line
    assert command("status")[1].splitlines()[-1] == line


def test_status_tells_how_far_a_running_trial_is_by_what_its_driver_writes(command, storage: Path) -> None:
    ResultsTable(str(storage)).write("trials", [record("c-seed0", status="running", seconds=None)])
    progress = Progress(phase=Phase.TRAINING, global_step=1200, total_steps=4200, epoch=0.5, train_loss=0.3531)
    folder = Storage.open(str(storage / "sweep" / "c-seed0"))
    ProgressFile(folder, attempt=0).update(progress, None)
    waited(lambda: folder.exists(PROGRESS_FILE), PROGRESS_FILE, 10)
    assert "c-seed0: step 1,200/4,200, loss 0.353" in command("status", "sweep")[1].splitlines()
    trials = {row["trial"]: row["progress"] for row in json.loads(command("status", "sweep", "--json")[1])["trials"]}
    assert (trials["c-seed0"]["global_step"], trials["a-seed0"]) == (1200, None)


def test_only_what_runs_is_asked_to_stop(command, storage: Path) -> None:
    code, _, err = command("stop", "sweep")
    assert (code, err) == (2, "error: sweep: nothing of it runs (succeeded)\n")
    ResultsTable(str(storage)).write("trials", [record("c-seed0", status="running", seconds=None)])
    assert command("stop", "sweep")[0] == 0
    assert (storage / "sweep" / "stop.json").exists()


def test_a_sweep_between_two_trials_runs_and_can_be_stopped(command, storage: Path) -> None:
    with Lease(Storage.open(str(storage)), "sweep"):
        holder = json.loads((storage / "sweep" / "running.json").read_text())
        (storage / "sweep" / "running.json").write_text(json.dumps({**holder, "host": "another"}))
        assert find_run(str(storage), "sweep").is_running
        (storage / "sweep" / "clock.json").write_text(json.dumps({"sessions": [], "num_trials": 7}))
        assert json.loads(command("ls", "--json")[1])[1]["status"] == "running, 4 of 7 trials"
        assert command("stop", "sweep")[0] == 0
    assert not find_run(str(storage), "alone").is_running


def test_gc_deletes_what_nothing_goes_on_from(command, storage: Path) -> None:
    ResultsTable(str(storage)).write("trials", [record("b-seed0", **TRIALS["b-seed0"], export_path=None)])
    code, out, _ = command("gc", "--dry-run")
    assert code == 0
    assert "sweep/a-seed0/checkpoints: " in out
    assert "nothing was deleted" in out
    assert (storage / "sweep/a-seed0/checkpoints").exists()
    assert command("gc")[0] == 0
    assert not (storage / "sweep/a-seed0/checkpoints").exists()
    assert not (storage / "sweep/a-seed0/ray").exists()
    assert (storage / "alone/checkpoints/step/file").exists()  # it can go on from there
    assert command("gc")[1] == "0 folders, 0.0 KiB deleted\n"


def test_gc_keeps_the_checkpoints_of_a_single_run_until_it_has_succeeded(command, storage: Path) -> None:
    failed = {"status": "failed", "failure_class": "out_of_memory"}
    for minutes, values, is_kept in [(1, failed, True), (2, {"status": "succeeded"}, False)]:
        row = dataclasses.replace(record("alone", experiment="alone", **values), written_at=at(minutes))
        ResultsTable(str(storage)).write("trials", [row])
        command("gc")
        assert (storage / "alone/checkpoints/step/file").exists() == is_kept


def test_gc_keeps_the_models_that_have_a_row(command, storage: Path) -> None:
    kept = dataclasses.replace(record("a-seed1", **TRIALS["a-seed1"]), export_path="x", written_at=at(9))
    ResultsTable(str(storage)).write("trials", [kept])
    command("gc")
    assert (storage / "sweep/a-seed1/model/weights").exists()
    assert not (storage / "sweep/b-seed1/model").exists()


def test_gc_leaves_a_sweep_alone_in_which_something_runs(command, storage: Path) -> None:
    ResultsTable(str(storage)).write("trials", [record("c-seed0", status="running", seconds=None)])
    command("gc")
    assert (storage / "sweep/a-seed0/checkpoints").exists()


def test_best_takes_the_best_run_of_the_best_configuration(command, tmp_path: Path) -> None:
    target = tmp_path / "winner"
    code, out, _ = command("best", "--out", str(target))
    assert code == 0
    assert (target / "weights").read_text() == "a-seed1"
    assert (
        "92.00 % dev accuracy at the best epoch (mean of 2 seeds), best of 2 configurations, 4 runs, chosen on " in out
    )
    assert command("best", "--out", str(target))[2].endswith("exists; choose another folder, or pass --overwrite\n")
    refused = command("best", "--out", str(target), "--overwrite")[2]
    assert refused.endswith("is no model that could be replaced; choose another folder\n")
    (target / "sst2_ray.json").write_text("{}")
    (target / "weights").write_text("of an earlier sweep")
    assert command("best", "--out", str(target), "--overwrite")[0] == 0
    assert (target / "weights").read_text() == "a-seed1" and not (target / "sst2_ray.json").exists()
    assert "is no folder of this machine" in command("best", "--out", "s3://bucket/winner")[2]


def test_the_card_of_the_best_tells_its_two_intervals_apart(command, storage: Path, tmp_path: Path) -> None:
    (storage / "sweep/a-seed1/model/README.md").write_text("# m\n\n## Results\n\n## Training\n")
    answers = {trial_id: int(100 * values["best_dev_accuracy"]) for trial_id, values in TRIALS.items()}
    rows = [
        prediction(i, trial_id, experiment="sweep", predicted=int(i < num_right), global_step=200)
        for trial_id, num_right in answers.items()
        for i in range(100)
    ]
    ResultsTable(str(storage)).write("predictions", rows)
    assert command("best", "--out", str(tmp_path / "winner"))[0] == 0
    card = (tmp_path / "winner/README.md").read_text()
    assert "92.00 % (mean of 2 seeds), 95 % interval for new seeds and new sentences " in card
    assert "; the one in the table is Wilson's, of this run alone.\n" in card


def test_best_by_the_loss_takes_the_run_with_the_least(command, storage: Path, tmp_path: Path) -> None:
    losses = {"a-seed0": 0.9, "a-seed1": 0.3, "b-seed0": 1.0, "b-seed1": 1.0}
    scores = {name: {"chosen_by": "loss", "best_score": loss, "best_dev_loss": loss} for name, loss in losses.items()}
    table = ResultsTable(str(storage))
    table.write("trials", [record(name, written_at=at(9), **TRIALS[name], **scores[name]) for name in TRIALS])
    (tmp_path / ".winner.partial").mkdir()  # what an interrupted copy has left
    assert command("best", "--out", str(tmp_path / "winner"), "--experiment", "sweep")[0] == 0
    assert (tmp_path / "winner" / "weights").read_text() == "a-seed1"


def test_best_takes_its_former_words(storage: Path, tmp_path: Path) -> None:
    assert run("best", [str(storage), "--export", str(tmp_path / "winner")]) == 0
    assert (tmp_path / "winner" / "weights").exists()


def test_a_run_is_one_line_and_in_a_notebook_a_table(storage: Path) -> None:
    sweep = find_run(str(storage), "sweep")
    assert repr(sweep).startswith("<sweep: sweep, 4 trials, succeeded; best accuracy 93.00 %; ")
    assert "<td" in sweep._repr_html_()
    assert "a-seed0" in sweep._repr_html_()


def test_best_ranks_nothing_that_was_evaluated_on_other_sentences(command, storage: Path, tmp_path: Path) -> None:
    other = record("other", experiment="other", eval_split="dev of y", best_dev_accuracy=0.99, seed=0)
    ResultsTable(str(storage)).write("trials", [other])
    code, _, err = command("best", "--out", str(tmp_path / "x"))
    assert code == 2
    assert "choose one with --experiment (other, sweep)" in err
    assert not (tmp_path / "x").exists()


def test_a_folder_above_the_runs_is_answered_with_theirs(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["ls", str(storage.parent)], ["status", "sweep", "--storage-path", str(storage.parent)]):
        assert run(words[0], words[1:]) == 2
        assert "did you mean --storage-path " in capsys.readouterr().err


def test_in_an_object_store_files_are_listed_for_what_runs_or_on_request(
    storage: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ResultsTable(str(storage)).write("trials", [record("c-seed0", experiment="alone", status="running", seconds=None)])
    listed: list[str] = []
    first = runs.files_below
    monkeypatch.setattr(runs, "files_below", lambda store, folder: listed.append(folder) or first(store, folder))
    monkeypatch.setattr(Storage, "is_local", property(lambda _: False))
    for words, folders in (
        (["ls", str(storage)], ["alone"]),
        (["status", "--storage-path", str(storage)], ["alone"]),
        (["ls", str(storage), "--sizes"], [""]),
    ):
        listed.clear()
        assert run(words[0], words[1:]) == 0
        assert listed == folders
        out = capsys.readouterr().out
        assert ("sst2-ray ls --sizes" in out) == (words == ["ls", str(storage)])
        assert ("KiB" in out) == (folders == [""])
