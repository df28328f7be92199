// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/fsdp/fully_shard.hpp>
#include <shardmesh/interop/foreign_tensor.hpp>
#include <shardmesh/memory/host.hpp>
#include <shardmesh/memory/space.hpp>
#include <shardmesh/state/any_tensor.hpp>
#include <shardmesh/state/role.hpp>
#include <shardmesh/tensor/tensor.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

struct TorchType {
  DType dtype;
  at::ScalarType scalar;
};

// clang-format off
inline constexpr std::array<TorchType, 21> torch_types{{
    {DType::float32, at::ScalarType::Float},
    {DType::float64, at::ScalarType::Double},
    {DType::float16, at::ScalarType::Half},
    {DType::bfloat16, at::ScalarType::BFloat16},
    {DType::int8, at::ScalarType::Char},
    {DType::uint8, at::ScalarType::Byte},
    {DType::int16, at::ScalarType::Short},
    {DType::uint16, at::ScalarType::UInt16},
    {DType::int32, at::ScalarType::Int},
    {DType::uint32, at::ScalarType::UInt32},
    {DType::int64, at::ScalarType::Long},
    {DType::uint64, at::ScalarType::UInt64},
    {DType::boolean, at::ScalarType::Bool},
    {DType::float8_e4m3fn, at::ScalarType::Float8_e4m3fn},
    {DType::float8_e5m2, at::ScalarType::Float8_e5m2},
    {DType::float8_e4m3fnuz, at::ScalarType::Float8_e4m3fnuz},
    {DType::float8_e5m2fnuz, at::ScalarType::Float8_e5m2fnuz},
    {DType::float8_e8m0fnu, at::ScalarType::Float8_e8m0fnu},
    {DType::complex64, at::ScalarType::ComplexFloat},
    {DType::complex128, at::ScalarType::ComplexDouble},
    {DType::float4_e2m1fn_x2, at::ScalarType::Float4_e2m1fn_x2},
}};
// clang-format on

/// @throws UnsupportedError if PyTorch has no such elements.
[[nodiscard]] inline at::ScalarType torch_type(DType dtype) {
  for (TorchType const& type : torch_types) {
    if (type.dtype == dtype) {
      return type.scalar;
    }
  }
  throw UnsupportedError(concat("shardmesh::to_torch: PyTorch has no elements of type ",
                                to_string(dtype), "; convert the tensor before"));
}

[[nodiscard]] inline at::Device torch_device(MemoryKind kind, int number) {
  return kind == MemoryKind::cuda ? at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(number))
                                  : at::Device(at::kCPU);
}

[[nodiscard]] inline Shape torch_shape(at::IntArrayRef extents) {
  if (extents.size() > max_rank) {
    throw ShapeError(concat("shardmesh::from_torch: the tensor has ",
                            std::to_string(extents.size()), " dimensions; shardmesh knows up to ",
                            std::to_string(max_rank)));
  }
  Shape shape;
  for (std::int64_t const extent : extents) {
    shape.push_back(static_cast<index_t>(extent));
  }
  return shape;
}

/// Why a tensor cannot be looked at as elements of the space, and how to mend it; empty if it can.
template <MemorySpace Space>
[[nodiscard]] std::string torch_problem(at::Tensor const& tensor) {
  if (!tensor.defined()) {
    return "the tensor is undefined; give it elements";
  }
  if (tensor.layout() != at::kStrided) {
    return "the tensor is not strided; call to_dense() before";
  }
  if (tensor.is_conj() || tensor.is_neg()) {
    return "the tensor is a lazy conjugate or negative; call resolve_conj().resolve_neg() before";
  }
  int number = 0;
  if constexpr (requires { Space::current_device(); }) {
    number = Space::current_device();
  }
  at::Device const device = torch_device(Space::kind, number);
  if (tensor.device().type() != device.type() ||
      (device.has_index() && tensor.device().index() != device.index())) {
    return concat("the tensor is on ", tensor.device().str(), ", asked for on ", device.str(),
                  "; name the memory space as from_torch<Space>, or move the tensor before");
  }
  return {};
}

}  // namespace detail

