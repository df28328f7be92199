// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/memory/any_stream.hpp>
#include <shardmesh/state/policy.hpp>
#include <shardmesh/tensor/root_exchange.hpp>

namespace shardmesh {
inline namespace v0 {

/// How the state of a model is taken and loaded; names and meanings are those of PyTorch's
/// `StateDictOptions` unless said otherwise.
///
/// | taken with | who does what | what is returned where |
/// | --- | --- | --- |
/// | nothing | no communication | tensors shared with the model, on every rank |
/// | `cpu_offload` | local copies | the same with local parts in host memory, on every rank |
/// | `full_state_dict` | all ranks of a tensor's mesh | whole plain tensors in the model's memory, on every rank |
/// | both | only the roots receive | whole plain tensors in host memory on the roots; elsewhere an empty dict |
///
/// | loaded with | who does what |
/// | --- | --- |
/// | nothing | distributed values: the local part is copied, or redistributed over the same mesh |
/// | `full_state_dict` | each rank has the whole values and cuts its parts |
/// | `full_state_dict`, `broadcast_from_rank0` | only rank 0 has them and sends each rank its parts |
struct StateOptions {
  /// Whole tensors instead of shards.
  bool full_state_dict = false;
  /// Host memory; with `full_state_dict` on the roots alone.
  bool cpu_offload = false;
  /// Parameters whose role is `frozen` are left out, and left alone by a load; buffers are not.
  bool ignore_frozen_params = false;
  /// Of a load: rank 0 alone has the values.
  bool broadcast_from_rank0 = false;
  /// Of `optimizer_state_dict`: `state.NAME.SLOT` and `param_groups.NAME.OPTION` instead of the
  /// nested form.
  bool flatten_optimizer_state_dict = false;
  /// Of a load: keys that the model has and the state has not.
  KeyPolicy missing = KeyPolicy::error;
  /// Of a load: keys that the state has and the model has not.
  KeyPolicy unexpected = KeyPolicy::error;
  /// Of a load: values of another element type.
  DTypePolicy dtype = DTypePolicy::error;
  /// Names of modules or leaves in the model, and in the state dict: {"net1", "encoder.0"} renames
  /// "net1" and "net1.weight". The first that fits counts.
  std::vector<std::pair<std::string, std::string>> renames = {};
  /// Gives the name in the state dict after `renames`.
  std::string (*rename)(std::string const&) = nullptr;
  /// The stream on which the user's work writes and reads the tensors. The state dict remembers it: offloading,
  /// gathering, saves, loads, snapshots are done in its order. Without one: each memory space's default stream of
  /// the calling thread.
  AnyStream stream = {};
  /// Who gets a full, offloaded state, and how much temporary memory full states may use.
  GatherOptions gather = {};
};

/// What a load found and did; the same on every rank.
struct StateLoadReport {
  std::vector<std::string> missing;     ///< left as they were; unless ignored
  std::vector<std::string> unexpected;  ///< passed over; unless ignored
  std::vector<std::string> cast;        ///< converted to another dtype; with DTypePolicy::warn
  GatherReport traffic;                 ///< of `broadcast_from_rank0`, on the calling rank
};

/// The name in the state dict of a leaf of the model.
[[nodiscard]] inline std::string renamed(std::string const& name, StateOptions const& options) {
  std::string result = name;
  for (auto const& [from, to] : options.renames) {
    bool const whole = name == from;
    if (whole ||
        (name.starts_with(from) && name.size() > from.size() && name[from.size()] == '.')) {
      result = to + name.substr(from.size());
      break;
    }
  }
  return options.rename != nullptr ? options.rename(result) : result;
}

}  // namespace v0
}  // namespace shardmesh
