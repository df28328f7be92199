// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What tells of a model of several safetensors files which files they are: an index, or their names.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <shardmesh/checkpoint/format/file_name.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// Indexes above this size are not read, and not written.
inline constexpr std::uint64_t most_safetensors_index_bytes = 1'000'000'000;

/// Which file of a model has which tensor.
struct SafetensorsIndex {
  std::vector<std::pair<std::string, std::string>> files;  ///< (tensor, file), each tensor once
  std::optional<std::uint64_t> total_size;  ///< bytes of all tensors, where the index says so
};

/// Is this the name of an index, as hubs have it? "model.safetensors.index.json",
/// "diffusion_pytorch_model.fp16.safetensors.index.json", "unet.safetensors.index.fp16.json".
[[nodiscard]] inline bool is_safetensors_index(std::string_view name) {
  return name.ends_with(".json") && name.find(".safetensors.index.") != std::string_view::npos;
}

/// Reads an index.
/// @param path  for error messages.
/// @throws CorruptError for anything but an object with a "weight_map" of names to plain file names.
[[nodiscard]] inline SafetensorsIndex read_safetensors_index(std::string_view text,
                                                             std::string const& path) {
  auto const refuse = [&path](std::string const& what) {
    throw CorruptError(path, 0, "shardmesh: " + path + " is no safetensors index: " + what);
  };
  auto const json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    refuse("it is no JSON object with a \"weight_map\"");
  }
  SafetensorsIndex index;
  for (auto const& [name, file] : json["weight_map"].items()) {
    if (!file.is_string() || !is_plain_file_name(file.get_ref<std::string const&>())) {
      refuse("the file of \"" + escaped(name) +
             "\" is not a plain name: files lie in the directory of the index");
    }
    index.files.emplace_back(name, file.get<std::string>());
  }
  auto const metadata = json.find("metadata");
  if (metadata != json.end() && metadata->is_object()) {
    auto const total = metadata->find("total_size");
    if (total != metadata->end() && total->is_number_unsigned()) {
      index.total_size = total->get<std::uint64_t>();
    }
  }
  return index;
}

/// A name of the form "model-00002-of-00003.fp16.safetensors", taken apart.
struct NumberedName {
  std::string
      before;  ///< "model-"; of PyTorch's "shard-00004-model-00001-of-00001", without the rank
  std::string number;  ///< "00002"
  std::string after;   ///< "-of-00003.fp16.safetensors"
  std::size_t total = 0;
  std::optional<std::size_t> shard;  ///< 4
};

namespace detail {

/// A number of at most nine digits.
[[nodiscard]] inline std::optional<std::size_t> small_number(std::string_view digits) {
  if (digits.empty() || digits.size() > 9 ||
      digits.find_first_not_of("0123456789") != std::string_view::npos) {
    return std::nullopt;
  }
  return static_cast<std::size_t>(std::stoul(std::string(digits)));
}

/// How many digits stand at the end of `text`.
[[nodiscard]] inline std::size_t digits_at_end(std::string_view text) {
  std::size_t const last = text.find_last_not_of("0123456789");
  return last == std::string_view::npos ? text.size() : text.size() - last - 1;
}

}  // namespace detail

/// Takes the name of a file apart; nothing if it is not of that form.
[[nodiscard]] inline std::optional<NumberedName> numbered_name(std::string_view name) {
  std::size_t const of = name.rfind("-of-");
  if (of == std::string_view::npos || !name.ends_with(".safetensors")) {
    return std::nullopt;
  }
  std::size_t const digits = detail::digits_at_end(name.substr(0, of));
  std::size_t const dot = name.find('.', of);
  auto const total = detail::small_number(name.substr(of + 4, dot - of - 4));
  if (!total || !detail::small_number(name.substr(of - digits, digits))) {
    return std::nullopt;
  }
  NumberedName found{std::string(name.substr(0, of - digits)),
                     std::string(name.substr(of - digits, digits)), std::string(name.substr(of)),
                     *total, std::nullopt};
  if (constexpr std::string_view shard = "shard-"; found.before.starts_with(shard)) {
    std::size_t const end = found.before.find('-', shard.size());
    if (end != std::string::npos) {
      found.shard = detail::small_number(
          std::string_view(found.before).substr(shard.size(), end - shard.size()));
      if (found.shard) {
        found.before.replace(shard.size(), end - shard.size(), "*");
      }
    }
  }
  return found;
}

/// Files that the names of others promise: of "a-00001-of-00003" and "a-00003-of-00003", the second.
/// Each as a name and what to say of it. Numbers start at 1, or at 0 where there is a number 0.
[[nodiscard]] inline std::vector<std::pair<std::string, std::string>> missing_numbers(
    std::vector<std::string> const& names) {
  struct Group {
    NumberedName one;
    std::set<std::size_t> numbers;
  };
  std::map<std::pair<std::string, std::string>, Group> groups;
  for (std::string const& name : names) {
    if (auto one = numbered_name(name)) {
      Group& group = groups[{one->before, one->after}];
      group.numbers.insert(*detail::small_number(one->number));
      group.one = std::move(*one);
    }
  }
  std::vector<std::pair<std::string, std::string>> missing;
  for (auto const& [key, group] : groups) {
    std::size_t const first = group.numbers.count(0) > 0 ? 0 : 1;
    std::size_t const end = first + group.one.total;
    auto const there = static_cast<std::size_t>(
        std::distance(group.numbers.lower_bound(first), group.numbers.lower_bound(end)));
    if (there >= group.one.total) {
      continue;
    }
    std::size_t lost = first;
    while (group.numbers.count(lost) > 0) {
      ++lost;
    }
    std::string digits = std::to_string(lost);
    digits.insert(0, group.one.number.size() - std::min(group.one.number.size(), digits.size()),
                  '0');
    std::string const name = group.one.before + digits + group.one.after;
    missing.emplace_back(name, name + " is not there: by their names there are " +
                                   std::to_string(group.one.total) + " such files, of which " +
                                   std::to_string(group.one.total - there) +
                                   " are missing; get them again");
  }
  return missing;
}

/// Ranks without a file, where higher ranks have one: PyTorch's sharded variant writes no file for a
/// rank that has nothing to write, so this is no proof that one was lost.
[[nodiscard]] inline std::vector<std::size_t> missing_shards(
    std::vector<std::string> const& names) {
  std::set<std::size_t> shards;
  for (std::string const& name : names) {
    if (auto const one = numbered_name(name); one && one->shard) {
      shards.insert(*one->shard);
    }
  }
  std::vector<std::size_t> missing;
  std::size_t next = 1;
  for (std::size_t const shard : shards) {
    for (; next < shard && missing.size() < 100; ++next) {
      missing.push_back(next);
    }
    next = shard + 1;
  }
  return missing;
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
