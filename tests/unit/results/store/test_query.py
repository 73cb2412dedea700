from __future__ import annotations

import math

import pyarrow as pa
import pytest

from sst2_ray.errors import InputError
from sst2_ray.results.store import files, query
from sst2_ray.statistics.scores import summarize
from tests.support.records import trial


@pytest.fixture
def trials() -> pa.Table:
    rows = []
    for model, rate, accuracies in (
        ("a", 8e-5, (0.90, 0.91, 0.95)),
        ("b", 4e-5, (0.93,)),
        ("a", 1e-5, (0.80, 0.81, 0.82)),
    ):
        for seed, accuracy in enumerate(accuracies):
            rows.append(
                trial(
                    f"{model}{rate}{seed}", configuration_id=f"{model}{rate}", model=model, learning_rate=rate, seed=seed,
                    best_dev_accuracy=accuracy, num_dev_rows=872, eval_split="SST-2 dev", cost_usd=0.5,
                )
            )  # fmt: skip
    rows.append(trial("bad", configuration_id="a8e-05", model="a", learning_rate=8e-5, seed=9, status="failed",
                      num_dev_rows=872, eval_split="SST-2 dev", cost_usd=0.5))  # fmt: skip
    return files.records_to_table("trials", rows)


def test_a_row_a_configuration_with_its_statistics(trials: pa.Table) -> None:
    row = next(r for r in query.leaderboard(trials).to_pylist() if r["configuration"] == "a8e-05")
    expected = summarize([0.90, 0.91, 0.95])
    assert row["accuracy"] == pytest.approx(expected.mean)
    assert row["accuracy_sd"] == pytest.approx(expected.sd)
    assert (row["seeds"], row["succeeded"], row["failed"], row["cost_usd"]) == (3, 3, 1, 2.0)


def test_configurations_on_the_same_data_are_ranked_by_their_means(trials: pa.Table) -> None:
    board = query.leaderboard(trials)
    assert list(zip(board["model"].to_pylist(), board["rank"].to_pylist(), strict=True)) == [
        ("b", 1),
        ("a", 2),
        ("a", 3),
    ]


def test_where_and_sort_are_sql(trials: pa.Table) -> None:
    matching = query.matching(trials, "model = 'a' and learning_rate <= 8e-5")
    board = query.sort_rows(query.leaderboard(matching), "learning_rate")
    assert board["configuration"].to_pylist() == ["a1e-05", "a8e-05"]


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("modl = 'a'", 'Candidate bindings: "model"'),
        ("model = ", "syntax error"),
        ("batch_size < 0 or cast(trial_id as int) = 1", "Could not convert"),
        ("1); drop table trials; --", "syntax error|one SQL expression"),
        ("exists (select * from read_csv('/etc/passwd'))", "disabled by configuration"),
        ("model = getenv('HOME')", "getenv"),
    ],
)
def test_a_wrong_or_prying_where_is_refused_in_one_line(trials: pa.Table, where: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        query.matching(trials, where)
    assert "\n" not in str(caught.value)


def test_a_wrong_sort_names_the_columns_there_are(trials: pa.Table) -> None:
    with pytest.raises(InputError, match=r"--sort 'acuracy'.*accuracy"):
        query.sort_rows(query.leaderboard(trials), "acuracy")


def test_failed_trials_only_are_a_row_without_a_rank() -> None:
    board = query.leaderboard(files.records_to_table("trials", [trial(status="failed", model="a")]))
    row = board.to_pylist()[0]
    assert (row["failed"], row["rank"], row["accuracy"]) == (1, None, None)


def test_no_non_finite_leaves_the_query(trials: pa.Table) -> None:
    for row in query.leaderboard(trials).to_pylist():
        assert not any(isinstance(value, float) and math.isnan(value) for value in row.values())
