// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// engine_adoption_nccl FOLDER: engine_adoption on GPUs. The engine has a thread, an NCCL communicator and a non-blocking
// stream for each, and memory from a resource of cuda::mr. Prints what each step took of it, and what ranks sent.
#define LIBCUDACXX_ENABLE_EXPERIMENTAL_MEMORY_RESOURCE  // as CCCL 3.0 wants it
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <vector>

#include <cuda/memory_resource>

#include <shardmesh/checkpoint.hpp>
#include <shardmesh/interop/foreign_tensor.hpp>
#include <shardmesh/memory/cuda/mr_resource.hpp>
#include <shardmesh/nccl.hpp>
#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;

namespace engine {

/// Device memory in the order of streams, with the interface of cuda::mr, as RMM's resources have it.
struct Pool {
  static inline std::atomic<std::size_t> taken = 0;
  void* allocate_async(std::size_t bytes, std::size_t, cuda::stream_ref stream) {
    taken += bytes;
    void* data = nullptr;
    sm::cuda::check(cudaMallocAsync(&data, bytes, stream.get()), "cudaMallocAsync");
    return data;
  }
  void deallocate_async(void* data, std::size_t, std::size_t, cuda::stream_ref stream) {
    cudaFreeAsync(data, stream.get());
  }
  void* allocate(std::size_t bytes, std::size_t) { return allocate_async(bytes, 256, {}); }
  void deallocate(void* data, std::size_t, std::size_t) { cudaFree(data); }
  bool operator==(Pool const&) const { return true; }
  friend void get_property(Pool const&, cuda::mr::device_accessible) {}
};

}  // namespace engine

/// The engine's parts of its tensors as the state that refers to them, all in the order of its stream.
template <class Mesh>
sm::StateDict parts(engine::Pool& pool,
                    cudaStream_t stream,
                    Mesh const& mesh,
                    sm::PlacementList const& placements,
                    std::size_t factor) {
  sm::StateDict state;
  auto const add = [&](char const* name, sm::DType dtype, sm::Shape const& shape) {
    sm::Shape const local =
        sm::Layout(shape, mesh.shape(), placements).local_shape(mesh.coordinate());
    std::vector<std::uint8_t> own(static_cast<std::size_t>(sm::volume(local)) * sm::size_of(dtype));
    for (std::size_t i = 0; i < own.size(); ++i) {
      own[i] = static_cast<std::uint8_t>(factor * i);
    }
    std::shared_ptr<void> const data(
        pool.allocate_async(own.size(), 256, stream),
        [&pool, stream](void* p) { pool.deallocate_async(p, 0, 256, stream); });
    sm::cuda::check(cudaMemcpyAsync(data.get(), own.data(), own.size(), cudaMemcpyDefault, stream),
                    name);
    sm::ForeignTensor<sm::CudaMemory> const view(data.get(), dtype, local, data);
    state.insert(name, sm::from_local(view, mesh, placements, shape));
  };
  add("embedding", sm::DType::bfloat16, {1000, 64});
  add("codes", sm::DType::int8, {7, 1001});
  state.order_on(sm::CudaStream{stream});
  return state;
}

int main(int argc, char** argv) {
  char const* const folder = argc == 2 ? argv[1] : "checkpoint";
  try {
    std::vector<ncclComm_t> comms(static_cast<std::size_t>(sm::cuda::device_count()));
    int const ranks = static_cast<int>(comms.size());
    sm::nccl::check(ncclCommInitAll(comms.data(), ranks, nullptr), "ncclCommInitAll");
    engine::Pool pool;
    sm::CudaMrResource resource(cuda::mr::async_resource_ref<cuda::mr::device_accessible>{pool});
    sm::UseResource<sm::CudaMemory> const use(resource);
    sm::launch(sm::threads{ranks}, [&](auto& control) {
      sm::cuda::check(cudaSetDevice(control.rank()), "cudaSetDevice");
      sm::CudaOwnedStream const stream;  // as the engine makes them: cudaStreamNonBlocking
      auto const world = sm::NcclCommunicator<sm::ThreadsCommunicator>::from_native_handle(
          comms[static_cast<std::size_t>(control.rank())], control, std::chrono::seconds(60));
      auto const mesh = sm::device_mesh(world, {ranks}, {"shard"});
      cudaStream_t const order = stream.get().handle;
      sm::StateDict rows = parts(pool, order, mesh, {sm::Shard{0}}, 31);
      sm::StateDict columns = parts(pool, order, mesh, {sm::Shard{1}}, 0);
      sm::StateDict again = parts(pool, order, mesh, {sm::Shard{0}}, 0);
      auto const counted = [&](char const* name, auto step) {
        world.barrier();
        std::size_t const taken = engine::Pool::taken;
        sm::Counters const before = sm::counters();
        world.barrier();
        step();
        world.barrier();
        if (control.rank() == 0) {
          std::printf("%s took %zu bytes, sent %ju\n", name, engine::Pool::taken - taken,
                      std::uintmax_t{(sm::counters() - before).process_bytes});
        }
      };
      counted("redistribute", [&] { sm::transfer(world, rows, columns); });
      counted("save", [&] { sm::save(world, folder, columns); });
      counted("load", [&] { sm::load(world, folder, again); });
      bool const same = sm::checksum(world, again) == sm::checksum(world, rows);
      counted(same ? "state equal," : "state DIFFERENT,", [] {});
    });
    for (ncclComm_t const comm : comms) {  // still the engine's
      sm::nccl::check(ncclCommDestroy(comm), "ncclCommDestroy");
    }
  } catch (std::exception const& error) {
    return std::fprintf(stderr, "error: %s\n", error.what()), 1;
  }
}
