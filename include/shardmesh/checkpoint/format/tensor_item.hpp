// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/tensor_pickle.hpp>
#include <shardmesh/checkpoint/format/zip_reader.hpp>
#include <shardmesh/checkpoint/format/zip_writer.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/shape.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// A tensor in its archive: element (i, j, ...) is at storage[first + i strides[0] + ...], after
/// `resolve(view, dtype, storage)`.
struct TensorItem {
  DType dtype = DType::float32;
  Shape sizes;
  Shape strides;          ///< bytes per step
  std::size_t first = 0;  ///< byte of the first element
  ByteSpan storage;       ///< views into the item
  LazyView view;
};

namespace detail {

/// Pickles of tensors, which say a dozen numbers, are refused above this size.
inline constexpr std::uint64_t most_tensor_pickle_bytes = std::uint64_t{1} << 20;

[[noreturn]] inline void fail_item(std::string const& path,
                                   std::uint64_t position,
                                   std::string const& what) {
  throw CorruptError(path, position,
                     "shardmesh::read_tensor_item: " + what + " [" + path + ", byte " +
                         std::to_string(position) + "]");
}

[[nodiscard]] inline bool has_elements(Shape const& sizes) noexcept {
  return std::find(sizes.begin(), sizes.end(), 0) == sizes.end();
}

/// Does the last element lie inside the storage? All arithmetic is checked.
[[nodiscard]] inline bool reaches_only(TensorPickle const& pickle) {
  if (!has_elements(pickle.sizes)) {
    return true;
  }
  index_t last = pickle.storage_offset;
  for (std::size_t d = 0; d < pickle.sizes.size(); ++d) {
    index_t reach = 0;
    if (__builtin_mul_overflow(pickle.sizes[d] - 1, pickle.strides[d], &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return false;
    }
  }
  auto const elements = static_cast<index_t>(pickle.storage_bytes / size_of(pickle.dtype));
  return last >= 0 && last < elements;
}

/// Records that tell readers how the archive was written, behind the tensor's elements.
inline void add_trailing_records(ZipWriter& zip, std::string_view id) {
  zip.add("archive/version", as_bytes("3\n"));
  zip.add("archive/.data/serialization_id", as_bytes(id));
}

inline void add_leading_records(ZipWriter& zip, ByteSpan pickle, std::uint64_t alignment) {
  zip.add("archive/data.pkl", pickle);
  zip.add("archive/.format_version", as_bytes("1"));
  zip.add("archive/.storage_alignment", as_bytes(std::to_string(alignment)));
  zip.add("archive/byteorder", as_bytes("little"));
}

/// The 40 digits of `.data/serialization_id`: a hash of the record names, and a CRC. PyTorch only
/// logs it.
[[nodiscard]] inline std::string serialization_id(std::string_view names, std::uint32_t crc) {
  std::string const digits = std::to_string(crc);
  return std::string(names) + std::string(20 - digits.size(), '0') + digits;
}

}  // namespace detail

/// What the records of a tensor's archive say, all but its elements checked against their CRCs.
struct TensorFrame {
  TensorPickle said;
  ZipEntry data;  ///< the elements
};

/// Reads the frame of a tensor's archive, which fills `item` wholly.
/// @throws CorruptError for damage, and for anything but one plain tensor; UnsupportedError for
///         big-endian data, and for views of elements that have none.
template <ByteSource Source>
[[nodiscard]] TensorFrame read_tensor_frame(Source const& item) {
  ZipArchive const archive = read_zip(item);
  std::string const& path = item.path();
  std::uint64_t const position = item.position();
  ZipEntry const* const pickle = archive.find("data.pkl");
  ZipEntry const* const data = archive.find("data/0");
  if (pickle == nullptr || data == nullptr) {
    detail::fail_item(path, position, "the archive holds no tensor");
  }
  if (pickle->size > detail::most_tensor_pickle_bytes) {
    detail::fail_item(path, position,
                      "the pickle of a tensor has " + std::to_string(pickle->size) +
                          " bytes; at most 1 MiB are read");
  }
  for (ZipEntry const& entry : archive.entries) {
    if (&entry != data) {
      static_cast<void>(zip_record(item, entry));
    }
  }
  if (ZipEntry const* const order = archive.find("byteorder"); order != nullptr) {
    std::string const said(as_text(zip_record(item, *order)));
    if (said == "big") {
      throw UnsupportedError("shardmesh::read_tensor_item: " + path +
                             " was written on a big-endian machine; convert it with PyTorch first");
    }
    if (said != "little") {
      detail::fail_item(path, position,
                        R"(the byte order of the elements is neither "little" nor "big")");
    }
  }
  TensorFrame frame{read_tensor_pickle(zip_record(item, *pickle), path, position + pickle->offset),
                    *data};
  TensorPickle const& said = frame.said;
  if (said.storage_bytes != data->size || said.strides.size() != said.sizes.size() ||
      said.storage_offset < 0 || !detail::reaches_only(said)) {
    detail::fail_item(path, position, "the tensor is larger than its stored elements");
  }
  if (!is_resolvable(said.view, said.dtype)) {
    throw UnsupportedError("shardmesh::read_tensor_item: the tensor was stored as a " +
                           std::string(said.view.conjugate ? "conjugate" : "negative") +
                           " view of " + std::string(to_string(said.dtype)) +
                           ", which has no such views [" + path + ", byte " +
                           std::to_string(position) + "]");
  }
  return frame;
}

/// Reads a tensor's archive, which fills `item` wholly, and checks every CRC.
/// @param path, position  of the item, for error messages.
/// @throws as `read_tensor_frame`.
[[nodiscard]] inline TensorItem read_tensor_item(ByteSpan item,
                                                 std::string const& path = "(memory)",
                                                 std::uint64_t position = 0) {
  SpanSource const source(item, path, position);
  TensorFrame const frame = read_tensor_frame(source);
  TensorPickle const& said = frame.said;
  TensorItem result;
  result.storage = zip_record(source, frame.data);
  result.dtype = said.dtype;
  result.view = said.view;
  result.sizes = said.sizes;
  auto const bytes = static_cast<index_t>(size_of(said.dtype));
  for (index_t const stride : said.strides) {
    index_t step = 0;  // what overflows is never stepped: the extent is 0 or 1
    result.strides.push_back(__builtin_mul_overflow(stride, bytes, &step) ? 0 : step);
  }
  if (detail::has_elements(said.sizes)) {
    result.first = static_cast<std::size_t>(said.storage_offset * bytes);
  }
  return result;
}

/// The frame of a contiguous tensor's archive: `head`, then the elements, then `tail(crc)`. Sizes
/// are known before any element is.
class TensorItemFrame {
 public:
  TensorItemFrame(DType dtype, Shape const& sizes, std::uint64_t alignment = 64)
      : zip_(alignment), payload_(static_cast<std::uint64_t>(volume(sizes)) * size_of(dtype)) {
    detail::add_leading_records(zip_, write_tensor_pickle(dtype, sizes), alignment);
    zip_.add_external("archive/data/0", payload_);
    size_ = head().size() + payload_ + tail(0).size();
  }

