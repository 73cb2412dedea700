"""A global batch is exactly what was asked for, however many workers share it and however it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sst2_ray.data.batching import (
    StepPlan,
    collate,
    deal,
    epoch_permutation,
    largest_micro_batch,
    plan_epoch,
    plan_evaluation,
    steps_per_epoch,
)
from tests.support.tokens import review_lengths, token_arrays

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=80)
WORLDS = st.integers(1, 7)
MAX_TOKENS = st.integers(1, 300)
BATCHES = st.integers(1, 90)
PADDING = st.sampled_from([None, 40])


def plans_of(tokens, world_size: int, *, seed=0, epoch=0, **options) -> list[tuple[StepPlan, ...]]:
    """List the plans of all ranks for every step."""
    ranks = [
        list(plan_epoch(tokens, seed=seed, epoch=epoch, rank=rank, world_size=world_size, **options))
        for rank in range(world_size)
    ]
    return list(zip(*ranks, strict=True))


def rows_and_weights(step: tuple[StepPlan, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Concatenate the rows and weights of all micro-batches of all ranks."""
    micro = [m for plan in step for m in plan.micro_batches]
    return np.concatenate([m.rows for m in micro]), np.concatenate([m.weights for m in micro])


def padded_tokens(plan: StepPlan) -> int:
    return sum(len(m.rows) * m.width for m in plan.micro_batches)


# ---- what a global batch is


@given(lengths=LENGTHS, world=WORLDS, max_tokens=MAX_TOKENS, batch=BATCHES, pad_to=PADDING)
def test_every_row_is_computed_exactly_once_an_epoch(lengths, world, max_tokens, batch, pad_to):
    steps = plans_of(token_arrays(lengths), world, batch_size=batch, max_tokens=max_tokens, pad_to=pad_to)
    computed = [rows[weights > 0] for rows, weights in map(rows_and_weights, steps)]
    assert sorted(np.concatenate(computed)) == list(range(len(lengths)))


