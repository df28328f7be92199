// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/fingerprint.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/state/detail/wire.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Hash of a run of bytes, eight at a time.
[[nodiscard]] inline std::uint64_t hash_bytes(std::uint64_t seed,
                                              std::byte const* bytes,
                                              std::size_t count) noexcept {
  for (std::size_t at = 0; at < count; at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes + at, count - at < 8 ? count - at : 8);
    seed = mix((seed ^ word) + 0x9e3779b97f4a7c15U);
  }
  return mix(seed ^ count);
}

[[nodiscard]] inline std::uint64_t hash_text(std::string const& text) noexcept {
  return hash_bytes(0, reinterpret_cast<std::byte const*>(text.data()), text.size());
}

/// The sum over the elements of one piece of hashes of (seed, place in the whole tensor, bytes).
[[nodiscard]] inline std::uint64_t piece_sum(std::uint64_t seed,
                                             AnyTensor const& tensor,
                                             Piece const& piece,
                                             std::vector<std::byte> const& local) {
  std::size_t const bytes = size_of(tensor.dtype());
  index_t const row = piece.box.extent.empty() ? 1 : piece.box.extent.back();
  std::uint64_t total = 0;
  for (index_t first = 0; first < piece.box.volume(); first += row) {
    Shape const at = unravel(first, piece.box.extent);
    auto const here =
        static_cast<std::size_t>(ravel(sum(piece.local, at), tensor.local_shape())) * bytes;
    auto const global =
        static_cast<std::uint64_t>(ravel(sum(piece.box.offset, at), tensor.shape()));
    for (std::size_t i = 0; i < static_cast<std::size_t>(row); ++i) {
      total += hash_bytes(mix(seed + global + i), local.data() + here + i * bytes, bytes);
    }
  }
  return total;
}

/// Of the ranks that hold the same piece, is the one at `at` the first? Its coordinates along
/// dimensions that do not cut are 0.
[[nodiscard]] inline bool is_first_holder(Layout const& layout, Coordinate at) {
  for (Cut const& one : layout.order()) {
    at[static_cast<std::size_t>(one.mesh_dim)] = 0;
  }
  return at == Coordinate(at.size(), 0);
}

/// Of the ranks that hold the same piece, is this the one that counts it?
[[nodiscard]] inline bool counts_piece(AnyTensor const& tensor) {
  if (!tensor.is_member()) {
    return false;
  }
  TensorGroup const group = tensor.group();
  if (group.comm == nullptr) {
    return true;
  }
  return group.first_replica &&
         is_first_holder(tensor.layout(), unravel(group.rank, tensor.layout().mesh()));
}

}  // namespace detail

/// A checksum of names, dtypes, shapes and values that does not depend on how the state is sharded:
/// equal for a sharded model, the same one on other meshes, and the unsharded one. Elements are
/// hashed with their places in the whole tensors and added up, each once. Of plain tensors and values
/// the one of the lowest rank that has the key counts. For comparing, not for security.
/// @throws InvalidArgument if a tensor is partial.
/// @returns the same on every rank.
/// @collective over `comm`.
template <Communicator Comm>
[[nodiscard]] std::uint64_t checksum(Comm const& comm, StateDict const& dict) {
  std::uint64_t total = 0;
  std::string problem;
  detail::WireWriter mine;
  detail::WireWriter plain;  // key and hash of what is this rank's alone
  std::size_t plain_count = 0;
  for (StateEntry const& entry : dict) {
    std::uint64_t seed = detail::hash_text(entry.key);
    std::uint64_t sum = 0;
    bool distributed = false;
    if (!entry.is_tensor()) {
      detail::WireWriter content;
      content.value(entry.plain());
      sum = detail::hash_bytes(seed, content.bytes().data(), content.bytes().size());
    } else {
      AnyTensor const& tensor = entry.tensor();
      distributed = tensor.is_distributed();
      seed = detail::mix(seed ^ detail::hash_text(std::string(to_string(tensor.dtype())) +
                                                  to_string(tensor.shape())));
      if (tensor.layout().has_partial()) {
        problem = "shardmesh::checksum: \"" + entry.key + "\" is " + to_string(tensor.layout()) +
                  ": a partial tensor has no values yet; redistribute it to Replicate or Shard";
      } else if (detail::counts_piece(tensor)) {
        std::vector<std::byte> const local = tensor.local_bytes();
        for (Piece const& piece : tensor.pieces()) {
          sum += detail::piece_sum(seed, tensor, piece, local);
        }
      }
      sum += !distributed || tensor.is_first() ? seed : 0;
    }
    if (distributed) {
      total += sum;
    } else {
      plain.text(entry.key);
      plain.number(sum);
      ++plain_count;
    }
  }
  throw_together<InvalidArgument>(comm, problem);
  mine.number(total);
  mine.number(plain_count);
  mine.raw(plain.bytes().data(), plain.bytes().size());
  total = 0;
  detail::KeyList seen;
  for (auto const& bytes : comm.all_gather(mine.bytes())) {
    detail::WireReader reader(bytes);
    total += reader.number();
    for (std::uint64_t left = reader.number(); left > 0; --left) {
      std::string const key = reader.text();
      std::uint64_t const sum = reader.number();
      total += seen.contains(key) ? 0 : sum;
      seen.add(key);
    }
  }
  return total;
}

/// The checksum of the state of a model.
/// @collective over `comm`.
template <Communicator Comm, detail::ModelType Model>
[[nodiscard]] std::uint64_t checksum(Comm const& comm, Model& model) {
  return checksum(comm, state_dict(model));
}

}  // namespace v0
}  // namespace shardmesh
