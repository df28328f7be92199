// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Built and run by libtorch.py, where there is LibTorch.
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <torch/nn/modules/linear.h>

#include <shardmesh/comm/threads.hpp>
#include <shardmesh/interop/torch.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/tensor/distribute.hpp>

#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
// LibTorch has a CHECK of its own.
#undef CHECK
#include <doctest/doctest.h>

#include "../support/errors.hpp"

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;

namespace {

bool says(std::string const& text, char const* words) {
  bool const found = text.find(words) != std::string::npos;
  if (!found) {
    MESSAGE(text);
  }
  return found;
}

/// Two layers that are used one after the other, of which the second has the weight of the first.
struct Tied : torch::nn::Module {
  at::Tensor first = register_parameter("first", at::full({3, 3}, 0.5));
  at::Tensor unused = register_parameter("unused", at::zeros({2}));
  at::Tensor fixed = register_parameter("fixed", at::full({3}, 2.0), false);
  at::Tensor second = register_parameter("second", first);
  at::Tensor count = register_buffer("count", at::full({}, 7, at::kLong));
  at::Tensor mask = register_buffer("mask", at::ones({3}, at::kBool));

  at::Tensor forward(at::Tensor const& x) {
    return at::matmul(at::matmul(x, first), second) * fixed;
  }
};

}  // namespace

TEST_CASE("every element type of PyTorch goes in and out without a copy") {
  for (auto const& [dtype, scalar] : sm::detail::torch_types) {
    CAPTURE(sm::to_string(dtype));
    at::Tensor const typed = at::empty({2, 3}, at::TensorOptions().dtype(scalar));
    auto const in = sm::from_torch(typed);
    CHECK(in.data() == typed.data_ptr());
    CHECK(in.dtype() == dtype);
    CHECK(in.shape() == sm::Shape{2, 3});
    CHECK(in.bytes() == 6 * sm::size_of(dtype));
    at::Tensor const out = sm::to_torch(in.any());
    CHECK(out.data_ptr() == typed.data_ptr());
    CHECK((out.scalar_type() == scalar));
    CHECK((out.sizes() == typed.sizes()));
  }
  CHECK(says(test::error_of<sm::UnsupportedError>(
                 [] { (void)sm::to_torch(sm::Tensor<sm::Float6E2M3fnX4>(sm::Shape{2})); }),
             "float6_e2m3fn_x4"));
}

TEST_CASE("elements live as long as either side has them") {
  at::Tensor x = at::arange(6, at::kFloat);
  void* const address = x.data_ptr();
  auto const held = sm::from_torch(x).as<float>();
  x.set_data(at::empty({0}));  // as sharding does
  CHECK(held.data() == address);
  CHECK(held.span()[5] == 5.0F);

  std::weak_ptr<float> alive;
  at::Tensor part;
  {
    auto const whole = sm::Tensor<float>::zeros({4, 4});
    alive = whole.storage();
    part = sm::to_torch(whole)[2];
  }
  CHECK_FALSE(alive.expired());
  part = at::Tensor();
  CHECK(alive.expired());
}

TEST_CASE("local parts: at::Tensors become a distributed tensor and come out of one") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    at::Tensor const rows = at::full({2, 4}, static_cast<double>(world.rank()));
    auto const x = sm::from_local(sm::from_torch(rows), mesh, sm::placements<sm::Shard<0>>);
    CHECK(x.data() == rows.data_ptr());
    CHECK(x.shape() == sm::Shape{4, 4});
    auto const typed =
        sm::from_local(sm::from_torch(rows).as<float>(), mesh, sm::placements<sm::Shard<0>>);
    at::Tensor const columns = sm::to_torch(sm::redistribute(typed, sm::placements<sm::Shard<1>>));
    CHECK((columns.sizes() == at::IntArrayRef({4, 2})));
    CHECK(columns[0][0].item<float>() == 0.0F);
    CHECK(columns[3][1].item<float>() == 1.0F);
  });
}

