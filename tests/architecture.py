"""Measure the architecture: ``python tests/architecture.py [CHECKOUT ...]`` prints a table.

Several checkouts stand side by side, such as one of before a change and one of after. It reads the
code and runs none of it. Migrations and tests are left out.

modules, folders
    Python files, and the folders that they are in.
import levels
    The longest chain of modules each of which imports the next.
cycles
    Groups of modules that import each other, directly or through others.
imports inside a folder
    Imports of a module by another one of the same folder, of all imports within the package. The
    package's own folder is none: what lies in it has not been put in order.
lines of code
    Lines that hold code, without docstrings, comments, imports and blank lines.
duplicates
    Pairs of places that share six or more lines of code, but for white space.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGES = ("banditroute", "sim", "policies")
SHARED_LINES = 6
SKIPPED = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Module:
    """A Python file of a package.

    Attributes
    ----------
    name : str
        Dotted name.
    folder : Path
        Where it lies, below the checkout.
    imports : frozenset[str]
        Dotted names that it imports anywhere, inside functions too.
    code : tuple of (int, str)
        Line number and text of every line of code.
    """

    name: str
    folder: Path
    imports: frozenset[str]
    code: tuple[tuple[int, str], ...]


def read(path: Path, root: Path) -> Module:
    """Read one file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    imports, left_out = set[str](), set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not _is_docstring(node):
            continue
        left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = text.splitlines()
    held = {
        number
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in SKIPPED
        for number in range(token.start[0], token.end[0] + 1)
    }
    code = tuple((n, lines[n - 1].strip()) for n in sorted(held - left_out))
    return Module(name, path.relative_to(root).parent, frozenset(imports), code)


def _is_docstring(node: ast.AST) -> bool:
    """Return whether a statement is nothing but a text."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def modules(root: Path, package: str) -> dict[str, Module]:
    """Return the modules of a package by name."""
    files = sorted(p for p in (root / package).rglob("*.py") if "migrations" not in p.parts)
    return {module.name: module for module in (read(path, root) for path in files)}


def arrows(found: dict[str, Module]) -> dict[str, set[str]]:
    """Return which modules of `found` each of them imports."""
    edges: dict[str, set[str]] = {name: set() for name in found}
    for name, module in found.items():
        for imported in module.imports:
            target = imported
            while target and target not in found:
                target = target.rpartition(".")[0]
            if target and target != name:
                edges[name].add(target)
    return edges


def components(edges: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of modules that reach each other."""
    reached = {name: _reach(name, edges) for name in edges}
    groups: list[set[str]] = []
    for name in edges:
        group = {other for other in reached[name] if name in reached[other]} | {name}
        if len(group) > 1 and group not in groups:
            groups.append(group)
    return groups


def _reach(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen, waiting = set[str](), [start]
    while waiting:
        for target in edges[waiting.pop()] - seen:
            seen.add(target)
            waiting.append(target)
    return seen


def levels(edges: dict[str, set[str]]) -> int:
    """Return the length of the longest chain of imports; a cycle counts as one module."""
    group = {name: name for name in edges}
    for cycle in components(edges):
        group |= dict.fromkeys(cycle, min(cycle))
    between: dict[str, set[str]] = defaultdict(set)
    for name, targets in edges.items():
        between[group[name]] |= {group[target] for target in targets} - {group[name]}

    @cache
    def depth(name: str) -> int:
        return 1 + max((depth(target) for target in between[name]), default=0)

    return max(depth(name) for name in set(group.values()))


def duplicates(found: list[Module]) -> Iterator[tuple[str, int, str, int, int]]:
    """Yield (module, line, module, line, shared lines) of what stands in two places."""
    windows: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    texts = [[text for _, text in module.code] for module in found]
    for m, lines in enumerate(texts):
        for i in range(len(lines) - SHARED_LINES + 1):
            window = tuple(lines[i : i + SHARED_LINES])
            if sum(len(line) > 3 for line in window) >= SHARED_LINES - 1:
                windows[window].append((m, i))
    for places in windows.values():
        for k, (m, i) in enumerate(places):
            for n, j in places[k + 1 :]:
                if i and j and texts[m][i - 1] == texts[n][j - 1]:
                    continue  # the run has begun earlier
                if m == n and j < i + SHARED_LINES:
                    continue
                length = SHARED_LINES
                while _equal(texts[m], i + length, texts[n], j + length):
                    length += 1
                first, second = found[m], found[n]
                yield first.name, first.code[i][0], second.name, second.code[j][0], length


def _equal(first: list[str], i: int, second: list[str], j: int) -> bool:
    return i < len(first) and j < len(second) and first[i] == second[j]


def measures(root: Path) -> dict[str, str]:
    """Return the figures of a checkout by name."""
    figures: dict[str, str] = {}
    everything: list[Module] = []
    for package in PACKAGES:
        found = modules(root, package)
        everything += found.values()
        edges = arrows(found)
        pairs = [(a, b) for a, targets in edges.items() for b in targets]
        inside = [
            (a, b)
            for a, b in pairs
            if found[a].folder == found[b].folder and found[a].folder != Path(package)
        ]
        figures |= {
            f"{package}: modules": str(len(found)),
            f"{package}: folders": str(len({module.folder for module in found.values()})),
            f"{package}: import levels": str(levels(edges)),
            f"{package}: cycles": str(len(components(edges))),
            f"{package}: imports inside a folder": f"{len(inside)} of {len(pairs)}",
            f"{package}: lines of code": f"{sum(len(m.code) for m in found.values()):,}",
        }
    figures["lines of code"] = f"{sum(len(m.code) for m in everything):,}"
    figures["duplicates"] = str(len(list(duplicates(everything))))
    return figures


def main() -> None:
    """Print a column for each checkout; with one, its duplicates too."""
    roots = [Path(given).resolve() for given in sys.argv[1:]] or [Path(__file__).parents[1]]
    columns = [measures(root) for root in roots]
    width = max(map(len, columns[0]))
    for name in columns[0]:
        print(f"{name:{width}}", *(f"{column[name]:>12}" for column in columns))
    if len(roots) == 1:
        found = [m for package in PACKAGES for m in modules(roots[0], package).values()]
        for first, i, second, j, length in sorted(duplicates(found), key=lambda row: -row[-1]):
            print(f"{length} lines: {first}:{i} and {second}:{j}")


if __name__ == "__main__":
    main()
