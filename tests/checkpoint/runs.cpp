// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Tensors of many MiB: slots that are written by a thread, items that are read as runs, into place.
#include <shardmesh/checkpoint/detail/box_bytes.hpp>
#include <shardmesh/checkpoint/detail/on_threads.hpp>
#include <shardmesh/checkpoint/detail/stored_run.hpp>
#include <shardmesh/checkpoint/detail/unit_reader.hpp>
#include <shardmesh/checkpoint/storage/checked_run.hpp>
#include <shardmesh/checkpoint/storage/direct_write.hpp>
#include <shardmesh/checkpoint/storage/slot_writer.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/spawn.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/memory/host_pool.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/processes.hpp>

#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"
#include "../support/sanitizers.hpp"

namespace runs_test {

namespace sm = shardmesh;
namespace detail = shardmesh::detail;

TEST_SUITE_BEGIN("checkpoint.runs");

namespace {

sm::Placement const r = sm::Replicate{};
sm::Placement const s0 = sm::Shard{0};
sm::Placement const s1 = sm::Shard{1};

/// Element i of the tensor `number`: no two near each other are alike.
std::uint32_t element_of(std::size_t number, std::uint64_t i) {
  return static_cast<std::uint32_t>((i + 1) * 2654435761U) ^
         static_cast<std::uint32_t>(number << 20);
}

/// Rows that are whole MiB and rows that are not, a row above a slot, and one tensor that is small.
std::vector<sm::Shape> const shapes{{512, 1024}, {600, 1021}, {2, 300'000}, {3, 5}, {6, 40, 1501}};

template <class Mesh>
sm::StateDict state_on(Mesh const& mesh, sm::PlacementList const& list, bool filled) {
  sm::StateDict dict;
  for (std::size_t t = 0; t < shapes.size(); ++t) {
    sm::AnyTensor const tensor = test::unset_tensor(sm::DType::int32, shapes[t], mesh, list);
    auto* const elements = static_cast<std::uint32_t*>(tensor.data());
    for (sm::Piece const& piece : filled ? tensor.pieces() : std::vector<sm::Piece>{}) {
      sm::Shape rows = piece.box.extent;
      sm::index_t const row = rows.back();
      rows.back() = 1;
      for (sm::index_t i = 0; i < sm::volume(rows); ++i) {
        sm::Shape global = sm::unravel(i, rows);
        sm::Shape local = global;
        for (std::size_t d = 0; d < rows.size(); ++d) {
          global[d] += piece.box.offset[d];
          local[d] += piece.local[d];
        }
        auto const first = static_cast<std::uint64_t>(sm::ravel(global, shapes[t]));
        std::uint32_t* const to = elements + sm::ravel(local, tensor.local_shape());
        for (sm::index_t k = 0; k < row; ++k) {
          to[k] = element_of(t, first + static_cast<std::uint64_t>(k));
        }
      }
    }
    dict.insert(sm::detail::concat("t", std::to_string(t)), tensor);
  }
  return dict;
}

template <class Mesh>
bool is_as_saved(Mesh const& mesh, sm::PlacementList const& list, sm::StateDict const& dict) {
  return sm::difference(dict, state_on(mesh, list, true)).empty();
}

/// Bytes that all ranks have read.
template <class Comm>
std::uint64_t total(Comm const& comm, std::uint64_t own) {
  std::uint64_t sum = 0;
  for (std::uint64_t const one : sm::all_gather_value(comm, own, "total")) {
    sum += one;
  }
  return sum;
}

std::uint64_t bytes_of_items(std::string const& directory) {
  std::uint64_t bytes = 0;
  sm::DcpCatalog<> const catalog(directory);
  for (sm::format::MetadataEntry const& entry : catalog.metadata().entries) {
    for (sm::format::ChunkMetadata const& chunk : entry.tensor()->chunks) {
      bytes += chunk.storage->length;
    }
  }
  return bytes;
}

std::vector<sm::PlacementList> const layouts{
    {s0, r}, {s1, r}, {r, r}, {sm::Placement::strided(0, 2), s0}};

/// What is saved under each layout is read under each other one, and read once.
template <class World>
std::string reshard_all(World const& world, std::string const& top) {
  auto const mesh = sm::device_mesh<2>(world, {2, 1});
  auto const other = sm::device_mesh<2>(world, {1, 2});
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    std::string const place = sm::detail::concat(top, "/", std::to_string(i));
    sm::save(world, place, state_on(mesh, layouts[i], true));
    sm::save_safetensors(world, place + ".safetensors", state_on(mesh, layouts[i], true));
    world.barrier();
    for (std::size_t k = 0; k < layouts.size(); ++k) {
      auto const& target = k % 2 == 0 ? mesh : other;
      sm::StateDict dict = state_on(target, layouts[k], false);
      sm::LoadOptions options;
      options.threads = 1 + k % 3;
      sm::CheckpointReport const report = sm::load(world, place, dict, options);
      if (!is_as_saved(target, layouts[k], dict)) {
        return sm::detail::concat("other elements: ", place, " as ", std::to_string(k));
      }
      if (total(world, report.bytes_read) != bytes_of_items(place)) {
        return sm::detail::concat("not read once: ", place, " as ", std::to_string(k));
      }
      sm::StateDict again = state_on(target, layouts[k], false);
      sm::load_any(world, place + ".safetensors", again, options);
      if (!is_as_saved(target, layouts[k], again)) {
        return sm::detail::concat("other elements: ", place, ".safetensors as ", std::to_string(k));
      }
    }
    if (world.rank() == 0) {
      sm::DcpCatalog<> catalog(place);
      sm::SafetensorsCatalog file(place + ".safetensors");
      if (!sm::verify(catalog).damage.empty() || !sm::verify(file).damage.empty()) {
        return "the checksums are wrong: " + place;
      }
    }
    world.barrier();
  }
  return "";
}

/// Flips a bit of a file in the middle of the first run of bytes that look like elements of tensor `number`.
void flip_in(std::string const& path, std::size_t number) {
  std::string bytes = test::slurp(path);
  std::string wanted(64, '\0');
  for (std::size_t i = 0; i < 16; ++i) {
    std::uint32_t const element = element_of(number, 100'000 + i);
    std::memcpy(wanted.data() + 4 * i, &element, 4);
  }
  std::size_t const at = bytes.find(wanted);
  REQUIRE(at != std::string::npos);
  bytes[at + 9] = static_cast<char>(bytes[at + 9] ^ 16);
  test::spit(path, bytes);
}

}  // namespace

TEST_CASE("every layout loads as every other: ranks that share memory, on several threads") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) { CHECK(reshard_all(world, scratch / "") == ""); });
}

