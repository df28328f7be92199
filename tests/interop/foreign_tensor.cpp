// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/save.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/interop/foreign_tensor.hpp>
#include <shardmesh/state/load_state_dict.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "../support/errors.hpp"
#include "../support/scratch.hpp"

namespace foreign_tensor_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;

namespace {

/// Bytes of an engine, aligned for any element.
std::vector<double> engine_memory(std::size_t bytes) {
  return std::vector<double>((bytes + 7) / 8);
}

void fill(sm::ForeignTensor<> const& tensor, int start) {
  auto* const bytes = static_cast<unsigned char*>(tensor.data());
  for (std::size_t i = 0; i < tensor.bytes(); ++i) {
    // Small, so that it is a value of every element type, of bool too.
    bytes[i] = static_cast<unsigned char>((static_cast<std::size_t>(start) + i) % 2);
  }
}

std::vector<unsigned char> bytes_of(sm::ForeignTensor<> const& tensor) {
  auto const* const bytes = static_cast<unsigned char const*>(tensor.data());
  return {bytes, bytes + tensor.bytes()};
}

}  // namespace

TEST_SUITE_BEGIN("interop.foreign_tensor");

TEST_CASE("every element type: a plain tensor of a state dict has the address that was given") {
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    CAPTURE(info.name);
    auto memory = engine_memory(6 * info.size);
    sm::ForeignTensor<> const foreign(memory.data(), info.dtype, {2, 3});
    sm::AnyTensor const any = foreign.any();
    CHECK(any.data() == memory.data());
    CHECK(any.dtype() == info.dtype);
    CHECK(any.shape() == sm::Shape{2, 3});
    CHECK(any.bytes() == 6 * info.size);
  }
}

TEST_CASE(
    "local parts of an engine are saved from, redistributed into and loaded into where they are") {
  test::Scratch const folder;
  auto const types = {sm::DType::bfloat16,   sm::DType::float32,       sm::DType::boolean,
                      sm::DType::complex128, sm::DType::float8_e4m3fn, sm::DType::float4_e2m1fn_x2};
  sm::launch(sm::threads{4}, [&](World& world) {
    auto const mesh = sm::device_mesh(world, {2, 2});
    sm::StateDict by_rows;
    sm::StateDict by_columns;
    sm::StateDict loaded;
    std::vector<std::vector<double>> memory;
    std::vector<sm::ForeignTensor<>> rows;
    std::vector<sm::ForeignTensor<>> columns;
    std::vector<sm::ForeignTensor<>> back;
    auto const make = [&](sm::DType dtype, sm::Shape const& shape) {
      memory.push_back(
          engine_memory(static_cast<std::size_t>(sm::volume(shape)) * sm::size_of(dtype)));
      return sm::ForeignTensor<>(memory.back().data(), dtype, shape);
    };
    for (sm::DType const dtype : types) {
      std::string const name(sm::to_string(dtype));
      rows.push_back(make(dtype, {mesh.coordinate()[0] == 0 ? 4 : 3, 6}));
      columns.push_back(make(dtype, {7, 3}));
      back.push_back(make(dtype, rows.back().shape()));
      fill(rows.back(), static_cast<int>(mesh.coordinate()[0]));
      auto const tensor =
          sm::from_local(rows.back(), mesh, sm::placements<sm::Shard<0>, sm::Replicate>);
      CHECK(tensor.data() == rows.back().data());
      CHECK(tensor.shape() == sm::Shape{7, 6});
      by_rows.insert(name, tensor);
      by_columns.insert(
          name, sm::from_local(columns.back(), mesh, sm::placements<sm::Replicate, sm::Shard<1>>));
      loaded.insert(name,
                    sm::from_local(back.back(), mesh, sm::placements<sm::Shard<0>, sm::Replicate>,
                                   sm::Shape{7, 6}));
    }
    sm::load_state_dict(world, by_columns, by_rows);  // moved into the engine's other memory
    sm::save(world, folder / "checkpoint", by_columns);
    sm::load(world, folder / "checkpoint", loaded);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      CHECK(bytes_of(back[i]) == bytes_of(rows[i]));
      CHECK(bytes_of(columns[i]) != std::vector<unsigned char>(columns[i].bytes(), 0));
    }
  });
}

