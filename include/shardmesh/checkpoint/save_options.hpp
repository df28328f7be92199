// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>

namespace shardmesh {
inline namespace v0 {

/// Under what keys a save stores dicts and lists of plain values.
enum class Containers : std::uint8_t {
  /// Each element under its own (`optim.param_groups.0.lr`), lists without dicts as one value: PyTorch's keys since 2.4.
  elements,
  /// A container without tensors as one value (`optim.param_groups`): PyTorch's keys until 2.3, which finds no others;
  /// later versions, and `load`, read both.
  whole,
};

namespace detail {

[[nodiscard]] constexpr char const* name_of(Containers containers) noexcept {
  return containers == Containers::whole ? "whole" : "elements";
}

}  // namespace detail

/// How a checkpoint is saved. The same on all ranks.
struct SaveOptions {
  Containers containers = Containers::elements;
};

}  // namespace v0
}  // namespace shardmesh
