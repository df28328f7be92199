// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Archives: what is written is read, PyTorch's own are read, and no damage goes unseen.
#include <shardmesh/checkpoint/format/byte_source.hpp>
#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/format/zip_reader.hpp>
#include <shardmesh/checkpoint/format/zip_writer.hpp>

#include <algorithm>
#include <cstdint>
#include <map>

#include <sys/mman.h>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "damage.hpp"

namespace format_zip_test {

namespace sm = shardmesh;
namespace format = shardmesh::format;

using test::Bytes;
using test::ByteSpan;
using test::failure_of;

TEST_SUITE_BEGIN("checkpoint.format_zip");

namespace {

using Records = std::map<std::string, std::string>;

/// Everything in an archive, with all CRCs checked.
Records records_of(ByteSpan archive) {
  Records records;
  for (format::ZipEntry const& entry : format::read_zip(archive, "x.zip", 1000).entries) {
    records[entry.name] = format::as_text(format::zip_record(archive, entry, "x.zip", 1000));
  }
  return records;
}

test::Failure failure(ByteSpan archive) {
  return failure_of([&] { static_cast<void>(records_of(archive)); });
}

Records const sample_records{
    {"archive/a", "hello"}, {"archive/b/c", ""}, {"archive/d", std::string(100, 'x')}};

Bytes sample(std::uint64_t alignment = 64) {
  format::ZipWriter zip(alignment);
  for (auto const& [name, bytes] : sample_records) {
    zip.add(name, format::as_bytes(bytes));
  }
  return std::move(zip).finish();
}

/// The bytes of `archive` with those from `at` replaced.
Bytes patched(Bytes archive, std::size_t at, std::string_view digits) {
  Bytes const patch = test::unhex(digits);
  std::copy(patch.begin(), patch.end(), archive.begin() + static_cast<std::ptrdiff_t>(at));
  return archive;
}

/// An item of fixture `dtypes`: one float32 element, written by PyTorch.
Bytes item_of_pytorch() {
  std::string const file = test::slurp(test::fixture("dtypes") + "/__0_0.distcp");
  return test::bytes_of(std::string_view(file).substr(2522, 1577));
}

}  // namespace

TEST_CASE("CRC-32 is that of zip files, whole, continued and combined") {
  auto const digits = format::as_bytes("123456789");
  CHECK(format::crc32_of(digits) == 0xcbf43926U);
  CHECK(format::crc32_of({}) == 0);
  CHECK(format::crc32_of({}, 7) == 7);
  CHECK(format::crc32_of(digits.subspan(4), format::crc32_of(digits.first(4))) == 0xcbf43926U);
  for (std::size_t cut = 0; cut <= 9; ++cut) {
    CHECK(format::combine_crc32(format::crc32_of(digits.first(cut)),
                                format::crc32_of(digits.subspan(cut)), 9 - cut) == 0xcbf43926U);
  }
}

TEST_CASE("integers are little-endian whatever the machine, texts are bytes") {
  Bytes bytes;
  format::append_le(bytes, std::uint8_t{0xfe});
  format::append_le(bytes, std::uint16_t{0x0102});
  format::append_le(bytes, std::uint32_t{0x80010203});
  format::append_le(bytes, std::uint64_t{0x8001020304050607});
  format::append_text(bytes, "ok");
  CHECK(test::hex(bytes) == "fe"
                            "0201"
                            "03020180"
                            "0706050403020180"
                            "6f6b");
  CHECK(format::load_le<std::uint8_t>(bytes, 0) == 0xfe);
  CHECK(format::load_le<std::uint16_t>(bytes, 1) == 0x0102);
  CHECK(format::load_le<std::uint32_t>(bytes, 3) == 0x80010203U);
  CHECK(format::load_le<std::uint64_t>(bytes, 7) == 0x8001020304050607U);
  CHECK(format::as_text(ByteSpan(bytes).subspan(15)) == "ok");
  CHECK(format::same_bytes(format::as_bytes("ok"), ByteSpan(bytes).subspan(15)));
  CHECK_FALSE(format::same_bytes(format::as_bytes("ok"), ByteSpan(bytes).subspan(14)));
}

TEST_CASE("a source gives what lies inside it and names the byte of what does not") {
  Bytes const bytes = test::bytes_of("0123456789");
  format::SpanSource source(bytes, "f.bin", 500);
  CHECK(source.size() == 10);
  CHECK(format::as_text(format::read_checked(source, 2, 3, "it")) == "234");
  CHECK(format::read_checked(source, 10, 0, "it").empty());
  constexpr std::uint64_t most = ~std::uint64_t{0};
  for (auto const& [offset, count] :
       {std::pair<std::uint64_t, std::uint64_t>{10, 1}, {0, 11}, {11, 0}, {5, most}, {most, 5}}) {
    auto const failure = failure_of(
        [&, from = offset, n = count] { static_cast<void>(read_checked(source, from, n, "it")); });
    CHECK(failure.kind == "CorruptError");
    CHECK(failure.says("shardmesh: it reaches past the end (" + std::to_string(count) +
                       " bytes wanted); the file is truncated or damaged"));
    CHECK(failure.offset == 500 + offset);
    CHECK(failure.is_located());
  }
}

TEST_CASE("what is written is read, at every alignment") {
  for (std::uint64_t const alignment : {1U, 2U, 64U, 4096U}) {
    Bytes const archive = sample(alignment);
    CHECK(records_of(archive) == sample_records);
    format::ZipArchive const read = format::read_zip(archive);
    CHECK(read.prefix == "archive");
    for (format::ZipEntry const& entry : read.entries) {
      CHECK(entry.offset % alignment == 0);
    }
    REQUIRE(read.find("d") != nullptr);
    CHECK(read.find("d")->size == 100);
    CHECK(read.find("b/c")->crc == 0);
    CHECK(read.find("archive/d") == nullptr);
    CHECK(read.find("") == nullptr);
  }
}

TEST_CASE("a record that is written elsewhere leaves the same archive") {
  for (std::string const& bytes : {std::string(1000, 'y'), std::string()}) {
    auto const payload = format::as_bytes(bytes);
    format::ZipWriter whole;
    whole.add("p/a", format::as_bytes("first"));
    whole.add("p/data", payload);
    whole.add("p/z", format::as_bytes("last"));
    format::ZipWriter parts;
    CHECK(parts.external_size() == 0);
    parts.add("p/a", format::as_bytes("first"));
    parts.add_external("p/data", payload.size());
    CHECK(parts.external_size() == payload.size());
    Bytes joined = parts.head();
    CHECK(joined.size() % 64 == 0);
    joined.insert(joined.end(), payload.begin(), payload.end());
    parts.close_external(format::crc32_of(payload));
    parts.add("p/z", format::as_bytes("last"));
    Bytes const tail = std::move(parts).finish();
    joined.insert(joined.end(), tail.begin(), tail.end());
    CHECK(test::hex(joined) == test::hex(std::move(whole).finish()));
    CHECK(records_of(joined).at("p/data") == bytes);
  }
}

TEST_CASE("PyTorch's archive is read, and written again with the same bytes") {
  Bytes const item = item_of_pytorch();
  format::ZipArchive const archive = format::read_zip(item);
  REQUIRE(archive.entries.size() == 7);
  std::uint64_t const offsets[] = {64, 320, 448, 576, 704, 832, 960};
  std::uint64_t const sizes[] = {150, 1, 2, 6, 4, 2, 40};
  format::ZipWriter again;
  for (std::size_t i = 0; i < 7; ++i) {
    CHECK(archive.entries[i].offset == offsets[i]);
    CHECK(archive.entries[i].size == sizes[i]);
    again.add(archive.entries[i].name, format::zip_record(item, archive.entries[i]));
  }
  CHECK(archive.find("data/0")->crc == 0x2144df1c);
  CHECK(format::as_text(format::zip_record(item, *archive.find("byteorder"))) == "little");
  CHECK(std::move(again).finish() == item);
}

TEST_CASE("an archive without the zip64 end is read") {
  // zipfile.ZipFile(f, "w") with archive/a = b"hello", by Python.
  Bytes const archive = test::unhex(
      "504b03041400000000000000210086a61036050000000500000009000000617263686976652f6168656c6c6f"
      "504b010214031400000000000000210086a61036050000000500000009000000000000000000000080010000"
      "0000617263686976652f61504b05060000000001000100370000002c0000000000");
  CHECK(records_of(archive) == Records{{"archive/a", "hello"}});
}

TEST_CASE("records of 4 GiB and behind them have the sizes and offsets that PyTorch writes") {
  constexpr std::uint64_t size = (std::uint64_t{1} << 32) + 100;
  format::ZipWriter zip;
  zip.add("archive/data.pkl", format::as_bytes("pickle"));
  zip.add_external("archive/data/0", size);
  zip.close_external(0x01020304);
  zip.add("archive/version", format::as_bytes("3\n"));
  Bytes const head = zip.head();
  Bytes const tail = std::move(zip).finish();
  std::string const large = "6400000001000000";
  CHECK(test::hex(head).find("01001000" + large +
                             "0000000000000000"
                             "4642") != std::string::npos);
  CHECK(test::hex(ByteSpan(tail).first(24)) == "504b070804030201" + large + large);
  CHECK(test::hex(tail).find("01001000" + large + large) != std::string::npos);
  std::uint64_t const total = head.size() + size + tail.size();
  void* const memory = ::mmap(nullptr, total, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    MESSAGE("no address space for 4 GiB; not read back");
    return;
  }
  auto* const bytes = static_cast<std::byte*>(memory);
  std::copy(head.begin(), head.end(), bytes);
  std::copy(tail.begin(), tail.end(), bytes + head.size() + size);
  ByteSpan const archive(bytes, total);
  format::ZipArchive const read = format::read_zip(archive);
  CHECK(read.find("data/0")->size == size);
  CHECK(read.find("data/0")->offset == head.size());
  CHECK(read.find("data/0")->crc == 0x01020304);
  CHECK(format::as_text(format::zip_record(archive, *read.find("version"))) == "3\n");
  ::munmap(memory, total);
}

TEST_CASE("an archive cut at any byte is refused") {
  auto const read = [](ByteSpan cut) { static_cast<void>(format::read_zip(cut, "x.zip", 0)); };
  CHECK(test::unseen_truncation(sample(), 1, read) == "");
  CHECK(test::unseen_truncation(item_of_pytorch(), 1, read) == "");
  CHECK(failure({}).says("the archive does not end as one (truncated?)"));
  Bytes longer = sample();
  longer.push_back(std::byte{0});
  CHECK(failure(longer).says("the archive does not end as one"));
  longer.insert(longer.begin(), std::byte{0});
  longer.pop_back();
  CHECK(failure(longer).is_located());
}

TEST_CASE("a flipped bit is found, or changes no record") {
  for (Bytes const& archive : {sample(), item_of_pytorch()}) {
    Records const whole = records_of(archive);
    for (int bit = 0; bit < 8; ++bit) {
      std::size_t wrong = 0;
      auto const damage =
          test::flip_bits(archive, test::stride(1, 4), static_cast<std::byte>(1 << bit),
                          [&](ByteSpan bytes) { wrong += records_of(bytes) == whole ? 0U : 1U; });
      CHECK(wrong == 0);
      CHECK(damage.problem == "");
      CHECK(damage.refused > (test::sanitized ? 75 : 300));
    }
  }
}

TEST_CASE("a damaged record is named with its place") {
  Bytes const archive = sample();
  for (format::ZipEntry const& entry : format::read_zip(archive).entries) {
    for (std::uint64_t i = 0; i < entry.size; ++i) {
      Bytes bytes = archive;
      bytes[static_cast<std::size_t>(entry.offset + i)] ^= std::byte{0x10};
      auto const found = failure(bytes);
      CHECK(found.what == "shardmesh::read_zip: the record \"" + entry.name +
                              "\" has another CRC than was stored; the file is damaged [x.zip, "
                              "byte " +
                              std::to_string(1000 + entry.offset) + "]");
    }
  }
}

namespace {

/// A field of `sample()` that is overwritten, and what is then said.
struct Case {
  std::size_t at;
  char const* digits;
  char const* words;
};

std::vector<Case> damaged_fields(std::size_t central, std::size_t end64, std::size_t end) {
  return {
      {0, "00", "the header of \"archive/a\" is not where it should be"},
      {26, "08", "the header of \"archive/a\" has another name"},
      {26, "ffff", "a record's name reaches past the end"},
      {28, "ffff", "the record \"archive/a\" reaches into the directory"},
      {30, "62", "the header of \"archive/a\" has another name"},
      {central, "00", "a directory entry is expected here"},
      {central + 8, "01", "the record \"archive/a\" is compressed or encrypted"},
      {central + 10, "08", "the record \"archive/a\" is compressed or encrypted"},
      {central + 16, "0001", "the record \"archive/a\" has another CRC"},
      {central + 20, "04", "the record \"archive/a\" is compressed or encrypted"},
      {central + 24, "04", "the record \"archive/a\" is compressed or encrypted"},
      {central + 20, "ffffff00ffffff00", "\"archive/a\" reaches into the directory"},
      {central + 28, "ffff", "a record's name reaches past the end"},
      {central + 30, "ffff", "a record's name"},
      {central + 32, "01", "the record \"archive/a\" is compressed or encrypted"},
      {central + 42, "01", "the header of \"archive/a\" is not where it should be"},
      {central + 42, "ffffffff", "the header of \"archive/a\" is not where it should be"},
      {end64, "00", "the zip64 end of the archive is not where it should be"},
      {end64 + 32, "02", "the directory of the archive has another length than it says"},
      {end64 + 32, "04", "a directory entry is expected here"},
      {end64 + 32, "00", "the directory of the archive has another length than it says"},
      {end64 + 32, "ffffffffffffffff", "the directory of the archive is not in front of its end"},
      {end64 + 40, "00", "the directory of the archive is not in front of its end"},
      {end64 + 48, "ffffffffffffffff", "the directory of the archive is not in front of its end"},
      {end - 20 + 8, "00", "the zip64 end of the archive is not where it should be"},
      {end, "00", "the archive does not end as one"},
      {end + 4, "01", "the archive is split over several disks"},
      {end + 6, "01", "the archive is split over several disks"},
      {end + 20, "01", "the archive does not end as one"},
  };
}

}  // namespace

TEST_CASE("each field of the directory is checked") {
  Bytes const archive = sample();
  std::string_view const text = format::as_text(archive);
  std::size_t const central = text.find("PK\x01\x02");
  std::size_t const end64 = archive.size() - 98;
  std::size_t const end = archive.size() - 22;
  REQUIRE(central != std::string_view::npos);
  for (Case const& one : damaged_fields(central, end64, end)) {
    auto const found = failure(patched(archive, one.at, one.digits));
    CAPTURE(one.at);
    CHECK_MESSAGE((found.says(one.words) || std::string(one.words) == "a record's name"),
                  found.what);
    CHECK(found.is_located());
  }
}

TEST_CASE("a compressed record, as zip programs write it, is refused by name") {
  // zipfile.ZipFile(f, "w", zipfile.ZIP_DEFLATED) with archive/data.pkl = b"a" * 100, by Python.
  Bytes const archive = test::unhex(
      "504b030414000000080000002100647a70af060000006400000010000000617263686976652f646174612e70"
      "6b6c4b4ca43d0000504b0102140314000000080000002100647a70af06000000640000001000000000000000"
      "00000000800100000000617263686976652f646174612e706b6c504b050600000000010001003e0000003400"
      "00000000");
  auto const found = failure(archive);
  CHECK(found.kind == "CorruptError");
  CHECK(found.says("the record \"archive/data.pkl\" is compressed or encrypted; torch.save never "
                   "does that"));
  CHECK(found.is_located());
}

TEST_CASE("a stored CRC of 0 stands for none") {
  Bytes archive = sample();
  std::size_t const central = format::as_text(archive).find("PK\x01\x02");
  archive = patched(archive, central + 16, "00000000");
  archive[static_cast<std::size_t>(format::read_zip(archive).entries[0].offset)] = std::byte{'j'};
  CHECK(records_of(archive).at("archive/a") == "jello");
}

TEST_CASE("names that lead elsewhere or stand twice are refused") {
  auto const with = [](std::string_view first, std::string_view second) {
    format::ZipWriter zip;
    zip.add(first, format::as_bytes("1"));
    zip.add(second, format::as_bytes("2"));
    return failure(std::move(zip).finish());
  };
  CHECK(with("archive/a", "archive/b").kind.empty());
  CHECK(with("net/a", "net/b").kind.empty());
  using namespace std::string_view_literals;
  for (std::string_view const name : {"archive/a"sv, "other/b"sv, "archive"sv, "archive/../b"sv,
                                      "/archive/b"sv, "archive/b\0"sv, "archivex/b"sv}) {
    auto const found = with("archive/a", name);
    CHECK(found.says("the archive has a record \"" + sm::escaped(name) +
                     "\", which is no legal name or stands twice"));
    CHECK(found.is_located());
  }
  CHECK(with("a", "b").says("no legal name"));
  CHECK(with("/a", "/b").says("no legal name"));
  format::ZipWriter empty;
  CHECK(failure(std::move(empty).finish()).says("the archive is empty"));
}

TEST_CASE("records that overlap are refused") {
  // A record that holds the whole header of the next one, so that both lie inside the archive.
  format::ZipWriter zip(1);
  zip.add("p/a", format::as_bytes("xx"));
  zip.add("p/b", format::as_bytes("yy"));
  Bytes archive = std::move(zip).finish();
  std::size_t const central = format::as_text(archive).find("PK\x01\x02");
  archive = patched(archive, central + 16,
                    "00000000"
                    "40000000"
                    "40000000");
  auto const found = failure(archive);
  CHECK(found.says("records of the archive overlap"));
  CHECK(found.is_located());
}

TEST_SUITE_END();

}  // namespace format_zip_test
