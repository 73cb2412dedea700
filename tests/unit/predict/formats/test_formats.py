"""Converted models: the same answers as torch at any batch and width, and all that must travel with them."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.modeling.build import build_classifier
from sst2_ray.modeling.export.folder import export_model, load_export
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.tokenizers import load_tokenizer
from sst2_ray.predict.formats.convert import Export, convert, keep_only
from sst2_ray.predict.formats.files import Backend, Variant, find_format
from sst2_ray.predict.predictor import Predictor
from sst2_ray.storage import Storage
from sst2_ray.training.metrics import probabilities
from tests.support.families import family_folder
from tests.support.models import (
    SENTENCES,
    add_sbert_modules,
    card_facts,
    export_of,
    modernbert_folder,
    run_without_package,
    sbert_folder,
    spread_head,
)
from tests.support.object_store import BUCKET, object_store_here

BACKENDS = ("onnx", "openvino")
PAIRS = [(first, second) for first, second in zip(SENTENCES, reversed(SENTENCES), strict=True)]
NAMES = {
    "two": ("negative", "positive"),
    "five": ("awful", "bad", "fair", "good", "great"),
}
ALL = tuple(Variant)


def source_of(kind, folder):
    """A model's folder: a family with its own head, or an SBERT on it."""
    if kind == "modernbert":
        return modernbert_folder(folder)
    if kind == "sbert":
        return sbert_folder(folder, modes=("mean", "max", "cls"), lower_case=True)
    family = kind.removeprefix("sbert on ").removeprefix("pairs ")
    family_folder(family, folder)
    if kind.startswith("sbert on"):
        add_sbert_modules(folder)
    return folder


