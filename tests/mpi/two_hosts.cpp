// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What two_hosts.py starts: `two_hosts ENGINE DEED DIR TIMEOUT_MS`. The deeds save and redistribute go
// on until something fails, and leave the error in DIR/rank-R.txt; check loads DIR on threads.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <string>
#include <utility>

#include <shardmesh/checkpoint.hpp>
#include <shardmesh/processes.hpp>
#include <shardmesh/shardmesh.hpp>
#ifdef TEST_WITH_MPI
#include <shardmesh/mpi.hpp>
#endif

namespace sm = shardmesh;

namespace {

constexpr sm::index_t rows = 1021;
constexpr sm::index_t columns = 509;

/// Element i is i: exact in a float.
sm::Tensor<float> whole() {
  sm::Tensor<float> full({rows, columns});
  float value = 0;
  for (float& one : full.span()) {
    one = value++;
  }
  return full;
}

/// What this rank is doing, for its last words.
class Work {
 public:
  void begins(std::string what, long number) { text_ = std::move(what) + std::to_string(number); }
  [[nodiscard]] std::string const& text() const { return text_; }

 private:
  std::string text_ = "the launch";
};

template <class Comm>
void save_steps(Comm const& world, std::string const& directory, int steps, Work& work) {
  auto const mesh = sm::device_mesh(world, {world.size()}, {"shard"});
  sm::StateDict state;
  state.insert("x", sm::AnyTensor(sm::distribute(whole(), mesh, sm::placements<sm::Shard<0>>,
                                                 sm::DataSource::own)));
  for (int step = 1; step <= steps; ++step) {
    work.begins("save ", step);
    sm::save(world, directory + "/step-" + std::to_string(step), state);
  }
}

template <class Comm>
void redistribute_for_ever(Comm const& world, std::string const& directory, Work& work) {
  auto const mesh = sm::device_mesh(world, {world.size()}, {"shard"});
  auto x = sm::distribute(whole(), mesh, sm::placements<sm::Shard<0>>, sm::DataSource::own);
  for (long round = 0;; ++round) {
    work.begins("redistribute ", round);
    auto const y = sm::redistribute(x, sm::placements<sm::Shard<1>>);
    x = sm::redistribute(y, sm::placements<sm::Shard<0>>);
    if (world.rank() == 0 && round == 3) {
      std::ofstream(directory + "/ready") << "goes on\n";
    }
  }
}

template <class Engine>
void run(Engine const& engine, std::string const& deed, std::string const& directory) {
  Work work;
  sm::launch(engine, [&](auto& world) {
    try {
      save_steps(world, directory, deed == "save" ? 1'000'000 : 1, work);
      redistribute_for_ever(world, directory, work);
    } catch (std::exception const& error) {
      std::ofstream(directory + "/rank-" + std::to_string(world.rank()) + ".txt")
          << work.text() << ": " << error.what() << "\n";
      throw;
    }
  });
}

/// Onto three threads, by columns.
void check(std::string const& directory) {
  sm::launch(sm::threads{3}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {3}, {"shard"});
    sm::Tensor<float> zeros({rows, columns});
    std::fill(zeros.span().begin(), zeros.span().end(), 0.0F);
    auto const x = sm::distribute(zeros, mesh, sm::placements<sm::Shard<1>>, sm::DataSource::own);
    sm::StateDict state;
    state.insert("x", sm::AnyTensor(x));
    sm::load(world, directory, state);
    auto const loaded = sm::full_tensor(x);
    auto const wanted = whole();
    if (!std::equal(wanted.span().begin(), wanted.span().end(), loaded.span().begin())) {
      throw sm::InvalidArgument(directory + " holds other values than were saved");
    }
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr,
                 "two_hosts environment|mpi|threads save|redistribute|check DIR TIMEOUT_MS\n");
    return 2;
  }
  std::string const engine = argv[1];
  std::chrono::milliseconds const timeout(std::atoi(argv[4]));
  try {
    if (engine == "threads") {
      check(argv[3]);
    } else if (engine == "environment") {
      run(sm::environment{timeout}, argv[2], argv[3]);
    } else {
#ifdef TEST_WITH_MPI
      run(sm::mpi{timeout}, argv[2], argv[3]);
#endif
    }
  } catch (std::exception const& error) {
    std::fprintf(stderr, "ends: %s\n", error.what());
    return 1;
  }
  return 0;
}
