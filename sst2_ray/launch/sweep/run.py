"""A sweep from its first trial to its verdict."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from sst2_ray.errors import InputError
from sst2_ray.launch.admission import Placement, this_machine, view_of
from sst2_ray.launch.board import start_board
from sst2_ray.launch.concurrency import Concurrency, admit, holders
from sst2_ray.launch.display import console, show_plan
from sst2_ray.launch.environment import (
    DRIVER_ENV,
    PASSED_ON,
    WORKER_ENV,
    prepare_driver,
    start_ray,
    starts_ray_here,
)
from sst2_ray.launch.prepare import Prepared
from sst2_ray.launch.sweep import closing, trackers
from sst2_ray.launch.sweep.budget import Budget, SweepClock, makespan
from sst2_ray.launch.sweep.data import check_sweep, footprint, prepare_sweep, share
from sst2_ray.launch.sweep.display import Status, SweepDisplay
from sst2_ray.launch.sweep.past import past_results, past_trials
from sst2_ray.launch.sweep.plan import describe_sweep, history
from sst2_ray.launch.sweep.planner import Planner, Proposer
from sst2_ray.launch.sweep.score import score_chosen
from sst2_ray.launch.watch import STOP_FILE, STOP_POLL_S
from sst2_ray.results.table import ResultsTable
from sst2_ray.storage import Storage, absolute
from sst2_ray.sweep_config import SweepConfig

CONFIG_FILE = "config.json"
POINTS_FILE = "points.json"
"""What a search that learns has drawn so far, in order: a resumed one begins with the same."""

LOOP_S = 0.25


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep came to."""

    name: str
    exit_code: int
    """0; 3: nothing could be placed; 4: a trial failed (the others are ranked); 5: stopped, or its budget reached."""
    ended_by: str | None
    """budget, stop or infeasible; None: it came to its end."""
    counts: dict[str, int]
    """Trials by status."""
    failures: dict[str, int]
    """Failed trials by class."""
    best: str | None
    """The best configuration, in words."""
    best_trial: str | None
    """Its best run."""
    mean: float | None
    """What the best is ranked by: its mean over seeds, see `metric`."""
    metric: str | None
    verdict: str | None
    """win, tie or unknown: the best against the runner-up; None: there is no runner-up."""
    model_dir: str | None
    sweep_dir: str
    results_dir: str
    seconds: float
    """Wall-clock over all sessions."""
    cost_usd: float | None


def sweep(config: SweepConfig, *, quiet: bool = False) -> SweepResult:
    """Run what `config` says, and go on where an interrupted sweep of the same name stopped.

    Blocks until it has ended. A failing trial is a row, not an error: see `SweepResult.exit_code`. Raises InputError
    before anything is started or written, InfeasibleError where not one trial can ever be placed.
    """
    prepare_driver()
    out = console()
    out.quiet = quiet
    storage = Storage.open(config.base.storage_path)
    check_extras(config, storage.child(config.name))
    checked = check_sweep(config)
    check_existing(storage.child(config.name), config)
    if starts_ray_here():  # what this machine can never hold is refused before Ray starts on it
        admit(config.base, this_machine(), max_concurrent=config.max_concurrent)
    storage.probe()
    with ThreadPoolExecutor(1) as pool:  # the sentences are tokenized while Ray starts
        preparing = pool.submit(prepare_sweep, checked)
        ray = start_ray()
        prepared = preparing.result()
    table = ResultsTable(config.base.storage_path)
    memory = max(
        footprint(one, table, num_workers=config.base.num_workers or 1).memory_gib for one in prepared.values()
    )
    view = view_of(ray)
    placement, at_once = admit(config.base, view, max_concurrent=config.max_concurrent, worker_memory_gib=memory)
    others = holders(ray) if at_once.now < at_once.chosen else []
    show_plan(out, describe_sweep(config, prepared, table, placement, at_once, others))
    for note in dict.fromkeys(note for one in prepared.values() for note in one.notes()):
        out.print(f"note: {note}", soft_wrap=True, markup=False)
    return _Run(config, prepared, ray, placement, at_once, table, out).run()


def check_extras(config: SweepConfig, folder: Storage) -> None:
    """Raises InputError where an optional package is needed and missing."""
    if config.search == "optuna":
        from sst2_ray.launch.sweep.optuna_search import check_installed

        check_installed()
    trackers.check_trackers(config.trackers, folder)


def check_existing(folder: Storage, config: SweepConfig) -> None:
    """Raises InputError where the name belongs to another sweep, or to a single run."""
    if not folder.exists(CONFIG_FILE):
        return
    there = folder.read_json(CONFIG_FILE)
    if "sweep" not in there:
        raise InputError(f"--name {config.name}: {folder.root} holds a single run; choose another name")
    if there.get("config_hash") != config.trials_hash:
        raise InputError(
            f"--name {config.name}: {folder.root} holds a sweep of other trials; choose another name, or go on with it: "
            f"--resume {folder.root}"
        )


