// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Models of very many tensors: work that grows with their number, not with its square.
#include <shardmesh/checkpoint/safetensors_plan.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/format/dcp_metadata_writer.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../support/checkpoints.hpp"
#include "../support/sanitizers.hpp"

namespace many_tensors_test {

namespace sm = shardmesh;
namespace format = shardmesh::format;

TEST_SUITE_BEGIN("checkpoint.many_tensors");

namespace {

/// How much more processor time four times as many tensors take: 4 if it is linear, 16 if it is
/// quadratic, whatever the machine. Other processes do not count, but slow caches do: of up to five runs
/// the shortest of each size count.
double growth(std::function<std::function<void()>(std::size_t)> const& job) {
  std::size_t const few = test::sanitized ? 2'000 : 3'000;
  auto const time_of = [&](std::size_t tensors) {
    std::function<void()> const run = job(tensors);
    std::clock_t const start = std::clock();
    run();
    return static_cast<double>(std::clock() - start) + 1;
  };
  double small = std::numeric_limits<double>::max();
  double large = std::numeric_limits<double>::max();
  for (int run = 0; run < 5 && (run == 0 || large > 5 * small); ++run) {
    small = std::min(small, time_of(few));
    large = std::min(large, time_of(4 * few));
  }
  return large / small;
}

std::string name_of(std::size_t number) {
  return "model.layers." + std::to_string(number) + ".weight";
}

format::SafetensorsHeader header_of(std::size_t tensors) {
  format::SafetensorsHeader header;
  for (std::size_t i = 0; i < tensors; ++i) {
    header.tensors.push_back({name_of(i), sm::DType::int8, {2}, 0, 0});
  }
  return header;
}

sm::StateDict state_of(std::size_t tensors) {
  sm::StateDict dict;
  for (std::size_t i = 0; i < tensors; ++i) {
    dict.insert(name_of(i), sm::Tensor<std::int8_t>(sm::Shape{2}));
  }
  return dict;
}

/// Calls of the system by which this process has written so far; 0 where it does not say.
std::uint64_t system_writes() {
  std::ifstream said("/proc/self/io");
  for (std::string word; said >> word;) {
    if (std::uint64_t count = 0; word == "syscw:" && said >> count) {
      return count;
    }
  }
  return 0;
}

/// What two ranks would write: half of each tensor.
std::vector<sm::PlacedItem> halves_of(std::size_t tensors) {
  std::vector<sm::PlacedItem> placed;
  for (int const rank : {0, 1}) {
    for (std::size_t i = 0; i < tensors; ++i) {
      placed.push_back(
          {{name_of(i), {name_of(i)}, sm::DType::int8, {2}, {{rank}, {1}}, 1}, rank, i});
    }
  }
  return placed;
}

constexpr double linear = 8;  // at most; what was quadratic had 11 to 16

}  // namespace

TEST_CASE("headers are written and read in linear time") {
  CHECK(growth([](std::size_t tensors) {
          return [header = header_of(tensors)]() mutable {
            static_cast<void>(format::write_safetensors_header(header));
          };
        }) < linear);
  CHECK(growth([](std::size_t tensors) {
          format::SafetensorsHeader header = header_of(tensors);
          auto const bytes = format::write_safetensors_header(header);
          return [text = std::string(format::as_text(bytes).substr(8))] {
            static_cast<void>(format::read_safetensors_header(text, "x"));
          };
        }) < linear);
}

TEST_CASE("files and the index are planned in linear time, whatever the form") {
  auto const plan_growth = [](auto plan) {
    return growth([plan](std::size_t tensors) {
      return [plan, placed = halves_of(tensors)] { static_cast<void>(plan(placed)); };
    });
  };
  CHECK(plan_growth([](auto const& placed) { return sm::plan_model(placed, {}, "one"); }) < linear);
  CHECK(plan_growth([](auto const& placed) {
          return sm::index_of_model(sm::plan_model(placed, {.data_bytes = 1'000}));
        }) < linear);
  CHECK(plan_growth([](auto const& placed) { return sm::plan_model_shards(placed); }) < linear);
}

TEST_CASE("saving, listing, verifying and loading take linear time") {
  test::Scratch const scratch;
  auto const on_one = [](auto part) {
    sm::launch(sm::threads{1}, [&](auto& world) { part(world); });
  };
  auto const path_of = [&](std::size_t tensors) {
    return scratch / std::to_string(tensors) + ".safetensors";
  };
  CHECK(growth([&](std::size_t tensors) {
          return [&, tensors, dict = state_of(tensors)] {
            sm::save_safetensors(path_of(tensors), dict);
          };
        }) < linear);
  CHECK(growth([&](std::size_t tensors) {
          return [&, tensors, dict = state_of(tensors)] {
            on_one([&](auto& world) { sm::save_safetensors(world, path_of(tensors), dict); });
          };
        }) < linear);
  CHECK(growth([&](std::size_t tensors) {
          return [&, tensors] {
            sm::SafetensorsCatalog catalog(path_of(tensors));
            CHECK(sm::verify(catalog).values == tensors);
          };
        }) < linear);
  CHECK(growth([&](std::size_t tensors) {
          return [&, tensors, dict = state_of(tensors)]() mutable {
            on_one([&](auto& world) { sm::load_any(world, path_of(tensors), dict); });
          };
        }) < linear);
}

TEST_CASE("a checkpoint of many tensors is saved, verified and loaded in linear time") {
  test::Scratch const scratch;
  auto const path_of = [&](std::size_t tensors) { return scratch / std::to_string(tensors); };
  auto const on_two = [](auto part) {
    sm::launch(sm::threads{2}, [&](auto& world) { part(world); });
  };
  CHECK(growth([&](std::size_t tensors) {
          return [&, tensors, dict = state_of(tensors)] {
            on_two([&](auto& world) { sm::save(world, path_of(tensors), dict); });
          };
        }) < linear);
  CHECK(growth([&](std::size_t tensors) {
          return [&, tensors] {
            sm::DcpCatalog catalog(path_of(tensors));
            CHECK(sm::verify(catalog).values == tensors);
          };
        }) < linear);
  CHECK(growth([&](std::size_t tensors) {
          return [&, tensors] {
            on_two([&](auto& world) {
              sm::StateDict dict = state_of(tensors);
              sm::load(world, path_of(tensors), dict);
            });
          };
        }) < linear);
}

TEST_CASE("many small tensors are written by few calls of the system, whatever the form") {
  test::Scratch const scratch;
  constexpr std::size_t tensors = 5'000;
  sm::StateDict const dict = state_of(tensors);
  auto const writes_of = [](auto const& save) {
    std::uint64_t const before = system_writes();
    sm::launch(sm::threads{1}, [&](auto& world) { save(world); });
    return system_writes() - before;
  };
  constexpr std::uint64_t few = 100;
  CHECK(writes_of([&](auto& world) { sm::save(world, scratch / "dcp", dict); }) < few);
  CHECK(writes_of([&](auto& world) {
          sm::save_safetensors(world, scratch / "one.safetensors", dict);
        }) < few);
  CHECK(writes_of([&](auto& world) {
          sm::save_safetensors_sharded(world, scratch / "hub", dict, 5'000);
        }) < few);
  CHECK(writes_of([&](auto& world) {
          sm::save_safetensors_by_rank(world, scratch / "shards", dict);
        }) < few);
}

TEST_CASE(
    "a checkpoint whose data are one safetensors blob is verified and loaded in linear time") {
  test::Scratch const scratch;
  auto const path_of = [&](std::size_t tensors) { return scratch / std::to_string(tensors); };
  auto const make = [&](std::size_t tensors) {
    std::string const path = path_of(tensors);
    if (sm::PosixStorage::exists(path)) {
      return;
    }
    sm::PosixStorage::make_directory(path);
    format::SafetensorsHeader header = header_of(tensors);
    format::Bytes bytes = format::write_safetensors_header(header);
    bytes.resize(bytes.size() + header.data_bytes());
    format::DcpMetadata metadata;
    for (format::SafetensorsEntry const& entry : header.tensors) {
      format::StorageInfo const place{"__0_0.distcp", 0, 2, {}};
      metadata.entries.push_back(
          {entry.name,
           {entry.name},
           format::TensorMetadata{sm::DType::int8, {2}, {{{0}, {2}, place}}}});
    }
    auto const write = [&](std::string const& name, format::ByteSpan content) {
      sm::File file = sm::File::create(path + "/" + name);
      file.write_at(0, content);
      file.finish();
    };
    write("__0_0.distcp", bytes);
    write(".metadata", format::write_dcp_metadata(metadata));
  };
  CHECK(growth([&](std::size_t tensors) {
          make(tensors);
          return [&, tensors] {
            sm::with_catalog(path_of(tensors), [&](auto& catalog) {
              sm::VerifyReport const report = sm::verify(catalog);
              CHECK(report.values == tensors);
              CHECK(report.damage.empty());
            });
          };
        }) < linear);
  CHECK(growth([&](std::size_t tensors) {
          make(tensors);
          return [&, tensors] {
            sm::StateDict dict;
            for (std::size_t i = 0; i < tensors; ++i) {
              dict.insert(name_of(i), sm::Tensor<std::int8_t>(sm::Shape{2}));
            }
            sm::launch(sm::threads{1},
                       [&](auto& world) { sm::load_any(world, path_of(tensors), dict); });
          };
        }) < linear);
}

TEST_SUITE_END();

}  // namespace many_tensors_test
