// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Ranges for Nsight and other tools that read NVTX: where the program defines SHARDMESH_HAVE_NVTX, in all of its
// translation units, and has <nvtx3/nvToolsExt.h> of the CUDA Toolkit, which is headers alone. Nothing otherwise.
#if defined(SHARDMESH_HAVE_NVTX)
#include <nvtx3/nvToolsExt.h>
#endif

namespace shardmesh {
inline namespace v0 {
namespace detail {

#if defined(SHARDMESH_HAVE_NVTX)
/// While it lives, the thread is in a range of the domain "shardmesh".
class Range {
 public:
  /// @param name  a literal, the name that the user called.
  explicit Range(char const* name) noexcept {
    nvtxEventAttributes_t range{};
    range.version = NVTX_VERSION;
    range.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    range.messageType = NVTX_MESSAGE_TYPE_ASCII;
    range.message.ascii = name;
    static_cast<void>(nvtxDomainRangePushEx(domain(), &range));
  }
  Range(Range const&) = delete;
  Range& operator=(Range const&) = delete;
  ~Range() { static_cast<void>(nvtxDomainRangePop(domain())); }

 private:
  [[nodiscard]] static nvtxDomainHandle_t domain() noexcept {
    static nvtxDomainHandle_t const made = nvtxDomainCreateA("shardmesh");
    return made;
  }
};
#else
/// Nothing: the program has not asked for ranges.
class Range {
 public:
  explicit Range(char const*) noexcept {}
  Range(Range const&) = delete;
  Range& operator=(Range const&) = delete;
  ~Range() = default;
};
#endif

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
