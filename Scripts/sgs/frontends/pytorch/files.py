"""What kind of file of PyTorch a file is, told without PyTorch and without running anything that the file holds."""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from sgs.errors import UserError
from sgs.frontends.model_file import first_line, reading, refused, require_file

Kind = Literal["program", "script"]

EXPORT = "torch.export.save(torch.export.export(model.eval(), (torch.zeros(1, 3, 224, 224),)), 'x.pt2')"
_EXPORT_IT = f"export the network where its Python code is: {EXPORT}; see PyTorch in docs/FRONTENDS.md"
_SAVE_AGAIN = "export or download it again"
_WANTED = "the pytorch platform takes .pt2 programs of torch.export.save and TorchScript archives of torch.jit.save"
_ARCHIVE = b"PK\3\4"  # how zip archives begin
_PICKLED = b"\x80"  # how pickles begin
_PLAIN = ("torch", "numpy", "collections", "builtins", "__builtin__", "_codecs", "argparse", "pathlib", "copyreg")
_OUTER_KEYS = frozenset({"state_dict", "model_state_dict", "optimizer", "optimizer_state_dict", "epoch"})


def kind_of(path: Path) -> Kind:
    """A program of torch.export, or a TorchScript archive. Raises UserError for any other file, saying what it is."""
    require_file(path, "give the path of a .pt2 or .pt file")
    with reading(path), path.open("rb") as file:
        head = file.read(64)
    if not head.startswith(_ARCHIVE):
        raise _no_archive(path, head)
    with _opened(path) as archive:
        if min((entry.header_offset for entry in archive.infolist()), default=0) > 0:  # of an archive inside of it
            raise refused(path, "is damaged or truncated: its directory is missing", _SAVE_AGAIN)
        return _kind_of_archive(path, archive)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive that a file is. Raises UserError for one that is damaged, wherever that shows."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise refused(path, f"is damaged or truncated: {first_line(error)}", _SAVE_AGAIN) from error


def _no_archive(path: Path, head: bytes) -> UserError:
    """The error for a file that is no zip archive."""
    if not head:
        return refused(path, "is empty", _SAVE_AGAIN)
    if head.startswith(_PICKLED):
        return refused(path, "is a pickled checkpoint: weights or a module, and no program", _EXPORT_IT)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return refused(path, "is a safetensors file: weights, and no network", _EXPORT_IT)
    if head[4:6] == b"ET":
        return refused(path, "is a program lowered for ExecuTorch", "give the .pt2 that it was made from")
    return refused(path, "is no file of PyTorch", _WANTED)


def _kind_of_archive(path: Path, archive: zipfile.ZipFile) -> Kind:
    inner = {name.partition("/")[2] or name: name for name in archive.namelist()}  # below the archive's one folder
    programs = sorted(name for name in inner if name.startswith("models/") and name.endswith(".json"))
    if any(name.startswith("data/aotinductor/") for name in inner):
        reason = "is compiled by AOTInductor for one machine"
        raise refused(path, reason, "give the program that torch.export.save wrote")
    if "serialized_exported_program.json" in inner:
        reason = "is in the format of PyTorch before 2.8"
        raise refused(path, reason, "load and save it there with a newer PyTorch, or export it again")
    if programs:
        if programs != ["models/model.json"]:
            held = ", ".join(name.removeprefix("models/").removesuffix(".json") for name in programs)
            raise refused(path, f"holds the programs {held}", "save the one that is meant with torch.export.save")
        return "program"
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return "script"
    if "data.pkl" in inner:
        raise refused(path, _eager(archive.read(inner["data.pkl"])), _EXPORT_IT)
    raise refused(path, "is an archive of something else than PyTorch", _WANTED)


def _eager(pickled: bytes) -> str:
    """What torch.save wrote, read off the pickle without unpickling it."""
    classes, texts = _named_in(pickled)
    modules = [name for name in classes if name.startswith("torch.nn.modules.")]
    own = [name for name in classes if name.split(".")[0] not in _PLAIN]
    if modules or own:
        return f"holds a pickled {(own or modules)[0]}, which only its own Python code can load"
    if _OUTER_KEYS & set(texts):
        return "is a training checkpoint: weights, and no network"
    return "holds weights (a state dict), and no network"


def _named_in(pickled: bytes) -> tuple[list[str], list[str]]:
    """(classes and functions that a pickle names, in order; its texts)."""
    classes: list[str] = []
    texts: list[str] = []
    for operation, argument in _operations(pickled):
        if operation == "GLOBAL":
            classes.append(str(argument).replace(" ", "."))
        elif operation == "STACK_GLOBAL":
            classes.append(".".join(texts[-2:]))
        elif isinstance(argument, str):
            texts.append(argument)
    return classes, texts


def _operations(pickled: bytes) -> Iterator[tuple[str, Any]]:
    for operation, argument, _ in pickletools.genops(pickled):
        yield operation.name, argument


def saved_by(path: Path) -> tuple[int, str]:
    """(format, PyTorch's version) of a program as the file itself says them, (0, "") where it does not."""
    with _opened(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        text = archive.read(name)
    try:
        told = json.loads(text)
        return int(told["schema_version"]["major"]), str(told.get("torch_version", ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0, ""


def namespaces(path: Path) -> set[str]:
    """The namespaces of the operators that a program or archive calls: aten, torchvision, quantized_decomposed …"""
    found: set[bytes] = set()
    with _opened(path) as archive:
        for name in archive.namelist():
            if name.endswith("models/model.json") or ("/code/" in name and name.endswith(".py")):
                found.update(re.findall(rb"\bops\.(\w+)\.", archive.read(name)))
    return {name.decode() for name in found}


def refuse_foreign(path: Path, records: Sequence[str]) -> None:
    """Raise UserError for what loading a program would run: compiled code, and pickled objects. `records`: the
    archive's entries as PyTorch itself sees them."""
    for record in records:
        if record.casefold().startswith("data/aotinductor/"):
            raise refused(path, "holds compiled code", "save the program with torch.export.save")
        if record.casefold().startswith(("data/constants/custom_obj", "data/constants/opaque_obj")):
            reason = f"holds a pickled object ({record}), which only its own Python code can load"
            raise refused(path, reason, "export a network whose constants are tensors")
