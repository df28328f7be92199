// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <shardmesh/comm/threads_on_devices.hpp>
#include <shardmesh/memory/buffer.hpp>
#include <shardmesh/memory/copy.hpp>
#include <shardmesh/memory/cuda/check.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#include <shardmesh/memory/cuda/engine_copy.hpp>
#include <shardmesh/memory/cuda/kernels.hpp>
#include <shardmesh/memory/cuda/mr_resource.hpp>
#include <shardmesh/memory/cuda/pinned_memory.hpp>
#include <shardmesh/memory/cuda/stream.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/host_block.hpp>
#include <shardmesh/memory/host_pool.hpp>
#include <shardmesh/memory/strided_copy.hpp>

#include "../gpu/counted.hpp"
#include "boxes.hpp"
#include "terms.hpp"

namespace sm = shardmesh;

using sm::Buffer;
using sm::CudaMemory;
using sm::CudaStream;
using sm::DType;
using sm::HostMemory;
using sm::PinnedMemory;
using sm::ReduceOp;

static_assert(sm::MemorySpace<CudaMemory> && !CudaMemory::host_accessible);
static_assert(sm::MemorySpace<PinnedMemory> && PinnedMemory::host_accessible);
static_assert(std::is_nothrow_move_constructible_v<sm::CudaEvent>);
static_assert(!std::is_copy_constructible_v<sm::CudaEvent>);
static_assert(std::is_same_v<sm::CopySpace<PinnedMemory, CudaMemory>, CudaMemory>);

TEST_SUITE_BEGIN("memory.cuda");

namespace {

using Bytes = std::vector<std::byte>;

[[nodiscard]] bool no_device() {
  return sm::cuda::device_count() == 0;
}

/// The bytes of `source` in device memory, `shift` bytes behind the start of an allocation.
[[nodiscard]] Buffer<CudaMemory> to_device(Bytes const& source, std::size_t shift = 0) {
  Buffer<CudaMemory> buffer(source.size() + shift);
  sm::copy_bytes<CudaMemory, HostMemory>(static_cast<std::byte*>(buffer.data()) + shift,
                                         source.data(), source.size());
  return buffer;
}

[[nodiscard]] Bytes to_host(void const* source, std::size_t bytes) {
  Bytes result(bytes);
  sm::copy_bytes<HostMemory, CudaMemory>(result.data(), source, bytes);
  CudaStream{}.synchronize();
  return result;
}

/// What the copy of a box from `Source` to `Target` memory leaves in the destination.
template <class Target, class Source>
Bytes copied(boxes::Case const& box, Bytes const& source, Bytes const& before) {
  Buffer<Source> from(source.size());
  Buffer<Target> to(before.size());
  sm::copy_bytes<Source, HostMemory>(from.data(), source.data(), source.size());
  sm::copy_bytes<Target, HostMemory>(to.data(), before.data(), before.size());
  CudaStream{}.synchronize();
  sm::copy_box<Target, Source>(box.copy(from.data(), to.data()));
  CudaStream{}.synchronize();
  Bytes result(before.size());
  sm::copy_bytes<HostMemory, Target>(result.data(), to.data(), result.size());
  CudaStream{}.synchronize();
  return result;
}

template <class Target, class Source>
void check_copies(unsigned seed) {
  boxes::Generator random(seed);
  int wrong = 0;
  for (int round = 0; round < 200; ++round) {
    boxes::Case const box = random.box();
    Bytes const source = random.bytes(box.source.bytes);
    Bytes const before = random.bytes(box.destination.bytes);
    Bytes expected = before;
    boxes::naive_copy(box.copy(source.data(), expected.data()));
    wrong += copied<Target, Source>(box, source, before) == expected ? 0 : 1;
  }
  CHECK(wrong == 0);
}

/// Makes a device current, and the one before it again at the end.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    sm::cuda::check(cudaGetDevice(&before_), "cudaGetDevice");
    sm::cuda::check(cudaSetDevice(device), "cudaSetDevice");
  }
  CurrentDevice(CurrentDevice const&) = delete;
  CurrentDevice& operator=(CurrentDevice const&) = delete;
  ~CurrentDevice() { static_cast<void>(cudaSetDevice(before_)); }

 private:
  int before_ = 0;
};

