"""Every kind of bad input, through the real command: exit code, one line that says the value and a remedy, nothing written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sst2_ray.config.train import TrainConfig
from tests.support import models
from tests.support.families import family_folder
from tests.support.hub_server import HubServer, hub_env, unreachable_hub_env
from tests.support.reviews import reviews, write_csv, write_glue_folder, write_tsv

ROOT = Path(__file__).parents[2]
AT_ONCE = 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """Command in a folder of its own, in which `files` has laid out what it reads."""

    words: str
    says: tuple[str, ...]
    files: Callable[[Path], object] | None = None
    job: str = "train"
    exit_code: int = 2
    hub: str = "unreachable"
    env: dict[str, str] = field(default_factory=dict)


def good_data(folder: Path) -> Path:
    return write_glue_folder(folder / "data", reviews(64), reviews(16, topic="play"))


def data_of(train: bytes, name: str = "train.tsv") -> Callable[[Path], None]:
    """Return a function that writes a folder in GLUE's layout whose training split holds these bytes."""

    def write(folder: Path) -> None:
        write_tsv(folder / "data" / "dev.tsv", reviews(16, topic="play"))
        (folder / "data" / name).write_bytes(train)

    return write


def tsv(*labels: object) -> bytes:
    rows = "".join(f"sentence number {i}\t{label}\n" for i, label in enumerate(labels))
    return f"sentence\tlabel\n{rows}".encode()


def one_class_dev(folder: Path) -> None:
    write_glue_folder(folder / "data", reviews(64), [(f"fine number {i}", 1) for i in range(8)])


def leaking(folder: Path) -> None:
    write_glue_folder(folder / "data", reviews(64), [*reviews(3), *reviews(16, topic="play")])


def a_file(folder: Path) -> None:
    good_data(folder)
    (folder / "taken").write_text("mine")


def config_file(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "run.yaml").write_text(text)


def other_run(folder: Path) -> None:
    good_data(folder)
    config = TrainConfig(data="data", learning_rate=1e-3, name="first")
    run = folder / "runs" / "first"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"config": config.to_dict(), "config_hash": config.config_hash}))


def damaged_run(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        other_run(folder)
        (folder / "runs" / "first" / name).write_text(content)

    return write


def corrupt_checkpoints(folder: Path) -> None:
    """Write two checkpoints that were committed, and lost their ends."""
    other_run(folder)
    for step in (8, 16):
        checkpoint = folder / "runs" / "first" / "checkpoints" / f"step-{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text('{"global_step": ')


def model_folder(damage: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a function that writes a whole SBERT folder, and then does the damage."""

    def write(folder: Path) -> None:
        good_data(folder)
        damage(models.sbert_folder(folder / "model"))

    return write


def truncate(model: Path) -> None:
    weights = next(model.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])


def pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def without_tokenizer(model: Path) -> None:
    for path in model.rglob("tokenizer*"):
        path.unlink()


def lost_vocabulary(model: Path) -> None:
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')


def foreign_tokenizer(model: Path) -> None:
    """Write a tokenizer that knows as many words as the model, but none of the data's."""
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4} | {f"слово{n}": n for n in range(5, 300)}
    core = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }  # fmt: skip
    (model / "tokenizer.json").write_text(json.dumps(core))


def adapter(model: Path) -> None:
    shutil.rmtree(model)
    model.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": "owner/base"}
    (model / "adapter_config.json").write_text(json.dumps(settings))


def family(model_type: str) -> Callable[[Path], None]:
    """Return a function that writes a model of the family whose table of positions has 130 rows, two of them for padding."""

    def write(folder: Path) -> None:
        good_data(folder)
        family_folder(model_type, folder / "model", pad_token_id=1)

    return write


def decoder(model: Path) -> None:
    values = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**values, "is_decoder": True}))


