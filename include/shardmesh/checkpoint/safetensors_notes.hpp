// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What stands in the metadata of a safetensors file beside its tensors: where the parts of a sharded save
// lie, as JSON in a string.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/checkpoint/safetensors_json.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/shape.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// Metadata that the files of `save_safetensors_by_rank` have besides DCP's: the shapes of the whole
/// tensors, and how many files there are. Without them a file of a last rank can be lost unseen.
inline constexpr std::string_view shapes_key = "SHARDMESH_SHAPES";
inline constexpr std::string_view files_key = "SHARDMESH_FILES";

/// (name, numbers) pairs, sorted by name, each name once.
using NamedShapes = std::vector<std::pair<std::string, Shape>>;

/// The numbers of a name, or nullptr.
[[nodiscard]] inline Shape const* find_shape(NamedShapes const& shapes, std::string_view name) {
  auto const at =
      std::lower_bound(shapes.begin(), shapes.end(), name,
                       [](auto const& one, std::string_view text) { return one.first < text; });
  return at != shapes.end() && at->first == name ? &at->second : nullptr;
}

namespace detail {

/// Reads {"name": [numbers]}, or {"name": {member: [numbers]}}.
class ShapesJson final : public StrictJson {
 public:
  /// @param member  name of the list in an object of its own; empty for none.
  /// @param what    to say of what is something else.
  ShapesJson(std::string_view text,
             std::string const& path,
             std::string_view member,
             std::string what)
      : StrictJson(text, path), member_(member), what_(std::move(what)) {
    std::size_t const count = count_members(text).outer;
    charge(count * sizeof(shapes_[0]));
    shapes_.reserve(count);
  }

  [[nodiscard]] NamedShapes read() && {
    parse();
    std::sort(shapes_.begin(), shapes_.end(),
              [](auto const& a, auto const& b) { return a.first < b.first; });
    for (std::size_t i = 1; i < shapes_.size(); ++i) {
      if (shapes_[i - 1].first == shapes_[i].first) {
        refuse_twice(shapes_[i].first);
      }
    }
    return std::move(shapes_);
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (!in_list_ || value > static_cast<std::uint64_t>(std::numeric_limits<index_t>::max())) {
      return problem("a number out of place or range");
    }
    if (shapes_.back().second.size() == max_rank) {
      refuse_shape();
    }
    shapes_.back().second.push_back(static_cast<index_t>(value));
    return true;
  }
  bool string(string_t&) override {
    if (depth_ == 0 || in_list_) {
      return problem("a string out of place");
    }
    refuse_shape();
  }
  bool start_object(std::size_t) override {
    if (in_list_ || depth_ > 1) {
      return problem("an object nested too deep");
    }
    if (++depth_ == 2 && member_.empty()) {
      refuse_shape();
    }
    lists_ = 0;
    return true;
  }
  bool key(string_t& name) override {
    if (has_nul(name)) {
      return problem("a name with a NUL");
    }
    if (depth_ == 1) {
      shapes_.emplace_back(keep(name), Shape());
    } else if (name != member_) {
      refuse_shape();
    }
    return true;
  }
  bool end_object() override {
    if (--depth_ == 1 && lists_ != 1) {
      refuse_shape();
    }
    return true;
  }
  bool start_array(std::size_t) override {
    if (in_list_ || depth_ == 0) {
      return problem("a list out of place");
    }
    if (++lists_ > 1 && depth_ == 2) {
      return twice(member_);
    }
    if (depth_ != (member_.empty() ? 1 : 2)) {
      refuse_shape();
    }
    in_list_ = true;
    return true;
  }
  bool end_array() override {
    in_list_ = false;
    return true;
  }

 private:
  [[noreturn]] void refuse_shape() const {
    refuse_entry(path(), shapes_.empty() ? std::string() : shapes_.back().first, what_);
  }

  std::string_view member_;
  std::string what_;
  NamedShapes shapes_;
  int depth_ = 0;
  int lists_ = 0;  // in the object of a name
  bool in_list_ = false;
};

}  // namespace detail

/// The part of DCP's sharded variant that says where each tensor of a file lies in its global
/// tensor: the JSON text of the metadata key "DCP_SHARDING_INFO", read as (name, offsets) pairs.
/// @throws CorruptError
[[nodiscard]] inline NamedShapes read_dcp_sharding_info(std::string_view text,
                                                        std::string const& path) {
  return detail::ShapesJson(text, path, "saved_offsets",
                            "in DCP_SHARDING_INFO something else than saved_offsets")
      .read();
}

/// The JSON text of the metadata key `shapes_key`, read as (name, global shape) pairs.
/// @throws CorruptError
[[nodiscard]] inline NamedShapes read_shapes(std::string_view text, std::string const& path) {
  return detail::ShapesJson(
             text, path, "",
             shardmesh::detail::concat("in ", shapes_key, " something else than a shape"))
      .read();
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
