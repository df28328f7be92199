// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What a disk may hold after the power was cut: files, names and what was done to them, as pure values. A state is
// made of the operations that had been brought to the disk, and any of the others, in their order: each write
// whole, half or not at all; each change of a name, or not.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace test {

/// One thing that was asked of the disk.
struct DiskOperation {
  enum class Kind { write, resize, make, link, remove, move, exchange, sync };
  Kind kind = Kind::sync;
  int node = -1;           ///< written, resized, made, linked, or synced
  int directory = -1;      ///< of the name; of the old name
  int other = -1;          ///< of the new name
  std::string name = {};   ///< the name; the old name
  std::string to = {};     ///< the new name
  std::uint64_t at = 0;    ///< where a write begins; the new size
  std::string bytes = {};  ///< of a write; the target of a symbolic link that is made
  bool is_directory = false;
};

/// Files and directories by number; 0 is the root.
struct DiskState {
  struct Node {
    bool is_directory = false;
    std::string bytes;                 // of a file
    std::map<std::string, int> names;  // in a directory
  };
  std::map<int, Node> nodes{{0, {true, {}, {}}}};

  void apply(DiskOperation const& one, bool half) {
    using Kind = DiskOperation::Kind;
    switch (one.kind) {
      case Kind::write: {
        std::string& bytes = nodes[one.node].bytes;
        std::size_t const count = half ? one.bytes.size() / 2 : one.bytes.size();
        bytes.resize(std::max(bytes.size(), static_cast<std::size_t>(one.at) + count), '\0');
        bytes.replace(static_cast<std::size_t>(one.at), count, one.bytes, 0, count);
        break;
      }
      case Kind::resize:
        nodes[one.node].bytes.resize(static_cast<std::size_t>(one.at), '\0');
        break;
      case Kind::make:
        nodes[one.node].is_directory = one.is_directory;
        nodes[one.directory].names[one.name] = one.node;
        break;
      case Kind::link:
        nodes[one.directory].names[one.name] = one.node;
        break;
      case Kind::remove:
        nodes[one.directory].names.erase(one.name);
        break;
      case Kind::move: {
        auto& from = nodes[one.directory].names;
        if (auto const found = from.find(one.name); found != from.end()) {
          int const node = found->second;
          from.erase(found);
          nodes[one.other].names[one.to] = node;
        }
        break;
      }
      case Kind::exchange: {
        auto& a = nodes[one.directory].names;
        auto& b = nodes[one.other].names;
        if (a.contains(one.name) && b.contains(one.to)) {
          std::swap(a[one.name], b[one.to]);
        }
        break;
      }
      case Kind::sync:
        break;
    }
  }

  /// Calls f(path, node) for what is below a directory, parents first.
  template <class F>
  void for_each(F f, int directory = 0, std::string const& prefix = "") const {
    for (auto const& [name, number] : nodes.at(directory).names) {
      std::string const path = prefix + name;
      Node const& node = nodes.at(number);
      f(path, node);
      if (node.is_directory) {
        for_each(f, number, path + "/");
      }
    }
  }

  /// All that is below names which `wanted` lets pass, as one text.
  template <class Wanted>
  [[nodiscard]] std::string text(Wanted wanted) const {
    std::string all;
    for_each([&](std::string const& path, Node const& node) {
      if (wanted(path)) {
        all +=
            path +
            (node.is_directory ? "/" : "=" + std::to_string(node.bytes.size()) + ":" + node.bytes) +
            "\n";
      }
    });
    return all;
  }
};

/// Is the operation on the disk for certain, once `later` have followed it?
inline bool is_durable(DiskOperation const& one,
                       std::vector<DiskOperation> const& all,
                       std::size_t from,
                       std::size_t end) {
  using Kind = DiskOperation::Kind;
  bool const of_file = one.kind == Kind::write || one.kind == Kind::resize;
  bool first = false;
  bool second = of_file || one.other < 0 || one.other == one.directory;
  for (std::size_t i = from; i < end; ++i) {
    if (all[i].kind == Kind::sync) {
      first = first || all[i].node == (of_file ? one.node : one.directory);
      second = second || all[i].node == one.other;
    }
  }
  return first && second;
}

/// Calls f(state) for states that the disk may be in when the power is cut, at every moment of `operations` on
/// `start`: all of them where at most `exhaustive` operations are pending, else `samples` at random beside those in
/// which one pending operation alone has, or has not, reached the disk.
/// @returns how many states those were, equal ones counted each time.
template <class F>
long for_each_crash(DiskState const& start,
                    std::vector<DiskOperation> const& operations,
                    std::size_t exhaustive,
                    long samples,
                    std::uint32_t seed,
                    F f) {
  std::mt19937 random(seed);
  long states = 0;
  for (std::size_t end = 0; end <= operations.size(); ++end) {
    std::vector<std::size_t> pending;
    std::vector<int> choice(end, 2);  // 0: lost, 1: half, 2: done
    for (std::size_t i = 0; i < end; ++i) {
      if (operations[i].kind != DiskOperation::Kind::sync &&
          !is_durable(operations[i], operations, i + 1, end)) {
        pending.push_back(i);
      }
    }
    auto const visit = [&] {
      DiskState state = start;
      for (std::size_t i = 0; i < end; ++i) {
        if (choice[i] != 0) {
          state.apply(operations[i], choice[i] == 1);
        }
      }
      f(std::as_const(state), end);
      ++states;
    };
    auto const ways = [&](std::size_t i) {
      return operations[i].kind == DiskOperation::Kind::write ? 3 : 2;
    };
    auto const set = [&](std::size_t i, int way) {
      choice[i] = ways(i) == 2 && way == 1 ? 2 : way;
    };
    if (pending.size() <= exhaustive) {
      std::function<void(std::size_t)> const each = [&](std::size_t n) {
        if (n == pending.size()) {
          visit();
          return;
        }
        for (int way = 0; way < 3; ++way) {
          if (way != 1 || ways(pending[n]) == 3) {
            choice[pending[n]] = way;
            each(n + 1);
          }
        }
      };
      each(0);
      continue;
    }
    for (int const others : {0, 2}) {
      for (std::size_t const alone : pending) {
        for (std::size_t const i : pending) {
          choice[i] = i == alone ? 2 - others : others;
        }
        visit();
      }
    }
    for (long n = 0; n < samples; ++n) {
      // Half of them cut in time as well: what came first has arrived more often.
      std::size_t const arrived = n % 2 == 0 ? 0 : pending[random() % pending.size()];
      for (std::size_t const i : pending) {
        set(i, i < arrived ? 2 : static_cast<int>(random() % 3));
      }
      visit();
    }
  }
  return states;
}

}  // namespace test
