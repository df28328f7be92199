// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// DLPack where memory runs out. A program of its own, since it replaces operator new.
#include <shardmesh/interop/dlpack.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>

#include <doctest/doctest.h>

#include "../support/counted_memory.hpp"

namespace sm = shardmesh;
namespace dl = shardmesh::dlpack;

TEST_SUITE_BEGIN("interop.dlpack_memory");

TEST_CASE("whichever allocation fails, a tensor that comes in is given back once") {
  std::ptrdiff_t number = 0;
  bool failed = true;
  for (; failed; ++number) {
    CAPTURE(number);
    std::array<float, 4> elements{};
    std::int64_t extent = 4;
    int deleted = 0;
    dl::ManagedTensorVersioned managed;
    managed.version = dl::written_version;
    managed.manager_ctx = &deleted;
    managed.deleter = [](dl::ManagedTensorVersioned* self) {
      ++*static_cast<int*>(self->manager_ctx);
    };
    managed.dl_tensor.data = elements.data();
    managed.dl_tensor.device.device_type = 1;
    managed.dl_tensor.ndim = 1;
    managed.dl_tensor.dtype = dl::data_type(sm::DType::float32);
    managed.dl_tensor.shape = &extent;
    std::optional<sm::AnyTensor> any;
    bool thrown = false;
    failed = test::with_failing_allocation(number, [&] {
      try {
        any.emplace(sm::from_dlpack(&managed).any());
      } catch (std::bad_alloc const&) {
        thrown = true;
      }
    });
    CHECK(thrown == failed);
    CHECK(deleted == (failed ? 1 : 0));
    any.reset();
    CHECK(deleted == 1);
  }
  CHECK(number >= 3);  // the owner, the handle: there was something to fail
}

TEST_CASE("whichever allocation fails, a tensor that goes out is not held on to") {
  std::ptrdiff_t number = 0;
  bool failed = true;
  for (; failed; ++number) {
    CAPTURE(number);
    auto x = sm::Tensor<float>::zeros({4});
    std::weak_ptr<float> const alive = x.storage();
    dl::Owner<dl::ManagedTensorVersioned> out;
    failed = test::with_failing_allocation(number, [&] {
      try {
        out = sm::to_dlpack(x);
      } catch (std::bad_alloc const&) {
      }
    });
    CHECK((out == nullptr) == failed);
    x = sm::Tensor<float>();
    CHECK(alive.expired() == failed);
    out.reset();
    CHECK(alive.expired());
  }
  CHECK(number >= 2);
}

TEST_SUITE_END();
