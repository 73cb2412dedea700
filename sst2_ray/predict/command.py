"""Label sentences with an exported model: on the command line, in a file of any size, or from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sst2_ray.config.flags import parse
from sst2_ray.config.registry import KNOWN_LEAKS
from sst2_ray.data.leaks import check_known_leak, identify
from sst2_ray.data.splitting import normalize
from sst2_ray.errors import InputError
from sst2_ray.predict.predictor import Prediction, Predictor, columns_of, label_texts, predict, predictions_of
from sst2_ray.training.metrics import MetricSums

__all__ = ["PredictConfig", "Prediction", "Predictor", "main", "predict"]

if TYPE_CHECKING:
    from sst2_ray.modeling.export.folder import ExportMeta
    from sst2_ray.predict.files import SentenceFile

# Texts of a file that are looked at to find out whether it is a known data set; the known ones are smaller.
_IDENTIFY_ROWS = 200_000

_PICTURE_SENTENCES = 40


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What to label, with which model, and where to put it."""

    model_dir: str
    """Exported model: the folder `model` of a run, or the run's own folder; a path or a URI (s3://, gs://)."""
    text: tuple[str, ...] = ()
    """Sentences."""
    input: str | None = None
    """File of sentences: Parquet, CSV, TSV, JSON Lines, or plain text with a sentence a line; or a pattern (*.parquet).
    With a label column it is scored as well."""
    data: str | None = None
    """Data set to score on its evaluation split: glue, rotten-tomatoes, a folder in GLUE's layout, or a file."""
    output: str | None = None
    """Parquet file to write: the input's columns, `predicted` (0, 1), `predicted_label`, `probability` (of positive)."""
    overwrite: bool = False
    """Replace the output and the picture where they exist."""
    picture: str | None = None
    """PNG, SVG or PDF file to draw the sentences of --text in, each with its label and confidence."""
    text_column: str | None = None
    """Column with the sentence; None: sentence or text."""
    label_column: str | None = None
    """Column with the label (0/1, negative/positive); None: label, where there is one."""
    batch_tokens: int | None = None
    """Most padded tokens computed at once; None: chosen for the device. Only memory and speed depend on it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of matrix products; auto: bf16 where the chip computes in it. Labels are those of fp32 either way, probabilities differ
    in the third digit."""
    allow_leak: bool = False
    """Score although the model's training data are known to contain the data."""

    def __post_init__(self) -> None:
        given = [
            flag for flag, value in (("--text", self.text), ("--input", self.input), ("--data", self.data)) if value
        ]
        if len(given) != 1:
            what = " and ".join(given) or "nothing to label"
            raise InputError(f"{what}: give exactly one of --text, --input and --data")
        if self.picture is not None and not self.text:
            raise InputError(f"--picture {self.picture}: it shows the sentences of --text; give some")
        if self.picture is not None and len(self.text) > _PICTURE_SENTENCES:
            raise InputError(f"--picture {self.picture}: it holds {_PICTURE_SENTENCES} sentences, not {len(self.text)}")
        if self.batch_tokens is not None and self.batch_tokens <= 0:
            raise InputError(f"--batch-tokens {self.batch_tokens}: must be above 0")
        for number, text in enumerate(self.text, start=1):
            if not text.strip():
                raise InputError(f"--text: sentence {number} is empty")


def main(argv: list[str]) -> int:
    """`sst2-ray predict`. Returns the exit code 0; what is wrong is raised as Sst2RayError."""
    config = parse(PredictConfig, argv, prog="sst2-ray predict", description="Label sentences with an exported model.")
    _check_targets(config)
    if config.text:
        _label_texts(config)
    elif config.input is not None:
        _label_file(config)
    else:
        _score_data(config)
    return 0


def _predictor(config: PredictConfig) -> Predictor:
    return Predictor(
        config.model_dir, device=config.device, precision=config.precision, batch_tokens=config.batch_tokens
    )


def _check_targets(config: PredictConfig) -> None:
    """Outputs that exist or cannot be written are refused before the model is loaded."""
    from sst2_ray.predict.picture import FORMATS

    for flag, value, suffixes in (("--output", config.output, (".parquet",)), ("--picture", config.picture, FORMATS)):
        if value is None:
            continue
        if not value.endswith(suffixes):
            raise InputError(f"{flag} {value}: its name must end in {' or '.join(suffixes)}")
        path = Path(value)
        if path.exists() and not config.overwrite:
            raise InputError(f"{flag} {value}: exists; choose another name, or pass --overwrite")
        if not path.parent.is_dir():
            raise InputError(f"{flag} {value}: its folder does not exist; create it first")


