"""Puts the cluster files, which lie at the top of the repository, into the package: `sst2-ray up` finds them from any folder."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithClusterFiles(build_py):
    """The package, with the cluster files as its templates."""

    def run(self) -> None:
        """Build, then copy the files with the paths that they have in the repository."""
        super().run()
        root, target = Path(__file__).parent, Path(self.build_lib) / "sst2_ray/cluster/templates"
        shutil.copytree(
            root / "cluster", target / "cluster", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in ("ray_cluster.yaml", "pyproject.toml"):
            shutil.copy2(root / name, target / name)


setup(cmdclass={"build_py": BuildWithClusterFiles})
