// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <shardmesh/checkpoint/format/pickle_globals.hpp>
#include <shardmesh/checkpoint/format/pickle_tree.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format::detail {

/// Is it one of the classes that a checkpoint's metadata is made of?
[[nodiscard]] constexpr bool is_dataclass(PickleGlobal global) noexcept {
  return global >= PickleGlobal::metadata && global <= PickleGlobal::storage_info;
}

/// Is it a tuple or list of sizes, no more than 64 of them?
[[nodiscard]] inline bool is_size(PickleTree const& tree, PickleRef ref) {
  if (!tree.is(ref, PickleKind::tuple) && !tree.is(ref, PickleKind::list)) {
    return false;
  }
  std::span<PickleRef const> const sizes = tree.items(ref);
  return sizes.size() <= 64 && std::all_of(sizes.begin(), sizes.end(), [&tree](PickleRef size) {
           return tree.is(size, PickleKind::integer) && tree.integer(size) >= 0;
         });
}

/// The one use of getattr: some Python versions write the memory format by name.
[[nodiscard]] inline bool is_memory_format_name(PickleTree const& tree,
                                                std::span<PickleRef const> arguments) {
  if (arguments.size() != 2 ||
      !tree.is(arguments[0], PickleKind::global, PickleGlobal::memory_format) ||
      !tree.is(arguments[1], PickleKind::text)) {
    return false;
  }
  std::string_view const name = tree.text(arguments[1]);
  return name == "TORCH_CONTIGUOUS_FORMAT" || name == "TORCH_CHANNELS_LAST" ||
         name == "TORCH_PRESERVE_FORMAT";
}

/// Does getattr take something out of an inert class? Some Python versions write enumerators by name, and
/// protocols before 4 classes in classes.
[[nodiscard]] inline bool is_inert_attribute(PickleTree const& tree,
                                             PickleGlobal global,
                                             std::span<PickleRef const> arguments) {
  return global == PickleGlobal::get_attribute && arguments.size() == 2 &&
         tree.is_inert(arguments[0]) && tree.is(arguments[1], PickleKind::text);
}

/// `numpy.dtype("f8", False, True)`; older versions write numbers instead of the flags.
[[nodiscard]] inline bool is_numpy_dtype(PickleTree const& tree,
                                         std::span<PickleRef const> arguments) {
  auto const is_flag = [&tree](PickleRef ref, std::int64_t value) {
    return (tree.is(ref, PickleKind::boolean) || tree.is(ref, PickleKind::integer)) &&
           tree.integer(ref) == value;
  };
  return arguments.size() == 3 && tree.is(arguments[0], PickleKind::text) &&
         is_flag(arguments[1], 0) && is_flag(arguments[2], 1);
}

/// The state of a dtype of numbers: (version, byte order, None, None, None, -1, -1, 0).
[[nodiscard]] inline bool is_numpy_dtype_state(PickleTree const& tree, PickleRef state) {
  if (!tree.is(state, PickleKind::tuple) || tree.items(state).size() != 8) {
    return false;
  }
  std::span<PickleRef const> const items = tree.items(state);
  auto const is_integer = [&](std::size_t i, std::int64_t value) {
    return tree.is(items[i], PickleKind::integer) && tree.integer(items[i]) == value;
  };
  return tree.is(items[0], PickleKind::integer) && tree.is(items[1], PickleKind::text) &&
         tree.is(items[2], PickleKind::none) && tree.is(items[3], PickleKind::none) &&
         tree.is(items[4], PickleKind::none) && is_integer(5, -1) && is_integer(6, -1) &&
         is_integer(7, 0);
}

/// May `global` be called with these arguments? The machine keeps the call; nobody makes it.
[[nodiscard]] inline bool may_call(PickleTree const& tree,
                                   PickleGlobal global,
                                   std::span<PickleRef const> arguments) {
  switch (global) {
    case PickleGlobal::torch_size:
      return arguments.size() == 1 && is_size(tree, arguments[0]);
    case PickleGlobal::get_layout:
      return arguments.size() == 1 && tree.is(arguments[0], PickleKind::text);
    case PickleGlobal::memory_format:
      return arguments.size() == 1 && tree.is(arguments[0], PickleKind::integer) &&
             tree.integer(arguments[0]) >= 0 && tree.integer(arguments[0]) <= 2;
    case PickleGlobal::get_attribute:
      return is_memory_format_name(tree, arguments);
    case PickleGlobal::file_path:
      return std::all_of(arguments.begin(), arguments.end(),
                         [&tree](PickleRef ref) { return tree.is(ref, PickleKind::text); });
    case PickleGlobal::ordered_dict:
      return arguments.empty();
    case PickleGlobal::numpy_dtype:
      return is_numpy_dtype(tree, arguments);
    case PickleGlobal::numpy_scalar:
      return arguments.size() == 2 &&
             tree.is(arguments[0], PickleKind::call, PickleGlobal::numpy_dtype) &&
             tree.is(arguments[1], PickleKind::call, PickleGlobal::encode);
    case PickleGlobal::encode:
      return arguments.size() == 2 && tree.is(arguments[0], PickleKind::text) &&
             tree.is(arguments[1], PickleKind::text) && tree.text(arguments[1]) == "latin1";
    case PickleGlobal::rebuild_tensor_v2:
    case PickleGlobal::rebuild_tensor_v3:
    case PickleGlobal::rebuild_parameter:
      return true;
    default:
      return false;
  }
}

}  // namespace format::detail
}  // namespace v0
}  // namespace shardmesh
