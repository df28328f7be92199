// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Saves in the background: what is saved is what was there when the call was made, and a failure anywhere
// is everybody's.
#include <shardmesh/checkpoint/async_saver.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <memory>
#include <type_traits>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/sharded_tensor.hpp>

#include "../support/checkpoints.hpp"
#include "../support/sanitizers.hpp"

namespace async_saver_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.async");

namespace {

/// Some tensors and a value that all hold `step`.
template <class Mesh>
sm::StateDict state_of(Mesh const& mesh, int step, int tensors = 5) {
  sm::StateDict dict;
  for (int i = 0; i < tensors; ++i) {
    sm::Tensor<float> whole(sm::Shape{40 + i, 30});
    std::fill(whole.span().begin(), whole.span().end(), static_cast<float>(step));
    dict.insert("w" + std::to_string(i),
                sm::distribute(whole, mesh, sm::PlacementList{sm::Shard{0}}, sm::DataSource::own));
  }
  dict.insert("step", sm::Value(step));
  return dict;
}

void overwrite(sm::StateDict const& dict, std::byte with) {
  for (sm::StateEntry const& entry : dict) {
    if (entry.is_tensor()) {
      entry.tensor().assign(std::vector<std::byte>(entry.tensor().bytes(), with));
    }
  }
}

/// What a checkpoint holds, in words; empty if it is the whole of `step`.
template <class World>
std::string unlike(World const& world, std::string const& directory, int step) {
  auto const mesh = sm::device_mesh<1>(world, {world.size()});
  sm::StateDict dict = state_of(mesh, -1);
  sm::load(world, directory, dict);
  return sm::difference(dict, state_of(mesh, step));
}

std::string failure_of_wait(sm::Saving const& saving) {
  try {
    saving.wait();
  } catch (sm::Error const& error) {
    return error.what();
  }
  return "no error";
}

/// Threads whose background waits at every step while the gate is closed.
class Gated {
 public:
  static constexpr bool shared_address_space = true;
  template <class Space>
  static constexpr bool moves = true;

  Gated() = default;
  Gated(sm::ThreadsCommunicator comm, std::atomic<bool>* closed) : comm_(comm), closed_(closed) {}

  explicit operator bool() const { return static_cast<bool>(comm_); }
  [[nodiscard]] int rank() const { return comm_.rank(); }
  [[nodiscard]] int size() const { return comm_.size(); }
  [[nodiscard]] std::vector<int> world_ranks() const { return comm_.world_ranks(); }
  void barrier(sm::Call const& call = "barrier") const { comm_.barrier(call); }
  [[nodiscard]] Gated split(int color, int key, sm::Call const& call = "split") const {
    Gated part(comm_.split(color, key, call), closed_);
    part.behind_ = true;
    return part;
  }
  [[nodiscard]] std::vector<std::vector<std::byte>> all_gather(
      std::span<std::byte const> mine, sm::Call const& call = "all_gather") const {
    if (behind_) {
      closed_->wait(true);
    }
    return comm_.all_gather(mine, call);
  }
  template <class Stream>
  [[nodiscard]] auto copy_phase(Stream stream) const {
    return comm_.copy_phase(stream);
  }

 private:
  sm::ThreadsCommunicator comm_;
  std::atomic<bool>* closed_ = nullptr;
  bool behind_ = false;
};

}  // namespace

TEST_CASE("tensors may change as soon as the call returns, save after save") {
  test::Scratch const scratch;
  sm::launch(sm::threads{3}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {3});
    for (sm::SnapshotSpace const space : {sm::SnapshotSpace::same, sm::SnapshotSpace::host}) {
      sm::AsyncSaver saver(world, {.snapshot = space});
      sm::StateDict dict = state_of(mesh, 0);
      for (int step = 1; step <= 6; ++step) {
        sm::StateDict const now = state_of(mesh, step);
        for (sm::StateEntry const& entry : now) {
          if (entry.is_tensor()) {
            dict.at(entry.key).tensor().assign(entry.tensor().local_bytes());
          }
        }
        dict.set("step", sm::Value(step));
        sm::Saving const saving = saver.save(scratch / "run", dict);
        overwrite(dict, std::byte{0x7f});
        dict.set("step", sm::Value(-7));
        saving.wait();
        CHECK(unlike(world, scratch / "run", step) == "");
        sm::SaveProgress const progress = saving.progress();
        CHECK(progress.finished);
        CHECK(progress.done == progress.total);
        CHECK(progress.total > 0);
      }
    }
  });
}

TEST_CASE("the state may change its shapes between saves") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    sm::AsyncSaver saver(world);
    saver.save(scratch / "run", state_of(mesh, 1, 7)).wait();
    sm::StateDict other;
    other.insert("w0", sm::Tensor<double>::zeros({3}));
    other.insert("w1", sm::Value("now a text"));
    saver.save(scratch / "run", other).wait();
    sm::StateDict back;
    back.insert("w1", sm::Value());
    sm::load(world, scratch / "run", back);
    CHECK(back.at("w1").plain() == sm::Value("now a text"));
    saver.save(scratch / "run", state_of(mesh, 2)).wait();
    CHECK(unlike(world, scratch / "run", 2) == "");
  });
}

