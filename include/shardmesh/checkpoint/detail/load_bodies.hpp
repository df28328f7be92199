// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of checkpoint/load.hpp.

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/checkpoint/detail/any_catalog.hpp>
#include <shardmesh/checkpoint/detail/any_ranks.hpp>
#include <shardmesh/checkpoint/detail/load_from_bodies.hpp>
#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

[[nodiscard]] inline std::string pack_description(DcpDescription const& said) {
  Packer out;
  out.text(format::as_text(said.metadata));
  out.text(said.manifest.empty() ? std::string() : write_manifest(said.manifest));
  return std::move(out).finish();
}

[[nodiscard]] inline DcpDescription unpack_description(std::string_view text) {
  Unpacker in(text);
  DcpDescription said;
  std::string const metadata = in.text();
  format::append_text(said.metadata, metadata);
  std::string const manifest = in.text();
  if (!manifest.empty()) {
    said.manifest = read_manifest(manifest, "the manifest");
  }
  return said;
}

template <class Blobs>
CheckpointReport load_dcp(AnyRanks const& comm,
                          std::string const& directory,
                          StateDict& dict,
                          LoadOptions const& options) {
  using C = DcpCatalog<Blobs>;
  refuse_other_options(comm, options);
  return read_until_whole([&] {
    std::optional<Directory> opened;
    std::string text;
    together(comm, "shardmesh::load", [&] {
      if (comm.rank() == 0) {
        opened = C::open(directory);
        text = pack_description(C::describe(*opened));
      }
    });
    text = std::move(all_gather_text(comm, text, "load").front());
    auto open = [&] {
      return C(opened ? std::move(*opened) : C::open(directory), unpack_description(text));
    };
    return load_once(comm, any_catalog_of(open), dict, options);
  });
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
