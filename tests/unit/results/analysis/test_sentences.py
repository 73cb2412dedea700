"""The sentences of a verdict, each in full, with the study that gives it.

The last test finds the words in the code of which no sentence stands here.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sst2_ray.results.analysis import limits, methods, verdict, wording
from sst2_ray.results.analysis.comparison import Comparison, compare, margin_of, with_holm
from sst2_ray.results.analysis.findings import studies
from sst2_ray.results.analysis.lacks import Lack
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.statistics import crossed
from tests.support.answered import put, wrong_at
from tests.support.studies import Tried, write
from tests.support.worlds import World, configuration, evidence


def said(table: ResultsTable, *tried: Tried, margin: float = 0.005) -> list[str]:
    """Return headline, verdict, and what was not measured, as a sweep and a report print them."""
    study = write(table, *tried, margin=margin)[0]
    notes = [f"note: {one}" for one in limits.not_measured(study)]
    return [verdict.headline(study), *verdict.sentences(study), *notes]


STUDIES = {
    "nothing succeeded": (
        [Tried(model="sbert", wrong=[9, 9], status="failed")],
        """
        Nothing to compare: no trial succeeded.
        No trial on this data succeeded, so there is nothing to compare.
        """,
    ),
    "one configuration, one seed": (
        [Tried(model="sbert", wrong=[20])],
        """
        Best: sbert, lr 8e-5, batch 32, 95.00 % dev accuracy at the best epoch.
        The only configuration is sbert, lr 8e-5, batch 32: 95.00 % dev accuracy at the best epoch (one seed, 95 %
            interval 92.39 to 96.74 for new sentences, but not for new seeds). After its last epoch it stands at 95.00
            %. Always answering the more frequent class scores 50.00 %.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        note: No ModernBERT run succeeded on this data, so ModernBERT and SBERT are not compared.
        note: Each configuration ran under one seed: how much of a difference is luck of the seed is not known.
        note: Cost: no price was given.
        note: Published figures are for SST-2 dev, not for this data, and are not shown.
        """,
    ),
    "a win; another chip": (
        [
            Tried(model="modernbert", wrong=[20, 21, 22], values={"examples_per_sec": 100.0}),
            Tried(model="sbert", wrong=[60, 61, 62], values={"examples_per_sec": 150.0, "chip": "another"}),
        ],
        """
        modernbert beats sbert by 10.00 points.
        The best of 2 configurations, 6 runs, chosen on reviews dev, is modernbert, lr 8e-5, batch 32: 94.75 ± 0.25 %
            dev accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 92.66 to 96.27). After
            its last epoch it stands at 94.75 ± 0.25 %. Always answering the more frequent class scores 50.00 %.
        Its score is too high, by less than 0.01 points, because it was chosen by these very scores among 2
            configurations (bootstrap estimate; the choice of its epochs is not in this figure).
        With 95 % confidence modernbert, lr 8e-5, batch 32 is the best of the 2 configurations.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 94.75 ±
            0.25 % against 84.75 ± 0.25 % dev accuracy at the best epoch; modernbert wins: 10.00 points more accuracy,
            95 % interval +7.36 to +12.64 (p < 0.001; 3 seeds each, all on the same 400 sentences).
        sbert trains 1.50 times as fast as modernbert: 150 against 100 examples/s (not on the same kind of chip).
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        """,
    ),
    "a win of sbert that is smaller than the margin": (
        [
            Tried(model="modernbert", wrong=[21, 21, 21], apart=0),
            Tried(model="sbert", wrong=[14, 14, 14], apart=0),
        ],
        """
        sbert beats modernbert by 1.75 points.
        The best of 2 configurations, 6 runs, chosen on reviews dev, is sbert, lr 8e-5, batch 32: 96.50 ± 0.00 % dev
            accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 94.20 to 97.90, corrected
            for the choice). After its last epoch it stands at 96.50 ± 0.00 %. Always answering the more frequent
            class scores 50.00 %.
        Its score is too high, by about 0.01 points, because it was chosen by these very scores among 2 configurations
            (bootstrap estimate; the choice of its epochs is not in this figure).
        With 95 % confidence sbert, lr 8e-5, batch 32 is the best of the 2 configurations.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 94.75 ±
            0.00 % against 96.50 ± 0.00 % dev accuracy at the best epoch; sbert wins: 1.75 points more accuracy, 95 %
            interval +0.46 to +3.04, a real difference, but smaller than the margin of 5.00 points (p = 0.008; 3 seeds
            each, all on the same 400 sentences).
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        """,
    ),
    "a tie": (
        [Tried(model="modernbert", wrong=[20, 20, 20]), Tried(model="sbert", wrong=[20, 20, 20])],
        """
        A tie: modernbert and sbert differ by 0.00 points.
        The best of 2 configurations, 6 runs, chosen on reviews dev, is modernbert, lr 8e-5, batch 32: 95.00 ± 0.00 %
            dev accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 92.93 to 96.48). After
            its last epoch it stands at 95.00 ± 0.00 %. Always answering the more frequent class scores 50.00 %.
        Its score is too high, by less than 0.01 points, because it was chosen by these very scores among 2
            configurations (bootstrap estimate; the choice of its epochs is not in this figure).
        Which configuration is best is not decided; with 95 % confidence none of the 2 can be ruled out: modernbert,
            lr 8e-5, batch 32; sbert, lr 8e-5, batch 32.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 95.00 ±
            0.00 % against 95.00 ± 0.00 % dev accuracy at the best epoch; a tie: the difference is smaller than the
            margin of 0.50 points (90 % interval −0.41 to +0.41; 3 seeds each, all on the same 400 sentences).
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        """,
    ),
    "not decided": (
        [Tried(model="modernbert", wrong=[20, 28, 24]), Tried(model="sbert", wrong=[24, 22, 28])],
        """
        Not decided: modernbert and sbert differ by 0.17 points.
        The best of 2 configurations, 6 runs, chosen on reviews dev, is modernbert, lr 8e-5, batch 32: 94.00 ± 1.00 %
            dev accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 91.34 to 95.62,
            corrected for the choice). After its last epoch it stands at 94.00 ± 1.00 %. Always answering the more
            frequent class scores 50.00 %.
        Its score is too high, by about 0.17 points, because it was chosen by these very scores among 2 configurations
            (bootstrap estimate; the choice of its epochs is not in this figure).
        Which configuration is best is not decided; with 95 % confidence none of the 2 can be ruled out: modernbert,
            lr 8e-5, batch 32; sbert, lr 8e-5, batch 32.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 94.00 ±
            1.00 % against 93.83 ± 0.76 % dev accuracy at the best epoch; not decided: modernbert leads by 0.17
            points, 95 % interval −0.91 to +1.24 (p = 0.71; 3 seeds each, all on the same 400 sentences); a study of
            this size detects 1.47 points in four of five cases; to detect 0.50 points as often takes 18 seeds of
            each.
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        """,
    ),
    "not decided; seeds alone do not suffice": (
        [
            Tried(model="modernbert", wrong=[20, 21, 22]),
            Tried(model="sbert", wrong=[20, 21, 22], begin=200),
        ],
        """
        Not decided: modernbert and sbert differ by 0.00 points.
        The best of 2 configurations, 6 runs, chosen on reviews dev, is modernbert, lr 8e-5, batch 32: 94.75 ± 0.25 %
            dev accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 92.12 to 95.73,
            corrected for the choice). After its last epoch it stands at 94.75 ± 0.25 %. Always answering the more
            frequent class scores 50.00 %.
        Its score is too high, by about 0.54 points, because it was chosen by these very scores among 2 configurations
            (bootstrap estimate; the choice of its epochs is not in this figure).
        Which configuration is best is not decided; with 95 % confidence none of the 2 can be ruled out: modernbert,
            lr 8e-5, batch 32; sbert, lr 8e-5, batch 32.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 94.75 ±
            0.25 % against 94.75 ± 0.25 % dev accuracy at the best epoch; not decided: their scores are equal, 95 %
            interval −2.63 to +2.63 (p = 1.00; 3 seeds each, all on the same 400 sentences); a study of this size
            detects 3.76 points in four of five cases; to detect 0.50 points as often takes 22,597 sentences; more
            seeds alone do not suffice.
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        """,
    ),
    "not decided; more of both": (
        [
            Tried(model="modernbert", wrong=[10, 70], begin=0),
            Tried(model="sbert", wrong=[12, 74], begin=200),
        ],
        """
        Not decided: modernbert and sbert differ by 0.75 points.
        The best of 2 configurations, 4 runs, chosen on reviews dev, is modernbert, lr 8e-5, batch 32: 90.00 ± 10.61 %
            dev accuracy at the best epoch (mean ± standard deviation of 2 seeds, 95 % interval 4.30 to 95.59,
            corrected for the choice). After its last epoch it stands at 90.00 ± 10.61 %. Always answering the more
            frequent class scores 50.00 %.
        Its score is too high, by about 4.29 points, because it was chosen by these very scores among 2 configurations
            (bootstrap estimate; the choice of its epochs is not in this figure).
        Which configuration is best is not decided; with 95 % confidence none of the 2 can be ruled out: modernbert,
            lr 8e-5, batch 32; sbert, lr 8e-5, batch 32.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 90.00 ±
            10.61 % against 89.25 ± 10.96 % dev accuracy at the best epoch; not decided: modernbert leads by 0.75
            points, 95 % interval −43.81 to +45.31 (p = 0.95; 2 seeds each, all on the same 400 sentences); a study of
            this size detects 55.91 points in four of five cases; to detect 0.75 points as often takes more seeds and
            more sentences.
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        """,
    ),
    "not decided, though the same study again would": (
        [
            Tried(model="modernbert", wrong=[20, 21, 22]),
            Tried(model="sbert", wrong=[33, 32, 36], begin=9),
            Tried(model="sbert-mpnet", wrong=[21, 22, 20], begin=3),
            Tried(model="sbert-minilm", wrong=[22, 22, 21], begin=5),
        ],
        """
        Not decided: modernbert and sbert-mpnet differ by 0.00 points.
        The best of 4 configurations, 12 runs, chosen on reviews dev, is sbert-mpnet, lr 8e-5, batch 32: 94.75 ± 0.25
            % dev accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 92.39 to 96.09,
            corrected for the choice). After its last epoch it stands at 94.75 ± 0.25 %. Always answering the more
            frequent class scores 50.00 %.
        Its score is too high, by about 0.21 points, because it was chosen by these very scores among 4 configurations
            (bootstrap estimate; the choice of its epochs is not in this figure).
        Which configuration is best is not decided; with 95 % confidence it is one of these 3 of the 4: sbert-mpnet,
            lr 8e-5, batch 32; modernbert, lr 8e-5, batch 32; sbert-minilm, lr 8e-5, batch 32.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert-mpnet, lr 8e-5, batch 32):
            94.75 ± 0.25 % against 94.75 ± 0.25 % dev accuracy at the best epoch; not decided: their scores are equal,
            95 % interval −0.71 to +0.71 (p = 1.00; 3 seeds each, all on the same 400 sentences); a study of this size
            detects 1.01 points in four of five cases; to detect 0.50 points as often takes 12 seeds of each or 1,626
            sentences.
        sbert-mpnet against sbert-minilm, each at its best (sbert-mpnet, lr 8e-5, batch 32; sbert-minilm, lr 8e-5,
            batch 32): 94.75 ± 0.25 % against 94.58 ± 0.14 % dev accuracy at the best epoch; not decided: sbert-mpnet
            leads by 0.17 points, 95 % interval −0.46 to +0.79 (p = 0.60, after Holm's correction for 3 comparisons p
            = 1.00; 3 seeds each, all on the same 400 sentences); a study of this size detects 0.89 points in four of
            five cases; to detect 0.50 points as often takes 10 seeds of each or 1,264 sentences.
        sbert-mpnet against sbert, each at its best (sbert-mpnet, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 94.75
            ± 0.25 % against 91.58 ± 0.52 % dev accuracy at the best epoch; sbert-mpnet wins: 3.17 points more
            accuracy, 95 % interval +1.34 to +4.99 (p < 0.001, after Holm's correction for 3 comparisons p = 0.002; 3
            seeds each, all on the same 400 sentences).
        sbert-mpnet was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert-minilm was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        """,
    ),
    "one seed each": (
        [Tried(model="modernbert", wrong=[20]), Tried(model="sbert", wrong=[60])],
        """
        Not decided: modernbert and sbert differ by 10.00 points.
        The best of 2 configurations, 2 runs, chosen on reviews dev, is modernbert, lr 8e-5, batch 32: 95.00 % dev
            accuracy at the best epoch (one seed, 95 % interval 92.39 to 96.74 for new sentences, but not for new
            seeds). After its last epoch it stands at 95.00 %. Always answering the more frequent class scores 50.00
            %.
        Which configuration is best is not decided, because one seed of modernbert and sbert does not tell how much
            seeds vary; none of the 2 can be ruled out: modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 95.00 %
            against 85.00 % dev accuracy at the best epoch; not decided: modernbert and sbert ran under one seed each,
            so how much seeds vary is not known; modernbert leads by 10.00 points, 95 % interval +7.05 to +12.95 for
            new sentences only.
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        note: Each configuration ran under one seed: how much of a difference is luck of the seed is not known.
        """,
    ),
    "one seed of one": (
        [Tried(model="modernbert", wrong=[20]), Tried(model="sbert", wrong=[60, 62])],
        """
        Not decided: modernbert and sbert differ by 10.25 points.
        The best of 2 configurations, 3 runs, chosen on reviews dev, is modernbert, lr 8e-5, batch 32: 95.00 % dev
            accuracy at the best epoch (one seed, 95 % interval 92.39 to 96.74 for new sentences, but not for new
            seeds). After its last epoch it stands at 95.00 %. Always answering the more frequent class scores 50.00
            %.
        Which configuration is best is not decided, because one seed of modernbert does not tell how much seeds vary;
            none of the 2 can be ruled out: modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 95.00 %
            against 84.75 ± 0.35 % dev accuracy at the best epoch; not decided: modernbert ran under one seed, so how
            much seeds vary is not known; modernbert leads by 10.25 points, 95 % interval +7.14 to +13.36 for new
            sentences only.
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        note: Configurations have different numbers of seeds: a mean of few seeds is less certain, and its interval
            wider.
        """,
    ),
    "three configurations of one seed": (
        [
            Tried(model="sbert", wrong=[20]),
            Tried(model="sbert", wrong=[24], learning_rate=4e-5),
            Tried(model="sbert", wrong=[90], learning_rate=1.6e-4),
        ],
        """
        Not decided; first of 3 that may be the best: sbert, lr 8e-5, batch 32, 95.00 % dev accuracy at the best
            epoch.
        The best of 3 configurations, 3 runs, chosen on reviews dev, is sbert, lr 8e-5, batch 32: 95.00 % dev accuracy
            at the best epoch (one seed, 95 % interval 92.39 to 96.74 for new sentences, but not for new seeds). After
            its last epoch it stands at 95.00 %. Always answering the more frequent class scores 50.00 %.
        Which configuration is best is not decided, because one seed of sbert does not tell how much seeds vary; none
            of the 3 can be ruled out: sbert, lr 8e-5, batch 32; sbert, lr 4e-5, batch 32; sbert, lr 1.6e-4, batch 32.
        note: No ModernBERT run succeeded on this data, so ModernBERT and SBERT are not compared.
        note: Each configuration ran under one seed: how much of a difference is luck of the seed is not known.
        """,
    ),
    "predictions not stored": (
        [
            Tried(model="modernbert", wrong=[20, 21, 22], stored=False),
            Tried(model="sbert", wrong=[60, 61, 62], stored=False),
        ],
        """
        Not decided: modernbert and sbert differ by 10.00 points.
        The best of 2 configurations, 6 runs, chosen on reviews dev, is modernbert, lr 8e-5, batch 32: 94.75 ± 0.25 %
            dev accuracy at the best epoch (mean ± standard deviation of 3 seeds, no interval, as its predictions on
            the single sentences were not stored). After its last epoch it stands at 94.75 ± 0.25 %.
        Which configuration is best is not decided, because the predictions of 2 of 2 configurations on the single
            sentences were not stored; none of the 2 can be ruled out: modernbert, lr 8e-5, batch 32; sbert, lr 8e-5,
            batch 32.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 94.75 ±
            0.25 % against 84.75 ± 0.25 % dev accuracy at the best epoch; not decided: the predictions of modernbert,
            lr 8e-5, batch 32 and of sbert, lr 8e-5, batch 32 on the single sentences were not stored.
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        note: The predictions of 2 of 2 configurations on the single sentences were not stored: no difference from
            them can be decided.
        """,
    ),
    "one not stored of three": (
        [
            Tried(model="sbert", wrong=[20, 21, 22], stored=False),
            Tried(model="sbert", wrong=[24, 24, 24], learning_rate=4e-5),
            Tried(model="sbert", wrong=[90, 91, 92], learning_rate=1.6e-4),
        ],
        """
        Not decided; first of 2 that may be the best: sbert, lr 8e-5, batch 32, 94.75 % dev accuracy at the best
            epoch.
        The best of 3 configurations, 9 runs, chosen on reviews dev, is sbert, lr 8e-5, batch 32: 94.75 ± 0.25 % dev
            accuracy at the best epoch (mean ± standard deviation of 3 seeds, no interval, as its predictions on the
            single sentences were not stored). After its last epoch it stands at 94.75 ± 0.25 %. Always answering the
            more frequent class scores 50.00 %.
        Which configuration is best is not decided; with 95 % confidence it is one of these 2 of the 3 (one of them is
            in because usable predictions on the single sentences, or a second seed, are missing): sbert, lr 8e-5,
            batch 32; sbert, lr 4e-5, batch 32.
        note: No ModernBERT run succeeded on this data, so ModernBERT and SBERT are not compared.
        note: The predictions of 1 of 3 configurations on the single sentences were not stored: no difference from
            them can be decided.
        """,
    ),
    "two not stored of four": (
        [
            Tried(model="sbert", wrong=[20, 21, 22], stored=False),
            Tried(model="sbert", wrong=[23, 22, 22], learning_rate=2e-5, stored=False),
            Tried(model="sbert", wrong=[24, 24, 24], learning_rate=4e-5),
            Tried(model="sbert", wrong=[90, 91, 92], learning_rate=1.6e-4),
        ],
        """
        Not decided; first of 3 that may be the best: sbert, lr 8e-5, batch 32, 94.75 % dev accuracy at the best
            epoch.
        The best of 4 configurations, 12 runs, chosen on reviews dev, is sbert, lr 8e-5, batch 32: 94.75 ± 0.25 % dev
            accuracy at the best epoch (mean ± standard deviation of 3 seeds, no interval, as its predictions on the
            single sentences were not stored). After its last epoch it stands at 94.75 ± 0.25 %. Always answering the
            more frequent class scores 50.00 %.
        Which configuration is best is not decided; with 95 % confidence it is one of these 3 of the 4 (2 of them are
            in because usable predictions on the single sentences, or a second seed, are missing): sbert, lr 8e-5,
            batch 32; sbert, lr 2e-5, batch 32; sbert, lr 4e-5, batch 32.
        note: No ModernBERT run succeeded on this data, so ModernBERT and SBERT are not compared.
        note: The predictions of 2 of 4 configurations on the single sentences were not stored: no difference from
            them can be decided.
        """,
    ),
    "a search that was larger, one of it not stored": (
        [
            Tried(model="modernbert", wrong=[20, 21, 22]),
            Tried(model="modernbert", wrong=[30, 31, 32], learning_rate=4e-5, stored=False),
            Tried(model="sbert", wrong=[60, 61, 62]),
        ],
        """
        Not decided: modernbert and sbert differ by 10.00 points.
        The best of 3 configurations, 9 runs, chosen on reviews dev, is modernbert, lr 8e-5, batch 32: 94.75 ± 0.25 %
            dev accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 92.66 to 96.27). After
            its last epoch it stands at 94.75 ± 0.25 %. Always answering the more frequent class scores 50.00 %.
        Which configuration is best is not decided; with 95 % confidence it is one of these 2 of the 3 (one of them is
            in because usable predictions on the single sentences, or a second seed, are missing): modernbert, lr
            8e-5, batch 32; modernbert, lr 4e-5, batch 32.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 94.75 ±
            0.25 % against 84.75 ± 0.25 % dev accuracy at the best epoch; not decided: modernbert leads by 10.00
            points, 95 % interval +7.36 to +12.64, but the predictions of 1 of 3 configurations on the single
            sentences were not stored, so it cannot be corrected for the larger search.
        modernbert was searched with 2 configurations, sbert with 1; one drawn at random from each would score 93.50 %
            and 84.75 % on average (Tang et al. 2020).
        The best learning rate of modernbert, 8e-5, is the highest that was tried, so a better one may lie beyond;
            next to try: 1.6e-4 and 3.2e-4.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        note: The predictions of 1 of 3 configurations on the single sentences were not stored: no difference from
            them can be decided.
        """,
    ),
    "a larger search": (
        [
            Tried(model="modernbert", wrong=[20, 21, 22]),
            Tried(model="modernbert", wrong=[30, 31, 32], learning_rate=4e-5),
            Tried(model="modernbert", wrong=[30, 31, 32], learning_rate=1.6e-4, begin=9),
            Tried(model="sbert", wrong=[60, 61, 62]),
            Tried(model="sbert", wrong=[60, 61, 63], learning_rate=4e-5, begin=9),
        ],
        """
        modernbert beats sbert by 10.00 points.
        The best of 5 configurations, 15 runs, chosen on reviews dev, is modernbert, lr 8e-5, batch 32: 94.75 ± 0.25 %
            dev accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 92.66 to 96.27). After
            its last epoch it stands at 94.75 ± 0.25 %. Always answering the more frequent class scores 50.00 %.
        Its score is too high, by less than 0.01 points, because it was chosen by these very scores among 5
            configurations (bootstrap estimate; the choice of its epochs is not in this figure).
        With 95 % confidence modernbert, lr 8e-5, batch 32 is the best of the 5 configurations.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 94.75 ±
            0.25 % against 84.75 ± 0.25 % dev accuracy at the best epoch; modernbert wins: 10.00 points more accuracy,
            95 % interval +7.36 to +12.64 (p < 0.001; 3 seeds each, all on the same 400 sentences; the best of 3
            against the best of 2, corrected for the larger search).
        modernbert was searched with 3 configurations, sbert with 2; the best of 2 drawn at random from each would
            score 93.92 % and 84.75 % on average (Tang et al. 2020).
        The best learning rate of sbert, 8e-5, is the highest that was tried, so a better one may lie beyond; next to
            try: 1.6e-4 and 3.2e-4.
        """,
    ),
    "held out": (
        [
            Tried(model="modernbert", wrong=[30, 31, 29], held_out=[20, 21, 22]),
            Tried(model="modernbert", wrong=None, held_out=[24, 24, 24], learning_rate=4e-5),
            Tried(model="modernbert", wrong=None, held_out=[29, 27, 25], learning_rate=1.6e-4),
            Tried(model="sbert", wrong=[60, 61, 62], held_out=[50, 48, 47]),
        ],
        """
        modernbert beats sbert by 7.75 points.
        The best of 4 configurations, 12 runs, chosen on a held-out part of train, is modernbert, lr 8e-5, batch 32:
            94.75 ± 0.25 % accuracy on the held-out part of train (mean ± standard deviation of 3 seeds, 95 % interval
            92.66 to 96.27). Always answering the more frequent class scores 50.00 %.
        Its score is too high, by less than 0.01 points, because it was chosen by these very scores among 4
            configurations (bootstrap estimate).
        On reviews dev, which had no part in the choice, modernbert, lr 8e-5, batch 32 scores 92.50 ± 0.25 % at the
            chosen epoch (mean ± standard deviation of 3 seeds, 95 % interval 89.87 to 94.49), 92.50 ± 0.25 % after the
            last epoch.
        On reviews dev, which had no part in the choice, sbert, lr 8e-5, batch 32 scores 84.75 ± 0.25 % at the chosen
            epoch (mean ± standard deviation of 3 seeds, 95 % interval 81.16 to 87.76), 84.75 ± 0.25 % after the last
            epoch.
        With 95 % confidence modernbert, lr 8e-5, batch 32 is the best of the 4 configurations on the held-out part of
            train.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 92.50 ±
            0.25 % against 84.75 ± 0.25 % dev accuracy at the best epoch; modernbert wins: 7.75 points more accuracy,
            95 % interval +5.43 to +10.07 (p < 0.001; 3 seeds each, all on the same 400 sentences).
        modernbert was searched with 3 configurations, sbert with 1; one drawn at random from each would score 94.00 %
            and 87.92 % on average (Tang et al. 2020).
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        """,
    ),
    "held out, not ended": (
        [
            Tried(model="modernbert", wrong=None, held_out=[20, 21, 22]),
            Tried(model="sbert", wrong=None, held_out=[50, 48]),
            Tried(model="sbert", wrong=[9], status="running", learning_rate=4e-5),
        ],
        """
        modernbert beats sbert by 7.00 points.
        The best of 3 configurations, 6 runs, chosen on a held-out part of train, is modernbert, lr 8e-5, batch 32:
            94.75 ± 0.25 % accuracy on the held-out part of train (mean ± standard deviation of 3 seeds, 95 % interval
            92.66 to 96.27). Always answering the more frequent class scores 50.00 %.
        Its score is too high, by less than 0.01 points, because it was chosen by these very scores among 2
            configurations (bootstrap estimate).
        With 95 % confidence modernbert, lr 8e-5, batch 32 is the best of the 2 configurations on the held-out part of
            train.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 94.75 ±
            0.25 % against 87.75 ± 0.35 % accuracy on the held-out part of train; modernbert wins: 7.00 points more
            accuracy, 95 % interval +4.87 to +9.13 (p < 0.001; 3 seeds and 2 seeds, all on the same 400 sentences).
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        The best learning rate of sbert, 8e-5, is the highest that was tried, so a better one may lie beyond; next to
            try: 1.6e-4 and 3.2e-4.
        note: 1 trial had not ended when this was made: the ranking may change.
        note: Configurations have different numbers of seeds: a mean of few seeds is less certain, and its interval
            wider.
        note: The chosen configuration has not been scored on dev: its sweep has not ended.
        """,
    ),
    "chosen in two ways": (
        [
            Tried(model="modernbert", wrong=[30, 31, 29], held_out=[20, 21, 22]),
            Tried(model="sbert", wrong=[60, 61, 62]),
        ],
        """
        Best: sbert, lr 8e-5, batch 32, 84.75 % dev accuracy at the best epoch.
        The best of 2 configurations, 6 runs, chosen on reviews dev, is sbert, lr 8e-5, batch 32: 84.75 ± 0.25 % dev
            accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 81.16 to 87.76). After its
            last epoch it stands at 84.75 ± 0.25 %. Always answering the more frequent class scores 50.00 %.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        note: ModernBERT and SBERT are not compared: they were not chosen by the same metric.
        note: Configurations that were chosen in another way are listed but not ranked with the others.
        """,
    ),
    "a seed that failed, one that collapsed": (
        [
            Tried(model="sbert", wrong=[20, 21, 200]),
            Tried(model="sbert", wrong=[9], status="failed", values={"seed": 9}),
        ],
        """
        Best: sbert, lr 8e-5, batch 32, 79.92 % dev accuracy at the best epoch.
        The only configuration is sbert, lr 8e-5, batch 32: 79.92 ± 25.91 % dev accuracy at the best epoch (mean ±
            standard deviation of 3 seeds, 95 % interval 18.36 to 98.60, 1 of 4 seeds failed, 1 of 3 seeds collapsed,
            within the noise of the majority share). After its last epoch it stands at 79.92 ± 25.91 %. Always answering
            the more frequent class scores 50.00 %.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        note: No ModernBERT run succeeded on this data, so ModernBERT and SBERT are not compared.
        """,
    ),
    "two models, neither of them ModernBERT": (
        [
            Tried(model="sbert-minilm", wrong=[20, 21, 22]),
            Tried(model="sbert-mpnet", wrong=[20, 21, 25]),
        ],
        """
        Not decided: sbert-minilm and sbert-mpnet differ by 0.25 points.
        The best of 2 configurations, 6 runs, chosen on reviews dev, is sbert-minilm, lr 8e-5, batch 32: 94.75 ± 0.25
            % dev accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 92.64 to 96.25,
            corrected for the choice). After its last epoch it stands at 94.75 ± 0.25 %. Always answering the more
            frequent class scores 50.00 %.
        Its score is too high, by about 0.02 points, because it was chosen by these very scores among 2 configurations
            (bootstrap estimate; the choice of its epochs is not in this figure).
        Which configuration is best is not decided; with 95 % confidence none of the 2 can be ruled out: sbert-minilm,
            lr 8e-5, batch 32; sbert-mpnet, lr 8e-5, batch 32.
        sbert-minilm against sbert-mpnet, each at its best (sbert-minilm, lr 8e-5, batch 32; sbert-mpnet, lr 8e-5,
            batch 32): 94.75 ± 0.25 % against 94.50 ± 0.66 % dev accuracy at the best epoch; not decided: sbert-minilm
            leads by 0.25 points, 95 % interval −0.40 to +0.90 (p = 0.36; 3 seeds each, all on the same 400
            sentences); a study of this size detects 0.88 points in four of five cases; to detect 0.50 points as often
            takes 7 seeds of each or 1,238 sentences.
        sbert-minilm was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert-mpnet was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        """,
    ),
    "fourteen configurations": (
        [Tried(model="sbert", wrong=[20 + i % 2, 21, 22], learning_rate=(i + 1) * 1e-5) for i in range(14)],
        """
        Not decided; first of 14 that may be the best: sbert, lr 1.1e-4, batch 32, 94.75 % dev accuracy at the best
            epoch.
        The best of 14 configurations, 42 runs, chosen on reviews dev, is sbert, lr 1.1e-4, batch 32: 94.75 ± 0.25 %
            dev accuracy at the best epoch (mean ± standard deviation of 3 seeds, 95 % interval 92.63 to 96.24,
            corrected for the choice). After its last epoch it stands at 94.75 ± 0.25 %. Always answering the more
            frequent class scores 50.00 %.
        Its score is too high, by about 0.03 points, because it was chosen by these very scores among 14
            configurations (bootstrap estimate; the choice of its epochs is not in this figure).
        Which configuration is best is not decided; with 95 % confidence none of the 14 can be ruled out: sbert, lr
            1.1e-4, batch 32; sbert, lr 1.3e-4, batch 32; sbert, lr 1e-5, batch 32; sbert, lr 3e-5, batch 32; sbert,
            lr 5e-5, batch 32; sbert, lr 7e-5, batch 32; sbert, lr 9e-5, batch 32; sbert, lr 1e-4, batch 32; sbert, lr
            1.2e-4, batch 32; sbert, lr 1.4e-4, batch 32; sbert, lr 2e-5, batch 32; sbert, lr 4e-5, batch 32; 2 more.
        note: No ModernBERT run succeeded on this data, so ModernBERT and SBERT are not compared.
        """,
    ),
    "no evaluations on the way; random weights": (
        [
            Tried(model="modernbert", wrong=[60, 61], evaluations=False, values={"random_weights": True}),
            Tried(model="sbert", wrong=[20, 21]),
        ],
        """
        sbert beats modernbert (random weights) by 10.00 points.
        The best of 2 configurations, 4 runs, chosen on reviews dev, is sbert, lr 8e-5, batch 32: 94.88 ± 0.18 % dev
            accuracy at the best epoch (mean ± standard deviation of 2 seeds, 95 % interval 92.56 to 96.50). After its
            last epoch it stands at 94.88 ± 0.18 %. Always answering the more frequent class scores 50.00 %.
        Its score is too high, by less than 0.01 points, because it was chosen by these very scores among 2
            configurations (bootstrap estimate; the choice of its epochs is not in this figure).
        With 95 % confidence sbert, lr 8e-5, batch 32 is the best of the 2 configurations.
        ModernBERT against SBERT, each at its best (modernbert (random weights), lr 8e-5, batch 32; sbert, lr 8e-5,
            batch 32): 84.88 ± 0.18 % against 94.88 ± 0.18 % dev accuracy at the best epoch; sbert wins: 10.00 points
            more accuracy, 95 % interval +7.22 to +12.78 (p < 0.001; 2 seeds each, all on the same 400 sentences).
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        modernbert (random weights) was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        note: ModernBERT and SBERT are not compared at equal epochs or time: a run has no evaluations or no times.
        note: modernbert began with random weights: this says nothing about the pretrained model.
        """,
    ),
    "part of SST-2": (
        [Tried(model="sbert", wrong=[20, 21], values={"eval_split": "SST-2 dev", "num_train_rows": 1024})],
        """
        Best: sbert, lr 8e-5, batch 32, 94.88 % dev accuracy at the best epoch.
        The only configuration is sbert, lr 8e-5, batch 32: 94.88 ± 0.18 % dev accuracy at the best epoch (mean ±
            standard deviation of 2 seeds, 95 % interval 92.56 to 96.50). After its last epoch it stands at 94.88 ±
            0.18 %. Always answering the more frequent class scores 50.00 %.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        note: No ModernBERT run succeeded on this data, so ModernBERT and SBERT are not compared.
        note: Trained on at most 1,024 rows; the published figures stand on all 67,349.
        """,
    ),
    "chosen by MCC": (
        [
            Tried(
                model="modernbert",
                wrong=[20, 20],
                values={"chosen_by": "mcc", "best_score": 0.9, "best_num_answered": 1},
            ),
            Tried(model="sbert", wrong=[60, 60], values={"chosen_by": "mcc", "best_score": 0.7}),
        ],
        """
        modernbert beats sbert by 0.200 of MCC.
        The best of 2 configurations, 4 runs, chosen on reviews dev, is modernbert, lr 8e-5, batch 32: 0.9000 ± 0.000
            MCC on dev at the best epoch (mean ± standard deviation of 2 seeds, 95 % interval 0.8612 to 0.9388).
            Always answering the more frequent class scores an accuracy of 50.00 %. 2 of its 2 seeds answer one class
            for every sentence of dev.
        Its score is too high, by less than 0.001, because it was chosen by these very scores among 2 configurations
            (bootstrap estimate; the choice of its epochs is not in this figure).
        With 95 % confidence modernbert, lr 8e-5, batch 32 is the best of the 2 configurations.
        ModernBERT against SBERT, each at its best (modernbert, lr 8e-5, batch 32; sbert, lr 8e-5, batch 32): 0.9000 ±
            0.000 against 0.7000 ± 0.000 MCC on dev at the best epoch; modernbert wins: 0.200 more MCC, 95 % interval
            +0.144 to +0.256 (p < 0.001; 2 seeds each, all on the same 400 sentences).
        modernbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        """,
    ),
    "chosen by loss": (
        [
            Tried(model="sbert", wrong=[20, 21], values={"chosen_by": "loss", "best_score": 1.2040}),
            Tried(model="sbert-minilm", wrong=[60, 62], values={"chosen_by": "loss", "best_score": 1.2040}),
        ],
        """
        A tie: sbert and sbert-minilm differ by 0.000 nats of loss.
        The best of 2 configurations, 4 runs, chosen on reviews dev, is sbert, lr 8e-5, batch 32: 1.2040 ± 0.000 loss
            on dev at the best epoch (mean ± standard deviation of 2 seeds, 95 % interval 1.0958 to 1.3121). Always
            answering the more frequent class scores an accuracy of 50.00 %.
        Its loss is too low, by less than 0.001, because it was chosen by these very scores among 2 configurations
            (bootstrap estimate; the choice of its epochs is not in this figure).
        Which configuration is best is not decided; with 95 % confidence none of the 2 can be ruled out: sbert, lr
            8e-5, batch 32; sbert-minilm, lr 8e-5, batch 32.
        sbert against sbert-minilm, each at its best (sbert, lr 8e-5, batch 32; sbert-minilm, lr 8e-5, batch 32):
            1.2040 ± 0.000 against 1.2040 ± 0.000 loss on dev at the best epoch; a tie: the difference is smaller than
            the margin of 0.010 nats (90 % interval −0.009 to +0.009; 2 seeds each, all on the same 400 sentences).
        sbert was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        sbert-minilm was tried with one learning rate only, 8e-5; next to try: 4e-5 and 1.6e-4.
        """,
    ),
    "chosen by MCC on a held-out part; a constant answer": (
        [
            Tried(
                model="sbert",
                wrong=[200],
                held_out=[200],
                values={"chosen_by": "mcc", "best_score": 0.0, "selection_score": 0.0, "best_num_answered": 1},
            ),
        ],
        """
        Best: sbert, lr 8e-5, batch 32, 0.0000 MCC on dev at the best epoch.
        The only configuration is sbert, lr 8e-5, batch 32: 0.0000 MCC on the held-out part of train (one seed, 95 %
            interval -0.0987 to 0.0987 for new sentences, but not for new seeds, 1 of 1 seeds collapsed, within
            the noise of the majority share). Always answering the more frequent class scores an accuracy of 50.00 %. It
            answers one class for every sentence of dev.
        On reviews dev, which had no part in the choice, sbert, lr 8e-5, batch 32 scores 0.0000 at the chosen epoch
            (one seed, 95 % interval -0.0987 to 0.0987 for new sentences, but not for new seeds).
        sbert has learned nothing under any seed: more epochs or smaller batches come before other settings.
        note: No ModernBERT run succeeded on this data, so ModernBERT and SBERT are not compared.
        note: Each configuration ran under one seed: how much of a difference is luck of the seed is not known.
        """,
    ),
}


def lines(text: str) -> list[str]:
    """Split an entry into its sentences; lines that are indented further continue the one before."""
    found: list[str] = []
    for line in text.strip().splitlines():
        if line.startswith(" " * 9):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line.strip())
    return found


COMMON = (
    "note: Cost: no price was given.",
    "note: Published figures are for SST-2 dev, not for this data, and are not shown.",
)
"""Notes of every study here, left out above after the first."""


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_told_in_these_sentences(name: str, table: ResultsTable) -> None:
    tried, expected = STUDIES[name]
    found = said(table, *tried, margin=0.05 if "smaller than the margin" in name else 0.005)
    left_out = () if name == "one configuration, one seed" else COMMON
    assert [one for one in found if one not in left_out] == lines(expected)


# ---- why there is no verdict

UNSURE = np.full(400, np.nan)
LACKS: dict[Lack, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    Lack.NOT_STORED: (
        {"stored": False},
        {},
        "its predictions on the single sentences were not stored",
        "the predictions of modernbert, lr 8e-5, batch 32 on the single sentences were not stored",
    ),
    Lack.OTHER_EVALUATION: (
        {"best_global_step": 200},
        {},
        "its stored predictions are of another evaluation than its score",
        "the stored predictions of modernbert, lr 8e-5, batch 32 are of another evaluation than the score",
    ),
    Lack.OTHER_SENTENCES: (
        {"row_ids": np.arange(400) + 1000},
        {"seeds": (1,)},
        "its runs answered different sentences",
        "the runs of modernbert, lr 8e-5, batch 32 answered different sentences",
    ),
    Lack.NO_PROBABILITIES: (
        {"probability": UNSURE, "chosen_by": "loss", "best_score": 0.2},
        {"others": {"chosen_by": "loss"}},
        "the probabilities of its answers were not stored",
        "the probabilities of the answers of modernbert, lr 8e-5, batch 32 were not stored",
    ),
    Lack.ONE_SENTENCE: (
        {},
        {"rows": 1},
        "one sentence does not tell how much sentences vary",
        "the one sentence of modernbert, lr 8e-5, batch 32 and of sbert, lr 8e-5, batch 32 does not tell how much sentences vary",
    ),
    Lack.LOSS_OF_CLASSES: (
        {"chosen_by": "loss"},
        {"others": {"chosen_by": "loss"}, "classes": 3},
        "of more than two classes the loss on single sentences is not stored",
        "of more than two classes the loss on single sentences is not stored",
    ),
    Lack.NOT_DEFINED: (
        {"chosen_by": "auroc", "best_score": 0.9},
        {"others": {"chosen_by": "auroc", "best_score": 0.8}, "labels": 1},
        "the metric is not defined on its sentences",
        "the metric is not defined on the sentences of modernbert, lr 8e-5, batch 32 and of sbert, lr 8e-5, batch 32",
    ),
}
"""Lack -> columns of modernbert's runs, what else is odd, and the two sentences: of the best, and of the comparison."""


