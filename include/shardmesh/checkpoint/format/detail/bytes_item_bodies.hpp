// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// The bodies of checkpoint/format/bytes_item.hpp.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/format/budget.hpp>
#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/numpy_number.hpp>
#include <shardmesh/checkpoint/format/pickle_reader.hpp>
#include <shardmesh/checkpoint/format/pickle_writer.hpp>
#include <shardmesh/checkpoint/format/tensor_item.hpp>
#include <shardmesh/checkpoint/format/zip_reader.hpp>
#include <shardmesh/core/value.hpp>

namespace shardmesh {
inline namespace v0 {
namespace format {

namespace detail {

/// Turns a pickle of plain values into a `Value`. References may be shared and circular, so depth
/// and size of what is made are bounded here: with the tree, no more than `memory_for` the pickle.
class ValueReader {
 public:
  explicit ValueReader(PickleTree const& tree)
      : tree_(tree),
        budget_(memory_for(tree.pickle_bytes()) -
                std::min(tree.arena_bytes(), memory_for(tree.pickle_bytes()))) {}

  /// @returns false if something in it is no plain value, or if it is deeper or larger than allowed.
  [[nodiscard]] bool read(PickleRef ref, Value& out) {
    if (depth_ > most_depth) {
      return false;
    }
    switch (tree_.kind(ref)) {
      case PickleKind::none:
        out = Value();
        return true;
      case PickleKind::boolean:
        out = Value(tree_.integer(ref) != 0);
        return true;
      case PickleKind::integer:
        out = Value(tree_.integer(ref));
        return true;
      case PickleKind::real:
        out = Value(tree_.real(ref));
        return true;
      case PickleKind::text:
        return read_text(ref, out);
      case PickleKind::tuple:
      case PickleKind::list:
        return read_inside(&ValueReader::read_items, ref, out);
      case PickleKind::dict:
        return read_inside(&ValueReader::read_dict, ref, out);
      case PickleKind::call:
        return read_number(ref, out);
      default:
        return false;
    }
  }

 private:
  static constexpr int most_depth = 64;

  /// Of a list, tuple or dict: it, and room for so many members.
  [[nodiscard]] bool charge(std::size_t members, std::size_t bytes_each) {
    return budget_.take(heap_bytes(sizeof(Value::List)) + heap_bytes(members * bytes_each));
  }

  [[nodiscard]] bool read_text(PickleRef ref, Value& out) {
    std::string_view const text = tree_.text(ref);
    if (!budget_.take(heap_bytes(sizeof(std::string)) + text_bytes(text.size()))) {
      return false;
    }
    out = Value(std::string(text));
    return true;
  }

  [[nodiscard]] bool read_inside(bool (ValueReader::*read_members)(PickleRef, Value&),
                                 PickleRef ref,
                                 Value& out) {
    ++depth_;
    bool const plain = (this->*read_members)(ref, out);
    --depth_;
    return plain;
  }

  [[nodiscard]] bool read_number(PickleRef ref, Value& out) const {
    std::optional<Value> number;
    if (tree_.is(ref, PickleKind::call, PickleGlobal::numpy_scalar)) {
      number = read_numpy_number(tree_, ref);
    }
    out = number ? *number : out;
    return number.has_value();
  }

  [[nodiscard]] bool read_items(PickleRef ref, Value& out) {
    std::span<PickleRef const> const members = tree_.items(ref);
    if (!charge(members.size(), sizeof(Value))) {
      return false;
    }
    Value::List items;
    items.reserve(members.size());
    for (PickleRef const item : members) {
      Value value;
      if (!read(item, value)) {
        return false;
      }
      items.push_back(std::move(value));
    }
    out = tree_.is(ref, PickleKind::tuple) ? Value(Value::Tuple{std::move(items)})
                                           : Value(std::move(items));
    return true;
  }

  [[nodiscard]] bool read_dict(PickleRef ref, Value& out) {
    auto const members = tree_.items(ref);
    if (!charge(members.size() / 2, sizeof(Value::Dict::value_type))) {
      return false;
    }
    Value::Dict items;
    items.reserve(members.size() / 2);
    for (std::size_t i = 0; i + 1 < members.size(); i += 2) {
      Value value;
      if (!tree_.is(members[i], PickleKind::text) ||
          !budget_.take(text_bytes(tree_.text(members[i]).size())) ||
          !read(members[i + 1], value)) {
        return false;
      }
      items.emplace_back(std::string(tree_.text(members[i])), std::move(value));
    }
    out = Value(std::move(items));
    return true;
  }

  PickleTree const& tree_;
  Budget budget_;
  int depth_ = 0;
};

/// @returns false, and leaves `value` alone, if the pickle holds anything but plain values, or more of them than
///          are made of so many bytes.
/// @throws CorruptError for damage.
[[nodiscard]] inline bool read_plain_value(ByteSpan pickle,
                                           std::string const& path,
                                           std::uint64_t position,
                                           Value& value) {
  try {
    PickleTree const tree = read_pickle(pickle, PickleDialect::plain, path, position);
    Value known;
    if (ValueReader(tree).read(tree.root(), known)) {
      value = std::move(known);
      return true;
    }
  } catch (PickleRefused const&) {  // stays opaque
  }
  return false;
}

/// Writes plain values as torch.save pickles them.
class ValueWriter {
 public:
  void operator()(Value::None) { out_.op(Opcode::none); }
  void operator()(bool value) { out_.boolean(value); }
  void operator()(std::int64_t value) { out_.integer(value); }
  void operator()(double value) { out_.real(value); }
  void operator()(std::string const& value) { out_.text(value); }
  void operator()(Value::List const& items) {
    out_.op(Opcode::empty_list);
    out_.memoize();
    write_batches(items.size(), Opcode::append, Opcode::appends,
                  [&](std::size_t i) { items[i].visit(*this); });
  }
  void operator()(Value::Tuple const& tuple) {
    auto const& items = tuple.items;
    if (items.empty()) {
      out_.op(Opcode::empty_tuple);
      return;
    }
    if (items.size() > 3) {
      out_.op(Opcode::mark);
    }
    for (Value const& item : items) {
      item.visit(*this);
    }
    constexpr Opcode closing[] = {Opcode::tuple1, Opcode::tuple2, Opcode::tuple3};
    out_.op(items.size() > 3 ? Opcode::tuple : closing[items.size() - 1]);
    out_.memoize();
  }
  void operator()(Value::Dict const& items) {
    out_.op(Opcode::empty_dict);
    out_.memoize();
    write_batches(items.size(), Opcode::setitem, Opcode::setitems, [&](std::size_t i) {
      out_.text(items[i].first);
      items[i].second.visit(*this);
    });
  }
  void operator()(Value::Opaque const&) {
    throw UnsupportedError("shardmesh::write_bytes_item: an opaque value can only be written back "
                           "whole, not inside a list, tuple or dict");
  }

  [[nodiscard]] Bytes finish() && { return std::move(out_).finish(); }

 private:
  /// As CPython's pickler: batches of 1000; one element alone has its own opcode.
  template <class F>
  void write_batches(std::size_t count, Opcode one, Opcode many, F write) {
    for (std::size_t begin = 0; begin < count; begin += 1000) {
      if (count > 1) {
        out_.op(Opcode::mark);
      }
      for (std::size_t i = begin; i < std::min(count, begin + 1000); ++i) {
        write(i);
      }
      out_.op(count > 1 ? many : one);
    }
  }

  PickleWriter out_;
};

}  // namespace detail

SHARDMESH_INLINE Value read_bytes_item(ByteSpan item,
                                       std::string const& path,
                                       std::uint64_t position) {
  ZipArchive const archive = read_zip(item, path, position);
  for (ZipEntry const& entry : archive.entries) {
    static_cast<void>(zip_record(item, entry, path, position));
  }
  ZipEntry const* const pickle = archive.find("data.pkl");
  if (pickle == nullptr) {
    detail::fail_item(path, position, "the archive holds no object");
  }
  Value value;
  if (!detail::read_plain_value(zip_record(item, *pickle), path, position + pickle->offset,
                                value)) {
    value = Value(Value::Opaque{Bytes(item.begin(), item.end()), false});
  }
  return value;
}

SHARDMESH_INLINE Bytes write_bytes_item(Value const& value) {
  if (auto const* const opaque = value.get<Value::Opaque>()) {
    return opaque->archive;
  }
  detail::ValueWriter writer;
  value.visit(writer);
  Bytes const pickle = std::move(writer).finish();
  ZipWriter zip;
  detail::add_leading_records(zip, pickle, 64);
  detail::add_trailing_records(zip,
                               detail::serialization_id("02908468677762923104", crc32_of(pickle)));
  return std::move(zip).finish();
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
