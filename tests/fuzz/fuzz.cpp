// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// libFuzzer targets for every reader, in one program: SHARDMESH_FUZZ_TARGET chooses. A reader gives data or throws
// an Error of ours; what was read and can be written reads as the same again. run.py builds and runs it.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include <shardmesh/checkpoint/dcp_index.hpp>
#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_reader.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_writer.hpp>
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

namespace sm = shardmesh;
namespace format = shardmesh::format;

namespace {

void require(bool good, char const* what) {
  if (!good) {
    std::fprintf(stderr, "fuzz: %s\n", what);
    std::abort();
  }
}

void pickle(format::ByteSpan bytes) {
  if (!bytes.empty()) {
    auto const dialect =
        static_cast<format::PickleDialect>(std::to_integer<unsigned>(bytes[0]) % 3U);
    static_cast<void>(format::read_pickle(bytes.subspan(1), dialect));
  }
}

void names(format::ByteSpan bytes) {
  static_cast<void>(format::detail::PickleNames(bytes).find_harmful());
}

void dcp_metadata(format::ByteSpan bytes) {
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

void zip(format::ByteSpan bytes) {
  for (format::ZipEntry const& entry : format::read_zip(bytes).entries) {
    static_cast<void>(format::zip_record(bytes, entry));
  }
}

void tensor(format::ByteSpan bytes) {
  format::TensorItem const item = format::read_tensor_item(bytes);
  require(item.first <= item.storage.size(), "a tensor starts behind its elements");
}

void value_of(format::ByteSpan pickled) {
  format::ZipWriter writer;
  writer.add("archive/data.pkl", pickled);
  format::Bytes const item = std::move(writer).finish();
  sm::Value const value = format::read_bytes_item(item);
  static_cast<void>(format::harmful_name(value));
  require(format::read_bytes_item(format::write_bytes_item(value)) == value,
          "a value reads as something else");
}

void plain_value(format::ByteSpan bytes) {
  value_of(bytes);
}

/// The text of a number of numpy, between what always stands around it.
void numpy_number(format::ByteSpan bytes) {
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

void safetensors_header(format::ByteSpan bytes) {
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

void hub_index(format::ByteSpan bytes) {
  auto const index = format::read_safetensors_index(format::as_text(bytes), "x");
  for (auto const& [tensor_name, file] : index.files) {
    require(format::is_plain_file_name(file), "a file elsewhere");
  }
}

void notes(format::ByteSpan bytes) {
  auto const attempt = [](auto read) {
    try {
      static_cast<void>(read());
    } catch (sm::Error const&) {
    }
  };
  attempt([&] { return format::read_dcp_sharding_info(format::as_text(bytes), "x"); });
  attempt([&] { return format::read_shapes(format::as_text(bytes), "x"); });
}

void manifest(format::ByteSpan bytes) {
  static bool const is_mutant = std::getenv("SHARDMESH_FUZZ_MUTANT") != nullptr;
  if (is_mutant && bytes.size() > 3) {  // what the targets are there to find
    char const volatile beyond = format::as_text(bytes).data()[bytes.size()];
    static_cast<void>(beyond);
  }
  auto const files = sm::read_manifest(format::as_text(bytes), "x");
  require(sm::write_manifest(files) == format::as_text(bytes), "a manifest is written otherwise");
}

struct Target {
  char const* name;
  void (*run)(format::ByteSpan);
};
constexpr Target targets[] = {{"pickle", pickle},
                              {"names", names},
                              {"dcp_metadata", dcp_metadata},
                              {"zip", zip},
                              {"tensor", tensor},
                              {"plain_value", plain_value},
                              {"numpy_number", numpy_number},
                              {"safetensors_header", safetensors_header},
                              {"hub_index", hub_index},
                              {"notes", notes},
                              {"manifest", manifest}};

Target const& chosen() {
  char const* const name = std::getenv("SHARDMESH_FUZZ_TARGET");
  for (Target const& target : targets) {
    if (name != nullptr && std::string_view(name) == target.name) {
      return target;
    }
  }
  std::fprintf(stderr, "fuzz: SHARDMESH_FUZZ_TARGET names no target\n");
  std::exit(2);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static Target const& target = chosen();
  try {
    target.run({reinterpret_cast<std::byte const*>(data), size});
  } catch (sm::Error const&) {
  }
  return 0;
}
