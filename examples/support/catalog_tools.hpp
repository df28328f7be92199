// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What the subcommands that look at checkpoints share: tensors made at run time, one tensor at a time
// out of a catalog, sizes for people.

#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace tool {

namespace sm = shardmesh;

/// Memory for a tensor of a dtype known at run time.
inline sm::AnyTensor make_tensor(sm::DType dtype, sm::Shape const& shape) {
  return sm::visit_dtype(dtype, [&shape](auto type) {
    return sm::AnyTensor(sm::Tensor<typename decltype(type)::type>::zeros(shape));
  });
}

/// A line that shows how far long work has come; only on a terminal.
class Progress {
 public:
  Progress(char const* what, std::size_t total, bool shown)
      : what_(what), total_(total), shown_(shown) {}
  ~Progress() {
    if (shown_) {
      std::fprintf(stderr, "\r\033[K");
    }
  }
  Progress(Progress const&) = delete;
  Progress& operator=(Progress const&) = delete;

  void step() {
    ++done_;
    if (shown_) {
      std::fprintf(stderr, "\r%s %zu of %zu", what_, done_, total_);
    }
  }

 private:
  char const* what_;
  std::size_t total_;
  std::size_t done_ = 0;
  bool shown_;
};

/// A catalog that belongs to somebody else; it may show how far reading has come, or one key alone.
template <class C>
class Borrowed {
 public:
  explicit Borrowed(C& catalog, Progress* progress = nullptr)
      : catalog_(&catalog), progress_(progress) {}
  Borrowed(C& catalog, std::string const& key) : catalog_(&catalog), only_{key} {}

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
    step();
    return catalog_->read_box(key, i);
  }
  [[nodiscard]] sm::Value value(std::string const& key) {
    step();
    return catalog_->value(key);
  }
  [[nodiscard]] std::uint64_t bytes_read() const { return catalog_->bytes_read(); }

 private:
  void step() const {
    if (progress_ != nullptr) {
      progress_->step();
    }
  }

  C* catalog_;
  Progress* progress_ = nullptr;
  std::vector<std::string> only_;
};

/// The bytes of one tensor in full, row-major.
template <class C>
std::vector<std::byte> read_tensor(C& catalog, std::string const& key) {
  sm::StoredTensor const& stored = *catalog.tensor(key);
  sm::StateDict dict;
  dict.insert(key, make_tensor(stored.dtype, stored.shape));
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::load_from(world, [&] { return Borrowed<C>(catalog, key); }, dict);
  });
  return dict.at(key).tensor().local_bytes();
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

/// "1.50 MiB".
[[nodiscard]] inline std::string readable(std::uint64_t bytes) {
  constexpr std::array<char const*, 5> units{"B", "KiB", "MiB", "GiB", "TiB"};
  auto amount = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (amount >= 1024 && unit + 1 < units.size()) {
    amount /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.2f %s", amount, units[unit]);
  return text.data();
}

}  // namespace tool
