// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// `.metadata`: everything that PyTorch wrote is read and survives being written again; what is
// damaged or hostile is refused with its place.
#include <shardmesh/checkpoint/format/dcp_metadata.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_reader.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_writer.hpp>
#include <shardmesh/checkpoint/format/dtype_names.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <tuple>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "../support/sample.hpp"
#include "damage.hpp"

namespace format_metadata_test {

namespace sm = shardmesh;
namespace format = shardmesh::format;

using format::DcpMetadata;
using test::Bytes;
using test::ByteSpan;
using test::failure_of;

TEST_SUITE_BEGIN("checkpoint.format_metadata");

namespace {

Bytes metadata_of(std::string const& name) {
  return test::bytes_of(test::slurp(test::fixture(name) + "/.metadata"));
}

/// The fixtures that have a `.metadata`.
std::vector<std::string> dcp_fixtures() {
  std::vector<std::string> names = test::fixtures();
  std::erase(names, "hf_safetensors");
  return names;
}

DcpMetadata read(ByteSpan bytes) {
  return format::read_dcp_metadata(bytes, "x/.metadata");
}

test::Failure failure(ByteSpan bytes) {
  return failure_of([&] { static_cast<void>(read(bytes)); });
}

format::MetadataEntry tensor(std::string const& fqn,
                             sm::DType dtype,
                             sm::Shape const& size,
                             std::vector<format::ChunkMetadata> const& chunks) {
  return {fqn, {fqn}, format::TensorMetadata{dtype, size, chunks}};
}

/// One float32 tensor `w` of shape (2, 3) in one chunk, and nothing else.
DcpMetadata one_tensor() {
  format::StorageInfo const place{"__0_0.distcp", 0, 1577, {}};
  return {{tensor("w", sm::DType::float32, {2, 3}, {{{0, 0}, {2, 3}, place}})}, std::nullopt};
}

/// Two chunks, a value, paths of keys and indices, a version.
DcpMetadata sample() {
  auto const at = [](char const* file, std::uint64_t offset, std::uint64_t length) {
    return format::StorageInfo{file, offset, length, {}};
  };
  DcpMetadata metadata;
  metadata.entries = {
      tensor("a.w", sm::DType::bfloat16, {300, 70000},
             {{{150, 0}, {150, 70000}, at("__1_0.distcp", 100, 70000)},
              {{0, 0}, {150, 70000}, at("__0_0.distcp", std::uint64_t{1} << 40, 1)},
              {{300, 0}, {0, 70000}, std::nullopt}}),
      {"a.lr", {"a", 3, "lr"}, format::BytesMetadata{at("__0_0.distcp", 0, 99)}},
      tensor("scalar", sm::DType::boolean, {}, {{{}, {}, at("__0_0.distcp", 99, 5)}}),
      tensor("\xc3\xa9", sm::DType::bfloat16, {0}, {}),
  };
  metadata.version = "1.0.0";
  return metadata;
}

/// What `.metadata` of one_tensor, with the first `from` replaced by `to`, is refused for.
test::Failure changed(std::string_view from, std::string_view to) {
  Bytes const bytes = test::replaced(format::write_dcp_metadata(one_tensor()), from, to);
  REQUIRE_FALSE(bytes.empty());
  return failure(bytes);
}

std::string text(std::string const& value) {
  return "X" + std::string(1, static_cast<char>(value.size())) + std::string(3, '\0') + value;
}

/// What writing one_tensor after a change throws.
test::Failure unwritable(std::function<void(DcpMetadata&)> const& change) {
  DcpMetadata metadata = one_tensor();
  change(metadata);
  return failure_of([&] { static_cast<void>(format::write_dcp_metadata(metadata)); });
}

}  // namespace

TEST_CASE("the bytes of a small .metadata are those that every PyTorch was seen to read") {
  std::string const dcp = "63 746f7263682e64697374726962757465642e636865636b706f696e742e";
  std::string const meta = dcp + "6d657461646174610a";
  std::string const wanted =
      "8002" + meta +
      "4d657461646174610a 7100 29817d28"
      "581300000073746174655f646963745f6d6574616461746171017d285801000000777102" +
      meta +
      "54656e736f7253746f726167654d657461646174610a 7103 29817d28"
      "580a00000070726f706572746965737104" +
      meta +
      "54656e736f7250726f706572746965730a 7105 298128 63746f7263680a666c6f617433320a7106"
      "63746f7263682e73657269616c697a6174696f6e0a5f6765745f6c61796f75740a7107"
      "580d000000746f7263682e737472696465647108855289" +
      meta +
      "5f4d454d5f464f524d41545f454e434f44494e470a 7109 4b00855289 7462 710a"
      "580400000073697a65710b 63746f7263680a53697a650a710c 284b024b03748552"
      "58060000006368756e6b73710d5d28" +
      meta +
      "4368756e6b53746f726167654d657461646174610a 710e 29817d28"
      "58070000006f666673657473710f 680c284b004b00748552 580500000073697a65737110"
      "680c284b024b03748552 7562 65 7562 75"
      "580c000000706c616e6e65725f6461746171117d28 6802 28680274 75"
      "580c00000073746f726167655f6461746171127d28" +
      meta +
      "4d65746164617461496e6465780a 7113 29817d28 580300000066716e7114 6802"
      "5805000000696e6465787115 4b00 58060000006f66667365747116 680c284b004b00748552 7562" +
      dcp +
      "66696c6573797374656d0a5f53746f72616765496e666f0a 7117 29817d28"
      "580d00000072656c61746976655f706174687118 580c0000005f5f305f302e6469737463707119"
      "6816 4b00 58060000006c656e677468711a 4d2906 7562 75 75 62 2e";
  Bytes const bytes = format::write_dcp_metadata(one_tensor());
  CHECK(bytes.size() == 833);
  CHECK(test::hex(bytes) == test::hex(test::unhex(wanted)));
  CHECK(read(bytes) == one_tensor());
}

TEST_CASE("every .metadata that PyTorch wrote is read, and survives being written again") {
  for (std::string const& name : dcp_fixtures()) {
    DcpMetadata const metadata = read(metadata_of(name));
    CHECK(metadata.entries.size() >= 8);
    Bytes const again = format::write_dcp_metadata(metadata);
    CHECK_MESSAGE(read(again) == metadata, name);
    CHECK(again.size() < metadata_of(name).size());
    CHECK(format::write_dcp_metadata(read(again)) == again);
    for (format::MetadataEntry const& entry : metadata.entries) {
      std::string joined;
      for (sm::PathElement const& element : entry.path) {
        joined += (joined.empty() ? "" : ".") + to_string(element);
      }
      CHECK(joined == entry.fqn);
      CHECK(metadata.find(entry.fqn) == &entry);
    }
  }
}

TEST_CASE("a .metadata of PyTorch says what is known of it") {
  DcpMetadata const metadata = read(metadata_of("dtypes"));
  CHECK(metadata.entries.size() == 71);
  CHECK(metadata.find("none such") == nullptr);
  auto const* const few = metadata.find("tall.few");
  REQUIRE(few != nullptr);
  REQUIRE(few->tensor() != nullptr);
  CHECK(few->bytes() == nullptr);
  CHECK(few->tensor()->dtype == sm::DType::float32);
  CHECK(few->tensor()->chunks[0].storage == format::StorageInfo{"__0_0.distcp", 2522, 1577, {}});
  CHECK(metadata.find("plain.scalar")->tensor()->size.empty());
  CHECK(metadata.find("plain.empty")->tensor()->size == sm::Shape{0, 4});
  CHECK(metadata.find("nested.flag")->path == std::vector<sm::PathElement>{"nested", "flag"});
  CHECK(metadata.find("nested.flag")->bytes() != nullptr);
  CHECK(metadata.find("step")->bytes()->storage.length == 1261);
  auto const& chunks = metadata.find("float32.RS0")->tensor()->chunks;
  REQUIRE(chunks.size() == 2);
  CHECK(chunks[0].offsets == sm::Shape{4, 0});  // not sorted
  CHECK_FALSE(read(metadata_of("torch_2_03_hsdp")).version.has_value());
  CHECK(read(metadata_of("hsdp_fsdp2")).find("optim.param_groups.0.lr")->path ==
        std::vector<sm::PathElement>{"optim", "param_groups", sm::index_t{0}, "lr"});
}

TEST_CASE("what is written is read with all its fields, for every element type") {
  DcpMetadata metadata = sample();
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    if (!format::is_torch_dtype(info.dtype)) {
      continue;
    }
    metadata.entries.push_back(tensor(std::string(info.name), info.dtype, {2},
                                      {{{0}, {2}, format::StorageInfo{"f", 0, 1, {}}}}));
  }
  CHECK(read(format::write_dcp_metadata(metadata)) == metadata);
  CHECK(read(format::write_dcp_metadata({})) == DcpMetadata{});
  DcpMetadata unknown = one_tensor();
  unknown.entries[0].path = {};
  CHECK(read(format::write_dcp_metadata(unknown)) == one_tensor());  // {fqn} if unknown
}

