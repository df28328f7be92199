// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/fsdp/collect.hpp>
#include <shardmesh/fsdp/flat_shard.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>
#include <shardmesh/fsdp/options.hpp>
#include <shardmesh/fsdp/sharding.hpp>
#include <shardmesh/fsdp/unit.hpp>
#include <shardmesh/optim/adam.hpp>
#include <shardmesh/state/full_state_dict.hpp>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <doctest/doctest.h>

#include "../../examples/support/models.hpp"
#include "../support/errors.hpp"

namespace fully_shard_test {

namespace sm = shardmesh;

using sm::Shape;
using sm::Tensor;
using World = sm::ThreadsCommunicator;

namespace {

/// Tensors whose elements count on from 0 over the whole model.
auto counting() {
  return [next = 0.0F](Shape const& shape) mutable {
    Tensor<float> tensor(shape);
    for (float& value : tensor.span()) {
      value = next++;
    }
    return tensor;
  };
}

bool equal(Tensor<float> const& a, Tensor<float> const& b) {
  return a.shape() == b.shape() && std::equal(a.span().begin(), a.span().end(), b.span().begin());
}

/// The leaves of a model as copies.
template <class Model>
std::vector<Tensor<float>> leaves(Model& model) {
  std::vector<Tensor<float>> found;
  sm::for_each_leaf(model, [&found]<class Leaf>(std::string const&, Leaf& leaf) {
    if constexpr (std::is_same_v<Leaf, Tensor<float>>) {
      found.push_back(leaf.clone());
    }
  });
  return found;
}

/// What `net` shards is the chunk rule's part of `whole`; gathered again it is `whole`.
template <class Net>
void check_round_trip(Net& net, std::vector<Tensor<float>> const& whole, int shards, int place) {
  auto const state = net.state_dict();
  REQUIRE(state.size() == whole.size());
  std::size_t i = 0;
  for (auto const& entry : state) {
    auto const& full = whole[i++];
    auto const part = sm::chunk(full.shape()[0], shards, place);
    auto const bytes = entry.tensor().local_bytes();
    auto const row = static_cast<std::size_t>(full.size() / full.shape()[0]) * sizeof(float);
    REQUIRE(bytes.size() == row * static_cast<std::size_t>(part.size()));
    auto const* first =
        reinterpret_cast<std::byte const*>(full.data()) + row * static_cast<std::size_t>(part.lo);
    CHECK(std::equal(bytes.begin(), bytes.end(), first));
  }
  for (auto const& leaf : leaves(net.model())) {
    CHECK(leaf.size() == 0);
  }
  net.unshard();
  auto const again = leaves(net.model());
  for (i = 0; i < whole.size(); ++i) {
    CHECK(equal(again[i], whole[i]));
  }
  net.reshard();
  CHECK(leaves(net.model())[0].size() == 0);
}

struct Tied {
  using parameter_type = Tensor<float>;
  Tensor<float> embedding;
  Tensor<float> head;
  Tensor<float> scale;
  Tensor<float> fixed;
  Tensor<float> mean;
  template <class V>
  void visit(V&& v) {
    v("embedding", embedding);
    v("scale", scale);
    v("head", head);
    v("fixed", sm::frozen(fixed));
    v("mean", sm::buffer(mean));
  }
};

Tied make_tied() {
  auto make = counting();
  Tied model;
  model.embedding = make({5, 2});
  model.head = model.embedding;
  model.scale = make({3});
  model.fixed = make({4});
  model.mean = make({2});
  return model;
}

/// Host memory with numbered streams; a stream that is owned has its number while it lives.
struct Lanes : sm::HostMemory {
  struct Stream : sm::HostStream {
    int lane = 0;
  };
  struct OwnedStream {
    OwnedStream() { last() = 1; }
    OwnedStream(OwnedStream const&) = delete;
    OwnedStream& operator=(OwnedStream const&) = delete;
    ~OwnedStream() { last() = 0; }
    [[nodiscard]] Stream get() const { return {{}, 1}; }
  };
  static constexpr bool host_accessible = false;
  /// The side stream of the calling rank, while there is one.
  static int& last() {
    thread_local int lane = 0;
    return lane;
  }
  static bool& freed_on_dead_stream() {
    thread_local bool wrong = false;
    return wrong;
  }
  static OwnedStream make_stream() { return {}; }
  static void deallocate(void* pointer, std::size_t bytes, Stream stream) noexcept {
    freed_on_dead_stream() = freed_on_dead_stream() || (stream.lane == 1 && last() == 0);
    HostMemory::deallocate(pointer, bytes, stream);
  }
};

struct Lane {
  using parameter_type = Tensor<float, Lanes>;
  parameter_type first = parameter_type::zeros({3});
  parameter_type second = parameter_type::zeros({2});
  template <class V>
  void visit(V&& v) {
    v("first", first);
    v("second", second);
  }
};

/// Has no `parameter_type`: it is found in the members.
struct Block {
  Tensor<float> weight = Tensor<float>::zeros({4, 2});
  std::optional<Tensor<float>> bias;
  template <class V>
  void visit(V&& v) {
    v("weight", weight);
    v("bias", bias);
  }
};
struct Deduced {
  std::vector<Block> blocks{2};
  std::array<Block, 2> pair{};
  std::unique_ptr<Block> head = std::make_unique<Block>();
  std::map<std::string, Tensor<float>> named{{"x", Tensor<float>::zeros({3})}};
  Tensor<float> mean = Tensor<float>::zeros({2});
  std::string name = "run";
  sm::Value note;
  int epoch = 0;
  template <class V>
  void visit(V&& v) {
    v("blocks", blocks);
    v("pair", pair);
    v("head", head);
    v("named", named);
    v("mean", sm::buffer(mean));
    v("epoch", epoch);
  }
};
struct Listed {
  Block block;
  std::tuple<Tensor<float>, int> more{Tensor<float>::zeros({2}), 1};
  static constexpr std::array member_names{"block", "more"};
};

struct Scalar {
  using parameter_type = Tensor<float>;
  Tensor<float> value{Shape{}};
  Tensor<double> other{Shape{2}};
  bool with_other = false;
  template <class V>
  void visit(V&& v) {
    if (with_other) {
      v("other", other);
    } else {
      v("value", value);
    }
  }
};

}  // namespace

TEST_SUITE_BEGIN("fsdp.fully_shard");

TEST_CASE("the type of the parameters is deduced, the optimizer's too") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    Deduced model;
    auto net = sm::fully_shard(model, mesh);
    sm::Adam adam(net, {.lr = 0.5});
    static_assert(std::is_same_v<decltype(adam), sm::Adam<decltype(net)::Parameter>>);
    CHECK(adam.parameters().size() == 6);
    Listed listed;
    auto other = sm::fully_shard(listed, mesh);
    CHECK(sm::state_dict(other).at("block.weight").tensor().local_shape() == Shape{2, 2});
  });
}

