"""Tests of one rank's run: what it evaluates, records, keeps and resumes, and when it stops."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import pytest
import torch

from sst2_ray.config.train import TrainConfig
from sst2_ray.data.batching import epoch_permutation
from sst2_ray.modeling.optimizer import lr_factor, num_warmup_steps
from sst2_ray.records import EpochRecord
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint import files as ckpt
from sst2_ray.training.checkpoint import writer
from sst2_ray.training.context import best_of, better, is_out_of_patience
from sst2_ray.training.engine.base import NonFiniteError
from sst2_ray.training.loop import Loop
from tests.support.flash import compute_with_flash
from tests.support.training import (
    InterruptedRun,
    Recorder,
    context_of,
    digest_of,
    interrupt_after,
    record_losses,
    training_rows,
)

ROWS, DEV_ROWS, STEPS = 100, 24, 7  # 7 steps an epoch, the last one of 4 rows


@pytest.fixture
def loop_of(sbert_folder, tmp_path):
    """Return a function that makes a loop on the toy SBERT, 2 epochs of 100 rows in batches of 16, in fp32 on plain torch."""

    def make(*, run: str = "run", resume: bool = False, micro_batch_tokens: int = 256, **values) -> Loop:
        defaults = {"engine": "torch", "batch_size": 16, "epochs": 2, "precision": "fp32", "learning_rate": 1e-3}
        config = TrainConfig(model=str(sbert_folder), **{**defaults, **values})
        return Loop(
            context_of(
                config,
                training_rows(ROWS),
                training_rows(DEV_ROWS),
                Storage.open(str(tmp_path / run)),
                resume=resume,
                micro_batch_tokens=micro_batch_tokens,
            )
        )

    return make


def told(loop: Loop) -> Recorder:
    return loop.context.reporter


def checkpoints_of(loop: Loop) -> list[int]:
    loop.wait_for_checkpoint()
    return ckpt.committed_steps(loop.context.run)


def what_counts(record: EpochRecord) -> dict:
    """Return a record without the clock's part."""
    clock = ("seconds", "examples_per_sec", "tokens_per_sec", "written_at")
    return {name: value for name, value in dataclasses.asdict(record).items() if name not in clock}


# ---- what is recorded


def test_there_is_a_record_an_evaluation_with_the_step_and_the_epoch(loop_of):
    loop = loop_of(evaluations_per_epoch=2)
    loop.train()
    assert [(r.global_step, r.epoch) for r in told(loop).records] == [(4, 4 / 7), (7, 1), (11, 11 / 7), (14, 2)]
    assert {(r.split, r.num_dev_rows) for r in told(loop).records} == {("dev", DEV_ROWS)}
    assert told(loop).steps == list(range(1, 15))


def test_the_training_loss_is_the_mean_over_the_examples_since_the_evaluation_before(loop_of):
    loop = loop_of()
    losses = record_losses(loop)
    loop.train()
    sizes = [16] * 6 + [4]
    for number, record in enumerate(told(loop).records):
        epoch = losses[number * STEPS : (number + 1) * STEPS]
        expected = sum(loss * size for loss, size in zip(epoch, sizes, strict=True)) / ROWS
        assert record.train_loss == pytest.approx(expected, rel=1e-9)


def test_the_learning_rate_rises_and_falls_to_nearly_0(loop_of):
    loop = loop_of(warmup_fraction=0.3)
    rates = []
    loop.context.on_step = lambda _: rates.append(loop.learning_rate)
    loop.train()
    warmup = num_warmup_steps(14, 0.3)
    assert rates == [1e-3 * lr_factor(step, 14, warmup) for step in range(14)]
    assert told(loop).records[-1].learning_rate == rates[-1]


def test_it_learns_what_can_be_learned(loop_of):
    loop = loop_of(epochs=6, learning_rate=3e-3)
    loop.train()
    losses = [r.train_loss for r in told(loop).records]
    assert losses[-1] < 0.75 * losses[0]


def test_a_result_holds_the_best_evaluation_and_its_logits(loop_of):
    loop = loop_of(epochs=3)
    result = loop.train()
    best = max(result.records, key=lambda r: (r.dev_accuracy, -r.global_step))
    assert result.best == best
    assert told(loop).best_at[-1] == best.global_step
    right = result.best_logits.argmax(axis=1) == loop.context.evaluation.labels
    assert right.mean() == pytest.approx(best.dev_accuracy)


