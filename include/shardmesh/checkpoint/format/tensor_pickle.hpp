// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <shardmesh/checkpoint/format/lazy_view.hpp>
#include <shardmesh/checkpoint/format/pickle_reader.hpp>
#include <shardmesh/checkpoint/format/pickle_writer.hpp>
#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/shape.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

/// What `data.pkl` of a tensor's archive says.
struct TensorPickle {
  DType dtype = DType::float32;
  Shape sizes;
  Shape strides;               ///< in elements
  index_t storage_offset = 0;  ///< elements
  std::uint64_t storage_bytes = 0;
  LazyView view;

  [[nodiscard]] friend bool operator==(TensorPickle const&, TensorPickle const&) = default;
};

namespace detail {

inline void write_size_tuple(PickleWriter& out, Shape const& sizes) {
  if (sizes.empty()) {
    out.op(Opcode::empty_tuple);
    return;
  }
  if (sizes.size() > 3) {
    out.op(Opcode::mark);
  }
  for (index_t const size : sizes) {
    out.integer(size);
  }
  constexpr Opcode closing[] = {Opcode::tuple1, Opcode::tuple2, Opcode::tuple3};
  out.op(sizes.size() > 3 ? Opcode::tuple : closing[sizes.size() - 1]);
  out.memoize();
}

/// Reads the arguments of a tensor rebuild; every check fails with the same words.
class TensorPickleReader {
 public:
  TensorPickleReader(PickleTree const& tree, std::string const& path, std::uint64_t position)
      : tree_(tree), path_(path), position_(position) {}

  [[nodiscard]] TensorPickle read() const {
    PickleRef root = tree_.root();
    if (tree_.is(root, PickleKind::call, PickleGlobal::rebuild_parameter)) {
      require(!tree_.arguments(root).empty());
      root = tree_.arguments(root)[0];
    }
    bool const v3 = tree_.is(root, PickleKind::call, PickleGlobal::rebuild_tensor_v3);
    require(v3 || tree_.is(root, PickleKind::call, PickleGlobal::rebuild_tensor_v2));
    auto const arguments = tree_.arguments(root);
    require(arguments.size() >= (v3 ? 7U : 6U) && arguments.size() <= (v3 ? 8U : 7U));
    TensorPickle result;
    read_storage(arguments[0], v3, result);
    require(tree_.is(arguments[1], PickleKind::integer));
    result.storage_offset = tree_.integer(arguments[1]);
    result.sizes = read_sizes(arguments[2]);
    result.strides = read_sizes(arguments[3]);
    require(tree_.is(arguments[4], PickleKind::boolean));
    require_empty_dict(arguments[5]);
    if (v3) {
      require(tree_.is(arguments[6], PickleKind::global, PickleGlobal::dtype));
      result.dtype = tree_.node(arguments[6]).dtype;
    } else {
      result.storage_bytes *= size_of(result.dtype);
    }
    if (arguments.size() == (v3 ? 8U : 7U)) {
      result.view = read_view(arguments.back());
    }
    return result;
  }

 private:
  void require(bool good) const {
    if (!good) {
      throw CorruptError(path_, position_,
                         "shardmesh::read_tensor_item: data.pkl is not that of a plain tensor [" +
                             path_ + ", byte " + std::to_string(position_) + "]");
    }
  }

  void require_empty_dict(PickleRef ref) const {
    require((tree_.is(ref, PickleKind::dict) && tree_.items(ref).empty()) ||
            tree_.is(ref, PickleKind::none));
  }

  /// What PyTorch says of a tensor beside its storage: {"conj": True}, {"neg": True}, both, and what
  /// devices of third parties add.
  [[nodiscard]] LazyView read_view(PickleRef ref) const {
    LazyView view;
    if (tree_.is(ref, PickleKind::none)) {
      return view;
    }
    require(tree_.is(ref, PickleKind::dict));
    auto const pairs = tree_.items(ref);
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
      require(tree_.is(pairs[i], PickleKind::text));
      std::string_view const name = tree_.text(pairs[i]);
      if (name != "conj" && name != "neg") {
        throw UnsupportedError("shardmesh::read_tensor_item: the tensor was stored with \"" +
                               escaped(name) + "\", of which nothing is known [" + path_ +
                               ", byte " + std::to_string(position_) + "]");
      }
      require(tree_.is(pairs[i + 1], PickleKind::boolean));
      (name == "conj" ? view.conjugate : view.negative) = tree_.integer(pairs[i + 1]) != 0;
    }
    return view;
  }

