"""Checks of the image's Dockerfile: the base's versions, files, packages, the token and the users."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import PurePosixPath

from sst2_ray.cluster.clouds.checks import check_gpu_image, check_harmful, check_image_tag
from sst2_ray.cluster.doctor.image_layers import Step, check_layers
from sst2_ray.cluster.file import is_pinned_image, shipped
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.secret_scan import holds_secret
from sst2_ray.errors import did_you_mean

_NEEDED = {
    "cluster/node/requirements.lock": "the locked versions",
    "sst2_ray": "the project",
    "jobs": "what a RayJob runs",
}
"""Sources that the image needs, and what they bring."""
_INSTRUCTIONS = (
    "FROM", "RUN", "CMD", "LABEL", "EXPOSE", "ENV", "ADD", "COPY", "ENTRYPOINT", "VOLUME", "USER", "WORKDIR", "ARG", "ONBUILD",
    "STOPSIGNAL", "HEALTHCHECK", "SHELL", "MAINTAINER",
)  # fmt: skip
_ROOT = ("root", "0")
_SYSTEM_PACKAGES = re.compile(r"(?<!sudo )\b(apt-get|apt|apk|yum|dnf) (-\S+ )*(install|update)")
_HARMFUL = (
    (r"pip3? uninstall\b[^;&]*\b(ray|torch|deepspeed)\b", "removes what the image is for", "remove it"),
    (r"pip3? install[^;&]*(\s-e\b|--editable)", "links the folder in place of installing it", "without -e"),
    (r"chmod (-R )?0?777\b", "lets everybody replace what runs", "--chown=1000:100 at the COPY"),
    (r"--trusted-host|(--index-url|--extra-index-url)[= ]http://", "takes packages over a line that anybody can change", "https://"),
    (r"(curl|wget)[^|;&]*http://", "takes what comes over an unencrypted line", "https://, with a checksum"),
    (r"rm -rf? \S*(anaconda3|/opt/conda|/home/ray)\s*($|[;&])", "removes Python and Ray", "remove it"),
)  # fmt: skip
"""Harmful commands of a RUN: pattern, harm, remedy."""
_MODULES = (
    "torch", "ray", "deepspeed", "transformers", "datasets", "numpy", "pyarrow", "sst2_ray", "sentence_transformers",
    "optuna",
)  # fmt: skip
_SECRET_NAME = re.compile(r"(^|\s)\w*(TOKEN|SECRET|PASSWORD|API_KEY|ACCESS_KEY)(?=[=\s]|$)")
BARE_NAME = re.compile(r"['\"]?[A-Za-z][\w.-]*(\[[\w,]+\])?['\"]?")


def check_dockerfile(text: str, found: Findings) -> None:
    """Make every check of this module."""
    steps = _steps(text)
    stages = re.findall(r"^FROM\s.*\sAS\s+(\S+)", text, re.MULTILINE | re.IGNORECASE)
    for step in steps:
        if step.name != "FROM" or not step.words or step.words[0] not in stages:
            _check_step(step, found)
    copies = [step for step in steps if step.name in ("COPY", "ADD") and "--from=" not in step.rest]
    _check_copies(copies, found)
    _check_requirements(steps, copies, found)
    check_layers(steps, found)
    _check_end(steps, found)


def _check_end(steps: list[Step], found: Findings) -> None:
    """Check what the image is in the end: its token and its user."""
    mode = re.search(r"RAY_AUTH_MODE[= ](\w+)", " ".join(step.rest for step in steps if step.name == "ENV"))
    if mode is None or mode[1] != "token":
        what = f"RAY_AUTH_MODE {mode[1] if mode else 'is missing'}: whoever reaches a container that was started by hand runs code in it"
        found.error("ENV", what, "RAY_AUTH_MODE=token")
    user = steps[-1].user if steps else ""
    if user not in (*_ROOT, "ray", "1000", ""):
        found.error("USER", f"{user} cannot write to the home of ray, where Ray and the project lie", "USER 1000")
    if user in _ROOT:
        what = "the image ends as root: pods with runAsNonRoot refuse it, and others run jobs as root"
        found.error("USER", what, "USER 1000 as the last one")


def _steps(text: str) -> list[Step]:
    """Return the instructions in their order, with continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines)).splitlines()
    steps: list[Step] = []
    user = "root"
    for name, _, rest in (line.strip().partition(" ") for line in joined if line.strip()):
        if name.upper() == "FROM":
            user = "ray" if "rayproject/ray" in rest else user
        elif name.upper() == "USER":
            user = rest.strip().split(":")[0]
        steps.append(Step(name.upper(), rest.strip(), user))
    return steps


