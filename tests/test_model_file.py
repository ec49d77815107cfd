"""Files of source models: digests, and what is said of those that cannot be read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sgs.errors import UserError
from sgs.frontends.model_file import digest_of, mapped, reading, require_file


def test_digests(tmp_path: Path) -> None:
    one, two = tmp_path / "one.bin", tmp_path / "in é" / "two.bin"
    two.parent.mkdir()
    one.write_bytes(b"abc")
    two.write_bytes(b"de")
    assert digest_of(one) == hashlib.sha256(b"abc").hexdigest()
    assert digest_of(one, two) == hashlib.sha256(b"abcde").hexdigest()
    assert digest_of(tmp_path) == hashlib.sha256("in é/two.bin\0deone.bin\0abc".encode()).hexdigest()


def test_what_is_no_file(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "is a folder"), (tmp_path / "none", "no such file")):
        with pytest.raises(UserError, match=f"{reason} \\(give another\\)"):
            require_file(path, "give another")
    with pytest.raises(UserError, match=r"none: cannot be read: No such file or directory \(check its permissions\)"):
        digest_of(tmp_path / "none")
    with pytest.raises(UserError, match="cannot be read: odd"), reading(tmp_path):
        raise OSError("odd")


def test_mapped(tmp_path: Path) -> None:
    path = tmp_path / "x.net"
    path.write_bytes(b"abc")
    assert mapped(path, "a net", again="a", smaller="s")[:] == b"abc"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"x\.net: is empty \(a\)"):
        mapped(path, "a net", again="a", smaller="s")
    with path.open("wb") as file:
        file.truncate(1 << 31)  # sparse
    with pytest.raises(UserError, match=r"is larger than the 2 GiB that a net may have \(s\)"):
        mapped(path, "a net", again="a", smaller="s")
