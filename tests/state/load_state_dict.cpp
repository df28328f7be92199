// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/state/model_value.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include "../support/errors.hpp"
#include "../support/fake_device.hpp"

namespace load_state_dict_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;
using sm::Tensor;
using test::FakeDevice;
using Keys = std::vector<std::string>;

namespace {

Tensor<float> counting(sm::Shape const& shape, float start = 0) {
  Tensor<float> tensor(shape);
  std::iota(tensor.span().begin(), tensor.span().end(), start);
  return tensor;
}

/// A model of one type of parameter, with every kind of member.
template <class P>
struct Net {
  P weight;
  P scale;  // frozen
  Tensor<float> mean = Tensor<float>::zeros({3});
  Tensor<float> cache = Tensor<float>::zeros({3});
  std::int16_t epoch = 0;
  float rate = 0;
  std::string name;
  std::vector<int> steps;
  template <class V>
  void visit(V&& v) {
    v("block.weight", weight);
    v("block.scale", sm::frozen(scale));
    v("mean", sm::buffer(mean));
    v("cache", sm::transient(cache));
    v("epoch", epoch);
    v("rate", rate);
    v("name", name);
    v("steps", steps);
  }
};

/// The model on one rank, with values.
Net<Tensor<float>> reference() {
  return {counting({7, 4}, 1),
          counting({5}, 100),
          counting({3}, 50),
          counting({3}, 70),
          12,
          0.5F,
          "run",
          {4, 5}};
}

/// The same model with all values 0, distributed.
template <class Space, class Mesh>
auto blank(Mesh const& mesh, sm::PlacementList const& list) {
  auto const zeros = [&](sm::Shape const& shape) {
    return sm::distribute(Tensor<float, Space>::zeros(shape), mesh, list, sm::DataSource::own);
  };
  auto const weight = zeros({7, 4});
  return Net<std::remove_cv_t<decltype(weight)>>{
      weight, zeros({5}), Tensor<float>::zeros({3}), Tensor<float>::zeros({3}), 0, 0, "", {}};
}

/// In what a model differs from the reference, in words.
template <class Comm, class Model>
std::string against_reference(Comm const& comm, Model& model, bool loaded_frozen = true) {
  auto wanted = reference();
  if (!loaded_frozen) {
    wanted.scale = Tensor<float>::zeros({5});
  }
  auto const got = sm::offloaded(sm::replicated_state_dict(comm, sm::state_dict(model)));
  return sm::difference(got, sm::state_dict(wanted));
}

template <class Dict>
sm::StateDict only(Dict const& dict, Keys const& keys) {
  sm::StateDict result;
  for (std::string const& key : keys) {
    result.insert(dict.at(key).path, dict.at(key).value);
  }
  return result;
}

constexpr auto lists = [] {
  return std::vector<sm::PlacementList>{{sm::Replicate{}, sm::Shard{0}},
                                        {sm::Shard{0}, sm::Shard{0}},
                                        {sm::Replicate{}, sm::Replicate{}},
                                        {sm::Placement::strided(0, 2), sm::Shard{0}}};
};

/// Runs a body on 4 ranks of each kind: with shared memory and with messages.
template <class F>
void on_all_engines(F f) {
  sm::launch(sm::threads{4}, [&f](World& world) {
    f(world);
    f(test::PackedThreads(world));
  });
}

}  // namespace

TEST_SUITE_BEGIN("state.load_state_dict");

TEST_CASE("full_state_dict: each rank cuts its parts out of the whole that it has") {
  on_all_engines([](auto const& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    auto whole = reference();
    for (auto const& list : lists()) {
      auto model = blank<FakeDevice>(mesh, list);
      auto const report =
          sm::load_state_dict(world, model, sm::state_dict(whole), {.full_state_dict = true});
      CHECK(report.missing.empty());
      CHECK(report.unexpected.empty());
      CHECK(against_reference(world, model) == "");
      CHECK(model.cache.span()[0] == 0.0F);  // transient: no state
    }
  });
}

TEST_CASE("broadcast_from_rank0: only rank 0 has the dict, within the ceiling") {
  on_all_engines([](auto const& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    auto whole = reference();
    for (auto const& list : lists()) {
      auto model = blank<FakeDevice>(mesh, list);
      sm::StateOptions options{.full_state_dict = true, .broadcast_from_rank0 = true};
      options.gather.ceiling_bytes = 40;
      auto const report = sm::load_state_dict(
          world, model, world.rank() == 0 ? sm::state_dict(whole) : sm::StateDict{}, options);
      CHECK(report.traffic.peak_staging_bytes <= 40);
      CHECK(against_reference(world, model) == "");
    }
  });
}

