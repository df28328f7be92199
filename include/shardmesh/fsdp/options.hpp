// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/reduce_op.hpp>
#include <shardmesh/layout/placement.hpp>
#include <shardmesh/tensor/distribute.hpp>

namespace shardmesh {
inline namespace v0 {

/// How `fully_shard` shards a model.
struct FullyShardOptions {
  /// Name prefixes ("net1.0"): the parameters below each are gathered and freed together. Empty: one
  /// unit for each member of the model. Parameters below none of them make a unit of their own,
  /// named "".
  std::vector<std::string> units = {};
  /// Does a forward pass free each unit's whole parameters when it is done with them? If not, they
  /// stay until `reshard`, for the backward pass.
  bool reshard_after_forward = true;
  /// Whose values count: every rank's own, which must be equal, or the first rank's.
  DataSource from = DataSource::own;
  /// What gradients of the ranks become: their average (as PyTorch) or their sum.
  ReduceOp gradients = ReduceOp::avg;
};

/// The element types of a sharded model: parameters are kept, and the optimizer works, in `Master`;
/// gradients are reduced in `Reduce`. The model itself computes in the type that its tensors have.
template <Element Master, Element Reduce = Master>
struct Precision {
  using master_type = Master;
  using reduce_type = Reduce;
};

/// A model whose parameters another dimension of the mesh has cut first: the whole tensor is cut
/// over `mesh_dim` as the list says, what a rank then has is fully sharded over the other dimensions.
struct TensorParallel {
  std::string mesh_dim = "tp";
  /// Placements over `mesh_dim` by parameter name; parameters that are not in it are replicated.
  std::vector<std::pair<std::string, Placement>> plan = {};
};

}  // namespace v0
}  // namespace shardmesh
