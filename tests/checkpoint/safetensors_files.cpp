// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Models of several safetensors files: what an index decides, what the names of files tell, and what is
// left of a model that has lost some of them.
#include <shardmesh/checkpoint/safetensors_files.hpp>
#include <shardmesh/checkpoint/safetensors_index.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/checkpoints.hpp"

namespace safetensors_files_test {

namespace sm = shardmesh;
namespace format = shardmesh::format;

TEST_SUITE_BEGIN("checkpoint.safetensors_files");

namespace {

using Names = std::vector<std::string>;

/// A copy of a model in tests/data, to be changed.
class Copy {
 public:
  explicit Copy(std::string const& model) {
    test::fs::copy(test::data_directory + "/" + model, path(), test::fs::copy_options::recursive);
  }
  [[nodiscard]] std::string path() const { return scratch_ / "model"; }
  [[nodiscard]] std::string operator/(std::string const& name) const { return path() + "/" + name; }
  void rename(std::string const& from, std::string const& to) const {
    test::fs::rename(*this / from, *this / to);
  }

 private:
  test::Scratch scratch_;
};

std::string const stale = test::data_directory + "/hub/stale";
std::string const variant = test::data_directory + "/hub/variant";
std::string const missing = test::data_directory + "/hub/missing";

Names sorted(Names names) {
  std::sort(names.begin(), names.end());
  return names;
}

Names keys_of(std::string const& path) {
  return sorted(sm::SafetensorsCatalog(path).keys());
}

/// What cannot be read.
Names blocked(std::string const& path) {
  sm::SafetensorsCatalog const catalog(path);
  Names names;
  for (std::string const& key : catalog.keys()) {
    if (catalog.problem(key) != nullptr) {
      CHECK(catalog.tensor(key) == nullptr);
      names.push_back(key);
    }
  }
  return sorted(names);
}

bool says(std::string const& what, std::vector<std::string> const& words) {
  for (std::string const& word : words) {
    if (what.find(word) == std::string::npos) {
      MESSAGE("\"" << what << "\" does not say \"" << word << "\"");
      return false;
    }
  }
  return true;
}

template <class Part>
std::string refusal(Part part) {
  try {
    part();
  } catch (sm::Error const& error) {
    return error.what();
  }
  return "no error";
}

/// Loads one tensor by two ranks that shard it.
/// @returns its first element on each rank, or what rank 0 was told.
template <class T>
std::string first_elements(std::string const& path,
                           std::string const& key,
                           sm::Shape const& shape,
                           sm::LoadOptions const& options = {}) {
  std::string found;
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    sm::AnyTensor const tensor = test::unset_tensor(sm::dtype_of<T>, shape, mesh, {sm::Shard{0}});
    sm::StateDict dict;
    dict.insert(key, tensor);
    std::string said = refusal([&] { sm::load_any(world, path, dict, options); });
    if (said == "no error") {
      auto const bytes = tensor.local_bytes();
      T first{};
      std::memcpy(&first, bytes.data(), sizeof(T));
      said = std::to_string(static_cast<float>(first));
    } else {
      auto const bytes = tensor.local_bytes();
      CHECK(std::count(bytes.begin(), bytes.end(), std::byte{0xa5}) ==
            static_cast<std::ptrdiff_t>(bytes.size()));
    }
    auto const all = sm::all_gather_text(world, said);
    if (world.rank() == 0) {
      found = all[0] == all[1] ? all[0] : all[0] + " | " + all[1];
    }
  });
  return found;
}

sm::VerifyReport verify_path(std::string const& path) {
  return sm::with_catalog(path, [](auto& catalog) { return sm::verify(catalog); });
}

Names damaged(std::string const& path) {
  Names names;
  for (sm::Damage const& one : verify_path(path).damage) {
    names.push_back(one.key);
  }
  return sorted(names);
}

/// One float tensor alone in a file.
void write_one(std::string const& path,
               std::string const& key,
               float value,
               sm::Shape const& shape) {
  sm::Tensor<float> tensor(shape);
  std::fill(tensor.span().begin(), tensor.span().end(), value);
  sm::StateDict dict;
  dict.insert(key, tensor);
  sm::save_safetensors(path, dict);
}

}  // namespace