@pytest.mark.parametrize(
    ("accuracy", "loss", "wins"),
    [(0.9, 0.1, True), (0.8, 0.0, False), (0.7, 0.0, False), (math.nan, 0.1, False), (0.9, math.nan, False),
     (None, 0.1, False)],
)  # fmt: skip
def test_the_better_evaluation_is_more_accurate_ties_go_to_the_earlier(accuracy, loss, wins):
    key = {"experiment": "e", "trial_id": "t", "attempt": 0, "split": "dev", "global_step": 1, "epoch": 1.0}
    before = EpochRecord(**key, dev_accuracy=0.8, dev_loss=0.5)
    assert better(EpochRecord(**key, dev_accuracy=accuracy, dev_loss=loss), before) is wins


@pytest.mark.parametrize(
    ("metric", "better_value", "worse_value"),
    [("mcc", 0.4, 0.3), ("macro_f1", 0.7, 0.6), ("auroc", 0.9, 0.8), ("loss", 0.2, 0.3)],
)
def test_the_metric_that_was_chosen_decides_which_evaluation_is_better(metric, better_value, worse_value):
    def evaluation(step: int, value: float, accuracy: float) -> EpochRecord:
        values = {"dev_loss": 0.5, "dev_accuracy": accuracy, f"dev_{metric}": value}
        key = {"experiment": "e", "trial_id": "t", "attempt": 0, "split": "dev", "epoch": float(step)}
        return EpochRecord(**key, global_step=step, **values)

    records = [evaluation(1, worse_value, 0.9), evaluation(2, better_value, 0.8), evaluation(3, better_value, 0.95)]
    assert best_of(records, metric) is records[1]
    assert best_of(records).global_step == 3
    assert is_out_of_patience(records, 1, metric)
    assert not is_out_of_patience(records, 1)


@pytest.mark.parametrize("metric", ["mcc", "auroc", "loss"])
def test_a_run_is_judged_by_the_metric_that_was_chosen(loop_of, metric):
    loop = loop_of(epochs=3, choose_by=metric)
    result = loop.train()
    sign = -1 if metric == "loss" else 1
    values = [sign * getattr(record, f"dev_{metric}") for record in result.records]
    assert result.best is result.records[values.index(max(values))]
    assert all(record.score_error > 0 for record in result.records)


def test_the_error_of_an_accuracy_is_not_stored(loop_of):
    assert {record.score_error for record in loop_of(epochs=1).train().records} == {None}


def test_every_batch_of_an_evaluation_is_told(loop_of):
    """A long evaluation then does not look like one that hangs."""
    loop = loop_of(epochs=1, micro_batch_tokens=16)
    loop.train()
    assert told(loop).batches > 4


# ---- what does not change the numbers


def test_micro_batches_change_nothing_but_the_order_of_summation(loop_of):
    runs = []
    for tokens in (64, 256, 4096):
        loop = loop_of(run=f"run-{tokens}", micro_batch_tokens=tokens, encoder_dropout=0.1)
        losses = record_losses(loop)
        loop.train()
        runs.append(losses)
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)
    assert runs[2] == pytest.approx(runs[0], rel=1e-5)


def test_a_batch_laid_end_to_end_trains_as_a_padded_one_does(loop_of, monkeypatch):
    losses = []
    for name in ("padded", "end to end"):
        loop = loop_of(run=name, dropout=0.1, encoder_dropout=0.0)
        if name == "end to end":
            compute_with_flash(loop.context.model, monkeypatch)
        losses.append(record_losses(loop))
        loop.train()
        assert loop.context.timer.num_padded_tokens == loop.context.timer.num_tokens
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(loop_of):
    digests = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)  # what a process drew before does not matter
        loop = loop_of(run=f"run-{number}", seed=seed)
        loop.train()
        digests.append(digest_of(loop.context.model))
    assert digests[0] == digests[1] != digests[2]


def test_evaluating_more_often_does_not_change_the_weights(loop_of):
    digests = []
    for number, evaluations in enumerate((1, 3)):
        loop = loop_of(run=f"run-{number}", evaluations_per_epoch=evaluations)
        loop.train()
        digests.append(digest_of(loop.context.model))
    assert digests[0] == digests[1]


# ---- resume


