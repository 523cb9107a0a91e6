"""What the files of a package list, and files of a user's own that are added to it.

A new attack, search, judge, defence or training method is one file that lists what it brings: in the package's folder,
or anywhere, and then its path is written where a name is taken (`--attack my_attack.py`).
"""

from __future__ import annotations

import sys
from collections import defaultdict
from functools import lru_cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from forethought.errors import ConfigError, InputError

FILE = ".py"
"""What a name ends with that is a file of the user's."""
_added: dict[str, list[ModuleType]] = defaultdict(list)


def listed(package: ModuleType, attribute: str) -> list[Any]:
    """What the modules of a package list under an attribute: modules by the alphabet, each in its own order.

    Files that were added come last. Packages within it are not looked into.
    """
    own = [one for module in _added[package.__name__] for one in getattr(module, attribute, ())]
    return [*_shipped(package, tuple(package.__path__), attribute), *own]


def by_name(found: list[Any], name: str = "name") -> dict[str, Any]:
    """What was listed, by its name. Raises ConfigError where two have the same one."""
    names = [getattr(one, name) for one in found]
    for repeated in {one for one in names if names.count(one) > 1}:
        raise ConfigError(f"'{repeated}'", "is listed by two files", "Give one of them another name")
    return dict(zip(names, found, strict=True))


def add_file(package: ModuleType, file: str | Path, attribute: str) -> list[Any]:
    """Reads a user's file as a module of a package, once; returns what it lists under an attribute.

    Raises InputError for a file that is not there, lists nothing, or can't be run.
    """
    path = Path(file).resolve()
    known = {module.__file__: module for module in _added[package.__name__]}
    module = known.get(str(path)) or _loaded(package, path)
    found = list(getattr(module, attribute, ()))
    if not found:
        raise InputError(file, f"lists no {attribute}", f"Write {attribute} = (...,) at its end")
    if module not in _added[package.__name__]:
        _added[package.__name__].append(module)
    return found


def _loaded(package: ModuleType, path: Path) -> ModuleType:
    spec = spec_from_file_location(f"{package.__name__}.{path.stem}", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise InputError(path, "is no Python file", "Check the path")
    module = module_from_spec(spec)
    # Records of it are found again by their module's name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(path, f"can't be run ({type(error).__name__}: {error})", "Mend the file") from error
    return module


@lru_cache(maxsize=64)
def _shipped(package: ModuleType, places: tuple[str, ...], attribute: str) -> tuple[Any, ...]:
    """`places` are its folders: another one makes another list."""
    names = sorted(module.name for module in iter_modules(places) if not module.ispkg and module.name != "catalogue")
    modules = [import_module(f"{package.__name__}.{name}") for name in names]
    return tuple(one for module in modules for one in getattr(module, attribute, ()))