TEST_CASE("an owner is kept for as long as any handle of the elements lives") {
  bool freed = false;
  auto* const raw = new float[4]{1, 2, 3, 4};
  {
    sm::AnyTensor const any = [&] {
      std::shared_ptr<void> const owner(raw, [&freed](void* pointer) {
        freed = true;
        delete[] static_cast<float*>(pointer);
      });
      return sm::ForeignTensor<>(raw, sm::DType::float32, {4}, owner).any();
    }();
    CHECK_FALSE(freed);
    CHECK(any.get<sm::Tensor<float>>()->span()[3] == 4);
  }
  CHECK(freed);
}

TEST_CASE("strides: those of row-major elements are taken, where nothing steps along them any") {
  std::array<float, 12> x{};
  auto const at = [&x](sm::Shape const& shape, sm::Shape const& strides) {
    return sm::ForeignTensor<>(x.data(), sm::DType::float32, shape, strides, {}).shape();
  };
  CHECK(at({3, 4}, {4, 1}) == sm::Shape{3, 4});
  CHECK(at({1, 4}, {99, 1}) == sm::Shape{1, 4});
  CHECK(at({3, 1, 4}, {4, 0, 1}) == sm::Shape{3, 1, 4});
  CHECK(at({0, 4}, {1, 7}) == sm::Shape{0, 4});
  CHECK(at({}, {}).empty());
  auto const error = test::error_of<sm::ShapeError>([&] { (void)at({3, 4}, {1, 3}); });
  CHECK(error.find("(3, 4) with strides (1, 3)") != std::string::npos);
  CHECK(error.find("strides (4, 1)") != std::string::npos);
  CHECK(error.find("ForeignTensor::packed") != std::string::npos);
  CHECK(test::error_of<sm::ShapeError>([&] {
          (void)at({3, 4}, {1});
        }).find("one stride for each dimension") != std::string::npos);
  CHECK(test::error_of<sm::ShapeError>([&] {
          (void)at({3, -4}, {4, 1});
        }).find("negative extent") != std::string::npos);
}

TEST_CASE("packed: elements with any strides are copied into row-major ones of its own") {
  std::array<std::int16_t, 12> x{};
  std::iota(x.begin(), x.end(), std::int16_t{0});
  auto const pack = [&x](sm::Shape const& shape, sm::Shape const& strides) {
    auto const tensor =
        sm::ForeignTensor<>::packed(x.data(), sm::DType::int16, shape, strides).as<std::int16_t>();
    return std::vector<std::int16_t>(tensor.span().begin(), tensor.span().end());
  };
  CHECK(pack({3, 4}, {1, 3}) == std::vector<std::int16_t>{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11});
  CHECK(pack({2, 2}, {8, 2}) == std::vector<std::int16_t>{0, 2, 8, 10});
  CHECK(pack({2, 3}, {0, 1}) == std::vector<std::int16_t>{0, 1, 2, 0, 1, 2});  // expanded
  CHECK(pack({0, 3}, {3, 1}).empty());
  CHECK(pack({}, {}) == std::vector<std::int16_t>{0});
  CHECK(test::error_of<sm::ShapeError>([&] { (void)pack({3}, {-1}); }).find("run backwards") !=
        std::string::npos);
}

TEST_CASE("addresses that no tensor can have, and read-only elements, are refused and say why") {
  std::array<float, 4> x{};
  auto const error = [](auto f) { return test::error_of<sm::InvalidArgument>(f); };
  CHECK(error([] {
          (void)sm::ForeignTensor<>(nullptr, sm::DType::float32, {4});
        }).find("is null") != std::string::npos);
  CHECK(sm::ForeignTensor<>(nullptr, sm::DType::float32, {0}).any().bytes() == 0);
  auto* const odd = reinterpret_cast<std::byte*>(x.data()) + 1;
  CHECK(error([odd] {
          (void)sm::ForeignTensor<>(odd, sm::DType::float32, {2});
        }).find("no multiple of 4 bytes") != std::string::npos);
  CHECK(sm::ForeignTensor<>(odd, sm::DType::uint8, {2}).data() == odd);
  sm::ForeignTensor<> const tensor(x.data(), sm::DType::float32, {4});
  CHECK(error([&] { (void)tensor.as<std::int32_t>(); }).find("float32, asked for as int32") !=
        std::string::npos);
  CHECK(error([&] { (void)tensor.as_read_only().any(); }).find("promise_not_to_write") !=
        std::string::npos);
  CHECK(tensor.as_read_only().promise_not_to_write().any().data() == x.data());
}

TEST_SUITE_END();

}  // namespace foreign_tensor_test