TEST_CASE("a mark is a member that readers pass over, and stands near the beginning") {
  std::string const mark(32, 'f');
  Bytes const bytes = format::write_dcp_metadata(sample(), mark);
  CHECK(read(bytes) == sample());
  CHECK(format::as_text(bytes).find(mark) < 100);
  CHECK(format::write_dcp_metadata(sample(), "") == format::write_dcp_metadata(sample()));
}

TEST_CASE("a .metadata cut anywhere is refused with file and byte") {
  auto const reads = [](ByteSpan bytes) { static_cast<void>(read(bytes)); };
  CHECK(test::unseen_truncation(metadata_of("dcp_safetensors"), 1, reads) == "");
  CHECK(test::unseen_truncation(format::write_dcp_metadata(sample()), 1, reads) == "");
  for (std::string const& name : dcp_fixtures()) {
    CHECK_MESSAGE(test::unseen_truncation(metadata_of(name), 197, reads) == "", name);
  }
}

TEST_CASE("a .metadata with flipped bits is refused with file and byte, or read") {
  auto const reads = [](ByteSpan bytes) { static_cast<void>(read(bytes)); };
  for (int bit = 0; bit < 8; ++bit) {
    auto const mask = static_cast<std::byte>(1 << bit);
    auto const damage =
        test::flip_bits(metadata_of("dcp_safetensors"), test::stride(3, 60), mask, reads);
    CHECK(damage.problem == "");
    CHECK(damage.refused > (test::sanitized ? 8 : 500));
    CHECK((test::sanitized || damage.read > 10));
    auto const ours =
        test::flip_bits(format::write_dcp_metadata(sample()), test::stride(1, 60), mask, reads);
    CHECK(ours.problem == "");
    CHECK(ours.refused > (test::sanitized ? 8 : 500));
    CHECK(test::flip_bits(metadata_of("torch_2_15_mixed"), test::stride(499, 6), mask, reads)
              .problem == "");
  }
}

