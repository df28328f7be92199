// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/config.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/layout/box.hpp>

namespace shardmesh {
inline namespace v0 {

/// What one rank wants of a checkpoint; keys by their number in the catalog.
struct LoadWishes {
  /// The boxes of one tensor.
  struct Tensor {
    std::size_t key = 0;
    std::vector<Box> boxes;

    [[nodiscard]] friend bool operator==(Tensor const&, Tensor const&) = default;
  };
  std::vector<Tensor> tensors;      ///< ascending keys, boxes in the order of the local tensor
  std::vector<std::size_t> values;  ///< ascending keys

  [[nodiscard]] friend bool operator==(LoadWishes const&, LoadWishes const&) = default;
};

/// A part of a stored box that is read at once, by one rank, for all that want any of it.
struct ReadUnit {
  std::size_t key = 0;
  std::size_t box = 0;           ///< of the stored tensor
  Box part;                      ///< of that box; all of it, unless the catalog reads ranges
  DType dtype = DType::float32;  ///< as stored
  int reader = 0;
  std::vector<int> wanted_by;  ///< ascending

  [[nodiscard]] std::uint64_t bytes() const {
    return static_cast<std::uint64_t>(part.volume()) * size_of(dtype);
  }
};

/// A plain value that is read by one rank.
struct ReadValue {
  std::size_t key = 0;
  int reader = 0;
  std::vector<int> wanted_by;  ///< ascending
};

/// Who reads what of a checkpoint, and for whom.
struct LoadPlan {
  std::vector<ReadValue> values;
  std::vector<ReadUnit> units;
  /// Numbers of units, each in one round. What is read in a round is passed on at its end.
  std::vector<std::vector<std::size_t>> rounds;
};

namespace detail {

/// Slabs of rows of about `most` bytes. In a row-major box each is one range of bytes.
[[nodiscard]] SHARDMESH_INLINE std::vector<Box> cut_rows(Box const& box,
                                                         std::size_t element_bytes,
                                                         std::uint64_t most);

/// Bytes of `unit` that a rank wants, whose boxes are disjoint.
[[nodiscard]] SHARDMESH_INLINE std::uint64_t wanted_bytes(ReadUnit const& unit,
                                                          std::vector<Box> const& boxes);

/// The wishes of all ranks for one key, by rank; empty where there are none.
class WishIndex {
 public:
  WishIndex(std::vector<LoadWishes> const& wishes, std::size_t keys);

  struct Wish {
    int rank;
    std::vector<Box> const* boxes;
  };
  [[nodiscard]] std::vector<Wish> const& of(std::size_t key) const { return by_key_[key]; }
  /// @pre `rank` has a wish for the key.
  [[nodiscard]] std::vector<Box> const& boxes(std::size_t key, int rank) const;

 private:
  std::vector<std::vector<Wish>> by_key_;
};

}  // namespace detail

/// Decides who reads what, in which round, and so who passes what on to whom: every item that any
/// rank wants is read by one of the ranks that want it. Pure: every rank decides the same.
///
/// @param stored      by key; nullptr for plain values.
/// @param wishes      by rank.
/// @param unit_bytes  row-major boxes are cut into slabs of about so many bytes; 0: they are read
///                    whole.
/// @param round_bytes see `LoadOptions`.
[[nodiscard]] SHARDMESH_INLINE LoadPlan plan_load(std::vector<StoredTensor const*> const& stored,
                                                  std::vector<LoadWishes> const& wishes,
                                                  std::uint64_t unit_bytes,
                                                  std::uint64_t round_bytes);

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/checkpoint/detail/load_plan_bodies.hpp>
#endif
