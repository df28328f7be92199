// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What the Dense model computes element by element on a device: function objects for
// CudaMemory::for_each_index, instantiated in kernels.cu. Matrices are row-major.

#include <shardmesh/core/config.hpp>
#include <shardmesh/core/index.hpp>

namespace models {

/// y[i] += bias of its column, then the positive part of it if `relu`.
struct AddBias {
  float* y;
  float const* bias;
  shardmesh::index_t width;
  bool relu;

  SHARDMESH_HD void operator()(shardmesh::index_t i) const noexcept {
    float const value = y[i] + bias[i % width];
    y[i] = !relu || value > 0 ? value : 0;
  }
};

/// Gradient of the input of a ReLU whose output is `y`, in place.
struct ReluBackward {
  float const* y;
  float* dy;

  SHARDMESH_HD void operator()(shardmesh::index_t i) const noexcept {
    dy[i] = y[i] > 0 ? dy[i] : 0;
  }
};

/// error = y - target, and the gradient of the mean squared error.
struct ErrorGradient {
  float const* y;
  float const* target;
  float* error;
  float* dy;
  float count;

  SHARDMESH_HD void operator()(shardmesh::index_t i) const noexcept {
    error[i] = y[i] - target[i];
    dy[i] = 2 * error[i] / count;
  }
};

/// sum[i] = the sum of column i of a matrix.
struct ColumnSum {
  float const* matrix;
  float* sum;
  shardmesh::index_t rows;
  shardmesh::index_t width;

  SHARDMESH_HD void operator()(shardmesh::index_t i) const noexcept {
    float total = 0;
    for (shardmesh::index_t row = 0; row < rows; ++row) {
      total += matrix[row * width + i];
    }
    sum[i] = total;
  }
};

}  // namespace models
