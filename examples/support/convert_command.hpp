// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// `shardmesh convert`: a checkpoint in another format, every tensor in full.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>

#include "catalog_tools.hpp"
#include "notation.hpp"

namespace tool {

struct ConvertOptions {
  std::string source;
  std::string target;
  std::string to;     ///< "dcp", "safetensors" or "hf"; empty: by the name of the target
  std::string dtype;  ///< of all floating-point tensors; empty: as they are
  std::uint64_t max_shard_bytes = 5'000'000'000;
  bool force = false;  ///< replace what is there
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

/// The dtype that a name of --dtype means: floating-point numbers of 16 bits and more.
inline sm::DType dtype_named(std::string const& name) {
  sm::DType const dtype = parse_dtype(name);
  for (sm::DType const one :
       {sm::DType::float64, sm::DType::float32, sm::DType::float16, sm::DType::bfloat16}) {
    if (dtype == one) {
      return dtype;
    }
  }
  throw sm::InvalidArgument("--dtype " + name +
                            " is not what tensors are converted to; use fp64, fp32, fp16 or bf16");
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
  for (std::string const& key : catalog.keys()) {
    if (sm::StoredTensor const* const stored = catalog.tensor(key)) {
      if (!stored->unsupported.empty()) {
        throw sm::UnsupportedError(options.source + ": \"" + key +
                                   "\" cannot be converted: " + stored->unsupported);
      }
      dict.insert(path_of(catalog, key),
                  make_tensor(target_dtype(stored->dtype, options.dtype), stored->shape));
    } else {
      dict.insert(path_of(catalog, key), sm::Value());
    }
  }
  Progress progress("convert", total_bytes(catalog), options.progress);
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::load_from(world, [&] { return Borrowed<C>(catalog, &progress); }, dict,
                  {.dtype = sm::DTypePolicy::cast});
  });
  return dict;
}

namespace detail {

namespace fs = std::filesystem;

/// Is `inner` the same file or directory as `outer`, or does it lie in it, under whatever names? It need
/// not exist.
inline bool is_in(fs::path const& inner, fs::path const& outer) {
  std::error_code unseen;  // what does not exist is in nothing
  for (fs::path at = fs::weakly_canonical(inner); !at.empty(); at = at.parent_path()) {
    if (fs::equivalent(at, outer, unseen)) {
      return true;
    }
    if (at == at.parent_path()) {
      break;
    }
  }
  return false;
}

/// The files that a conversion of `source` may read: those in its directory, or itself. An index
/// stands for the directory that it lies in.
inline std::vector<fs::path> read_paths(fs::path const& source) {
  bool const is_index = source.string().ends_with(".json");
  fs::path const place = is_index ? fs::weakly_canonical(source).parent_path() : source;
  std::vector<fs::path> paths{source};
  if (fs::is_directory(place)) {
    for (auto const& entry : fs::directory_iterator(place)) {
      paths.push_back(entry.path());
    }
  }
  return paths;
}

}  // namespace detail

/// Throws unless `target` can be written without harm: to `source`, and to what is there already.
inline void check_target(ConvertOptions const& options) {
  detail::fs::path const target = sm::detail::save_target(options.target, "convert");
  if (!sm::PosixStorage::exists(options.source)) {
    return;  // reading it says so
  }
  bool is_same = detail::is_in(target, options.source);
  for (detail::fs::path const& read : detail::read_paths(options.source)) {
    is_same = is_same || detail::is_in(read, target);
  }
  if (is_same) {
    throw sm::InvalidArgument("convert: " + options.target +
                              " is, holds or lies in what is read, " + options.source +
                              "; a conversion does not replace its source: give another target");
  }
  bool const is_there = detail::fs::exists(target) &&
                        !(detail::fs::is_directory(target) && detail::fs::is_empty(target));
  if (is_there && !options.force) {
    throw sm::InvalidArgument("convert: " + options.target +
                              " exists; --force replaces it, once the new one is complete");
  }
}

/// Reads all of `source` and writes it to `target`, which appears when it is complete. safetensors has
/// no place for plain values; their number is told.
inline int run_convert(ConvertOptions const& options) {
  if (!options.dtype.empty()) {
    static_cast<void>(dtype_named(options.dtype));
  }
  check_target(options);
  bool const to_one_file =
      options.to.empty() ? options.target.ends_with(".safetensors") : options.to == "safetensors";
  bool const to_hub = options.to == "hf";
  sm::StateDict const dict = sm::with_catalog(
      options.source, [&](auto& catalog) { return read_everything(catalog, options); });
  sm::launch(sm::threads{1}, [&](auto& world) {
    if (to_hub) {
      sm::save_safetensors_sharded(world, options.target, dict, options.max_shard_bytes,
                                   sm::Existing::replace);
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
