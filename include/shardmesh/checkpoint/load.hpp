// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/load_from.hpp>
#include <shardmesh/core/range.hpp>

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

/// Rank 0 alone reads what the directory says; every rank opens it once, and the load compares which one it
/// has got.
template <class Blobs, Communicator Comm>
CheckpointReport load_dcp(Comm const& comm,
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
    auto const open = [&] {
      return C(opened ? std::move(*opened) : C::open(directory), unpack_description(text));
    };
    return load_once(comm, open, dict, options);
  });
}

}  // namespace detail

/// Loads a state dict in place from a directory that PyTorch's `torch.distributed.checkpoint` or
/// `save` wrote. See `load_from` for what holds; see `load_any` for safetensors. Rank 0 alone reads
/// the metadata.
///
/// A load reads one checkpoint, also if another is saved to its place meanwhile: the one that was there when
/// it began, or, if that is removed before it has been read, the new one from its start. Ranks that find
/// different checkpoints, and data files that are not of the save of `.metadata`, are refused.
///
/// @code
///   sm::StateDict state{{"model", sm::state_dict(net)}};
///   sm::load(world, "checkpoint", state);  // any mesh, any placements
/// @endcode
///
/// @returns what was done, on this rank.
/// @throws IoError (no such directory, no checkpoint; one that is replaced more often than it can be
///         read), MismatchError (ranks find different ones), KeyError, ShapeError, InvalidArgument
///         (dtype; a partial tensor), CorruptError, UnsupportedError; RankFailed on ranks that had no problem.
/// @collective over `comm`, with equal options.
template <Communicator Comm>
CheckpointReport load(Comm const& comm,
                      std::string const& directory,
                      StateDict& dict,
                      LoadOptions const& options = {}) {
  detail::Range const range("load");
  return detail::load_dcp<NoBlobs>(comm, directory, dict, options);
}

}  // namespace v0
}  // namespace shardmesh
