// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Checkpoints of PyTorch's format as the ecosystem leaves them on disks: links, odd keys, lazy views,
// other programs' classes, element types that are not known. tests/data/make_files.py wrote them.
#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>

#include <algorithm>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "damage.hpp"

namespace dcp_files_test {

namespace sm = shardmesh;

using test::failure_of;
using Path = std::vector<sm::PathElement>;

TEST_SUITE_BEGIN("checkpoint.dcp_files");

namespace {

struct Inner {
  sm::Tensor<float> w{sm::Shape{1}};
  void visit(auto&& v) { v("w", w); }
};
struct Model {
  Inner inner;
  void visit(auto&& v) { v("", inner); }
};

std::string file(std::string const& name) {
  return test::data_directory + "/files/" + name;
}

/// What `verify` finds first in a checkpoint.
std::string verify_path(std::string const& path) {
  sm::VerifyReport const report =
      sm::with_catalog(path, [](auto& catalog) { return sm::verify(catalog); });
  return report.damage.empty() ? "" : report.damage.front().key + ": " + report.damage.front().what;
}

/// A state dict with everything that a checkpoint has, under the paths that it has there.
template <class C, class Mesh>
sm::StateDict unset_like(C const& catalog, Mesh const& mesh, sm::PlacementList const& list) {
  sm::StateDict dict;
  for (sm::format::MetadataEntry const& entry : catalog.metadata().entries) {
    if (auto const* const tensor = catalog.tensor(entry.fqn)) {
      dict.insert(entry.path, test::unset_tensor(tensor->dtype, tensor->shape, mesh, list));
    } else {
      dict.insert(entry.path, sm::Value());
    }
  }
  return dict;
}

/// Everything in a checkpoint of PyTorch's format, on one rank.
sm::StateDict read_all(std::string const& path) {
  sm::StateDict result;
  sm::launch(sm::threads{1}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {1});
    result = unset_like(sm::DcpCatalog<>(path), mesh, {sm::Replicate{}});
    sm::load(world, path, result);
  });
  return result;
}

/// Reads, verifies, writes and reads again, also as a stream; returns what was read.
sm::StateDict checked(std::string const& path) {
  test::Scratch const scratch;
  CHECK(verify_path(path) == "");
  sm::StateDict dict = read_all(path);
  sm::launch(sm::threads{1}, [&](auto& world) { sm::save(world, scratch / "again", dict); });
  CHECK(sm::difference(dict, read_all(scratch / "again")) == "");
  CHECK(verify_path(scratch / "again") == "");
  std::stringstream stream;
  sm::save_stream(stream, dict);
  sm::StateDict other;
  sm::launch(sm::threads{1}, [&](auto& world) {
    other = unset_like(sm::DcpCatalog<>(path), sm::device_mesh<1>(world, {1}), {sm::Replicate{}});
  });
  sm::load_stream(stream, other);
  CHECK(sm::difference(dict, other) == "");
  return dict;
}

