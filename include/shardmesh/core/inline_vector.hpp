// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>
#include <span>

#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {

/// A sequence of at most `Capacity` values kept in place: regular, constexpr, no allocation.
/// Shapes, coordinates and placements are kept in it.
template <class T, std::size_t Capacity>
class InlineVector {
 public:
  using value_type = T;
  using size_type = std::size_t;
  using iterator = T*;
  using const_iterator = T const*;

  constexpr InlineVector() = default;

  constexpr InlineVector(std::initializer_list<T> values) {
    for (T const& value : values) {
      push_back(value);
    }
  }

  template <class It>
    requires requires(It at) { static_cast<T>(*++at); }
  constexpr InlineVector(It first, It last) {
    for (; first != last; ++first) {
      push_back(static_cast<T>(*first));
    }
  }

  constexpr explicit InlineVector(std::size_t count, T const& value) {
    for (std::size_t i = 0; i < count; ++i) {
      push_back(value);
    }
  }

  /// @throws ShapeError if the vector is full.
  constexpr void push_back(T const& value) {
    if (size_ == Capacity) {
      throw ShapeError("shardmesh: too many dimensions; at most 8 are supported");
    }
    values_[size_++] = value;
  }

  constexpr void pop_back() noexcept { --size_; }
  constexpr void clear() noexcept { size_ = 0; }

  [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
  [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] static constexpr std::size_t capacity() noexcept { return Capacity; }

  [[nodiscard]] constexpr T& operator[](std::size_t i) noexcept { return values_[i]; }
  [[nodiscard]] constexpr T const& operator[](std::size_t i) const noexcept { return values_[i]; }
  [[nodiscard]] constexpr T& back() noexcept { return values_[size_ - 1]; }
  [[nodiscard]] constexpr T const& back() const noexcept { return values_[size_ - 1]; }

  [[nodiscard]] constexpr T* data() noexcept { return values_.data(); }
  [[nodiscard]] constexpr T const* data() const noexcept { return values_.data(); }
  [[nodiscard]] constexpr iterator begin() noexcept { return data(); }
  [[nodiscard]] constexpr iterator end() noexcept { return data() + size_; }
  [[nodiscard]] constexpr const_iterator begin() const noexcept { return data(); }
  [[nodiscard]] constexpr const_iterator end() const noexcept { return data() + size_; }

  [[nodiscard]] constexpr operator std::span<T const>() const noexcept { return {data(), size_}; }

  [[nodiscard]] friend constexpr bool operator==(InlineVector const& a, InlineVector const& b) {
    if (a.size_ != b.size_) {
      return false;
    }
    for (std::size_t i = 0; i < a.size_; ++i) {
      if (!(a.values_[i] == b.values_[i])) {
        return false;
      }
    }
    return true;
  }

 private:
  std::array<T, Capacity> values_{};
  std::size_t size_ = 0;
};

}  // namespace v0
}  // namespace shardmesh
