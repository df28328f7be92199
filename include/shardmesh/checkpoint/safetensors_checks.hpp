// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Checksums of safetensors files. The format has none; ours stand in its metadata, where every reader leaves
// them alone: the CRC-32 of the header (with zeros for these digits), then that of each MiB of each tensor, as
// eight hexadecimal digits each. Their number is known before the data are, so that files have their final
// size from the start, and a part of a tensor can be read and checked alone.
//
// A program that changes tensors and keeps the metadata would make them wrong. It is told from damage by the
// spaces behind the header: these files have eight more than they need, which no other writer puts there.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// The name of the checksums in the metadata.
inline constexpr std::string_view checks_key = "SHARDMESH_CRC32";
/// So many bytes of a tensor have a checksum.
inline constexpr std::uint64_t check_bytes = std::uint64_t{1} << 20;
/// Spaces behind the header of a file with checksums, besides those that align it.
inline constexpr std::size_t check_spaces = 8;

/// How many checksums a tensor of so many bytes has.
[[nodiscard]] constexpr std::size_t checks_of(std::uint64_t bytes) noexcept {
  return static_cast<std::size_t>((bytes + check_bytes - 1) / check_bytes);
}

/// What stands in the metadata until the data are known.
[[nodiscard]] inline std::pair<std::string, std::string> empty_checks(std::size_t count) {
  return {std::string(checks_key), std::string(8 * (count + 1), '0')};
}
[[nodiscard]] inline std::pair<std::string, std::string> empty_checks(
    std::vector<SafetensorsEntry> const& tensors) {
  std::size_t count = 0;
  for (SafetensorsEntry const& entry : tensors) {  // their places need not be known yet
    count += checks_of(static_cast<std::uint64_t>(volume(entry.shape)) * size_of(entry.dtype));
  }
  return empty_checks(count);
}

namespace detail {

[[nodiscard]] inline std::string digits_of(std::uint32_t value) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text(8, '0');
  for (std::size_t i = 0; i < 8; ++i) {
    text[7 - i] = digits[(value >> (4 * i)) & 15U];
  }
  return text;
}

/// The value of eight digits as `digits_of` writes them.
[[nodiscard]] inline std::optional<std::uint32_t> value_of(std::string_view digits) {
  std::uint32_t value = 0;
  for (char const digit : digits) {
    std::size_t const at = std::string_view("0123456789abcdef").find(digit);
    if (at == std::string_view::npos) {
      return std::nullopt;
    }
    value = value << 4 | static_cast<std::uint32_t>(at);
  }
  return value;
}

/// Where the digits start in the JSON text of a header that was written here; npos if they are not there.
[[nodiscard]] inline std::size_t find_checks(std::string_view text) {
  std::string const key = shardmesh::detail::concat('"', checks_key, "\":\"");
  std::size_t const at = text.find(key);
  return at == std::string_view::npos ? at : at + key.size();
}

}  // namespace detail

/// Checksums of a file of which several ranks write parts, each its own: a part counts as the whole with zeros
/// around it, and what the ranks have found is put together by exclusive or (a CRC of fixed length is an affine
/// function of the bits; source: any text on cyclic codes).
class SafetensorsSums {
 public:
  SafetensorsSums() = default;
  /// @param tensors  by `begin`; must outlive the sums.
  explicit SafetensorsSums(std::vector<SafetensorsEntry> const& tensors) : tensors_(&tensors) {
    std::size_t count = 0;
    for (SafetensorsEntry const& entry : tensors) {
      first_.push_back(count);
      count += checks_of(entry.end - entry.begin);
    }
    parts_.resize(count, 0);
  }

  /// Notes bytes that go to `offset` of the data, inside of one tensor.
  void add(std::uint64_t offset, ByteSpan bytes) {
    if (bytes.empty()) {
      return;
    }
    std::size_t const tensor = tensor_at(offset);
    SafetensorsEntry const& entry = (*tensors_)[tensor];
    while (!bytes.empty()) {
      std::uint64_t const number = (offset - entry.begin) / check_bytes;
      std::uint64_t const end = std::min(entry.end, entry.begin + (number + 1) * check_bytes);
      auto const count =
          static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), end - offset));
      std::uint32_t const alone = crc32_of(bytes.first(count)) ^ zeros(count);
      parts_[first_[tensor] + static_cast<std::size_t>(number)] ^=
          combine_crc32(alone, 0, end - offset - count);
      bytes = bytes.subspan(count);
      offset += count;
    }
  }

  /// What was noted here, for each checksum; 0 for those of which nothing was.
  [[nodiscard]] std::vector<std::uint32_t>& parts() noexcept { return parts_; }

  /// Fills in the checksums of a header.
  /// @param head   its first bytes, length and JSON, written with `empty_checks`.
  /// @pre all parts of all ranks are in `parts()`.
  void fill(Bytes& head) {
    std::string digits;
    for (std::size_t i = 0; i < tensors_->size(); ++i) {
      SafetensorsEntry const& entry = (*tensors_)[i];
      std::uint64_t left = entry.end - entry.begin;
      for (std::size_t k = 0; left > 0; ++k) {
        std::uint64_t const bytes = std::min(left, check_bytes);
        digits += detail::digits_of(parts_[first_[i] + k] ^ zeros(bytes));
        left -= bytes;
      }
    }
    std::size_t const at = 8 + detail::find_checks(as_text(head).substr(8));
    digits.insert(0, detail::digits_of(crc32_of(head)));
    std::memcpy(head.data() + at, digits.data(), digits.size());
  }

 private:
  /// The tensor that holds a byte of the data.
  [[nodiscard]] std::size_t tensor_at(std::uint64_t offset) {
    auto const& tensors = *tensors_;
    if (last_ < tensors.size() && tensors[last_].begin <= offset && offset < tensors[last_].end) {
      return last_;
    }
    auto at = std::upper_bound(
        tensors.begin(), tensors.end(), offset,
        [](std::uint64_t byte, SafetensorsEntry const& entry) { return byte < entry.end; });
    last_ = static_cast<std::size_t>(at - tensors.begin());
    return last_;
  }

  [[nodiscard]] std::uint32_t zeros(std::uint64_t count) {
    if (count != zeros_.first) {
      zeros_ = {count, crc32_of_zeros(count)};
    }
    return zeros_.second;
  }

  std::vector<SafetensorsEntry> const* tensors_ = nullptr;
  std::vector<std::size_t> first_;  // checksum of each tensor
  std::vector<std::uint32_t> parts_;
  std::size_t last_ = 0;
  std::pair<std::uint64_t, std::uint32_t> zeros_{0, 0};  // of the last size asked for
};

