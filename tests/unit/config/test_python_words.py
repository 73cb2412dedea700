"""What a command line calls `--data reviews.csv` is `data='reviews.csv'` for whoever calls from Python."""

from __future__ import annotations

import pytest

import sst2_ray
from sst2_ray.cli import run
from sst2_ray.config.fields import kinds_of
from sst2_ray.config.python_words import flag_words, in_python, python_words
from sst2_ray.config.python_words import told as told_remark
from sst2_ray.config.sweep import SweepConfig, SweepFlags
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError

KINDS = {**kinds_of(SweepFlags), **kinds_of(TrainConfig)}
MESSAGES = {
    "--data a b/reviews.csv: no such file": "data='a b/reviews.csv': no such file",
    "--learning-rate nan: must be above 0": "learning_rate=nan: must be above 0",
    "--precision 'fp8': must be one of auto, bf16": "precision='fp8': must be one of auto, bf16",
    "--batch-sizes {64, 32}: a set has no order": "batch_sizes={64, 32}: a set has no order",
    "--labels bad good bad: each once": "labels=('bad', 'good', 'bad'): each once",
    "--labels, --drop-label: are for classes": "labels, drop_label: are for classes",
    "--engine torch --num-workers 2: use --engine zero2": "engine='torch', num_workers=2: use engine='zero2'",
    "--num-workers 8:2: the second number": "num_workers=8, max_workers=2: the second number",
    "--name RUN: choose a name": "name='RUN': choose a name",
    "--name s: choose another --name": "name='s': choose another name",
    "x.csv: leave them out with --drop-blank, or not": "x.csv: leave them out with drop_blank=True, or not",
    "x.csv: say --no-drop-blank (see --header yes)": "x.csv: say drop_blank=False (see header='yes')",
    "x.csv: pass --encoding cp1252 if it is that": "x.csv: pass encoding='cp1252' if it is that",
    "x.csv: --data names another place": "x.csv: data names another place",
    "x.csv: name one with --split-train (a, b)": "x.csv: name one with split_train (a, b)",
    "--tokenizer x: give one with --tokenizer FOLDER": "tokenizer='x': give one with tokenizer=FOLDER",
    "--text-column a --text-columns b c: give one of the two flags": (
        "text_column='a', text_columns=('b', 'c'): give one of the two arguments"
    ),
    "--config x.yaml: cannot be read; give --epochs": "--config x.yaml: cannot be read; give epochs",
    "make one: sst2-ray sweep --data x.csv, or pass --data x.csv": "make one: sst2-ray sweep --data x.csv, or pass data='x.csv'",
    "the data x--y.csv of --storage-path s3://b/runs": "the data x--y.csv of storage_path='s3://b/runs'",
    "nothing of it runs": "nothing of it runs",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_flags_are_arguments(message):
    assert in_python(message, KINDS) == MESSAGES[message]


CALLS = {
    "learning_rate=nan: ": lambda: TrainConfig(learning_rate=float("nan")),
    "learning_rates=0.0: ": lambda: SweepConfig(learning_rates=(0.0,)),
    "model='sbrt': no such model; did you mean sbert?": lambda: TrainConfig(model="sbrt"),
    "data='no.csv': no such file": lambda: sst2_ray.train(TrainConfig(data="no.csv"), quiet=True),
    "storage_path='no': no results table there": lambda: sst2_ray.results("no"),
    "storage_path='no': no run there": lambda: sst2_ray.runs("no"),
    "model_dir='no': no such folder": lambda: sst2_ray.predict("no", "fine"),
    "model_dir='none': no such folder": lambda: sst2_ray.Predictor("none"),
}


@pytest.mark.parametrize("told", CALLS)
def test_an_error_of_a_call_names_its_argument(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        CALLS[told]()
    assert str(caught.value).startswith(told)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "--learning-rate", "nan"], "error: --learning-rate nan: "),
        (["sweep", "--learning-rates", "0"], "error: --learning-rates 0.0: "),
        (["train", "--data", "no.csv"], "error: --data no.csv: no such file"),
        (["results", "--storage-path", "no"], "error: --storage-path no: no results table there"),
        (["predict", "--model-dir", "no", "--text", "fine"], "error: --model-dir no: no such folder"),
    ],
)
def test_an_error_of_a_command_names_its_flag(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(words[0], words[1:]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(told)


def test_a_remark_names_arguments_to_whoever_called_from_python_alone():
    remark = "--storage-timeout-s 600: raise --step-timeout-s as well"
    assert told_remark(remark) == remark
    with python_words(lambda: KINDS):
        assert told_remark(remark) == "storage_timeout_s=600: raise step_timeout_s as well"
    with flag_words(), python_words(lambda: KINDS):
        assert told_remark(remark) == remark
    assert told_remark(remark) == remark
