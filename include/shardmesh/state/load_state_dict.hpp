// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/state/detail/load_check.hpp>
#include <shardmesh/state/detail/load_move.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/model_value.hpp>
#include <shardmesh/state/options.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// What a plain member of a model is going to be.
struct NewMember {
  void* member;
  std::shared_ptr<void> value;  ///< of the member's type
  void (*swap)(void* member, void* value) noexcept;
};

/// @param stage  as for `LoadMove::prepare`.
template <Communicator Comm, class Stage>
[[nodiscard]] StateLoadReport load(Comm const& comm,
                                   StateDict& into,
                                   StateDict const& from,
                                   StateOptions const& options,
                                   LoadExtras const& extras,
                                   Stage const& stage) {
  if (options.broadcast_from_rank0 && !options.full_state_dict) {
    throw InvalidArgument(
        "shardmesh::load_state_dict: broadcast_from_rank0 sends whole tensors, so "
        "it needs full_state_dict as well");
  }
  check_ceiling(options.gather);
  if (auto const current = up_to_date(from)) {
    return load(comm, into, *current, options, extras, stage);
  }
  LoadSources const sources = find_sources(comm, into, from, options.broadcast_from_rank0);
  LoadCheck check(comm, into, sources, options, extras);
  StateLoadReport report = check.agree();
  LoadMove move(comm, into, sources, check, options);
  move.prepare(stage);
  report.traffic = move.run();
  return report;
}

}  // namespace detail

/// Loads the tensors and plain values of one state dict from another. `into` keeps its tensors, whose
/// elements are overwritten; its plain values are replaced. An optimizer whose state it has gets all
/// of its options, those that it does not know included, which it carries along; groups are found by the
/// names of their parameters.
///
/// Nothing is written before everything has been checked, and all memory found, on all ranks; then they all
/// throw, or all load; redistributed parts and converted ones lie beside the old ones until then. With
/// `broadcast_from_rank0` elements travel after that, so as not to lie in memory twice: a rank that runs
/// out of memory in it leaves tensors that are half loaded. Distributed values come from whole tensors (`full_state_dict`), or from distributed ones: of
/// the same layout and mesh, or with the same local parts (copied), or of another layout over the same
/// mesh (redistributed). Keys may differ between ranks where values are plain.
///
/// @param from  with `broadcast_from_rank0` only rank 0's is read; others may pass an empty one. Tensors
///              that are not distributed in rank 0's `into` then travel with the description of the dict.
/// @returns the same lists on every rank.
/// @throws KeyError (missing or unexpected keys, as `options` say), InvalidArgument (shape, dtype, kind,
///         mesh; an option of an optimizer that makes no sense; tied tensors with different values; `broadcast_from_rank0` without `full_state_dict`), the same on every rank, naming the
///         first rank with the problem.
/// @collective over `comm`, which holds the ranks of all distributed tensors.
template <Communicator Comm>
StateLoadReport load_state_dict(Comm const& comm,
                                StateDict& into,
                                StateDict const& from,
                                StateOptions const& options = {}) {
  return detail::load(comm, into, from, options, {}, [](StateDict const&) {});
}

/// The same for a model: tensors are written in place, plain members replaced. `renames` give the
/// keys of its members in `from`; with `ignore_frozen_params` frozen ones are left alone.
template <Communicator Comm, class Model>
  requires(!std::is_same_v<std::remove_cv_t<Model>, StateDict>)
StateLoadReport load_state_dict(Comm const& comm,
                                Model& model,
                                StateDict const& from,
                                StateOptions const& options = {}) {
  static_assert(!std::is_const_v<Model>,
                "shardmesh::load_state_dict: the model is const; a load writes into it, so pass a "
                "model that is not const");
  detail::LoadExtras extras;
  StateDict into;
  for_each_leaf(model, [&](std::string const& name, auto& leaf, Role role) {
    std::string key = renamed(name, options);
    if (role == Role::frozen && options.ignore_frozen_params) {
      extras.ignored.push_back(std::move(key));
    } else if (role != Role::transient) {
      detail::note_unfit(key, leaf, extras);
      into.insert(std::move(key), detail::state_value(leaf));
    }
  });
  into.order_on(options.stream);
  std::vector<detail::NewMember> made;  // what allocates is done before any rank changes anything
  StateLoadReport report =
      detail::load(comm, into, from, options, extras, [&](StateDict const& next) {
        for_each_leaf(model, [&](std::string const& name, auto& leaf, Role) {
          if constexpr (!AnyTensorType<decltype(leaf)>) {
            using Leaf = std::remove_cvref_t<decltype(leaf)>;
            static_assert(std::is_nothrow_swappable_v<Leaf>);
            std::string const key = renamed(name, options);
            if (next.contains(key)) {
              auto const value =
                  std::make_shared<Leaf>(*detail::model_value<Leaf>(next.at(key).plain()));
              made.push_back({std::addressof(leaf), value, [](void* member, void* held) noexcept {
                                std::swap(*static_cast<Leaf*>(member), *static_cast<Leaf*>(held));
                              }});
            }
          }
        });
      });
  for (detail::NewMember const& one : made) {
    one.swap(one.member, one.value.get());
  }
  return report;
}

/// The state of a model as `options` say.
/// @throws InvalidArgument if `full_state_dict` is asked for: that needs a communicator.
template <class Model>
[[nodiscard]] StateDict state_dict(Model& model, StateOptions const& options) {
  if (options.full_state_dict) {
    throw InvalidArgument(
        "shardmesh::state_dict: a full state is gathered from all ranks; pass the "
        "communicator first: state_dict(world, model, options)");
  }
  StateDict dict;
  for_each_leaf(model, [&](std::string const& name, auto& leaf, Role role) {
    bool const left_out = role == Role::frozen && options.ignore_frozen_params;
    if (role != Role::transient && !left_out) {
      dict.insert(renamed(name, options), detail::state_value(leaf));
    }
  });
  dict.order_on(options.stream);
  return options.cpu_offload ? offloaded(dict) : dict;
}

/// The same, full states too.
/// @param report if given, set to what gathering to the roots came to on this rank.
/// @throws as `full_state_dict`; KeyError if two leaves get one name.
/// @collective over `comm`, which holds the ranks of all distributed tensors, if
///             `options.full_state_dict` is set.
template <Communicator Comm, class Model>
[[nodiscard]] StateDict state_dict(Comm const& comm,
                                   Model& model,
                                   StateOptions const& options,
                                   GatherReport* report = nullptr) {
  StateOptions local = options;
  local.full_state_dict = false;
  local.cpu_offload = options.cpu_offload && !options.full_state_dict;
  StateDict dict = state_dict(model, local);
  if (!options.full_state_dict) {
    return dict;
  }
  return options.cpu_offload ? full_state_dict(comm, dict, options.gather, report)
                             : replicated_state_dict(comm, dict);
}

}  // namespace v0
}  // namespace shardmesh
