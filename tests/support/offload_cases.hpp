// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// B10 as a property: random meshes, placements, orders of cuts, dtypes and shapes, in every
// representation. One body for every engine and memory space.

#include <algorithm>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/mesh/device_mesh.hpp>
#include <shardmesh/state/full_state_dict.hpp>
#include <shardmesh/state/load_state_dict.hpp>
#include <shardmesh/tensor/local_part.hpp>

#include "layouts.hpp"

namespace test {

namespace sm = shardmesh;

/// A state of random tensors with everything that is known of it.
template <class Space, class Comm>
class OffloadCase {
 public:
  OffloadCase(Comm const& world, unsigned seed)
      : world_(world),
        line_(sm::device_mesh(world, {world.size()}, {"all"})),
        grid_(sm::device_mesh(world, {rows(world), columns(world)}, {"row", "column"})),
        cube_(sm::device_mesh(world, {1, rows(world), columns(world)})),
        most_(most_of(world)),
        shard_(world.split(world.rank() / columns(world), world.rank())),
        replicate_(world.split(world.rank() % columns(world), world.rank())),
        random_(seed) {}

  /// Draws a state of `tensors` tensors and compares what B10 says of it.
  /// @returns what is wrong; empty if nothing.
  std::string run(int tensors) {
    state_ = {};
    wholes_ = {};
    known_.clear();
    for (sm::StateDict& blank : blanks_) {
      blank = {};
    }
    for (int i = 0; i < tensors; ++i) {
      draw("t" + std::to_string(i));
    }
    sm::Value const step(static_cast<int>(random_() % 100));
    state_.insert("step", step);
    wholes_.insert("step", step);
    for (sm::StateDict& blank : blanks_) {
      blank.insert("step", sm::Value(-1));
    }

    sm::StateDict const offloaded = sm::offloaded(state_);
    std::string problem = check_offloaded(offloaded);
    auto const expect = [&problem](std::string const& difference, char const* what) {
      problem = problem.empty() && !difference.empty() ? what + (": " + difference) : problem;
    };
    sm::load_state_dict(world_, blanks_[0], state_);
    expect(sm::difference(blanks_[0], state_), "loaded from the state");
    sm::load_state_dict(world_, blanks_[1], offloaded);
    expect(sm::difference(blanks_[1], state_), "loaded from the offloaded state");

    sm::StateDict const full = sm::full_state_dict(world_, without_partial(state_), ceiling());
    sm::StateDict const same = sm::full_state_dict(world_, without_partial(offloaded), ceiling());
    expect(sm::difference(full, same), "full states with and without offload");
    expect(sm::difference(full, world_.rank() == 0 ? wholes_ : sm::StateDict{}), "full state");
    sm::StateOptions options{.full_state_dict = true, .broadcast_from_rank0 = true};
    options.gather = ceiling();
    sm::StateDict into = without_partial(blanks_[2]);
    sm::load_state_dict(world_, into, full, options);
    expect(sm::difference(into, without_partial(state_)), "loaded from the full state");
    return problem;
  }

 private:
  struct Known {
    sm::TensorKind kind;
    sm::DType dtype;
    Layout layout;
    sm::MeshDescription mesh;
    std::vector<std::byte> local;
  };

  [[nodiscard]] static int rows(Comm const& world) { return world.size() % 2 == 0 ? 2 : 1; }
  [[nodiscard]] static int columns(Comm const& world) { return world.size() / rows(world); }

  /// A mesh without the last rank, where there are several.
  [[nodiscard]] static auto most_of(Comm const& world) {
    std::vector<int> ranks;
    for (int rank = 0; rank < std::max(1, world.size() - 1); ++rank) {
      ranks.push_back(rank);
    }
    index_t const extents[1] = {static_cast<index_t>(ranks.size())};
    return sm::device_mesh<1>(world, extents, ranks, {"most"});
  }

  [[nodiscard]] int below(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }

  [[nodiscard]] sm::GatherOptions ceiling() { return {{}, std::size_t{32} << below(6)}; }

  /// The bytes of elements, given by their numbers in the whole tensor.
  [[nodiscard]] std::vector<std::byte> bytes_of(sm::DType dtype,
                                                std::vector<index_t> const& elements,
                                                unsigned tag) const {
    std::size_t const size = sm::size_of(dtype);
    std::vector<std::byte> bytes;
    for (index_t const element : elements) {
      for (std::size_t i = 0; i < size; ++i) {
        auto const word =
            (static_cast<unsigned>(element) * 16U + static_cast<unsigned>(i) + tag) * 2654435761U;
        bytes.push_back(std::byte((word >> 24) & (dtype == sm::DType::boolean ? 1U : 255U)));
      }
    }
    return bytes;
  }

