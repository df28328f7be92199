// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <bit>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

/// A plain leaf of a state dict, everything that is not a tensor: Python's None, bool, int (64
/// bits), float, str, list, tuple and dict (string keys, in order), or bytes that only PyTorch
/// understands. A regular type; two floats are equal when their bits are, so NaN equals itself.
class Value {
 public:
  /// Python's None.
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
  /// A whole torch.save archive that holds something else; kept as it is and written back unread. `save`
  /// refuses one that imports what no data is made of, unless it is trusted.
  struct Opaque {
    std::vector<std::byte> archive;
    bool trusted = false;  ///< by whoever saves it; a load sets it never
    [[nodiscard]] friend bool operator==(Opaque const& a, Opaque const& b) {
      return a.archive == b.archive;
    }
  };

  Value() noexcept = default;
  template <std::same_as<bool> T>
  Value(T value) : kind_(Kind::flag) {
    held_.flag = value;
  }
  /// @throws ShapeError if the integer does not fit 64 bits with sign.
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  Value(T value) : kind_(Kind::integer) {
    held_.integer = checked_cast<std::int64_t>(value);
  }
  template <std::floating_point T>
  Value(T value) : kind_(Kind::real) {
    held_.real = static_cast<double>(value);
  }
  Value(std::string value) : kind_(Kind::text) { held_.text = new std::string(std::move(value)); }
  Value(char const* value) : Value(std::string(value)) {}
  Value(List value) : kind_(Kind::list) { held_.list = new List(std::move(value)); }
  Value(Tuple value) : kind_(Kind::tuple) { held_.tuple = new Tuple(std::move(value)); }
  Value(Dict value) : kind_(Kind::dict) { held_.dict = new Dict(std::move(value)); }
  Value(Opaque value) : kind_(Kind::opaque) { held_.opaque = new Opaque(std::move(value)); }