@pytest.mark.parametrize("step", [1, 4, 7, 9, 13])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(loop_of, step):
    options = {"checkpoint_every_steps": 2, "encoder_dropout": 0.1, "evaluations_per_epoch": 2, "keep_checkpoints": 9}
    whole = loop_of(run="whole", **options)
    whole.train()

    first = loop_of(**options)
    interrupt_after(first, step)
    with pytest.raises(InterruptedRun):
        first.train()
    newest = max(checkpoints_of(first), default=0)
    again = loop_of(resume=True, **options)
    result = again.train()
    assert digest_of(again.context.model) == digest_of(whole.context.model)
    assert [what_counts(r) for r in result.records] == [what_counts(r) for r in told(whole).records]
    assert told(again).steps[0] == newest + 1


def test_a_run_whose_last_step_is_on_storage_only_has_to_say_its_result(loop_of):
    whole = loop_of()
    expected = whole.train()
    again = loop_of(resume=True)
    result = again.train()
    assert told(again).steps == []
    assert [what_counts(r) for r in result.records] == [what_counts(r) for r in expected.records]
    assert digest_of(again.context.model) == digest_of(whole.context.model)


def test_patience_that_ran_out_before_a_restart_stays_run_out(loop_of):
    options = {"learning_rate": 1e-12, "patience": 1, "epochs": 5}
    first = loop_of(**options)
    first.train()
    first.wait_for_checkpoint()
    again = loop_of(resume=True, **options)
    assert again.train().global_step == 2 * STEPS
    assert told(again).steps == []


def test_where_the_weights_of_the_best_evaluation_are_gone_the_best_of_the_others_is_the_best(loop_of):
    """A newer checkpoint was better, so that the best one before went, and is damaged."""
    options = {"learning_rate": 1e-12, "epochs": 5}  # all evaluations are equal: the first is the best
    first = loop_of(**options)
    first.train()
    assert checkpoints_of(first) == [7, 28, 35]
    for step in (7, 35):
        first.context.run.delete(ckpt.step_folder(step))
    again = loop_of(resume=True, **options)
    result = again.train()
    assert [record.global_step for record in result.records] == [7, 14, 21, 28, 35]
    assert result.best.global_step == 28
    assert checkpoints_of(again) == [28, 35]


# ---- checkpoints


@pytest.mark.parametrize(("storage_timeout_s", "is_alive"), [(60.0, True), (1e-9, False)])
def test_waiting_for_storage_is_a_sign_of_life_as_long_as_it_is_tried_again(
    loop_of, monkeypatch, storage_timeout_s, is_alive
):
    monkeypatch.setattr(writer, "WAIT_S", 0.01)
    loop = loop_of(storage_timeout_s=storage_timeout_s)
    monkeypatch.setattr(loop.writer, "_write", lambda _: time.sleep(0.3))
    loop.writer.save(loop.snapshot())
    loop.wait_for_checkpoint()
    assert (told(loop).batches > 2) is is_alive
    loop.writer.save(loop.snapshot())
    loop._checkpoint()  # waits for the one before
    assert (told(loop).batches > 4) is is_alive


def test_there_is_a_checkpoint_an_evaluation(loop_of):
    loop = loop_of(epochs=3, keep_checkpoints=9)
    loop.train()
    assert checkpoints_of(loop) == [7, 14, 21]


def test_there_are_checkpoints_inside_an_epoch_where_they_are_asked_for(loop_of):
    loop = loop_of(checkpoint_every_steps=3, keep_checkpoints=99)
    loop.train()
    assert checkpoints_of(loop) == [3, 6, 7, 9, 12, 14]


def test_seconds_between_checkpoints_count_as_well(loop_of):
    loop = loop_of(checkpoint_every_s=1e-9, keep_checkpoints=99)
    loop.train()
    assert checkpoints_of(loop) == list(range(1, 15))


def test_the_newest_and_the_best_are_kept(loop_of):
    loop = loop_of(epochs=5, learning_rate=1e-12)  # all evaluations are equal: the first is the best
    loop.train()
    assert checkpoints_of(loop) == [7, 28, 35]


