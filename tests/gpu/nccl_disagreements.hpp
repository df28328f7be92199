// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace test {

struct DisagreementReport {
  std::size_t pairs = 0;
  std::chrono::milliseconds longest{0};  ///< from the call to the error, on any rank
  std::string first_wrong;
};

/// Ranks that are threads and do not do the same: each action, or every `step`th, against `each` others.
DisagreementReport nccl_disagreements_of_threads(int ranks, std::size_t each, std::size_t step);

/// One such pair in the processes of this job. @returns what is wrong on this rank.
std::string nccl_disagreement_of_processes(std::size_t pair);

}  // namespace test
