// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// A model as the hub has it (several safetensors files with an index, bfloat16) is loaded onto four
// ranks, cut for tensor parallelism by its names, into float: no rank ever has a whole matrix, each
// byte is read once.
//
//   load_safetensors [DIRECTORY, index or file]
#include <cstdio>
#include <exception>
#include <string>

#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;

namespace {

/// Linear layers that open a block are cut by rows, those that close one by columns, the vocabulary
/// by rows; norms are whole.
sm::Placement placement_of(std::string const& name) {
  auto const has = [&](char const* part) { return name.find(part) != std::string::npos; };
  if (has("o_proj") || has("down_proj")) {
    return sm::Shard{1};
  }
  if (has("_proj") || has("embed_tokens") || has("lm_head")) {
    return sm::Shard{0};
  }
  return sm::Replicate{};
}

}  // namespace

int main(int argc, char** argv) try {
  std::string const path = argc > 1 ? argv[1] : EXAMPLE_DATA "/tiny_llama";
  sm::launch(sm::threads{4}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {4}, {"tp"});

    // The model is whatever the files name; an engine would have members for them.
    sm::SafetensorsCatalog const files(path);
    sm::StateDict model;
    for (std::string const& name : files.keys()) {
      sm::Layout const layout(files.tensor(name)->shape, {4}, {placement_of(name)});
      sm::Tensor<float> const local(layout.local_shape(mesh.coordinate()));
      model.insert(name, sm::DistTensor(mesh, layout, local));
    }
    sm::CheckpointReport const report =
        sm::load_any(world, path, model, {.dtype = sm::DTypePolicy::warn});

    sm::index_t here = 0;
    sm::index_t everywhere = 0;
    for (sm::StateEntry const& entry : model) {
      here += sm::volume(entry.tensor().local_shape());
      everywhere += sm::volume(entry.tensor().shape());
    }
    if (world.rank() == 0) {
      std::printf("%s%zu tensors were converted; rank 0 holds %td of %td numbers\n",
                  sm::to_string(model).c_str(), report.cast.size(), here, everywhere);
    }
    if (world.rank() == 2) {
      auto const part = model.at(files.keys().back()).tensor();
      auto const* row = static_cast<float const*>(part.data());
      std::printf("rank 2 has %s of %s from (%td, %td) on: %g %g ...\n",
                  sm::to_string(part.local_shape()).c_str(), files.keys().back().c_str(),
                  part.layout().local_offset({2})[0], part.layout().local_offset({2})[1],
                  double{row[0]}, double{row[1]});
    }
  });
  return 0;
} catch (std::exception const& error) {
  std::fprintf(stderr, "load_safetensors: %s\n", error.what());
  return 1;
}
