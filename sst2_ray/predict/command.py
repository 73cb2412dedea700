"""The command `predict`: label sentences on the command line or in a file of any size, or score a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sst2_ray.config.flags import parse
from sst2_ray.config.registry import DATASETS
from sst2_ray.data.labels import ClassNames
from sst2_ray.data.leaks import check_known_leak
from sst2_ray.errors import InputError, first_line
from sst2_ray.formatting import count, without_secret
from sst2_ray.predict.config import PredictConfig
from sst2_ray.predict.outputs import STDOUT, SUFFIXES, folder_of, name_of
from sst2_ray.predict.predictor import Predictor, export_classes, export_label_column, export_text_columns
from sst2_ray.predict.scoring import (
    Scores,
    ValueScores,
    answer_words,
    column_note,
    refuse_leak,
    score_lines,
    scores_of,
    seen_in_training,
)
from sst2_ray.predict.shapes import predictions_of
from sst2_ray.terminal import busy

if TYPE_CHECKING:
    from sst2_ray.data.rows import Splits
    from sst2_ray.modeling.export.meta import ExportMeta
    from sst2_ray.predict.labelling import Labelled


def main(argv: list[str]) -> int:
    """Run `sst2-ray predict`.

    Returns:
        The exit code 0.

    Raises:
        Sst2RayError: Something is wrong.
    """
    config = parse(PredictConfig, argv, prog="sst2-ray predict", description="Label sentences with an exported model.")
    if config.num_workers is not None:
        _label_folder(config)
        return 0
    _check_targets(config)
    if config.text:
        _label_texts(config)
    elif config.input is not None:
        _label_input(config)
    else:
        _score_data(config)
    return 0


def _predictor(config: PredictConfig) -> Predictor:
    return Predictor(config.model_dir, **config.predictor_options)


def _check_targets(config: PredictConfig) -> None:
    """Refuse outputs that exist or cannot be written, before the model is loaded."""
    from sst2_ray.predict.picture import FORMATS

    for flag, value, suffixes in (("--out", config.out, SUFFIXES), ("--picture", config.picture, FORMATS)):
        if value is None or (flag == "--out" and value == STDOUT):
            continue
        shown = without_secret(value)
        if not name_of(value).lower().endswith(suffixes):
            raise InputError(f"{flag} {shown}: its name must end in {' or '.join(suffixes)}")
        if _exists(flag, value) and not config.overwrite:
            raise InputError(f"{flag} {shown}: exists; choose another name, or pass --overwrite")
        if "://" not in value and Path(value).is_dir():
            raise InputError(f"{flag} {shown}: is a folder; name a file")
        if not (flag == "--out" and "://" in value) and not Path(value).parent.is_dir():
            raise InputError(f"{flag} {shown}: its folder does not exist; create it first")


def _exists(flag: str, target: str) -> bool:
    """Tell whether a path or URI is there. Raises InputError where its store cannot be asked."""
    if "://" not in target:
        return Path(target).exists()
    folder = folder_of(target)
    folder.probe(flag)
    try:
        return folder.exists(name_of(target))
    except OSError as error:
        raise InputError(f"{flag} {without_secret(target)}: cannot be written ({first_line(error)})") from None


def _label_texts(config: PredictConfig) -> None:
    from sst2_ray.predict.labelling import write_predictions
    from sst2_ray.predict.picture import draw, table
    from sst2_ray.terminal import console

    with busy(f"loading {config.model_dir}"):
        predictor = _predictor(config)
        predictor.check_pairs(pairs=bool(config.text_pair), flag="--text-pair")
        logits = predictor.logits(config.texts)
    predictions = predictions_of(config.texts, logits, predictor.classes)
    if config.picture is not None and predictor.classes.is_regression:
        raise InputError(
            f"--picture {config.picture}: draws how sure a label is; the values of a regression have no such thing"
        )
    if config.out is not None:
        write_predictions(config.out, predictions, logits, predictor.classes)
    if config.picture is not None:
        draw(predictions, config.picture, title=predictor.meta.info.label)
    if config.out == STDOUT:
        return
    out = console()
    out.print(table(predictions, title=predictor.meta.info.label))
    for path in (config.out, config.picture):
        if path is not None:
            out.print(f"written: {without_secret(path)}", soft_wrap=True, markup=False)


def _label_input(config: PredictConfig) -> None:
    from sst2_ray.predict.inputs import open_input
    from sst2_ray.predict.labelling import TABLE_ROWS, label_file
    from sst2_ray.predict.picture import table
    from sst2_ray.terminal import console

    assert config.input is not None
    model = config.model_dir
    options = config.read_options(export_text_columns(model), export_label_column(model))
    with open_input(config.input, options, ignore_labels=config.ignore_labels) as files:
        if config.out is None and not files.has_labels and files.num_rows > TABLE_ROWS:
            raise InputError(
                f"--input {config.input}: has no labels to score by and more than the {TABLE_ROWS} rows that are shown "
                f"here, so say where to write: --out"
            )
        with busy(f"loading {config.model_dir}"):
            predictor = _predictor(config)
        predictor.check_pairs(pairs=files.reads_pairs, flag="--text-columns")
        notes = []
        if files.has_labels:
            leak = refuse_leak(predictor.meta, files.texts(), config.allow_leak)
            notes = [leak, seen_in_training(predictor.meta, config.input), column_note(options, files.schema.names)]
        done = label_file(files, predictor, config.out)
        notes += files.notes
    scored = done.scores is not None and bool(done.scores.known)
    if config.out is None and not scored:
        if not done.shown:
            raise InputError(f"--input {config.input}: {'; '.join(done.notes)}; pass --out to label it nevertheless")
        console().print(table(done.shown, title=predictor.meta.info.label))
    _report_rows(predictor.meta, config, done, notes)


def _label_folder(config: PredictConfig) -> None:
    from sst2_ray.predict.cluster import label_folder

    done, meta, notes = label_folder(config)
    _report_rows(meta, config, done, notes)


def _report_rows(meta: ExportMeta, config: PredictConfig, done: Labelled, notes: list[str | None]) -> None:
    """Print the scores of the rows of --input and what is to be said about them."""
    answers = answer_words(done.answers, done.classes)
    what = f"{done.num_rows:,} rows of {without_secret(str(config.input))}: {answers}"
    _report(meta, config, what, done.scores, [*notes, *done.notes, _truncated(meta, done.num_truncated)])


def _truncated(meta: ExportMeta, num: int) -> str | None:
    return f"{count(num, 'text')} cut to the model's {meta.max_length} tokens" if num else None


def _score_data(config: PredictConfig) -> None:
    from sst2_ray.config.train import TrainConfig
    from sst2_ray.data.load import load_splits
    from sst2_ray.predict.labelling import write_predictions

    assert config.data is not None
    # Named data bring columns of their own.
    of_model = () if config.text_column or config.data in DATASETS else export_text_columns(config.model_dir)
    model = export_classes(config.model_dir)
    splits = load_splits(
        TrainConfig(
            data=config.data,
            text_column=config.text_column,
            text_columns=config.text_columns or of_model,
            label_column=config.label_column,
            delimiter=config.delimiter,
            encoding=config.encoding,
            quoting=config.quoting,
            header=config.header,
            batch_size=1,
            task="regression" if model.is_regression else "classification",
            allow_leak=config.allow_leak,
        ),
        model=model,
    )
    with busy(f"scoring {len(splits.dev):,} rows of {splits.eval_split}"):
        predictor = _predictor(config)
        predictor.check_pairs(pairs=bool(splits.text_columns), flag="--text-columns")
        note = check_known_leak(predictor.meta.corpora, splits.corpus, config.allow_leak)
        logits = predictor.logits(splits.dev.texts)
    scores = scores_of(predictor.classes)
    scores.add(logits, [_label_of(splits, number) for number in splits.dev.labels.tolist()])
    if config.out is not None:
        predictions = predictions_of(splits.dev.texts, logits, predictor.classes)
        labels = _own_numbers(splits, predictor.classes)
        write_predictions(config.out, predictions, logits, predictor.classes, labels=labels)
    elif not scores.known:
        raise InputError(f"--data {config.data}: {'; '.join(scores.unknown_notes)}")
    notes = [note, *scores.unknown_notes, _truncated(predictor.meta, predictor.num_truncated)]
    answers = answer_words(Counter(logits.argmax(axis=1).tolist()), predictor.classes)
    _report(predictor.meta, config, f"{len(splits.dev):,} rows of {splits.eval_split}: {answers}", scores, notes)


def _own_numbers(splits: Splits, classes: ClassNames) -> list[float | None]:
    """Return the labels of dev by the model's numbers of the classes; None: the model does not know the class."""
    labels: list[float] = splits.dev.labels.tolist()
    if splits.classes.is_regression:
        return list(labels)
    known = classes.match(list(splits.classes.names))
    return [known.get(splits.classes.names[int(number)]) for number in labels]


