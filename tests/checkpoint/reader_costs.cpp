// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What readers take, measured against their input: memory in counted bytes, work in counted calls of the
// allocator and in processor time against that of a smaller input of the kind.
#include "../support/counted_memory.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/dcp_index.hpp>
#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_reader.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_writer.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/checkpoint/safetensors_header_writer.hpp>
#include <shardmesh/checkpoint/safetensors_index.hpp>
#include <shardmesh/checkpoint/safetensors_notes.hpp>

namespace sm = shardmesh;
namespace format = shardmesh::format;

TEST_SUITE_BEGIN("checkpoint.reader_costs");

namespace {

std::string repeated(std::string_view text, std::size_t count) {
  std::string result;
  result.reserve(text.size() * count);
  for (std::size_t i = 0; i < count; ++i) {
    result += text;
  }
  return result;
}

std::string le32(std::size_t value) {
  std::string text;
  for (int i = 0; i < 4; ++i) {
    text += static_cast<char>((value >> (8 * i)) & 0xffU);
  }
  return text;
}

std::string text_op(std::string const& text) {
  return "X" + le32(text.size()) + text;
}

constexpr std::size_t mib = std::size_t{1} << 20;

/// An input of a kind, as large as is asked for.
struct Kind {
  char const* name;
  std::function<std::string(std::size_t)> make;
  std::function<void(std::string const&)> read;
  bool honest = false;
};

/// A whole item with this pickle.
std::string item_of(std::string const& pickle) {
  format::ZipWriter zip;
  zip.add("archive/data.pkl", format::as_bytes(pickle));
  return std::string(format::as_text(std::move(zip).finish()));
}
void read_plain(std::string const& item) {
  static_cast<void>(format::read_bytes_item(format::as_bytes(item)));
}
void read_metadata(std::string const& text) {
  sm::DcpIndex const index(format::read_dcp_metadata(format::as_bytes(text)));
}
void read_header(std::string const& text) {
  static_cast<void>(format::read_safetensors_header(text, "x"));
}
void read_index(std::string const& text) {
  static_cast<void>(format::read_safetensors_index(text, "x"));
}
void read_lines(std::string const& text) {
  static_cast<void>(sm::read_manifest(text, "x"));
}

std::string honest_metadata(std::size_t bytes, std::size_t chunks) {
  format::DcpMetadata metadata;
  for (std::size_t i = 0; i < bytes / (220 + 120 * (chunks - 1)) + 1; ++i) {
    std::string const name = "model.layers." + std::to_string(i) + ".weight";
    format::TensorMetadata tensor;
    tensor.size = {static_cast<sm::index_t>(chunks), 4};
    for (std::size_t k = 0; k < chunks; ++k) {
      tensor.chunks.push_back(
          {{static_cast<sm::index_t>(k), 0},
           {1, 4},
           format::StorageInfo{"__" + std::to_string(k) + "_0.distcp", 1000 * i, 1000, {}}});
    }
    metadata.entries.push_back({name, {name}, tensor});
  }
  return std::string(format::as_text(format::write_dcp_metadata(metadata)));
}

/// A tensor of so many chunks that lie as badly for a sweep as they can, under many names.
std::string shared_chunks(std::size_t bytes) {
  std::string const module = "ctorch.distributed.checkpoint.metadata\n";
  std::string out = "\x80\x02" + module + "Metadata\n)\x81}(";
  out += text_op("state_dict_metadata") + "}(";
  auto const object = [&](char const* name) { return module + name + "\n)\x81"; };
  auto const size = [](std::string const& a, std::string const& b) {
    return "ctorch\nSize\n" + a + b + "\x86\x85R";
  };
  auto const number = [](std::size_t n) { return "J" + le32(n); };
  std::size_t const chunks = bytes / 2 / 240;
  std::string list = "](";
  for (std::size_t i = 0; i < chunks; ++i) {  // nested frames: all start early, all end late
    list += object("ChunkStorageMetadata") + "}(" + text_op("offsets") +
            size(number(i), number(chunks - i)) + text_op("sizes") +
            size(number(2 * (chunks - i)), number(1)) + "ub";
  }
  list += "eq\x01";
  std::string const properties = object("TensorProperties") +
                                 "(ctorch\nfloat32\nctorch.serialization\n_get_layout\n" +
                                 text_op("torch.strided") + "\x85R\x89N\x89tbq\x02";
  std::size_t const entries = std::max<std::size_t>(bytes / 2 / 60, 2);
  for (std::size_t i = 0; i < entries; ++i) {
    out += text_op("t" + std::to_string(i));
    if (i == 0) {
      out += object("TensorStorageMetadata") + "}(" + text_op("properties") + properties +
             text_op("size") + size(number(1U << 30), number(1U << 30)) + "q\x04" +
             text_op("chunks") + list + "uq\x03" + "b";
    } else {
      out += module + "TensorStorageMetadata\n)\x81h\x03" + "b";
    }
  }
  return out + "u" + text_op("planner_data") + "N" + text_op("storage_data") + "}ub.";
}

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  auto const plain = [&](char const* name, std::string before, std::string one, std::string after,
                         bool honest = false) {
    all.push_back({name,
                   [=](std::size_t bytes) {
                     return item_of("\x80\x02" + before + repeated(one, bytes / one.size()) +
                                    after + ".");
                   },
                   read_plain, honest});
    all.push_back({name,
                   [=](std::size_t bytes) {
                     return "\x80\x02" + before + repeated(one, bytes / one.size()) + after + ".";
                   },
                   read_metadata});
  };
  plain("tuple of None", "(", "N", "t");
  plain("list of empty lists", "](", "]", "e");
  plain("list of empty dicts", "](", "}", "e");
  plain("list that grows by one", "]", "Na", "");
  plain("lists in a list, one each", "](", "]Na", "e");
  plain("list of true", "](", "\x88", "e");
  plain("list of small integers", "](", "K\x07", "e");
  plain("list of texts of one character", "](", text_op("a"), "e");
  plain("tuples of one", "(", "N\x85", "t");
  plain("values on the stack", "", "N", "");
  plain("frames", "N", std::string("\x95\0\0\0\0\0\0\0\0", 9), "");
  plain("memo", "N", std::string("r\xff\0\0\0", 5), "");
  plain("honest list of floats", "](", std::string("G\x3f\xf0\0\0\0\0\0\0", 9), "e", true);
  all.push_back({"shared lists of plain values",
                 [](std::size_t bytes) {
                   return item_of("\x80\x02](](" + repeated("N", 1000) + "eq\x01" +
                                  repeated("h\x01", bytes / 2) + "e.");
                 },
                 read_plain});
  all.push_back({"dict of texts",
                 [](std::size_t bytes) {
                   std::string text = "\x80\x02}(";
                   for (std::size_t i = 0; text.size() < bytes; ++i) {
                     text += text_op("k" + std::to_string(i)) + "K\x01";
                   }
                   return item_of(text + "u.");
                 },
                 read_plain, true});
  all.push_back({"honest metadata, one chunk",
                 [](std::size_t bytes) { return honest_metadata(bytes, 1); }, read_metadata, true});
  all.push_back({"honest metadata, 64 chunks",
                 [](std::size_t bytes) { return honest_metadata(bytes, 64); }, read_metadata,
                 true});
  all.push_back({"metadata, shared chunks", shared_chunks, read_metadata});
  auto const json = [&](char const* name, std::string before, std::string one, std::string after,
                        void (*read)(std::string const&), bool honest = false) {
    all.push_back({name,
                   [=](std::size_t bytes) {
                     std::string text = before;
                     std::size_t i = 0;
                     while (text.size() < bytes) {
                       std::string member = one;
                       for (std::size_t at; (at = member.find('#')) != std::string::npos;) {
                         member.replace(at, 1, std::to_string(i));
                       }
                       text += (i++ == 0 ? "" : ",") + member;
                     }
                     return text + after;
                   },
                   read, honest});
  };
  json("header, many tensors", "{", R"("#":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})", "}",
       read_header, true);
  json("header, metadata", R"({"__metadata__":{)", R"("#":"")", "}}", read_header);
  json("header, empty objects", "{", R"("#":{})", "}", read_header);
  json("header, strings", "{", R"("#":"")", "}", read_header);
  json("header, extents", R"({"a":{"shape":[)", "0", R"(],"dtype":"U8","data_offsets":[0,0]}})",
       read_header);
  json("header, members", R"({"a":{)", R"("#":[])", "}}", read_header);
  json("header, one long name", R"({")", "a",
       R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", read_header);
  json("header, unknown dtypes", "{", R"("#":{"dtype":"U","shape":[0],"data_offsets":[0,0]})", "}",
       read_header);
  json("sharding info", "{", R"("#":{"saved_offsets":[]})", "}", [](std::string const& text) {
    static_cast<void>(format::read_dcp_sharding_info(text, "x"));
  });
  json("shapes", "{", R"("#":[])", "}",
       [](std::string const& text) { static_cast<void>(format::read_shapes(text, "x")); });
  json("index, many tensors", R"({"weight_map":{)", R"("#":"f")", "}}", read_index);
  json("honest index", R"({"weight_map":{)",
       R"("model.layers.#.mlp.down_proj.weight":"model-00001-of-00002.safetensors")", "}}",
       read_index, true);
  json("index, numbers elsewhere", R"({"weight_map":{},"x":[)", "0", "]}", read_index);
  json("index, objects elsewhere", R"({"weight_map":{},"x":[)", "{}", "]}", read_index);
  json("index, names elsewhere", R"({"weight_map":{},"x":{)", R"("#":0)", "}}", read_index);
  json("header, a text without end", R"({")", "a", "", read_header);
  json("header, a wrong escape behind a long text", R"({")", "a", R"(\q":0})", read_header);
  json("header, a long number", R"({"a":{"shape":[1)", "1", "]}}", read_header);
  json("header, a long word", R"({"a":)", "n", "}", read_header);
  all.push_back({"index, nested",
                 [](std::size_t bytes) {
                   return R"({"weight_map":{},"x":)" + std::string(bytes / 2, '[') +
                          std::string(bytes / 2, ']') + "}";
                 },
                 read_index});
  all.push_back({"manifest",
                 [](std::size_t bytes) {
                   std::vector<sm::FileDigest> files;
                   for (std::size_t i = 0; i < bytes / 18; ++i) {
                     files.push_back({std::to_string(i), 0, 0});
                   }
                   return sm::write_manifest(files);
                 },
                 read_lines, true});
  return all;
}

/// Reads it, whatever comes of it.
/// @returns what was refused.
std::string attempt(Kind const& kind, std::string const& input) {
  try {
    kind.read(input);
  } catch (sm::Error const& error) {
    return error.what();
  }
  return {};
}

/// Is it read as a description of a checkpoint?
bool is_metadata(Kind const& kind) {
  return kind.read.target<void (*)(std::string const&)>() != nullptr &&
         *kind.read.target<void (*)(std::string const&)>() == &read_metadata;
}

}  // namespace

TEST_CASE("readers take at most 16 MiB and four times their input, whatever it holds") {
  for (Kind const& kind : kinds()) {
    for (std::size_t const size : {mib / 8, mib}) {
      std::string const input = kind.make(size);
      std::string fault;
      test::Cost const cost = test::cost_of([&] { fault = attempt(kind, input); });
      CAPTURE(kind.name);
      CAPTURE(size);
      CAPTURE(fault);
      // What stands on the budget's edge may pass it by what a message and a last block take.
      std::size_t const allowed =
          is_metadata(kind) ? format::memory_of(format::PickleDialect::metadata, input.size())
                            : format::memory_for(input.size());
      CHECK(cost.bytes <= allowed + allowed / 16);
      CHECK(cost.calls <= input.size() + 10'000);
      CHECK((!kind.honest || fault.empty()));
    }
  }
  CHECK(format::memory_of(format::PickleDialect::metadata, mib) == format::memory_for(mib));
}

TEST_CASE("honest inputs are read, large ones too") {
  for (Kind const& kind : kinds()) {
    if (kind.honest) {
      CAPTURE(kind.name);
      CHECK(attempt(kind, kind.make(4 * mib)) == "");
    }
  }
}

TEST_CASE("how chunks lie is told with work in proportion to the file, or not at all") {
  // Nested frames: each pair has to be compared.
  std::vector<format::ChunkMetadata> chunks;
  constexpr sm::index_t count = 4'000;
  for (sm::index_t i = 0; i < count; ++i) {
    chunks.push_back({{i, count - i}, {2 * (count - i), 1}, std::nullopt});
  }
  format::TensorMetadata const nested{sm::DType::int8, {4 * count, 4 * count}, chunks};
  format::ChunkWork work{200'000};
  CHECK_THROWS_AS(static_cast<void>(format::chunk_fault(nested, work)), sm::UnsupportedError);
  CHECK(work.left < 4'000);
  // One budget for all tensors of a file, not one for each.
  format::ChunkWork all = format::ChunkWork::of(mib);
  CHECK(all.left < 200'000'000);
  std::uint64_t const before = all.left;
  CHECK(format::chunk_fault({sm::DType::int8, {8}, {{{0}, {4}, {}}, {{4}, {4}, {}}}}, all).empty());
  CHECK(all.left < before);
  // A grid of many chunks needs little.
  chunks.clear();
  for (sm::index_t i = 0; i < 20'000; ++i) {
    chunks.push_back({{i / 2, 4 * (i % 2)}, {1, 4}, std::nullopt});
  }
  format::ChunkWork grid = format::ChunkWork::of(0);
  std::uint64_t const given = grid.left;
  CHECK(format::chunk_fault({sm::DType::int8, {10'000, 8}, chunks}, grid).empty());
  CHECK(given - grid.left < 200'000);
}

TEST_CASE("where one allocation fails, a reader throws, ends no program, and holds nothing") {
  std::vector<Kind> all = kinds();
  all.push_back({"writing a header", [](std::size_t) { return std::string("a\n\"b"); },
                 [](std::string const& name) {
                   format::SafetensorsHeader header;
                   header.metadata = {{"format", "pt"}, {name, name}};
                   header.tensors.push_back({name, sm::DType::float32, {2, 3}, 0, 0});
                   static_cast<void>(format::write_safetensors_header(header));
                 },
                 true});
  for (Kind const& kind : all) {
    std::string const input = kind.make(600);
    CAPTURE(kind.name);
    std::ptrdiff_t number = 0;
    std::size_t leaks = 0;
    bool failed = true;
    for (; failed && number < 5'000; ++number) {
      std::size_t const before = test::CountedMemory::held();
      try {
        failed = test::with_failing_allocation(number, [&] { kind.read(input); });
      } catch (std::bad_alloc const&) {
      } catch (sm::Error const&) {  // of the input
        failed = number < 50;
      }
      leaks += test::CountedMemory::held() == before ? 0U : 1U;
    }
    CHECK(number < 5'000);
    CHECK(leaks == 0);
  }
}

// Not a check: prints what each kind takes, for docs/reliability.md. Runs where SHARDMESH_COSTS says a size in
// bytes.
TEST_CASE("the costs of readers, as a table") {
  char const* const asked = std::getenv("SHARDMESH_COSTS");
  if (asked == nullptr) {
    return;
  }
  for (Kind const& kind : kinds()) {
    std::string const input = kind.make(std::stoul(asked));
    std::string fault;
    std::clock_t const start = std::clock();
    test::Cost const cost = test::cost_of([&] { fault = attempt(kind, input); });
    double const seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    std::printf("%-36s %8.2f MiB in, %8.2f MiB = %6.1fx, %7.2f s, %s\n", kind.name,
                static_cast<double>(input.size()) / mib, static_cast<double>(cost.bytes) / mib,
                static_cast<double>(cost.bytes) / static_cast<double>(input.size()), seconds,
                fault.substr(0, 90).c_str());
    std::fflush(stdout);
  }
}

TEST_SUITE_END();
