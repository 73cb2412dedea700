"""The session of a driver: everything that a run or a sweep opens before it starts, opened once."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from html import escape
from typing import TypeVar

from sst2_ray.background import in_background, result_of
from sst2_ray.config.python_words import told
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError, RunFailedError, Sst2RayError, first_line
from sst2_ray.notebook import NotebookView, in_notebook
from sst2_ray.results.store.compaction import merge_small_files
from sst2_ray.results.store.table import SkippedFileWarning
from sst2_ray.run.connect import check_cluster, start_ray, starts_ray_here
from sst2_ray.run.environment import prepare_driver
from sst2_ray.run.launch import import_for_fit
from sst2_ray.run.lease import Lease
from sst2_ray.run.local_ray import caller_ahead
from sst2_ray.run.logs import DriverLog
from sst2_ray.run.planning.nodes import cluster_view, this_machine
from sst2_ray.run.planning.placement import ClusterView
from sst2_ray.run.signals import StopSignals
from sst2_ray.run.stop import STOP_FILE, StopRequests
from sst2_ray.run.tokenizing import Caller
from sst2_ray.run.workspace import Workspace
from sst2_ray.storage import Storage, address
from sst2_ray.terminal import console, print_line, show_plan

T = TypeVar("T")


class RunSession:
    """A driver's hold on a run or a sweep, from the checks to the end; a context manager around all that the command does.

    Attributes:
        name: of the run or the sweep.
        workspace: storage and results table.
        out: console on stdout; the run's log holds what it shows.
        view: output of a notebook's cell for what happens before the first step; None elsewhere.
        lease: keeps other drivers off; held inside `running()`.
        stop: requests to stop it, from signals, from the stop file and from the loss of the lease.
        signals: what SIGINT and SIGTERM do.
    """

    def __init__(self, config: TrainConfig, name: str, *, quiet: bool = False) -> None:
        """Open storage and console. Nothing is read, written or started. Raises InputError for a wrong storage path."""
        prepare_driver()
        self.name = name
        self.workspace = Workspace.open(config)
        self.log = DriverLog()
        self.out = console(self.log.write)
        self.out.quiet = quiet
        self.view = NotebookView() if in_notebook() and not quiet else None
        self.lease = Lease(self.workspace.storage, name, self.note)
        self.stop = StopRequests(self.storage_at_start.child(name), self.lease)
        self.signals = StopSignals(self.stop.request, self.note)

    def __enter__(self) -> RunSession:
        check_cluster()
        self.log.begin()
        self.signals.install()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, Sst2RayError):  # which the command prints as its last line
            self.log.write(str(error))
        self.signals.restore()
        self.log.close()

    @property
    def folder(self) -> Storage:
        """Folder of the run or the sweep; its operations are retried."""
        return self.workspace.storage.child(self.name)

    @property
    def storage_at_start(self) -> Storage:
        """Storage for the checks before the start: what cannot be reached is refused at once."""
        return self.workspace.storage.with_retries(0.0)

    # ---- before the start

    def check_free(self) -> None:
        """Raise InputError where another driver runs it, or where storage cannot be read."""
        try:
            self.lease.check()
        except OSError as error:
            raise InputError(
                f"--storage-path {address(self.workspace.uri)}: cannot be read ({first_line(error)}); check its address, its "
                "credentials and the network"
            ) from None

    def start(self, place: Callable[[ClusterView], object], prepare: Callable[[Caller], T]) -> tuple[ClusterView, T]:
        """Start or join Ray while `prepare` makes the tokens.

        Args:
            place: raises where a cluster can never hold the workers; what this machine cannot hold is refused before
                Ray is started on it.
            prepare: runs in a thread meanwhile; is handed what calls functions in a process beside this one, if there is one.

        Returns:
            The cluster that this process is now connected to, and what `prepare` returned.
        """
        if starts_ray_here():
            place(this_machine())
        self.storage_at_start.probe()
        self.phase("starting Ray" if starts_ray_here() else "joining the cluster")
        prepared = in_background(partial(prepare, caller_ahead()), "prepare")
        start_ray()
        cluster = cluster_view()
        import_for_fit()
        return cluster, result_of(prepared)

    def cluster_without_starting(self) -> tuple[ClusterView, bool]:
        """Look at the cluster of RAY_ADDRESS, or at this machine where none is named, for a dry run.

        Returns:
            What there is, and whether this process is connected to it.
        """
        if starts_ray_here():
            return this_machine(), False
        start_ray()
        return cluster_view(), True

    # ---- while it runs

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the lease. Raises InputError where another driver runs it."""
        with self.lease:
            self.folder.delete(STOP_FILE)  # left by an earlier session
            self.log.open(self.folder)
            yield
        self._tidy()

    def _tidy(self) -> None:
        """Keep the number of the table's files small. What cannot be merged now is read as it is."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SkippedFileWarning)  # said to those who read
                merge_small_files(self.workspace.table)
        except (OSError, RunFailedError) as error:
            self.note(f"note: the results table's files were not merged: {error}")

    # ---- what it shows

    def phase(self, what: str) -> None:
        """Name what happens next: a start takes seconds, of which none should be silent."""
        if self.view is not None:
            self.view.show(escape(f"{what} ..."), at_once=True)
        with self._only_logged_in_notebooks():
            self.note(f"{what} ...")

    def note(self, line: str) -> None:
        """Show a line; to Python's caller its flags are arguments."""
        print_line(self.out, told(line))

    def show_plan(self, rows: Sequence[tuple[str, str]], notes: Iterable[str]) -> None:
        """Show the plan and remarks about data and models, each once. In a notebook the plan is in the log only."""
        if self.view is not None:
            self.view.clear()
        with self._only_logged_in_notebooks():
            show_plan(self.out, rows)
        for note in dict.fromkeys(notes):
            self.note(f"note: {note}")

    def show_end(self, rows: Sequence[tuple[str, str]]) -> None:
        """Show the closing table. In a notebook the result shows itself, and the table is in the log only."""
        with self._only_logged_in_notebooks():
            show_plan(self.out, rows)

    @contextlib.contextmanager
    def _only_logged_in_notebooks(self) -> Iterator[None]:
        before = self.out.quiet
        self.out.quiet = before or self.view is not None
        yield
        self.out.quiet = before
