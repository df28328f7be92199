// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/core/config.hpp>
#include <shardmesh/core/hash_index.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/state/any_tensor.hpp>
#include <shardmesh/state/live_sections.hpp>
#include <shardmesh/state/state_value.hpp>
#include <shardmesh/state/tensor_difference.hpp>
#include <shardmesh/state/visit.hpp>

namespace shardmesh {
inline namespace v0 {

/// Named tensors and plain values, nested as PyTorch nests them, in the order of insertion. Tensors
/// are handles: loading into a state dict writes the tensors that it was made of. So are the
/// hyper-parameters of an optimizer: a load sets them, a save writes what they are by then, whenever
/// the dict was made. Other plain values are the dict's own.
class StateDict {
 public:
  StateDict() = default;

  /// A nested dict: `StateDict{{"model", state_dict(net)}, {"optim", adam.state_dict()}}`.
  StateDict(std::initializer_list<std::pair<std::string, StateDict>> parts);

  /// A tensor that shares its local elements with one of the same layout that is there already is
  /// noted as its alias.
  /// @throws KeyError if two paths give the same key.
  void insert(std::vector<PathElement> path, StateValue value);
  /// Under a single name. (A template, so that `insert({"a", "b"}, x)` is a path and nothing else.)
  template <std::convertible_to<std::string_view> Name>
  void insert(Name const& name, StateValue value) {
    insert(std::vector<PathElement>{std::string(std::string_view(name))}, std::move(value));
  }

  /// Makes room for so many entries, so that none moves while they are inserted.
  void reserve(std::size_t entries) { entries_.reserve(entries); }

  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
  [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }
  using const_iterator = std::vector<StateEntry>::const_iterator;
  [[nodiscard]] const_iterator begin() const noexcept { return entries_.begin(); }
  [[nodiscard]] const_iterator end() const noexcept { return entries_.end(); }
  [[nodiscard]] bool contains(std::string const& key) const {
    return position_of(key) != detail::HashIndex::none;
  }

  /// @throws KeyError if there is no such key.
  [[nodiscard]] StateEntry const& at(std::string const& key) const;

  /// Lets whatever is done with the tensors, by a save or load as well, be done in the order of `stream`: that on
  /// which the user's own work writes and reads them.
  void order_on(AnyStream const& stream) {
    for (StateEntry& entry : entries_) {
      if (entry.is_tensor()) {
        entry.value = entry.value.ordered_on(stream);
      }
    }
  }

  /// Tied tensors: (name, first name of the same elements), in order. Each has its entry under both
  /// names. A rank without elements of a tensor does not see that it is tied.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> const& aliases() const noexcept {
    return aliases_;
  }

  /// Replaces a plain value; one of an optimizer is set there.
  /// @throws KeyError if there is no such key, or it holds a tensor; InvalidArgument if the optimizer
  ///         cannot have such a value.
  void set(std::string const& key, Value value);

 private:
  [[nodiscard]] std::size_t position_of(std::string const& key) const;

  /// @param last the last entry.
  void note_alias(StateEntry const& last);

  std::vector<StateEntry> entries_;
  detail::HashIndex index_;     // by key
  detail::HashIndex first_at_;  // by address of the elements: the first entry of each
  std::vector<std::pair<std::string, std::string>> aliases_;
};

namespace detail {

/// The dict with all values that its optimizers have by now and without those that they have no
/// longer: a load may bring options along that nobody had when the dict was made. Nothing if it is so
/// already.
template <class PlacesOf = PlacesNow>
[[nodiscard]] std::optional<StateDict> up_to_date(StateDict const& dict,
                                                  PlacesOf const& places_of = {}) {
  auto const has = [&dict](std::string const& key) { return dict.contains(key); };
  LiveChanges const changes = find_live_changes(dict, has, places_of);
  if (changes.added.size() == 0 && changes.gone.keys().empty()) {
    return std::nullopt;
  }
  StateDict result;
  for (StateEntry const& entry : dict) {
    if (!changes.gone.contains(entry.key)) {
      result.insert(entry.path, entry.value);
    }
    if (auto const* const added = changes.added.find(entry.key)) {
      for (auto const& [path, link] : *added) {
        result.insert(path, link);
      }
    }
  }
  return result;
}

template <class T>
[[nodiscard]] StateValue state_value(T const& leaf) {
  if constexpr (AnyTensorType<T>) {
    return AnyTensor(leaf);
  } else if constexpr (IsPlainList<T>::value) {
    Value::List list;
    for (typename T::value_type const& item : leaf) {
      list.emplace_back(item);
    }
    return Value(std::move(list));
  } else {
    return Value(leaf);
  }
}

}  // namespace detail

/// The state of a model: every leaf under its name. No communication; tensors are shared with the
/// model.
template <class Model>
[[nodiscard]] StateDict state_dict(Model& model) {
  StateDict dict;
  for_each_leaf(model, [&dict](std::string const& name, auto& leaf, Role role) {
    if (role != Role::transient) {
      dict.insert(name, detail::state_value(leaf));
    }
  });
  return dict;
}

/// The same state with every local part copied to host memory. Nothing but where the bytes live
/// changes; tied tensors stay tied. Plain values are copies, too. No communication.
/// @tparam Dict  `StateDict`; a template, so that it is compiled only where it is called.
template <class Dict = StateDict>
[[nodiscard]] Dict offloaded(StateDict const& dict);

/// In what two state dicts differ, in words; empty if in nothing. Keys must stand in the same order.
[[nodiscard]] SHARDMESH_INLINE std::string difference(StateDict const& a, StateDict const& b);

}  // namespace v0
}  // namespace shardmesh

#if SHARDMESH_WITH_BODIES
#include <shardmesh/state/detail/state_dict_bodies.hpp>
#endif
