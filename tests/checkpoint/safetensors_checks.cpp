// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/checkpoint/safetensors_checks.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <zlib.h>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/checkpoints.hpp"

namespace safetensors_checks_test {

namespace sm = shardmesh;
namespace format = shardmesh::format;

TEST_SUITE_BEGIN("checkpoint.safetensors_checks");

namespace {

format::Bytes content(std::string const& path) {
  sm::File const file = sm::File::open(path);
  return file.read(0, file.size());
}

void put(std::string const& path, format::ByteSpan bytes) {
  sm::PosixStorage::remove_all(path);
  sm::File file = sm::File::create(path);
  file.write_at(0, bytes);
  file.finish();
}

/// The file's header, and where its data start.
std::pair<format::SafetensorsHeader, std::size_t> header_of(format::Bytes const& file) {
  auto const length = static_cast<std::size_t>(format::load_le<std::uint64_t>(file, 0));
  return {format::read_safetensors_header(
              format::as_text(format::ByteSpan(file).subspan(8, length)), "x"),
          8 + length};
}

/// What zlib says of each MiB of each tensor, as the header should: without the CRC of the header.
std::string expected_digits(format::Bytes const& file) {
  auto const [header, data] = header_of(file);
  std::string digits;
  for (format::SafetensorsEntry const& entry : header.tensors) {
    for (std::uint64_t at = entry.begin; at < entry.end; at += 1U << 20) {
      auto const size = std::min<std::uint64_t>(1U << 20, entry.end - at);
      char text[9];
      std::snprintf(text, sizeof(text), "%08lx",
                    ::crc32(0, reinterpret_cast<unsigned char const*>(file.data() + data + at),
                            static_cast<unsigned>(size)));
      digits += text;
    }
  }
  return digits;
}

std::string digits_in(format::Bytes const& file) {
  auto const header = header_of(file).first;
  auto const* const value = header.find_metadata(format::checks_key);
  return value == nullptr ? "none" : value->substr(8);
}

sm::StateDict small_state(float first) {
  sm::StateDict dict;
  sm::Tensor<float> weight(sm::Shape{2, 3});
  for (std::size_t i = 0; i < 6; ++i) {
    weight.data()[i] = first + static_cast<float>(i);
  }
  dict.insert("weight", weight);
  dict.insert("empty", sm::Tensor<float>(sm::Shape{0, 4}));
  sm::Tensor<std::int64_t> scalar(sm::Shape{});
  scalar.data()[0] = 7;
  dict.insert("scalar", scalar);
  return dict;
}

/// Loads into zeros what `small_state` saved.
/// @returns what was thrown; empty if the same came back.
std::string load_small(std::string const& path, float first) {
  sm::StateDict const expected = small_state(first);
  std::string fault;
  try {
    sm::launch(sm::threads{1}, [&](auto& world) {
      sm::StateDict dict = small_state(100);
      sm::load_any(world, path, dict);
      for (sm::StateEntry const& entry : dict) {
        if (entry.tensor().local_bytes() != expected.at(entry.key).tensor().local_bytes()) {
          fault = "other elements of " + entry.key;
        }
      }
    });
  } catch (sm::Error const& error) {
    fault = error.what();
  }
  return fault;
}

}  // namespace

TEST_CASE("a CRC of zeros is that of zlib") {
  for (std::size_t const size : {0U, 1U, 2U, 3U, 7U, 8U, 1000U, 4097U, 1U << 20}) {
    std::vector<unsigned char> const zeros(size);
    CHECK(format::crc32_of_zeros(size) ==
          ::crc32(0, size == 0 ? nullptr : zeros.data(), static_cast<unsigned>(size)));
  }
}

TEST_CASE("no flipped bit of a safetensors file loads as something else") {
  test::Scratch const scratch;
  std::string const path = scratch / "x.safetensors";
  sm::save_safetensors(path, small_state(1));
  format::Bytes const good = content(path);
  CHECK(digits_in(good) == expected_digits(good));
  CHECK(load_small(path, 1).empty());
  std::string const changed = scratch / "y.safetensors";
  std::size_t unseen = 0;
  std::size_t seen = 0;
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    format::Bytes bad = good;
    bad[bit / 8] ^= std::byte{1} << (bit % 8);
    put(changed, bad);
    std::string const fault = load_small(changed, 1);
    CAPTURE(bit / 8);
    CAPTURE(fault);
    CHECK(fault.find("other elements") == std::string::npos);
    ++(fault.empty() ? unseen : seen);
    if (bit / 8 >= header_of(good).second) {
      CHECK(fault.find("is damaged") != std::string::npos);
    }
  }
  // What is not seen stands in the name of the checksums and in the spaces, and changes no element.
  CHECK(unseen <= 8 * (format::checks_key.size() + 16));
  CHECK(seen > 8 * good.size() * 3 / 4);
}

