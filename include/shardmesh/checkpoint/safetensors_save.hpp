// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/checkpoint/detail/arguments.hpp>
#include <shardmesh/checkpoint/detail/box_bytes.hpp>
#include <shardmesh/checkpoint/detail/commit.hpp>
#include <shardmesh/checkpoint/detail/item_text.hpp>
#include <shardmesh/checkpoint/detail/part_writer.hpp>
#include <shardmesh/checkpoint/detail/replicas.hpp>
#include <shardmesh/checkpoint/detail/save_offer.hpp>
#include <shardmesh/checkpoint/safetensors_checks.hpp>
#include <shardmesh/checkpoint/safetensors_header_writer.hpp>
#include <shardmesh/checkpoint/safetensors_index.hpp>
#include <shardmesh/checkpoint/safetensors_plan.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/checkpoint/storage/save_lock.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/working.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/state/state_dict.hpp>

namespace shardmesh {
inline namespace v0 {

/// What a save does if there is a directory already.
enum class Existing : std::uint8_t {
  refuse,
  replace,  ///< its model files in one step; what else is in it stays
};

namespace detail {

/// Rank 0's part before elements are written: files of their full size.
inline void make_model_files(ModelPlan const& model, std::vector<std::string> const& paths) {
  for (std::size_t i = 0; i < paths.size(); ++i) {
    File file = File::create(paths[i]);
    file.resize(model.files[i].size());
    file.finish();
  }
}

/// Throws unless the files of a model have the sizes that they were made with.
inline void refuse_incomplete_model(ModelPlan const& model,
                                    std::vector<std::string> const& paths,
                                    char const* operation) {
  for (std::size_t i = 0; i < paths.size(); ++i) {
    refuse_other_size(paths[i], model.files[i].size(), operation);
  }
}

/// The checksums of each file of a model.
[[nodiscard]] inline std::vector<format::SafetensorsSums> sums_of(ModelPlan const& model) {
  std::vector<format::SafetensorsSums> sums;
  for (ModelFile const& file : model.files) {
    sums.emplace_back(file.header.tensors);
  }
  return sums;
}

/// What this rank has found of the checksums, for `take_sums`: file, number and value of each.
[[nodiscard]] inline std::string pack_sums(std::vector<format::SafetensorsSums>& sums) {
  std::vector<std::uint64_t> found;
  for (std::size_t file = 0; file < sums.size(); ++file) {
    std::vector<std::uint32_t> const& parts = sums[file].parts();
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (parts[i] != 0) {
        found.insert(found.end(), {file, i, parts[i]});
      }
    }
  }
  return {reinterpret_cast<char const*>(found.data()), found.size() * sizeof(found[0])};
}
inline void take_sums(std::vector<format::SafetensorsSums>& sums, std::string_view packed) {
  for (std::size_t at = 0; at < packed.size(); at += 3 * sizeof(std::uint64_t)) {
    std::uint64_t found[3];
    std::memcpy(found, packed.data() + at, sizeof(found));
    sums[static_cast<std::size_t>(found[0])].parts()[static_cast<std::size_t>(found[1])] ^=
        static_cast<std::uint32_t>(found[2]);
  }
}

/// Rank 0's part after elements were written: the headers, with the checksums that all ranks have found.
inline void write_model_heads(ModelPlan const& model,
                              std::vector<std::string> const& paths,
                              std::vector<std::string> const& packed) {
  std::vector<format::SafetensorsSums> sums = sums_of(model);
  for (std::string const& one : packed) {
    take_sums(sums, one);
  }
  for (std::size_t i = 0; i < paths.size(); ++i) {
    format::Bytes head = model.files[i].head;
    sums[i].fill(head);
    File file = File::open_to_write(paths[i]);
    file.write_at(0, head);
    file.finish();
  }
}

/// Writes this rank's parts into the files, one file after the other, and brings those to the disk.
/// @param sharded  tensors of the files are the boxes themselves.
/// @param sums     take the checksums of what is written.
/// @param done     counts the bytes of elements.
inline void write_model_parts(ModelPlan const& model,
                              std::vector<std::string> const& paths,
                              int rank,
                              SaveOffer const& offer,
                              bool sharded,
                              std::vector<format::SafetensorsSums>& sums,
                              std::atomic<std::uint64_t>& done) {
  std::vector<ModelPart const*> parts;
  for (ModelPart const& part : model.parts) {
    if (part.item->rank == rank && !part.item->item.box.empty()) {
      parts.push_back(&part);
    }
  }
  // In the order of the bytes: what follows what was written last goes into the same slot.
  std::sort(parts.begin(), parts.end(), [](ModelPart const* a, ModelPart const* b) {
    return a->file != b->file ? a->file < b->file : a->offset < b->offset;
  });
  std::optional<PartWriter> file;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    ModelPart const& part = *parts[i];
    SaveItem const& item = part.item->item;
    if (!file) {
      file.emplace(File::open_to_write(paths[part.file]), model.files[part.file].head.size(),
                   sums[part.file], &done);
    }
    SaveSource const& source = offer.sources[part.item->number];
    BoxBytes elements(*source.tensor, source.local, item.box.extent);
    if (sharded) {
      file->run(part.offset, elements.left(), elements);
    } else {
      file->box(part.offset, item.shape, item.box, size_of(*item.dtype), elements);
    }
    if (i + 1 == parts.size() || parts[i + 1]->file != part.file) {
      file->flushed().finish();
      file.reset();
    }
  }
}

enum class ModelForm : std::uint8_t { one_file, hub, shards };

/// Throws unless nothing would be lost, or misread, if a model were written to `target`.
inline void check_model_target(std::string const& target, ModelForm form, Existing existing) {
  std::string const who = "shardmesh::save_safetensors: " + target;
  bool const is_directory = PosixStorage::is_directory(target);
  if (form == ModelForm::one_file) {
    if (is_directory) {
      throw InvalidArgument(who + " is a directory; give a file");
    }
    return;
  }
  if (!PosixStorage::exists(target)) {
    return;
  }
  if (existing == Existing::refuse || !is_directory) {
    throw InvalidArgument(who + " exists; give a new directory");
  }
  for (std::string const& name : PosixStorage::list(target)) {
    bool const is_model = name.ends_with(".safetensors") || format::is_safetensors_index(name);
    if (is_checkpoint_name(name) || (is_model && !is_model_name(name))) {
      throw InvalidArgument(who + " holds " + name +
                            ", which is no part of what is to be replaced, and which readers would "
                            "take for one; give a new directory");
    }
  }
}

/// A whole save of tensors as safetensors.
template <Communicator Comm>
void run_save_model(Comm const& comm,
                    std::string target,
                    StateDict const& dict,
                    ModelForm form,
                    ModelRoom const& room = {},
                    Existing existing = Existing::refuse) {
  constexpr char operation[] = "shardmesh::save_safetensors";
  constexpr std::array<std::string_view, 3> forms{"one file", "several files", "a file a rank"};
  Arguments own;
  own.path("target", without_trailing_slashes(target));
  own.add("as", forms[static_cast<std::size_t>(form)]);
  own.add("most_bytes", std::to_string(room.data_bytes));
  own.add("existing", existing == Existing::refuse ? "refuse" : "replace");
  refuse_other_arguments(comm, operation, own);
  StateDict tensors;
  for (StateEntry const& entry : dict) {
    if (entry.is_tensor()) {
      tensors.insert(entry.path, entry.value);
    }
  }
  SaveOffer offer;
  together(comm, operation, [&] { offer = make_offer(tensors); });
  std::vector<std::vector<SaveItem>> offers;
  for (std::string const& text :
       all_gather_text(comm, pack_items(offer.items), call_of(operation))) {
    offers.push_back(unpack_items(text));
  }
  std::vector<PlacedItem> const placed = plan_save(offers);
  refuse_unlike(comm, operation, offer, placed);
  // What cannot be written is refused here, on all ranks alike, before there is any file.
  ModelPlan const model = form == ModelForm::shards
                              ? plan_model_shards(placed, room.header_bytes)
                              : plan_model(placed, room, form == ModelForm::one_file ? target : "");
  std::string const index =
      form == ModelForm::hub && model.files.size() > 1 ? index_of_model(model) : "";
  std::string temporary;
  std::optional<SaveLock> lock;
  auto const paths = [&] {
    std::vector<std::string> result;
    for (ModelFile const& file : model.files) {
      result.push_back(form == ModelForm::one_file ? temporary : temporary + "/" + file.name);
    }
    return result;
  };
  try {
    together(comm, operation, [&] {
      if (comm.rank() != 0) {
        return;
      }
      target = save_target(target, operation);
      lock.emplace(lock_target(target, operation));
      check_model_target(target, form, existing);
      temporary = make_temporary(target, form != ModelForm::one_file);
      make_model_files(model, paths());
    });
    temporary = all_gather_text(comm, temporary, call_of(operation))[0];
    std::string found;
    together(comm, operation, [&] {
      std::vector<format::SafetensorsSums> sums = sums_of(model);
      std::atomic<std::uint64_t> done{0};
      Working const work(comm, concat("writes its part of ", target), &done);
      write_model_parts(model, paths(), comm.rank(), offer, form == ModelForm::shards, sums, done);
      found = pack_sums(sums);
    });
    std::vector<std::string> const packed = all_gather_text(comm, found);
    together(comm, operation, [&] {
      if (comm.rank() != 0) {
        return;
      }
      write_model_heads(model, paths(), packed);
      if (!index.empty()) {
        std::string const path = temporary + "/model.safetensors.index.json";
        write_file(path, index);
        refuse_other_size(path, index.size(), operation);
      }
      refuse_incomplete_model(model, paths(), operation);
      if (form == ModelForm::one_file) {
        PosixStorage::rename(temporary, target);
        PosixStorage::sync_directory(PosixStorage::parent(target));
      } else {
        publish(temporary, target);
      }
      lock.reset();  // before any rank returns
    });
  } catch (...) {
    if (comm.rank() == 0) {
      dissolve_quietly(temporary, target, OnConflict::keep_both);
    }
    throw;
  }
}

}  // namespace detail

