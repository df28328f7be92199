// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Items of data files: tensors and plain values, byte for byte as PyTorch writes them.
#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/chunk_check.hpp>
#include <shardmesh/checkpoint/format/dtype_names.hpp>
#include <shardmesh/checkpoint/format/file_name.hpp>
#include <shardmesh/checkpoint/format/lazy_view.hpp>
#include <shardmesh/checkpoint/format/numpy_number.hpp>
#include <shardmesh/checkpoint/format/pickle_names.hpp>
#include <shardmesh/checkpoint/format/tensor_item.hpp>
#include <shardmesh/checkpoint/format/tensor_pickle.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "damage.hpp"

namespace format_items_test {

namespace sm = shardmesh;
namespace format = shardmesh::format;

using format::Opcode;
using format::PickleWriter;
using test::Bytes;
using test::ByteSpan;
using test::failure_of;

TEST_SUITE_BEGIN("checkpoint.format_items");

namespace {

std::vector<sm::Shape> const shapes{{},
                                    {0},
                                    {1},
                                    {7},
                                    {0, 4},
                                    {3, 0, 2},
                                    {2, 3},
                                    {2, 3, 4},
                                    {300, 1, 2, 70000},
                                    {1, 2, 1, 2, 1, 2, 1, 2}};

/// The element types that PyTorch has, too.
std::vector<sm::DTypeInfo> torch_dtypes() {
  std::vector<sm::DTypeInfo> found(sm::dtype_table.begin(), sm::dtype_table.end());
  std::erase_if(found, [](auto const& info) { return !format::is_torch_dtype(info.dtype); });
  return found;
}

/// The archive of a contiguous tensor whose bytes count up.
Bytes tensor_archive(sm::DType dtype, sm::Shape const& sizes, std::uint64_t alignment = 64) {
  format::TensorItemFrame const frame(dtype, sizes, alignment);
  Bytes item = frame.head();
  for (std::uint64_t i = 0; i < frame.payload(); ++i) {
    item.push_back(static_cast<std::byte>(i % 251));
  }
  Bytes const tail = frame.tail(format::crc32_of(ByteSpan(item).subspan(frame.head().size())));
  item.insert(item.end(), tail.begin(), tail.end());
  CHECK(item.size() == frame.size());
  return item;
}

/// An archive of any pickle and any elements.
Bytes archive_of(ByteSpan pickle, ByteSpan data, std::string_view order = "little") {
  format::ZipWriter zip;
  zip.add("archive/data.pkl", pickle);
  zip.add("archive/byteorder", format::as_bytes(order));
  zip.add("archive/data/0", data);
  return std::move(zip).finish();
}

/// What a pickle says of its tensor; fields can be changed to say something odd.
struct Said {
  char const* function = "_rebuild_tensor_v2";
  char const* storage = "FloatStorage";
  char const* word = "storage";
  char const* key = "0";
  std::int64_t count = 12;
  std::int64_t offset = 0;
  std::vector<std::int64_t> sizes{3, 4};
  std::vector<std::int64_t> strides{4, 1};
  bool hook = false;
  std::vector<char const*> flags{};  ///< "conj" and such, all true
  bool parameter = false;
};

void write_tuple(PickleWriter& out, std::vector<std::int64_t> const& values) {
  out.op(Opcode::mark);
  for (std::int64_t const value : values) {
    out.integer(value);
  }
  out.op(Opcode::tuple);
}

Bytes pickle_of(Said const& said) {
  PickleWriter out;
  if (said.parameter) {
    out.global("torch._utils", "_rebuild_parameter");
    out.op(Opcode::mark);
  }
  out.global("torch._utils", said.function);
  out.ops(Opcode::mark, Opcode::mark);
  out.text(said.word);
  out.global("torch", said.storage);
  out.text(said.key);
  out.text("cuda:1");
  out.integer(said.count);
  out.ops(Opcode::tuple, Opcode::binpersid);
  out.integer(said.offset);
  write_tuple(out, said.sizes);
  write_tuple(out, said.strides);
  out.boolean(true);
  out.global("collections", "OrderedDict");
  out.ops(Opcode::empty_tuple, Opcode::reduce);
  if (said.hook) {
    out.ops(Opcode::none, Opcode::none, Opcode::setitem);
  }
  if (!said.flags.empty()) {
    out.op(Opcode::empty_dict);
    for (char const* const flag : said.flags) {
      out.text(flag);
      out.ops(Opcode::newtrue, Opcode::setitem);
    }
  }
  out.ops(Opcode::tuple, Opcode::reduce);
  if (said.parameter) {
    out.ops(Opcode::newtrue, Opcode::none, Opcode::tuple, Opcode::reduce);
  }
  return std::move(out).finish();
}

/// What reading a tensor of 12 floats throws, if its pickle says this.
test::Failure failure(Said const& said) {
  Bytes const item = archive_of(pickle_of(said), Bytes(48));
  return failure_of([&] { static_cast<void>(format::read_tensor_item(item, "d", 100)); });
}

/// Calls `f(item, path, entry, chunk)` with every item of a fixture; the chunk is null for values.
template <class F>
void for_each_item(std::string const& name, F f) {
  sm::DcpCatalog<> const catalog(test::fixture(name));
  auto const visit = [&](format::StorageInfo const& at, format::MetadataEntry const& entry,
                         format::ChunkMetadata const* chunk) {
    sm::File const file = sm::File::open(test::fixture(name) + "/" + at.relative_path);
    f(file.read(at.offset, at.length), entry, chunk);
  };
  for (format::MetadataEntry const& entry : catalog.metadata().entries) {
    if (format::TensorMetadata const* const tensor = entry.tensor()) {
      for (format::ChunkMetadata const& chunk : tensor->chunks) {
        if (chunk.storage) {
          visit(*chunk.storage, entry, &chunk);
        }
      }
    } else {
      visit(entry.bytes()->storage, entry, nullptr);
    }
  }
}

/// The archive without the half of its serialization id that is a hash of all records, which
/// PyTorch only logs, and without the two CRCs of that id.
Bytes without_hash(Bytes item) {
  format::ZipArchive const archive = format::read_zip(item);
  auto const digits = static_cast<std::ptrdiff_t>(archive.find(".data/serialization_id")->offset);
  auto const end = static_cast<std::ptrdiff_t>(item.size()) - 98;
  auto const central = end - 46 - static_cast<std::ptrdiff_t>(archive.entries.back().name.size());
  CHECK(archive.entries.back().name == "archive/.data/serialization_id");
  std::fill_n(item.begin() + digits + 20, 20, std::byte{'0'});
  std::fill_n(item.begin() + digits + 44, 4, std::byte{});
  std::fill_n(item.begin() + central + 16, 4, std::byte{});
  return item;
}

/// The fixtures made of archives: all but those of safetensors.
std::vector<std::string> archive_fixtures() {
  std::vector<std::string> names = test::fixtures();
  std::erase_if(names, [](std::string const& name) { return name.ends_with("safetensors"); });
  return names;
}

Bytes archive_of_pickle(std::string_view digits) {
  format::ZipWriter zip;
  zip.add("archive/data.pkl", test::unhex(digits));
  return std::move(zip).finish();
}

/// The kind of value that a pickle in an archive is read as.
std::string kind_of(ByteSpan pickle) {
  format::ZipWriter zip;
  zip.add("archive/data.pkl", pickle);
  return std::string(format::read_bytes_item(std::move(zip).finish()).kind());
}

}  // namespace

TEST_CASE("element types have PyTorch's names and storage classes") {
  std::size_t typed = 0;
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    bool const known = format::is_torch_dtype(info.dtype);
    CHECK(known == (info.name.find("float6_") == std::string_view::npos));
    CHECK((format::dtype_of_torch_name(info.name) == info.dtype) == known);
    CHECK(format::is_unsupported_torch_dtype(info.name) != known);
    typed += format::storage_class_of(info.dtype).empty() ? 0U : 1U;
  }
  CHECK(typed == format::storage_class_table.size());
  CHECK(format::storage_class_of(sm::DType::boolean) == "BoolStorage");
  CHECK(format::storage_class_of(sm::DType::complex64) == "ComplexFloatStorage");
  CHECK(format::storage_class_of(sm::DType::uint16) == "");
  CHECK(format::dtype_of_torch_name("half") == sm::DType::float16);
  CHECK(format::dtype_of_torch_name("double") == sm::DType::float64);
  CHECK(format::dtype_of_torch_name("cdouble") == sm::DType::complex128);
  for (char const* const name : {"", "Float32", "float32 ", "qint8", "complex32", "Size"}) {
    CHECK_FALSE(format::dtype_of_torch_name(name).has_value());
  }
  for (char const* const name : {"qint8", "quint8", "qint32", "quint4x2", "complex32", "chalf",
                                 "bits8", "bits1x8", "int4", "uint7", "float6_e2m3fn", "int128"}) {
    CHECK(format::is_unsupported_torch_dtype(name));
  }
  for (char const* const name : {"", "Size", "load", "float32", "float", "half", "8", "loads8",
                                 "int8.x", "int4()", "Int4"}) {
    CHECK_FALSE(format::is_unsupported_torch_dtype(name));
  }
}

