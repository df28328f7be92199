#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""tool.py TOOL: what a user of the shardmesh tool sees.

`layout --batch` must give the 3,000 layouts that PyTorch computed (tests/data/layouts.jsonl); the picture, the
JSON and each error are compared as text; `convert` must not leave a half-written file, nor write over what it
reads, nor over anything else unasked."""
import json
import os
import pathlib
import pty
import resource
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"
TOOL = str(pathlib.Path(sys.argv[1]).resolve())


def call(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([TOOL, *arguments], input=text, text=True, capture_output=True)


def expect(what: str, found, wanted) -> None:
    if found != wanted:
        sys.exit(f"{what}: {found!r}, not {wanted!r}")


SVG = "{http://www.w3.org/2000/svg}"


def titles_of(picture) -> list[str]:
    return [one.text for one in picture.iter(SVG + "title")]


def check_batch() -> None:
    known = [json.loads(line) for line in DATA.joinpath("layouts.jsonl").read_text().splitlines()]
    asked = "".join(json.dumps({k: line[k] for k in ("shape", "mesh", "placements")}) + "\n" for line in known)
    done = call("layout", "--batch", text=asked)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    expect("exit status of --batch", done.returncode, 0)
    expect("number of answers", len(answers), len(known))
    for line, answer in zip(known, answers):
        expect(f"layout of {line['shape']} on {line['mesh']} as {line['placements']}", answer, {"ranks": line["ranks"]})
    print(f"{len(known)} layouts as PyTorch computes them")
    done = call("layout", "--batch", text='{"shape":[4],"mesh":[2],"placements":["S9"]}\n{"shape":[4]}\n')
    expect("exit status with bad lines", done.returncode, 2)
    expect("bad lines", [list(json.loads(line)) for line in done.stdout.splitlines()], [["error"], ["error"]])


def check_layout() -> None:
    asked = ("layout", "--shape", "7,5", "--mesh", "2,2", "--placements", "S0,R")
    expect("picture", call(*asked).stdout, """(7, 5) on mesh (2, 2) as (Shard(0), Replicate)
         0:5    
    +-----------+
0:4 | ranks 0 1 |
    |           |
    +-----------+
4:7 | ranks 2 3 |
    +-----------+
