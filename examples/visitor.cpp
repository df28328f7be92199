// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// Visitors: what a struct needs to be a model, what comes with the library for every model, and a
// visitor of one's own in ten lines.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;

// A model opts in by naming its members ...
template <class P>
struct Linear {
  P weight;
  P bias;
  static constexpr std::array member_names{"weight", "bias"};
};

// ... or by a visit(), which can also say what they are for.
template <class P>
struct Net {
  std::vector<Linear<P>> layers;
  P head = layers.back().weight;  // tied: the same elements under two names
  sm::Tensor<float> mean = sm::Tensor<float>::zeros({4});
  int epoch = 3;

  template <class V>
  void visit(V&& v) {
    v("layers", layers);
    v("head", head);
    v("mean", sm::buffer(mean));
    v("epoch", epoch);
  }
};

// A visitor of one's own: the largest absolute value of every tensor, over all ranks.
template <class Comm>
struct Largest {
  Comm const& world;

  template <class Leaf>
  void operator()(std::string const& name, Leaf& leaf) const {
    if constexpr (sm::AnyTensorType<Leaf>) {
      float most = 0;
      for (float const x : sm::local_part(leaf).span()) {
        most = std::max(most, std::abs(x));
      }
      auto const all = sm::all_gather_value(world, most);
      if (world.rank() == 0) {
        std::printf("%-16s %g\n", name.c_str(), double{*std::max_element(all.begin(), all.end())});
      }
    }
  }
};

int main() {
  sm::launch(sm::threads{4}, [](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"replicate", "shard"});
    auto const parameter = [&](sm::Shape const& shape, float scale) {
      sm::Tensor<float> full(shape);
      for (std::size_t i = 0; i < full.span().size(); ++i) {
        full.span()[i] = scale * static_cast<float>(i);
      }
      return sm::distribute(full, mesh, sm::placements<sm::Replicate, sm::Shard<0>>);
    };
    using P = decltype(parameter({}, 0));
    Net<P> net{{Linear<P>{parameter({6, 4}, 1), parameter({6}, -2)},
                Linear<P>{parameter({4, 6}, 0.5F), parameter({4}, 3)}}};

    sm::for_each_leaf(net, Largest<std::remove_cvref_t<decltype(world)>>{world});

    // What comes with the library.
    sm::StateDict const state = sm::state_dict(net);
    sm::StateSize const size = sm::count(net);
    std::uint64_t const sum = sm::checksum(world, net);
    sm::StateDict const full =
        sm::state_dict(world, net, {.full_state_dict = true, .cpu_offload = true});
    if (world.rank() == 0) {
      std::printf("%s%td parameters, %td bytes, of which %td are on rank 0; checksum %016llx\n",
                  sm::to_string(state).c_str(), size.elements, size.bytes, size.local_bytes,
                  static_cast<unsigned long long>(sum));
    }
    // Rank 0 has the whole state; it loads into the same model, sharded in another way.
    auto const zeros = [&](sm::Shape const& shape) {
      return sm::distribute(sm::Tensor<float>::zeros(shape), mesh,
                            sm::placements<sm::Shard<0>, sm::Shard<0>>);
    };
    using Q = decltype(zeros({}));
    Net<Q> other{{Linear<Q>{zeros({6, 4}), zeros({6})}, Linear<Q>{zeros({4, 6}), zeros({4})}}};
    sm::load_state_dict(world, other, full,
                        {.full_state_dict = true, .broadcast_from_rank0 = true});
    bool const equal = sm::checksum(world, other) == sum;
    if (world.rank() == 0) {
      std::printf("the same model under other placements: checksum %s\n",
                  equal ? "equal" : "DIFFERENT");
    }
    if (!equal) {
      throw sm::InvalidArgument("the checksums differ");
    }
  });
}
