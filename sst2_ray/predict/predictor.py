"""An exported model, ready to label sentences; also a class for Ray Data."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sst2_ray.config.python_calls import told_in_python
from sst2_ray.data.labels import NEGATIVE_POSITIVE, ClassNames
from sst2_ray.data.texts import text_of
from sst2_ray.errors import InputError
from sst2_ray.formatting import without_secret
from sst2_ray.predict.shapes import Columns, added_columns, labeled
from sst2_ray.uris import open_uri

if TYPE_CHECKING:
    from sst2_ray.data.tokens import TokenArrays


_LEAST_TOKENS = 1000
"""Tokens of a call from which on a language that the model does not know is refused: a file is computed in pieces."""


class Predictor:
    """An exported model in evaluation mode with its tokenizer.

    Ray Data takes the class itself: `dataset.map_batches(Predictor, fn_constructor_kwargs={"model_dir": DIR, "column":
    "text"}, batch_size=16384)` adds the columns that `--out` has. `column`: the texts, for a model of pairs two
    columns; None: text, for a model of pairs the columns that it was trained on.
    """

    @told_in_python
    def __init__(
        self,
        model_dir: str | Path,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_tokens: int | None = None,
        column: str | Sequence[str] | None = None,
        backend: str = "torch",
        variant: str | None = None,
    ) -> None:
        from sst2_ray.data.tokens import SentenceTokenizer
        from sst2_ray.predict.engines import open_engine

        self.source = str(model_dir)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(model_folder(self.source))
            self._engine = open_engine(
                folder, backend=backend, variant=variant, device=device, precision=precision, batch_tokens=batch_tokens
            )
            # The file of a converted model is opened again for many batches: the copy of a URI stays as long as this.
            self._copy = stack.pop_all() if backend != "torch" else None
        self.meta = self._engine.meta
        self.classes = ClassNames.of_model(self.meta.info.labels, self.meta.labels_flag)
        self.text_columns = self.meta.info.text_columns
        """Columns of the pairs that it was trained on; empty: it reads single texts."""
        self.columns = (column,) if isinstance(column, str) else tuple(column or self.text_columns or ("text",))
        self._check_columns()
        self.num_truncated = 0
        """Sentences so far that were longer than the model reads."""
        self._tokenize = SentenceTokenizer(
            self._engine.tokenizer, self.meta.max_length, type_ids=self._engine.takes_type_ids
        )

    def _check_columns(self) -> None:
        reads = 2 if self.text_columns else 1
        if len(self.columns) != reads:
            what = f"pairs ({', '.join(self.text_columns)})" if self.text_columns else "single texts"
            raise InputError(f"column {', '.join(self.columns)}: the model reads {what}; give {reads}")

    @told_in_python
    def logits(self, texts: Sequence[object]) -> NDArray[np.float32]:
        """Compute logits [len(texts), classes] in float32; the order is that of `texts`, whatever the batches.

        A text is a string; for a model of pairs a tuple or list of two, or a dict with the names of `text_columns` or
        with text and text_pair. Raises InputError for anything else.
        """
        if not texts:
            return np.zeros((0, len(self.classes)), dtype=np.float32)
        tokens = self.tokenize(texts, least=_LEAST_TOKENS)
        self.num_truncated += tokens.num_truncated
        return self._engine.logits(tokens)

    def tokenize(self, texts: Sequence[object], *, source: str = "--input", least: int = 1) -> TokenArrays:
        """Tokenize texts, at least one, in the form that `logits` takes.

        Raises InputError: for another form, and, begun with `source`, where most tokens are unknown.
        """
        from sst2_ray.data.rows import Rows
        from sst2_ray.modeling.tokenizers import check_known

        unlabelled = np.zeros(len(texts), dtype=np.int16)
        read = [text_of(item, self.text_columns, f"texts: item {n}") for n, item in enumerate(texts)]
        # Stripped as the rows are that a model is trained on.
        given = [t.strip() if isinstance(t, str) else (t[0].strip(), t[1].strip()) for t in read]
        rows = Rows(texts=given, labels=unlabelled, row_ids=np.arange(len(texts)))
        tokens = self._tokenize(rows)
        check_known(tokens.input_ids, self._engine.tokenizer, source=source, least=least)
        return tokens

    def check_pairs(self, *, pairs: bool, flag: str) -> None:
        """Refuse single texts for a model of pairs, and the other way round. Raises InputError."""
        if self.text_columns and not pairs:
            columns = ", ".join(self.text_columns)
            raise InputError(f"--model-dir {self.source}: reads pairs of texts ({columns}); give both, with {flag}")
        if pairs and not self.text_columns:
            raise InputError(f"{flag}: the model of --model-dir {self.source} reads single texts; leave it out")

    @told_in_python
    def predict(self, texts: object, *, text_column: str | None = None) -> Any:
        """Label sentences and return them in the shape in which they were given; see `sst2_ray.predict`."""
        return labeled(self, texts, text_column)

    def __call__(self, batch: Mapping[str, NDArray[np.generic]]) -> Columns:
        """Add predictions to a batch of columns; all rows must have a text."""
        cells = [[str(text) for text in batch[name]] for name in self.columns]
        logits = self.logits(list(zip(*cells, strict=True)) if len(cells) == 2 else cells[0])
        return {**batch, **added_columns(logits, self.classes)}


def export_text_columns(model_dir: str) -> tuple[str, ...]:
    """Read which columns a model of pairs was trained on, without its weights; empty: single texts, or no export."""
    return tuple(map(str, _export_meta(model_dir).get("text_columns", ())))


def export_label_column(model_dir: str) -> str | None:
    """Read which column an exported model was trained on, without its weights; None: one of the usual name, or a number."""
    config = _export_meta(model_dir).get("config")
    name = config.get("label_column") if isinstance(config, dict) else None
    return None if name is None or str(name).isdecimal() else str(name)


def export_classes(model_dir: str) -> ClassNames:
    """Read an exported model's classes, without its weights; those of SST-2 where it states none, or is no export."""
    meta = _export_meta(model_dir)
    config = meta.get("config")
    flag = config.get("labels") if isinstance(config, dict) else None
    names = tuple(map(str, meta.get("labels", NEGATIVE_POSITIVE)))
    return ClassNames.of_model(names, tuple(map(str, flag or ())))


