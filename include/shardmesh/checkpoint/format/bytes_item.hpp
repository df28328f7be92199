// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

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
/// and size of what is made are bounded here: the size in proportion to the pickle.
class ValueReader {
 public:
  explicit ValueReader(PickleTree const& tree)
      : tree_(tree),
        budget_(256 * static_cast<std::uint64_t>(tree.pickle_bytes()) + (std::uint64_t{1} << 20)) {}

  /// @returns false if something in it is no plain value, or if it is deeper or larger than allowed.
  [[nodiscard]] bool read(PickleRef ref, Value& out) {
    if (depth_ > most_depth || !charge(64)) {
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
        out = Value(std::string(tree_.text(ref)));
        return charge(tree_.text(ref).size());
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

  [[nodiscard]] bool charge(std::uint64_t bytes) {
    bool const allowed = bytes <= budget_;
    budget_ -= allowed ? bytes : 0;
    return allowed;
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
    Value::List items;
    for (PickleRef const item : tree_.items(ref)) {
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
    Value::Dict items;
    auto const members = tree_.items(ref);
    for (std::size_t i = 0; i + 1 < members.size(); i += 2) {
      Value value;
      if (!tree_.is(members[i], PickleKind::text) || !charge(tree_.text(members[i]).size()) ||
          !read(members[i + 1], value)) {
        return false;
      }
      items.emplace_back(std::string(tree_.text(members[i])), std::move(value));
    }
    out = Value(std::move(items));
    return true;
  }

  PickleTree const& tree_;
  std::uint64_t budget_;
  int depth_ = 0;
};

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

/// Reads the archive of a value that is no tensor. What is made of anything but plain values comes
/// back opaque, unread.
/// @throws CorruptError for damage.
[[nodiscard]] inline Value read_bytes_item(ByteSpan item,
                                           std::string const& path = "(memory)",
                                           std::uint64_t position = 0) {
  ZipArchive const archive = read_zip(item, path, position);
  for (ZipEntry const& entry : archive.entries) {
    static_cast<void>(zip_record(item, entry, path, position));
  }
  ZipEntry const* const pickle = archive.find("data.pkl");
  if (pickle == nullptr) {
    detail::fail_item(path, position, "the archive holds no object");
  }
  Value value(Value::Opaque{Bytes(item.begin(), item.end())});
  try {
    PickleTree const tree = read_pickle(zip_record(item, *pickle), PickleDialect::plain, path,
                                        position + pickle->offset);
    Value known;
    if (detail::ValueReader(tree).read(tree.root(), known)) {
      value = std::move(known);
    }
  } catch (PickleRefused const&) {  // stays opaque
  }
  return value;
}

/// The archive of a value, as torch.save writes it.
[[nodiscard]] inline Bytes write_bytes_item(Value const& value) {
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
