"""Limits of a study's figures in sentences: what was not measured, and what the figures do not say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sst2_ray import formatting
from sst2_ray.records import Status
from sst2_ray.results.analysis.findings import Study
from sst2_ray.results.analysis.published import SST2_DEV, SST2_TRAIN_ROWS
from sst2_ray.results.analysis.ranking import RankedGroup


def not_measured(study: Study) -> list[str]:
    """List what the figures do not say."""
    if study.main is None:
        return []
    return [*_lacks_of_models(study), *_lacks_of_evidence(study, study.main), *_lacks_of_data(study)]


def _lacks_of_models(study: Study) -> Iterator[str]:
    kinds = {c.setting("model_kind") for c in study.configurations}
    for kind, name in (("modernbert", "ModernBERT"), ("sbert", "SBERT")):
        if kind not in kinds and not study.comparisons:
            yield f"No {name} run succeeded on this data, so ModernBERT and SBERT are not compared."
    if {"modernbert", "sbert"} <= kinds and study.head_to_head is None:
        yield "ModernBERT and SBERT are not compared: they were not chosen by the same metric."
    if study.head_to_head is not None and len(study.head_to_head.moments) < 2:
        yield "ModernBERT and SBERT are not compared at equal epochs or time: a run has no evaluations or no times."
    random = sorted({str(c.setting("model")) for c in study.configurations if c.setting("random_weights")})
    if random:
        yield f"{formatting.join(random)} began with random weights: this says nothing about the pretrained model."


def _lacks_of_evidence(study: Study, main: RankedGroup) -> Iterator[str]:
    num_running = study.trials.column("status").to_pylist().count(Status.RUNNING)
    if num_running:
        yield f"{formatting.count(num_running, 'trial')} had not ended when this was made: the ranking may change."
    if all(len(c.runs) == 1 for c in main.configurations):
        yield "Each configuration ran under one seed: how much of a difference is luck of the seed is not known."
    if len({len(c.runs) for c in main.configurations}) > 1:
        yield "Configurations have different numbers of seeds: a mean of few seeds is less certain, and its interval wider."
    if len(study.groups) > 1:
        yield "Configurations that were chosen in another way are listed but not ranked with the others."
    by = main.chosen_by
    lacks = Counter(lack for c in main.configurations if (lack := study.selected_on.lack(c, by)) is not None)
    for lack, num in lacks.items():
        said = lack.of([f"{num} of {formatting.count(len(main.configurations), 'configuration')}"])
        yield f"{said[0].upper()}{said[1:]}: no difference from them can be decided."
    if main.on_selection and not main.is_reported_on_dev(main.best):
        yield "The chosen configuration has not been scored on dev: its sweep has not ended."


def _lacks_of_data(study: Study) -> Iterator[str]:
    if all(c.summary("cost_usd") is None for c in study.configurations):
        yield "Cost: no price was given."
    rows = max((c.setting("num_train_rows") or 0 for c in study.configurations), default=0)
    if study.is_sst2 and 0 < rows < SST2_TRAIN_ROWS:
        yield f"Trained on at most {rows:,} rows; the published figures stand on all {SST2_TRAIN_ROWS:,}."
    if not study.is_sst2:
        yield f"Published figures are for {SST2_DEV}, not for this data, and are not shown."
