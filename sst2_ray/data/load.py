"""Checked splits from a config: classes, leaks, hold-outs and subsets. Reading is in `sources`."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sst2_ray.config.registry import DATASETS, glue_task
from sst2_ray.config.train import TrainConfig
from sst2_ray.data import leaks
from sst2_ray.data.class_weights import BALANCED, read_class_weights
from sst2_ray.data.columns import pieces_of
from sst2_ray.data.labels import NEGATIVE_POSITIVE, VALUE, ClassNames, canonical_label
from sst2_ray.data.phrases import UInt64
from sst2_ray.data.rows import Cells, Rows, Splits, require_classes
from sst2_ray.data.sources import Source, read_source
from sst2_ray.data.splitting import hold_out, hold_out_groups, key_hashes, subset
from sst2_ray.data.texts import stripped
from sst2_ray.errors import InputError
from sst2_ray.formatting import count
from sst2_ray.terminal import rows_bar

MAX_CLASSES = 2_000
"""Different labels up to which a column counts as one of classes."""

__all__ = ["Rows", "Splits", "load_splits"]


def load_splits(config: TrainConfig, *, model: ClassNames | None = None) -> Splits:
    """Read, check and split the data that `config` names. Nothing depends on `config.seed`.

    `model`: classes of a trained model that is to be scored; None: one is to be trained.

    Raises:
        InputError: With one line: data that cannot be read, labels of no class, a split of one class, evaluation sentences
            in the training split, sizes that do not fit.
    """
    _check_calibration(config)
    read = _with_choices(read_source(config), config)
    classes = _classes(read, config) if model is None else _classes_to_score(read, model, config)
    train, train_keys, notes = _train_rows(read, classes, config)
    corpus = _named_corpus(config.data) or leaks.identify(train_keys)
    if read.dev is None:
        train, dev = _part(train, config.holdout_fraction, "hold-out", config, notes)
        eval_split = f"hold-out of {read.train_name}"
    else:
        dev, dev_keys, dev_notes = _dev_rows(read.dev, classes, train_keys, config)
        notes += dev_notes
        eval_split = "SST-2 dev" if leaks.is_sst2_dev(dev_keys) else f"dev of {read.dev_name}"
        corpus = corpus or leaks.identify(dev_keys)
        if glue_task(config.data) == "sst2" and eval_split != "SST-2 dev":
            notes.append(f"the hub's {len(train):,} and {len(dev):,} rows are not GLUE's SST-2")

    others, other_notes = _other_splits(read, classes, train_keys, config)
    notes += other_notes
    train, selection = _selected(train, config, notes)
    train = _first_rows(train, config.train_rows, "train_rows", len(classes))
    dev, eval_split = _first_of_dev(dev, eval_split, config)
    if config.batch_size > len(train):
        raise InputError(f"--batch-size {config.batch_size}: larger than the {len(train):,} training rows; lower it")
    weights = read_class_weights(config.class_weights, classes, train.labels)
    from_file = weights if config.class_weights != BALANCED else None
    return Splits(
        train=train,
        dev=dev,
        classes=classes,
        class_weights=weights,
        others=others,
        selection=selection,
        source=read.source,
        eval_split=eval_split,
        fingerprint=_fingerprint(train, dev, selection, *others.values(), class_weights=from_file),
        text_columns=read.train.text_columns,
        corpus=corpus,
        notes=tuple(note for note in (*notes, classes.case_note) if note),
    )


def _check_calibration(config: TrainConfig) -> None:
    """Refuse a calibration without sentences to fit it on; a sweep holds some out by itself."""
    if config.calibrate_head and not config.selection_fraction:
        raise InputError(
            "--calibrate-head: is fitted on a held-out part of train; give its size, e.g. --selection-fraction 0.1"
        )


def _with_choices(read: Source, config: TrainConfig) -> Source:
    """Set which rows are left out. Raises InputError: a label to drop that no row has."""
    dropped = frozenset(canonical_label(label) or "" for label in config.drop_label)
    splits = {"train": read.train, **({"dev": read.dev} if read.dev else {}), **read.others}
    there = {label for cells in splits.values() for label in cells.labels} if dropped else set()
    for label in sorted(dropped - there):
        some = ", ".join(sorted(label for label in there if label is not None)[:5])
        raise InputError(f"--drop-label {label}: no row of --data {config.data} has it; its labels are {some}")
    chosen = {name: replace(cells, dropped=dropped, drop_blank=config.drop_blank) for name, cells in splits.items()}
    others = {name: chosen[name] for name in read.others}
    return replace(read, train=chosen["train"], dev=chosen.get("dev"), others=others)


def _classes(read: Source, config: TrainConfig) -> ClassNames:
    """Return the classes that the user fixed, else those of the training split; of a regression there are none."""
    if config.is_regression:
        return VALUE
    counts = read.train.label_counts
    if not config.labels:
        classes = ClassNames.of_labels(counts, read.train.class_order)
        _check_number(classes, read.train)
        return classes
    classes = ClassNames.of_flag(config.labels)
    missing = set(range(len(classes))) - set(classes.match(counts).values())
    if missing:
        names = ", ".join(classes.names[number] for number in sorted(missing))
        some = ", ".join(label for label, _ in counts.most_common(5))
        raise InputError(f"--labels: no training row has the label {names}; the labels there are {some}")
    return classes


def _classes_to_score(read: Source, model: ClassNames, config: TrainConfig) -> ClassNames:
    """Return the classes by which a model is scored: its own where it knows all labels of the data, else those of the data.

    The data's own are names, or the labels as they stand in the file; the model may know some of these.
    """
    if config.is_regression:
        return _classes(read, config)
    labels = read.train.label_counts
    usual = ClassNames.of_labels(labels, read.train.class_order)
    is_known = len(model.match(usual.names)) == len(usual)
    # The numbers of named data are known to mean negative and positive, whatever numbers the model was trained with.
    if is_known and _named_corpus(config.data) is not None:
        return usual
    if len(model.match(labels)) == len(labels):
        return model
    _check_number(usual, read.train)
    return ClassNames(tuple(sorted(labels))) if usual.names == NEGATIVE_POSITIVE else usual


def _train_rows(read: Source, classes: ClassNames, config: TrainConfig) -> tuple[Rows, UInt64, list[str | None]]:
    """Convert and check the training split; returns it, the keys of its texts and remarks."""
    train, left_out = read.train.rows(classes)
    require_classes(train, classes, f"--data {config.data}: training split")
    keys = key_hashes(train.texts)
    notes = [*read.train.notes, *read.notes, left_out]
    if config.drop_leaks and read.dev is not None:
        train, keys, dropped = _without_leaks(train, keys, read.dev)
        require_classes(train, classes, f"--data {config.data}: training split without its leaks")
        notes.append(dropped)
    return train, keys, [*notes, leaks.repetitions(train, keys)]


def _dev_rows(
    cells: Cells, classes: ClassNames, train_keys: UInt64, config: TrainConfig
) -> tuple[Rows, UInt64, list[str | None]]:
    """Convert and check an evaluation split that the data bring along; returns it, the keys of its texts and remarks."""
    dev, left_out = cells.rows(classes)
    require_classes(dev, classes, f"--data {config.data}: evaluation split")
    # GLUE's splits are what everybody reports: what they have in common is said, not refused.
    allow = config.allow_leak or glue_task(config.data) not in (None, "sst2")
    keys = key_hashes(dev.texts)
    leaked = leaks.check_overlap(dev.texts, keys, train_keys, data=config.data, allow=allow)
    return dev, keys, [*cells.notes, left_out, leaked]


def _other_splits(
    read: Source, classes: ClassNames, train_keys: UInt64, config: TrainConfig
) -> tuple[dict[str, Rows], list[str | None]]:
    """Convert and check the evaluation splits that are scored at the end."""
    others, notes = {}, []
    for name, cells in read.others.items():
        rows, _, said = _dev_rows(cells, classes, train_keys, config)
        others[name] = _first_rows(rows, min(config.dev_rows or len(rows), len(rows)), "dev_rows")
        notes += said
    return others, notes


def _named_corpus(data: str) -> str | None:
    """Name the corpus of a named data set; None: it has no name."""
    return "glue" if glue_task(data) == "sst2" else data if data in DATASETS else None


def _without_leaks(train: Rows, train_keys: UInt64, dev: Cells) -> tuple[Rows, UInt64, str | None]:
    """Leave out the training rows whose sentence stands in the evaluation split, and say how many."""
    kept = ~np.isin(train_keys, key_hashes([text for text in map(stripped, dev.texts) if text is not None]))
    num_dropped = len(kept) - int(kept.sum())
    said = f"left out {num_dropped:,} of {len(kept):,} training rows that also stand in the evaluation split"
    return train.take(kept), train_keys[kept], said if num_dropped else None


def _strata(rows: Rows) -> npt.NDArray[np.int16]:
    """Return what hold-outs and subsets keep in proportion, [rows]: the classes; of a regression the tenths of its values."""
    if rows.labels.dtype == np.float32:
        edges = np.quantile(rows.labels, np.linspace(0, 1, 11)[1:-1])
        return np.searchsorted(np.unique(edges), rows.labels, side="right").astype(np.int16)
    return rows.labels.astype(np.int16)


def _check_number(classes: ClassNames, train: Cells) -> None:
    """Refuse a label column that holds no classes: a text, a date, a number that is measured."""
    if len(classes) > max(2, len(train.texts) // 2) or len(classes) > MAX_CLASSES:
        some = ", ".join(classes.names[:3])
        raise InputError(
            f"{train.where}: its label column has {len(classes):,} different values in {len(train.texts):,} rows "
            f"({some}, ...), which are no classes; name another with --label-column"
        )


# ---- splitting


def _part(rows: Rows, fraction: float, purpose: str, config: TrainConfig, notes: list[str | None]) -> tuple[Rows, Rows]:
    """Divide `rows` into what stays and what is held out, with a remark on groups.

    Raises:
        InputError: One of them would lack a class.
    """
    flag = "--holdout-fraction" if purpose == "hold-out" else "--selection-fraction"
    if fraction == 0:
        raise InputError(f"{flag} 0: --data {config.data} has no evaluation split of its own; give --dev-data")
    if rows.groups is None:
        with rows_bar(len(rows), f"{purpose}: looking for phrases in") as advance:
            held = hold_out(rows.texts, _strata(rows), fraction, purpose=purpose, advance=advance)
        kept_rows, held_rows = rows.take(~held), rows.take(held)
    else:
        held = hold_out_groups(rows.groups, _strata(rows), fraction, purpose=purpose)
        kept_rows = rows.take(~held)
        held_rows, note = _without_texts_of(rows.take(held), kept_rows, purpose)
        notes.append(note)
    lacks_class = not config.is_regression and kept_rows.num_different < rows.num_different
    if lacks_class or held_rows.num_different < 2:
        raise InputError(
            f"{flag} {fraction}: the {len(rows):,} rows of --data {config.data} are too few, or too much alike, to hold "
            f"out some of each class; give more rows" + (", or --dev-data" if purpose == "hold-out" else "")
        )
    return kept_rows, held_rows


def _selected(train: Rows, config: TrainConfig, notes: list[str | None]) -> tuple[Rows, Rows | None]:
    """Divide the training rows into what stays and what the epoch is chosen by; None: dev chooses."""
    if config.selection_fraction == 0:
        return train, None
    train, held = _part(train, config.selection_fraction, "selection", config, notes)
    return train, _first_rows(held, min(config.dev_rows or len(held), len(held)), "dev_rows")


def _without_texts_of(held: Rows, kept: Rows, purpose: str) -> tuple[Rows, str]:
    """Leave out the held-out rows whose text stays in another group, and say how many groups and rows there are."""
    own = ~np.isin(key_hashes(held.texts), key_hashes(kept.texts))
    num_groups = len(set(held.groups or ()))
    said = (
        f"{purpose}: {count(num_groups, 'group')} of {num_groups + len(set(kept.groups or ())):,} held out as a whole"
    )
    if not own.all():
        said += f"; left out {count(int((~own).sum()), 'row')} of them whose text stands in a group that stays"
    return held.take(own), said


def _first_rows(rows: Rows, num_rows: int | None, field: str, least: int = 2) -> Rows:
    if num_rows is None or num_rows == len(rows):
        return rows
    flag = f"--{field.replace('_', '-')}"
    if num_rows > len(rows):
        raise InputError(f"{flag} {num_rows}: there are only {len(rows):,} rows; lower it, or leave it out for all")
    if num_rows < least:
        raise InputError(f"{flag} {num_rows}: must be at least {least}, one row of each class")
    return rows.take(subset(rows.texts, _strata(rows), num_rows, purpose=field))


def _first_of_dev(dev: Rows, name: str, config: TrainConfig) -> tuple[Rows, str]:
    """Take the rows of the evaluation split that `--dev-rows` asks for, and say so in its name."""
    rows = _first_rows(dev, config.dev_rows, "dev_rows")
    return rows, name if len(rows) == len(dev) else f"{name}, {len(rows):,} of {len(dev):,} rows"


# ---- describing


def _fingerprint(*splits: Rows | None, class_weights: tuple[float, ...] | None) -> str:
    """Hash the rows, and weights of classes that no field of the config states."""
    digest = hashlib.sha256()
    for rows in splits:
        for start, texts in pieces_of(rows.texts) if rows else ():
            assert rows is not None
            labels = rows.labels[start : start + len(texts)].tolist()
            lines = [
                "\t".join((str(label), *((text,) if isinstance(text, str) else text))) + "\n"
                for text, label in zip(texts, labels, strict=True)
            ]
            digest.update("".join(lines).encode())
        digest.update(b"\0")
    if class_weights is not None:
        digest.update(repr(class_weights).encode())
    return digest.hexdigest()[:12]
