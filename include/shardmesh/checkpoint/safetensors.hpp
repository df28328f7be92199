// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/sample.hpp>
#include <shardmesh/checkpoint/safetensors_blob.hpp>
#include <shardmesh/checkpoint/safetensors_files.hpp>
#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/checkpoint/safetensors_index.hpp>
#include <shardmesh/checkpoint/storage/checked_run.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/storage/open_files.hpp>
#include <shardmesh/checkpoint/storage/posix.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/tensor/detail/job.hpp>

namespace shardmesh {
inline namespace v0 {

/// Tensors of one safetensors file, of a model of several files, as an index lists them
/// (`find_safetensors_files`), or of the sharded variant of
/// `torch.distributed.checkpoint.HuggingFaceStorageWriter`, whose files say where their parts lie.
///
/// An index decides which file a tensor is read from; what it does not list is not there. A tensor
/// that is listed but cannot be read, for want of its file or of parts of it, is a key like others;
/// `problem` says why, and the others can be read.
class SafetensorsCatalog {
 public:
  /// @param path  a file, an index, or a directory with one index or with files named `*.safetensors`.
  /// @throws IoError, CorruptError (damage), UnsupportedError, InvalidArgument (several indexes).
  explicit SafetensorsCatalog(std::string const& path)
      : SafetensorsCatalog(path, find_safetensors_files(path)) {}

  [[nodiscard]] std::string const& describe() const noexcept { return path_; }
  [[nodiscard]] std::vector<std::string> const& keys() const noexcept { return keys_; }
  [[nodiscard]] bool contains(std::string const& key) const { return tensors_.count(key) > 0; }
  /// nullptr, too, for one that cannot be read.
  [[nodiscard]] StoredTensor const* tensor(std::string const& key) const {
    auto const found = tensors_.find(key);
    return found == tensors_.end() || !found->second.problem.empty() ? nullptr
                                                                     : &found->second.stored;
  }
  /// Why a tensor that is listed cannot be read; nullptr if it can.
  [[nodiscard]] std::string const* problem(std::string const& key) const {
    auto const found = tensors_.find(key);
    return found == tensors_.end() || found->second.problem.empty() ? nullptr
                                                                    : &found->second.problem;
  }
  /// Files that were lost, as far as the others tell: names, and what to say.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> const& lost_files()
      const noexcept {
    return lost_;
  }
  /// What may be a loss, but is no proof of one.
  [[nodiscard]] std::vector<std::string> const& notes() const noexcept { return notes_; }
  /// The format has none; files that were saved here have (`format::checks_key`).
  [[nodiscard]] bool has_checksums() const noexcept {
    return std::all_of(files_.begin(), files_.end(),
                       [](HeadedFile const& file) { return file.blob.checks.there(); });
  }

  /// @pre tensor(key) != nullptr, and box i exists.
  /// @throws UnsupportedError for a dtype that is not known, IoError, CorruptError.
  [[nodiscard]] StoredBox read_box(std::string const& key, std::size_t i) {
    detail::refuse_unsupported(tensors_.at(key).stored, path_ + ": \"" + key + "\"");
    return read_rows(tensors_.at(key), i, tensors_.at(key).stored.boxes[i]);
  }
  /// Reads a box whose elements are not known: its bytes are there, that is all that can be told.
  std::uint64_t check_box(std::string const& key, std::size_t i) {
    auto const [file, entry] = tensors_.at(key).parts[i];
    auto const& part = files_[file].blob.header.tensors[entry];
    static_cast<void>(read_checked(file, entry, 0, part.end - part.begin));
    return part.end - part.begin;
  }
  /// Rows of a box. Where there are checksums, whole MiB are read.
  [[nodiscard]] StoredBox read_part(std::string const& key, std::size_t i, Box const& part) {
    std::uint64_t const before = reader_.bytes_read();
    StoredBox rows = read_rows(tensors_.at(key), i, part);
    bytes_read_ += reader_.bytes_read() - before;
    return rows;
  }
  /// Begins to read many rows of a box; any thread may then read them, while this one opens others.
  /// @returns nothing for rows that `read_part` must read: few ones, and those that are not of whole MiB where there are
  ///          checksums.
  [[nodiscard]] std::optional<detail::CheckedRun> open_run(std::string const& key,
                                                           std::size_t i,
                                                           Box const& part) {
    Entry const& tensor = tensors_.at(key);
    std::size_t const number = tensor.parts[i].second;
    HeadedFile const& headed = files_[tensor.parts[i].first];
    std::pair<std::uint64_t, std::uint64_t> const bytes = bytes_of(tensor, i, part);
    if (!detail::is_run(headed.blob, number, bytes.first, bytes.second)) {
      return std::nullopt;
    }
    bytes_read_ += bytes.second;
    return detail::read_in(directory_, [&] {
      return detail::open_run(directory_, open_.open(directory_, headed.name), headed.blob, number,
                              bytes.first, bytes.second);
    });
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
  /// Tells the model from others of the same shapes, in words, by a sample of its bytes.
  [[nodiscard]] std::string identity() {
    return detail::read_in(directory_,
                           [&] { return detail::sample_of(open_, directory_, files_); });
  }
  /// By `read_part`.
  [[nodiscard]] std::uint64_t bytes_read() const noexcept { return bytes_read_; }
  /// There are no plain values.
  /// @throws CorruptError for a tensor that cannot be read.
  [[nodiscard]] Value value(std::string const& key) const {
    detail::refuse_unreadable(*this, key);
    return {};
  }

 private:
  struct HeadedFile {
    std::string name;
    std::string path;
    detail::SafetensorsBlob blob;
  };
  struct Entry {
    StoredTensor stored;
    std::vector<std::pair<std::size_t, std::size_t>> parts;  ///< file, tensor in it
    bool is_told = false;                                    ///< a file has told the global shape
    std::string problem;                                     ///< why it cannot be read
  };
  /// What the metadata of a file says of its tensors.
  struct Told {
    std::optional<format::NamedShapes> offsets;
    format::NamedShapes shapes;
  };

  SafetensorsCatalog(std::string path, SafetensorsFiles found)
      : path_(std::move(path)), directory_(std::move(found.directory)) {
    detail::read_in(directory_, [&] { read_headers(found); });
  }

  void read_headers(SafetensorsFiles const& found) {
    for (auto const& [tensor, file] : found.map.files) {
      listed_.emplace(tensor, file);
    }
    std::unordered_map<std::string, std::string> unreadable;  // why, by file
    for (std::string const& name : found.names) {
      if (found.index.empty()) {
        add_file(name, false);
        continue;
      }
      try {
        add_file(name, true);
      } catch (Error const& error) {
        if (!directory_.is_current()) {
          throw;
        }
        unreadable.emplace(name, error.what());
      }
    }
    for (auto const& [tensor, file] : found.map.files) {
      if (!contains(tensor)) {
        auto const why = unreadable.find(file);
        block(tensor, "shardmesh: " + found.index + " says that \"" + escaped(tensor) +
                          "\" is in " + file + ", " +
                          (why == unreadable.end() ? "which has no such tensor"
                                                   : "which cannot be read (" + why->second + ")"));
      }
    }
    if (found.index.empty() && !path_.ends_with(".safetensors")) {
      look_for_lost_files(found.names);
    }
    check_parts();
    compare_size(found);
  }

  [[nodiscard]] StoredBox read_rows(Entry const& tensor, std::size_t i, Box const& part) {
    auto const [file, entry] = tensor.parts[i];
    auto const [first, count] = bytes_of(tensor, i, part);
    auto [bytes, start] = read_checked(file, entry, first, count);
    return {std::move(bytes), start,
            detail::byte_strides(part.extent, size_of(tensor.stored.dtype))};
  }

  /// Where in a tensor of a file some rows of box `i` start, and how many bytes they are.
  [[nodiscard]] static std::pair<std::uint64_t, std::uint64_t> bytes_of(Entry const& tensor,
                                                                        std::size_t i,
                                                                        Box const& part) {
    std::uint64_t first = 0;
    std::size_t const element = size_of(tensor.stored.dtype);
    if (!part.extent.empty() && !part.empty()) {
      auto const row = static_cast<std::uint64_t>(part.volume() / part.extent[0]) * element;
      first = static_cast<std::uint64_t>(part.offset[0] - tensor.stored.boxes[i].offset[0]) * row;
    }
    return {first, static_cast<std::uint64_t>(part.volume()) * element};
  }

  [[nodiscard]] std::pair<HostBlock, std::size_t> read_checked(std::size_t file,
                                                               std::size_t number,
                                                               std::uint64_t first,
                                                               std::uint64_t count) {
    return detail::read_in(directory_, [&] {
      return reader_.read(*open_.open(directory_, files_[file].name), files_[file].blob, number,
                          first, count);
    });
  }

  [[nodiscard]] static Told read_metadata(format::SafetensorsHeader const& header,
                                          std::string const& path) {
    Told told;
    if (auto const* const info = header.find_metadata("DCP_SHARDING_INFO")) {
      told.offsets = format::read_dcp_sharding_info(*info, path);
    }
    if (auto const* const shapes = header.find_metadata(format::shapes_key)) {
      told.shapes = format::read_shapes(*shapes, path);
    }
    return told;
  }

  /// @param is_listed  only tensors that the index says to be in it are taken.
  void add_file(std::string const& name, bool is_listed) {
    auto const opened = open_.open(directory_, name);
    File const& file = *opened;
    std::string const path = file.path();
    detail::SafetensorsBlob blob = detail::read_safetensors_blob(file, 0);
    if (blob.data + blob.header.data_bytes() != file.size()) {
      throw CorruptError(path, blob.data + blob.header.data_bytes(),
                         "shardmesh: " + path + " is longer than its header says");
    }
    if (blob.checks.are_foreign) {
      notes_.push_back(
          path +
          " has checksums of shardmesh in its metadata, but another program has written it since: "
          "they are not used");
    }
    Told const told = read_metadata(blob.header, path);
    for (std::size_t i = 0; i < blob.header.tensors.size(); ++i) {
      format::SafetensorsEntry const& part = blob.header.tensors[i];
      if (is_listed) {
        auto const listed = listed_.find(part.name);
        if (listed == listed_.end() || listed->second != name) {
          continue;
        }
      }
      try {
        add_part(part, told, path, i);
      } catch (Error const& error) {  // offsets that overflow
        block(part.name,
              "shardmesh: " + path + ": \"" + escaped(part.name) + "\": " + error.what());
      }
    }
    files_.push_back({name, path, std::move(blob)});
  }

  void add_part(format::SafetensorsEntry const& part,
                Told const& told,
                std::string const& file,
                std::size_t i) {
    Shape offset(part.shape.size(), 0);
    if (told.offsets) {
      Shape const* const found = format::find_shape(*told.offsets, part.name);
      if (found == nullptr || found->size() != part.shape.size()) {
        block(part.name, "shardmesh: " + file + ": DCP_SHARDING_INFO says nothing of \"" +
                             escaped(part.name) + "\"");
        return;
      }
      offset = *found;
    }
    auto const [at, is_new] = tensors_.try_emplace(part.name);
    Entry& entry = at->second;
    StoredTensor& stored = entry.stored;
    if (is_new) {
      keys_.push_back(part.name);
    }
    if (entry.parts.empty()) {
      stored.dtype = part.dtype;
      stored.unsupported = part.unsupported;
      stored.shape = Shape(part.shape.size(), 0);
    }
    if (stored.dtype != part.dtype || stored.unsupported != part.unsupported ||
        stored.shape.size() != part.shape.size()) {
      block(part.name, "shardmesh: " + file + ": \"" + escaped(part.name) +
                           "\" differs in dtype or rank from its part in another file (" +
                           files(part.name).front() +
                           "); if these are two models, give the path of one file or index");
      return;
    }
    if (!take_shape(entry, part, offset, told)) {
      block(part.name, "shardmesh: " + file + ": the files disagree about the shape of \"" +
                           escaped(part.name) + "\"");
    }
    stored.boxes.push_back({offset, part.shape});
    entry.parts.emplace_back(files_.size(), i);
  }

  /// The shape is what the files say, or what their parts reach.
  /// @returns false if a part lies outside.
  [[nodiscard]] static bool take_shape(Entry& entry,
                                       format::SafetensorsEntry const& part,
                                       Shape const& offset,
                                       Told const& told) {
    Shape& shape = entry.stored.shape;
    Shape const* const whole = format::find_shape(told.shapes, part.name);
    bool const tells = whole != nullptr;
    bool fits = entry.parts.empty() || tells == entry.is_told;
    if (tells) {
      fits = fits && whole->size() == shape.size() && (entry.parts.empty() || *whole == shape);
      entry.is_told = true;
      shape = fits ? *whole : shape;
    }
    for (std::size_t d = 0; d < offset.size(); ++d) {
      index_t const end = checked_add(offset[d], part.shape[d]);
      fits = fits && (!tells || end <= shape[d]);
      shape[d] = std::max(shape[d], end);
    }
    return fits;
  }

  /// Makes a key that cannot be read; the first reason stays.
  void block(std::string const& key, std::string why) {
    auto const [at, is_new] = tensors_.try_emplace(key);
    if (is_new) {
      keys_.push_back(key);
    }
    if (at->second.problem.empty()) {
      at->second.problem = std::move(why);
    }
  }

  /// Do the parts of each tensor fill it, each element once?
  void check_parts() {
    for (std::string const& key : keys_) {
      Entry& entry = tensors_.at(key);
      if (!entry.problem.empty()) {
        continue;
      }
      try {
        entry.problem = fault_of_parts(key, entry);
      } catch (Error const& error) {  // a shape that overflows
        entry.problem = "shardmesh: " + path_ + ": \"" + escaped(key) + "\": " + error.what();
      }
    }
  }

  [[nodiscard]] std::string fault_of_parts(std::string const& key, Entry const& entry) const {
    std::vector<Box> const& boxes = entry.stored.boxes;
    std::string const place = "shardmesh: " + path_ + ": ";
    index_t held = 0;
    for (std::size_t i = 0; i < boxes.size(); ++i) {
      held = checked_add(held, boxes[i].volume());
      for (std::size_t j = 0; j < i; ++j) {
        if (intersect(boxes[i], boxes[j])) {
          return place + "two files hold the same part of \"" + escaped(key) + "\", " +
                 files(key)[j] + " and " + files(key)[i] +
                 "; if these are two models, give the path of one file or index";
        }
      }
    }
    if (held != volume(entry.stored.shape)) {
      return place + "the files hold " + std::to_string(held) + " of the " +
             std::to_string(volume(entry.stored.shape)) + " elements of \"" + escaped(key) + "\" " +
             to_string(entry.stored.shape) + "; is a file missing?";
    }
    return {};
  }

  /// Where no index lists the files, their names and what our own writer noted tell of others.
  void look_for_lost_files(std::vector<std::string> const& names) {
    for (auto const& [name, what] : format::missing_numbers(names)) {
      lost_.emplace_back(name, "shardmesh: " + path_ + ": " + what);
    }
    std::string count;
    std::size_t there = 0;
    for (HeadedFile const& file : files_) {
      if (auto const* const said = file.blob.header.find_metadata(format::files_key)) {
        count = *said;
        ++there;
      }
    }
    if (!count.empty() && count != std::to_string(there)) {
      lost_.emplace_back(path_, "shardmesh: " + path_ + " has " + std::to_string(there) +
                                    " of the files of one save, which say that they are " +
                                    escaped(count) + "; get all of them again");
    }
    for (std::size_t const shard :
         count.empty() ? format::missing_shards(names) : std::vector<std::size_t>()) {
      notes_.push_back(path_ + " has no file of shard " + std::to_string(shard) +
                       ", but of higher ones: lost, or its rank had nothing to write");
    }
  }

  /// An index may be older than the files, or count what is not stored, so this is only noted.
  void compare_size(SafetensorsFiles const& found) {
    std::uint64_t bytes = 0;
    for (auto const& [key, entry] : tensors_) {
      if (!entry.problem.empty()) {
        return;
      }
      for (auto const& [file, i] : entry.parts) {
        format::SafetensorsEntry const& part = files_[file].blob.header.tensors[i];
        bytes += part.end - part.begin;
      }
    }
    if (found.map.total_size && *found.map.total_size != bytes) {
      notes_.push_back(found.index + " says that all tensors have " +
                       std::to_string(*found.map.total_size) + " bytes, those in the files have " +
                       std::to_string(bytes) + "; do the files belong to this index?");
    }
  }

  std::string path_;
  Directory directory_;
  OpenFiles open_;
  detail::CheckedReader reader_;
  std::vector<HeadedFile> files_;
  std::vector<std::string> keys_;
  std::unordered_map<std::string, Entry> tensors_;
  std::unordered_map<std::string, std::string>
      listed_;  ///< file by tensor, where there is an index
  std::vector<std::pair<std::string, std::string>> lost_;
  std::vector<std::string> notes_;
  std::uint64_t bytes_read_ = 0;
};

}  // namespace v0
}  // namespace shardmesh