def _label_of(splits: Splits, number: float) -> str:
    """Return the label of a row as it would stand in a file."""
    return str(number) if splits.classes.is_regression else splits.classes.names[int(number)]


def _report(
    meta: ExportMeta,
    config: PredictConfig,
    what: str,
    scores: Scores | ValueScores | None,
    notes: Sequence[str | None],
) -> None:
    """Print scores and remarks: on stderr where the predictions themselves go to stdout."""
    from rich.console import Console

    from sst2_ray.formatting import percent
    from sst2_ray.statistics.scores import wilson_interval
    from sst2_ray.terminal import console, print_line

    lines = [f"{meta.info.label}: {what}"]
    if isinstance(scores, ValueScores):
        lines += scores.lines() if scores.known else []
    elif scores is not None and (sums := scores.sums).num_rows:
        interval = wilson_interval(sums.right, sums.num_rows)
        sure = f"95 % interval {percent(interval.low)} to {percent(interval.high)}"
        lines += score_lines(sums, ClassNames(meta.info.labels), sure)
    lines += [f"note: {note}" for note in notes if note]
    if config.out is not None and config.out != STDOUT:
        lines.append(f"written: {without_secret(config.out)}")
    out = Console(stderr=True) if config.out == STDOUT else console()
    for line in lines:
        print_line(out, line)
