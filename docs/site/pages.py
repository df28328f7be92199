#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""pages.py DIRECTORY: writes the pages of the site as Doxygen reads them: README.md and docs with a label each, their links among
each other by label, what they link besides as a copy in files/; a page above those of the guide and of the decisions; and a
page made from bench/results."""
import json
import os
import pathlib
import re
import shutil
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
OUT = pathlib.Path(sys.argv[1])
GUIDE = ["meshes-and-placements", "shard-and-redistribute", "models-and-states", "training", "states-and-offload", "checkpoints", "visitors", "engines", "embedding",
         "coming-from-pytorch"]  # in the order in which they are read; others come last


def label(path: pathlib.Path) -> str:
    """Of the page made from a file of the repository."""
    return "page_" + re.sub(r"\W", "_", str(path.with_suffix("")).removeprefix("docs/"))


def file_name(page: pathlib.Path) -> str:
    if page.name == "README.md":
        return page.name
    return f"{ORDER.index(page.stem):02}_{page.stem}.md" if page.stem in ORDER else label(page) + ".md"


def guide() -> list[pathlib.Path]:
    files = {path.stem: path.relative_to(TOP) for path in sorted((TOP / "docs/guide").glob("*.md"))}
    return [files[name] for name in GUIDE if name in files] + [path for name, path in files.items() if name not in GUIDE]


DECISIONS = [path.relative_to(TOP) for path in sorted((TOP / "docs/decisions").glob("*.md"))]
OTHERS = [pathlib.Path(name) for name in ("docs/reliability.md", "docs/SECURITY.md", "docs/files.md", "docs/architecture.md", "docs/CONTRIBUTING.md", "CHANGELOG.md")]
# Of the pages at the top; Doxygen takes them as it finds them.
ORDER = ["guide", "reliability", "files", "performance", "architecture", "decisions", "SECURITY", "CONTRIBUTING", "CHANGELOG"]
PAGES = [pathlib.Path("README.md"), *guide(), *OTHERS, *DECISIONS]
# Directories that have a page of their own.
DIRECTORIES = {"docs/guide": "page_guide", "docs/decisions": "page_decisions", "bench/results": "page_performance"}


NAMESPACES = """/** @namespace shardmesh
Everything that users name. `shardmesh/shardmesh.hpp` has what happens in memory, `shardmesh/checkpoint.hpp` files; each function
says in which header it is. */
/** @namespace shardmesh::cuda
What lies below device memory: streams, kernels, checks of CUDA's calls. */
/** @namespace shardmesh::nccl
What lies below the communicator over NCCL. */
"""


def target(page: pathlib.Path, link: str) -> str:
    """Where a link of a page leads on the site."""
    if re.match(r"[a-z]+:|#", link):
        return link
    path = pathlib.Path(os.path.normpath(TOP / page.parent / link.split("#")[0])).relative_to(TOP)
    if path in PAGES:
        return "index.html" if path.name == "README.md" else label(path) + ".html"
    if str(path) in DIRECTORIES:
        return DIRECTORIES[str(path)] + ".html"
    source, copy = TOP / path, OUT / "files" / path
    if source.is_dir():
        raise SystemExit(f"{page} links the directory {path}, which has no page")
    copy.parent.mkdir(parents=True, exist_ok=True)
    # As text, so that a browser shows it.
    suffix = "" if source.suffix in (".svg", ".png", ".json") else ".txt"
    shutil.copy(source, copy.with_name(copy.name + suffix))
    return f"files/{path}{suffix}"


def rewrite(page: pathlib.Path) -> str:
    """Links outside of code, whole programs as C++, the label after the title."""
    parts = re.split(r"(^```.*?^```$)", (TOP / page).read_text(), flags=re.S | re.M)
    for i in range(0, len(parts), 2):
        spans = re.split(r"(`[^`\n]*`)", parts[i])
        text = ""
        for span in spans:
            text += span
        text = re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", lambda m: html_link(page, *m.groups()), text)
        parts[i] = text
    for i in range(1, len(parts), 2):
        parts[i] = re.sub(r"^```cpp\n", "```{.cpp}\n", parts[i])
        parts[i] = re.sub(r"^```\w+\n", "```{.txt}\n", parts[i])
        parts[i] = re.sub(r"^```\n", "```{.txt}\n", parts[i], count=1)
    return re.sub(r"\A# (.*)$", rf"# \1 {{#{label(page)}}}", "".join(parts), count=1, flags=re.M)


def html_link(page: pathlib.Path, image: str, text: str, link: str) -> str:
    to = target(page, link)
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", text)
    return f'<img src="{to}" alt="{text}">' if image else f'<a href="{to}">{text}</a>'


def title(page: pathlib.Path) -> str:
    return re.match(r"# (.*)", (TOP / page).read_text()).group(1)


def above(name: str, heading: str, text: str, pages: list[pathlib.Path]) -> None:
    """A page with others below it."""
    lines = [f"# {heading} {{#page_{name}}}", "", text, ""] + [f"- @subpage {label(page)}" for page in pages]
    (OUT / f"{ORDER.index(name):02}_{name}.md").write_text("\n".join(lines) + "\n")


def cell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("|", "/")


def table(rows: list[dict]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [" | ".join(["", *columns, ""]).strip(), "|" + " --- |" * len(columns)]
    return lines + [" | ".join(["", *(cell(row.get(column, "")) for column in columns), ""]).strip() for row in rows] + [""]


def words(heading: str, value: object, depth: int) -> list[str]:
    """A part of a result: what is plain as a table of names and values, lists of records as tables."""
    lines = [f"{'#' * min(depth, 5)} {heading}", ""]
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return lines + table(value)
    if isinstance(value, list):
        return lines + [", ".join(map(cell, value)), ""]
    plain = {key: one for key, one in value.items() if not isinstance(one, (dict, list))}
    if plain:
        lines += table([{"": key, "value": one} for key, one in plain.items()])
    for key, one in value.items():
        if isinstance(one, (dict, list)):
            lines += words(key, one, depth + 1)
    return lines


def performance() -> str:
    lines = ["# Performance {#page_performance}", "", "Made from bench/results: each file is what one run of a script in bench/ or of tests/gpu.sh wrote, with the machine and the commit "
             "that it was measured on.", ""]
    for file in sorted((TOP / "bench/results").glob("*.json")):
        result = json.loads(file.read_text())
        copy = OUT / "files/bench/results" / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
        lines += words(file.stem.replace("_", " "), result, 2) + [f'<a href="files/bench/results/{file.name}">The raw result</a>', ""]
    return "\n".join(lines) + "\n"


if OUT.exists():
    shutil.rmtree(OUT)
OUT.mkdir(parents=True)
(OUT / "files").mkdir()
for page in PAGES:
    (OUT / file_name(page)).write_text(rewrite(page))
above("guide", "Guide", "In the order in which they build on each other. Every program in them is compiled and run by a test.", guide())
above("decisions", "Decisions", "What would surprise a reader of the code: context, decision, consequences.", DECISIONS)
(OUT / f"{ORDER.index('performance'):02}_performance.md").write_text(performance())
(OUT / "namespaces.dox").write_text(NAMESPACES)
