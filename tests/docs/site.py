#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""site.py: docs/build.sh makes the site, of which Doxygen has nothing to complain; its links lead somewhere; every public name
outside of classes has documentation, and an example, a test or a page uses it. Exit 77: there is no Doxygen."""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

import links

TOP = pathlib.Path(__file__).resolve().parents[2]
# What is used between the rooms of the library alone, and by nobody else.
INNER = set("""
DcpDescription FloatFormat GroupSharding ItemDigest LiveLink LiveLoad LivePlace LivePlan LoadPlan MeshSharding
ModelFile ModelPart ModelPlan NumberElement RankPlan ReadValue Reflected SafetensorsFiles SgdUpdate
TensorParallelSharding
check_ceiling check_reducible digest_fault find_safetensors_files flat_key has_numbers is_manifest_of make_rank_plan
CallHistory CallWatch Family Handle OperationLog SideStream Watchdog reducible_type
Deleter DeviceType Managed Mdspan TypeCode dtype_from PinnedPages is_no_device keep_freed_memory
missing_kernels open_to_peer spacing_of pin_host_pool
DeviceSegments UseDevicePool PeerSpot PushOffer PushProbe StreamValues open_spot show_spot
""".split())


def text_of(node: xml.etree.ElementTree.Element | None) -> str:
    return "" if node is None else "".join(node.itertext()).strip()


def documented(node: xml.etree.ElementTree.Element) -> bool:
    return any(text_of(node.find(part)) for part in ("briefdescription", "detaileddescription", "inbodydescription"))


def public_names(folder: pathlib.Path) -> dict[str, bool]:
    """Is it documented? Of overloads one is enough."""
    names: dict[str, bool] = {}
    for file in folder.glob("*.xml"):
        for compound in xml.etree.ElementTree.parse(file).getroot().iter("compounddef"):
            name, kind = text_of(compound.find("compoundname")), compound.get("kind")
            if kind in ("class", "struct", "concept") and compound.get("prot", "public") == "public":
                names[name] = names.get(name, False) or documented(compound)
            if kind == "namespace" and name.startswith("shardmesh"):
                for member in compound.iter("memberdef"):
                    full = f"{name}::{text_of(member.find('name'))}"
                    names[full] = names.get(full, False) or documented(member)
    return {name: told for name, told in names.items() if "::detail" not in name and "::format" not in name and "operator" not in name}


def last_part(name: str) -> str:
    return re.sub(r"<.*", "", name).split("::")[-1].strip()


def expect_names(folder: pathlib.Path) -> None:
    names = public_names(folder)
    texts = [TOP / "README.md"]
    for room in ("bench", "docs", "examples", "tests"):
        texts += [path for path in (TOP / room).rglob("*") if path.suffix in (".cpp", ".cu", ".hpp", ".md")]
    words = {word for path in texts for word in re.findall(r"\w+", path.read_text())}
    silent = sorted(name for name, told in names.items() if not told)
    # A type in a class is reached through the class.
    unused = {name for name in names if last_part(name) not in words and not any(name.startswith(f"{outer}::") for outer in names)}
    stray = {name for name in unused if last_part(name) not in INNER}
    stale = INNER - {last_part(name) for name in unused}
    if len(names) < 200 or silent or stray or stale:
        sys.exit(f"{len(names)} names; without documentation: {silent}; not used in any example, test or page: {sorted(stray)}; "
                 f"in INNER, but used or gone: {sorted(stale)}")
    print(f"{len(names)} public names are documented; {len(names) - len(unused)} are used outside of the library")


if shutil.which("doxygen") is None:
    print("SKIP: no doxygen here")
    sys.exit(77)
said = subprocess.run(["doxygen", "--version"], text=True, capture_output=True).stdout.split()[0]
with tempfile.TemporaryDirectory() as work:
    done = subprocess.run(["bash", TOP / "docs/build.sh", work], text=True, capture_output=True)
    site = pathlib.Path(work, "html")
    number, broken = links.broken_in_site(site)
    if said != "1.9.4":
        print(f"site: left out, Doxygen is {said}: what it warns of and how it links differs from version to version, 1.9.4 is tested")
    elif done.returncode != 0:
        sys.exit(f"docs/build.sh: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    elif broken or number < 1000:
        sys.exit("\n".join(broken) + f"\n{len(broken)} of {number} links of the site are broken")
    expect_names(pathlib.Path(work, "xml"))
    print(f"{number} links of the site lead somewhere")
