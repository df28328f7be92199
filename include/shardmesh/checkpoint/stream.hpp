// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <istream>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/dcp_index.hpp>
#include <shardmesh/checkpoint/detail/box_bytes.hpp>
#include <shardmesh/checkpoint/detail/load_alone.hpp>
#include <shardmesh/checkpoint/detail/save_offer.hpp>
#include <shardmesh/checkpoint/detail/stored_item.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_reader.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_writer.hpp>
#include <shardmesh/memory/host_block.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// A state stream: this mark, the length of the metadata (8 bytes) and its CRC-32 (4 bytes), both
/// little-endian, DCP's `.metadata` with places counted from its end, then DCP's items.
inline constexpr std::string_view stream_mark = "shardm1\n";
inline constexpr char stream_name[] = "stream";  ///< the file that the metadata names

inline void write_to(std::ostream& out, format::ByteSpan bytes) {
  out.write(reinterpret_cast<char const*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  if (!out) {
    throw IoError(stream_name, EIO,
                  "shardmesh::save_stream: the stream took no more bytes; is its device full?");
  }
}

/// `count` bytes of a stream. Memory grows with what comes, not with what is promised.
[[nodiscard]] inline HostBlock read_from(std::istream& in,
                                         std::uint64_t count,
                                         std::uint64_t position) {
  constexpr std::uint64_t least = std::uint64_t{1} << 24;
  HostBlock bytes(static_cast<std::size_t>(std::min(least, count)));
  for (std::size_t had = 0; had < count;) {
    if (had == bytes.size()) {
      HostBlock more(static_cast<std::size_t>(std::min<std::uint64_t>(2 * had, count)));
      std::copy_n(bytes.data(), had, more.data());
      bytes = std::move(more);
    }
    in.read(reinterpret_cast<char*>(bytes.data() + had),
            static_cast<std::streamsize>(bytes.size() - had));
    had += static_cast<std::size_t>(in.gcount());
    if (had < bytes.size()) {
      throw CorruptError(stream_name, position + had,
                         "shardmesh::load_stream: the stream ends after " +
                             std::to_string(position + had) + " bytes, " +
                             std::to_string(count - had) +
                             " more are needed (was it written to the end?)");
    }
  }
  return bytes;
}

/// What a stream holds, read whole into memory.
class StreamCatalog {
 public:
  explicit StreamCatalog(std::istream& in) {
    std::size_t const head_bytes = stream_mark.size() + 12;
    HostBlock const read = read_from(in, head_bytes, 0);
    format::ByteSpan const head = read.span();
    if (format::as_text(head).substr(0, stream_mark.size()) != stream_mark) {
      throw CorruptError(stream_name, 0,
                         "shardmesh::load_stream: the stream does not start as save_stream starts "
                         "one; is it another format, or not at its beginning?");
    }
    auto const length = format::load_le<std::uint64_t>(head, stream_mark.size());
    auto const crc = format::load_le<std::uint32_t>(head, stream_mark.size() + 8);
    if (length > format::most_metadata_bytes) {
      damaged(stream_mark.size());
    }
    HostBlock const said = read_from(in, length, head_bytes);
    format::ByteSpan const metadata = said.span();
    if (format::crc32_of(metadata) != crc) {
      damaged(head_bytes);
    }
    start_ = head_bytes + metadata.size();
    index_ = DcpIndex(format::read_dcp_metadata(metadata, stream_name));
    std::uint64_t end = 0;
    for (format::MetadataEntry const& entry : index_.metadata().entries) {
      if (format::BytesMetadata const* const bytes = entry.bytes()) {
        end = std::max(end, bytes->storage.offset + bytes->storage.length);
        continue;
      }
      for (format::ChunkMetadata const& chunk : entry.tensor()->chunks) {
        if (chunk.storage) {
          end = std::max(end, chunk.storage->offset + chunk.storage->length);
        }
      }
    }
    items_ = read_from(in, end, start_);
  }

  [[nodiscard]] static std::string describe() { return "the stream"; }
  [[nodiscard]] std::vector<std::string> keys() const { return index_.keys(); }
  [[nodiscard]] bool contains(std::string const& key) const { return index_.contains(key); }
  [[nodiscard]] StoredTensor const* tensor(std::string const& key) const {
    return index_.tensor(key);
  }
  [[nodiscard]] std::vector<PathElement> const& path(std::string const& key) const {
    return index_.path(key);
  }
  [[nodiscard]] StoredBox read_box(std::string const& key, std::size_t i) const {
    format::StorageInfo const& info = index_.place(key, i);
    StoredTensor const& tensor = *index_.tensor(key);
    return read_stored_item(HostBlock::copy_of(range(info)), stream_name, start_ + info.offset, key,
                            tensor.dtype, tensor.boxes[i]);
  }
  [[nodiscard]] std::uint64_t bytes_read() const noexcept { return items_.size(); }
  [[nodiscard]] Value value(std::string const& key) const {
    format::StorageInfo const& info = index_.place(key);
    return format::read_bytes_item(range(info), stream_name, start_ + info.offset);
  }

 private:
  [[noreturn]] static void damaged(std::uint64_t offset) {
    throw CorruptError(stream_name, offset,
                       "shardmesh::load_stream: the head of the stream is damaged: its CRC does "
                       "not fit");
  }
  [[nodiscard]] format::ByteSpan range(format::StorageInfo const& info) const {
    return format::ByteSpan(items_.span())
        .subspan(static_cast<std::size_t>(info.offset), static_cast<std::size_t>(info.length));
  }

  DcpIndex index_;
  std::uint64_t start_ = 0;  ///< byte of the stream where the items start
  HostBlock items_;
};

}  // namespace detail