/// Reduces random terms on the device and on the host; are the bits the same?
bool same_bits(DType dtype, ReduceOp op, int count_terms, sm::index_t count, std::size_t shift) {
  std::vector<Bytes> terms;
  std::vector<Buffer<CudaMemory>> buffers;
  std::vector<void const*> host;
  std::vector<void const*> device;
  for (int j = 0; j < count_terms; ++j) {
    terms.push_back(terms::random_elements(dtype, count, static_cast<unsigned>(31 * j + 1)));
  }
  for (Bytes const& term : terms) {
    host.push_back(term.data());
    buffers.push_back(to_device(term, shift));
    device.push_back(static_cast<std::byte const*>(buffers.back().data()) + shift);
  }
  Bytes expected(terms[0].size());
  sm::host_reduce(dtype, op, expected.data(), host, count);
  Buffer<CudaMemory> const result(expected.size());
  CudaMemory::reduce(dtype, op, result.data(), device, count);
  if (to_host(result.data(), expected.size()) != expected) {
    return false;
  }
  auto* const first = static_cast<std::byte*>(buffers[0].data()) + shift;
  CudaMemory::reduce(dtype, op, first, device, count);  // in place
  return to_host(first, expected.size()) == expected;
}

}  // namespace

TEST_CASE("without a device every call says so" * doctest::skip(!no_device())) {
  CHECK_THROWS_WITH_AS(static_cast<void>(CudaMemory::allocate(64)),
                       doctest::Contains("no usable GPU"), sm::DeviceError);
  CHECK_THROWS_WITH_AS(static_cast<void>(PinnedMemory::allocate(64)),
                       doctest::Contains("cudaHostRegister"), sm::DeviceError);
  CHECK_THROWS_AS(static_cast<void>(CudaMemory::make_event()), sm::DeviceError);
  CHECK_THROWS_AS(CudaStream{}.synchronize(), sm::DeviceError);
  Buffer<CudaMemory> const none(0);
  CHECK(none.data() == nullptr);
}

TEST_CASE("a failed call throws its name and status, and leaves no error behind") {
  try {
    sm::cuda::check(cudaErrorMemoryAllocation, "cudaMallocAsync");
    FAIL("no exception");
  } catch (sm::DeviceError const& error) {
    std::string const text = error.what();
    CHECK(error.code() == cudaErrorMemoryAllocation);
    CHECK(text.find("cudaMallocAsync failed: cudaErrorMemoryAllocation") != std::string::npos);
    CHECK(text.find("shard them over more devices") != std::string::npos);
    CHECK(std::string(error.where().file_name()).ends_with("gpu_memory.cpp"));
  }
  sm::cuda::check(cudaSuccess, "nothing");
  CHECK_THROWS_AS(sm::cuda::check(cudaSetDevice(100000), "cudaSetDevice"), sm::DeviceError);
  bool const is_clear = no_device() || cudaGetLastError() == cudaSuccess;
  CHECK(is_clear);  // without a driver every call fails, this one too
}

TEST_CASE("reductions that a device cannot serve are refused before it is asked") {
  std::vector<void const*> const many(sm::cuda::max_reduce_terms + 1, nullptr);
  CHECK_THROWS_WITH_AS(CudaMemory::reduce(DType::float32, ReduceOp::sum, nullptr, many, 1),
                       doctest::Contains("257 terms"), sm::UnsupportedError);
  auto const one = std::span(many).first(1);
  CHECK_THROWS_AS(CudaMemory::reduce(DType::complex64, ReduceOp::min, nullptr, one, 1),
                  sm::InvalidArgument);
  CHECK_THROWS_AS(CudaMemory::reduce(DType::float8_e8m0fnu, ReduceOp::sum, nullptr, one, 1),
                  sm::UnsupportedError);
  CHECK_THROWS_AS(CudaMemory::reduce(DType::float32, ReduceOp::sum, nullptr, {}, 1),
                  sm::InvalidArgument);
  CudaMemory::reduce(DType::float32, ReduceOp::sum, nullptr, one, 0);
}

