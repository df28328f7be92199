// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of checkpoint/save.hpp.

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/checkpoint/detail/arguments.hpp>
#include <shardmesh/checkpoint/detail/box_bytes.hpp>
#include <shardmesh/checkpoint/detail/commit.hpp>
#include <shardmesh/checkpoint/detail/group_names.hpp>
#include <shardmesh/checkpoint/detail/item_text.hpp>
#include <shardmesh/checkpoint/detail/owned_files.hpp>
#include <shardmesh/checkpoint/detail/replicas.hpp>
#include <shardmesh/checkpoint/detail/save_offer.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_writer.hpp>
#include <shardmesh/checkpoint/format/tensor_item.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/checkpoint/storage/save_lock.hpp>
#include <shardmesh/checkpoint/storage/slot_writer.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/working.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/core/range.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

[[nodiscard]] inline std::string data_file_name(int rank) {
  return concat("__", std::to_string(rank), "_0.distcp");
}

/// A new file that is written from its start to its end, with the CRC of what is written.
class DigestedFile {
 public:
  /// @param bytes  that will be written.
  DigestedFile(std::string const& directory, std::string name, std::uint64_t bytes)
      : file_(File::create(directory + "/" + name)),
        slots_(file_, bytes),
        digest_{std::move(name), 0, 0, {}} {}

  [[nodiscard]] std::uint64_t bytes() const noexcept { return digest_.bytes; }
  void append(format::ByteSpan bytes) { append(bytes, format::crc32_of(bytes)); }
  /// @param crc  of the bytes, which the caller knows already.
  void append(format::ByteSpan bytes, std::uint32_t crc) {
    slots_.append(digest_.bytes, bytes);
    digest_.crc = format::combine_crc32(digest_.crc, crc, bytes.size());
    digest_.bytes += bytes.size();
  }
  /// Appends the elements of a box; each run of bytes is summed while the processor has it in its cache.
  /// @returns their CRC.
  [[nodiscard]] std::uint32_t append(BoxBytes& elements) {
    std::uint32_t crc = 0;
    std::uint64_t const all = elements.left();
    while (elements.left() > 0) {
      auto const room = slots_.room(digest_.bytes, elements.step());
      elements.take(room);
      crc = format::crc32_of(room, crc);
      slots_.filled(room.size());
      digest_.bytes += room.size();
    }
    digest_.crc = format::combine_crc32(digest_.crc, crc, all);
    return crc;
  }
  /// Notes that an item starts there.
  void note_item(std::uint64_t offset, std::uint32_t crc) {
    digest_.items.push_back({offset, crc});
  }
  /// Brings the file to the disk.
  [[nodiscard]] FileDigest finish() {
    slots_.flush();
    file_.finish();
    return digest_;
  }

 private:
  File file_;
  SlotWriter slots_;
  FileDigest digest_;
};

/// Appends one box of a tensor as an archive.
inline void write_box(DigestedFile& file,
                      format::TensorItemFrame const& frame,
                      SaveItem const& item,
                      SaveSource const& source) {
  std::uint64_t const start = file.bytes();
  std::uint32_t const head = format::crc32_of(frame.head());
  file.append(frame.head(), head);
  BoxBytes elements(*source.tensor, source.local, item.box.extent);
  format::Bytes const tail = frame.tail(file.append(elements));
  file.append(tail);
  file.note_item(start, format::crc32_of(tail, head));
}