TEST_CASE("broadcast_from_rank0 to tensors without a mesh reaches every replica") {
  on_all_engines([](auto const& world) {
    auto const shard = world.split(world.rank() / 2, world.rank());
    auto const replicate = world.split(world.rank() % 2, world.rank());
    using Sharded = sm::ShardedTensor<float, std::remove_cvref_t<decltype(world)>, FakeDevice>;
    auto const zeros = [&](sm::Shape const& shape) {
      sm::Layout const layout(shape, {2}, {sm::Shard{0}});
      return Sharded(shard, replicate, shape,
                     Tensor<float, FakeDevice>::zeros(layout.local_shape({shard.rank()})));
    };
    Net<Sharded> model{zeros({7, 4}),
                       zeros({5}),
                       Tensor<float>::zeros({3}),
                       Tensor<float>::zeros({3}),
                       0,
                       0,
                       "",
                       {}};
    auto whole = reference();
    sm::load_state_dict(world, model, world.rank() == 0 ? sm::state_dict(whole) : sm::StateDict{},
                        {.full_state_dict = true, .broadcast_from_rank0 = true});
    CHECK(against_reference(world, model) == "");
  });
}

TEST_CASE("broadcast_from_rank0: a tensor that only some ranks shard is refused on all") {
  for (int const other : {0, 1}) {
    sm::launch(sm::threads{2}, [other](World& world) {
      auto const mesh = sm::device_mesh(world, {2});
      Tensor<float> plain = Tensor<float>::zeros({4});
      auto sharded = sm::distribute(Tensor<float>::zeros({4}), mesh, sm::placements<sm::Shard<0>>);
      sm::StateDict into;
      into.insert("w", world.rank() == other ? sm::AnyTensor(plain) : sm::AnyTensor(sharded));
      sm::StateDict from;
      if (world.rank() == 0) {
        from.insert("w", sm::AnyTensor(counting({4}, 1)));
      }
      auto const text = test::error_of<sm::InvalidArgument>([&] {
        sm::load_state_dict(world, into, from,
                            {.full_state_dict = true, .broadcast_from_rank0 = true});
      });
      CHECK(text.find(other == 1
                          ? "\"w\" is a plain tensor here and distributed on rank 0"
                          : "\"w\" is distributed here and a plain tensor") != std::string::npos);
      CHECK(plain.span()[0] == 0);
    });
  }
}

TEST_CASE("broadcast_from_rank0 without full_state_dict is an error") {
  sm::launch(sm::threads{1}, [](World& world) {
    auto model = reference();
    CHECK(test::error_of<sm::InvalidArgument>([&] {
            sm::load_state_dict(world, model, sm::StateDict{}, {.broadcast_from_rank0 = true});
          }) == "shardmesh::load_state_dict: broadcast_from_rank0 sends whole tensors, so it needs "
                "full_state_dict as well");
  });
}

TEST_CASE("sharded dicts: equal layouts are copied, others redistributed over the mesh") {
  on_all_engines([](auto const& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    auto whole = reference();
    for (auto const& from : lists()) {
      auto source = blank<FakeDevice>(mesh, from);
      sm::load_state_dict(world, source, sm::state_dict(whole), {.full_state_dict = true});
      for (auto const& to : lists()) {
        for (bool const offload : {false, true}) {
          auto model = blank<FakeDevice>(mesh, to);
          sm::load_state_dict(world, model, sm::state_dict(source, {.cpu_offload = offload}));
          CHECK(against_reference(world, model) == "");
        }
      }
    }
  });
}