TEST_CASE("a field that is missing, misnamed or of another type is named") {
  std::tuple<std::string, std::string, char const*> const table[] = {
      {"state_dict_metadata", "state_dict_metadat_", "state_dict_metadata is missing"},
      {"storage_data", "storage_dat_", "storage_data is missing"},
      {"properties", "propertie_", "tensor \"w\" has no properties"},
      {"chunks", "chunk_", "the chunks of a tensor is missing"},
      {"offsets", "offset_", "the offset of a chunk is not a torch.Size"},
      {"relative_path", "relative_pat_", "relative_path is missing"},
      {"length", "lengt_", "the length of an item is missing"},
      {"fqn", "fq_", "the name of an entry is missing"},
      {"M\x29\x06", std::string("K\x05") + "0", "this opcode is not allowed here"},
      {"M\x29\x06", "NN", "a key has no value"},
      {"h\x16K" + std::string(1, '\0'), "h\x16J\xff\xff\xff\xff", "an item is negative"},
      {"h\x16K" + std::string(1, '\0'), "h\x16\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
       "add up to more than 63 bits"},
      {"torch\nfloat32", "torch\nSize", "tensor \"w\" has no element type"},
      {"Metadata\n", "StorageMeta\n", "the metadata is not an object of its class"},
  };
  for (auto const& [from, to, words] : table) {
    auto const found = changed(from, to);
    CHECK_MESSAGE(found.says(words), found.what);
    CHECK(found.says("[x/.metadata, byte "));
  }
}