  Value(Value const& other) { other.copy_to(*this); }
  Value(Value&& other) noexcept { swap(other); }
  Value& operator=(Value const& other) {
    Value copy(other);
    swap(copy);
    return *this;
  }
  Value& operator=(Value&& other) noexcept {
    Value taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~Value() { clear(); }

  /// The `T` (bool, std::int64_t, double, std::string, List, Tuple, Dict, Opaque or None) that is
  /// held; nullptr if it is something else.
  template <class T>
  [[nodiscard]] T const* get() const& noexcept {
    if constexpr (requires(Value const& value) { value.slot(std::type_identity<T>{}); }) {
      auto const [kind, held] = slot(std::type_identity<T>{});
      return kind == kind_ ? held : nullptr;
    } else {
      static_assert(
          !std::is_same_v<T, T>,
          "shardmesh::Value::get: a Value holds bool, std::int64_t, double, std::string, "
          "Value::List, Tuple, Dict, Opaque or None; ask for one of these, or for another "
          "integer with as<T>()");
      return nullptr;
    }
  }
  /// A temporary value takes what it holds along: keep the value, or use `as`.
  template <class T>
  T const* get() const&& = delete;

  /// The `T` that is held; of a temporary value a copy. Any other integer type gets the integer that is
  /// held, float the float, by value.
  /// @throws InvalidArgument if it is something else, or an integer that `T` has not.
  template <class T>
  [[nodiscard]] T as() const&& {
    return static_cast<Value const&>(*this).as<T>();
  }
  template <class T>
  [[nodiscard]] decltype(auto) as() const& {
    if constexpr (std::integral<T> && !std::same_as<T, bool> && !std::same_as<T, std::int64_t>) {
      std::int64_t const held = expect<std::int64_t>();
      if (static_cast<std::int64_t>(static_cast<T>(held)) != held ||
          (static_cast<T>(held) < T{}) != (held < 0)) {
        throw InvalidArgument(detail::concat("shardmesh::Value::as: the integer is ",
                                             std::to_string(held),
                                             ", which the type asked for has not; ask for "
                                             "std::int64_t"));
      }
      return static_cast<T>(held);
    } else if constexpr (std::same_as<T, float>) {
      return static_cast<float>(expect<double>());
    } else {
      return expect<T>();
    }
  }

  /// Calls `f` with what is held, as one of the types that `get` lists.
  template <class F>
  decltype(auto) visit(F&& f) const {
    switch (kind_) {
      case Kind::flag:
        return f(held_.flag);
      case Kind::integer:
        return f(held_.integer);
      case Kind::real:
        return f(held_.real);
      case Kind::text:
        return f(std::as_const(*held_.text));
      case Kind::list:
        return f(std::as_const(*held_.list));
      case Kind::tuple:
        return f(std::as_const(*held_.tuple));
      case Kind::dict:
        return f(std::as_const(*held_.dict));
      case Kind::opaque:
        return f(std::as_const(*held_.opaque));
      case Kind::none:
        break;
    }
    return f(None{});
  }

  /// "None", "bool", "int", "float", "str", "list", "tuple", "dict" or "opaque".
  [[nodiscard]] std::string_view kind() const noexcept {
    constexpr std::array<std::string_view, 9> names{"None", "bool",  "int",  "float", "str",
                                                    "list", "tuple", "dict", "opaque"};
    return names[static_cast<std::size_t>(kind_)];
  }

  [[nodiscard]] friend bool operator==(Value const& a, Value const& b) {
    return a.kind_ == b.kind_ && a.same_as(b);
  }

 private:
  template <class T>
  [[nodiscard]] T const& expect() const {
    T const* const held = get<T>();
    if (held == nullptr) {
      throw InvalidArgument(detail::concat("shardmesh::Value::as: the value is of the kind ",
                                           kind(),
                                           ", not of the kind asked for; look at kind() or use "
                                           "get()"));
    }
    return *held;
  }

  enum class Kind : std::uint8_t { none, flag, integer, real, text, list, tuple, dict, opaque };
  template <class T>
  struct Slot {
    Kind kind;
    T const* held;
  };

  // clang-format off
  Slot<None> slot(std::type_identity<None>) const noexcept { return {Kind::none, &none}; }
  Slot<bool> slot(std::type_identity<bool>) const noexcept { return {Kind::flag, &held_.flag}; }
  Slot<std::int64_t> slot(std::type_identity<std::int64_t>) const noexcept { return {Kind::integer, &held_.integer}; }
  Slot<double> slot(std::type_identity<double>) const noexcept { return {Kind::real, &held_.real}; }
  Slot<std::string> slot(std::type_identity<std::string>) const noexcept { return {Kind::text, held_.text}; }
  Slot<List> slot(std::type_identity<List>) const noexcept { return {Kind::list, held_.list}; }
  Slot<Tuple> slot(std::type_identity<Tuple>) const noexcept { return {Kind::tuple, held_.tuple}; }
  Slot<Dict> slot(std::type_identity<Dict>) const noexcept { return {Kind::dict, held_.dict}; }
  Slot<Opaque> slot(std::type_identity<Opaque>) const noexcept { return {Kind::opaque, held_.opaque}; }
  // clang-format on

  void swap(Value& other) noexcept {
    std::swap(kind_, other.kind_);
    std::swap(held_, other.held_);
  }

  /// @pre target is None.
  void copy_to(Value& target) const {
    switch (kind_) {
      case Kind::text:
        target.held_.text = new std::string(*held_.text);
        break;
      case Kind::list:
        target.held_.list = new List(*held_.list);
        break;
      case Kind::tuple:
        target.held_.tuple = new Tuple(*held_.tuple);
        break;
      case Kind::dict:
        target.held_.dict = new Dict(*held_.dict);
        break;
      case Kind::opaque:
        target.held_.opaque = new Opaque(*held_.opaque);
        break;
      default:
        target.held_ = held_;
        break;
    }
    target.kind_ = kind_;
  }

  void clear() noexcept {
    switch (kind_) {
      case Kind::text:
        delete held_.text;
        break;
      case Kind::list:
        delete held_.list;
        break;
      case Kind::tuple:
        delete held_.tuple;
        break;
      case Kind::dict:
        delete held_.dict;
        break;
      case Kind::opaque:
        delete held_.opaque;
        break;
      default:
        break;
    }
  }

  /// @pre of one kind.
  [[nodiscard]] bool same_as(Value const& other) const {
    switch (kind_) {
      case Kind::none:
        return true;
      case Kind::flag:
        return held_.flag == other.held_.flag;
      case Kind::text:
        return *held_.text == *other.held_.text;
      case Kind::list:
        return *held_.list == *other.held_.list;
      case Kind::tuple:
        return *held_.tuple == *other.held_.tuple;
      case Kind::dict:
        return *held_.dict == *other.held_.dict;
      case Kind::opaque:
        return *held_.opaque == *other.held_.opaque;
      default:  // numbers, by their bits
        return std::bit_cast<std::int64_t>(held_) == std::bit_cast<std::int64_t>(other.held_);
    }
  }

  // 16 bytes: a checkpoint can hold lists of millions of numbers, and what a reader makes of a file is to
  // stay in proportion to it. Not a std::variant, which of nine types would cost every user of the library
  // a quarter of a second of compile time.
  union Held {
    std::int64_t integer = 0;
    bool flag;
    double real;
    std::string* text;
    List* list;
    Tuple* tuple;
    Dict* dict;
    Opaque* opaque;
  };

  Kind kind_ = Kind::none;
  Held held_;
  static constexpr None none{};
};

/// One step of the path to a value of a state dict: a key of a dict, or an index of a list.
class PathElement {
 public:
  PathElement(std::string key) : key_(std::move(key)) {}
  PathElement(char const* key) : key_(key) {}
  PathElement(index_t index) : index_(index) {}

