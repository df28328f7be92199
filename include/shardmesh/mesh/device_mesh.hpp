// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/mesh/mesh_description.hpp>
#include <shardmesh/plan/plan_cache.hpp>

namespace shardmesh {
inline namespace v0 {

/// An N-dimensional array of ranks, and the communicators along its dimensions.
///
/// A handle of one rank: copies share the groups, which are split off on first use and kept. Rank
/// numbers inside a mesh are row-major positions: `comm()` numbers its ranks the same way.
/// A rank that the mesh does not contain has an empty handle of it (`is_member()` is false).
template <std::size_t N, Communicator Comm>
class DeviceMesh {
  static_assert(N >= 1 && N <= max_rank,
                "shardmesh::DeviceMesh: a mesh has between 1 and 8 dimensions");

 public:
  using communicator_type = Comm;
  static constexpr std::size_t rank_of_mesh = N;

  /// From parts that are known to fit; users call `device_mesh`.
  /// @param comm  communicator over exactly the ranks of the mesh, in row-major order; empty on
  ///              ranks outside.
  /// @param world communicator that the mesh was made over.
  DeviceMesh(MeshDescription description, Comm comm, Comm world);

  [[nodiscard]] MeshDescription const& description() const noexcept { return state_->description; }
  [[nodiscard]] Shape const& shape() const noexcept { return description().shape; }
  [[nodiscard]] std::vector<std::string> const& names() const noexcept {
    return description().names;
  }
  /// The rank at each position, row-major, in the numbering of the whole job.
  [[nodiscard]] std::vector<int> const& ranks() const noexcept { return description().ranks; }
  [[nodiscard]] int size() const noexcept { return static_cast<int>(ranks().size()); }

  /// Does the mesh contain the calling rank?
  [[nodiscard]] bool is_member() const noexcept { return static_cast<bool>(state_->comm); }

  /// The calling rank's position, one number per dimension.
  /// @throws InvalidArgument on a rank outside the mesh.
  [[nodiscard]] Coordinate const& coordinate() const {
    require_member("coordinate");
    return state_->coordinate;
  }

  /// Communicator over the whole mesh.
  /// @throws InvalidArgument on a rank outside the mesh.
  [[nodiscard]] Comm const& comm() const {
    require_member("comm");
    return state_->comm;
  }

  /// The communicator that the mesh was made over, which may have more ranks; a part of a mesh has that of
  /// the whole. Meshes over one world can send tensors to each other (`transfer`).
  [[nodiscard]] Comm const& world() const noexcept { return state_->world; }

  /// Who holds a tensor of this layout, in the numbering of `world()`.
  /// @pre it is a layout on a mesh of this shape.
  [[nodiscard]] Holding holding(Layout const& layout) const {
    return v0::holding(description(), layout, world().world_ranks());
  }

  /// Communicator along dimension `dim`: the ranks that differ from the caller only there. Its rank
  /// numbers are coordinates in `dim`. The reference stays valid while a handle of the mesh lives.
  /// @collective over the mesh at the first call for a dimension.
  [[nodiscard]] Comm const& group(std::size_t dim) const {
    if (dim >= N) {
      throw InvalidArgument("shardmesh::DeviceMesh::group: dimension " + std::to_string(dim) +
                            " is out of range for " + to_string(description()));
    }
    return group_over({dim});
  }
  [[nodiscard]] Comm const& group(std::string const& name) const {
    return group(dimension(description(), name));
  }

  /// Ranks (in the numbering of the whole job) of the caller's group along `dim`, in order.
  [[nodiscard]] std::vector<int> group_ranks(std::size_t dim) const { return ranks_over({dim}); }
  [[nodiscard]] std::vector<int> group_ranks(std::string const& name) const {
    return group_ranks(dimension(description(), name));
  }

  /// The sub-mesh of the caller along some dimensions, in the order of this mesh.
  /// @throws InvalidArgument if a name is unknown or the names are not in the order of the mesh.
  /// @collective over the mesh at the first call for a set of dimensions.
  template <std::size_t M>
  [[nodiscard]] DeviceMesh<M, Comm> slice(std::array<std::string, M> const& dims) const {
    MeshDescription sub;
    std::vector<std::size_t> const kept = dimensions(dims);
    for (std::size_t dim : kept) {
      sub.shape.push_back(shape()[dim]);
      sub.names.push_back(names()[dim]);
    }
    sub.ranks = ranks_over(kept);
    return {std::move(sub), group_over(kept), world()};
  }
  template <std::size_t M>
  [[nodiscard]] DeviceMesh<M, Comm> slice(char const* const (&dims)[M]) const {
    std::array<std::string, M> strings;
    for (std::size_t i = 0; i < M; ++i) {
      strings[i] = dims[i];
    }
    return slice(strings);
  }
  [[nodiscard]] DeviceMesh<1, Comm> operator[](std::string const& name) const {
    return slice(std::array<std::string, 1>{name});
  }

  /// The caller's sub-mesh along some dimensions as one dimension, its ranks in row-major order.
  template <std::size_t M>
  [[nodiscard]] DeviceMesh<1, Comm> flatten(std::array<std::string, M> const& dims,
                                            std::string name) const {
    std::vector<std::size_t> const kept = dimensions(dims);
    MeshDescription flat;
    flat.ranks = ranks_over(kept);
    flat.shape = Shape{static_cast<index_t>(flat.ranks.size())};
    flat.names.push_back(std::move(name));
    return {std::move(flat), group_over(kept), world()};
  }
  /// The whole mesh as one dimension.
  [[nodiscard]] DeviceMesh<1, Comm> flatten(std::string name) const {
    MeshDescription flat{Shape{static_cast<index_t>(size())}, {std::move(name)}, ranks()};
    return {std::move(flat), state_->comm, world()};
  }

  /// The plans of this rank between layouts on the mesh; copies of the handle share them.
  [[nodiscard]] PlanCache& plans() const noexcept { return state_->plans; }

  /// Equal shape, names and ranks; whose groups they use does not matter.
  [[nodiscard]] friend bool operator==(DeviceMesh const& a, DeviceMesh const& b) {
    return a.description() == b.description();
  }

  /// Makes the mesh use a communicator that exists for one dimension.
  void adopt_group(std::size_t dim, Comm group) const {
    state_->groups.emplace_back(1U << dim, std::make_unique<Comm>(std::move(group)));
  }

 private:
  struct State {
    State(MeshDescription shape_and_ranks, Comm whole, Comm all)
        : description(std::move(shape_and_ranks)), comm(std::move(whole)), world(std::move(all)) {}

    MeshDescription description;
    Comm comm;
    Comm world;
    Coordinate coordinate;
    PlanCache plans;
    /// By set of dimensions; in places of their own, as references to them are handed out.
    std::vector<std::pair<unsigned, std::unique_ptr<Comm>>> groups;
  };

  void require_member(char const* what) const;

  template <std::size_t M>
  [[nodiscard]] std::vector<std::size_t> dimensions(std::array<std::string, M> const& dims) const {
    std::vector<std::size_t> found;
    for (std::string const& name : dims) {
      found.push_back(dimension(description(), name));
      if (found.size() > 1 && found.back() <= found[found.size() - 2]) {
        throw InvalidArgument("shardmesh::DeviceMesh: the dimensions of a sub-mesh must be named "
                              "in the order of " +
                              to_string(description()) + "; \"" + name + "\" comes too late");
      }
    }
    return found;
  }

  /// The ranks that differ from the caller only in the given dimensions, row-major.
  [[nodiscard]] std::vector<int> ranks_over(std::vector<std::size_t> const& dims) const;

  [[nodiscard]] Comm const& group_over(std::vector<std::size_t> const& dims) const;

  std::shared_ptr<State> state_;
};

template <std::size_t N, Communicator Comm>
DeviceMesh<N, Comm>::DeviceMesh(MeshDescription description, Comm comm, Comm world)
    : state_(std::make_shared<State>(std::move(description), std::move(comm), std::move(world))) {
  if (is_member()) {
    state_->coordinate = unravel(state_->comm.rank(), shape());
  }
}

template <std::size_t N, Communicator Comm>
auto DeviceMesh<N, Comm>::ranks_over(std::vector<std::size_t> const& dims) const
    -> std::vector<int> {
  Coordinate at = coordinate();
  Shape sub;
  for (std::size_t dim : dims) {
    sub.push_back(shape()[dim]);
  }
  std::vector<int> found;
  for (index_t linear = 0; linear < volume(sub); ++linear) {
    Coordinate const inner = unravel(linear, sub);
    for (std::size_t i = 0; i < dims.size(); ++i) {
      at[dims[i]] = inner[i];
    }
    found.push_back(ranks()[static_cast<std::size_t>(ravel(at, shape()))]);
  }
  return found;
}

template <std::size_t N, Communicator Comm>
auto DeviceMesh<N, Comm>::group_over(std::vector<std::size_t> const& dims) const -> Comm const& {
  unsigned mask = 0;
  Coordinate others = coordinate();
  index_t key = 0;
  for (std::size_t dim : dims) {
    mask |= 1U << dim;
    key = key * shape()[dim] + others[dim];
    others[dim] = 0;
  }
  if (dims.size() == N) {
    return state_->comm;
  }
  for (auto const& [dimensions, group] : state_->groups) {
    if (dimensions == mask) {
      return *group;
    }
  }
  auto const color = static_cast<int>(ravel(others, shape()));
  auto const words = [this, &dims] {
    std::string text = "the group along";
    for (std::size_t dim : dims) {
      text += detail::concat(" dimension ", std::to_string(dim));
    }
    return text + " of " + to_string(description());
  };
  Call const call("DeviceMesh::group", Fingerprint().add(mask).add(to_string(description())),
                  words);
  state_->groups.emplace_back(
      mask, std::make_unique<Comm>(state_->comm.split(color, static_cast<int>(key), call)));
  return *state_->groups.back().second;
}

template <std::size_t N, Communicator Comm>
void DeviceMesh<N, Comm>::require_member(char const* what) const {
  if (!is_member()) {
    throw InvalidArgument(std::string("shardmesh::DeviceMesh::") + what +
                          ": the calling rank is not part of " + to_string(description()) +
                          "; ask is_member() first");
  }
}

namespace detail {

template <std::size_t N>
[[nodiscard]] Shape to_shape(index_t const (&extents)[N]) {
  return Shape(extents, extents + N);
}

}  // namespace detail

/// A mesh over an explicit array of ranks (row-major numbers in `comm`), which need not be all.
/// @param shape extents, outermost first; `names`: one per dimension, or none.
/// @throws InvalidArgument if shape, names and ranks do not fit (see `check(MeshDescription)`).
/// @throws MismatchError on every rank, showing both sides, if ranks describe different meshes.
/// @collective over `comm`.
template <std::size_t N, Communicator Comm>
[[nodiscard]] DeviceMesh<N, Comm> device_mesh(Comm const& comm,
                                              index_t const (&shape)[N],
                                              std::vector<int> const& ranks,
                                              std::vector<std::string> names) {
  MeshDescription description{detail::to_shape(shape), std::move(names), ranks};
  check_agreement(comm, "device_mesh", to_string(description));
  check(description, comm.size());
  int position = -1;
  bool in_order = static_cast<int>(ranks.size()) == comm.size();
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    position = ranks[i] == comm.rank() ? static_cast<int>(i) : position;
    in_order = in_order && ranks[i] == static_cast<int>(i);
  }
  std::vector<int> const world = comm.world_ranks();
  for (int& rank : description.ranks) {
    rank = world[static_cast<std::size_t>(rank)];
  }
  return {std::move(description),
          in_order ? comm
                   : comm.split(position < 0 ? -1 : 0, position < 0 ? 0 : position, "device_mesh"),
          comm};
}

/// A mesh over all ranks of a communicator, in row-major order.
/// @collective over `comm`.
template <std::size_t N, Communicator Comm>
[[nodiscard]] DeviceMesh<N, Comm> device_mesh(Comm const& comm,
                                              index_t const (&shape)[N],
                                              std::vector<std::string> names = {}) {
  std::vector<int> ranks(static_cast<std::size_t>(comm.size()));
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    ranks[i] = static_cast<int>(i);
  }
  return device_mesh<N>(comm, shape, ranks, std::move(names));
}

