// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/load_plan.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/layout/box.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

inline void pack_box(Packer& out, Box const& box) {
  out.shape(box.offset);
  out.shape(box.extent);
}

/// Of what the numbers of keys and boxes mean.
[[nodiscard]] inline std::uint32_t fingerprint_of_numbers(
    std::vector<std::string> const& keys, std::vector<StoredTensor const*> const& stored) {
  Packer out;
  for (std::size_t key = 0; key < keys.size(); ++key) {
    out.text(keys[key]);
    if (StoredTensor const* const tensor = stored[key]) {
      out.number(static_cast<std::uint64_t>(tensor->dtype));
      out.shape(tensor->shape);
      for (Box const& box : tensor->boxes) {
        pack_box(out, box);
      }
    }
  }
  return format::crc32_of(format::as_bytes(std::move(out).finish()));
}

/// Which checkpoint a rank reads.
struct Source {
  std::uint32_t fingerprint = 0;  ///< of what the numbers of keys and boxes mean
  std::string identity;           ///< what tells it from those of other saves
  std::string where;              ///< as this rank names it

  [[nodiscard]] bool is_same(Source const& other) const {
    return fingerprint == other.fingerprint && identity == other.identity;
  }
  [[nodiscard]] std::string words() const {
    return concat(where, identity.empty() ? "" : " (", identity, identity.empty() ? "" : ")");
  }
};

/// Throws on every rank unless all read one checkpoint.
/// @param sources  by rank, the same on all.
/// @throws MismatchError; `Replaced` if they give it one name, of which some may have seen the older bearer.
template <Communicator Comm>
void refuse_other_sources(Comm const& comm, std::vector<Source> const& sources) {
  for (std::size_t rank = 1; rank < sources.size(); ++rank) {
    if (sources[rank].is_same(sources[0])) {
      continue;
    }
    std::vector<int> const world = comm.world_ranks();
    std::string const words =
        concat("shardmesh::load: ranks see different checkpoints; rank ", std::to_string(world[0]),
               " reads ", sources[0].words(), ", rank ", std::to_string(world[rank]), " reads ",
               sources[rank].words(),
               "; all must read the same files, on a file system that they share, or equal copies");
    if (sources[rank].where == sources[0].where) {
      throw Replaced(sources[0].where, words, true);
    }
    throw MismatchError(words);
  }
}

[[nodiscard]] inline std::string pack_wishes(LoadWishes const& wishes, Source const& source) {
  Packer out;
  out.number(source.fingerprint);
  out.text(source.identity);
  out.text(source.where);
  out.number(wishes.tensors.size());
  for (LoadWishes::Tensor const& tensor : wishes.tensors) {
    out.number(tensor.key);
    out.number(tensor.boxes.size());
    for (Box const& box : tensor.boxes) {
      pack_box(out, box);
    }
  }
  out.number(wishes.values.size());
  for (std::size_t const key : wishes.values) {
    out.number(key);
  }
  return std::move(out).finish();
}

[[nodiscard]] inline LoadWishes unpack_wishes(std::string_view text, Source& source) {
  Unpacker in(text);
  LoadWishes wishes;
  source.fingerprint = static_cast<std::uint32_t>(in.number());
  source.identity = in.text();
  source.where = in.text();
  for (std::uint64_t left = in.number(); left > 0; --left) {
    LoadWishes::Tensor& tensor = wishes.tensors.emplace_back();
    tensor.key = static_cast<std::size_t>(in.number());
    for (std::uint64_t boxes = in.number(); boxes > 0; --boxes) {
      Shape const offset = in.shape();
      tensor.boxes.push_back({offset, in.shape()});
    }
  }
  for (std::uint64_t left = in.number(); left > 0; --left) {
    wishes.values.push_back(static_cast<std::size_t>(in.number()));
  }
  return wishes;
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