TEST_CASE("sharded dicts: another representation with the same local parts is copied") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    auto const shard = world.split(world.rank() / 2, world.rank());
    auto const replicate = world.split(world.rank() % 2, world.rank());
    auto const x =
        sm::distribute(counting({7, 4}), mesh, sm::placements<sm::Replicate, sm::Shard<0>>);
    sm::ShardedTensor<float, World> const flat(shard, replicate, sm::Shape{7, 4},
                                               Tensor<float>::zeros(x.to_local().shape()));
    sm::StateDict from;
    from.insert("x", sm::AnyTensor(x));
    sm::StateDict into;
    into.insert("x", sm::AnyTensor(flat));
    sm::load_state_dict(world, into, from);
    CHECK(sm::difference(sm::AnyTensor(flat.to_local()), sm::AnyTensor(x.to_local())) == "");
    // And not if a rank would need what it has not.
    sm::StateDict other;
    other.insert("x", sm::AnyTensor(sm::distribute(counting({7, 4}), sm::device_mesh(world, {4}),
                                                   sm::placements<sm::Shard<0>>)));
    CHECK(test::error_of<sm::InvalidArgument>([&] {
            sm::load_state_dict(world, into, other);
          }).find("take the full state, or go through a checkpoint") != std::string::npos);
  });
}

TEST_CASE("what cannot be loaded is refused on every rank, and nothing is written") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    auto whole = reference();
    auto model = blank<sm::HostMemory>(mesh, lists().front());
    auto const before = sm::offloaded(sm::state_dict(model));
    // Only rank 2 sees the problem.
    auto const refused = [&](std::string const& words, auto change, sm::StateOptions options = {}) {
      auto mine = reference();
      auto dict = sm::state_dict(mine);
      options.full_state_dict = true;
      sm::StateDict broken;
      for (sm::StateEntry const& entry : dict) {
        broken.insert(entry.path, world.rank() == 2 ? change(entry) : entry.value);
      }
      std::string const error = test::error_of<sm::InvalidArgument>(
          [&] { sm::load_state_dict(world, model, broken, options); });
      INFO(error);
      CHECK(error.find(words) != std::string::npos);
      CHECK(error.find("[rank 2]") != std::string::npos);
      CHECK(sm::difference(before, sm::state_dict(model)) == "");
    };
    auto const replace = [](char const* key, sm::StateValue value) {
      return [key, value](sm::StateEntry const& entry) {
        return entry.key == key ? value : entry.value;
      };
    };
    refused("\"block.weight\" has shape (7, 5), the tensor to load into (7, 4)",
            replace("block.weight", sm::AnyTensor(counting({7, 5}))));
    refused("\"mean\" holds int32, the tensor to load into float32; there is no conversion",
            replace("mean", sm::AnyTensor(Tensor<std::int32_t>::zeros({3}))));
    refused("\"mean\" holds float64, the tensor to load into float32; set options.dtype",
            replace("mean", sm::AnyTensor(Tensor<double>::zeros({3}))));
    refused("\"mean\" is a plain value, the member is a tensor", replace("mean", sm::Value(1)));
    refused("\"name\" is a tensor, the member is a plain value",
            replace("name", sm::AnyTensor(counting({1}))));
    refused("\"epoch\" is 40000, which the member cannot hold", replace("epoch", sm::Value(40000)));
    refused("\"steps\" is \"x\", which the member cannot hold", replace("steps", sm::Value("x")));
    refused("\"mean\" is distributed, the tensor to load into is not",
            replace("mean", sm::distribute(counting({3}), sm::device_mesh(world, {4}),
                                           sm::placements<sm::Shard<0>>)));
    sm::StateDict grads;
    grads.insert("block.weight",
                 sm::AnyTensor(sm::from_local(Tensor<float>::zeros({7, 4}), mesh,
                                              sm::placements<sm::Partial<>, sm::Replicate>)));
    CHECK(test::error_of<sm::InvalidArgument>([&] {
            sm::load_state_dict(world, grads, only(sm::state_dict(whole), {"block.weight"}),
                                {.full_state_dict = true});
          }).find("a partial tensor holds terms of a sum") != std::string::npos);
    CHECK(test::error_of<sm::InvalidArgument>([&] {
            sm::load_state_dict(world, grads, only(sm::state_dict(model), {"block.weight"}));
          }).find("cannot be redistributed") != std::string::npos);
    CHECK(test::error_of<sm::InvalidArgument>([&] {
            sm::load_state_dict(world, model, sm::state_dict(whole));
          }).find("set full_state_dict") != std::string::npos);
    CHECK(test::error_of<sm::InvalidArgument>([&] {
            sm::load_state_dict(world, model, sm::state_dict(model),
                                {.full_state_dict = true, .broadcast_from_rank0 = true});
          }).find("take the full state first") != std::string::npos);
    auto const halves = sm::device_mesh(world, {2, 2}, {"half", "in_half"})["in_half"];
    sm::StateDict apart;
    apart.insert("block.scale", sm::AnyTensor(sm::distribute(counting({5}), halves,
                                                             sm::placements<sm::Shard<0>>)));
    CHECK(test::error_of<sm::InvalidArgument>([&] {
            sm::load_state_dict(world, apart, only(sm::state_dict(whole), {"block.scale"}),
                                {.full_state_dict = true, .broadcast_from_rank0 = true});
          }).find("has no part on rank 0") != std::string::npos);
    CHECK(sm::difference(before, sm::state_dict(model)) == "");
  });
}