TEST_CASE("only a plain name is opened") {
  using namespace std::string_view_literals;
  for (auto const name : {"__0_0.distcp"sv, "a"sv, "..."sv, ".metadata"sv, "a b"sv, "\xc3\xa9"sv}) {
    CHECK(format::is_plain_file_name(name));
  }
  CHECK(format::is_plain_file_name(std::string(255, 'a')));
  CHECK_FALSE(format::is_plain_file_name(std::string(256, 'a')));
  for (auto const name : {""sv, "."sv, ".."sv, "/etc/passwd"sv, "a/b"sv, "../a"sv, "a\\b"sv,
                          "c:a"sv, "a\0b"sv, "a/"sv}) {
    CHECK_FALSE(format::is_plain_file_name(name));
  }
}

TEST_CASE("chunks lie inside their tensor and share no element") {
  using format::ChunkMetadata;
  auto const fault = [](sm::Shape const& size, std::vector<ChunkMetadata> const& chunks) {
    return format::chunk_fault({sm::DType::int8, size, chunks});
  };
  auto const at = [](sm::Shape const& offsets, sm::Shape const& sizes) {
    return ChunkMetadata{offsets, sizes, std::nullopt};
  };
  CHECK(fault({4, 6}, {}) == "");
  CHECK(fault({4, 6}, {at({2, 0}, {2, 6}), at({0, 0}, {2, 3}), at({0, 3}, {2, 3})}) == "");
  CHECK(fault({4, 6}, {at({0, 0}, {3, 6}), at({2, 5}, {2, 1})}) ==
        "the chunks at (0, 0) and (2, 5) overlap");
  CHECK(fault({4, 6}, {at({0, 0}, {1, 6}), at({0, 0}, {1, 6})}) ==
        "the chunks at (0, 0) and (0, 0) overlap");
  CHECK(fault({4, 6}, {at({0, 0}, {4, 7})}) ==
        "the chunk at (0, 0) of shape (4, 7) does not lie inside (4, 6)");
  CHECK(fault({4}, {at({5}, {0})}) == "the chunk at (5) of shape (0) does not lie inside (4)");
  CHECK(fault({4}, {at({-1}, {2})}) == "the chunk at (-1) of shape (2) does not lie inside (4)");
  CHECK(fault({4}, {at({1}, {-1})}) == "the chunk at (1) of shape (-1) does not lie inside (4)");
  CHECK(fault({4}, {at({0, 0}, {1, 1})}) ==
        "the chunk at (0, 0) of shape (1, 1) does not lie inside (4)");
  sm::index_t const most = std::numeric_limits<sm::index_t>::max();
  CHECK(fault({4}, {at({2}, {most})}).find("does not lie inside (4)") != std::string::npos);
  CHECK(fault({most}, {at({0}, {most - 1}), at({most - 1}, {1})}) == "");
  CHECK(fault({4}, {at({4}, {0}), at({0}, {4}), at({2}, {0})}) ==
        "");  // empty chunks share nothing
  CHECK(fault({}, {at({}, {})}) == "");
  CHECK(fault({}, {at({}, {}), at({}, {})}) == "the chunks at () and () overlap");
}

