// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What is saved is what is loaded, on any other mesh; what cannot be saved leaves nothing behind.
#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/detail/item_text.hpp>
#include <shardmesh/checkpoint/detail/replicas.hpp>
#include <shardmesh/checkpoint/format/zip_writer.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/safetensors_save.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <sstream>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"

namespace save_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.save");

TEST_CASE("what a rank offers travels as text and comes back as it was") {
  sm::SaveItem tensor;
  tensor.key = "model.weight";
  tensor.path = {"model", sm::index_t{3}, "weight"};
  tensor.dtype = sm::DType::bfloat16;
  tensor.shape = {7, 5};
  tensor.box = {{4, 0}, {3, 5}};
  tensor.length = 1234;
  tensor.holders = 99;
  sm::SaveItem plain;
  plain.key = "step";
  plain.path = {"step"};
  plain.length = 99;
  plain.names = {"a", ""};
  auto const back = sm::detail::unpack_items(sm::detail::pack_items({tensor, plain}));
  REQUIRE(back.size() == 2);
  CHECK(back[0].key == tensor.key);
  CHECK(back[0].path == tensor.path);
  CHECK(back[0].dtype == tensor.dtype);
  CHECK(back[0].shape == tensor.shape);
  CHECK(back[0].box == tensor.box);
  CHECK(back[0].length == 1234);
  CHECK(back[0].holders == 99);
  CHECK(back[1].path == plain.path);
  CHECK_FALSE(back[1].dtype.has_value());
  CHECK(back[1].length == 99);
  CHECK(back[1].names == plain.names);
  CHECK_FALSE(back[0].names.has_value());
}

namespace {

sm::Placement const r = sm::Replicate{};
sm::Placement const s0 = sm::Shard{0};
sm::Placement const s1 = sm::Shard{1};

/// The state of fixture `name` on a mesh, loaded.
template <class Mesh, class World>
sm::StateDict loaded(World const& world,
                     std::string const& directory,
                     Mesh const& mesh,
                     sm::PlacementList const& list) {
  sm::DcpCatalog<> const catalog(directory);
  sm::StateDict dict = test::unset_state(catalog, mesh, list);
  sm::load(world, directory, dict);
  return dict;
}

}  // namespace

TEST_CASE("a saved state is bit-equal on every other mesh and under every placement") {
  test::Scratch const scratch;
  for (std::string const name : {"dtypes", "hsdp_fsdp2", "torch_2_15_mixed"}) {
    for (sm::PlacementList const& list :
         {sm::PlacementList{r, s0}, sm::PlacementList{s0, s0}, sm::PlacementList{s1, s0},
          sm::PlacementList{sm::Placement::strided(0, 2), s0}, sm::PlacementList{r, r}}) {
      std::string const directory = scratch / (name + to_string(list));
      sm::launch(sm::threads{4}, [&](auto& world) {
        auto const mesh = sm::device_mesh<2>(world, {2, 2});
        sm::save(world, directory, loaded(world, test::fixture(name), mesh, list));
      });
      sm::launch(sm::threads{3}, [&](auto& world) {
        auto const mesh = sm::device_mesh<1>(world, {3});
        sm::StateDict const dict = loaded(world, directory, mesh, {s0});
        auto whole = test::references(name);
        CHECK(test::difference_from(whole, dict, {world.rank()}) == "");
      });
    }
  }
}

TEST_CASE("plain values of every kind come back as they were") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::StateDict dict;
    dict.insert("none", sm::Value());
    dict.insert("flag", sm::Value(true));
    dict.insert("count", sm::Value(std::int64_t{1} << 40));
    dict.insert("rate", sm::Value(0.1));
    dict.insert("name", sm::Value(std::string("net \"1\"")));
    dict.insert("list", sm::Value(sm::Value::List{sm::Value(1), sm::Value(sm::Value::List{})}));
    dict.insert("nested", sm::Value(sm::Value::Dict{{"a", sm::Value(2.5)}, {"b", sm::Value()}}));
    sm::save(world, scratch / "values", dict);
    sm::StateDict copy;
    for (sm::StateEntry const& entry : dict) {
      copy.insert(entry.path, sm::Value(std::string("unset")));
    }
    sm::load(world, scratch / "values", copy);
    CHECK(sm::difference(copy, dict) == "");
  });
}

