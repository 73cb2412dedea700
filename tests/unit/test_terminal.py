"""Tables fit the width they are given, and say what they leave out."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sst2_ray.tables import Column, fit_columns, print_table
from sst2_ray.terminal import console, has_width, show_plan, text_console

COLUMNS = (
    Column(title="name", align="left"),
    Column(title="status", rank=1, align="left"),
    Column(title="size", rank=3),
    Column(title="why", rank=2, align="left", min_width=12),
)
ROWS = [
    ["sbert-minilm-rotten-tomatoes-0123456789ab", "succeeded", "12.5 MiB", ""],
    ["b", "failed", "1.0 KiB", "out_of_memory: the worker asked for 12 GiB"],
]


def printed(width: int, *, wide: bool = False) -> str:
    out = Console(width=width, file=io.StringIO(), color_system=None)
    print_table(out, COLUMNS, ROWS, wide=wide)
    return out.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_console(width):
    assert max(map(len, printed(width).splitlines())) <= width


def test_brackets_of_names_are_shown_as_they_are():
    out = text_console(80)
    show_plan(out, [("data", "reviews[final].csv"), ("classes", "quote [/quote] 3")])
    print_table(out, [Column(title="a")], [["1" * 40]], title="runs[v2]/results")
    shown = out.file.getvalue()
    assert all(name in shown for name in ("reviews[final].csv", "quote [/quote] 3", "runs[v2]/results"))


def test_the_highest_ranks_are_left_out_first():
    titles = [[COLUMNS[i].title for i in fit_columns(COLUMNS, ROWS, width)] for width in (90, 80, 60, 50)]
    assert titles == [["name", "status", "size", "why"], ["name", "status", "why"], ["name", "status"], ["name"]]


def test_what_is_left_out_is_named():
    assert "not shown at this width: size (--wide shows all)" in printed(80)
    assert "not shown" not in printed(120)


def test_what_identifies_a_row_takes_several_lines_and_is_never_cut():
    joined = "".join(line.strip("│ ") for line in printed(30).splitlines() if line.startswith("│"))
    assert ROWS[0][0] in joined
    assert "…" not in printed(30)


def test_what_identifies_a_row_is_on_one_line_where_other_columns_can_shrink():
    assert ROWS[0][0] in printed(80)


def test_rows_take_two_lines_before_what_they_are_read_for_is_left_out():
    lines = printed(50).splitlines()
    at = next(i for i, line in enumerate(lines) if ROWS[0][0] in line)
    assert "succeeded" in lines[at + 1]
    assert "status" in "".join(lines[:at])


def test_the_least_asked_for_is_left_out_of_two_lines_as_well():
    assert "not shown at this width: size (--wide shows all)" in " ".join(printed(34).split())


def test_a_wide_table_is_whole():
    text = printed(40, wide=True)
    assert all(cell in text for row in ROWS for cell in row)
    assert "not shown" not in text


@pytest.mark.parametrize(("columns", "width", "has"), [("72", 72, True), ("0", 160, False), ("", 160, False)])
def test_a_pipe_is_as_wide_as_columns_says_and_wide_enough_for_paths_otherwise(columns, width, has, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert (console().width, has_width(console())) == (width, has)
