// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/load_wishes.hpp>
#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/shape.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What a rank makes of a stored key that was looked at for an optimizer; of several, the highest counts.
enum class KeyUse : unsigned char {
  unseen,
  unused,  ///< read, but no optimizer has asked for it
  used,
  left_out,  ///< a tensor of several elements in a group that an optimizer has asked for
};

/// What the ranks make of each key, together.
/// @param mine  by the number of the key.
/// @collective over `comm`.
template <Communicator Comm>
[[nodiscard]] std::vector<KeyUse> use_on_any_rank(Comm const& comm,
                                                  std::vector<KeyUse> const& mine) {
  constexpr std::size_t kinds = 4;
  Packer out;
  for (std::size_t key = 0; key < mine.size(); ++key) {
    if (mine[key] != KeyUse::unseen) {
      out.number(kinds * key + static_cast<std::size_t>(mine[key]));
    }
  }
  std::vector<KeyUse> any(mine.size(), KeyUse::unseen);
  for (std::string const& text : all_gather_text(comm, std::move(out).finish(), "load")) {
    for (Unpacker in(text); !in.at_end();) {
      std::uint64_t const one = in.number();
      KeyUse& known = any.at(static_cast<std::size_t>(one / kinds));
      known = std::max(known, static_cast<KeyUse>(one % kinds));
    }
  }
  return any;
}

/// May something be left out on some rank: does any read values, and is there a tensor that none wants? The same
/// on every rank.
[[nodiscard]] inline bool may_leave_out(std::vector<StoredTensor const*> const& stored,
                                        std::vector<LoadWishes> const& all) {
  std::vector<char> wanted(stored.size(), 0);
  bool any_value = false;
  for (LoadWishes const& one : all) {
    any_value = any_value || !one.values.empty();
    for (LoadWishes::Tensor const& tensor : one.tensors) {
      wanted[tensor.key] = 1;
    }
  }
  for (std::size_t key = 0; any_value && key < stored.size(); ++key) {
    if (stored[key] != nullptr && wanted[key] == 0 && volume(stored[key]->shape) != 1) {
      return true;
    }
  }
  return false;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
