// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// NCCL's own collectives and communicators of a host program, as bodies of a rank. They return what
// is wrong as text.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <shardmesh/comm/nccl/communicator.hpp>
#include <shardmesh/tensor/tensor.hpp>

#include "../support/redistribute_cases.hpp"

namespace test {

namespace sm = shardmesh;

/// A stream of the test's own.
class OwnStream {
 public:
  OwnStream() {
    sm::cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                    "cudaStreamCreateWithFlags");
  }
  OwnStream(OwnStream const&) = delete;
  OwnStream& operator=(OwnStream const&) = delete;
  ~OwnStream() { cudaStreamDestroy(stream_); }
  [[nodiscard]] sm::CudaStream get() const { return sm::CudaStream{stream_}; }

 private:
  cudaStream_t stream_ = nullptr;
};

template <class T>
T as_element(int value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value % 2 != 0;
  } else if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<T>(value);
  } else if constexpr (std::is_same_v<T, sm::Float8E8M0fnu>) {
    return {static_cast<std::uint8_t>(value)};
  } else if constexpr (!sm::has_arithmetic(sm::dtype_of<T>)) {  // packed
    T element;
    std::memset(static_cast<void*>(&element), value, sizeof(element));
    return element;
  } else if constexpr (requires { typename T::value_type; }) {  // complex
    return {static_cast<typename T::value_type>(value), 0};
  } else {
    return T(static_cast<float>(value));
  }
}

/// What a rank brings: 1 or 2, such that sums and products of few ranks are exact in 8 bits.
inline int term(int rank, index_t element) {
  return (rank + element) % 3 == 0 ? 2 : 1;
}

inline int reduced(sm::ReduceOp op, int ranks, index_t element) {
  int value = term(0, element);
  for (int rank = 1; rank < ranks; ++rank) {
    int const next = term(rank, element);
    value = op == sm::ReduceOp::min   ? std::min(value, next)
            : op == sm::ReduceOp::max ? std::max(value, next)
            : op == sm::ReduceOp::sum ? value + next
                                      : value * next;
  }
  return value;
}

/// `count` elements of rank `rank`, from element `first` on, in device memory.
template <class T>
sm::Tensor<T, sm::CudaMemory> terms(int rank, index_t first, index_t count, sm::CudaStream stream) {
  sm::Tensor<T> host(sm::Shape{count});
  for (index_t i = 0; i < count; ++i) {
    host.span()[static_cast<std::size_t>(i)] = as_element<T>(term(rank, first + i));
  }
  auto device = host.template clone<sm::CudaMemory>(stream);
  stream.synchronize();
  return device;
}

template <class T>
bool holds(sm::Tensor<T, sm::CudaMemory> const& device, std::vector<T> const& wanted) {
  auto const host = sm::to_host(device);
  return std::equal(wanted.begin(), wanted.end(), host.span().begin(), host.span().end());
}

template <class T, class Comm>
std::string reductions_of(Comm const& comm, sm::CudaStream stream) {
  index_t const each = 5;
  index_t const all = each * comm.size();
  auto const mine = terms<T>(comm.rank(), 0, all, stream);
  for (sm::ReduceOp op :
       {sm::ReduceOp::sum, sm::ReduceOp::min, sm::ReduceOp::max, sm::ReduceOp::product}) {
    if (sizeof(T) == 1 && op == sm::ReduceOp::sum && comm.size() > 6) {
      continue;  // float8_e5m2 has no 9
    }
    sm::Tensor<T, sm::CudaMemory> whole(sm::Shape{all}, stream);
    sm::Tensor<T, sm::CudaMemory> part(sm::Shape{each}, stream);
    comm.all_reduce(mine.dtype(), op, mine.data(), whole.data(), static_cast<std::size_t>(all),
                    stream);
    comm.reduce_scatter(mine.dtype(), op, mine.data(), part.data(), static_cast<std::size_t>(each),
                        stream);
    stream.synchronize();
    std::vector<T> wanted;
    for (index_t i = 0; i < all; ++i) {
      wanted.push_back(as_element<T>(reduced(op, comm.size(), i)));
    }
    auto const first = wanted.begin() + each * comm.rank();
    std::string const what =
        std::string(to_string(op)) + " of " + std::string(to_string(mine.dtype()));
    if (!holds(whole, wanted)) {
      return "all_reduce, " + what;
    }
    if (!holds(part, std::vector<T>(first, first + each))) {
      return "reduce_scatter, " + what;
    }
  }
  return "";
}

template <class T, class Comm>
std::string moves_of(Comm const& comm, sm::CudaStream stream) {
  index_t const each = 7;
  int const root = comm.size() - 1;
  auto const mine = terms<T>(comm.rank(), 0, each, stream);
  sm::Tensor<T, sm::CudaMemory> gathered(sm::Shape{each * comm.size()}, stream);
  sm::Tensor<T, sm::CudaMemory> copied(sm::Shape{each}, stream);
  comm.all_gather(mine.dtype(), mine.data(), gathered.data(), std::size_t{each}, stream);
  comm.broadcast(mine.dtype(), mine.data(), copied.data(), std::size_t{each}, root, stream);
  stream.synchronize();
  std::vector<T> all;
  for (int rank = 0; rank < comm.size(); ++rank) {
    for (index_t i = 0; i < each; ++i) {
      all.push_back(as_element<T>(term(rank, i)));
    }
  }
  if (!holds(gathered, all)) {
    return "all_gather of " + std::string(to_string(mine.dtype()));
  }
  return holds(copied, std::vector<T>(all.end() - each, all.end()))
             ? ""
             : "broadcast of " + std::string(to_string(mine.dtype()));
}