TEST_CASE("tensors of a rank alone, empty and 0-d tensors, ranks outside the mesh") {
  test::Scratch const scratch;
  auto const make = [](auto& world, float value) {
    auto const mesh = sm::device_mesh<1>(world, {2}, {0, 1}, {"d"});
    sm::StateDict dict;
    sm::Tensor<float> scalar(sm::Shape{});
    scalar.span()[0] = value;
    dict.insert("scalar", scalar);
    dict.insert("empty", test::unset_tensor(sm::DType::int64, {0, 4}, mesh, {s0}));
    sm::Tensor<float> whole({5});
    std::iota(whole.span().begin(), whole.span().end(), value);
    dict.insert("few", sm::distribute(whole, mesh, sm::PlacementList{s0}));
    dict.insert("rank" + std::to_string(world.rank()), sm::Value(world.rank()));
    return dict;
  };
  sm::launch(sm::threads{3}, [&](auto& world) {
    sm::StateDict const dict = make(world, 3);
    sm::save(world, scratch / "few", dict);
    sm::StateDict copy = make(world, 100);
    sm::load(world, scratch / "few", copy);
    CHECK(sm::difference(copy, dict) == "");
  });
}

TEST_CASE("a save replaces an older checkpoint, and a save that fails leaves it") {
  test::Scratch const scratch;
  std::string const directory = scratch / "deep/er/run";
  auto const entry = [](auto const& mesh, float value) {
    sm::Tensor<float> whole({4});
    std::fill(whole.span().begin(), whole.span().end(), value);
    return sm::StateDict{{"m", [&] {
                            sm::StateDict dict;
                            dict.insert("w", sm::distribute(whole, mesh, sm::PlacementList{s0}));
                            return dict;
                          }()}};
  };
  sm::launch(sm::threads{2}, [&](auto& world) {
    auto const mesh = sm::device_mesh<1>(world, {2});
    sm::save(world, directory, entry(mesh, 1));
    sm::save(world, directory + "/", entry(mesh, 2));
    sm::StateDict partial = entry(mesh, 3);
    partial.insert("p", test::unset_tensor(sm::DType::float32, {2}, mesh, {sm::Partial<>{}}));
    CHECK_THROWS_WITH_AS(sm::save(world, directory, partial), doctest::Contains("redistribute it"),
                         sm::InvalidArgument);
    sm::StateDict own;
    own.insert("w", sm::Tensor<float>(sm::Shape{world.rank() + 1}));
    CHECK_THROWS_WITH_AS(sm::save(world, directory, own),
                         doctest::Contains("different things as \"w\""), sm::ShapeError);
    sm::StateDict dict = entry(mesh, 0);
    sm::load(world, directory, dict);
    CHECK(sm::difference(dict, entry(mesh, 2)) == "");
  });
  std::vector<std::string> const names = sm::PosixStorage::list(scratch / "deep/er");
  CHECK(names == std::vector<std::string>{"run"});
}

TEST_CASE("save refuses a directory that is no checkpoint and a place that it cannot write") {
  test::Scratch const scratch;
  sm::PosixStorage::make_directory(scratch / "notes");
  test::spit(scratch / "notes/thesis.txt", "work of years");
  test::spit(scratch / "file", "");
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::StateDict dict;
    dict.insert("step", sm::Value(1));
    bool refused = false;
    try {
      sm::save(world, scratch / "notes", dict);
    } catch (sm::Error const& error) {
      refused = std::string(error.what()).find("is no checkpoint") != std::string::npos;
    }
    CHECK(refused);
    CHECK_THROWS_AS(sm::save(world, scratch / "file/below", dict), sm::Error);
  });
  CHECK(test::slurp(scratch / "notes/thesis.txt") == "work of years");
}

