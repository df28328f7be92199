// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// As state/separate.hpp, for files.

#include <string>

#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/core/config.hpp>

#if defined(SHARDMESH_SEPARATE_COMPILATION)

namespace shardmesh {
inline namespace v0 {

SHARDMESH_INSTANTIATE void save(ThreadsCommunicator const&, std::string, StateDict const&);
SHARDMESH_INSTANTIATE CheckpointReport load(ThreadsCommunicator const&,
                                            std::string const&,
                                            StateDict&,
                                            LoadOptions const&);

}  // namespace v0
}  // namespace shardmesh

#endif
