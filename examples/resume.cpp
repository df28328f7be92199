// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// Goes on where PyTorch stopped: loads model, Adam and options of a checkpoint that
// torch.distributed.checkpoint.save wrote on four ranks, on three ranks; trains, saves, and the
// next job (or PyTorch) goes on from that.
//
//   resume [DIRECTORY to save to]
#include <array>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>

#include <shardmesh/checkpoint.hpp>
#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;

namespace {

struct Linear {
  using parameter_type = sm::Tensor<float>;
  parameter_type weight;
  parameter_type bias;
  static constexpr std::array member_names{"weight", "bias"};
};

Linear linear(sm::index_t in, sm::index_t out) {
  return {sm::Tensor<float>::zeros({out, in}), sm::Tensor<float>::zeros({out})};
}

/// The names are those of the model that PyTorch saved: four nn.Sequential, of which the last
/// begins with a ReLU.
struct Net {
  using parameter_type = sm::Tensor<float>;
  Linear net1 = linear(8, 16);
  Linear net2 = linear(16, 32);
  Linear net3 = linear(32, 64);
  Linear net4 = linear(64, 8);

  template <class Visitor>
  void visit(Visitor&& v) {
    v("net1.0", net1);
    v("net2.0", net2);
    v("net3.0", net3);
    v("net4.1", net4);
  }
};

template <class Mesh>
class Training {
 public:
  explicit Training(Mesh const& mesh) : net_(sm::fully_shard(model_, mesh)), adam_(net_) {}

  /// {"model": ..., "optim": ...}, as the Python program saved it.
  sm::StateDict state() { return {{"model", sm::state_dict(net_)}, {"optim", adam_.state_dict()}}; }

  void step() {
    Net gradients;
    sm::for_each_leaf(gradients, [](std::string const&, auto& leaf) {
      for (float& g : leaf.span()) {
        g = 0.01F;  // your backward pass
      }
    });
    adam_.step(net_.reduce_gradients(gradients));
  }

 private:
  Net model_;
  decltype(sm::fully_shard(std::declval<Net&>(), std::declval<Mesh const&>())) net_;
  sm::Adam<typename decltype(net_)::Parameter> adam_;
};

}  // namespace

int main(int argc, char** argv) try {
  std::string const to = argc > 1 ? argv[1] : "resumed";
  bool equal = false;
  sm::launch(sm::threads{3}, [&](auto& world) {
    Training training(sm::device_mesh(world, {3}, {"shard"}));
    sm::StateDict state = training.state();
    sm::load(world, EXAMPLE_DATA "/hsdp_checkpoint",
             state);  // each byte is read once, whatever the meshes
    if (world.rank() == 0) {
      std::printf("%zu values; Adam goes on with learning rate %s; who holds net1.0.weight:\n%s",
                  state.size(), to_string(state.at("optim.param_groups.0.lr").plain()).c_str(),
                  sm::picture(state.at("model.net1.0.weight").tensor().layout()).c_str());
    }
    training.step();
    sm::save(world, to, training.state());
    auto const trained = sm::checksum(world, training.state());

    Training next(sm::device_mesh(world, {1, 3}, {"replicate", "shard"}));
    sm::StateDict into = next.state();
    sm::load(world, to, into);
    bool const same = sm::checksum(world, into) == trained;
    if (world.rank() == 0) {
      std::printf("saved to %s; read again on another mesh: %s\n", to.c_str(),
                  same ? "equal" : "DIFFERENT");
      equal = same;
    }
  });
  return equal ? 0 : 1;
} catch (std::exception const& error) {
  std::fprintf(stderr, "resume: %s\n", error.what());
  return 1;
}