TEST_CASE("an element type or a layout that is not known blocks its tensor alone") {
  DcpMetadata two = one_tensor();
  two.entries.push_back(two.entries[0]);
  two.entries[1].fqn = "z";
  two.entries[1].path = {"z"};
  two.entries[1].value.tensor()->dtype = sm::DType::float16;
  Bytes const bytes = format::write_dcp_metadata(two);
  std::tuple<std::string, std::string, char const*> const table[] = {
      {"torch\nfloat32", "torch\nqint8", "unknown dtype 'torch.qint8'"},
      {"torch\nfloat32", "torch\nfloat6_e2m3fn_x4", "unknown dtype 'torch.float6_e2m3fn_x4'"},
      {"torch\nfloat32", "mylib\nposit16", "unknown dtype 'mylib.posit16'"},
      {"ctorch\nfloat32\n", "cmylib\nPosit\nK\x10\x85R", "unknown dtype 'mylib.Posit'"},
  };
  for (auto const& [from, to, words] : table) {
    DcpMetadata const metadata = read(test::replaced(bytes, from, to));
    REQUIRE(metadata.entries.size() == 2);
    CHECK(metadata.entries[0].tensor()->unsupported == words);
    CHECK(metadata.entries[0].tensor()->size == sm::Shape{2, 3});
    CHECK(metadata.entries[0].tensor()->chunks == two.entries[0].tensor()->chunks);
    CHECK(metadata.entries[1] == two.entries[1]);
    auto const again = failure_of([&] { static_cast<void>(format::write_dcp_metadata(metadata)); });
    CHECK(again.kind == "UnsupportedError");
    CHECK(again.says("\"w\" cannot be written: unknown dtype"));
  }
  std::string const two_three = "K\x02K\x03t\x85R";
  DcpMetadata const nine = read(test::replaced(
      bytes, two_three, "K\x02K\x03" + [] {
        std::string ones;
        for (int i = 0; i < 7; ++i) {
          ones += "K\x01";
        }
        return ones;
      }() + "t\x85R"));
  CHECK(nine.entries[0].tensor()->unsupported == "9 dimensions; at most 8 are supported");
  CHECK(nine.entries[0].tensor()->chunks.empty());
  CHECK(nine.entries[1] == two.entries[1]);
  DcpMetadata const sparse = read(test::replaced(bytes, "torch.strided", "torch.sparse_"));
  CHECK(sparse.entries[0].tensor()->unsupported == "unknown layout 'torch.sparse_'");
  CHECK(changed("torch\nfloat32", "torch\nload").kind == "PickleRefused");
  CHECK(changed("torch\nfloat32", "os\nint8").kind == "PickleRefused");
  two.entries[0].value.tensor()->dtype = sm::DType::float6_e3m2fn_x4;
  CHECK(failure_of([&] {
          static_cast<void>(format::write_dcp_metadata(two));
        }).says("PyTorch has no element type like float6_e3m2fn_x4; save it as safetensors"));
}

TEST_CASE("chunks and places that do not fit each other are refused") {
  std::string const two = "K\x02K\x03t\x85R";
  std::string const zero = std::string("K\0K\0t\x85R", 7);
  std::tuple<std::string, std::string, char const*> const table[] = {
      {two, "K\x02K\x02t\x85R", "the chunk at (0, 0) of shape (2, 3) does not lie inside (2, 2)"},
      {two, "K\x02t\x85R", "does not lie inside (2)"},
      {zero, std::string("K\x01K\0t\x85R", 7), "the chunk at (1, 0) of shape (2, 3)"},
  };
  for (auto const& [from, to, words] : table) {
    auto const found = changed(from, to);
    CHECK_MESSAGE(found.says(words), found.what);
    CHECK(found.is_located());
  }
  DcpMetadata metadata = sample();
  Bytes const bytes = format::write_dcp_metadata(metadata);
  Bytes const twice = test::replaced(bytes, text("scalar"), text("a.w"));
  CHECK(failure(twice).says("\"a.w\" stands twice in state_dict_metadata"));
}

TEST_CASE("a file outside the checkpoint is never named") {
  for (std::string const name : {"../_0.distcp", "/etc/shadow_", "a/b_0.distcp", "c:\\windows_x"}) {
    auto const found = changed("__0_0.distcp", name);
    CHECK(found.kind == "CorruptError");
    CHECK(found.says("the file name \"" + sm::escaped(name) +
                     "\" is not a plain name; files outside the checkpoint are never read"));
    CHECK(found.is_located());
  }
}

