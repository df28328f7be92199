# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""The zlib of this machine as a package, so that the test of the recipe beside needs no network."""
from conan import ConanFile


class SystemZlib(ConanFile):
    name = "zlib"
    version = "1.3.1"
    package_type = "shared-library"
    settings = "os", "arch", "compiler", "build_type"

    def package_info(self):
        self.cpp_info.includedirs = []
        self.cpp_info.system_libs = ["z"]
        self.cpp_info.set_property("cmake_find_mode", "both")
        self.cpp_info.set_property("cmake_file_name", "ZLIB")
        self.cpp_info.set_property("cmake_target_name", "ZLIB::ZLIB")
