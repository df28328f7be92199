// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/interop/dlpack.hpp>
#include <shardmesh/interop/dlpack_abi.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

#include "../support/errors.hpp"

namespace dlpack_test {

namespace sm = shardmesh;
namespace dl = shardmesh::dlpack;

using World = sm::ThreadsCommunicator;

// As DLPack's own header spells it: types of another name, laid out alike.
extern "C" {
typedef enum : std::int32_t { kDLCPU = 1, kDLCUDA = 2 } DLDeviceType;
typedef struct {
  DLDeviceType device_type;
  std::int32_t device_id;
} DLDevice;
typedef struct {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
} DLDataType;
typedef struct {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
} DLTensor;
typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(struct DLManagedTensor* self);
} DLManagedTensor;
}

namespace {

/// A producer that counts how often its deleter runs.
template <class M>
struct Producer {
  alignas(16) std::array<std::byte, 256> memory{};
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
  M managed{};
  int deleted = 0;

  explicit Producer(std::vector<std::int64_t> extents, dl::DataType type = {2, 32, 1})
      : shape(std::move(extents)) {
    managed.dl_tensor.data = memory.data();
    managed.dl_tensor.device.device_type =
        static_cast<std::remove_cvref_t<decltype(managed.dl_tensor.device.device_type)>>(1);
    managed.dl_tensor.ndim = static_cast<std::int32_t>(shape.size());
    managed.dl_tensor.dtype.code = type.code;
    managed.dl_tensor.dtype.bits = type.bits;
    managed.dl_tensor.dtype.lanes = type.lanes;
    managed.dl_tensor.shape = shape.data();
    if constexpr (dl::Versioned<M>) {
      managed.version.major = 1;
      managed.version.minor = 3;
    }
    managed.manager_ctx = this;
    managed.deleter = [](M* self) { ++static_cast<Producer*>(self->manager_ctx)->deleted; };
  }
  Producer(Producer const&) = delete;
  Producer& operator=(Producer const&) = delete;
};
using Versioned = Producer<dl::ManagedTensorVersioned>;

/// The message with which from_dlpack refuses; the deleter must have run once.
template <class E, class M>
std::string refused(Producer<M>& producer) {
  auto const message = test::error_of<E>([&] { (void)sm::from_dlpack(&producer.managed).any(); });
  CHECK(producer.deleted == 1);
  return message;
}

bool says(std::string const& text, char const* words) {
  bool const found = text.find(words) != std::string::npos;
  if (!found) {
    MESSAGE(text);
  }
  return found;
}

}  // namespace

TEST_SUITE_BEGIN("interop.dlpack");

TEST_CASE_TEMPLATE("in: no copy, and the deleter runs once, when the last handle goes",
                   M,
                   dl::ManagedTensor,
                   dl::ManagedTensorVersioned,
                   DLManagedTensor) {
  Producer<M> producer({2, 3});
  {
    sm::AnyTensor const any = sm::from_dlpack(&producer.managed).any();
    auto const copy = *any.get<sm::Tensor<float>>();
    CHECK(copy.data() == static_cast<void*>(producer.memory.data()));
    CHECK(copy.shape() == sm::Shape{2, 3});
    CHECK(producer.deleted == 0);
  }
  CHECK(producer.deleted == 1);
}

TEST_CASE("in: offset in bytes, strides, no dimensions, no elements") {
  Versioned offset({3});
  offset.managed.dl_tensor.byte_offset = 16;
  CHECK(sm::from_dlpack(&offset.managed).data() == offset.memory.data() + 16);
  Versioned strided({3, 1, 2});
  strided.strides = {2, 17, 1};
  strided.managed.dl_tensor.strides = strided.strides.data();
  CHECK(sm::from_dlpack(&strided.managed).shape() == sm::Shape{3, 1, 2});
  Versioned scalar({});
  scalar.managed.dl_tensor.shape = nullptr;
  CHECK(sm::from_dlpack(&scalar.managed).shape().empty());
  Versioned none({0, 4});
  none.managed.dl_tensor.data = nullptr;
  CHECK(sm::from_dlpack(&none.managed).any().bytes() == 0);
}

