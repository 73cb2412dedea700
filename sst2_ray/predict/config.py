"""The flags of `predict`, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypedDict

from sst2_ray.config.fields import AlsoPositional, AtLeastOne, File, Folder, OldName, Positive, Value
from sst2_ray.config.train import check_columns
from sst2_ray.data.options import Header, Quoting, ReadOptions
from sst2_ray.data.texts import Text
from sst2_ray.errors import InputError
from sst2_ray.predict.inputs import STDIN
from sst2_ray.predict.outputs import STDOUT, SUFFIXES

_PICTURE_SENTENCES = 40


class PredictorOptions(TypedDict):
    """Arguments of Predictor besides the model."""

    device: str
    precision: str
    batch_tokens: int | None
    backend: str
    variant: str | None


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Flags of `predict`."""

    model_dir: Annotated[Folder, AlsoPositional()]
    """Exported model: the folder `model` of a run, or the run's own folder; a path or a URI (s3://, gs://)."""
    text: tuple[str, ...] = ()
    """Sentences to label."""
    text_pair: tuple[str, ...] = ()
    """For a model of pairs: the second text of each pair, in the order of --text."""
    input: File | None = None
    """File of sentences: all that training reads, or plain text with a sentence a line; a path, a pattern (*.parquet), a
    URI, or - for standard input. With a label column it is scored as well."""
    data: Annotated[str, Value("DATA")] | None = None
    """Data set to score on its evaluation split: what `train --data` takes."""
    out: Annotated[File | None, OldName("output")] = None
    """File or URI to write (Parquet, CSV, TSV or JSON Lines), or - for standard output: the input's columns, `predicted` (the
    class's number), `predicted_label`, `probability` (of class 1 of two, else of the label)."""
    num_workers: AtLeastOne | None = None
    """Label the files of a folder on a Ray cluster (that of RAY_ADDRESS, else this machine's cores), with so many workers;
    --out is then a folder of Parquet parts in any storage, and the same command goes on where it was killed. None: this
    process alone, without Ray."""
    placement_timeout_s: Positive[float] | None = None
    """With --num-workers: seconds to wait until a worker has found a place. None: 600, where the cluster starts machines
    1,800."""
    overwrite: bool = False
    """Replace the output and the picture where they exist."""
    picture: File | None = None
    """PNG, SVG or PDF file to draw the sentences of --text in, each with its label and confidence."""
    text_column: str | None = None
    """Column with the sentence; None: sentence or text."""
    text_columns: tuple[str, ...] = ()
    """Two columns with the texts of a pair; none: those that a model of pairs was trained on."""
    label_column: str | None = None
    """Column with the label; None: that of the model's training, else label, where there is one."""
    ignore_labels: bool = False
    """Do not score, whatever the label column says."""
    delimiter: str | None = None
    """Character between the cells of a text table ("tab" for a tab); None: found in the file."""
    encoding: str | None = None
    """Encoding of text files, e.g. cp1252; None: that of the byte order mark, else UTF-8."""
    quoting: Quoting = "auto"
    """standard: cells may stand in quotation marks. none: a quotation mark is a character. auto: standard, but for TSV as
    the file shows."""
    header: Header = "auto"
    """Does the first row of a text table name its columns?"""
    batch_tokens: int | None = None
    """Most padded tokens computed at once; None: chosen for the device. Only memory and speed depend on it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products; auto: bf16 where the chip computes in it. Labels are those of fp32 either way, probabilities differ
    in the third digit."""
    backend: Literal["torch", "onnx", "openvino"] = "torch"
    """Library that computes: torch, or the one whose format `sst2-ray export` has written into the model's folder."""
    variant: Literal["fp32", "fp16", "int8", "int8-static"] | None = None
    """Precision of the model in that format; None: fp32, or the one that `export --keep-best` has kept."""
    allow_leak: bool = False
    """Score although the model's training data are known to contain the data."""

    def __post_init__(self) -> None:
        given = [
            flag for flag, value in (("--text", self.text), ("--input", self.input), ("--data", self.data)) if value
        ]
        if len(given) != 1:
            what = " and ".join(given) or "nothing to label"
            raise InputError(f"{what}: give exactly one of --text, --input and --data")
        check_columns(self.text_column, self.text_columns)
        self._check_backend()
        self._check_texts()
        if self.num_workers is not None:
            self._check_folders()
        elif self.placement_timeout_s is not None:
            raise InputError(
                f"--placement-timeout-s {self.placement_timeout_s:g}: belongs to --num-workers; one process alone waits for none"
            )
        if self.picture is not None and not self.text:
            raise InputError(f"--picture {self.picture}: it shows the sentences of --text; give some")
        if self.picture is not None and len(self.text) > _PICTURE_SENTENCES:
            raise InputError(f"--picture {self.picture}: it holds {_PICTURE_SENTENCES} sentences, not {len(self.text)}")
        if self.batch_tokens is not None and self.batch_tokens <= 0:
            raise InputError(f"--batch-tokens {self.batch_tokens}: must be above 0")

    def _check_folders(self) -> None:
        flag = f"--num-workers {self.num_workers}"
        if self.input is None or self.input == STDIN:
            raise InputError(f"{flag}: needs files that workers can read; give --input FOLDER")
        if self.out is None or self.out == STDOUT:
            raise InputError(f"{flag}: say where to write: --out FOLDER")
        if self.out.lower().endswith(SUFFIXES):
            raise InputError(f"--out {self.out}: with --num-workers it is a folder of Parquet parts; name a folder")

    def _check_backend(self) -> None:
        if self.backend == "torch" and self.variant is not None:
            raise InputError(
                f"--variant {self.variant}: is of a converted model; give --backend onnx or openvino with it"
            )
        if self.backend != "torch" and self.precision != "auto":
            raise InputError(
                f"--precision {self.precision}: is of torch; a converted model has its own, which --variant names"
            )

    def _check_texts(self) -> None:
        if self.text_pair and len(self.text_pair) != len(self.text):
            raise InputError(
                f"--text-pair: {len(self.text_pair)} texts for {len(self.text)} of --text; give one for each"
            )
        for flag, texts in (("--text", self.text), ("--text-pair", self.text_pair)):
            blank = [number for number, text in enumerate(texts, start=1) if not text.strip()]
            if blank:
                raise InputError(f"{flag}: sentence {blank[0]} is empty")

    @property
    def texts(self) -> list[Text]:
        """Return the sentences or pairs of the command line."""
        return list(zip(self.text, self.text_pair, strict=True)) if self.text_pair else list(self.text)

    def read_options(self, pair: Sequence[str], label: str | None) -> ReadOptions:
        """Collect the flags that say how files are read.

        Args:
            pair: Columns of the model's pairs, if it reads pairs.
            label: Column that it was trained on; None: one of the usual name, or not known.
        """
        columns = self.text_columns or (() if self.text_column else tuple(pair))
        return ReadOptions(
            text=columns[0] if columns else self.text_column,
            second=columns[1] if columns else None,
            label=self.label_column,
            trained_label=label,
            delimiter=self.delimiter,
            encoding=self.encoding,
            quoting=self.quoting,
            header=self.header,
        )

    @property
    def predictor_options(self) -> PredictorOptions:
        """Collect the flags that say how logits are computed."""
        return {
            "device": self.device,
            "precision": self.precision,
            "batch_tokens": self.batch_tokens,
            "backend": self.backend,
            "variant": self.variant,
        }
