from __future__ import annotations

import json
from pathlib import Path

from sst2_ray.run.ray.node_types import declared_groups


def write(path: Path, **changes: object) -> Path:
    config = {
        "provider": {"type": "aws"}, "max_workers": 8, "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "max_workers": 0},
            "ondemand": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 2, "priority": 1},
            "spot": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 7, "priority": 10},
        },
        **changes,
    }  # fmt: skip
    path.write_text(json.dumps(config))
    return path


def test_the_groups_come_in_the_autoscalers_order_and_never_above_the_clusters_maximum(tmp_path: Path) -> None:
    groups = declared_groups(write(tmp_path / "config"))
    assert [(group.name, group.max_count) for group in groups] == [("spot", 7), ("ondemand", 1)]
    assert groups[0].resources == {"CPU": 8, "GPU": 1}


def test_machines_of_ones_own_cannot_be_added_to(tmp_path: Path) -> None:
    assert declared_groups(write(tmp_path / "config", provider={"type": "local"})) == ()


def test_elsewhere_than_on_a_head_there_are_none(tmp_path: Path) -> None:
    assert declared_groups(tmp_path / "none") == ()
    (tmp_path / "broken").write_text("provider: {")
    assert declared_groups(tmp_path / "broken") == ()
