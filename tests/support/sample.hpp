// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Samples of exhaustive cases, for builds in which sanitizers watch: there a case takes many times as long, while
// what is right or wrong with its result has been seen by the ordinary build, which tries all. Each start of a program
// chooses others, and says how to choose the same again.

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <random>
#include <vector>

#include "sanitizers.hpp"

namespace test {

/// What chooses the samples of this process: SHARDMESH_SAMPLE, or a random number.
inline std::size_t sample_seed() {
  static std::size_t const seed = [] {
    char const* const wanted = std::getenv("SHARDMESH_SAMPLE");
    std::size_t const found = wanted != nullptr
                                  ? static_cast<std::size_t>(std::strtoull(wanted, nullptr, 10))
                                  : std::random_device{}() % 1'000'000U;
    std::printf("samples: SHARDMESH_SAMPLE=%zu chooses the same again\n", found);
    std::fflush(stdout);  // not once more by what is forked
    return found;
  }();
  return seed;
}

/// Whether case `index` is tried: always, or one of `n` where sanitizers watch.
inline bool sampled(std::size_t index, std::size_t n) {
  return !sanitized || index % n == sample_seed() % n;
}

/// A walk over all of something: from where, and how far each step.
struct Stride {
  std::size_t first = 0;
  std::size_t step = 1;
};

/// In steps of `step`; `n` times as long, and from another place, where sanitizers watch.
inline Stride stride(std::size_t step, std::size_t n) {
  return sanitized ? Stride{sample_seed() % (step * n), step * n} : Stride{0, step};
}

/// All of `cases`, or one of `n` where sanitizers watch: other ones in each `turn`.
template <class T>
std::vector<T> some_of(std::initializer_list<T> cases, std::size_t n, std::size_t turn) {
  std::vector<T> some;
  std::size_t index = 0;
  for (T const& one : cases) {
    if (sampled(index++ + turn, n)) {
      some.push_back(one);
    }
  }
  return some;
}

}  // namespace test
