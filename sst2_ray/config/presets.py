"""Named experiments: functions that return a config, which config files and flags then change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError, did_you_mean


def demo() -> TrainConfig:
    """Train SBERT for one epoch on the packaged movie reviews: minutes on a laptop, no model hub needed."""
    return TrainConfig(model="sbert-minilm", data="rotten-tomatoes", epochs=1, batch_size=32, storage_path="runs/demo")


def demo_modernbert() -> TrainConfig:
    """Train a small ModernBERT from random weights on the same reviews: it shows the procedure, not what the model can do."""
    return dataclasses.replace(demo(), model="modernbert-mini", learning_rate=1e-3, epochs=2)


def paper() -> TrainConfig:
    """Fine-tune ModernBERT-base on SST-2 as Warner et al. 2024 did (arXiv 2412.13663, Table 6 and appendix E.1)."""
    return TrainConfig(
        model="modernbert-base",
        data="glue",
        learning_rate=8e-5,
        weight_decay=1e-5,
        weight_decay_form="fully_decoupled",
        epochs=2,
        batch_size=64,
    )


def paper_large() -> TrainConfig:
    """Fine-tune ModernBERT-large on SST-2, from the same table."""
    return TrainConfig(
        model="modernbert-large",
        data="glue",
        learning_rate=1e-5,
        weight_decay=1e-6,
        weight_decay_form="fully_decoupled",
        epochs=3,
        batch_size=64,
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


TRAIN_PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "demo": demo,
    "demo-modernbert": demo_modernbert,
    "paper": paper,
    "paper-large": paper_large,
    "notebook": notebook,
    "notebook-text": notebook_text,
    "notebook-sbert": notebook_sbert,
}


def train_preset(name: str) -> TrainConfig:
    """Return the named config. Raises InputError for an unknown name."""
    if name not in TRAIN_PRESETS:
        raise InputError(f"--preset {name}: no such preset; {did_you_mean(name, TRAIN_PRESETS)}")
    return TRAIN_PRESETS[name]()


def paper_grid() -> SweepConfig:
    """Run the ModernBERT paper's whole grid for SST-2 (appendix E.1) under three seeds: 48 configurations, up to 8e-5."""
    return SweepConfig(
        models=("modernbert-base",),
        learning_rates=(1e-5, 3e-5, 5e-5, 8e-5),
        weight_decays=(1e-6, 5e-6, 8e-6, 1e-5),
        epochs=(1, 2, 3),
        batch_sizes=(64,),
        num_seeds=3,
        base=paper(),
    )


def around_paper() -> SweepConfig:
    """Search on both sides of the paper's learning rate (8e-5) and batch size (64), for ModernBERT and SBERT."""
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


def sweep_preset(name: str) -> SweepConfig:
    """Return the named config. Raises InputError for an unknown name."""
    if name not in SWEEP_PRESETS:
        raise InputError(f"--preset {name}: no such preset; {did_you_mean(name, SWEEP_PRESETS)}")
    return SWEEP_PRESETS[name]()
