"""Display of one run: a line an epoch, and a progress bar in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape

from rich import progress as bars
from rich.console import Console

from sst2_ray.config.metrics import Metric, oriented, score_of
from sst2_ray.notebook import NotebookView, in_notebook
from sst2_ray.records import EpochRecord
from sst2_ray.run.logs import LOGGER, epoch_line, rate_words, step_line
from sst2_ray.run.messages import Progress
from sst2_ray.terminal import print_line
from sst2_ray.training.names import PHASE_WORDS, Phase

PLAIN_INTERVAL_S = 20.0


class RunDisplay:
    """The progress bar and the lines of one run; a context manager around its attempts."""

    def __init__(
        self,
        out: Console,
        on_record: Callable[[EpochRecord], None] = lambda _: None,
        metric: Metric = "accuracy",
    ) -> None:
        """Prepare a bar on `out`, in a notebook in an output of its own; a line every `PLAIN_INTERVAL_S` stands in for it
        elsewhere, and in the log. `on_record` is called with each evaluation; `metric` says which is the best."""
        self.out, self.on_record, self.metric = out, on_record, metric
        self._view = NotebookView() if in_notebook() and not out.quiet else None
        self.best: float | None = None
        self._bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.TextColumn("{task.fields[steps]}"),
            bars.TextColumn("{task.fields[info]}"),
            console=out,
            transient=True,
            disable=not out.is_terminal,
        )
        self._task = self._bar.add_task("starting workers", total=None, steps="", info="")
        self._last_plain = time.monotonic()
        self._phase = Phase.START_UP

    def __enter__(self) -> RunDisplay:
        self._bar.start()
        self._announce("starting the workers")
        return self

    def _announce(self, what: str) -> None:
        """Name a phase as it begins: in the bar, or in a line where there is none."""
        self._bar.update(self._task, description=what)
        if self._view is not None:
            self._view.show(escape(f"{what} ..."), at_once=True)
        elif not self.out.is_terminal:
            self.line(f"{what} ...")
        else:
            LOGGER.info("%s ...", what)  # what `sst2-ray status` shows meanwhile

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._view is not None:
            self._view.clear()

    def progress(self, progress: Progress) -> None:
        """Show how far rank 0 is: in a bar, or in a line now and then where there is no terminal."""
        if progress.phase is not self._phase and progress.phase in PHASE_WORDS:
            self._announce(PHASE_WORDS[progress.phase])
        self._phase = progress.phase
        if progress.phase is not Phase.TRAINING:
            return
        self._bar.update(
            self._task,
            description=f"epoch {progress.epoch:.2f}",
            completed=progress.global_step,
            total=progress.total_steps,
            steps=f"{progress.global_step:,}/{progress.total_steps:,} steps",
            info=rate_words(progress),
        )
        if self._view is not None:
            done, total = progress.global_step, progress.total_steps
            self._view.show(f'<progress value="{done}" max="{total}"></progress> {escape(step_line(progress))}')
        if time.monotonic() - self._last_plain >= PLAIN_INTERVAL_S:
            self._last_plain = time.monotonic()
            if self.out.is_terminal or self._view is not None:
                LOGGER.info("%s", step_line(progress))  # the bar leaves nothing behind
            else:
                self.line(step_line(progress))

    def record(self, record: EpochRecord) -> None:
        """Show an evaluation."""
        self.on_record(record)
        score = score_of(record, self.metric)
        is_best = score is not None and (
            self.best is None or oriented(self.metric, score) > oriented(self.metric, self.best)
        )
        self.best = score if is_best else self.best
        self._last_plain = time.monotonic()
        self.line(epoch_line(record, is_best=is_best, metric=self.metric))

    def line(self, text: str) -> None:
        """Show a line as it is."""
        print_line(self.out, text)
