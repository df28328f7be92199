// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The hostile set: small inputs, each of which breaks one rule, the reader that it is for, and what must be said of it.
// Tests read them; the fuzz targets begin with them.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/dcp_metadata_reader.hpp>
#include <shardmesh/checkpoint/format/pickle_reader.hpp>
#include <shardmesh/checkpoint/format/tensor_item.hpp>
#include <shardmesh/checkpoint/format/zip_writer.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/checkpoint/safetensors_index.hpp>
#include <shardmesh/checkpoint/safetensors_notes.hpp>

namespace test {
namespace hostile {

namespace sm = shardmesh;
namespace format = shardmesh::format;

using Reader = void (*)(std::string const&);

struct Hostile {
  std::string rule;
  Reader read;
  std::string input;
  std::string words;  ///< that the error has
};

// Readers.

template <format::PickleDialect dialect>
inline void pickle(std::string const& text) {
  static_cast<void>(format::read_pickle(format::as_bytes(text), dialect));
}
inline constexpr Reader metadata_pickle = pickle<format::PickleDialect::metadata>;
inline constexpr Reader tensor_pickle = pickle<format::PickleDialect::tensor>;
inline void metadata(std::string const& text) {
  static_cast<void>(format::read_dcp_metadata(format::as_bytes(text)));
}
inline void tensor(std::string const& item) {
  static_cast<void>(format::read_tensor_item(format::as_bytes(item)));
}
inline void archive(std::string const& item) {
  static_cast<void>(format::read_bytes_item(format::as_bytes(item)));
}
inline void header(std::string const& text) {
  static_cast<void>(format::read_safetensors_header(text, "x"));
}
inline void sharding(std::string const& text) {
  static_cast<void>(format::read_dcp_sharding_info(text, "x"));
}
inline void index(std::string const& text) {
  static_cast<void>(format::read_safetensors_index(text, "x"));
}
inline void manifest(std::string const& text) {
  static_cast<void>(sm::read_manifest(text, "x"));
}

// Makers of pickles, by hand: protocol 2.

inline std::string bytes_of(std::uint64_t value, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += static_cast<char>((value >> (8 * i)) & 0xffU);
  }
  return text;
}
inline std::string text(std::string const& value) {
  return "X" + bytes_of(value.size(), 4) + value;
}
inline std::string number(std::int64_t value) {
  return "\x8a\x08" + bytes_of(static_cast<std::uint64_t>(value), 8);
}
inline std::string global(std::string const& module, std::string const& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string const two = "\x80\x02";

inline std::string object(std::string const& name, std::string const& state) {
  return global(name == "_StorageInfo" ? "torch.distributed.checkpoint.filesystem"
                                       : "torch.distributed.checkpoint.metadata",
                name) +
         ")\x81" + state + "b";
}
inline std::string dict(std::vector<std::string> const& members) {
  std::string all = "}(";
  for (std::string const& member : members) {
    all += member;
  }
  return all + "u";
}
inline std::string size(std::vector<std::int64_t> const& extents) {
  std::string all = global("torch", "Size") + "((";
  for (std::int64_t const extent : extents) {
    all += number(extent);
  }
  return all + "ttR";
}
inline std::string chunk(std::vector<std::int64_t> const& offsets,
                         std::vector<std::int64_t> const& sizes) {
  return object("ChunkStorageMetadata",
                dict({text("offsets"), size(offsets), text("sizes"), size(sizes)}));
}
inline std::string properties(std::string const& dtype = global("torch", "float32"),
                              std::string const& layout = global("torch.serialization",
                                                                 "_get_layout") +
                                                          text("torch.strided") + "\x85R") {
  return object("TensorProperties", "(" + dtype + layout + "\x89K" + bytes_of(0, 1) + "\x89t");
}
inline std::string tensor_entry(std::vector<std::int64_t> const& shape,
                                std::string const& chunks,
                                std::string const& said = properties()) {
  return object("TensorStorageMetadata", dict({text("properties"), said, text("size"), size(shape),
                                               text("chunks"), "](" + chunks + "e"}));
}
inline std::string place(std::string const& fqn, std::vector<std::int64_t> const& offset) {
  return object("MetadataIndex",
                dict({text("fqn"), text(fqn), text("index"), "N", text("offset"), size(offset)}));
}
inline std::string place(std::string const& fqn) {
  return object("MetadataIndex", dict({text("fqn"), text(fqn), text("index"), "N"}));
}
inline std::string info(std::string const& path = "f",
                        std::int64_t offset = 0,
                        std::int64_t length = 8) {
  return object("_StorageInfo", dict({text("relative_path"), text(path), text("offset"),
                                      number(offset), text("length"), number(length)}));
}
inline std::string whole(std::string const& entries, std::string const& storage) {
  return two +
         object("Metadata",
                dict({text("state_dict_metadata"), "}(" + entries + "u", text("planner_data"), "N",
                      text("storage_data"), "}(" + storage + "u"})) +
         ".";
}
inline std::string const one_tensor = text("w") + tensor_entry({4}, chunk({0}, {4}));
inline std::string with_storage(std::string const& storage) {
  return whole(one_tensor, storage);
}
inline std::string with_tensor(std::string const& entry) {
  return whole(text("w") + entry, place("w", {0}) + info());
}
inline std::string const bytes_entry =
    global("torch.distributed.checkpoint.metadata", "BytesStorageMetadata") + ")\x81";

// Makers of archives.

inline std::string zip_of(std::vector<std::pair<std::string, std::string>> const& records) {
  format::ZipWriter zip;
  for (auto const& [name, content] : records) {
    zip.add(name, format::as_bytes(content));
  }
  return std::string(format::as_text(std::move(zip).finish()));
}
inline std::string value_of(std::string const& pickled) {
  return zip_of({{"archive/data.pkl", pickled}});
}
inline std::string tensor_of(std::string const& pickled,
                             std::string const& data,
                             std::string const& order) {
  return zip_of(
      {{"archive/data.pkl", pickled}, {"archive/byteorder", order}, {"archive/data/0", data}});
}
inline std::string rebuild(std::int64_t count,
                           std::int64_t first,
                           std::vector<std::int64_t> const& sizes,
                           std::vector<std::int64_t> const& strides,
                           std::string const& more = "") {
  auto const tuple = [](std::vector<std::int64_t> const& list) {
    std::string all = "(";
    for (std::int64_t const one : list) {
      all += number(one);
    }
    return all + "t";
  };
  return two + global("torch._utils", "_rebuild_tensor_v2") + "((" + text("storage") +
         global("torch", "FloatStorage") + text("0") + text("cpu") + number(count) + "tQ" +
         number(first) + tuple(sizes) + tuple(strides) + "\x89" +
         global("collections", "OrderedDict") + ")R" + more + "tR.";
}
/// `text` with bytes from `at` on replaced.
inline std::string patched(std::string text, std::size_t at, std::string const& bytes) {
  return text.replace(at, bytes.size(), bytes);
}
inline std::size_t last(std::string const& text, std::string const& part) {
  return text.rfind(part);
}
inline std::string const plain_archive = value_of(two + "N.");
inline std::string const central = "PK\x01\x02";

inline std::string tensor_json(std::string const& fields) {
  return R"({"w":{)" + fields + "}}";
}

inline std::vector<Hostile> pickles() {
  std::string deep = two;
  for (int i = 0; i < 66; ++i) {
    deep += "]";
  }
  deep += std::string(65, 'a') + ".";
  return {
      {"PROTO comes first", metadata_pickle, "N.", "must start with PROTO"},
      {"protocols 2 to 5", metadata_pickle, "\x80\x01N.", "protocol 1 is not one of 2 to 5"},
      {"opcode POP", metadata_pickle, two + "N0.", "POP: this opcode is not allowed"},
      {"opcode PERSID", metadata_pickle, two + "Px\n.", "PERSID: this opcode is not allowed"},
      {"opcode BINPERSID", metadata_pickle, two + "NQ.", "BINPERSID: this opcode is not allowed"},
      {"opcode EXT1", metadata_pickle, two + "\x82\x01.", "EXT1: this opcode is not allowed"},
      {"opcode INST", metadata_pickle, two + "(ios\nsystem\n.", "INST: this opcode is not allowed"},
      {"opcode OBJ", metadata_pickle, two + "(No.", "OBJ: this opcode is not allowed"},
      {"no such opcode", metadata_pickle, two + "\xff.", "0xff: this opcode is not allowed"},
      {"nothing after STOP", metadata_pickle, two + "N.x", "1 bytes follow the end"},
      {"one value", metadata_pickle, two + "NN.", "leaves 2 values instead of one"},
      {"no value", metadata_pickle, two + ".", "leaves 0 values instead of one"},
      {"memo that was not set", metadata_pickle, two + "h\x05.", "memo entry 5 was never set"},
      {"memo beyond the file", metadata_pickle, two + "Nr\xff\xff\xff\x7f.",
       "lies beyond what is allowed"},
      {"text beyond the end", metadata_pickle, two + "X\xff\xff\xff\x7f.", "bytes wanted"},
      {"long text beyond the end", metadata_pickle, two + "\x8d" + std::string(8, '\xff') + ".",
       "bytes wanted"},
      {"frame beyond the end", metadata_pickle, "\x80\x04\x95" + bytes_of(99, 8) + "N.",
       "frame reaches past the end"},
      {"end without STOP", metadata_pickle, two + "N", "bytes wanted"},
      {"integer of ten bytes", tensor_pickle, two + "\x8a\x0a" + std::string(10, '\1') + ".",
       "does not fit 64 bits"},
      {"integer above 64 bits", tensor_pickle, two + "\x8a\x09" + std::string(9, '\1') + ".",
       "does not fit 64 bits"},
      {"os.system", metadata_pickle, two + global("os", "system") + ".",
       "the global \"os.system\" is not allowed"},
      {"builtins.eval", metadata_pickle, two + global("builtins", "eval") + ".",
       "\"builtins.eval\" is not allowed"},
      {"torch.load", metadata_pickle, two + global("torch", "load") + ".",
       "\"torch.load\" is not allowed"},
      {"torch.storage._load_from_bytes", tensor_pickle,
       two + global("torch.storage", "_load_from_bytes") + ".",
       "\"torch.storage._load_from_bytes\" is not allowed"},
      {"a name that is none", metadata_pickle, two + global("a b", "c") + ".",
       "\"a b.c\" is not allowed"},
      {"a name without end", metadata_pickle, two + "c" + std::string(600, 'x'),
       "a name has no end"},
      {"getattr of a dtype", metadata_pickle,
       two + global("builtins", "getattr") + "(" + global("torch", "float32") + text("x") + "tR.",
       "this call is not allowed"},
      {"a dtype is called", metadata_pickle, two + global("torch", "float32") + ")R.",
       "this call is not allowed"},
      {"a text is called", metadata_pickle, two + text("x") + ")R.",
       "only a known function may be called"},
      {"Size of a negative number", metadata_pickle, two + size({-1}) + ".",
       "this call is not allowed"},
      {"Size of 65 numbers", metadata_pickle, two + size(std::vector<std::int64_t>(65, 1)) + ".",
       "this call is not allowed"},
      {"OrderedDict with arguments", metadata_pickle,
       two + global("collections", "OrderedDict") + "N\x85R.", "this call is not allowed"},
      {"unknown layout function", metadata_pickle,
       two + global("torch.serialization", "_get_layout") + ")R.", "this call is not allowed"},
      {"NEWOBJ of a function", metadata_pickle, two + global("torch", "Size") + ")\x81.",
       "only metadata classes may be made"},
      {"NEWOBJ with arguments", metadata_pickle,
       two + global("torch.distributed.checkpoint.metadata", "Metadata") + "N\x85\x81.",
       "only metadata classes may be made"},
      {"BUILD of a list", metadata_pickle, two + "]}b.", "may be given a state"},
      {"BUILD twice", metadata_pickle, two + object("Metadata", "}") + "}b.",
       "may be given a state, and once"},
      {"a state of another kind", metadata_pickle, two + object("Metadata", "]") + ".",
       "the state does not fit the class"},
      {"MARKs too deep", metadata_pickle, two + std::string(65, '('),
       "MARKs are nested deeper than 64"},
      {"values too deep", metadata_pickle, deep, "values are nested deeper than 64"},
      {"no MARK", metadata_pickle, two + "t.", "no MARK is on the stack"},
      {"a text that is not UTF-8", metadata_pickle, two + text("\xff") + ".",
       "the string is not UTF-8"},
      {"SETITEM on a list", metadata_pickle, two + "]NNs.", "its target is not a dict"},
      {"APPEND to a dict", metadata_pickle, two + "}Na.", "its target is not a list"},
      {"a key without a value", metadata_pickle, two + "}(Nu.", "a key has no value"},
      {"a global of numbers", metadata_pickle, "\x80\x04NN\x93.", "a global needs two strings"},
      {"more values than a file of its size may have", metadata_pickle,
       two + "](" + std::string(1'200'000, ']') + "e.", "need more memory than allowed"},
  };
}

inline std::vector<Hostile> descriptions() {
  std::vector<Hostile> all{
      {"another root", metadata, two + "N.", "the metadata is not an object of its class"},
      {"no entries", metadata, two + object("Metadata", "}") + ".",
       "state_dict_metadata is missing"},
      {"entries that are a list", metadata,
       two + object("Metadata", dict({text("state_dict_metadata"), "]"})) + ".",
       "state_dict_metadata has another type"},
      {"a member twice", metadata,
       two + object("Metadata", dict({text("version"), "N", text("version"), "N"})) + ".",
       "has the member version twice"},
      {"a key twice", metadata, whole(one_tensor + one_tensor, ""),
       "stands twice in state_dict_metadata"},
      {"a key with a NUL", metadata, whole(text(std::string(1, '\0')) + bytes_entry, ""),
       "holds a NUL"},
      {"a key of 65537 bytes", metadata, whole(text(std::string(65'537, 'a')) + bytes_entry, ""),
       "is too long"},
      {"a key that is a number", metadata, whole("N" + bytes_entry, ""),
       "the name of an entry has another type"},
      {"a chunk outside", metadata, with_tensor(tensor_entry({4}, chunk({2}, {3}))),
       "does not lie inside (4)"},
      {"a chunk of another rank", metadata, with_tensor(tensor_entry({4}, chunk({0, 0}, {4, 1}))),
       "does not lie inside (4)"},
      {"offset and extent that overflow", metadata,
       with_tensor(tensor_entry({4}, chunk({INT64_MAX}, {INT64_MAX}))), "does not lie inside (4)"},
      {"chunks that overlap", metadata,
       with_tensor(tensor_entry({4}, chunk({0}, {3}) + chunk({2}, {2}))), "overlap"},
      {"empty chunks at one place", metadata,
       with_tensor(tensor_entry({4}, chunk({4}, {0}) + chunk({4}, {0}))), "has two chunks at (4)"},
      {"more bytes than 63 bits", metadata, with_tensor(tensor_entry({INT64_MAX / 2, 3}, "")),
       "more bytes than 63 bits count"},
      {"a size that is a tuple", metadata,
       whole(text("w") +
                 object("TensorStorageMetadata", dict({text("properties"), properties(),
                                                       text("size"), ")", text("chunks"), "]"})),
             ""),
       "is not a torch.Size"},
      {"no properties", metadata, with_tensor(tensor_entry({4}, "", "N")), "has no properties"},
      {"no element type", metadata, with_tensor(tensor_entry({4}, "", properties("N"))),
       "has no element type"},
      {"no layout", metadata,
       with_tensor(tensor_entry({4}, "", properties(global("torch", "float32"), "N"))),
       "has no layout"},
      {"an offset below 0", metadata, with_storage(place("w", {0}) + info("f", -1)),
       "the offset of an item is negative"},
      {"a length below 0", metadata, with_storage(place("w", {0}) + info("f", 0, -1)),
       "the length of an item is negative"},
      {"offset and length that overflow", metadata,
       with_storage(place("w", {0}) + info("f", INT64_MAX, 1)), "add up to more than 63 bits"},
      {"an item of another name", metadata, with_storage(place("v", {0}) + info()),
       "which state_dict_metadata has not"},
      {"an item at another place", metadata, with_storage(place("w", {1}) + info()),
       "where the tensor has no chunk"},
      {"two items at one place", metadata,
       with_storage(place("w", {0}) + info() + place("w", {0}) + info()), "has two items for"},
      {"no item", metadata, with_storage(""), "storage_data has no item for"},
      {"bytes with an offset", metadata, whole(text("b") + bytes_entry, place("b", {0}) + info()),
       "or one with an offset"},
      {"bytes twice", metadata,
       whole(text("b") + bytes_entry, place("b") + info() + place("b") + info()),
       "more than one item for"},
      {"a tensor's item without offset", metadata, with_storage(place("w") + info()),
       "is not a torch.Size"},
      {"nine transforms", metadata,
       with_storage(place("w", {0}) +
                    object("_StorageInfo", dict({text("relative_path"), text("f"), text("offset"),
                                                 "K" + bytes_of(0, 1), text("length"), "K\x08",
                                                 text("transform_descriptors"),
                                                 "](" +
                                                     [] {
                                                       std::string nine;
                                                       for (int i = 0; i < 9; ++i) {
                                                         nine += text("x");
                                                       }
                                                       return nine;
                                                     }() +
                                                     "e"}))),
       "has too many transforms"},
  };
  for (std::string const& path :
       {std::string("/etc/passwd"), std::string("../x"), std::string("a/../../x"),
        std::string("a/b"), std::string(), std::string("."), std::string(".."), std::string("a\\b"),
        std::string("c:x"), std::string("x\0y", 3), std::string(256, 'x'),
        std::string("\x1b[2J")}) {
    all.push_back({"the file " + sm::escaped(path, 20), metadata,
                   with_storage(place("w", {0}) + info(path)), "is not a plain name"});
  }
  return all;
}

inline std::vector<Hostile> archives() {
  std::string const good = zip_of({{"archive/data.pkl", two + "N."}, {"archive/x", "y"}});
  std::size_t const end = good.size() - 22;
  std::string const six(24, 'd');
  return {
      {"no archive", archive, "hello", "does not end as one"},
      {"cut off", archive, good.substr(0, good.size() - 1), "does not end as one"},
      {"a comment", archive, patched(good, good.size() - 2, "\x01") + "c", "does not end as one"},
      {"several disks", archive, patched(good, end + 4, "\x01"), "split over several disks"},
      {"a directory elsewhere", archive, patched(good, end - 20 - 56 + 48, "\x01"),
       "is not in front of its end"},
      {"the zip64 end elsewhere", archive, patched(good, end - 12, "\x01"),
       "is not where it should be"},
      {"a compressed record", archive, patched(good, last(good, central) + 10, "\x08"),
       "is compressed or encrypted"},
      {"an encrypted record", archive, patched(good, last(good, central) + 8, "\x01"),
       "is compressed or encrypted"},
      {"sizes that differ", archive, patched(good, last(good, central) + 20, "\x07"),
       "is compressed or encrypted"},
      {"another name in the header", archive, patched(good, good.find("archive/x"), "archive/z"),
       "has another name"},
      {"a header elsewhere", archive, patched(good, last(good, central) + 42, "\x01"),
       "is not where it should be"},
      {"a record twice", archive,
       zip_of({{"archive/data.pkl", two + "N."}, {"archive/data.pkl", "y"}}),
       "no legal name or stands twice"},
      {"a name that leads out", archive,
       zip_of({{"archive/data.pkl", two + "N."}, {"archive/../x", "y"}}),
       "no legal name or stands twice"},
      {"another prefix", archive, zip_of({{"archive/data.pkl", two + "N."}, {"other/x", "y"}}),
       "no legal name or stands twice"},
      {"a NUL in a name", archive,
       zip_of({{"archive/data.pkl", two + "N."}, {std::string("archive/\0", 9), "y"}}),
       "no legal name or stands twice"},
      {"a wrong CRC", archive, patched(good, good.find(two + "N.") + 2, "]"),
       "has another CRC than was stored"},
      {"no object", archive, zip_of({{"archive/x", "y"}}), "holds no object"},
      {"no tensor", tensor, plain_archive, "holds no tensor"},
      {"a pickle of something else", tensor, tensor_of(two + "N.", six, "little"),
       "is not that of a plain tensor"},
      {"big-endian data", tensor, tensor_of(rebuild(6, 0, {6}, {1}), six, "big"), "big-endian"},
      {"a byte order that is none", tensor, tensor_of(rebuild(6, 0, {6}, {1}), six, "middle"),
       "is neither \"little\" nor \"big\""},
      {"an empty byte order", tensor, tensor_of(rebuild(6, 0, {6}, {1}), six, ""),
       "is neither \"little\" nor \"big\""},
      {"a pickle of more than 1 MiB", tensor,
       tensor_of(std::string((1U << 20) + 1, '.'), six, "little"), "at most 1 MiB are read"},
      {"a huge tensor in few bytes", tensor,
       tensor_of(rebuild(6, 0, {std::int64_t{1} << 40}, {1}), six, "little"),
       "larger than its stored elements"},
      {"less data than said", tensor, tensor_of(rebuild(7, 0, {6}, {1}), six, "little"),
       "larger than its stored elements"},
      {"strides beyond the data", tensor, tensor_of(rebuild(6, 0, {6}, {2}), six, "little"),
       "larger than its stored elements"},
      {"a start beyond the data", tensor, tensor_of(rebuild(6, 1, {6}, {1}), six, "little"),
       "larger than its stored elements"},
      {"a start below the data", tensor, tensor_of(rebuild(6, -1, {6}, {1}), six, "little"),
       "larger than its stored elements"},
      {"strides that overflow", tensor,
       tensor_of(rebuild(6, 0, {INT64_MAX}, {INT64_MAX}), six, "little"),
       "larger than its stored elements"},
      {"a stride below 0", tensor, tensor_of(rebuild(6, 5, {6}, {-1}), six, "little"),
       "is not that of a plain tensor"},
      {"more strides than extents", tensor, tensor_of(rebuild(6, 0, {6}, {1, 1}), six, "little"),
       "larger than its stored elements"},
      {"a number of elements that overflows", tensor,
       tensor_of(rebuild(INT64_MAX, 0, {6}, {1}), six, "little"), "is not that of a plain tensor"},
      {"nine dimensions", tensor,
       tensor_of(rebuild(6, 0, std::vector<std::int64_t>(9, 1), std::vector<std::int64_t>(9, 1)),
                 six, "little"),
       "is not that of a plain tensor"},
      {"more than its elements", tensor,
       tensor_of(rebuild(6, 0, {6}, {1}, dict({text("hook"), "\x88"})), six, "little"),
       "of which nothing is known"},
      {"a conjugate of real numbers", tensor,
       tensor_of(rebuild(6, 0, {6}, {1}, dict({text("conj"), "\x88"})), six, "little"),
       "which has no such views"},
  };
}

inline std::vector<Hostile> texts() {
  std::string const crc = "00000000 1 a\n";
  return {
      {"no object", header, "[]", "a list out of place"},
      {"a byte-order mark", header, "\xef\xbb\xbf{}", "byte-order mark"},
      {"text behind the end", header, "{}x", "no valid JSON"},
      {"a NUL behind the end", header, std::string("{}\0", 3), "no valid JSON"},
      {"no UTF-8", header, "{\"\xff\":{}}", "no valid JSON"},
      {"a name twice", header,
       R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
       "the name \"a\" twice"},
      {"a field twice", header,
       tensor_json(R"("dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0])"),
       "the name \"dtype\" twice"},
      {"a field more that is too deep", header,
       tensor_json(R"("dtype":"U8","shape":[0],"data_offsets":[0,0],"x":)" + std::string(17, '[') +
                   std::string(17, ']')),
       "an object nested too deep"},
      {"a field less", header, tensor_json(R"("dtype":"U8","shape":[0])"), "too little"},
      {"a NUL in a name", header, R"({"\u0000":{}})", "a name with a NUL"},
      {"a NUL in metadata", header, R"({"__metadata__":{"a":"\u0000"}})", "a string with a NUL"},
      {"metadata that are numbers", header, R"({"__metadata__":{"a":1}})", "out of place"},
      {"metadata that are lists", header, R"({"__metadata__":{"a":[]}})",
       "metadata that is no string"},
      {"too deep", header, R"({"__metadata__":{"a":{}}})", "nested too deep"},
      {"a shape that overflows", header,
       tensor_json(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"),
       "which overflows"},
      {"an extent above 63 bits", header,
       tensor_json(R"("dtype":"U8","shape":[2,18446744073709551614],"data_offsets":[0,0])"),
       "out of place or range"},
      {"an extent with a point", header,
       tensor_json(R"("dtype":"U8","shape":[1.0],"data_offsets":[0,1])"), "no integer"},
      {"an extent below 0", header,
       tensor_json(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"), "a negative number"},
      {"an extent with a 0 in front", header,
       tensor_json(R"("dtype":"U8","shape":[01],"data_offsets":[0,1])"), "no valid JSON"},
      {"65 extents", header,
       tensor_json(R"("dtype":"U8","data_offsets":[0,1],"shape":[1)" +
                   [] {
                     std::string more;
                     for (int i = 0; i < 64; ++i) {
                       more += ",1";
                     }
                     return more;
                   }() +
                   "]"),
       "more than 64 numbers"},
      {"bytes of another size", header,
       tensor_json(R"("dtype":"F32","shape":[1],"data_offsets":[0,5])"), "but F32 (1) has 4"},
      {"an end before the begin", header,
       tensor_json(R"("dtype":"U8","shape":[1],"data_offsets":[1,0])"), "bytes 1 to 0"},
      {"a begin behind 0", header, tensor_json(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"),
       "starts at byte 1"},
      {"a hole", header,
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       "starts at byte 2"},
      {"an overlap", header,
       R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       "starts at byte 1"},
      {"a hole before an unknown dtype", header,
       tensor_json(R"("dtype":"F2","shape":[1],"data_offsets":[9,10])"), "starts at byte 9"},
      {"bits that are no bytes", header,
       tensor_json(R"("dtype":"F4","shape":[1],"data_offsets":[0,1])"), "not whole bytes"},
      {"offsets of more than one number", sharding, R"({"a":{"saved_offsets":[0],"x":[0]}})",
       "something else than saved_offsets"},
      {"no offsets", sharding, R"({"a":{}})", "something else than saved_offsets"},
      {"offsets that are a text", sharding, R"({"a":{"saved_offsets":"0"}})",
       "something else than saved_offsets"},
      {"offsets twice", sharding, R"({"a":{"saved_offsets":[0],"saved_offsets":[0]}})", "twice"},
      {"nine offsets", sharding, R"({"a":{"saved_offsets":[0,0,0,0,0,0,0,0,0]}})",
       "something else than saved_offsets"},
      {"an offset below 0", sharding, R"({"a":{"saved_offsets":[-1]}})", "a negative number"},
      {"a tensor twice", sharding, R"({"a":{"saved_offsets":[0]},"a":{"saved_offsets":[0]}})",
       "the name \"a\" twice"},
      {"no map", index, "{}", "no JSON object with a \"weight_map\""},
      {"a map that is a list", index, R"({"weight_map":[]})",
       "no JSON object with a \"weight_map\""},
      {"a file elsewhere", index, R"({"weight_map":{"a":"../x.safetensors"}})",
       "is not a plain name"},
      {"a file with an escape code", index, R"({"weight_map":{"a":"\u001b[2J"}})",
       "is not a plain name"},
      {"a file that is a number", index, R"({"weight_map":{"a":1}})", "is not a plain name"},
      {"a tensor twice", index, R"({"weight_map":{"a":"x","a":"y"}})", "the name \"a\" twice"},
      {"a map twice", index, R"({"weight_map":{},"weight_map":{"a":"y"}})",
       "the name \"weight_map\" twice"},
      {"a byte-order mark", index, "\xef\xbb\xbf{\"weight_map\":{}}", "byte-order mark"},
      {"too deep", index,
       R"({"weight_map":{},"x":)" + std::string(70, '[') + std::string(70, ']') + "}",
       "nested deeper than 64"},
      {"nothing", manifest, "", "is damaged, or was cut off"},
      {"no last line", manifest, crc, "is damaged, or was cut off"},
      {"a last line of other lines", manifest, crc + "00000000 13 .shardmesh\n",
       "is damaged, or was cut off"},
      {"a file elsewhere", manifest, "00000000 1 ../a\n", "is damaged, or was cut off"},
  };
}

/// All of them.
inline std::vector<Hostile> all() {
  std::vector<Hostile> every;
  for (auto const& part : {pickles(), descriptions(), archives(), texts()}) {
    every.insert(every.end(), part.begin(), part.end());
  }
  return every;
}

}  // namespace hostile
}  // namespace test
