// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A soak: whatever a job does with its state, in random order, for as long as is asked for. Everything is compared, byte for
// byte, with what truth.hpp says; memory, descriptors and threads must not grow.
//
// SHARDMESH_SOAK_SECONDS (1800), or fewer rounds: SHARDMESH_SOAK_ROUNDS; SHARDMESH_SOAK_SEED: of an earlier run, to see it
// again; SHARDMESH_SOAK_MUTANT: leak, pool, descriptor or byte, a mistake that has to be found.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <random>
#include <string>

#include <doctest/doctest.h>

#include "../disk/states.hpp"
#include "actions.hpp"
#include "watch.hpp"

/// Freed memory is kept for a while, so that its use is seen; with less of it than usual the process soon has its size.
extern "C" char const* __asan_default_options() {
  return "quarantine_size_mb=32:detect_leaks=1";
}

namespace {

std::uint64_t number_of(char const* name, std::uint64_t usual) {
  char const* const text = std::getenv(name);
  return text == nullptr ? usual : std::strtoull(text, nullptr, 10);
}

}  // namespace

TEST_CASE("a soak") {
  using Clock = std::chrono::steady_clock;
  std::uint64_t const seed = number_of("SHARDMESH_SOAK_SEED", std::random_device{}());
  auto const time = std::chrono::seconds(number_of("SHARDMESH_SOAK_SECONDS", 1800));
  auto const most_rounds = static_cast<long>(number_of("SHARDMESH_SOAK_ROUNDS", 1'000'000'000));
  char const* const mutant = std::getenv("SHARDMESH_SOAK_MUTANT");
  std::printf("soak: seed %llu, %lld s%s\n", static_cast<unsigned long long>(seed),
              static_cast<long long>(time.count()),
              test::sanitized ? ", with sanitizers" : ", WITHOUT sanitizers");
  std::fflush(stdout);
  test::Scratch const scratch(test::memory());
  std::string const root = std::filesystem::canonical(scratch / "") / "soak";
  std::filesystem::create_directory(root);
  soak::Actions actions(root, mutant == nullptr ? "" : mutant);
  soak::Watch watch(100);
  auto const begin = Clock::now();
  auto told = begin;
  std::string fault;
  long rounds = 0;
  for (; fault.empty() && Clock::now() - begin < time && rounds < most_rounds; ++rounds) {
    soak::Random random(soak::mixed(seed + static_cast<std::uint64_t>(rounds)));
    try {
      fault = actions.round(random);
    } catch (std::exception const& error) {
      fault = std::string("an error: ") + error.what();
    }
    if (fault.empty()) {
      fault = watch.after_round(soak::usage());
    }
    if (Clock::now() - told > std::chrono::seconds(60)) {
      told = Clock::now();
      soak::Usage const now = soak::usage();
      std::printf("soak: %ld rounds, heap %zu KiB, resident %zu MiB, %zu descriptors\n", rounds + 1,
                  now.heap >> 10, now.resident >> 20, now.descriptors);
      std::fflush(stdout);
    }
  }
  if (fault.empty()) {
    fault = watch.at_end();
  }
  for (auto const& action : actions.all()) {
    std::printf("soak: %8ld  %s\n", action.done, action.name);
  }
  std::printf("soak: %ld rounds in %lld s, %ld refusals by disks or for damage, seed %llu: %s\n",
              rounds,
              static_cast<long long>(
                  std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - begin).count()),
              actions.refused(), static_cast<unsigned long long>(seed),
              fault.empty() ? "nothing wrong" : "FAILED");
  INFO("seed " << seed << ", round " << rounds);
  CHECK(fault == "");
}
