// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/layout/box.hpp>
#include <shardmesh/memory/host_block.hpp>

namespace shardmesh {
inline namespace v0 {

/// A tensor as a checkpoint describes it: boxes that together hold every element once.
struct StoredTensor {
  DType dtype = DType::float32;
  Shape shape;             ///< global
  std::vector<Box> boxes;  ///< box i is read by `read_box(key, i)`
  /// What it has that this library has not, e.g. "unknown dtype 'F2'": it is listed, with shape and
  /// boxes, but cannot be read, and `dtype` means nothing. Empty for a tensor that can be read.
  std::string unsupported{};
};

/// The name of a tensor's element type, or what of it is not known.
[[nodiscard]] inline std::string dtype_text(StoredTensor const& stored) {
  return stored.unsupported.empty() ? std::string(to_string(stored.dtype)) : stored.unsupported;
}

/// The elements of one stored box in host memory. They need not be row-major.
struct StoredBox {
  HostBlock bytes;
  std::size_t first = 0;  ///< byte of the box's first element
  Shape strides;          ///< bytes per step of each dimension
};

/// A checkpoint that can be read, of whatever format.
///
/// - `describe()`: for messages, e.g. the directory.
/// - `contains(key)`, `keys()`: what there is; `tensor(key)`: nullptr if it is no tensor.
/// - `read_box(key, i)`: reads and checks one box. `value(key)`: reads a plain value.
/// - `bytes_read()`: of items, so far.
/// - `check_box(key, i)`, where there is one: checks what can be checked of a box that cannot be read,
///   and returns its bytes.
/// - `path(key)`, where there is one: the steps of which the key is made.
/// - `read_part(key, i, part)`, where there is one: reads some rows of a box, of which every byte can
///   be trusted alone.
/// - `problem(key)`, where there is one: why a key that is listed cannot be read, or nullptr; `tensor`
///   of such a key is nullptr.
/// - `identity()`, where there is one: what tells this checkpoint from those of other saves, in words; the
///   same on all ranks that read the same one, or copies of it.
template <class C>
concept Catalog = requires(C& catalog, std::string const& key, std::size_t box) {
  { catalog.describe() } -> std::convertible_to<std::string>;
  { catalog.keys() } -> std::convertible_to<std::vector<std::string>>;
  { catalog.contains(key) } -> std::convertible_to<bool>;
  { catalog.tensor(key) } -> std::convertible_to<StoredTensor const*>;
  { catalog.read_box(key, box) } -> std::convertible_to<StoredBox>;
  { catalog.value(key) } -> std::convertible_to<Value>;
  { catalog.bytes_read() } -> std::convertible_to<std::uint64_t>;
};

/// Why a key that a catalog lists cannot be read; nullptr if it can, or is not listed.
template <class C>
[[nodiscard]] std::string const* problem_of(C const& catalog, std::string const& key) {
  if constexpr (requires { catalog.problem(key); }) {
    return catalog.problem(key);
  } else {
    return nullptr;
  }
}

namespace detail {

/// @throws UnsupportedError for a tensor that is listed but cannot be read.
/// @param place  of the tensor, for the message.
inline void refuse_unsupported(StoredTensor const& stored, std::string const& place) {
  if (!stored.unsupported.empty()) {
    throw UnsupportedError("shardmesh::load: " + place + " cannot be read: " + stored.unsupported +
                           "; everything else can be loaded without it");
  }
}

/// @throws CorruptError for a key that is listed but cannot be read.
template <class C>
void refuse_unreadable(C const& catalog, std::string const& key) {
  if (std::string const* const problem = problem_of(catalog, key)) {
    throw CorruptError(catalog.describe(), 0, *problem);
  }
}

}  // namespace detail

/// Can parts of a box be read?
template <class C>
concept RangeCatalog = requires(C& catalog, std::string const& key, std::size_t i, Box part) {
  { catalog.read_part(key, i, part) } -> std::convertible_to<StoredBox>;
};

}  // namespace v0
}  // namespace shardmesh
