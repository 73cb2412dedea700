"""The commands as Python functions: their names, their shapes and what they print in a notebook."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import datasets
import pandas as pd
import polars
import pyarrow as pa
import pytest

import sst2_ray
from sst2_ray.errors import InputError
from sst2_ray.predict.shapes import Prediction
from sst2_ray.results.store.table import ResultsTable
from tests.support import models
from tests.support.records import at, trial
from tests.support.synthetic_results import write_study

TEXTS = ["a quiet triumph", "tedious from start to end"]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    return models.export_of(models.sbert_folder(folder / "model"), folder / "export")


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return storage_of(tmp_path)


def storage_of(folder: Path) -> str:
    """Write two runs of a configuration."""
    table = ResultsTable(str(folder))
    for seed, accuracy in enumerate((0.91, 0.93)):
        table.write(
            "trials",
            [
                trial(
                    f"t{seed}", experiment="sweep", seed=seed, best_dev_accuracy=accuracy, learning_rate=8e-5, batch_size=64,
                    model="sbert", model_kind="sbert", eval_split="dev of x", data_fingerprint="f", num_dev_rows=100,
                    configuration_id="c", started_at=at(0),
                )
            ],
        )  # fmt: skip
    return str(folder)


def test_every_command_that_gives_something_back_has_its_function():
    commands = {
        "train", "sweep", "predict", "export", "results", "report", "compare", "power", "status", "best", "stop", "runs", "presets",
    }  # fmt: skip
    assert commands <= set(dir(sst2_ray))
    assert all(getattr(sst2_ray, name).__doc__ for name in dir(sst2_ray) if not name.startswith("_"))


def test_the_storage_is_the_last_argument_by_place_in_every_function_and_has_one_default():
    functions = {name: getattr(sst2_ray, name) for name in dir(sst2_ray) if inspect.isfunction(getattr(sst2_ray, name))}
    of_storage = {name: inspect.signature(one) for name, one in functions.items() if reads_storage(one)}
    assert of_storage.keys() == {"results", "report", "compare", "power", "runs", "status", "best", "stop"}
    for name, signature in of_storage.items():
        by_place = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert (by_place[-1].name, by_place[-1].default) == ("storage_path", "runs"), name
        assert {one.name for one in by_place[:-1]} <= {"a", "b", "name", "difference"}, name


def reads_storage(function: object) -> bool:
    return "storage_path" in inspect.signature(function).parameters


def test_best_takes_the_order_of_its_first_version(tmp_path):
    for seed in (0, 1):
        model = tmp_path / "runs" / "sweep" / f"t{seed}" / "model"
        model.mkdir(parents=True)
        (model / "weights").write_text(str(seed))
    runs = storage_of(tmp_path / "runs")
    ways = (
        lambda out: sst2_ray.best(runs, out=out),
        lambda out: sst2_ray.best(out=out, storage_path=runs),
        lambda out: sst2_ray.best(out, runs),
        lambda out: sst2_ray.best(out, storage_path=runs, experiment="sweep"),
    )
    for number, way in enumerate(ways):
        out = tmp_path / f"best{number}"
        assert way(out) == str(out)
        assert (out / "weights").read_text() == "1"
    with pytest.raises(TypeError):
        sst2_ray.best(storage_path=runs)
    with pytest.raises(TypeError):
        sst2_ray.best(tmp_path / "x", runs, "more")


def test_a_function_stays_one_after_the_folder_of_its_name_is_imported():
    import sst2_ray.predict.predictor
    import sst2_ray.results.store.table
    import sst2_ray.sweep.result

    assert all(callable(getattr(sst2_ray, name)) for name in ("predict", "results", "sweep"))


def test_a_text_gives_a_prediction_and_a_list_a_list(export):
    both = sst2_ray.predict(export, TEXTS)
    assert isinstance(both, list)
    assert sst2_ray.predict(export, TEXTS[0]) == both[0]
    assert isinstance(both[0], Prediction)
    assert sst2_ray.predict(export, (text for text in TEXTS)) == both


def test_a_series_gives_a_frame_with_its_index(export):
    series = pd.Series(TEXTS, index=["x", "y"])
    frame = sst2_ray.predict(export, series)
    assert list(frame.index) == ["x", "y"]
    assert list(frame["predicted_label"]) == [p.label for p in sst2_ray.predict(export, TEXTS)]


TABLES = {
    "pandas": lambda columns: pd.DataFrame(columns, index=["x", "y"]),
    "polars": polars.DataFrame,
    "pyarrow": pa.table,
    "datasets": datasets.Dataset.from_dict,
}


def column(table, name):
    values = table[name]
    return list(values.to_pylist() if isinstance(table, pa.Table) else values)


@pytest.mark.parametrize("library", TABLES)
def test_a_table_gives_a_table_of_its_kind(export, library):
    table = TABLES[library]({"stars": [5, 1], "text": TEXTS, "predicted": [7, 7]})
    labeled = sst2_ray.predict(export, table)
    assert type(labeled) is type(table)
    assert column(labeled, "stars") == [5, 1]
    assert column(labeled, "predicted_label") == [p.label for p in sst2_ray.predict(export, TEXTS)]
    assert set(column(labeled, "predicted")) <= {0, 1}
    if library == "pandas":
        assert list(labeled.index) == ["x", "y"]


def test_splits_give_splits_and_a_column_may_be_named(export):
    predictor = sst2_ray.Predictor(export)
    splits = datasets.DatasetDict({"test": datasets.Dataset.from_dict({"review": TEXTS})})
    labeled = predictor.predict(splits, text_column="review")
    assert isinstance(labeled, datasets.DatasetDict)
    assert list(labeled["test"]["predicted_label"]) == list(predictor.predict(polars.Series(TEXTS))["predicted_label"])
    with pytest.raises(InputError, match="no column 'sentence' or 'text'; it has review; name one with text_column"):
        predictor.predict(splits)


def test_an_item_that_is_no_text_is_named(export):
    with pytest.raises(InputError, match="texts: item 1 is a float, not a text: 'nan'"):
        sst2_ray.predict(export, ["fine", float("nan")])


def test_results_are_a_table_in_a_terminal_and_in_a_notebook(storage):
    board = sst2_ray.results(storage)
    assert len(board) == 1
    assert "92.00" in repr(board)
    assert "<td" in board._repr_html_()
    assert "92.00" in board._repr_html_()
    with pytest.raises(InputError, match="no results table there"):
        sst2_ray.results(f"{storage}/nowhere")


def test_a_comparison_and_a_plan_show_themselves_as_a_table_with_sentences(tmp_path):
    write_study(str(tmp_path), learning_rates=(8e-5,), batch_sizes=(32,), with_failures=False)
    found = sst2_ray.compare("modernbert-base", "sbert", str(tmp_path), margin=20)
    assert (found.verdict, found.winner) == ("win", "modernbert-base")
    assert "accuracy, %" in repr(found)
    assert "smaller than the margin of 20.00 points" in repr(found)
    assert "<td" in found._repr_html_()
    assert found.to_dict()["metrics"]["accuracy"]["margin"] == 0.2
    plan = sst2_ray.power(1.5, str(tmp_path))
    assert "872 sentences" in repr(plan)
    assert plan.smallest_difference[2][872] > plan.smallest_difference[20][872]
    assert sum(plan.to_dict()["variance_shares"].values()) == pytest.approx(1)


def test_presets_are_configs_with_their_summary():
    presets = sst2_ray.presets()
    assert presets["paper"].learning_rate == 8e-5
    assert presets["sweep:demo"].num_seeds == 3
    assert "paper-large" in repr(presets)
    assert "<td" in presets._repr_html_()


def test_a_result_shows_itself_line_by_line_and_in_a_notebook_as_a_table():
    values = {
        "name": "first", "status": "succeeded", "eval_split": "SST-2 dev", "best_dev_accuracy": 0.9472, "best_dev_f1": 0.9481,
        "best_dev_loss": 0.2, "best_epoch": 2.0, "last_dev_accuracy": 0.94, "examples_per_sec": 212.0, "seconds": 60.0,
        "startup_seconds": None, "peak_memory_gib": 1.2, "world_size": 1, "model_label": "sbert", "model_dir": "runs/first/model",
        "run_dir": "runs/first", "results_dir": "runs/results",
    }  # fmt: skip
    known = {f.name for f in dataclasses.fields(sst2_ray.TrainResult)}
    result = sst2_ray.TrainResult(**{**dict.fromkeys(known), **values})
    assert any(line.split() == ["model", "folder", "runs/first/model"] for line in repr(result).splitlines())
    assert "94.72 %" in repr(result)
    assert "<td" in result._repr_html_()