TEST_CASE("verify finds damaged elements in safetensors files of ours, and says so of others") {
  test::Scratch const scratch;
  std::string const path = scratch / "x.safetensors";
  sm::save_safetensors(path, small_state(1));
  auto const report = [&] {
    sm::SafetensorsCatalog catalog(path);
    return sm::verify(catalog);
  };
  CHECK(report().has_checksums);
  CHECK(report().damage.empty());
  format::Bytes bad = content(path);
  bad.back() ^= std::byte{4};
  put(path, bad);
  CHECK(report().damage.size() == 1);
  CHECK(report().damage.at(0).what.find("is damaged: bytes ") != std::string::npos);
  // The same without checksums: nobody can tell.
  format::SafetensorsHeader header = header_of(bad).first;
  header.metadata.clear();
  format::Bytes plain = format::write_safetensors_header(header);
  plain.insert(plain.end(), bad.begin() + static_cast<std::ptrdiff_t>(header_of(bad).second),
               bad.end());
  put(path, plain);
  CHECK_FALSE(report().has_checksums);
  CHECK(report().damage.empty());
}

TEST_CASE("a program that keeps our metadata and changes the tensors makes no damage") {
  test::Scratch const scratch;
  std::string const path = scratch / "x.safetensors";
  sm::save_safetensors(path, small_state(1));
  format::Bytes const ours = content(path);
  std::size_t const data = header_of(ours).second;
  // As Python's writer does: the same JSON, aligned with no more spaces than it takes.
  std::string text(format::as_text(format::ByteSpan(ours).subspan(8, data - 8)));
  text.resize(text.size() - format::check_spaces);
  format::Bytes theirs(8);
  auto const size = static_cast<std::uint64_t>(text.size());
  std::memcpy(theirs.data(), &size, 8);
  format::append_text(theirs, text);
  theirs.insert(theirs.end(), ours.begin() + static_cast<std::ptrdiff_t>(data), ours.end());
  theirs.back() ^= std::byte{1};
  put(path, theirs);
  sm::SafetensorsCatalog catalog(path);
  sm::VerifyReport const report = sm::verify(catalog);
  CHECK(report.damage.empty());
  CHECK_FALSE(report.has_checksums);
  REQUIRE(report.notes.size() == 1);
  CHECK(report.notes[0].find("another program") != std::string::npos);
}