""")
    said = json.loads(call(*asked, "--format", "json").stdout)
    expect("JSON", {key: said[key] for key in ("shape", "mesh", "placements")},
           {"shape": [7, 5], "mesh": [2, 2], "placements": ["Shard(0)", "Replicate"]})
    expect("ranks", len(said["ranks"]), 4)
    expect("a rank", said["ranks"][2], {"rank": 2, "coordinate": [1, 0], "shape": [3, 5], "offset": [4, 0],
                                        "boxes": [{"offset": [4, 0], "extent": [3, 5]}]})
    empty = ("layout", "--shape", "5,4", "--mesh", "4", "--placements", "S0")
    expect("a rank without elements", call(*empty).stdout.splitlines()[-1], "rank 3 holds nothing")
    wide = call("layout", "--shape", "3,40", "--mesh", "20", "--placements", "S1", "--width", "60").stdout.splitlines()
    expect("a wide mesh is folded", (max(map(len, wide)) <= 60, sum("rank 19" in line for line in wide)), (True, 1))
    picture = xml.etree.ElementTree.fromstring(call(*empty, "--format", "svg").stdout)
    expect("blocks of the picture", titles_of(picture), ["rank 0 [0:2, 0:4]", "rank 1 [2:4, 0:4]", "rank 2 [4:5, 0:4]"])
    expect("text of the picture", "rank 3 holds nothing" in [one.text for one in picture.iter(SVG + "text")], True)
    for arguments, words in [
        (("--shape", "7,x", "--mesh", "2", "--placements", "R"), "write for example 7,5"),
        (("--shape", "7", "--mesh", "2", "--placements", "Q"), "write R, S<dim>, P or SS<dim>:<split factor>, or as in Shard(0)"),
        (("--shape", "7", "--mesh", "2", "--placements", "Shard"), "is no placement"),
        (("--shape", "7", "--mesh", "2", "--placements", "Shrad(0)"), "did you mean Shard(0)?"),
        (("--shape", "7", "--mesh", "2", "--placements", "Replicated"), "did you mean Replicate?"),
        (("--shape", "7", "--mesh", "2", "--placements", "P(mean)"), "is no placement"),
        (("--shape", "7", "--mesh", "99999999999", "--placements", "S0"), "more than 65536 ranks"),
        (("--shape", "7", "--mesh", "4096,4096", "--placements", "S0,R"), "more than 65536 ranks"),
        (("--shape", "7", "--placements", "S0"), "--mesh is missing; write for example --mesh 2,2"),
        (("--shape", "7", "--mesh", "0", "--placements", "S0"), "a dimension without ranks"),
        (("--shape", "7", "--mesh", "2", "--placements", "S1"), "out of range for a tensor with 1 dimension"),
        (("--shape", "7", "--mesh", "2,2", "--placements", "R"), "placement"),
    ]:
        done = call("layout", *arguments)
        expect(f"exit status of {arguments}", done.returncode, 2)
        if words not in done.stderr:
            sys.exit(f"{arguments}: {done.stderr!r} does not say {words!r}")


def check_notation() -> None:
    """What the library and PyTorch print is read again."""
    first = call("layout", "--shape", "8,6", "--mesh", "2,2", "--placements", "S0,SS0:2").stdout
    for placements in ("Shard(0), StridedShard(0, split_factor=2)", "(Shard(dim=0), _StridedShard(dim=0, sf=2))", "S-2,SS0:2", "S(0),SS(0,2)"):
        for shape, mesh in (("8,6", "2,2"), ("(8, 6)", "2x2"), ("[8, 6]", "(2, 2)")):
            expect(f"layout {shape} {mesh} {placements}",
                   call("layout", "--shape", shape, "--mesh", mesh, "--placements", placements).stdout, first)
    for text, wanted in (("P", "Partial(sum)"), ("Partial(avg)", "Partial(avg)"), ("Replicate()", "Replicate")):
        expect(text, call("layout", "--shape", "4", "--mesh", "2", "--placements", text).stdout.splitlines()[0], f"(4) on mesh (2) as ({wanted})")


def check_command_line() -> None:
    """Help with examples that run, the version, exit codes, and words that are nearly right."""
    header = pathlib.Path(__file__).resolve().parents[2] / "include/shardmesh/core/config.hpp"
    version = next(line.split('"')[1] for line in header.read_text().splitlines() if "VERSION_STRING" in line)
    expect("--version", call("--version").stdout, f"shardmesh {version}\n")
    checkpoint = str(DATA / "checkpoints" / "hsdp_fsdp2" / "checkpoint")
    ran = 0
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(checkpoint, pathlib.Path(folder) / "checkpoint")
        for command in ("", "layout", "plan", "convert", "inspect", "verify", "diff"):
            done = call(*([command] if command else []), "--help")
            expect(f"exit status of {command} --help", done.returncode, 0)
            examples = done.stdout.split("Examples:\n")[1].splitlines()
            for line in (one.strip() for one in examples):
                for part in line.split(" && "):
                    if part.startswith(("shardmesh layout", "shardmesh plan")) or part in ("shardmesh inspect checkpoint", "shardmesh verify checkpoint"):
                        answer = subprocess.run(part.replace("shardmesh", TOOL, 1), shell=True, cwd=folder, capture_output=True, text=True)
                        expect(f"exit status of {part}: {answer.stderr}", answer.returncode, 0)
                        ran += 1
    expect("examples of --help that ran", ran >= 12, True)
    for arguments, words in [
        (("layuot",), 'there is no command "layuot"; did you mean "layout"?'),
        (("frobnicate",), 'there is no command "frobnicate". See shardmesh --help'),
        (("--versoin",), 'shardmesh has no option --versoin; did you mean "--version"?'),
        (("layout", "--shap", "3"), 'shardmesh layout has no option --shap; did you mean "--shape"?'),
        (("plan", "--form=S0"), 'did you mean "--from"?'),
        (("layout", "--shape", "3", "--mesh", "2", "--placements", "R", "--format", "jsno"), 'did you mean "json"?'),
        (("convert", "a", "b", "--to", "safetensor"), 'did you mean "safetensors"?'),
        (("plan", "--shape", "3", "--mesh", "2", "--from", "R", "--to", "R", "--dtype", "flaot32"), 'did you mean "float32"?'),
        (("inspect", checkpoint, "--key", "model.net1.0.wieght"), 'the nearest is "model.net1.0.weight"'),
        (("inspect", checkpoint, "--key", "net1.0.weight"), 'the nearest is "model.net1.0.weight"'),
        (("inspect",), "checkpoint is required"),
        (("inspect", "/nonexistent"), "there is no /nonexistent"),
        (("verify", "/nonexistent"), "there is no /nonexistent"),
        (("diff", "/nonexistent", checkpoint), "there is no /nonexistent"),
        ((), "A subcommand is required"),
    ]:
        done = call(*arguments)
        expect(f"exit status of {arguments}", done.returncode, 2)
        expect(f"output of {arguments}", done.stdout, "")
        if words not in done.stderr:
            sys.exit(f"{arguments}: {done.stderr!r} does not say {words!r}")
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "copy"
        shutil.copytree(checkpoint, copy)
        metadata = (copy / ".metadata").read_bytes()
        (copy / ".metadata").write_bytes(metadata[:len(metadata) // 2])
        done = call("verify", str(copy))
        expect("verify of what cannot be listed", (done.returncode, done.stdout.startswith("DAMAGE ")), (1, True))
        expect("its JSON", len(json.loads(call("verify", str(copy), "--json").stdout)["damage"]), 1)
        expect("inspect of what cannot be listed", call("inspect", str(copy)).returncode, 2)


def on_terminal(*arguments: str) -> str:
    """What the tool prints where both of its streams are one terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen([TOOL, *arguments], stdout=slave, stderr=slave)
    os.close(slave)
    text = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        text += piece
    os.close(master)
    process.wait()
    return text.decode()


