// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <shardmesh/checkpoint/save_plan.hpp>

namespace shardmesh::inline v0::detail {

/// Packs numbers and strings for another rank of the same program on a machine of the same kind.
class Packer {
 public:
  void number(std::uint64_t value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    text_.append(bytes, sizeof value);
  }
  void text(std::string_view value) {
    number(value.size());
    text_.append(value);
  }
  void shape(Shape const& value) {
    number(value.size());
    for (index_t const extent : value) {
      number(static_cast<std::uint64_t>(extent));
    }
  }
  [[nodiscard]] std::string finish() && { return std::move(text_); }

 private:
  std::string text_;
};

/// Reads what `Packer` wrote, in the same order.
class Unpacker {
 public:
  explicit Unpacker(std::string_view text) : text_(text) {}

  [[nodiscard]] bool at_end() const noexcept { return text_.empty(); }
  [[nodiscard]] std::uint64_t number() {
    std::uint64_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  [[nodiscard]] std::string text() {
    auto const size = static_cast<std::size_t>(number());
    return std::string(take(size));
  }
  [[nodiscard]] Shape shape() {
    Shape value;
    for (std::uint64_t left = number(); left > 0; --left) {
      value.push_back(static_cast<index_t>(number()));
    }
    return value;
  }

 private:
  [[nodiscard]] std::string_view take(std::size_t count) {
    if (count > text_.size()) {
      throw MismatchError("shardmesh::save: what another rank offers to save ends early; do all "
                          "ranks run the same program?");
    }
    std::string_view const taken = text_.substr(0, count);
    text_.remove_prefix(count);
    return taken;
  }

  std::string_view text_;
};

[[nodiscard]] inline std::string pack_items(std::vector<SaveItem> const& items) {
  Packer out;
  for (SaveItem const& item : items) {
    out.text(item.key);
    out.number(item.path.size());
    for (PathElement const& element : item.path) {
      out.number(element.is_key() ? 0 : 1);
      if (element.is_key()) {
        out.text(element.key());
      } else {
        out.number(static_cast<std::uint64_t>(element.index()));
      }
    }
    out.number(item.dtype ? static_cast<std::uint64_t>(*item.dtype) + 1 : 0);
    out.shape(item.shape);
    out.shape(item.box.offset);
    out.shape(item.box.extent);
    out.number(item.length);
  }
  return std::move(out).finish();
}

[[nodiscard]] inline std::vector<SaveItem> unpack_items(std::string_view text) {
  std::vector<SaveItem> items;
  for (Unpacker in(text); !in.at_end();) {
    SaveItem item;
    item.key = in.text();
    for (std::uint64_t left = in.number(); left > 0; --left) {
      if (in.number() == 0) {
        item.path.emplace_back(in.text());
      } else {
        item.path.emplace_back(static_cast<index_t>(in.number()));
      }
    }
    if (std::uint64_t const dtype = in.number(); dtype > 0) {
      item.dtype = static_cast<DType>(dtype - 1);
    }
    item.shape = in.shape();
    item.box.offset = in.shape();
    item.box.extent = in.shape();
    item.length = in.number();
    items.push_back(std::move(item));
  }
  return items;
}

}  // namespace shardmesh::inline v0::detail
