"""Work on many texts by several processes: the same answers in the same order, whatever becomes of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from sst2_ray.data import processes
from sst2_ray.data.processes import map_pieces

TEXTS = [f"text {number}" for number in range(1000)]


@pytest.fixture
def shared_out(monkeypatch):
    """Share out a thousand texts, ten at a time, among three processes."""
    monkeypatch.setattr(processes, "PIECE", 10)
    monkeypatch.setattr(processes, "ROWS_A_PROCESS", 10)
    monkeypatch.setattr(processes, "num_usable_cpus", lambda: 3)


def told(texts, *, suffix):
    return os.getpid(), [text + suffix for text in texts]


def killed_at(texts, *, text, driver):
    if text in texts and os.getpid() != driver:
        os.kill(os.getpid(), signal.SIGKILL)
    return list(texts)


def refused(texts):
    raise ValueError(f"no {texts[0]}")


@pytest.mark.usefixtures("shared_out")
def test_answers_come_in_the_order_of_the_texts_from_several_processes():
    answers = list(map_pieces(partial(told, suffix="!"), TEXTS))
    assert [text for _, texts in answers for text in texts] == [f"{text}!" for text in TEXTS]
    pids = {pid for pid, _ in answers}
    assert 1 < len(pids) <= 3
    assert os.getpid() not in pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_few_texts_stay_in_this_process():
    ((pid, texts),) = map_pieces(partial(told, suffix="?"), TEXTS)
    assert (pid, texts[0]) == (os.getpid(), "text 0?")
    assert list(map_pieces(refused, [])) == []


@pytest.mark.usefixtures("shared_out")
def test_what_a_killed_process_had_is_done_here():
    work = partial(killed_at, text="text 500", driver=os.getpid())
    assert [text for texts in map_pieces(work, TEXTS) for text in texts] == TEXTS


@pytest.mark.usefixtures("shared_out")
def test_an_error_is_raised_here():
    with pytest.raises(ValueError, match="no text"):
        list(map_pieces(refused, TEXTS))


@pytest.mark.usefixtures("shared_out")
def test_who_stops_reading_leaves_no_process():
    answers = map_pieces(partial(told, suffix=""), TEXTS)
    pid, _ = next(answers)
    answers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from sst2_ray.data import processes, splitting\n"
        "print('once')\n"
        "processes.ROWS_A_PROCESS, processes.num_usable_cpus = 1000, lambda: 2\n"
        "print(len(splitting.key_hashes([f'text {n}' for n in range(40000)])))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["once", "40000"]
    assert not done.stderr
