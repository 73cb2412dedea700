"""Instructions of a Dockerfile, and checks of several together: stages, the base, what is installed, and the order."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sst2_ray.cluster.findings import Findings


@dataclass(frozen=True)
class Step:
    """An instruction, with its arguments and the user that it runs as."""

    name: str
    rest: str
    user: str

    @property
    def words(self) -> list[str]:
        """Arguments without the instruction's own flags."""
        return [word for word in self.rest.split() if not word.startswith("--")]


def check_layers(steps: list[Step], found: Findings) -> None:
    """Check the instructions together: the base, the project, and what comes before or after a stage."""
    bases = [step for step in steps if step.name == "FROM" and step.words]
    if not bases:
        return
    stages = [base.words[2] for base in bases if len(base.words) == 3]
    _check_last_stage(steps, stages, found)
    if not any(re.search(r"(^|/)ray\b|rayproject", base.words[0]) or base.words[0] in stages for base in bases):
        what = f"{bases[-1].words[0]} is not one of Ray's images: Python, Ray and user 1000 have to come from somewhere"
        found.warning("FROM", what, "rayproject/ray")
    _check_installed(steps, bases, found)
    _check_order(steps, found)


def _check_last_stage(steps: list[Step], stages: list[str], found: Findings) -> None:
    """Check that the last stage takes over what an earlier one made."""
    first = next((index for index, step in enumerate(steps) if step.name not in ("ARG", "FROM")), len(steps))
    last = max(index for index, step in enumerate(steps) if step.name == "FROM" and step.words)
    anew = first < last and steps[last].words[0] not in stages
    if anew and not any("--from=" in step.rest for step in steps[last:]):
        found.error("FROM", "a second stage begins anew: what was installed before is not in the image", "one FROM")


def _check_installed(steps: list[Step], bases: list[Step], found: Findings) -> None:
    runs = " ; ".join(step.rest for step in steps if step.name == "RUN")
    if any("rayproject" in base.rest for base in bases) and not re.search(r"pip3? install[^;&]*\s/\S*sst2", runs):
        what = "the project is copied, and never installed: its commands are missing"
        found.error("RUN", what, "pip install --no-deps /home/ray/sst2-ray")


def _check_order(steps: list[Step], found: Findings) -> None:
    """Check that requirement files are copied before they are installed."""
    targets = [
        (index, step.words[-1].rstrip("/"))
        for index, step in enumerate(steps)
        if step.name in ("COPY", "ADD") and step.words
    ]
    for index, step in enumerate(steps):
        for path in re.findall(r"(?:-r|--requirement)[= ]?(/\S+)", step.rest) if step.name == "RUN" else ():
            brought = [place for place, target in targets if path == target or path.startswith(f"{target}/")]
            if brought and min(brought) > index:
                found.error("RUN", f"{path} is copied after it is used", "COPY first")
