// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// `shardmesh convert`: every tensor of a checkpoint, in full, as one safetensors file.

#include <cstdio>
#include <string>

#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace tool {

namespace sm = shardmesh;

struct ConvertOptions {
  std::string source;
  std::string target;
};

/// Memory for a tensor of a dtype known at run time.
inline sm::AnyTensor make_tensor(sm::DType dtype, sm::Shape const& shape) {
  return sm::visit_dtype(dtype, [&shape](auto type) {
    return sm::AnyTensor(sm::Tensor<typename decltype(type)::type>::zeros(shape));
  });
}

/// Reads all tensors of `source` (plain values have no place in a safetensors file; their number is
/// told) and writes them to `target`, which appears when it is complete.
inline int run_convert(ConvertOptions const& options) {
  sm::StateDict dict;
  std::size_t values = 0;
  sm::with_catalog(options.source, [&](auto const& catalog) {
    for (std::string const& key : catalog.keys()) {
      if (sm::StoredTensor const* const stored = catalog.tensor(key)) {
        dict.insert(key, make_tensor(stored->dtype, stored->shape));
      } else {
        ++values;
      }
    }
  });
  sm::launch(sm::threads{1}, [&](auto& world) { sm::load_any(world, options.source, dict); });
  sm::save_safetensors(options.target, dict);
  std::printf("%s: %zu tensors written", options.target.c_str(), dict.size());
  if (values > 0) {
    std::printf(", %zu plain values left out", values);
  }
  std::printf("\n");
  return 0;
}

}  // namespace tool
