// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/state/detail/meeting_stream.hpp>
#include <shardmesh/state/detail/wire.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Tensors whose parts are held by the same ranks, by their numbers in a list.
struct GroupBatch {
  TensorGroup group;
  std::vector<std::size_t> members;

  /// For an exchange of the members, see `meeting_stream`.
  [[nodiscard]] AnyStream stream(std::vector<AnyTensor> const& tensors) const {
    std::vector<AnyTensor const*> mine;
    for (std::size_t const i : members) {
      mine.push_back(&tensors[i]);
    }
    return meeting_stream(mine);
  }
};

/// Sorts tensors by the ranks of `group_of(tensor)`, groups in the order of their first tensor; tensors
/// without a group are left out. Ranks that list the tensors of a group in the same order find the
/// same batches for it.
template <class GroupOf>
[[nodiscard]] std::vector<GroupBatch> batches_of(std::vector<AnyTensor> const& tensors,
                                                 GroupOf group_of) {
  std::vector<GroupBatch> batches;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    TensorGroup group = group_of(tensors[i]);
    if (group.comm == nullptr) {
      continue;
    }
    std::size_t at = 0;
    while (at < batches.size() && !(batches[at].group == group)) {
      ++at;
    }
    if (at == batches.size()) {
      batches.push_back({std::move(group), {}});
    }
    batches[at].members.push_back(i);
  }
  return batches;
}

/// Positions in a group of those of its ranks that are roots; of its first rank if none is given.
[[nodiscard]] inline std::vector<int> roots_in(TensorGroup const& group,
                                               std::vector<int> const& roots) {
  std::vector<int> positions;
  for (std::size_t i = 0; i < group.ranks.size(); ++i) {
    bool const is_root =
        roots.empty() ? i == 0 && group.first_replica : detail::contains(roots, group.ranks[i]);
    if (is_root) {
      positions.push_back(static_cast<int>(i));
    }
  }
  return positions;
}

/// Brings distributed tensors together in host memory of the roots.
/// @returns the whole tensors, in order, where this rank is a root; nothing elsewhere.
/// @collective over the ranks that hold the tensors.
template <class Tensor>
[[nodiscard]] std::vector<std::optional<Tensor>> gather_to_roots(
    std::vector<Tensor> const& tensors,
    std::vector<std::string> const& keys,
    GatherOptions const& options,
    GatherReport& report) {
  std::vector<std::optional<Tensor>> wholes(tensors.size());
  HostBuckets buckets;
  for (GroupBatch const& batch : batches_of(tensors, [](Tensor const& x) { return x.group(); })) {
    std::vector<RootJob> jobs;
    jobs.reserve(batch.members.size());
    for (int const root : roots_in(batch.group, options.roots)) {
      for (std::size_t const i : batch.members) {
        RootJob job{tensors[i].layout(),
                    root,
                    tensors[i].dtype(),
                    tensors[i].data(),
                    nullptr,
                    false,
                    keys[i]};
        if (root == batch.group.rank) {
          wholes[i] = tensors[i].on_host(tensors[i].shape(), &buckets);
          job.target = wholes[i]->data();
        }
        jobs.push_back(job);
      }
    }
    if (!jobs.empty()) {
      report.add(batch.group.exchange(batch.group.comm, "full_state_dict", RootDirection::gather,
                                      jobs, options.ceiling_bytes, batch.stream(tensors)));
    }
  }
  return wholes;
}

/// What ranks agree on before they move whole tensors.
struct StateAgreement {
  std::vector<std::string> order;  ///< keys of distributed tensors
  KeyMap<std::string> tied;        ///< name of a tied one -> its first name

  /// The first name of a tensor: its own, if it is not tied.
  [[nodiscard]] std::string const& first_name(std::string const& key) const {
    std::string const* const first = tied.find(key);
    return first == nullptr ? key : *first;
  }
};

