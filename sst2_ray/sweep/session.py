"""A sweep from its first trial to its verdict."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from typing import Any

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.errors import FailureClass, StoppedError
from sst2_ray.records import Status
from sst2_ray.run.environment import DRIVER_ENV, PASSED_ON, WORKER_ENV
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import Prepared
from sst2_ray.run.progress_actor import start_board
from sst2_ray.run.session import RunSession
from sst2_ray.run.stop import STOP_FILE, StopLevel
from sst2_ray.sweep import closing, trackers
from sst2_ray.sweep.budget import SweepClock, budget_of, makespan
from sst2_ray.sweep.concurrency import Concurrency
from sst2_ray.sweep.configurations import Point
from sst2_ray.sweep.data import share
from sst2_ray.sweep.display import SweepDisplay, SweepProgress
from sst2_ray.sweep.plan import history
from sst2_ray.sweep.queue import Planner, Proposer
from sst2_ray.sweep.result import SweepResult, closing_rows, result_of
from sst2_ray.sweep.resume import past_results, past_trials
from sst2_ray.sweep.score import score_chosen
from sst2_ray.terminal import show_plan

CONFIG_FILE = "config.json"
POINTS_FILE = "points.json"
"""What a search that learns has drawn so far, in order: a resumed one begins with the same."""

LOOP_S = 0.25


class SweepRun:
    """The state of one session of a sweep."""

    def __init__(
        self,
        session: RunSession,
        config: SweepConfig,
        prepared: dict[str, Prepared],
        ray: Any,
        placement: Placement,
        at_once: Concurrency,
    ) -> None:
        self.run_session = session
        self.config, self.ray, self.placement, self.at_once = config, ray, placement, at_once
        self.table, self.out, self.folder = session.workspace.table, session.out, session.folder
        table = self.table
        first = next(iter(prepared.values()))
        described = {"config_hash": config.trials_hash, "data_fingerprint": first.checked.splits.fingerprint}
        self.folder.write_json(CONFIG_FILE, {**config.to_dict(), **described})
        self.shared = share(prepared, ray)
        self.past = past_trials(table, config.name)
        self.durations = history(table, len(first.tokens["train"]), use_gpu=placement.use_gpu)
        for trial in self.past.values():
            if trial.outcome.status == Status.SUCCEEDED and trial.attempt == 0 and trial.seconds:
                self.durations.add(trial.config, trial.seconds)
        self.known_points: list[Point] = self.folder.read_json(POINTS_FILE) if self.folder.exists(POINTS_FILE) else []
        self.planner = Planner(config, {k: t.outcome for k, t in self.past.items()}, self._proposer())
        budget = budget_of(config, num_nodes=at_once.num_nodes)
        self.clock = SweepClock(self.folder, usd_per_hour=budget.usd_per_hour)
        self.budget = dataclasses.replace(budget, earlier_s=self.clock.earlier_s, earlier_usd=self.clock.earlier_usd)
        self.board = start_board()

    def _proposer(self) -> Proposer | None:
        if self.config.search != "optuna":
            return None
        from sst2_ray.sweep.optuna import OptunaProposer

        return OptunaProposer(self.config, self.known_points)

    # ---- the trials

    def run(self) -> SweepResult:
        from sst2_ray.sweep.search import SweepSearcher

        searcher = SweepSearcher(
            self.planner,
            budget=self.budget,
            clock=self.clock,
            durations=self.durations,
            begun=self.past,
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

        from sst2_ray.sweep.driver import Session, run_trial
        from sst2_ray.sweep.schedulers import FirstSeedScheduler

        passed_on = {*DRIVER_ENV, *WORKER_ENV, *PASSED_ON}
        session = Session(
            experiment=self.config.name,
            workspace=self.run_session.workspace,
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
            lambda trial_id: self.ray.get(board.ask_to_stop.remote(trial_id, Status.EARLY_STOPPED)),
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
                storage_filesystem=None if self.folder.is_local else self.folder.filesystem,
                callbacks=trackers.callbacks(self.config.trackers, self.folder, self.config.name),
                # Of drivers that die with their node; what fails inside a trial is dealt with there.
                failure_config=tune.FailureConfig(max_failures=self.config.base.max_retries),
                verbose=0,
            ),
        )

    def _watch(self, thread: threading.Thread, searcher: Any, display: SweepDisplay) -> None:
        """Show progress, keep time and look for requests to stop until Tune has ended.

        A signal has the trials write a checkpoint and leave; a second one returns at once.
        """
        seen = 0
        with self.run_session.signals.graceful():
            thread.start()
            while thread.is_alive():
                thread.join(LOOP_S)
                if taken_by := self.run_session.lease.taken_by:
                    raise StoppedError(f"{self.config.name}: stopped, since {taken_by} runs it now")
                level = self.run_session.stop.level()
                if level is not StopLevel.NONE:
                    self._stop_trials(searcher)
                if level is StopLevel.AT_ONCE:
                    return
                try:
                    overview, said = self.ray.get(self.board.overview.remote(seen), timeout=30)
                except self.ray.exceptions.GetTimeoutError:
                    continue
                seen += len(said)
                for line in said:
                    display.line(line)
                display.update(self._status(overview, searcher), lambda s: self._trial_cost(s))
                with contextlib.suppress(OSError):  # storage is away: trials that need it end, the sweep does not
                    self.clock.tick()

    def _stop_trials(self, searcher: Any) -> None:
        """Start no more trials and ask those that run to leave; again where storage could not be written."""
        searcher.stop()
        with contextlib.suppress(OSError):
            folder = self.run_session.storage_at_start.child(self.config.name)
            if not folder.exists(STOP_FILE):
                folder.write_json(STOP_FILE, {"by": "signal"})

    def _status(self, overview: dict[str, Any], searcher: Any) -> SweepProgress:
        planner, running = self.planner, searcher.running_left()
        waiting = planner.waiting
        # Those that are not planned yet (suggestions to come, other seeds of what survives) take what the others do.
        num_others = planner.num_expected - len(planner.outcomes) - len(planner.running) - len(waiting)
        expected = [self.durations.predict(unit.config) for unit in [*waiting, *planner.units]]
        known = [seconds for seconds in expected if seconds is not None]
        left = None
        if known and len(known) == len(expected):
            others = [sum(known) / len(known)] * max(0, num_others)
            left = makespan([*running, *known[: len(waiting)], *others], self.at_once.chosen)
        used = self.clock.seconds
        return SweepProgress(
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
            points = self.planner.points
            self.folder.write_json(POINTS_FILE, [*points, *self.known_points[len(points) :]])

    def _close_orphans(self) -> None:
        """Close the rows of trials whose driver died, and did again, or that a second signal ended where they were."""
        from sst2_ray.sweep.driver import trial_of

        stopped = self.run_session.stop.level() is StopLevel.AT_ONCE
        for unit in [*self.planner.running.values(), *self.planner.units]:
            outcome = self.planner.outcomes.get(unit.trial_id)
            if unit.trial_id in self.planner.running or (outcome and outcome.failure_class == FailureClass.WORKER_LOST):
                attempts = trial_of(self.session, unit.config, unit.trial_id).attempts
                if stopped:
                    attempts.close_orphans("stopped at once", FailureClass.USER_STOP, Status.STOPPED)
                else:
                    attempts.close_orphans()

    # ---- the end

    def _is_over(self) -> bool:
        """Whether nothing of it would run again when it is resumed: then the ranking is final, and models may go."""
        return all(outcome.is_over for outcome in self.planner.outcomes.values())

    def _close(self, ended_by: str | None) -> SweepResult:
        now = closing.standing(self.table, self.config.name)
        if ended_by != "stop" and score_chosen(
            self.ray, now.ranking, self.table, self.folder, shared=self.shared, placement=self.placement
        ):
            now = closing.standing(self.table, self.config.name)
        if ended_by is None and self._is_over():
            closing.keep_best_models(self.table, self.folder, now, keep=self.config.keep_models)
            if self.config.keep_models == 0:  # the best has no model any more
                now = closing.standing(self.table, self.config.name)
            if not self.config.trackers:
                self.folder.delete("tune")  # Tune's own bookkeeping: nothing reads it
        result = result_of(
            now,
            config=self.config,
            ended_by=ended_by,
            seconds=self.clock.seconds,
            cost_usd=self.budget.cost(self.clock.seconds),
        )
        self.folder.write_json("result.json", dataclasses.asdict(result))
        self.out.print("")
        closing.show(self.out, now)
        show_plan(self.out, closing_rows(result, self.config, self.folder))
        return result