TEST_CASE("data.pkl of a tensor says what was written, for every element type and shape") {
  for (sm::DTypeInfo const& info : torch_dtypes()) {
    for (sm::Shape const& sizes : shapes) {
      auto const said = format::read_tensor_pickle(format::write_tensor_pickle(info.dtype, sizes));
      format::TensorPickle const wanted{info.dtype,
                                        sizes,
                                        sm::row_major_strides(sizes),
                                        0,
                                        static_cast<std::uint64_t>(sm::volume(sizes)) * info.size,
                                        {}};
      CHECK(said == wanted);
    }
  }
}

TEST_CASE("a tensor's archive gives its bytes back, for every element type and shape") {
  for (sm::DTypeInfo const& info : torch_dtypes()) {
    for (sm::Shape const& sizes : shapes) {
      if (sm::volume(sizes) > 1000) {
        continue;
      }
      for (std::uint64_t const alignment : {64U, 4096U}) {
        Bytes const item = tensor_archive(info.dtype, sizes, alignment);
        auto const read = format::read_tensor_item(item);
        CHECK(read.dtype == info.dtype);
        CHECK(read.sizes == sizes);
        CHECK(read.first == 0);
        REQUIRE(read.strides.size() == sizes.size());
        for (std::size_t d = 0; d < sizes.size(); ++d) {
          CHECK(read.strides[d] ==
                sm::row_major_strides(sizes)[d] * static_cast<sm::index_t>(info.size));
        }
        REQUIRE(read.storage.size() == static_cast<std::size_t>(sm::volume(sizes)) * info.size);
        CHECK((read.storage.data() - item.data()) % static_cast<std::ptrdiff_t>(alignment) == 0);
        for (std::size_t i = 0; i < read.storage.size(); ++i) {
          CHECK(read.storage[i] == static_cast<std::byte>(i % 251));
        }
      }
    }
  }
}