TEST_CASE("the index decides which file a tensor is read from, and what there is") {
  CHECK(keys_of(stale) == Names{"norm.weight", "up.weight"});
  CHECK(blocked(stale).empty());
  sm::SafetensorsCatalog const catalog(stale);
  CHECK(catalog.tensor("up.weight")->dtype == sm::DType::float32);
  CHECK(catalog.tensor("up.weight")->shape == sm::Shape{6, 2});
  CHECK(catalog.files("up.weight") == Names{stale + "/model-00002-of-00002.safetensors"});
  CHECK(first_elements<float>(stale, "up.weight", {6, 2}) == "4.000000");
  CHECK(first_elements<float>(stale, "norm.weight", {6}) == "3.000000");
  CHECK(says(first_elements<float>(stale, "extra", {2}), {"has no \"extra\""}));
  sm::VerifyReport const report = verify_path(stale);
  CHECK(report.damage.empty());
  CHECK(report.notes.empty());
  CHECK(report.bytes == 72);
}

TEST_CASE("an index may have any of the names that hubs give it, and be given itself") {
  for (char const* const name :
       {"model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.json",
        "model.fp16.safetensors.index.json", "unet.safetensors.index.fp16.json"}) {
    INFO(name);
    CHECK(format::is_safetensors_index(name));
    Copy const copy("hub/stale");
    copy.rename("model.safetensors.index.json", "x");
    copy.rename("x", name);
    CHECK(keys_of(copy.path()) == Names{"norm.weight", "up.weight"});
    CHECK(first_elements<float>(copy.path(), "up.weight", {6, 2}) == "4.000000");
    CHECK(first_elements<float>(copy / name, "up.weight", {6, 2}) == "4.000000");
    CHECK(damaged(copy / name).empty());
  }
  for (char const* const name : {"config.json", "model.safetensors", "index.json",
                                 "model.safetensors.json", "pytorch_model.bin.index.json"}) {
    CHECK_FALSE(format::is_safetensors_index(name));
  }
  // A hub's cache is made of links: the files lie beside the link, not beside what it leads to.
  Copy const copy("hub/stale");
  test::Scratch const blobs;
  test::fs::rename(copy / "model.safetensors.index.json", blobs / "4f2a");
  test::fs::create_symlink(blobs / "4f2a", copy / "model.safetensors.index.json");
  CHECK(first_elements<float>(copy / "model.safetensors.index.json", "up.weight", {6, 2}) ==
        "4.000000");
}

TEST_CASE("a directory with several indexes asks which") {
  std::string const said = first_elements<float>(variant, "block.0.w", {3});
  CHECK(says(said, {variant, "holds 2 models", "unet.safetensors.index.fp16.json",
                    "unet.safetensors.index.json", "give the path of one of these"}));
  CHECK_THROWS_AS(sm::SafetensorsCatalog{variant}, sm::InvalidArgument);
  std::string const whole = variant + "/unet.safetensors.index.json";
  std::string const half = variant + "/unet.safetensors.index.fp16.json";
  CHECK(keys_of(whole) == Names{"block.0.w", "block.1.w"});
  CHECK(keys_of(half) == Names{"block.0.w", "block.1.w"});
  CHECK(first_elements<float>(whole, "block.1.w", {3}) == "2.000000");
  CHECK(first_elements<sm::Float16>(half, "block.1.w", {3}) == "2.000000");
  CHECK(verify_path(whole).notes.empty());
}

TEST_CASE("a model is not written beside the index of another, which readers would ask about") {
  for (char const* const name :
       {"unet.safetensors.index.json", "model.safetensors.index.fp16.json"}) {
    test::Scratch const scratch;
    test::fs::create_directory(scratch / "model");
    test::spit(scratch / "model/" + name, R"({"weight_map":{}})");
    sm::launch(sm::threads{1}, [&](auto& world) {
      sm::StateDict dict;
      dict.insert("w", sm::Tensor<float>::zeros(sm::Shape{4}));
      std::string const said = refusal([&] {
        sm::save_safetensors_sharded(world, scratch / "model", dict, 8, sm::Existing::replace);
      });
      CHECK(says(said, {std::string("holds ") + name, "give a new directory"}));
    });
    CHECK(sm::PosixStorage::list(scratch / "model") == Names{name});
  }
}

