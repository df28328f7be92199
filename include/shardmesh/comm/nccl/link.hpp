// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <nccl.h>
#include <unistd.h>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/neighbours.hpp>
#include <shardmesh/comm/nccl/family.hpp>
#include <shardmesh/comm/nccl/handle.hpp>
#include <shardmesh/comm/nccl/operation_log.hpp>
#include <shardmesh/comm/nccl/peer_push.hpp>
#include <shardmesh/comm/nccl/watchdog.hpp>

namespace shardmesh {
inline namespace v0 {
namespace nccl {

/// What all copies of one communicator share.
template <Communicator Control>
struct Link {
  Link(std::shared_ptr<Watchdog<Control>> dog,
       std::shared_ptr<Family> relatives,
       ncclComm_t comm,
       bool owned,
       std::string group)
      : watchdog(std::move(dog)),
        family(std::move(relatives)),
        native(comm),
        log(std::move(group)) {
    if (owned) {
      owner.emplace(family, comm);
    } else {
      side.emplace();
    }
    watchdog->watch(log, owned ? native : nullptr);
  }
  Link(Link const&) = delete;
  Link& operator=(Link const&) = delete;

  /// Operations under way are waited for: the watchdog ends them if need be.
  ~Link() {
    while (!watchdog->failed() && log.oldest()) {
      ::usleep(100);
    }
    watchdog->forget(log);
    if (watchdog->failed()) {
      family->abort();  // the watchdog is about to; what follows must not overtake it
    }
  }

  std::shared_ptr<Watchdog<Control>> watchdog;
  std::shared_ptr<Family> family;
  std::optional<Handle> owner;     // none if somebody else owns it
  std::optional<SideStream> side;  // only then, it may not block
  ncclComm_t native;
  OperationLog log;
  int splits = 0;
  detail::Neighbours neighbours;
  std::shared_ptr<PeerPush> push;  // none where no rank reaches another
};

}  // namespace nccl
}  // namespace v0
}  // namespace shardmesh
