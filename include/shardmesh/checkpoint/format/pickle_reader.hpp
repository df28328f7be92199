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

#include <shardmesh/checkpoint/format/budget.hpp>
#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/pickle_calls.hpp>
#include <shardmesh/checkpoint/format/pickle_cursor.hpp>
#include <shardmesh/checkpoint/format/pickle_inert.hpp>
#include <shardmesh/checkpoint/format/pickle_opcodes.hpp>
#include <shardmesh/checkpoint/format/pickle_stack.hpp>
#include <shardmesh/checkpoint/format/pickle_tree.hpp>
#include <shardmesh/checkpoint/format/pickle_values.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// What may be made of a pickle of so many bytes: its values, and then what is read out of them. A description
/// of a checkpoint is terse, with a byte or two for what takes sixteen here; an honest one of more than a few
/// MiB needs up to seven times its size.
[[nodiscard]] constexpr std::uint64_t memory_of(PickleDialect dialect,
                                                std::uint64_t pickle) noexcept {
  std::uint64_t const most = memory_for(pickle);
  return dialect == PickleDialect::metadata ? std::max(most, 10 * pickle) : most;
}

namespace detail {

/// The machine. Values are numbers into a `PickleTree`; a global is an entry of a closed table, and
/// nothing is ever looked up, imported or run. What is made of globals outside the table (in `.metadata`
/// alone) is inert: a name, of which nothing can be asked.
class PickleMachine {
 public:
  PickleMachine(ByteSpan pickle,
                PickleDialect dialect,
                std::string const& path,
                std::uint64_t position,
                PickleLimits const& limits)
      : values_(pickle, dialect, path, position, limits),
        cursor_(values_.cursor()),
        stack_(values_.stack()),
        tree_(values_.tree()),
        arena_bytes_(std::min(limits.arena_bytes, memory_of(dialect, pickle.size()))),
        dialect_(dialect) {}
  PickleMachine(PickleMachine const&) = delete;
  PickleMachine& operator=(PickleMachine const&) = delete;
  ~PickleMachine() = default;

  [[nodiscard]] PickleTree run() && {
    cursor_.read_protocol();
    for (Opcode op = cursor_.next(); op != Opcode::stop; op = cursor_.next()) {
      if (!values_.run(op) && !construct(op)) {
        refuse("this opcode is not allowed here");
      }
      if (values_.bytes() > arena_bytes_) {
        throw PickleTooLarge(cursor_.path(), cursor_.position(),
                             cursor_.located("the values need more memory than allowed"));
      }
    }
    PickleRef const root = stack_.only();
    if (cursor_.remaining() != 0) {
      fail(std::to_string(cursor_.remaining()) + " bytes follow the end of the pickle");
    }
    tree_.set_root(root);
    return std::move(tree_);
  }

