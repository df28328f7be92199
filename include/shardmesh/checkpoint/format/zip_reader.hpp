// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/byte_source.hpp>
#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// A record of an archive.
struct ZipEntry {
  std::string name;          ///< with the archive's prefix
  std::uint64_t offset = 0;  ///< of its bytes, from the start of the archive
  std::uint64_t size = 0;
  std::uint32_t crc = 0;  ///< 0 for "not computed"
};

/// An archive as torch.save writes it: stored records only, one prefix, a zip64 directory.
struct ZipArchive {
  std::string prefix;
  std::vector<ZipEntry> entries;

  /// The record `prefix/name`, or nullptr.
  [[nodiscard]] ZipEntry const* find(std::string_view name) const {
    for (ZipEntry const& entry : entries) {
      if (entry.name.size() == prefix.size() + 1 + name.size() &&
          std::string_view(entry.name).substr(prefix.size() + 1) == name) {
        return &entry;
      }
    }
    return nullptr;
  }
};

namespace detail {

inline constexpr std::uint32_t zip_local = 0x04034b50;
inline constexpr std::uint32_t zip_central = 0x02014b50;
inline constexpr std::uint32_t zip_end64 = 0x06064b50;
inline constexpr std::uint32_t zip_locator = 0x07064b50;
inline constexpr std::uint32_t zip_end = 0x06054b50;
inline constexpr std::uint32_t zip_descriptor = 0x08074b50;
inline constexpr std::uint64_t zip_large = 0xffffffffU;

template <ByteSource Source>
class ZipReader {
 public:
  explicit ZipReader(Source source) : source_(std::move(source)) {}

  [[nodiscard]] ZipArchive read() {
    find_directory();
    ZipArchive archive;
    std::uint64_t at = directory_;
    for (std::uint64_t i = 0; i < count_; ++i) {
      archive.entries.push_back(read_entry(at));
    }
    if (at != directory_ + directory_size_) {
      fail(at, "the directory of the archive has another length than it says");
    }
    if (archive.entries.empty()) {
      fail(0, "the archive is empty");
    }
    std::string const& first = archive.entries.front().name;
    archive.prefix = first.substr(0, first.find('/'));
    check_names(archive);
    check_ranges(archive);
    return archive;
  }

 private:
  [[noreturn]] void fail(std::uint64_t offset, std::string const& what) const {
    fail_corrupt(source_, offset, "shardmesh::read_zip: " + what);
  }

  template <class T>
  [[nodiscard]] T at(std::uint64_t offset) {
    return load_le<T>(read_checked(source_, offset, sizeof(T), "an archive"), 0);
  }

  void find_directory() {
    std::uint64_t const size = source_.size();
    if (size < 22 || at<std::uint32_t>(size - 22) != zip_end || at<std::uint16_t>(size - 2) != 0) {
      fail(size, "the archive does not end as one (truncated?)");
    }
    std::uint64_t const end = size - 22;
    if (at<std::uint16_t>(end + 4) != 0 || at<std::uint16_t>(end + 6) != 0) {
      fail(end, "the archive is split over several disks");
    }
    count_ = at<std::uint16_t>(end + 10);
    directory_size_ = at<std::uint32_t>(end + 12);
    directory_ = at<std::uint32_t>(end + 16);
    std::uint64_t limit = end;
    if (size >= 98 && at<std::uint32_t>(size - 42) == zip_locator) {
      limit = size - 98;
      if (at<std::uint64_t>(size - 34) != limit || at<std::uint32_t>(limit) != zip_end64) {
        fail(size - 42, "the zip64 end of the archive is not where it should be");
      }
      count_ = at<std::uint64_t>(limit + 32);
      directory_size_ = at<std::uint64_t>(limit + 40);
      directory_ = at<std::uint64_t>(limit + 48);
    }
    if (directory_ > limit || directory_size_ != limit - directory_ || count_ > 100'000) {
      fail(end, "the directory of the archive is not in front of its end");
    }
  }

  [[nodiscard]] ZipEntry read_entry(std::uint64_t& position) {
    if (at<std::uint32_t>(position) != zip_central) {
      fail(position, "a directory entry is expected here");
    }
    auto const flags = at<std::uint16_t>(position + 8);
    auto const method = at<std::uint16_t>(position + 10);
    ZipEntry entry;
    entry.crc = at<std::uint32_t>(position + 16);
    std::uint64_t packed = at<std::uint32_t>(position + 20);
    entry.size = at<std::uint32_t>(position + 24);
    auto const name = at<std::uint16_t>(position + 28);
    auto const extra = at<std::uint16_t>(position + 30);
    auto const comment = at<std::uint16_t>(position + 32);
    std::uint64_t header = at<std::uint32_t>(position + 42);
    entry.name = as_text(read_checked(source_, position + 46, name, "a record's name"));
    read_zip64(position + 46 + name, extra, entry.size, packed, header);
    if (method != 0 || (flags & 1U) != 0 || packed != entry.size || comment != 0) {
      fail(position, "the record \"" + escaped(entry.name) +
                         "\" is compressed or encrypted; torch.save never does that");
    }
    entry.offset = payload_of(header, entry);
    position += 46U + name + extra;
    return entry;
  }

