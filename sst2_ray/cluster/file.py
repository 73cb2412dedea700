"""Cluster files: read one, and give typed access to what it says. Imports no ray."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from sst2_ray.config.section import Section
from sst2_ray.errors import InputError, did_you_mean
from sst2_ray.home import is_temporary

Platform = Literal["aws", "gcp", "azure", "local", "kuberay", "slurm"]
BY_RAY: tuple[Platform, ...] = ("aws", "gcp", "azure", "local")
"""Platforms of files that `ray up` takes."""

PACKAGE = Path(__file__).resolve().parents[1]
DASHBOARD_PORT = 8265
TOKEN_FILE = Path("~/.ray/auth_token")
PLACEHOLDER = re.compile(r"\b(YOUR_[A-Z_]+|MY_[A-Z_]+|(?:HEAD|WORKER)_ADDRESS(?:_\d+)?|SSH_USER)\b")
"""Values of the shipped files that stand for the user's own."""


@dataclass(frozen=True, kw_only=True)
class NodeType:
    """An entry of available_node_types."""

    name: str
    section: Section
    is_head: bool

    @property
    def path(self) -> str:
        """Dotted path of the entry."""
        return self.section.path

    @property
    def config(self) -> Section:
        """The provider's own part."""
        return self.section.section("node_config")

    @property
    def resources(self) -> Section:
        """Resources that the file declares for the scheduler."""
        return self.section.section("resources")

    @property
    def min_workers(self) -> int:
        """Workers of this type that always run."""
        return self.section.whole("min_workers") or 0

    @property
    def max_workers(self) -> int:
        """Workers of this type at most; 0 where the file does not say."""
        return self.section.whole("max_workers") or 0


@dataclass(frozen=True, kw_only=True)
class ClusterFile:
    """A parsed cluster file: one that `ray up` takes, or a KubeRay manifest."""

    path: Path
    platform: Platform
    document: Section
    """The whole document as written, without Ray's defaults."""

    @property
    def name(self) -> str:
        """The cluster's name (for KubeRay: the RayJob's)."""
        if self.platform == "kuberay":
            return self.document.section("metadata").text("name")
        return self.document.text("cluster_name")

    @property
    def token(self) -> Path:
        """File of the cluster's own token, which `sst2-ray up` makes."""
        return Path(f"~/.sst2-ray/{self.name or 'cluster'}.token").expanduser()

    @property
    def provider(self) -> Section:
        """The provider section; empty for a KubeRay manifest."""
        return self.document.section("provider")

    @property
    def zones(self) -> tuple[str, ...]:
        """Zones that the file lists, the preferred first: a cluster lies in one at a time. Empty where it lists none."""
        return tuple(zone.strip() for zone in self.provider.text("availability_zone").split(",") if zone.strip())

    @property
    def zone(self) -> str:
        """Zone that the cluster lies in, or will: the one that it was moved to, else the file's first."""
        if not self.zones:
            return ""
        moved_to = self._zone_file.read_text(encoding="utf-8").strip() if self._zone_file.is_file() else ""
        region = self.provider.text("region")  # Azure has none: its zones are numbers
        return moved_to if moved_to and moved_to.startswith(region) else self.zones[0]

    def set_zone(self, zone: str | None) -> None:
        """Remember the zone that the cluster is moved to; None: the file's first again."""
        if zone is None:
            self._zone_file.unlink(missing_ok=True)
        else:
            own_folder()
            self._zone_file.write_text(zone, encoding="utf-8")

    @property
    def limits(self) -> dict[str, float]:
        """Times that `sst2-ray up` was given for a running cluster (see `life.with_life`); empty: as the file says."""
        if not self._limits_file.is_file():
            return {}
        return {name: float(value) for name, value in json.loads(self._limits_file.read_text(encoding="utf-8")).items()}

    def set_limits(self, limits: Mapping[str, float]) -> None:
        """Remember the times that the cluster is started with; empty: those of the file again."""
        if not limits:
            self._limits_file.unlink(missing_ok=True)
        else:
            own_folder()
            self._limits_file.write_text(json.dumps(dict(limits)), encoding="utf-8")

    @property
    def _zone_file(self) -> Path:
        return self._memory("zone")

    @property
    def _limits_file(self) -> Path:
        return self._memory("limits.json")

    def _memory(self, what: str) -> Path:
        """Return the file that remembers something of the cluster where it runs."""
        place = self.provider.text("region") or self.provider.text("location")  # a name may be used in several places
        return Path(f"~/.sst2-ray/{self.name or 'cluster'}-{self.platform}-{place}.{what}").expanduser()

    @property
    def auth(self) -> Section:
        """The auth section: user and key of SSH."""
        return self.document.section("auth")

    @property
    def max_workers(self) -> int:
        """Workers of all types together, at most."""
        return self.document.whole("max_workers") or 0

    @property
    def node_types(self) -> list[NodeType]:
        """The node types that are mappings; a malformed one is left to the schema."""
        head = self.document.text("head_node_type")
        types = self.document.section("available_node_types").named()
        return [NodeType(name=name, section=section, is_head=name == head) for name, section in types]

    def for_ray(self) -> Path:
        """Return the file to give to `ray up`: itself, or a private copy where names or sources of mounts are others than it says."""
        mounts = self.document.section("file_mounts")
        sources = {remote: mounts.text(remote) for remote in mounts.raw}
        found = {
            remote: source if source.startswith("~") else str(shipped(source)) for remote, source in sources.items()
        }
        if self.token.is_file() and sources.get(str(TOKEN_FILE)) == str(TOKEN_FILE):
            found[str(TOKEN_FILE)] = str(self.token)
        resolved = {**self.document.raw, **({"file_mounts": found} if mounts else {})}
        if (
            self.zones
        ):  # given several, Ray would take machines of the next zone for a run whose first ones are in another
            resolved["provider"] = {**self.provider.raw, "availability_zone": self.zone}
            if self.platform == "gcp":
                resolved["available_node_types"] = _in_zone(self.document.get("available_node_types"), self.zone)
        if resolved == yaml.safe_load(self.path.read_text(encoding="utf-8")):
            return self.path
        copy = own_folder() / f"{self.name or 'cluster'}.yaml"
        copy.write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
        copy.chmod(0o600)
        return copy

    @property
    def hosts(self) -> list[str]:
        """Machines of an on-prem file, the head first; placeholders are left out."""
        every = [self.provider.text("head_ip"), *self.provider.texts("worker_ips")]
        return [address for address in every if address and not PLACEHOLDER.search(address)]


