"""The floors of the package: an import goes down or stays on its floor, and there are no circles."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "vocalsep"

FLOORS = (
    ("errors", "timebase", "progress"),
    ("paths", "files", "threads"),
    ("voices", "device"),
    ("options", "dsp"),
    ("audio",),
    ("f0.tracks", "f0.csv", "f0.midi", "f0.notes", "f0.plot", "f0.grid", "f0.resampling"),
    ("weights",),
    ("model", "f0"),
    ("separation",),
    ("training",),
    ("api",),
    ("batch",),
    ("evaluation",),
    ("cli",),
)
"""Modules and packages from the lowest floor up; CONTRIBUTING.md describes them."""


def modules() -> dict[str, Path]:
    """Return the path of every module by its name inside the package."""
    paths = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in paths.items() if name != "__init__"}


def floor_of(module: str) -> int:
    """Return the floor of a module; the longest matching name in `FLOORS` decides."""
    found = {
        len(name): index
        for index, names in enumerate(FLOORS)
        for name in names
        if module == name or module.startswith(f"{name}.")
    }
    assert found, f"vocalsep.{module} has no floor: add it to FLOORS and to CONTRIBUTING.md"
    return found[max(found)]


def imports(path: Path, known: set[str]) -> Iterator[str]:
    """Yield the modules of the package that a module imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("vocalsep.") for alias in node.names if "vocalsep." in alias.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vocalsep":
            base = (node.module or "").removeprefix("vocalsep").lstrip(".")
            for alias in node.names:
                name = f"{base}.{alias.name}".lstrip(".")
                yield name if name in known else base


def test_imports_never_go_up():
    known = modules()
    names = {name for name in known if name != "__main__"}
    wrong = [
        f"vocalsep.{name} imports vocalsep.{target}"
        for name in names
        for target in imports(known[name], names)
        if target and floor_of(target) > floor_of(name)
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_there_are_no_circles():
    known = modules()
    names = set(known)
    edges = {name: {target for target in imports(path, names) if target in names} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for target in edges[name] - {name}:
                visit(target, (*path, name))
            done.add(name)

    for name in names:
        visit(name, ())
    assert len(done) == len(names) > 50


def test_every_class_has_a_name_of_its_own():
    defined: dict[str, str] = {}
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                assert node.name not in defined, f"{node.name} is defined in {defined[node.name]} and {module}"
                defined[node.name] = module
