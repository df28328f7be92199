// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string_view>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// Is `name` the name of a file in the directory of the checkpoint itself: one component, neither
/// "." nor "..", no separator, drive or control character, at most 255 bytes? Nothing else is ever opened.
[[nodiscard]] constexpr bool is_plain_file_name(std::string_view name) noexcept {
  if (name.empty() || name.size() > 255 || name == "." || name == "..") {
    return false;
  }
  for (char const c : name) {
    if (c == '/' || c == '\\' || c == ':' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return false;
    }
  }
  return true;
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