@pytest.mark.parametrize("lack", LACKS, ids=lambda lack: lack.name.lower())
def test_what_a_verdict_lacks_is_told_in_these_words(lack: Lack, table: ResultsTable) -> None:
    odd, more, of_best, of_pair = LACKS[lack]
    rows, classes = more.get("rows", 400), more.get("classes", 2)
    label = (np.arange(rows) % classes) if "labels" not in more else np.full(rows, more["labels"])
    for seed in range(2):
        mine = odd if seed in more.get("seeds", (0, 1)) else {}
        for number, (model, columns) in enumerate((("modernbert", mine), ("sbert", more.get("others", {})))):
            answers = wrong_at(label, *range(20 + 40 * number), classes=classes) if rows > 1 else label
            put(table, model, seed, label, answers, **columns)
    study = studies(table, table.read("trials", attempts="latest"))[0]
    told = verdict.sentences(study)
    assert f"no interval, as {of_best}" in told[0]
    assert any(f"not decided: {of_pair}." in one for one in told)
    assert all(c.winner is None for c in study.comparisons)


def test_every_lack_is_told_here() -> None:
    assert set(Lack) - set(LACKS) == {
        Lack.NOT_READ,
        Lack.NO_LABELS,
    }  # of the 201st configuration; of no file of this package
    assert (
        Lack.NOT_READ.of(["a", "b"])
        == "the predictions of a and of b were not read, for only those of the best 200 are"
    )
    assert Lack.NO_LABELS.of_it == "its predictions hold sentences without a label or an answer"