/// The checksums that stand in a header.
struct SafetensorsChecks {
  std::vector<std::size_t> first;   ///< checksum of each tensor of the header
  std::vector<std::uint32_t> crcs;  ///< by MiB of the tensors; empty if the file has none
  bool are_foreign = false;         ///< there are some, but another program has written the header

  [[nodiscard]] bool there() const noexcept { return !first.empty(); }
};

/// Reads them.
/// @param head  the file's first bytes: length and JSON.
/// @throws CorruptError if the header is damaged.
[[nodiscard]] inline SafetensorsChecks read_checks(SafetensorsHeader const& header,
                                                   ByteSpan head,
                                                   std::string const& path) {
  SafetensorsChecks checks;
  std::string const* const value = header.find_metadata(checks_key);
  if (value == nullptr) {
    return checks;
  }
  std::string_view const text = as_text(head).substr(8);
  std::size_t const at = detail::find_checks(text);
  std::size_t count = 0;
  for (SafetensorsEntry const& entry : header.tensors) {
    count += checks_of(entry.end - entry.begin);
  }
  checks.are_foreign = text.size() < check_spaces || text.size() % 8 != 0 ||
                       text.find_last_not_of(' ') + 1 + check_spaces > text.size() ||
                       at == std::string_view::npos;
  if (checks.are_foreign) {
    return checks;
  }
  auto const refuse = [&path] {
    throw CorruptError(path, 0,
                       "shardmesh: the safetensors header of " + path +
                           " is damaged: it has another CRC than was stored in it. Load another "
                           "checkpoint, or a copy");
  };
  std::string_view const digits = text.substr(at, 8 * (count + 1));
  if (value->size() != 8 * (count + 1) || digits != *value) {
    refuse();
  }
  Bytes zeroed(head.begin(), head.end());
  std::memset(zeroed.data() + 8 + at, '0', digits.size());
  if (detail::value_of(digits.substr(0, 8)) != crc32_of(zeroed)) {
    refuse();
  }
  for (std::size_t i = 0; i < count; ++i) {
    auto const crc = detail::value_of(digits.substr(8 * (i + 1), 8));
    if (!crc) {
      refuse();
    }
    checks.crcs.push_back(*crc);
  }
  count = 0;
  for (SafetensorsEntry const& entry : header.tensors) {
    checks.first.push_back(count);
    count += checks_of(entry.end - entry.begin);
  }
  return checks;
}

/// @param number  of a checksum.
/// @param crc     of what was read at bytes [place, place + count) of the file.
/// @param name    of the tensor.
/// @throws CorruptError if that is another one.
inline void refuse_other_check(SafetensorsChecks const& checks,
                               std::size_t number,
                               std::uint32_t crc,
                               std::string const& name,
                               std::string const& path,
                               std::uint64_t place,
                               std::uint64_t count) {
  if (crc != checks.crcs[number]) {
    throw CorruptError(path, place,
                       shardmesh::detail::concat(
                           "shardmesh: ", path, ": \"", escaped(name), "\" is damaged: bytes ",
                           std::to_string(place), " to ", std::to_string(place + count),
                           " of the file have the CRC ", detail::digits_of(crc),
                           ", its header says ", detail::digits_of(checks.crcs[number]),
                           ". Load another checkpoint, or a copy"));
  }
}

/// Checks bytes [begin, begin + bytes.size()) of a tensor.
/// @param number  of the tensor in the header.
/// @param begin   a multiple of `check_bytes`; the end is one, too, or the tensor's.
/// @param place   of the first byte in the file, for messages.
/// @pre checks.there().
/// @throws CorruptError
inline void verify_checks(SafetensorsChecks const& checks,
                          std::size_t number,
                          std::uint64_t begin,
                          ByteSpan bytes,
                          std::string const& name,
                          std::string const& path,
                          std::uint64_t place) {
  std::size_t next = checks.first[number] + static_cast<std::size_t>(begin / check_bytes);
  for (std::size_t at = 0; at < bytes.size(); at += check_bytes, ++next) {
    std::size_t const count = std::min<std::size_t>(check_bytes, bytes.size() - at);
    refuse_other_check(checks, next, crc32_of(bytes.subspan(at, count)), name, path, place + at,
                       count);
  }
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