TEST_CASE("many ranks write the checksums that one would, however tensors are cut") {
  test::Scratch const scratch;
  for (int const ranks : {1, 2, 3, 4}) {
    std::string const name = std::to_string(ranks);
    sm::launch(sm::threads{ranks}, [&](auto& world) {
      auto const mesh = sm::device_mesh<1>(world, {ranks});
      auto const cut = [&](sm::Shape const& shape, sm::Placement const& placement) {
        sm::Tensor<float> whole(shape);
        for (std::size_t i = 0; i < whole.span().size(); ++i) {
          whole.span()[i] = static_cast<float>((i * 2'654'435'761U) % 1'000'003U);
        }
        return sm::distribute(whole, mesh, sm::PlacementList{placement}, sm::DataSource::own);
      };
      sm::StateDict dict;
      dict.insert("rows", cut({700, 513}, sm::Shard{0}));
      dict.insert("columns", cut({513, 701}, sm::Shard{1}));
      dict.insert("copies", cut({300'001}, sm::Replicate{}));
      dict.insert("few", cut({1}, sm::Shard{0}));
      sm::save_safetensors(world, scratch / name + ".safetensors", dict);
      sm::save_safetensors_sharded(world, scratch / name + "-hub", dict, 1'500'000);
      sm::save_safetensors_by_rank(world, scratch / name + "-ranks", dict);
    });
    format::Bytes const file = content(scratch / name + ".safetensors");
    CHECK(digits_in(file) == expected_digits(file));
    CHECK(file == content(scratch / "1.safetensors"));
    for (std::string const& form : {name + "-hub", name + "-ranks"}) {
      for (std::string const& part : sm::PosixStorage::list(scratch / form)) {
        if (part.ends_with(".safetensors")) {
          format::Bytes const one = content(scratch / form + "/" + part);
          CHECK(digits_in(one) == expected_digits(one));
        }
      }
      sm::SafetensorsCatalog catalog(scratch / form);
      sm::VerifyReport const report = sm::verify(catalog);
      CHECK(report.has_checksums);
      CHECK(report.damage.empty());
      CHECK(report.values == 4);
    }
  }
}

TEST_CASE("rows of a large tensor are read and checked by themselves") {
  test::Scratch const scratch;
  std::string const path = scratch / "x.safetensors";
  sm::Tensor<std::uint8_t> large(sm::Shape{5 << 10, 1 << 10});
  for (std::size_t i = 0; i < large.span().size(); ++i) {
    large.span()[i] = static_cast<std::uint8_t>(i * 7 + i / 1024);
  }
  sm::StateDict dict;
  dict.insert("large", large);
  sm::save_safetensors(path, dict);
  format::Bytes bad = content(path);
  std::size_t const data = header_of(bad).second;
  bad[data + (std::size_t{3} << 20) + 5] ^= std::byte{1};  // in row 3072
  put(path, bad);
  sm::SafetensorsCatalog catalog(path);
  auto const rows = [&](sm::index_t first, sm::index_t count) {
    sm::StoredBox const box = catalog.read_part("large", 0, {{first, 0}, {count, 1 << 10}});
    auto const size = static_cast<std::size_t>(count) << 10;
    return std::memcmp(box.bytes.data() + box.first,
                       large.data() + (static_cast<std::size_t>(first) << 10), size) == 0 &&
           box.bytes.size() >= size;
  };
  CHECK(rows(0, 3072));
  CHECK(rows(1000, 1));
  CHECK(rows(1023, 2));
  CHECK(rows(4096, 1024));
  CHECK_THROWS_AS(static_cast<void>(rows(3072, 1)), sm::CorruptError);
  CHECK_THROWS_AS(static_cast<void>(rows(4000, 200)), sm::CorruptError);
  CHECK_THROWS_AS(static_cast<void>(catalog.read_box("large", 0)), sm::CorruptError);
}

TEST_CASE("checksums of hundreds of thousands of tensors are a small part of a header") {
  format::SafetensorsHeader header;
  for (std::size_t i = 0; i < 222'747; ++i) {
    header.tensors.push_back({"model.layers." + std::to_string(i) + ".self_attn.q_proj.weight",
                              sm::DType::bfloat16,
                              {16},
                              0,
                              32});
  }
  header.metadata = {format::empty_checks(header.tensors)};
  std::size_t const digits = header.metadata[0].second.size();
  CHECK(digits == 8 * 222'748);
  CHECK(format::write_safetensors_header(header).size() < 30'000'000);
}

TEST_SUITE_END();

}  // namespace safetensors_checks_test
