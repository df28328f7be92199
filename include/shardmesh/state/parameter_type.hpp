// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <iterator>
#include <tuple>
#include <type_traits>
#include <utility>

#include <shardmesh/state/reflect.hpp>
#include <shardmesh/state/visit.hpp>
#include <shardmesh/tensor/local_part.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// What the members of a model say about the type of its parameters: nothing yet.
struct NoTensor {};
/// They have several, or one of them does not show its members.
struct ManyTensors {};

template <class A, class B>
struct OneTensor {
  using type = ManyTensors;
};
template <class A>
struct OneTensor<A, A> {
  using type = A;
};
template <class A>
struct OneTensor<A, NoTensor> {
  using type = A;
};
template <class B>
struct OneTensor<NoTensor, B> {
  using type = B;
};
template <>
struct OneTensor<NoTensor, NoTensor> {
  using type = NoTensor;
};

template <class... Found>
struct OneTensorOf {
  using type = NoTensor;
};
template <class First, class... Rest>
struct OneTensorOf<First, Rest...> {
  using type = typename OneTensor<First, typename OneTensorOf<Rest...>::type>::type;
};

template <class... Members>
struct MemberTypes {};

/// The types of the members of an aggregate, by structured bindings; only its type is asked for.
struct CollectTypes {
  template <class... Members>
  MemberTypes<std::remove_cvref_t<Members>...> operator()(Members&...) const {
    return {};
  }
};

/// Fits any member but a base of `Whole`.
template <class Whole>
struct AnyMember {
  template <class T>
    requires(!std::is_base_of_v<T, Whole>)
  operator T() const {
    __builtin_unreachable();  // only whether it would fit is asked
  }
};
template <std::size_t>
struct Nth {
  template <class Whole>
  using Member = AnyMember<Whole>;
};

template <class T, std::size_t... I>
[[nodiscard]] constexpr bool takes_members(std::index_sequence<I...>) {
  return requires { T{typename Nth<I>::template Member<T>{}...}; };
}

/// How many members an aggregate has: as many as it can be initialised from; 0 if more than 16 or none.
template <class T, std::size_t N = 16>
[[nodiscard]] constexpr std::size_t count_members() {
  if constexpr (N == 0 || takes_members<T>(std::make_index_sequence<17>{})) {
    return 0;
  } else if constexpr (takes_members<T>(std::make_index_sequence<N>{})) {
    return N;
  } else {
    return count_members<T, N - 1>();
  }
}

/// The one type of plain tensor in `T`.
template <class T>
struct TensorIn;

template <class List>
struct TensorInList;
template <class... Members>
struct TensorInList<MemberTypes<Members...>> {
  using type = typename OneTensorOf<typename TensorIn<Members>::type...>::type;
};

template <class T>
[[nodiscard]] auto tensor_in() {
  if constexpr (requires { typename T::parameter_type; }) {
    return std::type_identity<typename T::parameter_type>{};
  } else if constexpr (AnyPlainTensor<T>) {
    return std::type_identity<T>{};
  } else if constexpr (StateLeaf<T>) {
    return std::type_identity<NoTensor>{};
  } else if constexpr (IsVector<T>::value || IsArray<T>::value || IsOptional<T>::value) {
    return std::type_identity<typename TensorIn<typename T::value_type>::type>{};
  } else if constexpr (SortedMap<T>) {
    return std::type_identity<typename TensorIn<typename T::mapped_type>::type>{};
  } else if constexpr (IsOwner<T>::value) {
    return std::type_identity<typename TensorIn<typename T::element_type>::type>{};
  } else if constexpr (TupleLike<T>) {
    return []<std::size_t... I>(std::index_sequence<I...>) {
      return std::type_identity<typename OneTensorOf<
          typename TensorIn<std::remove_cvref_t<std::tuple_element_t<I, T>>>::type...>::type>{};
    }(std::make_index_sequence<std::tuple_size_v<T>>{});
  } else if constexpr (Reflected<T>) {
    using Types =
        decltype(with_members<std::size(T::member_names)>(std::declval<T&>(), CollectTypes{}));
    return std::type_identity<typename TensorInList<Types>::type>{};
  } else if constexpr (Visitable<T> && std::is_aggregate_v<T>) {
    constexpr std::size_t count = count_members<T>();
    if constexpr (count == 0) {
      return std::type_identity<ManyTensors>{};
    } else {
      using Types = decltype(with_members<count>(std::declval<T&>(), CollectTypes{}));
      return std::type_identity<typename TensorInList<Types>::type>{};
    }
  } else if constexpr (Visitable<T>) {
    return std::type_identity<ManyTensors>{};
  } else {
    return std::type_identity<NoTensor>{};  // not a part of the model's state
  }
}

template <class T>
struct TensorIn {
  using type = typename decltype(tensor_in<T>())::type;
};

/// The tensor type of a model's parameters: `Model::parameter_type`, or the first argument of a
/// model that is a template of its parameters, or the one type that its tensors have, if the struct is an
/// aggregate (nested ones too) of at most 16 members. No `type` if none of these tells it.
template <class Model>
struct ModelParameter {};
template <class Model>
  requires AnyPlainTensor<typename TensorIn<Model>::type>
struct ModelParameter<Model> {
  using type = typename TensorIn<Model>::type;
};
template <template <class...> class Model, class T, class Space, class... More>
  requires(!requires { typename Model<Tensor<T, Space>, More...>::parameter_type; })
struct ModelParameter<Model<Tensor<T, Space>, More...>> {
  using type = Tensor<T, Space>;
};

/// The same, and a sentence if it is not known.
template <class Model>
struct KnownModelParameter {
  static_assert(
      requires { typename ModelParameter<Model>::type; },
      "shardmesh::fully_shard: the type of this model's parameters is not known; add "
      "`using parameter_type = shardmesh::Tensor<float>;` (element type and memory space "
      "as they are) to the struct");
  using type = typename ModelParameter<Model>::type;
};

/// What an optimizer of a model has as its parameters: those of a sharded model (`Model::Parameter`), else
/// `ModelParameter`.
template <class Model>
struct OptimizedParameter : ModelParameter<Model> {};
template <class Model>
  requires AnyTensorType<typename Model::Parameter>
struct OptimizedParameter<Model> {
  using type = typename Model::Parameter;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