TEST_CASE("entries whose file or tensor is missing block only themselves") {
  CHECK(keys_of(missing) == Names{"gone", "here", "lost"});
  CHECK(blocked(missing) == Names{"gone", "lost"});
  sm::SafetensorsCatalog const catalog(missing);
  CHECK(says(*catalog.problem("gone"), {"model.safetensors.index.json says that \"gone\" is in",
                                        "a-00001-of-00002.safetensors, which has no such tensor"}));
  CHECK(says(*catalog.problem("lost"),
             {"index.json says that \"lost\" is in",
              "a-00002-of-00002.safetensors, which cannot be read", "No such file"}));
  CHECK(catalog.problem("here") == nullptr);
  CHECK(catalog.problem("never") == nullptr);
  CHECK_THROWS_WITH_AS(static_cast<void>(catalog.value("gone")),
                       doctest::Contains("no such tensor"), sm::CorruptError);

  CHECK(first_elements<float>(missing, "here", {2}) == "1.000000");
  for (auto const policy : {sm::KeyPolicy::error, sm::KeyPolicy::ignore}) {
    // It is in the checkpoint, so no policy for keys that are not makes it go away.
    CHECK(says(first_elements<float>(missing, "gone", {2}, {.missing = policy}),
               {"\"gone\"", "which has no such tensor"}));
    CHECK(says(first_elements<float>(missing, "lost", {2}, {.missing = policy}),
               {"\"lost\"", "a-00002-of-00002.safetensors"}));
  }
  CHECK(says(first_elements<float>(missing, "here", {2}, {.unexpected = sm::KeyPolicy::error}),
             {"has 2 keys that no state dict has"}));
  sm::launch(sm::threads{1}, [&](auto& world) {  // where a plain value is asked for
    sm::StateDict dict;
    dict.insert("gone", sm::Value(1));
    CHECK(says(refusal([&] { sm::load_any(world, missing, dict); }), {"which has no such tensor"}));
    sm::StateDict nested;
    nested.insert(std::vector<sm::PathElement>{"gone", "step"}, sm::Value(1));
    CHECK(says(refusal([&] { sm::load_any(world, missing, nested); }), {"has no \"gone.step\""}));
  });

  sm::VerifyReport const report = verify_path(missing);
  CHECK(report.values == 3);
  CHECK(damaged(missing) == Names{"gone", "lost"});
}

TEST_CASE("a file of an index that is damaged blocks only what is in it") {
  Copy const copy("hub/stale");
  std::string const second = copy / "model-00002-of-00002.safetensors";
  std::string const bytes = test::slurp(second);
  for (std::size_t const size :
       {std::size_t{0}, std::size_t{5}, std::size_t{30}, bytes.size() - 1}) {
    test::spit(second, bytes.substr(0, size));
    CHECK(blocked(copy.path()) == Names{"up.weight"});
    CHECK(first_elements<float>(copy.path(), "norm.weight", {6}) == "3.000000");
    CHECK(says(first_elements<float>(copy.path(), "up.weight", {6, 2}),
               {"\"up.weight\"", "model-00002-of-00002.safetensors", "is no safetensors file"}));
  }
  test::spit(second, bytes + "x");
  CHECK(says(first_elements<float>(copy.path(), "up.weight", {6, 2}), {"longer than its header"}));
}