  void draw(std::string const& name) {
    switch (below(6)) {
      case 0:
        return draw_dtype<sm::Float8E4M3fn>(name);
      case 1:
        return draw_dtype<sm::BFloat16>(name);
      case 2:
        return draw_dtype<std::int64_t>(name);
      case 3:
        return draw_dtype<std::complex<double>>(name);
      case 4:
        return draw_dtype<bool>(name);
      default:
        return draw_dtype<float>(name);
    }
  }

  template <class T>
  void draw_dtype(std::string const& name) {
    Shape shape(static_cast<std::size_t>(below(5)), 0);
    for (index_t& extent : shape) {
      extent = below(8);
    }
    auto const tag = static_cast<unsigned>(random_());
    switch (below(8)) {
      case 0:
        return add_plain<T>(name, shape, tag);
      case 1:
        return add_sharded<T>(name, shape, tag);
      case 2:
        return add_distributed<T>(name, shape, tag, most_);
      case 3:
        return add_distributed<T>(name, shape, tag, cube_);
      case 4:
      case 5:
        return add_distributed<T>(name, shape, tag, line_);
      default:
        return add_distributed<T>(name, shape, tag, grid_);
    }
  }

  template <class T>
  [[nodiscard]] static sm::Tensor<T> tensor_of(Shape const& shape,
                                               std::vector<std::byte> const& bytes) {
    sm::Tensor<T> tensor(shape);
    if (!bytes.empty()) {
      std::memcpy(tensor.data(), bytes.data(), bytes.size());
    }
    return tensor;
  }

  /// Adds a tensor, blank ones of the same kind, and its whole.
  template <class X>
  void add(std::string const& name, X const& tensor, Known known, unsigned tag) {
    using T = typename X::value_type;
    state_.insert(name, sm::AnyTensor(tensor));
    for (sm::StateDict& blank : blanks_) {
      blank.insert(name, sm::AnyTensor(sm::zeros_like(tensor)));
    }
    if (!known.layout.has_partial()) {
      Shape const& shape = tensor.shape();
      auto const whole = elements_by_naive_cuts(shape, {1}, {sm::Replicate{}}, {0});
      wholes_.insert(name, sm::AnyTensor(tensor_of<T>(shape, bytes_of(known.dtype, whole, tag))));
    }
    known_.push_back(std::move(known));
  }

  template <class T>
  void add_plain(std::string const& name, Shape const& shape, unsigned tag) {
    Layout const layout(shape, {1}, {sm::Replicate{}});
    auto const bytes = bytes_of(sm::dtype_of<T>,
                                elements_by_naive_cuts(shape, {1}, layout.placements(), {0}), tag);
    add(name, tensor_of<T>(shape, bytes).template clone<Space>(),
        {sm::TensorKind::plain, sm::dtype_of<T>, layout, {}, bytes}, tag);
  }

  template <class T>
  void add_sharded(std::string const& name, Shape shape, unsigned tag) {
    if (shape.empty()) {
      shape.push_back(below(8));
    }
    Layout const layout(shape, {shard_.size()}, {sm::Shard{0}});
    sm::Coordinate const at{shard_.rank()};
    auto const bytes =
        bytes_of(sm::dtype_of<T>,
                 elements_by_naive_cuts(shape, layout.mesh(), layout.placements(), at), tag);
    sm::ShardedTensor<T, Comm, Space> const tensor(
        shard_, replicate_, shape,
        tensor_of<T>(layout.local_shape(at), bytes).template clone<Space>());
    add(name, tensor, {sm::TensorKind::sharded, sm::dtype_of<T>, layout, {}, bytes}, tag);
  }

  [[nodiscard]] PlacementList draw_placements(std::size_t tensor_rank, std::size_t mesh_rank) {
    PlacementList list;
    for (std::size_t m = 0; m < mesh_rank; ++m) {
      int const kind = below(tensor_rank == 0 ? 3 : 8);
      int const dim = tensor_rank == 0 ? 0 : below(static_cast<int>(tensor_rank));
      list.push_back(kind < 2    ? Placement(sm::Replicate{})
                     : kind == 2 ? Placement(sm::Partial<>{})
                     : kind == 3 ? Placement::strided(dim, 2 + below(2))
                                 : Placement(sm::Shard{dim}));
    }
    return list;
  }