#if SHARDMESH_TEST_MAY_FORK
TEST_CASE("every layout loads as every other: processes that send messages") {
  test::Scratch const scratch;
  CHECK(sm::spawn_processes(2, [&] {
          std::string problem;
          sm::launch(sm::environment{},
                     [&](auto& world) { problem = reshard_all(world, scratch / ""); });
          return problem.empty() ? 0 : 1;
        }) == std::vector<int>{0, 0});
}
#endif

TEST_CASE("elements of another dtype are converted, in rounds") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<2>(world, {2, 1});
    sm::save(world, scratch / "c", state_on(mesh, {s0, r}, true));
    sm::StateDict wide;
    for (std::size_t t = 0; t < shapes.size(); ++t) {
      wide.insert(sm::detail::concat("t", std::to_string(t)),
                  test::unset_tensor(sm::DType::int64, shapes[t], mesh, {s1, r}));
    }
    sm::LoadOptions options;
    options.dtype = sm::DTypePolicy::cast;
    options.round_bytes = 3 << 20;
    sm::CheckpointReport const report = sm::load(world, scratch / "c", wide, options);
    CHECK(report.rounds > 1);
    CHECK(report.bytes_received > 0);
    for (std::size_t t = 0; t < shapes.size(); ++t) {
      sm::AnyTensor const& tensor = wide.at(sm::detail::concat("t", std::to_string(t))).tensor();
      auto const* const elements = static_cast<std::int64_t const*>(tensor.data());
      bool equal = true;
      for (sm::Piece const& piece : tensor.pieces()) {
        for (sm::index_t i = 0; i < piece.box.volume(); ++i) {
          sm::Shape global = sm::unravel(i, piece.box.extent);
          for (std::size_t d = 0; d < global.size(); ++d) {
            global[d] += piece.box.offset[d];
          }
          auto const bits = element_of(t, static_cast<std::uint64_t>(sm::ravel(global, shapes[t])));
          equal = equal && elements[i] == static_cast<std::int32_t>(bits);
        }
      }
      CHECK(equal);
    }
  });
}

