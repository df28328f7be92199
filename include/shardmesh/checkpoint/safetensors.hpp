// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/commit.hpp>
#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/checkpoint/storage/open_files.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/tensor/detail/job.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// A run of a file that holds one safetensors header with its data.
struct SafetensorsBlob {
  format::SafetensorsHeader header;
  std::uint64_t data = 0;  ///< byte of the file where the data starts
};

/// Reads and checks the header at byte `offset`.
[[nodiscard]] inline SafetensorsBlob read_safetensors_blob(File const& file, std::uint64_t offset) {
  auto const refuse = [&](std::string const& what) {
    throw CorruptError(file.path(), offset,
                       "shardmesh: " + file.path() + " is no safetensors file: " + what);
  };
  if (file.size() < offset + 8) {
    refuse("it has only " + std::to_string(file.size()) + " bytes");
  }
  std::uint64_t length = 0;
  format::Bytes const head = file.read(offset, 8);
  std::memcpy(&length, head.data(), 8);
  if (length > format::most_safetensors_header_bytes || length > file.size() - offset - 8) {
    refuse("its header would have " + std::to_string(length) + " bytes (truncated file?)");
  }
  format::Bytes const text = file.read(offset + 8, length);
  SafetensorsBlob blob{format::read_safetensors_header(format::as_text(text), file.path()),
                       offset + 8 + length};
  if (blob.header.data_bytes() > file.size() - blob.data) {
    refuse("its header promises " + std::to_string(blob.header.data_bytes()) +
           " bytes of data, there are " + std::to_string(file.size() - blob.data) +
           " (truncated file?)");
  }
  return blob;
}

[[nodiscard]] inline StoredBox read_safetensors_box(File const& file,
                                                    SafetensorsBlob const& blob,
                                                    format::SafetensorsEntry const& entry) {
  return {file.read(blob.data + entry.begin, entry.end - entry.begin), 0,
          byte_strides(entry.shape, size_of(entry.dtype))};
}

[[nodiscard]] inline bool ends_with_safetensors(std::string_view path) {
  return path.ends_with(".safetensors");
}

}  // namespace detail

/// For `DcpCatalog`: reads checkpoints whose data files are safetensors blobs
/// (`SerializationFormat.SAFETENSORS`).
struct SafetensorsBlobs {
  [[nodiscard]] static StoredBox read_box(
      File const& file, std::uint64_t offset, std::string const& key, Box const& box, DType dtype) {
    detail::SafetensorsBlob const blob = detail::read_safetensors_blob(file, offset);
    for (format::SafetensorsEntry const& entry : blob.header.tensors) {
      if (entry.name != key) {
        continue;
      }
      check_offsets(file, blob.header, key, box);
      if (entry.unsupported.empty() && entry.dtype == dtype && entry.shape == box.extent) {
        return detail::read_safetensors_box(file, blob, entry);
      }
      fail(file, key, "has another shape or dtype than .metadata says");
    }
    fail(file, key, "is not in the file that .metadata names");
  }

 private:
  [[noreturn]] static void fail(File const& file, std::string const& key, char const* what) {
    throw CorruptError(file.path(), 0,
                       "shardmesh::load: " + file.path() + ": \"" + key + "\" " + what);
  }
  /// A second box of one tensor would have replaced the first in the file; its offsets tell.
  static void check_offsets(File const& file,
                            format::SafetensorsHeader const& header,
                            std::string const& key,
                            Box const& box) {
    std::string const* const info = header.find_metadata("DCP_SHARDING_INFO");
    if (info == nullptr) {
      return;
    }
    for (auto const& [name, offsets] : format::read_dcp_sharding_info(*info, file.path())) {
      if (name == key && !(offsets == box.offset)) {
        fail(file, key, "is another part of the tensor than .metadata says");
      }
    }
  }
};

