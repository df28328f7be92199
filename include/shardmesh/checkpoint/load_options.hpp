// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <shardmesh/state/policy.hpp>

namespace shardmesh {
inline namespace v0 {

/// What `load` does about differences, and how much memory it may take. The same on all ranks.
struct LoadOptions {
  /// Where the element type that was saved is not the tensor's. Floating-point numbers are converted
  /// into each other, complex numbers and integers likewise; other pairs are an error. A number, of a
  /// 0-d tensor or plain, that a 0-d tensor of any type has exactly is not a difference.
  DTypePolicy dtype = DTypePolicy::error;
  /// Keys of the state dict that the checkpoint has not; what is not an error is left as it is.
  KeyPolicy missing = KeyPolicy::error;
  /// Keys of the checkpoint that no rank's state dict has. What an optimizer does not know is not among
  /// them, since it is carried along, but a tensor of several elements is: if that is ignored, it is said in
  /// the log all the same (`LogLevel::warning`), since the next save lacks it.
  KeyPolicy unexpected = KeyPolicy::ignore;
  /// Bytes that a rank may hold at once of what it reads, sends and receives, besides the local parts
  /// to be replaced. An item that is larger is read and sent alone.
  std::uint64_t round_bytes = std::uint64_t{256} << 20;
  /// Threads that read and check on this rank. 0: as many as there are processors for each rank, at most 8.
  std::size_t threads = 0;
};

/// What `load` did on the calling rank.
struct CheckpointReport {
  /// Of the checkpoint's items, read from storage by this rank. Summed over the ranks it is the size
  /// of the items that any rank wants: each is read once.
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_received = 0;     ///< elements that other ranks have read
  std::size_t rounds = 0;               ///< in which items were read and passed on
  std::vector<std::string> missing;     ///< this rank's; not with KeyPolicy::ignore
  std::vector<std::string> unexpected;  ///< not with KeyPolicy::ignore
  std::vector<std::string> cast;        ///< with DTypePolicy::warn: "key: float32 to bfloat16"
};

}  // namespace v0
}  // namespace shardmesh
