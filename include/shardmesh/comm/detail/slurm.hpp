// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The number at the start of a text, taken off it.
[[nodiscard]] inline std::optional<int> take_number(std::string_view& text) {
  int value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) {
    return std::nullopt;
  }
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

/// The first host of a list as Slurm writes it: "rack[3-5,9]-node[01-16],login" begins with
/// "rack3-node01".
[[nodiscard]] inline std::string first_slurm_host(std::string_view list) {
  std::string host;
  while (!list.empty() && list.front() != ',') {
    if (list.front() != '[') {
      host += list.front();
      list.remove_prefix(1);
      continue;
    }
    std::string_view const inside = list.substr(1, list.find(']') - 1);
    host += inside.substr(0, inside.find_first_of(",-"));
    list.remove_prefix(std::min(list.size(), inside.size() + 2));
  }
  return host;
}

/// How many tasks node number `node` has in a list as Slurm writes it: "4(x2),3" is 4, 4, 3.
/// @returns nothing if the list says nothing of the node.
[[nodiscard]] inline std::optional<int> slurm_tasks_on_node(std::string_view list, int node) {
  while (!list.empty()) {
    auto const tasks = take_number(list);
    int times = 1;
    if (list.starts_with("(x")) {
      list.remove_prefix(2);
      times = take_number(list).value_or(0);
      list.remove_prefix(std::min<std::size_t>(list.size(), 1));  // ")"
    }
    if (!tasks || times < 1 || (!list.empty() && list.front() != ',')) {
      return std::nullopt;
    }
    if (node < times) {
      return tasks;
    }
    node -= times;
    list.remove_prefix(std::min<std::size_t>(list.size(), 1));
  }
  return std::nullopt;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
