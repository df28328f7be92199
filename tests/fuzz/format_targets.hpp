// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Readers of bytes in memory. Each gives data or throws an Error; what was read and can be written reads as the same again.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include <shardmesh/checkpoint/dcp_index.hpp>
#include <shardmesh/checkpoint/detail/metric_note.hpp>
#include <shardmesh/checkpoint/format/byte_source.hpp>
#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_reader.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_writer.hpp>
#include <shardmesh/checkpoint/format/lazy_view.hpp>
#include <shardmesh/checkpoint/format/pickle_names.hpp>
#include <shardmesh/checkpoint/format/pickle_reader.hpp>
#include <shardmesh/checkpoint/format/tensor_item.hpp>
#include <shardmesh/checkpoint/format/zip_writer.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/safetensors_checks.hpp>
#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/checkpoint/safetensors_header_writer.hpp>
#include <shardmesh/checkpoint/safetensors_index.hpp>
#include <shardmesh/checkpoint/safetensors_notes.hpp>
#include <shardmesh/comm/detail/slurm.hpp>

namespace fuzz {

namespace sm = shardmesh;
namespace format = shardmesh::format;

inline void require(bool good, char const* what) {
  if (!good) {
    std::fprintf(stderr, "fuzz: %s\n", what);
    std::abort();
  }
}

inline void pickle(format::ByteSpan bytes) {
  if (!bytes.empty()) {
    auto const dialect =
        static_cast<format::PickleDialect>(std::to_integer<unsigned>(bytes[0]) % 3U);
    static_cast<void>(format::read_pickle(bytes.subspan(1), dialect));
  }
}

inline void names(format::ByteSpan bytes) {
  static_cast<void>(format::detail::PickleNames(bytes).find_harmful());
}

inline void dcp_metadata(format::ByteSpan bytes) {
  format::DcpMetadata const metadata = format::read_dcp_metadata(bytes);
  sm::DcpIndex const index(metadata);
  require(index.keys().size() == metadata.entries.size(), "an entry is not in the index");
  format::Bytes written;
  try {
    written = format::write_dcp_metadata(metadata);
  } catch (sm::Error const&) {
    return;  // what is only listed, or has no place
  }
  require(format::read_dcp_metadata(written) == metadata, "metadata reads as something else");
}

inline void zip(format::ByteSpan bytes) {
  for (format::ZipEntry const& entry : format::read_zip(bytes).entries) {
    static_cast<void>(format::zip_record(bytes, entry));
  }
}

/// A tensor that fills its storage in order is, written by us, the same.
inline void write_again(format::TensorItem const& item) {
  sm::index_t step = static_cast<sm::index_t>(sm::size_of(item.dtype));
  for (std::size_t d = item.sizes.size(); d-- > 0; step *= item.sizes[d]) {
    if (item.strides[d] != step || item.sizes[d] > 5000) {
      return;
    }
  }
  if (item.first != 0 || static_cast<std::size_t>(step) != item.storage.size() ||
      item.view != format::LazyView{}) {
    return;
  }
  static format::TensorItemFrames frames;
  format::TensorItemFrame const& frame = frames.of(item.dtype, item.sizes);
  format::Bytes written = frame.head();
  written.insert(written.end(), item.storage.begin(), item.storage.end());
  format::Bytes const tail = frame.tail(format::crc32_of(item.storage));
  written.insert(written.end(), tail.begin(), tail.end());
  format::TensorItem const again = format::read_tensor_item(written);
  require(again.dtype == item.dtype && again.sizes == item.sizes &&
              format::same_bytes(again.storage, item.storage),
          "a tensor reads as something else");
}

/// What the parts of an item that lie in memory say is what the whole item says.
inline void tensor_of(format::ByteSpan item) {
  format::TensorItem const whole = format::read_tensor_item(item);
  require(whole.first <= whole.storage.size(), "a tensor starts behind its elements");
  std::size_t const half = item.size() / 2;
  try {
    format::TensorFrame const frame = format::read_tensor_frame(format::EndsSource(
        item.first(half), item.subspan(item.size() - half), item.size(), "x", 0));
    require(frame.said.dtype == whole.dtype && frame.said.sizes == whole.sizes &&
                frame.data.size == whole.storage.size(),
            "the ends of an item say something else than all of it");
  } catch (format::EndsSource::NotHere const&) {
  }
  format::Bytes elements(whole.storage.begin(), whole.storage.end());
  format::resolve(whole.view, whole.dtype, elements);
  sm::Shape const& sizes = whole.sizes;
  if (!format::detail::has_elements(sizes)) {
    return;
  }
  std::size_t last = whole.first;  // every element lies inside
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    last += static_cast<std::size_t>((sizes[d] - 1) * whole.strides[d]);
  }
  require(last + sm::size_of(whole.dtype) <= elements.size(), "a tensor ends behind its elements");
  write_again(whole);
}

inline void tensor(format::ByteSpan bytes) {
  tensor_of(bytes);
}