TEST_CASE("missing and unexpected keys: Megatron's eight modes") {
  using sm::KeyPolicy;
  struct Mode {
    char const* name;
    KeyPolicy missing;
    KeyPolicy unexpected;
  };
  // Megatron counts from the checkpoint's side: its "unexpected" is `missing` here.
  std::vector<Mode> const modes{
      {"assume_ok_unexpected", KeyPolicy::error, KeyPolicy::ignore},
      {"log_unexpected", KeyPolicy::log, KeyPolicy::ignore},
      {"log_all", KeyPolicy::log, KeyPolicy::log},
      {"raise_unexpected", KeyPolicy::error, KeyPolicy::ignore},
      {"raise_all", KeyPolicy::error, KeyPolicy::error},
      {"return_unexpected", KeyPolicy::collect, KeyPolicy::ignore},
      {"return_all", KeyPolicy::collect, KeyPolicy::collect},
      {"ignore_all", KeyPolicy::ignore, KeyPolicy::ignore},
  };
  sm::launch(sm::threads{3}, [&modes](World& world) {
    auto const mesh = sm::device_mesh(world, {3});
    auto whole = reference();
    auto const run = [&](Keys const& keys, bool extra, Mode const& mode) {
      auto model = blank<sm::HostMemory>(mesh, {sm::Shard{0}});
      auto dict = only(sm::state_dict(whole), keys);
      if (extra && world.rank() == 1) {  // one rank alone sees it
        dict.insert("extra", sm::Value(1));
      }
      auto const report = sm::load_state_dict(
          world, model, dict,
          {.full_state_dict = true, .missing = mode.missing, .unexpected = mode.unexpected});
      CHECK(model.epoch == 12);
      bool const weight = std::find(keys.begin(), keys.end(), "block.weight") != keys.end();
      CHECK((model.weight.to_local().span()[0] != 0.0F) == weight);
      return report;
    };
    Keys const all{"block.weight", "block.scale", "mean", "epoch", "rate", "name", "steps"};
    Keys const some{"mean", "epoch", "rate", "name", "steps"};
    Keys const gone{"block.weight", "block.scale"};
    for (Mode const& mode : modes) {
      INFO(mode.name);
      if (mode.missing == KeyPolicy::error) {
        CHECK(
            test::error_of<sm::KeyError>([&] { run(some, false, mode); }) ==
            "shardmesh::load_state_dict: 2 missing keys, which are in the state to load into, but "
            "not in the source: \"block.weight\", \"block.scale\" [rank 0]. Set options.missing to "
            "go on without them");
      } else {
        CHECK(run(some, false, mode).missing ==
              (mode.missing == KeyPolicy::ignore ? Keys{} : gone));
      }
      if (mode.unexpected == KeyPolicy::error) {
        CHECK(test::error_of<sm::KeyError>([&] { run(all, true, mode); }) ==
              "shardmesh::load_state_dict: 1 unexpected keys, which are in the source, but not in "
              "the state to load into: \"extra\" [rank 1]. Set options.unexpected to go on without "
              "them");
      } else {
        CHECK(run(all, true, mode).unexpected ==
              (mode.unexpected == KeyPolicy::ignore ? Keys{} : Keys{"extra"}));
      }
    }
  });
}

TEST_CASE("missing keys are listed, all of them") {
  sm::launch(sm::threads{1}, [](World& world) {
    sm::StateDict into;
    std::string list;
    for (int i = 0; i < 30; ++i) {
      std::string const key = "layer" + std::to_string(i);
      into.insert(key, Tensor<float>::zeros({1}));
      list += (i == 0 ? "\"" : ", \"") + key + "\"";
    }
    std::string const text =
        test::error_of<sm::KeyError>([&] { sm::load_state_dict(world, into, sm::StateDict{}); });
    CHECK(text.find("30 missing keys") != std::string::npos);
    CHECK(text.find(list + " [rank 0]") != std::string::npos);
  });
}

