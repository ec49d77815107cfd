"""Regenerate the Python classes of the two file formats: `python schema/generate.py`. Needs flatc 2.0.8 on PATH.

For sim.fbs this writes Scripts/sgs/sim/generated/, for img.fbs Scripts/sgs/img/generated/, each with

    <name>_generated.py   what flatc wrote, with the changes that `rewrite` makes
    vectors.py            a copy of schema/vectors.py, which the former calls
    __init__.py           re-exports every class: `from sgs.sim.generated import Model, ModelT`

The files are kept in version control, so neither users nor tests need flatc.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SCHEMA = Path(__file__).resolve().parent
SCRIPTS = SCHEMA.parent / "Scripts"
NAMES = ("sim", "img")
FLATC_VERSION = "2.0.8"
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
    """flatc is missing, is another version, or wrote something else than expected."""


def flatc_version() -> str | None:
    """The version of the flatc on PATH, or None without one."""
    flatc = shutil.which("flatc")
    if flatc is None:
        return None
    shown = subprocess.run([flatc, "--version"], capture_output=True, text=True, check=True).stdout
    return shown.split()[-1]


def schema_digest(name: str) -> str:
    """SHA-256 of a schema. The generated file quotes it, so that a forgotten regeneration shows without flatc."""
    return hashlib.sha256((SCHEMA / f"{name}.fbs").read_bytes()).hexdigest()


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


def generate(name: str, scripts: Path = SCRIPTS) -> Path:
    """Write the classes of one schema under a Scripts folder; return the folder `generated`."""
    version = flatc_version()
    if version != FLATC_VERSION:
        raise GenerateError(f"flatc {FLATC_VERSION} is needed on PATH, found {version or 'none'}")
    source = SCHEMA / f"{name}.fbs"
    with tempfile.TemporaryDirectory() as folder:
        command = ["flatc", *FLATC_FLAGS, "-o", folder, source.name]
        done = subprocess.run(command, cwd=SCHEMA, capture_output=True, text=True, check=False)
        if done.returncode:
            raise GenerateError(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()}")
        generated = (Path(folder) / f"{name}_generated.py").read_text("utf-8")
    header = f"# Written by schema/generate.py; do not edit.\n# schema/{name}.fbs sha256 {schema_digest(name)}\n"
    body = rewrite(generated, source.read_text("utf-8"))
    body = body.replace("import flatbuffers\n", "import flatbuffers\nfrom .vectors import text, vector\n", 1)
    target = scripts / "sgs" / name / "generated"
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{name}_generated.py").write_text(header + body, "utf-8")
    shutil.copyfile(SCHEMA / "vectors.py", target / "vectors.py")
    init = f'"""Flatbuffer classes of schema/{name}.fbs; written by schema/generate.py."""\n\n'
    (target / "__init__.py").write_text(f"{init}from .{name}_generated import *\n", "utf-8")
    return target


def main() -> int:
    """Regenerate both; 0 done, 2 flatc is missing or refuses a schema."""
    try:
        for name in NAMES:
            print(generate(name).relative_to(SCHEMA.parent).as_posix())
    except GenerateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
