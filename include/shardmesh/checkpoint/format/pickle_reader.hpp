// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/pickle_calls.hpp>
#include <shardmesh/checkpoint/format/pickle_cursor.hpp>
#include <shardmesh/checkpoint/format/pickle_opcodes.hpp>
#include <shardmesh/checkpoint/format/pickle_tree.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

namespace detail {

/// The machine. Values are numbers into a `PickleTree`; a global is an entry of a closed table, and
/// nothing is ever looked up, imported or run.
class PickleMachine {
 public:
  PickleMachine(ByteSpan pickle,
                PickleDialect dialect,
                std::string const& path,
                std::uint64_t position,
                PickleLimits const& limits)
      : cursor_(pickle, path, position, limits.opcodes),
        most_memo_(std::min<std::uint64_t>(limits.memo_entries, pickle.size())),
        arena_bytes_(limits.arena_bytes),
        most_depth_(std::min<std::size_t>(limits.depth, 255)),
        dialect_(dialect),
        tree_(pickle) {}

  [[nodiscard]] PickleTree run() && {
    cursor_.read_protocol();
    for (Opcode op = cursor_.next(); op != Opcode::stop; op = cursor_.next()) {
      if (!literal(op) && !container(op) && !memo(op) && !construct(op)) {
        refuse("this opcode is not allowed here");
      }
      if (tree_.arena_bytes() > arena_bytes_) {
        fail("the values need more memory than allowed");
      }
    }
    if (stack_.size() != 1 || !marks_.empty()) {
      fail("the pickle leaves " + std::to_string(stack_.size()) + " values instead of one");
    }
    if (cursor_.remaining() != 0) {
      fail(std::to_string(cursor_.remaining()) + " bytes follow the end of the pickle");
    }
    tree_.set_root(stack_.front());
    return std::move(tree_);
  }

 private:
  [[noreturn]] void fail(std::string const& what) const { cursor_.fail(what); }
  [[noreturn]] void refuse(std::string const& what) const { cursor_.refuse(what); }

  // Stack.

  void push(PickleRef ref) { stack_.push_back(ref); }
  void push_node(PickleKind kind, std::int64_t payload) {
    push(tree_.add({.kind = kind, .payload = payload, .offset = cursor_.op_at()}));
  }
  [[nodiscard]] PickleRef top() const {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) {
      fail("the stack has no value for it");
    }
    return stack_.back();
  }
  PickleRef pop() {
    PickleRef const ref = top();
    stack_.pop_back();
    return ref;
  }
  /// Where the values after the topmost mark start; removes the mark.
  [[nodiscard]] std::size_t pop_mark() {
    if (marks_.empty()) {
      fail("no MARK is on the stack");
    }
    std::size_t const start = marks_.back();
    marks_.pop_back();
    return start;
  }
  [[nodiscard]] std::span<PickleRef const> above(std::size_t start) const {
    return std::span<PickleRef const>(stack_).subspan(start);
  }

  // Literals.