  /// ("storage", class, "0", "cpu", count).
  void read_storage(PickleRef ref, bool v3, TensorPickle& result) const {
    require(tree_.is(ref, PickleKind::persistent));
    PickleRef const id = tree_.node(ref).link;
    require(tree_.is(id, PickleKind::tuple) && tree_.items(id).size() == 5);
    auto const parts = tree_.items(id);
    require(tree_.is(parts[0], PickleKind::text) && tree_.text(parts[0]) == "storage");
    require(tree_.is(parts[1], PickleKind::global,
                     v3 ? PickleGlobal::untyped_storage : PickleGlobal::typed_storage));
    require(tree_.is(parts[2], PickleKind::text) && tree_.text(parts[2]) == "0");
    require(tree_.is(parts[4], PickleKind::integer) && tree_.integer(parts[4]) >= 0 &&
            tree_.integer(parts[4]) < (std::int64_t{1} << 58));
    result.dtype = tree_.node(parts[1]).dtype;
    result.storage_bytes = static_cast<std::uint64_t>(tree_.integer(parts[4]));
  }

  [[nodiscard]] Shape read_sizes(PickleRef ref) const {
    require(tree_.is(ref, PickleKind::tuple) && tree_.items(ref).size() <= max_rank);
    Shape sizes;
    for (PickleRef const one : tree_.items(ref)) {
      require(tree_.is(one, PickleKind::integer) && tree_.integer(one) >= 0);
      sizes.push_back(tree_.integer(one));
    }
    return sizes;
  }

  PickleTree const& tree_;
  std::string const& path_;
  std::uint64_t position_;
};

}  // namespace detail

/// `data.pkl` of a contiguous tensor, byte for byte as torch.save writes it.
[[nodiscard]] inline Bytes write_tensor_pickle(DType dtype, Shape const& sizes) {
  std::string_view const storage = storage_class_of(dtype);
  bool const v3 = storage.empty();
  index_t const count = volume(sizes) * (v3 ? static_cast<index_t>(size_of(dtype)) : 1);
  PickleWriter out;
  out.global("torch._utils", v3 ? "_rebuild_tensor_v3" : "_rebuild_tensor_v2");
  out.ops(Opcode::mark, Opcode::mark);
  out.text("storage");
  out.global(v3 ? "torch.storage" : "torch", v3 ? "UntypedStorage" : storage);
  out.text("0");
  out.text("cpu");
  out.integer(count);
  out.op(Opcode::tuple);
  out.memoize();
  out.op(Opcode::binpersid);
  out.integer(0);
  detail::write_size_tuple(out, sizes);
  detail::write_size_tuple(out, row_major_strides(sizes));
  out.boolean(false);
  out.global("collections", "OrderedDict");
  out.ops(Opcode::empty_tuple, Opcode::reduce);
  out.memoize();
  if (v3) {
    out.global("torch", to_string(dtype));
  }
  out.op(Opcode::tuple);
  out.memoize();
  out.op(Opcode::reduce);
  out.memoize();
  return std::move(out).finish();
}

/// Reads `data.pkl` of a tensor's archive.
/// @throws CorruptError if it is anything but the rebuild of one plain tensor; UnsupportedError if the
///         tensor is more than its elements.
[[nodiscard]] inline TensorPickle read_tensor_pickle(ByteSpan pickle,
                                                     std::string const& path = "(memory)",
                                                     std::uint64_t position = 0) {
  PickleTree const tree = read_pickle(pickle, PickleDialect::tensor, path, position);
  return detail::TensorPickleReader(tree, path, position).read();
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
