// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/chunk_check.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata.hpp>
#include <shardmesh/checkpoint/format/dtype_names.hpp>
#include <shardmesh/checkpoint/format/file_name.hpp>
#include <shardmesh/checkpoint/format/pickle_globals.hpp>
#include <shardmesh/checkpoint/format/pickle_writer.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

namespace detail {

/// Writes the object graph of `Metadata` with nothing but the globals that every torch since 2.3
/// knows.
class DcpMetadataWriter {
 public:
  [[nodiscard]] Bytes write(DcpMetadata const& metadata, std::string_view mark) && {
    open_object(dcp_metadata_module, "Metadata");
    if (!mark.empty()) {
      out_.text("shardmesh");
      out_.text(mark);
    }
    out_.text("state_dict_metadata");
    open_dict();
    for (MetadataEntry const& entry : metadata.entries) {
      out_.text(entry.fqn);
      if (TensorMetadata const* tensor = entry.tensor()) {
        write_tensor(*tensor);
      } else {
        out_.global(dcp_metadata_module, "BytesStorageMetadata");
        out_.ops(Opcode::empty_tuple, Opcode::newobj);
      }
    }
    out_.op(Opcode::setitems);
    write_paths(metadata);
    write_storage(metadata);
    if (metadata.version) {
      out_.text("version");
      out_.text(*metadata.version);
    }
    close_object();
    return std::move(out_).finish();
  }

 private:
  void open_dict() { out_.ops(Opcode::empty_dict, Opcode::mark); }
  void open_object(std::string_view module, std::string_view name) {
    out_.global(module, name);
    out_.ops(Opcode::empty_tuple, Opcode::newobj);
    open_dict();
  }
  void close_object() { out_.ops(Opcode::setitems, Opcode::build); }

  void write_size(Shape const& size) {
    out_.global("torch", "Size");
    out_.op(Opcode::mark);
    for (index_t const extent : size) {
      out_.integer(extent);
    }
    out_.ops(Opcode::tuple, Opcode::tuple1, Opcode::reduce);
  }

  /// One object for all tensors of an element type.
  void write_properties(DType dtype) {
    std::uint32_t& memo = properties_[static_cast<std::size_t>(dtype)];
    if (memo != 0) {
      out_.get(memo);
      return;
    }
    out_.global(dcp_metadata_module, "TensorProperties");
    out_.ops(Opcode::empty_tuple, Opcode::newobj, Opcode::mark);
    out_.global("torch", to_string(dtype));
    out_.global("torch.serialization", "_get_layout");
    out_.text("torch.strided");
    out_.ops(Opcode::tuple1, Opcode::reduce, Opcode::newfalse);
    out_.global(dcp_metadata_module, "_MEM_FORMAT_ENCODING");
    out_.integer(0);
    out_.ops(Opcode::tuple1, Opcode::reduce, Opcode::newfalse, Opcode::tuple, Opcode::build);
    memo = out_.memoize();
  }

  void write_tensor(TensorMetadata const& tensor) {
    open_object(dcp_metadata_module, "TensorStorageMetadata");
    out_.text("properties");
    write_properties(tensor.dtype);
    out_.text("size");
    write_size(tensor.size);
    out_.text("chunks");
    out_.ops(Opcode::empty_list, Opcode::mark);
    for (ChunkMetadata const& chunk : tensor.chunks) {
      open_object(dcp_metadata_module, "ChunkStorageMetadata");
      out_.text("offsets");
      write_size(chunk.offsets);
      out_.text("sizes");
      write_size(chunk.sizes);
      close_object();
    }
    out_.op(Opcode::appends);
    close_object();
  }

  void write_paths(DcpMetadata const& metadata) {
    out_.text("planner_data");
    open_dict();
    for (MetadataEntry const& entry : metadata.entries) {
      out_.text(entry.fqn);
      out_.op(Opcode::mark);
      for (PathElement const& element : entry.path) {
        if (element.is_key()) {
          out_.text(element.key());
        } else {
          out_.integer(element.index());
        }
      }
      out_.op(Opcode::tuple);
    }
    out_.op(Opcode::setitems);
  }

  void write_storage(DcpMetadata const& metadata) {
    out_.text("storage_data");
    open_dict();
    for (MetadataEntry const& entry : metadata.entries) {
      if (BytesMetadata const* const bytes = entry.bytes()) {
        write_key(entry.fqn, nullptr, 0);
        write_info(bytes->storage);
        continue;
      }
      auto const& chunks = entry.tensor()->chunks;
      for (std::size_t i = 0; i < chunks.size(); ++i) {
        if (chunks[i].storage) {
          write_key(entry.fqn, &chunks[i].offsets, i);
          write_info(*chunks[i].storage);
        }
      }
    }
    out_.op(Opcode::setitems);
  }