namespace {

sm::Tensor<float> filled(sm::Shape const& shape, float value) {
  sm::Tensor<float> tensor(shape);
  std::fill(tensor.span().begin(), tensor.span().end(), value);
  return tensor;
}

/// What a save says; on every rank the same.
template <class World, class Save>
std::string refusal(World const& world, Save save) {
  std::string const said = test::error_of<sm::MismatchError>(save);
  for (std::string const& other : sm::all_gather_text(world, said)) {
    CHECK(other == said);
  }
  return said;
}

}  // namespace

TEST_CASE("what ranks hold under one key is the same, or the save is refused with both named") {
  test::Scratch const scratch;
  std::string const run = scratch / "run";
  sm::launch(sm::threads{4}, [&](auto& world) {
    int const rank = world.rank();
    sm::StateDict good;
    good.insert("same", filled({3, 5}, 7));
    good.insert("scalar", filled({}, 1));
    good.insert("none", filled({0, 2}, 1));
    good.insert("step", sm::Value(12));
    good.insert("sparse" + std::to_string(rank), filled({4}, static_cast<float>(rank)));
    sm::save(world, run, good);
    auto const refused = [&](std::string const& key, sm::StateValue const& value, auto has) {
      sm::StateDict dict;
      dict.insert("same", filled({3, 5}, 8));
      if (has(rank)) {
        dict.insert(key, value);
      }
      std::string const said = refusal(world, [&] { sm::save(world, run, dict); });
      CHECK(said == refusal(world, [&] {
              sm::AsyncSaver saver(world);
              saver.save(run, dict).wait();
            }));
      return said;
    };
    auto const everywhere = [](int) { return true; };
    std::string const tensors = refused("w", filled({9, 9}, rank == 2 ? 1.0F : 0.0F), everywhere);
    CHECK(tensors.find("ranks 0 and 2 hold tensors of shape (9, 9)") != std::string::npos);
    CHECK(tensors.find("under the key \"w\"") != std::string::npos);
    CHECK(tensors.find("\"w.rank2\"") != std::string::npos);
    sm::Tensor<float> last = filled({1001}, 3);
    last.span()[1000] += rank == 3 ? 1.0F : 0.0F;
    CHECK(refused("w", last, [](int who) { return who > 0; }).find("ranks 1 and 3 ") !=
          std::string::npos);
    std::string const values = refused("rng", sm::Value(rank / 2), everywhere);
    CHECK(values.find("ranks 0 and 2 hold different plain values under the key \"rng\"") !=
          std::string::npos);
    CHECK(refused("kind", rank == 1 ? sm::Value(1) : sm::Value(1.0), everywhere)
              .find("ranks 0 and 1 ") != std::string::npos);
    sm::StateDict back;
    back.insert("same", filled({3, 5}, 0));
    back.insert("step", sm::Value());
    for (int other = 0; other < 4; ++other) {
      back.insert("sparse" + std::to_string(other), filled({4}, -1));
    }
    sm::load(world, run, back);
    CHECK(sm::difference(back.at("same").tensor(), filled({3, 5}, 7)) == "");
    for (int other = 0; other < 4; ++other) {
      CHECK(sm::difference(back.at("sparse" + std::to_string(other)).tensor(),
                           filled({4}, static_cast<float>(other))) == "");
    }
  });
  CHECK(sm::PosixStorage::list(scratch / "").size() == 1);
}