def _check_run(step: Step, found: Findings) -> None:
    """Check one RUN."""
    check_harmful("RUN", step.rest, _HARMFUL, found)
    if step.user not in _ROOT and _SYSTEM_PACKAGES.search(step.rest):
        what = f"user {step.user} may not install system packages"
        found.error("RUN", what, "USER root before it, USER 1000 after it")
    for command in re.findall(r"\bpip3? install ([^&|;]*)", step.rest):
        _check_versions(command, found)
    project = re.search(r"pip3? install([^;&|]*\s/\S*sst2-ray)\b", step.rest)
    if project and "--no-deps" not in project[1]:
        found.error(
            "RUN", "installs the project with whatever its dependencies are today", "--no-deps: the lock has them"
        )
    for name in re.findall(r"import ([\w, ]+)", step.rest):
        for module in (part.strip() for part in name.split(",")):
            near = difflib.get_close_matches(module, _MODULES, n=1, cutoff=0.85)
            if near and module not in _MODULES:
                found.error("RUN", f"imports {module}, which does not exist", near[0])


def _check_step(step: Step, found: Findings) -> None:
    if step.name not in _INSTRUCTIONS:
        found.error(step.name, f"is no instruction; {did_you_mean(step.name, _INSTRUCTIONS)}", "correct it")
    elif step.name == "FROM" and step.words:
        _check_base(step, found)
    elif step.name == "WORKDIR" and not step.rest.startswith(("/", "$")):
        found.error("WORKDIR", f"{step.rest} is relative", "an absolute path")
    elif step.name in ("ENV", "ARG"):
        _check_variables(step, found)
    elif step.name in ("ENTRYPOINT", "CMD"):
        _check_command(step, found)
    elif step.name in ("COPY", "ADD"):
        _check_ownership(step, found)
    elif step.name == "RUN":
        _check_run(step, found)


def _check_variables(step: Step, found: Findings) -> None:
    if holds_secret(step.rest) or _SECRET_NAME.search(step.rest):
        what = "holds a secret, and everybody who has the image has it"
        found.error(step.name, what, "mount it where the container runs")
    if step.name == "ENV" and re.search(r"(^|\s)(PATH|LD_LIBRARY_PATH)[= ](?!.*\$)", step.rest):
        found.error("ENV", "replaces PATH: Python and Ray are not found any more", "PATH=...:$PATH")


def _check_command(step: Step, found: Findings) -> None:
    if step.rest.startswith("[") and not _is_list(step.rest):
        found.error(step.name, f"{step.rest} is no list of texts", '["python", "-m", "sst2_ray"]')
    elif step.name == "ENTRYPOINT":
        found.warning(
            "ENTRYPOINT", "`ray up` starts a shell in the container: it would become an argument", "remove it"
        )


def _check_base(step: Step, found: Findings) -> None:
    image = step.words[0]
    if not is_pinned_image(image):
        what = f"{image} is not pinned: the image of tomorrow has another Ray"
        found.error("FROM", what, "name a tag that does not move")
    check_image_tag("FROM", image, found)
    check_gpu_image("FROM", image, found)
    if re.search(r"--platform=\S*arm", step.rest):
        found.error("FROM", f"{step.rest.split()[0]}: the lock holds wheels for x86-64", "remove --platform")