/// A mesh over communicators that exist: `groups[d]` connects the ranks along dimension d, and its
/// rank numbers are the coordinates. `comm` connects all of them.
/// @throws InvalidArgument on every rank if the groups do not form an array of ranks.
/// @collective over `comm`.
template <std::size_t N, Communicator Comm>
[[nodiscard]] DeviceMesh<N, Comm> device_mesh_from_groups(Comm const& comm,
                                                          std::array<Comm, N> const& groups,
                                                          std::vector<std::string> names = {}) {
  Shape shape;
  Coordinate coordinate;
  for (Comm const& group : groups) {
    shape.push_back(group.size());
    coordinate.push_back(group.rank());
  }
  check_agreement(comm, "device_mesh_from_groups", to_string(shape));
  auto const positions = all_gather_value(comm, ravel(coordinate, shape));
  std::vector<int> ranks(positions.size(), -1);
  for (std::size_t rank = 0; rank < positions.size(); ++rank) {
    auto const position = static_cast<std::size_t>(positions[rank]);
    if (volume(shape) != comm.size() || position >= ranks.size() || ranks[position] >= 0) {
      throw InvalidArgument("shardmesh::device_mesh_from_groups: groups of sizes " +
                            to_string(shape) + " do not arrange the " +
                            std::to_string(comm.size()) +
                            " ranks of the communicator in an array; each combination of group "
                            "ranks must stand once");
    }
    ranks[position] = static_cast<int>(rank);
  }
  index_t extents[N] = {};
  for (std::size_t d = 0; d < N; ++d) {
    extents[d] = shape[d];
  }
  auto mesh = device_mesh<N>(comm, extents, ranks, std::move(names));
  std::string problem;
  for (std::size_t d = 0; d < N; ++d) {
    if (problem.empty() && groups[d].world_ranks() != mesh.group_ranks(d)) {
      problem = "shardmesh::device_mesh_from_groups: the group of dimension " + std::to_string(d) +
                " does not hold the ranks that differ only there; order its ranks as those of the "
                "other groups";
    }
    mesh.adopt_group(d, groups[d]);
  }
  throw_together<InvalidArgument>(comm, problem);
  return mesh;
}

}  // namespace v0
}  // namespace shardmesh
