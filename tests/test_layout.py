"""Who may import whom, and what may be imported only where it is used."""

import ast
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

from amt.data.files import PARSING

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"structs", "errors", "storage"},
    {"geometry"},
    {"hand", "robot"},
    {"models", "losses", "metrics", "data", "physics"},
    {"training"},
    {"evaluation", "inference"},
    {"serving", "viz"},
    {"modes"},
]
RANK = {group: rank for rank, layer in enumerate(LAYERS) for group in layer}
APART = {frozenset(("models", "physics")), frozenset(("hand", "robot"))}  # they meet one layer up
OPTIONAL = {
    "torch",
    "transformers",
    "viser",
    "mjviser",
    "mediapy",
    "msgpack",
    "websockets",
    "libtpu",
    "tensorboardX",
    "wandb",
    "xprof",
    "pycocotools",
    "pillow_heif",
}


class Import(NamedTuple):
    where: str  # file:line
    module: str  # the importing module, dotted
    target: str  # the imported module, dotted
    inside_function: bool


def imports_of(source: str, path: Path) -> Iterator[Import]:
    """Every import of a file; `path` is relative to the repository."""
    parts = path.with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    package = parts[:-1]
    with PARSING:  # readers of earlier tests may still run, and CPython 3.11 cannot do this in two threads at once
        tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inside = {node for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = list(package[: len(package) - node.level + 1]) if node.level else []
            stem += [node.module] if node.module else []
            targets = [".".join([*stem, alias.name]) for alias in node.names]
        else:
            continue
        for target in targets:
            yield Import(f"{path}:{node.lineno}", module, target, node in inside)


def group_of(module: str) -> str | None:
    """`amt.hand.lbs` belongs to `hand`; `amt` itself, the library's face, and foreign modules to none."""
    parts = module.split(".")
    return parts[1] if parts[0] == "amt" and len(parts) > 1 else None


def arrow_errors(imports: list[Import]) -> list[str]:
    """Imports against the arrows: upwards, between groups kept apart, in a circle, or out of the package."""
    errors, graph = [], {}
    for where, module, target, _ in imports:
        if target.split(".")[0] in ("configs", "experiments", "launch", "tests"):
            errors.append(f"{where}: amt never imports {target}")
        a, b = group_of(module), group_of(target)
        if a is None or b is None or a == b:
            continue
        if a not in RANK or b not in RANK:
            errors.append(f"{where}: {a if a not in RANK else b} has no place in the layout of DESIGN section 3")
        elif RANK[b] > RANK[a]:
            errors.append(f"{where}: {a} must not import {b}, which lies above it")
        elif frozenset((a, b)) in APART:
            errors.append(f"{where}: {a} and {b} must not see each other")
        graph.setdefault(a, set()).add(b)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        errors.append(f"groups import each other in a circle: {error.args[1]}")
    return errors


def place_errors(imports: list[Import]) -> list[str]:
    """Optional packages imported at a module's top, and configuration objects outside modes and factories."""
    errors = []
    for where, module, target, inside_function in imports:
        package = target.split(".")[0]
        if package in OPTIONAL and not inside_function:
            errors.append(f"{where}: {package} is optional, import it inside the function that needs it")
        if package == "ml_collections" and not (group_of(module) == "modes" or module.endswith("factories")):
            errors.append(f"{where}: a ConfigDict stops at modes and factories; pass plain fields")
    return errors


def python_files(*folders: str) -> list[Path]:
    return [path.relative_to(ROOT) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.fixture(scope="module")
def amt_imports() -> list[Import]:
    return [found for path in python_files("amt") for found in imports_of((ROOT / path).read_text(), path)]


def test_imports_follow_the_arrows(amt_imports):
    assert amt_imports
    assert not arrow_errors(amt_imports)


def test_optional_packages_and_configs_stay_in_their_place(amt_imports):
    assert not place_errors(amt_imports)


def test_every_package_that_is_imported_is_declared(amt_imports):
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"] + "".join(setup["options.extras_require"].values())
    declared = {normal(re.match(r"[\w.-]+", line)[0]) for line in lines.split()}
    distributions = packages_distributions()
    for where, _, target, _ in amt_imports:
        package = target.split(".")[0]
        if package == "amt" or package in sys.stdlib_module_names or package in OPTIONAL:
            continue
        owners = {normal(name) for name in distributions.get(package, [package])}
        assert owners & declared, f"{where}: {package} ({owners}) is not in setup.cfg"


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_every_folder_of_the_package_is_importable():
    for path in python_files("amt"):
        assert (ROOT / path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py"


def test_a_circle_is_found():
    imports = [
        Import("x:1", "amt.losses", "amt.data.ycb", False),
        Import("y:1", "amt.data.a", "amt.losses", False),
    ]
    assert ["circle" in error for error in arrow_errors(imports)] == [True]


def test_what_is_allowed_passes():
    source = "def f():\n    import torch\nfrom amt.structs import Array\nfrom . import layers"
    imports = list(imports_of(source, Path("amt/models/dinov2.py")))
    assert not arrow_errors(imports) + place_errors(imports)
