// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What the counters and the log say of a save and a load whose bytes are counted by hand, on ranks that are threads
// and on processes that talk over TCP.
#include <shardmesh/core/counters.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../comm/ranks.hpp"
#include "../support/counted_part.hpp"
#include "../support/scratch.hpp"

namespace counters_test {

namespace sm = shardmesh;

using test::done_in;
using test::Meeting;

TEST_SUITE_BEGIN("checkpoint.counters");

namespace {

std::uint64_t bytes_of(std::string const& file) {
  return std::filesystem::file_size(file);
}

/// All files of a directory.
std::uint64_t bytes_in(std::string const& directory) {
  std::uint64_t bytes = 0;
  for (auto const& file : std::filesystem::directory_iterator(directory)) {
    bytes += file.file_size();
  }
  return bytes;
}

template <class World, class Placement>
sm::StateDict state_of(World const& world, Placement const& placement) {
  auto const mesh = sm::device_mesh(world, {2});
  sm::StateDict state;
  state.insert("weight", sm::distribute(sm::Tensor<float>::zeros({8, 6}), mesh, placement));
  return state;
}

/// (8, 6) floats are saved by rows and loaded by columns: each rank reads one of the two items of 4 x 6, of which 4 x 3 are for
/// the other one.
constexpr std::uint64_t passed_on = 2 * (4 * 3) * sizeof(float);

template <class World, class Check>
void save_and_load(World const& world,
                   Meeting& meeting,
                   std::string const& directory,
                   Check const& passes) {
  sm::StateDict const rows = state_of(world, sm::placements<sm::Shard<0>>);
  sm::Counters const saved = done_in(meeting, [&] { sm::save(world, directory, rows); });
  CHECK(saved.storage_written_bytes == bytes_in(directory));
  CHECK(saved.storage_read_bytes == 0);
  CHECK(saved.process_bytes + saved.host_bytes == 0);  // each rank writes what it has
  sm::StateDict columns = state_of(world, sm::placements<sm::Shard<1>>);
  sm::Counters const loaded =
      done_in(meeting, [&] { static_cast<void>(sm::load(world, directory, columns)); });
  CHECK(loaded.storage_written_bytes == 0);
  // Every file once, whole; before that, on each rank the end of the manifest (64 bytes), by which ranks compare which
  // checkpoint they have, and the first 9 bytes of each item, which say what it is.
  CHECK(loaded.storage_read_bytes == bytes_in(directory) + 2 * 64 + 2 * 9);
  passes(loaded);
}

class Kept : public sm::LogSink {
 public:
  void write(sm::LogLevel, std::string_view line) override { lines.emplace_back(line); }
  std::vector<std::string> lines;
};

}  // namespace

TEST_CASE("counters: a save and a load on threads, and what is logged of them") {
  test::Scratch const scratch;
  std::string const directory = scratch / "checkpoint";
  Kept kept;
  sm::UseLogSink const use(kept);
  sm::LogLevel const before = sm::log_level();
  sm::set_log_level(sm::LogLevel::info);
  Meeting meeting(2);
  sm::launch(sm::threads{2}, [&](auto const& world) {
    save_and_load(world, meeting, directory, [](sm::Counters const& loaded) {
      CHECK(loaded.process_bytes == passed_on);
      CHECK(loaded.host_bytes == 0);
    });
  });
  sm::set_log_level(before);
  std::uint64_t const items =
      bytes_of(directory + "/__0_0.distcp") + bytes_of(directory + "/__1_0.distcp");
  REQUIRE(kept.lines.size() == 2);
  CHECK(kept.lines[0] ==
        "shardmesh::save: 2 items, " + std::to_string(items) + " bytes, saved to " + directory);
  CHECK(kept.lines[1].starts_with("shardmesh::load: "));
}

TEST_CASE("counters: a save and a load of processes") {
  test::Scratch const scratch;
  std::string const directory = scratch / "checkpoint";
  Meeting meeting(2);
  CHECK(test::run_sockets(2, test::patience, [&](sm::SocketCommunicator const& world) {
          save_and_load(world, meeting, directory, [](sm::Counters const& loaded) {
            CHECK(loaded.host_bytes == passed_on);
            CHECK(loaded.process_bytes == 0);
          });
        }) == test::Texts(2, "no error"));
}

TEST_SUITE_END();

}  // namespace counters_test
