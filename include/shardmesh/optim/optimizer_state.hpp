// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/optim/optimizer.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/state/options.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// The state of an optimizer in the form and with the names that `options` say; shares its tensors.
template <class Parameter, class Options>
[[nodiscard]] StateDict named_optimizer_state(Optimizer<Parameter, Options> const& optimizer,
                                              StateOptions const& options) {
  StateDict named;
  if (options.flatten_optimizer_state_dict) {
    for (StateEntry const& entry : optimizer.flattened_state_dict()) {
      std::size_t const first = entry.key.find('.') + 1;
      std::size_t const last = entry.key.rfind('.');  // names of states and options have no dot
      named.insert(entry.key.substr(0, first) +
                       renamed(entry.key.substr(first, last - first), options) +
                       entry.key.substr(last),
                   entry.value);
    }
    return named;
  }
  for (StateEntry const& entry : optimizer.state_dict()) {
    std::vector<PathElement> path = entry.path;
    if (entry.is_tensor()) {
      path[1] = PathElement(renamed(path[1].key(), options));
      named.insert(std::move(path), entry.value);
    } else if (path.back() == PathElement("params")) {
      Value::List names;
      for (Value const& name : entry.plain().template as<Value::List>()) {
        names.emplace_back(renamed(name.template as<std::string>(), options));
      }
      named.insert(std::move(path), Value(std::move(names)));
    } else {
      named.insert(std::move(path), entry.value);
    }
  }
  return named;
}

}  // namespace detail

/// The state of an optimizer as `options` say: flattened or nested, with the names of parameters
/// renamed as those of the model, offloaded.
/// @throws InvalidArgument if `full_state_dict` is asked for: that needs a communicator.
template <class Parameter, class Options>
[[nodiscard]] StateDict optimizer_state_dict(Optimizer<Parameter, Options> const& optimizer,
                                             StateOptions const& options = {}) {
  if (options.full_state_dict) {
    throw InvalidArgument(
        "shardmesh::optimizer_state_dict: a full state is gathered from all ranks; pass the "
        "communicator first: optimizer_state_dict(world, optimizer, options)");
  }
  StateDict const dict = detail::named_optimizer_state(optimizer, options);
  return options.cpu_offload ? offloaded(dict) : dict;
}

/// The same, full states too.
/// @param report if given, set to what gathering to the roots came to on this rank.
/// @throws as `full_state_dict`.
/// @collective over `comm`, which holds the ranks of all distributed tensors, if
///             `options.full_state_dict` is set.
template <Communicator Comm, class Parameter, class Options>
[[nodiscard]] StateDict optimizer_state_dict(Comm const& comm,
                                             Optimizer<Parameter, Options> const& optimizer,
                                             StateOptions const& options,
                                             GatherReport* report = nullptr) {
  if (!options.full_state_dict) {
    return optimizer_state_dict(optimizer, options);
  }
  StateDict const dict = detail::named_optimizer_state(optimizer, options);
  return options.cpu_offload ? full_state_dict(comm, dict, options.gather, report)
                             : replicated_state_dict(comm, dict);
}

/// Loads an optimizer, hyper-parameters included, from a state of the form that `options` say.
/// @returns, @throws as `load_state_dict`; as `Optimizer::load_options` for hyper-parameters, after the
///          tensors have been loaded.
/// @collective over `comm`.
template <Communicator Comm, class Parameter, class Options>
StateLoadReport load_optimizer_state_dict(Comm const& comm,
                                          Optimizer<Parameter, Options>& optimizer,
                                          StateDict const& from,
                                          StateOptions const& options = {}) {
  StateDict into = detail::named_optimizer_state(optimizer, options);
  StateLoadReport report = load_state_dict(comm, into, from, options);
  // The optimizer reads its hyper-parameters by its own names.
  bool const flat = options.flatten_optimizer_state_dict;
  StateDict own = flat ? optimizer.flattened_state_dict() : optimizer.state_dict();
  std::vector<std::pair<std::string, Value>> loaded;
  auto other = into.begin();
  for (StateEntry const& entry : own) {
    if (!entry.is_tensor() && !(entry.path.back() == PathElement("params"))) {
      loaded.emplace_back(entry.key, other->plain());
    }
    ++other;
  }
  for (auto& [key, value] : loaded) {
    own.set(key, std::move(value));
  }
  if (flat) {
    optimizer.load_flattened(own);
  } else {
    optimizer.load_options(own);
  }
  return report;
}

}  // namespace v0
}  // namespace shardmesh