#ifndef NDEBUG
TEST_CASE("a parameter outside a pass says that it is not there") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    Block model;
    auto net = sm::fully_shard(model, mesh);
    auto const refused = [&model] {
      CHECK(model.weight.is_sharded_away());
      CHECK_THROWS_WITH_AS(static_cast<void>(model.weight.span()),
                           doctest::Contains("this parameter is sharded, and not whole outside a "
                                             "pass"),
                           sm::InvalidArgument);
      CHECK_THROWS_AS(static_cast<void>(model.weight.clone().span()), sm::InvalidArgument);
    };
    refused();
    {
      auto const pass = net.forward(0);
      CHECK(model.weight.span().size() == 8);
    }
    refused();
    Block flat_model;
    auto flat = sm::flat_shard(flat_model, mesh);
    CHECK_THROWS_AS(static_cast<void>(flat_model.weight.span()), sm::InvalidArgument);
    flat.unshard();
    CHECK(flat_model.weight.span().size() == 8);
    CHECK(Tensor<float>().span().empty());  // one that is merely empty stays usable
  });
}
#endif

TEST_CASE("parameters are cut by the chunk rule and come back whole: 1-D, hybrid, groups") {
  for (int ranks : {1, 2, 3, 4, 6}) {
    sm::launch(sm::threads{ranks}, [ranks](World& world) {
      auto model = models::dense(counting());
      auto const whole = leaves(model);
      auto net = sm::fully_shard(model, sm::device_mesh(world, {ranks}, {"shard"}));
      CHECK(net.units() == std::vector<std::string>{"net1.0", "net2.0", "net3.0", "net4.1"});
      check_round_trip(net, whole, ranks, world.rank());
      for (int rows : {2, 3}) {
        if (ranks % rows != 0) {
          continue;
        }
        int const columns = ranks / rows;
        auto second = models::dense(counting());
        auto hybrid = sm::fully_shard(
            second, sm::device_mesh(world, {rows, columns}, {"replicate", "shard"}));
        check_round_trip(hybrid, whole, columns, world.rank() % columns);
        auto third = models::dense(counting());
        auto groups = sm::fully_shard(third, world.split(world.rank() / columns, world.rank()),
                                      world.split(world.rank() % columns, world.rank()));
        check_round_trip(groups, whole, columns, world.rank() % columns);
        CHECK(groups.state_dict().begin()->tensor().kind() == sm::TensorKind::sharded);
      }
    });
  }
}

