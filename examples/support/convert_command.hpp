// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// `shardmesh convert`: a checkpoint in another format, every tensor in full.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>

#include "catalog_tools.hpp"

namespace tool {

struct ConvertOptions {
  std::string source;
  std::string target;
  std::string to;     ///< "dcp", "safetensors" or "hf"; empty: by the name of the target
  std::string dtype;  ///< of all floating-point tensors; empty: as they are
  std::uint64_t max_shard_bytes = 5'000'000'000;
  bool json = false;
  bool progress = false;
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

/// The dtype that a name of --dtype means.
inline sm::DType dtype_named(std::string const& name) {
  for (auto const& [text, dtype] : {std::pair{"fp32", sm::DType::float32},
                                    {"float32", sm::DType::float32},
                                    {"fp64", sm::DType::float64},
                                    {"float64", sm::DType::float64},
                                    {"fp16", sm::DType::float16},
                                    {"float16", sm::DType::float16},
                                    {"bf16", sm::DType::bfloat16},
                                    {"bfloat16", sm::DType::bfloat16}}) {
    if (name == text) {
      return dtype;
    }
  }
  throw sm::InvalidArgument("--dtype " + name + " is not known; use fp64, fp32, fp16 or bf16");
}

/// What a tensor is to become: tensors of floating-point numbers of 16 bits and more change.
inline sm::DType target_dtype(sm::DType stored, std::string const& wanted) {
  bool const changes = stored == sm::DType::float64 || stored == sm::DType::float32 ||
                       stored == sm::DType::float16 || stored == sm::DType::bfloat16;
  return wanted.empty() || !changes ? stored : dtype_named(wanted);
}

/// Everything of a catalog, in memory.
template <class C>
sm::StateDict read_everything(C& catalog, ConvertOptions const& options) {
  for (std::string const& loss : losses(catalog)) {
    std::fprintf(stderr, "shardmesh: convert goes on without what may be lost: %s\n", loss.c_str());
  }
  sm::StateDict dict;
  std::size_t items = 0;
  for (std::string const& key : catalog.keys()) {
    if (sm::StoredTensor const* const stored = catalog.tensor(key)) {
      dict.insert(path_of(catalog, key),
                  make_tensor(target_dtype(stored->dtype, options.dtype), stored->shape));
      items += stored->boxes.size();
    } else {
      dict.insert(path_of(catalog, key), sm::Value());
      ++items;
    }
  }
  Progress progress("convert: item", items, options.progress);
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::load_from(world, [&] { return Borrowed<C>(catalog, &progress); }, dict,
                  {.dtype = sm::DTypePolicy::cast});
  });
  return dict;
}

/// Reads all of `source` and writes it to `target`, which appears when it is complete. safetensors has
/// no place for plain values; their number is told.
inline int run_convert(ConvertOptions const& options) {
  bool const to_one_file =
      options.to.empty() ? options.target.ends_with(".safetensors") : options.to == "safetensors";
  bool const to_hub = options.to == "hf";
  sm::StateDict const dict = sm::with_catalog(
      options.source, [&](auto& catalog) { return read_everything(catalog, options); });
  sm::launch(sm::threads{1}, [&](auto& world) {
    if (to_hub) {
      sm::save_safetensors_sharded(world, options.target, dict, options.max_shard_bytes);
    } else if (to_one_file) {
      sm::save_safetensors(world, options.target, dict);
    } else {
      sm::save(world, options.target, dict);
    }
  });
  auto const tensors = static_cast<std::size_t>(
      std::count_if(dict.begin(), dict.end(), [](auto const& entry) { return entry.is_tensor(); }));
  std::size_t const values = dict.size() - tensors;
  bool const has_values = !to_one_file && !to_hub;
  if (options.json) {
    nlohmann::ordered_json const done{{"path", options.target},
                                      {"tensors", tensors},
                                      {"values", has_values ? values : 0},
                                      {"left_out", has_values ? 0 : values}};
    std::printf("%s\n", done.dump().c_str());
    return 0;
  }
  std::printf("%s: %zu tensors", options.target.c_str(), tensors);
  if (has_values) {
    std::printf(" and %zu plain values written\n", values);
  } else if (values > 0) {
    std::printf(" written, %zu plain values left out\n", values);
  } else {
    std::printf(" written\n");
  }
  return 0;
}

}  // namespace tool