TEST_CASE("a bit that flipped in the elements of a large tensor: every rank throws, no tensor has "
          "changed") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<2>(world, {2, 1});
    sm::save(world, scratch / "c", state_on(mesh, {s0, r}, true));
    sm::save_safetensors(world, scratch / "m.safetensors", state_on(mesh, {s0, r}, true));
    if (world.rank() == 0) {
      flip_in(scratch / "c/__0_0.distcp", 0);
      flip_in(scratch / "m.safetensors", 1);
    }
    world.barrier();
    for (sm::PlacementList const& list : {sm::PlacementList{s0, r}, sm::PlacementList{s1, r}}) {
      sm::StateDict dict = state_on(mesh, list, false);
      sm::StateDict const before = state_on(mesh, list, false);
      for (std::string const& path : {scratch / "c", scratch / "m.safetensors"}) {
        std::string const error =
            test::error_of<sm::Error>([&] { sm::load_any(world, path, dict); });
        CHECK(error.find("damaged") != std::string::npos);
        CHECK(sm::difference(dict, before) == "");
      }
    }
  });
}

TEST_CASE("an item that was cut off, or lies behind the end of its file, is refused") {
  test::Scratch const scratch;
  sm::launch(sm::threads{1}, [&](auto& world) {
    auto const mesh = sm::device_mesh<2>(world, {1, 1});
    sm::save(world, scratch / "c", state_on(mesh, {r, r}, true));
    test::fs::remove(scratch / "c/.shardmesh");
    std::string const bytes = test::slurp(scratch / "c/__0_0.distcp");
    test::spit(scratch / "c/__0_0.distcp", bytes.substr(0, bytes.size() / 2));
    sm::StateDict dict = state_on(mesh, {r, r}, false);
    CHECK(test::error_of<sm::CorruptError>([&] {
            sm::load(world, scratch / "c", dict);
          }).find("truncated") != std::string::npos);
    CHECK(sm::difference(dict, state_on(mesh, {r, r}, false)) == "");
  });
}

TEST_CASE("a stream of large tensors comes back") {
  sm::launch(sm::threads{1}, [&](auto& world) {
    auto const mesh = sm::device_mesh<2>(world, {1, 1});
    std::stringstream stream;
    sm::save_stream(stream, state_on(mesh, {r, r}, true));
    sm::StateDict dict = state_on(mesh, {r, r}, false);
    sm::load_stream(stream, dict);
    CHECK(is_as_saved(mesh, {r, r}, dict));
  });
}

