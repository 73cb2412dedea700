from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sst2_ray.errors import InputError
from sst2_ray.results.commands import main_results
from sst2_ray.results.store.import_tune import parse_names, read_experiment
from sst2_ray.results.store.table import ResultsTable


def write_trial(
    folder: Path, name: str, config: dict[str, Any], results: list[dict[str, Any]], error: str = ""
) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "params.json").write_text(json.dumps(config))
    (folder / name / "result.json").write_text("".join(json.dumps({"trial_id": name, **r}) + "\n" for r in results))
    if error:
        (folder / name / "error.txt").write_text(error)


def points(*accuracies: float, name: str = "eval_accuracy") -> list[dict[str, Any]]:
    return [
        {
            name: accuracy,
            "eval_loss": 1 - accuracy,
            "training_iteration": i,
            "time_total_s": 10.0 * i,
            "timestamp": 1767610800,
        }
        for i, accuracy in enumerate(accuracies, start=1)
    ]


def test_common_names_are_mapped(tmp_path: Path) -> None:
    write_trial(
        tmp_path / "exp", "t1", {"lr": 8e-5, "per_device_train_batch_size": 16, "seed": 1}, points(0.8, 0.9, 0.85)
    )
    found = read_experiment(str(tmp_path / "exp"), names={}, eval_split="SST-2 dev", model="roberta-base")
    trial = found.trials[0]
    assert (trial.experiment, trial.trial_id, trial.model, trial.eval_split) == (
        "exp",
        "t1",
        "roberta-base",
        "SST-2 dev",
    )
    assert (trial.learning_rate, trial.batch_size, trial.seed) == (8e-5, 16, 1)
    assert (trial.best_dev_accuracy, trial.best_epoch, trial.last_dev_accuracy, trial.seconds) == (0.9, 2, 0.85, 30)
    assert [point.dev_accuracy for point in found.epochs] == [0.8, 0.9, 0.85]
    assert trial.imported_from == f"{tmp_path}/exp/t1"