def _label_texts(config: PredictConfig) -> None:
    from sst2_ray.predict.picture import draw, table
    from sst2_ray.terminal import console

    predictor = _predictor(config)
    predictions = label_texts(predictor, config.text)
    if config.output is not None:
        from sst2_ray.predict.files import write_predictions

        write_predictions(config.output, predictions)
    if config.picture is not None:
        draw(predictions, config.picture, title=predictor.meta.info.label)
    out = console()
    out.print(table(predictions, title=predictor.meta.info.label))
    for path in (config.output, config.picture):
        if path is not None:
            out.print(f"written: {path}", soft_wrap=True, markup=False)


def _label_file(config: PredictConfig) -> None:
    from sst2_ray.predict.files import SentenceFile, labelled_file

    assert config.input is not None
    with SentenceFile.open(config.input, text=config.text_column, label=config.label_column) as file:
        if config.output is None and file.label_column is None:
            raise InputError(
                f"--input {config.input}: has no label column to score by, so say where to write: --output"
            )
        predictor = _predictor(config)
        notes = [] if file.label_column is None else [_refuse_leak(predictor.meta, file, config.allow_leak)]
        tally = MetricSums()
        counts = labelled_file(file, predictor.logits, columns_of, config.output, tally.add)
        if counts.num_blank:
            notes.append(f"{counts.num_blank:,} rows without a text have no prediction")
    _report(predictor, config, f"{counts.num_rows:,} rows of {config.input}", tally, notes)


def _refuse_leak(meta: ExportMeta, file: SentenceFile, allow: bool) -> str | None:
    """A file of labelled sentences may be a known data set under another name."""
    if not any(trained_on in meta.corpora for trained_on, _ in KNOWN_LEAKS):
        return None
    keys: list[str] = []
    for texts in file.texts():
        keys += [normalize(text) for text in texts]
        if len(keys) >= _IDENTIFY_ROWS:
            break
    return check_known_leak(meta.corpora, identify(keys), allow)


def _score_data(config: PredictConfig) -> None:
    from sst2_ray.config.train import TrainConfig
    from sst2_ray.data.load import load_splits
    from sst2_ray.predict.files import write_predictions

    assert config.data is not None
    splits = load_splits(
        TrainConfig(
            data=config.data,
            text_column=config.text_column,
            label_column=config.label_column,
            batch_size=1,
            allow_leak=config.allow_leak,
        )
    )
    predictor = _predictor(config)
    note = check_known_leak(predictor.meta.corpora, splits.corpus, config.allow_leak)
    tally = MetricSums()
    logits = predictor.logits(splits.dev.texts)
    tally.add(logits, splits.dev.labels)
    if config.output is not None:
        write_predictions(config.output, predictions_of(splits.dev.texts, logits), labels=splits.dev.labels)
    _report(predictor, config, f"{len(splits.dev):,} rows of {splits.eval_split}", tally, [note])


def _report(
    predictor: Predictor, config: PredictConfig, what: str, tally: MetricSums, notes: Sequence[str | None]
) -> None:
    from sst2_ray.results.analysis.statistics import wilson_interval
    from sst2_ray.terminal import console

    lines = [f"{predictor.meta.info.label}: {what}"]
    if tally.num_rows:
        metrics = tally.metrics()
        interval = wilson_interval(tally.right, tally.num_rows)
        lines.append(
            f"accuracy {metrics.accuracy:.4f} ({tally.right:,} of {tally.num_rows:,}; 95 % interval {interval.low:.4f} to "
            f"{interval.high:.4f})  F1 {metrics.f1:.4f}  precision {metrics.precision:.4f}  recall {metrics.recall:.4f}  "
            f"loss {metrics.loss:.4f}"
        )
    lines += [f"note: {note}" for note in notes if note]
    if config.output is not None:
        lines.append(f"written: {config.output}")
    out = console()
    for line in lines:
        out.print(line, soft_wrap=True, markup=False)