TEST_CASE("a distributed value that one rank misses is left alone by all") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    auto whole = reference();
    auto model = blank<sm::HostMemory>(mesh, {sm::Shard{0}});
    auto const dict =
        only(sm::state_dict(whole), world.rank() == 0
                                        ? Keys{"block.scale"}
                                        : Keys{"block.scale", "block.weight", "mean", "epoch"});
    auto const report = sm::load_state_dict(
        world, model, dict, {.full_state_dict = true, .missing = sm::KeyPolicy::collect});
    CHECK(report.missing ==
          Keys{"block.weight", "mean", "epoch", "rate", "name", "steps"});  // of any rank
    CHECK(model.weight.to_local().span()[0] == 0.0F);
    CHECK(model.scale.to_local().span()[0] == (world.rank() == 0 ? 100.0F : 103.0F));
    CHECK(model.epoch == (world.rank() == 0 ? 0 : 12));  // plain: each rank for itself
  });
}

TEST_CASE("ranks that would load one tensor in different ways are stopped") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    auto const on = [&](sm::PlacementList const& list) {
      sm::StateDict dict;
      dict.insert("x", sm::AnyTensor(sm::distribute(counting({4, 4}), mesh, list)));
      return dict;
    };
    auto into = on({sm::Shard{0}});
    auto const rows = on({sm::Shard{0}});
    auto const columns = on({sm::Shard{1}});
    std::string const error = test::error_of<sm::MismatchError>(
        [&] { sm::load_state_dict(world, into, world.rank() == 0 ? rows : columns); });
    CHECK(error.find("ranks disagree on \"x\": rank 1 would load float32(4, 4) on mesh (2) as "
                     "(Shard(0)) 0:0 from float32(4, 4) on mesh (2) as (Shard(1)) 1:0") !=
          std::string::npos);
  });
}

TEST_CASE("dtype: refused, converted with notice, or converted") {
  on_all_engines([](auto const& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    auto whole = reference();
    auto const dict = [&] {
      auto copy = sm::state_dict(whole);
      sm::StateDict result;
      for (sm::StateEntry const& entry : copy) {
        if (!entry.is_tensor()) {
          result.insert(entry.path, entry.value);
          continue;
        }
        Tensor<double> wide(entry.tensor().shape());
        auto const* narrow = static_cast<float const*>(entry.tensor().data());
        std::copy(narrow, narrow + wide.size(), wide.data());
        result.insert(entry.path, sm::AnyTensor(wide));
      }
      return result;
    }();
    for (bool const broadcast : {false, true}) {
      for (auto const policy : {sm::DTypePolicy::warn, sm::DTypePolicy::cast}) {
        auto model = blank<FakeDevice>(mesh, lists().front());
        auto const report = sm::load_state_dict(
            world, model, broadcast && world.rank() > 0 ? sm::StateDict{} : dict,
            {.full_state_dict = true, .broadcast_from_rank0 = broadcast, .dtype = policy});
        CHECK(against_reference(world, model) == "");
        CHECK(report.cast == (policy == sm::DTypePolicy::warn
                                  ? Keys{"block.weight", "block.scale", "mean"}
                                  : Keys{}));
      }
    }
    // Sharded, of another layout.
    sm::StateDict sharded;
    sharded.insert("x", sm::AnyTensor(sm::distribute(Tensor<double>::zeros({7, 4}), mesh,
                                                     sm::placements<sm::Shard<1>, sm::Shard<0>>)));
    sm::StateDict into;
    auto const target =
        sm::distribute(counting({7, 4}), mesh, sm::placements<sm::Replicate, sm::Shard<0>>);
    into.insert("x", sm::AnyTensor(target));
    sm::load_state_dict(world, into, sharded, {.dtype = sm::DTypePolicy::cast});
    CHECK(target.to_local().span()[0] == 0.0F);
  });
}

