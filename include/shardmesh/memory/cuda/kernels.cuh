// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The kernels of the library. Include this in one .cu file of a program that reduces on a device
// (several are harmless); compile it with `-fmad=false`, so that complex products have the bits of
// the host.

#include <type_traits>

#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/system/cuda/execution_policy.h>

#include <shardmesh/memory/cuda/kernels.hpp>
#include <shardmesh/memory/reduce_arithmetic.hpp>

namespace shardmesh::inline v0::cuda {

/// Reduces the terms of element i. The addresses of the terms ride along with the launch.
template <class T>
struct ReduceElement {
  T* destination;
  T const* sources[max_reduce_terms];
  int terms;
  ReduceOp op;

  __device__ void operator()(index_t i) const {
    auto sum = detail::load_term(sources[0] + i);
    for (int j = 1; j < terms; ++j) {
      sum = detail::combine<T>(op, sum, detail::load_term(sources[j] + i));
    }
    detail::store_term(destination + i, op, sum, terms);
  }
};

template <class T>
cudaError_t reduce_as(ReduceOp op,
                      void* destination,
                      void const* const* sources,
                      int terms,
                      index_t count,
                      cudaStream_t stream) {
  ReduceElement<T> element{};
  element.destination = static_cast<T*>(destination);
  element.terms = terms;
  element.op = op;
  for (int j = 0; j < terms; ++j) {
    element.sources[j] = static_cast<T const*>(sources[j]);
  }
  thrust::counting_iterator<index_t> const first(0);
  thrust::for_each_n(thrust::cuda::par_nosync.on(stream), first, count, element);
  return cudaGetLastError();
}

__attribute__((weak)) cudaError_t reduce_contiguous(DType dtype,
                                                    ReduceOp op,
                                                    void* destination,
                                                    void const* const* sources,
                                                    int terms,
                                                    index_t count,
                                                    cudaStream_t stream) {
  return visit_dtype(dtype, [&]<class T>(std::type_identity<T>) {
    if constexpr (std::is_same_v<T, Float8E8M0fnu>) {
      return cudaErrorNotSupported;
    } else {
      return reduce_as<T>(op, destination, sources, terms, count, stream);
    }
  });
}

}  // namespace shardmesh::inline v0::cuda