def export(damage: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return a function that lays out an exported model, and then does the damage."""

    def write(folder: Path) -> None:
        shutil.copytree(exported(folder.parent), folder / "export")
        damage(folder / "export")

    return write


def exported(shared: Path) -> Path:
    folder = shared / "an-export"
    if not folder.exists():
        models.export_of(models.sbert_folder(shared / "a-model"), folder)
    return folder


DATA = "--data data"
CASES = {
    # ---- names
    "model": Case(words="--model sbert-minlm", says=("--model sbert-minlm:", "did you mean sbert-minilm")),
    "preset": Case(words="--preset papr", says=("--preset papr:", "did you mean paper")),
    "flag": Case(words="--learing-rate 1e-4", says=("--learing-rate", "did you mean --learning-rate")),
    "key": Case(
        words="--config run.yaml",
        says=("run.yaml", "'learing_rate'", "did you mean learning_rate"),
        files=config_file("learing_rate: 1e-4\n"),
    ),
    "choice": Case(words="--precision fp8", says=("fp8", "bf16")),
    "config-missing": Case(words="--config nowhere.yaml", says=("--config nowhere.yaml:", "cannot be read")),
    "config-not-yaml": Case(words="--config run.yaml", says=("not YAML",), files=config_file("a: [1\n")),
    "data-set": Case(words="--data gleu", says=("--data gleu:", "did you mean glue?")),
    "run-name-leaves-storage": Case(words="--name ../x", says=("--name '../x'", "cannot leave the storage folder")),
    # ---- numbers
    "learning-rate-nan": Case(words="--learning-rate nan", says=("--learning-rate nan:", "above 0")),
    "learning-rate-zero": Case(words="--learning-rate 0", says=("--learning-rate 0", "above 0")),
    "learning-rate-negative": Case(words="--learning-rate -8e-5", says=("--learning-rate -8e-05:", "above 0")),
    "learning-rate-text": Case(words="--learning-rate fast", says=("fast", "--help")),
    "batch-size-zero": Case(words="--batch-size 0", says=("--batch-size 0:", "above 0")),
    "epochs-negative": Case(words="--epochs -1", says=("--epochs -1:", "above 0")),
    "workers-zero": Case(words="--num-workers 0", says=("--num-workers 0:", "above 0")),
    "max-length-zero": Case(words="--max-length 0", says=("--max-length 0:", "at least 4")),
    "max-length-beyond-the-model": Case(
        words=f"{DATA} --max-length 1000 --model ./model",
        says=("--max-length 1000:", "512 positions"),
        files=model_folder(lambda _: None),
    ),
    # ---- data
    "data-missing": Case(words="--data nowhere/train.csv", says=("--data nowhere/train.csv:", "no such file")),
    "data-empty": Case(words=DATA, says=("data/train.tsv:", "is empty"), files=data_of(b"")),
    "data-header-only": Case(
        words=DATA, says=("--data data:", "no rows", "labelled sentences"), files=data_of(b"sentence\tlabel\n")
    ),
    "data-one-column": Case(
        words=DATA, says=("data/train.tsv:", "one column", "label column"), files=data_of(b"sentence\nfine\n")
    ),
    "data-other-columns": Case(
        words=DATA, says=("no label column", "--label-column"), files=data_of(b"sentence\tstars\nfine\t5\n")
    ),
    "data-not-utf-8": Case(
        words=DATA, says=("line 2 is not UTF-8", "--encoding cp1252"), files=data_of(b"sentence\tlabel\ncaf\xe9\t1\n")
    ),
    "data-csv-not-utf-8": Case(
        words=DATA, says=("line 2 is not UTF-8",), files=data_of(b"sentence,label\ncaf\xe9,1\n", "train.csv")
    ),
    "data-format": Case(
        words="--data a.doc", says=("a.doc", ".parquet"), files=lambda folder: write_csv(folder / "a.doc", reviews(4))
    ),
    "label-number": Case(
        words=DATA, says=("3 different values in 3 rows", "--label-column"), files=data_of(tsv(0, 2, 1))
    ),
    "label-name": Case(
        words=DATA, says=("maybe, neg, pos", "--label-column"), files=data_of(tsv("neg", "pos", "maybe"))
    ),
    "train-of-one-class": Case(words=DATA, says=("training split", "positive"), files=data_of(tsv(1, 1, 1))),
    "dev-of-one-class": Case(words=DATA, says=("evaluation split",), files=one_class_dev),
    "leak": Case(words=f"{DATA} --batch-size 8", says=("3 of 19", "--allow-leak"), files=leaking),
    "batch-larger-than-data": Case(
        words=f"{DATA} --batch-size 65", says=("--batch-size 65:", "64 training rows"), files=good_data
    ),
    "more-workers-than-rows-a-batch": Case(
        words=f"{DATA} --batch-size 4 --num-workers 8", says=("at most 4 workers",), files=good_data
    ),
    # ---- the hub
    "hub-unreachable-for-data": Case(
        words="--data glue", says=("cannot be reached", "train.tsv", ".[demo]", "rotten-tomatoes")
    ),
    "hub-unreachable-for-a-named-model": Case(
        words=f"{DATA} --model modernbert-base",
        says=("--model modernbert-base:", "cannot be reached", "local folder", "--random-weights"),
        files=good_data,
    ),
    "hub-unreachable-for-any-model": Case(
        words=f"{DATA} --model owner/name", says=("--model owner/name:", "cannot be reached"), files=good_data
    ),
    "not-on-the-hub": Case(
        words=f"{DATA} --model owner/name",
        says=("--model owner/name:", "no such model", "HF_TOKEN"),
        files=good_data,
        hub="reachable",
    ),
    # ---- storage and runs
    "storage-below-a-file": Case(
        words=f"{DATA} --storage-path taken/runs", says=("taken/runs", "cannot be written"), files=a_file
    ),
    "storage-read-only": Case(
        words=f"{DATA} --storage-path /proc/runs",
        says=("--storage-path /proc/runs", "cannot be written"),
        files=good_data,
    ),
    "storage-scheme": Case(words="--storage-path s3x://b/runs", says=("s3x://b/runs", "s3://"), files=good_data),
    "run-with-another-config": Case(
        words=f"{DATA} --name first",
        says=("--name first:", "learning_rate 0.001 -> 8e-05", "choose another name"),
        files=other_run,
    ),
    "run-with-a-damaged-config": Case(
        words=f"{DATA} --name first --learning-rate 1e-3",
        says=("--name first:", "config.json", "choose another name"),
        files=damaged_run("config.json", '{"config": '),
    ),
    "run-with-a-damaged-result": Case(
        words=f"{DATA} --name first --learning-rate 1e-3",
        says=("--name first:", "result.json", "choose another name"),
        files=damaged_run("result.json", "{}"),
    ),
    "run-with-corrupt-checkpoints": Case(
        words=f"{DATA} --name first --learning-rate 1e-3",
        says=("--name first:", "checkpoint", "choose another name"),
        files=corrupt_checkpoints,
    ),
    # ---- models
    "model-folder-missing": Case(
        words=f"{DATA} --model ./nowhere", says=("./nowhere", "no such folder"), files=good_data
    ),
    "model-truncated": Case(
        words=f"{DATA} --model ./model", says=("model.safetensors is corrupt", "again"), files=model_folder(truncate)
    ),
    "model-config-damaged": Case(
        words=f"{DATA} --model ./model",
        says=("config.json cannot be read", "again"),
        files=model_folder(lambda model: (model / "config.json").write_text("{")),
    ),
    "model-without-weights": Case(
        words=f"{DATA} --model ./model",
        says=("model.safetensors is missing",),
        files=model_folder(lambda model: (model / "model.safetensors").unlink()),
    ),
    "model-pickled": Case(words=f"{DATA} --model ./model", says=("pickle", "safetensors"), files=model_folder(pickled)),
    "model-decoder": Case(words=f"{DATA} --model ./model", says=("decoder",), files=model_folder(decoder)),
    "model-without-tokenizer": Case(
        words=f"{DATA} --model ./model",
        says=("--model ./model: the vocabulary of its tokenizer is missing: 5 of the model's 300 entries",),
        files=model_folder(without_tokenizer),
    ),
    "model-that-lost-its-vocabulary": Case(
        words=f"{DATA} --model ./model",
        says=("the vocabulary of its tokenizer is missing",),
        files=model_folder(lambda model: (without_tokenizer(model), lost_vocabulary(model))),
    ),
    "model-for-another-language": Case(
        words=f"{DATA} --model ./model",
        says=("tokens are unknown to the tokenizer; take a model for this language",),
        files=model_folder(foreign_tokenizer),
    ),
    "model-adapter": Case(
        words=f"{DATA} --model ./model",
        says=("it holds an adapter of owner/base, not a model; merge it", "merge_and_unload()"),
        files=model_folder(adapter),
    ),
    **{
        f"model-{kind}-positions": Case(
            words=f"{DATA} --model ./model --max-length 130",
            says=("--max-length 130: ./model has 128 positions; use 128 or less",),
            files=family(kind),
        )
        for kind in ("data2vec-text", "esm", "ibert", "longformer", "roberta-prelayernorm")
    },
    "tokenizer-missing": Case(
        words=f"{DATA} --model modernbert-base --random-weights --tokenizer ./nowhere",
        says=("--tokenizer ./nowhere:", "no such folder"),
        files=good_data,
    ),
    # ---- the cluster
    "more-workers-than-the-cluster-has": Case(
        words=f"{DATA} --model modernbert-mini --num-workers 2000 --batch-size 2000",
        says=("--num-workers 2000:", "room for", "larger cluster"),
        files=lambda folder: write_glue_folder(folder / "data", reviews(2000), reviews(16, topic="play")),
        exit_code=3,
    ),
    # ---- predict
    "export-missing": Case(
        job="predict", words="--model-dir nowhere --text fine", says=("--model-dir nowhere:", "no such folder")
    ),
    "export-truncated": Case(
        job="predict",
        words="--model-dir export --text fine",
        says=("model.safetensors is corrupt", "again"),
        files=export(truncate),
    ),
    "export-without-tokenizer": Case(
        job="predict",
        words="--model-dir export --text fine",
        says=("--model-dir export: the vocabulary of its tokenizer is missing",),
        files=export(without_tokenizer),
    ),
    "export-with-a-pickle": Case(
        job="predict",
        words="--model-dir export --text fine",
        says=("planted.pkl may be a pickle", "remove it"),
        files=export(lambda folder: (folder / "planted.pkl").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")),
    ),
    "input-missing": Case(
        job="predict",
        words="--model-dir export --input a.csv --out a.parquet",
        says=("--input a.csv", "no such file"),
        files=export(lambda _: None),
    ),
}


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    out: str
    err: str
    before: dict[str, str]
    after: dict[str, str]


def contents(folder: Path) -> dict[str, str]:
    """Map the path of every file to its digest; folders are entries, too."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "folder"
        for p in folder.rglob("*")
    }