TEST_CASE("gradients become the average over all ranks, or the sum, for any number of ranks") {
  for (int ranks : {1, 2, 3, 4, 5, 6}) {
    sm::launch(sm::threads{ranks}, [ranks](World& world) {
      auto const gradients_of = [](int rank) {
        auto gradients = models::dense(counting());
        sm::for_each_leaf(gradients, [rank](std::string const&, auto& leaf) {
          for (float& value : leaf.span()) {
            value = static_cast<float>(rank + 1) * (value + 1);
          }
        });
        return gradients;
      };
      int const rows = ranks % 2 == 0 ? 2 : 1;
      int const columns = ranks / rows;
      for (auto op : {sm::ReduceOp::avg, sm::ReduceOp::sum}) {
        auto model = models::dense(counting());
        auto net =
            sm::fully_shard(model, sm::device_mesh(world, {rows, columns}, {"replicate", "shard"}),
                            {.gradients = op});
        auto gradients = gradients_of(world.rank());
        auto const reduced = net.reduce_gradients(gradients);
        auto const ones = leaves(gradients);
        REQUIRE(reduced.size() == 8);
        float const factor = static_cast<float>(ranks * (ranks + 1)) / 2.0F /
                             (op == sm::ReduceOp::avg ? static_cast<float>(ranks) : 1.0F);
        float next = 1;
        for (std::size_t i = 0; i < reduced.size(); ++i) {
          auto const part = sm::chunk(ones[i].shape()[0], columns, world.rank() % columns);
          auto const local = reduced[i].to_local();
          auto const row = ones[i].size() / ones[i].shape()[0];
          float expected = next + static_cast<float>(part.lo * row);
          for (float value : local.span()) {
            CHECK(value == doctest::Approx(factor * expected++));
          }
          next += static_cast<float>(ones[i].size());
        }
      }
    });
  }
}

