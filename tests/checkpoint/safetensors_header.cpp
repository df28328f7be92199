// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Headers of safetensors files: written ones are read, real ones are read, and every departure from
// the format is refused.
#include <shardmesh/checkpoint/safetensors_dtypes.hpp>
#include <shardmesh/checkpoint/safetensors_header.hpp>
#include <shardmesh/checkpoint/safetensors_header_writer.hpp>
#include <shardmesh/checkpoint/safetensors_index.hpp>
#include <shardmesh/checkpoint/safetensors_json.hpp>
#include <shardmesh/checkpoint/safetensors_notes.hpp>

#include <cstdint>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "damage.hpp"

namespace safetensors_header_test {

namespace sm = shardmesh;
namespace format = shardmesh::format;

using format::SafetensorsHeader;
using test::failure_of;

TEST_SUITE_BEGIN("checkpoint.safetensors_header");

namespace {

SafetensorsHeader read(std::string_view text) {
  return format::read_safetensors_header(text, "x.safetensors");
}

test::Failure failure(std::string_view text) {
  return failure_of([&] { static_cast<void>(read(text)); });
}

/// A header with one tensor of these fields.
std::string one(std::string const& fields) {
  return "{\"w\":{" + fields + "}}";
}

std::string const good = R"("dtype":"F32","shape":[2,3],"data_offsets":[0,24])";

/// The JSON text of a header as it stands in a file, checked for its length and padding.
std::string text_of(format::ByteSpan bytes) {
  auto const size = format::load_le<std::uint64_t>(bytes, 0);
  CHECK(size + 8 == bytes.size());
  CHECK(size % 8 == 0);
  return std::string(format::as_text(bytes.subspan(8)));
}

/// What writing tensors of these names throws.
test::Failure unwritable(std::vector<std::string> const& names) {
  SafetensorsHeader header;
  for (std::string const& name : names) {
    header.tensors.push_back({name, sm::DType::int8, {1}, 0, 0});
  }
  return failure_of([&] { static_cast<void>(format::write_safetensors_header(header)); });
}

bool is_refused(std::string_view text, std::string_view words) {
  auto const found = failure(text);
  if (found.kind != "CorruptError" || found.path != "x.safetensors" ||
      !found.says("x.safetensors") || !found.says(words)) {
    MESSAGE(text << ": " << found.kind << " " << found.what);
    return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a header is read as it was written, for every element type") {
  SafetensorsHeader header;
  header.metadata = {{"format", "pt"}, {"\xc3\xa9", "a \"b\" \\ \n"}};
  for (format::SafetensorsDtype const& one : format::safetensors_dtypes) {
    header.tensors.push_back({"t." + std::string(one.name), one.dtype, {2, 3}, 0, 0});
    CHECK(one.bits * static_cast<std::uint64_t>(one.packed) == 8 * sm::size_of(one.dtype));
    CHECK(format::find_safetensors_dtype(one.name) == &one);
    CHECK(format::find_safetensors_dtype(one.dtype) == &one);
  }
  header.tensors.push_back({"scalar", sm::DType::float64, {}, 0, 0});
  header.tensors.push_back({"", sm::DType::float16, {3}, 0, 0});
  std::string const text = text_of(format::write_safetensors_header(header));
  SafetensorsHeader const again = read(text);
  REQUIRE(again.tensors.size() == 24);
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < 24; ++i) {
    CHECK(again.tensors[i].name == header.tensors[i].name);
    CHECK(again.tensors[i].dtype == header.tensors[i].dtype);
    CHECK(again.tensors[i].shape == header.tensors[i].shape);
    CHECK(again.tensors[i].begin == end);
    end += static_cast<std::uint64_t>(sm::volume(header.tensors[i].shape)) *
           sm::size_of(header.tensors[i].dtype);
    CHECK(again.tensors[i].end == end);
    CHECK(header.tensors[i].end == end);  // filled in by the writer
  }
  CHECK(again.data_bytes() == end);
  CHECK(again.metadata.size() == 2);
  REQUIRE(again.find_metadata("\xc3\xa9") != nullptr);
  CHECK(*again.find_metadata("\xc3\xa9") == "a \"b\" \\ \n");
  CHECK(again.find_metadata("none") == nullptr);
}

TEST_CASE("the bytes of a header are those of the format") {
  SafetensorsHeader header;
  header.tensors.push_back({"w", sm::DType::float32, {2, 3}, 0, 0});
  CHECK(text_of(format::write_safetensors_header(header)) ==
        R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}       )");
  SafetensorsHeader empty;
  CHECK(text_of(format::write_safetensors_header(empty)) == "{}      ");
  CHECK(read("{}").tensors.empty());
  CHECK(read("{}").data_bytes() == 0);
  SafetensorsHeader complex;
  complex.tensors.push_back({"z", sm::DType::complex128, {1}, 0, 0});
  CHECK_THROWS_WITH_AS(static_cast<void>(format::write_safetensors_header(complex)),
                       "shardmesh: \"z\" is complex128, which safetensors files cannot hold",
                       sm::UnsupportedError);
}

TEST_CASE("names that no reader would accept are not written") {
  CHECK(unwritable({"a", "b"}).kind.empty());
  for (std::string const& name :
       {std::string("\xff"), std::string("a\0b", 3), std::string("__metadata__")}) {
    auto const found = unwritable({"a", name});
    CHECK(found.kind == "InvalidArgument");
    CHECK(found.says("\"" + sm::escaped(name) + "\" cannot name a tensor of a safetensors file"));
  }
  CHECK(unwritable({"a", "b", "a"}).says("\"a\" cannot name a tensor"));
  SafetensorsHeader header;
  header.metadata = {{"key", "\xff"}};
  CHECK_THROWS_WITH_AS(static_cast<void>(format::write_safetensors_header(header)),
                       doctest::Contains("the metadata \"key\""), sm::InvalidArgument);
}

TEST_CASE("a header that no reader would accept for its size is not written") {
  CHECK(format::most_safetensors_header_bytes ==
        100'000'000);  // as in the reference implementation
  std::uint64_t const most = 200;
  for (std::size_t length = 1; length < 160; ++length) {
    SafetensorsHeader header;
    header.metadata = {{"format", "pt"}};
    header.tensors.push_back({std::string(length, 'a'), sm::DType::int8, {1}, 0, 0});
    header.tensors.push_back({"b\n", sm::DType::int8, {1}, 0, 0});
    std::string const text = text_of(format::write_safetensors_header(header));
    auto const found =
        failure_of([&] { static_cast<void>(format::write_safetensors_header(header, "m", most)); });
    CHECK(found.kind == (text.size() <= most ? "" : "UnsupportedError"));
    if (text.size() > most) {
      CHECK(found.says("the safetensors header of m would be longer than 200 bytes"));
      CHECK(found.says(length < 115 ? "from its tensor 2 on (\"b\\x0a\")" : " on ("));
      CHECK(found.says("save it as several files (save_safetensors_sharded"));
    }
  }
  SafetensorsHeader header;
  header.metadata = {{"notes", std::string(300, 'x')}};
  auto const found =
      failure_of([&] { static_cast<void>(format::write_safetensors_header(header, "m", most)); });
  CHECK(found.kind == "UnsupportedError");
  CHECK(found.says("the metadata of a safetensors file would make its header 336 bytes long"));
}

TEST_CASE("the header is filled tensor by tensor, until one has no room") {
  format::SafetensorsHeaderText text(100);
  format::SafetensorsEntry a{"a", sm::DType::float32, {3}, 0, 0};
  format::SafetensorsEntry b{"b", sm::DType::float32, {3}, 0, 0};
  CHECK(text.add(a));
  CHECK_FALSE(text.add(b));
  CHECK(text.data_bytes() == 12);
  CHECK(text_of(text.finish({})) == R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}} )");
  format::SafetensorsHeaderText more(200);
  CHECK(more.add(a));
  CHECK(more.add(b));
  CHECK(b.begin == 12);
  CHECK(b.end == 24);
  CHECK(read(text_of(more.finish({{"format", "pt"}}))).tensors.size() == 2);
  format::SafetensorsHeaderText noted(100);
  CHECK_FALSE(noted.add(a, 50));  // what it adds to the metadata counts
  CHECK(noted.add(a, 30));
  format::SafetensorsHeaderText real;  // the format's own limit, which is a multiple of 8
  real.reserve(100'000'000 - 55);
  CHECK_FALSE(real.add(a));
  format::SafetensorsHeaderText enough;
  enough.reserve(100'000'000 - 56);
  CHECK(enough.add(a));
}

