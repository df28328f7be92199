// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Readers of whole checkpoints: streams, directories, safetensors files. What is listed is read, or refused with an Error.

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <istream>
#include <streambuf>
#include <string>
#include <string_view>
#include <system_error>

#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/detail/metric_note.hpp>
#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/safetensors.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/checkpoint/verify.hpp>

#include "format_targets.hpp"

namespace fuzz {

/// Files of this process, in the directory that SHARDMESH_FUZZ_FILES names, or where temporary ones lie.
class Files {
 public:
  Files() {
    char const* const place = std::getenv("SHARDMESH_FUZZ_FILES");
    std::string pattern =
        (place != nullptr ? std::string(place) : std::filesystem::temp_directory_path().string()) +
        "/fuzz-XXXXXX";
    require(::mkdtemp(pattern.data()) != nullptr, "no directory for files");
    path_ = pattern;
  }
  Files(Files const&) = delete;
  Files& operator=(Files const&) = delete;
  ~Files() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] std::string const& path() const noexcept { return path_; }

  void write(std::string const& name, format::ByteSpan bytes) const {
    std::ofstream out(path_ + "/" + name, std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<char const*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
    out.close();
    require(out.good(), "a file could not be written");
  }
  void remove(std::string const& name) const { ::unlink((path_ + "/" + name).c_str()); }

 private:
  std::string path_;
};

/// Reads all of a checkpoint.
template <class C>
void read_all(C& catalog) {
  auto const attempt = [](auto read) {
    try {
      read();
    } catch (sm::Error const&) {
    }
  };
  for (std::string const& key : catalog.keys()) {
    if constexpr (requires { catalog.path(key); }) {
      require(!catalog.path(key).empty() && catalog.contains(key), "a key without a path");
    }
    sm::StoredTensor const* const tensor = catalog.tensor(key);
    if (tensor == nullptr) {
      attempt([&] { static_cast<void>(catalog.value(key)); });
      continue;
    }
    for (std::size_t i = 0; i < tensor->boxes.size(); ++i) {
      sm::Box const& box = tensor->boxes[i];
      if (box.empty() || !tensor->unsupported.empty()) {
        continue;
      }
      if constexpr (requires { catalog.open_run(key, i, box); }) {
        attempt([&] { static_cast<void>(catalog.open_run(key, i, box)); });
      }
      attempt([&] {
        sm::StoredBox const read = catalog.read_box(key, i);
        std::size_t last = read.first;
        for (std::size_t d = 0; d < box.extent.size(); ++d) {
          last += static_cast<std::size_t>((box.extent[d] - 1) * read.strides[d]);
        }
        require(last + sm::size_of(tensor->dtype) <= read.bytes.size(),
                "a box ends behind its elements");
      });
    }
  }
  static_cast<void>(catalog.bytes_read());
}

class InputStream : public std::istream {
 public:
  explicit InputStream(std::string_view text) : std::istream(nullptr), buffer_(text) {
    rdbuf(&buffer_);
  }

 private:
  struct Buffer : std::streambuf {
    explicit Buffer(std::string_view text) {
      char* const first = const_cast<char*>(text.data());
      setg(first, first, first + text.size());
    }
  };
  Buffer buffer_;
};

/// The files of a checkpoint, one behind the other; the first four bytes say how long two of them are, and with their highest bit
/// that the second is the metric that the checkpoint was given, instead of the manifest.
struct Parts {
  format::ByteSpan metadata;
  format::ByteSpan manifest;  ///< empty: there is none
  format::ByteSpan items;
  bool is_metric = false;
};
inline constexpr unsigned metric_bit = 0x8000;
inline Parts parts_of(format::ByteSpan bytes) {
  if (bytes.size() < 4) {
    return {};
  }
  std::size_t const metadata =
      std::min<std::size_t>(format::load_le<std::uint16_t>(bytes, 0), bytes.size() - 4);
  unsigned const second = format::load_le<std::uint16_t>(bytes, 2);
  std::size_t const manifest =
      std::min<std::size_t>(second & ~metric_bit, bytes.size() - 4 - metadata);
  return {bytes.subspan(4, metadata), bytes.subspan(4 + metadata, manifest),
          bytes.subspan(4 + metadata + manifest), (second & metric_bit) != 0};
}

/// A stream of which the head is right.
inline void stream(format::ByteSpan bytes) {
  Parts const parts = parts_of(bytes);
  format::Bytes whole;
  format::append_text(whole, sm::detail::stream_mark);
  format::append_le(whole, std::uint64_t{parts.metadata.size()});
  format::append_le(whole, format::crc32_of(parts.metadata));
  whole.insert(whole.end(), parts.metadata.begin(), parts.metadata.end());
  whole.insert(whole.end(), parts.items.begin(), parts.items.end());
  InputStream in(format::as_text(whole));
  sm::detail::StreamCatalog const catalog(in);
  read_all(catalog);
}

/// The same as a directory, whose data lies in the file "stream".
inline void directory(format::ByteSpan bytes) {
  static Files const files;
  Parts const parts = parts_of(bytes);
  files.write(".metadata", parts.metadata);
  files.write("stream", parts.items);
  for (bool const is_metric : {false, true}) {
    std::string const name(is_metric ? sm::detail::metric_name : sm::manifest_name);
    if (parts.manifest.empty() || parts.is_metric != is_metric) {
      files.remove(name);
    } else {
      files.write(name, parts.manifest);
    }
  }
  sm::DcpCatalog<sm::SafetensorsBlobs> catalog(files.path());
  read_all(catalog);
  static_cast<void>(sm::verify(catalog));
  static_cast<void>(catalog.identity());
}

inline void safetensors_file(format::ByteSpan bytes) {
  static Files const files;
  files.write("model.safetensors", bytes);
  sm::SafetensorsCatalog catalog(files.path() + "/model.safetensors");
  read_all(catalog);
}

}  // namespace fuzz
