"""A session of a sweep, from its first trial to its verdict."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from typing import TYPE_CHECKING

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.errors import FailureClass, StoppedError
from sst2_ray.own_files import CONFIG_FILE
from sst2_ray.records import Status
from sst2_ray.run.environment import DRIVER_ENV, PASSED_ON, WORKER_ENV
from sst2_ray.run.messages import TrialOverview
from sst2_ray.run.planning.placement import Placement
from sst2_ray.run.prepare import RunInputs
from sst2_ray.run.progress_actor import start_progress_actor, wait_for_first_answer
from sst2_ray.run.session import RunSession
from sst2_ray.run.stop import STOP_FILE, StopLevel
from sst2_ray.run.supervisor import Shared
from sst2_ray.run.tokenizing import put_tokens
from sst2_ray.run.tracking.trackers import Trackers
from sst2_ray.storage import Storage
from sst2_ray.sweep import closing
from sst2_ray.sweep.budget import SweepClock, budget_of, makespan
from sst2_ray.sweep.concurrency import Concurrency
from sst2_ray.sweep.configurations import Configuration
from sst2_ray.sweep.dev_scores import score_chosen
from sst2_ray.sweep.display import SweepDisplay, SweepProgress
from sst2_ray.sweep.queue import Proposer, TrialQueue
from sst2_ray.sweep.result import SweepResult, closing_rows, result_of
from sst2_ray.sweep.resume import durations_of, early_stopping, past_trials
from sst2_ray.sweep.trial import SweepContext, run_trial, trial_of

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.tune import Tuner

    from sst2_ray.sweep.tune import SweepSearcher

POINTS_FILE = "points.json"
"""Configurations that a search that learns has drawn so far, in order: a resumed one begins with the same."""

LOOP_S = 0.25


class SweepRun:
    """The state of one session of a sweep. Ray runs; the sweep's folder belongs to this driver."""

    def __init__(
        self,
        session: RunSession,
        config: SweepConfig,
        prepared: dict[str, RunInputs],
        placement: Placement,
        at_once: Concurrency,
    ) -> None:
        self.session, self.config, self.placement, self.at_once = session, config, placement, at_once
        self.table, self.out, self.folder = session.workspace.table, session.out, session.folder
        first = next(iter(prepared.values()))
        described = {"config_hash": config.trials_hash, "data_fingerprint": first.splits.fingerprint}
        self.folder.write_json(CONFIG_FILE, {**config.to_public_dict(), **described})
        self.past = past_trials(self.table, config.name)
        self.durations = durations_of(self.table, len(first.tokens["train"]), self.past, use_gpu=placement.use_gpu)
        self.drawn = read_drawn(self.folder)
        self.queue = TrialQueue(config, {k: t.outcome for k, t in self.past.items()}, self._proposer())
        budget = budget_of(config, num_nodes=at_once.num_nodes)
        self.clock = SweepClock(self.folder, budget.usd_per_hour, num_trials=lambda: self.queue.num_expected)
        self.budget = dataclasses.replace(budget, earlier_s=self.clock.earlier_s, earlier_usd=self.clock.earlier_usd)
        self.progress_actor = start_progress_actor()
        answer = self.progress_actor.secrets.remote()
        wait_for_first_answer(answer, within_s=placement.timeout_s(config.base), is_stopped=lambda: False)
        self.context = self._context(prepared)

    def _proposer(self) -> Proposer | None:
        if self.config.search != "optuna":
            return None
        from sst2_ray.sweep.optuna import OptunaProposer

        return OptunaProposer(self.config, self.drawn)

    def _context(self, prepared: dict[str, RunInputs]) -> SweepContext:
        passed_on = {*DRIVER_ENV, *WORKER_ENV, *PASSED_ON}
        return SweepContext(
            experiment=self.config.name,
            workspace=self.session.workspace,
            shared=share(prepared),
            placement=self.placement,
            cost_share=self.at_once.cost_share,
            progress_actor=self.progress_actor,
            asks_scheduler=self.config.scheduler != "none",
            chooses_on_selection=self.config.held_out_fraction > 0,
            environment={name: os.environ[name] for name in passed_on if name in os.environ},
        )

    # ---- the trials

    def run(self) -> SweepResult:
        """Run what is left of the sweep, then rank and close it."""
        from sst2_ray.sweep.tune import SweepSearcher

        searcher = SweepSearcher(
            self.queue,
            budget=self.budget,
            clock=self.clock,
            durations=self.durations,
            begun=self.past,
            on_change=lambda: write_drawn(self.folder, self.queue, self.drawn),
        )
        self.clock.tick(force=True)
        with Trackers(self.config.base.trackers, self.folder, self.config.name, self.session.note) as trackers:
            self._fit(searcher, self._tuner(searcher, trackers))
            self.clock.tick(force=True)
            self._close_orphans()
            return self._close(searcher.ended_by)

    def _fit(self, searcher: SweepSearcher, tuner: Tuner) -> None:
        """Run Tune in a thread and watch it until it has ended. Raises what it raised."""
        errors: list[BaseException] = []

        def fit() -> None:
            try:
                tuner.fit()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=fit, name="tune", daemon=True)
        with SweepDisplay(self.out, self.config.name, self.queue) as display:
            self._watch(thread, searcher, display)
        if errors:
            raise errors[0]

    def _tuner(self, searcher: SweepSearcher, trackers: Trackers) -> Tuner:
        import ray
        from ray import tune

        from sst2_ray.sweep.tune import FirstSeedScheduler, TrackingCallback

        def stop(trial_id: str) -> None:
            ray.get(self.progress_actor.ask_to_stop.remote(trial_id, Status.EARLY_STOPPED))

        return tune.Tuner(
            # A driver holds no core: it could keep one from its own workers. One byte is the least that Ray takes.
            tune.with_resources(tune.with_parameters(run_trial, context=self.context), {"memory": 1}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=FirstSeedScheduler(early_stopping(self.table, self.config, self.past), stop),
                num_samples=-1,
                max_concurrent_trials=self.at_once.chosen,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["spec"].trial_id,
                trial_dirname_creator=lambda trial: trial.config["spec"].trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=self.folder.root,
                storage_filesystem=None if self.folder.is_local else self.folder.filesystem,
                callbacks=[TrackingCallback(trackers)],
                # Restarts drivers that die with their node; what fails inside a trial is dealt with there.
                failure_config=tune.FailureConfig(max_failures=self.config.base.max_retries),
                verbose=0,
            ),
        )

    def _watch(self, thread: threading.Thread, searcher: SweepSearcher, display: SweepDisplay) -> None:
        """Show progress, keep time and look for requests to stop until Tune has ended.

        A signal has the trials write a checkpoint and leave; a second one returns at once.
        """
        import ray

        num_seen = 0
        with self.session.signals.graceful():
            thread.start()
            while thread.is_alive():
                thread.join(LOOP_S)
                if taken_by := self.session.lease.taken_by:
                    raise StoppedError(f"{self.config.name}: stopped, since {taken_by} runs it now")
                level = self.session.stop.level()
                if level is not StopLevel.NONE:
                    self._stop_trials(searcher)
                if level is StopLevel.AT_ONCE:
                    return
                try:
                    overview, lines = ray.get(self.progress_actor.overview.remote(num_seen), timeout=30)
                except ray.exceptions.GetTimeoutError:
                    continue
                num_seen += len(lines)
                for line in lines:
                    display.line(line)
                display.update(self._progress(overview, searcher), self._trial_cost)
                with contextlib.suppress(OSError):  # storage is away: trials that need it end, the sweep does not
                    self.clock.tick()

    def _stop_trials(self, searcher: SweepSearcher) -> None:
        """Start no more trials and ask those that run to leave; again where storage could not be written."""
        searcher.stop()
        with contextlib.suppress(OSError):
            folder = self.session.storage_at_start.child(self.config.name)
            if not folder.exists(STOP_FILE):
                folder.write_json(STOP_FILE, {"by": "signal"})

    def _progress(self, overview: dict[str, TrialOverview], searcher: SweepSearcher) -> SweepProgress:
        queue, running = self.queue, searcher.running_left()
        waiting = queue.waiting
        # Those that are not planned yet (suggestions to come, other seeds of what survives) take what the others do.
        num_others = queue.num_expected - len(queue.outcomes) - len(queue.running) - len(waiting)
        expected = [self.durations.predict(spec.config) for spec in [*waiting, *queue.planned]]
        known = [seconds for seconds in expected if seconds is not None]
        left = None
        if known and len(known) == len(expected):
            others = [sum(known) / len(known)] * max(0, num_others)
            left = makespan([*running, *known[: len(waiting)], *others], self.at_once.chosen)
        used = self.clock.seconds
        return SweepProgress(
            overview=overview,
            elapsed={trial_id: searcher.elapsed(trial_id) for trial_id in list(queue.running)},
            used_s=used,
            left_s=left,
            cost_usd=self.budget.cost(used),
            predicted_usd=self.budget.cost(used + left) if left is not None else None,
            budget_usd=self.config.budget_usd,
        )

    def _trial_cost(self, seconds: float) -> float | None:
        price = self.config.base.price_per_hour
        return None if price is None else seconds / 3600 * price * self.at_once.cost_share

    def _close_orphans(self) -> None:
        """Close the rows of trials whose driver died, and did again, or that a second signal ended where they were."""
        stopped = self.session.stop.level() is StopLevel.AT_ONCE
        for spec in [*self.queue.running.values(), *self.queue.planned]:
            outcome = self.queue.outcomes.get(spec.trial_id)
            if spec.trial_id in self.queue.running or (outcome and outcome.failure_class == FailureClass.WORKER_LOST):
                attempts = trial_of(self.context, spec).attempts
                if stopped:
                    attempts.close_orphans("stopped at once", FailureClass.USER_STOP, Status.STOPPED)
                elif not attempts.close_orphans():
                    attempts.add_lost("its driver ended before its first attempt")

    # ---- the end

    def _close(self, ended_by: str | None) -> SweepResult:
        now = closing.standing(self.table, self.config)
        shared = self.context.shared
        if ended_by != "stop" and score_chosen(now, self.table, self.folder, shared=shared, placement=self.placement):
            now = closing.standing(self.table, self.config)
        # Nothing would run again when it is resumed: the ranking is final, and models may go.
        if ended_by is None and all(outcome.is_over for outcome in self.queue.outcomes.values()):
            closing.keep_best_models(self.table, self.folder, now, keep=self.config.keep_models)
            if self.config.keep_models == 0:  # the best has no model any more
                now = closing.standing(self.table, self.config)
            self.folder.delete("tune")  # Tune's own bookkeeping: nothing reads it
        seconds, cost_usd = self.clock.seconds, self.budget.cost(self.clock.seconds)
        result = result_of(now, config=self.config, ended_by=ended_by, seconds=seconds, cost_usd=cost_usd)
        self.folder.write_json("result.json", dataclasses.asdict(result))
        self.out.print("")
        num_not_run = max(0, self.queue.num_expected - sum(now.counts.values())) if ended_by else 0
        closing.show(self.out, now, num_not_run=num_not_run)
        self.session.show_end(closing_rows(result, self.config))
        return result


