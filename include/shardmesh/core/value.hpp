// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <bit>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh::inline v0 {

/// A plain leaf of a state dict, everything that is not a tensor: Python's None, bool, int (64
/// bits), float, str, list, tuple and dict (string keys, in order), or bytes that only PyTorch
/// understands. A regular type; two floats are equal when their bits are, so NaN equals itself.
class Value {
 public:
  struct None {
    [[nodiscard]] friend bool operator==(None, None) = default;
  };
  using List = std::vector<Value>;
  /// Python's tuple: as a list, but a kind of its own.
  struct Tuple {
    std::vector<Value> items;
    [[nodiscard]] friend bool operator==(Tuple const& a, Tuple const& b) {
      return a.items == b.items;
    }
  };
  using Dict = std::vector<std::pair<std::string, Value>>;
  /// A whole torch.save archive that holds something else; kept as it is and written back unread.
  struct Opaque {
    std::vector<std::byte> archive;
    [[nodiscard]] friend bool operator==(Opaque const&, Opaque const&) = default;
  };

  Value() noexcept : held_(None{}) {}
  template <std::same_as<bool> T>
  Value(T value) : held_(value) {}
  /// @throws ShapeError if the integer does not fit 64 bits with sign.
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  Value(T value) : held_(checked_cast<std::int64_t>(value)) {}
  template <std::floating_point T>
  Value(T value) : held_(static_cast<double>(value)) {}
  Value(std::string value) : held_(std::move(value)) {}
  Value(char const* value) : held_(std::string(value)) {}
  Value(List value) : held_(std::move(value)) {}
  Value(Tuple value) : held_(std::move(value)) {}
  Value(Dict value) : held_(std::move(value)) {}
  Value(Opaque value) : held_(std::move(value)) {}

  /// The `T` (bool, std::int64_t, double, std::string, List, Tuple, Dict, Opaque or None) that is
  /// held; nullptr if it is something else.
  template <class T>
  [[nodiscard]] T const* get() const noexcept {
    return std::get_if<T>(&held_);
  }

  /// The `T` that is held.
  /// @throws InvalidArgument if it is something else.
  template <class T>
  [[nodiscard]] T const& as() const {
    if (T const* held = get<T>()) {
      return *held;
    }
    throw InvalidArgument("shardmesh::Value::as: the value is of the kind " + std::string(kind()) +
                          ", not of the kind asked for; look at kind() or use get()");
  }

  /// Calls `f` with what is held, as one of the types that `get` lists.
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), held_);
  }

  /// "None", "bool", "int", "float", "str", "list", "tuple", "dict" or "opaque".
  [[nodiscard]] std::string_view kind() const noexcept {
    constexpr std::array<std::string_view, 9> names{"None", "bool",  "int",  "float", "str",
                                                    "list", "tuple", "dict", "opaque"};
    return names[held_.index()];
  }

  [[nodiscard]] friend bool operator==(Value const& a, Value const& b) {
    double const* const x = a.get<double>();
    double const* const y = b.get<double>();
    if (x != nullptr && y != nullptr) {
      return std::bit_cast<std::uint64_t>(*x) == std::bit_cast<std::uint64_t>(*y);
    }
    return a.held_ == b.held_;
  }

 private:
  std::variant<None, bool, std::int64_t, double, std::string, List, Tuple, Dict, Opaque> held_;
};

/// One step of the path to a value of a state dict: a key of a dict, or an index of a list.
using PathElement = std::variant<std::string, index_t>;

[[nodiscard]] inline std::string to_string(Value const& value);

namespace detail {

[[nodiscard]] inline std::string real_text(double value) {
  std::array<char, 32> buffer{};
  auto const end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  std::string text(buffer.data(), end);
  return text.find_first_not_of("-0123456789") == std::string::npos ? text + ".0" : text;
}

[[nodiscard]] inline std::string joined(std::vector<Value> const& values) {
  std::string text;
  for (Value const& value : values) {
    text += (text.empty() ? "" : ", ") + to_string(value);
  }
  return text;
}

[[nodiscard]] inline std::string quoted(std::string const& text) {
  return '"' + escaped(text, text.size()) + '"';
}

struct ValueText {
  std::string operator()(Value::None) const { return "None"; }
  std::string operator()(bool value) const { return value ? "True" : "False"; }
  std::string operator()(std::int64_t value) const { return std::to_string(value); }
  std::string operator()(double value) const { return real_text(value); }
  std::string operator()(std::string const& value) const { return quoted(value); }
  std::string operator()(Value::List const& value) const { return "[" + joined(value) + "]"; }
  std::string operator()(Value::Tuple const& value) const {
    return "(" + joined(value.items) + (value.items.size() == 1 ? ",)" : ")");
  }
  std::string operator()(Value::Dict const& value) const {
    std::string text;
    for (auto const& [key, item] : value) {
      text += (text.empty() ? "" : ", ") + quoted(key) + ": " + to_string(item);
    }
    return "{" + text + "}";
  }
  std::string operator()(Value::Opaque const& value) const {
    return "<opaque, " + std::to_string(value.archive.size()) + " bytes>";
  }
};

}  // namespace detail

/// As Python would print it: `None`, `True`, `7`, `0.5`, `"run"`, `[1, 2]`, `(1,)`, `{"a": 1}`.
[[nodiscard]] inline std::string to_string(Value const& value) {
  return value.visit(detail::ValueText{});
}

}  // namespace shardmesh::inline v0