TEST_CASE("a tensor's archive has the bytes that PyTorch wrote") {
  std::size_t same = 0;
  std::size_t strided = 0;
  std::size_t older = 0;
  for (std::string const& name : archive_fixtures()) {
    for_each_item(name, [&](Bytes const& item, auto const& entry, auto const* chunk) {
      if (chunk == nullptr) {
        return;
      }
      auto const read = format::read_tensor_item(item);
      CHECK(read.dtype == entry.tensor()->dtype);
      CHECK(read.sizes == chunk->sizes);
      format::TensorItemFrame const frame(read.dtype, read.sizes);
      Bytes again = frame.head();
      again.insert(again.end(), read.storage.begin(), read.storage.end());
      Bytes const tail = frame.tail(format::crc32_of(read.storage));
      again.insert(again.end(), tail.begin(), tail.end());
      if (format::read_zip(item).find(".format_version") == nullptr) {
        ++older;  // before torch 2.7 there were fewer records
      } else if (entry.fqn == "plain.noncontig") {
        ++strided;
        CHECK(read.strides == sm::Shape{4, 16});
      } else {
        bool const is_same = without_hash(again) == without_hash(item);
        CHECK_MESSAGE(is_same, name << " " << entry.fqn);
        ++same;
      }
    });
  }
  CHECK(same == 1941);
  CHECK(strided == 1);
  CHECK(older == 523);
}

TEST_CASE("a value's archive has the bytes that PyTorch wrote") {
  std::size_t same = 0;
  std::size_t older = 0;
  for (std::string const& name : archive_fixtures()) {
    for_each_item(name, [&](Bytes const& item, auto const& entry, auto const* chunk) {
      if (chunk != nullptr) {
        return;
      }
      sm::Value const value = format::read_bytes_item(item);
      CHECK_MESSAGE(value.kind() != "opaque", name << " " << entry.fqn);
      Bytes const again = format::write_bytes_item(value);
      CHECK(format::read_bytes_item(again) == value);
      bool const is_new = format::read_zip(item).find(".format_version") != nullptr;
      ++(is_new ? same : older);
      bool const is_same = !is_new || without_hash(again) == without_hash(item);
      CHECK_MESSAGE(is_same, name << " " << entry.fqn);
    });
  }
  CHECK(same == 134);
  CHECK(older == 17);
}

TEST_CASE("a value of every kind is read as it was written") {
  using sm::Value;
  std::vector<Value> const values{
      Value(),
      Value(true),
      Value(false),
      Value(std::numeric_limits<std::int64_t>::min()),
      Value(-0.0),
      Value(0.1),
      Value(""),
      Value("\xc3\xa9 \"x\""),
      Value(Value::List{}),
      Value(Value::List{Value(1), Value(Value::List{Value("a"), Value("a")})}),
      Value(Value::Tuple{}),
      Value(Value::Tuple{{Value(1)}}),
      Value(Value::Tuple{{Value(1), Value(), Value(2.5), Value("x")}}),
      Value(Value::Dict{}),
      Value(Value::Dict{{"a", Value(Value::Dict{{"a", Value()}})}})};
  for (Value const& value : values) {
    Bytes const item = format::write_bytes_item(value);
    CHECK(format::read_bytes_item(item) == value);
  }
  Value const opaque(Value::Opaque{test::bytes_of("anything")});
  CHECK(format::write_bytes_item(opaque) == test::bytes_of("anything"));
  CHECK_THROWS_WITH_AS(static_cast<void>(format::write_bytes_item(Value(Value::List{opaque}))),
                       doctest::Contains("can only be written back whole"), sm::UnsupportedError);
}

TEST_CASE("lists and dicts are pickled in Python's batches of 1000") {
  auto const pickle = [](sm::Value const& value) {
    Bytes const item = format::write_bytes_item(value);
    auto const bytes = format::zip_record(item, *format::read_zip(item).find("data.pkl"));
    return Bytes(bytes.begin(), bytes.end());
  };
  sm::Value::List list;
  for (int i = 0; i < 2001; ++i) {
    list.emplace_back(i);
  }
  CHECK(pickle(list).size() == 5759);
  CHECK(format::crc32_of(pickle(list)) == 0x1f4a9a64U);  // of pickle.dumps(list(range(2001)), 2)
  sm::Value::Dict dict;
  for (int i = 0; i < 1001; ++i) {
    dict.emplace_back(std::to_string(i), sm::Value(i));
  }
  CHECK(format::crc32_of(pickle(dict)) == 0xcb6fc904U);  // {str(i): i for i in range(1001)}
  CHECK(format::read_bytes_item(format::write_bytes_item(dict)) == sm::Value(dict));
}

