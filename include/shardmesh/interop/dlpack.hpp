// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/interop/dlpack_abi.hpp>
#include <shardmesh/interop/foreign_tensor.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/state/any_tensor.hpp>

namespace shardmesh {
inline namespace v0 {

namespace dlpack {

/// Either form, of whatever header.
template <class M>
concept Managed = requires(M* managed) {
  managed->deleter(managed);
  managed->manager_ctx;
  managed->dl_tensor.byte_offset;
};
/// The form since version 1.0, of whatever header.
template <class M>
concept Versioned = Managed<M> && requires(M* managed) {
  managed->version.major;
  managed->flags;
};

/// Gives a managed tensor back to whom it is of.
struct Deleter {
  template <Managed M>
  void operator()(M* managed) const noexcept {
    if (managed->deleter != nullptr) {
      managed->deleter(managed);
    }
  }
};

/// Owns a managed tensor. `release()` hands it on, into a PyCapsule for example.
template <Managed M>
using Owner = std::unique_ptr<M, Deleter>;

}  // namespace dlpack

namespace detail {

[[nodiscard]] inline std::string dlpack_words(dlpack::DataType const& type) {
  return concat("code ", std::to_string(type.code), ", ", std::to_string(type.bits), " bits, ",
                std::to_string(type.lanes), type.lanes == 1 ? " lane" : " lanes");
}

/// Are elements on this kind of device in the memory space?
[[nodiscard]] constexpr bool is_device_of(std::int32_t type, MemoryKind kind) noexcept {
  using enum dlpack::DeviceType;
  auto const device = static_cast<dlpack::DeviceType>(type);
  switch (kind) {
    case MemoryKind::host:
      return device == cpu || device == cuda_host;
    case MemoryKind::pinned:
      return device == cuda_host;
    case MemoryKind::cuda:
      break;
  }
  return device == cuda || device == cuda_managed;
}

/// @throws UnsupportedError if the elements do not lie in memory of the space.
template <MemorySpace Space>
void check_dlpack_device(std::int32_t type, std::int32_t number) {
  if (!is_device_of(type, Space::kind)) {
    throw UnsupportedError(concat(
        "shardmesh::from_dlpack: the elements lie on a device of DLPack's type ",
        std::to_string(type), " (number ", std::to_string(number), "), asked for in ",
        to_string(Space::kind),
        " memory; name the memory space as from_dlpack<Space>, or copy the tensor there before"));
  }
  if constexpr (requires { Space::current_device(); }) {
    if (number != Space::current_device()) {
      throw UnsupportedError(concat("shardmesh::from_dlpack: the elements lie on device ",
                                    std::to_string(number), ", the calling thread uses device ",
                                    std::to_string(Space::current_device()),
                                    "; make that of the elements current first"));
    }
  }
}

/// What a header's managed tensor says, in our words.
struct DlpackView {
  std::byte* data = nullptr;
  DType dtype{};
  Shape shape;
  Shape strides;
  bool read_only = false;
};

/// @throws ShapeError, UnsupportedError if it is no tensor of ours.
template <dlpack::Managed M>
[[nodiscard]] DlpackView read_dlpack(M const& managed) {
  auto const& tensor = managed.dl_tensor;
  DlpackView view;
  if (tensor.ndim < 0 || static_cast<std::size_t>(tensor.ndim) > max_rank ||
      (tensor.ndim > 0 && tensor.shape == nullptr)) {
    throw ShapeError(concat("shardmesh::from_dlpack: the tensor has ", std::to_string(tensor.ndim),
                            " dimensions",
                            tensor.ndim > 0 && tensor.shape == nullptr ? " and no shape" : "",
                            "; shardmesh knows 0 to ", std::to_string(max_rank)));
  }
  dlpack::DataType const type{tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes};
  auto const dtype = dlpack::dtype_from(type);
  if (!dtype) {
    throw UnsupportedError(concat("shardmesh::from_dlpack: elements of DLPack's type ",
                                  dlpack_words(type),
                                  " have no counterpart; convert the tensor before",
                                  type.lanes == 1 ? "" : ", or make the lanes a dimension"));
  }
  if constexpr (dlpack::Versioned<M>) {
    if (type.bits < 8 && (managed.flags & dlpack::padded_flag) != 0) {
      throw UnsupportedError(concat("shardmesh::from_dlpack: elements of type ", to_string(*dtype),
                                    " come with each number in a byte of its own; pack them"));
    }
    view.read_only = (managed.flags & dlpack::read_only_flag) != 0;
  }
  view.dtype = *dtype;
  for (std::int32_t d = 0; d < tensor.ndim; ++d) {
    view.shape.push_back(static_cast<index_t>(tensor.shape[d]));
  }
  if (tensor.strides == nullptr) {
    bool negative = false;  // such a shape is refused with a word of its own
    for (index_t const extent : view.shape) {
      negative = negative || extent < 0;
    }
    view.strides = negative ? view.shape : row_major_strides(view.shape);
  } else {
    for (std::int32_t d = 0; d < tensor.ndim; ++d) {
      view.strides.push_back(static_cast<index_t>(tensor.strides[d]));
    }
  }
  view.data = static_cast<std::byte*>(tensor.data);
  if (view.data != nullptr) {
    view.data += tensor.byte_offset;
  }
  return view;
}

/// What to_dlpack hands out: the tensor, kept alive, and what describes it.
template <dlpack::Managed M>
struct DlpackBox {
  explicit DlpackBox(AnyTensor held) : tensor(std::move(held)) {}
  AnyTensor tensor;
  std::array<std::int64_t, max_rank> shape{};
  std::array<std::int64_t, max_rank> strides{};
  M managed{};
};

[[nodiscard]] constexpr dlpack::DeviceType dlpack_device(MemoryKind kind) noexcept {
  return kind == MemoryKind::host     ? dlpack::DeviceType::cpu
         : kind == MemoryKind::pinned ? dlpack::DeviceType::cuda_host
                                      : dlpack::DeviceType::cuda;
}

}  // namespace detail

/// A tensor of another framework, without a copy. Takes it over: its deleter runs exactly once, when
/// the last handle of the elements goes, or before this throws. From Python: rename the capsule to
/// "used_dltensor_versioned" ("used_dltensor"), then call this.
///
/// DLPack hands no stream along: the producer's work on the elements must be done, or be ordered
/// before the work of the stream that uses them (Python's `__dlpack__(stream=...)` does that).
///
/// @tparam Space the memory that the elements are wanted in; on a device, the current one.
/// @param managed of either form: `dlpack::ManagedTensorVersioned`, `dlpack::ManagedTensor`, or the
///                types of DLPack's own header. Null strides mean row-major elements.
/// @throws UnsupportedError if its version, device or element type is none that shardmesh knows;
///         as `ForeignTensor` for elements that are not row-major.
template <MemorySpace Space = HostMemory, dlpack::Managed M>
[[nodiscard]] ForeignTensor<Space> from_dlpack(M* managed) {
  if (managed == nullptr) {
    throw InvalidArgument("shardmesh::from_dlpack: the managed tensor is null; pass one");
  }
  dlpack::Owner<M> owned(managed);
  if constexpr (dlpack::Versioned<M>) {
    if (managed->version.major != dlpack::written_version.major) {
      throw UnsupportedError(detail::concat(
          "shardmesh::from_dlpack: the tensor is of DLPack ",
          std::to_string(managed->version.major), ".", std::to_string(managed->version.minor),
          ", whose layout is not known here; ask the producer for version 1 (Python: "
          "__dlpack__(max_version=(1, 1)))"));
    }
  }
  detail::check_dlpack_device<Space>(
      static_cast<std::int32_t>(managed->dl_tensor.device.device_type),
      managed->dl_tensor.device.device_id);
  detail::DlpackView const view = detail::read_dlpack(*managed);
  std::shared_ptr<M> owner(std::move(owned));
  ForeignTensor<Space> tensor(view.data, view.dtype, view.shape, view.strides, std::move(owner));
  return view.read_only ? tensor.as_read_only() : tensor;
}

/// The local part of a tensor for another framework, without a copy: the elements stay until the
/// deleter of the result has run. Work of other streams on them must be done, or be ordered before the
/// consumer's; on a device, the calling thread's current one is that of the elements.
/// @tparam M        the form to hand out.
/// @param read_only tells the consumer not to write.
/// @throws UnsupportedError if `read_only` is asked of the form that cannot say so.
template <dlpack::Managed M = dlpack::ManagedTensorVersioned>
[[nodiscard]] dlpack::Owner<M> to_dlpack(AnyTensor const& tensor, bool read_only = false) {
  auto box = std::make_unique<detail::DlpackBox<M>>(tensor);
  M& managed = box->managed;
  if constexpr (dlpack::Versioned<M>) {
    managed.version.major = dlpack::written_version.major;
    managed.version.minor = dlpack::written_version.minor;
    managed.flags = read_only ? dlpack::read_only_flag : 0;
  } else if (read_only) {
    throw UnsupportedError(
        "shardmesh::to_dlpack: the form without a version cannot say that elements are read-only; "
        "hand out the versioned one, or a copy");
  }
  auto& out = managed.dl_tensor;
  Shape const& shape = tensor.local_shape();
  Shape const strides = row_major_strides(shape);
  for (std::size_t d = 0; d < shape.size(); ++d) {
    box->shape[d] = shape[d];
    box->strides[d] = strides[d];
  }
  using DeviceType = std::remove_cvref_t<decltype(out.device.device_type)>;
  dlpack::DataType const type = dlpack::data_type(tensor.dtype());
  out.data = tensor.data();
  out.device.device_type = static_cast<DeviceType>(detail::dlpack_device(tensor.memory()));
  out.device.device_id = tensor.device().number;
  out.ndim = static_cast<std::int32_t>(shape.size());
  out.dtype.code = type.code;
  out.dtype.bits = type.bits;
  out.dtype.lanes = type.lanes;
  out.shape = box->shape.data();
  out.strides = box->strides.data();
  out.byte_offset = 0;
  managed.manager_ctx = box.get();
  managed.deleter = [](M* self) { delete static_cast<detail::DlpackBox<M>*>(self->manager_ctx); };
  return dlpack::Owner<M>(&box.release()->managed);
}

/// The same for a foreign tensor, read-only if that is.
template <dlpack::Managed M = dlpack::ManagedTensorVersioned, MemorySpace Space>
[[nodiscard]] dlpack::Owner<M> to_dlpack(ForeignTensor<Space> const& tensor) {
  return to_dlpack<M>(tensor.promise_not_to_write().any(), tensor.is_read_only());
}

}  // namespace v0
}  // namespace shardmesh
