// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/pickle_cursor.hpp>
#include <shardmesh/checkpoint/format/pickle_globals.hpp>
#include <shardmesh/checkpoint/format/pickle_opcodes.hpp>
#include <shardmesh/checkpoint/format/pickle_stack.hpp>
#include <shardmesh/checkpoint/format/pickle_tree.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format::detail {

/// The half of the machine that makes values: literals, containers, the memo. Values are numbers into
/// a `PickleTree`.
class PickleValues {
 public:
  PickleValues(ByteSpan pickle,
               PickleDialect dialect,
               std::string const& path,
               std::uint64_t position,
               PickleLimits const& limits)
      : cursor_(pickle, path, position, limits.opcodes),
        most_depth_(std::min<std::size_t>(limits.depth, 255)),
        dialect_(dialect),
        tree_(pickle),
        // No more entries than bytes: a small file cannot ask for a large table.
        stack_(cursor_, std::min<std::uint64_t>(limits.memo_entries, pickle.size()), most_depth_) {}
  PickleValues(PickleValues const&) = delete;  // the stack knows where the cursor is
  PickleValues& operator=(PickleValues const&) = delete;
  ~PickleValues() = default;

  [[nodiscard]] PickleCursor& cursor() noexcept { return cursor_; }
  [[nodiscard]] PickleStack& stack() noexcept { return stack_; }
  [[nodiscard]] PickleTree& tree() noexcept { return tree_; }
  [[nodiscard]] bool is_metadata() const noexcept { return dialect_ == PickleDialect::metadata; }

  /// Does what `op` says, if it is one that makes values.
  bool run(Opcode op) { return literal(op) || container(op) || memo(op) || extra(op); }

  /// Makes `ref` as deep as its new members ask.
  void deepen(PickleRef ref, std::span<PickleRef const> members) {
    std::size_t depth = tree_.node(ref).depth;
    for (PickleRef const member : members) {
      depth = std::max<std::size_t>(depth, tree_.node(member).depth + 1U);
    }
    if (depth > most_depth_) {
      cursor_.fail("values are nested deeper than " + std::to_string(most_depth_));
    }
    tree_.set_depth(ref, static_cast<std::uint8_t>(depth));
  }

  void push_growing(PickleKind kind) { stack_.push(tree_.add_growing(kind, op_at())); }

  /// Bytes that all tables take, at the most while they grow.
  [[nodiscard]] std::uint64_t bytes() const noexcept {
    return tree_.arena_bytes() + stack_.bytes();
  }

  /// Where the current opcode stands.
  [[nodiscard]] std::uint32_t op_at() const noexcept {
    return static_cast<std::uint32_t>(cursor_.op_at());
  }

 private:
  void push(PickleNode const& node) { stack_.push(tree_.add(node)); }
  void push_node(PickleKind kind, std::int64_t number) {
    PickleNode node{.kind = kind, .offset = op_at()};
    node.set_number(number);
    push(node);
  }
  void push_number(PickleKind kind, std::int64_t number) {
    stack_.push(tree_.add_number(kind, number, op_at()));
  }

  // Literals.

  bool literal(Opcode op) {
    switch (op) {
      case Opcode::none:
        push_number(PickleKind::none, 0);
        return true;
      case Opcode::newtrue:
        push_number(PickleKind::boolean, 1);
        return true;
      case Opcode::newfalse:
        push_number(PickleKind::boolean, 0);
        return true;
      case Opcode::binint1:
        push_number(PickleKind::integer, cursor_.take_le<std::uint8_t>());
        return true;
      case Opcode::binint2:
        push_number(PickleKind::integer, cursor_.take_le<std::uint16_t>());
        return true;
      case Opcode::binint:
        push_number(PickleKind::integer,
                    static_cast<std::int32_t>(cursor_.take_le<std::uint32_t>()));
        return true;
      case Opcode::long1:
        push_long();
        return true;
      case Opcode::binfloat:
        push_node(PickleKind::real, cursor_.big_endian_bits());
        return true;
      case Opcode::short_binunicode:
        push_text(cursor_.take_le<std::uint8_t>());
        return true;
      case Opcode::binunicode:
        push_text(cursor_.take_le<std::uint32_t>());
        return true;
      case Opcode::binunicode8:
        push_text(cursor_.take_le<std::uint64_t>());
        return true;
      default:
        return false;
    }
  }

  void push_long() {
    if (is_metadata()) {
      push_long(cursor_.take_le<std::uint8_t>());
    } else {
      push_number(PickleKind::integer, cursor_.long_integer());
    }
  }
  void push_long(std::uint64_t count) {
    auto const value = PickleCursor::integer_of(cursor_.take(count));
    if (value) {
      push_number(PickleKind::integer, *value);
    } else {
      push_node(PickleKind::opaque, 0);
    }
  }