TEST_CASE("in: what does not fit is refused, says why, and is given back once") {
  {
    Versioned p({3, 4});
    p.strides = {1, 3};
    p.managed.dl_tensor.strides = p.strides.data();
    CHECK(says(refused<sm::ShapeError>(p), "strides (1, 3) are not row-major"));
  }
  {
    Versioned p({3});
    p.managed.version.major = 2;
    CHECK(says(refused<sm::UnsupportedError>(p), "of DLPack 2.3"));
  }
  {
    Versioned p({3}, {2, 32, 4});
    CHECK(says(refused<sm::UnsupportedError>(p), "32 bits, 4 lanes"));
  }
  {
    Versioned p({3}, {7, 8, 1});  // float8_e3m4
    CHECK(says(refused<sm::UnsupportedError>(p), "code 7, 8 bits, 1 lane have no counterpart"));
  }
  {
    Versioned p({3}, dl::data_type(sm::DType::float4_e2m1fn_x2));
    p.managed.flags = dl::padded_flag;
    CHECK(says(refused<sm::UnsupportedError>(p), "pack them"));
  }
  {
    Versioned p({3});
    p.managed.dl_tensor.device = {2, 1};
    CHECK(says(refused<sm::UnsupportedError>(p), "type 2 (number 1), asked for in host memory"));
  }
  {
    Versioned p({1, 1, 1, 1, 1, 1, 1, 1, 1});
    CHECK(says(refused<sm::ShapeError>(p), "9 dimensions"));
  }
  {
    Versioned p({3, -1});
    CHECK(says(refused<sm::ShapeError>(p), "negative extent"));
  }
  {
    Versioned p({3});
    p.managed.dl_tensor.shape = nullptr;
    CHECK(says(refused<sm::ShapeError>(p), "no shape"));
  }
  {
    Versioned p({3});
    p.managed.dl_tensor.byte_offset = 2;
    CHECK(says(refused<sm::InvalidArgument>(p), "no multiple of 4 bytes"));
  }
  {
    Versioned p({3});
    p.managed.flags = dl::read_only_flag;
    CHECK(says(refused<sm::InvalidArgument>(p), "read-only"));
  }
  dl::ManagedTensor* const nothing = nullptr;
  CHECK_THROWS_AS((void)sm::from_dlpack(nothing), sm::InvalidArgument);
}

TEST_CASE("in: read-only elements can be saved from on the caller's word") {
  Versioned p({3});
  p.managed.flags = dl::read_only_flag;
  auto const tensor = sm::from_dlpack(&p.managed);
  CHECK(tensor.is_read_only());
  CHECK(tensor.promise_not_to_write().any().data() == p.memory.data());
}

TEST_CASE("every element type goes out and comes back, by the codes of DLPack") {
  // From DLPack's header: what a mistake in our table would not repeat.
  CHECK(dl::data_type(sm::DType::bfloat16) == dl::DataType{4, 16, 1});
  CHECK(dl::data_type(sm::DType::boolean) == dl::DataType{6, 8, 1});
  CHECK(dl::data_type(sm::DType::complex64) == dl::DataType{5, 64, 1});
  CHECK(dl::data_type(sm::DType::float8_e4m3fn) == dl::DataType{10, 8, 1});
  CHECK(dl::data_type(sm::DType::float8_e8m0fnu) == dl::DataType{14, 8, 1});
  CHECK(dl::data_type(sm::DType::float4_e2m1fn_x2) == dl::DataType{17, 4, 2});
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    CAPTURE(info.name);
    auto const type = dl::data_type(info.dtype);
    CHECK((static_cast<std::size_t>(type.bits) * type.lanes + 7) / 8 == info.size);
    Versioned p({2, 2}, type);
    {
      auto out = sm::to_dlpack(sm::from_dlpack(&p.managed).any());
      CHECK(dl::DataType(out->dl_tensor.dtype) == type);
      CHECK(out->dl_tensor.data == p.memory.data());
      auto const back = sm::from_dlpack(out.release());
      CHECK(back.dtype() == info.dtype);
      CHECK(p.deleted == 0);
    }
    CHECK(p.deleted == 1);
  }
}

TEST_CASE_TEMPLATE("out: the local part, kept alive until the deleter has run",
                   M,
                   dl::ManagedTensor,
                   dl::ManagedTensorVersioned,
                   DLManagedTensor) {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    std::weak_ptr<float> alive;
    dl::Owner<M> out;
    {
      auto const x =
          sm::distribute(sm::Tensor<float>::zeros({5, 4}), mesh, sm::placements<sm::Shard<0>>);
      alive = x.to_local().storage();
      out = sm::to_dlpack<M>(x);
      CHECK(out->dl_tensor.data == x.to_local().data());
    }
    CHECK(out->dl_tensor.ndim == 2);
    CHECK(out->dl_tensor.shape[0] == (world.rank() == 0 ? 3 : 2));
    CHECK(out->dl_tensor.shape[1] == 4);
    CHECK(out->dl_tensor.strides[0] == 4);
    CHECK(out->dl_tensor.strides[1] == 1);
    CHECK(static_cast<int>(out->dl_tensor.device.device_type) == 1);
    CHECK_FALSE(alive.expired());
    M* const raw = out.release();
    raw->deleter(raw);
    CHECK(alive.expired());
  });
}

TEST_CASE("out: read-only is said, or refused where it cannot be said") {
  auto const x = sm::Tensor<float>::zeros({2});
  CHECK(sm::to_dlpack(x)->flags == 0);
  CHECK(sm::to_dlpack(x, true)->flags == dl::read_only_flag);
  sm::ForeignTensor<> const foreign(x.data(), sm::DType::float32, {2});
  CHECK(sm::to_dlpack(foreign.as_read_only())->flags == dl::read_only_flag);
  CHECK(sm::to_dlpack(foreign)->flags == 0);
  CHECK(says(test::error_of<sm::UnsupportedError>(
                 [&x] { (void)sm::to_dlpack<dl::ManagedTensor>(x, true); }),
             "cannot say"));
}

TEST_SUITE_END();

}  // namespace dlpack_test