TEST_CASE("units are what the options say; passes keep a unit whole for their scope") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2}, {"shard"});
    auto model = models::dense(counting());
    auto net = sm::fully_shard(model, mesh, {.units = {"net2.0", "net3"}});
    CHECK(net.units() == std::vector<std::string>{"", "net2.0", "net3"});
    {
      auto const pass = net.forward(1);
      CHECK(model.net2.weight.shape() == Shape{32, 16});
      CHECK(model.net2.weight.span()[0] == 8 * 16 + 16);
      CHECK(model.net1.weight.size() == 0);
    }
    CHECK(model.net2.weight.size() == 0);
    net.prefetch(0);
    CHECK(net.is_unsharded(0));
    {
      auto const pass = net.backward(0);
    }
    CHECK(!net.is_unsharded(0));

    auto other = models::dense(counting());
    auto kept = sm::fully_shard(other, mesh, {.reshard_after_forward = false});
    {
      auto const pass = kept.forward(0);
    }
    CHECK(kept.is_unsharded(0));
    CHECK(other.net1.weight.size() == 128);
    {
      auto const pass = kept.backward(0);
    }
    CHECK(!kept.is_unsharded(0));
    auto const text = test::error_of<sm::InvalidArgument>([&] { kept.unshard(4); });
    CHECK(text.find("there is no unit 4; the model has 4") != std::string::npos);
  });
}

TEST_CASE(
    "tied members are one parameter under two names; frozen ones have no gradient; buffers stay") {
  sm::launch(sm::threads{3}, [](World& world) {
    auto model = make_tied();
    auto net = sm::fully_shard(model, sm::device_mesh(world, {3}, {"shard"}));
    auto const state = sm::state_dict(net);
    CHECK(state.size() == 5);
    CHECK(state.at("embedding").tensor().data() == state.at("head").tensor().data());
    CHECK(state.at("fixed").tensor().is_distributed());
    CHECK(!state.at("mean").tensor().is_distributed());
    net.unshard();
    CHECK(model.head.data() == model.embedding.data());
    CHECK(model.head.span()[9] == 9);
    auto const reduced =
        net.reduce_gradients({Tensor<float>::zeros({5, 2}), Tensor<float>::zeros({3})});
    CHECK(reduced.size() == 2);
    auto text = test::error_of<sm::ShapeError>(
        [&] { static_cast<void>(net.reduce_gradients({Tensor<float>::zeros({5, 2})})); });
    CHECK(text.find("1 gradients for 2 trained parameters") != std::string::npos);
    text = test::error_of<sm::ShapeError>([&] {
      static_cast<void>(
          net.reduce_gradients({Tensor<float>::zeros({5, 2}), Tensor<float>::zeros({2})}));
    });
    CHECK(text.find("the gradient of \"scale\" has shape (2), the parameter (3)") !=
          std::string::npos);
    text = test::error_of<sm::ShapeError>(
        [&] { static_cast<void>(net.reduce_gradients(0, std::vector<Tensor<float>>{})); });
    CHECK(text.find("0 gradients for 1 trained parameters") != std::string::npos);
  });
}

TEST_CASE("gradients of tied members: one, or both the same; two are refused") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto model = make_tied();
    auto const mesh = sm::device_mesh(world, {2}, {"shard"});
    auto net = sm::fully_shard(model, mesh);
    auto gradients = make_tied();
    CHECK(net.reduce_gradients(gradients).size() == 2);
    gradients.head = Tensor<float>();
    CHECK(net.reduce_gradients(gradients).size() == 2);
    gradients.head = Tensor<float>::zeros({5, 2});
    auto const text = test::error_of<sm::InvalidArgument>(
        [&] { static_cast<void>(net.reduce_gradients(gradients)); });
    CHECK(text.find("\"head\" is tied to \"embedding\" and has a gradient of its own") !=
          std::string::npos);
  });
}

TEST_CASE("a unit that was fetched ahead and not used gives its memory back to the user's stream") {
  sm::launch(sm::threads{2}, [](World& world) {
    {
      Lane model;
      auto const mesh = sm::device_mesh(world, {2}, {"shard"});
      {
        auto net = sm::fully_shard(model, mesh, {.reshard_after_forward = false});
        {
          auto const pass = net.forward(0);
        }
        CHECK(net.is_unsharded(1));
      }
      CHECK(model.second.size() == 2);
      CHECK(Lanes::last() == 0);
    }
    CHECK(!Lanes::freed_on_dead_stream());
  });
}