template <class T>
std::vector<T> elements(sm::StateDict const& dict, std::string const& key) {
  std::vector<std::byte> const bytes = dict.at(key).tensor().local_bytes();
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace

TEST_CASE("empty parts of keys are kept: PyTorch's {\"\": {\"w\": t}} is \".w\"") {
  sm::StateDict const dict = checked(file("keys"));
  REQUIRE(dict.size() == 6);
  CHECK(elements<float>(dict, ".kernel") == std::vector<float>{2, 2, 2});
  CHECK(elements<float>(dict, ".") == std::vector<float>{3, 3});
  CHECK(elements<float>(dict, "kernel") == std::vector<float>{7, 7, 7});
  CHECK(dict.at("a..b").path == Path{"a", "", "b"});
  CHECK(dict.at("a..b").plain() == sm::Value(5));
  CHECK(dict.at(".").path == Path{"", ""});
}

TEST_CASE("a plain value in a container whose key is empty is found in it") {
  test::Scratch const scratch;
  using sm::Value;
  sm::StateDict whole;
  whole.insert("", Value(Value::Dict{{"", Value(1)}, {"lr", Value(2)}}));
  whole.insert(Path{"a", ""}, Value(Value::Dict{{"lr", Value(3)}}));
  sm::launch(sm::threads{1}, [&](auto& world) {
    sm::save(world, scratch / "x", whole);
    sm::StateDict dict;
    dict.insert(Path{"", ""}, Value());
    dict.insert(Path{"", "lr"}, Value());
    dict.insert(Path{"a", "", "lr"}, Value());
    sm::load(world, scratch / "x", dict);
    CHECK(dict.at(".").plain() == Value(1));
    CHECK(dict.at(".lr").plain() == Value(2));
    CHECK(dict.at("a..lr").plain() == Value(3));
  });
}

TEST_CASE("names of a model's members keep their empty parts") {
  Model model;
  CHECK(sm::state_dict(model).contains(".w"));
}

TEST_CASE("a cache of a model hub, whose files are links, is read as the files that it links to") {
  test::Scratch const scratch;
  std::string const name = "hsdp_fsdp2";
  test::fs::copy(test::fixture(name), scratch / "blobs", test::fs::copy_options::recursive);
  test::fs::create_directory(scratch / "snapshot");
  for (std::string const& one : sm::PosixStorage::list(scratch / "blobs")) {
    test::fs::create_symlink("../blobs/" + one, scratch / ("snapshot/" + one));
  }
  test::fs::create_directory_symlink("snapshot", scratch / "latest");
  for (std::string const& path : {scratch / "snapshot", scratch / "latest"}) {
    CHECK(verify_path(path) == "");
    CHECK(sm::difference(read_all(test::fixture(name)), read_all(path)) == "");
    sm::launch(sm::threads{2}, [&](auto& world) {
      auto const mesh = sm::device_mesh<1>(world, {2});
      sm::StateDict dict = unset_like(sm::DcpCatalog<>(path), mesh, {sm::Shard{0}});
      sm::load_any(world, path, dict);
      auto whole = test::references(name);
      CHECK(test::difference_from(whole, dict, {world.rank()}) == "");
    });
  }
  // What a download left out is told; a pipe or a device is no file, wherever the link comes from.
  test::fs::remove(scratch / "blobs/__1_0.distcp");
  auto const gone = failure_of([&] { read_all(scratch / "snapshot"); });
  CHECK(
      gone.says("snapshot/__1_0.distcp: it is a symbolic link to ../blobs/__1_0.distcp: No such"));
  test::fs::create_symlink("/dev/zero", scratch / "blobs/__1_0.distcp");
  CHECK(failure_of([&] { read_all(scratch / "snapshot"); }).says("it is no regular file"));
}

TEST_CASE("conjugate and negative views are read as the tensors that they are") {
  sm::StateDict const dict = checked(file("views"));
  sm::SafetensorsCatalog reference(file("views/reference.safetensors"));
  CHECK(reference.keys().size() == 6);
  for (std::string const& key : reference.keys()) {
    CHECK_MESSAGE(std::ranges::equal(dict.at(key).tensor().local_bytes(),
                                     reference.read_box(key, 0).bytes.span()),
                  key);
    CHECK(dict.at(key).tensor().dtype() == reference.tensor(key)->dtype);
  }
  using Complex = sm::Complex<double>;
  CHECK(dict.at("wide").tensor().shape() == sm::Shape{3, 2});  // arange(6) (1 + i), transposed
  CHECK(elements<Complex>(dict, "wide") == std::vector<Complex>{Complex(0, 0), Complex(3, -3),
                                                                Complex(1, -1), Complex(4, -4),
                                                                Complex(2, -2), Complex(5, -5)});
  CHECK(elements<float>(dict, "plain") == std::vector<float>{1, 1});
}

TEST_CASE(
    "classes of Megatron-Core and of anybody else may stand where nothing is needed of them") {
  for (char const* const name : {"megatron_root", "megatron_plans", "other_root"}) {
    sm::StateDict const dict = checked(file(name));
    REQUIRE(dict.size() == 3);
    std::vector<float> counting(24);
    for (std::size_t i = 0; i < 24; ++i) {
      counting[i] = static_cast<float>(i);
    }
    CHECK(elements<float>(dict, "decoder.layers.qkv") == counting);
    CHECK(dict.at("decoder.layers.qkv").tensor().shape() == sm::Shape{6, 4});
    CHECK(elements<float>(dict, "embedding") == std::vector<float>{8, 8, 8});
    CHECK(dict.at("step").plain() == sm::Value(7));
  }
}

namespace {

/// A safetensors file written by hand.
void write_safetensors(std::string const& path, std::string const& json, std::string const& data) {
  std::string bytes(8, '\0');
  std::uint64_t const size = json.size();
  std::memcpy(bytes.data(), &size, 8);
  test::spit(path, bytes + json + data);
}

/// Everything in a safetensors file, on one rank.
sm::StateDict read_safetensors(std::string const& path) {
  sm::StateDict dict;
  sm::launch(sm::threads{1}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {1});
    dict = test::unset_state(sm::SafetensorsCatalog(path), mesh, {sm::Replicate{}});
    sm::load_any(world, path, dict);
  });
  return dict;
}

std::vector<unsigned> bytes_of(sm::StateDict const& dict, std::string const& key) {
  std::vector<unsigned> values;
  for (std::byte const byte : dict.at(key).tensor().local_bytes()) {
    values.push_back(std::to_integer<unsigned>(byte));
  }
  return values;
}

}  // namespace