TEST_CASE("an index names files of its own directory, and nothing else") {
  for (char const* const name : {"../x.safetensors", "/etc/x.safetensors", "a/x.safetensors", "..",
                                 "", "c:x.safetensors", "a\\\\x.safetensors"}) {
    INFO(name);
    auto const read = [&] {
      static_cast<void>(format::read_safetensors_index(
          R"({"weight_map":{"w":")" + std::string(name) + R"("}})", "m.json"));
    };
    CHECK_THROWS_WITH_AS(read(), doctest::Contains("the file of \"w\" is not a plain name"),
                         sm::CorruptError);
  }
  auto const index = format::read_safetensors_index(
      R"({"metadata":{"total_size":8},"weight_map":{"b":"y","a":"x"}})", "m.json");
  CHECK(index.files == std::vector<std::pair<std::string, std::string>>{{"a", "x"}, {"b", "y"}});
  CHECK(index.total_size == 8);
  for (char const* const text : {R"({"weight_map":{}})", R"({"metadata":7,"weight_map":{}})",
                                 R"({"metadata":{"total_size":"8"},"weight_map":{}})",
                                 R"({"metadata":{"total_size":-8},"weight_map":{}})"}) {
    CHECK_FALSE(format::read_safetensors_index(text, "m.json").total_size.has_value());
  }
  for (char const* const text : {"", "{", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":7})",
                                 R"({"weight_map":{"a":7}})", R"({"weight_map":{"a":null}})"}) {
    CHECK_THROWS_WITH_AS(static_cast<void>(format::read_safetensors_index(text, "m.json")),
                         doctest::Contains("m.json is no safetensors index"), sm::CorruptError);
  }
}

TEST_CASE("the total of an index is compared, and a difference noted") {
  Copy const copy("hub/stale");
  std::string const index = copy / "model.safetensors.index.json";
  std::string text = test::slurp(index);
  text.replace(text.find("72"), 2, "96");
  test::spit(index, text);
  sm::VerifyReport const report = verify_path(copy.path());
  CHECK(report.damage.empty());
  REQUIRE(report.notes.size() == 1);
  CHECK(says(report.notes[0], {"index.json", "96 bytes", "72"}));
}

TEST_CASE("numbers in the names of files tell of those that are missing") {
  auto const lost = [](Names const& names) {
    Names found;
    for (auto const& [name, what] : format::missing_numbers(names)) {
      CHECK(says(what, {name, "missing"}));
      found.push_back(name);
    }
    return found;
  };
  std::string const end = "-of-00003.safetensors";
  CHECK(lost({"m-00001" + end, "m-00002" + end, "m-00003" + end}).empty());
  CHECK(lost({"m-00001" + end, "m-00002" + end}) == Names{"m-00003" + end});
  CHECK(lost({"m-00002" + end}) == Names{"m-00001" + end});
  CHECK(lost({"m-00000" + end, "m-00001" + end, "m-00002" + end}).empty());  // some start at 0
  CHECK(lost({"m-00000" + end, "m-00002" + end}) == Names{"m-00001" + end});
  CHECK(lost({"m-1-of-2.safetensors"}) == Names{"m-2-of-2.safetensors"});
  CHECK(lost({"m-00001-of-00002.fp16.safetensors", "m-00002-of-00002.safetensors"}) ==
        Names{"m-00002-of-00002.fp16.safetensors", "m-00001-of-00002.safetensors"});
  CHECK(lost({"m-00001-of-999999999.safetensors"}).size() == 1);
  for (char const* const name :
       {"model.safetensors", "m-of-00002.safetensors", "m-00001-of-.safetensors",
        "m-00001-of-x.safetensors", "m-00001-of-00002.bin", "of-3.safetensors", "-of-.safetensors",
        "m-00001-of-99999999999999999999.safetensors", "a-list-of-00002.safetensors", ""}) {
    INFO(name);
    CHECK_FALSE(format::numbered_name(name).has_value());
  }
  // PyTorch's ranks: the number belongs to all of them together.
  std::string const two = "-of-00002.safetensors";
  CHECK(lost({"shard-00001-model-00001" + two, "shard-00002-model-00002" + two}).empty());
  CHECK(lost({"shard-00001-model-00001" + two, "shard-00002-model-00001" + two}) ==
        Names{"shard-*-model-00002" + two});
  CHECK(format::missing_shards({"shard-00001-model-00001" + two, "shard-00004-model-00001" + two,
                                "model.safetensors"}) == std::vector<std::size_t>{2, 3});
  CHECK(format::missing_shards({"shard-999999999-model-00001" + two}).size() == 100);
  CHECK(format::missing_shards({"shard-x-model-00001" + two, "m-00002" + two}).empty());
}