 private:
  [[noreturn]] void fail(std::string const& what) const { cursor_.fail(what); }
  [[noreturn]] void refuse(std::string const& what) const { cursor_.refuse(what); }

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
      case Opcode::newobj_ex:
        if (!values_.is_metadata()) {
          return false;
        }
        new_object_ex();
        return true;
      case Opcode::binpersid:
        if (dialect_ != PickleDialect::tensor) {
          return false;
        }
        push_link(PickleKind::persistent, PickleGlobal::none, stack_.pop());
        return true;
      default:
        return false;
    }
  }

  void push_link(PickleKind kind, PickleGlobal global, PickleRef link) {
    PickleRef const ref =
        tree_.add({.kind = kind, .global = global, .link = link, .offset = values_.op_at()});
    if (link != no_pickle_ref) {
      values_.deepen(ref, std::array{link});
    }
    stack_.push(ref);
  }

  void read_global() {
    std::string_view const module = cursor_.line();
    push_global(module, cursor_.line());
  }

  void stack_global() {
    PickleRef const name = stack_.pop();
    PickleRef const module = stack_.pop();
    if (!tree_.is(name, PickleKind::text) || !tree_.is(module, PickleKind::text)) {
      fail("a global needs two strings");
    }
    push_global(tree_.text(module), tree_.text(name));
  }

  void push_global(std::string_view module, std::string_view name) {
    auto [global, dtype] = find_global(dialect_, module, name);
    if (global == PickleGlobal::none && values_.is_metadata() && is_inert_global(module, name)) {
      global = PickleGlobal::inert;
    }
    if (global == PickleGlobal::none) {
      refuse("the global \"" + escaped(module) + "." + escaped(name) + "\" is not allowed");
    }
    PickleNode const node{
        .kind = PickleKind::global, .global = global, .dtype = dtype, .offset = values_.op_at()};
    bool const needs_name =
        global == PickleGlobal::inert || global == PickleGlobal::unsupported_dtype;
    stack_.push(needs_name ? tree_.add_named(node, module, name) : tree_.add(node));
  }

  void new_object() {
    PickleRef const arguments = stack_.pop();
    PickleRef const callee = stack_.pop();
    PickleGlobal const global = tree_.node(callee).global;
    if (tree_.is(callee, PickleKind::global, PickleGlobal::inert) &&
        tree_.is(arguments, PickleKind::tuple)) {
      push_inert(callee, std::array{arguments});
      return;
    }
    if (!tree_.is(callee, PickleKind::global) || !is_dataclass(global) ||
        !tree_.is(arguments, PickleKind::tuple) || !tree_.items(arguments).empty()) {
      refuse("only metadata classes may be made, and without arguments");
    }
    push_link(PickleKind::object, global, no_pickle_ref);
  }

  void build() {
    PickleRef const state = stack_.pop();
    PickleRef const object = stack_.top();
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
        global == PickleGlobal::inert ? true
        : global == PickleGlobal::tensor_properties
            ? tree_.is(state, PickleKind::tuple) && tree_.items(state).size() >= 5 &&
                  tree_.items(state).size() <= 6  // the sixth, since torch 2.15: strides
        : global == PickleGlobal::bytes_storage_metadata
            ? tree_.is(state, PickleKind::none) || (is_dict && tree_.items(state).empty())
            : is_dict;
    if (!fits) {
      fail("the state does not fit the class");
    }
    tree_.set_state(object, state);
    values_.deepen(object, std::array{state});
  }

  /// A dtype of numpy gets its byte order.
  void build_dtype(PickleRef dtype, PickleRef state) {
    if (!is_numpy_dtype_state(tree_, state)) {
      refuse("only a dtype of numbers may be given a state");
    }
    tree_.set_number(dtype, tree_.text(tree_.items(state)[1]) == ">" ? 1 : 0);
  }

  void reduce() {
    PickleRef const arguments = stack_.pop();
    PickleRef const callee = stack_.pop();
    if (tree_.is_inert(callee) && tree_.is(arguments, PickleKind::tuple)) {
      push_inert(callee, std::array{arguments});
      return;
    }
    if (!tree_.is(callee, PickleKind::global) || !tree_.is(arguments, PickleKind::tuple)) {
      refuse("only a known function may be called, with a tuple of arguments");
    }
    PickleGlobal const global = tree_.node(callee).global;
    if (is_inert_attribute(tree_, global, tree_.items(arguments))) {
      push_inert(tree_.items(arguments)[0], {});
      return;
    }
    if (!may_call(tree_, global, tree_.items(arguments))) {
      refuse("this call is not allowed");
    }
    if (global == PickleGlobal::ordered_dict) {
      values_.push_growing(PickleKind::dict);
    } else {
      bool const by_name = global == PickleGlobal::get_attribute;
      push_link(PickleKind::call, by_name ? PickleGlobal::memory_format : global, arguments);
    }
  }

  /// Something that is made of `of`, which is inert, and of `parts`.
  void push_inert(PickleRef of, std::span<PickleRef const> parts) {
    PickleRef const ref = tree_.add({.kind = PickleKind::object,
                                     .global = PickleGlobal::inert,
                                     .link = no_pickle_ref,
                                     .low = tree_.node(of).low,
                                     .offset = values_.op_at()});
    values_.deepen(ref, parts);
    stack_.push(ref);
  }

  void new_object_ex() {
    PickleRef const keywords = stack_.pop();
    PickleRef const arguments = stack_.pop();
    PickleRef const callee = stack_.pop();
    if (!tree_.is(callee, PickleKind::global, PickleGlobal::inert) ||
        !tree_.is(arguments, PickleKind::tuple) || !tree_.is(keywords, PickleKind::dict)) {
      refuse("only metadata classes may be made, and without arguments");
    }
    push_inert(callee, std::array{arguments, keywords});
  }

  PickleValues values_;
  PickleCursor& cursor_;
  PickleStack& stack_;
  PickleTree& tree_;
  std::uint64_t arena_bytes_;
  PickleDialect dialect_;
};

}  // namespace detail

/// Reads a pickle as `dialect` allows. Nothing is run; what comes back views into `pickle`.
/// @param path      of the file, and
/// @param position  of the pickle in it, for error messages.
/// @throws CorruptError (PickleRefused for what is well-formed but not allowed, PickleTooLarge for what would
///         take more memory than `memory_of` its size).
[[nodiscard]] inline PickleTree read_pickle(ByteSpan pickle,
                                            PickleDialect dialect,
                                            std::string const& path = "(memory)",
                                            std::uint64_t position = 0,
                                            PickleLimits const& limits = {}) {
  if (pickle.size() > most_pickle_bytes) {
    throw PickleTooLarge(path, position,
                         "shardmesh::read_pickle: the pickle has " + std::to_string(pickle.size()) +
                             " bytes; at most " + std::to_string(most_pickle_bytes) +
                             " are read [" + path + ", byte " + std::to_string(position) + "]");
  }
  return detail::PickleMachine(pickle, dialect, path, position, limits).run();
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
