"""Mistakes in the command of a job that can be told before it is submitted, without the cluster or a model hub."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Sequence
from pathlib import Path

from sst2_ray.cluster.submit.forecast import OWN_SWEEP, OWN_TRAIN, own_arguments
from sst2_ray.cluster.submit.upload import Upload
from sst2_ray.config.presets import sweep_preset
from sst2_ray.config.python_words import flag_words
from sst2_ray.config.sources import SweepCommand, read_train_command, sweep_command_line, train_command_line
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.errors import InputError, did_you_mean

_ELSEWHERE = ("--config", "--resume")
"""Flags whose files may be where the job runs only: what stands in them is not judged here."""


def check_command(command: Sequence[str], upload: Upload) -> None:
    """Raise InputError where the job's script is not in the upload, or a command of this package would refuse its flags."""
    _check_script(command, upload)
    train, sweep = (own_arguments(command, names) for names in (OWN_TRAIN, OWN_SWEEP))
    words = train if train is not None else sweep
    if words is None or any(word in ("-h", "--help", "--help-all", "--list-flags") for word in words):
        return
    judged = not any(word.partition("=")[0] in _ELSEWHERE for word in words)
    if train is not None:
        _check_train(train, judged=judged)
    else:
        _check_sweep(words, judged=judged)


def _check_script(command: Sequence[str], upload: Upload) -> None:
    if not Path(command[0]).name.startswith("python"):
        return
    # Behind an option may stand its value, as in `-W ignore`: only a word that names a script is looked for.
    script = command[1] if len(command) > 1 else ""
    if not script.endswith(".py") or script.startswith("/"):
        return
    name, names = posixpath.normpath(script), [file.path for file in upload.files]
    if name in names or name.startswith(".."):
        return
    if (upload.folder / name).is_file():
        raise InputError(f"{script}: is left out of the upload; look at .gitignore, .rayignore and --exclude")
    scripts = [path for path in names if path.endswith(".py")]
    meant = f"; {did_you_mean(name, scripts)}" if scripts else ""
    raise InputError(f"{script}: no such script in {upload.folder}, which is uploaded{meant}")


def _check_train(words: Sequence[str], *, judged: bool) -> None:
    if judged:
        read_train_command(words, prog="sst2-ray train")
    else:
        train_command_line("sst2-ray train").read(words)


def _check_sweep(words: Sequence[str], *, judged: bool) -> None:
    given, flags, settings = sweep_command_line("sst2-ray sweep").read(words)
    if not judged:
        return
    with flag_words():
        command = SweepCommand(**given)  # type: ignore[arg-type]
        data = settings.get("data")
        start = SweepConfig()
        if command.preset is not None:
            start = sweep_preset(command.preset, data=None if data is None else str(data))
        base = dataclasses.replace(start.base, **settings)  # type: ignore[arg-type]
        dataclasses.replace(start, **flags, base=base)  # type: ignore[arg-type]
