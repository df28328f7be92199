// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What the subcommands that look at checkpoints share: tensors made at run time, one tensor at a time
// out of a catalog, sizes for people.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/tensor/tensor.hpp>

#include "progress.hpp"

namespace tool {

namespace sm = shardmesh;

/// Memory for a tensor of a dtype known at run time.
inline sm::AnyTensor make_tensor(sm::DType dtype, sm::Shape const& shape) {
  return sm::visit_dtype(dtype, [&shape](auto type) {
    return sm::AnyTensor(sm::Tensor<typename decltype(type)::type>::zeros(shape));
  });
}

/// A catalog that belongs to somebody else; it may show how far reading has come, or some keys alone.
template <class C>
class Borrowed {
 public:
  explicit Borrowed(C& catalog, Progress* progress = nullptr)
      : catalog_(&catalog), progress_(progress) {}
  Borrowed(C& catalog, std::vector<std::string> only)
      : catalog_(&catalog), only_(std::move(only)) {}

  [[nodiscard]] std::string describe() const { return catalog_->describe(); }
  [[nodiscard]] std::vector<std::string> keys() const {
    return only_.empty() ? catalog_->keys() : only_;
  }
  [[nodiscard]] std::string const* problem(std::string const& key) const {
    return sm::problem_of(*catalog_, key);
  }
  [[nodiscard]] bool contains(std::string const& key) const { return catalog_->contains(key); }
  [[nodiscard]] sm::StoredTensor const* tensor(std::string const& key) const {
    return catalog_->tensor(key);
  }
  [[nodiscard]] sm::StoredBox read_box(std::string const& key, std::size_t i) {
    auto box = catalog_->read_box(key, i);
    step();
    return box;
  }
  [[nodiscard]] sm::Value value(std::string const& key) {
    auto value = catalog_->value(key);
    step();
    return value;
  }
  [[nodiscard]] std::uint64_t bytes_read() const { return catalog_->bytes_read(); }

 private:
  void step() const {
    if (progress_ != nullptr) {
      progress_->at(catalog_->bytes_read());
    }
  }

  C* catalog_;
  Progress* progress_ = nullptr;
  std::vector<std::string> only_;
};

/// Some tensors in full, in memory.
template <class C>
sm::StateDict read_tensors(C& catalog, std::vector<std::string> const& keys) {
  sm::StateDict dict;
  for (std::string const& key : keys) {
    sm::StoredTensor const& stored = *catalog.tensor(key);
    dict.insert(key, make_tensor(stored.dtype, stored.shape));
  }
  if (!keys.empty()) {
    sm::launch(sm::threads{1}, [&](auto& world) {
      sm::load_from(world, [&] { return Borrowed<C>(catalog, keys); }, dict);
    });
  }
  return dict;
}

/// What is missing of a checkpoint, or may be, as far as its files tell.
template <class C>
std::vector<std::string> losses(C const& catalog) {
  std::vector<std::string> found;
  if constexpr (requires { catalog.lost_files(); }) {
    for (auto const& [name, what] : catalog.lost_files()) {
      found.push_back(what);
    }
    for (std::string const& note : catalog.notes()) {
      found.push_back(note);
    }
  }
  return found;
}

/// 0 for an element type that is not known.
[[nodiscard]] inline std::uint64_t bytes_of(sm::StoredTensor const& stored) {
  if (!stored.unsupported.empty()) {
    return 0;
  }
  return static_cast<std::uint64_t>(sm::volume(stored.shape)) * sm::size_of(stored.dtype);
}

/// Bytes of all tensors of a catalog.
template <class C>
std::uint64_t total_bytes(C const& catalog) {
  std::uint64_t bytes = 0;
  for (std::string const& key : catalog.keys()) {
    if (sm::StoredTensor const* const stored = catalog.tensor(key)) {
      bytes += bytes_of(*stored);
    }
  }
  return bytes;
}

}  // namespace tool
