// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// The doors to CUDA's libraries with tensors in host memory, compiled by nvcc; needs no GPU. Those in device memory:
// tests/gpu/doors.cu.
#include <cuda/std/mdspan>
#include <thrust/execution_policy.h>
#include <thrust/host_vector.h>
#include <thrust/reduce.h>

#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>
#include <shardmesh/interop/cuda_types.hpp>
#include <shardmesh/interop/mdspan.hpp>
#include <shardmesh/interop/thrust.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/plain_checks.hpp"

#include <array>
#include <memory>

namespace sm = shardmesh;

using test::check;
using World = sm::ThreadsCommunicator;

namespace {

struct Net {
  sm::Tensor<__half> weight = sm::Tensor<__half>::zeros({4, 2});
  static constexpr std::array member_names{"weight"};
  using parameter_type = sm::Tensor<__half>;
};

void half_types() {
  static_assert(sm::dtype_of<__half> == sm::DType::float16);
  static_assert(sm::dtype_of<__nv_bfloat16> == sm::DType::bfloat16);
  static_assert(sm::dtype_of<__nv_fp8_e4m3> == sm::DType::float8_e4m3fn);
  static_assert(sm::dtype_of<__nv_fp8_e5m2> == sm::DType::float8_e5m2);
  // The bits are those of CUDA.
  for (float const value : {0.0F, 1.0F, -2.5F, 1.0e-7F, 65504.0F, 1.0e9F, 0.1F}) {
    check(__half_raw(__float2half(value)).x == sm::Float16(value).bits, "__half has our bits");
    check(__nv_bfloat16_raw(__float2bfloat16(value)).x == sm::BFloat16(value).bits,
          "__nv_bfloat16 has our bits");
  }
  sm::launch(sm::threads{1}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {1});
    sm::Tensor<__half> whole({3});
    for (int i = 0; i < 3; ++i) {
      whole.data()[i] = __float2half(static_cast<float>(i) + 0.5F);
    }
    auto const x = sm::distribute(whole, mesh, sm::placements<sm::Shard<0>>);
    auto const ours = sm::retyped<sm::Float16>(x);
    check(static_cast<void*>(ours.to_local().data()) == x.to_local().data(), "retyped: no copy");
    check(static_cast<float>(ours.to_local().span()[2]) == 2.5F, "retyped: the same number");
    check(sm::AnyTensor(x).dtype() == sm::DType::float16, "a state has float16");
    // Terms are added in the arithmetic of the element type that CUDA's type stands for.
    auto const terms = sm::from_local(whole, mesh, sm::placements<sm::Partial<sm::ReduceOp::sum>>);
    auto const sum = sm::redistribute(terms, sm::placements<sm::Replicate>);
    check(__half2float(sum.to_local().data()[1]) == 1.5F, "redistributed");
    // Half a model, trained in float.
    Net model;
    auto net = sm::fully_shard<sm::Precision<float>>(model, mesh);
    net.unshard();
    check(model.weight.shape() == sm::Shape{4, 2}, "unsharded to __half");
    auto const reduced = net.reduce_gradients({sm::Tensor<__half>::zeros({4, 2})});
    check(reduced[0].dtype() == sm::DType::float32, "reduced in float");
  });
}

void mdspans() {
  using Matrix = cuda::std::mdspan<float, cuda::std::dextents<sm::index_t, 2>>;
  using Fixed =
      cuda::std::mdspan<float const, cuda::std::extents<int, cuda::std::dynamic_extent, 4>>;
  using Number = cuda::std::mdspan<float, cuda::std::extents<int>>;
  auto const x = sm::Tensor<float>::zeros({3, 4});
  auto const m = sm::to_mdspan<Matrix>(x);
  m(1, 2) = 7;
  check(x.span()[6] == 7, "an mdspan writes to the tensor");
  check(sm::to_mdspan<Fixed>(x)(1, 2) == 7, "an mdspan that fixes an extent");
  check(sm::from_mdspan(m).data() == x.data(), "from an mdspan");
  check(sm::to_mdspan<Number>(sm::Tensor<float>::zeros({})).extents().rank() == 0, "a number");
  using Strided = cuda::std::mdspan<float, cuda::std::dextents<int, 2>, cuda::std::layout_stride>;
  using Map = cuda::std::layout_stride::mapping<cuda::std::dextents<int, 2>>;
  auto const strided = [&x](int row, int column) {
    return Strided(x.data(),
                   Map(cuda::std::dextents<int, 2>(2, 2), cuda::std::array<int, 2>{row, column}));
  };
  check(sm::from_mdspan(strided(2, 1)).data() == x.data(), "strides that are row-major");
  bool refused = false;
  try {
    static_cast<void>(sm::from_mdspan(strided(4, 1)));
  } catch (sm::ShapeError const&) {
    refused = true;
  }
  check(refused, "strides that leave gaps are refused");
}

void thrust_on_the_host() {
  auto const vector = std::make_shared<thrust::host_vector<float>>(12, 2.0F);
  auto const x = sm::from_thrust(*vector, {3, 4}, vector);
  static_assert(std::is_same_v<decltype(x), sm::Tensor<float> const>);
  check(x.data() == thrust::raw_pointer_cast(vector->data()), "from a host_vector: no copy");
  check(vector.use_count() == 2, "the owner is kept");
  check(thrust::reduce(thrust::host, sm::thrust_begin(x), sm::thrust_end(x)) == 24.0F,
        "Thrust's algorithms on a local part");
  bool refused = false;
  try {
    static_cast<void>(sm::from_thrust(*vector, {5}));
  } catch (sm::ShapeError const&) {
    refused = true;
  }
  check(refused, "a vector of another size is refused");
}

}  // namespace

int main() {
  half_types();
  mdspans();
  thrust_on_the_host();
  return test::status_of_checks();
}
