// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// The complex numbers of CUDA's own libraries are elements of tensors: nothing to run, it compiles.
#include <complex>

#include <cuda/std/complex>
#include <thrust/complex.h>

#include <shardmesh/core/dtype.hpp>

namespace sm = shardmesh;

static_assert(sm::dtype_of<thrust::complex<float>> == sm::DType::complex64);
static_assert(sm::dtype_of<thrust::complex<double>> == sm::DType::complex128);
static_assert(sm::dtype_of<cuda::std::complex<float>> == sm::DType::complex64);
static_assert(sm::dtype_of<cuda::std::complex<double>> == sm::DType::complex128);
static_assert(sm::dtype_of<std::complex<float>> == sm::DType::complex64);
