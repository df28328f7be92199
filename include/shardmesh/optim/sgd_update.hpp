// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cmath>

#include <shardmesh/core/config.hpp>
#include <shardmesh/core/index.hpp>

namespace shardmesh {
inline namespace v0 {

/// One step of stochastic gradient descent on one element, for `MemorySpace::for_each_index`. One
/// source text for host and device; every product that feeds a sum is fused with it explicitly, where
/// PyTorch fuses, so all compilers and devices give the same bits.
struct SgdUpdate {
  float* weight = nullptr;
  float const* gradient = nullptr;
  float* momentum_buffer = nullptr;  ///< nullptr without momentum
  float rate = 0;
  float momentum = 0;
  float keep = 1;  ///< 1 - dampening
  float decay = 0;
  bool first = false;  ///< the buffer holds nothing yet
  bool nesterov = false;
  bool maximize = false;

  SHARDMESH_HD void operator()(index_t i) const noexcept {
    float slope = maximize ? -gradient[i] : gradient[i];
    if (decay != 0) {
      slope = std::fma(decay, weight[i], slope);
    }
    if (momentum_buffer != nullptr) {
      float const average = first ? slope : std::fma(keep, slope, momentum_buffer[i] * momentum);
      momentum_buffer[i] = average;
      slope = nesterov ? std::fma(momentum, average, slope) : average;
    }
    weight[i] = std::fma(-rate, slope, weight[i]);
  }
};

}  // namespace v0
}  // namespace shardmesh