TEST_CASE("any number of terms at equal distances gives the bits of the host" *
          doctest::skip(no_device())) {
  sm::index_t const count = 1001;
  for (DType const dtype : {DType::float32, DType::bfloat16, DType::int8, DType::float64}) {
    for (int const many : {256, 257, 1000, 3001}) {
      Bytes all;
      for (int j = 0; j < many; ++j) {
        Bytes const term = terms::random_elements(dtype, count, static_cast<unsigned>(7 * j + 3));
        all.insert(all.end(), term.begin(), term.end());
      }
      std::size_t const bytes = all.size() / static_cast<std::size_t>(many);
      Buffer<CudaMemory> const there = to_device(all);
      std::vector<void const*> host;
      std::vector<void const*> device;
      for (std::size_t j = 0; j < static_cast<std::size_t>(many); ++j) {
        host.push_back(all.data() + j * bytes);
        device.push_back(static_cast<std::byte const*>(there.data()) + j * bytes);
      }
      Bytes expected(bytes);
      Buffer<CudaMemory> const result(bytes);
      for (ReduceOp const op : {ReduceOp::sum, ReduceOp::avg, ReduceOp::max}) {
        sm::host_reduce(dtype, op, expected.data(), host, count);
        CudaMemory::reduce(dtype, op, result.data(), device, count);
        CHECK(to_host(result.data(), bytes) == expected);
      }
    }
  }
}

TEST_CASE("device buffers hold bytes, are cleared and move" * doctest::skip(no_device())) {
  boxes::Generator random(3);
  Bytes const bytes = random.bytes(1000);
  Buffer<CudaMemory> first = to_device(bytes);
  Buffer<CudaMemory> const second = std::move(first);
  CHECK(first.size() == 0);
  CHECK(to_host(second.data(), second.size()) == bytes);
  CudaMemory::fill_zero(second.data(), 500);
  Bytes expected = bytes;
  std::fill_n(expected.begin(), 500, std::byte{0});
  CHECK(to_host(second.data(), second.size()) == expected);
  Buffer<CudaMemory> const none(0);
  CHECK(none.data() == nullptr);
  CudaMemory::fill_zero(nullptr, 0);
}

TEST_CASE("pinned memory is ordinary memory to the host" * doctest::skip(no_device())) {
  Buffer<PinnedMemory> const buffer(64);
  PinnedMemory::fill_zero(buffer.data(), 64);
  CHECK(static_cast<std::byte const*>(buffer.data())[63] == std::byte{0});
  cudaPointerAttributes attributes{};
  sm::cuda::check(cudaPointerGetAttributes(&attributes, buffer.data()), "cudaPointerGetAttributes");
  CHECK(attributes.type == cudaMemoryTypeHost);
}

TEST_CASE("pinned memory is locked once and used again" * doctest::skip(no_device())) {
  auto const use = [] {
    for (std::size_t bytes : {100U, 5'000'000U, 40'000'000U}) {
      Buffer<PinnedMemory> const buffer(bytes);
      PinnedMemory::fill_zero(buffer.data(), bytes);
    }
  };
  PinnedMemory::reserve(40'000'000);
  use();
  std::size_t const obtained = sm::cuda::pinned_pool().obtained();
  long const locked = test::counts.allocations;
  for (int i = 0; i < 100; ++i) {
    use();
  }
  CHECK(sm::cuda::pinned_pool().obtained() == obtained);
  CHECK(test::counts.allocations == locked);
}

TEST_CASE("the pool of host memory is locked where there are devices, and gives memory back" *
          doctest::skip(no_device())) {
  CudaMemory::prepare_host();
  auto const type_of = [](void const* pointer) {
    cudaPointerAttributes attributes{};
    sm::cuda::check(cudaPointerGetAttributes(&attributes, pointer), "cudaPointerGetAttributes");
    return attributes.type;
  };
  std::size_t const before = sm::host_pool().in_use();
  {
    sm::HostBlock const block(5'000'000);
    CHECK(type_of(block.data()) == cudaMemoryTypeHost);
    CHECK(type_of(block.data() + block.size() - 1) == cudaMemoryTypeHost);
    Buffer<PinnedMemory> const pinned(40'000'000);
    CHECK(type_of(pinned.data()) == cudaMemoryTypeHost);
    CHECK(sm::host_pool().in_use() >= before + 45'000'000);
  }
  CHECK(sm::host_pool().in_use() == before);
}