  /// Sizes and offsets of 4 GiB and more.
  void read_zip64(std::uint64_t position,
                  std::uint64_t length,
                  std::uint64_t& size,
                  std::uint64_t& packed,
                  std::uint64_t& header) {
    std::uint64_t const end = position + length;
    while (position + 4 <= end) {
      auto const tag = at<std::uint16_t>(position);
      std::uint64_t field = position + 4;
      std::uint64_t const field_end = field + at<std::uint16_t>(position + 2);
      if (field_end > end) {
        fail(position, "an extra field reaches beyond its record");
      }
      for (std::uint64_t* value : {&size, &packed, &header}) {
        if (tag == 1 && *value == zip_large && field + 8 <= field_end) {
          *value = at<std::uint64_t>(field);
          field += 8;
        }
      }
      position = field_end;
    }
  }

  /// Where the bytes of a record start, by its local header.
  [[nodiscard]] std::uint64_t payload_of(std::uint64_t header, ZipEntry const& entry) {
    if (header >= directory_ || at<std::uint32_t>(header) != zip_local) {
      fail(header, "the header of \"" + escaped(entry.name) + "\" is not where it should be");
    }
    auto const name = at<std::uint16_t>(header + 26);
    auto const extra = at<std::uint16_t>(header + 28);
    if (as_text(read_checked(source_, header + 30, name, "a record's name")) != entry.name) {
      fail(header, "the header of \"" + escaped(entry.name) + "\" has another name");
    }
    std::uint64_t const payload = header + 30U + name + extra;
    if (payload > directory_ || entry.size > directory_ - payload) {
      fail(header, "the record \"" + escaped(entry.name) + "\" reaches into the directory");
    }
    return payload;
  }

  void check_names(ZipArchive const& archive) const {
    std::unordered_map<std::string, std::size_t> seen;
    for (ZipEntry const& entry : archive.entries) {
      std::string const& name = entry.name;
      bool const legal = name.starts_with(archive.prefix + "/") && name.front() != '/' &&
                         name.find('\0') == std::string::npos &&
                         name.find("..") == std::string::npos && seen.emplace(name, 0).second;
      if (!legal) {
        fail(directory_, "the archive has a record \"" + escaped(name) +
                             "\", which is no legal name or stands twice");
      }
    }
  }

  void check_ranges(ZipArchive const& archive) const {
    std::vector<ZipEntry const*> sorted;
    for (ZipEntry const& entry : archive.entries) {
      sorted.push_back(&entry);
    }
    std::sort(sorted.begin(), sorted.end(),
              [](ZipEntry const* a, ZipEntry const* b) { return a->offset < b->offset; });
    for (std::size_t i = 1; i < sorted.size(); ++i) {
      if (sorted[i - 1]->offset + sorted[i - 1]->size > sorted[i]->offset) {
        fail(sorted[i]->offset, "records of the archive overlap");
      }
    }
  }

  Source source_;
  std::uint64_t directory_ = 0;
  std::uint64_t directory_size_ = 0;
  std::uint64_t count_ = 0;
};

}  // namespace detail

/// Reads the directory of a torch.save archive that fills `archive` wholly.
/// @param path, position  of the archive, for error messages.
/// @throws CorruptError for anything that torch.save does not write.
[[nodiscard]] inline ZipArchive read_zip(ByteSpan archive,
                                         std::string const& path = "(memory)",
                                         std::uint64_t position = 0) {
  return detail::ZipReader(SpanSource(archive, path, position)).read();
}

/// The same for an archive that is not all in memory.
template <ByteSource Source>
[[nodiscard]] ZipArchive read_zip(Source const& source) {
  return detail::ZipReader(source).read();
}

namespace detail {

/// @throws CorruptError if bytes with the CRC `crc` are not a record's.
template <ByteSource Source>
void refuse_other_crc(Source const& source, ZipEntry const& entry, std::uint32_t crc) {
  if (entry.crc != 0 && crc != entry.crc) {
    fail_corrupt(source, entry.offset,
                 "shardmesh::read_zip: the record \"" + escaped(entry.name) +
                     "\" has another CRC than was stored; the file is damaged");
  }
}

}  // namespace detail

/// The bytes of a record, checked against its CRC (0 on a record with bytes: not computed).
/// @throws CorruptError
template <ByteSource Source>
[[nodiscard]] ByteSpan zip_record(Source const& source, ZipEntry const& entry) {
  ByteSpan const bytes = source.read(entry.offset, static_cast<std::size_t>(entry.size));
  detail::refuse_other_crc(source, entry, crc32_of(bytes));
  return bytes;
}

[[nodiscard]] inline ByteSpan zip_record(ByteSpan archive,
                                         ZipEntry const& entry,
                                         std::string const& path = "(memory)",
                                         std::uint64_t position = 0) {
  return zip_record(SpanSource(archive, path, position), entry);
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
