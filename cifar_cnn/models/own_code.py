"""Import the user's own code without shadowing modules that libraries import."""

import ast
import functools
import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from cifar_cnn.runtime import global_state_kept

_LIBRARIES = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]


def import_source(source: str) -> ModuleType:
    """Import a module by its name, or a file: once for each time it was changed.

    Both find what lies in the current folder; a file finds its neighbors and its repository's
    modules too, and is loaded as part of the package that it belongs to.
    """
    if not source.endswith(".py"):
        with _importing(source, [Path.cwd()]):
            return importlib.import_module(source)
    file = Path(source).resolve()
    return _run_file(file, file.stat().st_mtime_ns)


@functools.cache
def _run_file(file: Path, changed_at: int) -> ModuleType:
    root = _above_its_package(file)
    with _importing(str(file), [root, file.parent, Path.cwd(), *_repository(file)]):
        if root == file.parent:
            name = f"cifar_cnn_user_{file.stem}"  # prefixed: the file may be called random.py
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module  # as an import would: dataclasses look it up
            spec.loader.exec_module(module)
            return module
        parts = file.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        sys.modules.pop(name, None)  # it may have changed
        module = importlib.import_module(name)
        if module.__file__ is None or Path(module.__file__).resolve() != file:
            raise ImportError(f"{name} is {module.__file__} here: rename the file's folder")
        return module


def _above_its_package(file: Path) -> Path:
    """Return the parent of the file's top-level package, or its own folder if it is in none."""
    try:
        nodes = ast.walk(ast.parse(file.read_bytes()))
        levels = max((n.level for n in nodes if isinstance(n, ast.ImportFrom)), default=0)
    except (SyntaxError, ValueError):  # the import says so
        levels = 0
    folder = file.parent
    while folder.name.isidentifier() and (levels > 0 or (folder / "__init__.py").is_file()):
        folder, levels = folder.parent, levels - 1
    return folder


def _repository(file: Path) -> list[Path]:
    for folder in file.parents:
        if (folder / ".git").exists() or (folder / "pyproject.toml").exists():
            return [folder, folder / "src"]
    return []


@contextmanager
def _importing(source: str, folders: Sequence[Path]) -> Iterator[None]:
    """Search `folders` first while the user's code is imported, and last afterwards.

    The code sees its own name as the only argument in `sys.argv`. Global state that it changes is
    restored.
    """
    arguments, path, modules = sys.argv, [*sys.path], {*sys.modules}
    folder, streams = Path.cwd(), (sys.stdin, sys.stdout, sys.stderr)
    sys.path[:] = dict.fromkeys([*map(str, folders), *path])
    sys.argv = [source]
    importlib.invalidate_caches()
    try:
        with global_state_kept():
            yield
    finally:
        os.chdir(folder)
        sys.argv, (sys.stdin, sys.stdout, sys.stderr) = arguments, streams
        added = [each for each in sys.path if each not in path]
        sys.path[:] = [*path, *added]
        _give_names_back({*sys.modules} - modules, {*added})


def _give_names_back(names: set[str], folders: set[str]) -> None:
    """Forget the user's modules that are named like a library's: an import means the library."""
    for top in {name for name in names if "." not in name and _is_library(name)}:
        file = getattr(sys.modules[top], "__file__", None)
        if file and {str(each) for each in [*Path(file).parents][:2]} & folders:
            for name in names:
                if name.partition(".")[0] == top:
                    del sys.modules[name]


def _is_library(name: str) -> bool:
    return name in sys.stdlib_module_names or PathFinder.find_spec(name, _LIBRARIES) is not None