def _in_zone(value: object, zone: str) -> object:
    """Return node types whose kinds of disks are those of `zone`: Google names them by zone."""
    if isinstance(value, dict):
        return {key: _in_zone(item, zone) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_zone(item, zone) for item in value]
    return re.sub(r"\bzones/[\w-]+/diskTypes/", f"zones/{zone}/diskTypes/", value) if isinstance(value, str) else value


def own_folder() -> Path:
    """Return ~/.sst2-ray, which only this user can enter. Raises InputError without a home that can be written."""
    if is_temporary():
        raise InputError("this user has no home for the cluster's token; set HOME to a folder of yours")
    folder = Path("~/.sst2-ray").expanduser()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); set HOME to a folder of yours") from None
    return folder


def shipped(path: str | Path) -> Path:
    """Return a path of the repository as it lies here: below the working folder, in the checkout, or in the installed package."""
    path = Path(path).expanduser()
    if path.is_absolute() or path.exists():
        return path
    if path == Path("sst2_ray"):
        return PACKAGE
    # Beside the package lies the repository, or site-packages, which has no cluster files but may hold anything else.
    roots = [
        PACKAGE / "cluster/templates",
        *([PACKAGE.parent] if (PACKAGE.parent / "ray_cluster.yaml").exists() else []),
    ]
    return next((root / path for root in roots if (root / path).exists()), path)


class UniqueKeyLoader(yaml.SafeLoader):
    """A loader that refuses a key that stands twice in one mapping: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in seen and key.value != "<<":
                problem = f"key {key.value!r} stands in line {seen[key.value]} and in line {line}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen[key.value] = line
        return super().construct_mapping(node, deep)


def load_cluster_file(path: str | Path) -> ClusterFile:
    """Parse `path`; the names of the shipped files are found from any folder.

    Raises InputError for a missing file, wrong YAML, or a platform that is not supported.
    """
    file = shipped(path)
    try:
        text = file.read_bytes().decode("utf-8")  # with the ends of lines as they are: a shell reads them, too
        if re.search(r"^#SBATCH\b", text, re.MULTILINE) and not re.search(
            r"^provider:|^apiVersion:", text, re.MULTILINE
        ):
            return ClusterFile(path=file, platform="slurm", document=Section({"script": text}))
        document = yaml.load(text, Loader=UniqueKeyLoader)  # nosec B506: a SafeLoader
    except FileNotFoundError:
        raise InputError(
            f"{file}: no such cluster file; the repository's are ray_cluster.yaml and cluster/*.yaml"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{file}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise InputError(f"{file}: a mapping is expected, found {type(document).__name__}; is this a cluster file?")
    _name_templates(document)
    section = Section(document)
    if section.text("apiVersion").startswith("ray.io/"):
        return ClusterFile(path=file, platform="kuberay", document=section)
    kind = section.section("provider").get("type")
    for platform in BY_RAY:
        if kind == platform:
            return ClusterFile(path=file, platform=platform, document=section)
    raise InputError(f"{file}: provider.type {kind!r} is not supported; {did_you_mean(str(kind), BY_RAY)}")


def _name_templates(document: dict[str, object]) -> None:
    """Let the names of the account's launch templates follow cluster_name: another cluster's would bring that one's roles."""
    name = Section(document).text("cluster_name")
    for _, node_type in Section(document).section("available_node_types").named():
        template = node_type.section("node_config").section("LaunchTemplate")
        kind = re.fullmatch(r"sst2-ray-.+-(head|worker)", template.text("LaunchTemplateName"))
        if kind and name:
            template.raw["LaunchTemplateName"] = f"sst2-ray-{name}-{kind[1]}"


def use_token_if_present(cluster: ClusterFile | None = None) -> Path | None:
    """Turn Ray's token authentication on for this process where a token exists; return the token's file.

    The cluster's own token goes before this user's general one. Ray reads RAY_AUTH_MODE once, when it is imported: call this
    first. What the user's environment says is respected.
    """
    if cluster is not None and cluster.token.is_file():
        os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(cluster.token))
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN_FILE).expanduser()
    if os.environ.get("RAY_AUTH_TOKEN") or token.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return token if token.is_file() else None


def is_pinned_image(image: str) -> bool:
    """Return True for a container image with a digest, or with a tag other than `latest` or `nightly`."""
    if "@sha256:" in image:
        return True
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return bool(tag) and not tag.startswith(("latest", "nightly"))
