"""Damage to files, by a seed: bytes of any file, values of JSON, parts of archives."""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from typing import Any

_NUMBERS = (0, 1, 2, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_TEXTS = (
    *(b"", b"\0", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\n", b"\r\n", b'"', b",", b";", b":"),
    *(b"[", b"{", b"]", b"}", b"null", b"true", b"NaN", b"-Infinity", b"1e400", b"-1", b"0"),
    *(b"9" * 30, b"9" * 5000, b'"\\ud800"', b"\\u0000", b"../..", b"/etc/passwd", b"&a ", b"*a"),
    *(b"<<: ", b"!!int ", b"!!float x", b"? ", b"- ", b"# ", b"on", b"2012-01-01", b"2012", b"~"),
    *(b"\x1b[31m", b"\xe2\x80\xa8", b"[" * 2000, b"{a: " * 300),
)
WEIRD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, -(10**30), 0.5, -0.0, 1e308),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        " ",
        "\0",
        "\ud800",
        "../x",
        "/x",
        "é",
        "9" * 9,
    ),
    *("running", "done", "1/2", "0/0", [], {}, [[]], [None], {"": None}, [1, 2, 3], "x" * 5000),
    {"a": {"b": {"c": []}}},
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return `content` with a few places changed."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        _damage(data, rng)
    return bytes(data)


def _damage(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    kind = rng.randrange(9)
    if kind == 0 and place < len(data):
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1 and place < len(data):
        data[place] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
        width = rng.choice((1, 2, 4, 8))
        number = rng.choice((*_NUMBERS, rng.getrandbits(63))) % 256**width
        data[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))
    elif kind == 3:
        del data[place:]
    elif kind == 4:
        del data[place : place + rng.choice((1, 2, 8, 100, 5000))]
    elif kind == 5:
        data[place:place] = data[place : place + rng.choice((1, 8, 100, 5000))]
    elif kind == 6:
        data[place:place] = rng.choice(_TEXTS)
    elif kind == 7:
        text = rng.choice(_TEXTS)
        data[place : place + rng.choice((0, 1, len(text), 20))] = text
    else:
        other = rng.randrange(len(data) + 1)
        width = rng.choice((1, 4, 16, 200))
        data[place : place + width] = data[other : other + width]


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    """Return JSON with a few values changed, still JSON."""
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _replaced(value, rng)
    return json.dumps(value).encode()


def _replaced(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        changed = copy.copy(value)
        if rng.random() < 0.15:
            changed[rng.choice(("", "x", "\ud800", "state", key + "s"))] = changed.pop(key)
        elif rng.random() < 0.1:
            del changed[key]
        else:
            changed[key] = _replaced(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], _replaced(value[place], rng), *value[place + 1 :]]
    return copy.deepcopy(rng.choice(WEIRD))


def damaged_archive(content: bytes, rng: random.Random) -> bytes:
    """Return a ZIP archive with one part damaged, and its checksum right again."""
    result = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as new,
    ):
        parts = old.infolist()
        chosen = rng.choice([part for part in parts if "pkl" in part.filename] or parts)
        chosen = chosen if rng.random() < 0.7 else rng.choice(parts)
        for part in parts:
            data = old.read(part)
            data = damaged(data, rng) if part is chosen else data
            how = zipfile.ZIP_DEFLATED if rng.random() < 0.02 else zipfile.ZIP_STORED
            new.writestr(part.filename, data, how)
    return result.getvalue()
