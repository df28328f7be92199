// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/reduce_op.hpp>
#include <shardmesh/core/shape.hpp>

namespace shardmesh {
inline namespace v0 {

/// Where bytes live.
enum class MemoryKind : std::uint8_t { host, pinned, cuda };

/// "host", "pinned", "cuda".
[[nodiscard]] constexpr std::string_view to_string(MemoryKind kind) noexcept {
  return kind == MemoryKind::host ? "host" : kind == MemoryKind::pinned ? "pinned" : "cuda";
}

/// A copy of an n-dimensional box between two places in memory.
struct StridedCopy {
  void const* source = nullptr;
  void* destination = nullptr;
  Shape extent;               ///< elements along each dimension, outermost first
  Shape source_strides;       ///< bytes per step of each dimension
  Shape destination_strides;  ///< bytes per step of each dimension
  std::size_t element_bytes = 1;
};

/// The order of work on the host: work is done when the call returns.
struct HostStream {
  void synchronize() const noexcept {}
};

/// A point in a `HostStream`: always reached.
struct HostEvent {};

/// A stream of its own; on the host there is only one order.
struct HostOwnedStream {
  [[nodiscard]] HostStream get() const noexcept { return {}; }
};

namespace detail {

/// Stands in for any function object where a concept asks for a loop.
struct ProbeLoop {
  void operator()(index_t) const noexcept {}
};

}  // namespace detail

/// A memory space as a stateless type: how to allocate, copy, clear, reduce and loop there, in the
/// order of a stream.
///
/// `copy` takes any pair of addresses that the space can reach (a device space: its own memory,
/// peer devices and the host's). `reduce(dtype, op, destination, sources, count, stream)` sets
/// destination[i] = op over sources[j][i], j ascending; `destination` may be the first source.
/// `convert(from, source, to, target, count, stream)` sets target[i] = source[i] as another type.
/// `make_stream()` owns a stream of its own, whose handle is `get()`.
/// `for_each_index(count, f, stream)` calls f(i) for 0 <= i < count, in any order; `f` holds addresses
/// of this space and is trivially copyable, the calls do not depend on each other.
template <class S>
concept MemorySpace = requires(void* pointer,
                               std::size_t bytes,
                               typename S::Stream stream,
                               typename S::Event event,
                               StridedCopy const& copy,
                               DType dtype,
                               ReduceOp op,
                               std::span<void const* const> sources,
                               index_t count) {
  { S::kind } -> std::convertible_to<MemoryKind>;
  { S::host_accessible } -> std::convertible_to<bool>;
  { S::allocate(bytes, stream) } -> std::same_as<void*>;
  { S::deallocate(pointer, bytes, stream) } noexcept;
  S::copy(copy, stream);
  S::fill_zero(pointer, bytes, stream);
  S::reduce(dtype, op, pointer, sources, count, stream);
  S::for_each_index(count, detail::ProbeLoop{}, stream);
  { S::make_event() } -> std::same_as<typename S::Event>;
  S::record(event, stream);
  S::wait(stream, event);
  S::convert(dtype, pointer, dtype, pointer, count, stream);
  { S::make_stream() } -> std::same_as<typename S::OwnedStream>;
  { S::make_stream().get() } -> std::same_as<typename S::Stream>;
  stream.synchronize();
};

}  // namespace v0
}  // namespace shardmesh
