"""Reader of CloudFormation templates: YAML with functions as tags."""

from __future__ import annotations

from typing import Any

import yaml


class _Tag(dict[str, Any]):
    """A short form of one of CloudFormation's functions, e.g. !Ref X as {Ref: X}."""


class _Loader(yaml.SafeLoader):
    """A loader that reads CloudFormation's own tags."""


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> _Tag:
    if isinstance(node, yaml.ScalarNode):
        value: object = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return _Tag({suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value})


_Loader.add_multi_constructor("!", _function)


def read_template(text: str) -> object:
    """Parse a template. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_Loader)  # nosec B506: a SafeLoader