/// One order for the distributed tensors of all ranks, and the ties that any rank sees among them:
/// keys may differ between ranks.
/// @collective over `comm`.
template <Communicator Comm>
[[nodiscard]] StateAgreement agree_on_tensors(Comm const& comm, StateDict const& dict) {
  WireWriter mine;
  std::vector<std::string> keys;
  for (StateEntry const& entry : dict) {
    if (entry.is_tensor() && entry.tensor().is_distributed()) {
      keys.push_back(entry.key);
    }
  }
  mine.texts(keys);
  std::vector<std::string> names;
  for (auto const& [name, first] : dict.aliases()) {
    names.push_back(name);
    names.push_back(first);
  }
  mine.texts(names);
  KeyList order;
  KeyList firsts;
  StateAgreement result;
  for (auto const& bytes : comm.all_gather(mine.bytes())) {
    WireReader reader(bytes);
    for (std::string const& key : reader.texts()) {
      order.add(key);
    }
    std::vector<std::string> const ties = reader.texts();
    for (std::size_t i = 0; i < ties.size(); i += 2) {
      // A name to which others are tied is not tied itself, whatever another rank's order says.
      if (!firsts.contains(ties[i]) && result.tied.find(ties[i + 1]) == nullptr) {
        firsts.add(ties[i + 1]);
        result.tied.add(ties[i], ties[i + 1]);
      }
    }
  }
  result.order = order.keys();
  return result;
}

/// Why a dict has no full state: its first partial tensor; empty if it has one.
[[nodiscard]] inline std::string first_partial(StateDict const& dict) {
  for (StateEntry const& entry : dict) {
    if (entry.is_tensor() && entry.tensor().layout().has_partial()) {
      return "shardmesh::full_state_dict: \"" + entry.key + "\" is " +
             to_string(entry.tensor().layout()) +
             ": a partial tensor has no whole yet; redistribute it to Shard or Replicate";
    }
  }
  return {};
}

/// A dict of whole tensors: `whole(key)` for the distributed ones, the others in host memory if
/// `offload`. Plain values are copies.
template <class Whole>
[[nodiscard]] StateDict assemble(StateDict const& dict, bool offload, Whole whole) {
  if (auto const current = up_to_date(dict)) {
    return assemble(*current, offload, std::move(whole));
  }
  HostBuckets buckets;
  StateDict result;
  result.reserve(dict.size());
  for (StateEntry const& entry : dict) {
    if (entry.is_tensor() && entry.tensor().is_distributed()) {
      if (std::optional<AnyTensor> const& tensor = whole(entry.key)) {
        result.insert(entry.path, *tensor);
      }
    } else {
      bool const copies = offload && entry.is_tensor();
      result.insert(entry.path, copies ? StateValue(entry.tensor().offloaded(&buckets))
                                       : entry.value.detached());
    }
  }
  return result;
}

using WholeTensors = KeyMap<std::optional<AnyTensor>>;

}  // namespace detail

/// The whole state in host memory: on the first rank of each tensor's mesh every tensor in full, on
/// the other ranks an empty dict. Plain tensors and values are rank 0's own.
/// @throws InvalidArgument if a tensor is partial.
/// @collective over the meshes of the distributed tensors, which must stand in the same order on all
///             ranks; plain entries may differ between ranks and never enter a collective.
/// @tparam Dict  `StateDict`; a template, so that it is compiled only where it is called.
template <class Dict = StateDict>
[[nodiscard]] Dict full_state_dict(StateDict const& dict) {
  std::vector<AnyTensor> tensors;
  std::vector<std::string> keys;
  bool first = true;
  for (StateEntry const& entry : dict) {
    if (entry.is_tensor() && entry.tensor().is_distributed()) {
      tensors.push_back(entry.tensor());
      keys.push_back(entry.key);
      first = first && entry.tensor().is_first();
    }
  }
  GatherReport report;
  auto const wholes = detail::gather_to_roots(tensors, keys, {}, report);
  auto next = wholes.begin();
  return first ? detail::assemble(dict, true, [&next](std::string const&) { return *next++; })
               : StateDict{};
}

