"""The start of a sweep, from its config to its first trial: everything that can be refused is refused here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import partial

from sst2_ray.config.fields import check_is, describe_changes
from sst2_ray.config.python_calls import told_in_python
from sst2_ray.config.sweep import SweepConfig
from sst2_ray.data.kept import keeping_nothing
from sst2_ray.data.kept_splits import splits_of
from sst2_ray.data.leaks import check_known_leak
from sst2_ray.errors import InputError
from sst2_ray.formatting import without_secret
from sst2_ray.own_files import CONFIG_FILE, read_own
from sst2_ray.run.connect import importing_ahead
from sst2_ray.run.planning.placement import ClusterView, Placement
from sst2_ray.run.prepare import RunInputs, Tokenized, check_batch, check_same_data, check_unused, resolve_for
from sst2_ray.run.ray.state import other_jobs
from sst2_ray.run.session import RunSession
from sst2_ray.run.tokenizing import Caller, here, tokenize
from sst2_ray.run.tracking.trackers import check_trackers
from sst2_ray.storage import Storage, address
from sst2_ray.sweep.budget import read_num_trials
from sst2_ray.sweep.concurrency import Concurrency, admit, footprint
from sst2_ray.sweep.plan import Left, describe_sweep, trials_left, trials_table
from sst2_ray.sweep.result import SweepResult
from sst2_ray.sweep.resume import past_trials
from sst2_ray.sweep.session import SweepRun


@told_in_python
def sweep(config: SweepConfig, *, quiet: bool = False) -> SweepResult:
    """Run the sweep that `config` describes, and go on where an interrupted sweep of the same name stopped.

    Blocks until it has ended. A failing trial is a row, not an error: see `SweepResult.exit_code`. Raises InputError
    before anything is started or written, InfeasibleError where not one trial can ever be placed.
    """
    check_is(config, SweepConfig)
    with importing_ahead(), RunSession(config.base, config.name, quiet=quiet) as session:
        session.check_free()
        checked = _checked(session, config)
        cluster, made = session.start(
            lambda view: admit(config.base, view, max_concurrent=config.max_concurrent),
            partial(tokenize_sweep, checked),
        )
        prepared = _with_tokens(checked, made)
        plan = _plan(session, config, prepared, cluster, is_connected=True)
        if plan.left.has_begun:
            session.note(plan.left.words())
        session.show_plan(plan.rows, plan.notes)
        with session.running():
            return SweepRun(session, config, prepared, plan.placement, plan.at_once).run()


def dry_run(config: SweepConfig, *, as_json: bool = False) -> None:
    """Print what differs from the defaults, the trials and the plan; start and write nothing.

    `as_json`: print config, plan and notes as one JSON object, and nothing else.
    """
    with keeping_nothing(), RunSession(config.base, config.name, quiet=as_json) as session:
        prepared = prepare_sweep(_checked(session, config))
        cluster, is_connected = session.cluster_without_starting()
        plan = _plan(session, config, prepared, cluster, is_connected=is_connected)
        if plan.left.has_begun:
            session.note(plan.left.words())
        session.out.print(trials_table(config))
        session.show_plan([("settings", describe_changes(config, config.base)), *plan.rows], plan.notes)
        session.note("dry run: nothing was started, nothing was written")
    if as_json:
        print(json.dumps({**config.to_public_dict(), "plan": dict(plan.rows), "notes": plan.notes}, indent=1))


def _checked(session: RunSession, config: SweepConfig) -> dict[str, RunInputs]:
    """Find and check what the sweep needs, by model. Raises InputError."""
    session.phase(f"reading {without_secret(config.base.data)}")
    folder = session.storage_at_start.child(config.name)
    check_extras(config, folder)
    checked = check_sweep(config)
    check_existing(folder, config, checked)
    return checked


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plan:
    """The plan of a sweep: where its trials run, and what is shown of it."""

    placement: Placement
    at_once: Concurrency
    left: Left
    rows: list[tuple[str, str]]
    notes: list[str]


def _plan(
    session: RunSession,
    config: SweepConfig,
    prepared: dict[str, RunInputs],
    cluster: ClusterView,
    *,
    is_connected: bool,
) -> _Plan:
    """Decide how many trials run at once. `is_connected`: to the cluster, by Ray."""
    table, base = session.workspace.table, config.base
    memory = max(footprint(one, table, num_workers=base.num_workers or 1).memory_gib for one in prepared.values())
    placement, at_once = admit(base, cluster, max_concurrent=config.max_concurrent, worker_memory_gib=memory)
    others = other_jobs() if is_connected and at_once.now < at_once.chosen else []
    folder = session.storage_at_start.child(config.name)
    past = past_trials(table, config.name) if folder.exists(CONFIG_FILE) else {}
    left = trials_left(config, {name: trial.outcome for name, trial in past.items()}, read_num_trials(folder))
    return _Plan(
        placement=placement,
        at_once=at_once,
        left=left,
        rows=list(describe_sweep(config, prepared, table, placement, at_once, left, others)),
        notes=list(dict.fromkeys(note for one in prepared.values() for note in one.notes())),
    )


def check_extras(config: SweepConfig, folder: Storage) -> None:
    """Raise InputError where an optional package is needed and missing."""
    if config.search == "optuna":
        from sst2_ray.sweep.optuna import check_installed

        check_installed()
    check_trackers(config.base.trackers, folder)


def check_existing(folder: Storage, config: SweepConfig, checked: Mapping[str, RunInputs]) -> None:
    """Raise InputError where the name belongs to another sweep, to one on other data, to a single run, or to results alone."""
    there = read_own(folder, CONFIG_FILE, of=f"--name {config.name}")
    if there is None:
        check_unused(config.base, config.name)
        return
    if "sweep" not in there:
        raise InputError(f"--name {config.name}: {folder.root} holds a single run; choose another name")
    if there.get("config_hash") != config.trials_hash:
        raise InputError(
            f"--name {config.name}: {folder.root} holds a sweep of other trials; choose another name, or go on with it: "
            f"--resume {address(config.base.storage_path, config.name)}"
        )
    check_same_data(config.name, folder, there, next(iter(checked.values())))  # the same for every model


def check_sweep(config: SweepConfig) -> dict[str, RunInputs]:
    """Find and check the data and the weights of each model. Writes nothing; raises InputError with one line."""
    base = dataclasses.replace(
        config.base,
        model=config.models[0],
        batch_size=max(config.batch_sizes),
        selection_fraction=config.held_out_fraction,
    )
    splits = splits_of(base)
    for batch_size in config.batch_sizes:
        check_batch(dataclasses.replace(base, batch_size=batch_size), len(splits.train))
    checked = {}
    for model in config.models:
        of_model = dataclasses.replace(base, model=model)
        resolved = resolve_for(of_model, splits)
        leak = check_known_leak(resolved.info.trained_on, splits.corpus, allow=base.allow_leak)
        checked[model] = RunInputs(config=of_model, splits=splits, resolved=resolved, allowed_leak=leak)
    return checked


def prepare_sweep(checked: dict[str, RunInputs]) -> dict[str, RunInputs]:
    """Tokenize for each model."""
    return _with_tokens(checked, tokenize_sweep(checked))


def _with_tokens(checked: dict[str, RunInputs], made: dict[str, Tokenized]) -> dict[str, RunInputs]:
    return {model: one.with_tokens(made[model]) for model, one in checked.items()}


def tokenize_sweep(checked: dict[str, RunInputs], call: Caller = here) -> dict[str, Tokenized]:
    """Make the tokens of each model; models with the same tokenizer share the token arrays. `call`: see `tokenize`."""
    of_models: dict[str, Tokenized] = {}
    made: dict[tuple[str, int], Tokenized] = {}
    for model, one in checked.items():
        tokenized = tokenize(one, call)
        first = made.setdefault((tokenized.tokenizer_json, one.resolved.max_length), tokenized)
        of_models[model] = dataclasses.replace(tokenized, tokens=first.tokens, folder=first.folder)
    return of_models
