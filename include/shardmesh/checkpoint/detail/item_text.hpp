// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

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
    out.number(item.holders);
    out.number(item.names ? item.names->size() + 1 : 0);
    for (std::string const& name : item.names.value_or(std::vector<std::string>())) {
      out.text(name);
    }
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
    item.holders = in.number();
    if (std::uint64_t left = in.number(); left > 0) {
      item.names.emplace();
      for (; left > 1; --left) {
        item.names->push_back(in.text());
      }
    }
    items.push_back(std::move(item));
  }
  return items;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
