from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import sst2_ray
from sst2_ray import cli
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.results.compare import main_compare
from sst2_ray.results.power import PowerResult
from sst2_ray.results.power import main as main_power
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics import power
from sst2_ray.statistics.metrics import correlation
from sst2_ray.statistics.scores import matthews
from tests.support.records import at, prediction, trial
from tests.support.synthetic_results import MODERNBERT, SBERT, write_study

Compare = Callable[..., str]


@pytest.fixture
def compare(study: ResultsTable, capsys: pytest.CaptureFixture[str]) -> Compare:
    """Run `sst2-ray compare` on the made-up sweep and return what it printed."""

    def run(*arguments: str) -> str:
        assert main_compare([*arguments, "--storage-path", study.storage_path]) == 0
        return capsys.readouterr().out

    return run


def test_two_models_are_compared_at_their_best(compare: Compare) -> None:
    out = compare("modernbert-base", "sbert")
    assert "modernbert-base wins: " in out.replace("Modernbert", "modernbert")
    assert "best of 3 configurations" in out
    assert "Methods: Two models were compared with " in out
    assert "The 10 of " in out


def test_long_names_are_letters_in_the_tables_and_explained_below(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ("synthetic-sweep/0000-modernbert-base-s0", "synthetic-sweep/0012-sbert-s0")
    lines = compare(*names).splitlines()
    tabular = [line for line in lines if line[:1] in "│┃┏└"]
    assert max(map(len, tabular)) <= 80
    assert [cell.strip() for cell in tabular[1].split("┃")[2:4]] == ["A", "B"]
    below = next(i for i, line in enumerate(lines) if line.startswith("└")) + 1
    assert lines[below].startswith(f"A is {names[0]}: modernbert-base, lr")
    assert lines[below + 1].startswith(f"B is {names[1]}: sbert, lr")
    assert compare(*names, "--markdown").startswith(f"|  | {names[0]} | {names[1]} |")


def test_two_sides_of_one_name_are_told_apart(compare: Compare, tmp_path: Path) -> None:
    write_study(str(tmp_path), learning_rates=(2e-5, 8e-5), num_seeds=2)
    for format in ((), ("--markdown",)):
        out = compare("sbert", "sbert", "--other-storage-path", str(tmp_path), *format)
        assert f"B is sbert in {tmp_path}/results: " in out
        assert "More runs of A are right on" in out


def test_json_has_the_statistics_and_the_words(compare: Compare) -> None:
    found = json.loads(compare("modernbert-base", "sbert", "--json"))
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["difference"] == pytest.approx(accuracy["a"] - accuracy["b"])
    assert accuracy["low"] < accuracy["difference"] < accuracy["high"]
    assert (accuracy["verdict"], accuracy["winner"], accuracy["num_sentences"]) == ("win", "a", 872)
    assert set(found["metrics"]) == {"accuracy", "f1", "mcc", "loss"}
    assert len(found["sentences"]) == 10
    assert found["sentences"][0]["text"].startswith("made-up sentence")
    assert any("Hillis 2014" in reference for reference in found["references"])


def test_markdown_and_latex_hold_the_same_cells(compare: Compare) -> None:
    markdown = compare("modernbert-base", "sbert", "--markdown")
    latex = compare("modernbert-base", "sbert", "--latex")
    row = next(line for line in markdown.splitlines() if line.startswith("| accuracy"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    line = next(line for line in latex.splitlines() if line.startswith("accuracy"))
    assert [
        cell.strip().replace("\\", "").replace("$-$", "−") for cell in line.removesuffix(r" \\").split("&")
    ] == cells
    assert latex.count(r"\toprule") == 1
    assert "**Methods.**" in markdown


def test_a_single_run_is_compared_over_the_sentences_with_mcnemars_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = str(tmp_path)
    write_study(
        storage, models=(MODERNBERT, SBERT), learning_rates=(8e-5,), batch_sizes=(32,), num_seeds=1, with_failures=False
    )
    assert main_compare(["modernbert-base", "sbert", "--storage-path", storage]) == 0
    out = capsys.readouterr().out
    assert "Not decided: modernbert-base and sbert ran under one seed each" in out
    assert "McNemar's test of these two runs, over the sentences alone: mid-p" in out


def test_a_single_run_stands_for_itself_even_if_its_seed_was_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ResultsTable(str(tmp_path))
    for minute, (name, seed, num_wrong) in enumerate((("first", 0, 20), ("second", 1, 40), ("again", 1, 60))):
        columns = {
            "experiment": name,
            "seed": seed,
            "configuration_id": "c",
            "model": "sbert",
            "written_at": at(minute),
        }
        table.write("trials", [trial(name, best_dev_accuracy=1 - num_wrong / 400, **columns)])
        answers = [
            prediction(i, name, experiment=name, label=i % 2, predicted=(i + (i < num_wrong)) % 2) for i in range(400)
        ]
        table.write("predictions", answers)
    scores = {"first": 0.95, "second": 0.9, "again": 0.85, "second/second": 0.9, "c": 0.9, "sbert": 0.9}
    for a, b in (("first", "second"), ("again", "second"), ("second/second", "c"), ("second", "sbert")):
        assert main_compare([a, b, "--storage-path", str(tmp_path), "--json"]) == 0
        accuracy = json.loads(capsys.readouterr().out)["metrics"]["accuracy"]
        assert (accuracy["a"], accuracy["b"]) == pytest.approx((scores[a], scores[b]))


def predictions(path: Path, share: float, *, seeds: int = 1, words: bool = False) -> str:
    """Write a file as other tools do."""
    rng = np.random.default_rng(int(share * 1000))
    rows = []
    for seed in range(seeds):
        for i in range(400):
            label = i % 2
            predicted = label if rng.random() < share else 1 - label
            named = ("negative", "positive")[predicted] if words else predicted
            rows.append({"id": i, "label": label, "prediction": named, "seed": seed})
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        pyarrow.csv.write_csv(table, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_files_of_predictions_that_others_made(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    a = predictions(tmp_path / f"a{suffix}", 0.97, seeds=3)
    b = predictions(tmp_path / f"b{suffix}", 0.85, seeds=3, words=True)
    assert main_compare([a, b, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["accuracy"]["winner"] == "a"
    assert found["metrics"]["loss"]["verdict"] == "not decided"
    assert "were not stored" in found["metrics"]["loss"]["why"]


def test_a_file_is_compared_with_a_model_on_the_same_rows(
    study: ResultsTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = study.read("predictions", columns=["row_id", "label", "predicted"], trial_ids=["0006-modernbert-base-s0"])
    pq.write_table(rows, tmp_path / "theirs.parquet")
    assert (
        main_compare([str(tmp_path / "theirs.parquet"), "sbert", "--storage-path", study.storage_path, "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"]["num_sentences"] == 872


def test_two_storages(study: ResultsTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(
        str(tmp_path), models=(MODERNBERT,), learning_rates=(8e-5,), batch_sizes=(32,), num_seeds=3, with_failures=False
    )
    words = [
        "sbert",
        "modernbert-base",
        "--storage-path",
        study.storage_path,
        "--other-storage-path",
        str(tmp_path),
        "--json",
    ]
    assert main_compare(words) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["accuracy"]["winner"] == "b"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modernbert-bse", "sbert"], "did you mean modernbert-base"),
        (["sbert", "sbert"], "are the same"),
        (["missing.csv", "sbert"], "cannot be read as predictions"),
        (["sbert", "modernbert-base", "--json", "--latex"], "choose one"),
    ],
)
def test_wrong_sides_are_one_line(study: ResultsTable, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        main_compare([*words, "--storage-path", study.storage_path])
    assert "\n" not in str(caught.value)


def test_a_file_without_a_needed_column_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,prediction\n1,0\n")
    with pytest.raises(InputError, match="has no column label"):
        main_compare([str(tmp_path / "a.csv"), str(tmp_path / "a.csv")])


def test_a_row_that_occurs_twice_asks_for_seeds(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,label,prediction\n1,0,0\n1,0,1\n")
    with pytest.raises(InputError, match="several runs need a column seed"):
        main_compare([str(tmp_path / "a.csv"), str(tmp_path / "a.csv")])


def test_more_than_two_classes_are_compared_in_macro_f1_and_mcc(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    label = rng.integers(0, 4, 400)
    for name, share in (("a", 0.95), ("b", 0.8)):
        rows = []
        for seed in range(3):
            answer = np.where(rng.random(400) < share, label, (label + 1) % 4)
            rows += [f"{i},{y},{z},{seed}" for i, (y, z) in enumerate(zip(label, answer, strict=True))]
        (tmp_path / f"{name}.csv").write_text("\n".join(["row_id,label,prediction,seed", *rows]))
    sides = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    assert main_compare([*sides, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert {name: found[name]["winner"] for name in ("accuracy", "f1", "mcc")} == dict.fromkeys(
        ("accuracy", "f1", "mcc"), "a"
    )
    assert found["f1"]["low"] < found["f1"]["difference"] < found["f1"]["high"]
    assert "more than two classes the loss on single sentences is not stored" in found["loss"]["why"]
    assert main_compare(sides) == 0
    assert "macro F1, %" in capsys.readouterr().out


def write_values(storage: str, name: str, noise: float, chosen_by: str) -> None:
    """Write three runs of a regression whose answers are this far from the labels."""
    table, label = ResultsTable(storage), np.round(np.random.default_rng(1).uniform(0, 5, 120), 1)
    for seed in range(3):
        answer = label + np.random.default_rng([seed, int(10 * noise)]).normal(0, noise, len(label))
        score = correlation(chosen_by, label, answer)
        values = {
            "model": name,
            "seed": seed,
            "configuration_id": name,
            "eval_split": "dev of scores",
            "num_classes": 1,
        }
        chosen = {"chosen_by": chosen_by, "best_score": score, "best_global_step": 100}
        table.write("trials", [trial(f"{name}{seed}", **values, **chosen)])
        none = {"label": None, "predicted": None, "probability": None}
        pairs = enumerate(zip(label.tolist(), answer.tolist(), strict=True))
        table.write("predictions", [
            prediction(row, f"{name}{seed}", label_value=y, predicted_value=z, **none) for row, (y, z) in pairs
        ])  # fmt: skip


def test_regressions_are_compared_by_the_correlation_that_they_were_chosen_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, noise in (("near", 0.5), ("far", 3.0)):
        write_values(str(tmp_path), name, noise, "pearson")
    assert main_compare(["near", "far", "--storage-path", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["decided_by"], list(found["metrics"])) == ("pearson", ["pearson", "spearman"])
    assert found["metrics"]["pearson"]["winner"] == "a"
    assert (found["num_sentences_that_differ"], found["mcnemar_p"]) == (0, None)
    assert "Their difference in Pearson correlation was put to a t test" in found["methods"]
    assert "inside ±0.010 (Schuirmann" in found["methods"]
    assert "Pearson correlation and Spearman correlation were compared by their jackknife" in found["methods"]
    assert not any(word in found["methods"].lower() for word in ("accurac", "f1", "mcc", "loss", "points"))
    assert main_compare(["near", "far", "--storage-path", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "near wins: " in out.replace("Near", "near")
    assert "more Pearson correlation" in out
    assert "The verdict is on Pearson correlation, which both were chosen by." in out


def test_the_report_of_regressions_goes_by_their_correlation(tmp_path: Path) -> None:
    for name, noise in (("near", 0.5), ("far", 3.0)):
        write_values(str(tmp_path), name, noise, "pearson")
    out = tmp_path / "report"
    assert cli.run("report", ["--storage-path", str(tmp_path), "--out", str(out)]) == 0
    page = " ".join((out / "report.html").read_text().split())
    assert "near beats far by " in page
    assert "of Pearson correlation." in page
    assert "The models answer with values: no single sentence is right or wrong." in page


def test_values_are_read_from_a_file_and_are_not_compared_with_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.arange(40) / 8
    for name, noise in (("a", 0.2), ("b", 3.0)):
        answer = label + np.random.default_rng(2).normal(0, noise, len(label))
        rows = [f"{i},{y},{z}" for i, (y, z) in enumerate(zip(label, answer, strict=True))]
        (tmp_path / f"{name}.csv").write_text("\n".join(["row_id,label,prediction", *rows]))
    sides = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    assert main_compare([*sides, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["decided_by"] == "spearman"
    assert found["metrics"]["spearman"]["a"] > found["metrics"]["spearman"]["b"]
    with pytest.raises(InputError, match="one answers with classes, the other with values"):
        main_compare([sides[0], predictions(tmp_path / "c.csv", 0.9)])


def test_the_verdict_is_on_the_metric_that_both_sides_were_chosen_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Positives are rare: one side answers them all, and is wrong more often."""
    table = ResultsTable(str(tmp_path))
    label = (np.arange(200) % 20 == 0).astype(int)
    answers = {"careful": np.zeros(200, dtype=int), "keen": np.where(np.arange(200) % 15 == 1, 1, label)}
    for name, answer in answers.items():
        for seed in range(3):
            found = np.where(np.arange(200) == 3 + 40 * seed, 1 - answer, answer)
            score = matthews(label, found)
            values = {"model": name, "seed": seed, "configuration_id": name, "eval_split": "dev of rare"}
            chosen = {"chosen_by": "mcc", "best_score": score, "best_global_step": 100}
            accuracy = float((found == label).mean())
            table.write("trials", [trial(f"{name}{seed}", best_dev_accuracy=accuracy, **values, **chosen)])
            rows = enumerate(zip(label.tolist(), found.tolist(), strict=True))
            table.write("predictions", [prediction(i, f"{name}{seed}", label=y, predicted=z) for i, (y, z) in rows])
    assert main_compare(["keen", "careful", "--storage-path", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["decided_by"], next(iter(found["metrics"]))) == ("mcc", "mcc")
    assert found["metrics"]["mcc"]["winner"] == "a"
    assert found["metrics"]["accuracy"]["difference"] < 0
    assert main_compare(["keen", "careful", "--storage-path", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Keen wins: " in out
    assert "more MCC" in out
    assert "The verdict is on MCC, which both were chosen by." in out


def test_settings_that_labels_do_not_name_are_said_to_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ResultsTable(str(tmp_path))
    configs = {
        "long": TrainConfig(epochs=3, train_rows=2000, selection_fraction=0.1, storage_path="elsewhere"),
        "short": TrainConfig(epochs=1, learning_rate=1e-4, model="modernbert-mini", label_smoothing=0.1),
        "steep": TrainConfig(epochs=1, learning_rate=2e-4, batch_size=32, label_smoothing=0.1, seed=3, num_workers=2),
    }
    for name, config in configs.items():
        rows = 1800 if name == "long" else 67349
        values = {"model": name, "configuration_id": name, "best_dev_accuracy": 0.5, "num_train_rows": rows}
        table.write("trials", [trial(name, seed=0, config_json=json.dumps(config.to_dict()), **values)])
        table.write("predictions", [prediction(i, name, label=i % 2, predicted=0) for i in range(40)])
    assert main_compare(["long", "short", "--storage-path", str(tmp_path)]) == 0
    assert (
        "They differ in more than their labels say: rows trained on 1,800 and 67,349; --selection-fraction 0.1 and 0; "
        "--epochs 3 and 1; --label-smoothing 0 and 0.1. Where the fraction is 0, epochs were chosen by these very scores, "
        "which are then too high." in " ".join(capsys.readouterr().out.split())
    )
    assert main_compare(["long", "short", "--storage-path", str(tmp_path), "--latex"]) == 0
    assert "-{}-epochs 3 and 1" in capsys.readouterr().out
    assert main_compare(["short", "steep", "--storage-path", str(tmp_path)]) == 0
    assert "They differ in" not in capsys.readouterr().out


# ---- power


def test_power_takes_the_variance_of_the_tables_own_runs(
    study: ResultsTable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_power(["--difference", "1.5", "--storage-path", study.storage_path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "the variance of modernbert-base" in found["source"]
    by_seeds = found["smallest_difference"]
    assert by_seeds["2"]["872"] > by_seeds["10"]["872"] > by_seeds["10"]["5000"]


def test_power_without_a_table_says_what_it_assumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_power(["--storage-path", str(tmp_path / "nowhere")]) == 0
    out = capsys.readouterr().out
    assert "an assumed variance" in out
    assert "For 0.5 points on 872 sentences no number of seeds is enough: it takes more sentences." in " ".join(
        out.split()
    )


def test_power_says_where_more_seeds_and_more_sentences_are_both_needed() -> None:
    noisy = dataclasses.replace(power.typical_difference(of_models=True), seed_variance=2e-4)
    found = PowerResult(difference=1.5, source="made up", estimate=noisy, num_sentences=60)
    says = found.notes()[1]
    assert says == (
        "For 1.5 points on 60 sentences no number of seeds is enough: it takes more sentences, and more than 5 seeds of each."
    )
    assert [row[-1] for row in found.table()[1]][:3] == ["more seeds"] * 3


def test_a_model_on_several_data_is_compared_within_one_experiment(tmp_path: Path) -> None:
    for name, split in (("first", "SST-2 dev"), ("second", "hold-out of reviews")):
        write_study(
            str(tmp_path), experiment=name, learning_rates=(8e-5,), batch_sizes=(16,), eval_split=split, with_failures=False
        )  # fmt: skip
    sides = ["modernbert-base", "sbert", "--storage-path", str(tmp_path)]
    with pytest.raises(InputError, match=r"several sets of sentences .* --experiment first, or name one of its runs"):
        main_compare(sides)
    assert main_compare([*sides, "--experiment", "second"]) == 0
    found = sst2_ray.compare("modernbert-base", "sbert", str(tmp_path), experiment="first").compared
    assert {run.experiment for side in (found.a, found.b) for run in side.configuration.runs} == {"first"}
    with pytest.raises(InputError, match=r"--experiment firs: not in .*first"):
        main_compare([*sides, "--experiment", "firs"])


def test_runs_that_answer_all_alike_tell_nothing_to_plan_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two models that answer every sentence with one class: no variance, and not 1 sentence that shows any difference."""
    table = write_study(str(tmp_path), learning_rates=(8e-5,), batch_sizes=(16,), with_failures=False)
    alike = [dataclasses.replace(one, predicted=1) for one in table.records("predictions")]
    table.write("predictions", alike)
    assert main_power(["--storage-path", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "an assumed variance" in out and "answer all alike" in out
    assert "0.00" not in out
