// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <shardmesh/core/config.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/layout/box.hpp>

namespace shardmesh {
inline namespace v0 {

/// One thing that a rank offers to write: a box of a tensor, or a plain value.
struct SaveItem {
  std::string key;
  std::vector<PathElement> path;
  std::optional<DType> dtype;  ///< of a tensor; nothing for a plain value
  Shape shape;                 ///< global shape of the tensor
  Box box;
  std::uint64_t length = 0;  ///< bytes of the stored item
  /// Stands for the ranks that are known to hold the same: those of the tensor's mesh. 0: this rank
  /// alone answers for it (plain tensors, plain values).
  std::uint64_t holders = 0;
  /// Of a group of an optimizer: the names of this rank's parameters in it.
  std::optional<std::vector<std::string>> names = std::nullopt;

  [[nodiscard]] friend bool operator==(SaveItem const&, SaveItem const&) = default;
};

/// An item with the place that it gets.
struct PlacedItem {
  SaveItem item;
  int rank = 0;              ///< who writes it, into its own file
  std::size_t number = 0;    ///< of the item in what that rank offers
  std::uint64_t offset = 0;  ///< in that file
  /// Several ranks offer it, and nothing but its bytes can tell whether they hold the same.
  bool doubtful = false;
};

/// Decides who writes what and where, from what every rank offers. Pure: every rank decides the same.
///
/// Boxes that several ranks offer (replicas: same key, same offset) go to the rank with the fewest
/// bytes so far, the lowest of several; plain values to the lowest rank that offers them. Plain
/// values come first in a file, then tensors, in the order in which they were offered.
///
/// @param offers by rank.
/// @throws ShapeError if the boxes of a tensor do not cover it exactly, or two ranks offer different
///         things under one key: a tensor and a plain value, other dtypes or shapes.
[[nodiscard]] SHARDMESH_INLINE std::vector<PlacedItem> plan_save(
    std::vector<std::vector<SaveItem>> const& offers);

namespace detail {

/// What items of several ranks have in common if they are one: key, and place in a tensor.
[[nodiscard]] SHARDMESH_INLINE std::string item_id(SaveItem const& item);

}  // namespace detail

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/checkpoint/detail/save_plan_bodies.hpp>
#endif
