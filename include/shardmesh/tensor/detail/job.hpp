// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/memory/buffer.hpp>
#include <shardmesh/memory/copy.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/plan/transfer.hpp>

namespace shardmesh {
inline namespace v0 {

/// One tensor in an exchange: what this rank does, and its local memory before and after, which have no byte
/// in common.
struct ExchangeJob {
  RankStep const* step = nullptr;
  DType dtype = DType::float32;
  void const* source = nullptr;
  void* target = nullptr;
  /// Are both in the memory space of the exchange, where this rank's own work is done? Else either may be in
  /// any memory that the space can copy from and to.
  bool in_space = false;
};

namespace detail {

/// Strides in bytes of a row-major tensor.
[[nodiscard]] inline Shape byte_strides(Shape const& shape, std::size_t element_bytes) {
  Shape strides = row_major_strides(shape);
  for (index_t& stride : strides) {
    stride *= static_cast<index_t>(element_bytes);
  }
  return strides;
}

/// Byte offset of a place in its tensor.
[[nodiscard]] inline std::size_t byte_offset(LocalPlace const& place, std::size_t element_bytes) {
  Shape const strides = row_major_strides(place.shape);
  index_t offset = 0;
  for (std::size_t d = 0; d < strides.size(); ++d) {
    offset += place.offset[d] * strides[d];
  }
  return static_cast<std::size_t>(offset) * element_bytes;
}

/// Do the elements of a box lie one behind the other in its tensor?
[[nodiscard]] inline bool is_contiguous(Shape const& extent, LocalPlace const& place) {
  bool whole = true;  // are all dimensions further in taken whole?
  for (std::size_t d = extent.size(); d-- > 0;) {
    if (!whole && extent[d] != 1) {
      return false;
    }
    whole = whole && extent[d] == place.shape[d];
  }
  return true;
}

/// A contiguous box as a place.
[[nodiscard]] inline LocalPlace packed(Shape const& extent) {
  return {Shape(extent.size(), 0), extent};
}

/// The copy of a box between a place in `source` and a place in `target`.
[[nodiscard]] inline StridedCopy copy_between(void const* source,
                                              LocalPlace const& from,
                                              void* target,
                                              LocalPlace const& to,
                                              Shape const& extent,
                                              std::size_t element_bytes) {
  StridedCopy copy{};
  copy.source = static_cast<std::byte const*>(source) + byte_offset(from, element_bytes);
  copy.destination = static_cast<std::byte*>(target) + byte_offset(to, element_bytes);
  copy.extent = extent;
  copy.source_strides = byte_strides(from.shape, element_bytes);
  copy.destination_strides = byte_strides(to.shape, element_bytes);
  copy.element_bytes = element_bytes;
  return copy;
}

/// The copy of one transfer from a source tensor into a target tensor or its staging area.
[[nodiscard]] inline StridedCopy copy_of(Transfer const& one,
                                         void const* source,
                                         void* target,
                                         void* staging,
                                         std::size_t element_bytes) {
  if (one.slot < 0) {
    return copy_between(source, one.source, target, one.target, one.box.extent, element_bytes);
  }
  auto* slot =
      static_cast<std::byte*>(staging) + static_cast<std::size_t>(one.slot) * element_bytes;
  return copy_between(source, one.source, slot, packed(one.box.extent), one.box.extent,
                      element_bytes);
}

/// Where the terms of the reductions of an exchange are collected: one allocation for all its tensors, and
/// none where nothing is reduced.
template <MemorySpace Space>
class Staging {
 public:
  Staging(std::span<ExchangeJob const> jobs, typename Space::Stream stream) {
    std::size_t bytes = 0;
    for (std::size_t j = 0; j < jobs.size(); ++j) {
      auto const elements = static_cast<std::size_t>(jobs[j].step->staging);
      if (elements == 0) {
        continue;
      }
      starts_.resize(jobs.size(), 0);
      starts_[j] = bytes;
      bytes += (elements * size_of(jobs[j].dtype) + alignment - 1) / alignment * alignment;
    }
    buffer_ = Buffer<Space>(bytes, stream);
  }

  /// The first byte of a job's part; only for jobs that reduce.
  [[nodiscard]] std::byte* of(std::size_t job) const {
    return starts_.empty() ? nullptr : static_cast<std::byte*>(buffer_.data()) + starts_[job];
  }

 private:
  static constexpr std::size_t alignment = 256;  // of what CUDA allocates
  std::vector<std::size_t> starts_;              // by job; empty where none reduces
  Buffer<Space> buffer_;
};

/// A copy between places of this rank.
/// @param in_space  both are in the space, which may have a quicker way then.
template <MemorySpace Space>
void copy_own(StridedCopy const& copy, bool in_space, typename Space::Stream stream) {
  if constexpr (requires { Space::copy_within(copy, stream); }) {
    if (in_space) {
      Space::copy_within(copy, stream);
      return;
    }
  }
  Space::copy(copy, stream);
}

/// Most terms of a reduction whose own one is read where it is: more are added only where they lie at equal
/// distances.
inline constexpr index_t most_scattered_terms = 64;

/// Is what a rank contributes to its own reduction read where it is, instead of from the staging area?
[[nodiscard]] inline bool is_added_in_place(Transfer const& local, ExchangeJob const& job) {
  return job.in_space && local.slot >= 0 &&
         job.step->reductions.front().terms <= most_scattered_terms &&
         is_contiguous(local.box.extent, local.source);
}

/// Bytes that `copy_locals` copies.
[[nodiscard]] inline std::size_t local_bytes(std::span<ExchangeJob const> jobs) {
  std::size_t bytes = 0;
  for (ExchangeJob const& job : jobs) {
    for (Transfer const& one : job.step->locals) {
      if (!is_added_in_place(one, job)) {
        bytes += static_cast<std::size_t>(one.box.volume()) * size_of(job.dtype);
      }
    }
  }
  return bytes;
}

/// Copies what stays on this rank.
template <MemorySpace Space>
void copy_locals(ExchangeJob const& job, void* staging, typename Space::Stream stream) {
  for (Transfer const& one : job.step->locals) {
    if (!is_added_in_place(one, job)) {
      copy_own<Space>(copy_of(one, job.source, job.target, staging, size_of(job.dtype)),
                      job.in_space, stream);
    }
  }
}

/// Adds the collected terms, in ascending rank order, and puts the results into their places.
template <MemorySpace Space>
void reduce_terms(ExchangeJob const& job, std::byte* staging, typename Space::Stream stream) {
  std::size_t const bytes = size_of(job.dtype);
  std::vector<void const*> terms;
  auto local = job.step->locals.begin();  // they stand in the order of the reductions
  for (Reduction const& one : job.step->reductions) {
    index_t const count = one.box.volume();
    std::byte* const first = staging + static_cast<std::size_t>(one.slot) * bytes;
    terms.clear();
    for (index_t term = 0; term < one.terms; ++term) {
      terms.push_back(first + static_cast<std::size_t>(term * count) * bytes);
    }
    for (; local != job.step->locals.end() && local->box == one.box; ++local) {
      if (count > 0 && is_added_in_place(*local, job)) {
        terms[static_cast<std::size_t>((local->slot - one.slot) / count)] =
            static_cast<std::byte const*>(job.source) + byte_offset(local->source, bytes);
      }
    }
    bool const straight = is_contiguous(one.box.extent, one.target);
    void* const result =
        straight ? static_cast<std::byte*>(job.target) + byte_offset(one.target, bytes) : first;
    Space::reduce(job.dtype, job.step->op, result, terms, count, stream);
    if (!straight) {
      copy_own<Space>(copy_between(first, packed(one.box.extent), job.target, one.target,
                                   one.box.extent, bytes),
                      job.in_space, stream);
    }
  }
}

}  // namespace detail

}  // namespace v0
}  // namespace shardmesh