  bool literal(Opcode op) {
    switch (op) {
      case Opcode::none:
        push_node(PickleKind::none, 0);
        return true;
      case Opcode::newtrue:
        push_node(PickleKind::boolean, 1);
        return true;
      case Opcode::newfalse:
        push_node(PickleKind::boolean, 0);
        return true;
      case Opcode::binint1:
        push_node(PickleKind::integer, cursor_.take_le<std::uint8_t>());
        return true;
      case Opcode::binint2:
        push_node(PickleKind::integer, cursor_.take_le<std::uint16_t>());
        return true;
      case Opcode::binint:
        push_node(PickleKind::integer, static_cast<std::int32_t>(cursor_.take_le<std::uint32_t>()));
        return true;
      case Opcode::long1:
        push_node(PickleKind::integer, cursor_.long_integer());
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

  void push_text(std::uint64_t length) {
    std::size_t const start = cursor_.at();
    ByteSpan const bytes = cursor_.take(length);
    if (bytes.size() > 0xfffffffeU || !is_utf8(as_text(bytes))) {
      fail("the string is not UTF-8");
    }
    push(tree_.add({.kind = PickleKind::text,
                    .link = static_cast<std::uint32_t>(bytes.size()),
                    .payload = static_cast<std::int64_t>(start),
                    .offset = cursor_.op_at()}));
  }

  // Containers.

  bool container(Opcode op) {
    switch (op) {
      case Opcode::mark:
        push_mark();
        return true;
      case Opcode::empty_tuple:
        push_tuple(stack_.size());
        return true;
      case Opcode::tuple1:
        push_tuple(checked_start(1));
        return true;
      case Opcode::tuple2:
        push_tuple(checked_start(2));
        return true;
      case Opcode::tuple3:
        push_tuple(checked_start(3));
        return true;
      case Opcode::tuple:
        push_tuple(pop_mark());
        return true;
      case Opcode::empty_list:
        push(tree_.add_growing(PickleKind::list, cursor_.op_at()));
        return true;
      case Opcode::empty_dict:
        push(tree_.add_growing(PickleKind::dict, cursor_.op_at()));
        return true;
      case Opcode::append:
        grow(PickleKind::list, checked_start(1));
        return true;
      case Opcode::appends:
        grow(PickleKind::list, pop_mark());
        return true;
      case Opcode::setitem:
        grow(PickleKind::dict, checked_start(2));
        return true;
      case Opcode::setitems:
        grow(PickleKind::dict, pop_mark());
        return true;
      default:
        return false;
    }
  }

  void push_mark() {
    if (marks_.size() >= most_depth_) {
      fail("MARKs are nested deeper than " + std::to_string(most_depth_));
    }
    marks_.push_back(stack_.size());
  }

  /// Where the topmost `count` values start.
  [[nodiscard]] std::size_t checked_start(std::size_t count) const {
    std::size_t const floor = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() - floor < count) {
      fail("the stack has fewer than " + std::to_string(count) + " values for it");
    }
    return stack_.size() - count;
  }

  /// Makes `ref` as deep as its new members ask.
  void deepen(PickleRef ref, std::span<PickleRef const> members) {
    std::size_t depth = tree_.node(ref).depth;
    for (PickleRef const member : members) {
      depth = std::max<std::size_t>(depth, tree_.node(member).depth + 1U);
    }
    if (depth > most_depth_) {
      fail("values are nested deeper than " + std::to_string(most_depth_));
    }
    tree_.set_depth(ref, static_cast<std::uint8_t>(depth));
  }

  void push_tuple(std::size_t start) {
    PickleRef const tuple = tree_.add_tuple(above(start), cursor_.op_at());
    deepen(tuple, above(start));
    stack_.resize(start);
    push(tuple);
  }

  void grow(PickleKind kind, std::size_t start) {
    std::span<PickleRef const> const members = above(start);
    std::size_t const floor = marks_.empty() ? 0 : marks_.back();
    if (start <= floor || !tree_.is(stack_[start - 1], kind)) {
      fail(kind == PickleKind::list ? "its target is not a list" : "its target is not a dict");
    }
    if (kind == PickleKind::dict && members.size() % 2 != 0) {
      fail("a key has no value");
    }
    deepen(stack_[start - 1], members);
    tree_.grow(stack_[start - 1], members);
    stack_.resize(start);
  }

  // Memo.

  bool memo(Opcode op) {
    switch (op) {
      case Opcode::binget:
        push_memo(cursor_.take_le<std::uint8_t>());
        return true;
      case Opcode::long_binget:
        push_memo(cursor_.take_le<std::uint32_t>());
        return true;
      case Opcode::binput:
        put_memo(cursor_.take_le<std::uint8_t>());
        return true;
      case Opcode::long_binput:
        put_memo(cursor_.take_le<std::uint32_t>());
        return true;
      case Opcode::memoize:
        put_memo(memo_count_);
        return true;
      case Opcode::frame:
        cursor_.read_frame();
        return true;
      default:
        return false;
    }
  }

  void push_memo(std::size_t index) {
    if (index >= memo_.size() || memo_[index] == no_pickle_ref) {
      fail("memo entry " + std::to_string(index) + " was never set");
    }
    push(memo_[index]);
  }

  void put_memo(std::size_t index) {
    if (index >= most_memo_) {
      fail("memo entry " + std::to_string(index) + " lies beyond what is allowed");
    }
    if (index >= memo_.size()) {
      memo_.resize(index + 1, no_pickle_ref);
    }
    PickleRef const value = top();
    memo_count_ += memo_[index] == no_pickle_ref ? 1U : 0U;
    memo_[index] = value;
  }

  // Globals, calls and objects.

  bool construct(Opcode op) {
    switch (op) {
      case Opcode::global:
        read_global();
        return true;
      case Opcode::stack_global:
        stack_global();
        return true;
      case Opcode::newobj:
        new_object();
        return true;
      case Opcode::reduce:
        reduce();
        return true;
      case Opcode::build:
        build();
        return true;
      case Opcode::binpersid:
        if (dialect_ != PickleDialect::tensor) {
          return false;
        }
        push_link(PickleKind::persistent, PickleGlobal::none, pop());
        return true;
      default:
        return false;
    }
  }

  void push_link(PickleKind kind, PickleGlobal global, PickleRef link) {
    PickleRef const ref =
        tree_.add({.kind = kind, .global = global, .link = link, .offset = cursor_.op_at()});
    if (link != no_pickle_ref) {
      deepen(ref, std::array{link});
    }
    push(ref);
  }

  void read_global() {
    std::string_view const module = cursor_.line();
    push_global(module, cursor_.line());
  }

  void stack_global() {
    PickleRef const name = pop();
    PickleRef const module = pop();
    if (!tree_.is(name, PickleKind::text) || !tree_.is(module, PickleKind::text)) {
      fail("a global needs two strings");
    }
    push_global(tree_.text(module), tree_.text(name));
  }

  void push_global(std::string_view module, std::string_view name) {
    auto const [global, dtype] = find_global(dialect_, module, name);
    if (global == PickleGlobal::none) {
      refuse("the global \"" + escaped(module) + "." + escaped(name) + "\" is not allowed");
    }
    push(tree_.add(
        {.kind = PickleKind::global, .global = global, .dtype = dtype, .offset = cursor_.op_at()}));
  }

  void new_object() {
    PickleRef const arguments = pop();
    PickleRef const callee = pop();
    PickleGlobal const global = tree_.node(callee).global;
    if (!tree_.is(callee, PickleKind::global) || !is_dataclass(global) ||
        !tree_.is(arguments, PickleKind::tuple) || !tree_.items(arguments).empty()) {
      refuse("only metadata classes may be made, and without arguments");
    }
    push_link(PickleKind::object, global, no_pickle_ref);
  }

  void build() {
    PickleRef const state = pop();
    PickleRef const object = top();
    if (tree_.is(object, PickleKind::call, PickleGlobal::numpy_dtype)) {
      build_dtype(object, state);
      return;
    }
    if (!tree_.is(object, PickleKind::object) || tree_.state(object) != no_pickle_ref) {
      refuse("only a metadata object may be given a state, and once");
    }
    PickleGlobal const global = tree_.node(object).global;
    bool const is_dict = tree_.is(state, PickleKind::dict);
    bool const fits =
        global == PickleGlobal::tensor_properties
            ? tree_.is(state, PickleKind::tuple) && tree_.items(state).size() >= 5 &&
                  tree_.items(state).size() <= 6  // the sixth, since torch 2.15: strides
        : global == PickleGlobal::bytes_storage_metadata
            ? tree_.is(state, PickleKind::none) || (is_dict && tree_.items(state).empty())
            : is_dict;
    if (!fits) {
      fail("the state does not fit the class");
    }
    tree_.set_state(object, state);
    deepen(object, std::array{state});
  }

  /// A dtype of numpy gets its byte order.
  void build_dtype(PickleRef dtype, PickleRef state) {
    if (!is_numpy_dtype_state(tree_, state)) {
      refuse("only a dtype of numbers may be given a state");
    }
    tree_.set_payload(dtype, tree_.text(tree_.items(state)[1]) == ">" ? 1 : 0);
  }

  void reduce() {
    PickleRef const arguments = pop();
    PickleRef const callee = pop();
    if (!tree_.is(callee, PickleKind::global) || !tree_.is(arguments, PickleKind::tuple)) {
      refuse("only a known function may be called, with a tuple of arguments");
    }
    PickleGlobal const global = tree_.node(callee).global;
    if (!may_call(tree_, global, tree_.items(arguments))) {
      refuse("this call is not allowed");
    }
    if (global == PickleGlobal::ordered_dict) {
      push(tree_.add_growing(PickleKind::dict, cursor_.op_at()));
    } else {
      bool const by_name = global == PickleGlobal::get_attribute;
      push_link(PickleKind::call, by_name ? PickleGlobal::memory_format : global, arguments);
    }
  }

  PickleCursor cursor_;
  std::uint64_t
      most_memo_;  // no more entries than bytes: a small file cannot ask for a large table
  std::uint64_t arena_bytes_;
  std::size_t most_depth_;
  PickleDialect dialect_;
  PickleTree tree_;
  std::vector<PickleRef> stack_;
  std::vector<std::size_t> marks_;
  std::vector<PickleRef> memo_;
  std::size_t memo_count_ = 0;
};

}  // namespace detail

/// Reads a pickle as `dialect` allows. Nothing is run; what comes back views into `pickle`.
/// @param path      of the file, and
/// @param position  of the pickle in it, for error messages.
/// @throws CorruptError (PickleRefused for what is well-formed but not allowed).
[[nodiscard]] inline PickleTree read_pickle(ByteSpan pickle,
                                            PickleDialect dialect,
                                            std::string const& path = "(memory)",
                                            std::uint64_t position = 0,
                                            PickleLimits const& limits = {}) {
  return detail::PickleMachine(pickle, dialect, path, position, limits).run();
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
