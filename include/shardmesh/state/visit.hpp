// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/core/value.hpp>
#include <shardmesh/state/reflect.hpp>
#include <shardmesh/state/role.hpp>
#include <shardmesh/tensor/local_part.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Stands in for any visitor where a concept must ask whether a type can be visited.
struct ProbeVisitor {
  template <class T>
  void operator()(std::string_view, T&&) const {}
};

template <class T>
concept HasVisitMember = requires(T& value, ProbeVisitor& visitor) { value.visit(visitor); };

template <class T>
concept HasVisitFunction = requires(T& value, ProbeVisitor& visitor) { visit(value, visitor); };

template <class T>
struct IsVector : std::false_type {};
template <class T, class Allocator>
struct IsVector<std::vector<T, Allocator>> : std::true_type {};

template <class T>
struct IsArray : std::false_type {};
template <class T, std::size_t N>
struct IsArray<std::array<T, N>> : std::true_type {};

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

template <class T>
struct IsOwner : std::false_type {};
template <class T, class Deleter>
struct IsOwner<std::unique_ptr<T, Deleter>> : std::true_type {};
template <class T>
struct IsOwner<std::shared_ptr<T>> : std::true_type {};

/// A sorted map with string keys: its order is the same on every rank.
template <class T>
concept SortedMap = std::same_as<typename T::key_type, std::string> &&
                    requires { typename T::mapped_type; } && requires { typename T::key_compare; };

template <class T>
concept TupleLike = requires { std::tuple_size<T>::value; } && !IsArray<T>::value;

template <class T>
concept NumberOrText = std::integral<T> || std::floating_point<T> || std::same_as<T, std::string>;

template <class T>
struct IsPlainList : std::false_type {};
template <NumberOrText T, class Allocator>
struct IsPlainList<std::vector<T, Allocator>> : std::true_type {};

}  // namespace detail

/// A user's struct that opted in: it has a member `template <class V> void visit(V&& v)`, or a
/// function `visit(x, v)` found by its namespace, that calls `v("name", member)` for each member; or
/// it is an aggregate that lists the names of its members (`Reflected`).
template <class T>
concept Visitable =
    detail::HasVisitMember<std::remove_reference_t<T>> ||
    detail::HasVisitFunction<std::remove_reference_t<T>> || Reflected<std::remove_reference_t<T>>;

namespace detail {

/// A struct that can be visited, const or not: what models are taken as, so that one which must not be const is told so
/// and not that it has no `visit`.
template <class T>
concept ModelType = Visitable<T> || Visitable<std::remove_const_t<T>>;

/// Const, and the `visit` of its type is not.
template <class T>
concept VisitableButForConst = !Visitable<T> && Visitable<std::remove_const_t<T>>;

}  // namespace detail

/// A leaf of a model: a tensor, or a plain value: a number, a string, a vector of such, a `Value`.
template <class T>
concept StateLeaf = AnyTensorType<T> || detail::NumberOrText<std::remove_cvref_t<T>> ||
                    detail::IsPlainList<std::remove_cvref_t<T>>::value ||
                    std::same_as<std::remove_cvref_t<T>, Value>;

/// Calls `visitor(name, member)` for each member of a visitable value.
template <Visitable T, class Visitor>
void visit_members(T& value, Visitor& visitor) {
  if constexpr (detail::HasVisitMember<T>) {
    value.visit(visitor);
  } else if constexpr (detail::HasVisitFunction<T>) {
    visit(value, visitor);
  } else {
    for_each_member(value, visitor);
  }
}

namespace detail {

/// Descends through structs, sequences, maps, optionals and owning pointers; names are joined with
/// dots.
template <class F>
class LeafWalker {
 public:
  /// @param prefix  of all names: empty, or a path with its dot.
  LeafWalker(std::string prefix, Role role, F& f)
      : prefix_(std::move(prefix)), role_(role), f_(&f) {}

  template <class T>
  void operator()(std::string_view name, T& value) const {
    walk(prefix_ + std::string(name), value);
  }
  template <class T>
  void operator()(std::string_view name, Tagged<T> const& tagged) const {
    LeafWalker(prefix_, tagged.role, *f_)(name, *tagged.value);
  }

 private:
  template <class T>
  void walk(std::string const& path, T& value) const {
    using Plain = std::remove_cv_t<T>;
    if constexpr (StateLeaf<Plain>) {
      if constexpr (std::is_invocable_v<F&, std::string const&, T&, Role>) {
        (*f_)(path, value, role_);
      } else {
        (*f_)(path, value);
      }
    } else if constexpr (IsVector<Plain>::value || IsArray<Plain>::value) {
      for (std::size_t i = 0; i < value.size(); ++i) {
        walk(path + "." + std::to_string(i), value[i]);
      }
    } else if constexpr (SortedMap<Plain>) {
      for (auto& [key, member] : value) {
        walk(path + "." + key, member);
      }
    } else if constexpr (TupleLike<Plain>) {
      std::size_t i = 0;
      std::apply([&](auto&... members) { (walk(path + "." + std::to_string(i++), members), ...); },
                 value);
    } else if constexpr (IsOptional<Plain>::value || IsOwner<Plain>::value) {
      if (value) {
        walk(path, *value);
      }
    } else {
      static_assert(!VisitableButForConst<T>,
                    "shardmesh::for_each_leaf: this member is const here, and the visit() of its "
                    "struct is not; pass a model that is not const, or declare the visit() of "
                    "both const (members are then only read)");
      static_assert(ModelType<T>,
                    "shardmesh::for_each_leaf: this member is neither a tensor, a number, a "
                    "string, a vector, an optional or owning pointer of such, nor a struct with a "
                    "visit() or member_names; add `template <class V> void visit(V&& v) { "
                    "v(\"name\", name); }`");
      if constexpr (Visitable<T>) {
        LeafWalker inner(path + ".", role_, *f_);
        visit_members(value, inner);
      }
    }
  }

  std::string prefix_;
  Role role_;
  F* f_;
};

}  // namespace detail

/// Calls `f(name, leaf)`, or `f(name, leaf, role)`, for every leaf of a model, in the order in which
/// its structs name their members; names of nested members are joined with dots ("net1.0.weight"),
/// elements of vectors, arrays and tuples are numbered, those of a map named by their keys; empty
/// optionals and pointers are passed over.
template <class Model, class F>
void for_each_leaf(Model& model, F&& f) {
  static_assert(
      !detail::VisitableButForConst<Model>,
      "shardmesh::for_each_leaf: the model is const, and its visit() is not; pass a model "
      "that is not const, or declare `template <class V> void visit(V&& v) const` (its "
      "members are then only read)");
  static_assert(detail::ModelType<Model>,
                "shardmesh::for_each_leaf: the model has no visit(); add `template <class V> void "
                "visit(V&& v) { v(\"name\", name); }` to the struct");
  if constexpr (Visitable<Model>) {
    detail::LeafWalker<std::remove_reference_t<F>> walker("", Role::parameter, f);
    visit_members(model, walker);
  }
}

}  // namespace v0
}  // namespace shardmesh
