// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/pickle_globals.hpp>

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

/// One value. Children are numbers, never pointers: nothing recurses, cycles are harmless.
struct PickleNode {
  PickleKind kind = PickleKind::none;
  std::uint8_t depth = 0;                    ///< containers below it, 64 at most
  PickleGlobal global = PickleGlobal::none;  ///< of global, object and call
  DType dtype = DType::float32;              ///< of a global that has one
  std::uint32_t link = 0;                    ///< length, or the state or arguments
  std::int64_t payload = 0;  ///< the value, or where text, children or its name start
  std::uint64_t offset = 0;  ///< of the opcode that made it
};

/// What a pickle says, as a table of values. Texts are views into the pickle's bytes, which must
/// outlive the tree.
class PickleTree {
 public:
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
  [[nodiscard]] std::int64_t integer(PickleRef ref) const noexcept { return nodes_[ref].payload; }
  /// @pre kind(ref) is real.
  [[nodiscard]] double real(PickleRef ref) const noexcept {
    return std::bit_cast<double>(nodes_[ref].payload);
  }
  /// @pre kind(ref) is text.
  [[nodiscard]] std::string_view text(PickleRef ref) const noexcept {
    return as_text(
        pickle_.subspan(static_cast<std::size_t>(nodes_[ref].payload), nodes_[ref].link));
  }

  /// The members of a tuple or list; keys and values of a dict, alternating.
  /// @pre kind(ref) is tuple, list, dict or set.
  [[nodiscard]] std::span<PickleRef const> items(PickleRef ref) const noexcept {
    PickleNode const& node = nodes_[ref];
    auto const start = static_cast<std::size_t>(node.payload);
    if (node.kind == PickleKind::tuple) {
      return std::span<PickleRef const>(children_).subspan(start, node.link);
    }
    return growing_[start];
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
    auto const& [module, own] = names_[static_cast<std::size_t>(nodes_[ref].payload)];
    return std::string(module) + "." + std::string(own);
  }

  /// Bytes that the tables take.
  [[nodiscard]] std::uint64_t arena_bytes() const noexcept {
    return nodes_.size() * sizeof(PickleNode) + (children_.size() + grown_) * sizeof(PickleRef) +
           growing_.size() * sizeof(std::vector<PickleRef>) + names_.size() * sizeof(Name);
  }

  PickleRef add(PickleNode const& node) {
    nodes_.push_back(node);
    return static_cast<PickleRef>(nodes_.size() - 1);
  }

  /// Adds a tuple of `members`.
  PickleRef add_tuple(std::span<PickleRef const> members, std::uint64_t offset) {
    PickleNode node{.kind = PickleKind::tuple, .offset = offset};
    node.link = static_cast<std::uint32_t>(members.size());
    node.payload = static_cast<std::int64_t>(children_.size());
    children_.insert(children_.end(), members.begin(), members.end());
    return add(node);
  }

  /// Adds an empty list, dict or set.
  PickleRef add_growing(PickleKind kind, std::uint64_t offset) {
    PickleNode node{.kind = kind, .offset = offset};
    node.payload = static_cast<std::int64_t>(growing_.size());
    growing_.emplace_back();
    return add(node);
  }

  /// Adds a global with its name, of which views are kept.
  PickleRef add_named(PickleNode node, std::string_view module, std::string_view name) {
    node.payload = static_cast<std::int64_t>(names_.size());
    names_.emplace_back(module, name);
    return add(node);
  }

  /// Appends to a list, dict or set.
  void grow(PickleRef ref, std::span<PickleRef const> members) {
    auto& target = growing_[static_cast<std::size_t>(nodes_[ref].payload)];
    target.insert(target.end(), members.begin(), members.end());
    grown_ += members.size();
  }

  void set_state(PickleRef ref, PickleRef state) { nodes_[ref].link = state; }
  /// @pre kind(ref) is call.
  void set_payload(PickleRef ref, std::int64_t payload) { nodes_[ref].payload = payload; }
  void set_depth(PickleRef ref, std::uint8_t depth) { nodes_[ref].depth = depth; }
  void set_root(PickleRef ref) { root_ = ref; }

 private:
  using Name = std::pair<std::string_view, std::string_view>;

  ByteSpan pickle_;
  std::vector<PickleNode> nodes_;
  std::vector<PickleRef> children_;              // members of tuples
  std::vector<std::vector<PickleRef>> growing_;  // members of lists, dicts and sets
  std::vector<Name> names_;                      // of globals outside the table
  std::uint64_t grown_ = 0;
  PickleRef root_ = no_pickle_ref;
};

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