def is_regression(model_dir: str) -> bool:
    """Tell whether an exported model answers with values, without its weights."""
    return export_classes(model_dir).is_regression


def _export_meta(model_dir: str) -> dict[str, Any]:
    """Read the facts that an export states about itself; empty: it is none."""
    from sst2_ray.modeling.sources.folders import META_FILE

    head, question, options = model_dir.partition("?") if "://" in model_dir else (model_dir, "", "")
    for folder in (head.rstrip("/"), f"{head.rstrip('/')}/model"):
        try:
            if "://" in model_dir:
                source, path = open_uri(f"{folder}/{META_FILE}{question}{options}")
                with source.open_input_stream(path) as file:
                    values = json.loads(file.read())
            else:
                values = json.loads((Path(folder).expanduser() / META_FILE).read_text(encoding="utf-8"))
            if isinstance(values, dict):
                return values
        except (OSError, ValueError, TypeError):
            continue  # loading the model says what is wrong
    return {}


@contextlib.contextmanager
def model_folder(model_dir: str) -> Iterator[Path]:
    """Yield the local folder of an export: the folder `model` of a run's, or a temporary copy of a URI's."""
    with contextlib.ExitStack() as stack:
        folder = Path(model_dir).expanduser()
        if "://" in model_dir:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sst2-ray-")))
            _download(model_dir, folder)
        inner = folder / "model"
        yield inner if (inner / "sst2_ray.json").is_file() and not (folder / "sst2_ray.json").is_file() else folder


def _download(uri: str, target: Path) -> None:
    import pyarrow.fs as pafs

    from sst2_ray.data.streams import one_line

    try:
        source, path = open_uri(uri.rstrip("/"))
        inner = source.get_file_info(f"{path}/model/sst2_ray.json").is_file
        pafs.copy_files(
            f"{path}/model" if inner else path, str(target), source_filesystem=source,
            destination_filesystem=pafs.LocalFileSystem(),
        )  # fmt: skip
    except (OSError, ValueError) as error:
        line = one_line(error)
        raise InputError(
            f"--model-dir {without_secret(uri)}: cannot be read ({line}); give the folder of an exported model"
        ) from None
