"""Files of predictions as other tools write them, against one in which every answer is right."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sst2_ray.errors import InputError
from sst2_ray.results.compare import main_compare

NUM = 60
LABEL = np.arange(NUM) % 2
ANSWER = np.where(np.arange(NUM) < 6, 1 - LABEL, LABEL)


def lines(
    head: Sequence[str], row: Callable[[int], Sequence[Any]], sign: str = ",", order: Sequence[int] = range(NUM)
) -> str:
    return "\n".join(sign.join(map(str, one)) for one in (head, *map(row, order))) + "\n"


def plain(i: int) -> tuple[int, int, int]:
    return i, int(LABEL[i]), int(ANSWER[i])


def objects(**changed: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [
        {"id": i, "label": int(LABEL[i]), "prediction": int(ANSWER[i]), **{k: v(i) for k, v in changed.items()}}
        for i in range(NUM)
    ]


HEAD = ("id", "label", "prediction")
READ = {
    "plain.csv": lines(HEAD, plain),
    "shuffled.csv": lines(HEAD, plain, order=np.random.default_rng(0).permutation(NUM).tolist()),
    "names.csv": lines((" ID", "Gold", "Pred "), plain),
    "pandas-index.csv": lines(("", "label", "prediction"), plain),
    "tabs.tsv": lines(("idx", "target", "predicted"), plain, "\t"),
    "tabs.csv": lines(HEAD, plain, "\t"),
    "semicolons.csv": lines(HEAD, plain, ";"),
    "words.csv": lines(HEAD, lambda i: (i, ["neg", "pos"][LABEL[i]], ["neg", "pos"][ANSWER[i]])),
    "one-in-words.csv": lines(HEAD, lambda i: (i, LABEL[i], ["negative", "positive"][ANSWER[i]])),
    "booleans.csv": lines(HEAD, lambda i: (i, bool(LABEL[i]), bool(ANSWER[i]))),
    "floats.csv": lines(HEAD, lambda i: (i, float(LABEL[i]), float(ANSWER[i]))),
    "minus.csv": lines(HEAD, lambda i: (i, 2 * LABEL[i] - 1, 2 * ANSWER[i] - 1)),
    "scores.csv": lines((*HEAD, "score"), lambda i: (*plain(i), 3.5 - i)),
    "array.json": json.dumps(objects()),
    "lines.jsonl": "\n".join(json.dumps(one) for one in objects()),
}


def compared(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes) -> dict[str, Any]:
    right = tmp_path / "right.csv"
    right.write_text(lines(HEAD, lambda i: (i, LABEL[i], LABEL[i])))
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main_compare([str(file), str(right), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_however_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    found = compared(tmp_path, capsys, name, READ[name])
    assert found["metrics"]["accuracy"]["a"] == pytest.approx(0.9)
    assert found["num_sentences_that_differ"] == 6
    assert found["metrics"]["loss"]["a"] is None  # a score is no probability


def test_bytes_that_are_no_utf_8_are_shown_and_end_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = b"id,label,prediction,text\n" + b"".join(b"%d,%d,%d,caf\xe9\n" % plain(i) for i in range(NUM))
    assert compared(tmp_path, capsys, "latin.csv", content)["sentences"][0]["text"].startswith("caf")


def test_class_names_are_numbered_alike_in_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("sport", "news", "weather")
    files = []
    for share, name in ((6, "a.csv"), (0, "b.csv")):
        wrong = {i: names[(i + 1) % 3] for i in range(share)}
        (tmp_path / name).write_text(lines(HEAD, lambda i, wrong=wrong: (i, names[i % 3], wrong.get(i, names[i % 3]))))  # type: ignore[misc]
        files.append(str(tmp_path / name))
    assert main_compare([*files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert (found["accuracy"]["a"], found["accuracy"]["b"]) == pytest.approx((0.9, 1.0))


def test_other_labels_of_the_same_rows_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turned = lines(HEAD, lambda i: (i, 1 - LABEL[i], 1 - ANSWER[i]))
    why = compared(tmp_path, capsys, "turned.csv", turned)["metrics"]["accuracy"]["why"]
    assert why == "not decided: the labels of their sentences differ"


REFUSED = {
    "ids-in-words.csv": (lines(HEAD, lambda i: (f"dev-{i}", *plain(i)[1:])), "column id: must hold whole numbers below 2^53; number"),
    "huge-ids.csv": (lines(HEAD, lambda i: (10**17 + i, *plain(i)[1:])), "column id: must hold whole numbers below 2^53"),
    "twice.csv": (lines(HEAD, lambda i: (max(i, 1), *plain(i)[1:])), "a row id occurs twice; several runs need a column seed"),
    "gap.csv": (lines(HEAD, lambda i: (*plain(i)[:2], "" if i == 5 else 1)), "hold sentences without a label or an answer"),
    "unlabelled.csv": (lines(HEAD, lambda i: (i, -1, ANSWER[i])), "column label: 60 of 60 rows have the label -1, which is none"),
    "no-id.csv": (lines(HEAD[1:], lambda i: plain(i)[1:]), "has no column row_id (its columns: label, prediction)"),
    "empty.csv": ("", "cannot be read as predictions"),
    "head.csv": ("id,label,prediction\n", "holds no rows"),
    "one.csv": (lines(HEAD, plain, order=[0]), "one sentence does not tell how much sentences vary"),
    "columns.json": (json.dumps({"id": {"0": 0}, "label": {"0": 1}, "prediction": {"0": 1}}), "column id: holds lists or objects"),
    "lists.json": ("[[1, 2, 3]]", "cannot be read as predictions (no list of objects)"),
    "broken.jsonl": ('{"id": 1,\n', "cannot be read as predictions"),
    "nested.jsonl": ("\n".join(json.dumps(one) for one in objects(label=lambda i: [i])), "column label: holds lists or objects"),
    "sure.csv": (lines((*HEAD, "probability"), lambda i: (*plain(i), "high")), "column probability: must hold numbers from 0 to 1"),
    "seeds.csv": (
        lines((*HEAD, "seed"), lambda i: (*plain(i % NUM), i // NUM), order=range(2 * NUM - 1)),
        "cannot be compared: its runs answered different sentences",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_compared_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    content, why = REFUSED[name]
    with pytest.raises(InputError) as refused:
        compared(tmp_path, capsys, name, content)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
