// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/checkpoint/detail/item_text.hpp>
#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_writer.hpp>
#include <shardmesh/checkpoint/format/tensor_item.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh::inline v0 {

namespace detail {

/// What this rank has of one item of its offer.
struct SaveSource {
  AnyTensor const* tensor = nullptr;
  Shape local;          ///< of the box, in the local tensor
  format::Bytes value;  ///< the archive of a plain value
};

/// What this rank could write, and where it would take it from.
struct SaveOffer {
  std::vector<SaveItem> items;
  std::vector<SaveSource> sources;  ///< by item
};

inline void refuse_partial(StateEntry const& entry) {
  if (entry.tensor().layout().has_partial()) {
    throw InvalidArgument("shardmesh::save: \"" + entry.key + "\" is " +
                          to_string(entry.tensor().layout()) +
                          ": a partial tensor has no elements yet; redistribute it to Replicate "
                          "or Shard first");
  }
}

inline void offer_tensor(StateEntry const& entry, SaveOffer& offer) {
  AnyTensor const& tensor = entry.tensor();
  refuse_partial(entry);
  std::vector<Piece> pieces = tensor.pieces();
  if (volume(tensor.shape()) == 0) {  // one item must say that it exists
    pieces.clear();
    if (tensor.is_first()) {
      pieces.push_back({Box::whole(tensor.shape()), Shape(tensor.shape().size(), 0)});
    }
  }
  for (Piece const& piece : pieces) {
    if (piece.box.empty() && volume(tensor.shape()) > 0) {
      continue;
    }
    format::TensorItemFrame const frame(tensor.dtype(), piece.box.extent);
    offer.items.push_back(
        {entry.key, entry.path, tensor.dtype(), tensor.shape(), piece.box, frame.size()});
    offer.sources.push_back({&tensor, piece.local, {}});
  }
}

[[nodiscard]] inline SaveOffer make_offer(StateDict const& dict) {
  SaveOffer offer;
  for (StateEntry const& entry : dict) {
    if (entry.is_tensor()) {
      offer_tensor(entry, offer);
    } else {
      format::Bytes archive = format::write_bytes_item(entry.plain());
      offer.items.push_back({entry.key, entry.path, std::nullopt, {}, {}, archive.size()});
      offer.sources.push_back({nullptr, {}, std::move(archive)});
    }
  }
  return offer;
}

[[nodiscard]] inline std::string data_file_name(int rank) {
  return "__" + std::to_string(rank) + "_0.distcp";
}

/// The elements of a box of a local tensor, row-major, in host memory.
/// @param local  the box's place in the local tensor.
[[nodiscard]] inline std::vector<std::byte> box_elements(AnyTensor const& tensor,
                                                         Shape const& local,
                                                         Shape const& extent) {
  std::size_t const bytes = size_of(tensor.dtype());
  std::vector<std::byte> elements(static_cast<std::size_t>(volume(extent)) * bytes);
  LocalPlace const from{local, tensor.local_shape()};
  if (!elements.empty()) {
    tensor.copy_box({static_cast<std::byte const*>(tensor.data()) + byte_offset(from, bytes),
                     elements.data(), extent, byte_strides(tensor.local_shape(), bytes),
                     byte_strides(extent, bytes), bytes});
  }
  return elements;
}

/// Writes one box of a tensor as an archive at `offset`.
inline void write_box(File const& file,
                      std::uint64_t offset,
                      SaveItem const& item,
                      SaveSource const& source) {
  format::TensorItemFrame const frame(*item.dtype, item.box.extent);
  std::vector<std::byte> const elements =
      box_elements(*source.tensor, source.local, item.box.extent);
  format::Bytes const tail = frame.tail(format::crc32_of(elements));
  file.write_at(offset, frame.head());
  file.write_at(offset + frame.head().size(), elements);
  file.write_at(offset + frame.head().size() + elements.size(), tail);
}

/// Writes this rank's data file, if it has anything to write, and brings it to the disk.
inline void write_data(std::string const& directory,
                       int rank,
                       SaveOffer const& offer,
                       std::vector<PlacedItem> const& plan) {
  std::unordered_map<std::string, std::size_t> own;
  for (std::size_t i = 0; i < offer.items.size(); ++i) {
    own.emplace(item_id(offer.items[i]), i);
  }
  std::optional<File> file;
  for (PlacedItem const& placed : plan) {
    if (placed.rank != rank) {
      continue;
    }
    if (!file) {
      file = File::create(directory + "/" + data_file_name(rank));
    }
    SaveSource const& source = offer.sources[own.at(item_id(placed.item))];
    if (placed.item.dtype) {
      write_box(*file, placed.offset, placed.item, source);
    } else {
      file->write_at(placed.offset, source.value);
    }
  }
  if (file) {
    file->finish();
  }
}

[[nodiscard]] inline format::DcpMetadata metadata_of(std::vector<PlacedItem> const& plan) {
  format::DcpMetadata metadata;
  std::unordered_map<std::string, std::size_t> index;
  for (PlacedItem const& placed : plan) {
    SaveItem const& item = placed.item;
    format::StorageInfo const info{data_file_name(placed.rank), placed.offset, item.length, {}};
    auto const [at, is_new] = index.emplace(item.key, metadata.entries.size());
    if (is_new && !item.dtype) {
      metadata.entries.push_back({item.key, item.path, format::BytesMetadata{info}});
    } else if (is_new) {
      metadata.entries.push_back(
          {item.key, item.path, format::TensorMetadata{*item.dtype, item.shape, {}}});
    }
    if (item.dtype) {
      metadata.entries[at->second].value.tensor()->chunks.push_back(
          {item.box.offset, item.box.extent, info});
    }
  }
  return metadata;
}

/// Removes what saves to `directory` that were interrupted have left behind.
inline void remove_interrupted(std::string const& directory) {
  std::string const parent = PosixStorage::parent(directory);
  std::string const mark =
      directory.substr(directory.find_last_of('/') + 1) + std::string(PosixStorage::temporary_mark);
  if (!PosixStorage::exists(parent)) {
    return;
  }
  for (std::string const& name : PosixStorage::list(parent)) {
    if (name.starts_with(mark) &&
        name.find_first_not_of("0123456789", mark.size()) == std::string::npos) {
      PosixStorage::remove_all(parent + "/" + name);
    }
  }
}

/// Rank 0's part before data is written: a new directory beside the target.
/// @returns its path.
[[nodiscard]] inline std::string begin_commit(std::string const& directory) {
  if (PosixStorage::exists(directory) && !PosixStorage::exists(directory + "/.metadata") &&
      !PosixStorage::list(directory).empty()) {
    throw InvalidArgument("shardmesh::save: " + directory +
                          " exists and is no checkpoint; give a new directory, or one that holds "
                          "a checkpoint to replace");
  }
  remove_interrupted(directory);
  std::string const temporary = PosixStorage::temporary_name(directory);
  PosixStorage::make_directories(temporary);
  return temporary;
}

/// Rank 0's part after all data is on the disk: `.metadata` last, then the name.
inline void commit(std::string const& temporary,
                   std::string const& directory,
                   std::vector<PlacedItem> const& plan) {
  File file = File::create(temporary + "/.metadata");
  file.write_at(0, format::write_dcp_metadata(metadata_of(plan)));
  file.finish();
  PosixStorage::sync_directory(temporary);
  bool const replaces = PosixStorage::exists(directory);
  if (!replaces) {
    PosixStorage::rename(temporary, directory);
  } else if (!PosixStorage::exchange(temporary, directory)) {
    throw IoError(directory, ENOSYS,
                  "shardmesh::save: the file system of " + directory +
                      " cannot exchange two directories, so the old checkpoint cannot be replaced "
                      "safely; save to a new directory");
  }
  PosixStorage::sync_directory(PosixStorage::parent(directory));
  if (replaces) {
    PosixStorage::remove_all(temporary);
  }
}

[[nodiscard]] inline std::string without_trailing_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  return path;
}

}  // namespace detail

