// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The kernels of the library. Include this in one .cu file of a program that reduces on a device, or
// <shardmesh/optim/kernels.cuh> if it trains there; several are harmless. Any options of nvcc will do
// but -use_fast_math, -ftz, -prec-div and -prec-sqrt, which change the results of divisions, of roots
// and of subnormal numbers.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <shardmesh/memory/cuda/kernels.hpp>
#include <shardmesh/memory/float_convert.hpp>
#include <shardmesh/memory/reduce_arithmetic.hpp>
#include <shardmesh/memory/strided_copy.hpp>

namespace shardmesh {
inline namespace v0 {
namespace cuda {

inline constexpr int threads = 256;
inline constexpr index_t most_blocks = 2048;  ///< fills any device; a thread takes several turns

/// A reduction in chunks of 16 bytes of the destination: one load per term and one store each,
/// where all addresses are aligned to that.
template <class E>
struct ChunkedReduce {
  static constexpr int width = 16 / int{sizeof(E)};

  E* destination;
  index_t count;
  int terms;
  int divisor;
  ReduceOp op;
  bool aligned;
  std::ptrdiff_t spacing;  ///< bytes from a term to the next; 0: see `sources`
  E const* sources[max_reduce_terms];

  __device__ void operator()(index_t chunk) const {
    index_t const first = chunk * width;
    if (!aligned || first + width > count) {
      for (index_t i = first; i < first + width && i < count; ++i) {
        auto total = detail::widen(term(0)[i]);
        for (int j = 1; j < terms; ++j) {
          total = detail::combine<E>(op, total, detail::widen(term(j)[i]));
        }
        destination[i] = detail::narrow<E>(total, divisor);
      }
      return;
    }
    Chunk const start = load(term(0), chunk);
    detail::Accumulator<E> totals[width];
    for (int i = 0; i < width; ++i) {
      totals[i] = detail::widen(start.elements[i]);
    }
    for (int j = 1; j < terms; ++j) {
      Chunk const next = load(term(j), chunk);
      for (int i = 0; i < width; ++i) {
        totals[i] = detail::combine<E>(op, totals[i], detail::widen(next.elements[i]));
      }
    }
    Chunk result;
    for (int i = 0; i < width; ++i) {
      result.elements[i] = detail::narrow<E>(totals[i], divisor);
    }
    reinterpret_cast<uint4*>(destination)[chunk] = __builtin_bit_cast(uint4, result);
  }

 private:
  struct alignas(16) Chunk {
    E elements[width];
  };

  __device__ E const* term(int j) const {
    return spacing == 0 ? sources[j]
                        : reinterpret_cast<E const*>(reinterpret_cast<char const*>(sources[0]) +
                                                     j * spacing);
  }

  static __device__ Chunk load(E const* elements, index_t chunk) {
    return __builtin_bit_cast(Chunk, reinterpret_cast<uint4 const*>(elements)[chunk]);
  }
};

/// The parameters stay where the launch puts them: a functor that a library copies, as Thrust's
/// for_each does, would have its 2 KiB of addresses copied to the stack of every thread.
template <class E>
__attribute__((visibility("hidden"))) __global__ void reduce_kernel(
    __grid_constant__ ChunkedReduce<E> const reduce) {
  index_t const chunks = (reduce.count + reduce.width - 1) / reduce.width;
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t chunk = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; chunk < chunks;
       chunk += step) {
    reduce(chunk);
  }
}

[[nodiscard]] inline bool is_chunk_aligned(void const* pointer) noexcept {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

template <class E>
cudaError_t reduce_elements(ReduceOp op,
                            void* destination,
                            void const* const* sources,
                            int terms,
                            index_t count,
                            cudaStream_t stream) {
  ChunkedReduce<E> reduce{};
  reduce.destination = static_cast<E*>(destination);
  reduce.count = count;
  reduce.terms = terms;
  reduce.divisor = detail::divisor_of(op, terms);
  reduce.op = op;
  reduce.aligned = is_chunk_aligned(destination);
  reduce.spacing = terms > max_reduce_terms ? spacing_of(sources, terms) : 0;
  for (int j = 0; j < terms; ++j) {
    if (j < max_reduce_terms) {
      reduce.sources[j] = static_cast<E const*>(sources[j]);
    }
    reduce.aligned = reduce.aligned && is_chunk_aligned(sources[j]);
  }
  index_t const blocks = std::min(ceil_div(count, index_t{threads} * reduce.width), most_blocks);
  reduce_kernel<E><<<static_cast<unsigned>(blocks), threads, 0, stream>>>(reduce);
  return cudaGetLastError();
}

__attribute__((weak)) cudaError_t reduce_contiguous(DType dtype,
                                                    ReduceOp op,
                                                    void* destination,
                                                    void const* const* sources,
                                                    int terms,
                                                    index_t count,
                                                    cudaStream_t stream) {
  if (terms < 1 || (terms > max_reduce_terms && spacing_of(sources, terms) == 0)) {
    return cudaErrorInvalidValue;
  }
  if (count <= 0) {
    return cudaSuccess;
  }
  return visit_dtype(dtype, [&]<class T>(std::type_identity<T>) {
    if constexpr (!has_arithmetic(dtype_of<T>)) {
      return cudaErrorNotSupported;
    } else {
      using Element = typename detail::ReduceElement<T>::type;
      return reduce_elements<Element>(op, destination, sources, terms, count, stream);
    }
  });
}

/// Rows of V, over which up to two dimensions repeat.
template <class V>
struct RowCopy {
  V const* source;
  V* destination;
  std::uint32_t total;  ///< all V that are copied: 32 bits, whose division is cheap
  std::uint32_t columns;
  std::uint32_t rows;
  index_t source_strides[2];  ///< of slices and of rows, in V
  index_t destination_strides[2];
};

template <class V>
__attribute__((visibility("hidden"))) __global__ void copy_kernel(
    __grid_constant__ RowCopy<V> const copy) {
  V const* __restrict__ const source = copy.source;
  V* __restrict__ const destination = copy.destination;
  std::uint32_t const step = gridDim.x * blockDim.x;
  for (std::uint64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < copy.total; i += step) {
    auto const at = static_cast<std::uint32_t>(i);
    std::uint32_t const line = at / copy.columns;
    index_t const column = at % copy.columns;
    index_t const slice = line / copy.rows;
    index_t const row = line % copy.rows;
    destination[slice * copy.destination_strides[0] + row * copy.destination_strides[1] + column] =
        source[slice * copy.source_strides[0] + row * copy.source_strides[1] + column];
  }
}

template <class V>
cudaError_t copy_rows_of(CollapsedCopy const& copy, cudaStream_t stream) {
  constexpr auto width = static_cast<index_t>(sizeof(V));
  std::size_t const outer = copy.extent.size();
  RowCopy<V> rows{};
  rows.source = reinterpret_cast<V const*>(copy.source);
  rows.destination = reinterpret_cast<V*>(copy.destination);
  index_t const columns = static_cast<index_t>(copy.row_bytes) / width;
  index_t const total = columns * volume(copy.extent);
  if (total > index_t{UINT32_MAX}) {
    return cudaErrorNotSupported;
  }
  rows.total = static_cast<std::uint32_t>(total);
  rows.columns = static_cast<std::uint32_t>(columns);
  rows.rows = outer > 0 ? static_cast<std::uint32_t>(copy.extent[outer - 1]) : 1;
  for (std::size_t d = 0; d < outer; ++d) {
    rows.source_strides[2 - outer + d] = copy.source_strides[d] / width;
    rows.destination_strides[2 - outer + d] = copy.destination_strides[d] / width;
  }
  index_t const blocks = std::min(ceil_div(total, index_t{threads}), most_blocks);
  copy_kernel<V><<<static_cast<unsigned>(blocks), threads, 0, stream>>>(rows);
  return cudaGetLastError();
}

__attribute__((weak)) cudaError_t copy_rows(CollapsedCopy const& copy, cudaStream_t stream) {
  if (copy.row_bytes == 0) {
    return cudaSuccess;
  }
  if (copy.extent.size() > 2) {
    return cudaErrorNotSupported;
  }
  std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(copy.source) |
                        reinterpret_cast<std::uintptr_t>(copy.destination) | copy.row_bytes;
  for (std::size_t d = 0; d < copy.extent.size(); ++d) {
    bits |= static_cast<std::uintptr_t>(copy.source_strides[d]) |
            static_cast<std::uintptr_t>(copy.destination_strides[d]);
  }
  return bits % 16 == 0  ? copy_rows_of<uint4>(copy, stream)
         : bits % 8 == 0 ? copy_rows_of<uint2>(copy, stream)
         : bits % 4 == 0 ? copy_rows_of<std::uint32_t>(copy, stream)
                         : cudaErrorNotSupported;
}

template <class F>
__attribute__((visibility("hidden"))) __global__ void for_each_kernel(
    __grid_constant__ F const f, __grid_constant__ index_t const count) {
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    f(i);
  }
}

template <class F>
cudaError_t launch_for_each(index_t count, F const& f, cudaStream_t stream) {
  index_t const blocks = std::min(ceil_div(count, index_t{threads}), most_blocks);
  for_each_kernel<F><<<static_cast<unsigned>(blocks), threads, 0, stream>>>(f, count);
  return cudaGetLastError();
}

/// Element i of a conversion.
template <class To, class From>
struct ConvertElement {
  From const* source;
  To* target;
  __device__ void operator()(index_t i) const {
    target[i] = detail::convert_element<To>(source[i]);
  }
};

__attribute__((weak)) cudaError_t convert_contiguous(
    DType from, void const* source, DType to, void* target, index_t count, cudaStream_t stream) {
  cudaError_t status = cudaSuccess;
  bool const known = detail::visit_conversion(
      from, to, [&]<class From, class To>(std::type_identity<From>, std::type_identity<To>) {
        if (count > 0) {
          status = launch_for_each(
              count,
              ConvertElement<To, From>{static_cast<From const*>(source), static_cast<To*>(target)},
              stream);
        }
      });
  return known ? status : cudaErrorNotSupported;
}

}  // namespace cuda
}  // namespace v0
}  // namespace shardmesh