TEST_CASE("an error at the end of a pass does not hide the one that ended it") {
  struct Unit {
    using Stream = sm::HostStream;
    void reshard(Stream) { throw sm::InvalidArgument("the second"); }
  };
  Unit unit;
  CHECK(test::error_of<sm::Error>([&] {
          sm::detail::UnitPass<Unit> const pass(unit, {}, true);
          throw sm::InvalidArgument("the first");
        }) == "the first");
  CHECK(test::error_of<sm::Error>([&] { sm::detail::UnitPass<Unit> const pass(unit, {}, true); }) ==
        "the second");
}

TEST_CASE("the first rank's values can be made everybody's, over a mesh and over groups") {
  sm::launch(sm::threads{6}, [](World& world) {
    auto reference = models::dense(counting());
    auto const whole = leaves(reference);
    auto const mine = [&] {
      auto model = models::dense(counting());
      if (world.rank() != 0) {
        sm::for_each_leaf(model, [](std::string const&, auto& leaf) {
          std::fill(leaf.span().begin(), leaf.span().end(), -1.0F);
        });
      }
      return model;
    };
    auto model = mine();
    auto net = sm::fully_shard(model, sm::device_mesh(world, {2, 3}, {"replicate", "shard"}),
                               {.from = sm::DataSource::first_rank});
    check_round_trip(net, whole, 3, world.rank() % 3);
    auto second = mine();
    auto groups = sm::fully_shard(second, world.split(world.rank() / 3, world.rank()),
                                  world.split(world.rank() % 3, world.rank()),
                                  {.from = sm::DataSource::first_rank});
    check_round_trip(groups, whole, 3, world.rank() % 3);
  });
}

TEST_CASE("on top of tensor parallelism: the parts of parts, and PyTorch's strided placement") {
  sm::launch(sm::threads{8}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2, 2}, {"replicate", "shard", "tp"});
    auto model = models::dense(counting());
    auto const whole = leaves(model);
    auto net = sm::fully_shard(model, mesh,
                               sm::TensorParallel{.plan = {{"net1.0.weight", sm::Shard{0}},
                                                           {"net1.0.bias", sm::Shard{0}},
                                                           {"net2.0.weight", sm::Shard{1}}}});
    auto const state = net.state_dict();
    CHECK(state.at("net1.0.weight").tensor().layout().placements() ==
          sm::PlacementList{sm::Replicate{}, sm::Placement::strided(0, 2), sm::Shard{0}});
    CHECK(state.at("net2.0.weight").tensor().layout().placements() ==
          sm::PlacementList{sm::Replicate{}, sm::Shard{0}, sm::Shard{1}});
    CHECK(state.at("net3.0.weight").tensor().layout().placements() ==
          sm::PlacementList{sm::Replicate{}, sm::Shard{0}, sm::Replicate{}});
    // Every full tensor is what went in, so each rank holds the piece that its layout says.
    std::size_t i = 0;
    auto const full = sm::full_state_dict(state);
    for (auto const& entry : full) {
      CHECK(sm::difference(entry.tensor(), sm::AnyTensor(whole[i++])) == "");
    }
    CHECK(full.size() == (world.rank() == 0 ? 8U : 0U));
    // In a pass the model has this rank's tensor-parallel part.
    auto const pass = net.forward(0);
    CHECK(model.net1.weight.shape() == Shape{8, 8});
    CHECK(model.net1.weight.span()[0] == static_cast<float>(world.rank() % 2 * 64));
  });
  sm::launch(sm::threads{2}, [](World& world) {
    auto model = models::dense(counting());
    auto const mesh = sm::device_mesh(world, {1, 2}, {"tp", "shard"});
    auto const text = test::error_of<sm::InvalidArgument>(
        [&] { static_cast<void>(sm::fully_shard(model, mesh, sm::TensorParallel{})); });
    CHECK(text.find("\"tp\" must be the last dimension") != std::string::npos);
  });
}