TEST_CASE("strided copies give the bytes of the naive copy" * doctest::skip(no_device())) {
  check_copies<CudaMemory, CudaMemory>(11);
  check_copies<CudaMemory, HostMemory>(12);
  check_copies<HostMemory, CudaMemory>(13);
  check_copies<CudaMemory, PinnedMemory>(14);
  check_copies<PinnedMemory, CudaMemory>(15);
  check_copies<PinnedMemory, HostMemory>(16);
}

TEST_CASE("copies within a device give the bytes of the naive copy, by a kernel where it can" *
          doctest::skip(no_device())) {
  boxes::Generator random(77);
  int by_kernel = 0;
  for (int round = 0; round < 400; ++round) {
    boxes::Case const box = random.box();
    Bytes const source = random.bytes(box.source.bytes);
    Bytes const before = random.bytes(box.destination.bytes);
    Bytes expected = before;
    boxes::naive_copy(box.copy(source.data(), expected.data()));
    Buffer<CudaMemory> const from = to_device(source);
    Buffer<CudaMemory> const to = to_device(before);
    sm::StridedCopy const copy = box.copy(from.data(), to.data());
    CudaMemory::copy_within(copy);
    CHECK(to_host(to.data(), before.size()) == expected);
    by_kernel += sm::cuda::copy_rows(sm::collapse(copy), CudaStream{}.handle) == cudaSuccess;
  }
  CHECK(by_kernel > 40);

  // Larger than what one turn of all threads takes, in rows of 4, 8 and 16 bytes at a time.
  for (sm::index_t const row : {4004, 4008, 4096}) {
    sm::index_t const rows = 5000;
    Bytes const source = random.bytes(static_cast<std::size_t>(rows * 8192));
    Buffer<CudaMemory> const from = to_device(source);
    Buffer<CudaMemory> const to(static_cast<std::size_t>(rows * row));
    CudaMemory::copy_within(
        {from.data(), to.data(), sm::Shape{rows, row}, sm::Shape{8192, 1}, sm::Shape{row, 1}, 1});
    Bytes const result = to_host(to.data(), to.size());
    bool same = true;
    for (sm::index_t i = 0; i < rows; ++i) {
      same = same && std::equal(result.begin() + i * row, result.begin() + (i + 1) * row,
                                source.begin() + i * 8192);
    }
    CHECK(same);
  }
}