/// The mean: exact for integers whose sum divides, within a rounding for floats.
template <class T, class Comm>
std::string average_of(Comm const& comm, sm::CudaStream stream) {
  sm::Tensor<T> host(sm::Shape{11});
  std::vector<T> wanted;
  for (int i = 0; i < 11; ++i) {
    host.span()[static_cast<std::size_t>(i)] = static_cast<T>(comm.size() * (i + comm.rank()));
    // The mean of size * (i + rank) over all ranks.
    wanted.push_back(static_cast<T>(comm.size() * i + comm.size() * (comm.size() - 1) / 2));
  }
  auto const device = host.template clone<sm::CudaMemory>(stream);
  comm.all_reduce(device.dtype(), sm::ReduceOp::avg, device.data(), device.data(), 11, stream);
  stream.synchronize();
  auto const got = sm::to_host(device);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    auto const distance = static_cast<double>(got.span()[i]) - static_cast<double>(wanted[i]);
    if (std::abs(distance) > (std::is_integral_v<T> ? 0.0 : 1e-4)) {
      return "avg of " + std::string(to_string(device.dtype()));
    }
  }
  return "";
}

/// NCCL reduces 8-bit floats on GPUs of compute capability 9 and later.
inline bool reducible_here(sm::DType dtype) {
  int device = 0;
  int major = 0;
  sm::cuda::check(cudaGetDevice(&device), "cudaGetDevice");
  sm::cuda::check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
                  "cudaDeviceGetAttribute");
  bool const small_float = dtype == sm::DType::float8_e4m3fn || dtype == sm::DType::float8_e5m2;
  return sm::nccl::data_type(dtype) && (!small_float || major >= 9);
}

/// Every collective with every type, on one stream.
template <class Comm>
std::string collectives_on(Comm const& comm, sm::CudaStream stream) {
  std::string problem;
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    sm::visit_dtype(info.dtype, [&]<class T>(std::type_identity<T>) {
      if (problem.empty()) {
        problem = moves_of<T>(comm, stream);
      }
      if constexpr (!std::is_same_v<T, bool>) {
        if (problem.empty() && reducible_here(info.dtype)) {
          problem = reductions_of<T>(comm, stream);
        }
      }
    });
  }
  problem = problem.empty() ? average_of<float>(comm, stream) : problem;
  problem = problem.empty() ? average_of<double>(comm, stream) : problem;
  return problem.empty() ? average_of<std::int32_t>(comm, stream) : problem;
}

/// NCCL's collectives on a stream of the caller, on the default stream, and in a sub-group.
template <class Comm>
std::string native_collectives(Comm const& world) {
  OwnStream const own;
  std::string problem = collectives_on(world, own.get());
  problem = problem.empty() ? collectives_on(world, sm::CudaStream{}) : problem;
  auto const half = world.split(world.rank() % 2, -world.rank());
  return problem.empty() ? collectives_on(half, own.get()) : problem;
}

/// A communicator and a stream of a host program: used, split, and left whole.
/// @param blocking how the host program made it.
template <class Comm>
std::string adopted_communicator(Comm const& world, int blocking) {
  ncclUniqueId id{};
  if (world.rank() == 0) {
    sm::nccl::check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  }
  id = sm::all_gather_value(world, id)[0];
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = blocking;
  ncclComm_t comm = nullptr;
  sm::nccl::check(ncclCommInitRankConfig(&comm, world.size(), id, world.rank(), &config),
                  "ncclCommInitRankConfig");
  auto const ready = [&] {
    ncclResult_t status = ncclSuccess;
    sm::nccl::check(ncclCommGetAsyncError(comm, &status), "ncclCommGetAsyncError", comm);
    return status;
  };
  sm::nccl::wait_ready(ready, "ncclCommInitRankConfig", std::chrono::seconds(60));
  std::string problem;
  {
    OwnStream const own;
    auto const adopted = std::remove_cvref_t<Comm>::from_native_handle(comm, world.control(),
                                                                       std::chrono::seconds(60));
    problem = collectives_on(adopted, own.get());
    problem = problem.empty() ? collectives_on(adopted, sm::CudaStream{}) : problem;
    auto const report = run_matrix<sm::CudaMemory>(adopted, 5, 37);
    problem = problem.empty() ? report.first_wrong : problem;
  }
  int count = 0;
  sm::nccl::check(ncclCommCount(comm, &count), "ncclCommCount", comm);
  problem =
      problem.empty() && count != world.size() ? "the communicator was not left whole" : problem;
  ncclCommDestroy(comm);
  return problem;
}

}  // namespace test
