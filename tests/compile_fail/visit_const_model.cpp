// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::for_each_leaf: the model is const, and its visit\(\) is not; pass a model that is not const}}
// expected-error {{shardmesh::for_each_leaf: this member is const here, and the visit\(\) of its struct is not}}
// expected-error {{shardmesh::fully_shard: the model is const; sharding empties its tensors}}
// expected-error {{shardmesh::load_state_dict: the model is const; a load writes into it}}
// unexpected-error {{has no visit\(\)|is neither a tensor|parameters is not known|no matching function}}
#include <array>

#include <shardmesh/comm/threads.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/sgd.hpp>
#include <shardmesh/state/checksum.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/state/summary.hpp>

namespace sm = shardmesh;

struct Writes {
  sm::Tensor<float> weight;
  template <class V>
  void visit(V&& v) {
    v("weight", weight);
  }
};
struct Reads {
  sm::Tensor<float> weight;
  template <class V>
  void visit(V&& v) const {
    v("weight", weight);
  }
};
struct Named {
  sm::Tensor<float> weight;
  static constexpr std::array member_names{"weight"};
};
struct Outer {
  Writes inner;
  static constexpr std::array member_names{"inner"};
};

using World = sm::ThreadsCommunicator;

auto legal(Writes& model, Reads const& reads, Named const& named, World const& world) {
  static_cast<void>(sm::state_dict(model));
  static_cast<void>(sm::count(named));
  static_cast<void>(sm::checksum(world, reads));
  return sm::state_dict(reads);
}

#ifdef EXPECT_ERROR
void illegal(Writes const& model, Outer const& outer, Named const& named, World const& world) {
  static_cast<void>(sm::state_dict(model));
  static_cast<void>(sm::state_dict(outer));
  static_cast<void>(sm::count(model));
  static_cast<void>(sm::checksum(world, model));
  sm::Sgd const optimizer(model, {.lr = 0.1});
  static_cast<void>(sm::fully_shard(model, sm::device_mesh(world, {2})));
  static_cast<void>(sm::fully_shard(named, sm::device_mesh(world, {2})));
  static_cast<void>(sm::load_state_dict(world, named, sm::StateDict()));
}
#endif