TEST_CASE("four-bit floats and their scales are loaded, saved and converted") {
  test::Scratch const scratch;
  sm::StateDict const dict = checked(file("fp4/dcp"));
  CHECK(dict.at("w").tensor().dtype() == sm::DType::float4_e2m1fn_x2);
  CHECK(dict.at("w").tensor().shape() == sm::Shape{2, 4});
  CHECK(bytes_of(dict, "w") == std::vector<unsigned>{0, 1, 2, 3, 4, 5, 6, 7});
  auto const scales = elements<sm::Float8E8M0fnu>(dict, "w_scale");
  CHECK(static_cast<float>(scales.at(0)) == 1);
  CHECK(static_cast<float>(scales.at(1)) == 4);
  CHECK(elements<float>(dict, "bias") == std::vector<float>(4, 5));
  sm::StateDict const same = read_safetensors(file("fp4/model.safetensors"));
  CHECK(verify_path(file("fp4/model.safetensors")) == "");
  for (char const* const key : {"w", "w_scale", "bias"}) {
    CHECK(same.at(key).tensor().dtype() == dict.at(key).tensor().dtype());
    CHECK(same.at(key).tensor().shape() == dict.at(key).tensor().shape());
    CHECK(bytes_of(same, key) == bytes_of(dict, key));
  }
  sm::save_safetensors(scratch / "again.safetensors", dict);
  CHECK(sm::difference(dict, [&] {
          sm::StateDict again = read_safetensors(scratch / "again.safetensors");
          sm::StateDict ordered;
          for (sm::StateEntry const& entry : dict) {
            ordered.insert(entry.path, again.at(entry.key).value);
          }
          return ordered;
        }()) == "");
  // Over ranks, by rows and by columns of bytes.
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    for (int const dim : {0, 1}) {
      sm::StateDict part;
      part.insert("w",
                  test::unset_tensor(sm::DType::float4_e2m1fn_x2, {2, 4}, mesh, {sm::Shard{dim}}));
      sm::load_any(world, file(dim == 0 ? "fp4/dcp" : "fp4/model.safetensors"), part);
      auto const values = bytes_of(part, "w");
      bool const first = world.rank() == 0;
      CHECK(values == (dim == 0 ? (first ? std::vector<unsigned>{0, 1, 2, 3}
                                         : std::vector<unsigned>{4, 5, 6, 7})
                                : (first ? std::vector<unsigned>{0, 1, 4, 5}
                                         : std::vector<unsigned>{2, 3, 6, 7})));
    }
  });
}

TEST_CASE("six-bit floats are loaded and saved again as safetensors, which alone has them") {
  test::Scratch const scratch;
  std::string const path = scratch / "x.safetensors";
  std::string const json = R"({"a":{"dtype":"F6_E2M3","shape":[2,4],"data_offsets":[0,6]},)"
                           R"("b":{"dtype":"F6_E3M2","shape":[8],"data_offsets":[6,12]}}    )";
  write_safetensors(path, json, "abcdefghijkl");
  sm::StateDict const dict = read_safetensors(path);
  CHECK(dict.at("a").tensor().dtype() == sm::DType::float6_e2m3fn_x4);
  CHECK(dict.at("a").tensor().shape() == sm::Shape{2, 1});
  CHECK(dict.at("b").tensor().shape() == sm::Shape{2});
  CHECK(bytes_of(dict, "b") == std::vector<unsigned>{'g', 'h', 'i', 'j', 'k', 'l'});
  sm::save_safetensors(scratch / "y.safetensors", dict);
  CHECK(test::slurp(scratch / "y.safetensors").ends_with("abcdefghijkl"));
  CHECK(sm::difference(dict, read_safetensors(scratch / "y.safetensors")) == "");
  auto const dcp = failure_of([&] {
    sm::launch(sm::threads{1}, [&](auto& world) { sm::save(world, scratch / "dcp", dict); });
  });
  CHECK(dcp.says("\"a\" is float6_e2m3fn_x4, which PyTorch has not"));
  CHECK_FALSE(sm::PosixStorage::exists(scratch / "dcp"));
  std::stringstream stream;
  CHECK(failure_of([&] { sm::save_stream(stream, dict); }).says("which PyTorch has not"));
}

