// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// The doors to Thrust, mdspan, half types and DLPack with tensors in device memory: nothing is copied, and work is in the
// order of its stream. Compiled by nvcc, for which doctest's macros are not made. Exits with 77 without a GPU.
#include <cuda/std/mdspan>
#include <thrust/device_vector.h>
#include <thrust/execution_policy.h>
#include <thrust/reduce.h>
#include <thrust/sequence.h>
#include <thrust/transform.h>

#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads_on_devices.hpp>
#include <shardmesh/interop/cuda_types.hpp>
#include <shardmesh/interop/dlpack.hpp>
#include <shardmesh/interop/mdspan.hpp>
#include <shardmesh/interop/thrust.hpp>
#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/kernels.cuh>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/plain_checks.hpp"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace sm = shardmesh;

namespace {

using test::check;
using World = sm::ThreadsCommunicator;
using Device = sm::Tensor<float, sm::CudaMemory>;

void good(cudaError_t status) {
  sm::cuda::check(status, "test-gpu-doors");
}

/// Runs `body` on one rank that has the first GPU.
template <class Body>
void on_one(Body const& body) {
  sm::launch(sm::threads_on_devices{1}, [&](World& world) { body(world); });
}

template <class T>
std::vector<T> on_host(T const* device, std::size_t count) {
  std::vector<T> host(count);
  good(cudaDeviceSynchronize());
  good(cudaMemcpy(host.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost));
  return host;
}

void vectors_of_thrust() {
  auto const vector = std::make_shared<thrust::device_vector<float>>(12);
  thrust::sequence(vector->begin(), vector->end());
  auto const x = sm::from_thrust(*vector, {3, 4}, vector);
  static_assert(std::is_same_v<decltype(x), Device const>);
  static_assert(std::is_same_v<decltype(sm::thrust_begin(x)), thrust::device_ptr<float>>);
  check(x.data() == thrust::raw_pointer_cast(vector->data()), "from a device_vector: no copy");
  check(vector.use_count() == 2, "the owner is kept");
  check(thrust::reduce(sm::thrust_begin(x), sm::thrust_end(x)) == 66.0F, "Thrust reads a tensor");
  auto const row = sm::from_thrust(vector->data() + 4, {4});
  check(row.data() == x.data() + 4, "from a device_ptr: no copy");

  // A state in memory of Thrust is saved from there and loaded into it.
  std::string folder = std::filesystem::temp_directory_path() / "shardmesh-doors-XXXXXX";
  check(::mkdtemp(folder.data()) != nullptr, "a directory");
  on_one([&](World& world) {
    sm::StateDict dict;
    dict.insert("x", x);
    sm::save(world, folder + "/c", dict);
    thrust::fill(vector->begin(), vector->end(), -1.0F);
    good(cudaDeviceSynchronize());
    sm::load(world, folder + "/c", dict);
    check(dict.at("x").tensor().data() == x.data(), "a load goes into the vector");
    check(on_host(x.data(), 12)[11] == 11.0F, "and brings back what was saved");
  });
  std::filesystem::remove_all(folder);
}

struct Double {
  __device__ float operator()(float one) const { return 2 * one; }
};

/// Takes `milliseconds` of the stream.
__global__ void wait_kernel(long long cycles) {
  long long const start = clock64();
  while (clock64() - start < cycles) {
  }
}

__global__ void fill_kernel(float* to, int count, float value) {
  for (int i = 0; i < count; ++i) {
    to[i] = value;
  }
}

/// Work on a stream of the caller that has not ended yet: what is given the stream comes after it. With another stream the
/// old elements are seen, so the test would notice if the order were lost.
void order_of_streams() {
  cudaStream_t stream{};
  cudaStream_t other{};
  good(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  good(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
  int clock = 0;
  good(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, 0));  // kHz
  on_one([&](World& world) {
    auto const mesh = sm::device_mesh(world, {1});
    for (bool const ordered : {true, false}) {
      Device const x = Device::zeros({64});
      good(cudaDeviceSynchronize());
      auto const part = sm::from_local(x, mesh, sm::placements<sm::Partial<sm::ReduceOp::sum>>);
      wait_kernel<<<1, 1, 0, stream>>>(200LL * clock);
      fill_kernel<<<1, 1, 0, stream>>>(x.data(), 64, 3.0F);
      auto const copy = sm::redistribute(part, sm::placements<sm::Replicate>,
                                         sm::CudaStream(ordered ? stream : other));
      thrust::transform(thrust::cuda::par_nosync.on(ordered ? stream : other),
                        sm::thrust_begin(copy), sm::thrust_end(copy), sm::thrust_begin(copy),
                        Double());
      good(cudaStreamSynchronize(ordered ? stream : other));
      bool const is_new = on_host(copy.to_local().data(), 64)[63] == 6.0F;
      check(is_new == ordered,
            ordered ? "work on the caller's stream comes after what is there"
                    : "without the stream the old elements are seen: the test can fail");
    }
  });
  good(cudaStreamDestroy(stream));
  good(cudaStreamDestroy(other));
}

using Matrix = cuda::std::mdspan<float, cuda::std::dextents<sm::index_t, 2>>;

__global__ void number_kernel(Matrix matrix) {
  for (sm::index_t i = 0; i < matrix.extent(0); ++i) {
    for (sm::index_t j = 0; j < matrix.extent(1); ++j) {
      matrix(i, j) = static_cast<float>(10 * i + j);
    }
  }
}

void mdspans() {
  on_one([](World& world) {
    auto const mesh = sm::device_mesh(world, {1});
    auto const x = sm::from_local(Device::zeros({3, 4}), mesh, sm::placements<sm::Shard<0>>);
    Matrix const matrix = sm::to_mdspan<Matrix>(x);
    check(matrix.data_handle() == x.to_local().data(), "to an mdspan: no copy");
    good(cudaDeviceSynchronize());
    number_kernel<<<1, 1>>>(matrix);
    check(on_host(x.to_local().data(), 12)[6] == 12.0F, "a kernel writes to a local part");
    auto const back = sm::from_mdspan<sm::CudaMemory>(matrix);
    check(back.data() == x.to_local().data(), "from an mdspan: no copy");
  });
}

void half_types() {
  on_one([](World& world) {
    auto const mesh = sm::device_mesh(world, {1});
    sm::Tensor<__half> whole({3});
    for (int i = 0; i < 3; ++i) {
      whole.data()[i] = __float2half(static_cast<float>(i) + 0.5F);
    }
    auto const x = whole.clone<sm::CudaMemory>();
    auto const terms = sm::from_local(x, mesh, sm::placements<sm::Partial<sm::ReduceOp::sum>>);
    auto const sum = sm::redistribute(terms, sm::placements<sm::Replicate>);
    check(__half2float(on_host(sum.to_local().data(), 3)[2]) == 2.5F, "__half is redistributed");
    auto const ours = sm::retyped<sm::Float16>(sum);
    check(static_cast<void*>(ours.to_local().data()) == sum.to_local().data(), "retyped: no copy");
  });
}

void dlpack() {
  Device const x = Device::zeros({2, 3});
  auto owner = sm::to_dlpack(sm::AnyTensor(x));
  int current = 0;
  good(cudaGetDevice(&current));
  check(static_cast<int>(owner->dl_tensor.device.device_type) == 2 &&
            owner->dl_tensor.device.device_id == current,
        "to DLPack: on the current GPU");
  check(owner->dl_tensor.data == x.data(), "to DLPack: no copy");
  auto const back = sm::from_dlpack<sm::CudaMemory>(owner.release());
  check(back.data() == x.data(), "from DLPack: no copy");
  bool refused = false;
  try {
    static_cast<void>(sm::from_dlpack<sm::HostMemory>(sm::to_dlpack(sm::AnyTensor(x)).release()));
  } catch (sm::UnsupportedError const&) {
    refused = true;
  }
  check(refused, "device memory is not taken for host memory");
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("SKIP: no usable GPU on this machine");
    return 77;
  }
  try {
    vectors_of_thrust();
    order_of_streams();
    mdspans();
    half_types();
    dlpack();
  } catch (std::exception const& error) {
    check(false, error.what());
  }
  return test::status_of_checks();
}
