// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Row B12: every checkpoint that PyTorch wrote, onto any mesh, equals the tensors written beside it.
#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/load_from.hpp>
#include <shardmesh/checkpoint/safetensors_blob.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/comm/threads.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "../support/sample.hpp"

namespace fixtures_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.fixtures");

namespace {

/// Loads a fixture onto a mesh under several placements; returns what differs.
template <std::size_t N, class World>
std::string load_onto(World const& world,
                      std::string const& name,
                      sm::index_t const (&extents)[N],
                      std::vector<sm::PlacementList> const& lists) {
  auto const mesh = sm::device_mesh<N>(world, extents);
  auto whole = test::references(name);
  std::string problem;
  for (sm::PlacementList const& list : lists) {
    sm::StateDict dict = sm::with_catalog(test::fixture(name), [&](auto const& catalog) {
      return test::unset_state(catalog, mesh, list);
    });
    sm::load_any(world, test::fixture(name), dict);
    auto const at = mesh.coordinate();
    std::string const what =
        test::difference_from(whole, dict, std::vector<sm::index_t>(at.begin(), at.end()));
    if (problem.empty() && !what.empty()) {
      problem = name + " on " + to_string(list) + ": " + what;
    }
  }
  return problem;
}

sm::PlacementList list(std::initializer_list<sm::Placement> placements) {
  return placements;
}

/// Bytes that this thread has read from files so far, this call left out; 0 if nobody counts them.
std::uint64_t read_by_this_thread() {
  thread_local std::uint64_t own = 0;
  std::string const text = test::slurp("/proc/thread-self/io");
  std::uint64_t const all =
      text.starts_with("rchar: ") ? std::stoull(text.substr(std::strlen("rchar: "))) : 0;
  std::uint64_t const others = all - std::min(all, own);
  own += text.size();
  return others;
}

template <class World>
std::string load_onto_all(World const& world, std::string const& name) {
  sm::Placement const r = sm::Replicate{};
  sm::Placement const s0 = sm::Shard{0};
  sm::Placement const s1 = sm::Shard{1};
  std::vector<sm::PlacementList> const flat{list({r}), list({s0}), list({s1})};
  std::vector<sm::PlacementList> const square{
      list({r, s0}),  list({s0, s1}), list({s1, s0}),
      list({s0, s0}), list({s1, r}),  list({sm::Placement::strided(0, 2), s0})};
  switch (world.size()) {
    case 4: {
      std::string const first = load_onto<1>(world, name, {4}, flat);
      return first.empty() ? load_onto<2>(world, name, {2, 2}, square) : first;
    }
    case 6:
      return load_onto<2>(world, name, {2, 3}, square);
    case 8: {
      std::string const first = load_onto<2>(world, name, {4, 2}, square);
      return first.empty() ? load_onto<3>(world, name, {2, 2, 2}, {list({r, s0, s1})}) : first;
    }
    default:
      return load_onto<1>(world, name, {world.size()}, flat);
  }
}

}  // namespace

TEST_CASE("B12 reads PyTorch: every fixture, on meshes 1, 2, 3, 4, 2x2, 2x3, 4x2, 2x2x2") {
  auto const names = test::fixtures();
  REQUIRE(names.size() == 20);
  std::size_t turn = 0;
  for (std::string const& name : names) {
    for (int ranks : test::some_of({1, 2, 3, 4, 6, 8}, 6, ++turn)) {
      sm::launch(sm::threads{ranks}, [&](auto& world) { CHECK(load_onto_all(world, name) == ""); });
    }
  }
}

TEST_CASE("a tensor in a safetensors blob is read once, and the header once for all of them") {
  std::string const directory = test::fixture("dcp_safetensors");
  sm::DcpCatalog<sm::SafetensorsBlobs> catalog(directory);
  int compared = 0;
  for (std::string const& key : catalog.keys()) {
    sm::StoredTensor const* const tensor = catalog.tensor(key);
    if (tensor == nullptr || tensor->boxes[0].empty()) {
      continue;
    }
    static_cast<void>(catalog.read_box(key, 0));  // now the header is known
    std::uint64_t const before = read_by_this_thread();
    std::size_t const bytes = catalog.read_box(key, 0).bytes.size();
    std::uint64_t const read = read_by_this_thread() - before;
    if (before > 0) {  // the kernel counts
      CHECK(read == bytes);
    }
    ++compared;
  }
  CHECK(compared > 0);
}

TEST_CASE("plain values come back as PyTorch stored them") {
  sm::launch(sm::threads{2}, [](auto& world) {
    sm::StateDict dict;
    for (char const* key : {"step", "lr", "name", "betas", "nested.flag", "nested.none"}) {
      dict.insert(key, sm::Value(std::string("unset")));
    }
    sm::load(world, test::fixture("dtypes"), dict);
    CHECK(to_string(dict.at("step").plain()) == "7");
    CHECK(to_string(dict.at("lr").plain()) == "0.125");
    CHECK(to_string(dict.at("name").plain()) == "\"run\"");
    CHECK(to_string(dict.at("betas").plain()) == "[0.9, 0.999]");
    CHECK(dict.at("nested.flag").plain() == sm::Value(true));
    CHECK(dict.at("nested.none").plain() == sm::Value());
  });
}

TEST_CASE("load wants <load_any.hpp> for safetensors, and says so") {
  sm::launch(sm::threads{1}, [](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {1});
    sm::DcpCatalog<> catalog(test::fixture("dcp_safetensors"));
    sm::StateDict dict = test::unset_state(catalog, mesh, list({sm::Replicate{}}));
    CHECK_THROWS_WITH_AS(sm::load(world, test::fixture("dcp_safetensors"), dict),
                         doctest::Contains("call load_any"), sm::UnsupportedError);
    CHECK_THROWS_WITH_AS(sm::load(world, test::fixture("hf_safetensors"), dict),
                         doctest::Contains("call load_any"), sm::IoError);
  });
}

TEST_SUITE_END();

}  // namespace fixtures_test
