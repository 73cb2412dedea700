"""Number of steps of a run and of its evaluations: arithmetic on the config, without torch."""

from __future__ import annotations

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.batching import steps_per_epoch


def total_steps(config: TrainConfig, num_rows: int) -> int:
    """Return the optimizer steps of the whole run."""
    steps = config.epochs * steps_per_epoch(num_rows, config.batch_size)
    return min(steps, config.max_steps) if config.max_steps else steps


def evaluation_steps(config: TrainConfig, num_rows: int) -> frozenset[int]:
    """Return the global steps after which the split is evaluated; the last step is always one."""
    per_epoch = steps_per_epoch(num_rows, config.batch_size)
    last = total_steps(config, num_rows)
    count = min(config.evaluations_per_epoch, per_epoch)
    marks = {
        e * per_epoch + round(per_epoch * part / count) for e in range(config.epochs) for part in range(1, count + 1)
    }
    return frozenset({step for step in marks if step <= last} | {last})
