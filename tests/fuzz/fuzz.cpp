// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// libFuzzer targets for every reader, in one program: SHARDMESH_FUZZ_TARGET chooses. SHARDMESH_FUZZ_SEEDS=FOLDER writes what
// they begin with instead. run.py builds and runs it.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/core/error.hpp>

#include "file_targets.hpp"
#include "format_targets.hpp"
#include "network_targets.hpp"
#include "seeds.hpp"

namespace {

struct Target {
  char const* name;
  void (*run)(shardmesh::format::ByteSpan);
};
constexpr Target targets[] = {{"pickle", fuzz::pickle},
                              {"names", fuzz::names},
                              {"dcp_metadata", fuzz::dcp_metadata},
                              {"zip", fuzz::zip},
                              {"tensor", fuzz::tensor},
                              {"tensor_pickle", fuzz::tensor_pickle},
                              {"plain_value", fuzz::plain_value},
                              {"numpy_number", fuzz::numpy_number},
                              {"safetensors_header", fuzz::safetensors_header},
                              {"safetensors_file", fuzz::safetensors_file},
                              {"hub_index", fuzz::hub_index},
                              {"notes", fuzz::notes},
                              {"manifest", fuzz::manifest},
                              {"lines", fuzz::lines},
                              {"stream", fuzz::stream},
                              {"directory", fuzz::directory},
                              {"launcher", fuzz::launcher},
                              {"frames", fuzz::frames},
                              {"offers", fuzz::offers}};

Target const& chosen() {
  char const* const name = std::getenv("SHARDMESH_FUZZ_TARGET");
  for (Target const& target : targets) {
    if (name != nullptr && std::string_view(name) == target.name) {
      return target;
    }
  }
  std::fprintf(stderr, "fuzz: SHARDMESH_FUZZ_TARGET names no target\n");
  std::exit(2);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  if (char const* const folder = std::getenv("SHARDMESH_FUZZ_SEEDS")) {
    fuzz::write_seeds(folder);
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static Target const& target = chosen();
  try {
    target.run({reinterpret_cast<std::byte const*>(data), size});
  } catch (shardmesh::Error const&) {
  }
  return 0;
}
