#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""examples.py PROGRAM: runs one of the examples in an empty directory and looks for what it has to say; examples.py --list:
each example is listed in the README and has at most 120 lines, but for the main job and the tool."""
import json
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

TOP = pathlib.Path(__file__).resolve().parents[2]


def stored(name: str) -> list[float]:
    """The elements of a tensor of examples/data/tiny_llama, read without the library."""
    folder = TOP / "examples/data/tiny_llama"
    file = folder / json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][name]
    data = file.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    first, last = json.loads(data[8:8 + size])[name]["data_offsets"]
    return [struct.unpack("<f", b"\0\0" + data[8 + size + at:8 + size + at + 2])[0] for at in range(first, last, 2)]


def loss_curve(folder: pathlib.Path, _: str) -> None:
    """Falls, and is drawn in the frame."""
    drawing = xml.etree.ElementTree.parse(folder / "loss.svg").getroot()
    line = [path.get("d") for path in drawing.iter("{http://www.w3.org/2000/svg}path") if path.get("stroke") == "#1f6feb"]
    points = [tuple(map(float, point.split())) for point in re.split("[ML]", line[0])[1:]]
    assert len(points) == 120, len(points)
    assert all(50 <= x <= 470 and 20 <= y <= 240 for x, y in points), points
    assert points[-1][1] > points[0][1] + 150, points  # y runs down


def weights(_: pathlib.Path, said: str) -> None:
    name, row, first, second = re.search(r"rank 2 has \(4, 16\) of (\S+) from \((\d+), 0\) on: (\S+) (\S+)", said).groups()
    expected = stored(name)[16 * int(row):][:2]
    assert [f"{x:g}" for x in expected] == [first, second], (expected, first, second)


EXPECTED = {
    "mesh_tour": [r'rank 3: mesh \(1, 1\), "model" group \{2 3\} with sum 5, "data" line \{1 3 5\}, flat \(3\), few outside'],
    "redistribute": [r"rank 0 -> rank 1 \[0:3, 2:4\]", r"48 bytes travel; no plan gets by with fewer than 24", r"sum over all ranks is 276\n"],
    "visitor": [r"checksum equal"],
    "train_digits": [r"9640 bytes of parameters, of which each rank keeps 4820", loss_curve],
    "tensor_parallel": [r"up +float32 +\(16, 8\) +\(4, 8\) .*StridedShard\(0, split_factor=2\), Shard\(0\)"],
    "offload": [r"sharded: 4224 bytes", r"full: 8448 bytes", r"ranks 0 to 3: 0 2 0 2\n", r"four shards: equal; back from the copy: equal"],
    "resume": [r"44 values; Adam goes on with learning rate 0\.\d+", r"on another mesh: equal"],
    "load_safetensors": [r"21 tensors were converted; rank 0 holds 1936 of 7504", weights],
    "transfer": [r"step 3: rank 4 has columns 0 to 15 .* 0\.300; the state is what was trained"],
}

if sys.argv[1] == "--list":
    readme = (TOP / "README.md").read_text()
    for source in (TOP / "examples").glob("*.cpp"):
        assert f"(examples/{source.name})" in readme, f"{source.stem} is not in the README's table"
        lines = len(source.read_text().splitlines())
        assert lines <= 120 or source.stem in ("hsdp_resume", "shardmesh"), f"{source.name} has {lines} lines"
    sys.exit()

program = pathlib.Path(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run([program.resolve()], cwd=folder, text=True, capture_output=True)
    print(done.stdout)
    if done.returncode != 0:
        sys.exit(f"exit status {done.returncode}\n{done.stderr}")
    for what in EXPECTED[program.name]:
        if callable(what):
            what(pathlib.Path(folder), done.stdout)
        elif not re.search(what, done.stdout):
            sys.exit(f"it does not say {what!r}")