/// A pickle that stands for a tensor, in an archive of which all else is right: up to 255 bytes of elements.
inline void tensor_pickle(format::ByteSpan bytes) {
  if (!bytes.empty()) {
    format::ZipWriter writer;
    writer.add("archive/data.pkl", bytes.subspan(1));
    writer.add("archive/byteorder", format::as_bytes("little"));
    writer.add("archive/data/0", format::Bytes(std::to_integer<std::size_t>(bytes[0])));
    tensor_of(std::move(writer).finish());
  }
}

inline void value_of(format::ByteSpan pickled) {
  format::ZipWriter writer;
  writer.add("archive/data.pkl", pickled);
  format::Bytes const item = std::move(writer).finish();
  sm::Value const value = format::read_bytes_item(item);
  static_cast<void>(format::harmful_name(value));
  require(format::read_bytes_item(format::write_bytes_item(value)) == value,
          "a value reads as something else");
}

inline void plain_value(format::ByteSpan bytes) {
  value_of(bytes);
}

/// The text of a number of numpy, between what always stands around it.
inline void numpy_number(format::ByteSpan bytes) {
  if (bytes.size() < 4) {
    return;
  }
  format::Bytes pickled;
  auto const text = [&pickled](std::string_view value) {
    format::append_text(pickled, "X");
    format::append_le(pickled, static_cast<std::uint32_t>(value.size()));
    format::append_text(pickled, value);
  };
  std::string_view const all = format::as_text(bytes);
  format::append_text(pickled, "\x80\x02"
                               "cnumpy.core.multiarray\nscalar\n"
                               "cnumpy\ndtype\n");
  text(all.substr(0, 2));
  format::append_text(pickled, "\x89\x88\x87R(K\x03");
  text(all.substr(2, 1));
  format::append_text(pickled, "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK");
  pickled.push_back(std::byte{0});
  format::append_text(pickled, "tbc_codecs\nencode\n");
  text(all.substr(3));
  text("latin1");
  format::append_text(pickled, "\x86R\x86R.");
  value_of(pickled);
}

inline void safetensors_header(format::ByteSpan bytes) {
  format::SafetensorsHeader const header =
      format::read_safetensors_header(format::as_text(bytes), "x");
  format::Bytes head(8);
  head.insert(head.end(), bytes.begin(), bytes.end());
  static_cast<void>(format::read_checks(header, head, "x"));
  format::SafetensorsHeader again = header;
  format::Bytes written;
  try {
    written = format::write_safetensors_header(again);
  } catch (sm::Error const&) {
    return;  // what is only listed
  }
  for (auto const& entry : header.tensors) {
    if (!entry.unsupported.empty()) {
      return;
    }
  }
  again = format::read_safetensors_header(format::as_text(written).substr(8), "x");
  require(again.tensors.size() == header.tensors.size() && again.metadata == header.metadata,
          "a header reads as something else");
}

inline void hub_index(format::ByteSpan bytes) {
  auto const index = format::read_safetensors_index(format::as_text(bytes), "x");
  for (auto const& [tensor_name, file] : index.files) {
    require(format::is_plain_file_name(file), "a file elsewhere");
  }
}

inline void notes(format::ByteSpan bytes) {
  auto const attempt = [](auto read) {
    try {
      static_cast<void>(read());
    } catch (sm::Error const&) {
    }
  };
  attempt([&] { return format::read_dcp_sharding_info(format::as_text(bytes), "x"); });
  attempt([&] { return format::read_shapes(format::as_text(bytes), "x"); });
}

inline void manifest(format::ByteSpan bytes) {
  static bool const is_mutant = std::getenv("SHARDMESH_FUZZ_MUTANT") != nullptr;
  if (is_mutant && bytes.size() > 3) {  // what the targets are there to find
    char const volatile beyond = format::as_text(bytes).data()[bytes.size()];
    static_cast<void>(beyond);
  }
  auto const files = sm::read_manifest(format::as_text(bytes), "x");
  require(sm::write_manifest(files) == format::as_text(bytes), "a manifest is written otherwise");
}

/// The lines that ranks tell each other of their files, and a checkpoint's metric.
inline void lines(format::ByteSpan bytes) {
  if (auto const one = sm::detail::read_digest_lines(format::as_text(bytes))) {
    require(sm::detail::digest_lines(*one) == format::as_text(bytes),
            "lines are written otherwise");
  }
  if (auto const metric = sm::detail::read_metric(format::as_text(bytes))) {
    require(sm::detail::read_metric(sm::detail::write_metric(*metric)).has_value(),
            "a metric that is read is not read again");
  }
}

/// What launchers put into the environment.
inline void launcher(format::ByteSpan bytes) {
  std::string_view const text = format::as_text(bytes);
  require(sm::detail::first_slurm_host(text).size() <= text.size(), "a host of nothing");
  for (int const node : {0, 1, 1000}) {
    static_cast<void>(sm::detail::slurm_tasks_on_node(text, node));
  }
}

}  // namespace fuzz
