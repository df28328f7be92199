#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""configure_test.py: configure.py on a small project that can do without a header, as ours can: one that is installed
later is found, one that is asked for and missing is an error, what was compiled stays, and a build directory of
another compiler, or a broken one, is set up anew; so is one that meets a language for the first time, or it would go
without the project's default options for it."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SCRIPT = pathlib.Path(__file__).resolve().parent / "configure.py"
PROJECT = """project('small', 'cpp', default_options: ['cpp_std=c++20', 'c_std=c99'])
cpp = meson.get_compiler('cpp')
executable('always', 'always.cpp')
if cpp.has_header('thing.h', args: '-I' + meson.current_source_dir() / 'installed', required: get_option('tests'))
  executable('tests', 'always.cpp')
endif
if import('fs').exists('more.c')
  add_languages('c', native: false)
  executable('more', 'more.c')
endif
"""


def expect(what: str, good: bool, seen: object = "") -> None:
    print(f"{'ok' if good else 'FAILED'}: {what}", flush=True)
    if not good:
        sys.exit(str(seen))


def configure(project: pathlib.Path, *options: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "CXX"} | variables
    return subprocess.run([sys.executable, SCRIPT, "build", *options], cwd=project, env=environment, text=True, capture_output=True)


def targets(project: pathlib.Path) -> set[str]:
    said = subprocess.run(["ninja", "-C", project / "build", "-t", "targets", "all"], text=True, capture_output=True, check=True).stdout
    return {line.split(":")[0] for line in said.splitlines()}


def compiled(project: pathlib.Path) -> int:
    return len((project / "build/.ninja_log").read_text().splitlines()) if (project / "build/.ninja_log").exists() else 0


if shutil.which("meson") is None or shutil.which("ninja") is None:
    print("SKIP: no meson or ninja here")
    sys.exit(77)
with tempfile.TemporaryDirectory() as folder:
    project = pathlib.Path(folder)
    (project / "installed").mkdir()
    (project / "meson.build").write_text(PROJECT)
    (project / "meson_options.txt").write_text("option('tests', type: 'feature', value: 'auto')\n")
    (project / "always.cpp").write_text("int main() { return 0; }\n")
    done = configure(project, "-Dtests=enabled")
    expect("what is asked for and missing is an error that names it", done.returncode != 0 and "thing.h" in done.stderr, done)
    done = configure(project)
    expect("what is not asked for may be missing", done.returncode == 0 and "tests" not in targets(project), done)
    subprocess.run(["ninja", "-C", project / "build"], check=True, capture_output=True)
    done = configure(project, "-Dtests=enabled")
    expect("in a directory that is there it is an error as well", done.returncode != 0 and "thing.h" in done.stderr, done)
    done = configure(project, "-Dtests=auto")
    expect("the directory is of use again", done.returncode == 0 and "tests" not in targets(project), done)
    subprocess.run(["ninja", "-C", project / "build"], check=True, capture_output=True)
    before = compiled(project)
    (project / "installed/thing.h").touch()
    done = configure(project, "-Dtests=enabled")
    expect("what has been installed since is found", done.returncode == 0 and "tests" in targets(project), done)
    subprocess.run(["ninja", "-C", project / "build", "always"], check=True, capture_output=True)
    expect("what was compiled is kept", compiled(project) == before, (project / "build/.ninja_log").read_text())
    done = configure(project)
    expect("options that are not named stay as they are", done.returncode == 0 and "tests" in targets(project), done)
    (project / "more.c").write_text("int main(void) { return 0; }\n")
    done = configure(project)
    commands = (project / "build/compile_commands.json").read_text()
    expect("a language that has come has the project's default options", done.returncode == 0 and "-std=c99" in commands, (done, commands))
    (project / "build/meson-private/coredata.dat").write_bytes(b"broken")
    done = configure(project, "-Dtests=enabled")
    expect("a directory that is broken is set up anew", done.returncode == 0 and "tests" in targets(project), done)
    other = next((name for name in ("clang++-19", "clang++") if shutil.which(name)), None)
    if other is None:
        print("another compiler: left out, no clang++ here")
    else:
        for compiler in (other, "c++"):
            done = configure(project, CXX=compiler)
            commands = (project / "build/compile_commands.json").read_text()
            expect(f"a directory of another compiler is set up for {compiler}", done.returncode == 0 and (other in commands) == (compiler == other),
                   (done, commands))
