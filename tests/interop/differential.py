#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""differential.py TOOL [FILES] [SEED]: the same safetensors files to the reference reader and to shardmesh.

Sound files of random tensors, and the same with one to three mistakes: numbers, offsets, lengths, keys, types, text, bytes.
What the reference refuses must be refused; what it takes must be taken, with the same names, types, shapes and bytes,
except for what is listed in STRICTER, with its reason. Runs itself again under the Python of $SHARDMESH_TORCH_PYTHON;
exit 77 without safetensors."""
import concurrent.futures
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

python = os.environ.get("SHARDMESH_TORCH_PYTHON")
if python and "INTEROP_INNER" not in os.environ:
    os.execve(python, [python, *sys.argv], os.environ | {"INTEROP_INNER": "1"})
try:
    import safetensors
except ImportError as error:
    print(f"SKIP: {os.environ.get('SHARDMESH_TORCH_MISSING') or error}; bash tests/interop/torch_env.sh installs it, SHARDMESH_TORCH_PYTHON names its Python")
    sys.exit(77)

TOOL, FILES, SEED = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 600, int(sys.argv[3]) if len(sys.argv) > 3 else 1
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "U16": 2, "U32": 4, "U64": 8,
         "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8}
# Where we refuse what the reference takes, by what our error says, and why.
STRICTER = {
    "twice": "a name that stands twice: the reference takes the last, other readers the first",
    "at most 8": "more than eight dimensions",
    "UTF-8": "names that are no text",
    "a name with a NUL": "names that end early in other programs",
    "end inside of a byte": "rows of numbers of 4 or 6 bits that no tensor holds: listed, but not read",
}


def sound(rng: random.Random) -> tuple[dict, bytes]:
    """Header and data of a file with up to five tensors, in order, without holes."""
    header, at = {}, 0
    if rng.random() < 0.4:
        header["__metadata__"] = {rng.choice(["format", "a", "ü", ""]): rng.choice(["pt", "", "\n\"x"]) for _ in range(rng.randrange(3))}
    for i in range(rng.randrange(6)):
        dtype = rng.choice(list(SIZES))
        shape = [rng.choice([0, 1, 1, 2, 3, 5]) for _ in range(rng.randrange(4))]
        size = SIZES[dtype]
        for extent in shape:
            size *= extent
        header[rng.choice(["w", "layer.weight", "é", "a b", "x/y", "深"]) + str(i)] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return header, rng.randbytes(at)


def mistake_in_header(rng: random.Random, header: dict) -> None:
    names = [name for name in header if name != "__metadata__"]
    kind = rng.randrange(12)
    if kind == 0 or not names:
        header["__metadata__"] = rng.choice([{"a": 1}, {"a": None}, [], "x", {"a": {"b": "c"}}, None, {"a": "b"}])
        return
    entry = header[rng.choice(names)]
    if not isinstance(entry, dict):
        return
    offsets = entry.get("data_offsets")
    if kind == 1 and isinstance(offsets, list) and offsets:
        i = rng.randrange(len(offsets))
        offsets[i] = rng.choice([offsets[i] + 1 if isinstance(offsets[i], int) else 0, -1, 1.5, "0", None, 2**63, 2**64, 10**30, True, [0], 0])
    elif kind == 2 and isinstance(entry.get("shape"), list) and entry["shape"]:
        entry["shape"][rng.randrange(len(entry["shape"]))] = rng.choice([-1, 2**32, 2**62, 2**64, 1.0, "2", None, 7, 0])
    elif kind == 3:
        entry["dtype"] = rng.choice(["F33", "f32", "", None, 3, "I32", "F4", "F8_E8M0", ["F32"]])
    elif kind == 4 and entry:
        entry.pop(rng.choice(list(entry)), None)
    elif kind == 5:
        entry[rng.choice(["extra", "dtype ", "Shape", "requires_grad"])] = rng.choice([1, "x", [1, [2]], {"y": None}])
    elif kind == 6 and isinstance(offsets, list):
        offsets.append(0) if rng.random() < 0.5 else offsets.pop()
    elif kind == 7 and isinstance(offsets, list):
        offsets.reverse()
    elif kind == 8:
        entry["shape"] = rng.choice([[1] * 9, [], None, {}, "1", 3, [[1]]])
    elif kind == 9:
        header[rng.choice(names)] = rng.choice([None, [], 3, "x", {}])
    elif kind == 10 and len(names) > 1:  # two tensors of the same bytes
        header[names[0]] = dict(header[names[1]]) if isinstance(header[names[1]], dict) else {}
    else:
        entry["shape"] = (entry["shape"] if isinstance(entry.get("shape"), list) else []) + [1]


def mistake_in_text(rng: random.Random, text: bytes) -> bytes:
    kind = rng.randrange(9)
    at = rng.randrange(len(text) + 1)
    if kind == 0:
        return text[:at] + bytes([rng.randrange(256)]) + text[at + 1:]
    if kind == 1:
        return text[:at] + rng.choice([b" ", b"\n", b",", b"}", b"{", b"\x00", b"\xff", b"//", b"\\u0000", b"NaN"]) + text[at:]
    if kind == 2:
        return text[:at] + text[at + 1:]
    if kind == 3:
        return text + rng.choice([b" " * 7, b"\x00" * 8, b"{}", b"\n", b"x"])
    if kind == 4:
        return rng.choice([b" ", b"\xef\xbb\xbf", b"\n"]) + text
    if kind == 5 and text.count(b'"') > 4:  # the first name once more
        end = text.find(b"}", 1)
        return text[:-1] + b"," + text[1:end + 1] + b"}" if end > 0 else text
    if kind == 6:
        return text.replace(b"0", rng.choice([b"00", b"0.0", b"-0", b"0e0", b"+0", b"0x0"]), 1)
    if kind == 7:
        return text.replace(b"true", b"True").replace(b'"', b"'", 2)
    return text[:at]


def make(rng: random.Random) -> bytes:
    header, data = sound(rng)
    mistakes = rng.choice([0, 1, 1, 1, 2, 3])
    in_text = [rng.random() < 0.4 for _ in range(mistakes)]
    for is_text in in_text:
        if not is_text and rng.random() < 0.8:
            mistake_in_header(rng, header)
        elif not is_text:
            data = rng.choice([data + b"\x00", data[:-1], b"", data + data])
    text = json.dumps(header, ensure_ascii=rng.random() < 0.5, separators=rng.choice([(",", ":"), (", ", ": ")])).encode()
    if rng.random() < 0.5:
        text += b" " * (-len(text) % 8)
    for is_text in in_text:
        if is_text:
            text = mistake_in_text(rng, text)
    length = len(text)
    if mistakes and rng.random() < 0.05:
        length = max(0, rng.choice([length + 1, length - 1, 0, 2**63, 2**64 - 1, 100_000_001, length + 8]))
    return length.to_bytes(8, "little") + text + data


def tensors(content: bytes) -> dict | None:
    """What the reference reads: type, shape and bytes by name; None if it refuses."""
    try:
        return {name: (one["dtype"], tuple(one["shape"]), bytes(one["data"])) for name, one in safetensors.deserialize(content)}
    except Exception:  # noqa: BLE001: whatever it is, it is a refusal
        return None


def check(number: int) -> tuple[str, str]:
    """(verdict, what is wrong)"""
    rng = random.Random(SEED * 1_000_003 + number)
    content = make(rng)
    path = SCRATCH / f"{number}.safetensors"
    again = SCRATCH / f"{number}.again.safetensors"
    path.write_bytes(content)
    try:
        wanted = tensors(content)
        done = subprocess.run([TOOL, "convert", path, again], capture_output=True, text=True, errors="replace", timeout=60)
        if done.returncode < 0:
            return "crash", f"signal {-done.returncode}"
        if wanted is None:
            return ("refused", "") if done.returncode != 0 else ("lax", "taken, refused by the reference")
        if done.returncode != 0:
            reason = next((reason for words, reason in STRICTER.items() if words in done.stderr), None)
            return ("stricter", "") if reason else ("strict", done.stderr.strip())
        found = tensors(again.read_bytes())
        return ("taken", "") if found == wanted else ("other", f"{found} against {wanted}")
    finally:
        path.unlink(missing_ok=True)
        again.unlink(missing_ok=True)


with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
    SCRATCH = pathlib.Path(folder)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = list(pool.map(check, range(FILES)))
counts = {}
for verdict, _ in verdicts:
    counts[verdict] = counts.get(verdict, 0) + 1
wrong = [(i, v, w) for i, (v, w) in enumerate(verdicts) if v not in ("taken", "refused", "stricter")]
for number, verdict, what in wrong[:20]:
    print(f"file {number} of seed {SEED}: {verdict}: {what}")
print(f"safetensors {safetensors.__version__}: {FILES} files, " + ", ".join(f"{n} {v}" for v, n in sorted(counts.items())))
if wrong or not counts.get("taken") or not counts.get("refused"):
    sys.exit(1)
