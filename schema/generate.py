"""Regenerate the Python classes of file formats: `python schema/generate.py`. Needs flatc 2.0.8 and protoc 3.21.12 on
PATH.

For sim.fbs this writes Scripts/sgs/sim/generated/, for img.fbs Scripts/sgs/img/generated/, each with

    <name>_generated.py   what flatc wrote, with the changes that `rewrite` makes
    vectors.py            a copy of schema/vectors.py, which the former calls
    __init__.py           re-exports every class: `from sgs.sim.generated import Model, ModelT`

and for caffe.proto Scripts/sgs/frontends/caffe/generated/, with caffe_pb2.py, which protoc wrote, and an __init__.py.

The files are kept in version control, so neither users nor tests need flatc or protoc.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCHEMA = Path(__file__).resolve().parent
SCRIPTS = SCHEMA.parent / "Scripts"
FLATC_FLAGS = ("--python", "--gen-object-api", "--gen-onefile")

# What flatc writes in `Pack` for a vector of scalars; group names are used below.
VECTOR = re.compile(
    r"""            if np is not None and type\(self\.(?P<field>\w+)\) is np\.ndarray:
                (?P<local>\w+) = builder\.CreateNumpyVector\(self\.\w+\)
            else:
                (?P<start>\w+)Vector\(builder, len\(self\.\w+\)\)
                for i in reversed\(range\(len\(self\.\w+\)\)\):
                    builder\.Prepend(?P<type>\w+)\(self\.\w+\[i\]\)
                \w+ = builder\.EndVector\(\)
"""
)
STRING = re.compile(r"(?P<local>\w+) = builder\.CreateString\(self\.(?P=local)\)")
CLASS = re.compile(r"^class (\w+)T\(object\):\n.*?(?=^class |\Z)", re.MULTILINE | re.DOTALL)


class GenerateError(Exception):
    """A compiler is missing, is another version, or wrote something else than expected."""


def version_of(compiler: str) -> str | None:
    """The version of the flatc or protoc on PATH, or None without one."""
    found = shutil.which(compiler)
    if found is None:
        return None
    return subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]


def schema_digest(name: str) -> str:
    """SHA-256 of a schema. The generated file quotes it, so that forgetting to regenerate shows without it."""
    return hashlib.sha256((SCHEMA / SCHEMAS[name].file).read_bytes()).hexdigest()


def alignments(schema: str) -> dict[tuple[str, str], int]:
    """(table, field in Python's spelling) → bytes, for every field with `force_align`."""
    found = {}
    for table, body in re.findall(r"^table (\w+) \{(.*?)\}", re.sub(r"//.*", "", schema), re.MULTILINE | re.DOTALL):
        for field, amount in re.findall(r"(\w+):[^;]*\(force_align: (\d+)\)", body):
            found[table, camel(field)] = int(amount)
    return found


def camel(field: str) -> str:
    """flatc's spelling of a field in the object API: `zero_point` → `zeroPoint`."""
    first, *rest = field.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def rewrite(generated: str, schema: str) -> str:
    """flatc's file with vectors written by `vectors.vector` and strings read as `str`."""
    align = alignments(schema)

    def rewrite_class(match: re.Match[str]) -> str:
        table, text = match[1], match[0]

        def rewrite_vector(block: re.Match[str]) -> str:
            amount = align.pop((table, block["field"]), 1)
            values = f"self.{block['field']}, np.{block['type'].lower().replace('bool', 'bool_')}, {amount}"
            return f"            {block['local']} = vector(builder, {values})\n"

        text = VECTOR.sub(rewrite_vector, text)
        for field in STRING.findall(text):
            text = re.sub(rf"self\.{field} = (\w+\.\w+\(\))\n", rf"self.{field} = text(\1)\n", text)
        return text

    result = CLASS.sub(rewrite_class, generated)
    if "CreateNumpyVector" in result or align:
        raise GenerateError(f"flatc's vectors look otherwise than expected; not aligned: {sorted(align)}")
    return result


def compiled(command: list[str], folder: Path, made: Path) -> str:
    """What a compiler writes to `made`, run in `folder`."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GenerateError(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()}")
    return made.read_text("utf-8")


def flatbuffer_classes(name: str) -> dict[str, str]:
    """File → text, of the classes of a flatbuffer schema."""
    file = f"{name}.fbs"
    with tempfile.TemporaryDirectory() as folder:
        text = compiled(["flatc", *FLATC_FLAGS, "-o", folder, file], SCHEMA, Path(folder, f"{name}_generated.py"))
    body = rewrite(text, (SCHEMA / file).read_text("utf-8"))
    body = body.replace("import flatbuffers\n", "import flatbuffers\nfrom .vectors import text, vector\n", 1)
    return {
        f"{name}_generated.py": body,
        "vectors.py": (SCHEMA / "vectors.py").read_text("utf-8"),
        "__init__.py": f'"""Flatbuffer classes of schema/{file}; written by schema/generate.py."""\n\n'
        f"from .{name}_generated import *\n",
    }


def message_classes(name: str) -> dict[str, str]:
    """File → text, of the classes of protocol buffers."""
    file = f"{SCHEMA.name}/{name}.proto"  # its name in the registry of all messages that a process knows
    with tempfile.TemporaryDirectory() as folder:
        command = ["protoc", f"--python_out={folder}", file]
        body = compiled(command, SCHEMA.parent, Path(folder, SCHEMA.name, f"{name}_pb2.py"))
    return {
        f"{name}_pb2.py": body,
        "__init__.py": f'"""Message classes of {file}; written by schema/generate.py."""\n\n'
        f"from .{name}_pb2 import *\n",
    }


@dataclass(frozen=True)
class Schema:
    """A schema: its file, the folder of sgs that has its classes, and what makes them."""

    file: str
    home: str
    compiler: str
    version: str
    classes: Callable[[str], dict[str, str]]


SCHEMAS = {
    "sim": Schema("sim.fbs", "sim", "flatc", "2.0.8", flatbuffer_classes),
    "img": Schema("img.fbs", "img", "flatc", "2.0.8", flatbuffer_classes),
    "caffe": Schema("caffe.proto", "frontends/caffe", "protoc", "3.21.12", message_classes),
}


def generate(name: str, scripts: Path = SCRIPTS) -> Path:
    """Write the classes of one schema under a Scripts folder; return the folder `generated`."""
    schema = SCHEMAS[name]
    version = version_of(schema.compiler)
    if version != schema.version:
        raise GenerateError(f"{schema.compiler} {schema.version} is needed on PATH, found {version or 'none'}")
    target = scripts / "sgs" / schema.home / "generated"
    target.mkdir(parents=True, exist_ok=True)
    header = f"# Written by schema/generate.py; do not edit.\n# schema/{schema.file} sha256 {schema_digest(name)}\n"
    for file, text in schema.classes(name).items():
        own = file.startswith(name)  # vectors.py is a copy
        (target / file).write_text(header * own + text, "utf-8")
    return target


def main() -> int:
    """Regenerate all; 0 done, 2 a compiler is missing or refuses a schema."""
    try:
        for name in SCHEMAS:
            print(generate(name).relative_to(SCHEMA.parent).as_posix())
    except GenerateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