/// Saves the tensors of a state dict, whatever their layouts, as one safetensors file. Every rank
/// writes the boxes that it holds straight into their places, replicas once; no rank holds a whole
/// tensor, nothing is merged afterwards. Plain values are left out. The file appears, or replaces an
/// older one, when it is complete and on the disk.
///
/// @param path  on a file system that all ranks see. A link stays one: the file that it leads to is
///              replaced, or made.
/// @throws InvalidArgument (a partial tensor, names that the format has not), UnsupportedError
///         (dtype; a header above 100,000,000 bytes, which readers refuse, as hundreds of thousands of
///         tensors have it: save several files), ShapeError (ranks hold different things under one
///         name), MismatchError (plain tensors of one name with different elements, see `save`),
///         IoError; RankFailed on ranks that had no problem.
/// @collective over `comm`, with equal arguments.
template <Communicator Comm>
void save_safetensors(Comm const& comm, std::string const& path, StateDict const& dict) {
  detail::run_save_model(comm, path, dict, detail::ModelForm::one_file);
}

/// The same as a directory of several files with `model.safetensors.index.json`, the form of model
/// hubs; one file and no index if all fit into one.
/// @param directory   must not exist, unless it is to be replaced.
/// @param most_bytes  tensor data in a file; a larger tensor has a file of its own. Another file is
///                    started, too, when a header would be larger than readers accept.
/// @param existing    a directory of such files may be replaced as `save` replaces a checkpoint.
/// @throws as `save_safetensors`; InvalidArgument if the directory exists and is not to be replaced, or
///         holds safetensors of other names.
/// @collective over `comm`, with equal arguments.
template <Communicator Comm>
void save_safetensors_sharded(Comm const& comm,
                              std::string const& directory,
                              StateDict const& dict,
                              std::uint64_t most_bytes,
                              Existing existing = Existing::refuse) {
  detail::run_save_model(comm, directory, dict, detail::ModelForm::hub, {.data_bytes = most_bytes},
                         existing);
}

