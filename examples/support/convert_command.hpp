// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// `shardmesh convert`: a checkpoint in another format, every tensor in full.

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>

#include "catalog_tools.hpp"

namespace tool {

struct ConvertOptions {
  std::string source;
  std::string target;
  std::string to;  ///< "dcp", "safetensors" or "hf"; empty: by the name of the target
  std::uint64_t max_shard_bytes = 5'000'000'000;
};

/// Where a value stands in the nested dict that was saved, if the catalog says.
template <class C>
std::vector<sm::PathElement> path_of(C const& catalog, std::string const& key) {
  if constexpr (requires { catalog.metadata(); }) {
    return catalog.metadata().find(key)->path;
  } else {
    return {key};
  }
}

/// Reads all of `source` and writes it to `target`, which appears when it is complete. safetensors has
/// no place for plain values; their number is told.
inline int run_convert(ConvertOptions const& options) {
  bool const to_one_file =
      options.to.empty() ? options.target.ends_with(".safetensors") : options.to == "safetensors";
  bool const to_hub = options.to == "hf";
  sm::StateDict dict;
  std::size_t tensors = 0;
  sm::with_catalog(options.source, [&](auto const& catalog) {
    for (std::string const& key : catalog.keys()) {
      if (sm::StoredTensor const* const stored = catalog.tensor(key)) {
        dict.insert(path_of(catalog, key), make_tensor(stored->dtype, stored->shape));
        ++tensors;
      } else {
        dict.insert(path_of(catalog, key), sm::Value());
      }
    }
  });
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::load_any(world, options.source, dict);
    if (to_hub) {
      sm::save_safetensors_sharded(world, options.target, dict, options.max_shard_bytes);
    } else if (to_one_file) {
      sm::save_safetensors(world, options.target, dict);
    } else {
      sm::save(world, options.target, dict);
    }
  });
  std::size_t const values = dict.size() - tensors;
  std::printf("%s: %zu tensors", options.target.c_str(), tensors);
  if (!to_one_file && !to_hub) {
    std::printf(" and %zu plain values written\n", values);
  } else if (values > 0) {
    std::printf(" written, %zu plain values left out\n", values);
  } else {
    std::printf(" written\n");
  }
  return 0;
}

}  // namespace tool
