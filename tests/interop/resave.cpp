// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// resave SOURCE TARGET RANKS [FORM]: loads a whole checkpoint onto RANKS ranks, the tensors sharded in
// turn in every way, and saves it, plain values included. FORM is dcp (the default), whole (the same with the keys of
// PyTorch 2.3), async (dcp in the background), or, all ranks writing at once: safetensors (one file), hub (files and an index) or
// shards (a file a rank); these leave out what safetensors cannot hold.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../support/checkpoints.hpp"

namespace sm = shardmesh;

namespace {

/// Where the values of a checkpoint stand in its nested dict; empty if it does not say.
std::vector<std::vector<sm::PathElement>> paths_of(std::string const& source) {
  return sm::with_catalog(source, [](auto const& catalog) {
    std::vector<std::vector<sm::PathElement>> paths;
    if constexpr (requires { catalog.metadata(); }) {
      for (std::string const& key : catalog.keys()) {
        paths.push_back(catalog.metadata().find(key)->path);
      }
    }
    return paths;
  });
}

template <class World>
void resave(World const& world,
            std::string const& source,
            std::string const& target,
            std::string const& form) {
  sm::PlacementList const ways[] = {
      {sm::Shard{0}, sm::Shard{0}},    {sm::Replicate{}, sm::Shard{0}},
      {sm::Shard{0}, sm::Shard{1}},    {sm::Shard{1}, sm::Shard{0}},
      {sm::Shard{1}, sm::Replicate{}}, {sm::Replicate{}, sm::Replicate{}}};
  sm::index_t const rows = world.size() % 2 == 0 ? 2 : 1;
  auto const mesh = sm::device_mesh<2>(world, {rows, world.size() / rows});
  std::vector<sm::StateDict> sharded;
  for (sm::PlacementList const& way : ways) {
    sharded.push_back(sm::with_catalog(
        source, [&](auto const& catalog) { return test::unset_state(catalog, mesh, way); }));
  }
  sm::StateDict dict;
  auto const paths = paths_of(source);
  std::size_t turn = 0;
  for (sm::StateEntry const& entry : sharded.front()) {
    dict.insert(paths.empty() ? entry.path : paths[turn],
                sharded[turn % sharded.size()].at(entry.key).value);
    ++turn;
  }
  sm::load_any(world, source, dict);
  if (form == "dcp" || form == "whole") {
    sm::save(world, target, dict,
             {.containers = form == "whole" ? sm::Containers::whole : sm::Containers::elements});
    return;
  }
  if (form == "async") {
    sm::AsyncSaver saver(world);
    sm::Saving const saving = saver.save(target, dict);
    for (sm::StateEntry const& entry : dict) {
      if (entry.is_tensor()) {
        entry.tensor().assign(std::vector<std::byte>(entry.tensor().bytes()));
      }
    }
    saving.wait();
    return;
  }
  sm::StateDict tensors;
  for (sm::StateEntry const& entry : dict) {
    if (entry.is_tensor() && entry.tensor().dtype() != sm::DType::complex128) {
      tensors.insert(entry.path, entry.value);
    }
  }
  if (form == "safetensors") {
    sm::save_safetensors(world, target, tensors);
  } else if (form == "hub") {
    sm::save_safetensors_sharded(world, target, tensors, 3000);
  } else {
    sm::save_safetensors_by_rank(world, target, tensors);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::fprintf(stderr, "usage: resave SOURCE TARGET RANKS [FORM]\n");
    return 2;
  }
  try {
    sm::launch(sm::threads{std::atoi(argv[3])},
               [&](auto& world) { resave(world, argv[1], argv[2], argc == 5 ? argv[4] : "dcp"); });
  } catch (std::exception const& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