TEST_CASE("an optimizer's group is saved with the names that any rank has in it") {
  test::Scratch const scratch;
  using Strings = std::vector<std::string>;
  auto const names = [](Strings const& all) {
    return sm::Value(sm::Value::List(all.begin(), all.end()));
  };
  auto const where = [](sm::index_t group, char const* what) {
    return std::vector<sm::PathElement>{"optim", "param_groups", group, what};
  };
  sm::launch(sm::threads{3}, [&](auto& world) {
    std::string const own = "stage" + std::to_string(world.rank());
    sm::StateDict dict;
    dict.insert(where(0, "params"), names({"shared", own + ".weight", own + ".bias"}));
    dict.insert(where(0, "lr"), sm::Value(0.1));
    dict.insert(where(1, "params"), names(world.rank() == 1 ? Strings{"head"} : Strings{}));
    dict.insert(where(2, "params"), names({"same"}));
    dict.insert({"optim", "state", own + ".weight", "exp_avg"}, filled({2}, 1));
    sm::save(world, scratch / "run", dict);
    sm::StateDict back = dict;
    sm::load(world, scratch / "run", back);
    CHECK(back.at("optim.param_groups.0.params").plain() ==
          names({"shared", "stage0.weight", "stage0.bias", "stage1.weight", "stage1.bias",
                 "stage2.weight", "stage2.bias"}));
    CHECK(back.at("optim.param_groups.1.params").plain() == names({"head"}));
    CHECK(back.at("optim.param_groups.2.params").plain() == names({"same"}));
    sm::save(world, scratch / "run", back);  // as it is now the same everywhere
    for (char const* const what : {"lr", "params"}) {
      sm::StateDict bad;
      bad.insert(where(0, what), sm::Value(sm::Value::List{sm::Value(world.rank())}));
      CHECK(refusal(world, [&] {
              sm::save(world, scratch / "run", bad);
            }).find(std::string("\"optim.param_groups.0.") + what + "\"") != std::string::npos);
    }
  });
}

TEST_CASE(
    "tensors of two meshes under one key are compared, those of one mesh are its own business") {
  test::Scratch const scratch;
  sm::launch(sm::threads{4}, [&](auto& world) {
    bool const high = world.rank() > 1;
    auto const half = world.split(high ? 1 : 0, world.rank());
    auto const mesh = sm::device_mesh<1>(half, {2});
    auto const state = [&](float value, sm::PlacementList const& list) {
      sm::StateDict dict;
      dict.insert("layer", sm::distribute(filled({6, 2}, value), mesh, list));
      return dict;
    };
    for (sm::PlacementList const& list : {sm::PlacementList{s0}, sm::PlacementList{r}}) {
      sm::save(world, scratch / "run", state(5, list));
      std::string const said = refusal(
          world, [&] { sm::save(world, scratch / "run", state(high ? 1.0F : 0.0F, list)); });
      CHECK(said.find("ranks 0 and 2 hold tensors") != std::string::npos);
      std::string const model = refusal(world, [&] {
        sm::save_safetensors(world, scratch / "x.safetensors", state(high ? 1.0F : 0.0F, list));
      });
      CHECK(model.find("shardmesh::save_safetensors: ranks 0 and 2 hold tensors") !=
            std::string::npos);
      sm::StateDict back = state(0, list);
      sm::load(world, scratch / "run", back);
      CHECK(sm::difference(back, state(5, list)) == "");
    }
    // A replica that has drifted: the mesh answers for it, nobody reads it.
    auto const one = sm::device_mesh<1>(world, {4});
    sm::DistTensor drifted = sm::distribute(filled({6}, 1), one, sm::PlacementList{r});
    drifted.to_local().span()[0] = static_cast<float>(world.rank());
    sm::StateDict dict;
    dict.insert("w", drifted);
    sm::save(world, scratch / "run", dict);
  });
  CHECK_FALSE(sm::PosixStorage::exists(scratch / "x.safetensors"));
}

