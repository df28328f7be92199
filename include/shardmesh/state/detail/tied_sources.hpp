// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <shardmesh/state/detail/load_source.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

[[nodiscard]] inline bool have_same_terms(LoadSource const& a, LoadSource const& b) {
  bool const same_place = (a.tensor == nullptr) == (b.tensor == nullptr);
  return a.dtype == b.dtype && a.shape == b.shape && same_place &&
         (a.tensor == nullptr || a.tensor->layout() == b.tensor->layout());
}

/// @pre have_same_terms(a, b).
[[nodiscard]] inline bool have_same_elements(LoadSource const& a, LoadSource const& b) {
  if (a.tensor == nullptr) {
    return a.bytes == b.bytes;
  }
  return a.tensor->data() == b.tensor->data() || a.tensor->local_bytes() == b.tensor->local_bytes();
}

/// Why tied tensors cannot be loaded: two names come with different elements, of which one would be
/// lost; empty if they can.
[[nodiscard]] inline std::string tied_problem(StateDict const& into, LoadSources const& sources) {
  for (auto const& [name, first] : into.aliases()) {
    LoadSource const* const a = sources.by_key.find(first);
    LoadSource const* const b = sources.by_key.find(name);
    if (a == nullptr || b == nullptr || !a->is_tensor || !b->is_tensor) {
      continue;
    }
    bool const same_terms = have_same_terms(*a, *b);
    if (!same_terms || !have_same_elements(*a, *b)) {
      return "shardmesh::load_state_dict: \"" + first + "\" and \"" + name + "\" have different " +
             (same_terms ? "values" : "layouts or types") +
             " in the source, but are two names of one tensor in the state to load into; untie "
             "them, or leave one of the names out";
    }
  }
  return {};
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