TEST_CASE("a tensor of an unknown element type is listed, and refused only when it is read") {
  test::Scratch const scratch;
  write_safetensors(scratch / "x.safetensors",
                    R"({"odd":{"dtype":"F2","shape":[8],"data_offsets":[0,2]},)"
                    R"("half":{"dtype":"F4","shape":[2,3],"data_offsets":[2,5]},)"
                    R"("w":{"dtype":"U8","shape":[3],"data_offsets":[5,8]}})",
                    "abcdefgh");
  struct Case {
    std::string path;
    std::string key;
    std::string unknown;
  };
  for (Case const& one :
       {Case{file("unknown_dtypes"), "half", "unknown dtype 'torch.complex32'"},
        Case{file("unknown_dtypes"), "quantized", "unknown dtype 'torch.quint8'"},
        Case{scratch / "x.safetensors", "odd", "unknown dtype 'F2'"},
        Case{scratch / "x.safetensors", "half", "F4 (2, 3), whose rows are not"}}) {
    sm::with_catalog(one.path, [&](auto& catalog) {
      CHECK(catalog.keys().size() == 3);
      REQUIRE(catalog.tensor(one.key) != nullptr);
      CHECK(dtype_text(*catalog.tensor(one.key)).starts_with(one.unknown));
      CHECK(catalog.tensor(one.key)->boxes.size() == 1);
      CHECK(catalog.files(one.key).size() == 1);
      CHECK(dtype_text(*catalog.tensor("w")).find("unknown") == std::string::npos);
      auto const box = failure_of([&] { static_cast<void>(catalog.read_box(one.key, 0)); });
      CHECK(box.kind == "UnsupportedError");
      CHECK(box.says(one.path + ": \"" + one.key + "\" cannot be read: " + one.unknown));
      sm::VerifyReport const report = sm::verify(catalog);
      CHECK(report.damage.empty());
      CHECK(report.values == 3);
      REQUIRE(report.unchecked.size() == 2);
      CHECK(report.unchecked[0].what.starts_with("not checked: "));
      // The others load; it does not, and touches nothing.
      sm::launch(sm::threads{2}, [&](auto& world) {
        auto const mesh = sm::device_mesh<1>(world, {2});
        sm::StateDict dict;
        dict.insert("w", test::unset_tensor(catalog.tensor("w")->dtype, catalog.tensor("w")->shape,
                                            mesh, {sm::Shard{0}}));
        sm::load_any(world, one.path, dict);
        auto const before = dict.at("w").tensor().local_bytes();
        CHECK(before[0] != std::byte{0xa5});
        dict.insert(one.key, sm::Tensor<float>(catalog.tensor(one.key)->shape));
        auto const load = failure_of([&] { sm::load_any(world, one.path, dict); });
        CHECK(load.kind == "UnsupportedError");
        CHECK(load.says("\"" + one.key + "\" cannot be read: " + one.unknown));
        CHECK(load.says("everything else can be loaded without it"));
        CHECK(dict.at("w").tensor().local_bytes() == before);
      });
    });
  }
}

TEST_CASE("a tensor of more than eight dimensions blocks itself alone") {
  test::Scratch const scratch;
  write_safetensors(scratch / "x.safetensors",
                    R"({"a":{"dtype":"U8","shape":[1,1,1,1,2,1,1,1,1],"data_offsets":[0,2]},)"
                    R"("w":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                    "abc");
  for (std::string const& path : {file("nine_dimensions"), scratch / "x.safetensors"}) {
    sm::with_catalog(path, [&](auto& catalog) {
      REQUIRE(catalog.tensor("a") != nullptr);
      CHECK(dtype_text(*catalog.tensor("a")) == "9 dimensions; at most 8 are supported");
      sm::VerifyReport const report = sm::verify(catalog);
      CHECK(report.damage.empty());
      CHECK(report.unchecked.size() == 1);
      sm::launch(sm::threads{1}, [&](auto& world) {
        sm::StateDict dict;
        sm::Tensor<std::uint8_t> const w(sm::Shape{1});
        dict.insert("w", w);
        sm::load_any(world, path, dict);
        CHECK(w.span()[0] == 'c');
        dict.insert("a", sm::Tensor<std::uint8_t>(sm::Shape{2}));
        CHECK(failure_of([&] {
                sm::load_any(world, path, dict);
              }).says("\"a\" cannot be read: 9 dimensions"));
      });
    });
  }
}

TEST_CASE("damage in a tensor of an unknown element type is found") {
  test::Scratch const scratch;
  std::string const name = "unknown_dtypes";
  test::fs::copy(file(name), scratch / name, test::fs::copy_options::recursive);
  sm::DcpCatalog<> catalog(scratch / name);
  auto const& info = *catalog.metadata().find("quantized")->tensor()->chunks[0].storage;
  std::string const data = scratch / (name + "/" + info.relative_path);
  std::string bytes = test::slurp(data);
  auto const item = sm::File::open(data).read(info.offset, info.length);
  std::size_t const element = info.offset + sm::format::read_zip(item).find("data/0")->offset;
  bytes[element] = static_cast<char>(bytes[element] ^ 1);
  test::spit(data, bytes);
  CHECK(verify_path(scratch / name).starts_with("quantized: "));
  bytes.resize(info.offset + info.length - 10);
  test::spit(data, bytes);
  CHECK(verify_path(scratch / name).find("truncated file?") != std::string::npos);
}

TEST_SUITE_END();

}  // namespace dcp_files_test
