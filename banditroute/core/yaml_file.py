"""YAML files that a person writes: a mapping of keys, each of which is given once.

Plain YAML takes the last of two equal keys and says nothing. Here that is an error, because one
of the two was a mistake. What the keys mean is checked by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from banditroute.core.mistakes import path_of

_MERGE = "tag:yaml.org,2002:merge"


class YamlError(ValueError):
    """A file cannot be used; the message is one line and does not name the file."""


class DuplicateKeyError(YamlError):
    """A mapping has a key twice; the message begins with the path of the key."""


@dataclass(frozen=True, slots=True)
class YamlFile:
    """The keys of a file and their lines.

    Attributes
    ----------
    content : dict or None
        The keys with their values; None for an empty file.
    root : yaml.Node or None
        The same as a tree that knows its lines.
    """

    content: dict[Any, Any] | None
    root: yaml.Node | None

    def line(self, location: Sequence[int | str]) -> int | None:
        """Return the line, from 1, of a key or of an item of a list; None if there is none.

        Parameters
        ----------
        location : sequence of (int or str)
            Keys and indices that lead to it.
        """
        place = self.root and (self.root, self.root)
        for part in location:
            place = place and _entry(place[1], part)
        return place[0].start_mark.line + 1 if place else None


def read_yaml(file: Traversable) -> YamlFile:
    """Read a file.

    Parameters
    ----------
    file : Path or Traversable
        The file, in UTF-8.

    Returns
    -------
    YamlFile
        Its keys.

    Raises
    ------
    YamlError
        The file cannot be read, is not YAML, has a key twice or does not hold a mapping of keys.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise YamlError(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise YamlError(f"not UTF-8: {error}") from error
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None:
            _refuse_duplicates(root, (), set())
        content = None if root is None else loader.construct_document(root)
    except YamlError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: for instance a 13th month
        problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        message = f"not YAML{line}: {problem or ' '.join(str(error).split())}"
        raise YamlError(message) from error
    if not isinstance(content, dict | None):
        raise YamlError("a mapping of keys is expected")
    return YamlFile(content, root)


def _refuse_duplicates(
    node: yaml.Node, location: tuple[int | str, ...], seen: set[yaml.Node]
) -> None:
    """Raise DuplicateKeyError for the first key that its mapping has twice, merges left out."""
    if node in seen:  # an alias, perhaps of a node that it stands in
        return
    seen.add(node)
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _refuse_duplicates(item, (*location, i), seen)
    elif isinstance(node, yaml.MappingNode):
        keys = set[str]()
        for key, value in node.value:
            below = location
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                below = (*location, key.value)
                if key.value in keys:
                    line = key.start_mark.line + 1
                    raise DuplicateKeyError(f"{path_of(below)} (line {line}): given twice")
                keys.add(key.value)
            _refuse_duplicates(value, below, seen)


def _entry(node: yaml.Node, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the node to show and the node of the value of a key or an index, None without it."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    if isinstance(node, yaml.MappingNode):
        # From the end, because keys that are merged in come first and are overridden.
        return next((pair for pair in reversed(node.value) if pair[0].value == str(part)), None)
    return None