/// Writes what this rank holds of a state dict, its local parts and its plain values, to a stream in
/// memory or anywhere. No communication; `load_stream` reads it back.
/// @throws InvalidArgument (a partial tensor), UnsupportedError (elements that PyTorch has not), IoError
///         (the stream takes no more).
inline void save_stream(std::ostream& out, StateDict const& dict) {
  if (auto const current = detail::up_to_date(dict)) {
    return save_stream(out, *current);
  }
  detail::refuse_foreign_dtypes(dict);
  format::DcpMetadata metadata;
  std::uint64_t end = 0;
  auto const place = [&end](std::uint64_t length) {
    format::StorageInfo const info{detail::stream_name, end, length, {}};
    end += length;
    return info;
  };
  std::vector<format::Bytes> values;
  for (StateEntry const& entry : dict) {
    if (!entry.is_tensor()) {
      format::refuse_harmful(entry.plain(), entry.key);
      values.push_back(format::write_bytes_item(entry.plain()));
      metadata.entries.push_back(
          {entry.key, entry.path, format::BytesMetadata{place(values.back().size())}});
      continue;
    }
    detail::refuse_partial(entry);
    AnyTensor const& tensor = entry.tensor();
    format::TensorMetadata said{tensor.dtype(), tensor.shape(), {}};
    for (Piece const& piece : tensor.pieces()) {
      if (!piece.box.empty()) {
        said.chunks.push_back(
            {piece.box.offset, piece.box.extent,
             place(format::TensorItemFrame(tensor.dtype(), piece.box.extent).size())});
      }
    }
    metadata.entries.push_back({entry.key, entry.path, std::move(said)});
  }
  format::Bytes const index = format::write_dcp_metadata(metadata);
  format::Bytes head;
  format::append_text(head, detail::stream_mark);
  format::append_le(head, std::uint64_t{index.size()});
  format::append_le(head, format::crc32_of(index));
  detail::write_to(out, head);
  detail::write_to(out, index);
  HostBlock const step(std::size_t{1} << 19);
  auto value = values.begin();
  for (StateEntry const& entry : dict) {
    if (!entry.is_tensor()) {
      detail::write_to(out, *value++);
      continue;
    }
    for (Piece const& piece : entry.tensor().pieces()) {
      if (!piece.box.empty()) {
        format::TensorItemFrame const frame(entry.tensor().dtype(), piece.box.extent);
        detail::BoxBytes elements(entry.tensor(), piece.local, piece.box.extent);
        detail::write_to(out, frame.head());
        std::uint32_t crc = 0;
        while (elements.left() > 0) {
          auto const part =
              step.span().first(std::min<std::uint64_t>(step.size(), elements.left()));
          elements.take(part);
          crc = format::crc32_of(part, crc);
          detail::write_to(out, part);
        }
        detail::write_to(out, frame.tail(crc));
      }
    }
  }
}

/// Loads a state dict in place from a stream of `save_stream`, which must hold every element that
/// this rank has: written by the same rank, or by one that holds at least as much. Everything is read
/// and checked before anything is overwritten; the stream is left behind the state's last byte. No
/// communication.
/// @throws KeyError, ShapeError, InvalidArgument (dtype; a partial tensor), CorruptError (damage, a
///         stream that ends early or is none, elements that it does not hold).
inline void load_stream(std::istream& in, StateDict& dict) {
  detail::StreamCatalog const catalog(in);
  detail::load_alone(catalog, dict);
}

}  // namespace v0
}  // namespace shardmesh
