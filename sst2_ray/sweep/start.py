"""From a sweep's config to its first trial: everything that can be refused is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.errors import InputError
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.environment import prepare_driver, start_ray, starts_ray_here
from sst2_ray.run.lease import Lease
from sst2_ray.run.planning.placement import this_machine, view_of
from sst2_ray.run.prepare import Checked, check_same_data
from sst2_ray.storage import Storage, address
from sst2_ray.sweep import trackers
from sst2_ray.sweep.concurrency import admit, holders
from sst2_ray.sweep.data import check_sweep, footprint, prepare_sweep
from sst2_ray.sweep.plan import describe_sweep
from sst2_ray.sweep.result import SweepResult
from sst2_ray.sweep.session import CONFIG_FILE, SweepRun
from sst2_ray.terminal import console, show_plan


def sweep(config: SweepConfig, *, quiet: bool = False) -> SweepResult:
    """Run what `config` says, and go on where an interrupted sweep of the same name stopped.

    Blocks until it has ended. A failing trial is a row, not an error: see `SweepResult.exit_code`. Raises InputError
    before anything is started or written, InfeasibleError where not one trial can ever be placed.
    """
    prepare_driver()
    out = console()
    out.quiet = quiet
    storage = Storage.open(config.base.storage_path)
    lease = Lease(storage.with_retries(config.base.storage_timeout_s), config.name)
    lease.check()
    check_extras(config, storage.child(config.name))
    checked = check_sweep(config)
    check_existing(storage.child(config.name), config, checked)
    if starts_ray_here():  # what this machine can never hold is refused before Ray starts on it
        admit(config.base, this_machine(), max_concurrent=config.max_concurrent)
    storage.probe()
    with ThreadPoolExecutor(1) as pool:  # the sentences are tokenized while Ray starts
        preparing = pool.submit(prepare_sweep, checked)
        ray = start_ray()
        prepared = preparing.result()
    table = ResultsTable(config.base.storage_path, retry_for_s=config.base.storage_timeout_s)
    memory = max(
        footprint(one, table, num_workers=config.base.num_workers or 1).memory_gib for one in prepared.values()
    )
    view = view_of(ray)
    placement, at_once = admit(config.base, view, max_concurrent=config.max_concurrent, worker_memory_gib=memory)
    others = holders(ray) if at_once.now < at_once.chosen else []
    show_plan(out, describe_sweep(config, prepared, table, placement, at_once, others))
    for note in dict.fromkeys(note for one in prepared.values() for note in one.notes()):
        out.print(f"note: {note}", soft_wrap=True, markup=False)
    with lease:
        return SweepRun(config, prepared, ray, placement, at_once, table, out, lease).run()


def check_extras(config: SweepConfig, folder: Storage) -> None:
    """Raises InputError where an optional package is needed and missing."""
    if config.search == "optuna":
        from sst2_ray.sweep.optuna import check_installed

        check_installed()
    trackers.check_trackers(config.trackers, folder)


def check_existing(folder: Storage, config: SweepConfig, checked: Mapping[str, Checked]) -> None:
    """Raises InputError where the name belongs to another sweep, to one on other data, or to a single run."""
    if not folder.exists(CONFIG_FILE):
        return
    there = folder.read_json(CONFIG_FILE)
    if "sweep" not in there:
        raise InputError(f"--name {config.name}: {folder.root} holds a single run; choose another name")
    if there.get("config_hash") != config.trials_hash:
        raise InputError(
            f"--name {config.name}: {folder.root} holds a sweep of other trials; choose another name, or go on with it: "
            f"--resume {address(config.base.storage_path, config.name)}"
        )
    check_same_data(config.name, folder, there, next(iter(checked.values())))  # the same for every model
