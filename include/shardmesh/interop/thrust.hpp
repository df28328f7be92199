// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <thrust/device_ptr.h>
#include <thrust/memory.h>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/memory/cuda/cuda_memory.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/tensor/local_part.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

/// Thrust's pointers to host memory are plain ones.
template <class Pointer>
using ThrustSpace = std::conditional_t<std::is_pointer_v<Pointer>, HostMemory, CudaMemory>;

template <class Pointer>
using ThrustElement =
    std::remove_pointer_t<decltype(thrust::raw_pointer_cast(std::declval<Pointer const&>()))>;

}  // namespace detail

/// Where a local part begins, for Thrust's algorithms: a `thrust::device_ptr` to device memory, which
/// they dispatch by, an address of host memory. Does not keep the elements.
///
/// @code
///   thrust::transform(thrust::cuda::par_nosync.on(stream), sm::thrust_begin(x), sm::thrust_end(x), ...);
/// @endcode
///
/// Thrust works on the stream of its policy, shardmesh on those that it is given: order them alike.
template <AnyTensorType X>
[[nodiscard]] auto thrust_begin(X const& tensor) {
  auto* const data = local_part(tensor).data();
  if constexpr (X::memory_space::kind == MemoryKind::cuda) {
    return thrust::device_pointer_cast(data);
  } else {
    return data;
  }
}
/// Where a local part ends.
template <AnyTensorType X>
[[nodiscard]] auto thrust_end(X const& tensor) {
  return thrust_begin(tensor) + local_part(tensor).size();
}

/// Elements from a Thrust pointer on (`thrust::device_ptr`, a plain one for host memory), without a
/// copy: a tensor in device or host memory.
/// @param owner is kept for as long as a handle of the elements lives; if it is empty, the caller keeps
///              them there.
template <class Pointer>
  requires requires(Pointer const& pointer) { *pointer; } && Element<detail::ThrustElement<Pointer>>
[[nodiscard]] auto from_thrust(Pointer const& first,
                               Shape const& shape,
                               std::shared_ptr<void> owner = {}) {
  using T = detail::ThrustElement<Pointer>;
  return Tensor<T, detail::ThrustSpace<Pointer>>::view(
      shape, std::shared_ptr<T>(std::move(owner), thrust::raw_pointer_cast(first)));
}

/// The elements of a `thrust::device_vector` or `thrust::host_vector`, without a copy. The vector must
/// stay, and not grow, for as long as a handle of the elements lives; an `owner` that holds it sees to
/// the first.
/// @throws ShapeError if it has not volume(shape) elements.
template <class Vector>
  requires requires(Vector& v) {
    v.data();
    v.size();
    typename Vector::allocator_type;
  }
[[nodiscard]] auto from_thrust(Vector& vector,
                               Shape const& shape,
                               std::shared_ptr<void> owner = {}) {
  if (std::cmp_not_equal(vector.size(), volume(shape))) {
    throw ShapeError(detail::concat("shardmesh::from_thrust: shape ", to_string(shape), " needs ",
                                    std::to_string(volume(shape)), " elements, the vector has ",
                                    std::to_string(vector.size())));
  }
  return from_thrust(vector.data(), shape, std::move(owner));
}

}  // namespace v0
}  // namespace shardmesh
