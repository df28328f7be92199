#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""mend.py HTML_DIRECTORY: Doxygen 1.9.4 links a section of nested classes where all of them are private, and friends that are
defined in a class, but writes neither. Those links are taken out, their words stay."""
import pathlib
import re
import sys

folder = pathlib.Path(sys.argv[1])
ids = {path.name: set(re.findall(r'(?:id|name)="([^"]+)"', path.read_text())) for path in folder.glob("*.html")}
for path in folder.glob("*.html"):
    def mended(link: re.Match) -> str:
        page, anchor, words = link.groups()
        known = ids.get(page or path.name, {anchor})
        return link.group(0) if anchor in known or not re.fullmatch(r"nested-classes|a[0-9a-f]{32,33}", anchor) else words
    text = path.read_text()
    new = re.sub(r'<a (?:class="el" )?href="([^"#]*)#([^"]+)">(.*?)</a>', mended, text)
    if new != text:
        path.write_text(new)