/// A tensor of LibTorch, without a copy: keeps its storage, which stays even where PyTorch's `set_data`
/// gives the tensor another. The stream of shardmesh's calls must be ordered behind PyTorch's current one.
/// @throws UnsupportedError for a tensor that is not strided, is a lazy conjugate or negative, is on
///         another device or of a quantised type; as `ForeignTensor` if it is not row-major.
template <MemorySpace Space = HostMemory>
[[nodiscard]] ForeignTensor<Space> from_torch(at::Tensor const& tensor) {
  if (std::string const problem = detail::torch_problem<Space>(tensor); !problem.empty()) {
    throw UnsupportedError(detail::concat("shardmesh::from_torch: ", problem));
  }
  auto const* const type =
      std::find_if(detail::torch_types.begin(), detail::torch_types.end(),
                   [&](auto const& one) { return one.scalar == tensor.scalar_type(); });
  if (type == detail::torch_types.end()) {
    throw UnsupportedError(detail::concat("shardmesh::from_torch: elements of type ",
                                          c10::toString(tensor.scalar_type()),
                                          " have no counterpart; convert the tensor before"));
  }
  auto const storage = std::make_shared<c10::Storage>(tensor.storage());
  return {tensor.data_ptr(), type->dtype, detail::torch_shape(tensor.sizes()),
          detail::torch_shape(tensor.strides()), storage};
}

/// The local part of a tensor for LibTorch, without a copy: the elements stay for as long as the result
/// or a view of it lives.
/// @throws UnsupportedError for elements that PyTorch has not.
[[nodiscard]] inline at::Tensor to_torch(AnyTensor const& tensor) {
  std::vector<std::int64_t> const sizes(tensor.local_shape().begin(), tensor.local_shape().end());
  auto const options = at::TensorOptions()
                           .dtype(detail::torch_type(tensor.dtype()))
                           .device(detail::torch_device(tensor.memory(), tensor.device().number));
  if (tensor.bytes() == 0) {
    return at::empty(sizes, options);
  }
  return at::from_blob(tensor.data(), sizes, [kept = tensor](void*) {}, options);
}

/// A module of LibTorch as a model of shardmesh: its parameters (frozen where they need no gradient) and
/// buffers under the names that PyTorch gives them. `state_dict`, `save` and `load` work on the module's
/// own memory.
///
/// @code
///   sm::TorchModule<float> model(*module);
///   auto net = sm::fully_shard(model, mesh);  // the module's parameters are empty now
///   sm::Adam<decltype(net)::Parameter> adam(net, {.lr = 0.01});
///   {
///     sm::WholeModule const whole(net);  // and whole here
///     loss(module->forward(x)).backward();
///   }
///   adam.step(net.reduce_gradients(model.take_gradients()));
/// @endcode
///
/// Keeps handles of the parameters and buffers that the module has by now; the module need not outlive it.
/// Must stay where it is once it is sharded.
///
/// @tparam T     type of the parameters' elements. Buffers may have any.
/// @tparam Space where they lie.
template <Element T = float, MemorySpace Space = HostMemory>
class TorchModule {
 public:
  using parameter_type = Tensor<T, Space>;

  /// @param module a `torch::nn::Module`.
  /// @throws InvalidArgument, naming it, for a parameter of another type; as `from_torch`.
  template <class Module>
    requires requires(Module const& one) {
      one.named_parameters();
      one.named_buffers();
      one.named_children();
    }
  explicit TorchModule(Module const& module) {
    for (auto const& one : module.named_parameters()) {
      parameters_.push_back(parameter(one.key(), one.value()));
    }
    for (auto const& one : module.named_buffers()) {
      buffers_.push_back({one.key(), one.value()});
    }
    for (auto const& one : module.named_children()) {
      units_.push_back(one.key());
    }
  }
  TorchModule(TorchModule const&) = delete;
  TorchModule& operator=(TorchModule const&) = delete;

  template <class V>
  void visit(V&& v) {
    for (Parameter& one : parameters_) {
      if (one.tensor.requires_grad()) {
        v(one.name, one.leaf);
      } else {
        v(one.name, frozen(one.leaf));
      }
    }
    for (Buffer const& one : buffers_) {
      from_torch<Space>(one.tensor).visit([&](auto tensor) { v(one.name, buffer(tensor)); });
    }
  }

  /// The names of the module's children: what `fully_shard` gathers and frees together.
  [[nodiscard]] std::vector<std::string> const& units() const noexcept { return units_; }