TEST_CASE("dtype: a number that does not fit is refused before anything is written") {
  sm::launch(sm::threads{2}, [](World& world) {
    Tensor<std::int64_t> wide = Tensor<std::int64_t>::zeros({2});
    wide.span()[1] = world.rank() == 1 ? 300 : 7;
    Tensor<std::int8_t> const narrow = Tensor<std::int8_t>::zeros({2});
    Tensor<float> const first = Tensor<float>::zeros({1});
    sm::StateDict from;
    from.insert("first", sm::AnyTensor(counting({1}, 5)));
    from.insert("n", sm::AnyTensor(wide));
    sm::StateDict into;
    into.insert("first", sm::AnyTensor(first));
    into.insert("n", sm::AnyTensor(narrow));
    std::string const error = test::error_of<sm::InvalidArgument>(
        [&] { sm::load_state_dict(world, into, from, {.dtype = sm::DTypePolicy::cast}); });
    CHECK(error.find("\"n\" cannot become int8: the value 300 does not fit") != std::string::npos);
    CHECK(error.find("[rank 1]") != std::string::npos);
    CHECK(first.span()[0] == 0.0F);
  });
}

TEST_CASE("frozen parameters are left out and left alone; buffers are not") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    auto whole = reference();
    sm::StateOptions const options{.full_state_dict = true, .ignore_frozen_params = true};
    auto model = blank<sm::HostMemory>(mesh, {sm::Shard{0}});
    // Neither missing nor unexpected.
    sm::load_state_dict(world, model, sm::state_dict(whole), options);
    CHECK(against_reference(world, model, false) == "");
    auto const state = sm::state_dict(world, model, options);
    CHECK(!state.contains("block.scale"));
    CHECK(state.contains("mean"));
    auto again = blank<sm::HostMemory>(mesh, {sm::Shard{0}});
    sm::load_state_dict(world, again, state, options);
    CHECK(against_reference(world, again, false) == "");
  });
}

TEST_CASE("names: renamed on the way out, found under the new ones on the way in") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    auto whole = reference();
    sm::StateOptions options{.full_state_dict = true};
    options.renames = {{"block", "encoder.0"}, {"mean", "running_mean"}, {"blo", "never"}};
    options.rename = [](std::string const& name) { return "m." + name; };
    auto const dict = sm::state_dict(world, whole, options);
    CHECK(dict.begin()->key == "m.encoder.0.weight");
    CHECK(dict.contains("m.running_mean"));
    CHECK(dict.contains("m.epoch"));
    auto model = blank<sm::HostMemory>(mesh, {sm::Shard{0}});
    sm::load_state_dict(world, model, dict, options);
    CHECK(against_reference(world, model) == "");
    options.rename = [](std::string const&) { return std::string("same"); };
    CHECK_THROWS_WITH_AS(static_cast<void>(sm::state_dict(world, whole, options)),
                         doctest::Contains("two values have the key \"same\""), sm::KeyError);
  });
}

TEST_CASE("tied tensors: one name is enough, though a rank without elements sees no tie") {
  sm::launch(sm::threads{3}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {3});
    auto const tied =
        sm::distribute(Tensor<float>::zeros({2, 2}), mesh, sm::placements<sm::Shard<0>>);
    for (char const* present : {"embedding", "head"}) {
      sm::StateDict into;
      into.insert("embedding", sm::AnyTensor(tied));
      into.insert("head", sm::AnyTensor(tied));
      sm::StateDict from;
      from.insert(present, sm::AnyTensor(counting({2, 2}, 3)));
      sm::load_state_dict(world, into, from, {.full_state_dict = true});
      if (world.rank() < 2) {
        CHECK(tied.to_local().span()[0] == (world.rank() == 0 ? 3.0F : 5.0F));
      }
    }
    sm::StateDict into;
    into.insert("embedding", sm::AnyTensor(tied));
    into.insert("head", sm::AnyTensor(tied));
    CHECK_THROWS_WITH_AS(sm::load_state_dict(world, into, sm::StateDict{}, {}),
                         doctest::Contains("2 missing keys"), sm::KeyError);
  });
}

TEST_CASE("keys may differ between ranks: plain values never enter a collective") {
  sm::launch(sm::threads{4}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    std::string const sparse = world.rank() == 0 ? "sparse0" : "sparse1";
    auto const make = [&](bool filled) {
      auto const dense = filled ? counting({6, 2}) : Tensor<float>::zeros({6, 2});
      sm::StateDict dict;
      if (world.rank() % 2 == 0) {
        dict.insert(sparse, sm::AnyTensor(filled ? counting({2}, 9) : Tensor<float>::zeros({2})));
      }
      dict.insert("dense", sm::AnyTensor(sm::distribute(
                               dense, mesh, sm::placements<sm::Replicate, sm::Shard<0>>)));
      if (world.rank() % 2 == 1) {
        dict.insert(sparse, sm::AnyTensor(filled ? counting({2}, 9) : Tensor<float>::zeros({2})));
      }
      return dict;
    };
    auto into = make(false);
    sm::load_state_dict(world, into, make(true));
    CHECK(sm::difference(into, make(true)) == "");
  });
}

