// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <shardmesh/core/value.hpp>
#include <shardmesh/state/visit.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A plain value as a member of a model of type `T`; nothing if it does not fit: another kind, or an
/// integer that is out of range. Integers become floating-point numbers, tuples lists.
template <class T>
[[nodiscard]] std::optional<T> model_value(Value const& value) {
  if constexpr (std::same_as<T, Value>) {
    return value;
  } else if constexpr (std::same_as<T, bool> || std::same_as<T, std::string>) {
    T const* const held = value.get<T>();
    return held == nullptr ? std::nullopt : std::optional<T>(*held);
  } else if constexpr (std::integral<T>) {
    auto const* const held = value.get<std::int64_t>();
    bool const fits = held != nullptr &&
                      static_cast<std::int64_t>(static_cast<T>(*held)) == *held &&
                      (*held < 0) == (static_cast<T>(*held) < T{0});
    return fits ? std::optional<T>(static_cast<T>(*held)) : std::nullopt;
  } else if constexpr (std::floating_point<T>) {
    if (auto const* const held = value.get<std::int64_t>()) {
      return static_cast<T>(*held);
    }
    auto const* const held = value.get<double>();
    return held == nullptr ? std::nullopt : std::optional<T>(static_cast<T>(*held));
  } else {
    auto const* items = value.get<Value::List>();
    if (auto const* const tuple = value.get<Value::Tuple>()) {
      items = &tuple->items;
    }
    if (items == nullptr) {
      return std::nullopt;
    }
    T list;
    for (Value const& item : *items) {
      auto element = model_value<typename T::value_type>(item);
      if (!element) {
        return std::nullopt;
      }
      list.push_back(std::move(*element));
    }
    return list;
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