TEST_CASE("a directory without index that has lost a file says so, and loads what is there") {
  test::Scratch const scratch;
  std::string const path = scratch / "model";
  test::fs::create_directory(path);
  write_one(path + "/model-00001-of-00003.safetensors", "a", 1, {4});
  write_one(path + "/model-00002-of-00003.safetensors", "b", 2, {4});
  CHECK(damaged(path) == Names{"model-00003-of-00003.safetensors"});
  CHECK(first_elements<float>(path, "b", {4}) == "2.000000");
  CHECK(says(first_elements<float>(path, "c", {4}),
             {"has no \"c\"", "model-00003-of-00003.safetensors is not there"}));
  CHECK(damaged(path + "/model-00001-of-00003.safetensors").empty());  // one file was asked for
  write_one(path + "/model-00003-of-00003.safetensors", "c", 3, {4});
  CHECK(damaged(path).empty());
}

TEST_CASE("two models in a directory without index: what both have cannot be read, the rest can") {
  test::Scratch const scratch;
  std::string const path = scratch / "model";
  test::fs::create_directory(path);
  write_one(path + "/x.safetensors", "w", 1, {4});
  write_one(path + "/y.safetensors", "w", 2, {4});
  write_one(path + "/z.safetensors", "own", 3, {4});
  CHECK(blocked(path) == Names{"w"});
  CHECK(first_elements<float>(path, "own", {4}) == "3.000000");
  CHECK(says(
      first_elements<float>(path, "w", {4}),
      {"hold the same part of \"w\"", "x.safetensors and ", "y.safetensors", "give the path"}));
  write_one(path + "/y.safetensors", "w", 2, {4, 1});
  CHECK(
      says(first_elements<float>(path, "w", {4}),
           {"\"w\" differs in dtype or rank", "x.safetensors", "y.safetensors", "give the path"}));
  CHECK(damaged(path) == Names{"w"});
}

TEST_CASE("PyTorch's sharded files: a lost one blocks the tensors that it had a part of") {
  auto const shard = [](int rank) {
    return "shard-0000" + std::to_string(rank) + "-model-00001-of-00001.safetensors";
  };
  std::string const hf = "checkpoints/hf_safetensors/checkpoint";
  auto const all = keys_of(test::data_directory + "/" + hf);
  for (int const rank : {1, 2, 3}) {
    Copy const copy(hf);
    test::fs::remove(copy / shard(rank));
    sm::SafetensorsCatalog const catalog(copy.path());
    Names const bad = blocked(copy.path());
    CHECK(bad.empty() == (rank == 2));  // which had the last parts of all its tensors
    CHECK(damaged(copy.path()) == bad);
    for (std::string const& key : bad) {
      CHECK(says(*catalog.problem(key), {"\"" + key + "\"", "elements", "is a file missing?"}));
    }
    auto const notes = verify_path(copy.path()).notes;
    REQUIRE(notes.size() == 1);
    CHECK(says(notes[0], {"no file of shard " + std::to_string(rank)}));
  }
  // The format does not say how large tensors are, nor how many ranks there were (docs/files.md).
  Copy const copy(hf);
  test::fs::remove(copy / shard(4));
  CHECK(keys_of(copy.path()) == all);
  CHECK(damaged(copy.path()).empty());
}

