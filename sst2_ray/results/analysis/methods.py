"""The methods paragraph to paste, and its references."""

from __future__ import annotations

from collections.abc import Sequence

from sst2_ray import formatting
from sst2_ray.config.metrics import METRIC_NAMES
from sst2_ray.results.analysis import wording
from sst2_ray.results.analysis.comparison import Comparison
from sst2_ray.version import __version__

_REFERENCES = {
    "Obuchowski and Rockette 1995": "Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests. "
    "Communications in Statistics - Simulation and Computation 24(2), 285-308.",
    "Hillis 2014": "A marginal-mean ANOVA approach for analyzing multireader multicase radiological imaging data. Statistics in "
    "Medicine 33(2), 330-360.",
    "Satterthwaite 1946": "An approximate distribution of estimates of variance components. Biometrics Bulletin 2(6), 110-114.",
    "Schuirmann 1987": "A comparison of the two one-sided tests procedure and the power approach for assessing the equivalence "
    "of average bioavailability. Journal of Pharmacokinetics and Biopharmaceutics 15(6), 657-680.",
    "Dorfman, Berbaum and Metz 1992": "Receiver operating characteristic rating analysis: generalization to the population of "
    "readers and patients with the jackknife method. Investigative Radiology 27(9), 723-731.",
    "Holm 1979": "A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6(2), 65-70.",
    "Bouthillier et al. 2021": "Accounting for variance in machine learning benchmarks. Proceedings of Machine Learning and "
    "Systems 3, 747-769.",
}


def paragraph(comparisons: Sequence[Comparison]) -> str:
    """Say what was done; the comparison in the metric that decides comes first."""
    c = comparisons[0]
    if c.estimate is None:
        return f"No test was made: {c.missing}."
    e = c.estimate
    a, b = e.num_seeds
    runs = f"{a} training runs (seeds) each" if a == b else f"{a} and {b} training runs (seeds)"
    runs = "one training run (seed) each" if a == b == 1 else runs
    over = (
        "new seeds and new sentences"
        if e.covers_seeds
        else "new sentences only, as the variance between seeds is not known"
    )
    search = ""
    if c.searched[0] != c.searched[1]:
        search = (
            f" The two were the best of {c.searched[0]} and of {c.searched[1]} configurations on these sentences; p value and "
            "interval are corrected for the larger search, by simulation of the best of equal configurations."
        )
    margin = wording.difference(c.margin, c.metric, sign=False)
    return (
        f"Two models were compared with {runs} on the same {e.num_sentences} sentences. Their difference in "
        f"{METRIC_NAMES[c.metric]} was put to a t test in a model with random effects of sentences, seeds and their interaction, "
        "seeds being crossed with sentences (Obuchowski and Rockette 1995; Hillis 2014), with "
        f"{e.degrees_of_freedom:.0f} degrees of freedom (Satterthwaite 1946); the variance between seeds was pooled over the "
        f"configurations of a model, as far as several were run. Intervals have a confidence of "
        f"{100 * e.interval.level:.0f} % and are for {over} (Bouthillier et al. 2021). "
        f"Differences were called a tie if two one-sided tests placed them inside ±{margin} (Schuirmann 1987). "
        f"{_values(comparisons)}{search} Computed by sst2-ray {__version__}."
    )


def _values(comparisons: Sequence[Comparison]) -> str:
    """Say by which values of single sentences the metrics were compared, and which verdicts are corrected for their number."""
    compared = [c.metric for c in comparisons if c.estimate is not None]
    jackknifed = [METRIC_NAMES[metric] for metric in compared if metric not in ("accuracy", "loss")]
    others = [METRIC_NAMES[metric] for metric in compared if metric != comparisons[0].metric]
    loss = ", the loss by that of single sentences" if "loss" in compared else ""
    said = []
    if jackknifed:
        names = formatting.join(jackknifed)
        said.append(f"{names} were compared by their jackknife pseudo-values (Dorfman, Berbaum and Metz 1992){loss}.")
    if others:
        said.append(f"Verdicts on {formatting.join(others)} have Holm's correction (Holm 1979).")
    return " ".join(said)


def references() -> list[str]:
    """Return the references that the paragraph cites."""
    return [f"{name}. {work}" for name, work in _REFERENCES.items()]
