// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include <shardmesh/checkpoint/format/dtype_names.hpp>
#include <shardmesh/core/dtype.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// What a pickle is read as; decides which globals and opcodes are allowed.
enum class PickleDialect : std::uint8_t {
  metadata,  ///< `.metadata` of a checkpoint
  tensor,    ///< `data.pkl` of a tensor's archive
  plain,     ///< `data.pkl` of any other archive: plain values, and numbers as numpy writes them
};

/// The closed table of globals. No name outside it means anything to the reader; in `.metadata` some may
/// stand where nothing is needed (`is_inert_global`).
enum class PickleGlobal : std::uint8_t {
  none,
  metadata,
  tensor_storage_metadata,
  bytes_storage_metadata,
  tensor_properties,
  chunk_storage_metadata,
  metadata_index,
  storage_meta,
  storage_info,
  torch_size,
  get_layout,
  memory_format,
  get_attribute,
  file_path,
  ordered_dict,
  dtype,
  unsupported_dtype,
  rebuild_tensor_v2,
  rebuild_tensor_v3,
  rebuild_parameter,
  typed_storage,
  untyped_storage,
  inert,  ///< outside the table: a name without meaning
  numpy_scalar,
  numpy_dtype,
  encode,
};

/// A global with, for `dtype` and `typed_storage`, its element type.
struct ResolvedGlobal {
  PickleGlobal global = PickleGlobal::none;
  DType dtype = DType::float32;
};

namespace detail {

struct NamedGlobal {
  std::string_view module;
  std::string_view name;
  PickleGlobal global;
};

inline constexpr std::string_view dcp_metadata_module = "torch.distributed.checkpoint.metadata";
inline constexpr std::string_view dcp_file_module = "torch.distributed.checkpoint.filesystem";
inline constexpr std::string_view sharded_module =
    "torch.distributed._shard.sharded_tensor.metadata";

// clang-format off
inline constexpr std::array<NamedGlobal, 15> metadata_globals{{
    {dcp_metadata_module, "Metadata", PickleGlobal::metadata},
    {dcp_metadata_module, "TensorStorageMetadata", PickleGlobal::tensor_storage_metadata},
    {dcp_metadata_module, "BytesStorageMetadata", PickleGlobal::bytes_storage_metadata},
    {dcp_metadata_module, "TensorProperties", PickleGlobal::tensor_properties},
    {dcp_metadata_module, "ChunkStorageMetadata", PickleGlobal::chunk_storage_metadata},
    {dcp_metadata_module, "MetadataIndex", PickleGlobal::metadata_index},
    {dcp_metadata_module, "StorageMeta", PickleGlobal::storage_meta},
    {dcp_metadata_module, "_MEM_FORMAT_ENCODING", PickleGlobal::memory_format},
    {dcp_file_module, "_StorageInfo", PickleGlobal::storage_info},
    {sharded_module, "TensorProperties", PickleGlobal::tensor_properties},
    {sharded_module, "MEM_FORMAT_ENCODING", PickleGlobal::memory_format},
    {"torch", "Size", PickleGlobal::torch_size},
    {"torch.serialization", "_get_layout", PickleGlobal::get_layout},
    {"builtins", "getattr", PickleGlobal::get_attribute},
    {"__builtin__", "getattr", PickleGlobal::get_attribute},
}};

inline constexpr std::array<NamedGlobal, 5> tensor_globals{{
    {"torch._utils", "_rebuild_tensor_v2", PickleGlobal::rebuild_tensor_v2},
    {"torch._utils", "_rebuild_tensor_v3", PickleGlobal::rebuild_tensor_v3},
    {"torch._utils", "_rebuild_parameter", PickleGlobal::rebuild_parameter},
    {"torch.storage", "UntypedStorage", PickleGlobal::untyped_storage},
    {"torch", "UntypedStorage", PickleGlobal::untyped_storage},
}};
// clang-format on

/// What a number of numpy is made of: `scalar(dtype, encode(text, "latin1"))`.
inline constexpr std::array<NamedGlobal, 4> plain_globals{{
    {"numpy.core.multiarray", "scalar", PickleGlobal::numpy_scalar},
    {"numpy._core.multiarray", "scalar", PickleGlobal::numpy_scalar},
    {"numpy", "dtype", PickleGlobal::numpy_dtype},
    {"_codecs", "encode", PickleGlobal::encode},
}};

[[nodiscard]] constexpr bool is_path_class(std::string_view module,
                                           std::string_view name) noexcept {
  return (module == "pathlib" || module == "pathlib._local") &&
         (name == "PosixPath" || name == "WindowsPath" || name == "PurePosixPath" ||
          name == "PureWindowsPath");
}

template <std::size_t N>
[[nodiscard]] constexpr PickleGlobal find_in(std::array<NamedGlobal, N> const& table,
                                             std::string_view module,
                                             std::string_view name) noexcept {
  for (NamedGlobal const& entry : table) {
    if (entry.name == name && entry.module == module) {
      return entry.global;
    }
  }
  return PickleGlobal::none;
}

/// Element types, and in a tensor's pickle the storage classes.
[[nodiscard]] constexpr ResolvedGlobal find_torch_type(PickleDialect dialect,
                                                       std::string_view name) noexcept {
  if (auto const dtype = dtype_of_torch_name(name)) {
    return {PickleGlobal::dtype, *dtype};
  }
  if (is_unsupported_torch_dtype(name)) {
    return {PickleGlobal::unsupported_dtype};
  }
  if (dialect == PickleDialect::tensor) {
    for (auto const& [storage, dtype] : storage_class_table) {
      if (storage == name) {
        return {PickleGlobal::typed_storage, dtype};
      }
    }
  }
  return {};
}

}  // namespace detail

/// Looks `module.name` up; `PickleGlobal::none` if the dialect does not allow it.
[[nodiscard]] constexpr ResolvedGlobal find_global(PickleDialect dialect,
                                                   std::string_view module,
                                                   std::string_view name) noexcept {
  if (dialect == PickleDialect::plain) {
    return {detail::find_in(detail::plain_globals, module, name)};
  }
  if (module == "collections" && name == "OrderedDict") {
    return {PickleGlobal::ordered_dict};
  }
  bool const metadata = dialect == PickleDialect::metadata;
  if (metadata && detail::is_path_class(module, name)) {
    return {PickleGlobal::file_path};
  }
  PickleGlobal const found = metadata ? detail::find_in(detail::metadata_globals, module, name)
                                      : detail::find_in(detail::tensor_globals, module, name);
  if (found != PickleGlobal::none) {
    return {found};
  }
  return module == "torch" ? detail::find_torch_type(dialect, name) : ResolvedGlobal{};
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
