"""Tests of which trials a sweep has, in which order they start, who goes on to the other seeds, and when the money is spent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from sst2_ray.config.sweep import SweepConfig, sweep_from_dict
from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.storage import Storage
from sst2_ray.sweep.budget import Budget, Durations, SweepClock, makespan, read_num_trials
from sst2_ray.sweep.command import leave_config, read_sweep_command, resumed, split_address
from sst2_ray.sweep.configurations import Configuration, most_configurations, planned_configurations, trials_of
from sst2_ray.sweep.plan import _choice_words, _power_words, expected_trials, trials_left
from sst2_ray.sweep.queue import FINISHED, Outcome, TrialQueue
from sst2_ray.sweep.session import read_drawn, write_drawn
from sst2_ray.sweep.start import check_existing
from sst2_ray.sweep.tune import SweepSearcher

RATES = (2e-5, 4e-5, 8e-5, 1.6e-4, 3.2e-4, 6.4e-4)


def config(**values) -> SweepConfig:
    return SweepConfig(**{"learning_rates": RATES, "num_seeds": 2, **values})


def play(queue: TrialQueue, outcomes: dict[str, Outcome]) -> list[str]:
    """Run every trial that the queue hands out, one after the other; those without an outcome reach 0.9."""
    order = []
    while (spec := queue.peek()) != FINISHED:
        assert spec is not None
        order.append(queue.take().trial_id)
        queue.close(spec.trial_id, outcomes.get(spec.trial_id, Outcome(status="succeeded", score=0.9)))
    return order


# ---- the grid


def test_a_grid_starts_in_its_middle_and_runs_every_configuration_under_the_same_seeds() -> None:
    order = play(TrialQueue(config()), {})
    assert [name.split("-")[2] for name in order[:3]] == ["lr8e", "lr4e", "lr1.6e"]
    assert len(set(order)) == len(RATES) * 2
    assert all(name.endswith("seed0") for name in order[: len(RATES)])


def test_models_take_turns() -> None:
    configurations = planned_configurations(config(models=("sbert-minilm", "modernbert-mini"), batch_sizes=(32, 64)))
    assert [one.model for one in configurations[:4]] == ["sbert-minilm", "modernbert-mini"] * 2
    assert len(configurations) == 24


def test_models_of_the_same_last_name_have_different_trials() -> None:
    both = config(models=("a/bert", "b/bert"))
    names = {trials_of(both, one)[0].trial_id for one in planned_configurations(both)}
    assert len(names) == 2 * len(RATES)


def test_random_draws_are_the_same_whatever_else_is_drawn() -> None:
    few, many = config(search="random", num_samples=4), config(search="random", num_samples=9)
    assert planned_configurations(many)[:4] == planned_configurations(few)
    assert all(RATES[0] <= one.learning_rate <= RATES[-1] for one in planned_configurations(many))


# ---- who goes on


def test_survivors_of_asha_run_all_seeds_and_nobody_else_does() -> None:
    sweep = config(scheduler="asha", reduction_factor=3)
    first = [trials_of(sweep, one)[0].trial_id for one in planned_configurations(sweep)]
    outcomes = {name: Outcome(status="early_stopped", score=0.8) for name in first[3:]}
    outcomes |= {
        first[0]: Outcome(status="succeeded", score=0.90),
        first[1]: Outcome(status="succeeded", score=0.85),
        first[2]: Outcome(status="succeeded", score=0.95),
    }
    order = play(TrialQueue(sweep), outcomes)
    assert order[:6] == first
    assert sorted(order[6:]) == sorted(name.replace("seed0", "seed1") for name in (first[0], first[2]))


def test_a_failed_configuration_does_not_survive() -> None:
    sweep = config(scheduler="median")
    first = [trials_of(sweep, one)[0].trial_id for one in planned_configurations(sweep)]
    failed = {first[0]: Outcome(status="failed", score=None, failure_class="non_finite")}
    assert first[0].replace("seed0", "seed1") not in play(TrialQueue(sweep), failed)


def test_a_resumed_sweep_runs_only_what_is_not_over() -> None:
    names = play(TrialQueue(config()), {})
    past = {name: Outcome(status="succeeded", score=0.9) for name in names[:5]}
    past[names[5]] = Outcome(status="lost", score=None, failure_class="worker_lost")
    past[names[6]] = Outcome(status="failed", score=None, failure_class="non_finite")
    past[names[7]] = Outcome(status="failed", score=None, failure_class="hung")
    assert play(TrialQueue(config(), past), {}) == [names[5], *names[7:]]


def test_the_plan_of_a_resumed_sweep_counts_what_is_left() -> None:
    trials = expected_trials(config())
    assert (trials_left(config(), {}, None).trials, trials_left(config(), {}, None).words()) == (trials, "")
    past = {trial.trial_id: Outcome(status="succeeded", score=0.9) for trial in trials[:5]}
    past[trials[5].trial_id] = Outcome(status="lost", score=None, failure_class="worker_lost")
    some = trials_left(config(), past, None)
    assert some.trials == trials[5:]
    assert some.words() == f"goes on: 5 of {len(trials)} trials are over, and stay as they are"
    fewer = trials_left(config(), dict(list(past.items())[:5]), 5)  # a scheduler ended the others
    assert fewer.trials == []
    assert fewer.words() == "nothing is left to run: 5 of 5 trials are over, and stay as they are"


class Told:
    """A proposer that draws the same configuration rates and keeps what it is told."""

    def __init__(self) -> None:
        self.scores: list[float | None] = []

    def ask(self, index: int) -> Configuration:
        return Configuration(
            model="sbert-minilm",
            learning_rate=RATES[index],
            batch_size=64,
            weight_decay=0.01,
            warmup_fraction=0.06,
            epochs=2,
        )

    def tell(self, index: int, score: float | None) -> None:  # noqa: ARG002
        self.scores.append(score)


def test_a_search_learns_that_what_diverges_is_the_worst_and_nothing_of_a_lost_worker() -> None:
    sweep = config(search="optuna", num_samples=3, num_seeds=1)
    names = [trials_of(sweep, Told().ask(i))[0].trial_id for i in range(3)]
    told = Told()
    play(
        TrialQueue(sweep, proposer=told),
        {
            names[1]: Outcome(status="failed", score=None, failure_class="non_finite"),
            names[2]: Outcome(status="failed", score=None, failure_class="worker_lost"),
        },
    )
    assert told.scores == [0.9, 0.0, None]


def test_a_resumed_search_forgets_no_configuration_that_was_drawn(tmp_path: Path) -> None:
    """Resume a search that may be cut off again before it has asked for all of them."""
    folder, known = Storage.open(str(tmp_path)), [Told().ask(i) for i in range(4)]
    for num_asked in (2, 4, 5):
        queue = SimpleNamespace(proposer=Told(), configurations=[Told().ask(i) for i in range(num_asked)])
        write_drawn(folder, queue, known)
        assert read_drawn(folder) == [Told().ask(i) for i in range(max(4, num_asked))]


def test_data_that_has_changed_makes_it_another_sweep(tmp_path: Path) -> None:
    folder, sweep = Storage.open(str(tmp_path)), config()
    folder.write_json(
        "config.json", {**sweep.to_dict(), "config_hash": sweep.trials_hash, "data_fingerprint": "before"}
    )
    checked = {name: SimpleNamespace(splits=SimpleNamespace(fingerprint=name)) for name in ("before", "after")}
    check_existing(folder, sweep, {"sbert-minilm": checked["before"]})
    with pytest.raises(InputError, match=r"the data changed .*before -> after"):
        check_existing(folder, sweep, {"sbert-minilm": checked["after"]})


# ---- budget


def test_a_trial_that_would_go_over_the_budget_does_not_start() -> None:
    budget = Budget(hours=None, usd=1.0, price_per_hour=3.6, num_nodes=2)  # 500 s
    assert budget.limit_s == pytest.approx(500)
    assert budget.cost(250) == pytest.approx(0.5)
    assert budget.allows(400, 100, [])
    assert not budget.allows(400, 101, [])
    assert not budget.allows(400, 50, [101])
    assert budget.allows(499, None, [])
    assert not budget.allows(500, None, [])
    assert Budget(hours=None, usd=None, price_per_hour=None, num_nodes=1).allows(1e9, 1e9, [])


def test_dollars_of_earlier_sessions_are_those_they_cost(tmp_path: Path) -> None:
    now = [0.0]
    before = Budget(hours=None, usd=12.0, price_per_hour=3.0, num_nodes=4)
    SweepClock(Storage.open(str(tmp_path)), usd_per_hour=before.usd_per_hour, now=lambda: now[0]).tick(force=True)
    clock = SweepClock(Storage.open(str(tmp_path)), usd_per_hour=before.usd_per_hour, now=lambda: now[0])
    now[0] = 3600.0
    clock.tick(force=True)
    again = SweepClock(Storage.open(str(tmp_path)), usd_per_hour=3.0, now=lambda: now[0])
    budget = dataclasses.replace(before, num_nodes=1, earlier_s=again.earlier_s, earlier_usd=again.earlier_usd)
    assert budget.cost(again.seconds) == pytest.approx(12.0)
    assert budget.cost(again.seconds + 3600) == pytest.approx(15.0)
    assert not budget.allows(again.seconds, 1.0, [])


def test_a_trial_that_only_went_on_says_nothing_about_durations() -> None:
    sweep = config()
    searcher = SweepSearcher(
        TrialQueue(sweep),
        budget=Budget(hours=None, usd=None, price_per_hour=None, num_nodes=1),
        clock=SimpleNamespace(seconds=0.0),
        durations=Durations(1000),
        begun={trials_of(sweep, planned_configurations(sweep)[0])[0].trial_id},
        on_change=lambda: None,
    )
    ended = {"outcome": Outcome(status="succeeded", score=0.9)}
    for name, known in (("went on", False), ("whole", True)):
        searcher.suggest(name)
        searcher.on_trial_complete(name, ended)
        assert (
            searcher.durations.predict(trials_of(sweep, planned_configurations(sweep)[0])[0].config) is not None
        ) is known


@pytest.mark.parametrize(("scheduler", "most"), [("none", 90), ("median", 90), ("asha", 50)])
def test_the_plan_of_a_search_that_learns_counts_the_other_seeds(scheduler: str, most: int) -> None:
    sweep = config(search="optuna", num_samples=30, num_seeds=3, scheduler=scheduler, reduction_factor=3)
    assert len(expected_trials(sweep)) == most


def test_durations_are_those_of_the_most_alike() -> None:
    durations = Durations(1000)
    small, large = TrainConfig(batch_size=32), TrainConfig(batch_size=64)
    assert durations.predict(small) is None
    durations.add_earlier(small, 500, 500)
    assert durations.predict(small) == pytest.approx(1000)
    durations.add(large, 40)
    assert durations.predict(small) == pytest.approx(40)
    durations.add(small, 60)
    assert durations.predict(small) == pytest.approx(60)
    assert durations.predict(dataclasses.replace(small, epochs=small.epochs * 2)) == pytest.approx(120)


def test_the_clock_keeps_how_many_trials_there_are(tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path))
    assert read_num_trials(folder) is None
    SweepClock(folder, num_trials=lambda: 4).tick(force=True)
    assert read_num_trials(folder) == 4


def test_the_clock_adds_up_over_sessions(tmp_path: Path) -> None:
    now = [0.0]
    clock = SweepClock(Storage.open(str(tmp_path)), now=lambda: now[0])
    now[0] = 30.0
    clock.tick(force=True)
    again = SweepClock(Storage.open(str(tmp_path)), now=lambda: now[0])
    now[0] = 40.0
    assert again.seconds == pytest.approx(40)


def test_makespan_fills_the_first_free_slot() -> None:
    assert makespan([4, 3, 2, 1], 2) == 5
    assert makespan([], 2) == 0


# ---- the command


def test_flags_of_both_kinds_are_told_apart() -> None:
    _, parsed = read_sweep_command(["--learning-rates", "1e-5", "2e-5", "--max-length", "64", "--num-seeds", "1"])
    assert (parsed.learning_rates, parsed.base.max_length, parsed.seeds) == ((1e-5, 2e-5), 64, (0,))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning-rate", "1e-5"], "a sweep takes --learning-rates"),
        (["--learning-ratse", "1e-5"], "did you mean --learning-rates?"),
        (["--learning-rates", "1e-5", "1e-5"], "is there twice"),
        (["--learning-rates", "nan"], "--learning-rates nan"),
        (["--budget-usd", "5"], "needs --price-per-hour"),
        (["--num-samples", "5"], "a grid runs every combination"),
        (["--scheduler", "asha", "--epochs", "1"], "leaves nothing to stop"),
        (["--num-seeds", "0"], "at least 1"),
        (["--search", "optuna", "--learning-rates", "8e-5"], "every axis has one value only"),
        (["--preset", "paper-grid", "--weight-decay", "0.01"], "a sweep takes --weight-decays"),
        (["--preset", "papergrid"], "did you mean paper-grid?"),
        (["--resume", "/nowhere"], "no config.json there"),
    ],
)
def test_wrong_input_is_told_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(InputError) as told:
        read_sweep_command(words)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"learning_rates": "high"}, "learning_rates: 'high' is not a number"),
        ({"keep_models": None}, "keep_models: None is not an integer"),
        ({"budget_hours": "soon"}, "budget_hours: 'soon' is not a number"),
        ({"search": "bayes"}, "search: 'bayes' is not one of grid, random, optuna"),
        ({"scheduler": "ASHA"}, "scheduler: 'ASHA' is not one of none, asha, median"),
        ({"batch_sizes": [32.5]}, "batch_sizes: 32.5 is not an integer"),
    ],
)
def test_flags_of_a_file_are_of_their_kinds(flags: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as told:
        sweep_from_dict({"sweep": flags}, source="my.yaml")
    assert str(told.value).startswith(f"my.yaml: {message}")


def test_one_value_of_a_file_stands_for_a_list_of_one() -> None:
    sweep = sweep_from_dict({"sweep": {"learning_rates": "8e-5", "models": "sbert"}})
    assert (sweep.learning_rates, sweep.models) == ((8e-5,), ("sbert",))


def test_a_resumed_sweep_has_its_own_config_wherever_its_folder_lies(tmp_path: Path) -> None:
    sweep = config(base=TrainConfig(storage_path="elsewhere", name="old"))
    Storage.open(str(tmp_path / "new")).write_json("config.json", sweep.to_dict())
    found = resumed(str(tmp_path / "new"))
    assert (found.base.storage_path, found.name) == (str(tmp_path), "new")
    assert found.trials_hash == sweep.trials_hash
    assert sweep_from_dict(sweep.to_dict()) == sweep


def test_what_would_make_it_another_sweep_is_refused(tmp_path: Path) -> None:
    Storage.open(str(tmp_path / "s")).write_json("config.json", config().to_dict())
    resume = ["--resume", str(tmp_path / "s")]
    assert read_sweep_command([*resume, "--max-concurrent", "2"])[1].max_concurrent == 2
    with pytest.raises(InputError, match=r"--num-seeds 2 -> 5 would make it another sweep"):
        read_sweep_command([*resume, "--num-seeds", "5"])


def test_the_config_beside_a_sweep_is_a_config_file(tmp_path: Path) -> None:
    sweep = config(base=TrainConfig(data="reviews.csv", name="s"))
    described = {"config_hash": sweep.trials_hash, "data_fingerprint": "f"}
    Storage.open(str(tmp_path)).write_json("config.json", {**sweep.to_dict(), **described})
    assert read_sweep_command(["--config", f"{tmp_path}/config.json"])[1] == sweep
    again = read_sweep_command(["--config", f"{tmp_path}/config.json", "--num-seeds", "5"])[1]
    assert (again.num_seeds, again.base) == (5, sweep.base)


def test_the_config_beside_a_run_is_that_of_a_sweep_over_its_seeds(tmp_path: Path) -> None:
    run = TrainConfig(model="sbert", learning_rate=3e-5, batch_size=32, epochs=4, weight_decay=0.1, data="reviews.csv")
    described = {"config": run.to_dict(), "config_hash": run.config_hash, "data_fingerprint": "f"}
    Storage.open(str(tmp_path)).write_json("config.json", described)
    flags = ["--config", f"{tmp_path}/config.json"]
    (repeated,) = planned_configurations(read_sweep_command(flags)[1])
    assert (repeated.model, repeated.learning_rate, repeated.batch_size, repeated.epochs) == ("sbert", 3e-5, 32, 4)
    varied = read_sweep_command([*flags, "--learning-rates", "1e-5", "2e-5"])[1]
    assert (varied.learning_rates, varied.base.weight_decay, varied.base.data) == ((1e-5, 2e-5), 0.1, "reviews.csv")
    assert varied.held_out_fraction == 0.1


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"sweep": {}, "config": {}, "seed": 1}, "'seed' stands beside 'sweep'"),
        ({"config": {}, "seed": 1}, "'seed' stands beside 'config'"),
        ({"sweep": 3, "config": {}}, "'sweep' must hold keys and values"),
        ({"config": []}, "'config' must hold keys and values"),
    ],
)
def test_a_config_file_of_mixed_kinds_is_one_line(tmp_path: Path, values: dict[str, object], line: str) -> None:
    Storage.open(str(tmp_path)).write_json("config.json", values)
    with pytest.raises(InputError, match=line) as told:
        read_sweep_command(["--config", f"{tmp_path}/config.json"])
    assert str(told.value).startswith(f"--config {tmp_path}/config.json: ")


@pytest.mark.parametrize("axes", [{"weight_decays": (0, 0.01)}, {"warmup_fractions": (0, 0.06)}, {"learning_rates": 1}])
def test_a_sweep_with_whole_numbers_is_resumed_by_the_command_that_it_prints(tmp_path: Path, axes: dict) -> None:
    sweep = config(**axes, base=TrainConfig(name="s", storage_path=str(tmp_path)))
    leave_config(sweep)
    assert resumed(f"{tmp_path}/s").trials_hash == sweep.trials_hash
    (axis,) = axes
    assert {type(value) for value in getattr(sweep, axis)} == {float}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"sweep": {}, "config": {},}', "double quotes: line 1 column 28"),
        (b"\xff", "codec can't decode"),
        (b"[1]", "it holds no keys and values"),
        (b'{"sweep": {}}', "it lacks config"),
        (b'{"sweep": 1, "config": {}}', "'sweep' must hold keys and values"),
    ],
)
def test_a_damaged_config_is_one_line(tmp_path: Path, content: bytes, why: str) -> None:
    folder, flags = Storage.open(str(tmp_path)).child("s"), ["--storage-path", str(tmp_path), "--name", "s"]
    folder.write_bytes("config.json", content)
    with pytest.raises(InputError, match=why) as told:
        read_sweep_command(["--resume", f"{tmp_path}/s"])
    assert str(told.value).startswith(f"--resume {tmp_path}/s: ") and "\n" not in str(told.value)
    with pytest.raises(InputError, match=r"^--name s: ") as told:
        check_existing(folder, read_sweep_command(flags)[1], {})
    assert "\n" not in str(told.value)


def test_a_folder_that_cannot_be_opened_is_refused_by_its_own_flag() -> None:
    with pytest.raises(InputError, match=r"^--resume s3x://bucket/s: cannot be opened"):
        read_sweep_command(["--resume", "s3x://bucket/s"])


# ---- what is held out, and what the sweep can show


@pytest.mark.parametrize(
    ("values", "held_out"),
    [
        ({}, 0.1),
        ({"selection_fraction": 0.0}, 0.0),
        ({"selection_fraction": 0.2}, 0.2),
        ({"learning_rates": (8e-5,)}, 0.0),
        ({"learning_rates": (8e-5,), "models": ("sbert", "modernbert-base")}, 0.1),
        ({"search": "random", "num_samples": 1}, 0.0),
        ({"base": TrainConfig(selection_fraction=0.3)}, 0.3),
    ],
)
def test_a_tenth_is_held_out_where_there_is_something_to_choose(values: dict[str, object], held_out: float) -> None:
    sweep = config(**values)
    assert sweep.held_out_fraction == held_out
    assert all(t.config.selection_fraction == held_out for t in trials_of(sweep, planned_configurations(sweep)[0]))


def test_a_default_that_is_given_is_the_same_sweep() -> None:
    assert config().trials_hash == config(selection_fraction=0.1).trials_hash
    assert config().trials_hash != config(selection_fraction=0.0).trials_hash


def test_the_plan_says_the_smallest_difference_that_can_be_shown() -> None:
    both = config(models=("sbert", "modernbert-base"), num_seeds=3)
    words = _power_words(both, 872, 6735)
    assert "between models from 1.8 points (872 sentences)" in words
    assert "between configurations of a model from 0.4 points (6,735 sentences)" in words
    assert words.endswith(
        "if noise is typical: 94 % accuracy, models that disagree on 5.5 % of the sentences (models that "
        "disagree more need more)"
    )
    assert "one configuration" in _power_words(config(learning_rates=(8e-5,)), 872, 872)


def test_choosing_on_dev_says_what_it_costs() -> None:
    fifteen = config(learning_rates=RATES[:5], batch_sizes=(16, 32, 64), num_seeds=3, selection_fraction=0.0)
    assert "the best of 15 may look 0.5 points better than it is" in _choice_words(fifteen, 872, None)
    assert _choice_words(config(learning_rates=(8e-5,)), 872, None) == ""


# ---- configurations that can exist


def test_a_random_search_counts_what_it_can_draw() -> None:
    two = config(search="random", num_samples=10, learning_rates=(8e-5,), batch_sizes=(32, 64))
    assert len(planned_configurations(two)) == most_configurations(two) == 2
    assert TrialQueue(two).num_expected == len(play(TrialQueue(two), {})) == len(expected_trials(two)) == 4


def test_optuna_counts_what_there_is_to_suggest() -> None:
    two = config(search="optuna", num_samples=10, learning_rates=(8e-5,), batch_sizes=(32, 64))
    assert most_configurations(two) == len(planned_configurations(two)) == 2


# ---- folders


@pytest.mark.parametrize(
    ("folder", "storage_path", "name"),
    [
        ("runs/name", "runs", "name"),
        ("name", ".", "name"),
        ("/a dir/50%?#1/name/", "/a dir/50%?#1", "name"),
        ("s3://bucket/50%25/name?region=eu-1", "s3://bucket/50%25?region=eu-1", "name"),
    ],
)
def test_the_address_of_a_sweep_is_split_into_storage_and_name(folder: str, storage_path: str, name: str) -> None:
    assert split_address(folder) == (storage_path, name)


def test_the_folder_that_one_stands_in_is_resumed_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s").mkdir()
    monkeypatch.chdir(tmp_path / "s")
    assert split_address(".") == (str(tmp_path), "s")


def test_an_interrupt_before_the_start_leaves_what_resume_takes(tmp_path: Path) -> None:
    sweep = config(base=TrainConfig(storage_path=str(tmp_path / "50% of it? #1")))
    leave_config(sweep)
    again = resumed(f"{tmp_path}/50% of it? #1/{sweep.name}")
    assert (again.trials_hash, again.name) == (sweep.trials_hash, sweep.name)