TEST_CASE("a state whose ranks were regrouped is saved from where they are now") {
  test::Scratch const scratch;
  sm::launch(sm::threads{4}, [&](auto& world) {
    using Comm = std::remove_cvref_t<decltype(world)>;
    sm::AsyncSaver saver(world);
    // Two groups of two, then the same in another order, then other partners. A rank's rows follow
    // from its place; its shape never changes.
    for (int way = 0; way < 4; ++way) {
      int const place = way == 0   ? world.rank() / 2
                        : way == 1 ? 1 - world.rank() / 2
                                   : (world.rank() + way) % 2;
      Comm const shards = world.split(way < 2 ? world.rank() % 2 : world.rank() / 2, place);
      Comm const replicas = world.split(place, (way + 1) * world.rank() % 4);
      sm::Tensor<float> local({3, 2});
      std::fill(local.span().begin(), local.span().end(), static_cast<float>(10 * way + place));
      sm::StateDict dict;
      dict.insert("w", sm::ShardedTensor<float, Comm>(shards, replicas, {6, 2}, local));
      saver.save(scratch / "run", dict).wait();
      sm::StateDict back;
      back.insert("w", sm::Tensor<float>::zeros({6, 2}));
      sm::load(world, scratch / "run", back);
      sm::Tensor<float> expected({6, 2});
      for (std::size_t i = 0; i < 12; ++i) {
        expected.span()[i] = static_cast<float>(10 * way + (i < 6 ? 0 : 1));
      }
      CHECK(sm::difference(back.at("w").tensor(), expected) == "");
    }
  });
}

TEST_CASE("what one rank cannot save, in the background, is everybody's failure") {
  test::Scratch const scratch;
  sm::launch(sm::threads{3}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {3});
    sm::AsyncSaver saver(world);
    saver.save(scratch / "run", state_of(mesh, 1)).wait();
    sm::StateDict bad = state_of(mesh, 2);
    if (world.rank() == 1) {
      bad.insert("odd", sm::Value(sm::Value::List{sm::Value(sm::Value::Opaque{})}));
    }
    sm::Saving const saving = saver.save(scratch / "run", bad);
    std::string const said = failure_of_wait(saving);
    CHECK(said.find("opaque value") != std::string::npos);
    CHECK((world.rank() == 1 || said.find("rank 1 failed") != std::string::npos));
    CHECK(failure_of_wait(saving) == said);  // again
    CHECK(unlike(world, scratch / "run", 1) == "");
    saver.save(scratch / "run", state_of(mesh, 3)).wait();
    CHECK(unlike(world, scratch / "run", 3) == "");
  });
  CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
}

#if SHARDMESH_TEST_MAY_FORK
TEST_CASE(
    "storage that fails one rank in the background fails all, and leaves the old checkpoint") {
  test::Scratch const scratch;
  auto const statuses = sm::spawn_processes(3, [&] {
    int status = 0;
    sm::launch(sm::environment{}, [&](auto& world) {
      auto const mesh = sm::device_mesh<1>(world, {3});
      sm::AsyncSaver saver(world);
      saver.save(scratch / "run", state_of(mesh, 1)).wait();
      std::signal(SIGXFSZ, SIG_IGN);
      rlimit limit{};
      ::getrlimit(RLIMIT_FSIZE, &limit);
      rlim_t const before = limit.rlim_cur;
      if (world.rank() == 2) {
        limit.rlim_cur = 3000;  // its file needs more
        ::setrlimit(RLIMIT_FSIZE, &limit);
      }
      std::string const said = failure_of_wait(saver.save(scratch / "run", state_of(mesh, 2)));
      status |= said.find("cannot write") != std::string::npos &&
                        said.find("__2_0.distcp") != std::string::npos
                    ? 0
                    : 1;
      limit.rlim_cur = before;
      ::setrlimit(RLIMIT_FSIZE, &limit);
      status |= unlike(world, scratch / "run", 1).empty() ? 0 : 2;
      saver.save(scratch / "run", state_of(mesh, 3)).wait();
      status |= unlike(world, scratch / "run", 3).empty() ? 0 : 4;
    });
    return status;
  });
  CHECK(statuses == std::vector<int>(3, 0));
  CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
}
#endif

TEST_CASE("a saver that goes in the middle of a save finishes it") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    for (int step = 1; step <= 10; ++step) {
      {
        sm::AsyncSaver saver(world);
        static_cast<void>(saver.save(scratch / "run", state_of(mesh, step)));
      }
      CHECK(unlike(world, scratch / "run", step) == "");
    }
  });
  CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
}

TEST_CASE("while a save is written, the next waits or is refused on every rank") {
  test::Scratch const scratch;
  std::atomic<bool> closed = true;
  sm::launch(sm::threads{2}, [&](auto& threads) {
    Gated const world(threads, &closed);
    auto const mesh = sm::device_mesh<1>(threads, {2});
    sm::AsyncSaver saver(world, {.when_busy = sm::WhenBusy::refuse});
    sm::Saving const first = saver.save(scratch / "run", state_of(mesh, 1));
    CHECK_FALSE(first.progress().finished);
    CHECK_THROWS_WITH_AS(static_cast<void>(saver.save(scratch / "run", state_of(mesh, 2))),
                         doctest::Contains("still being written"), sm::InvalidArgument);
    threads.barrier();
    closed = false;
    closed.notify_all();
    first.wait();
    CHECK(unlike(threads, scratch / "run", 1) == "");
    threads.barrier();
    saver.save(scratch / "run", state_of(mesh, 3)).wait();
    CHECK(unlike(threads, scratch / "run", 3) == "");
    sm::AsyncSaver patient(world);
    for (int step = 4; step < 8; ++step) {
      static_cast<void>(patient.save(scratch / "run", state_of(mesh, step)));
    }
    patient.save(scratch / "run", state_of(mesh, 8)).wait();
    CHECK(unlike(threads, scratch / "run", 8) == "");
  });
}

TEST_SUITE_END();

}  // namespace async_saver_test
