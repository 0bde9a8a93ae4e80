"""The house: rooms in the order of docs/design.md, no circle of imports, and files of a readable size."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "nnunet_ext"
DESIGN = ROOT / "docs" / "design.md"
OUTSIDE = {"nnunet_ext", "__main__", "run", "ext_trainer"}  # of the order, says docs/design.md
LONGEST = 400  # lines of a file
SHARED_NAMES = {"lits", "busi", "raunet", "samus", "sam"}  # datasets and networks; and a verb is called as its room
ODD_WORDS = re.compile(  # not idiomatic English; docs/design.md has the words
    r"\b(beside|told|way_out|"
    r"(?<!here )(is|are) no (folder|file|directory|picture|model|key|number|class|checkpoint)s?)\b"
)


def rooms() -> list[str]:
    """Return the rooms in the order of the table in docs/design.md."""
    return re.findall(r"^\| `(\w+)` \|", DESIGN.read_text(encoding="utf-8"), re.MULTILINE)


def room(module: str) -> str:
    """Return the room of a module, "nnunet_ext" for the package's own ``__init__``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def modules() -> dict[str, Path]:
    """Return the dotted name and the file of every module of the package."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports(module: str, file: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of the package that a file imports anywhere, in functions and for type checkers too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            names.update(f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names)
        elif isinstance(node, ast.Call) and _names_a_module(node):
            names.add(ast.literal_eval(node.args[0]))
    return {name for name in names if name in known and name != module}


def _names_a_module(call: ast.Call) -> bool:
    """Tell whether a call is ``importlib.import_module`` of a fixed name."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return function == "import_module" and isinstance(call.args[0], ast.Constant)


def graph() -> dict[str, set[str]]:
    known = modules()
    return {module: imports(module, file, known) for module, file in known.items()}


def test_the_table_lists_every_room() -> None:
    found = {room(module) for module in modules()} - OUTSIDE
    assert set(rooms()) == found
    assert len(rooms()) == len(found)


def test_a_room_imports_only_from_rooms_above_it() -> None:
    order = {name: place for place, name in enumerate(rooms())}
    wrong = [
        f"{module} imports {target}"
        for module, targets in sorted(graph().items())
        for target in sorted(targets)
        if room(module) not in OUTSIDE and room(target) in order and order[room(target)] > order[room(module)]
    ]
    assert wrong == []


def test_no_import_circle() -> None:
    # `import nnunet_ext` itself is lazy, and every module of the package runs it first
    edges = {module: targets - {"nnunet_ext"} for module, targets in graph().items()}
    try:
        tuple(TopologicalSorter(edges).static_order())
    except CycleError as e:
        pytest.fail(f"import circle: {' -> '.join(reversed(e.args[1]))}")


def test_no_file_is_too_long() -> None:
    lines = {str(f.relative_to(ROOT)): len(f.read_text(encoding="utf-8").splitlines()) for f in modules().values()}
    assert {file: n for file, n in lines.items() if n > LONGEST} == {}


def test_no_two_modules_of_one_name() -> None:
    """A name says what a file holds: `folder`, `progress` and `tables` once stood in several rooms."""
    names: dict[str, list[str]] = {}
    for module, file in modules().items():
        if not file.name.startswith("__") and room(module) != "cli" and file.stem not in SHARED_NAMES:
            names.setdefault(file.stem, []).append(module)
    assert {name: places for name, places in names.items() if len(places) > 1} == {}


def test_odd_words() -> None:
    files = [f for f in PACKAGE.rglob("*") if f.suffix in (".py", ".j2", ".toml")]
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    texts = {str(f.relative_to(ROOT)): f.read_text(encoding="utf-8") for f in [*files, *pages]}
    found = {name: match[0] for name, text in texts.items() if (match := ODD_WORDS.search(text))}
    assert found == {}
