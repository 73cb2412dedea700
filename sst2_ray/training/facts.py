"""The facts of a finished attempt, out of its loop's context and metrics."""

from __future__ import annotations

from sst2_ray.config.metrics import Metric
from sst2_ray.records import EpochRecord
from sst2_ray.training.context import LoopContext
from sst2_ray.training.metrics import Metrics
from sst2_ray.training.outcome import EvaluationFacts, ModelFacts, PhaseSeconds, SpeedFacts
from sst2_ray.training.throughput import model_flop_utilization, model_flops_per_token, peak_flops


def evaluation_facts(epoch: float, global_step: int, dev: Metrics | None, metric: Metric) -> EvaluationFacts:
    """State an evaluation; `dev` None: it was not scored on dev (yet). `metric`: the one that the run is chosen by."""
    return EvaluationFacts(
        epoch=epoch,
        global_step=global_step,
        dev_accuracy=dev.accuracy if dev else None,
        dev_f1=dev.f1 if dev else None,
        dev_loss=dev.loss if dev else None,
        dev_macro_f1=dev.macro_f1 if dev else None,
        dev_mcc=dev.mcc if dev else None,
        dev_auroc=dev.auroc if dev else None,
        dev_pearson=dev.pearson if dev else None,
        dev_spearman=dev.spearman if dev else None,
        score=dev.score(metric) if dev else None,
        num_answered=dev.num_answered if dev else None,
    )


def split_scores(metrics: Metrics, metric: Metric) -> dict[str, float]:
    """Return the scores on a further evaluation split: accuracy, the metric that the run is chosen by, rows."""
    known = {"accuracy": metrics.accuracy, metric: metrics.score(metric), "num_rows": metrics.num_rows}
    return {name: value for name, value in known.items() if value is not None}


def model_facts(context: LoopContext) -> ModelFacts:
    """State the model as it was built."""
    model, info = context.model, context.model.info
    return ModelFacts(
        kind=info.kind,
        source=info.source,
        revision=info.revision,
        random_weights=info.random_weights,
        num_parameters=sum(p.numel() for p in model.parameters()),
        attention=info.attention,
        precision="bf16" if context.bf16 else "fp32",
        engine=context.config.engine,
    )


def speed_facts(context: LoopContext, *, peak_gib: float, started_at: float, first_step_at: float | None) -> SpeedFacts:
    """State time, speed and memory.

    Args:
        context: Of the loop.
        peak_gib: Largest peak of memory over all ranks.
        started_at: time.time() at the start of the attempt.
        first_step_at: Likewise of its first step; None: it took none.
    """
    timer = context.timer
    spent = timer.training_seconds if timer.num_examples else 0.0
    tokens_per_sec = timer.num_tokens / spent if spent else None
    return SpeedFacts(
        startup_seconds=first_step_at - started_at if first_step_at else None,
        phases=PhaseSeconds(**timer.phase_seconds()),
        examples_per_sec=timer.num_examples / spent if spent else None,
        tokens_per_sec=tokens_per_sec,
        padding_fraction=1 - timer.num_tokens / timer.num_padded_tokens if timer.num_padded_tokens else None,
        model_flop_utilization=model_flop_utilization(
            tokens_per_sec=tokens_per_sec,
            flops_per_token=model_flops_per_token(context.model),
            world_size=context.world_size,
            peak=peak_flops(context.device, bf16=context.bf16),
        )
        if tokens_per_sec
        else None,
        peak_memory_gib=peak_gib,
        world_size=context.world_size,
        micro_batch_tokens=context.micro_batch_tokens,
    )


def metrics_of(record: EpochRecord) -> Metrics:
    """Read the metrics of a record that the loop made; it fills in every one."""
    return Metrics(
        loss=record.dev_loss or 0.0,
        accuracy=record.dev_accuracy,
        f1=record.dev_f1,
        precision=record.dev_precision,
        recall=record.dev_recall,
        macro_f1=record.dev_macro_f1,
        weighted_f1=record.dev_weighted_f1,
        mcc=record.dev_mcc,
        auroc=record.dev_auroc,
        pearson=record.dev_pearson,
        spearman=record.dev_spearman,
        num_answered=record.num_answered,
        num_rows=record.num_dev_rows or 0,
    )