/// Saves a state dict as a directory that `torch.distributed.checkpoint.load` and `load` read.
///
/// Every rank writes what it holds into a file of its own; what several ranks hold is written once,
/// by the one with the least to write. Plain values come from the lowest rank that has them. The
/// checkpoint appears under `directory` when it is complete and on the disk: until then an older
/// one stays readable there, and a failure on any rank leaves it untouched.
///
/// What an interrupted save has left behind is removed by the next one to the same directory; so two
/// jobs must not save to one directory at the same time.
///
/// @param directory  on a file system that all ranks see; parents are made.
/// @throws InvalidArgument (a partial tensor, a directory that is no checkpoint), ShapeError (ranks
///         hold different things under one name), IoError; RankFailed on ranks that had no problem.
/// @collective over `comm`.
template <Communicator Comm>
void save(Comm const& comm, std::string directory, StateDict const& dict) {
  directory = detail::without_trailing_slashes(std::move(directory));
  auto const together = [&comm](auto&& part) { detail::together(comm, "shardmesh::save", part); };
  detail::SaveOffer offer;
  std::string temporary;
  together([&] { offer = detail::make_offer(dict); });
  std::vector<std::vector<SaveItem>> offers;
  for (std::string const& text : all_gather_text(comm, detail::pack_items(offer.items))) {
    offers.push_back(detail::unpack_items(text));
  }
  std::vector<PlacedItem> const plan = plan_save(offers);
  together([&] { temporary = comm.rank() == 0 ? detail::begin_commit(directory) : ""; });
  temporary = all_gather_text(comm, temporary)[0];
  try {
    together([&] { detail::write_data(temporary, comm.rank(), offer, plan); });
    together([&] {
      if (comm.rank() == 0) {
        detail::commit(temporary, directory, plan);
      }
    });
  } catch (...) {
    if (comm.rank() == 0) {
      PosixStorage::remove_all(temporary);
    }
    throw;
  }
}

}  // namespace shardmesh::inline v0
