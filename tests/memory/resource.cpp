// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Memory from the allocator of an engine.
#include <shardmesh/memory/resource.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <mutex>
#include <new>
#include <optional>
#include <unordered_map>

#include <doctest/doctest.h>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/memory/pmr_resource.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/tensor/distribute.hpp>
#include <shardmesh/tensor/redistribute.hpp>

namespace resource_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("memory.resource");

namespace {

/// Knows what it has given out; refuses more than `limit` bytes at a time.
class Ledger : public sm::MemoryResource<sm::HostMemory> {
 public:
  std::size_t limit = SIZE_MAX;

  void* allocate(std::size_t bytes, std::size_t alignment, Stream) override {
    std::lock_guard const lock(mutex_);
    if (bytes > limit) {
      throw std::bad_alloc();
    }
    void* const pointer = ::operator new(bytes, std::align_val_t{alignment});
    sizes_[pointer] = bytes;
    ++calls_;
    return pointer;
  }
  void deallocate(void* pointer,
                  std::size_t bytes,
                  std::size_t alignment,
                  Stream) noexcept override {
    std::lock_guard const lock(mutex_);
    auto const found = sizes_.find(pointer);
    strangers_ += found == sizes_.end() || found->second != bytes ? 1 : 0;
    sizes_.erase(found);
    ::operator delete(pointer, std::align_val_t{alignment});
  }

  [[nodiscard]] std::size_t calls() const { return calls_; }
  [[nodiscard]] std::size_t live() const { return sizes_.size(); }
  [[nodiscard]] bool has(void const* pointer) const {
    return sizes_.contains(const_cast<void*>(pointer));
  }
  /// What came back and was not given out, or with another size.
  [[nodiscard]] int strangers() const { return strangers_; }

 private:
  std::mutex mutex_;
  std::unordered_map<void*, std::size_t> sizes_;
  std::size_t calls_ = 0;
  int strangers_ = 0;
};

}  // namespace

TEST_CASE("memory goes back to where it came from, whatever is in use by then") {
  Ledger ledger;
  Ledger inner;
  std::optional<sm::Tensor<float>> before(sm::Shape{4});
  std::optional<sm::Tensor<float>> within;
  std::optional<sm::Tensor<float>> deeper;
  {
    sm::UseResource<sm::HostMemory> const use(ledger);
    within.emplace(sm::Shape{5});
    before.reset();
    {
      sm::UseResource<sm::HostMemory> const nested(inner);
      deeper.emplace(sm::Shape{6});
    }
    CHECK(inner.has(deeper->data()));
    CHECK(ledger.has(within->data()));
    CHECK(ledger.has(sm::Tensor<float>(sm::Shape{7}).data()));
    CHECK(ledger.live() == 1);
    sm::Tensor<float> const none(sm::Shape{0});  // asks for nothing
    CHECK(ledger.live() == 1);
    *within = *deeper;  // the elements that `within` had go
    CHECK(ledger.live() == 0);
  }
  sm::Tensor<float> const after(sm::Shape{4});
  CHECK(!ledger.has(after.data()));
  within.reset();
  deeper.reset();
  CHECK(inner.live() == 0);
  CHECK(ledger.strangers() + inner.strangers() == 0);
}

TEST_CASE("what tensors, exchanges and offloaded states take comes from the resource, and all of "
          "it comes back") {
  Ledger ledger;
  {
    sm::UseResource<sm::HostMemory> const use(ledger);
    sm::launch(sm::threads{4}, [&](sm::ThreadsCommunicator& world) {
      auto const mesh = sm::device_mesh<2>(world, {2, 2});
      auto const whole = sm::Tensor<float>::zeros(sm::Shape{8, 6});
      auto const x = sm::distribute(whole, mesh, sm::placements<sm::Shard<0>, sm::Shard<1>>,
                                    sm::DataSource::own);
      auto const y = sm::redistribute(x, sm::placements<sm::Shard<1>, sm::Shard<0>>);
      sm::StateDict dict;
      dict.insert("y", y);
      sm::StateDict const copy = sm::offloaded(dict);
      world.barrier();
      CHECK(ledger.has(x.to_local().data()));
      CHECK(ledger.has(y.to_local().data()));
      CHECK(ledger.has(copy.at("y").tensor().data()));
      world.barrier();
    });
    CHECK(ledger.calls() >= 4 * 4);
  }
  CHECK(ledger.live() == 0);
  CHECK(ledger.strangers() == 0);
}

TEST_CASE("what a resource throws is what the operation throws") {
  Ledger ledger;
  ledger.limit = 100;
  sm::UseResource<sm::HostMemory> const use(ledger);
  CHECK_THROWS_AS(sm::Tensor<float>(sm::Shape{1000}), std::bad_alloc);
  CHECK(ledger.live() == 0);
}

TEST_CASE("host memory from a resource of the standard library") {
  std::pmr::synchronized_pool_resource pool;
  sm::PmrResource resource(pool);
  sm::UseResource<sm::HostMemory> const use(resource);
  auto const tensor = sm::Tensor<double>::zeros(sm::Shape{33});
  CHECK(reinterpret_cast<std::uintptr_t>(tensor.data()) % 64 == 0);
  CHECK(tensor.clone().span()[32] == 0);
}

TEST_SUITE_END();

}  // namespace resource_test