/// Writes this rank's data file, if it has anything to write, and brings it to the disk.
[[nodiscard]] inline std::optional<FileDigest> write_data(std::string const& directory,
                                                          int rank,
                                                          SaveOffer const& offer,
                                                          std::vector<PlacedItem> const& plan,
                                                          SaveCounters& counters) {
  std::vector<PlacedItem const*> items;
  std::uint64_t total = 0;
  for (PlacedItem const& placed : plan) {
    if (placed.rank == rank) {
      items.push_back(&placed);
      total += placed.item.length;
    }
  }
  if (items.empty()) {
    return std::nullopt;
  }
  counters.total = total;
  std::sort(items.begin(), items.end(),
            [](PlacedItem const* a, PlacedItem const* b) { return a->offset < b->offset; });
  DigestedFile file(directory, data_file_name(rank), total);
  format::TensorItemFrames frames;
  for (PlacedItem const* const placed : items) {
    SaveSource const& source = offer.sources[placed->number];
    if (placed->item.dtype) {
      write_box(file, frames.of(*placed->item.dtype, placed->item.box.extent), placed->item,
                source);
    } else {
      std::uint32_t const crc = format::crc32_of(source.value);
      file.note_item(file.bytes(), crc);
      file.append(source.value, crc);
    }
    counters.done = file.bytes();
  }
  return file.finish();
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

/// Is a directory empty, or has it files of a checkpoint? Any of them is enough: retention leaves a manifest
/// with what was not its own, and what a crash has left of a save must not stop all others.
[[nodiscard]] inline bool may_be_replaced(std::string const& directory) {
  std::vector<std::string> const names = PosixStorage::list(directory);
  return names.empty() || std::any_of(names.begin(), names.end(), [&](std::string const& name) {
           return is_checkpoint_name(name) && !PosixStorage::is_directory(directory + "/" + name);
         });
}

/// Throws unless all files of a save are there as they were written.
inline void refuse_incomplete(std::string const& temporary, std::vector<FileDigest> const& files) {
  for (FileDigest const& one : files) {
    refuse_other_size(temporary + "/" + one.name, one.bytes, "shardmesh::save");
  }
}

/// Rank 0's part before data is written: a new directory beside the target.
/// @returns its path.
[[nodiscard]] inline std::string begin_save(std::string const& directory) {
  if (PosixStorage::exists(directory) && !may_be_replaced(directory)) {
    throw InvalidArgument("shardmesh::save: " + directory +
                          " exists and is no checkpoint; give a new directory, or one that holds "
                          "a checkpoint to replace");
  }
  return make_temporary(directory);
}

/// Rank 0's part after all data is on the disk: `.metadata`, the note, the manifest, then the name.
/// @param temporary  emptied as by `publish`.
inline void commit_save(std::string& temporary,
                        std::string const& directory,
                        std::vector<PlacedItem> const& plan,
                        std::vector<FileDigest> digests,
                        std::optional<Note> const& note) {
  format::Bytes const said = format::write_dcp_metadata(metadata_of(plan), manifest_mark(digests));
  DigestedFile metadata(temporary, ".metadata", said.size());
  metadata.append(said);
  digests.push_back(metadata.finish());
  if (note) {
    write_file(temporary + "/" + note->name, note->text);
  }
  std::string const lines = write_manifest(digests);
  DigestedFile manifest(temporary, std::string(manifest_name), lines.size());
  manifest.append(format::as_bytes(lines));
  digests.push_back(manifest.finish());
  refuse_incomplete(temporary, digests);
  publish(temporary, directory);
}

[[nodiscard]] inline std::string pack_digest(std::optional<FileDigest> const& digest) {
  return digest ? digest_lines(*digest) : std::string();
}

template <Communicator Comm>
void run_save(Comm const& comm,
              std::string directory,
              StateDict const& dict,
              SaveOptions const& options,
              SaveCounters& counters,
              std::exception_ptr const& problem,
              std::optional<Note> const& note) {
  Range const range("save");
  auto const all_do = [&comm](auto&& part) { together(comm, "shardmesh::save", part); };
  refuse_other_arguments(comm, "shardmesh::save",
                         Arguments()
                             .path("directory", without_trailing_slashes(directory))
                             .add("containers", name_of(options.containers)));
  SaveOffer offer;
  std::string temporary;
  agree_on_failure(comm, "shardmesh::save", problem ? problem : caught([&] {
                     refuse_foreign_dtypes(dict);
                     offer = make_offer(dict, options.containers);
                   }));
  std::vector<std::vector<SaveItem>> offers;
  for (std::string const& text : all_gather_text(comm, pack_items(offer.items), "save")) {
    offers.push_back(unpack_items(text));
  }
  unite_group_names(offers, offer);
  std::vector<PlacedItem> const plan = plan_save(offers);
  refuse_unlike(comm, "shardmesh::save", offer, plan);
  std::optional<SaveLock> lock;
  all_do([&] {
    if (comm.rank() == 0) {
      directory = save_target(directory, "shardmesh::save");
      lock.emplace(lock_target(directory, "shardmesh::save"));
      temporary = begin_save(directory);
    }
  });
  temporary = all_gather_text(comm, temporary, "save")[0];
  try {
    std::optional<FileDigest> own;
    all_do([&] {
      Working const work(comm, concat("writes its part of ", directory), &counters.done);
      own = write_data(temporary, comm.rank(), offer, plan, counters);
    });
    std::vector<FileDigest> digests;
    for (std::string const& line : all_gather_text(comm, pack_digest(own), "save")) {
      if (auto digest = read_digest_lines(line)) {
        digests.push_back(std::move(*digest));
      }
    }
    all_do([&] {
      if (comm.rank() == 0) {
        commit_save(temporary, directory, plan, std::move(digests), note);
        lock.reset();  // before any rank returns
        say(LogLevel::info, [&] {
          std::uint64_t bytes = 0;
          for (PlacedItem const& one : plan) {
            bytes += one.item.length;
          }
          return concat("shardmesh::save: ", std::to_string(plan.size()), " items, ",
                        std::to_string(bytes), " bytes, saved to ", directory);
        });
      }
    });
  } catch (...) {
    if (comm.rank() == 0) {
      dissolve_quietly(temporary, directory, OnConflict::keep_both);
    }
    throw;
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