def _is_list(text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_ownership(step: Step, found: Findings) -> None:
    """Check that what is copied comes over a safe line, and that user 1000 can read it."""
    if step.name == "ADD" and "http://" in step.rest:
        found.error("ADD", "takes what comes over an unencrypted line", "https://, with --checksum")
    owner, mode = (re.search(rf"--{name}=(\S+)", step.rest) for name in ("chown", "chmod"))
    if owner and not re.fullmatch(r"[\w$\{\}-]+(:[\w$\{\}-]+)?", owner[1]):
        found.error(step.name, f"--chown={owner[1]} is no owner", "--chown=1000:100")
    closed = mode and re.fullmatch(r"[0-7]{3,4}", mode[1]) and not int(mode[1], 8) & 0o004
    if owner and owner[1].partition(":")[0] in _ROOT and closed:
        found.error(step.name, f"{owner[0]} {mode[0] if mode else ''}: user 1000 cannot read it", "--chown=1000:100")


def _check_versions(command: str, found: Findings) -> None:
    """Check what `pip install` is given: versions that are fixed, and no others than the lock's."""
    loose = [word for word in command.split() if BARE_NAME.fullmatch(word)]
    if loose and not re.search(r"(^|\s)(-r|-c|--requirement|--constraint)\b", command):
        found.error("RUN", f"installs {', '.join(loose)} without a version", "NAME==VERSION")
    for name, version in re.findall(r"(?:^|\s)['\"]?([A-Za-z][\w.-]*)==([^\s;'\"]+)", command):
        locked = locked_versions().get(name.lower().replace("_", "-"), version)
        if locked != version:
            what = f"installs {name} {version} over {locked} of the lock: the image differs from what was tested"
            found.error("RUN", what, "remove it, or change the lock")


def locked_versions() -> dict[str, str]:
    """Return the versions of the nodes' lock by name; none where it does not lie here."""
    lock = shipped("cluster/node/requirements.lock")
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE))


def _check_copies(copies: list[Step], found: Findings) -> None:
    sources = [source for step in copies for source in step.words[:-1]]
    for source in sources:
        if not re.search(r"[*?\[$]|://", source) and not shipped(source).exists():
            remedy = "build from the repository's root, or correct the path"
            found.error("COPY", f"{source} does not exist in the repository", remedy)
    if {".", "./"} & set(sources):
        what = "the whole folder is copied: .git, results, and whatever secrets lie in it"
        found.error("COPY", what, "pyproject.toml, sst2_ray and jobs one by one")
    copied = {source.rstrip("/") for source in sources}
    for source, what in _NEEDED.items():
        if source not in copied and "." not in copied:
            what = f"{source} is not copied: the image lacks {what}"
            found.error("COPY", what, f"COPY --chown=1000:100 {source} ...")
    _check_jobs(copies, found)


def _check_jobs(copies: list[Step], found: Findings) -> None:
    """Check that the scripts lie where the shipped RayJob runs them."""
    jobs = _manifest_jobs()
    for step in copies:
        target = step.words[-1].rstrip("/") if step.words else ""
        if jobs and step.words[:-1] in (["jobs"], ["jobs/"]) and target != jobs:
            what = f"jobs are copied to {target}, cluster/kuberay-rayjob.yaml runs those of {jobs}"
            found.error("COPY", what, f"COPY --chown=1000:100 jobs {jobs}")


def _manifest_jobs() -> str:
    """Return the folder of the scripts that the shipped RayJob runs; empty where the manifest does not lie here."""
    manifest = shipped("cluster/kuberay-rayjob.yaml")
    text = manifest.read_text(encoding="utf-8") if manifest.is_file() else ""
    named = re.search(r"^\s*entrypoint: python (/\S+)/\w+\.py", text, re.MULTILINE)
    return named[1] if named else ""


def _check_requirements(steps: list[Step], copies: list[Step], found: Findings) -> None:
    """Check that requirement files are copied, and installed with their hashes."""
    files = set()
    for step in copies:
        *sources, target = step.words or [""]
        several = target.endswith("/") or len(sources) > 1
        files |= {f"{target.rstrip('/')}/{PurePosixPath(source).name}" if several else target for source in sources}
    for rest in (step.rest for step in steps if step.name == "RUN"):
        for path in re.findall(r"(?:-r|--requirement)[= ]?(/\S+)", rest):
            if path not in files and not any(path.startswith(f"{file}/") for file in files):
                found.error("RUN", f"installs {path}, which no COPY brings", f"one of {', '.join(sorted(files))}")
            if "--require-hashes" not in rest:
                found.warning("RUN", f"installs {path} without hashes", "pip install --require-hashes")
