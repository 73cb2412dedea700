"""Command lines that end the help of a command; those of `train` and `sweep` stand beside their flags."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "ls": ("sst2-ray ls --storage-path s3://bucket/sst2",),
    "status": (
        "# what runs now",
        "sst2-ray status",
        "# one run or sweep, again every 5 seconds",
        "sst2-ray status NAME --watch",
    ),
    "logs": ("sst2-ray logs NAME", "# a worker of a sweep's trial", "sst2-ray logs NAME --trial TRIAL --rank 0"),
    "results": (
        "# part of the table, in another order",
        'sst2-ray results --where "batch_size >= 32" --sort "examples_per_sec desc"',
        "# for a program",
        "sst2-ray results --json",
    ),
    "report": ("sst2-ray report --experiment NAME --out report",),
    "compare": (
        "# two models, each at its best",
        "sst2-ray compare modernbert-base sbert",
        "# a run of a sweep against predictions made elsewhere",
        "sst2-ray compare SWEEP/TRIAL theirs.csv",
    ),
    "power": ("# what it takes to show 0.5 points", "sst2-ray power --difference 0.5"),
    "best": ("sst2-ray best --experiment NAME --out model",),
    "predict": (
        'sst2-ray predict runs/first --text "a gripping film" "it never comes to life"',
        "# a file comes back with a label and a probability in each row",
        "sst2-ray predict runs/first --input reviews.csv --out labeled.csv",
        "# a folder of files, on two workers",
        "sst2-ray predict runs/first --input reviews/ --out labeled/ --num-workers 2",
    ),
    "serve": ("sst2-ray serve runs/first --port 8000",),
    "doctor": ("# this machine", "sst2-ray doctor", "# a cluster file, before it starts", "sst2-ray doctor ray_cluster.yaml"),
    "submit": (
        "sst2-ray submit ray_cluster.yaml -- python jobs/train.py --data glue --storage-path s3://bucket/sst2",
        "# what it needs and costs",
        "sst2-ray submit ray_cluster.yaml --dry-run -- python jobs/sweep.py --preset around-paper",
    ),
    "gc": ("sst2-ray gc --dry-run",),
}  # fmt: skip
"""Command -> its examples; a line that begins with # explains the one below it."""