def check_progress() -> None:
    """A terminal shows how far reading has come, and nothing of it is left before the lines that stay."""
    source = str(DATA / "checkpoints" / "dtypes" / "checkpoint")
    for arguments in (("verify", source), ("diff", source, source)):
        last = call(*arguments).stdout.splitlines()[-1]
        text = on_terminal(*arguments)
        lines = text.replace("\r\n", "\n").split("\n")
        expect(f"{arguments[0]} shows bytes", f"\r\x1b[K{arguments[0]}: " in lines[0] and " KiB" in lines[0], True)
        expect(f"{arguments[0]}: the last line", lines[-2].rpartition("\x1b[K")[2], last)
        expect(f"{arguments[0]}: nothing is drawn after it", lines[-1], "")
    expect("no progress without a terminal", call("verify", source).stderr, "")


def check_map() -> None:
    source = str(DATA / "checkpoints" / "dtypes" / "checkpoint")
    picture = xml.etree.ElementTree.fromstring(call("inspect", source, "--format", "svg", "--key", "bfloat16.S0S1").stdout)
    boxes = [title for title in titles_of(picture) if " in " in title]
    expect("boxes of the map", len(boxes), 4)
    expect("a box of the map", "bfloat16.S0S1 [0:4, 0:3] in __0_0.distcp" in boxes, True)
    everything = xml.etree.ElementTree.fromstring(call("inspect", source, "--format", "svg").stdout)
    expect("files of the map", [title for title in titles_of(everything) if title.endswith(".distcp") and " in " not in title],
           sorted(path.name for path in pathlib.Path(source).glob("*.distcp")))
    xml.etree.ElementTree.fromstring(call("inspect", str(DATA / "hub" / "variant" / "unet.safetensors.index.json"), "--format", "svg").stdout)


