// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/storage/checked_run.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/layout/box.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A catalog that a load reads, whatever its format: a `Catalog` of one type with all that one may have, so that loads
/// are compiled once for all formats, and can be compiled separately.
class AnyCatalog {
 public:
  AnyCatalog() = default;
  AnyCatalog(AnyCatalog const&) = delete;
  AnyCatalog& operator=(AnyCatalog const&) = delete;
  virtual ~AnyCatalog() = default;

  [[nodiscard]] virtual std::string describe() const = 0;
  [[nodiscard]] virtual std::vector<std::string> keys() const = 0;
  [[nodiscard]] virtual bool contains(std::string const& key) const = 0;
  [[nodiscard]] virtual StoredTensor const* tensor(std::string const& key) const = 0;
  [[nodiscard]] virtual StoredBox read_box(std::string const& key, std::size_t i) = 0;
  [[nodiscard]] virtual Value value(std::string const& key) = 0;
  [[nodiscard]] virtual std::uint64_t bytes_read() = 0;

  [[nodiscard]] virtual std::vector<PathElement> path(std::string const& key) const = 0;
  [[nodiscard]] virtual std::string const* problem(std::string const& key) const = 0;
  /// Empty if nothing tells it from those of other saves.
  [[nodiscard]] virtual std::string identity() = 0;
  /// Names, and what is known of them.
  [[nodiscard]] virtual std::vector<std::pair<std::string, std::string>> lost_files() const = 0;
  /// Is it a `RangeCatalog`?
  [[nodiscard]] virtual bool reads_parts() const = 0;
  /// @pre `part` is the whole box, unless `reads_parts()`.
  [[nodiscard]] virtual StoredBox read_part(std::string const& key,
                                            std::size_t i,
                                            Box const& part) = 0;
  /// Nothing for what must be read by `read_part`.
  [[nodiscard]] virtual std::optional<CheckedRun> open_run(std::string const& key,
                                                           std::size_t i,
                                                           Box const& part) = 0;
};

template <Catalog C>
class CatalogOf final : public AnyCatalog {
 public:
  /// @param open  makes the catalog.
  template <class Open>
  explicit CatalogOf(Open& open) : catalog_(open()) {}

  [[nodiscard]] std::string describe() const override { return catalog_.describe(); }
  [[nodiscard]] std::vector<std::string> keys() const override { return catalog_.keys(); }
  [[nodiscard]] bool contains(std::string const& key) const override {
    return catalog_.contains(key);
  }
  [[nodiscard]] StoredTensor const* tensor(std::string const& key) const override {
    return catalog_.tensor(key);
  }
  [[nodiscard]] StoredBox read_box(std::string const& key, std::size_t i) override {
    return catalog_.read_box(key, i);
  }
  [[nodiscard]] Value value(std::string const& key) override { return catalog_.value(key); }
  [[nodiscard]] std::uint64_t bytes_read() override { return catalog_.bytes_read(); }

  [[nodiscard]] std::vector<PathElement> path(std::string const& key) const override {
    if constexpr (requires { catalog_.path(key); }) {
      return catalog_.path(key);
    } else {
      return {PathElement(key)};
    }
  }
  [[nodiscard]] std::string const* problem(std::string const& key) const override {
    return problem_of(catalog_, key);
  }
  [[nodiscard]] std::string identity() override {
    if constexpr (requires { catalog_.identity(); }) {
      return catalog_.identity();
    } else {
      return {};
    }
  }
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> lost_files() const override {
    if constexpr (requires { catalog_.lost_files(); }) {
      return catalog_.lost_files();
    } else {
      return {};
    }
  }
  [[nodiscard]] bool reads_parts() const override { return RangeCatalog<C>; }
  [[nodiscard]] StoredBox read_part(std::string const& key,
                                    std::size_t i,
                                    Box const& part) override {
    if constexpr (RangeCatalog<C>) {
      return catalog_.read_part(key, i, part);
    } else {
      return catalog_.read_box(key, i);
    }
  }
  [[nodiscard]] std::optional<CheckedRun> open_run(std::string const& key,
                                                   std::size_t i,
                                                   Box const& part) override {
    if constexpr (requires { catalog_.open_run(key, i, part); }) {
      return catalog_.open_run(key, i, part);
    } else {
      return std::nullopt;
    }
  }

 private:
  C catalog_;
};

/// Makes the catalog of a load.
using OpenCatalog = std::function<std::unique_ptr<AnyCatalog>()>;

/// @param open  makes a catalog of any type; must outlive what is returned.
template <class Open>
[[nodiscard]] OpenCatalog any_catalog_of(Open& open) {
  using C = std::remove_cvref_t<decltype(open())>;
  return [&open]() -> std::unique_ptr<AnyCatalog> { return std::make_unique<CatalogOf<C>>(open); };
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
