"""Engines of prediction: torch with an export's own weights, or a converted model in another library, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sst2_ray.data.tokens import TokenArrays
from sst2_ray.errors import InputError
from sst2_ray.modeling.export.meta import ExportMeta, read_meta
from sst2_ray.predict.formats.files import Backend, FormatFolder, Variant, find_format

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextTokenizer(Protocol):
    """A tokenizer as far as prediction needs it; those of transformers are ones."""

    @property
    def is_fast(self) -> bool:
        """Tell if it has a Rust core."""

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """Return the Rust core."""

    @property
    def name_or_path(self) -> str:
        """Return where it came from."""

    @property
    def pad_token_id(self) -> int:
        """Return the id of the padding token."""

    @property
    def unk_token_id(self) -> int | None:
        """Return the id of unknown words; None: it knows everything."""

    @property
    def all_special_ids(self) -> list[int]:
        """Return the ids that stand for no text."""


class Engine(Protocol):
    """A loaded model."""

    meta: ExportMeta
    takes_type_ids: bool
    """True if it reads pairs and is told which text each token belongs to."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """Return the tokenizer of the model."""

    def logits(self, tokens: TokenArrays) -> NDArray[np.float32]:
        """Compute float32 [rows, classes]."""


class TorchEngine:
    """An export in torch."""

    def __init__(self, folder: Path, *, device: str, precision: str, batch_tokens: int | None) -> None:
        import torch

        from sst2_ray.modeling.export.folder import load_export
        from sst2_ray.modeling.prepack import prepack
        from sst2_ray.training.evaluate import BATCH_TOKENS
        from sst2_ray.training.precision import use_bf16

        kind = device.partition(":")[0]
        if kind not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device {device}: must be auto, cpu or cuda, of several GPUs cuda:1 the second")
        if kind == "cuda" and not torch.cuda.is_available():
            raise InputError(f"--device {device}: torch sees no GPU here; use --device cpu")
        chosen = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
        self.device = torch.device(chosen)
        self.bf16 = use_bf16(precision, self.device)
        self.model, self.tokenizer, self.meta = load_export(folder, device=self.device)
        self.takes_type_ids = self.model.takes_type_ids
        if self.bf16 and self.device.type == "cpu":
            prepack(self.model)
        self.max_tokens = batch_tokens or BATCH_TOKENS[self.device.type]

    def logits(self, tokens: TokenArrays) -> NDArray[np.float32]:
        from sst2_ray.training.evaluate import compute_logits

        return compute_logits(
            self.model,
            tokens,
            bf16=self.bf16,
            pad_id=int(self.tokenizer.pad_token_id),
            max_tokens=self.max_tokens,
            device=self.device,
            in_lanes=self.device.type == "cpu",
        )


@dataclass(frozen=True, kw_only=True)
class _PlainTokenizer:
    """The Rust core of a tokenizer with the numbers of its special tokens."""

    backend_tokenizer: Tokenizer
    name_or_path: str
    pad_token_id: int
    unk_token_id: int | None
    all_special_ids: list[int]
    is_fast: bool = True


class FormatEngine:
    """A converted model in ONNX Runtime or OpenVINO, on the CPU."""

    def __init__(
        self, folder: Path, backend: Backend, variant: str | None, *, device: str, batch_tokens: int | None
    ) -> None:
        from sst2_ray.predict.formats.runtime import BATCH_TOKENS, ConvertedModel

        if device == "cuda":
            raise InputError(f"--device cuda: --backend {backend} computes on the CPU here; use --backend torch")
        source = f"--model-dir {folder}"
        found = find_format(folder, backend, source=source)
        backend.require()
        chosen = _chosen(found, variant)
        self.meta = read_meta(found.path, source)
        self.tokenizer = _read_tokenizer(found, source)
        self.takes_type_ids = found.takes_type_ids
        self.max_tokens = batch_tokens or BATCH_TOKENS[backend]
        self._model = ConvertedModel(backend, chosen, found.file(chosen))

    def logits(self, tokens: TokenArrays) -> NDArray[np.float32]:
        from sst2_ray.predict.formats.runtime import compute_logits

        return compute_logits(
            self._model,
            tokens,
            pad_id=self.tokenizer.pad_token_id,
            max_tokens=self.max_tokens,
            num_classes=len(self.meta.info.labels),
        )


def _chosen(found: FormatFolder, variant: str | None) -> Variant:
    if variant is None:
        return found.default
    if variant not in found.variants:
        held = ", ".join(found.variants)
        raise InputError(
            f"--variant {variant}: {found.path} holds {held}; export the model with it, or name one of these"
        )
    return Variant(variant)


def _read_tokenizer(found: FormatFolder, source: str) -> _PlainTokenizer:
    from tokenizers import Tokenizer

    facts = found.meta["format"]
    try:
        return _PlainTokenizer(
            backend_tokenizer=Tokenizer.from_file(str(found.path / "tokenizer.json")),
            name_or_path=str(found.path),
            pad_token_id=int(facts["pad_id"]),
            unk_token_id=facts["unknown_id"],
            all_special_ids=list(facts["special_ids"]),
        )
    except Exception as error:  # the Rust core raises bare Exceptions
        line = " ".join(str(error).split())[:160]
        raise InputError(f"{source}: its tokenizer cannot be loaded ({line}); export the model again") from None


def open_engine(
    folder: Path,
    *,
    backend: str = "torch",
    variant: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_tokens: int | None = None,
) -> Engine:
    """Load the model of an export's folder into the library that `backend` names.

    Raises:
        InputError: The folder holds no such model, the library is not installed, or the device does not fit.
    """
    if backend == Backend.TORCH:
        return TorchEngine(folder, device=device, precision=precision, batch_tokens=batch_tokens)
    return FormatEngine(folder, Backend(backend), variant, device=device, batch_tokens=batch_tokens)
