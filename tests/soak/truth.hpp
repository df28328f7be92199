// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What everything in a soak is compared with, made without the library: each byte of each element is a function of the tensor's
// name, a version and the element's number; who holds which element is told by cutting lists of indices.

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/state/state_dict.hpp>

#include "../support/checkpoints.hpp"

namespace soak {

namespace sm = shardmesh;

/// All that a round does follows from this.
using Random = std::mt19937_64;

/// One of `count` numbers.
inline std::size_t below(Random& random, std::size_t count) {
  return static_cast<std::size_t>(random() % count);
}
template <class T>
T const& one_of(Random& random, std::vector<T> const& all) {
  return all[below(random, all.size())];
}

struct TensorSpec {
  std::string key;
  sm::DType dtype;
  sm::Shape shape;
};

/// A state, whoever holds it.
struct StateSpec {
  std::vector<TensorSpec> tensors;
  std::uint64_t version = 0;
  bool has_values = true;
};

/// Ranks, and how they are arranged.
struct WorldSpec {
  int ranks = 1;
  sm::Shape mesh;
  std::uint64_t placements = 0;  ///< from which the placements are drawn
};

inline std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

inline StateSpec random_state(Random& random, std::uint64_t version, bool has_values) {
  static std::vector<sm::DType> const types{
      sm::DType::float32, sm::DType::float64, sm::DType::float16, sm::DType::bfloat16,
      sm::DType::int64,   sm::DType::int32,   sm::DType::uint8,   sm::DType::boolean};
  StateSpec spec{{}, version, has_values};
  std::size_t const count = 1 + below(random, 6);
  for (std::size_t i = 0; i < count; ++i) {
    sm::Shape shape;
    std::size_t const rank = below(random, 4);
    std::size_t const large = below(random, 4 * (rank + 1));  // one dimension of some tensors
    for (std::size_t d = 0; d < rank; ++d) {
      shape.push_back(
          static_cast<sm::index_t>(d == large ? 200 + below(random, 300) : below(random, 10)));
    }
    spec.tensors.push_back({"layer" + std::to_string(i) + ".w" + std::to_string(below(random, 3)),
                            one_of(random, types), shape});
  }
  return spec;
}

inline WorldSpec random_world(Random& random, int most_ranks = 6) {
  WorldSpec world;
  world.ranks = 1 + static_cast<int>(below(random, static_cast<std::size_t>(most_ranks)));
  auto left = static_cast<sm::index_t>(world.ranks);
  std::size_t const dims = 1 + below(random, 3);
  for (std::size_t d = 0; d + 1 < dims; ++d) {
    std::vector<sm::index_t> divisors;
    for (sm::index_t n = 1; n <= left; ++n) {
      if (left % n == 0) {
        divisors.push_back(n);
      }
    }
    world.mesh.push_back(one_of(random, divisors));
    left /= world.mesh.back();
  }
  world.mesh.push_back(left);
  world.placements = random();
  return world;
}

/// Placements of a tensor: of each mesh dimension a replica, a shard or a strided one.
inline sm::PlacementList placements_for(WorldSpec const& world, TensorSpec const& tensor) {
  sm::PlacementList list;
  std::uint64_t state = world.placements ^ std::hash<std::string>{}(tensor.key);
  for (std::size_t m = 0; m < world.mesh.size(); ++m) {
    state = mixed(state);
    auto const dim = static_cast<int>(state % (tensor.shape.size() + 1)) - 1;
    if (dim < 0) {
      list.push_back(sm::Replicate{});
    } else if (m + 1 < world.mesh.size() && (state >> 32) % 4 == 0) {
      list.push_back(sm::Placement::strided(dim, 2));
    } else {
      list.push_back(sm::Shard{dim});
    }
  }
  return list;
}

/// The bytes of the elements of these numbers.
inline std::vector<std::byte> bytes_of(TensorSpec const& tensor,
                                       std::uint64_t version,
                                       std::vector<sm::index_t> const& elements) {
  std::size_t const size = sm::size_of(tensor.dtype);
  std::vector<std::byte> bytes;
  bytes.reserve(elements.size() * size);
  std::uint64_t const name = std::hash<std::string>{}(tensor.key) ^ mixed(version);
  for (sm::index_t const element : elements) {
    std::uint64_t const value = mixed(name + static_cast<std::uint64_t>(element));
    for (std::size_t b = 0; b < size; ++b) {
      auto const byte = static_cast<unsigned char>(value >> (8 * b));
      bytes.push_back(static_cast<std::byte>(tensor.dtype == sm::DType::boolean ? byte & 1 : byte));
    }
  }
  return bytes;
}

template <class Mesh>
std::vector<std::byte> local_bytes_of(TensorSpec const& tensor,
                                      std::uint64_t version,
                                      Mesh const& mesh,
                                      sm::PlacementList const& list) {
  return bytes_of(
      tensor, version,
      test::elements_by_naive_cuts(tensor.shape, mesh.shape(), list, mesh.coordinate()));
}

inline sm::Value value_of(std::uint64_t version) {
  sm::Value::Dict inner;
  inner.emplace_back("lr", sm::Value(1.0 / static_cast<double>(version + 3)));
  inner.emplace_back("names",
                     sm::Value(sm::Value::List{sm::Value("a"), sm::Value(version % 2 == 0)}));
  return sm::Value(std::move(inner));
}

/// Of a rank of that world; with a version, filled with what it stands for.
template <class Mesh>
sm::StateDict state_on(StateSpec const& spec,
                       WorldSpec const& world,
                       Mesh const& mesh,
                       bool filled) {
  sm::StateDict dict;
  for (TensorSpec const& tensor : spec.tensors) {
    sm::PlacementList const list = placements_for(world, tensor);
    sm::AnyTensor const any = test::unset_tensor(tensor.dtype, tensor.shape, mesh, list);
    if (filled) {
      any.assign(local_bytes_of(tensor, spec.version, mesh, list));
    }
    dict.insert(tensor.key, any);
  }
  if (spec.has_values) {
    dict.insert("step", filled ? sm::Value(static_cast<std::int64_t>(spec.version)) : sm::Value());
    dict.insert("options", filled ? value_of(spec.version) : sm::Value());
  }
  return dict;
}

/// What is wrong with a rank's state; empty if it is, byte for byte, what `version` stands for. Version 0 stands for what
/// `state_on` leaves unset.
template <class Mesh>
std::string fault_of_state(sm::StateDict const& dict,
                           StateSpec const& spec,
                           WorldSpec const& world,
                           Mesh const& mesh) {
  for (TensorSpec const& tensor : spec.tensors) {
    std::vector<std::byte> wanted =
        local_bytes_of(tensor, spec.version, mesh, placements_for(world, tensor));
    if (spec.version == 0) {
      wanted.assign(wanted.size(), std::byte{0xa5});
    }
    if (dict.at(tensor.key).tensor().local_bytes() != wanted) {
      return tensor.key + " " + std::string(sm::to_string(tensor.dtype)) + " " +
             sm::to_string(tensor.shape) + " on mesh " + sm::to_string(world.mesh) +
             " holds other bytes";
    }
  }
  if (spec.has_values && spec.version != 0 &&
      (!(dict.at("step").plain() == sm::Value(static_cast<std::int64_t>(spec.version))) ||
       !(dict.at("options").plain() == value_of(spec.version)))) {
    return "the plain values are others";
  }
  return {};
}

/// Calls f(mesh) on a rank.
template <class Comm, class F>
void on_mesh(Comm const& comm, WorldSpec const& world, F const& f) {
  sm::Shape const& m = world.mesh;
  if (m.size() == 1) {
    f(sm::device_mesh(comm, {m[0]}));
  } else if (m.size() == 2) {
    f(sm::device_mesh(comm, {m[0], m[1]}));
  } else {
    f(sm::device_mesh(comm, {m[0], m[1], m[2]}));
  }
}

}  // namespace soak
