// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// As state/separate.hpp, for files.

#include <exception>
#include <optional>
#include <string>

#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/detail/any_catalog.hpp>
#include <shardmesh/checkpoint/detail/any_ranks.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_from.hpp>
#include <shardmesh/checkpoint/load_options.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/core/config.hpp>

#if defined(SHARDMESH_SEPARATE_COMPILATION)

namespace shardmesh {
inline namespace v0 {

SHARDMESH_INSTANTIATE void detail::run_save(detail::AnyRanks const&,
                                            std::string,
                                            StateDict const&,
                                            SaveOptions const&,
                                            detail::SaveCounters&,
                                            std::exception_ptr const&,
                                            std::optional<detail::Note> const&);
SHARDMESH_INSTANTIATE class DcpCatalog<NoBlobs>;
SHARDMESH_INSTANTIATE CheckpointReport detail::load_dcp<NoBlobs>(detail::AnyRanks const&,
                                                                 std::string const&,
                                                                 StateDict&,
                                                                 LoadOptions const&);
SHARDMESH_INSTANTIATE CheckpointReport detail::load_until_whole(detail::AnyRanks const&,
                                                                detail::OpenCatalog const&,
                                                                StateDict&,
                                                                LoadOptions const&);
SHARDMESH_INSTANTIATE void save(ThreadsCommunicator const&,
                                std::string,
                                StateDict const&,
                                SaveOptions const&);
SHARDMESH_INSTANTIATE CheckpointReport load(ThreadsCommunicator const&,
                                            std::string const&,
                                            StateDict&,
                                            LoadOptions const&);

}  // namespace v0
}  // namespace shardmesh

#endif