/// The same as PyTorch's `HuggingFaceStorageWriter(save_distributed=True)` writes it: a file for each
/// rank, which `HuggingFaceStorageReader` and `load_any` put together. The shapes of the tensors and the
/// number of files are noted besides, so that `verify` sees a file that was lost.
/// @param directory  must not exist.
/// @throws as `save_safetensors`; InvalidArgument if the directory exists.
/// @collective over `comm`, with equal arguments.
template <Communicator Comm>
void save_safetensors_by_rank(Comm const& comm,
                              std::string const& directory,
                              StateDict const& dict) {
  detail::run_save_model(comm, directory, dict, detail::ModelForm::shards);
}

/// Writes the tensors of a state dict that are whole on this rank (plain ones and replicas) to one
/// safetensors file; plain values are left out. The file appears when it is complete and on the disk; a
/// link stays one, the file that it leads to is replaced, or made.
/// No communication: call it on one rank, e.g. with `full_state_dict`.
/// @throws InvalidArgument for a sharded or partial tensor, UnsupportedError (dtype; a header above
///         100,000,000 bytes, which readers refuse), IoError.
inline void save_safetensors(std::string const& path, StateDict const& dict) {
  format::SafetensorsHeader header;
  header.metadata = {{"format", "pt"}};
  std::vector<AnyTensor const*> tensors;
  for (StateEntry const& entry : dict) {
    if (!entry.is_tensor()) {
      continue;
    }
    if (!(entry.tensor().local_shape() == entry.tensor().shape()) ||
        entry.tensor().layout().has_partial()) {
      throw InvalidArgument("shardmesh::save_safetensors: \"" + entry.key + "\" is " +
                            to_string(entry.tensor().layout()) +
                            ", not whole on this rank; take full_state_dict first");
    }
    header.tensors.push_back({entry.key, entry.tensor().dtype(), entry.tensor().shape(), 0, 0});
    tensors.push_back(&entry.tensor());
  }
  header.metadata.push_back(format::empty_checks(header.tensors));
  format::Bytes head = format::write_safetensors_header(header, path);
  format::SafetensorsSums sums(header.tensors);
  std::string const target = detail::save_target(path, "shardmesh::save_safetensors");
  detail::SaveLock const lock(target, "shardmesh::save_safetensors");
  std::string const temporary = PosixStorage::temporary_name(target);
  PosixStorage::remove_all(temporary);
  try {
    detail::PartWriter parts(File::create(temporary), head.size(), sums);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      AnyTensor const& tensor = *tensors[i];
      detail::BoxBytes elements(tensor, Shape(tensor.local_shape().size(), 0),
                                tensor.local_shape());
      parts.run(head.size() + header.tensors[i].begin, elements.left(), elements);
    }
    File& file = parts.flushed();
    sums.fill(head);
    file.write_at(0, head);
    file.finish();
    detail::refuse_other_size(
        temporary, head.size() + (header.tensors.empty() ? 0 : header.tensors.back().end),
        "shardmesh::save_safetensors");
    PosixStorage::rename(temporary, target);
    PosixStorage::sync_directory(PosixStorage::parent(target));
  } catch (...) {
    detail::remove_quietly(temporary);
    throw;
  }
}

}  // namespace v0
}  // namespace shardmesh
