// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The arguments of a call that must be the same on all ranks, in words.
class Arguments {
 public:
  Arguments& add(std::string_view name, std::string_view value) {
    text_ += concat(text_.empty() ? "" : "; ", name, ' ', value);
    return *this;
  }
  Arguments& path(std::string_view name, std::string const& value) {
    return add(name, concat('"', escaped(value), '"'));
  }
  [[nodiscard]] std::string const& text() const noexcept { return text_; }

 private:
  std::string text_;
};

/// Compares the arguments of all ranks, on every engine before the call does anything else.
/// @param operation  a literal, as for `agree_on_failure`.
/// @throws MismatchError on every rank, with both sides, if a rank's are not those of rank 0.
/// @collective over `comm`.
template <Communicator Comm>
void refuse_other_arguments(Comm const& comm, char const* operation, Arguments const& own) {
  auto const all = all_gather_text(comm, own.text(), call_of(operation));
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] != all[0]) {
      std::vector<int> const world = comm.world_ranks();
      char const* const name = call_of(operation).operation();
      throw MismatchError(mismatch_text(world[0], {name, all[0]}, world[rank], {name, all[rank]}));
    }
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
