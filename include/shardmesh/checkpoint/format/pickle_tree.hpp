// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/pickle_globals.hpp>
#include <shardmesh/checkpoint/format/pickle_runs.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

enum class PickleKind : std::uint8_t {
  none,
  boolean,
  integer,
  real,
  text,
  tuple,
  list,
  dict,
  set,
  opaque,      ///< bytes, or an integer of more than 64 bits: nothing needs it
  global,      ///< a class, function or element type of the table
  object,      ///< an instance of a class, with its state
  call,        ///< the result of a call, kept as callee and arguments
  persistent,  ///< a persistent id (the storage of a tensor)
};

/// Number of a value in its tree.
using PickleRef = std::uint32_t;
inline constexpr PickleRef no_pickle_ref = 0xffffffffU;

/// Largest pickle that is read: places in it are counted in 32 bits.
inline constexpr std::uint64_t most_pickle_bytes = 0xffffffffU;

/// One value. Children are numbers, never pointers: nothing recurses, cycles are harmless. 20 bytes, of
/// which a pickle can ask for one with each of its own.
struct PickleNode {
  PickleKind kind = PickleKind::none;
  std::uint8_t depth = 0;                    ///< containers below it, 64 at most
  PickleGlobal global = PickleGlobal::none;  ///< of global, object and call
  DType dtype = DType::float32;              ///< of a global that has one
  std::uint32_t link = 0;                    ///< length, or the state or arguments
  /// The value, in two halves; or where text, children or its name start, and of a container that grows
  /// how many children it has room for.
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  std::uint32_t offset = 0;  ///< of the opcode that made it

  [[nodiscard]] std::int64_t number() const noexcept {
    return static_cast<std::int64_t>(std::uint64_t{high} << 32 | low);
  }
  void set_number(std::int64_t value) noexcept {
    low = static_cast<std::uint32_t>(static_cast<std::uint64_t>(value));
    high = static_cast<std::uint32_t>(static_cast<std::uint64_t>(value) >> 32);
  }
};
static_assert(sizeof(PickleNode) == 20);

/// What a pickle says, as a table of values. Texts are views into the pickle's bytes, which must
/// outlive the tree. Values without members, of which a pickle can have millions (None, True, small integers,
/// the empty tuple), stand in it once.
class PickleTree {
 public:
  /// @pre pickle.size() <= most_pickle_bytes.
  explicit PickleTree(ByteSpan pickle) : pickle_(pickle) {}

  [[nodiscard]] PickleRef root() const noexcept { return root_; }
  [[nodiscard]] PickleNode const& node(PickleRef ref) const noexcept { return nodes_[ref]; }
  [[nodiscard]] PickleKind kind(PickleRef ref) const noexcept { return nodes_[ref].kind; }
  [[nodiscard]] std::size_t pickle_bytes() const noexcept { return pickle_.size(); }

  [[nodiscard]] bool is(PickleRef ref, PickleKind kind) const noexcept {
    return nodes_[ref].kind == kind;
  }
  /// Is it an instance of the class, or the result of a call of the function, `global`?
  [[nodiscard]] bool is(PickleRef ref, PickleKind kind, PickleGlobal global) const noexcept {
    return nodes_[ref].kind == kind && nodes_[ref].global == global;
  }

  /// @pre kind(ref) is integer or boolean.
  [[nodiscard]] std::int64_t integer(PickleRef ref) const noexcept { return nodes_[ref].number(); }
  /// @pre kind(ref) is real.
  [[nodiscard]] double real(PickleRef ref) const noexcept {
    return std::bit_cast<double>(nodes_[ref].number());
  }
  /// @pre kind(ref) is text.
  [[nodiscard]] std::string_view text(PickleRef ref) const noexcept {
    return as_text(pickle_.subspan(nodes_[ref].low, nodes_[ref].link));
  }

  /// The members of a tuple or list; keys and values of a dict, alternating.
  /// @pre kind(ref) is tuple, list, dict or set.
  [[nodiscard]] std::span<PickleRef const> items(PickleRef ref) const noexcept {
    return children_.at(nodes_[ref].low, nodes_[ref].link);
  }

  /// The arguments of a call.
  /// @pre kind(ref) is call.
  [[nodiscard]] std::span<PickleRef const> arguments(PickleRef ref) const noexcept {
    return items(nodes_[ref].link);
  }

  /// The state of an object, or `no_pickle_ref`.
  /// @pre kind(ref) is object.
  [[nodiscard]] PickleRef state(PickleRef ref) const noexcept { return nodes_[ref].link; }

