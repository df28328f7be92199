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
#include <shardmesh/checkpoint/format/pickle_reader.hpp>
#include <shardmesh/checkpoint/format/pickle_tree.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format::detail {

/// Reads a pickle's values with the types that a schema expects, each where the schema has it; the
/// graph itself is never walked, so shared and circular references do no harm.
class PickleSchema {
 public:
  /// @param tree  must outlive the schema.
  PickleSchema(PickleTree const& tree, std::string path, std::uint64_t position, std::string who)
      : tree_(&tree),
        path_(std::move(path)),
        position_(position),
        who_(std::move(who)),
        budget_(memory_of(PickleDialect::metadata, tree.pickle_bytes()) -
                std::min(tree.arena_bytes(),
                         memory_of(PickleDialect::metadata, tree.pickle_bytes()))) {}

  [[nodiscard]] PickleTree const& tree() const noexcept { return *tree_; }

  /// What to say of a value that is not what is needed: the class of one that means nothing here.
  [[nodiscard]] std::string misfit(PickleRef ref, std::string const& otherwise) const {
    return ref != no_pickle_ref && tree_->is_inert(ref)
               ? " is made of " + escaped(tree_->name(ref)) + ", of which nothing is known"
               : otherwise;
  }

  [[noreturn]] void fail(PickleRef at, std::string const& what) const {
    std::uint64_t const offset = position_ + (at == no_pickle_ref ? 0 : tree_->node(at).offset);
    throw CorruptError(path_, offset, located(offset, what));
  }
  [[noreturn]] void unsupported(PickleRef at, std::string const& what) const {
    throw UnsupportedError(located(position_ + tree_->node(at).offset, what));
  }

  /// Notes that the result grows by `bytes`. A pickle can name one value a million times; what is
  /// made of it stays in proportion to the pickle.
  void charge(PickleRef at, std::uint64_t bytes) {
    if (!budget_.take(bytes)) {
      fail(at, "the values shared in this file would expand beyond all proportion");
    }
  }

  [[nodiscard]] std::string_view text(PickleRef ref, char const* what) const {
    return tree_->text(expect(ref, PickleKind::text, what));
  }

  /// Not negative.
  [[nodiscard]] std::int64_t integer(PickleRef ref, char const* what) const {
    std::int64_t const value = tree_->integer(expect(ref, PickleKind::integer, what));
    if (value < 0) {
      fail(ref, std::string(what) + " is negative");
    }
    return value;
  }

  [[nodiscard]] std::span<PickleRef const> items(PickleRef ref,
                                                 PickleKind kind,
                                                 char const* what) const {
    return tree_->items(expect(ref, kind, what));
  }

  /// Integers of a tuple or list, as a shape.
  [[nodiscard]] Shape sizes(PickleRef ref, char const* what) const {
    if (ref == no_pickle_ref ||
        (!tree_->is(ref, PickleKind::tuple) && !tree_->is(ref, PickleKind::list))) {
      fail(ref, std::string(what) + misfit(ref, " is not a tuple of integers"));
    }
    std::span<PickleRef const> const members = tree_->items(ref);
    if (members.size() > 64) {
      fail(ref, std::string(what) + " has more than 64 dimensions");
    }
    if (members.size() > max_rank) {
      unsupported(ref, std::string(what) + " has " + std::to_string(members.size()) +
                           " dimensions; at most 8 are supported");
    }
    Shape shape;
    for (PickleRef const member : members) {
      shape.push_back(integer(member, what));
    }
    return shape;
  }

  /// How many dimensions a torch.Size has; 0 for anything else.
  [[nodiscard]] std::size_t rank_of(PickleRef ref) const {
    bool const is_size =
        ref != no_pickle_ref && tree_->is(ref, PickleKind::call, PickleGlobal::torch_size);
    return is_size ? tree_->items(tree_->arguments(ref)[0]).size() : 0;
  }

  /// A torch.Size.
  [[nodiscard]] Shape torch_size(PickleRef ref, char const* what) const {
    if (ref == no_pickle_ref || !tree_->is(ref, PickleKind::call, PickleGlobal::torch_size)) {
      fail(ref, std::string(what) + misfit(ref, " is not a torch.Size"));
    }
    return sizes(tree_->arguments(ref)[0], what);
  }

  /// The named members of an object's state, `no_pickle_ref` where missing; others are ignored.
  template <std::size_t N>
  [[nodiscard]] std::array<PickleRef, N> members(PickleRef object,
                                                 PickleGlobal type,
                                                 std::array<std::string_view, N> const& names,
                                                 char const* what) const {
    if (object == no_pickle_ref || !tree_->is(object, PickleKind::object, type) ||
        tree_->state(object) == no_pickle_ref) {
      fail(object, std::string(what) + misfit(object, " is not an object of its class"));
    }
    std::span<PickleRef const> const pairs =
        items(tree_->state(object), PickleKind::dict, "the state of an object");
    if (pairs.size() > 128) {
      fail(object, std::string(what) + " has too many members");
    }
    std::array<PickleRef, N> found;
    found.fill(no_pickle_ref);
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      std::string_view const key = text(pairs[i], "the name of a member");
      for (std::size_t k = 0; k < N; ++k) {
        if (key == names[k]) {
          if (found[k] != no_pickle_ref) {
            fail(pairs[i], std::string(what) + " has the member " + escaped(key) + " twice");
          }
          found[k] = pairs[i + 1];
        }
      }
    }
    return found;
  }

  /// Is the value missing or None?
  [[nodiscard]] bool is_none(PickleRef ref) const noexcept {
    return ref == no_pickle_ref || tree_->is(ref, PickleKind::none);
  }

 private:
  [[nodiscard]] PickleRef expect(PickleRef ref, PickleKind kind, char const* what) const {
    if (ref == no_pickle_ref || !tree_->is(ref, kind)) {
      fail(ref, std::string(what) +
                    (ref == no_pickle_ref ? " is missing" : misfit(ref, " has another type")));
    }
    return ref;
  }

  [[nodiscard]] std::string located(std::uint64_t offset, std::string const& what) const {
    return who_ + ": " + what + " [" + path_ + ", byte " + std::to_string(offset) + "]";
  }

  PickleTree const* tree_;
  std::string path_;
  std::uint64_t position_;
  std::string who_;
  Budget budget_;
};

}  // namespace format::detail
}  // namespace v0
}  // namespace shardmesh
