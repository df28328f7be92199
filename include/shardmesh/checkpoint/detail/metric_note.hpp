// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The file beside a checkpoint's own that holds its metric: "<digits> <CRC-32 of them>", a line.
inline constexpr std::string_view metric_name = ".metric";

[[nodiscard]] inline std::string metric_line(std::string_view digits) {
  return std::string(digits) + " " + hex32(format::crc32_of(format::as_bytes(digits))) + "\n";
}

/// What the file says for `metric`; the same double is read from it.
[[nodiscard]] inline std::string write_metric(double metric) {
  char digits[40] = {};
  auto const end = std::to_chars(digits, digits + sizeof(digits), metric).ptr;
  return metric_line(std::string_view(digits, end));
}

/// The metric, if the text is whole and as it was written.
[[nodiscard]] inline std::optional<double> read_metric(std::string_view text) {
  std::string_view const digits = text.substr(0, text.find(' '));
  double value = 0;
  auto const [at, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  bool const is_whole =
      error == std::errc{} && at == digits.data() + digits.size() && text == metric_line(digits);
  return is_whole ? std::optional(value) : std::nullopt;
}

/// The metric of the checkpoint in `directory`; nothing if it has none.
/// @throws CorruptError, IoError.
[[nodiscard]] inline std::optional<double> find_metric(std::string const& directory) {
  std::string const path = directory + "/" + std::string(metric_name);
  if (!PosixStorage::exists(path)) {
    return std::nullopt;
  }
  File const file = File::open(path);
  format::Bytes const bytes = file.read(0, std::min<std::uint64_t>(file.size(), 64));
  auto const metric = read_metric(format::as_text(bytes));
  if (!metric) {
    throw CorruptError(path, 0,
                       "shardmesh: " + path +
                           " is damaged, or was cut off: its CRC does not fit; give the metric "
                           "again with CheckpointManager::note_metric, or remove the file");
  }
  return metric;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