TEST_CASE("one key is not a tensor here and a value there, nor of two dtypes or shapes") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    bool const second = world.rank() == 1;
    auto const said = [&](sm::StateValue const& mine) {
      sm::StateDict dict;
      dict.insert("x", mine);
      return test::error_of<sm::ShapeError>([&] { sm::save(world, scratch / "run", dict); });
    };
    std::string const kinds =
        said(second ? sm::StateValue(filled({2}, 1)) : sm::StateValue(sm::Value(1)));
    CHECK(kinds.find("ranks 0 and 1 offer different things as \"x\": a plain value against") !=
          std::string::npos);
    std::string const other =
        said(second ? sm::StateValue(sm::Value(1)) : sm::StateValue(filled({2}, 1)));
    CHECK(other.find("float32 tensor of shape (2) against a plain value") != std::string::npos);
    auto const dtypes =
        said(second ? sm::StateValue(sm::Tensor<int>::zeros({2})) : sm::StateValue(filled({2}, 1)));
    CHECK(dtypes.find("float32 tensor of shape (2) against") != std::string::npos);
  });
  auto const part = [](sm::DType dtype, sm::index_t from) {
    return sm::SaveItem{"a", {"a"}, dtype, sm::Shape{8}, sm::Box{sm::Shape{from}, sm::Shape{4}}, 1};
  };
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::plan_save(
                           {{part(sm::DType::float32, 0)}, {part(sm::DType::int32, 4)}})),
                       doctest::Contains("ranks 0 and 1 offer different things as \"a\""),
                       sm::ShapeError);
}

TEST_CASE("a fingerprint sees every flipped bit and every length") {
  std::vector<std::byte> bytes(101);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(i * 7);
  }
  std::vector<std::uint64_t> seen;
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    seen.push_back(sm::detail::fingerprint(sm::format::ByteSpan(bytes).first(size)));
  }
  for (std::byte& one : bytes) {
    for (int bit = 0; bit < 8; ++bit) {
      one ^= static_cast<std::byte>(1 << bit);
      seen.push_back(sm::detail::fingerprint(bytes));
      one ^= static_cast<std::byte>(1 << bit);
    }
  }
  std::sort(seen.begin(), seen.end());
  CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end());
}

TEST_CASE("plan_save: replicas are written once, spread by bytes; values by the lowest rank") {
  auto const box = [](std::string key, sm::index_t from, sm::index_t count, std::uint64_t bytes) {
    return sm::SaveItem{
        key,  {key}, sm::DType::float32, sm::Shape{8}, sm::Box{sm::Shape{from}, sm::Shape{count}},
        bytes};
  };
  sm::SaveItem const value{"v", {"v"}, std::nullopt, {}, {}, 10};
  std::vector<sm::SaveItem> const both{box("a", 0, 8, 100), value, box("b", 0, 8, 60),
                                       box("c", 0, 8, 30)};
  auto const plan = sm::plan_save({both, both});
  REQUIRE(plan.size() == 4);
  CHECK((plan[0].rank == 0 && plan[0].offset == 10));  // behind the value
  CHECK((plan[1].rank == 0 && plan[1].offset == 0));
  CHECK((plan[2].rank == 1 && plan[2].offset == 0));
  CHECK((plan[3].rank == 1 && plan[3].offset == 60));
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::plan_save({{box("a", 0, 4, 1)}, {box("a", 3, 5, 1)}})),
                       doctest::Contains("overlap"), sm::ShapeError);
  CHECK_THROWS_WITH_AS(static_cast<void>(sm::plan_save({{box("a", 0, 4, 1)}, {}})),
                       doctest::Contains("4 of its 8 elements"), sm::ShapeError);
}

