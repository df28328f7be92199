// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A load in which one allocation fails, or all from one on: either every rank has loaded everything, or
// none anything. A program of its own, since it replaces operator new.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <new>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/redistribute.hpp>

#include "../support/checkpoints.hpp"

namespace sm = shardmesh;

namespace {

/// Which allocations of a thread fail.
struct Failing {
  bool armed = false;
  bool lasting = false;   ///< all from that one on
  std::size_t first = 0;  ///< the number of the first that fails
  std::size_t made = 0;

  [[nodiscard]] bool next() noexcept {
    std::size_t const number = made++;
    return armed && (number == first || (lasting && number > first));
  }
};

thread_local Failing failing;

void* allocate(std::size_t bytes, std::size_t alignment) {
  void* const memory =
      failing.armed && failing.next() ? nullptr
      : alignment == 0
          ? std::malloc(bytes == 0 ? 1 : bytes)
          : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}

// Not inlined: g++ warns where it sees `free` of what `new` gave, and not that `new` is `malloc` here.
[[gnu::noinline]] void release(void* memory) noexcept {
  std::free(memory);
}

}  // namespace

void* operator new(std::size_t bytes) {
  return allocate(bytes, 0);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept {
  release(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  release(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  release(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  release(memory);
}

TEST_SUITE_BEGIN("checkpoint.failing_memory");

namespace {

using World = sm::ThreadsCommunicator;

template <class Mesh>
auto parameter(Mesh const& mesh, float value) {
  sm::Tensor<float> whole(sm::Shape{6, 3});
  std::fill(whole.span().begin(), whole.span().end(), value);
  return sm::distribute(whole, mesh, sm::placements<sm::Shard<0>>, sm::DataSource::own);
}

/// Tensors of ranks and of each rank alone, plain values, an optimizer: all hold a number.
struct Job {
  using Parameter = decltype(parameter(sm::device_mesh<1>(std::declval<World const&>(), {1}), 0));

  Job(World const& world, float value)
      : weight(parameter(sm::device_mesh<1>(world, {world.size()}), value)),
        adam({{"weight", weight}}, {.lr = value}) {
    dict = sm::StateDict{{"optim", adam.state_dict()}};
    dict.insert("weight", weight);
    sm::Tensor<float> plain(sm::Shape{5});
    std::fill(plain.span().begin(), plain.span().end(), value);
    dict.insert("plain", plain);
    dict.insert("name", sm::Value(std::string(40, value == 1 ? 'a' : 'b')));
    dict.insert("epoch", sm::Value(value));
  }

  /// The values of all that there is, those of the optimizer's options too.
  [[nodiscard]] std::string text() const {
    std::string all;
    for (sm::StateEntry const& entry : dict) {
      all += entry.key + " ";
      if (!entry.is_tensor()) {
        all += sm::to_string(entry.plain());
      } else {
        for (std::byte const byte : entry.tensor().local_bytes()) {
          all += std::to_string(std::to_integer<int>(byte)) + ",";
        }
      }
      all += "\n";
    }
    return all;
  }

  Parameter weight;
  sm::AdamW<Parameter> adam;
  sm::StateDict dict;
};

/// What became of a load in which an allocation of `rank` fails.
struct Outcome {
  std::size_t made = 0;  ///< allocations of the rank in which they fail
  std::vector<bool> threw;
  std::vector<std::string> held;
};

using Load = std::function<void(World const&, sm::StateDict&)>;

Outcome load_with(Load const& load, int ranks, int rank, std::size_t first, bool lasting) {
  Outcome outcome;
  auto const count = static_cast<std::size_t>(ranks);
  std::vector<char> threw(count, 0);
  outcome.held.resize(count);
  std::vector<std::exception_ptr> others(count);
  try {
    // A rank that breaks off while another waits for it in a copy phase is waited for until that one gives up.
    auto const limit = std::chrono::seconds(first == SIZE_MAX ? 60 : 5);
    sm::launch(sm::threads{ranks, limit}, [&](World& world) {
      auto const me = static_cast<std::size_t>(world.rank());
      Job job(world, 2);
      world.barrier();
      if (world.rank() == rank) {
        failing = {true, lasting, first, 0};
      }
      try {
        load(world, job.dict);
      } catch (...) {
        threw[me] = 1;
        others[me] = std::current_exception();
      }
      if (world.rank() == rank) {
        failing.armed = false;
        outcome.made = failing.made;
      }
      outcome.held[me] = job.text();
      if (others[me]) {
        std::rethrow_exception(others[me]);  // so that nobody waits for this rank
      }
    });
  } catch (std::exception const&) {  // of a rank
  }
  outcome.threw.assign(threw.begin(), threw.end());
  return outcome;
}

/// Allocations that are made to fail, of so many: each with SHARDMESH_EVERY_ALLOCATION=1, else the last
/// ones, where ranks are about to part, and some of the others.
std::vector<std::size_t> chosen(std::size_t all) {
  std::size_t const step = std::getenv("SHARDMESH_EVERY_ALLOCATION") != nullptr ? 1 : 37;
  std::vector<std::size_t> numbers;
  for (std::size_t i = 0; i < all; i += i + 40 < all ? step : 1) {
    numbers.push_back(i);
  }
  return numbers;
}

/// Fails allocations of each rank in turn.
void fail_each(Load const& load, int ranks) {
  std::string const before =
      load_with([](World const&, sm::StateDict&) {}, ranks, 0, 0, false).held[0];
  std::size_t points = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    Outcome const whole = load_with(load, ranks, rank, SIZE_MAX, false);
    REQUIRE(std::find(whole.threw.begin(), whole.threw.end(), true) == whole.threw.end());
    REQUIRE(whole.held[0] != before);
    for (bool const lasting : {false, true}) {
      for (std::size_t const first : chosen(whole.made)) {
        Outcome const one = load_with(load, ranks, rank, first, lasting);
        points += one.made > first ? 1 : 0;
        bool const all = one.held == whole.held;
        CAPTURE(rank);
        CAPTURE(first);
        CAPTURE(lasting);
        for (std::size_t i = 0; i < one.held.size(); ++i) {
          CHECK((all || one.held[i] == before));
          CHECK(one.threw[i] == !all);
        }
      }
    }
  }
  MESSAGE(points << " allocations have failed");
  CHECK(points > 40);
}

}  // namespace

TEST_CASE("a load of a distributed checkpoint") {
  test::Scratch const scratch;
  std::string const path = scratch / "run";
  sm::launch(sm::threads{2}, [&](World& world) { sm::save(world, path, Job(world, 1).dict); });
  fail_each([&](World const& world, sm::StateDict& dict) { sm::load(world, path, dict); }, 2);
}

TEST_CASE("a load of a model of safetensors") {
  test::Scratch const scratch;
  std::string const path = scratch / "model";
  sm::launch(sm::threads{2},
             [&](World& world) { sm::save_safetensors_by_rank(world, path, Job(world, 1).dict); });
  sm::LoadOptions const options{.missing = sm::KeyPolicy::collect};
  fail_each(
      [&](World const& world, sm::StateDict& dict) { sm::load_any(world, path, dict, options); },
      2);
}

TEST_CASE("a load of a stream") {
  std::stringstream stream;
  sm::launch(sm::threads{1}, [&](World& world) { sm::save_stream(stream, Job(world, 1).dict); });
  std::string const bytes = stream.str();
  fail_each(
      [&](World const&, sm::StateDict& dict) {
        std::istringstream in(bytes);
        sm::load_stream(in, dict);
      },
      1);
}

TEST_CASE("a load of another state dict: copies, plain values, an optimizer") {
  fail_each(
      [](World const& world, sm::StateDict& dict) {
        Failing const kept = std::exchange(failing, {});
        Job const from(world, 1);
        failing = kept;
        sm::load_state_dict(world, dict, from.dict);
      },
      2);
}

TEST_CASE("a load of another state dict: whole tensors that are cut, other layouts, other types") {
  fail_each(
      [](World const& world, sm::StateDict& dict) {
        Failing const kept = std::exchange(failing, {});
        Job const from(world, 1);
        sm::StateDict const whole = sm::replicated_state_dict(world, from.dict);
        failing = kept;
        sm::load_state_dict(world, dict, whole, {.full_state_dict = true});
      },
      2);
  fail_each(
      [](World const& world, sm::StateDict& dict) {
        Failing const kept = std::exchange(failing, {});
        Job const from(world, 1);
        sm::StateDict other;
        for (sm::StateEntry const& entry : from.dict) {
          if (entry.key == "weight") {
            auto const& mesh = from.weight.mesh();
            sm::Tensor<double> ones(sm::Shape{6, 3});
            std::fill(ones.span().begin(), ones.span().end(), 1.0);
            other.insert("weight", sm::distribute(ones, mesh, sm::placements<sm::Shard<1>>,
                                                  sm::DataSource::own));
          } else {
            other.insert(entry.path, entry.value);
          }
        }
        failing = kept;
        sm::load_state_dict(world, dict, other, {.dtype = sm::DTypePolicy::cast});
      },
      2);
  fail_each(
      [](World const& world, sm::StateDict& dict) {
        Failing const kept = std::exchange(failing, {});
        Job const from(world, 1);
        sm::StateDict other;
        for (sm::StateEntry const& entry : from.dict) {
          if (entry.key == "weight") {
            other.insert("weight", sm::redistribute(from.weight, sm::placements<sm::Shard<1>>));
          } else {
            other.insert(entry.path, entry.value);
          }
        }
        failing = kept;
        sm::load_state_dict(world, dict, other);
      },
      2);
}

TEST_SUITE_END();