@given(lengths=LENGTHS, world=WORLDS, max_tokens=MAX_TOKENS, batch=BATCHES)
def test_a_global_batch_holds_exactly_batch_size_rows_and_the_last_one_what_is_left(lengths, world, max_tokens, batch):
    steps = plans_of(token_arrays(lengths), world, batch_size=batch, max_tokens=max_tokens)
    sizes = [int((rows_and_weights(step)[1] > 0).sum()) for step in steps]
    left = len(lengths) % batch
    assert sizes == [batch] * (len(lengths) // batch) + ([left] if left else [])
    assert len(steps) == steps_per_epoch(len(lengths), batch)


@given(lengths=LENGTHS, world=WORLDS, max_tokens=MAX_TOKENS, batch=BATCHES)
def test_the_rows_of_a_step_are_those_of_the_permutation(lengths, world, max_tokens, batch):
    order = epoch_permutation(len(lengths), seed=0, epoch=0)
    for step in plans_of(token_arrays(lengths), world, batch_size=batch, max_tokens=max_tokens):
        rows, weights = rows_and_weights(step)
        first = step[0].step_in_epoch * batch
        for plan in step:
            np.testing.assert_array_equal(plan.global_rows, order[first : first + batch])
        assert sorted(rows[weights > 0]) == sorted(order[first : first + batch])


@given(lengths=LENGTHS, world=WORLDS, max_tokens=MAX_TOKENS, batch=BATCHES)
def test_every_row_weighs_the_same_and_all_ranks_together_weigh_1(lengths, world, max_tokens, batch):
    for step in plans_of(token_arrays(lengths), world, batch_size=batch, max_tokens=max_tokens):
        _, weights = rows_and_weights(step)
        assert set(weights[weights > 0]) == {np.float32(1 / len(step[0].global_rows))}
        assert weights.astype(np.float64).sum() == pytest.approx(1, abs=1e-6)


# ---- how it is cut


@given(lengths=LENGTHS, world=WORLDS, max_tokens=MAX_TOKENS, batch=BATCHES, pad_to=PADDING)
def test_all_ranks_have_the_same_number_of_micro_batches_and_none_is_empty(lengths, world, max_tokens, batch, pad_to):
    for step in plans_of(token_arrays(lengths), world, batch_size=batch, max_tokens=max_tokens, pad_to=pad_to):
        assert len({len(plan.micro_batches) for plan in step}) == 1
        assert all(len(m.rows) for plan in step for m in plan.micro_batches)


@given(lengths=LENGTHS, world=WORLDS, max_tokens=MAX_TOKENS, batch=BATCHES)
def test_a_filler_row_weighs_nothing_and_stands_alone_on_a_rank_that_has_no_row(lengths, world, max_tokens, batch):
    for step in plans_of(token_arrays(lengths), world, batch_size=batch, max_tokens=max_tokens):
        for plan in step:
            for micro in plan.micro_batches:
                assert (micro.weights > 0).all() or (len(micro.rows), micro.weights[0]) == (1, 0)
                assert set(micro.rows) <= set(plan.global_rows)


@given(lengths=LENGTHS, world=WORLDS, max_tokens=MAX_TOKENS, batch=BATCHES)
def test_a_micro_batch_is_as_wide_as_its_longest_row_and_within_the_bound(lengths, world, max_tokens, batch):
    for step in plans_of(token_arrays(lengths), world, batch_size=batch, max_tokens=max_tokens):
        for plan in step:
            for micro in plan.micro_batches:
                assert micro.width == max(lengths[row] for row in micro.rows)
                assert len(micro.rows) * micro.width <= max_tokens or len(micro.rows) == 1


@given(lengths=LENGTHS, world=WORLDS, max_tokens=MAX_TOKENS, batch=BATCHES, pad_to=PADDING)
def test_the_plan_counts_the_tokens_of_all_ranks(lengths, world, max_tokens, batch, pad_to):
    for step in plans_of(token_arrays(lengths), world, batch_size=batch, max_tokens=max_tokens, pad_to=pad_to):
        real = sum(lengths[row] for row in step[0].global_rows)
        padded = sum(padded_tokens(plan) for plan in step)
        assert {(plan.num_tokens, plan.num_padded_tokens) for plan in step} == {(real, padded)}


@given(lengths=LENGTHS, world=WORLDS, max_tokens=MAX_TOKENS, batch=BATCHES, pad_to=PADDING)
def test_ranks_differ_by_no_more_than_one_micro_batch(lengths, world, max_tokens, batch, pad_to):
    for step in plans_of(token_arrays(lengths), world, batch_size=batch, max_tokens=max_tokens, pad_to=pad_to):
        loads = [padded_tokens(plan) for plan in step]
        dearest = max(len(m.rows) * m.width for plan in step for m in plan.micro_batches)
        assert max(loads) - min(loads) <= dearest


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_on_sentences_like_sst2s_ranks_are_within_a_tenth_and_a_third_at_most_is_padding(world):
    tokens = token_arrays(review_lengths(2048))
    steps = plans_of(tokens, world, batch_size=64, max_tokens=512)
    loads = np.array([[padded_tokens(plan) for plan in step] for step in steps])
    assert (loads.max(axis=1) / loads.mean(axis=1)).mean() < 1.1
    assert 1 - len(tokens.input_ids) / loads.sum() < 1 / 3


@given(lengths=LENGTHS, world=WORLDS, max_tokens=MAX_TOKENS)
def test_padding_to_a_fixed_width_makes_every_row_that_wide(lengths, world, max_tokens):
    for step in plans_of(token_arrays(lengths), world, batch_size=16, max_tokens=max_tokens, pad_to=40):
        assert {m.width for plan in step for m in plan.micro_batches} == {40}


@pytest.mark.parametrize("packed", [False, True])
@given(lengths=LENGTHS, world=WORLDS, max_tokens=st.sampled_from([60, 10_000]), batch=BATCHES, pad_to=PADDING)
def test_half_of_the_largest_micro_batch_is_a_smaller_one(packed, lengths, world, max_tokens, batch, pad_to):
    """The limit alone may be far above what is computed: half of it would change nothing."""
    tokens, packed = token_arrays(lengths), packed and pad_to is None
    cut = {"batch_size": batch, "pad_to": pad_to, "packed": packed}

    def sizes(limit: int) -> list[int]:
        plans = [plan for step in plans_of(tokens, world, max_tokens=limit, **cut) for plan in step]
        micro = [m for plan in plans for m in plan.micro_batches]
        return [int(tokens.lengths[m.rows].sum()) if packed else len(m.rows) * m.width for m in micro]

    found = largest_micro_batch(tokens, seed=0, world_size=world, max_tokens=max_tokens, **cut)
    assert found in sizes(max_tokens)
    half = max(1, found // 2)
    assert max(sizes(half)) <= max(half, pad_to or max(lengths))


@given(costs=st.lists(st.integers(1, 100), min_size=1, max_size=30), world=WORLDS)
def test_every_piece_is_dealt_to_one_rank_and_no_rank_gets_more_than_its_share(costs, world):
    shares = deal(costs, world_size=world)
    assert sorted(piece for share in shares for piece in share) == list(range(len(costs)))
    assert max(map(len, shares)) == -(-len(costs) // world)


def test_the_next_dearest_piece_goes_to_the_rank_with_least_to_do():
    assert deal([9, 6, 5, 2], world_size=2) == [[0, 3], [1, 2]]


# ---- order and resume


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {(s, e): epoch_permutation(50, seed=s, epoch=e).tolist() for s in range(3) for e in range(3)}
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len(set(map(tuple, orders.values()))) == 9
    assert orders[1, 2] == epoch_permutation(50, seed=1, epoch=2).tolist()


@given(lengths=LENGTHS, world=WORLDS, batch=st.integers(1, 20), data=st.data())
def test_a_run_that_resumes_inside_an_epoch_gets_the_plans_it_would_have_had(lengths, world, batch, data):
    tokens = token_arrays(lengths)
    options = {"seed": 5, "epoch": 2, "batch_size": batch, "max_tokens": 64, "rank": world - 1, "world_size": world}
    whole = list(plan_epoch(tokens, **options))
    first = data.draw(st.integers(0, len(whole)))
    resumed = list(plan_epoch(tokens, first_step=first, **options))
    assert repr(resumed) == repr(whole[first:])


def test_steps_are_numbered_through_all_epochs():
    tokens = token_arrays([3] * 10)
    numbers = [
        (plan.epoch, plan.step_in_epoch, plan.global_step)
        for epoch in range(2)
        for (plan,) in plans_of(tokens, 1, epoch=epoch, batch_size=4, max_tokens=64)
    ]
    assert numbers == [(0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 3), (1, 1, 4), (1, 2, 5)]


# ---- evaluation, and what the model gets


@given(lengths=LENGTHS, world=WORLDS, max_tokens=MAX_TOKENS)
def test_an_evaluation_computes_every_row_on_exactly_one_rank(lengths, world, max_tokens):
    tokens = token_arrays(lengths)
    batches = [
        b for r in range(world) for b in plan_evaluation(tokens, rank=r, world_size=world, max_tokens=max_tokens)
    ]
    rows = np.concatenate([b.rows for b in batches])
    assert sorted(rows) == list(range(len(lengths)))
    assert all(b.width == max(lengths[row] for row in b.rows) for b in batches)
    assert all(len(b.rows) * b.width <= max_tokens or len(b.rows) == 1 for b in batches)


@settings(max_examples=50)
@given(lengths=LENGTHS, max_tokens=MAX_TOKENS, pad_to=PADDING)
def test_rows_are_padded_on_the_right_and_masked(lengths, max_tokens, pad_to):
    tokens = token_arrays(lengths)
    for (plan,) in plans_of(tokens, 1, batch_size=16, max_tokens=max_tokens, pad_to=pad_to):
        for micro in plan.micro_batches:
            ids, mask = collate(tokens, micro, pad_id=999)
            assert ids.dtype == mask.dtype == np.int64
            for row, some_ids, some_mask in zip(micro.rows, ids, mask, strict=True):
                sentence = tokens.input_ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()
                padding = micro.width - len(sentence)
                assert some_ids.tolist() == sentence + [999] * padding
                assert some_mask.tolist() == [1] * len(sentence) + [0] * padding
