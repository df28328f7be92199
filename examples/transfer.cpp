// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// Weights go from the ranks that train to those that infer, again and again, into the same memory:
// four ranks train (hybrid sharding), two others have the model cut for tensor parallelism. No
// file, no rank that has the whole.
#include <array>
#include <cstdio>
#include <utility>

#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;

namespace {

struct Net {
  using parameter_type = sm::Tensor<float>;
  parameter_type up = sm::Tensor<float>::zeros({32, 16});
  parameter_type down = sm::Tensor<float>::zeros({16, 32});
  static constexpr std::array member_names{"up", "down"};
};

}  // namespace

int main() {
  sm::launch(sm::threads{6}, [](auto& world) {
    auto const trainers = sm::device_mesh<2>(world, {2, 2}, {0, 1, 2, 3}, {"replicate", "shard"});
    auto const servers = sm::device_mesh<1>(world, {2}, {4, 5}, {"tp"});

    // Every rank makes every object: outside of its mesh it has no elements.
    Net model;
    auto net = sm::fully_shard(model, trainers);
    sm::Adam<typename decltype(net)::Parameter> adam(net, {.lr = 0.1});
    sm::StateDict const trained = sm::state_dict(net);

    auto const served_as = [&](sm::Shape const& shape, sm::Placement placement) {
      sm::Layout const layout(shape, {2}, {placement});
      auto const local =
          servers.is_member() ? layout.local_shape(servers.coordinate()) : sm::Shape{0};
      return sm::DistTensor(servers, layout, sm::Tensor<float>::zeros(local));
    };
    sm::StateDict served;
    served.insert("up", served_as({32, 16}, sm::Shard{0}));
    served.insert("down", served_as({16, 32}, sm::Shard{1}));

    for (int step = 1; step <= 3; ++step) {
      if (trainers.is_member()) {
        Net gradients;
        for (auto* gradient : {&gradients.up, &gradients.down}) {
          for (float& g : gradient->span()) {
            g = -1;  // a backward pass
          }
        }
        adam.step(net.reduce_gradients(gradients));
      }
      sm::transfer(world, trained, served);
      bool const equal = sm::checksum(world, trained) == sm::checksum(world, served);
      if (world.rank() == 4) {
        auto const down = served.at("down").tensor();
        std::printf("step %d: rank 4 has columns 0 to %td of \"down\", its first element is %.3f; "
                    "the state is %s\n",
                    step, down.local_shape()[1] - 1,
                    double{static_cast<float const*>(down.data())[0]},
                    equal ? "what was trained" : "ANOTHER ONE");
      }
      if (!equal) {
        throw sm::InvalidArgument("what is served is not what was trained");
      }
    }
  });
}
