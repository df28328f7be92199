// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// engine_adoption FOLDER: an engine that owns everything takes shardmesh in. Its memory comes from a resource
// of its own, its tensors know their element types at run time. Its state is sharded, cut another way, saved to
// FOLDER and loaded, all in its own memory; prints how many bytes each step copied there, or out of it, and
// allocated. tests/examples/engine_adoption.py knows how many had to be.
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <memory>
#include <memory_resource>
#include <vector>

#include <shardmesh/checkpoint.hpp>
#include <shardmesh/interop/foreign_tensor.hpp>
#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;

namespace engine {

std::pmr::synchronized_pool_resource memory;  // whatever the engine has

struct Tensor {
  sm::DType dtype;
  sm::Shape shape;
  std::shared_ptr<void> data;
};

Tensor make(sm::DType dtype, sm::Shape const& shape) {
  std::size_t const bytes = static_cast<std::size_t>(sm::volume(shape)) * sm::size_of(dtype);
  return {dtype, shape, std::shared_ptr<void>(memory.allocate(bytes, 64), [bytes](void* data) {
            memory.deallocate(data, bytes, 64);
          })};
}

/// The engine's memory to shardmesh: what that allocates for itself comes from there, too.
struct Memory : sm::HostMemory {
  static inline std::atomic<std::size_t> allocated = 0;
  static inline std::atomic<std::size_t> copied = 0;
  static void* allocate(std::size_t bytes, Stream = {}) {
    allocated += bytes;
    return bytes == 0 ? nullptr : memory.allocate(bytes, alignment);
  }
  static void deallocate(void* data, std::size_t bytes, Stream = {}) noexcept {
    if (data != nullptr) {
      memory.deallocate(data, bytes, alignment);
    }
  }
  static void copy(sm::StridedCopy const& box, Stream = {}) {
    copied += static_cast<std::size_t>(sm::volume(box.extent)) * box.element_bytes;
    HostMemory::copy(box);
  }
};

}  // namespace engine

/// The engine's parts of its tensors, and the state that refers to them.
struct Part {
  std::vector<engine::Tensor> tensors;
  sm::StateDict state;

  template <class Mesh>
  Part(Mesh const& mesh, sm::PlacementList const& placements) {
    auto const add = [&](char const* name, sm::DType dtype, sm::Shape const& shape) {
      sm::Layout const layout(shape, mesh.shape(), placements);
      auto const& x =
          tensors.emplace_back(engine::make(dtype, layout.local_shape(mesh.coordinate())));
      sm::ForeignTensor<engine::Memory> const view(x.data.get(), x.dtype, x.shape, x.data);
      state.insert(name, sm::from_local(view, mesh, placements, shape));
    };
    add("embedding", sm::DType::bfloat16, {1000, 64});
    add("scales", sm::DType::float32, {1000, 2});
    add("codes", sm::DType::int8, {7, 1001});
  }
};

template <class World, class F>
void counted(World& world, char const* name, F step) {
  engine::Memory::copied = engine::Memory::allocated = 0;
  world.barrier();
  step();
  world.barrier();
  if (world.rank() == 0) {
    std::printf("%s copied %zu allocated %zu\n", name, engine::Memory::copied.load(),
                engine::Memory::allocated.load());
  }
  world.barrier();
}

int main(int argc, char** argv) {
  char const* const folder = argc == 2 ? argv[1] : "checkpoint";
  try {
    sm::launch(sm::threads{4}, [folder](auto& world) {
      auto const mesh = sm::device_mesh(world, {2, 2}, {"replicate", "shard"});
      Part rows(mesh, {sm::Replicate{}, sm::Shard{0}});
      Part columns(mesh, {sm::Shard{0}, sm::Shard{1}});
      Part again(mesh, {sm::Replicate{}, sm::Shard{0}});
      for (sm::StateEntry const& entry : rows.state) {
        for (std::size_t i = 0; i < entry.tensor().bytes(); ++i) {
          auto const value = i * 31 + static_cast<std::size_t>(mesh.coordinate()[1]);
          static_cast<unsigned char*>(entry.tensor().data())[i] = static_cast<unsigned char>(value);
        }
      }
      counted(world, "redistribute", [&] { sm::transfer(world, rows.state, columns.state); });
      counted(world, "save", [&] { sm::save(world, folder, columns.state); });
      counted(world, "load", [&] { sm::load(world, folder, again.state); });
      bool const same = sm::checksum(world, again.state) == sm::checksum(world, rows.state);
      if (world.rank() == 0) {
        std::printf("state %s\n", same ? "equal" : "DIFFERENT");
      }
    });
  } catch (std::exception const& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
