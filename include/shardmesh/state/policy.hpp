// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstdint>

namespace shardmesh {
inline namespace v0 {

/// What to do where a stored element type is not that of the tensor to load into.
enum class DTypePolicy : std::uint8_t {
  error,  ///< throw
  warn,   ///< convert, and name the tensor in the report
  cast,   ///< convert without a word
};

/// What to do about keys that only one side has. Missing keys are those that the state to load into has
/// and the source has not; unexpected ones the other way round, as in PyTorch's `load_state_dict`.
/// (Megatron-Core counts from the checkpoint's side: its "unexpected" is `missing` here.)
///
/// Megatron-Core's eight modes, as (missing, unexpected): assume_ok_unexpected (error, ignore),
/// log_unexpected (log, ignore), log_all (log, log), raise_unexpected (error, ignore), raise_all (error,
/// error), return_unexpected (collect, ignore), return_all (collect, collect), ignore_all (ignore,
/// ignore).
enum class KeyPolicy : std::uint8_t {
  error,    ///< throw, naming them
  log,      ///< collect, and log one line each on the first rank (`LogLevel::warning`)
  collect,  ///< name them in the report
  ignore,   ///< not a word
};

}  // namespace v0
}  // namespace shardmesh
