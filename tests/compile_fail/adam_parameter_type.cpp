// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::Optimizer: parameters must be float; keep low-precision copies beside them}}
#include <shardmesh/optim/adam.hpp>

namespace sm = shardmesh;

auto legal = sizeof(sm::Adam<sm::Tensor<float>>);

#ifdef EXPECT_ERROR
auto illegal = sizeof(sm::Adam<sm::Tensor<double>>);
#endif