  [[nodiscard]] Bytes const& head() const noexcept { return zip_.head(); }
  /// Bytes of the elements.
  [[nodiscard]] std::uint64_t payload() const noexcept { return payload_; }

  /// What follows the elements, whose CRC-32 is `crc`.
  [[nodiscard]] Bytes tail(std::uint32_t crc) const {
    ZipWriter zip = zip_;
    zip.close_external(crc);
    detail::add_trailing_records(zip, detail::serialization_id("15728199511854643026", crc));
    return std::move(zip).finish();
  }

  /// Bytes of the whole item.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

 private:
  ZipWriter zip_;
  std::uint64_t payload_;
  std::uint64_t size_ = 0;
};

/// The frames that were asked for last: models have many tensors and few shapes, and what a frame says depends on
/// nothing else.
class TensorItemFrames {
 public:
  /// @returns a frame that is there until the next call.
  [[nodiscard]] TensorItemFrame const& of(DType dtype, Shape const& sizes) {
    for (Known const& one : known_) {
      if (one.dtype == dtype && one.sizes == sizes) {
        return one.frame;
      }
    }
    Known made{dtype, sizes, TensorItemFrame(dtype, sizes)};
    if (known_.size() < most) {
      return known_.emplace_back(std::move(made)).frame;
    }
    oldest_ = (oldest_ + 1) % most;
    known_[oldest_] = std::move(made);
    return known_[oldest_].frame;
  }

 private:
  static constexpr std::size_t most = 16;
  struct Known {
    DType dtype;
    Shape sizes;
    TensorItemFrame frame;
  };
  std::vector<Known> known_;
  std::size_t oldest_ = 0;
};

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
