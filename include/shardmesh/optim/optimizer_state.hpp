// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>
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
  std::vector<std::string> names;
  for (auto const& parameter : optimizer.parameters()) {
    names.push_back(renamed(parameter.name, options));
  }
  StateDict dict = options.flatten_optimizer_state_dict ? optimizer.flattened_state_dict(names)
                                                        : optimizer.state_dict(names);
  dict.order_on(options.stream);
  return dict;
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
/// @returns, @throws as `load_state_dict`.
/// @collective over `comm`.
template <Communicator Comm, class Parameter, class Options>
StateLoadReport load_optimizer_state_dict(Comm const& comm,
                                          Optimizer<Parameter, Options>& optimizer,
                                          StateDict const& from,
                                          StateOptions const& options = {}) {
  StateDict into = detail::named_optimizer_state(optimizer, options);
  return load_state_dict(comm, into, from, options);
}

}  // namespace v0
}  // namespace shardmesh