  template <class T, class Mesh>
  void add_distributed(std::string const& name,
                       Shape const& shape,
                       unsigned tag,
                       Mesh const& mesh) {
    PlacementList const list = draw_placements(shape.size(), mesh.shape().size());
    Layout layout(shape, mesh.shape(), list);
    bool const other_order = below(4) == 0;
    if (other_order) {  // as FSDP2 over tensor parallelism: from right to left
      auto order = layout.order();
      std::reverse(order.begin(), order.end());
      for (sm::Cut& cut : order) {
        cut.split_factor = 1;
      }
      layout = Layout::with_order(shape, mesh.shape(), order, list);
    }
    std::vector<std::byte> bytes;
    sm::Tensor<T> local;
    if (mesh.is_member()) {
      unsigned const term = layout.has_partial() ? static_cast<unsigned>(world_.rank()) : 0;
      auto const elements =
          other_order ? elements_by_pieces(layout, mesh.coordinate())
                      : elements_by_naive_cuts(shape, mesh.shape(), list, mesh.coordinate());
      bytes = bytes_of(sm::dtype_of<T>, elements, tag + term);
      local = tensor_of<T>(layout.local_shape(mesh.coordinate()), bytes);
    }
    sm::DistTensor<T, Mesh, PlacementList, Space> const tensor(mesh, layout,
                                                               local.template clone<Space>());
    add(name, tensor,
        {sm::TensorKind::distributed, sm::dtype_of<T>, layout, mesh.description(), bytes}, tag);
  }

  /// The offloaded state has everything of the state but its place: names, shapes, dtypes,
  /// placements, orders of cuts, meshes, local elements.
  [[nodiscard]] std::string check_offloaded(sm::StateDict const& offloaded) const {
    if (offloaded.size() != state_.size()) {
      return "offload changes the number of keys";
    }
    auto original = state_.begin();
    auto known = known_.begin();
    for (sm::StateEntry const& entry : offloaded) {
      if (entry.key != original->key || entry.path != original->path) {
        return "offload renames \"" + original->key + "\"";
      }
      if (entry.is_tensor()) {
        sm::AnyTensor const& tensor = entry.tensor();
        bool const good = tensor.kind() == known->kind && tensor.dtype() == known->dtype &&
                          tensor.layout() == known->layout && tensor.mesh() == known->mesh &&
                          tensor.local_shape() == original->tensor().local_shape() &&
                          tensor.memory() == sm::MemoryKind::host &&
                          tensor.local_bytes() == known->local &&
                          original->tensor().memory() == Space::kind &&
                          original->tensor().local_bytes() == known->local &&
                          (known->local.empty() || tensor.data() != original->tensor().data());
        if (!good) {
          return "offload changes \"" + entry.key + "\", " + to_string(known->layout);
        }
        ++known;
      } else if (!(entry.plain() == original->plain())) {
        return "offload changes the plain value \"" + entry.key + "\"";
      }
      ++original;
    }
    return {};
  }

  [[nodiscard]] static sm::StateDict without_partial(sm::StateDict const& dict) {
    sm::StateDict result;
    for (sm::StateEntry const& entry : dict) {
      if (!entry.is_tensor() || !entry.tensor().layout().has_partial()) {
        result.insert(entry.path, entry.value);
      }
    }
    return result;
  }

  Comm world_;
  sm::DeviceMesh<1, Comm> line_;
  sm::DeviceMesh<2, Comm> grid_;
  sm::DeviceMesh<3, Comm> cube_;
  sm::DeviceMesh<1, Comm> most_;
  Comm shard_;
  Comm replicate_;
  std::mt19937 random_;  // the same on every rank
  sm::StateDict state_;
  sm::StateDict wholes_;
  sm::StateDict blanks_[3];
  std::vector<Known> known_;
};

/// B10: for `cases` random tensors, in states of ten: the state taken with offload equals the state
/// taken without it and then copied to the host; loading either gives the same model; and so do full
/// states.
/// @collective over `world`.
template <class Space, class Comm>
std::string b10_offload_equivalence(Comm const& world, unsigned seed, int cases) {
  OffloadCase<Space, Comm> one(world, seed);
  for (int done = 0; done < cases; done += 10) {
    std::string const problem = one.run(10);
    if (!problem.empty()) {
      return "state " + std::to_string(done / 10) + " of seed " + std::to_string(seed) + ": " +
             problem;
    }
  }
  return {};
}

}  // namespace test
