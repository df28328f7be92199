// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <vector>

#include <shardmesh/memory/any_stream.hpp>
#include <shardmesh/tensor/root_exchange.hpp>

namespace shardmesh {
inline namespace v0 {

/// The ranks that hold the parts of an `AnyTensor`, and how whole tensors travel between them and a
/// root. Tensors with equal groups can travel as one exchange. Empty for plain tensors, and on ranks
/// outside the mesh.
struct TensorGroup {
  std::vector<int> ranks;      ///< in the numbering of the whole job
  int rank = 0;                ///< the calling rank's position
  bool first_replica = true;   ///< false: another group holds the same parts, and comes first
  void const* comm = nullptr;  ///< valid for as long as the tensor
  /// `exchange_with_root` over `comm`, in the memory of the local parts and the order of a stream.
  GatherReport (*exchange)(void const* comm,
                           char const* operation,
                           RootDirection direction,
                           std::vector<RootJob> const& jobs,
                           std::size_t ceiling,
                           AnyStream const& stream) = nullptr;
  [[nodiscard]] friend bool operator==(TensorGroup const& a, TensorGroup const& b) {
    return a.ranks == b.ranks && a.exchange == b.exchange;
  }
};

namespace detail {

/// Its address stands for a type of communicator.
template <class Comm>
inline constexpr char communicator_type = 0;

}  // namespace detail

/// A device to make current on another thread; none for memory of the host.
struct DeviceBinding {
  int number = 0;
  void (*use)(int) = nullptr;

  void bind() const {
    if (use != nullptr) {
      use(number);
    }
  }
};

}  // namespace v0
}  // namespace shardmesh
