// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/layout/layout.hpp>
#include <shardmesh/memory/any_stream.hpp>
#include <shardmesh/memory/copy.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/host_buckets.hpp>
#include <shardmesh/mesh/mesh_description.hpp>
#include <shardmesh/state/detail/tensor_group.hpp>
#include <shardmesh/tensor/dist_tensor.hpp>
#include <shardmesh/tensor/local_part.hpp>
#include <shardmesh/tensor/pooled.hpp>
#include <shardmesh/tensor/redistribute.hpp>
#include <shardmesh/tensor/root_exchange.hpp>
#include <shardmesh/tensor/sharded_tensor.hpp>

namespace shardmesh {
inline namespace v0 {

/// What an `AnyTensor` was made of.
enum class TensorKind : std::uint8_t { plain, distributed, sharded };

/// Where a snapshot lies: beside the tensor, if there is room, or in host memory.
enum class SnapshotSpace : std::uint8_t { same, host };

/// A tensor of any element type, placements and memory space: what a state dict holds. A handle
/// that shares its elements with the `Tensor`, `DistTensor` or `ShardedTensor` it was made of.
///
/// It knows the stream on which its elements are in order (`ordered_on`): whatever is done with it, by a save or
/// load as well, is done there.
class AnyTensor {
 public:
  /// A plain tensor: whole on this rank, nobody else's business.
  template <Element T, MemorySpace Space>
  AnyTensor(Tensor<T, Space> const& tensor);

  /// A distributed tensor.
  template <Element T, class Mesh, PlacementTuple P, MemorySpace Space>
  AnyTensor(DistTensor<T, Mesh, P, Space> const& tensor);

  /// A tensor that is sharded over a group without a mesh.
  template <Element T, class Comm, MemorySpace Space>
  AnyTensor(ShardedTensor<T, Comm, Space> const& tensor)
      : dtype_(dtype_of<T>),
        layout_(tensor.layout()),
        coordinate_(tensor.coordinate()),
        kind_(TensorKind::sharded),
        member_(true),
        first_(tensor.is_first()),
        local_shape_(tensor.to_local().shape()),
        memory_(Space::kind),
        data_(tensor.to_local().data()),
        ops_(&operations<ShardedTensor<T, Comm, Space>>),
        handle_(std::make_shared<ShardedTensor<T, Comm, Space>>(tensor)) {}

  [[nodiscard]] DType dtype() const noexcept { return dtype_; }
  /// Global shape.
  [[nodiscard]] Shape const& shape() const noexcept { return layout_.shape(); }
  [[nodiscard]] Shape const& local_shape() const noexcept { return local_shape_; }
  [[nodiscard]] Layout const& layout() const noexcept { return layout_; }
  [[nodiscard]] TensorKind kind() const noexcept { return kind_; }
  /// Do other ranks hold parts of it? True for all but plain tensors.
  [[nodiscard]] bool is_distributed() const noexcept { return kind_ != TensorKind::plain; }
  /// Is the calling rank part of its mesh? Always true for tensors without one.
  [[nodiscard]] bool is_member() const noexcept { return member_; }
  /// Is the calling rank the first of those that hold parts (or the tensor plain)?
  [[nodiscard]] bool is_first() const noexcept { return first_; }
  /// The mesh of a `DistTensor`; empty for the other kinds.
  [[nodiscard]] MeshDescription const& mesh() const noexcept { return mesh_; }
  [[nodiscard]] MemoryKind memory() const noexcept { return memory_; }
  [[nodiscard]] void* data() const noexcept { return data_; }
  /// Bytes of the local part.
  [[nodiscard]] std::size_t bytes() const {
    return static_cast<std::size_t>(volume(local_shape_)) * size_of(dtype_);
  }

  /// The pieces of the global tensor that this rank holds; none outside the mesh.
  [[nodiscard]] std::vector<Piece> pieces() const {
    return member_ ? layout_.pieces(coordinate_) : std::vector<Piece>{};
  }

  /// The tensor that this was made of, if it is an `X`; else nullptr.
  template <AnyTensorType X>
  [[nodiscard]] X const* get() const noexcept {
    return ops_ == &operations<X> ? static_cast<X const*>(handle_.get()) : nullptr;
  }

  /// The same tensor, whose elements are written and read in the order of `stream`.
  [[nodiscard]] AnyTensor ordered_on(AnyStream const& stream) const {
    AnyTensor result = *this;
    result.stream_ = stream;
    return result;
  }
  [[nodiscard]] AnyStream const& stream() const noexcept { return stream_; }

  /// Copies a box between local memory and host memory; complete when the call returns. One side of
  /// `copy` lies in this tensor's memory, the other in the host's.
  void copy_box(StridedCopy const& copy) const { ops_->copy(copy, stream_); }

  /// The local elements, row-major, in host memory.
  [[nodiscard]] std::vector<std::byte> local_bytes() const {
    std::vector<std::byte> bytes_of_local(bytes());
    ops_->copy(
        {data_, bytes_of_local.data(), Shape{static_cast<index_t>(bytes())}, Shape{1}, Shape{1}, 1},
        stream_);
    return bytes_of_local;
  }

  /// Replaces the local elements by those of host memory.
  /// @pre bytes_of_local.size() == bytes().
  void assign(std::span<std::byte const> bytes_of_local) const {
    ops_->copy(
        {bytes_of_local.data(), data_, Shape{static_cast<index_t>(bytes())}, Shape{1}, Shape{1}, 1},
        stream_);
  }

  /// The same tensor, its local part copied to host memory: to `buckets` where many go together.
  [[nodiscard]] AnyTensor offloaded(HostBuckets* buckets = nullptr) const {
    return ops_->offload(handle_.get(), stream_, buckets);
  }

  /// An independent copy of the local part, all else unchanged: in this tensor's memory space or,
  /// where that has no room or is not wanted, in the host memory that serves it. The copy is made in the order
  /// of `stream()`; `synchronize` before another thread uses it.
  /// @param place  an earlier snapshot that nobody needs any more: it is overwritten and returned if
  ///               it fits.
  [[nodiscard]] AnyTensor snapshot(SnapshotSpace space, AnyTensor const* place = nullptr) const {
    bool const fits = place != nullptr && place->data_ != data_ && is_same_part(*place) &&
                      (space == SnapshotSpace::same || place->memory_ != MemoryKind::cuda);
    if (!fits) {
      return ops_->snapshot(handle_.get(), space, stream_);
    }
    ops_->enqueue(
        {data_, place->data_, Shape{static_cast<index_t>(bytes())}, Shape{1}, Shape{1}, 1},
        stream_);
    return *place;
  }

  /// Waits for what has been ordered on `stream()`.
  void synchronize() const { ops_->synchronize(stream_); }

  /// The device that is current on the calling thread, if the memory space has such a thing. Another
  /// thread that is to use the tensor binds it first.
  [[nodiscard]] DeviceBinding device() const { return ops_->device(); }

  /// Replaces the local elements by those of another tensor of the same dtype and local shape, in
  /// whatever memory; complete when the call returns.
  void copy_from(AnyTensor const& other) const {
    bool const theirs = other.memory_ == MemoryKind::cuda;
    AnyTensor const& mover = theirs ? other : *this;
    if (!(stream_ == other.stream_)) {
      (theirs ? *this : other).synchronize();
    }
    mover.ops_->copy(
        {other.data_, data_, Shape{static_cast<index_t>(bytes())}, Shape{1}, Shape{1}, 1},
        mover.stream_);
  }

  /// The part that this rank would hold under another layout over the same ranks, as a plain tensor
  /// in the same memory space.
  /// @throws InvalidArgument as `make_plan`, and for a plain tensor.
  /// @collective over the ranks that hold parts.
  [[nodiscard]] AnyTensor local_as(Layout const& target) const {
    return ops_->local_as(handle_.get(), target, stream_);
  }

  /// A plain tensor of the same dtype in host memory, uninitialised; `buckets` as for `offloaded`.
  [[nodiscard]] AnyTensor on_host(Shape const& shape, HostBuckets* buckets = nullptr) const {
    return ops_->on_host(shape, buckets);
  }

  /// `execute` in the memory space and the order of the stream of this tensor.
  /// @throws InvalidArgument if `comm` is of another type than the communicator of its mesh.
  /// @collective over `comm`.
  template <Communicator Comm>
  void execute(Comm const& comm, std::vector<ExchangeJob> const& jobs, Call const& call) const {
    if (ops_->communicator != &detail::communicator_type<Comm>) {
      throw InvalidArgument(
          detail::concat("shardmesh::", call.operation(),
                         ": the communicator is of another type than that of the tensor's mesh"));
    }
    ops_->execute(&comm, jobs, call, stream_);
  }
  /// Do two tensors lie in one kind of memory and talk by one type of communicator, so that one
  /// exchange can move both?
  [[nodiscard]] bool moves_like(AnyTensor const& other) const {
    return ops_->execute == other.ops_->execute;
  }

  /// The ranks that hold parts. No communication.
  [[nodiscard]] TensorGroup group() const { return ops_->group(handle_.get()); }
  /// The ranks of other groups that hold the same part, if there are other groups (`ShardedTensor`);
  /// else empty. No communication.
  [[nodiscard]] TensorGroup replicas() const { return ops_->replicas(handle_.get()); }

 private:
  struct Operations {
    void (*copy)(StridedCopy const&, AnyStream const&);
    AnyTensor (*offload)(void const*, AnyStream const&, HostBuckets*);
    AnyTensor (*local_as)(void const*, Layout const&, AnyStream const&);
    AnyTensor (*on_host)(Shape const&, HostBuckets*);
    TensorGroup (*group)(void const*);
    TensorGroup (*replicas)(void const*);
    AnyTensor (*snapshot)(void const*, SnapshotSpace, AnyStream const&);
    void (*enqueue)(StridedCopy const&, AnyStream const&);
    void (*synchronize)(AnyStream const&);
    DeviceBinding (*device)();
    void (*execute)(void const*, std::vector<ExchangeJob> const&, Call const&, AnyStream const&);
    void const* communicator;  // its type
  };

  template <class Space>
  static void copy_later(StridedCopy const& copy, AnyStream const& stream) {
    Space::copy(copy, stream.as<typename Space::Stream>());
  }
  template <class Space>
  static void wait_now(AnyStream const& stream) {
    stream.as<typename Space::Stream>().synchronize();
  }
  template <class Space>
  static void copy_now(StridedCopy const& copy, AnyStream const& stream) {
    copy_later<Space>(copy, stream);
    wait_now<Space>(stream);
  }
  template <class Space>
  static DeviceBinding device_now() {
    if constexpr (requires { Space::use_device(Space::current_device()); }) {
      return {Space::current_device(), &Space::use_device};
    } else {
      return {};
    }
  }

  /// The tensor with a copy of its local part in `Target` memory, made in the order of the stream.
  template <class Target, class X>
  static AnyTensor copied(X const& tensor, AnyStream const& any, HostBuckets* buckets = nullptr) {
    auto const local = detail::pooled_clone<Target>(local_part(tensor), any, buckets);
    return AnyTensor(with_local_part(tensor, local)).ordered_on(any);
  }

  template <class X>
  static AnyTensor snapshot_now(void const* handle, SnapshotSpace space, AnyStream const& stream) {
    auto const& tensor = *static_cast<X const*>(handle);
    using Space = typename X::memory_space;
    if constexpr (requires { typename Space::HostSide; }) {
      if (space == SnapshotSpace::same) {
        try {
          return copied<Space>(tensor, stream);
        } catch (DeviceError const&) {  // no room: the host has some
        }
      }
      return copied<typename Space::HostSide>(tensor, stream);
    } else {
      return copied<Space>(tensor, stream);
    }
  }

  template <class X>
  static AnyTensor offload_now(void const* handle, AnyStream const& stream, HostBuckets* buckets) {
    AnyTensor const result = copied<HostMemory>(*static_cast<X const*>(handle), stream, buckets);
    wait_now<CopySpace<HostMemory, typename X::memory_space>>(stream);
    return result.ordered_on({});
  }

  /// The communicator over the ranks that hold parts.
  template <class X>
  static auto const& comm_of(X const& tensor) {
    if constexpr (AnyDistTensor<X>) {
      return tensor.mesh().comm();
    } else {
      return tensor.shard_group();
    }
  }

  template <class X>
  static AnyTensor local_as_now(void const* handle, Layout const& target, AnyStream const& any) {
    auto const& tensor = *static_cast<X const*>(handle);
    if constexpr (AnyPlainTensor<X>) {
      throw InvalidArgument("shardmesh::AnyTensor::local_as: a plain tensor of shape " +
                            to_string(tensor.shape()) + " is on this rank alone; distribute it");
    } else {
      auto const stream = any.as<typename X::Stream>();
      auto const& comm = comm_of(tensor);
      auto local = detail::run(make_rank_plan(tensor.layout(), target, comm.rank()), comm,
                               tensor.to_local(), "state_dict", stream);
      stream.synchronize();
      return AnyTensor(local).ordered_on(any);
    }
  }

  template <class X>
  static AnyTensor on_host_now(Shape const& shape, HostBuckets* buckets) {
    return detail::pooled_tensor<typename X::value_type, typename X::memory_space>(shape, buckets);
  }

  template <class Space, class Comm>
  static GatherReport exchange_now(void const* comm,
                                   char const* operation,
                                   RootDirection direction,
                                   std::vector<RootJob> const& jobs,
                                   std::size_t ceiling,
                                   AnyStream const& stream) {
    return exchange_with_root<Space>(*static_cast<Comm const*>(comm), operation, direction, jobs,
                                     ceiling, stream.as<typename Space::Stream>());
  }

  template <class Space, class Comm>
  static void execute_now(void const* comm,
                          std::vector<ExchangeJob> const& jobs,
                          Call const& call,
                          AnyStream const& any) {
    auto const stream = any.as<typename Space::Stream>();
    v0::execute<Space>(*static_cast<Comm const*>(comm), jobs, call, stream);
    stream.synchronize();
  }
  template <class X>
  static constexpr auto executor() {
    using Function = decltype(Operations::execute);
    if constexpr (AnyDistTensor<X>) {
      using Comm = typename X::mesh_type::communicator_type;
      return std::pair<Function, void const*>(&execute_now<typename X::memory_space, Comm>,
                                              &detail::communicator_type<Comm>);
    } else {
      return std::pair<Function, void const*>(nullptr, nullptr);
    }
  }

  template <class Space, class Comm>
  static TensorGroup group_over(Comm const& comm) {
    TensorGroup group;
    group.ranks = comm.world_ranks();
    group.rank = comm.rank();
    group.comm = &comm;
    group.exchange = &exchange_now<Space, Comm>;
    return group;
  }

  template <class X>
  static TensorGroup replicas_now([[maybe_unused]] void const* handle) {
    if constexpr (AnyShardedTensor<X>) {
      return group_over<typename X::memory_space>(static_cast<X const*>(handle)->replicate_group());
    } else {
      return {};
    }
  }

  template <class X>
  static TensorGroup group_now([[maybe_unused]] void const* handle) {
    TensorGroup group;
    if constexpr (AnyDistTensor<X>) {
      auto const& mesh = static_cast<X const*>(handle)->mesh();
      if (mesh.is_member()) {
        group = group_over<typename X::memory_space>(mesh.comm());
      }
    } else if constexpr (AnyShardedTensor<X>) {
      auto const& tensor = *static_cast<X const*>(handle);
      group = group_over<typename X::memory_space>(tensor.shard_group());
      group.first_replica = tensor.replicate_group().rank() == 0;
    }
    return group;
  }

  template <class X>
  static constexpr Operations operations{&copy_now<typename X::memory_space>,
                                         &offload_now<X>,
                                         &local_as_now<X>,
                                         &on_host_now<X>,
                                         &group_now<X>,
                                         &replicas_now<X>,
                                         &snapshot_now<X>,
                                         &copy_later<typename X::memory_space>,
                                         &wait_now<typename X::memory_space>,
                                         &device_now<typename X::memory_space>,
                                         executor<X>().first,
                                         executor<X>().second};

  /// Is it the same part of the same tensor, held by the same ranks, wherever it lies?
  [[nodiscard]] bool is_same_part(AnyTensor const& other) const {
    return dtype_ == other.dtype_ && kind_ == other.kind_ && layout_ == other.layout_ &&
           mesh_ == other.mesh_ && coordinate_ == other.coordinate_ && member_ == other.member_ &&
           first_ == other.first_ && local_shape_ == other.local_shape_ &&
           group().ranks == other.group().ranks && replicas().ranks == other.replicas().ranks;
  }

  DType dtype_;
  Layout layout_;
  MeshDescription mesh_;
  Coordinate coordinate_;
  TensorKind kind_ = TensorKind::plain;
  bool member_ = false;
  bool first_ = false;
  Shape local_shape_;
  MemoryKind memory_;
  void* data_;
  Operations const* ops_;
  AnyStream stream_;
  std::shared_ptr<void> handle_;
};

template <Element T, MemorySpace Space>
AnyTensor::AnyTensor(Tensor<T, Space> const& tensor)
    : dtype_(dtype_of<T>),
      layout_(tensor.shape(), Shape{1}, PlacementList{Replicate{}}),
      coordinate_{0},
      member_(true),
      first_(true),
      local_shape_(tensor.shape()),
      memory_(Space::kind),
      data_(tensor.data()),
      ops_(&operations<Tensor<T, Space>>),
      handle_(std::make_shared<Tensor<T, Space>>(tensor)) {}

template <Element T, class Mesh, PlacementTuple P, MemorySpace Space>
AnyTensor::AnyTensor(DistTensor<T, Mesh, P, Space> const& tensor)
    : dtype_(dtype_of<T>),
      layout_(tensor.layout()),
      mesh_(tensor.mesh().description()),
      kind_(TensorKind::distributed),
      member_(tensor.mesh().is_member()),
      local_shape_(tensor.to_local().shape()),
      memory_(Space::kind),
      data_(tensor.to_local().data()),
      ops_(&operations<DistTensor<T, Mesh, P, Space>>),
      handle_(std::make_shared<DistTensor<T, Mesh, P, Space>>(tensor)) {
  if (member_) {
    coordinate_ = tensor.mesh().coordinate();
    first_ = ravel(coordinate_, layout_.mesh()) == 0;
  }
}

}  // namespace v0
}  // namespace shardmesh
