// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/plan/holding.hpp>

namespace shardmesh {
inline namespace v0 {

/// What a mesh is, without anyone to talk to: its shape, the names of its dimensions (empty, or one
/// each), and the rank at each position in row-major order, in the numbering of the whole job.
struct MeshDescription {
  Shape shape;
  std::vector<std::string> names;
  std::vector<int> ranks;

  [[nodiscard]] friend bool operator==(MeshDescription const&, MeshDescription const&) = default;
};

/// The number of a dimension.
/// @throws InvalidArgument if the mesh has no dimension of that name.
[[nodiscard]] inline std::size_t dimension(MeshDescription const& mesh, std::string const& name) {
  std::string known;
  for (std::size_t m = 0; m < mesh.names.size(); ++m) {
    if (mesh.names[m] == name) {
      return m;
    }
    known += (m == 0 ? "\"" : ", \"") + mesh.names[m] + "\"";
  }
  throw InvalidArgument("shardmesh::DeviceMesh: no dimension is named \"" + name + "\"; " +
                        (known.empty() ? "the mesh has no names, give them when it is made"
                                       : "the names are " + known));
}

/// `mesh (2, 2) ["replicate", "shard"] of ranks 0 1 2 3`.
[[nodiscard]] inline std::string to_string(MeshDescription const& mesh) {
  std::string text = detail::concat("mesh ", to_string(mesh.shape));
  for (std::size_t m = 0; m < mesh.names.size(); ++m) {
    text += detail::concat(m == 0 ? " [\"" : ", \"", mesh.names[m], '"');
  }
  text += mesh.names.empty() ? " of ranks" : "] of ranks";
  for (int rank : mesh.ranks) {
    text += detail::concat(' ', std::to_string(rank));
  }
  return text;
}

/// Who holds a tensor of a layout on a mesh, in the numbering of a communicator.
/// @param world  the ranks of the communicator in the numbering of the whole job.
/// @throws InvalidArgument if a rank of the mesh is not among them.
[[nodiscard]] inline Holding holding(MeshDescription const& mesh,
                                     Layout const& layout,
                                     std::vector<int> const& world) {
  std::vector<int> found;
  found.reserve(mesh.ranks.size());
  for (int const rank : mesh.ranks) {
    auto at = static_cast<std::size_t>(rank);
    if (at >= world.size() || world[at] != rank) {
      at = static_cast<std::size_t>(std::find(world.begin(), world.end(), rank) - world.begin());
    }
    if (at == world.size()) {
      throw InvalidArgument(detail::concat("shardmesh: rank ", std::to_string(rank), " of ",
                                           to_string(mesh),
                                           " does not belong to the communicator that is to move "
                                           "its tensors; take one that has all ranks of the mesh"));
    }
    found.push_back(static_cast<int>(at));
  }
  return {layout, std::move(found)};
}

/// Checks a description before anything is communicated.
/// @throws InvalidArgument if extents are below 1, the number of names or of ranks does not fit the
///         shape, a name stands twice, or a rank stands twice or is not in [0, world).
inline void check(MeshDescription const& mesh, int world) {
  for (index_t extent : mesh.shape) {
    if (extent < 1) {
      throw InvalidArgument("shardmesh::device_mesh: shape " + to_string(mesh.shape) +
                            " has a dimension without ranks; every extent must be at least 1");
    }
  }
  if (volume(mesh.shape) != static_cast<index_t>(mesh.ranks.size())) {
    throw InvalidArgument("shardmesh::device_mesh: shape " + to_string(mesh.shape) + " needs " +
                          std::to_string(volume(mesh.shape)) + " ranks, got " +
                          std::to_string(mesh.ranks.size()) +
                          "; change the shape, or start another number of ranks");
  }
  if (!mesh.names.empty() && mesh.names.size() != mesh.shape.size()) {
    throw InvalidArgument("shardmesh::device_mesh: " + std::to_string(mesh.names.size()) +
                          " names for " + std::to_string(mesh.shape.size()) +
                          " mesh dimensions; give one name per dimension, or none");
  }
  for (std::size_t a = 0; a < mesh.names.size(); ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      if (mesh.names[a] == mesh.names[b]) {
        throw InvalidArgument("shardmesh::device_mesh: two dimensions are named \"" +
                              mesh.names[a] + "\"; names must differ");
      }
    }
  }
  std::vector<int> times_seen(static_cast<std::size_t>(world), 0);
  for (int rank : mesh.ranks) {
    if (rank < 0 || rank >= world) {
      throw InvalidArgument("shardmesh::device_mesh: rank " + std::to_string(rank) +
                            " is not one of the " + std::to_string(world) +
                            " ranks of the communicator; give numbers from 0 to " +
                            std::to_string(world - 1));
    }
    if (++times_seen[static_cast<std::size_t>(rank)] > 1) {
      throw InvalidArgument("shardmesh::device_mesh: rank " + std::to_string(rank) +
                            " stands twice in " + to_string(mesh) +
                            "; give each rank one position at most");
    }
  }
}

}  // namespace v0
}  // namespace shardmesh