TEST_CASE("slots write what was put into them, wherever runs start and end") {
  test::Scratch const scratch;
  constexpr std::size_t slot = detail::SlotWriter::slot_bytes;
  std::size_t const bytes = 5 * slot + 12'345;
  std::vector<std::byte> source(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    source[i] = static_cast<std::byte>(element_of(0, i) >> 24);
  }
  std::vector<std::size_t> const cuts{0,        1,    4095,          4096,     5000, 300'000,
                                      slot - 1, slot, 2 * slot + 77, 4 * slot, bytes};
  for (bool const backwards : {false, true}) {
    std::string const path = scratch / (backwards ? "b" : "a");
    sm::File file = sm::File::create(path);
    {
      detail::SlotWriter slots(file);
      for (std::size_t i = 1; i < cuts.size(); ++i) {
        std::size_t const k = backwards ? cuts.size() - i : i;
        slots.append(cuts[k - 1], std::span<std::byte const>(source).subspan(
                                      cuts[k - 1], cuts[k] - cuts[k - 1]));
      }
      slots.flush();
    }
    file.finish();
    CHECK(sm::File::open(path).read(0, bytes) == source);
    CHECK(sm::File::open(path).size() == bytes);
  }
}

TEST_CASE("what a slot could not be written for is thrown, once the thread has tried") {
  sm::File const full = sm::File::open_to_write("/dev/full");
  std::vector<std::byte> const source(4 * detail::SlotWriter::slot_bytes);
  for (std::size_t const bytes : {std::size_t{10}, source.size()}) {
    CHECK(test::error_of<sm::IoError>([&] {
            detail::SlotWriter slots(full);
            slots.append(0, std::span<std::byte const>(source).first(bytes));
            slots.flush();
          }).find("No space left") != std::string::npos);
  }
  static_cast<void>(
      test::error_of<sm::IoError>([&] {  // ends without a flush, as when something else has thrown
        detail::SlotWriter slots(full);
        slots.append(0, std::span<std::byte const>(source).first(9'000'000));
      }));
}

TEST_CASE("work on threads is done once each; the error of the lowest number is thrown when all "
          "have ended") {
  for (std::size_t const threads : {1U, 2U, 7U}) {
    std::vector<std::atomic<int>> calls(100);
    detail::on_threads<int>(calls.size(), threads, [&](std::size_t i, int&) { ++calls[i]; });
    CHECK(std::all_of(calls.begin(), calls.end(), [](auto const& one) { return one == 1; }));
    std::atomic<int> running{0};
    std::string const error = test::error_of<std::runtime_error>([&] {
      detail::on_threads<int>(100, threads, [&](std::size_t i, int&) {
        ++running;
        if (i == 3) {
          --running;
          throw std::runtime_error("three");
        }
        --running;
      });
    });
    CHECK(error == "three");
    CHECK(running == 0);
  }
  CHECK_NOTHROW(detail::on_threads<int>(0, 4, [](std::size_t, int&) { throw 1; }));
}

TEST_CASE("what a save writes from and a load stages comes from the pool, and is used again") {
  test::Scratch const scratch;
  std::size_t const before = sm::host_pool().in_use();
  auto const round_trip = [&] {
    sm::launch(sm::threads{2}, [&](auto& world) {
      auto const mesh = sm::device_mesh<1>(world, {2});
      sm::StateDict const saved = state_on(mesh, {s0}, true);
      sm::save(world, scratch / "checkpoint", saved);
      sm::StateDict loaded = state_on(mesh, {s1}, false);
      sm::load(world, scratch / "checkpoint", loaded);
      std::stringstream stream;
      sm::save_stream(stream, saved);
      sm::StateDict copy = state_on(mesh, {s0}, false);
      sm::load_stream(stream, copy);
      CHECK(sm::difference(saved, copy) == "");
    });
    CHECK(sm::host_pool().in_use() == before);
    return sm::host_pool().idle();
  };
  std::size_t most = 0;
  for (int i = 0; i < 3; ++i) {  // ranks may need more at one time in one run than in another
    most = std::max(most, round_trip());
  }
  CHECK(most > 0);
  CHECK(most < std::size_t{150} << 20);  // a round trip passes through far more than that in all
}

TEST_SUITE_END();

}  // namespace runs_test
