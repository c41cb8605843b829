"""What source files import and say, for the tests of the house's rules."""

import ast
from collections.abc import Iterator
from pathlib import Path


def imports(file: Path, root: Path) -> Iterator[str]:
    """Dotted names that ``file`` imports, ``from a import b`` as ``a.b``, wherever in the file the statement stands.

    A relative import is resolved by the file's place below ``root``.
    """
    package = file.relative_to(root).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def texts(file: Path) -> Iterator[str]:
    """The string literals in ``file``, the fixed parts of f-strings included, docstrings left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value