TEST_CASE("a rank outside the mesh does not train, and its counts of steps are nobody's") {
  test::Scratch const scratch;
  sm::launch(sm::threads{3}, [&](sm::ThreadsCommunicator& world) {
    auto const mesh = sm::device_mesh<1>(world, {2}, {0, 1}, {});
    sm::Layout const layout(sm::Shape{4}, mesh.shape(), sm::PlacementList{sm::Shard{0}});
    sm::Tensor<float> const local(mesh.is_member() ? layout.local_shape(mesh.coordinate())
                                                   : sm::Shape{0});
    using Weight = sm::DistTensor<float, sm::DeviceMesh<1, sm::ThreadsCommunicator>,
                                  sm::PlacementList, sm::HostMemory>;
    std::vector<sm::NamedParameter<Weight>> const parameters{{"w", Weight(mesh, layout, local)}};
    sm::Adam<Weight> adam(parameters, {.lr = 0.1});
    if (mesh.is_member()) {
      adam.step({Weight(mesh, layout, local)});
      CHECK(adam.state_dict().contains("state.w.step"));
    } else {
      CHECK_FALSE(adam.state_dict().contains("state.w.step"));
      CHECK_FALSE(adam.state_dict().contains("param_groups.0.lr"));
    }
    CHECK_NOTHROW(sm::save(world, scratch / "here", adam.state_dict()));
    sm::StateDict state = adam.state_dict();
    CHECK_NOTHROW(sm::load(world, scratch / "here", state));
  });
}

TEST_CASE("a value that would run code is noted by verify, and by no kind of save handed on") {
  test::Scratch const scratch;
  sm::format::ZipWriter zip;
  zip.add("archive/data.pkl", sm::format::as_bytes("\x80\x02"
                                                   "cos\nsystem\nX\x01" +
                                                   std::string(3, '\0') + "x\x85R."));
  sm::Value::Opaque const evil{std::move(zip).finish(), true};
  sm::launch(sm::threads{2}, [&](auto& world) {
    // Somebody's checkpoint: here it is one that was written by order.
    sm::StateDict theirs;
    theirs.insert("config", sm::Value(evil));
    theirs.insert("step", sm::Value(1));
    sm::save(world, scratch / "theirs", theirs);
    sm::StateDict dict;
    dict.insert("config", sm::Value());
    dict.insert("step", sm::Value());
    sm::load(world, scratch / "theirs", dict);  // as bytes, which nobody runs
    sm::Value const config = dict.at("config").plain();
    auto const* const loaded = config.get<sm::Value::Opaque>();
    REQUIRE(loaded != nullptr);
    CHECK(loaded->archive == evil.archive);
    CHECK_FALSE(loaded->trusted);
    if (world.rank() == 0) {
      sm::DcpCatalog<> catalog(scratch / "theirs");
      sm::VerifyReport const report = sm::verify(catalog);
      CHECK(report.damage.empty());
      REQUIRE(report.notes.size() == 1);
      CHECK(report.notes[0].find("the value \"config\" is a pickle that imports \"os.system\"") !=
            std::string::npos);
    }
    // One rank alone has it in the second round: then all are told.
    for (bool const all : {true, false}) {
      sm::StateDict own;
      own.insert("step", sm::Value(2));
      if (all || world.rank() == 1) {
        own.insert("config", config);
      }
      auto const refused = [&](auto save) {
        std::string const said = test::error_of<sm::Error>(save);
        CAPTURE(said);
        CHECK(said.find("\"config\" is a pickle that imports \"os.system\"") != said.npos);
      };
      refused([&] { sm::save(world, scratch / "ours", own); });
      refused([&] { sm::AsyncSaver(world).save(scratch / "ours", own).wait(); });
      refused([&] { sm::save(world, scratch / "theirs", own); });
      if (own.contains("config")) {
        std::ostringstream out;
        refused([&] { sm::save_stream(out, own); });
        CHECK(out.str().empty());
      }
    }
    world.barrier();
    CHECK(sm::PosixStorage::list(scratch / "") == std::vector<std::string>{"theirs"});
    sm::StateDict again;
    again.insert("step", sm::Value());
    sm::load(world, scratch / "theirs", again);
    CHECK(again.at("step").plain() == sm::Value(1));  // not replaced
  });
}

TEST_SUITE_END();

}  // namespace save_test