def test_the_best_one_of_a_checkpoint_is_kept_until_the_next_is_whole(loop_of, monkeypatch):
    """The next evaluation may be better and known before its checkpoint is on storage: a kill must not leave a
    checkpoint whose best weights are gone."""
    loop = loop_of(epochs=5, learning_rate=1e-12, keep_checkpoints=1)
    save = loop.writer.save
    kept = []

    def saved_while_a_better_one_is_known(snapshot) -> None:
        loop.writer.wait()
        better_one = dataclasses.replace(loop.records[-1], dev_accuracy=1.0, global_step=99)
        loop.records.append(better_one)
        save(snapshot)
        loop.writer.wait()
        kept.append(checkpoints_of(loop))
        loop.records.remove(better_one)

    monkeypatch.setattr(loop.writer, "save", saved_while_a_better_one_is_known)
    loop.train()
    assert kept == [[7], [7, 14], [7, 21], [7, 28], [7, 35]]


# ---- stopping


def test_max_steps_ends_the_run_and_the_schedule_there(loop_of):
    loop = loop_of(max_steps=9)
    result = loop.train()
    assert [r.global_step for r in result.records] == [7, 9]
    assert result.stop is None
    assert loop.total_steps == 9


def test_it_stops_after_so_many_evaluations_without_a_better_one(loop_of):
    loop = loop_of(learning_rate=1e-12, patience=2, epochs=9)
    result = loop.train()
    assert [r.global_step for r in result.records] == [7, 14, 21]
    assert loop.out_of_patience
    assert result.stop is None


def test_it_stops_where_somebody_asks_and_goes_on_from_there(loop_of):
    loop = loop_of(epochs=3)
    told(loop).stop_after = 7
    result = loop.train()
    assert (result.stop, result.global_step, checkpoints_of(loop)) == ("stopped", 7, [7])
    again = loop_of(epochs=3, resume=True)
    assert again.train().stop is None
    assert told(again).steps == list(range(8, 22))


def test_at_its_end_a_run_has_not_been_stopped(loop_of):
    loop = loop_of()
    told(loop).stop_after = 14
    assert loop.train().stop is None


def test_ranks_that_meet_after_a_step_communicate(loop_of):
    """A rank that waits there for one that hangs is then not taken for it."""
    loop, phases = loop_of(), []
    loop.control.preemption_requested = lambda: phases.append(loop.context.timer.current)
    loop.train()
    assert set(phases) == {"communication"}


# ---- not a number


def test_a_gradient_that_is_no_number_stops_the_run_with_step_rate_and_rows(loop_of):
    loop = loop_of()

    def poison(done: int) -> None:
        if done == 9:
            with torch.no_grad():
                loop.context.model.head.weight.fill_(math.nan)

    loop.context.on_step = poison
    with pytest.raises(NonFiniteError) as caught:
        loop.train()
    rows = epoch_permutation(ROWS, seed=0, epoch=1)[32:48].tolist()
    rate = 1e-3 * lr_factor(9, 14, loop.warmup_steps)
    assert f"gradient norm nan at step 10 of 14, learning rate {rate:.3g}" in str(caught.value)
    assert f"training rows {', '.join(map(str, rows[:5]))}, ... (16 rows; all in the log)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_non_finite_is_never_saved(loop_of):
    loop = loop_of(checkpoint_every_steps=1, learning_rate=1e20, warmup_fraction=0.0, keep_checkpoints=99)
    with pytest.raises(NonFiniteError):
        loop.train()
    loop.writer.wait()
    for step in checkpoints_of(loop):
        with torch.no_grad():
            ckpt.fetch(loop.context.run, step, Path()).load_model(loop.context.model)
        assert all(bool(p.isfinite().all()) for p in loop.context.model.parameters())


# ---- clipping


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_recorded(loop_of):
    norms = {}
    for limit in (0.0, 1e-6):
        loop = loop_of(run=f"run-{limit}", max_grad_norm=limit, max_steps=1)
        loop.train()
        norms[limit] = told(loop).records[0].grad_norm
    assert norms[0.0] == pytest.approx(norms[1e-6], rel=1e-6)
    assert norms[0.0] > 1e-3


def test_who_is_asked_to_leave_writes_a_checkpoint_and_another_attempt_ends_as_if_nothing_had_been(loop_of):
    whole = loop_of(run="whole")
    whole.train()
    left = loop_of()
    left.control.preemption_requested = lambda: left.global_step == 3
    left.control.interval_s = 0.0  # a meeting after every step
    assert left.train() is None
    assert checkpoints_of(left) == [3]
    again = loop_of(resume=True)
    assert again.train() is not None
    assert digest_of(again.context.model) == digest_of(whole.context.model)
