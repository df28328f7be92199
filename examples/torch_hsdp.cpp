// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// torch_hsdp FROM TO REPLICAS SHARDS STEPS: a module of LibTorch trained under hybrid sharding. Loads the
// model and its Adam state from the checkpoint FROM (of PyTorch, or of this program), trains STEPS steps
// on REPLICAS x SHARDS ranks that are threads, and saves them to TO, which PyTorch's
// torch.distributed.checkpoint loads. Autograd computes the gradients. Prints each step's loss.
//
// With the Python that PyTorch is installed for:
//   T=$(python -c "import torch; print(torch.__path__[0])")
//   g++ -std=c++20 -O2 -Iinclude -isystem $T/include -isystem $T/include/torch/csrc/api/include
//       examples/torch_hsdp.cpp -o torch_hsdp -L$T/lib -Wl,-rpath,$T/lib
//       -Wl,--no-as-needed -ltorch -ltorch_cpu -lc10 -lz -pthread
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include <ATen/Parallel.h>
#include <torch/nn/modules/linear.h>

#include <shardmesh/checkpoint.hpp>
#include <shardmesh/interop/torch.hpp>
#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;

/// Any module: shardmesh knows nothing of it.
struct Net : torch::nn::Module {
  torch::nn::Linear in = register_module("in", torch::nn::Linear(8, 33));
  torch::nn::Linear mid = register_module("mid", torch::nn::Linear(33, 16));
  torch::nn::Linear out = register_module("out", torch::nn::Linear(16, 4));
  at::Tensor scale = register_parameter("scale", at::full({4}, 2.0), /*requires_grad=*/false);
  at::Tensor seen = register_buffer("seen", at::zeros({}, at::kLong));

  at::Tensor forward(at::Tensor const& x) {
    seen.add_(x.size(0));
    return out(at::relu(mid(at::tanh(in(x))))) * scale;
  }
};

/// A rank's rows of a step's batch: numbers that are the same in every language.
at::Tensor numbers(int step, int rank, int columns, int seed) {
  constexpr int rows = 4;
  at::Tensor x = at::empty({rows, columns});
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      int const number = (step * 31 + (rank * rows + i) * 7 + j * 13 + seed) % 17;
      x[i][j] = static_cast<float>(number) / 16.0F - 0.5F;
    }
  }
  return x;
}

template <class World>
void train(World& world, char** arguments) {
  sm::index_t const replicas = std::atoi(arguments[3]);
  sm::index_t const shards = std::atoi(arguments[4]);
  int const steps = std::atoi(arguments[5]);
  auto const mesh = sm::device_mesh(world, {replicas, shards}, {"replicate", "shard"});

  Net module;
  sm::TorchModule<float> model(module);
  auto net = sm::fully_shard(model, mesh, {.from = sm::DataSource::first_rank});
  sm::Adam<typename decltype(net)::Parameter> adam(net, {.lr = 0.01});
  auto const state = [&] {
    return sm::StateDict{{"model", sm::state_dict(net)}, {"optim", adam.state_dict()}};
  };

  auto loaded = state();
  sm::load(world, arguments[1], loaded);
  for (int step = 0; step < steps; ++step) {
    float loss = 0;
    {
      sm::WholeModule const whole(net);
      at::Tensor const y = module.forward(numbers(step, world.rank(), 8, 0));
      at::Tensor const error = at::mse_loss(y, numbers(step, world.rank(), 4, 5));
      error.backward();
      loss = error.item<float>();
    }
    adam.step(net.reduce_gradients(model.take_gradients()));
    float sum = 0;
    for (float const one : sm::all_gather_value(world, loss)) {
      sum += one;
    }
    if (world.rank() == 0) {
      std::printf("%.9g\n", static_cast<double>(sum) / world.size());
    }
  }
  sm::save(world, arguments[2], state());
}

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: torch_hsdp FROM TO REPLICAS SHARDS STEPS\n");
    return 2;
  }
  try {
    at::set_num_threads(1);  // the ranks are threads
    sm::launch(sm::threads{std::atoi(argv[3]) * std::atoi(argv[4])},
               [argv](auto& world) { train(world, argv); });
  } catch (std::exception const& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