TEST_CASE("SHARDMESH_SHAPES says how large the whole tensors are") {
  auto const shapes = [](std::string_view text) {
    return format::read_shapes(text, "x.safetensors");
  };
  auto const found = shapes(R"({"a":[2,0],"b":[]})");
  REQUIRE(found.size() == 2);
  CHECK(found[0].first == "a");
  CHECK(found[0].second == sm::Shape{2, 0});
  CHECK(found[1].second.empty());
  for (std::string_view const text :
       {R"({"a":{}})", R"({"a":"2"})", R"({"a":[1,1,1,1,1,1,1,1,1]})"}) {
    auto const bad = failure_of([&] { static_cast<void>(shapes(text)); });
    CHECK(bad.kind == "CorruptError");
    CHECK(bad.says("of \"a\" in SHARDMESH_SHAPES something else than a shape"));
  }
}

TEST_CASE("the headers of real files are read") {
  for (std::string const& name : test::fixtures()) {
    std::string const file =
        test::slurp(test::data_directory + "/checkpoints/" + name + "/reference.safetensors");
    auto const bytes = format::as_bytes(file);
    auto const size = static_cast<std::size_t>(format::load_le<std::uint64_t>(bytes, 0));
    SafetensorsHeader header = read(std::string_view(file).substr(8, size));
    CHECK(header.tensors.size() >= 8);
    CHECK(8 + size + header.data_bytes() == file.size());
    SafetensorsHeader const before = header;
    auto const again = read(text_of(format::write_safetensors_header(header)));
    REQUIRE(again.tensors.size() == before.tensors.size());
    for (std::size_t i = 0; i < again.tensors.size(); ++i) {
      CHECK(again.tensors[i].name == before.tensors[i].name);
      CHECK(again.tensors[i].begin == before.tensors[i].begin);
      CHECK(again.tensors[i].shape == before.tensors[i].shape);
    }
  }
}

