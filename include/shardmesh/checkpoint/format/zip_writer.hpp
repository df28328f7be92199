// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/format/zip_reader.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// Builds an archive with the bytes that torch.save would write. One record may be left out (the
/// elements of a tensor, which are written elsewhere): its place and size are known at once, its CRC
/// comes last.
class ZipWriter {
 public:
  /// @param alignment of every record's bytes, from the start of the archive.
  explicit ZipWriter(std::uint64_t alignment = 64) : alignment_(alignment) { bytes_.reserve(1024); }

  void add(std::string_view name, ByteSpan bytes) {
    open(name, bytes.size());
    records_.back().crc = crc32_of(bytes);
    append(bytes);
    close(records_.back());
  }

  /// A record whose bytes come from elsewhere. What was added before is in `head()`.
  void add_external(std::string_view name, std::uint64_t size) {
    open(name, size);
    external_ = records_.size();
    head_ = std::move(bytes_);
    bytes_.clear();
    written_ += size;
  }

  /// What stands before the external record.
  [[nodiscard]] Bytes const& head() const noexcept { return head_; }
  [[nodiscard]] std::uint64_t external_size() const {
    return external_ == 0 ? 0 : records_[external_ - 1].size;
  }

  /// Tells the CRC of the external record; call it before anything else is added.
  void close_external(std::uint32_t crc) {
    records_[external_ - 1].crc = crc;
    close(records_[external_ - 1]);
  }

  /// Writes the directory and returns everything behind the external record (all, if there is none).
  [[nodiscard]] Bytes finish() && {
    std::uint64_t const directory = written_;
    for (Record const& one : records_) {
      add_central(one);
    }
    std::uint64_t const end = written_;
    Bytes tail;
    append_le(tail, detail::zip_end64);
    append_le(tail, std::uint64_t{44});
    append_le(tail, std::uint16_t{0x031e});
    append_le(tail, std::uint16_t{45});
    append_le(tail, std::uint64_t{0});  // this disk, first disk
    append_le(tail, std::uint64_t{records_.size()});
    append_le(tail, std::uint64_t{records_.size()});
    append_le(tail, end - directory);
    append_le(tail, directory);
    append_le(tail, detail::zip_locator);
    append_le(tail, std::uint32_t{0});
    append_le(tail, end);
    append_le(tail, std::uint32_t{1});
    append_le(tail, detail::zip_end);
    append_le(tail, std::uint32_t{0});
    append_le(tail, static_cast<std::uint16_t>(records_.size()));
    append_le(tail, static_cast<std::uint16_t>(records_.size()));
    append_le(tail, static_cast<std::uint32_t>(end - directory));
    append_le(tail, clamp(directory));
    append_le(tail, std::uint16_t{0});
    append(tail);
    return std::move(bytes_);
  }

 private:
  struct Record {
    std::string name;
    std::uint64_t header = 0;
    std::uint64_t size = 0;
    std::uint32_t crc = 0;
  };

  [[nodiscard]] static bool is_large(std::uint64_t value) { return value >= detail::zip_large; }
  [[nodiscard]] static std::uint32_t clamp(std::uint64_t value) {
    return is_large(value) ? 0xffffffffU : static_cast<std::uint32_t>(value);
  }
  /// Bit 3: a descriptor follows the bytes; bit 11: names are UTF-8.
  [[nodiscard]] static std::uint16_t flags(Record const& one) {
    return one.size > 0 ? 0x0808 : 0x0800;
  }

  void append(ByteSpan bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    written_ += bytes.size();
  }

  void open(std::string_view name, std::uint64_t size) {
    records_.push_back({std::string(name), written_, size, 0});
    Record const& one = records_.back();
    std::uint64_t start = written_ + 30 + one.name.size() + 4;
    Bytes zip64;
    if (is_large(size) || is_large(one.header)) {
      append_le(zip64, std::uint16_t{1});
      append_le(zip64, static_cast<std::uint16_t>((is_large(size) ? 16 : 0) +
                                                  (is_large(one.header) ? 8 : 0)));
      if (is_large(size)) {
        append_le(zip64, size);
        append_le(zip64, std::uint64_t{0});
      }
      if (is_large(one.header)) {
        append_le(zip64, one.header);
      }
    }
    start += zip64.size();
    auto const pad = static_cast<std::uint16_t>((alignment_ - start % alignment_) % alignment_);
    Bytes& header = bytes_;
    std::size_t const before = header.size();
    append_le(header, detail::zip_local);
    append_le(header, std::uint16_t{0});
    append_le(header, flags(one));
    append_le(header, std::uint16_t{0});
    append_le(header, std::uint64_t{0});  // time, date, CRC: behind the bytes
    append_le(header, std::uint64_t{0});  // both sizes: behind the bytes
    append_le(header, static_cast<std::uint16_t>(one.name.size()));
    append_le(header, static_cast<std::uint16_t>(4 + pad + zip64.size()));
    append_text(header, one.name);
    header.insert(header.end(), zip64.begin(), zip64.end());
    append_text(header, "FB");
    append_le(header, pad);
    header.insert(header.end(), pad, std::byte{'Z'});
    written_ += header.size() - before;
  }

  void close(Record const& one) {
    if (one.size == 0) {
      return;
    }
    Bytes descriptor;
    append_le(descriptor, detail::zip_descriptor);
    append_le(descriptor, one.crc);
    if (is_large(one.size)) {
      append_le(descriptor, one.size);
      append_le(descriptor, one.size);
    } else {
      append_le(descriptor, static_cast<std::uint32_t>(one.size));
      append_le(descriptor, static_cast<std::uint32_t>(one.size));
    }
    append(descriptor);
  }

  void add_central(Record const& one) {
    Bytes zip64;
    if (is_large(one.size) || is_large(one.header)) {
      append_le(zip64, std::uint16_t{1});
      append_le(zip64, static_cast<std::uint16_t>((is_large(one.size) ? 16 : 0) +
                                                  (is_large(one.header) ? 8 : 0)));
      if (is_large(one.size)) {
        append_le(zip64, one.size);
        append_le(zip64, one.size);
      }
      if (is_large(one.header)) {
        append_le(zip64, one.header);
      }
    }
    Bytes entry;
    append_le(entry, detail::zip_central);
    append_le(entry, std::uint32_t{0});  // made by, needed
    append_le(entry, flags(one));
    append_le(entry, std::uint16_t{0});
    append_le(entry, std::uint32_t{0});  // time, date
    append_le(entry, one.crc);
    append_le(entry, clamp(one.size));
    append_le(entry, clamp(one.size));
    append_le(entry, static_cast<std::uint16_t>(one.name.size()));
    append_le(entry, static_cast<std::uint16_t>(zip64.size()));
    append_le(entry, std::uint64_t{0});  // comment, disk, internal attributes, part of external
    append_le(entry, std::uint16_t{0});  // the rest of the external attributes
    append_le(entry, clamp(one.header));
    append_text(entry, one.name);
    entry.insert(entry.end(), zip64.begin(), zip64.end());
    append(entry);
  }

  std::uint64_t alignment_;
  std::uint64_t written_ = 0;
  std::size_t external_ = 0;  // its number, from 1; 0: none
  std::vector<Record> records_;
  Bytes head_;
  Bytes bytes_;
};

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
