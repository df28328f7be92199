// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/box_bytes.hpp>
#include <shardmesh/checkpoint/safetensors_checks.hpp>
#include <shardmesh/checkpoint/storage/file.hpp>
#include <shardmesh/checkpoint/storage/slot_writer.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/layout/box.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A file of a model that this rank writes parts of, and the sums of what it has written there.
class PartWriter {
 public:
  /// @param file  open to be written.
  /// @param data  byte of the file where the data starts.
  /// @param sums  take the checksums; must outlive the writer.
  /// @param done  counts the bytes of elements, where somebody waits; must outlive it too.
  PartWriter(File file,
             std::uint64_t data,
             format::SafetensorsSums& sums,
             std::atomic<std::uint64_t>* done = nullptr)
      : file_(std::move(file)), slots_(file_), data_(data), end_(data), sums_(&sums), done_(done) {}

  /// Writes the next `bytes` of the elements at `place`.
  void run(std::uint64_t place, std::uint64_t bytes, BoxBytes& elements) {
    constexpr std::uint64_t least = std::uint64_t{1} << 18;
    bool const goes_on = place == end_;
    end_ = place + bytes;
    if (bytes < least && !goes_on) {  // a slot of its own would cost more
      line_.resize(static_cast<std::size_t>(bytes));
      elements.take(line_);
      lines().write_at(place, line_);
      sums_->add(place - data_, line_);
      count(line_.size());
      return;
    }
    while (place < end_) {
      auto const room = slots_.room(
          place, static_cast<std::size_t>(std::min<std::uint64_t>(elements.step(), end_ - place)));
      elements.take(room);
      sums_->add(place - data_, room);
      slots_.filled(room.size());
      count(room.size());
      place += room.size();
    }
  }

  /// Writes a box of a row-major tensor that starts at byte `base` of the file. Dimensions that the box takes whole, from
  /// the last one on, are written as one run.
  void box(std::uint64_t base,
           Shape const& shape,
           Box const& box,
           std::size_t element_bytes,
           BoxBytes& elements) {
    std::size_t outer = shape.size();
    index_t run_elements = 1;
    bool whole = true;
    while (outer > 0 && whole) {
      --outer;
      run_elements *= box.extent[outer];
      whole = box.extent[outer] == shape[outer];
    }
    Shape const strides = row_major_strides(shape);
    Shape const counts(box.extent.begin(), box.extent.begin() + outer);
    std::uint64_t const bytes = static_cast<std::uint64_t>(run_elements) * element_bytes;
    for (index_t i = 0; i < volume(counts) && bytes > 0; ++i) {
      Shape const at = unravel(i, counts);
      index_t element = 0;
      for (std::size_t d = 0; d < shape.size(); ++d) {
        element += (box.offset[d] + (d < outer ? at[d] : 0)) * strides[d];
      }
      run(base + static_cast<std::uint64_t>(element) * element_bytes, bytes, elements);
    }
  }

  /// What was written lies in the file, though not on the disk.
  [[nodiscard]] File& flushed() {
    slots_.flush();
    return file_;
  }

 private:
  /// The file once more: slots may be on their way past the page cache, where lines cannot go.
  [[nodiscard]] File const& lines() {
    if (!lines_) {
      lines_.emplace(File::open_to_write(file_.path()));
    }
    return *lines_;
  }

  void count(std::size_t bytes) noexcept {
    if (done_ != nullptr) {
      *done_ += bytes;
    }
  }

  File file_;
  SlotWriter slots_;
  std::optional<File> lines_;
  std::uint64_t data_;
  std::uint64_t end_;  // of what was written last
  format::SafetensorsSums* sums_;
  std::atomic<std::uint64_t>* done_;
  std::vector<std::byte> line_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
