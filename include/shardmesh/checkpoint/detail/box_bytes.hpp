// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <shardmesh/core/index.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/memory/host_block.hpp>
#include <shardmesh/memory/strided_copy.hpp>
#include <shardmesh/state/any_tensor.hpp>
#include <shardmesh/tensor/detail/job.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The elements of a box of a local tensor, row-major, in runs of whatever size they are asked for: no more than a
/// few MiB of them (or one row, if that is longer) are in host memory besides the tensor.
class BoxBytes {
 public:
  /// @param tensor  must outlive the object.
  /// @param local   the box's place in the local tensor.
  BoxBytes(AnyTensor const& tensor, Shape const& local, Shape const& extent)
      : tensor_(&tensor), element_(size_of(tensor.dtype())), extent_(extent) {
    left_ = static_cast<std::uint64_t>(volume(extent)) * element_;
    if (left_ == 0) {
      return;
    }
    Shape const strides = byte_strides(tensor.local_shape(), element_);
    source_ = static_cast<std::byte const*>(tensor.data()) +
              byte_offset({local, tensor.local_shape()}, element_);
    copy_ = {source_, nullptr, extent, strides, byte_strides(extent, element_), element_};
    is_run_ = collapse(copy_).extent.empty();
    if (!is_run_) {
      row_bytes_ = static_cast<std::size_t>(left_) / static_cast<std::size_t>(extent[0]);
      rows_ = std::clamp<std::size_t>(most_at_once() / row_bytes_, 1,
                                      static_cast<std::size_t>(extent[0]));
    }
  }

  /// How many bytes are best taken at once: of host memory what a cache holds, of a device's what makes a copy worth its
  /// start. At most what is left.
  [[nodiscard]] std::size_t step() const noexcept {
    return static_cast<std::size_t>(std::min<std::uint64_t>(most_at_once(), left_));
  }
  /// Bytes that were not taken yet.
  [[nodiscard]] std::uint64_t left() const noexcept { return left_; }

  /// Fills `target` with the next bytes.
  /// @pre target.size() <= left().
  void take(std::span<std::byte> target) {
    left_ -= target.size();
    if (is_run_) {
      copy_bytes(source_, target);
      source_ += target.size();
      return;
    }
    while (!target.empty()) {
      if (slab_.empty() && target.size() >= rows_bytes()) {  // whole rows, straight to their place
        std::size_t const count = std::min(target.size() / row_bytes_, rows_left());
        copy_rows(target.data(), count);
        target = target.subspan(count * row_bytes_);
        continue;
      }
      if (slab_.empty()) {
        std::size_t const count = std::min(rows_, rows_left());
        if (kept_.size() == 0) {
          kept_ = HostBlock(rows_ * row_bytes_);
        }
        copy_rows(kept_.data(), count);
        slab_ = kept_.span().first(count * row_bytes_);
      }
      std::size_t const count = std::min(target.size(), slab_.size());
      std::memcpy(target.data(), slab_.data(), count);
      target = target.subspan(count);
      slab_ = slab_.subspan(count);
    }
  }

 private:
  [[nodiscard]] std::size_t most_at_once() const noexcept {
    return tensor_->memory() == MemoryKind::cuda ? std::size_t{4} << 20 : std::size_t{1} << 19;
  }
  [[nodiscard]] std::size_t rows_left() const noexcept {
    return static_cast<std::size_t>(extent_[0]) - next_row_;
  }
  /// Of as many rows as are copied at once.
  [[nodiscard]] std::size_t rows_bytes() const noexcept {
    return std::min(rows_, rows_left()) * row_bytes_;
  }

  void copy_bytes(std::byte const* from, std::span<std::byte> to) const {
    tensor_->copy_box(
        {from, to.data(), Shape{static_cast<index_t>(to.size())}, Shape{1}, Shape{1}, 1});
  }

  /// The next rows, to consecutive memory.
  void copy_rows(std::byte* to, std::size_t count) {
    StridedCopy rows = copy_;
    rows.source = source_ + static_cast<index_t>(next_row_) * copy_.source_strides[0];
    rows.destination = to;
    rows.extent[0] = static_cast<index_t>(count);
    tensor_->copy_box(rows);
    next_row_ += count;
  }

  AnyTensor const* tensor_;
  std::size_t element_;
  Shape extent_;
  std::uint64_t left_ = 0;
  std::byte const* source_ = nullptr;
  StridedCopy copy_;
  bool is_run_ = true;         // lies in the tensor without a gap
  std::size_t row_bytes_ = 0;  // of one step of the first dimension
  std::size_t rows_ = 0;       // that are copied at once
  std::size_t next_row_ = 0;
  HostBlock kept_;             // rows of which a part was taken
  std::span<std::byte> slab_;  // what is left of them
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
