// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// Where a state lives: sharded where the model is, offloaded to host memory, as a whole on one
// rank, and back into a model that is sharded in another way.
#include <array>
#include <cstdio>
#include <numeric>
#include <string>

#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;

namespace {

struct Net {
  using parameter_type = sm::Tensor<float>;
  parameter_type weight{{64, 32}};
  parameter_type bias{{64}};
  static constexpr std::array member_names{"weight", "bias"};
};

/// Counts up from `first`.
Net counting(float first) {
  Net net;
  std::iota(net.weight.span().begin(), net.weight.span().end(), first);
  std::iota(net.bias.span().begin(), net.bias.span().end(), first);
  return net;
}

sm::index_t bytes_of(sm::StateDict const& state) {
  sm::index_t sum = 0;
  for (sm::StateEntry const& entry : state) {
    sum += sm::volume(entry.tensor().local_shape()) * static_cast<sm::index_t>(sizeof(float));
  }
  return sum;
}

}  // namespace

int main() {
  sm::launch(sm::threads{4}, [](auto& world) {
    bool const talks = world.rank() == 0;
    Net model = counting(1);
    auto net = sm::fully_shard(model, sm::device_mesh(world, {2, 2}, {"replicate", "shard"}));

    // Handles to the shards, not copies: what changes the model changes them.
    sm::StateDict const sharded = sm::state_dict(net);
    if (talks) {
      std::printf("sharded: %td bytes on a rank\n", bytes_of(sharded));
    }

    // A copy in host memory, of this rank's shards alone: for a save in the background, or to go
    // back to.
    sm::StateDict const before = sm::state_dict(world, net, {.cpu_offload = true});

    // The whole on rank 0, in host memory; the other ranks get an empty dict and allocate nothing
    // for it. What the exchange may take besides has a ceiling.
    sm::StateDict const full = sm::state_dict(
        world, net,
        {.full_state_dict = true, .cpu_offload = true, .gather = {.ceiling_bytes = 1U << 20}});
    if (talks) {
      std::printf("full: %td bytes on rank 0\n", bytes_of(full));
    }

    // The same on chosen ranks.
    sm::StateDict const on_two = sm::full_state_dict(world, sharded, {.roots = {1, 3}});
    auto const counts = sm::all_gather_value(world, on_two.size());
    if (talks) {
      std::printf("whole tensors on ranks 0 to 3: %zu %zu %zu %zu\n", counts[0], counts[1],
                  counts[2], counts[3]);
    }

    // From rank 0 into a model on another mesh: only rank 0 needs to have it.
    Net other_model = counting(0);
    auto other = sm::fully_shard(other_model, sm::device_mesh(world, {4}, {"shard"}));
    sm::load_state_dict(world, other, full,
                        {.full_state_dict = true, .broadcast_from_rank0 = true});
    bool const equal = sm::checksum(world, other) == sm::checksum(world, net);

    // And back to what it was, after it was changed.
    auto const sum = sm::checksum(world, net);
    sm::for_each_leaf(net, [](std::string const&, auto& leaf) {
      for (float& x : sm::local_part(leaf).span()) {
        x = 0;
      }
    });
    bool const changed = sm::checksum(world, net) != sum;
    sm::load_state_dict(world, net, before);
    bool const back = changed && sm::checksum(world, net) == sum;
    if (talks) {
      std::printf("loaded on four shards: %s; back from the copy: %s\n",
                  equal ? "equal" : "DIFFERENT", back ? "equal" : "DIFFERENT");
    }
    if (!equal || !back) {
      throw sm::InvalidArgument("a state came back as another one");
    }
  });
}