def run_case(name: str, folder: Path, hub_url: str) -> Outcome:
    case, own = CASES[name], folder / name
    cache = folder / "cache" / name
    env = hub_env(hub_url, cache) if case.hub == "reachable" else unreachable_hub_env(cache)
    before = contents(own)
    done = subprocess.run(
        [sys.executable, str(ROOT / f"jobs/{case.job}.py"), *case.words.split()],
        cwd=own,
        env={**env, **case.env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    return Outcome(done.returncode, done.stdout, done.stderr, before, contents(own))


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """Name -> outcome, of the cases that are asked for; several commands run at once, as most of their time is imports."""
    folder = tmp_path_factory.mktemp("bad-input")
    asked = [
        item.callspec.params["name"]
        for item in request.session.items
        if item.fspath == request.node.fspath and hasattr(item, "callspec")
    ]
    for name in asked:
        (folder / name).mkdir()
        if CASES[name].files is not None:
            CASES[name].files(folder / name)
    with HubServer() as hub, ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {name: pool.submit(run_case, name, folder, hub.url) for name in asked}
        yield {name: future.result for name, future in futures.items()}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(outcomes, name):
    outcome, case = outcomes[name](), CASES[name]
    assert outcome.exit_code == case.exit_code, outcome.err
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    for part in case.says:
        assert part in outcome.err
    # Phases are named as they begin, so that nobody waits before an empty screen; nothing else is on stdout.
    assert all(line.endswith(" ...") for line in outcome.out.splitlines()), outcome.out
    assert outcome.after == outcome.before


def test_the_refusal_of_a_run_leaves_it_as_it_was(tmp_path):
    """The installed command gives the same exit code as the job."""
    other_run(tmp_path)
    before = contents(tmp_path)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("sst2-ray")), "train", "--data", "data", "--name", "first"],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert "choose another name" in done.stderr
    assert contents(tmp_path) == before
