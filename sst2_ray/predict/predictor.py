"""An exported model, ready to label sentences; also as a class for Ray Data."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sst2_ray.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model says of one sentence."""

    text: str
    label: str
    """negative or positive."""
    label_id: int
    """0 or 1."""
    probability: float
    """Softmax probability of positive."""

    @property
    def confidence(self) -> float:
        """Probability of `label`."""
        return self.probability if self.label_id == 1 else 1.0 - self.probability


class Predictor:
    """An exported model, ready to label.

    Also a class for Ray Data: `dataset.map_batches(Predictor, fn_constructor_kwargs={"model_dir": DIR, "column": "text"},
    batch_size=16384)` adds the columns that `--output` has.
    """

    def __init__(
        self,
        model_dir: str | Path,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_tokens: int | None = None,
        column: str = "text",
    ) -> None:
        import torch

        from sst2_ray.data.tokens import SentenceTokenizer
        from sst2_ray.modeling.export.folder import load_export
        from sst2_ray.training.evaluate import BATCH_TOKENS
        from sst2_ray.training.precision import use_bf16

        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: torch sees no GPU here; use --device cpu")
        chosen = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
        self.device = torch.device(chosen)
        self.bf16 = use_bf16(precision, self.device)
        self.column = column
        with _model_folder(str(model_dir)) as folder:
            self.model, self.tokenizer, self.meta = load_export(folder, device=self.device)
        self._tokenize = SentenceTokenizer(self.tokenizer, self.meta.max_length)
        self.batch_tokens = batch_tokens or BATCH_TOKENS[self.device.type]

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [len(texts), 2], computed in batches of like length; the order is that of `texts`."""
        from sst2_ray.data.rows import Rows
        from sst2_ray.training.evaluate import compute_logits

        if not texts:
            return np.zeros((0, 2), dtype=np.float32)
        unlabelled = np.zeros(len(texts), dtype=np.int8)
        # Stripped, as the rows that a model is trained on are.
        rows = Rows(texts=[t.strip() for t in texts], labels=unlabelled, row_ids=np.arange(len(texts)))
        return compute_logits(
            self.model,
            self._tokenize(rows),
            bf16=self.bf16,
            pad_id=int(self.tokenizer.pad_token_id),
            max_tokens=self.batch_tokens,
            device=self.device,
        )

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """A batch of columns with predictions added; all rows must have a text."""
        return {**batch, **columns_of(self.logits([str(text) for text in batch[self.column]]))}


def columns_of(logits: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The columns of the output, [rows] each, from logits [rows, 2]."""
    from sst2_ray.modeling.classifier import LABELS
    from sst2_ray.training.metrics import positive_probability

    predicted = (logits[:, 1] > logits[:, 0]).astype(np.int8)
    names = np.array([LABELS[0], LABELS[1]], dtype=object)
    return {
        "predicted": predicted,
        "predicted_label": names[predicted],
        "probability": positive_probability(logits).astype(np.float32),
    }


def predict(
    model_dir: str | Path,
    texts: Sequence[str],
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_tokens: int | None = None,
) -> list[Prediction]:
    """Label sentences with an exported model; the order is that of `texts`. Arguments as of `PredictConfig`.

    Raises InputError where `model_dir` is no whole, safe export.
    """
    return label_texts(Predictor(model_dir, device=device, precision=precision, batch_tokens=batch_tokens), texts)


def label_texts(predictor: Predictor, texts: Sequence[str]) -> list[Prediction]:
    """Predictions of `texts`, in their order."""
    return predictions_of(texts, predictor.logits(texts))


def predictions_of(texts: Sequence[str], logits: NDArray[np.float32]) -> list[Prediction]:
    """Texts and their logits [len(texts), 2] as predictions."""
    columns = columns_of(logits)
    return [
        Prediction(text=text, label=str(label), label_id=int(number), probability=float(probability))
        for text, number, label, probability in zip(texts, *columns.values(), strict=True)
    ]


@contextlib.contextmanager
def _model_folder(model_dir: str) -> Iterator[Path]:
    """The export's local folder: of a run's folder its `model`; a copy, for as long as it is read, of a URI's."""
    with contextlib.ExitStack() as stack:
        folder = Path(model_dir).expanduser()
        if "://" in model_dir:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sst2-ray-")))
            _download(model_dir, folder)
        inner = folder / "model"
        yield inner if (inner / "sst2_ray.json").is_file() and not (folder / "sst2_ray.json").is_file() else folder


def _download(uri: str, target: Path) -> None:
    import pyarrow.fs as pafs

    try:
        source, path = pafs.FileSystem.from_uri(uri.rstrip("/"))
        inner = source.get_file_info(f"{path}/model/sst2_ray.json").is_file
        pafs.copy_files(
            f"{path}/model" if inner else path, str(target), source_filesystem=source,
            destination_filesystem=pafs.LocalFileSystem(),
        )  # fmt: skip
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())[:160]
        raise InputError(f"--model-dir {uri}: cannot be read ({line}); give the folder of an exported model") from None