TEST_CASE("files by rank of our own say how many they are, and how large the tensors") {
  test::Scratch const scratch;
  std::string const path = scratch / "model";
  sm::launch(sm::threads{4}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {4});
    sm::Tensor<float> whole(sm::Shape{8});
    std::fill(whole.span().begin(), whole.span().end(), 5.0F);
    sm::StateDict dict;
    dict.insert("w",
                sm::distribute(whole, mesh, sm::PlacementList{sm::Shard{0}}, sm::DataSource::own));
    for (int i = 0; i < 4; ++i) {  // replicas, one written by each rank
      dict.insert(
          "r" + std::to_string(i),
          sm::distribute(whole, mesh, sm::PlacementList{sm::Replicate{}}, sm::DataSource::own));
    }
    sm::save_safetensors_by_rank(world, path, dict);
  });
  CHECK(damaged(path).empty());
  CHECK(verify_path(path).notes.empty());
  auto const names = sorted(sm::PosixStorage::list(path));
  REQUIRE(names.size() == 4);
  for (std::string const& name : names) {
    std::string const bytes = test::slurp(path + "/" + name);
    test::fs::remove(path + "/" + name);
    CHECK(blocked(path) == Names{"w"});
    CHECK(damaged(path) == sorted({path, "w"}));
    CHECK(says(first_elements<float>(path, "w", {8}), {"6 of the 8 elements of \"w\" (8)"}));
    sm::SafetensorsCatalog const catalog(path);
    REQUIRE(catalog.lost_files().size() == 1);
    CHECK(
        says(catalog.lost_files()[0].second, {"has 3 of the files", "which say that they are 4"}));
    CHECK(says(first_elements<float>(path, "never", {8}),
               {"has no \"never\"", "has 3 of the files"}));
    test::spit(path + "/" + name, bytes);
  }
  // Other shapes than the parts have.
  std::string const bytes = test::slurp(path + "/" + names[0]);
  std::string const shape = R"(\"w\":[8])";  // in a string in JSON
  REQUIRE(bytes.find(shape) != bytes.npos);
  for (char const* const other : {R"(\"w\":[9])", R"(\"w\":[1])"}) {
    std::string changed = bytes;
    changed.replace(changed.find(shape), shape.size(), other);
    changed.replace(changed.find("SHARDMESH_CRC32"), 15,
                    "OTHER_CRC_ENTRY");  // which would tell first
    test::spit(path + "/" + names[0], changed);
    CHECK(blocked(path) == Names{"w"});
    CHECK(says(first_elements<float>(path, "w", {8}), {"disagree about the shape of \"w\""}));
  }
}

TEST_CASE("offsets that no tensor has block only their tensor") {
  test::Scratch const scratch;
  auto const write = [&](std::string const& offsets) {
    format::SafetensorsHeader header;
    header.metadata = {{"DCP_SHARDING_INFO", offsets}};
    header.tensors = {{"a", sm::DType::float32, {2, 2}, 0, 0},
                      {"b", sm::DType::float32, {2}, 0, 0}};
    auto const head = format::write_safetensors_header(header);
    test::spit(scratch / "x.safetensors",
               std::string(format::as_text(head)) + std::string(24, '\x01'));
  };
  std::string const b = R"("b":{"saved_offsets":[0]})";
  write(R"({"a":{"saved_offsets":[0,0]},)" + b + "}");
  CHECK(blocked(scratch / "x.safetensors").empty());
  for (char const* const offsets :
       {"[9223372036854775807,0]", "[9223372036854775805,9223372036854775805]", "[2,0]", "[0]"}) {
    INFO(offsets);
    write(R"({"a":{"saved_offsets":)" + std::string(offsets) + "}," + b + "}");
    CHECK(blocked(scratch / "x.safetensors") == Names{"a"});
    CHECK(keys_of(scratch / "x.safetensors") == Names{"a", "b"});
    CHECK(says(first_elements<float>(scratch / "x.safetensors", "a", {2, 2}), {"\"a\""}));
  }
  write("{" + b + "}");
  CHECK(blocked(scratch / "x.safetensors") == Names{"a"});
}

TEST_CASE("verify knows which formats have checksums") {
  CHECK_FALSE(verify_path(stale).has_checksums);
  CHECK_FALSE(verify_path(test::fixture("hf_safetensors")).has_checksums);
  CHECK_FALSE(verify_path(test::fixture("dcp_safetensors")).has_checksums);
  CHECK(verify_path(test::fixture("hsdp_fsdp2")).has_checksums);
}

TEST_SUITE_END();

}  // namespace safetensors_files_test
