# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""In a clone: `conan create tests/downstream/conan`. Then `requires = shardmesh/0.1.0`, generators CMakeDeps or
PkgConfigDeps, and find_package(shardmesh) or pkg-config."""
import pathlib
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy

TOP = "../../.."


class Shardmesh(ConanFile):
    name = "shardmesh"
    license = "Apache-2.0 WITH LLVM-exception"
    description = "Sharded tensors and device meshes, header-only"
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    no_copy_source = True

    def set_version(self):
        config = pathlib.Path(self.recipe_folder, TOP, "include/shardmesh/core/config.hpp").read_text()
        self.version = re.search(r'SHARDMESH_VERSION_STRING "(.*)"', config).group(1)

    def export_sources(self):
        top = pathlib.Path(self.recipe_folder, TOP)
        copy(self, "LICENSE", top, self.export_sources_folder)
        copy(self, "shardmesh/*", top / "include", pathlib.Path(self.export_sources_folder, "include"))

    def requirements(self):
        self.requires("zlib/[>=1.2.11 <2]", transitive_headers=True, transitive_libs=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def package(self):
        copy(self, "LICENSE", self.source_folder, pathlib.Path(self.package_folder, "licenses"))
        copy(self, "*", pathlib.Path(self.source_folder, "include"), pathlib.Path(self.package_folder, "include"))

    def package_id(self):
        self.info.clear()

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.system_libs = ["pthread"]