  void push_text(std::uint64_t length) {
    std::size_t const start = cursor_.at();
    ByteSpan const bytes = cursor_.take(length);
    if (bytes.size() > 0xfffffffeU || !is_utf8(as_text(bytes))) {
      cursor_.fail("the string is not UTF-8");
    }
    push({.kind = PickleKind::text,
          .link = static_cast<std::uint32_t>(bytes.size()),
          .low = static_cast<std::uint32_t>(start),
          .offset = op_at()});
  }

  // Containers.

  bool container(Opcode op) {
    switch (op) {
      case Opcode::mark:
        stack_.push_mark();
        return true;
      case Opcode::empty_tuple:
        push_tuple(stack_.start_of(0));
        return true;
      case Opcode::tuple1:
        push_tuple(stack_.start_of(1));
        return true;
      case Opcode::tuple2:
        push_tuple(stack_.start_of(2));
        return true;
      case Opcode::tuple3:
        push_tuple(stack_.start_of(3));
        return true;
      case Opcode::tuple:
        push_tuple(stack_.pop_mark());
        return true;
      case Opcode::empty_list:
        push_growing(PickleKind::list);
        return true;
      case Opcode::empty_dict:
        push_growing(PickleKind::dict);
        return true;
      case Opcode::append:
        grow(PickleKind::list, stack_.start_of(1));
        return true;
      case Opcode::appends:
        grow(PickleKind::list, stack_.pop_mark());
        return true;
      case Opcode::setitem:
        grow(PickleKind::dict, stack_.start_of(2));
        return true;
      case Opcode::setitems:
        grow(PickleKind::dict, stack_.pop_mark());
        return true;
      default:
        return false;
    }
  }

  void push_tuple(std::size_t start) {
    PickleRef const tuple = tree_.add_tuple(stack_.from(start), op_at());
    if (start < stack_.size()) {
      deepen(tuple, stack_.from(start));
    }
    stack_.cut(start);
    stack_.push(tuple);
  }

  /// What something inert would do with new members is not known; they are counted and left.
  void grow(PickleKind kind, std::size_t start) {
    std::span<PickleRef const> const members = stack_.from(start);
    PickleRef const target = stack_.below(start);
    bool const is_inert =
        target != no_pickle_ref && tree_.is(target, PickleKind::object, PickleGlobal::inert);
    if (target == no_pickle_ref || !(is_inert || tree_.is(target, kind))) {
      cursor_.fail(kind == PickleKind::list   ? "its target is not a list"
                   : kind == PickleKind::dict ? "its target is not a dict"
                                              : "its target is not a set");
    }
    if (kind == PickleKind::dict && members.size() % 2 != 0) {
      cursor_.fail("a key has no value");
    }
    deepen(target, members);
    if (!is_inert) {
      tree_.grow(target, members);
    }
    stack_.cut(start);
  }

  // Memo.

  bool memo(Opcode op) {
    switch (op) {
      case Opcode::binget:
        stack_.push_memo(cursor_.take_le<std::uint8_t>());
        return true;
      case Opcode::long_binget:
        stack_.push_memo(cursor_.take_le<std::uint32_t>());
        return true;
      case Opcode::binput:
        stack_.put_memo(cursor_.take_le<std::uint8_t>());
        return true;
      case Opcode::long_binput:
        stack_.put_memo(cursor_.take_le<std::uint32_t>());
        return true;
      case Opcode::memoize:
        stack_.put_memo();
        return true;
      case Opcode::frame:
        cursor_.read_frame();
        return true;
      default:
        return false;
    }
  }

  // What stands in `.metadata` and is needed nowhere.

  void push_bytes(std::uint64_t length) {
    static_cast<void>(cursor_.take(length));
    push_node(PickleKind::opaque, 0);
  }

  bool extra(Opcode op) {
    if (!is_metadata()) {
      return false;
    }
    switch (op) {
      case Opcode::short_binbytes:
        push_bytes(cursor_.take_le<std::uint8_t>());
        return true;
      case Opcode::binbytes:
        push_bytes(cursor_.take_le<std::uint32_t>());
        return true;
      case Opcode::binbytes8:
      case Opcode::bytearray8:
        push_bytes(cursor_.take_le<std::uint64_t>());
        return true;
      case Opcode::long4:
        push_long(cursor_.take_le<std::uint32_t>());
        return true;
      case Opcode::empty_set:
        push_growing(PickleKind::set);
        return true;
      case Opcode::additems:
        grow(PickleKind::set, stack_.pop_mark());
        return true;
      case Opcode::frozenset:
        push_frozenset(stack_.pop_mark());
        return true;
      default:
        return false;
    }
  }

  void push_frozenset(std::size_t start) {
    PickleRef const set = tree_.add_growing(PickleKind::set, op_at());
    deepen(set, stack_.from(start));
    tree_.grow(set, stack_.from(start));
    stack_.cut(start);
    stack_.push(set);
  }

  PickleCursor cursor_;
  std::size_t most_depth_;
  PickleDialect dialect_;
  PickleTree tree_;
  PickleStack stack_;
};

}  // namespace format::detail
}  // namespace v0
}  // namespace shardmesh