TEST_CASE("who returns what where: the table of StateOptions") {
  on_all_engines([](auto const& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    auto whole = reference();
    auto model = blank<FakeDevice>(mesh, lists().front());
    sm::load_state_dict(world, model, sm::state_dict(whole), {.full_state_dict = true});

    auto const nothing = sm::state_dict(world, model, {});
    CHECK(nothing.size() == 7);
    auto const& shared = nothing.at("block.weight").tensor();
    CHECK(shared.kind() == sm::TensorKind::distributed);
    CHECK(shared.memory() == sm::MemoryKind::cuda);
    CHECK(shared.data() == model.weight.to_local().data());

    auto const offload = sm::state_dict(world, model, {.cpu_offload = true});
    CHECK(offload.size() == 7);
    auto const& copied = offload.at("block.weight").tensor();
    CHECK(copied.kind() == sm::TensorKind::distributed);
    CHECK(copied.memory() == sm::MemoryKind::host);
    CHECK(copied.mesh() == mesh.description());
    CHECK(copied.local_bytes() == shared.local_bytes());
    CHECK(offload.at("mean").tensor().data() != model.mean.data());

    auto const full = sm::state_dict(world, model, {.full_state_dict = true});
    CHECK(full.size() == 7);
    auto const& everywhere = full.at("block.weight").tensor();
    CHECK(everywhere.kind() == sm::TensorKind::plain);
    CHECK(everywhere.memory() == sm::MemoryKind::cuda);
    CHECK(everywhere.local_bytes() == sm::AnyTensor(whole.weight).local_bytes());

    auto const both = sm::state_dict(world, model, {.full_state_dict = true, .cpu_offload = true});
    CHECK(both.size() == (world.rank() == 0 ? 7 : 0));
    if (world.rank() == 0) {
      CHECK(sm::difference(both, sm::state_dict(whole)) == "");
    }
    CHECK(test::error_of<sm::InvalidArgument>([&] {
            static_cast<void>(sm::state_dict(model, {.full_state_dict = true}));
          }).find("pass the communicator first") != std::string::npos);
  });
}

TEST_CASE("model_value: what fits which member") {
  using sm::detail::model_value;
  CHECK(model_value<int>(sm::Value(-3)) == -3);
  CHECK(!model_value<unsigned>(sm::Value(-3)));
  CHECK(!model_value<std::int8_t>(sm::Value(128)));
  CHECK(!model_value<int>(sm::Value(1.0)));
  CHECK(model_value<double>(sm::Value(2)) == 2.0);
  CHECK(!model_value<double>(sm::Value(true)));
  CHECK(model_value<bool>(sm::Value(true)) == true);
  CHECK(model_value<std::string>(sm::Value("x")) == "x");
  CHECK(model_value<std::vector<float>>(sm::Value(sm::Value::Tuple{{1, 2.5}})) ==
        std::vector<float>{1, 2.5F});
  CHECK(!model_value<std::vector<int>>(sm::Value(sm::Value::List{1, "x"})));
  CHECK(model_value<sm::Value>(sm::Value()) == sm::Value());
}

TEST_CASE("every kind of plain value travels from rank 0") {
  sm::launch(sm::threads{2}, [](World& world) {
    sm::Value const value(sm::Value::Dict{
        {"none", sm::Value()},
        {"flag", true},
        {"number", -5},
        {"real", 0.25},
        {"list", sm::Value::List{1, "two", sm::Value::Tuple{{3.0}}}},
        {"opaque", sm::Value::Opaque{{std::byte{1}, std::byte{255}}}},
    });
    sm::StateDict from;
    from.insert("v", value);
    sm::StateDict into;
    into.insert("v", sm::Value());
    sm::load_state_dict(world, into, world.rank() == 0 ? from : sm::StateDict{},
                        {.full_state_dict = true, .broadcast_from_rank0 = true});
    CHECK(into.at("v").plain() == value);
  });
}

TEST_SUITE_END();

}  // namespace load_state_dict_test