TEST_CASE("nothing of a hostile .metadata is run") {
  auto const system = changed("torch\nSize", "posix\nsystem");
  CHECK(system.kind == "PickleRefused");
  CHECK(system.says("the global \"posix.system\" is not allowed [x/.metadata, byte "));
  CHECK(changed("torch.serialization\n_get_layout", "builtins\neval").kind == "PickleRefused");
  CHECK(changed("torch\nfloat32", "torch\nload").kind == "PickleRefused");
}

TEST_CASE("a root of another class is as good as its members") {
  std::string const root = "torch.distributed.checkpoint.metadata\nMetadata\n";
  std::string const other = "mylib.saving\nRunMetadata\n";
  Bytes const derived = test::replaced(format::write_dcp_metadata(one_tensor()), root, other);
  CHECK(read(derived) == one_tensor());
  auto const less = failure(test::replaced(derived, "storage_data", "storage_dat_"));
  CHECK(less.says("storage_data is missing"));
  CHECK(less.is_located());
  auto const bare = failure(test::bytes_of("\x80\x02"
                                           "c" +
                                           other + ")\x81."));
  CHECK(bare.says("the metadata is made of mylib.saving.RunMetadata, of which nothing is known"));
  CHECK(failure(test::bytes_of("\x80\x02"
                               "c" +
                               other + "."))
            .says("of which nothing is known"));
  CHECK(failure(test::bytes_of("\x80\x02}.")).says("the metadata is not an object of its class"));
}

TEST_CASE("a class that is not known is named where something is needed of it") {
  std::string const dcp = "torch.distributed.checkpoint.";
  std::tuple<std::string, std::string, char const*> const table[] = {
      {dcp + "metadata\nTensorStorageMetadata", "a\nTensor", "an entry is made of a.Tensor"},
      {dcp + "metadata\nChunkStorageMetadata", "a\nChunk", "a chunk is made of a.Chunk"},
      {dcp + "metadata\nMetadataIndex", "a\nIndex", "a key of storage_data is made of a.Index"},
      {dcp + "filesystem\n_StorageInfo", "a\nInfo", "a value of storage_data is made of a.Info"},
      {"torch\nSize", "a\nSize", "the size of a tensor is made of a.Size"},
      {dcp + "metadata\nTensorProperties", "a\nProperties", "has no properties"},
      {"torch.serialization\n_get_layout", "a\nlayout", "has no layout"},
  };
  for (auto const& [from, to, words] : table) {
    auto const found = changed(from, to);
    CHECK_MESSAGE(found.says(words), found.what);
    CHECK(found.is_located());
  }
  std::string const name = "relative_path";
  auto const path = changed("X\x0c" + std::string(3, '\0') + "__0_0.distcp", "ca\nPath\n)R");
  CHECK(path.says("relative_path is made of a.Path, of which nothing is known"));
}

TEST_CASE("older and newer forms of the same .metadata are read alike") {
  auto const same = [](std::string_view from, std::string_view to) {
    Bytes const bytes = test::replaced(format::write_dcp_metadata(one_tensor()), from, to);
    REQUIRE_FALSE(bytes.empty());
    return read(bytes) == one_tensor();
  };
  std::string const dcp = "torch.distributed.checkpoint.metadata\n";
  std::string const sharded = "torch.distributed._shard.sharded_tensor.metadata\n";
  CHECK(same(dcp + "TensorProperties", sharded + "TensorProperties"));  // until torch 2.2
  CHECK(same(dcp + "_MEM_FORMAT_ENCODING", sharded + "MEM_FORMAT_ENCODING"));
  CHECK(same(std::string("K\0\x85R\x89tb", 7), std::string("K\2\x85R\x88Ntb", 8)));  // 2.15
  std::string const enum_class = "c" + dcp + "_MEM_FORMAT_ENCODING\nq\x09";
  CHECK(same(enum_class + std::string("K\0\x85R", 4),
             "cbuiltins\ngetattr\n" + enum_class + text("TORCH_CONTIGUOUS_FORMAT") + "\x86R"));
  CHECK(same("ub.", text("mcore_data") + "]ub."));  // unknown members are passed over
  CHECK(same("ub.", text("version") + "Nub."));
  CHECK(same("ub.", text("storage_meta") + "c" + dcp + "StorageMeta\n)\x81}" +
                        text("checkpoint_id") + "cpathlib\nPosixPath\n" + text("/") +
                        "\x85Rsbub."));
  CHECK(changed("ub.", text("version") + text("2") + text("version") + "Nub.")
            .says("the metadata has the member version twice"));
}