TEST_CASE("what is made of more than plain values comes back opaque, unread") {
  for (char const* const digits :
       {"800263706f7369780a73797374656d0a580400000065786974855 22e",  // os.system("exit")
        "80025d284b0163636f6c6c656374696f6e730a4f726465726564446963740a2952652e",
        "80034300 2e",                       // b""
        "80028a0a000000000000000000012e",    // 2**72
        "80027d4b014e732e",                  // {1: None}
        "80048f2e", "80027d29 4e 73 2e"}) {  // set(), {(): None}
    Bytes const item = archive_of_pickle(digits);
    sm::Value const value = format::read_bytes_item(item);
    CHECK(value.kind() == "opaque");
    CHECK(format::write_bytes_item(value) == item);
  }
}

namespace {

std::string le32(std::size_t value) {
  return {static_cast<char>(value & 0xff), static_cast<char>(value >> 8U), '\0', '\0'};
}
std::string text(std::string const& utf8) {
  return "X" + le32(utf8.size()) + utf8;
}

/// The pickle of a number as numpy writes it, in parts that can be replaced.
struct NumpyPickle {
  std::string module = "numpy._core.multiarray";
  std::string type = "f8";
  std::string flags = "\x89\x88";  // False, True
  std::string order = "<";
  std::string state = "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + std::string("K\0", 2);
  std::string bytes = std::string("\0\0\0\0\0\0\0@", 8);
  std::string encoding = "latin1";

  [[nodiscard]] std::string value() const {
    std::string const pickle = "\x80\x02" + std::string("c") + module +
                               "\nscalar\ncnumpy\ndtype\n" + text(type) + flags + "\x87R(K\3" +
                               text(order) + state + "tbc_codecs\nencode\n" + text(bytes) +
                               text(encoding) + "\x86R\x86R.";
    Bytes const item = archive_of(test::bytes_of(pickle), {});
    return sm::to_string(format::read_bytes_item(item));
  }
};

}  // namespace

