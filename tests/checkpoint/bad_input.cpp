// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Loads that must fail: one clear error on every rank, and no destination touched.
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/state/full_state_dict.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "../support/hostile_inputs.hpp"

namespace bad_input_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.bad_input");

namespace {

sm::Placement const s0 = sm::Shard{0};

/// A damaged copy of a fixture.
class Copy {
 public:
  explicit Copy(std::string const& name) {
    test::fs::copy(test::fixture(name), scratch_ / "copy", test::fs::copy_options::recursive);
  }
  [[nodiscard]] std::string path() const { return scratch_ / "copy"; }
  void truncate(std::string const& file, std::uintmax_t bytes) const {
    test::fs::resize_file(path() + "/" + file, bytes);
  }
  void flip(std::string const& file, std::size_t at) const {
    std::string bytes = test::slurp(path() + "/" + file);
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    test::spit(path() + "/" + file, bytes);
  }
  void remove(std::string const& file) const { test::fs::remove(path() + "/" + file); }

 private:
  test::Scratch scratch_;
};

/// Loads everything of `from` out of `directory`, expecting a failure; returns what rank 0 was told,
/// or "loaded", or "touched" if a tensor changed.
std::string failure(std::string const& from,
                    std::string const& directory,
                    std::function<void(sm::StateDict&)> const& change = {}) {
  std::vector<std::string> said(2);
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    auto const make = [&] {
      sm::StateDict dict = test::unset_state(sm::DcpCatalog<>(test::fixture(from)), mesh, {s0});
      if (change) {
        change(dict);
      }
      return dict;
    };
    sm::StateDict dict = make();
    std::string what = "loaded";
    try {
      sm::load(world, directory, dict);
    } catch (sm::Error const& error) {
      what = error.what();
    }
    said[static_cast<std::size_t>(world.rank())] =
        what != "loaded" && sm::difference(dict, make()) != "" ? "touched" : what;
  });
  CHECK(said[1] != "loaded");
  CHECK(said[1] != "touched");
  return said[0];
}

