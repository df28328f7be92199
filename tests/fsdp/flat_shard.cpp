// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Behaviour row B9 trains, saves and loads flat models; here is what it does not ask.
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/fsdp/flat_shard.hpp>
#include <shardmesh/fsdp/flat_state.hpp>
#include <shardmesh/fsdp/flat_unit.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>
#include <shardmesh/fsdp/unit_schedule.hpp>
#include <shardmesh/optim/adam.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "../support/chain_math.hpp"
#include "../support/errors.hpp"

namespace flat_shard_test {

namespace sm = shardmesh;

using sm::Shape;
using sm::Tensor;
using World = sm::ThreadsCommunicator;

namespace {

auto counting() {
  return [next = 0.0F](Shape const& shape) mutable {
    Tensor<float> tensor(shape);
    for (float& value : tensor.span()) {
      value = next++;
    }
    return tensor;
  };
}

template <class P>
struct HalfFrozen {
  models::Linear<P> trained;
  models::Linear<P> fixed;
  template <class V>
  void visit(V&& v) {
    v("trained", trained);
    v("fixed", sm::frozen(fixed));
  }
};

}  // namespace

TEST_SUITE_BEGIN("fsdp.flat_shard");

TEST_CASE("every rank keeps an equal part of the concatenated parameters, the last one padded") {
  for (int ranks : {1, 2, 3, 5, 7}) {
    sm::launch(sm::threads{ranks}, [ranks](World& world) {
      auto model = models::mlp(3, counting());  // 36 + 12 and 36 + 3 elements, counted through
      auto net = sm::flat_shard(model, sm::device_mesh(world, {ranks}, {"shard"}));
      CHECK(net.units() == std::vector<std::string>{"in_proj", "out_proj"});
      auto const parameters = net.parameters();
      REQUIRE(parameters.size() == 2);
      CHECK(parameters[0].name == "in_proj._flat_param");
      float first = 0;
      for (auto const& [size, flat] :
           {std::pair(48, parameters[0].value), std::pair(39, parameters[1].value)}) {
        int const part = (size + ranks - 1) / ranks;
        auto const local = flat.to_local();
        REQUIRE(local.size() == part);
        for (int i = 0; i < part; ++i) {
          int const at = world.rank() * part + i;
          CHECK(local.span()[static_cast<std::size_t>(i)] ==
                (at < size ? first + static_cast<float>(at) : 0));
        }
        first += static_cast<float>(size);
      }
      CHECK(model.in_proj.weight.size() == 0);
      net.prefetch(1);
      {
        auto const pass = net.forward(1);
        CHECK(model.out_proj.bias.span()[2] == 86);
        CHECK(model.out_proj.bias.data() == model.out_proj.weight.data() + 36);
      }
      CHECK(model.out_proj.bias.size() == 0);
    });
  }
}

TEST_CASE("its gradients and states are those of per-parameter sharding, bit by bit") {
  sm::launch(sm::threads{6}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 3}, {"replicate", "shard"});
    auto first = models::dense(test::tensor_maker<sm::HostMemory>(5));
    auto second = models::dense(test::tensor_maker<sm::HostMemory>(5));
    auto flat = sm::flat_shard(first, mesh);
    auto net = sm::fully_shard(second, mesh);
    sm::Adam<decltype(flat)::Parameter> flat_adam(flat.parameters(), {.lr = 0.1});
    sm::Adam<decltype(net)::Parameter> adam(net, {.lr = 0.1});
    for (unsigned step = 0; step < 3; ++step) {
      unsigned const seed = 10 * step + static_cast<unsigned>(world.rank());
      flat_adam.step(test::sharded_gradients<sm::HostMemory>(flat, seed));
      adam.step(test::sharded_gradients<sm::HostMemory>(net, seed));
    }
    CHECK(sm::difference(flat.state_dict(), net.state_dict()) == "");
    CHECK(sm::difference(flat.optimizer_state_dict(flat_adam.state_dict()), adam.state_dict()) ==
          "");
  });
}

TEST_CASE("frozen parameters have units of their own, without gradient or optimizer state") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto make = counting();
    HalfFrozen<Tensor<float>> model{models::linear(2, 2, make), models::linear(2, 2, make)};
    auto net = sm::flat_shard(model, sm::device_mesh(world, {2}, {"shard"}));
    CHECK(net.parameters().size() == 1);
    CHECK(net.reduce_gradients({Tensor<float>::zeros({2, 2}), Tensor<float>::zeros({2})}).size() ==
          1);
    CHECK(net.state_dict().size() == 4);
    HalfFrozen<Tensor<float>> other{models::linear(2, 2, make), models::linear(2, 2, make)};
    auto const text = test::error_of<sm::InvalidArgument>([&] {
      static_cast<void>(
          sm::flat_shard(other, sm::device_mesh(world, {2}, {"shard"}), {.units = {"nothing"}}));
    });
    CHECK(text.find("unit \"\" has \"fixed.weight\", frozen or not unlike \"trained.weight\"") !=
          std::string::npos);
  });
}

TEST_CASE("a state of another form is refused, and nothing is changed") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2}, {"shard"});
    auto model = models::mlp(2, counting());
    auto net = sm::flat_shard(model, mesh);
    sm::Adam<decltype(net)::Parameter> adam(net.parameters());
    auto const before = net.state_dict();
    auto wrong = models::mlp(3, counting());
    auto const other = sm::fully_shard(wrong, mesh).state_dict();
    auto text = test::error_of<sm::ShapeError>([&] { net.load_state_dict(other); });
    CHECK(
        text.find("\"in_proj.weight\" is (12, 3) on mesh (2) as (Shard(0)), wanted is a tensor of "
                  "shape (8, 2)") != std::string::npos);
    text = test::error_of<sm::KeyError>([&] { net.load_state_dict({}); });
    CHECK(text.find("no value has the key \"in_proj.weight\"") != std::string::npos);
    text =
        test::error_of<sm::KeyError>([&] { net.load_optimizer_state_dict({}, adam.state_dict()); });
    CHECK(text.find("state.in_proj.weight.step") != std::string::npos);
    sm::StateDict plain;
    for (auto const& entry : before) {
      plain.insert(entry.path, sm::StateValue(sm::Value(1)));
    }
    text = test::error_of<sm::ShapeError>([&] { net.load_state_dict(plain); });
    CHECK(text.find("is a plain value") != std::string::npos);
    CHECK(sm::difference(net.state_dict(), before) == "");
  });
}

TEST_SUITE_END();

}  // namespace flat_shard_test