TEST_CASE("numbers of numpy are read in the exact shape that numpy writes, and no other") {
  using P = NumpyPickle;
  std::string const opaque = "<opaque";
  CHECK(P{}.value() == "2.0");
  CHECK(P{.module = "numpy.core.multiarray"}.value() == "2.0");
  CHECK(P{.flags = std::string("K\0K\1", 4)}.value() == "2.0");
  CHECK(P{.order = ">", .bytes = std::string("@\0\0\0\0\0\0\0", 8)}.value() == "2.0");
  CHECK(P{.type = "i2", .order = ">", .bytes = "\xc3\xbf\xc3\xbe"}.value() == "-2");
  CHECK(P{.type = "u2", .bytes = "\xc3\xbe\xc3\xbf"}.value() == "65534");
  CHECK(P{.type = "b1", .order = "|", .bytes = "\1"}.value() == "True");
  CHECK(P{.type = "f2", .bytes = std::string("\0<", 2)}.value() == "1.0");
  CHECK(P{.type = "u8", .bytes = std::string("\0\0\0\0\0\0\0", 7) + "\xc2\x80"}.value().starts_with(
      opaque));  // 2**63
  for (P const& wrong :
       {P{.module = "numpy.core"}, P{.type = "f4"}, P{.type = "f9"}, P{.type = "c8"},
        P{.type = "O8"}, P{.type = "x8"}, P{.type = "8"}, P{.type = ""}, P{.flags = "\x88\x88"},
        P{.flags = "NN"},
        P{.state = "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + std::string("K\7", 2)},
        P{.state = "NNN"}, P{.bytes = "1234567"}, P{.bytes = "123456789"},
        P{.bytes = "1234567\xe2\x82\xac"}, P{.encoding = "utf8"}, P{.encoding = "rot13"}}) {
    CHECK_MESSAGE(wrong.value().starts_with(opaque), wrong.type << " " << wrong.bytes);
  }
}

TEST_CASE("a value that holds itself, or grows beyond all proportion, comes back opaque") {
  CHECK(kind_of(test::unhex("80025d7100680061 2e")) == "opaque");              // l.append(l)
  CHECK(kind_of(test::unhex("80027d710058010000006168 00732e")) == "opaque");  // d["a"] = d
  std::string chain = "\x80\x02(";  // [[[[...]]]], 200 deep, built from the outside
  for (int i = 0; i < 200; ++i) {
    chain += std::string("]q") + static_cast<char>(i);
  }
  for (int i = 0; i < 199; ++i) {
    chain += std::string("h") + static_cast<char>(i) + "h" + static_cast<char>(i + 1) + "a";
  }
  CHECK(kind_of(test::bytes_of(chain + "t.")) == "opaque");
  std::string laughs = "\x80\x02(]q" + std::string(1, '\0');  // each holds ten of the one before
  for (char i = 0; i < 20; ++i) {
    laughs += "](";
    for (int k = 0; k < 10; ++k) {
      laughs += std::string("h") + i;
    }
    laughs += std::string("eq") + static_cast<char>(i + 1);
  }
  CHECK(kind_of(test::bytes_of(laughs + "t.")) == "opaque");
  std::string text = "\x80\x02]q" + std::string(1, '\1') + "(X";
  text += std::string("\xe8\x03\0\0", 4) + std::string(1000, 'x') + "q" + std::string(1, '\2');
  for (int i = 0; i < 100'000; ++i) {
    text += "h\2";
  }
  CHECK(kind_of(test::bytes_of(text + "e.")) == "opaque");
}

TEST_CASE(
    "many values that are written out are plain, up to what a file of their size is read with") {
  auto const list_of = [](std::size_t count, std::string_view one) {
    std::string text = "\x80\x02](";
    for (std::size_t i = 0; i < count; ++i) {
      text += one;
    }
    return text + "e.";
  };
  CHECK(kind_of(test::bytes_of(list_of(700'000, "N"))) == "list");
  CHECK(kind_of(test::bytes_of(list_of(2'000'000, std::string_view("G\x3f\xf0\0\0\0\0\0\0", 9)))) ==
        "list");
  CHECK(kind_of(test::bytes_of(list_of(5'000'000, "N"))) == "opaque");  // and kept as it is
}

TEST_CASE("tensors that are views of their storage are read with their strides") {
  Said said;
  said.count = 12;
  said.offset = 2;
  said.sizes = {2, 3};
  said.strides = {1, 4};
  Bytes data;
  for (int i = 0; i < 48; ++i) {
    data.push_back(static_cast<std::byte>(i));
  }
  for (bool const parameter : {false, true}) {
    said.parameter = parameter;
    Bytes const item = archive_of(pickle_of(said), data);
    auto const read = format::read_tensor_item(item);
    CHECK(read.first == 8);
    CHECK(read.strides == sm::Shape{4, 16});
    CHECK(read.sizes == sm::Shape{2, 3});
    CHECK(format::same_bytes(read.storage, data));
  }
  said.offset = 3;  // element (1, 2) would be the thirteenth
  CHECK(failure(said).says("the tensor is larger than its stored elements [d, byte 100]"));
}

TEST_CASE("conjugate and negative views are told; those that no type has are refused") {
  auto const view_of = [](Said const& said) {
    return format::read_tensor_item(archive_of(pickle_of(said), Bytes(48))).view;
  };
  Said said;
  CHECK(view_of(said) == format::LazyView{false, false});
  said.flags = {"neg"};
  CHECK(view_of(said) == format::LazyView{false, true});
  said.flags = {"conj"};
  CHECK(failure(said).kind == "UnsupportedError");
  CHECK(failure(said).says("stored as a conjugate view of float32, which has no such views [d, "));
  said.flags = {"conj", "neg"};
  said.storage = "ComplexFloatStorage";
  said.count = 6;
  said.sizes = {2, 3};
  said.strides = {3, 1};
  CHECK(view_of(said) == format::LazyView{true, true});
  said.flags = {"neg", "lazy\n"};
  CHECK(failure(said).kind == "UnsupportedError");
  CHECK(failure(said).says("stored with \"lazy\\x0a\", of which nothing is known [d, byte "));
  said.flags = {"neg"};
  said.storage = "BoolStorage";
  said.count = 48;
  CHECK(failure(said).says("stored as a negative view of bool, which has no such views"));
}

TEST_CASE("views become the elements that they stand for") {
  auto const resolved = [](format::LazyView view, sm::DType dtype, char const* digits) {
    Bytes bytes = test::unhex(digits);
    REQUIRE(format::is_resolvable(view, dtype));
    format::resolve(view, dtype, bytes);
    return test::hex(bytes);
  };
  using format::LazyView;
  using sm::DType;
  CHECK(resolved({}, DType::int8, "0102") == "0102");
  CHECK(resolved({false, true}, DType::int8, "00017f80ff") == "00ff818001");
  CHECK(resolved({false, true}, DType::uint16, "01000000feff") == "ffff00000200");
  CHECK(resolved({false, true}, DType::int32, "00000080ffffffff") == "0000008001000000");
  CHECK(resolved({false, true}, DType::int64, "0100000000000000") == "ffffffffffffffff");
  CHECK(resolved({false, true}, DType::bfloat16, "803f 0080") == "80bf0000");
  CHECK(resolved({false, true}, DType::float64, "000000000000f03f") == "000000000000f0bf");
  CHECK(resolved({true, false}, DType::complex64, "0000803f00000040") == "0000803f000000c0");
  CHECK(resolved({false, true}, DType::complex64, "0000803f00000040") == "000080bf000000c0");
  CHECK(resolved({true, true}, DType::complex64, "0000803f00000040") == "000080bf00000040");
  CHECK(resolved({true, false}, DType::complex128, "00000000000000000000000000000000") ==
        "00000000000000000000000000000080");
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    bool const complex = info.dtype == DType::complex64 || info.dtype == DType::complex128;
    CHECK(format::is_resolvable({true, false}, info.dtype) == complex);
    CHECK(format::is_resolvable({}, info.dtype));
  }
  CHECK_FALSE(format::is_resolvable({false, true}, DType::float8_e4m3fn));
}

TEST_CASE("a tensor that reaches beyond its storage is refused, whatever overflows") {
  std::int64_t const most = std::numeric_limits<std::int64_t>::max();
  CHECK(failure({}).kind.empty());
  std::vector<std::function<void(Said&)>> const changes{
      [](Said& said) { said.count = 11; },
      [](Said& said) { said.count = 13; },
      [](Said& said) { said.storage = "DoubleStorage"; },
      [](Said& said) { said.offset = 1; },
      [&](Said& said) { said.offset = most; },
      [](Said& said) { said.offset = -1; },
      [](Said& said) { said.sizes = {4, 4}; },
      [](Said& said) { said.sizes = {3}; },
      [](Said& said) { said.strides = {4, 1, 1}; },
      [](Said& said) { said.strides = {5, 1}; },
      [&](Said& said) { said.strides = {most, 1}; },
      [&](Said& said) { said.strides = {most / 2, most / 2}; },
      [&](Said& said) { said.sizes = {most, most}; },
  };
  for (auto const& change : changes) {
    Said said;
    change(said);
    auto const found = failure(said);
    CHECK(found.kind == "CorruptError");
    CHECK(found.says("shardmesh::read_tensor_item: the tensor is larger than its stored elements"));
    CHECK(found.is_located());
  }
}

TEST_CASE("odd offsets and strides of tensors without elements do no harm") {
  Said said;
  said.sizes = {0, 4};
  said.offset = std::numeric_limits<std::int64_t>::max();
  said.strides = {said.offset, said.offset};
  Bytes const item = archive_of(pickle_of(said), Bytes(48));
  auto const read = format::read_tensor_item(item);
  CHECK(read.sizes == sm::Shape{0, 4});
  CHECK(read.first == 0);
  CHECK(read.strides == sm::Shape{0, 0});
  said.sizes = {1, 4};  // a dimension of one step may have any stride
  said.offset = 0;
  said.strides = {std::numeric_limits<std::int64_t>::max(), 1};
  CHECK(failure(said).kind.empty());
}

TEST_CASE("anything but one plain tensor is refused") {
  std::vector<std::function<void(Said&)>> const changes{
      [](Said& said) { said.word = "Storage"; },
      [](Said& said) { said.key = "1"; },
      [](Said& said) { said.storage = "UntypedStorage"; },
      [](Said& said) { said.function = "_rebuild_tensor_v3"; },
      [](Said& said) { said.function = "_rebuild_parameter"; },
      [](Said& said) { said.count = -1; },
      [](Said& said) { said.count = std::int64_t{1} << 58; },
      [](Said& said) { said.sizes = {3, -4}; },
      [](Said& said) { said.sizes = std::vector<std::int64_t>(9, 1); },
      [](Said& said) { said.hook = true; },
  };
  for (auto const& change : changes) {
    Said said;
    change(said);
    auto const found = failure(said);
    CHECK(found.kind == "CorruptError");
    CHECK(found.says("data.pkl is not that of a plain tensor [d, byte 164]"));
  }
  Said foreign;
  foreign.function = "_rebuild_sparse_tensor";
  CHECK(failure(foreign).says("the global \"torch._utils._rebuild_sparse_tensor\" is not allowed"));
}

TEST_CASE("an archive that holds no tensor, or one of another machine, is refused") {
  Bytes const value = format::write_bytes_item(sm::Value(7));
  auto const read = [](ByteSpan item) {
    return failure_of([&] { static_cast<void>(format::read_tensor_item(item, "d", 100)); });
  };
  CHECK(read(value).what ==
        "shardmesh::read_tensor_item: the archive holds no tensor [d, byte 100]");
  auto const big = read(archive_of(pickle_of({}), Bytes(48), "big"));
  CHECK(big.kind == "UnsupportedError");
  CHECK(big.says("d was written on a big-endian machine; convert it with PyTorch first"));
  Bytes large = pickle_of({});
  large.resize((1U << 20) + 1);
  CHECK(read(archive_of(large, Bytes(48)))
            .says("the pickle of a tensor has 1048577 bytes; at most 1 MiB are read"));
  format::ZipWriter zip;
  zip.add("archive/version", format::as_bytes("3\n"));
  Bytes const empty = std::move(zip).finish();
  CHECK(failure_of([&] {
          static_cast<void>(format::read_bytes_item(empty, "d", 100));
        }).says("the archive holds no object [d, byte 100]"));
}

TEST_CASE("items cut at any byte, or with any bit flipped, are refused or unchanged") {
  Bytes const tensor = tensor_archive(sm::DType::float32, {2, 3});
  Bytes const value = format::write_bytes_item(sm::Value("run"));
  auto const read_tensor = [](ByteSpan bytes) {
    static_cast<void>(format::read_tensor_item(bytes, "d", 0));
  };
  auto const read_value = [](ByteSpan bytes) {
    static_cast<void>(format::read_bytes_item(bytes, "d", 0));
  };
  CHECK(test::unseen_truncation(tensor, 1, read_tensor) == "");
  CHECK(test::unseen_truncation(value, 1, read_value) == "");
  Bytes const elements(format::read_tensor_item(tensor).storage.begin(),
                       format::read_tensor_item(tensor).storage.end());
  for (int bit = 0; bit < 8; ++bit) {
    auto const mask = static_cast<std::byte>(1 << bit);
    auto const damage = test::flip_bits(tensor, {}, mask, [&](ByteSpan bytes) {
      auto const read = format::read_tensor_item(bytes, "d", 0);
      CHECK(read.sizes == sm::Shape{2, 3});
      CHECK(read.dtype == sm::DType::float32);
      CHECK(format::same_bytes(read.storage, elements));
    });
    CHECK(damage.problem == "");
    CHECK(damage.refused > 300);
    CHECK(test::flip_bits(value, {}, mask, [](ByteSpan bytes) {
            sm::Value const read = format::read_bytes_item(bytes, "d", 0);
            CHECK(read == sm::Value("run"));
          }).problem == "");
  }
}

TEST_CASE("what a value would import is told; what would do harm is not saved again") {
  auto const item_of = [](std::string const& pickle) {
    format::ZipWriter zip;
    zip.add("archive/data.pkl", format::as_bytes(pickle));
    return std::move(zip).finish();
  };
  auto const name_in = [&](std::string const& pickle) {
    return format::harmful_name(format::read_bytes_item(item_of(pickle)));
  };
  std::string const four = "\x80\x04";
  std::string const os = "\x8c\x02os\x94\x8c\x06system\x94";
  CHECK(name_in("\x80\x02"
                "cos\nsystem\nX\x01" +
                std::string(3, '\0') + "x\x85R.") == "\"os.system\"");
  CHECK(name_in(four + os + "\x93\x8c\x01x\x85R.") == "\"os.system\"");
  // The two texts out of the memo, behind something else.
  CHECK(name_in(four + "](" + os + "h" + std::string(1, '\0') + "h\x01\x93" + "e.") ==
        "\"os.system\"");
  CHECK(name_in(four + "\x8c\x08"
                       "builtins\x8c\x04"
                       "eval\x93.") == "\"builtins.eval\"");
  CHECK(name_in(four + "\x8c\x08"
                       "builtins\x8c\x07getattr\x93.") == "\"builtins.getattr\"");
  CHECK(name_in(four + "\x8c\x05torch\x8c\x04load\x93.") == "\"torch.load\"");
  CHECK(name_in(four + "\x8c\x02\x1b[\x8c\x01x\x93.") == "\"\\x1b[.x\"");
  // A name that no text says.
  std::string const built = four + "\x8c\x02os]\x93.";
  CHECK(format::detail::PickleNames(format::as_bytes(built)).find_harmful() ==
        "a name that is put together while it is read");
  CHECK(name_in(four + "\x82\x07.") == "a number of Python's registry of extensions");
  CHECK(name_in("\x80\x02(ios\nsystem\n.") == "\"os.system\"");
  // Data of other packages and of the standard library, and text that only looks like an opcode.
  CHECK(name_in(four + "\x8c\x08"
                       "datetime\x8c\x04"
                       "date\x93"
                       "C\x04"
                       "1234\x85R.")
            .empty());
  CHECK(name_in("\x80\x02"
                "cnumpy.core.multiarray\n_reconstruct\n).")
            .empty());
  CHECK(name_in("\x80\x02"
                "ccollections\nOrderedDict\n)R.")
            .empty());
  CHECK(name_in("\x80\x02"
                "ctorch._utils\n_rebuild_tensor_v2\n.")
            .empty());
  CHECK(name_in("\x80\x02"
                "](ctorch\ndevice\nU\x0a"
                "cos\nsystem"
                "e.")
            .empty());
  CHECK(format::harmful_name(sm::Value(7)).empty());

  sm::Value::Opaque opaque{item_of("\x80\x02"
                                   "cos\nsystem\n."),
                           false};
  CHECK_THROWS_WITH_AS(
      format::refuse_harmful(opaque, "a\x1b"),
      doctest::Contains("the value \"a\\x1b\" is a pickle that imports \"os.system\""),
      sm::UnsupportedError);
  opaque.trusted = true;
  CHECK_NOTHROW(format::refuse_harmful(opaque, "a"));
}

TEST_SUITE_END();

}  // namespace format_items_test
