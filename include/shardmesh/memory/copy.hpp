// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <type_traits>

#include <shardmesh/memory/space.hpp>

namespace shardmesh {
inline namespace v0 {

/// The space whose engine copies between two spaces: the device's, if one of them is a device's.
template <MemorySpace A, MemorySpace B>
using CopySpace =
    std::conditional_t<A::kind != MemoryKind::cuda && B::kind == MemoryKind::cuda, B, A>;

/// The stream on which a copy between two spaces is ordered.
template <MemorySpace A, MemorySpace B>
using CopyStream = typename CopySpace<A, B>::Stream;

/// `stream` for work in `Space`, where it is of that kind; otherwise the space's default.
template <MemorySpace Space, class Stream>
[[nodiscard]] typename Space::Stream stream_of(Stream const& stream) {
  if constexpr (std::is_same_v<typename Space::Stream, Stream>) {
    return stream;
  } else {
    return {};
  }
}

/// Copies a strided box from `Source` to `Target` memory, ordered on the stream.
template <MemorySpace Target, MemorySpace Source>
void copy_box(StridedCopy const& copy, CopyStream<Target, Source> stream = {}) {
  CopySpace<Target, Source>::copy(copy, stream);
}

/// Copies `bytes` contiguous bytes from `Source` to `Target` memory, ordered on the stream.
template <MemorySpace Target, MemorySpace Source>
void copy_bytes(void* target,
                void const* source,
                std::size_t bytes,
                CopyStream<Target, Source> stream = {}) {
  StridedCopy copy{};
  copy.source = source;
  copy.destination = target;
  copy.extent = Shape{static_cast<index_t>(bytes)};
  copy.source_strides = Shape{1};
  copy.destination_strides = Shape{1};
  copy.element_bytes = 1;
  copy_box<Target, Source>(copy, stream);
}

}  // namespace v0
}  // namespace shardmesh
