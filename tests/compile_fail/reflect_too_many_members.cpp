// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// expected-error {{shardmesh::for_each_member: an aggregate of 1 to 16 members can be reflected; give the struct a visit\(\) instead}}
#include <array>

#include <shardmesh/state/state_dict.hpp>

namespace sm = shardmesh;

struct Legal {
  int a, b;
  static constexpr std::array member_names{"a", "b"};
};

auto legal(Legal& model) {
  return sm::state_dict(model);
}

#ifdef EXPECT_ERROR
struct Large {
  int a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q;
  static constexpr std::array member_names{"a", "b", "c", "d", "e", "f", "g", "h", "i",
                                           "j", "k", "l", "m", "n", "o", "p", "q"};
};

auto illegal(Large& model) {
  return sm::state_dict(model);
}
#endif
