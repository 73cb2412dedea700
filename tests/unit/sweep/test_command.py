"""The last words on stderr of a sweep that did not come to its end."""

from __future__ import annotations

import types

import pytest

from sst2_ray.sweep import command, start

ENDS = {
    0: (None, {}, {"succeeded": 2}, ""),
    4: (None, {"bug": 1}, {"failed": 1, "succeeded": 3}, "error: x: 1 of 4 trials failed (bug)\n"),
    5: ("stop", {}, {"stopped": 2}, "error: x: ended by a request to stop; sst2-ray sweep --resume 'a b/x' goes on\n"),
}


@pytest.mark.parametrize("code", ENDS)
def test_a_sweep_that_is_not_whole_says_why_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    ended_by, failures, counts, said = ENDS[code]
    result = types.SimpleNamespace(
        name="x", exit_code=code, ended_by=ended_by, failures=failures, counts=counts, sweep_dir="a b/x"
    )
    monkeypatch.setattr(start, "sweep", lambda _: result)
    assert command.main(["--models", "sbert", "--name", "x", "--storage-path", "a b"]) == code
    assert capsys.readouterr().err == said