TEST_CASE("transforms are read, for the catalog to refuse") {
  std::string const name = text("transform_descriptors");
  Bytes const bytes = test::replaced(format::write_dcp_metadata(one_tensor()),
                                     "M\x29\x06"
                                     "ub",
                                     "M\x29\x06" + name + "]" + text("stream.zstd/1") + "aub");
  REQUIRE_FALSE(bytes.empty());
  CHECK(read(bytes).entries[0].tensor()->chunks[0].storage->transforms ==
        std::vector<std::string>{"stream.zstd/1"});
  std::string many = "](";
  for (int i = 0; i < 9; ++i) {
    many += text("x");
  }
  CHECK(changed("M\x29\x06"
                "ub",
                "M\x29\x06" + name + many + "eub")
            .says("an item has too many transforms"));
}

TEST_CASE("a text that is named again and again does not fill the memory") {
  std::string const large(60'000, 'k');
  DcpMetadata metadata = one_tensor();
  metadata.entries[0].path = std::vector<sm::PathElement>(400, sm::PathElement(large));
  auto const found = failure(format::write_dcp_metadata(metadata));
  CHECK(found.says("the values shared in this file would expand beyond all proportion"));
  CHECK(found.is_located());
}

TEST_CASE("what could not be read again is not written") {
  auto const place = [](DcpMetadata& metadata) -> format::StorageInfo& {
    return *metadata.entries[0].value.tensor()->chunks[0].storage;
  };
  constexpr std::uint64_t most = std::uint64_t{1} << 63;
  std::pair<std::function<void(DcpMetadata&)>, char const*> const table[] = {
      {[](auto& m) { m.entries[0].fqn = std::string("a\0b", 3); }, "is not a name"},
      {[](auto& m) { m.entries[0].fqn = "\xff"; }, "\"\\xff\" is not a name"},
      {[](auto& m) { m.entries[0].fqn = std::string(65537, 'a'); }, "up to 64 KiB"},
      {[](auto& m) { m.entries[0].path = {"\xff"}; }, "its path has the key \"\\xff\""},
      {[](auto& m) { m.version = "\xff"; }, "the version \"\\xff\" is not UTF-8"},
      {[](auto& m) { m.entries.push_back(m.entries[0]); }, "\"w\" stands twice"},
      {[&](auto& m) { place(m).relative_path = "../x"; }, "(file \"../x\") is not a range"},
      {[&](auto& m) { place(m).relative_path = "\xff"; }, "(file \"\\xff\") is not a range"},
      {[&](auto& m) { place(m).offset = most; }, "is not a range"},
      {[&](auto& m) { place(m).length = most; }, "is not a range"},
      {[&](auto& m) { place(m).offset = place(m).length = most / 2; }, "is not a range"},
      {[&](auto& m) { place(m).transforms = {"stream.zstd/1"}; }, "or is transformed"},
      {[](auto& m) { m.entries[0].value.tensor()->chunks[0].storage.reset(); },
       "the chunk at (0, 0) has no place in a file"},
      {[](auto& m) { m.entries[0].value.tensor()->size = {2, 2}; }, "does not lie inside (2, 2)"},
      {[](auto& m) {
         auto& chunks = m.entries[0].value.tensor()->chunks;
         chunks.push_back({{2, 0}, {0, 3}, std::nullopt});
         chunks.push_back({{2, 0}, {0, 3}, std::nullopt});
       },
       "\"w\" has two chunks at (2, 0)"},
      {[](auto& m) {
         m.entries[0].value.tensor()->chunks.push_back({{0, 0}, {0, 3}, std::nullopt});
       },
       "\"w\" has two chunks at (0, 0)"},
  };
  for (auto const& [change, words] : table) {
    auto const found = unwritable(change);
    CHECK(found.kind == "InvalidArgument");
    CHECK_MESSAGE(found.says(words), found.what);
    CHECK(found.says("shardmesh::write_dcp_metadata: "));
  }
}

TEST_SUITE_END();

}  // namespace format_metadata_test