TEST_CASE("mixed precision: kept and reduced in float, gathered in bfloat16") {
  sm::launch(sm::threads{2}, [](World& world) {
    using Half = Tensor<sm::BFloat16>;
    auto const make = [](Shape const& shape) {
      Half tensor(shape);
      for (std::size_t i = 0; i < tensor.span().size(); ++i) {
        tensor.span()[i] = sm::BFloat16(static_cast<float>(i % 128));
      }
      return tensor;
    };
    auto model = models::dense(make);
    auto net = sm::fully_shard<sm::Precision<float>>(model, sm::device_mesh(world, {2}, {"shard"}));
    auto const state = net.state_dict();
    CHECK(state.at("net1.0.weight").tensor().dtype() == sm::DType::float32);
    net.unshard(0);
    CHECK(model.net1.weight.span()[100] == sm::BFloat16(100.0F));
    // 1 + 2^-9 is no bfloat16: a sum in bfloat16 would lose it, the average in float keeps it.
    std::vector<Half> gradients;
    for (auto shape : {Shape{16, 8}, Shape{16}}) {
      Half gradient(shape);
      for (auto& value : gradient.span()) {
        value = sm::BFloat16(world.rank() == 0 ? 2.0F : 0.00390625F);
      }
      gradients.push_back(gradient);
    }
    auto const reduced = net.reduce_gradients(0, gradients);
    CHECK(reduced[0].to_local().span()[0] == 1.001953125F);
  });
}

TEST_CASE("ranks outside the mesh hold nothing and are not asked to take part") {
  sm::launch(sm::threads{3}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2}, {0, 1}, {"shard"});
    auto model = models::dense(counting());
    auto const whole = leaves(model);
    auto net = sm::fully_shard(model, mesh);
    CHECK(net.units().size() == (world.rank() < 2 ? 4U : 0U));
    auto const state = sm::state_dict(net);
    CHECK(state.size() == 8);
    CHECK((state.begin()->tensor().bytes() == 0) == (world.rank() == 2));
    auto const full = sm::full_state_dict(state);
    CHECK(full.size() == (world.rank() == 0 ? 8U : 0U));
    if (world.rank() == 0) {
      CHECK(sm::difference(full.at("net1.0.weight").tensor(), sm::AnyTensor(whole[0])) == "");
    }
    if (world.rank() == 2) {
      auto other = models::dense(counting());
      auto const text = test::error_of<sm::InvalidArgument>(
          [&] { static_cast<void>(sm::flat_shard(other, mesh)); });
      CHECK(text.find("this rank is not part of the mesh") != std::string::npos);
    }
  });
}

TEST_CASE("what cannot be sharded is refused with its name") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2}, {"shard"});
    Scalar model;
    auto text = test::error_of<sm::InvalidArgument>(
        [&] { static_cast<void>(sm::fully_shard(model, mesh)); });
    CHECK(text.find("\"value\" has no dimension to cut") != std::string::npos);
    model.with_other = true;
    text = test::error_of<sm::InvalidArgument>(
        [&] { static_cast<void>(sm::fully_shard(model, mesh)); });
    CHECK(
        text.find("\"other\" holds float64, the model's parameters are plain tensors of float32 in "
                  "host memory") != std::string::npos);
    auto different = models::mlp(world.rank() + 2, counting());
    text = test::error_of<sm::MismatchError>(
        [&] { static_cast<void>(sm::fully_shard(different, mesh)); });
    CHECK(text.find("in_proj.weight (8, 2)") != std::string::npos);
    CHECK(text.find("in_proj.weight (12, 3)") != std::string::npos);
  });
}

TEST_SUITE_END();

}  // namespace fully_shard_test
