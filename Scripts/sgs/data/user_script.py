"""Python files of the user that define one function: how they are loaded, called and blamed."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import CodeType, ModuleType
from typing import Any, ClassVar, TypeVar, cast

from sgs.errors import UserError

_RUNNING = RLock()  # scripts share sys.path, are not written for threads, and may call each other
Script = TypeVar("Script", bound="UserScript")


class UserScript:
    """A loaded script. Pickles as its path, and is loaded again where it is unpickled.

    The script's own folder can be imported from while the script is loaded and while it runs.

    Kinds of scripts say the `stage` of their errors, the `function` that they call and its `signature` as users write
    it, and have `bind`.

    Raises UserError for a script that cannot be loaded, or has no such function.
    """

    stage: ClassVar[str]
    function: ClassVar[str]
    signature: ClassVar[str]
    arguments: ClassVar[str]  # in words

    def bind(self, signature: inspect.Signature) -> None:
        """Raise TypeError where a function of this signature cannot be called as this kind of script is."""
        raise NotImplementedError

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._function = self._load()

    def __reduce__(self: Script) -> tuple[type[Script], tuple[Path]]:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def call(
        self, said: str, *arguments: object, remedy: Callable[[], str | None] = lambda: None, **keywords: object
    ) -> Any:
        """What the function returns; one script of the process runs at a time. Raises UserError for whatever it raises;
        there the call is `said`."""
        with _RUNNING, _importable(self.path.resolve().parent):
            try:
                return self._function(*arguments, **keywords)
            except (Exception, SystemExit) as error:
                raise self._raised(error, f"{said} raised", remedy()) from error

    def _load(self) -> Callable[..., Any]:
        module = self._execute()
        function = getattr(module, self.function, None)
        if not callable(function):
            defined = [name for name, value in vars(module).items() if inspect.isfunction(value)]
            remedy = f"define {self.signature}" + (f"; it defines {', '.join(defined)}" if defined else "")
            raise UserError(f"has no function {self.function}", stage=self.stage, file=self.path, remedy=remedy)
        try:
            self.bind(inspect.signature(function))
        except TypeError as error:
            reason = f"{self.function} cannot be called with {self.arguments}: {error}"
            remedy = f"define {self.signature}"
            raise UserError(reason, stage=self.stage, file=self.path, remedy=remedy) from error
        return cast(Callable[..., Any], function)

    def _execute(self) -> ModuleType:
        """Run the script as a module of its own; modules that it imports from its folder stay its own as well."""
        name = "sgs_user_script_" + hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        loader = _FreshLoader(name, str(self.path))
        spec = importlib.util.spec_from_file_location(name, self.path, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        folder = self.path.resolve().parent
        with _importable(folder):
            before = set(sys.modules)
            sys.modules[name] = module
            try:
                loader.exec_module(module)
            except (Exception, SystemExit) as error:
                sys.modules.pop(name, None)
                raise self._raised(error, "cannot be loaded:", _install(error)) from error
            finally:
                _forget_neighbours(folder, set(sys.modules) - before - {name})
        return module

    def _raised(self, error: BaseException, prefix: str, remedy: str | None) -> UserError:
        """The script's exception as an error that names the innermost line of the script."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(self.path)]
        if isinstance(error, SyntaxError) and error.filename == str(self.path):
            lines.append(error.lineno)
        text = " ".join((str(error) if not isinstance(error, SyntaxError) else error.msg).split())
        reason = f"{prefix} {type(error).__name__}" + (f": {text}" if text else "")
        line = f"line {lines[-1]}" if lines else None
        return UserError(reason, stage=self.stage, file=self.path, node=line, remedy=remedy)


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles the script each time: no __pycache__ beside the user's file, and never a stale one."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:  # the script may have tidied up itself
            sys.path.remove(entry)


def _forget_neighbours(folder: Path, names: set[str]) -> None:
    """Drop modules that came from the folder, so that two scripts may each have their own `letterbox.py`."""
    for name in names:
        module, top = sys.modules[name], folder / name.partition(".")[0]
        file = getattr(module, "__file__", None)
        places = [Path(file)] if file else [Path(place) for place in getattr(module, "__path__", ())]
        if any(place == top.with_suffix(".py") or top in (place, *place.parents) for place in places):
            del sys.modules[name]


def kind_of(value: object) -> str:
    """What something is, in an error about what a script returned."""
    return "None" if value is None else type(value).__name__


def _install(error: BaseException) -> str | None:
    missing = isinstance(error, ModuleNotFoundError) and error.name
    return f"install the package that provides {missing}" if missing else None
