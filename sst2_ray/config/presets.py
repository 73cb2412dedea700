"""Named experiments: functions that return a config, which config files and flags then change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from sst2_ray.config.registry import GLUE_TASKS, glue_task
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError, did_you_mean


def demo() -> TrainConfig:
    """Train SBERT for one epoch on the packaged movie reviews: minutes on a laptop, no model hub needed."""
    return TrainConfig(model="sbert-minilm", data="rotten-tomatoes", epochs=1, batch_size=32, storage_path="runs/demo")


def demo_modernbert() -> TrainConfig:
    """Train a small ModernBERT from random weights on the same reviews: it shows the procedure, not what the model can do."""
    return dataclasses.replace(demo(), model="modernbert-mini", learning_rate=1e-3, epochs=2)


def paper(data: str = "glue") -> TrainConfig:
    """Fine-tune ModernBERT-base on SST-2 as Warner et al. 2024 did (arXiv 2412.13663, Table 6 and appendix E.1).

    With another task of GLUE as `--data` its row of the table. The batch size is that of the authors' SST-2, 256 tokens a pair
    that of their code (src/evals/glue_jobs.py). RTE, MRPC and STS-B began with their MNLI model: --start-from.
    """
    return _of_table_6("modernbert-base", data, _BASE)


def paper_large(data: str = "glue") -> TrainConfig:
    """Fine-tune ModernBERT-large on SST-2, or another task of GLUE, from the same table."""
    return _of_table_6("modernbert-large", data, _LARGE)


_BASE: dict[str, tuple[float, float, int]] = {
    "cola": (8e-5, 1e-6, 5),
    "mnli": (5e-5, 5e-6, 1),
    "mrpc": (5e-5, 5e-6, 10),
    "qnli": (8e-5, 5e-6, 2),
    "qqp": (5e-5, 5e-6, 10),
    "rte": (5e-5, 1e-5, 3),
    "sst2": (8e-5, 1e-5, 2),
    "stsb": (8e-5, 5e-6, 10),
}
"""Learning rate, weight decay and epochs of ModernBERT-base: arXiv 2412.13663, Table 6."""

_LARGE: dict[str, tuple[float, float, int]] = {
    "cola": (3e-5, 8e-6, 5),
    "mnli": (3e-5, 1e-5, 1),
    "mrpc": (8e-5, 5e-6, 2),
    "qnli": (3e-5, 5e-6, 2),
    "qqp": (5e-5, 8e-6, 2),
    "rte": (5e-5, 8e-6, 3),
    "sst2": (1e-5, 1e-6, 3),
    "stsb": (8e-5, 1e-5, 10),
}
"""Likewise of ModernBERT-large."""

_FEW_EPOCHS = frozenset({"sst2", "mnli", "rte"})
"""Tasks that the paper's search gave 1, 2 or 3 epochs; the others 2, 5 or 10 (appendix E.1)."""


def _of_table_6(model: str, data: str, table: dict[str, tuple[float, float, int]]) -> TrainConfig:
    """Return the settings of a task of GLUE. Raises InputError for a task that the paper does not have."""
    task = glue_task(data) or "sst2"
    if task not in table:
        raise InputError(
            f"--preset paper --data {data}: the paper has no settings for {task}; its tasks are {', '.join(table)}"
        )
    learning_rate, weight_decay, epochs = table[task]
    return TrainConfig(
        model=model,
        data="glue" if task == "sst2" else f"glue/{task}",
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        weight_decay_form="fully_decoupled",
        epochs=epochs,
        batch_size=64,
        max_length=256 if len(GLUE_TASKS[task]) > 1 else 128,
    )


def notebook() -> TrainConfig:
    """Repeat the notebook study's ModernBERT-base as its code ran: learning rate 2e-5, 20 epochs, padded to 128 tokens."""
    return TrainConfig(
        model="modernbert-base",
        data="glue",
        learning_rate=2e-5,
        epochs=20,
        batch_size=32,
        max_length=128,
        pad_to_max_length=True,
        adam_beta2=0.999,
        adam_eps=1e-8,
        warmup_fraction=0.0,
    )


def notebook_text() -> TrainConfig:
    """Repeat the same study with the learning rate that its text states: 8e-5."""
    return dataclasses.replace(notebook(), learning_rate=8e-5)


