// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Saves and loads know ranks and catalogs by one type each: what these types pass on, and what they do for
// communicators and catalogs that have no more than they must.
#include <shardmesh/checkpoint/detail/any_catalog.hpp>
#include <shardmesh/checkpoint/detail/any_ranks.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_from.hpp>
#include <shardmesh/checkpoint/save.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/environment.hpp>
#include <shardmesh/comm/sockets.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/state/state_dict.hpp>

#include "../support/alone.hpp"
#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"
#include "../support/sanitizers.hpp"
#include "../support/scratch.hpp"

namespace any_engine_test {

namespace sm = shardmesh;
using sm::detail::AnyRanks;

TEST_SUITE_BEGIN("checkpoint.any_engine");

namespace {

static_assert(sm::Communicator<test::Alone> && !sm::detail::ExchangesHostMemory<test::Alone>);
static_assert(sm::Communicator<AnyRanks> &&
              sm::detail::ExchangesHostMemory<sm::SocketCommunicator> &&
              sm::detail::ExchangesHostMemory<sm::ThreadsCommunicator>);

/// Two tensors and a value, and no more than `Catalog` asks; `bytes_read`, `read_box` and `value` change it.
struct Few {
  std::string describe() const { return "a few tensors"; }
  std::vector<std::string> keys() const { return {"w", "b", "step"}; }
  bool contains(std::string const& key) const { return key == "w" || key == "b" || key == "step"; }
  sm::StoredTensor const* tensor(std::string const& key) const {
    return key == "w" ? &w_ : key == "b" ? &b_ : nullptr;
  }
  sm::StoredBox read_box(std::string const& key, std::size_t i) {
    sm::Box const& box = tensor(key)->boxes.at(i);
    auto const elements = static_cast<std::size_t>(box.volume());
    sm::StoredBox read{sm::HostBlock(elements * sizeof(float)), 0, {}};
    std::vector<float> values(elements);
    for (std::size_t e = 0; e < elements; ++e) {
      values[e] = (key == "w" ? 100.0F : 500.0F) +
                  static_cast<float>(box.offset[0] * (box.extent.size() > 1 ? box.extent[1] : 1)) +
                  static_cast<float>(e);
    }
    std::memcpy(read.bytes.data(), values.data(), elements * sizeof(float));
    read.strides = box.extent.size() > 1 ? sm::Shape{box.extent[1] * 4, 4} : sm::Shape{4};
    bytes_ += elements * sizeof(float);
    return read;
  }
  sm::Value value(std::string const&) { return sm::Value(7); }
  std::uint64_t bytes_read() { return bytes_; }