/// Tensors of one safetensors file, or of a directory: a model of several files, as its
/// `model.safetensors.index.json` lists them (all `*.safetensors` if there is none), or the sharded
/// variant of `torch.distributed.checkpoint.HuggingFaceStorageWriter`, whose files say where
/// their parts lie.
class SafetensorsCatalog {
 public:
  /// @param path  a file, or a directory with files named `*.safetensors`.
  /// @throws IoError, CorruptError (damage, parts that do not make a tensor), UnsupportedError.
  explicit SafetensorsCatalog(std::string path) : path_(std::move(path)) {
    std::string const index = path_ + "/model.safetensors.index.json";
    std::vector<std::pair<std::string, std::string>> indexed;
    std::vector<std::string> names;
    if (detail::ends_with_safetensors(path_)) {
      names.push_back(path_);
    } else if (PosixStorage::exists(index)) {
      indexed = read_index(index);
      for (auto const& [key, file] : indexed) {
        names.push_back(path_ + "/" + file);
      }
    } else {
      for (std::string const& name : PosixStorage::list(path_)) {
        if (detail::ends_with_safetensors(name)) {
          names.push_back(path_ + "/" + name);
        }
      }
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    if (names.empty()) {
      throw IoError(path_, ENOENT,
                    "shardmesh::load: " + path_ +
                        " holds no file named *.safetensors; give the file or its "
                        "directory");
    }
    for (std::string const& name : names) {
      add_file(name);
    }
    check_parts();
    for (auto const& [key, file] : indexed) {
      if (!contains(key)) {
        throw CorruptError(index, 0,
                           "shardmesh: " + index + " says that \"" + escaped(key) + "\" is in " +
                               file + ", which has no such tensor");
      }
    }
  }

  [[nodiscard]] std::string const& describe() const noexcept { return path_; }
  [[nodiscard]] std::vector<std::string> const& keys() const noexcept { return keys_; }
  [[nodiscard]] bool contains(std::string const& key) const { return tensors_.count(key) > 0; }
  [[nodiscard]] StoredTensor const* tensor(std::string const& key) const {
    auto const found = tensors_.find(key);
    return found == tensors_.end() ? nullptr : &found->second.stored;
  }
  /// @throws UnsupportedError for a dtype that is not known, IoError, CorruptError.
  [[nodiscard]] StoredBox read_box(std::string const& key, std::size_t i) {
    detail::refuse_unsupported(tensors_.at(key).stored, path_ + ": \"" + key + "\"");
    return read_rows(tensors_.at(key), i, tensors_.at(key).stored.boxes[i]);
  }
  /// Reads a box whose elements are not known: its bytes are there, that is all that can be told.
  std::uint64_t check_box(std::string const& key, std::size_t i) {
    auto const [file, entry] = tensors_.at(key).parts[i];
    detail::SafetensorsBlob const& blob = files_[file].blob;
    auto const& part = blob.header.tensors[entry];
    static_cast<void>(
        open_.open(files_[file].path).read(blob.data + part.begin, part.end - part.begin));
    return part.end - part.begin;
  }
  /// Rows of a box: elements have no checksum, so any can be read alone.
  [[nodiscard]] StoredBox read_part(std::string const& key, std::size_t i, Box const& part) {
    StoredBox rows = read_rows(tensors_.at(key), i, part);
    bytes_read_ += rows.bytes.size();
    return rows;
  }
  /// The files that hold a tensor, with their paths.
  /// @pre contains(key).
  [[nodiscard]] std::vector<std::string> files(std::string const& key) const {
    std::vector<std::string> paths;
    for (auto const& [file, entry] : tensors_.at(key).parts) {
      paths.push_back(files_[file].path);
    }
    return paths;
  }
  /// By `read_part`.
  [[nodiscard]] std::uint64_t bytes_read() const noexcept { return bytes_read_; }
  [[nodiscard]] static Value value(std::string const&) { return {}; }

 private:
  [[nodiscard]] static std::vector<std::pair<std::string, std::string>> read_index(
      std::string const& path) {
    File const file = File::open(path);
    if (file.size() > format::most_safetensors_header_bytes) {
      throw CorruptError(path, 0,
                         "shardmesh: " + path + " has " + std::to_string(file.size()) +
                             " bytes, too many for an index");
    }
    format::Bytes const text = file.read(0, file.size());
    return format::read_safetensors_index(format::as_text(text), path);
  }

  struct HeadedFile {
    std::string path;
    detail::SafetensorsBlob blob;
  };
  struct Entry {
    StoredTensor stored;
    std::vector<std::pair<std::size_t, std::size_t>> parts;  ///< file, tensor in it
  };

  [[nodiscard]] StoredBox read_rows(Entry const& tensor, std::size_t i, Box const& part) {
    auto const [file, entry] = tensor.parts[i];
    detail::SafetensorsBlob const& blob = files_[file].blob;
    std::uint64_t first = blob.data + blob.header.tensors[entry].begin;
    std::size_t const element = size_of(tensor.stored.dtype);
    if (!part.extent.empty() && !part.empty()) {
      auto const row = static_cast<std::uint64_t>(part.volume() / part.extent[0]) * element;
      first += static_cast<std::uint64_t>(part.offset[0] - tensor.stored.boxes[i].offset[0]) * row;
    }
    File const& open = open_.open(files_[file].path);
    return {open.read(first, static_cast<std::uint64_t>(part.volume()) * element), 0,
            detail::byte_strides(part.extent, element)};
  }

  void add_file(std::string const& name) {
    File const& file = open_.open(name);
    detail::SafetensorsBlob blob = detail::read_safetensors_blob(file, 0);
    if (blob.data + blob.header.data_bytes() != file.size()) {
      throw CorruptError(name, blob.data + blob.header.data_bytes(),
                         "shardmesh: " + name + " is longer than its header says");
    }
    std::unordered_map<std::string, Shape> offsets;
    std::string const* const info = blob.header.find_metadata("DCP_SHARDING_INFO");
    if (info != nullptr) {
      for (auto const& [key, offset] : format::read_dcp_sharding_info(*info, name)) {
        offsets.emplace(key, offset);
      }
    }
    for (std::size_t i = 0; i < blob.header.tensors.size(); ++i) {
      format::SafetensorsEntry const& part = blob.header.tensors[i];
      Shape offset(part.shape.size(), 0);
      if (info != nullptr) {
        auto const found = offsets.find(part.name);
        if (found == offsets.end() || found->second.size() != part.shape.size()) {
          throw CorruptError(name, 0,
                             "shardmesh: " + name + ": DCP_SHARDING_INFO says nothing of \"" +
                                 escaped(part.name) + "\"");
        }
        offset = found->second;
      }
      add_part(part, offset, name, i);
    }
    files_.push_back({name, std::move(blob)});
  }

  void add_part(format::SafetensorsEntry const& part,
                Shape const& offset,
                std::string const& file,
                std::size_t i) {
    auto const [at, is_new] = tensors_.try_emplace(part.name);
    StoredTensor& stored = at->second.stored;
    if (is_new) {
      keys_.push_back(part.name);
      stored.dtype = part.dtype;
      stored.unsupported = part.unsupported;
      stored.shape = Shape(part.shape.size(), 0);
    }
    if (stored.dtype != part.dtype || stored.unsupported != part.unsupported ||
        stored.shape.size() != part.shape.size()) {
      throw CorruptError(file, 0,
                         "shardmesh: " + file + ": \"" + escaped(part.name) +
                             "\" differs in dtype or rank from its part in another file");
    }
    for (std::size_t d = 0; d < offset.size(); ++d) {
      stored.shape[d] = std::max(stored.shape[d], checked_add(offset[d], part.shape[d]));
    }
    stored.boxes.push_back({offset, part.shape});
    at->second.parts.emplace_back(files_.size(), i);
  }

  void check_parts() const {
    for (auto const& [key, entry] : tensors_) {
      index_t held = 0;
      for (std::size_t i = 0; i < entry.stored.boxes.size(); ++i) {
        held += entry.stored.boxes[i].volume();
        for (std::size_t j = 0; j < i; ++j) {
          if (intersect(entry.stored.boxes[i], entry.stored.boxes[j])) {
            throw CorruptError(path_, 0,
                               "shardmesh: " + path_ + ": two files hold the same part of \"" +
                                   escaped(key) + "\"");
          }
        }
      }
      if (held != volume(entry.stored.shape)) {
        throw CorruptError(path_, 0,
                           "shardmesh: " + path_ + ": the files hold " + std::to_string(held) +
                               " of the " + std::to_string(volume(entry.stored.shape)) +
                               " elements of \"" + escaped(key) + "\"; is a file missing?");
      }
    }
  }

  std::string path_;
  OpenFiles open_;
  std::vector<HeadedFile> files_;
  std::vector<std::string> keys_;
  std::unordered_map<std::string, Entry> tensors_;
  std::uint64_t bytes_read_ = 0;
};

/// Writes the tensors of a state dict that are whole on this rank (plain ones and replicas) to one
/// safetensors file; plain values are left out. The file appears when it is complete and on the disk; a
/// link stays one, the file that it leads to is replaced, or made.
/// No communication: call it on one rank, e.g. with `full_state_dict`.
/// @throws InvalidArgument for a sharded or partial tensor, UnsupportedError (dtype), IoError.
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
  format::Bytes const head = format::write_safetensors_header(header);
  std::string const target = detail::save_target(path, "shardmesh::save_safetensors");
  std::string const temporary = PosixStorage::temporary_name(target);
  PosixStorage::remove_all(temporary);
  try {
    File file = File::create(temporary);
    file.write_at(0, head);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      file.write_at(head.size() + header.tensors[i].begin, tensors[i]->local_bytes());
    }
    file.finish();
    PosixStorage::rename(temporary, target);
    PosixStorage::sync_directory(PosixStorage::parent(target));
  } catch (...) {
    detail::remove_quietly(temporary);
    throw;
  }
}

}  // namespace v0
}  // namespace shardmesh
