// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::fully_shard: the type of this model's parameters is not known; add `using parameter_type = shardmesh::Tensor<float>;`}}
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>

namespace sm = shardmesh;

using Mesh = sm::DeviceMesh<1, sm::ThreadsCommunicator>;

struct OneType {
  sm::Tensor<float> weight;
  template <class V>
  void visit(V&& v) {
    v("weight", weight);
  }
};

struct TwoTypes {
  sm::Tensor<float> weight;
  sm::Tensor<double> statistics;
  template <class V>
  void visit(V&& v) {
    v("weight", weight);
    v("statistics", sm::buffer(statistics));
  }
};

auto legal(OneType& model, Mesh const& mesh) {
  return sm::fully_shard(model, mesh);
}

#ifdef EXPECT_ERROR
auto illegal(TwoTypes& model, Mesh const& mesh) {
  return sm::fully_shard(model, mesh);
}
#endif