def notebook_sbert() -> TrainConfig:
    """Repeat the notebook study's SBERT: bert-base-nli-mean-tokens, mean pooling, dropout, a linear head, 10 epochs."""
    return dataclasses.replace(notebook(), model="sbert", epochs=10)


_OF_TASK: dict[str, Callable[[str], TrainConfig]] = {"paper": paper, "paper-large": paper_large}
"""Presets whose settings depend on the task of GLUE."""

TRAIN_PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "demo": demo,
    "demo-modernbert": demo_modernbert,
    "paper": paper,
    "paper-large": paper_large,
    "notebook": notebook,
    "notebook-text": notebook_text,
    "notebook-sbert": notebook_sbert,
}


def train_preset(name: str, *, data: str | None = None) -> TrainConfig:
    """Return the named config. Raises InputError for an unknown name.

    `data`: what `--data` will replace its data by; a preset of GLUE has other settings for each task.
    """
    if name not in TRAIN_PRESETS:
        raise InputError(f"--preset {name}: no such preset; {did_you_mean(name, TRAIN_PRESETS)}")
    if data is not None and name in _OF_TASK:
        return _OF_TASK[name](data)
    return TRAIN_PRESETS[name]()


def paper_grid(data: str = "glue") -> SweepConfig:
    """Run the ModernBERT paper's whole grid for SST-2 (arXiv 2412.13663, appendix E.1) under three seeds: 48 configurations.

    With another task of GLUE as `--data` the grid of that task, which differs in the epochs.
    """
    base = paper(data)
    return SweepConfig(
        models=("modernbert-base",),
        learning_rates=(1e-5, 3e-5, 5e-5, 8e-5),
        weight_decays=(1e-6, 5e-6, 8e-6, 1e-5),
        epochs=(1, 2, 3) if glue_task(base.data) in _FEW_EPOCHS else (2, 5, 10),
        batch_sizes=(64,),
        num_seeds=3,
        base=base,
    )


def around_paper() -> SweepConfig:
    """Search on both sides of the paper's learning rate (8e-5), up to its batch size (64), for ModernBERT and SBERT."""
    return SweepConfig(
        models=("modernbert-base", "sbert"),
        learning_rates=(2e-5, 4e-5, 8e-5, 1.2e-4, 1.6e-4),
        batch_sizes=(16, 32, 64),
        epochs=(2,),
        num_seeds=3,
        base=paper(),
    )


def demo_sweep() -> SweepConfig:
    """Compare SBERT and a small ModernBERT on the packaged movie reviews: two learning rates each, three seeds, no model hub.

    The small ModernBERT starts from random weights: this shows the procedure, not what the models can do.
    """
    return SweepConfig(
        models=("sbert-minilm", "modernbert-mini"),
        learning_rates=(8e-5, 8e-4),
        batch_sizes=(32,),
        epochs=(1,),
        num_seeds=3,
        base=TrainConfig(data="rotten-tomatoes", train_rows=2048, storage_path="runs/demo"),
    )


def demo_grid() -> SweepConfig:
    """Run 24 short trials on a subset of the packaged movie reviews: a quarter of an hour on two cores."""
    return SweepConfig(
        models=("sbert-minilm", "modernbert-mini"),
        learning_rates=(4e-5, 8e-5, 1.6e-4),
        batch_sizes=(32, 64),
        epochs=(2,),
        num_seeds=2,
        base=TrainConfig(data="rotten-tomatoes", train_rows=2048, storage_path="runs/demo-grid"),
    )


SWEEP_PRESETS: dict[str, Callable[[], SweepConfig]] = {
    "demo": demo_sweep,
    "demo-grid": demo_grid,
    "around-paper": around_paper,
    "paper-grid": paper_grid,
}


def sweep_preset(name: str, *, data: str | None = None) -> SweepConfig:
    """Return the named config, as `train_preset` does. Raises InputError for an unknown name."""
    if name not in SWEEP_PRESETS:
        raise InputError(f"--preset {name}: no such preset; {did_you_mean(name, SWEEP_PRESETS)}")
    if data is not None and name == "paper-grid":
        return paper_grid(data)
    return SWEEP_PRESETS[name]()
