// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Two small models: ordinary structs of tensors, with one visit() each. `P` is the type of a
// parameter: a plain tensor, or a distributed one. The names are PyTorch's, so that checkpoints are
// interchangeable.

#include <utility>

#include <shardmesh/core/shape.hpp>

namespace models {

using shardmesh::index_t;
using shardmesh::Shape;

template <class P>
struct Linear {
  P weight;  // (out, in)
  P bias;    // (out)

  template <class Visitor>
  void visit(Visitor&& v) {
    v("weight", weight);
    v("bias", bias);
  }
};

/// A linear layer whose parameters are made by `make(shape)`.
template <class Make>
auto linear(index_t in, index_t out, Make&& make) {
  auto weight = make(Shape{out, in});
  auto bias = make(Shape{out});
  return Linear<decltype(weight)>{weight, bias};
}

/// Linear 8->16, ReLU; Linear 16->32, ReLU; Linear 32->64, ReLU; ReLU, Linear 64->8.
template <class P>
struct Dense {
  Linear<P> net1, net2, net3, net4;

  template <class Visitor>
  void visit(Visitor&& v) {
    v("net1.0", net1);
    v("net2.0", net2);
    v("net3.0", net3);
    v("net4.1", net4);
  }
};

template <class Make>
auto dense(Make&& make) {
  auto net1 = linear(8, 16, make);
  auto net2 = linear(16, 32, make);
  auto net3 = linear(32, 64, make);
  auto net4 = linear(64, 8, make);
  return Dense<decltype(net1.weight)>{net1, net2, net3, net4};
}

/// Linear d->4d, ReLU, Linear 4d->d, ReLU.
template <class P>
struct Mlp {
  Linear<P> in_proj, out_proj;

  template <class Visitor>
  void visit(Visitor&& v) {
    v("in_proj", in_proj);
    v("out_proj", out_proj);
  }
};

template <class Make>
auto mlp(index_t d, Make&& make) {
  auto in_proj = linear(d, 4 * d, make);
  auto out_proj = linear(4 * d, d, make);
  return Mlp<decltype(in_proj.weight)>{in_proj, out_proj};
}

/// Mlp(d); Mlp(d) followed by Linear d->d; Mlp(d).
template <class P>
struct MlpStack {
  struct Middle {
    Mlp<P> mlp;
    Linear<P> linear;

    template <class Visitor>
    void visit(Visitor&& v) {
      v("0", mlp);
      v("1", linear);
    }
  };

  Mlp<P> first;
  Middle middle;
  Mlp<P> last;

  template <class Visitor>
  void visit(Visitor&& v) {
    v("0", first);
    v("1", middle);
    v("2", last);
  }
};

template <class Make>
auto mlp_stack(index_t d, Make&& make) {
  auto first = mlp(d, make);
  auto inner = mlp(d, make);
  auto line = linear(d, d, make);
  auto last = mlp(d, make);
  using P = decltype(line.weight);
  return MlpStack<P>{first, {inner, line}, last};
}

}  // namespace models
