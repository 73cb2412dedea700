"""The folder that a cluster's predictions go to: parts that appear whole or not at all, and a manifest that says of what.

`part-000000.parquet`, ... hold the rows in the order of the input. `_manifest` says which model, settings and input files
(by the hash of their bytes) they are of: a command that finds its own goes on with the parts that are missing. `_parts/`
holds what each part counted, written before the part itself. `_SUCCESS` appears when all is there. Readers of data sets
leave out names that begin with an underscore.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sst2_ray.errors import InputError
from sst2_ray.predict.labelling import Labelled
from sst2_ray.predict.parts import Part
from sst2_ray.storage import RETRY_FOR_S, Storage, address

MANIFEST, COUNTS, SUCCESS = "_manifest", "_parts", "_SUCCESS"


@dataclass(frozen=True)
class OutputFolder:
    """An output folder, in any storage."""

    location: str
    storage: Storage = field(init=False, repr=False)

    def __post_init__(self) -> None:
        storage = Storage.open(self.location, "--out").with_retries(RETRY_FOR_S)
        object.__setattr__(self, "storage", storage)

    @property
    def shown(self) -> str:
        """Return the address without secrets."""
        return address(self.location)

    def check(self, *, overwrite: bool) -> None:
        """Refuse a folder that cannot be written, or that holds what is not ours.

        Raises:
            InputError: With the remedy.
        """
        if self.storage.is_local and Path(self.storage.root).is_file():
            raise InputError(f"--out {self.shown}: is a file; with --num-workers it is a folder")
        foreign = [name for name in self._names() if not _is_ours(name)]
        if foreign:
            raise InputError(f"--out {self.shown}: holds other files ({foreign[0]}); name a new or an empty folder")
        if not overwrite and MANIFEST not in self._names() and self._names():
            raise InputError(f"--out {self.shown}: has no {MANIFEST}; choose another folder, or pass --overwrite")
        self.storage.with_retries(0).probe("--out")

    def begin(self, manifest: Mapping[str, object], parts: Sequence[Part], *, overwrite: bool) -> list[Part]:
        """Write the manifest, or find that it is there.

        Returns:
            The parts that are missing.

        Raises:
            InputError: The folder was begun with another model, other settings or other input.
        """
        wanted = json.loads(json.dumps(manifest))
        names = set(self._names())
        is_begun = MANIFEST in names and SUCCESS not in names and self.storage.read_json(MANIFEST) == wanted
        if overwrite and not is_begun:  # the same command, given again, does what is missing
            for name in names:
                self.storage.delete(name)
            names = set()
        if MANIFEST in names:
            found = self.storage.read_json(MANIFEST)
            other = [name for name in wanted if found.get(name) != wanted[name]]
            if other:
                raise InputError(
                    f"--out {self.shown}: was begun with another {other[0]}; choose another folder, or pass --overwrite"
                )
        else:
            self.storage.write_json(MANIFEST, wanted)
        return [part for part in parts if part.output not in names]

    def write(self, part: Part, file: Path, counts: Labelled) -> None:
        """Put a part's file in its place; what it counted is there before."""
        self.storage.write_json(f"{COUNTS}/{part.number:06d}.json", counts.to_json())
        self.storage.write_bytes(part.output, file.read_bytes())

    def counts(self, part: Part) -> dict[str, object]:
        """Read what a finished part counted."""
        values: dict[str, object] = self.storage.read_json(f"{COUNTS}/{part.number:06d}.json")
        return values

    def finish(self) -> None:
        """Mark the folder as complete."""
        self.storage.write_bytes(SUCCESS, b"")

    def _names(self) -> list[str]:
        try:
            return [name for name in self.storage.list() if not name.startswith(".")]
        except OSError as error:
            raise InputError(f"--out {self.shown}: cannot be read ({error})") from None


def _is_ours(name: str) -> bool:
    return name in (MANIFEST, COUNTS, SUCCESS) or (name.startswith("part-") and name.endswith(".parquet"))
