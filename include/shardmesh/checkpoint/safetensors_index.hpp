// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What tells of a model of several safetensors files which files they are: an index, or their names.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/file_name.hpp>
#include <shardmesh/checkpoint/safetensors_json.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// Indexes above this size are not read, and not written.
inline constexpr std::uint64_t most_safetensors_index_bytes = 1'000'000'000;

/// Which file of a model has which tensor.
struct SafetensorsIndex {
  std::vector<std::pair<std::string, std::string>>
      files;                                ///< (tensor, file), each tensor once, sorted
  std::optional<std::uint64_t> total_size;  ///< bytes of all tensors, where the index says so
};

/// Is this the name of an index, as hubs have it? "model.safetensors.index.json",
/// "diffusion_pytorch_model.fp16.safetensors.index.json", "unet.safetensors.index.fp16.json".
[[nodiscard]] inline bool is_safetensors_index(std::string_view name) {
  return name.ends_with(".json") && name.find(".safetensors.index.") != std::string_view::npos;
}

namespace detail {

/// Takes "weight_map" and the total size out of an index; what else is in it may be anything.
class IndexJson final : public StrictJson {
 public:
  IndexJson(std::string_view text, std::string const& path)
      : StrictJson(text, path, "", " is no safetensors index: "), counts_(count_members(text)) {}

  [[nodiscard]] SafetensorsIndex read() && {
    parse();
    if (!has_map_) {
      refuse_index("it is no JSON object with a \"weight_map\"");
    }
    std::sort(index_.files.begin(), index_.files.end());
    for (std::size_t i = 1; i < index_.files.size(); ++i) {
      if (index_.files[i - 1].first == index_.files[i].first) {
        refuse_twice(index_.files[i].first);
      }
    }
    return std::move(index_);
  }

  bool null() override { return plain(); }
  bool boolean(bool) override { return plain(); }
  bool number_float(number_float_t, string_t const&) override { return plain(); }
  bool number_integer(number_integer_t) override { return plain(); }
  bool number_unsigned(number_unsigned_t value) override {
    if (depth_ == 2 && section_ == Section::metadata && key_ == "total_size") {
      index_.total_size = value;
    }
    return plain();
  }
  bool string(string_t& value) override {
    if (depth_ != 2 || section_ != Section::map) {
      return plain();
    }
    if (!is_plain_file_name(value)) {
      refuse_file();
    }
    index_.files.emplace_back(std::move(key_), keep(value));
    return true;
  }
  bool start_object(std::size_t) override {
    if (depth_ == 1 && section_ == Section::map) {
      has_map_ = true;
      charge(counts_.inner * sizeof(index_.files[0]));
      index_.files.reserve(counts_.inner);
    }
    return enter();
  }
  bool key(string_t& name) override {
    key_ = depth_ == 2 && section_ == Section::map ? keep(name) : name;
    if (has_nul(name)) {
      return problem("a name with a NUL");
    }
    if (depth_ == 1) {
      section_ = name == "weight_map" ? Section::map
                 : name == "metadata" ? Section::metadata
                                      : Section::other;
    }
    // The files' names are many, and compared at the end.
    if (depth_ == 2 && section_ == Section::map) {
      return true;
    }
    charge(set_bytes + text_bytes(name.size()));
    return names_[depth_ - 1].emplace(name.data(), name.size()).second || twice(name);
  }
  bool end_object() override { return leave(); }
  bool start_array(std::size_t) override { return enter(); }
  bool end_array() override { return leave(); }

 private:
  enum class Section : std::uint8_t { other, map, metadata };
  static constexpr std::size_t most_depth = 64;
  static constexpr std::uint64_t set_bytes = heap_bytes(32 + sizeof(std::string));  // of a node

  [[noreturn]] void refuse_index(std::string const& what) const {
    throw CorruptError(path(), 0, "shardmesh: " + path() + " is no safetensors index: " + what);
  }
  [[noreturn]] void refuse_file() const {
    refuse_index("the file of \"" + escaped(key_) +
                 "\" is not a plain name: files lie in the directory of the index");
  }

  /// A value of which nothing is needed.
  bool plain() {
    if (depth_ == 0 || (depth_ == 1 && section_ == Section::map)) {
      refuse_index("it is no JSON object with a \"weight_map\"");
    }
    if (depth_ == 2 && section_ == Section::map) {
      refuse_file();
    }
    return true;
  }

  bool enter() {
    if (depth_ == 2 && section_ == Section::map) {
      refuse_file();
    }
    if (depth_ == most_depth) {
      return problem("values nested deeper than 64");
    }
    names_.resize(++depth_);
    names_.back().clear();
    return true;
  }
  bool leave() {
    --depth_;
    return true;
  }

  JsonCounts counts_;
  SafetensorsIndex index_;
  bool has_map_ = false;
  std::size_t depth_ = 0;
  Section section_ = Section::other;  // of the outermost object
  std::string key_;
  std::vector<std::set<std::string, std::less<>>> names_;  // by depth, of the objects that are open
};

}  // namespace detail

/// Reads an index.
/// @param path  for error messages.
/// @throws CorruptError for anything but an object with a "weight_map" of names to plain file names, and for
///         names that stand twice.
[[nodiscard]] inline SafetensorsIndex read_safetensors_index(std::string_view text,
                                                             std::string const& path) {
  return detail::IndexJson(text, path).read();
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
