"""`sst2-ray export`: what is written, what the proof says, what is kept, and wrong input in one line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import sst2_ray
from sst2_ray.cli import run
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.load import load_splits
from sst2_ray.errors import InputError
from sst2_ray.predict import measuring
from sst2_ray.predict.export import unseen
from sst2_ray.predict.measuring import Candidate
from sst2_ray.predict.proof import Row, fastest
from sst2_ray.statistics import crossed
from tests.support.reviews import reviews, write_glue_folder


@pytest.fixture
def command(capsys):
    def call(*words):
        code = run("export", [str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def model(export, tmp_path):
    return shutil.copytree(export, tmp_path / "model")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export-data")
    write_glue_folder(folder, reviews(64), reviews(40, topic="play"))
    return folder


@pytest.mark.parametrize(
    ("words", "variants"),
    [((), ["fp32"]), pytest.param(("--int8",), ["fp32", "int8", "int8-static"], marks=pytest.mark.slow)],
)
def test_proof_labels_every_dev_sentence_and_keeps_the_fastest_that_loses_little(
    command, model, data, monkeypatch, words, variants
):
    monkeypatch.setattr(measuring, "_ROUND_S", 0.01)
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    code, out, err = command(
        model, "--to", "onnx", *words, "--data", data, "--prove", "--keep-best", "--max-loss", "100"
    )
    assert (code, err) == (0, "")
    kept = json.loads((model / "onnx" / "sst2_ray.json").read_text())["format"]
    proof = json.loads((model / "onnx" / "proof.json").read_text())
    assert proof["num_sentences"] == 40
    names = [one["model"] for one in proof["models"]]
    assert names == ["torch fp32", "torch (as predict)", *(f"onnx {one}" for one in variants)]
    assert proof["models"][2]["largest_probability_difference"] < 1e-3  # the spread head multiplies rounding
    assert proof["models"][2]["changed"] == []
    converted = proof["models"][2:]
    best = max(converted, key=lambda one: one["sentences_per_sec"]["256"])["model"]
    assert kept["variants"] == [best.removeprefix("onnx ")]
    assert f"kept: {best}" in out
    assert all(one["peak_memory_bytes"] > 10**7 for one in proof["models"])


def test_what_the_run_held_out_of_train_takes_part_in_the_proof(data):
    config = TrainConfig(data=str(data), batch_size=1, selection_fraction=0.25)
    splits = load_splits(config)
    sentences = unseen(splits, ("negative", "positive"))
    assert sentences.texts == [*splits.dev.texts, *splits.selection.texts]
    assert not set(sentences.texts) & set(splits.train.texts)
    assert list(sentences.labels) == [*splits.dev.labels, *splits.selection.labels]
    assert sentences.words.endswith(" and of what was held out of train")
    few = unseen(splits, ("positive", "negative"), 40)  # the model numbers its classes the other way
    assert few.texts == splits.dev.texts and list(few.labels) == [1 - label for label in splits.dev.labels]
    assert few.words.startswith("40 sentences") and "held out" not in few.words


def test_the_data_that_the_model_was_trained_on_is_read_where_none_is_named(command, model):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    meta = json.loads((model / "sst2_ray.json").read_text())
    meta["config"]["data"] = "/nowhere/at/all.csv"
    (model / "sst2_ray.json").write_text(json.dumps(meta))
    code, _, err = command(model, "--prove")
    assert code == 2
    assert "/nowhere/at/all.csv" in err and "--data names another place" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to",), "--to: name at least one"),
        (("--to", "tflite"), "--to tflite: must be one of onnx, openvino"),
        (("--to", "onnx", "onnx"), "names a format twice"),
        (("--calibration-rows", "0"), "--calibration-rows"),
        (("--max-loss", "-1"), "--max-loss"),
    ],
)
def test_wrong_words_are_one_line(command, model, words, said):
    code, out, err = command(model, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_folder_that_is_no_export_is_one_line(command, tmp_path):
    code, _, err = command(tmp_path)
    assert code == 2
    assert "it has no sst2_ray.json" in err


def row(variant, *, wrong, rate, num=872):
    """A model that is wrong where fp32 in torch is right, on its first `wrong` sentences."""
    right = np.ones((1, num), dtype=bool)
    right[0, :wrong] = False
    return Row(
        candidate=Candidate(model_dir="", backend="onnx", variant=variant),
        accuracy=float(right.mean()),
        difference=crossed.compare(right, np.ones((1, num), dtype=bool)),
        changes=(None,) * wrong,
        largest_probability_difference=0.0,
        rates={1: 1.0, 256: rate},
        peak_bytes=0,
        file_bytes=0,
        load_s=0.0,
    )


def test_the_fastest_is_taken_only_where_its_interval_is_above_the_loss():
    slow, fast, worse = row("fp32", wrong=0, rate=1), row("int8", wrong=1, rate=2), row("int8-static", wrong=9, rate=3)
    assert fastest([slow, fast, worse], 0.005) is fast
    assert fastest([slow, fast, worse], 0.02) is worse


def test_few_sentences_show_little_and_leave_only_fp32():
    slow, fast = row("fp32", wrong=0, rate=1, num=40), row("int8", wrong=0, rate=2, num=40)
    assert fastest([slow, fast], 0.005) is slow
    assert fastest([fast], 0.005) is None


def test_python_does_what_the_command_does(model, data, monkeypatch):
    monkeypatch.setattr(measuring, "_ROUND_S", 0.01)
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    made = sst2_ray.export(model)
    assert list(made.files) == ["onnx fp32"]
    assert made.files["onnx fp32"].endswith("model/onnx/model.onnx")
    assert "onnx fp32" in repr(made) and "<td" in made._repr_html_()
    texts = ["a quiet triumph", "tedious from start to end"]
    labels = [one.label for one in sst2_ray.predict(model, texts, precision="fp32")]  # as the converted model
    assert [one.label for one in sst2_ray.predict(model, texts, backend="onnx")] == labels
    proved = sst2_ray.export(model, to=["onnx"], data=str(data), keep_best=True, max_loss=100)
    assert [row.candidate.name for row in proved.rows] == ["torch fp32", "torch (as predict)", "onnx fp32"]
    assert proved.kept == "onnx fp32"
    assert proved.sentences.startswith("40 sentences of ")
    assert "kept: onnx fp32; the others are deleted" in repr(proved)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"to": "tflite"}, "^to="), ({"max_loss": -1}, "^max_loss=-1: "), ({"to": ()}, "^to: name at least one")],
)
def test_python_refuses_what_the_command_refuses(model, options, said):
    with pytest.raises(InputError, match=said):
        sst2_ray.export(model, **options)