class _Run:
    """The state of one session of a sweep."""

    def __init__(
        self,
        config: SweepConfig,
        prepared: dict[str, Prepared],
        ray: Any,
        placement: Placement,
        at_once: Concurrency,
        table: ResultsTable,
        out: Console,
    ) -> None:
        self.config, self.ray, self.placement, self.at_once = config, ray, placement, at_once
        self.table, self.out = table, out
        self.storage = Storage.open(config.base.storage_path)
        self.folder = self.storage.child(config.name)
        self.folder.write_json(CONFIG_FILE, {**config.to_dict(), "config_hash": config.trials_hash})
        self.folder.delete(STOP_FILE)  # of an earlier session
        self.shared = share(prepared, ray)
        self.past = past_trials(table, config.name)
        num_train_rows = len(next(iter(prepared.values())).tokens["train"])
        self.durations = history(table, num_train_rows, use_gpu=placement.use_gpu)
        for trial in self.past.values():
            if trial.outcome.status == "succeeded" and trial.attempt == 0 and trial.seconds:
                self.durations.add(trial.config, trial.seconds)
        self.planner = Planner(config, {k: t.outcome for k, t in self.past.items()}, self._proposer())
        self.clock = SweepClock(self.folder)
        self.budget = Budget(
            hours=config.budget_hours,
            usd=config.budget_usd,
            price_per_hour=config.base.price_per_hour,
            num_nodes=at_once.num_nodes,
        )
        self.board = start_board()

    def _proposer(self) -> Proposer | None:
        if self.config.search != "optuna":
            return None
        from sst2_ray.launch.sweep.optuna_search import OptunaProposer

        known = self.folder.read_json(POINTS_FILE) if self.folder.exists(POINTS_FILE) else []
        return OptunaProposer(self.config, known)

    # ---- the trials

    def run(self) -> SweepResult:
        from sst2_ray.launch.sweep.search import SweepSearcher

        searcher = SweepSearcher(
            self.planner,
            budget=self.budget,
            clock=self.clock,
            durations=self.durations,
            on_change=self._remember_points,
        )
        self.clock.tick(force=True)
        tuner = self._tuner(searcher)
        errors: list[BaseException] = []

        def fit() -> None:
            try:
                tuner.fit()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=fit, name="tune", daemon=True)
        with SweepDisplay(self.out, self.config.name, self.planner) as display:
            self._watch(thread, searcher, display)
        self.clock.tick(force=True)
        if errors:
            raise errors[0]
        self._close_orphans()
        return self._close(searcher.ended_by)

    def _tuner(self, searcher: Any) -> Any:
        from ray import tune

        from sst2_ray.launch.sweep.driver import Session, run_trial
        from sst2_ray.launch.sweep.schedulers import FirstSeedScheduler

        passed_on = {*DRIVER_ENV, *WORKER_ENV, *PASSED_ON}
        session = Session(
            experiment=self.config.name,
            storage_uri=absolute(self.config.base.storage_path),
            base=self.config.base,
            shared=self.shared,
            placement=self.placement,
            cost_share=self.at_once.cost_share,
            board=self.board,
            asks_scheduler=self.config.scheduler != "none",
            environment={name: os.environ[name] for name in passed_on if name in os.environ},
        )
        self.session = session
        board = self.board
        scheduler = FirstSeedScheduler(
            self.config,
            lambda trial_id: self.ray.get(board.ask_to_stop.remote(trial_id, "early_stopped")),
            past_results(self.table, self.config, self.past),
        )
        return tune.Tuner(
            # A driver holds no core: it could keep one from its own workers. One byte is the least that Ray takes.
            tune.with_resources(tune.with_parameters(run_trial, session=session), {"memory": 1}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=self.at_once.chosen,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["trial_id"],
                trial_dirname_creator=lambda trial: trial.config["trial_id"],
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=self.folder.root,
                storage_filesystem=None if self.storage.is_local else self.storage.filesystem,
                callbacks=trackers.callbacks(self.config.trackers, self.folder, self.config.name),
                # Of drivers that die with their node; what fails inside a trial is dealt with there.
                failure_config=tune.FailureConfig(max_failures=self.config.base.max_retries),
                verbose=0,
            ),
        )

    def _watch(self, thread: threading.Thread, searcher: Any, display: SweepDisplay) -> None:
        """Until Tune has ended: show, keep time, look for a stop. Ctrl-C stops the trials where they are."""
        seen, looked = 0, 0.0
        interrupted = 0
        with _sigterm_as_interrupt():
            thread.start()
            while thread.is_alive() and interrupted < 2:
                try:
                    thread.join(LOOP_S)
                    overview, said = self.ray.get(self.board.overview.remote(seen), timeout=30)
                    seen += len(said)
                    for line in said:
                        display.line(line)
                    display.update(self._status(overview, searcher), lambda s: self._trial_cost(s))
                    self.clock.tick()
                    if time.monotonic() - looked > STOP_POLL_S:
                        looked = time.monotonic()
                        if self.folder.exists(STOP_FILE):
                            searcher.stop()
                except self.ray.exceptions.GetTimeoutError:
                    continue
                except KeyboardInterrupt:
                    interrupted += 1
                    searcher.stop()
                    display.line("stopping: trials end where they are and can go on later (Ctrl-C again: at once)")
                    self.folder.write_json(STOP_FILE, {"by": "interrupt"})

    def _status(self, overview: dict[str, Any], searcher: Any) -> Status:
        running = searcher.running_left()
        waiting = [self.durations.predict(unit.config) for unit in self.planner.waiting]
        known = [seconds for seconds in waiting if seconds is not None]
        left = None
        if len(known) == len(waiting) and (running or not self.planner.running):
            left = makespan([*running, *known], self.at_once.chosen)
        used = self.clock.seconds
        return Status(
            overview=overview,
            elapsed={trial_id: searcher.elapsed(trial_id) for trial_id in list(self.planner.running)},
            used_s=used,
            left_s=left,
            cost_usd=self.budget.cost(used),
            predicted_usd=self.budget.cost(used + left) if left is not None else None,
            budget_usd=self.config.budget_usd,
        )

    def _trial_cost(self, seconds: float) -> float | None:
        price = self.config.base.price_per_hour
        return None if price is None else seconds / 3600 * price * self.at_once.cost_share

    def _remember_points(self) -> None:
        if self.planner.proposer is not None:
            self.folder.write_json(POINTS_FILE, self.planner.points)

    def _close_orphans(self) -> None:
        """Trials whose driver died, and did again: their rows say so."""
        from sst2_ray.launch.sweep.driver import trial_of

        for unit in [*self.planner.running.values(), *self.planner.units]:
            outcome = self.planner.outcomes.get(unit.trial_id)
            if unit.trial_id in self.planner.running or (outcome and outcome.failure_class == "worker_lost"):
                trial_of(self.session, unit.config, unit.trial_id).close_orphans()

    # ---- the end

    def _close(self, ended_by: str | None) -> SweepResult:
        now = closing.standing(self.table, self.config.name)
        if ended_by != "stop" and score_chosen(
            self.ray, now.ranking, self.table, self.folder, shared=self.shared, placement=self.placement
        ):
            now = closing.standing(self.table, self.config.name)
        if ended_by is None:
            closing.keep_best_models(self.table, self.folder, now, keep=self.config.keep_models)
            if not self.config.trackers:
                self.folder.delete("tune")  # Tune's own bookkeeping: nothing reads it
        result = self._result(now, ended_by)
        self.folder.write_json("result.json", dataclasses.asdict(result))
        self.out.print("")
        closing.show(self.out, now)
        show_plan(self.out, self._closing_rows(result))
        return result

    def _result(self, now: closing.Standing, ended_by: str | None) -> SweepResult:
        ranking, best = now.ranking, now.best
        run = closing.best_run(ranking, best) if ranking and best else None
        export = run.values["export_path"] if run else None
        nothing_placed = not now.counts.get("succeeded") and set(now.failures) == {"not_placeable"}
        code = 3 if nothing_placed else 5 if ended_by else 4 if now.num_failed else 0
        runner_up = now.study.runner_up if now.study else None
        return SweepResult(
            name=self.config.name,
            exit_code=code,
            ended_by=ended_by,
            counts=dict(now.counts),
            failures=dict(now.failures),
            best=best.label if best else None,
            best_trial=run.trial_id if run else None,
            mean=ranking.score(best) if ranking and best else None,
            metric=ranking.metric if ranking else None,
            verdict=runner_up.verdict if runner_up else None,
            model_dir=export,
            sweep_dir=self.folder.root,
            results_dir=self.table.storage.root,
            seconds=self.clock.seconds,
            cost_usd=self.budget.cost(self.clock.seconds),
        )

    def _closing_rows(self, result: SweepResult) -> list[tuple[str, str]]:
        from sst2_ray.results import text

        cost = f", {text.dollars(result.cost_usd)}" if result.cost_usd is not None else ""
        reason = {
            "budget": f"its budget: the next trial would go over ({self._budget_words()})",
            "stop": "a request to stop",
        }.get(result.ended_by or "")
        goes_on = f"sst2-ray sweep --resume {result.sweep_dir}"
        return [
            ("", ""),
            ("took", f"{text.duration(result.seconds)}{cost}"),
            *([("ended by", reason), ("goes on with", goes_on)] if reason else []),
            *([("best model", result.model_dir)] if result.model_dir else []),
            ("sweep folder", result.sweep_dir),
            ("results table", result.results_dir),
            *trackers.where(self.config.trackers, self.folder),
            ("try it", f"sst2-ray report --storage-path {self.storage.root} --experiment {result.name}"),
        ]

    def _budget_words(self) -> str:
        given = []
        if self.config.budget_usd is not None:
            given.append(f"--budget-usd {self.config.budget_usd:g}")
        if self.config.budget_hours is not None:
            given.append(f"--budget-hours {self.config.budget_hours:g}")
        return " ".join(given)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """`ray job stop` sends SIGTERM: the same as Ctrl-C. Only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
