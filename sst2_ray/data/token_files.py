"""Token arrays in files: written as they come, and mapped, so that they take no memory until they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sst2_ray.data.rows import Rows
from sst2_ray.data.tokens import Piece, TokenArrays

Number = TypeVar("Number", np.int32, np.int8)

_IDS, _ENDS, _TYPES, _TOLD = "ids.i32", "ends.i64", "types.i8", "told.json"


def write_tokens(pieces: Iterable[Piece], folder: Path) -> None:
    """Write the tokens of a split's texts, a piece at a time."""
    folder.mkdir()
    num_tokens = num_truncated = 0
    has_types = False
    with ExitStack() as stack:
        ids, ends, types = (stack.enter_context((folder / name).open("wb")) for name in (_IDS, _ENDS, _TYPES))
        for piece in pieces:
            ids.write(piece.ids.data)
            ends.write((num_tokens + np.cumsum(piece.lengths)).data)
            if piece.types is not None:
                types.write(piece.types.data)
                has_types = True
            num_tokens += len(piece.ids)
            num_truncated += piece.num_truncated
    told = {"num_tokens": num_tokens, "num_truncated": num_truncated, "has_types": has_types}
    (folder / _TOLD).write_text(json.dumps(told))


def map_tokens(folder: Path, rows: Rows) -> TokenArrays:
    """Return the tokens of the rows that they were written of, whose texts are not looked at.

    Raises OSError or ValueError where the files are not whole.
    """
    told = json.loads((folder / _TOLD).read_text())
    ends = np.fromfile(folder / _ENDS, dtype=np.int64)
    if len(ends) != len(rows.labels):
        raise ValueError(f"{folder}: {len(ends)} texts, not {len(rows.labels)}")
    return TokenArrays(
        input_ids=_mapped(folder / _IDS, np.int32, told["num_tokens"]),
        offsets=np.concatenate([np.zeros(1, dtype=np.int64), ends]),
        labels=rows.labels,
        row_ids=rows.row_ids,
        num_truncated=told["num_truncated"],
        type_ids=_mapped(folder / _TYPES, np.int8, told["num_tokens"]) if told["has_types"] else None,
    )


def _mapped(path: Path, kind: type[Number], count: int) -> npt.NDArray[Number]:
    if not count:
        return np.zeros(0, dtype=kind)
    return np.asarray(np.memmap(path, dtype=kind, mode="r", shape=(count,)))