/// The whole state in host memory of chosen ranks; the others allocate nothing for it and get an
/// empty dict. Keys may differ between ranks: a root gets those that it has itself. A tensor of which
/// no root holds a part stays out. Tied tensors are gathered once and stay tied.
///
/// @param options  roots (none: the first rank of `comm`), most bytes of temporary memory.
/// @param report   if given, set to what the exchange came to on this rank.
/// @throws InvalidArgument on every rank if a root is not in `comm`, a tensor is partial or the
///         ceiling below 32 bytes;
///         MismatchError if ranks ask for different roots.
/// @collective over `comm`, which holds the ranks of all distributed tensors.
template <Communicator Comm>
[[nodiscard]] StateDict full_state_dict(Comm const& comm,
                                        StateDict const& dict,
                                        GatherOptions options = {},
                                        GatherReport* report = nullptr) {
  check_ceiling(options);
  std::vector<int> const world = comm.world_ranks();
  if (options.roots.empty()) {
    options.roots.push_back(world.front());
  }
  std::string roots = "roots";
  for (int const root : options.roots) {
    roots += detail::concat(' ', std::to_string(root));
    if (!detail::contains(world, root)) {
      throw InvalidArgument("shardmesh::full_state_dict: rank " + std::to_string(root) +
                            " is not one of the " + std::to_string(comm.size()) +
                            " ranks of the communicator, so it cannot be a root");
    }
  }
  check_agreement(comm, "full_state_dict", roots);
  throw_together<InvalidArgument>(comm, detail::first_partial(dict));
  detail::StateAgreement const agreed = detail::agree_on_tensors(comm, dict);
  std::vector<std::string> keys;
  std::vector<AnyTensor> tensors;
  keys.reserve(agreed.order.size());
  tensors.reserve(agreed.order.size());
  for (std::string const& key : agreed.order) {
    if (!dict.contains(key) || agreed.tied.find(key) != nullptr) {
      continue;
    }
    StateEntry const& entry = dict.at(key);
    if (entry.is_tensor() && entry.tensor().is_distributed()) {
      keys.push_back(key);
      tensors.push_back(entry.tensor());
    }
  }
  GatherReport traffic;
  auto const gathered = detail::gather_to_roots(tensors, keys, options, traffic);
  if (report != nullptr) {
    *report = traffic;
  }
  int const mine = world[static_cast<std::size_t>(comm.rank())];
  if (!detail::contains(options.roots, mine)) {
    return {};
  }
  detail::KeyMap<std::size_t> places;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    places.add(keys[i], i);
  }
  return detail::assemble(dict, true, [&](std::string const& key) -> auto const& {
    return gathered[places.at(agreed.first_name(key))];
  });
}

/// The whole state on every rank, in the memory space that the tensors have.
/// @collective over `comm`, which holds the ranks of all distributed tensors.
template <Communicator Comm>
[[nodiscard]] StateDict replicated_state_dict(Comm const& comm, StateDict const& dict) {
  detail::StateAgreement const agreed = detail::agree_on_tensors(comm, dict);
  detail::WholeTensors wholes;
  for (std::string const& key : agreed.order) {
    if (dict.contains(key) && agreed.tied.find(key) == nullptr && dict.at(key).is_tensor() &&
        dict.at(key).tensor().is_distributed() && dict.at(key).tensor().is_member()) {
      AnyTensor const& tensor = dict.at(key).tensor();
      PlacementList const everywhere(tensor.layout().mesh().size(), Placement{});
      wholes.add(key, tensor.local_as(Layout(tensor.shape(), tensor.layout().mesh(), everywhere)));
    }
  }
  return detail::assemble(dict, false, [&](std::string const& key) -> std::optional<AnyTensor> {
    auto const* const found = wholes.find(agreed.first_name(key));
    return found == nullptr ? std::nullopt : *found;
  });
}

}  // namespace v0
}  // namespace shardmesh