# ---- comparisons of two, in other metrics and after Holm's correction


def of(wrong_a: int, wrong_b: int, *, metric: str, num: int = 872) -> Comparison:
    """Compare two that get so many sentences wrong, the same under every seed, the worse one those of the better and more."""
    right = [np.tile(np.arange(num) >= wrong, (3, 1)) for wrong in (wrong_a, wrong_b)]
    a, b = configuration("a", right[0], model="first"), configuration("b", right[1], model="second")
    return compare(a, b, evidence([(a, right[0]), (b, right[1])]), metric=metric, margin=margin_of(metric, 0.005))


def undecided_after_correction() -> Comparison:
    """Find a difference that wins alone, and not among 80."""
    worlds = [World(seed) for seed in range(80)]
    found = []
    for number, world in enumerate(worlds):
        right = [world.model([0.95], 3)[0], world.model([0.93 if number == 25 else 0.95], 3)[0]]
        a, b = (
            configuration(f"{name}{number}", x, model=name) for name, x in zip(("first", "second"), right, strict=True)
        )
        found.append(compare(a, b, evidence([(a, right[0]), (b, right[1])])))
    return with_holm(found)[25]


COMPARISONS: dict[str, tuple[Callable[[], Comparison], str]] = {
    "F1": (
        lambda: of(40, 90, metric="f1"),
        """
        first wins: 5.73 points more F1, 95 % interval +4.14 to +7.32 (p < 0.001; 3 seeds each, all on the same
        872 sentences)
        """,
    ),
    "MCC": (
        lambda: of(40, 90, metric="mcc"),
        """
        first wins: 0.115 more MCC, 95 % interval +0.084 to +0.146 (p < 0.001; 3 seeds each, all on the same 872
        sentences)
        """,
    ),
    "loss": (
        lambda: of(90, 40, metric="loss"),
        """
        second wins: 0.126 nats less loss, 95 % interval +0.092 to +0.160 (p < 0.001; 3 seeds each, all on the
        same 872 sentences)
        """,
    ),
    "loss, a tie": (
        lambda: of(40, 40, metric="loss"),
        """
        a tie: the difference is smaller than the margin of 0.010 nats (90 % interval −0.004 to +0.004; 3 seeds
        each, all on the same 872 sentences)
        """,
    ),
    "loss, not decided": (
        lambda: of(42, 40, metric="loss"),
        """
        not decided: second leads by 0.005 nats of loss, 95 % interval −0.002 to +0.012 (p = 0.16; 3 seeds each,
        all on the same 872 sentences); a study of this size detects 0.010 nats in four of five cases; the same
        study again would detect 0.010 nats as often
        """,
    ),
    "not decided after Holm": (
        undecided_after_correction,
        """
        not decided: first leads by 2.26 points, 95 % interval +0.71 to +3.80 (p = 0.007, after Holm's
        correction for 80 comparisons p = 0.53; 3 seeds each, all on the same 872 sentences); a study of this
        size detects 2.18 points in four of five cases; the same study again would detect 2.26 points as often
        """,
    ),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_is_told_in_this_sentence(name: str) -> None:
    made, expected = COMPARISONS[name]
    assert wording.verdict(made(), ("first", "second")) == " ".join(expected.split())


METHODS = {
    ("accuracy", "f1", "mcc", "loss"): (
        "accuracy",
        "±0.50 points",
        "F1 and MCC were compared by their jackknife pseudo-values (Dorfman, Berbaum and Metz 1992), the loss by that of "
        "single sentences. Verdicts on F1, MCC and loss have Holm's correction (Holm 1979).",
    ),
    ("mcc", "accuracy", "f1"): (
        "MCC",
        "±0.010",
        "MCC and F1 were compared by their jackknife pseudo-values (Dorfman, Berbaum and Metz 1992). Verdicts on accuracy and "
        "F1 have Holm's correction (Holm 1979).",
    ),
    ("loss", "accuracy", "f1", "mcc"): (
        "loss",
        "±0.010 nats",
        "F1 and MCC were compared by their jackknife pseudo-values (Dorfman, Berbaum and Metz 1992), the loss by that of "
        "single sentences. Verdicts on accuracy, F1 and MCC have Holm's correction (Holm 1979).",
    ),
}
"""Metrics compared, the one that decides first -> its name, its margin, and by which values they were compared."""


@pytest.mark.parametrize("metrics", METHODS, ids=lambda metrics: metrics[0])
def test_the_methods_are_told_of_the_metric_that_decides(metrics: tuple[str, ...]) -> None:
    name, margin, values = METHODS[metrics]
    told = methods.paragraph([of(40, 90, metric=metric) for metric in metrics])
    assert (
        "Two models were compared with 3 training runs (seeds) each on the same 872 sentences. Their difference in "
        f"{name} was put to a t test in a model with random effects of sentences, seeds and their interaction, " in told
    )
    assert f"placed them inside {margin} (Schuirmann 1987). {values} Computed by" in told


def test_every_sentence_in_the_code_stands_here() -> None:
    """Look for each piece of text that the code of a verdict holds in the sentences above."""
    here = " ".join(
        [*(text for _, text in STUDIES.values()), *(text for _, text in COMPARISONS.values()), *CONTRADICTION]
    )
    here = " ".join(here.split())
    missing = [piece for module in (verdict, limits, wording) for piece in pieces_of(module) if piece not in here]
    assert missing == []


def pieces_of(module: ModuleType) -> list[str]:
    """List the constant pieces of text in a module's functions, of two words or more; of f-strings what is between the braces."""
    tree = ast.parse(inspect.getsource(module))
    found = []
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            docstring = ast.get_docstring(function, clean=False)
            constants = [node.value for node in ast.walk(function) if isinstance(node, ast.Constant)]
            texts = [one for one in constants if isinstance(one, str) and one != docstring]
            found += [" ".join(one.split()) for one in texts if len(one.split()) > 1]
    return found


def test_the_interval_of_a_single_seed_says_where_its_seed_variance_is_from(table: ResultsTable) -> None:
    one, two = Tried(model="sbert", wrong=[20]), Tried(model="sbert", wrong=[90, 94], learning_rate=4e-5)
    (study,) = write(table, one, two)
    assert f", {wording.POOLED}). " in verdict.sentences(study)[0]


CONTRADICTION = (
    "The metrics name different winners (accuracy first, lr 8e-5, batch 32 and F1 second, lr 8e-5, batch 32): accuracy counts "
    "right answers, F1 those of the positive class (of more than two classes, every class alike), MCC all classes alike, loss also "
    "how sure the model is of each answer.",
    "Of the variance of the difference, 47 % comes from which sentences there are (more sentences reduce it), 22 % from runs that "
    "are better or worse as a whole (more seeds do), 30 % from what a seed does to single sentences (both do).",
)


def test_metrics_that_name_different_winners_say_why() -> None:
    accuracy = of(40, 90, metric="accuracy")
    f1 = dataclasses.replace(of(90, 40, metric="f1"), a=accuracy.a, b=accuracy.b)
    assert wording.contradiction([accuracy, f1]) == CONTRADICTION[0]
    assert wording.contradiction([accuracy, accuracy]) == ""


def test_the_variance_is_split_in_words() -> None:
    world = World(3)
    right = [world.model([share], 3)[0] for share in (0.95, 0.93)]
    assert wording.variance_split(crossed.compare(*right)) == CONTRADICTION[1]
    assert wording.variance_split(crossed.compare(right[0][:1], right[1][:1])) == ""