  /// Points the module's parameters at the elements that the model has by now: those of the whole
  /// parameters, or none.
  void bind() {
    for (Parameter& one : parameters_) {
      one.tensor.set_data(to_torch(one.leaf));
    }
  }

  /// The gradients that a backward pass has left, one for each trained parameter, zeros where there is
  /// none; the module has none afterwards. Tied parameters have one, their sum.
  [[nodiscard]] std::vector<Tensor<T, Space>> take_gradients() {
    std::vector<at::Tensor> sums(parameters_.size());
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      Parameter& one = parameters_[i];
      at::Tensor& grad = one.tensor.mutable_grad();
      if (grad.defined()) {
        at::Tensor& sum = sums[one.tied_to];
        sum = sum.defined() ? at::add(sum, grad) : grad;
        grad = at::Tensor();
      }
    }
    std::vector<Tensor<T, Space>> gradients;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (parameters_[i].tied_to == i && parameters_[i].tensor.requires_grad()) {
        gradients.push_back(sums[i].defined()
                                ? from_torch<Space>(sums[i].contiguous()).template as<T>()
                                : Tensor<T, Space>::zeros(parameters_[i].shape));
      }
    }
    return gradients;
  }

 private:
  struct Parameter {
    std::string name;
    at::Tensor tensor;
    Tensor<T, Space> leaf;
    Shape shape;
    std::size_t tied_to;  ///< the first parameter that shares its elements: itself, if none does
  };
  struct Buffer {
    std::string name;
    at::Tensor tensor;
  };

  [[nodiscard]] Parameter parameter(std::string const& name, at::Tensor const& tensor) const {
    auto const foreign = from_torch<Space>(tensor);
    if (foreign.dtype() != dtype_of<T>) {
      throw InvalidArgument(detail::concat("shardmesh::TorchModule: \"", name, "\" holds ",
                                           to_string(foreign.dtype()),
                                           ", the model's parameters are ", to_string(dtype_of<T>),
                                           "; name their type as TorchModule<T>, or convert the "
                                           "module (module.to(...)) before"));
    }
    std::size_t tied = parameters_.size();
    for (std::size_t i = 0; i < parameters_.size() && foreign.bytes() > 0; ++i) {
      if (parameters_[i].leaf.data() == foreign.data() && parameters_[i].shape == foreign.shape()) {
        tied = parameters_[i].tied_to;
        break;
      }
    }
    return {name, tensor, foreign.template as<T>(), foreign.shape(), tied};
  }

  std::vector<Parameter> parameters_;
  std::vector<Buffer> buffers_;
  std::vector<std::string> units_;
};

/// As `fully_shard` for any model. Without `options.units`, each child of the module is a unit. The
/// module's parameters are empty afterwards, but while a `WholeModule` lives.
/// @collective over the mesh.
template <class P = void, Element T, MemorySpace Space, std::size_t N, Communicator Comm>
[[nodiscard]] auto fully_shard(TorchModule<T, Space>& model,
                               DeviceMesh<N, Comm> const& mesh,
                               FullyShardOptions options = {}) {
  if (options.units.empty()) {
    options.units = model.units();
  }
  auto net = detail::make_sharded<FullyShard, P>(model, MeshSharding(mesh), std::move(options));
  model.bind();
  return net;
}

/// While it lives, all parameters of a sharded module are whole, for a forward and a backward pass: both
/// need them. Gradients stay in the module.
/// @tparam Net what `fully_shard` gave for a `TorchModule`.
template <class Net>
class WholeModule {
 public:
  using Stream = typename Net::Stream;

  /// @collective over the shard group.
  explicit WholeModule(Net& net, Stream stream = {}) : net_(&net), stream_(stream) {
    net.unshard(stream);
    net.model().bind();
  }
  WholeModule(WholeModule const&) = delete;
  WholeModule& operator=(WholeModule const&) = delete;
  /// @throws what freeing the parameters throws, unless another exception is on its way.
  ~WholeModule() noexcept(false) {
    try {
      net_->reshard(stream_);
      net_->model().bind();
    } catch (std::exception const&) {
      if (std::uncaught_exceptions() == exceptions_) {
        throw;
      }
    }
  }

 private:
  Net* net_;
  Stream stream_;
  int exceptions_ = std::uncaught_exceptions();
};

}  // namespace v0
}  // namespace shardmesh
