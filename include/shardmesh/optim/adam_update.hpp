// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cmath>

#include <shardmesh/core/config.hpp>
#include <shardmesh/core/index.hpp>
#include <shardmesh/memory/reduce_arithmetic.hpp>

namespace shardmesh {
inline namespace v0 {

/// One step of Adam or AdamW on one element, for `MemorySpace::for_each_index`. One source text for
/// host and device. Products that feed a sum are fused with it or rounded by themselves as PyTorch
/// does it, and never as a compiler likes, so all compilers and devices give the same bits.
struct AdamUpdate {
  float* weight = nullptr;
  float const* gradient = nullptr;
  float* exp_avg = nullptr;
  float* exp_avg_sq = nullptr;
  float* max_exp_avg_sq = nullptr;  ///< nullptr without amsgrad
  float rate = 0;                   ///< lr / (1 - beta1^step)
  float spread = 1;                 ///< sqrt(1 - beta2^step)
  float keep1 = 0;                  ///< 1 - beta1
  float beta2 = 0;
  float keep2 = 0;  ///< 1 - beta2
  float eps = 0;
  float decay = 0;   ///< of the gradient: what of the weight is added to it
  float shrink = 1;  ///< of the weight: what is left of it before the step
  bool maximize = false;

  SHARDMESH_HD void operator()(index_t i) const noexcept {
    float slope = maximize ? -gradient[i] : gradient[i];
    float const start = shrink != 1 ? detail::rounded_product(weight[i], shrink) : weight[i];
    if (decay != 0) {
      slope = std::fma(decay, start, slope);
    }
    float const average = lerp(exp_avg[i], slope, keep1);
    float square = std::fma(keep2 * slope, slope, exp_avg_sq[i] * beta2);
    exp_avg[i] = average;
    exp_avg_sq[i] = square;
    if (max_exp_avg_sq != nullptr) {
      square = square > max_exp_avg_sq[i] || square != square ? square : max_exp_avg_sq[i];
      max_exp_avg_sq[i] = square;
    }
    weight[i] = start + (-rate * average) / (std::sqrt(square) / spread + eps);
  }

 private:
  /// from + amount * (to - from), from the nearer end (torch.lerp).
  static SHARDMESH_HD float lerp(float from, float to, float amount) noexcept {
    return amount < 0.5F ? std::fma(amount, to - from, from)
                         : std::fma(amount - 1.0F, to - from, to);
  }
};

}  // namespace v0
}  // namespace shardmesh
