/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
   SPDX-FileCopyrightText: the shardmesh authors
   In place of the header of the CUDA Toolkit where a test wants to see the ranges: the part of NVTX that the library
   uses. */
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#define NVTX_VERSION 3
#define NVTX_EVENT_ATTRIB_STRUCT_SIZE 48
#define NVTX_MESSAGE_TYPE_ASCII 1

struct nvtxDomainRegistration {
  char const* name;
};
using nvtxDomainHandle_t = nvtxDomainRegistration*;

struct nvtxEventAttributes_t {
  std::uint16_t version;
  std::uint16_t size;
  std::int32_t messageType;
  union {
    char const* ascii;
  } message;
};

namespace nvtx_test {

/// What all threads have pushed, without allocating.
inline std::array<char const*, 4096> names;
inline std::atomic<std::size_t> pushed = 0;
inline std::atomic<std::size_t> popped = 0;
inline nvtxDomainRegistration domain{};

}  // namespace nvtx_test

inline nvtxDomainHandle_t nvtxDomainCreateA(char const* name) {
  nvtx_test::domain.name = name;
  return &nvtx_test::domain;
}
inline int nvtxDomainRangePushEx(nvtxDomainHandle_t domain, nvtxEventAttributes_t const* range) {
  bool const good = domain == &nvtx_test::domain && range->version == NVTX_VERSION &&
                    range->size == NVTX_EVENT_ATTRIB_STRUCT_SIZE &&
                    range->messageType == NVTX_MESSAGE_TYPE_ASCII;
  std::size_t const at = nvtx_test::pushed++;
  if (at < nvtx_test::names.size()) {
    nvtx_test::names[at] = good ? range->message.ascii : "attributes that NVTX would refuse";
  }
  return 0;
}
inline int nvtxDomainRangePop(nvtxDomainHandle_t) {
  ++nvtx_test::popped;
  return 0;
}
