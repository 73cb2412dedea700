"""The named experiments: `sst2-ray presets`, and `presets` in Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sst2_ray.config.flags import parse
from sst2_ray.config.presets import SWEEP_PRESETS, TRAIN_PRESETS
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import did_you_mean
from sst2_ray.tables import Column, html_table, print_table
from sst2_ray.terminal import console

Maker = Callable[[], TrainConfig | SweepConfig]


@dataclass(frozen=True, repr=False)
class Presets:
    """The named experiments: `presets()["paper"]` is a config to train or sweep with."""

    configs: Mapping[str, TrainConfig | SweepConfig]
    summaries: Mapping[str, str]

    def __getitem__(self, name: str) -> TrainConfig | SweepConfig:
        if name not in self.configs:
            raise KeyError(f"no preset {name!r}; {did_you_mean(name, self.configs)}")
        return self.configs[name]

    def __repr__(self) -> str:
        width = max(map(len, self.summaries))
        return "\n".join(f"{name:<{width}}  {summary}" for name, summary in self.summaries.items())

    def _repr_html_(self) -> str:
        columns = [Column(title="preset", align="left"), Column(title="experiment", align="left")]
        return html_table(columns, [[name, summary] for name, summary in self.summaries.items()])


def presets() -> Presets:
    """Return the named experiments that `--preset` takes; those of sweeps begin with `sweep:`."""
    makers: dict[str, Maker] = {**TRAIN_PRESETS}
    makers.update({f"sweep:{name}": make for name, make in SWEEP_PRESETS.items()})
    return Presets(
        configs={name: make() for name, make in makers.items()},
        summaries={name: " ".join((make.__doc__ or "").split("\n")[0].split()) for name, make in makers.items()},
    )


@dataclass(frozen=True, kw_only=True)
class PresetsConfig:
    """List the named experiments, each with the command that runs it; --dry-run behind it shows its plan."""

    json: bool = False
    """Print JSON, with all settings of each."""


def main_presets(argv: list[str]) -> int:
    """Run `sst2-ray presets`."""
    config = parse(PresetsConfig, argv, prog="sst2-ray presets")
    found = presets()
    rows = [[_command(name), summary] for name, summary in found.summaries.items()]
    if config.json:
        settings = [one.to_dict() for one in found.configs.values()]
        keys = ("command", "experiment", "config")
        print(
            json.dumps(
                [dict(zip(keys, (*row, own), strict=True)) for row, own in zip(rows, settings, strict=True)], indent=1
            )
        )
    else:
        columns = (Column(title="command", align="left"), Column(title="experiment", align="left", min_width=24))
        print_table(console(), columns, rows)
    return 0


def _command(name: str) -> str:
    kind, _, preset = name.rpartition(":")
    return f"sst2-ray {kind or 'train'} --preset {preset}"