bool says(std::string const& what, std::initializer_list<char const*> parts) {
  for (char const* const part : parts) {
    if (what.find(part) == std::string::npos) {
      MESSAGE(what);
      return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("no directory, no checkpoint, another format") {
  test::Scratch const scratch;
  CHECK(says(failure("hsdp_fsdp2", scratch / "nowhere"), {"there is no", "nowhere"}));
  sm::PosixStorage::make_directory(scratch / "empty");
  CHECK(says(failure("hsdp_fsdp2", scratch / "empty"), {"is no checkpoint", "no .metadata"}));
  test::spit(scratch / "empty/.metadata", "PK\x03\x04 some zip file, not a pickle");
  CHECK(says(failure("hsdp_fsdp2", scratch / "empty"), {"empty/.metadata"}));
  test::spit(scratch / "empty/.metadata", "");
  CHECK(says(failure("hsdp_fsdp2", scratch / "empty"), {"empty/.metadata"}));
}

TEST_CASE("a truncated or damaged file is named with the place of the damage") {
  Copy const cut("hsdp_fsdp2");
  cut.truncate("__0_0.distcp", 1000);
  CHECK(says(failure("hsdp_fsdp2", cut.path()), {"__0_0.distcp", "byte"}));
  Copy const gone("hsdp_fsdp2");
  gone.remove("__1_0.distcp");
  CHECK(says(failure("hsdp_fsdp2", gone.path()), {"__1_0.distcp", "No such file"}));
  Copy const flipped("hsdp_fsdp2");
  sm::DcpCatalog<> catalog(flipped.path());
  auto const& info = *catalog.metadata().find("model.net1.0.weight")->tensor()->chunks[0].storage;
  std::string const file = info.relative_path;
  std::string const item =
      test::slurp(flipped.path() + "/" + file).substr(info.offset, info.length);
  sm::StoredBox const box = catalog.read_box("model.net1.0.weight", 0);
  flipped.flip(file, info.offset + box.first + 5);
  CHECK(says(failure("hsdp_fsdp2", flipped.path()), {file.c_str(), "CRC"}));
  Copy const half("hsdp_fsdp2");
  half.truncate(".metadata", 2000);
  CHECK(says(failure("hsdp_fsdp2", half.path()), {".metadata", "byte"}));
}

TEST_CASE("a key that the checkpoint has not, with the nearest that it has") {
  std::string const what =
      failure("hsdp_fsdp2", test::fixture("hsdp_fsdp2"), [](sm::StateDict& dict) {
        dict.insert("net1.0.weight", sm::Tensor<float>::zeros({16, 8}));
      });
  CHECK(says(what, {"has no \"net1.0.weight\"", "\"model.net1.0.weight\"", "hsdp_fsdp2"}));
  CHECK(says(failure("hsdp_fsdp2", test::fixture("hsdp_fsdp2"),
                     [](sm::StateDict& dict) { dict.insert("epoch", sm::Value(1)); }),
             {"has no \"epoch\""}));
}

TEST_CASE("all keys that the checkpoint has not are listed") {
  CHECK(says(failure("hsdp_fsdp2", test::fixture("hsdp_fsdp2"),
                     [](sm::StateDict& dict) {
                       for (char const* const key : {"gone.a", "gone.b", "gone.c"}) {
                         dict.insert(key, sm::Tensor<float>::zeros({16, 8}));
                       }
                     }),
             {"has no \"gone.a\" and no \"gone.b\", \"gone.c\""}));
}

TEST_CASE("shape, dtype or kind differ from what was saved") {
  test::Scratch const scratch;
  auto const load_one = [&](std::string const& key, auto value) {
    sm::launch(sm::threads{2}, [&](auto& world) {
      sm::StateDict dict;
      dict.insert(key, value);
      sm::load(world, test::fixture("hsdp_fsdp2"), dict);
    });
  };
  CHECK_THROWS_WITH_AS(load_one("model.net1.0.weight", sm::Tensor<float>({8, 16})),
                       doctest::Contains("has shape (16, 8), the tensor to load into (8, 16)"),
                       sm::ShapeError);
  CHECK_THROWS_WITH_AS(load_one("model.net1.0.weight", sm::Tensor<double>({16, 8})),
                       doctest::Contains("holds float32, the tensor to load into float64"),
                       sm::InvalidArgument);
  CHECK_THROWS_WITH_AS(load_one("model.net1.0.weight", sm::Value(1)),
                       doctest::Contains("is a tensor, the state dict has a plain value"),
                       sm::KeyError);
  CHECK_THROWS_WITH_AS(load_one("optim.param_groups.0.lr", sm::Tensor<float>({1})),
                       doctest::Contains("is a plain value, the state dict has a tensor"),
                       sm::KeyError);
}

TEST_CASE("a failure on one rank is told to all") {
  test::Scratch const scratch;
  std::vector<std::string> said(3);
  sm::launch(sm::threads{3}, [&](auto& world) {
    sm::StateDict dict;
    dict.insert("model.net1.0.bias", sm::Tensor<float>::zeros({world.rank() == 2 ? 17 : 16}));
    try {
      sm::load(world, test::fixture("hsdp_fsdp2"), dict);
    } catch (sm::Error const& error) {
      said[static_cast<std::size_t>(world.rank())] = error.what();
    }
    CHECK(dict.at("model.net1.0.bias").tensor().local_bytes() ==
          std::vector<std::byte>(world.rank() == 2 ? 68 : 64));
  });
  CHECK(says(said[0], {"rank 2 failed", "has shape (16)"}));
  CHECK(says(said[1], {"rank 2 failed", "has shape (16)"}));
  CHECK(says(said[2], {"has shape (16), the tensor to load into (17)"}));
}

TEST_CASE("safetensors: every rule of the format is held") {
  test::Scratch const scratch;
  auto const open = [&](std::string const& json, std::size_t data, std::size_t length = 0) {
    std::string bytes(8, '\0');
    std::uint64_t const size = length > 0 ? length : json.size();
    std::memcpy(bytes.data(), &size, 8);
    test::spit(scratch / "x.safetensors", bytes + json + std::string(data, '\x01'));
    sm::SafetensorsCatalog const catalog(scratch / "x.safetensors");
    return catalog.keys();
  };
  CHECK(open(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  )", 8).size() == 1);
  CHECK(open(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
                 "b":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}})",
             4)
            .size() == 2);
  auto const refused = [&](std::string const& json, std::size_t data, std::size_t length = 0) {
    try {
      static_cast<void>(open(json, data, length));
    } catch (sm::Error const& error) {
      return std::string(error.what()).find("x.safetensors") != std::string::npos;
    }
    return false;
  };
  CHECK(refused("", 0));
  CHECK(refused("{", 0));
  CHECK(refused("[]", 0));
  CHECK(refused("{}", 1));                       // trailing bytes
  CHECK(refused("{}", 0, 0xffffffff0000003cU));  // absurd header length
  CHECK(refused(R"({"a":1})", 0));
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7));    // truncated
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12));  // a hole
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                    "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                12));                                                              // overlap
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8));  // size
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8));
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8));
  CHECK(
      refused(R"({"a":{"dtype":"F32","shape":[2,18446744073709551614],"data_offsets":[0,8]}})", 8));
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],
                         "data_offsets":[0,0]}})",
                0));  // overflow
  CHECK(open(R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", 8).size() == 1);
  CHECK(refused(R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,9]}})", 8));
  CHECK(open(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":[]}})", 8).size() == 1);
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[2]}})", 8));
  CHECK(refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                    "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                8));  // twice
  CHECK(refused(R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8));
  CHECK(refused(R"({"__metadata__":{"x":1}})", 0));
  CHECK(refused(R"({"a\u0000":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8));
  CHECK(refused("{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8));
  CHECK(refused(R"({"a":{"b":{"c":{"d":{}}}}})", 0));
}

TEST_CASE("safetensors of several files: a missing or doubled part is found") {
  Copy const copy("hf_safetensors");
  std::string const second = "shard-00002-model-00001-of-00001.safetensors";
  CHECK(sm::SafetensorsCatalog(copy.path()).keys().size() == 8);
  auto const problems = [&] {
    sm::SafetensorsCatalog const catalog(copy.path());
    std::string all;
    for (std::string const& key : catalog.keys()) {
      if (auto const* const problem = catalog.problem(key)) {
        all += *problem + "\n";
      }
    }
    return all;
  };
  CHECK(problems() == "");
  test::fs::copy(copy.path() + "/" + second, copy.path() + "/again.safetensors");
  CHECK(says(problems(), {"same part"}));
  test::fs::remove(copy.path() + "/again.safetensors");
  copy.remove("shard-00001-model-00001-of-00001.safetensors");
  CHECK(says(problems(), {"is a file missing?"}));
}

TEST_CASE(
    "safetensors: a model of several files with an index, through links as in a hub's cache") {
  test::Scratch const scratch;
  auto const write = [&](std::string const& file, std::string const& key, float value) {
    sm::StateDict dict;
    sm::Tensor<float> tensor(sm::Shape{3});
    std::fill(tensor.span().begin(), tensor.span().end(), value);
    dict.insert(key, tensor);
    sm::save_safetensors(scratch / file, dict);
  };
  test::fs::create_directory(scratch / "model");
  write("blob-1", "a", 1);
  write("blob-2", "b", 2);
  write("model/consolidated.safetensors", "a", 3);  // not in the index
  test::fs::create_symlink("../blob-1", scratch / "model/model-1.safetensors");
  test::fs::create_symlink("../blob-2", scratch / "model/model-2.safetensors");
  std::string const index = scratch / "model/model.safetensors.index.json";
  auto const said = [&](std::string const& text) {
    test::spit(index, text);
    try {
      sm::SafetensorsCatalog const catalog(scratch / "model");
      for (std::string const& key : catalog.keys()) {
        if (auto const* const problem = catalog.problem(key)) {
          return *problem;
        }
      }
    } catch (sm::Error const& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(said(R"({"metadata":{"total_size":24},"weight_map":
                 {"a":"model-1.safetensors","b":"model-2.safetensors"}})") == "");
  sm::SafetensorsCatalog catalog(scratch / "model");
  CHECK(catalog.keys() == std::vector<std::string>{"a", "b"});
  float first = 0;
  std::memcpy(&first, catalog.read_box("a", 0).bytes.data(), sizeof(first));
  CHECK(first == 1);
  CHECK(says(said("[]"), {"index.json", "weight_map"}));
  CHECK(says(said(R"({"weight_map":{"a":"../blob-1"}})"), {"index.json", "\"a\"", "plain name"}));
  CHECK(says(said(R"({"weight_map":{"a":"model-3.safetensors"}})"), {"model-3", "No such file"}));
  CHECK(says(said(R"({"weight_map":{"c":"model-1.safetensors"}})"),
             {"index.json", "\"c\" is in model-1.safetensors", "no such tensor"}));
}

TEST_CASE("save_safetensors writes what it can read, and refuses shards") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    sm::StateDict dict = test::unset_state(sm::DcpCatalog<>(test::fixture("dtypes")), mesh, {s0});
    sm::load(world, test::fixture("dtypes"), dict);
    CHECK_THROWS_WITH_AS(sm::save_safetensors(scratch / "x.safetensors", dict),
                         doctest::Contains("take full_state_dict first"), sm::InvalidArgument);
    sm::StateDict const full = sm::full_state_dict(dict);
    if (world.rank() == 0) {
      sm::save_safetensors(scratch / "whole.safetensors", full);
    }
    sm::StateDict again = test::unset_state(sm::DcpCatalog<>(test::fixture("dtypes")), mesh, {s0});
    sm::StateDict tensors;
    for (sm::StateEntry const& entry : again) {
      if (entry.is_tensor()) {
        tensors.insert(entry.path, entry.value);
      }
    }
    static_cast<void>(world.all_gather({}));  // until rank 0 has written
    sm::load_any(world, scratch / "whole.safetensors", tensors);
    auto whole = test::references("dtypes");
    CHECK(test::difference_from(whole, tensors, {world.rank()}) == "");
  });
  CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
}

TEST_CASE("data of another checkpoint, as long as its own, is told of where no manifest does") {
  test::Scratch const scratch;
  sm::launch(sm::threads{1}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {1});
    auto const state = [&](sm::Shape const& shape) {
      sm::StateDict dict;
      dict.insert("w", test::unset_tensor(sm::DType::float32, shape, mesh, {s0}));
      return dict;
    };
    sm::save(world, scratch / "a", state({2, 3}));
    sm::save(world, scratch / "b", state({3, 2}));
    std::string other;
    for (auto const& entry : test::fs::directory_iterator(scratch / "b")) {
      other = entry.path().extension() == ".distcp" ? test::slurp(entry.path()) : other;
    }
    for (auto const& entry : test::fs::directory_iterator(scratch / "a")) {
      if (entry.path().extension() == ".distcp") {
        REQUIRE(other.size() == test::fs::file_size(entry.path()));
        test::spit(entry.path(), other);
      }
    }
    test::fs::remove(scratch / "a" + "/.shardmesh");
    sm::StateDict dict = state({2, 3});
    CHECK_THROWS_WITH_AS(sm::load(world, scratch / "a", dict),
                         doctest::Contains("do the files belong to one checkpoint?"),
                         sm::CorruptError);
  });
}

TEST_CASE("a huge tensor in a tiny file, and items that went through a transform: refused, at no "
          "memory") {
  namespace hostile = test::hostile;
  constexpr std::int64_t huge = std::int64_t{1} << 40;
  std::string const six(24, 'd');
  auto const item = [&](std::int64_t extent, std::int64_t stride) {
    return hostile::tensor_of(hostile::rebuild(6, 0, {extent}, {stride}), six, "little");
  };
  struct Case {
    std::string chunk;
    std::string item;
    std::string transform;
    std::string read;    ///< that reading the item says; empty: it is read
    std::string verify;  ///< that `verify` says
  };
  std::string const zstd =
      hostile::text("transform_descriptors") + "](" + hostile::text("stream.zstd/1") + "e";
  std::string const all = hostile::chunk({0}, {huge});
  for (Case const& one :
       {Case{all, item(6, 1), "", "holds float32 (6), .metadata says float32 (1099511627776)",
             "holds float32 (6), .metadata says"},
        Case{all, item(huge, 1), "", "larger than its stored elements",
             "larger than its stored elements"},
        Case{all, "no archive", "", "does not end as one", "does not end as one"},
        Case{hostile::chunk({0}, {6}), item(6, 1), "", "",
             "the items hold 6 of the 1099511627776 elements"},
        Case{all, item(huge, 0), "", "", ""},  // one element, which is meant so often
        Case{all, item(6, 1), zstd, "went through stream.zstd/1 when it was saved, which is not",
             "went through stream.zstd/1"}}) {
    CAPTURE(one.read);
    CAPTURE(one.verify);
    test::Scratch const scratch;
    std::vector<std::string> members{hostile::text("relative_path"),
                                     hostile::text("f"),
                                     hostile::text("offset"),
                                     hostile::number(0),
                                     hostile::text("length"),
                                     hostile::number(static_cast<std::int64_t>(one.item.size())),
                                     one.transform};
    test::spit(scratch / ".metadata",
               hostile::whole(hostile::text("w") + hostile::tensor_entry({huge}, one.chunk),
                              hostile::place("w", {0}) +
                                  hostile::object("_StorageInfo", hostile::dict(members))));
    test::spit(scratch / "f", one.item);
    sm::DcpCatalog<> catalog(scratch / "");
    std::string said;
    try {
      sm::StoredBox const box = catalog.read_box("w", 0);
      CHECK(box.bytes.size() < 4096);
    } catch (sm::Error const& error) {
      said = error.what();
    }
    CAPTURE(said);
    CHECK(said.empty() == one.read.empty());
    CHECK(said.find(one.read) != said.npos);
    sm::VerifyReport const report = sm::verify(catalog);
    REQUIRE(report.damage.size() == (one.verify.empty() ? 0 : 1));
    if (!one.verify.empty()) {
      CHECK(report.damage[0].key == "w");
      CHECK(report.damage[0].what.find(one.verify) != std::string::npos);
    }
    CHECK(report.bytes < 4096);
  }
}

TEST_SUITE_END();

}  // namespace bad_input_test