  [[nodiscard]] bool is_key() const noexcept { return index_ < 0; }
  /// @pre is_key().
  [[nodiscard]] std::string const& key() const noexcept { return key_; }
  /// @pre !is_key().
  [[nodiscard]] index_t index() const noexcept { return index_; }
  [[nodiscard]] friend bool operator==(PathElement const&, PathElement const&) = default;

 private:
  std::string key_;
  index_t index_ = -1;
};

/// The key itself, or the digits of the index.
[[nodiscard]] inline std::string to_string(PathElement const& element) {
  return element.is_key() ? element.key() : std::to_string(element.index());
}

/// PyTorch's flat key of a path: its elements joined with dots, empty ones included, so that ("", "w")
/// is ".w".
[[nodiscard]] inline std::string flat_key(std::span<PathElement const> path) {
  std::string key;
  for (std::size_t i = 0; i < path.size(); ++i) {
    key += detail::concat(i == 0 ? "" : ".", to_string(path[i]));
  }
  return key;
}

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
    text += concat(text.empty() ? "" : ", ", to_string(value));
  }
  return text;
}

[[nodiscard]] inline std::string quoted(std::string const& text) {
  return concat('"', escaped(text, text.size()), '"');
}

struct ValueText {
  std::string operator()(Value::None) const { return "None"; }
  std::string operator()(bool value) const { return value ? "True" : "False"; }
  std::string operator()(std::int64_t value) const { return std::to_string(value); }
  std::string operator()(double value) const { return real_text(value); }
  std::string operator()(std::string const& value) const { return quoted(value); }
  std::string operator()(Value::List const& value) const { return concat('[', joined(value), ']'); }
  std::string operator()(Value::Tuple const& value) const {
    return concat('(', joined(value.items), value.items.size() == 1 ? ",)" : ")");
  }
  std::string operator()(Value::Dict const& value) const {
    std::string text;
    for (auto const& [key, item] : value) {
      text += concat(text.empty() ? "" : ", ", quoted(key), ": ", to_string(item));
    }
    return concat('{', text, '}');
  }
  std::string operator()(Value::Opaque const& value) const {
    return concat("<opaque, ", std::to_string(value.archive.size()), " bytes>");
  }
};

}  // namespace detail

/// As Python would print it: `None`, `True`, `7`, `0.5`, `"run"`, `[1, 2]`, `(1,)`, `{"a": 1}`.
[[nodiscard]] inline std::string to_string(Value const& value) {
  return value.visit(detail::ValueText{});
}

}  // namespace v0
}  // namespace shardmesh