  /// Is it a name outside the table, or something that was made of one? It is opaque to everything.
  [[nodiscard]] bool is_inert(PickleRef ref) const noexcept {
    return nodes_[ref].global == PickleGlobal::inert;
  }
  /// "module.name" of a global that has no meaning here, or of what something inert is made of.
  /// @pre is_inert(ref), or ref is the global unsupported_dtype.
  [[nodiscard]] std::string name(PickleRef ref) const {
    auto const& [module, own] = names_[nodes_[ref].low];
    return std::string(module) + "." + std::string(own);
  }

  /// Bytes that the tables take.
  [[nodiscard]] std::uint64_t arena_bytes() const noexcept {
    // A deque adds a pointer and a block's head to some 500 bytes.
    return nodes_.size() * sizeof(PickleNode) * 21 / 20 + children_.bytes() +
           names_.size() * sizeof(Name) * 21 / 20;
  }

  PickleRef add(PickleNode const& node) {
    nodes_.push_back(node);
    return static_cast<PickleRef>(nodes_.size() - 1);
  }

  /// Adds None, a boolean, or an integer; small ones stand in the tree once.
  PickleRef add_number(PickleKind kind, std::int64_t value, std::uint32_t offset) {
    PickleNode node{.kind = kind, .offset = offset};
    node.set_number(value);
    if (value < 0 || value > 255) {
      return add(node);
    }
    std::size_t const place = kind == PickleKind::none      ? 256U
                              : kind == PickleKind::boolean ? 257U + static_cast<std::size_t>(value)
                                                            : static_cast<std::size_t>(value);
    return add_once(place, node);
  }

  /// Adds a tuple of `members`.
  PickleRef add_tuple(std::span<PickleRef const> members, std::uint32_t offset) {
    PickleNode node{.kind = PickleKind::tuple, .offset = offset};
    node.link = static_cast<std::uint32_t>(members.size());
    if (members.empty()) {
      return add_once(259, node);
    }
    node.low = children_.allocate(members.size());
    std::copy(members.begin(), members.end(), children_.at(node.low, members.size()).begin());
    return add(node);
  }

  /// Adds an empty list, dict or set.
  PickleRef add_growing(PickleKind kind, std::uint32_t offset) {
    return add({.kind = kind, .offset = offset});
  }

  /// Adds a global with its name, of which views are kept.
  PickleRef add_named(PickleNode node, std::string_view module, std::string_view name) {
    node.low = static_cast<std::uint32_t>(names_.size());
    names_.emplace_back(module, name);
    return add(node);
  }

  /// Appends to a list, dict or set.
  void grow(PickleRef ref, std::span<PickleRef const> members) {
    PickleNode& node = nodes_[ref];
    std::size_t const count = std::size_t{node.link} + members.size();
    if (count > node.high && children_.extend(node.low, node.high, count - node.high)) {
      node.high = static_cast<std::uint32_t>(count);
    } else if (count > node.high) {
      // Most are written in one go; those that are not move to where they have room for as many again.
      std::size_t const room = node.high == 0 ? count : std::max(count, 2 * std::size_t{node.link});
      std::uint32_t const start = children_.allocate(room);
      auto const old = children_.at(node.low, node.link);
      std::copy(old.begin(), old.end(), children_.at(start, room).begin());
      node.low = start;
      node.high = static_cast<std::uint32_t>(room);
    }
    auto const place = children_.at(node.low, count).subspan(node.link);
    std::copy(members.begin(), members.end(), place.begin());
    node.link = static_cast<std::uint32_t>(count);
  }

  void set_state(PickleRef ref, PickleRef state) { nodes_[ref].link = state; }
  /// @pre kind(ref) is call.
  void set_number(PickleRef ref, std::int64_t number) { nodes_[ref].set_number(number); }
  void set_depth(PickleRef ref, std::uint8_t depth) { nodes_[ref].depth = depth; }
  void set_root(PickleRef ref) { root_ = ref; }

 private:
  using Name = std::pair<std::string_view, std::string_view>;

  static constexpr std::size_t shared_values = 260;

  PickleRef add_once(std::size_t place, PickleNode const& node) {
    if (shared_.empty()) {
      shared_.resize(shared_values, no_pickle_ref);
    }
    if (shared_[place] == no_pickle_ref) {
      shared_[place] = add(node);
    }
    return shared_[place];
  }

  ByteSpan pickle_;
  std::deque<PickleNode> nodes_;
  detail::PickleRuns children_;    // members of tuples, lists, dicts and sets
  std::deque<Name> names_;         // of globals outside the table
  std::vector<PickleRef> shared_;  // integers up to 255; None, False, True; the empty tuple
  PickleRef root_ = no_pickle_ref;
};

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
