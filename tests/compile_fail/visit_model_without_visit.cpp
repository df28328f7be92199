// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::for_each_leaf: the model has no visit\(\)}}
#include <shardmesh/state/state_dict.hpp>

namespace sm = shardmesh;

struct Model {
  sm::Tensor<float> weight;
  template <class V>
  void visit(V&& v) {
    v("weight", weight);
  }
};
struct Unprepared {
  sm::Tensor<float> weight;
};

auto legal(Model& model) {
  return sm::state_dict(model);
}

#ifdef EXPECT_ERROR
auto illegal(Unprepared& model) {
  return sm::state_dict(model);
}
#endif