def read_drawn(folder: Storage) -> list[Configuration]:
    """Read the configurations that earlier sessions drew, in order."""
    return [Configuration(**values) for values in folder.read_json(POINTS_FILE)] if folder.exists(POINTS_FILE) else []


def write_drawn(folder: Storage, queue: TrialQueue, earlier: list[Configuration]) -> None:
    """Keep what a search has drawn; of what earlier sessions drew, also what it has not asked for yet."""
    if queue.proposer is not None:
        drawn = [*queue.configurations, *earlier[len(queue.configurations) :]]
        folder.write_json(POINTS_FILE, [dataclasses.asdict(one) for one in drawn])


def share(prepared: dict[str, RunInputs]) -> dict[str, Shared]:
    """Put tokens and sentences into the object store once, however many models use them."""
    import ray

    texts = ray.put(next(iter(prepared.values())).splits.dev.texts)  # all models read the same data
    refs: dict[int, dict[str, ObjectRef]] = {}
    for one in prepared.values():
        if id(one.tokens) not in refs:
            refs[id(one.tokens)] = put_tokens(one)
    return {
        model: Shared(
            inputs=dataclasses.replace(one, tokenized=None),
            tokenizer_json=one.tokenizer_json,
            splits=refs[id(one.tokens)],
            texts=texts,
        )
        for model, one in prepared.items()
    }