def export_with(labels, source, out, columns=(), **config):
    """An export with these classes whose answers are spread over all of them."""
    train_config = TrainConfig(model=str(source), **config)
    resolved = resolve_model(train_config)
    resolved = dataclasses.replace(
        resolved, info=dataclasses.replace(resolved.info, labels=labels, text_columns=columns)
    )
    tokenizer = load_tokenizer(resolved, lambda: SENTENCES)
    classifier = build_classifier(resolved, tokenizer, seed=0).eval()
    if "roberta" not in str(source):  # its features hardly differ: a head that spreads them spreads all rounding
        spread_head(classifier, tokenizer)
    export_model(classifier, tokenizer, out, card_facts(classifier, train_config, corpora=("rotten-tomatoes",)))
    return out


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Makes an export with the formats, once for each kind, number of classes and backend."""
    made = {}
    top = tmp_path_factory.mktemp("formats")

    def make(kind, classes, backend):
        pytest.importorskip(Backend(backend).module, reason=f"needs the extra {backend}")
        key = (kind, classes, backend)
        if key not in made:
            name = re.sub(r"\W", "-", "-".join(key))
            columns = ("premise", "hypothesis") if kind.startswith("pairs") else ()
            source = source_of(kind, top / f"{name}-source")
            folder = export_with(NAMES[classes], source, top / name, columns, max_length=40)
            # Quantizing takes seconds: one kind has all variants.
            convert(Export.load(folder), Backend(backend), ALL if kind == "sbert" else [Variant.FP32], SENTENCES)
            made[key] = folder
        return made[key]

    return make


@pytest.mark.parametrize(
    ("kind", "classes", "backend"),
    [
        *(
            (kind, "two", "onnx")
            for kind in ("modernbert", "bert", "roberta", "distilbert", "sbert", "sbert on roberta")
        ),
        *((kind, "five", "onnx") for kind in ("modernbert", "sbert")),
        *((kind, "two", "onnx") for kind in ("pairs bert", "pairs roberta")),
        ("pairs bert", "two", "openvino"),
        *((kind, "two", "openvino") for kind in ("modernbert", "roberta", "sbert")),
    ],
)
def test_probabilities_in_fp32_are_those_of_torch_at_any_batch(converted, kind, classes, backend):
    folder, texts = converted(kind, classes, backend), PAIRS if kind.startswith("pairs") else SENTENCES
    expected = probabilities(Predictor(folder, precision="fp32").logits(texts))
    for batch_tokens in (1, 60, 4096):
        found = probabilities(Predictor(folder, backend=backend, batch_tokens=batch_tokens).logits(texts))
        # The heads of these models multiply rounding; tests/e2e/test_export_tools.py holds others to 1e-4.
        np.testing.assert_allclose(found, expected, atol=3e-4)
        assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", [v for v in ALL if v is not Variant.FP32])
def test_smaller_variants_are_near_and_smaller(converted, backend, variant):
    folder = converted("sbert", "two", backend)
    found = find_format(folder, Backend(backend), source="")
    if (backend, variant) != ("onnx", Variant.INT8_STATIC):  # a small graph: the ranges take more than the weights save
        assert found.num_bytes(variant) < 0.8 * found.num_bytes(Variant.FP32)
    expected = probabilities(Predictor(folder, precision="fp32").logits(SENTENCES))
    answers = probabilities(Predictor(folder, backend=backend, variant=str(variant)).logits(SENTENCES))
    # The head of these models multiplies all rounding.
    np.testing.assert_allclose(answers, expected, atol=0.02 if variant is Variant.FP16 else 0.3)


@pytest.mark.parametrize(("backend", "classes"), [("onnx", "five"), ("openvino", "two")])
def test_classes_task_limits_and_training_data_travel(converted, backend, classes):
    folder = converted("sbert", classes, backend)
    config = json.loads((folder / backend / "config.json").read_text())
    assert list(config["id2label"].values()) == list(NAMES[classes])
    assert config["problem_type"] == "single_label_classification"
    meta = Predictor(folder / backend, backend=backend).meta
    assert (meta.info.labels, meta.max_length, meta.corpora) == (NAMES[classes], 40, ("rotten-tomatoes",))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_format_s_folder_is_whole_by_itself(converted, tmp_path, backend):
    folder = converted("sbert", "two", backend)
    alone = shutil.copytree(folder / backend, tmp_path / "elsewhere")
    found = Predictor(alone, backend=backend).logits(SENTENCES)
    assert np.array_equal(found, Predictor(folder, backend=backend).logits(SENTENCES))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["pairs bert", "sbert"])
def test_the_card_s_code_runs_without_this_package_and_agrees(converted, kind, backend):
    folder = converted(kind, "two", backend)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / backend / "README.md").read_text(), flags=re.S)
    printed = [line.split() for line in run_without_package(code, folder / backend).strip().splitlines()]
    texts = ["a gripping , funny film", "it never comes to life"]
    if kind.startswith("pairs"):
        texts = [("a man plays a guitar", "a person makes music")]
    logits = Predictor(folder, precision="fp32").logits(texts)
    assert [label for label, _ in printed] == [NAMES["two"][i] for i in logits.argmax(axis=1)]
    np.testing.assert_allclose([float(score) for _, score in printed], probabilities(logits).max(axis=1), atol=2e-4)


def test_prediction_with_another_library_does_not_import_torch(converted):
    import subprocess
    import sys

    folder = converted("sbert", "two", "onnx")
    code = (
        "import sys\nfrom sst2_ray.predict.predictor import Predictor\n"
        f"print(Predictor({str(folder)!r}, backend='onnx').logits(['a film']))\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_export_itself_is_loaded_as_before(converted):
    for backend in BACKENDS:
        model, _, meta = load_export(converted("sbert", "two", backend))
        assert meta.info.labels == NAMES["two"]
        assert not model.training


def test_a_format_that_is_written_again_replaces_the_old_one(converted, tmp_path):
    folder = shutil.copytree(converted("sbert", "two", "onnx"), tmp_path / "copy")
    convert(Export.load(folder), Backend.ONNX, [Variant.FP32], [])
    assert find_format(folder, Backend.ONNX, source="").variants == (Variant.FP32,)
    assert not (folder / "onnx" / "model_int8.onnx").exists()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_what_is_kept_becomes_the_default_and_the_rest_is_gone(converted, tmp_path):
    pytest.importorskip("openvino", reason="needs the extra openvino")
    folder = shutil.copytree(converted("sbert", "two", "onnx"), tmp_path / "copy")
    convert(Export.load(folder), Backend.OPENVINO, [Variant.FP32], [])
    formats = [find_format(folder, backend, source="") for backend in (Backend.ONNX, Backend.OPENVINO)]
    keep_only(formats, Backend.ONNX, Variant.INT8)
    assert not (folder / "openvino").exists()
    assert [path.name for path in (folder / "onnx").glob("*.onnx")] == ["model_int8.onnx"]
    assert find_format(folder, Backend.ONNX, source="").default is Variant.INT8
    assert "model_int8.onnx" in (folder / "onnx" / "README.md").read_text()
    assert Predictor(folder, backend="onnx").logits(SENTENCES).shape == (len(SENTENCES), 2)


def refusal(folder, **options):
    with pytest.raises(InputError) as caught:
        Predictor(folder, backend="onnx", **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def copy(converted, tmp_path):
    return shutil.copytree(converted("sbert", "two", "onnx"), tmp_path / "copy")


def test_an_export_that_was_not_converted_says_how(tmp_path):
    folder = export_of(sbert_folder(tmp_path / "sbert"), tmp_path / "export")
    assert f"sst2-ray export {folder} --to onnx" in refusal(folder)


def test_a_precision_that_was_not_written_is_refused_by_name(copy):
    convert(Export.load(copy), Backend.ONNX, [Variant.FP32], [])
    assert refusal(copy, variant="int8").startswith("variant='int8': ")


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "sst2_ray.json"])
def test_a_damaged_file_is_refused(copy, name, damage):
    path = copy / "onnx" / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    refusal(copy)


def test_a_library_that_is_not_there_is_named_with_its_install_line(copy, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "onnxruntime is not installed; pip install 'sst2-ray[onnx]'" in refusal(copy)


def test_a_gpu_is_not_promised(copy):
    assert refusal(copy, device="cuda").startswith("device='cuda': ")


def test_weights_of_openvino_are_no_pickle_and_any_other_bin_is_one(converted, tmp_path):
    folder = shutil.copytree(converted("sbert", "two", "openvino"), tmp_path / "copy")
    load_export(folder)
    (folder / "openvino" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InputError, match="may be a pickle"):
        load_export(folder)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_converted_model_of_an_object_store_labels_more_than_one_batch(converted, backend):
    folder = converted("modernbert", "two", backend)
    with object_store_here():
        Storage.open(f"s3://{BUCKET}").upload(folder, "model")
        predictor = Predictor(f"s3://{BUCKET}/model", backend=backend)
        texts = SENTENCES * 300
        expected = Predictor(folder, backend=backend).logits(texts)
        assert predictor.logits(texts) == pytest.approx(expected, abs=1e-5)
