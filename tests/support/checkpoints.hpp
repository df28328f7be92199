// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Checkpoints in tests: state dicts made to fit one, comparison with whole tensors, scratch
// directories, damaged copies.

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/state/state_dict.hpp>

#include "layouts.hpp"
#include "scratch.hpp"

namespace test {

namespace fs = std::filesystem;

inline std::string const data_directory = SHARDMESH_TEST_DATA;

/// The checkpoints that PyTorch wrote, by name.
inline std::vector<std::string> fixtures() {
  std::vector<std::string> names;
  for (auto const& entry : fs::directory_iterator(data_directory + "/checkpoints")) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string fixture(std::string const& name) {
  return data_directory + "/checkpoints/" + name + "/checkpoint";
}

/// The tensors of a fixture in full, as PyTorch read them back.
inline std::vector<shardmesh::SafetensorsCatalog> references(std::string const& name) {
  std::string const place = data_directory + "/checkpoints/" + name;
  std::vector<shardmesh::SafetensorsCatalog> whole;
  whole.emplace_back(place + "/reference.safetensors");
  if (fs::exists(place + "/complex.safetensors")) {
    whole.emplace_back(place + "/complex.safetensors");
  }
  return whole;
}

inline std::string slurp(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void spit(std::string const& path, std::string const& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// The placements as far as a tensor of `shape` can have them: shards of dimensions that it has not
/// become replicas.
inline PlacementList fitting(PlacementList list, Shape const& shape) {
  for (Placement& one : list) {
    if (one.is_shard() && one.dim >= static_cast<int>(shape.size())) {
      one = shardmesh::Replicate{};
    }
  }
  return list;
}

/// A tensor whose bytes are all 0xa5, sharded by `list`.
template <class Space = shardmesh::HostMemory, class Mesh>
shardmesh::AnyTensor unset_tensor(shardmesh::DType dtype,
                                  Shape const& shape,
                                  Mesh const& mesh,
                                  PlacementList const& list) {
  return shardmesh::visit_dtype(dtype, [&]<class T>(std::type_identity<T>) {
    using Dist = shardmesh::DistTensor<T, Mesh, PlacementList, Space>;
    Layout const layout(shape, mesh.shape(), fitting(list, shape));
    shardmesh::AnyTensor const any(
        Dist(mesh, layout, shardmesh::Tensor<T, Space>(Dist::expected_local_shape(mesh, layout))));
    any.assign(std::vector<std::byte>(any.bytes(), std::byte{0xa5}));
    return any;
  });
}

/// A state dict with every tensor of a catalog, unset, and every plain value as None.
template <class Space = shardmesh::HostMemory, class Catalog, class Mesh>
shardmesh::StateDict unset_state(Catalog const& catalog,
                                 Mesh const& mesh,
                                 PlacementList const& list) {
  shardmesh::StateDict dict;
  for (std::string const& key : catalog.keys()) {
    if (auto const* tensor = catalog.tensor(key)) {
      dict.insert(key, unset_tensor<Space>(tensor->dtype, tensor->shape, mesh, list));
    } else {
      dict.insert(key, shardmesh::Value());
    }
  }
  return dict;
}

/// In what the local parts differ from whole tensors, in words.
/// @param whole  of the calling thread alone: reading opens files.
inline std::string difference_from(std::vector<shardmesh::SafetensorsCatalog>& whole,
                                   shardmesh::StateDict const& dict,
                                   std::vector<index_t> const& coordinate) {
  std::size_t compared = 0;
  for (shardmesh::StateEntry const& entry : dict) {
    if (!entry.is_tensor()) {
      continue;
    }
    auto const file = std::find_if(whole.begin(), whole.end(),
                                   [&](auto const& one) { return one.contains(entry.key); });
    if (file == whole.end()) {
      return entry.key + " is not in the reference";
    }
    auto const* const stored = file->tensor(entry.key);
    ++compared;
    auto const& tensor = entry.tensor();
    if (!(stored->shape == tensor.shape()) || stored->dtype != tensor.dtype()) {
      return entry.key + ": shape or dtype differs from the reference";
    }
    auto const box =
        stored->boxes[0].empty() ? shardmesh::StoredBox{} : file->read_box(entry.key, 0);
    auto const local = tensor.local_bytes();
    std::size_t const size = shardmesh::size_of(tensor.dtype());
    std::size_t at = 0;
    Coordinate here;
    for (index_t const c : coordinate) {
      here.push_back(c);
    }
    for (index_t const element : elements_by_naive_cuts(tensor.shape(), tensor.layout().mesh(),
                                                        tensor.layout().placements(), here)) {
      if (at + size > local.size() ||
          std::memcmp(local.data() + at,
                      box.bytes.data() + static_cast<std::size_t>(element) * size, size) != 0) {
        return entry.key + " differs from the reference at local element " +
               std::to_string(at / size);
      }
      at += size;
    }
    if (at != local.size()) {
      return entry.key + ": " + std::to_string(local.size()) + " local bytes instead of " +
             std::to_string(at);
    }
  }
  std::size_t wanted = 0;
  for (auto const& one : whole) {
    wanted += one.keys().size();
  }
  return compared == wanted ? "" : "only " + std::to_string(compared) + " tensors compared";
}

}  // namespace test
