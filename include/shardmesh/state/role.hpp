// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <type_traits>

namespace shardmesh {
inline namespace v0 {

/// What a member of a model is to training and to its state.
enum class Role : std::uint8_t {
  parameter,  ///< trained; sharded by `fully_shard`; in the state
  frozen,     ///< a parameter without gradient; `ignore_frozen` leaves it out of the state
  buffer,     ///< not trained, not sharded; in the state
  transient,  ///< not trained, not sharded; not in the state (PyTorch: a non-persistent buffer)
};

/// A member with its role, for `visit`: `v("running_mean", buffer(running_mean))`.
template <class T>
struct Tagged {
  T* value;
  Role role;
};

/// Gives a member, or everything in it, the role `frozen`: saved and sharded, not trained.
template <class T>
[[nodiscard]] constexpr Tagged<T> frozen(T& member) noexcept {
  return {&member, Role::frozen};
}
/// Gives a member, or everything in it, the role `buffer`: saved, not trained.
template <class T>
[[nodiscard]] constexpr Tagged<T> buffer(T& member) noexcept {
  return {&member, Role::buffer};
}
/// Gives a member, or everything in it, the role `transient`: no part of a state.
template <class T>
[[nodiscard]] constexpr Tagged<T> transient(T& member) noexcept {
  return {&member, Role::transient};
}

}  // namespace v0
}  // namespace shardmesh
