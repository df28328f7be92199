// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/value.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Numbers, texts, shapes and plain values as bytes, for the other ranks of one job.
class WireWriter {
 public:
  void number(std::uint64_t value) { raw(&value, sizeof(value)); }
  void raw(void const* data, std::size_t bytes) {
    auto const* const first = static_cast<std::byte const*>(data);
    bytes_.insert(bytes_.end(), first, first + bytes);
  }
  void block(std::vector<std::byte> const& bytes) {
    number(bytes.size());
    raw(bytes.data(), bytes.size());
  }
  void text(std::string const& value) {
    number(value.size());
    raw(value.data(), value.size());
  }
  void texts(std::vector<std::string> const& values) {
    number(values.size());
    for (std::string const& value : values) {
      text(value);
    }
  }
  void shape(Shape const& value) {
    number(value.size());
    for (index_t extent : value) {
      number(static_cast<std::uint64_t>(extent));
    }
  }
  void path(std::vector<PathElement> const& steps) {
    number(steps.size());
    for (PathElement const& step : steps) {
      number(step.is_key() ? 0 : 1 + static_cast<std::uint64_t>(step.index()));
      text(step.key());
    }
  }
  void value(Value const& plain) {
    text(std::string(plain.kind()));
    plain.visit(*this);
  }

  /// The content of a plain value, after its kind.
  void operator()(Value::None) {}
  void operator()(bool flag) { number(flag ? 1 : 0); }
  void operator()(std::int64_t integer) { number(static_cast<std::uint64_t>(integer)); }
  void operator()(double real) { number(std::bit_cast<std::uint64_t>(real)); }
  void operator()(std::string const& words) { text(words); }
  void operator()(Value::List const& list) {
    number(list.size());
    for (Value const& item : list) {
      value(item);
    }
  }
  void operator()(Value::Tuple const& tuple) { (*this)(tuple.items); }
  void operator()(Value::Dict const& dict) {
    number(dict.size());
    for (auto const& [key, item] : dict) {
      text(key);
      value(item);
    }
  }
  void operator()(Value::Opaque const& opaque) { block(opaque.archive); }

  [[nodiscard]] std::vector<std::byte> const& bytes() const noexcept { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// Reads what a `WireWriter` of another rank wrote.
class WireReader {
 public:
  explicit WireReader(std::span<std::byte const> bytes) : rest_(bytes) {}

  [[nodiscard]] std::uint64_t number() {
    std::uint64_t value = 0;
    std::memcpy(&value, take(sizeof(value)).data(), sizeof(value));
    return value;
  }
  [[nodiscard]] std::vector<std::byte> block() {
    auto const part = take(number());
    return {part.begin(), part.end()};
  }
  [[nodiscard]] std::string text() {
    auto const part = take(number());
    return {reinterpret_cast<char const*>(part.data()), part.size()};
  }
  [[nodiscard]] std::vector<std::string> texts() {
    std::vector<std::string> values(number());
    for (std::string& value : values) {
      value = text();
    }
    return values;
  }
  [[nodiscard]] Shape shape() {
    Shape value(number(), 0);
    for (index_t& extent : value) {
      extent = static_cast<index_t>(number());
    }
    return value;
  }
  [[nodiscard]] std::vector<PathElement> path() {
    std::vector<PathElement> steps;
    for (std::uint64_t left = number(); left > 0; --left) {
      std::uint64_t const index = number();
      std::string key = text();
      steps.push_back(index == 0 ? PathElement(std::move(key))
                                 : PathElement(static_cast<index_t>(index - 1)));
    }
    return steps;
  }
  [[nodiscard]] Value value() {
    std::string const kind = text();
    if (kind == "bool") {
      return number() != 0;
    }
    if (kind == "int") {
      return static_cast<std::int64_t>(number());
    }
    if (kind == "float") {
      return std::bit_cast<double>(number());
    }
    if (kind == "str") {
      return text();
    }
    if (kind == "list") {
      return list();
    }
    if (kind == "tuple") {
      return Value::Tuple{list()};
    }
    if (kind == "dict") {
      Value::Dict dict(number());
      for (auto& [key, item] : dict) {
        key = text();
        item = value();
      }
      return dict;
    }
    return kind == "opaque" ? Value(Value::Opaque{block()}) : Value();
  }

 private:
  [[nodiscard]] Value::List list() {
    Value::List items(number());
    for (Value& item : items) {
      item = value();
    }
    return items;
  }

  [[nodiscard]] std::span<std::byte const> take(std::size_t bytes) {
    if (bytes > rest_.size()) {
      throw MismatchError("shardmesh: another rank sent something else than was expected; every "
                          "rank must make the same calls");
    }
    auto const part = rest_.first(bytes);
    rest_ = rest_.subspan(bytes);
    return part;
  }

  std::span<std::byte const> rest_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
