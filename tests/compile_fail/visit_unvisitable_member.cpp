// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::for_each_leaf: this member is neither a tensor, a number, a string, a vector, an optional or owning pointer of such, nor a struct with a visit\(\)}}
#include <shardmesh/state/state_dict.hpp>

namespace sm = shardmesh;

struct Opaque {};

template <class Member>
struct Model {
  Member member;
  template <class V>
  void visit(V&& v) {
    v("member", member);
  }
};

auto legal(Model<int>& model) {
  return sm::state_dict(model);
}

#ifdef EXPECT_ERROR
auto illegal(Model<Opaque>& model) {
  return sm::state_dict(model);
}
#endif
