// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

#include <shardmesh/layout/legality.hpp>
#include <shardmesh/layout/placement.hpp>

namespace shardmesh {
inline namespace v0 {

namespace detail {

template <class P>
struct IsStaticPlacement : std::false_type {};
template <>
struct IsStaticPlacement<Replicate> : std::true_type {};
template <int Dim>
struct IsStaticPlacement<Shard<Dim>> : std::bool_constant<Dim != dynamic> {};
template <int Dim, int SplitFactor>
struct IsStaticPlacement<StridedShard<Dim, SplitFactor>> : std::true_type {};
template <ReduceOp Op>
struct IsStaticPlacement<Partial<Op>> : std::true_type {};

}  // namespace detail

/// A placement type all of whose numbers are known at compile time.
template <class P>
concept StaticPlacement = detail::IsStaticPlacement<P>::value;

/// Placements in the type system: one placement type per mesh dimension, outermost first. An empty
/// class; `placements<Replicate, Shard<0>>` is its value.
template <class... P>
struct Placements {
  static_assert((StaticPlacement<P> && ...),
                "shardmesh::Placements: each argument must be a placement type whose numbers are "
                "static (Replicate, Shard<Dim>, StridedShard<Dim, SplitFactor>, Partial<Op>); use "
                "a PlacementList for placements known at run time");
  static_assert(detail::partials_mix(PlacementList{Placement(P{})...}),
                "shardmesh::Placements: partial placements of one tensor must use one operation "
                "(sum and avg may be mixed)");

  /// Number of mesh dimensions.
  static constexpr std::size_t rank = sizeof...(P);

  /// The same placements as a value.
  [[nodiscard]] static constexpr PlacementList list() { return PlacementList{Placement(P{})...}; }
  [[nodiscard]] constexpr operator PlacementList() const { return list(); }
  [[nodiscard]] friend constexpr bool operator==(Placements, Placements) = default;
};

/// The value of a `Placements` type: `redistribute(x, placements<Replicate, Shard<0>>)`.
template <class... P>
inline constexpr Placements<P...> placements{};

namespace detail {

template <class P>
struct IsPlacements : std::false_type {};
template <class... P>
struct IsPlacements<Placements<P...>> : std::true_type {};

}  // namespace detail

/// Placements known at compile time.
template <class P>
concept StaticPlacements = detail::IsPlacements<std::remove_cvref_t<P>>::value;

/// Placements of either kind; everything that takes placements takes both.
template <class P>
concept PlacementTuple = StaticPlacements<P> || std::same_as<std::remove_cvref_t<P>, PlacementList>;

/// Placements of either kind as a value.
template <PlacementTuple P>
[[nodiscard]] constexpr PlacementList to_list(P const& placement_tuple) {
  return placement_tuple;
}

}  // namespace v0
}  // namespace shardmesh