TEST_CASE("a header cut at any byte is refused") {
  std::string const text = one(good);
  REQUIRE(failure(text).kind.empty());
  for (std::size_t size = 0; size < text.size(); ++size) {
    CHECK(is_refused(text.substr(0, size), "it is no valid JSON"));
  }
  CHECK(failure(text + "   ").kind.empty());
  CHECK(is_refused(text + "x", "it is no valid JSON"));
  CHECK(is_refused(text + text, "it is no valid JSON"));
  CHECK(is_refused(text + std::string(1, '\0'), "it is no valid JSON"));
  CHECK(failure("{\"w\":}").says("(character 6)"));
}

TEST_CASE("JSON beyond what the format needs is refused") {
  CHECK(is_refused("[]", "it has a list out of place"));
  CHECK(is_refused("7", "a number out of place or range"));
  CHECK(is_refused("\"w\"", "it has a string out of place"));
  CHECK(is_refused("null", "it has null"));
  CHECK(is_refused("{\"w\":null}", "it has null"));
  CHECK(is_refused("{\"w\":true}", "it has true or false"));
  CHECK(is_refused("{\"w\":7}", "a number out of place or range"));
  CHECK(is_refused("{\"w\":\"x\"}", "something that is no object"));
  CHECK(is_refused("{\"w\":[1]}", "something that is no object"));
  CHECK(is_refused("{\"\xff\":{}}", "it is no valid JSON"));
  CHECK(is_refused(one(good + "," + good), "it has the name \"dtype\" twice"));
  CHECK(is_refused("{\"w\":{" + good + "},\"w\":{" + good + "}}", "it has the name \"w\" twice"));
  CHECK(is_refused("{\"w\\u0000\":{}}", "it has a name with a NUL"));
  CHECK(is_refused(R"({"__metadata__":{"a":"\u0000"}})", "it has a string with a NUL"));
  CHECK(is_refused(R"({"__metadata__":{"b":{"c":{}}}})", "it has an object nested too deep"));
  CHECK(is_refused("{\"w\":{\"shape\":[[1]]}}", "it has a list out of place"));
  CHECK(is_refused("{\"w\":{\"shape\":[{}]}}", "it has an object nested too deep"));
  CHECK(is_refused("{\"w\":{\"shape\":[\"1\"]}}", "it has a string out of place"));
  CHECK(is_refused("{\"w\":" + std::string(100'000, '['), "something that is no object"));
  CHECK(is_refused(R"({"__metadata__":{"a":[1]}})", "metadata that is no string"));
}

TEST_CASE("a byte-order mark and names that stand twice are refused, wherever they are") {
  CHECK(is_refused("\xef\xbb\xbf" + one(good), "it starts with a byte-order mark"));
  CHECK(is_refused("{\"__metadata__\":{},\"__metadata__\":{}}", "\"__metadata__\" twice"));
  CHECK(is_refused(R"({"__metadata__":{"a":"1","a":"1"}})", "it has the name \"a\" twice"));
  CHECK(is_refused("{\"w\":{" + good + "},\"\\u0077\":{" + good + "}}",
                   "it has the name \"w\" twice"));
  auto const index = [](std::string const& text) {
    return failure_of([&] { static_cast<void>(format::read_safetensors_index(text, "x.json")); });
  };
  CHECK(index(R"({"weight_map":{"a":"f"},"metadata":{"total_size":8}})").kind.empty());
  CHECK(index("\xef\xbb\xbf{\"weight_map\":{}}").says("byte-order mark"));
  CHECK(index(R"({"weight_map":{"a":"f","b":"f","a":"g"}})").says("the name \"a\" twice"));
  CHECK(index(R"({"weight_map":{},"weight_map":{}})").says("the name \"weight_map\" twice"));
  CHECK(index(R"({"weight_map":{},"metadata":{"total_size":1,"total_size":2}})")
            .says("the name \"total_size\" twice"));
  CHECK(index(R"({"weight_map":{},"x":[{"y":{"z":1,"z":2}}]})").says("the name \"z\" twice"));
  CHECK(format::read_safetensors_index(
            R"({"x":[{"y":1},{"y":[[2.5,-1,null,true]]}],"weight_map":{}})", "x")
            .files.empty());
  for (char const* const text :
       {"[]", "7", "{}", "null", R"({"weight_map":[]})", R"({"weight_map":"f"})",
        R"({"weight_map":7})", R"({"x":{"weight_map":{}}})"}) {
    CHECK(index(text).says("it is no JSON object with a \"weight_map\""));
  }
  for (char const* const file : {"7", "null", "{}", "[\"f\"]", "\"../f\"", "\"\"", "\"a/f\""}) {
    CHECK(index(std::string(R"({"weight_map":{"a":)") + file + "}}").says("not a plain name"));
  }
}

TEST_CASE("the members of objects are counted as they nest, not as texts look") {
  auto const counts = [](std::string_view text) {
    auto const found = format::detail::count_members(text);
    return std::pair(found.outer, found.inner);
  };
  CHECK(counts("{}") == std::pair<std::size_t, std::size_t>(0, 0));
  CHECK(counts(R"({"a":{"x":1,"y":[{"z":2}]},"b:{\":":{"x":"::"}})") ==
        std::pair<std::size_t, std::size_t>(2, 2));
  CHECK(counts(R"({"a":{"x":1},"b":{"x":1,"y":2,"z":3},"c":{}})") ==
        std::pair<std::size_t, std::size_t>(3, 3));
  CHECK(counts("}}{\"a\":") == std::pair<std::size_t, std::size_t>(1, 0));
}

TEST_CASE("strings are checked before the parser sees them, which would repeat them") {
  std::string const long_name(100'000, 'a');
  for (char const* const bad :
       {"\\q", "\\u12", "\\ud800", "\\ud800\\u0041", "\\udc00", "\n", "\x01", ""}) {
    CHECK(is_refused("{\"" + long_name + bad, "it is no valid JSON (character "));
  }
  CHECK(is_refused("{\"a\":{\"shape\":[" + std::string(100, '1') + "]}}", "it is no valid JSON"));
  auto const names = [](std::string const& name) {
    return read("{\"" + name + "\":{" + good + "}}").tensors.at(0).name;
  };
  CHECK(names(R"(\ud83d\ude00\u00e9\n\"\\\/\b\f\r\t)") ==
        "\xf0\x9f\x98\x80\xc3\xa9\n\"\\/\b\f\r\t");
}

TEST_CASE("numbers are plain integers of 63 bits") {
  auto const shape = [](std::string const& number) {
    return one(R"("dtype":"F32","shape":[)" + number + R"(],"data_offsets":[0,24])");
  };
  CHECK(failure(shape("6")).kind.empty());
  CHECK(is_refused(shape("6.0"), "a number that is no integer"));
  CHECK(is_refused(shape("6e0"), "a number that is no integer"));
  CHECK(is_refused(shape("-6"), "a negative number"));
  CHECK(is_refused(shape("06"), "it is no valid JSON"));
  CHECK(is_refused(shape("9223372036854775808"), "a number out of place or range"));
  CHECK(is_refused(shape("99999999999999999999"), "a number that is no integer"));
  CHECK(is_refused(shape("9223372036854775807"), "which overflows"));
  CHECK(is_refused(shape("4294967296,4294967296"), "which overflows"));
  CHECK(is_refused(shape("0"), "bytes 0 to 24, but F32 (0) has 0"));
}

TEST_CASE("a tensor has exactly its three fields, and the bytes of its shape") {
  // What else is said of it is passed over, as the reference does; so is metadata that is null.
  for (char const* const more : {R"("x")", "1", "-1.5", "null", "true", "[]",
                                 R"([1,{"dtype":[2]}])", R"({"shape":[9],"y":{}})"}) {
    CHECK_NOTHROW(static_cast<void>(read(one(good + R"(,"extra":)" + more))));
    CHECK_NOTHROW(static_cast<void>(read(one(std::string(R"("extra":)") + more + "," + good))));
  }
  CHECK(is_refused(one(good + R"(,"extra":)" + std::string(17, '[') + std::string(17, ']')),
                   "an object nested too deep"));
  CHECK_NOTHROW(static_cast<void>(read(R"({"__metadata__":null})")));
  CHECK(is_refused(one(R"("dtype":"F32","shape":[2,3])"), "too little: dtype, shape and"));
  CHECK(is_refused(one(R"("dtype":"F32","data_offsets":[0,24])"), "too little"));
  CHECK(is_refused(one(R"("shape":[2,3],"data_offsets":[0,24])"), "too little"));
  CHECK(is_refused(one(R"("dtype":["F32"],"shape":[],"data_offsets":[0,4])"), "something else"));
  CHECK(is_refused(one(R"("dtype":"F32","shape":"","data_offsets":[0,4])"), "something else"));
  CHECK(is_refused(one(R"("dtype":"F32","shape":{},"data_offsets":[0,4])"), "something else"));
  CHECK(is_refused(one(R"("dtype":"F32","shape":[],"data_offsets":[0,4,8])"), "something else"));
  CHECK(is_refused(one(R"("dtype":"F32","shape":[],"data_offsets":[4])"), "something else"));
  CHECK(is_refused(one(R"("dtype":"F32","shape":[2,3],"data_offsets":[0,23])"),
                   "bytes 0 to 23, but F32 (2, 3) has 24"));
  CHECK(is_refused(one(R"("dtype":"F32","shape":[2,3],"data_offsets":[24,0])"), "bytes 24 to 0"));
  auto const nine = one(R"("dtype":"F32","shape":[1,1,2,1,1,1,1,1,1],"data_offsets":[0,8])");
  CHECK(read(nine).tensors[0].unsupported == "9 dimensions; at most 8 are supported");
  CHECK(is_refused(one(R"("dtype":"F32","shape":[1,1,2,1,1,1,1,1,1],"data_offsets":[0,4])"),
                   "but F32 (1, 1, 2, 1, 1, 1, 1, 1, 1) has 8"));
}

TEST_CASE("numbers of less than eight bits are counted singly in a file, packed in a tensor") {
  auto const entry = [](std::string const& dtype, std::string const& shape, int bytes) {
    return read(one("\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[0," +
                    std::to_string(bytes) + "]"))
        .tensors[0];
  };
  CHECK(entry("F4", "[2,8]", 8).dtype == sm::DType::float4_e2m1fn_x2);
  CHECK(entry("F4", "[2,8]", 8).shape == sm::Shape{2, 4});
  CHECK(entry("F4", "[3,0]", 0).shape == sm::Shape{3, 0});
  CHECK(entry("F6_E2M3", "[2,8]", 12).dtype == sm::DType::float6_e2m3fn_x4);
  CHECK(entry("F6_E3M2", "[8]", 6).shape == sm::Shape{2});
  CHECK(entry("F8_E8M0", "[3]", 3).dtype == sm::DType::float8_e8m0fnu);
  // Bits that are no bytes, and sizes that do not fit, are damage; rows that end inside of a byte cannot
  // be cut into elements, and block their tensor alone.
  auto const refused = [](std::string const& fields, char const* words) {
    return is_refused(one(fields), words);
  };
  CHECK(refused(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])",
                "says of \"w\" that it is F4 (3), whose 12 bits are not whole bytes"));
  CHECK(refused(R"("dtype":"F4","shape":[],"data_offsets":[0,1])", "whose 4 bits are not whole"));
  CHECK(refused(R"("dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2])", "whose 12 bits"));
  CHECK(refused(R"("dtype":"F4","shape":[4],"data_offsets":[0,4])", "but F4 (4) has 2"));
  CHECK(refused(R"("dtype":"F4","shape":[4611686018427387904],"data_offsets":[0,4])", "overflows"));
  auto const odd = entry("F4", "[2,3]", 3);
  CHECK(odd.unsupported ==
        "F4 (2, 3), whose rows are not multiples of 2 numbers and end inside of a byte");
  CHECK(odd.shape == sm::Shape{2, 3});
  CHECK_FALSE(entry("F6_E3M2", "[2,2]", 3).unsupported.empty());
  SafetensorsHeader header;
  header.tensors.push_back({"w", sm::DType::float4_e2m1fn_x2, {2, 4}, 0, 0});
  CHECK(text_of(format::write_safetensors_header(header)) ==
        R"({"w":{"dtype":"F4","shape":[2,8],"data_offsets":[0,8]}} )");
  header.tensors[0].shape = {};
  CHECK_THROWS_WITH_AS(static_cast<void>(format::write_safetensors_header(header)),
                       doctest::Contains("is a single element of float4_e2m1fn_x2"),
                       sm::UnsupportedError);
}

TEST_CASE("a tensor of an unknown element type is listed, and its bytes are accounted for") {
  std::string const field = R"("shape":[2],"data_offsets":[)";
  auto const two = [&](std::string const& place, std::string const& other) {
    return R"({"w":{"dtype":"F2\u0007",)" + field + place + R"(]},"z":{"dtype":"U8",)" + field +
           other + "]}}";
  };
  auto const header = read(two("0,5", "5,7"));
  REQUIRE(header.tensors.size() == 2);
  CHECK(header.tensors[0].unsupported == "unknown dtype 'F2\\x07'");
  CHECK(header.tensors[0].shape == sm::Shape{2});
  CHECK(header.tensors[0].end == 5);
  CHECK(header.tensors[1].unsupported.empty());
  CHECK(is_refused(two("0,5", "4,6"), "starts at byte 4, where the data before it ends at 5"));
  CHECK(is_refused(two("5,0", "5,7"), "bytes 5 to 0"));
}

TEST_CASE("data has no holes and no overlaps, in whatever order it is told") {
  auto const two = [](std::string const& a, std::string const& b) {
    std::string const field = R"({"dtype":"U8","shape":[4],"data_offsets":[)";
    return "{\"b\":" + field + b + "]},\"a\":" + field + a + "]}}";
  };
  CHECK(read(two("0,4", "4,8")).tensors[0].name == "a");
  CHECK(read(two("4,8", "0,4")).tensors[0].name == "b");
  CHECK(is_refused(two("0,4", "0,4"), "\"b\" that its data starts at byte 0, where the data "
                                      "before it ends at 4"));
  CHECK(is_refused(two("0,4", "3,7"), "starts at byte 3, where the data before it ends at 4"));
  CHECK(is_refused(two("0,4", "5,9"), "starts at byte 5, where the data before it ends at 4"));
  CHECK(is_refused(two("1,5", "5,9"), "starts at byte 1, where the data before it ends at 0"));
  CHECK(read(R"({"e":{"dtype":"U8","shape":[0],"data_offsets":[4,4]},)"
             R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})")
            .data_bytes() == 4);
}

TEST_CASE("DCP_SHARDING_INFO says where each tensor of a file lies") {
  auto const info = [](std::string_view text) {
    return format::read_dcp_sharding_info(text, "x.safetensors");
  };
  auto const found = info(R"({"a":{"saved_offsets":[2,0]},"b":{"saved_offsets":[]}})");
  REQUIRE(found.size() == 2);
  CHECK(found[0].first == "a");
  CHECK(found[0].second == sm::Shape{2, 0});
  CHECK(found[1].second.empty());
  for (std::string_view const text :
       {R"({"a":{"offsets":[2,0]}})", R"({"a":{}})", R"({"a":{"saved_offsets":"2"}})",
        R"({"a":{"saved_offsets":[1,1,1,1,1,1,1,1,1]}})", R"({"a":[2]})"}) {
    auto const bad = failure_of([&] { static_cast<void>(info(text)); });
    CHECK(bad.kind == "CorruptError");
    CHECK(bad.says("of \"a\" in DCP_SHARDING_INFO something else than saved_offsets"));
  }
}

TEST_SUITE_END();

}  // namespace safetensors_header_test
