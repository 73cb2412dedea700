"""The output of a run in the kernel of a notebook: one output that is redrawn in place, and lines as text."""

from __future__ import annotations

from pathlib import Path

from tests.support.notebooks import notebook

CODE = """
from sst2_ray import notebook, terminal
from sst2_ray.run.display import RunDisplay
from sst2_ray.run.messages import Progress
from sst2_ray.training.names import Phase

notebook.INTERVAL_S = 0.0
out = terminal.console()
with RunDisplay(out) as display:
    for step in range(1, 4):
        display.progress(Progress(phase=Phase.TRAINING, epoch=step / 3, global_step=step, total_steps=3))
    display.line("an evaluation")
"""


def test_progress_is_one_output_that_is_redrawn_and_lines_are_text(tmp_path: Path) -> None:
    with notebook(tmp_path) as book:
        reply = book.end(book.start(CODE), timeout_s=100)
        assert reply["status"] == "ok", reply
        assert [m["msg_type"] for m in book.shown].count("display_data") == 1
        assert book.drawn[0] == "starting the workers ..."
        assert '<progress value="3" max="3"></progress>' in book.drawn[-2]
        assert book.drawn[-1] == ""
        assert book.text == "an evaluation\n"


def test_results_show_themselves_as_tables(tmp_path: Path) -> None:
    with notebook(tmp_path) as book:
        book.end(book.start("import sst2_ray; sst2_ray.power(1.0, 'nowhere')"), timeout_s=100)
        assert "<table" in book.result["text/html"]
        assert "872 sentences" in book.result["text/plain"]
        assert not book.text