TEST_CASE("strided copies reach another device" * doctest::skip(sm::cuda::device_count() < 2)) {
  CurrentDevice const first(0);
  sm::cuda::connect_devices(sm::cuda::device_count());
  sm::cuda::check(cudaSetDevice(0), "cudaSetDevice");
  boxes::Generator random(17);
  int wrong = 0;
  for (int round = 0; round < 200; ++round) {
    boxes::Case const box = random.box();
    Bytes const source = random.bytes(box.source.bytes);
    Bytes expected = random.bytes(box.destination.bytes);
    Buffer<CudaMemory> const from = to_device(source);
    CurrentDevice const other(1);
    Buffer<CudaMemory> const to = to_device(expected);
    CudaStream{}.synchronize();
    {
      CurrentDevice const writer(0);
      CudaMemory::copy(box.copy(from.data(), to.data()));
      CudaStream{}.synchronize();
    }
    boxes::naive_copy(box.copy(source.data(), expected.data()));
    wrong += to_host(to.data(), to.size()) == expected ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("an event orders the work of two streams" * doctest::skip(no_device())) {
  cudaStream_t raw = nullptr;
  sm::cuda::check(cudaStreamCreateWithFlags(&raw, cudaStreamNonBlocking), "cudaStreamCreate");
  CudaStream const other{raw};
  {
    std::size_t const bytes = std::size_t{64} << 20;
    Buffer<CudaMemory> const buffer(bytes);
    sm::cuda::check(cudaMemsetAsync(buffer.data(), 7, bytes, CudaStream{}.handle), "memset");
    CudaMemory::Event written = CudaMemory::make_event();
    CudaMemory::record(written, CudaStream{});
    CudaMemory::wait(other, written);
    std::byte last{};
    sm::copy_bytes<HostMemory, CudaMemory>(
        &last, static_cast<std::byte const*>(buffer.data()) + bytes - 1, 1, other);
    other.synchronize();
    CHECK(last == std::byte{7});
  }
  sm::cuda::check(cudaStreamDestroy(raw), "cudaStreamDestroy");
}

TEST_CASE("reductions have the bits of the host" * doctest::skip(no_device())) {
  bool const has_kernels = &sm::cuda::reduce_contiguous != nullptr;
  REQUIRE(has_kernels);
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    for (ReduceOp op : terms::all_ops) {
      if (!terms::is_reducible(info.dtype, op)) {
        continue;
      }
      CAPTURE(std::string(info.name));
      CAPTURE(std::string(to_string(op)));
      for (int count_terms = 1; count_terms <= 9; ++count_terms) {
        CAPTURE(count_terms);
        CHECK(same_bits(info.dtype, op, count_terms, 10007, 0));
      }
    }
  }
}

TEST_CASE("reductions of any length and alignment have the bits of the host" *
          doctest::skip(no_device())) {
  for (DType dtype : {DType::int8, DType::bfloat16, DType::float32, DType::complex128}) {
    CAPTURE(std::string(to_string(dtype)));
    for (sm::index_t count : {0, 1, 3, 15, 16, 17, 255, 256, 4097}) {
      CAPTURE(count);
      CHECK(same_bits(dtype, ReduceOp::sum, 2, count, 0));
      CHECK(same_bits(dtype, ReduceOp::avg, 3, count, sm::size_of(dtype)));
    }
  }
  CHECK(same_bits(DType::float32, ReduceOp::sum, 2, 10'000'000, 0));  // more than one grid
  CHECK(same_bits(DType::float32, ReduceOp::avg, 256, 100, 0));
}

namespace {

/// A resource as `cuda::mr` asks for, which counts what it has given out.
struct DeviceLedger {
  int calls = 0;
  int live = 0;

  void* allocate_async(std::size_t bytes, std::size_t, cudaStream_t stream) {
    ++calls;
    ++live;
    return CudaMemory::allocate(bytes, CudaStream{stream});
  }
  void deallocate_async(void* pointer, std::size_t bytes, std::size_t, cudaStream_t stream) {
    --live;
    CudaMemory::deallocate(pointer, bytes, CudaStream{stream});
  }
};

/// A handle of it, as `cuda::mr::async_resource_ref` is.
struct DeviceLedgerRef {
  DeviceLedger* ledger;
  void* allocate_async(std::size_t bytes, std::size_t alignment, cudaStream_t stream) {
    return ledger->allocate_async(bytes, alignment, stream);
  }
  void deallocate_async(void* pointer,
                        std::size_t bytes,
                        std::size_t alignment,
                        cudaStream_t stream) {
    ledger->deallocate_async(pointer, bytes, alignment, stream);
  }
};

}  // namespace

TEST_CASE("device memory from a resource of the engine" * doctest::skip(no_device())) {
  DeviceLedger ledger;
  sm::CudaMrResource<DeviceLedgerRef> resource(DeviceLedgerRef{&ledger});
  CudaStream const stream{};
  {
    sm::UseResource<CudaMemory> const use(resource);
    Buffer<CudaMemory> const one(1 << 20, stream);
    Buffer<CudaMemory> const none(0, stream);
    CudaMemory::fill_zero(one.data(), one.size(), stream);
    stream.synchronize();
    CHECK(ledger.calls == 1);
    CHECK(ledger.live == 1);
  }
  CHECK(ledger.live == 0);
}

TEST_SUITE_END();