def check_plan() -> None:
    asked = ("plan", "--shape", "8,6", "--mesh", "2,2", "--from", "S0,S1", "--to", "S1,S0")
    expect("plan", call(*asked).stdout.splitlines()[-3:], [
        "  rank 2 -> rank 1 [4:8, 0:3]", "  rank 3 keeps [4:8, 3:6]",
        "moved 96 bytes in 2 messages, at most 48 into one rank (lower bound 48); staging 0 bytes"])
    done = json.loads(call(*asked, "--dtype", "bf16", "--json").stdout)
    expect("pairs", done["pairs"], [{"from": 1, "to": 2, "bytes": 24}, {"from": 2, "to": 1, "bytes": 24}])
    expect("a send", done["exchanges"][0]["sends"][0], {"from": 1, "to": 2, "offset": [0, 3], "extent": [4, 3], "is_term": False})
    expect("bytes", (done["cost"]["bytes_moved"], done["cost"]["least_received"], done["dtype"]), (48, 24, "bfloat16"))
    done = json.loads(call("plan", "--shape", "8", "--mesh", "2", "--from", "P", "--to", "S0", "--to-mesh", "3", "--to-ranks", "5,4,3", "--json").stdout)
    expect("stages to another mesh", [(s["mesh"], s["placements"], s["ranks"]) for s in done["stages"]],
           [([2], ["Partial(sum)"], [0, 1]), ([2], ["Replicate"], [0, 1]), ([3], ["Shard(0)"], [5, 4, 3])])
    picture = xml.etree.ElementTree.fromstring(call(*asked, "--format", "svg").stdout)
    titles = [t.text for t in picture.iter("{http://www.w3.org/2000/svg}title")]
    for title in ("rank 2 [4:8, 0:3]", "rank 1 [4:8, 0:3]", "rank 1 to rank 2: 48 B"):
        expect(title, title in titles, True)
    wide = call("plan", "--shape", "65536,64", "--mesh", "4096", "--from", "S0", "--to", "S0")
    expect("many ranks are counted", wide.stdout.splitlines()[-2], "  and 4032 ranks")
    for arguments, words in [
        (("--to", "S1,P"), "a Partial target placement is legal only where"),
        (("--to", "S1,S0", "--to-mesh", "2,2", "--to-ranks", "1,1,2,3"), "rank 1 stands twice"),
        (("--to", "S1,S0", "--dtype", "float33"), "--dtype \"float33\" is not known"),
        (("--to", "S1,S0", "--to-mesh", "65,1", "--format", "svg"), "more than 64 ranks"),
    ]:
        done = call("plan", "--shape", "8,6", "--mesh", "2,2", "--from", "S0,S1", *arguments)
        expect(f"exit status of {arguments}", done.returncode, 2)
        if words not in done.stderr:
            sys.exit(f"{arguments}: {done.stderr!r} does not say {words!r}")


def check_convert() -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "x.safetensors"
        source = DATA / "checkpoints" / "hsdp_fsdp2" / "checkpoint"
        expect("exit status of convert", call("convert", str(source), str(target)).returncode, 0)
        size = int.from_bytes(target.read_bytes()[:8], "little")
        header = json.loads(target.read_bytes()[8:8 + size])
        expect("a tensor of the header", header["model.net1.0.weight"]["shape"], [16, 8])
        done = call("convert", "/nonexistent", str(target))
        expect("exit status for a missing checkpoint", (done.returncode, "there is no /nonexistent" in done.stderr), (2, True))
        done = call("convert", str(source), str(target / "y.safetensors"))
        expect("exit status for a target that cannot be", (done.returncode, f"cannot make the directory {target}: File exists" in done.stderr), (2, True))
        done = call("convert", str(source), str(target), "--dtype", "bf16", "--json")
        expect("exit status for a target that exists", (done.returncode, "--force replaces it" in done.stderr), (2, True))
        expect("the target after that", len(target.read_bytes()) > size, True)
        done = call("convert", str(source), str(target), "--dtype", "bf16", "--json", "--force")
        expect("JSON of convert", json.loads(done.stdout), {"path": str(target), "tensors": 32, "values": 0, "left_out": 12})
        rows = json.loads(call("inspect", str(target), "--json").stdout)
        expect("dtypes after --dtype bf16", {row["dtype"] for row in rows}, {"bfloat16"})
        done = call("convert", str(source), str(target), "--dtype", "bf17")
        expect("exit status for an unknown dtype", (done.returncode, "\"bf17\" is not known" in done.stderr), (2, True))
        expect("files left", sorted(p.name for p in pathlib.Path(folder).iterdir()), ["x.safetensors"])


