// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/fingerprint.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/layout/layout.hpp>

namespace shardmesh {
inline namespace v0 {

/// Who holds a tensor: its layout, and the rank at each position of the layout's mesh, in the
/// numbering of one communicator that everybody concerned belongs to. A pure value.
///
/// Everything that moves does so between two holdings: a redistribution between two on the same ranks,
/// a gather to a root from one to another on a mesh of one rank, a transfer between two on
/// different ranks.
class Holding {
 public:
  constexpr Holding() = default;

  /// Position p of the mesh is rank p.
  constexpr Holding(Layout const& layout) : layout_(layout) {}

  /// @param ranks  of the positions of the mesh, row-major, each once.
  /// @throws InvalidArgument if that is not what they are.
  constexpr Holding(Layout const& layout, std::vector<int> ranks)
      : layout_(layout), ranks_(std::move(ranks)) {
    if (static_cast<index_t>(ranks_.size()) != layout_.ranks()) {
      throw InvalidArgument(detail::concat("shardmesh::Holding: ", std::to_string(ranks_.size()),
                                           " ranks for mesh ", to_string(layout_.mesh())));
    }
    bool in_order = true;
    for (std::size_t p = 0; p < ranks_.size(); ++p) {
      int const rank = ranks_[p];
      auto const at = static_cast<std::size_t>(rank);
      if (rank >= 0 && at >= positions_.size()) {
        positions_.resize(at + 1, -1);
      }
      if (rank < 0 || positions_[at] >= 0) {
        throw InvalidArgument(detail::concat("shardmesh::Holding: rank ", std::to_string(rank),
                                             rank < 0 ? " is negative" : " stands twice"));
      }
      positions_[at] = static_cast<int>(p);
      in_order = in_order && at == p;
    }
    if (in_order) {
      ranks_.clear();
      positions_.clear();
    }
  }

  /// The whole of a tensor on one rank.
  [[nodiscard]] static constexpr Holding whole(Shape const& shape, int root) {
    return {Layout(shape, Shape{1}, PlacementList{Placement{}}), {root}};
  }

  [[nodiscard]] constexpr Layout const& layout() const noexcept { return layout_; }

  /// The ranks of the positions; empty where position p is rank p.
  [[nodiscard]] constexpr std::vector<int> const& ranks() const noexcept { return ranks_; }

  /// The rank at a position of the mesh.
  /// @pre 0 <= position < layout().ranks().
  [[nodiscard]] constexpr int rank_at(index_t position) const {
    return ranks_.empty() ? static_cast<int>(position) : ranks_[static_cast<std::size_t>(position)];
  }

  /// The position of a rank; nothing if it is outside the mesh.
  [[nodiscard]] constexpr std::optional<index_t> position_of(int rank) const {
    if (rank < 0 || rank >= rank_limit()) {
      return std::nullopt;
    }
    index_t const position = ranks_.empty() ? rank : positions_[static_cast<std::size_t>(rank)];
    return position < 0 ? std::nullopt : std::optional(position);
  }

  /// One more than the highest rank.
  [[nodiscard]] constexpr index_t rank_limit() const {
    return ranks_.empty() ? layout_.ranks() : static_cast<index_t>(positions_.size());
  }

  /// Are the positions of both meshes the same ranks?
  [[nodiscard]] constexpr bool same_mesh(Holding const& other) const {
    return layout_.mesh() == other.layout_.mesh() && ranks_ == other.ranks_;
  }

  /// The same ranks with another layout.
  /// @pre it is of a mesh of the same shape.
  [[nodiscard]] constexpr Holding with(Layout const& layout) const {
    Holding result = *this;
    result.layout_ = layout;
    return result;
  }

  [[nodiscard]] friend constexpr bool operator==(Holding const&, Holding const&) = default;

 private:
  Layout layout_;
  std::vector<int> ranks_;      // by position; none: position p is rank p
  std::vector<int> positions_;  // by rank; -1: outside
};

/// Stands for a holding: equal for equal ones, on every rank.
[[nodiscard]] constexpr Fingerprint fingerprint(Holding const& holding) noexcept {
  Fingerprint result = fingerprint(holding.layout());
  for (int const rank : holding.ranks()) {
    result.add(static_cast<std::uint64_t>(rank));
  }
  return result;
}

/// " of ranks 4 5"; nothing where they are 0 1 ...
[[nodiscard]] inline std::string ranks_in_words(Holding const& holding) {
  std::string text = holding.ranks().empty() ? "" : " of ranks";
  for (int const rank : holding.ranks()) {
    text += detail::concat(' ', std::to_string(rank));
  }
  return text;
}

/// "(4) on mesh (2) as (Shard(0))", and " of ranks 4 5" where they are not 0 1 ...
[[nodiscard]] inline std::string to_string(Holding const& holding) {
  return to_string(holding.layout()) + ranks_in_words(holding);
}

}  // namespace v0
}  // namespace shardmesh