  /// The key is built before it is used as one: Python hashes it then.
  void write_key(std::string const& fqn, Shape const* offset, std::size_t index) {
    open_object(dcp_metadata_module, "MetadataIndex");
    out_.text("fqn");
    out_.text(fqn);
    out_.text("index");
    if (offset != nullptr) {
      out_.integer(static_cast<std::int64_t>(index));
      out_.text("offset");
      write_size(*offset);
    } else {
      out_.op(Opcode::none);
    }
    close_object();
  }

  void write_info(StorageInfo const& info) {
    open_object(dcp_file_module, "_StorageInfo");
    out_.text("relative_path");
    out_.text(info.relative_path);
    out_.text("offset");
    out_.integer(static_cast<std::int64_t>(info.offset));
    out_.text("length");
    out_.integer(static_cast<std::int64_t>(info.length));
    close_object();
  }

  PickleWriter out_;
  std::array<std::uint32_t, dtype_table.size()> properties_{};  // memo numbers; 0: not written
};

/// Refuses what could be written but not read again.
inline void check_writable(StorageInfo const& info, std::string const& fqn) {
  constexpr std::uint64_t most = INT64_MAX;
  if (!is_plain_file_name(info.relative_path) || !is_utf8(info.relative_path) ||
      info.offset > most || info.length > most - info.offset || !info.transforms.empty()) {
    throw InvalidArgument("shardmesh::write_dcp_metadata: the place of \"" + escaped(fqn) +
                          "\" (file \"" + escaped(info.relative_path) +
                          "\") is not a range of a plainly named file, or is transformed");
  }
}

inline void check_writable(MetadataEntry const& entry) {
  std::string const who = "shardmesh::write_dcp_metadata: \"" + escaped(entry.fqn) + "\"";
  if (entry.fqn.size() > 65536 || !is_utf8(entry.fqn) ||
      entry.fqn.find('\0') != std::string::npos) {
    throw InvalidArgument(who + " is not a name: it must be UTF-8, without NUL, up to 64 KiB");
  }
  for (PathElement const& element : entry.path) {
    if (element.is_key() && !is_utf8(element.key())) {
      throw InvalidArgument(who + ": its path has the key \"" + escaped(element.key()) +
                            "\", which is not UTF-8");
    }
  }
  if (BytesMetadata const* const bytes = entry.bytes()) {
    check_writable(bytes->storage, entry.fqn);
    return;
  }
  if (!entry.tensor()->unsupported.empty() || !is_torch_dtype(entry.tensor()->dtype)) {
    throw UnsupportedError(who + " cannot be written: " +
                           (entry.tensor()->unsupported.empty()
                                ? "PyTorch has no element type like " +
                                      std::string(to_string(entry.tensor()->dtype)) +
                                      "; save it as safetensors"
                                : entry.tensor()->unsupported));
  }
  std::string const fault = chunk_fault(*entry.tensor());
  if (!fault.empty()) {
    throw InvalidArgument(who + ": " + fault);
  }
  std::unordered_map<std::string, std::size_t> starts;
  for (ChunkMetadata const& chunk : entry.tensor()->chunks) {
    if (!starts.emplace(to_string(chunk.offsets), 0).second) {
      throw InvalidArgument(who + " has two chunks at " + to_string(chunk.offsets));
    }
    if (chunk.storage) {
      check_writable(*chunk.storage, entry.fqn);
    } else if (!is_empty_box(chunk.sizes)) {
      throw InvalidArgument(who + ": the chunk at " + to_string(chunk.offsets) +
                            " has no place in a file");
    }
  }
}

}  // namespace detail

/// The bytes of `.metadata`: protocol 2, no class that torch 2.3 lacks, readable by every torch
/// since.
/// @param mark  what is to stand in it as a member of its own, which no reader asks for; none if empty.
/// @throws InvalidArgument for chunks that overlap or stick out, chunks without a place, and names
///         that no reader would accept or that stand twice.
[[nodiscard]] inline Bytes write_dcp_metadata(DcpMetadata const& metadata,
                                              std::string_view mark = {}) {
  std::unordered_map<std::string, std::size_t> names;
  for (MetadataEntry const& entry : metadata.entries) {
    detail::check_writable(entry);
    if (!names.emplace(entry.fqn, 0).second) {
      throw InvalidArgument("shardmesh::write_dcp_metadata: \"" + escaped(entry.fqn) +
                            "\" stands twice");
    }
  }
  if (metadata.version && !is_utf8(*metadata.version)) {
    throw InvalidArgument("shardmesh::write_dcp_metadata: the version \"" +
                          escaped(*metadata.version) + "\" is not UTF-8");
  }
  return detail::DcpMetadataWriter().write(metadata, mark);
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
