// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <cstring>
#include <type_traits>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Its address stands for a type of stream.
template <class Stream>
inline constexpr char stream_type = 0;

}  // namespace detail

/// A stream of any memory space, or none: then each space's default stream of the calling thread is meant.
/// For places where tensors have lost the type of their memory space: a state dict, a save, a load.
class AnyStream {
 public:
  AnyStream() = default;

  /// @param stream  a handle such as `CudaStream`; what it stands for lives as long as it is used.
  template <class Stream>
    requires(!std::same_as<Stream, AnyStream> && requires(Stream const& one) { one.synchronize(); })
  AnyStream(Stream const& stream) noexcept : type_(&detail::stream_type<Stream>) {
    static_assert(std::is_trivially_copyable_v<Stream> && sizeof(Stream) <= sizeof(handle_),
                  "shardmesh::AnyStream: a stream is a handle that can be copied byte by byte, of "
                  "at most two addresses");
    std::memcpy(handle_, &stream, sizeof(Stream));
  }

  /// The stream, if it is of that type; else the default of the type.
  template <class Stream>
  [[nodiscard]] Stream as() const {
    Stream stream{};
    if (type_ == &detail::stream_type<Stream>) {
      std::memcpy(&stream, handle_, sizeof(Stream));
    }
    return stream;
  }

  [[nodiscard]] friend bool operator==(AnyStream const& a, AnyStream const& b) noexcept {
    return a.type_ == b.type_ && std::memcmp(a.handle_, b.handle_, sizeof(a.handle_)) == 0;
  }

 private:
  char const* type_ = nullptr;
  alignas(void*) std::byte handle_[2 * sizeof(void*)] = {};
};

}  // namespace v0
}  // namespace shardmesh