TEST_CASE("tensors that cannot be looked at are refused and say how to mend it") {
  auto const refused = [](at::Tensor const& x) {
    return test::error_of<sm::Error>([&x] { (void)sm::from_torch(x); });
  };
  CHECK(says(refused(at::Tensor()), "undefined"));
  CHECK(says(refused(at::zeros({3, 4}).t()), ".contiguous()"));
  CHECK(says(refused(at::conj(at::zeros({3}, at::kComplexFloat))), "resolve_conj"));
  CHECK(says(refused(at::eye(3).to_sparse()), "to_dense"));
  CHECK(says(refused(at::zeros({3}, at::TensorOptions().device(at::kMeta))), "meta"));
  CHECK(says(refused(at::zeros({1, 1, 1, 1, 1, 1, 1, 1, 1})), "9 dimensions"));
  Tied module;
  CHECK(says(test::error_of<sm::InvalidArgument>([&] { sm::TorchModule<double> const m(module); }),
             "\"first\" holds float32"));
}

TEST_CASE("a module that is not sharded: its state is its own memory, under PyTorch's names") {
  Tied module;
  sm::TorchModule<float> model(module);
  sm::StateDict const state = sm::state_dict(model);
  std::vector<std::string> names;
  for (auto const& entry : state) {
    names.push_back(entry.key);
  }
  CHECK(names == std::vector<std::string>{"first", "unused", "fixed", "second", "count", "mask"});
  CHECK(state.at("first").tensor().data() == module.first.data_ptr());
  CHECK(state.at("count").tensor().dtype() == sm::DType::int64);
  CHECK(state.at("mask").tensor().data() == module.mask.data_ptr());
  CHECK(state.aliases().size() == 1);

  Tied other;
  other.first.data().fill_(9);
  other.count.fill_(1);
  sm::launch(sm::threads{1}, [&](World& world) {
    sm::TorchModule<float> source(other);
    sm::load_state_dict(world, model, sm::state_dict(source));
  });
  CHECK(module.second[2][2].item<float>() == 9.0F);
  CHECK(module.count.item<std::int64_t>() == 1);
}

TEST_CASE("a sharded module: whole in a pass, empty else; gradients of ties add up, of the unused "
          "are 0") {
  at::set_num_threads(1);
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    Tied module;
    Tied alone;  // what autograd says of the same
    sm::TorchModule<float> model(module);
    auto net = sm::fully_shard(model, mesh);
    CHECK(module.first.numel() == 0);
    at::Tensor const x = at::full({1, 3}, static_cast<double>(world.rank() + 1));
    alone.forward(x).sum().backward();
    {
      sm::WholeModule const whole(net);
      CHECK((module.first.sizes() == at::IntArrayRef({3, 3})));
      CHECK(module.first.data_ptr() == module.second.data_ptr());
      module.forward(x).sum().backward();
    }
    CHECK(module.first.numel() == 0);
    auto const gradients = model.take_gradients();
    REQUIRE(gradients.size() == 2);  // first (and second), unused
    CHECK(at::equal(sm::to_torch(gradients[0]), alone.first.grad()));
    CHECK(at::equal(sm::to_torch(gradients[1]), at::zeros({2})));
    CHECK_FALSE(module.first.grad().defined());
    auto const reduced = net.reduce_gradients(gradients);
    // The gradient is linear in x here: the average of the ranks is that of x = 1.5.
    auto const mean = alone.first.grad()[0][0].item<float>() / static_cast<float>(world.rank() + 1);
    CHECK(reduced[0].to_local().span()[0] == doctest::Approx(1.5F * mean));
    CHECK(net.state_dict().at("fixed").tensor().shape() == sm::Shape{3});
    CHECK(net.state_dict().at("first").tensor().is_distributed());
    CHECK_FALSE(net.state_dict().at("count").tensor().is_distributed());
  });
}