def contents(folder: pathlib.Path) -> dict:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def check_convert_targets() -> None:
    """What is read is never written to, under whatever name; what is there only with --force."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        source = folder / "source"
        shutil.copytree(DATA / "checkpoints" / "hsdp_fsdp2" / "checkpoint", source)
        hub, single = folder / "hub", folder / "x.safetensors"
        expect("convert to hf", call("convert", str(source), str(hub), "--to", "hf", "--max-shard-size", "9KB").returncode, 0)
        expect("convert to a file", call("convert", str(source), str(single)).returncode, 0)
        (folder / "link").symlink_to("source")
        (folder / "chain").symlink_to(folder / "link")
        (folder / "below").symlink_to("source/new")
        (folder / "hard.safetensors").hardlink_to(single)
        (folder / "snapshot").mkdir()  # as a hub's cache has them
        (folder / "snapshot" / "model.safetensors").symlink_to("../blobs/1")
        (folder / "blobs").mkdir()
        shutil.copy(single, folder / "blobs" / "1")
        index = hub / "model.safetensors.index.json"
        shard = next(hub.glob("model-00001-*"))
        before = contents(folder)
        for of, to, form in [
            (source, source, "dcp"), (source, f"{source}/", "dcp"), (f"{source}/.", source, "dcp"),
            (source, folder / "hub" / ".." / "source", "dcp"), (source, folder / "link", "dcp"),
            (folder / "chain", source, "dcp"), (folder / "link", folder / "chain", "dcp"),
            (source, source / "new", "dcp"), (source, source / "a" / "b" / "x.safetensors", "safetensors"),
            (source, folder / "below", "hf"), (source, folder, "dcp"), (hub / "..", hub, "hf"),
            (source, source / "__0_0.distcp", "safetensors"), (single, single, "safetensors"),
            (single, folder / "hard.safetensors", "safetensors"), (single, folder, "dcp"), (hub, hub, "hf"),
            (hub, shard, "safetensors"), (index, shard, "safetensors"), (index, hub, "hf"),
            (folder / "snapshot", folder / "blobs" / "1", "safetensors"), (folder / "snapshot", folder / "blobs", "hf"),
        ]:
            for force in ([], ["--force"]):
                done = call("convert", str(of), str(to), "--to", form, *force)
                expect(f"convert {of} {to} {force}: {done.stderr}", (done.returncode, "does not replace its source" in done.stderr), (2, True))
        expect("the files after that", contents(folder) == before, True)

        copy = folder / "copy"
        other = str(DATA / "checkpoints" / "dtypes" / "checkpoint")
        copy.mkdir()  # an empty one is no loss
        expect("convert to an empty directory", call("convert", other, str(copy)).returncode, 0)
        for target, form in [(copy, "dcp"), (hub, "hf"), (single, "safetensors")]:
            kept = contents(folder)
            done = call("convert", str(source), str(target), "--to", form)
            expect(f"convert to {target}", (done.returncode, "--force replaces it" in done.stderr), (2, True))
            expect("the files after that", contents(folder) == kept, True)
            if target.is_dir():
                target.joinpath("config.json").write_text("mine")
            done = call("convert", other, str(target), "--to", form, "--force")
            expect(f"convert --force to {target}: {done.stderr}", done.returncode, 0)
            left_out = [] if form == "dcp" else ["betas", "eps", "flag", "lr", "name", "step"]
            different = {one["name"] for one in json.loads(call("diff", "--json", other, str(target)).stdout)}
            expect(f"what {target} lacks", len(different), len(left_out))
            if target.is_dir():
                expect("a file of somebody else", target.joinpath("config.json").read_text(), "mine")
        expect("a stale part of the model", shard.exists(), False)
        latest = folder / "latest.safetensors"
        latest.symlink_to("x.safetensors")
        expect("convert through a link", call("convert", str(source), str(latest), "--force").returncode, 0)
        expect("the link", (latest.is_symlink(), call("diff", str(single), str(latest)).returncode), (True, 0))
        (hub / "diffusion.safetensors").write_text("another model")
        for target, words in [(hub, "holds diffusion.safetensors"), (single, "exists; give a new directory")]:
            done = call("convert", other, str(target), "--to", "hf", "--force")
            expect(f"convert to {target}: {done.stderr}", (done.returncode, words in done.stderr), (2, True))
        done = call("convert", other, str(hub), "--to", "dcp", "--force")
        expect("convert over what is no checkpoint", (done.returncode, "is no checkpoint" in done.stderr), (2, True))
        done = call("convert", other, str(copy), "--to", "safetensors", "--force")
        expect("a file over a directory", (done.returncode, "is a directory" in done.stderr), (2, True))
        expect("nothing is left over", [p.name for p in folder.iterdir() if ".tmp-" in p.name], [])


def check_looking() -> None:
    source = str(DATA / "checkpoints" / "dtypes" / "checkpoint")
    rows = {row["name"]: row for row in json.loads(call("inspect", source, "--json").stdout)}
    expect("rows of inspect", len(rows), 71)
    expect("a tensor", rows["bfloat16.S0S1"],
           {"name": "bfloat16.S0S1", "dtype": "bfloat16", "shape": [7, 5], "boxes": 4, "files": 4, "bytes": 70})
    expect("a plain value", rows["betas"], {"name": "betas", "kind": "list", "value": "[0.9, 0.999]"})
    last = call("inspect", source).stdout.splitlines()[-1]
    expect("totals", last, f"{source}: 65 tensors, 6.28 KiB; 6 plain values")
    with tempfile.TemporaryDirectory() as folder:
        copy, single = str(pathlib.Path(folder) / "copy"), str(pathlib.Path(folder) / "x.safetensors")
        expect("convert to dcp", call("convert", source, copy, "--to", "dcp").returncode, 0)
        expect("convert to safetensors", call("convert", source, single).returncode, 0)
        done = call("diff", source, copy)
        expect("diff of a copy", (done.returncode, done.stdout), (0, "71 values compared, 0 differ\n"))
        done = call("diff", "--json", source, single)
        expect("diff to a file without plain values", (done.returncode, len(json.loads(done.stdout))), (1, 6))
        hub = str(pathlib.Path(folder) / "hub")
        expect("convert to hf", call("convert", source, hub, "--to", "hf", "--max-shard-size", "2KB").returncode, 0)
        expect("files of hf", len(list(pathlib.Path(hub).iterdir())) > 3, True)
        expect("diff of one file and several", call("diff", single, hub).returncode, 0)
        expect("verify", call("verify", copy).returncode, 0)
        data = pathlib.Path(copy) / "__0_0.distcp"
        bytes_there = bytearray(data.read_bytes())
        place = bytes_there.find(b"_rebuild_tensor")  # in a record, so under its CRC
        bytes_there[place] ^= 1
        data.write_bytes(bytes_there)
        done = call("verify", copy, "--json")
        damage = json.loads(done.stdout)["damage"]
        expect("verify of a damaged copy", (done.returncode, len(damage)), (1, 2))  # the item, and its file in the manifest
        if "__0_0.distcp" not in damage[0]["what"] or "byte" not in damage[0]["what"]:
            sys.exit(f"damage is not located: {damage}")
        shutil.copytree(source, copy, dirs_exist_ok=True)  # as PyTorch saves over a directory
        done = call("verify", copy)
        expect("verify after another program's save", (done.returncode, done.stdout.startswith(f"NOTE {copy}/.shardmesh is of another save")), (0, True))
        done = json.loads(call("verify", copy, "--json").stdout)
        expect("verify --json", (done["damage"], len(done["notes"])), ([], 1))


def check_files() -> None:
    files = DATA / "files"
    unknown = str(files / "unknown_dtypes")
    rows = {row["name"]: row for row in json.loads(call("inspect", unknown, "--json").stdout)}
    expect("an unknown dtype in a listing", (rows["half"]["dtype"], rows["half"]["shape"], rows["w"]["dtype"]),
           ("unknown dtype 'torch.complex32'", [2], "float32"))
    done = call("verify", unknown, "--json")
    said = json.loads(done.stdout)
    expect("verify with unknown dtypes", (done.returncode, said["damage"], [one["what"] for one in said["unchecked"]]),
           (0, [], ["not checked: unknown dtype 'torch.complex32'", "not checked: unknown dtype 'torch.quint8'"]))
    done = call("diff", unknown, unknown, "--json")
    expect("diff with unknown dtypes", (done.returncode, [one["name"] for one in json.loads(done.stdout)]), (1, ["half", "quantized"]))
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "x"
        done = call("convert", unknown, str(target))
        expect("convert of an unknown dtype", (done.returncode, target.exists()), (2, False))
        if '"half" cannot be converted: unknown dtype' not in done.stderr:
            sys.exit(f"convert of an unknown dtype says {done.stderr!r}")
        for name in ("fp4/dcp", "fp4/model.safetensors", "keys", "views", "megatron_root", "megatron_plans", "other_root"):
            source, copy, single = str(files / name), str(target) + name.replace("/", "_"), str(target) + ".safetensors"
            expect(f"verify {name}", call("verify", source).returncode, 0)
            expect(f"convert {name} to dcp", call("convert", source, copy, "--to", "dcp").returncode, 0)
            expect(f"diff of {name} and its copy", call("diff", source, copy).returncode, 0)
            if name != "views":  # complex128 is no type of safetensors
                expect(f"convert {name} to safetensors", call("convert", source, single).returncode, 0)
                pathlib.Path(single).unlink()
        cache = pathlib.Path(folder) / "cache"
        cache.mkdir()
        for one in (files / "keys").iterdir():
            (cache / one.name).symlink_to(one)
        expect("diff of a cache of links", call("diff", str(files / "keys"), str(cache)).returncode, 0)


def check_hub() -> None:
    """Models of several safetensors files, some of them not whole."""
    stale, variant, missing = (str(DATA / "hub" / name) for name in ("stale", "variant", "missing"))
    no_checksums = "this format has no checksums, changed elements cannot be seen"
    done = call("verify", stale)
    expect("verify of safetensors", (done.returncode, done.stdout),
           (0, f"{stale}: 2 values, 72 B read, names, sizes and places are sound; {no_checksums}\n"))
    report = json.loads(call("verify", stale, "--json").stdout)
    expect("JSON of verify", report,
           {"path": stale, "values": 2, "bytes": 72, "checksums": False, "damage": [], "notes": [],
            "unchecked": []})
    dcp = str(DATA / "checkpoints" / "dtypes" / "checkpoint")
    expect("checksums of DCP", json.loads(call("verify", dcp, "--json").stdout)["checksums"], True)
    expect("verify of DCP", call("verify", dcp).stdout.endswith("read, 0 damaged\n"), True)
    rows = {row["name"]: row for row in json.loads(call("inspect", stale, "--json").stdout)}
    expect("a tensor of the file that the index names", (rows["up.weight"]["dtype"], rows["up.weight"]["shape"]), ("float32", [6, 2]))
    expect("tensors that the index lists", sorted(rows), ["norm.weight", "up.weight"])

    for command in (("inspect",), ("verify",), ("diff", variant)):
        done = call(*command, variant)
        said = all(words in done.stderr for words in ("holds 2 models", "unet.safetensors.index.fp16.json", "give the path of one"))
        expect(f"{command} of two models", (done.returncode, said), (2, True))
    whole, half = f"{variant}/unet.safetensors.index.json", f"{variant}/unet.safetensors.index.fp16.json"
    for path, dtype in ((whole, "float32"), (half, "float16")):
        expect("dtypes by index", {row["dtype"] for row in json.loads(call("inspect", path, "--json").stdout)}, {dtype})
        expect("verify by index", call("verify", path).returncode, 0)
        expect("diff by index", call("diff", path, path).stdout, "2 values compared, 0 differ\n")
    expect("diff of two indexes", call("diff", whole, half).stdout.splitlines()[-1], "2 values compared, 2 differ")

    done = call("inspect", missing)
    expect("inspect of what is left", done.returncode, 0)
    expect("its last line", done.stdout.splitlines()[-1], f"{missing}: 1 tensors, 8 B; 0 plain values; 2 cannot be read")
    rows = {row["name"]: row for row in json.loads(call("inspect", missing, "--json").stdout)}
    expect("rows of what is left", sorted(rows), ["gone", "here", "lost"])
    expect("a tensor that is there", "problem" in rows["here"], False)
    for name, words in (("gone", "which has no such tensor"), ("lost", "a-00002-of-00002.safetensors, which cannot be read")):
        for text in (rows[name]["problem"], next(line for line in done.stdout.splitlines() if line.startswith(f"UNREADABLE {name}"))):
            if words not in text:
                sys.exit(f"inspect of {name}: {text!r} does not say {words!r}")
    done = call("verify", missing)
    last = f"{missing}: 3 values, 8 B read, 2 damaged; {no_checksums}"
    expect("verify of what is left", (done.returncode, done.stdout.splitlines()[-1]), (1, last))
    expect("diff of what is left", call("diff", missing, missing).stdout.splitlines()[-1], "3 values compared, 2 differ")
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "x.safetensors"
        done = call("convert", missing, str(target))
        expect("convert of what is left", (done.returncode, "which has no such tensor" in done.stderr), (2, True))
        expect("files left", list(pathlib.Path(folder).iterdir()), [])
        expect("convert by index", call("convert", whole, str(target)).returncode, 0)
        expect("what was converted", call("diff", whole, str(target)).returncode, 0)
        lost = pathlib.Path(folder) / "lost"
        lost.mkdir()
        target.rename(lost / "model-00001-of-00002.safetensors")
        done = call("verify", str(lost))
        expect("verify after a loss", (done.returncode, done.stdout.startswith("DAMAGE model-00002-of-00002.safetensors: ")), (1, True))
        done = call("convert", str(lost), str(target))
        expect("convert after a loss", (done.returncode, "model-00002-of-00002.safetensors is not there" in done.stderr), (0, True))


def check_many() -> None:
    """What a tool does for each of very many tensors must not need another thread each: the scheduler counts that."""
    sys.path.insert(0, str(DATA.parents[1] / "bench"))
    from many_tensors import write_model
    with tempfile.TemporaryDirectory() as folder:
        model, copy, hub = (str(pathlib.Path(folder) / name) for name in ("model.safetensors", "dcp", "hub"))
        count = 10_000
        write_model(model, count)
        for words in (["convert", model, copy, "--to", "dcp"], ["convert", model, hub, "--to", "hf"], ["verify", copy],
                      ["diff", model, copy], ["diff", copy, hub]):
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_nvcsw
            done = call(*words)
            waits = resource.getrusage(resource.RUSAGE_CHILDREN).ru_nvcsw - before
            expect(" ".join(words), (done.returncode, done.stderr), (0, ""))
            if waits > count / 4:
                sys.exit(f"{' '.join(words)} waited {waits} times for another thread, for {count} tensors")
        expect("many tensors compared", done.stdout, f"{count} values compared, 0 differ\n")


check_batch()
check_many()
check_looking()
check_files()
check_hub()
check_layout()
check_notation()
check_command_line()
check_progress()
check_map()
check_plan()
check_convert()
check_convert_targets()
expect("layout --json", call("layout", "--shape", "7,5", "--mesh", "2", "--placements", "S0", "--json").stdout,
       call("layout", "--shape", "7,5", "--mesh", "2", "--placements", "S0", "--format", "json").stdout)
expect("exit status of --help", call("--help").returncode, 0)
