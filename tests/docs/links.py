#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""links.py [DIRECTORY]: every link in README.md, CHANGELOG.md and docs leads to a file of the repository, and to a heading of
it; in the HTML pages of a directory (a site that docs/build.sh made) to a page and an anchor there."""
import html.parser
import pathlib
import re
import sys
import urllib.parse

TOP = pathlib.Path(__file__).resolve().parents[2]


def anchors(text: str) -> set[str]:
    """Of the headings of a Markdown page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_in_markdown() -> tuple[int, list[str]]:
    count, broken = 0, []
    for page in [TOP / "README.md", TOP / "CHANGELOG.md", *sorted((TOP / "docs").rglob("*.md"))]:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
        for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
            if re.match(r"[a-z]+:", link):
                continue
            count += 1
            path, _, anchor = link.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists() or not file.is_relative_to(TOP):
                broken.append(f"{page.relative_to(TOP)}: {link} is not there")
            elif anchor and anchor not in anchors(file.read_text()):
                broken.append(f"{page.relative_to(TOP)}: {link}: no such heading")
    return count, broken


class Page(html.parser.HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)


def broken_in_site(folder: pathlib.Path) -> tuple[int, list[str]]:
    pages = {path.name: Page(path.read_text(errors="replace")) for path in folder.glob("*.html")}
    count, broken = 0, []
    for name, page in pages.items():
        for link in dict.fromkeys(page.links):
            if re.match(r"[a-z]+:", link):
                continue
            count += 1
            path, _, anchor = urllib.parse.unquote(link).partition("#")
            if path and not (folder / path).exists():
                broken.append(f"{name}: {link} is not there")
            elif anchor and (path or name) in pages and anchor not in pages[path or name].anchors:
                broken.append(f"{name}: {link}: no such anchor")
    return count, broken


if __name__ == "__main__":
    number, wrong = broken_in_site(pathlib.Path(sys.argv[1])) if len(sys.argv) > 1 else broken_in_markdown()
    print("\n".join(wrong))
    if wrong or number < 30:
        sys.exit(f"{len(wrong)} of {number} links are broken")
    print(f"{number} links lead somewhere")