 private:
  sm::StoredTensor w_{sm::DType::float32, {6, 4}, {{{0, 0}, {4, 4}}, {{4, 0}, {2, 4}}}};
  sm::StoredTensor b_{sm::DType::float32, {5}, {{{0}, {5}}}};
  std::uint64_t bytes_ = 0;
};
static_assert(sm::Catalog<Few> && !sm::RangeCatalog<Few>);

sm::StateDict step(int number) {
  sm::StateDict dict;
  dict.insert("step", sm::Value(number));
  return dict;
}

/// Everything that the ranks of a save or a load do, on any engine of three ranks.
/// @returns what was wrong; empty if nothing.
template <class Comm>
std::string problem_of(Comm const& world) {
  std::string problem;
  auto const expect = [&](bool right, char const* what) { problem += right ? "" : what; };
  AnyRanks const ranks(world);
  expect(static_cast<bool>(ranks), "no handle; ");
  expect(ranks.rank() == world.rank() && ranks.size() == 3, "rank, size; ");
  expect(ranks.world_ranks() == world.world_ranks(), "world_ranks; ");
  expect(ranks.activity() == sm::detail::activity_of(world), "activity; ");
  ranks.barrier();
  expect(sm::all_gather_value(ranks, 10 * world.rank()) == std::vector<int>{0, 10, 20},
         "all_gather; ");

  AnyRanks const outer = ranks.split(world.rank() == 1 ? -1 : 0, -world.rank());
  expect(static_cast<bool>(outer) == (world.rank() != 1), "who is in a split; ");
  if (outer) {
    expect(outer.world_ranks() == std::vector<int>{2, 0}, "the order of a split; ");
  }

  int const next = (world.rank() + 1) % 3;
  int const previous = (world.rank() + 2) % 3;
  int mine = 1000 + world.rank();
  int got = 0;
  std::vector<sm::Message> const sends{{next, &mine, sizeof mine}};
  std::vector<sm::Message> receives{{previous, &got, sizeof got}};
  ranks.exchange(sends, receives, "pass on");
  expect(got == 1000 + previous, "exchange; ");

  auto const phase = ranks.copy_phase();
  expect((phase != nullptr) == std::is_same_v<Comm, sm::ThreadsCommunicator>, "copy_phase; ");
  if (phase) {
    phase->end();
    ranks.barrier();
    phase->close();
  }
  std::string const error = test::error_of<sm::MismatchError>(
      [&] { static_cast<void>(ranks.split(0, 0, world.rank() == 2 ? "another" : "split")); });
  expect(error.find("another") != std::string::npos, "the call's name; ");
  return problem;
}

}  // namespace

TEST_CASE("AnyRanks: ranks that are threads") {
  sm::launch(sm::threads{3}, [](auto& world) { CHECK(problem_of(world) == ""); });
}

TEST_CASE("AnyRanks: ranks that talk through sockets" * doctest::skip(!SHARDMESH_TEST_MAY_FORK)) {
  CHECK(sm::spawn_processes(3, [] {
          std::string problem;
          sm::launch(sm::environment{}, [&](auto& world) { problem = problem_of(world); });
          std::cerr << problem;
          return problem.empty() ? 0 : 1;
        }) == std::vector<int>(3, 0));
}

TEST_CASE("AnyRanks: an empty handle is one, and its calls say so") {
  CHECK_FALSE(static_cast<bool>(AnyRanks()));
  AnyRanks const empty{sm::SocketCommunicator()};
  CHECK_FALSE(static_cast<bool>(empty));
  std::string const error = test::error_of<sm::InvalidArgument>([&empty] { empty.barrier(); });
  CHECK(error.find("this communicator is empty") != std::string::npos);
}

TEST_CASE("AnyRanks: a communicator with no more than it must have can save") {
  AnyRanks const ranks{test::Alone()};
  CHECK(ranks.copy_phase() == nullptr);
  std::string const error =
      test::error_of<sm::UnsupportedError>([&ranks] { ranks.exchange({}, {}, "load"); });
  CHECK(error.find("give it an exchange<HostMemory>") != std::string::npos);

  test::Scratch const scratch;
  sm::save(test::Alone(), scratch / "step", step(3));
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::StateDict loaded = step(0);
    sm::load(world, scratch / "step", loaded);
    CHECK(loaded.at("step").plain() == sm::Value(3));
  });
}

TEST_CASE("AnyCatalog: a catalog with no more than it must have loads, resharded") {
  auto const open = [] { return Few(); };
  std::unique_ptr<sm::detail::AnyCatalog> const few = sm::detail::any_catalog_of(open)();
  CHECK(few->path("w.x") == std::vector<sm::PathElement>{sm::PathElement(std::string("w.x"))});
  CHECK(few->identity().empty());
  CHECK(few->lost_files().empty());
  CHECK(few->problem("w") == nullptr);
  CHECK_FALSE(few->reads_parts());
  CHECK_FALSE(few->open_run("w", 0, {{0, 0}, {4, 4}}).has_value());
  CHECK(few->read_part("w", 1, {{4, 0}, {2, 4}}).strides == sm::Shape{16, 4});

  sm::launch(sm::threads{3}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {3}, {"dp"});
    auto const w = test::unset_tensor(sm::DType::float32, {6, 4}, mesh, {sm::Shard{0}});
    auto const b = test::unset_tensor(sm::DType::float32, {5}, mesh, {sm::Replicate{}});
    sm::StateDict dict = step(0);
    dict.insert("w", w);
    dict.insert("b", b);
    std::uint64_t const read = sm::load_from(world, open, dict).bytes_read;
    auto const all = sm::all_gather_value(world, read);
    CHECK(std::accumulate(all.begin(), all.end(), std::uint64_t{0}) == (6 * 4 + 5) * sizeof(float));
    auto const counts_from = [](sm::AnyTensor const& tensor, float first, std::size_t elements) {
      std::vector<float> expected(elements);
      std::iota(expected.begin(), expected.end(), first);
      return std::memcmp(tensor.data(), expected.data(), elements * sizeof(float)) == 0;
    };
    CHECK(counts_from(w, 100.0F + static_cast<float>(8 * world.rank()), 8));
    CHECK(counts_from(b, 500.0F, 5));
    CHECK(dict.at("step").plain() == sm::Value(7));
  });
}

TEST_SUITE_END();

}  // namespace any_engine_test
