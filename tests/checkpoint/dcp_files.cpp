// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Checkpoints of PyTorch's format as the ecosystem leaves them on disks: links, odd keys, lazy views,
// other programs' classes, element types that are not known. tests/data/make_files.py wrote them.
#include <shardmesh/checkpoint/dcp_catalog.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>

#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "damage.hpp"

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
    CHECK_MESSAGE(dict.at(key).tensor().local_bytes() == reference.read_box(key, 0).bytes, key);
    CHECK(dict.at(key).tensor().dtype() == reference.tensor(key)->dtype);
  }
  using Complex = sm::Complex<double>;
  CHECK(dict.at("wide").tensor().shape() == sm::Shape{3, 2});  // arange(6) (1 + i), transposed
  CHECK(elements<Complex>(dict, "wide") == std::vector<Complex>{Complex(0, 0), Complex(3, -3),
                                                                Complex(1, -1), Complex(4, -4),
                                                                Complex(2, -2), Complex(5, -5)});
  CHECK(elements<float>(dict, "plain") == std::vector<float>{1, 1});
}

TEST_CASE("classes of Megatron-Core and of anybody else may stand where nothing is needed of them") {
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

TEST_SUITE_END();