def test_seeds_of_one_configuration_belong_together(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_trial(tmp_path, f"t{seed}", {"lr": 1e-5, "seed": seed}, points(0.8))
    write_trial(tmp_path, "t2", {"lr": 2e-5, "seed": 0}, points(0.8))
    ids = [trial.configuration_id for trial in read_experiment(str(tmp_path), names={}).trials]
    assert ids[0] == ids[1] != ids[2]


def test_settings_are_found_inside_ray_trains_search_space_and_seeds_belong_together(tmp_path: Path) -> None:
    for name, rate, seed in (("t0", 1e-5, 0), ("t1", 1e-5, 1), ("t2", 2e-5, 0)):
        space = {"train_loop_config": {"lr": rate, "num_epochs": 3, "seed": seed}, "scaling_config": {"num_workers": 2}}
        write_trial(tmp_path, name, space, points(0.8))
    trials = read_experiment(str(tmp_path), names={}).trials
    assert [(one.learning_rate, one.epochs, one.seed) for one in trials] == [(1e-5, 3, 0), (1e-5, 3, 1), (2e-5, 3, 0)]
    ids = [one.configuration_id for one in trials]
    assert ids[0] == ids[1] != ids[2]


def test_a_given_name_leads_into_nested_settings_and_one_that_no_trial_has_is_told(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_trial(
            tmp_path, f"t{seed}", {"optimizer": {"rate": 3e-5}, "rng": {"base": seed, "fast": True}}, points(0.8)
        )
    names = parse_names(("learning_rate=optimizer/rate", "seed=rng/base", "batch_size=loader/batch", "batch_size=rate"))
    found = read_experiment(str(tmp_path), names=names)
    assert [(one.learning_rate, one.seed, one.batch_size) for one in found.trials] == [(3e-5, 0, None), (3e-5, 1, None)]
    assert len({one.configuration_id for one in found.trials}) == 1
    assert found.notes == [
        f"{tmp_path}: no trial has a setting {name} (--map batch_size={name})" for name in ("loader/batch", "rate")
    ]


def test_experiments_whose_evaluation_data_are_not_named_are_not_ranked_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = ["--storage-path", str(tmp_path / "runs")]
    for name, accuracy in (("theirs", 0.8), ("ours", 0.9)):
        write_trial(tmp_path / name, "t", {"lr": 1e-5}, points(accuracy))
        state = json.dumps({"trial_id": "t", "status": "TERMINATED", "relative_logdir": "t"})
        (tmp_path / name / "experiment_state-1.json").write_text(json.dumps({"trial_data": [[state, "{}"]]}))
        assert main_results(["import-tune", str(tmp_path / name), *storage]) == 0
    capsys.readouterr()
    assert main_results([*storage, "--json"]) == 0
    board = json.loads(capsys.readouterr().out)
    assert [(row["eval_split"], row["rank"]) for row in board] == [
        ("ours (evaluation data not named)", 1),
        ("theirs (evaluation data not named)", 1),
    ]


def test_own_names_come_first(tmp_path: Path) -> None:
    results = [{"accuracy": 0.5, "val": {"top1": 0.9}, "training_iteration": 1}]
    write_trial(tmp_path, "t", {"optimizer_lr": 3e-5}, results)
    names = parse_names(("dev_accuracy=val/top1", "learning_rate=optimizer_lr"))
    found = read_experiment(str(tmp_path), names=names)
    assert found.trials[0].best_dev_accuracy == 0.9
    assert found.trials[0].learning_rate == 3e-5


def test_per_cent_becomes_a_fraction_and_is_told(tmp_path: Path) -> None:
    write_trial(tmp_path, "t", {}, points(91.5, 93.0))
    found = read_experiment(str(tmp_path), names={})
    assert found.trials[0].best_dev_accuracy == pytest.approx(0.93)
    assert "per cent" in found.notes[0]


def test_a_failed_trial_is_a_row_with_its_last_line(tmp_path: Path) -> None:
    write_trial(tmp_path, "good", {"lr": 1e-5}, points(0.8))
    write_trial(tmp_path, "bad", {"lr": 2.0}, [], error="Traceback\n  File x\nValueError: boom\n")
    trial = next(t for t in read_experiment(str(tmp_path), names={}).trials if "2.0" in (t.config_json or ""))
    assert (trial.status, trial.failure_class, trial.failure_message) == ("failed", "bug", "ValueError: boom")


def test_a_cut_off_last_line_does_no_harm(tmp_path: Path) -> None:
    write_trial(tmp_path, "t", {}, points(0.8))
    with open(tmp_path / "t" / "result.json", "a") as stream:
        stream.write('{"eval_accuracy": 0.')
    assert read_experiment(str(tmp_path), names={}).trials[0].best_dev_accuracy == 0.8


def test_secrets_stay_where_they_are(tmp_path: Path) -> None:
    write_trial(tmp_path, "t", {"lr": 1e-5, "hub_token": "hf_abc", "wandb_api_key": "xyz"}, points(0.8))
    config = read_experiment(str(tmp_path), names={}).trials[0].config_json or ""
    assert "hf_abc" not in config
    assert "xyz" not in config


def test_secrets_stay_where_they_are_however_deep(tmp_path: Path) -> None:
    write_trial(
        tmp_path, "t", {"hub": {"accessToken": "hf_abc", "keys": [{"aws_secret_access_key": "xyz"}]}}, points(0.8)
    )
    config = read_experiment(str(tmp_path), names={}).trials[0].config_json or ""
    assert "hf_abc" not in config
    assert "xyz" not in config


def test_a_tokenizer_is_no_secret_and_makes_another_configuration(tmp_path: Path) -> None:
    for name in ("bpe", "wordpiece"):
        write_trial(tmp_path, name, {"tokenizer": name, "max_tokens": 64, "seed": 0}, points(0.8))
    found = read_experiment(str(tmp_path), names={}).trials
    assert len({one.configuration_id for one in found}) == 2
    assert '"tokenizer": "bpe"' in (found[0].config_json or "")


def test_an_unreadable_trial_is_named_and_skipped(tmp_path: Path) -> None:
    write_trial(tmp_path, "good", {}, points(0.8))
    write_trial(tmp_path, "odd", {"lr": "high"}, points(0.8))
    found = read_experiment(str(tmp_path), names={})
    assert len(found.trials) == 1
    assert "odd: skipped" in found.notes[0]


@pytest.mark.parametrize(
    ("pair", "message"), [("accuracy", "give it as column=name"), ("dev_acuracy=x", "did you mean dev_accuracy")]
)
def test_a_wrong_map_is_refused(pair: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_names((pair,))


def test_a_folder_that_is_no_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Ray Tune experiment"):
        read_experiment(str(tmp_path), names={})


def test_an_experiment_without_an_accuracy_says_what_it_reports(tmp_path: Path) -> None:
    write_trial(tmp_path, "t", {}, [{"reward": 3.5, "training_iteration": 1}])
    with pytest.raises(InputError, match=r"reported: reward.*--map dev_accuracy=NAME"):
        read_experiment(str(tmp_path), names={})


def test_importing_twice_changes_nothing(tmp_path: Path) -> None:
    write_trial(tmp_path / "exp", "t", {"lr": 1e-5}, points(0.8, 0.9))
    for _ in range(2):
        assert main_results(["import-tune", str(tmp_path / "exp"), "--storage-path", str(tmp_path / "runs")]) == 0
    table = ResultsTable(str(tmp_path / "runs"))
    assert table.read("trials").num_rows == 1
    assert table.read("epochs").num_rows == 2
