// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A job for tests/gpu/kill.py: one rank a process, which redistributes or saves until it is stopped.
//   kill_job redistribute|save DIRECTORY   rank 0 says "ready" and, after every save, "saved STEP"
//   kill_job check DIRECTORY               verifies and loads what was saved last; says "holds STEP"
//   kill_job probe                         exits with 77, saying why, where this machine cannot run it
// Built for tensors in host memory over sockets, and with NCCL for tensors in device memory.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>
#ifdef KILL_JOB_WITH_NCCL
#include <shardmesh/comm/nccl/launch.hpp>
#endif

namespace sm = shardmesh;

namespace {

#ifdef KILL_JOB_WITH_NCCL
using Space = sm::CudaMemory;
using Engine = sm::nccl_environment;
#else
using Space = sm::HostMemory;
using Engine = sm::environment;
#endif

template <class S, class Mesh>
auto filled(Mesh const& mesh, sm::Shape const& shape, float value) {
  sm::Tensor<float> whole(shape);
  std::fill(whole.span().begin(), whole.span().end(), value);
  return sm::distribute(whole.template clone<S>(), mesh, sm::placements<sm::Shard<0>>,
                        sm::DataSource::own);
}

/// Tensors and a plain value that all hold the number of the step.
template <class S, class Mesh>
sm::StateDict state_of(Mesh const& mesh, float step) {
  sm::StateDict dict;
  for (int i = 0; i < 16; ++i) {
    dict.insert("layer" + std::to_string(i), filled<S>(mesh, {61 + i, 129}, step));
  }
  dict.insert("step", sm::Value(step));
  return dict;
}

void say(char const* what, int step) {
  std::printf("%s %d\n", what, step);
  std::fflush(stdout);
}

template <class World>
void redistribute_for_ever(World const& world) {
  auto const mesh = sm::device_mesh<1>(world, {world.size()});
  auto const rows = filled<Space>(mesh, {257, 515}, 1);
  for (int step = 0;; ++step) {
    auto const columns = sm::redistribute(rows, sm::placements<sm::Shard<1>>);
    auto const whole = sm::redistribute(columns, sm::placements<sm::Replicate>);
    if (step % 4 == 3) {
      static_cast<void>(sm::to_host(whole.to_local()));
    }
    if (step == 8 && world.rank() == 0) {
      say("ready", step);
    }
  }
}

template <class World>
void save_for_ever(World const& world, std::string const& directory) {
  auto const mesh = sm::device_mesh<1>(world, {world.size()});
  for (int step = 1;; ++step) {
    sm::save(world, directory, state_of<Space>(mesh, static_cast<float>(step)));
    if (world.rank() == 0) {
      say("saved", step);
      if (step == 2) {
        say("ready", step);
      }
    }
  }
}

int check(std::string const& directory) {
  sm::DcpCatalog<> catalog(directory);
  auto const damage = sm::verify(catalog).damage;
  for (auto const& one : damage) {
    std::fprintf(stderr, "damaged: %s: %s\n", one.key.c_str(), one.what.c_str());
  }
  int held = -1;
  bool equal = true;
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    sm::StateDict dict = state_of<sm::HostMemory>(mesh, -1);
    sm::load(world, directory, dict);
    auto const step = static_cast<float>(dict.at("step").plain().template as<double>());
    bool const same = sm::difference(dict, state_of<sm::HostMemory>(mesh, step)).empty();
    for (int one : sm::all_gather_value(world, same ? 1 : 0)) {
      if (world.rank() == 0) {
        equal = equal && one == 1;
        held = static_cast<int>(step);
      }
    }
  });
  say("holds", held);
  return damage.empty() && equal ? 0 : 1;
}

int probe() {
#ifdef KILL_JOB_WITH_NCCL
  if (sm::cuda::device_count() == 0) {
    std::puts("SKIP: no usable GPU on this machine");
    return 77;
  }
#endif
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string const mode = argc > 1 ? argv[1] : "";
  std::string const directory = argc > 2 ? argv[2] : "";
  char const* const seconds = std::getenv("KILL_JOB_TIMEOUT");
  try {
    if (mode == "check") {
      return check(directory);
    }
    if (mode == "probe") {
      return probe();
    }
    if (mode != "redistribute" && mode != "save") {
      std::fprintf(stderr, "usage: kill_job redistribute|save|check|probe [DIRECTORY]\n");
      return 2;
    }
    Engine engine{};
    engine.timeout = std::chrono::seconds(seconds == nullptr ? 10 : std::atoi(seconds));
    sm::launch(engine, [&](auto& world) {
      if (mode == "save") {
        save_for_ever(world, directory);
      } else {
        redistribute_for_ever(world);
      }
    });
  } catch (std::exception const& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
