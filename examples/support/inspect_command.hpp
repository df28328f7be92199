// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// `shardmesh inspect`, `verify` and `diff`: what is in a checkpoint, whether every byte of it is sound,
// and in what two checkpoints of any format differ.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/core/nearest.hpp>

#include "catalog_tools.hpp"
#include "checkpoint_map.hpp"

namespace tool {

struct InspectOptions {
  std::string path;
  std::string other;  ///< for diff
  std::string key;    ///< for inspect: this one alone
  std::string format = "text";
  bool json = false;
  bool progress = false;
};

namespace detail {

struct Row {
  std::string name;
  std::string dtype;  ///< or the kind of a plain value
  std::string shape;  ///< or the plain value
  std::vector<sm::index_t> extents;
  std::size_t boxes = 0;
  std::size_t files = 0;
  std::uint64_t bytes = 0;
  bool is_tensor = false;
  std::string problem;  ///< why it cannot be read
};

template <class C>
std::vector<Row> rows_of(C& catalog) {
  std::vector<Row> rows;
  for (std::string const& key : catalog.keys()) {
    if (sm::StoredTensor const* const stored = catalog.tensor(key)) {
      rows.push_back({key, sm::dtype_text(*stored), to_string(stored->shape),
                      std::vector<sm::index_t>(stored->shape.begin(), stored->shape.end()),
                      stored->boxes.size(), catalog.files(key).size(), bytes_of(*stored), true,
                      ""});
    } else if (std::string const* const problem = sm::problem_of(catalog, key)) {
      rows.push_back({key, "unreadable", "", {}, 0, 0, 0, false, *problem});
    } else {
      sm::Value const value = catalog.value(key);
      rows.push_back({key, std::string(value.kind()), to_string(value), {}, 0, 0, 0, false, ""});
    }
  }
  return rows;
}

/// @param losses  what to say after the table.
inline void print_table(std::string const& path,
                        std::vector<Row> const& rows,
                        std::vector<std::string> const& losses) {
  std::size_t width = 4;
  std::size_t dtype = 13;
  std::size_t shape = 5;
  for (Row const& row : rows) {
    width = std::max(width, row.name.size());
    dtype = std::max(dtype, row.dtype.size());
    shape = std::max(shape, row.shape.size());
  }
  width = std::min<std::size_t>(width, 60);
  dtype = std::min<std::size_t>(dtype, 40);
  shape = std::min<std::size_t>(shape, 30);
  auto const column = [](std::size_t size) { return static_cast<int>(size); };
  std::printf("%-*s  %-*s %-*s %5s %5s %12s\n", column(width), "name", column(dtype), "dtype",
              column(shape), "shape", "boxes", "files", "bytes");
  std::size_t tensors = 0;
  std::size_t unreadable = 0;
  std::uint64_t bytes = 0;
  for (Row const& row : rows) {
    tensors += row.is_tensor ? 1 : 0;
    unreadable += row.problem.empty() ? 0U : 1U;
    bytes += row.bytes;
    std::printf("%-*s  %-*s %-*s", column(width), row.name.c_str(), column(dtype),
                row.dtype.c_str(), column(shape), row.shape.substr(0, 60).c_str());
    if (row.is_tensor) {
      std::printf(" %5zu %5zu %12llu", row.boxes, row.files,
                  static_cast<unsigned long long>(row.bytes));
    }
    std::printf("\n");
  }
  for (Row const& row : rows) {
    if (!row.problem.empty()) {
      std::printf("UNREADABLE %s: %s\n", row.name.c_str(), row.problem.c_str());
    }
  }
  for (std::string const& loss : losses) {
    std::printf("NOTE %s\n", loss.c_str());
  }
  std::string const rest =
      unreadable == 0 ? "" : "; " + std::to_string(unreadable) + " cannot be read";
  std::printf("%s: %zu tensors, %s; %zu plain values%s\n", path.c_str(), tensors,
              readable(bytes).c_str(), rows.size() - tensors - unreadable, rest.c_str());
}

/// A tensor has its shape as an array, a plain value its kind and its text.
inline nlohmann::ordered_json to_json(std::vector<Row> const& rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (Row const& row : rows) {
    if (row.is_tensor) {
      list.push_back({{"name", row.name},
                      {"dtype", row.dtype},
                      {"shape", row.extents},
                      {"boxes", row.boxes},
                      {"files", row.files},
                      {"bytes", row.bytes}});
    } else if (row.problem.empty()) {
      list.push_back({{"name", row.name}, {"kind", row.dtype}, {"value", row.shape}});
    } else {
      list.push_back({{"name", row.name}, {"problem", row.problem}});
    }
  }
  return list;
}

/// In what one key differs between two catalogs, as far as that can be said without elements of tensors; nothing if those
/// must be compared.
template <class A, class B>
std::optional<std::string> difference_at(A& a, B& b, std::string const& key) {
  for (std::string const* const problem : {sm::problem_of(a, key), sm::problem_of(b, key)}) {
    if (problem != nullptr) {
      return "cannot be read: " + *problem;
    }
  }
  sm::StoredTensor const* const x = a.tensor(key);
  sm::StoredTensor const* const y = b.tensor(key);
  if ((x == nullptr) != (y == nullptr)) {
    return x == nullptr ? "a plain value against a tensor" : "a tensor against a plain value";
  }
  if (x == nullptr) {
    sm::Value const p = a.value(key);
    sm::Value const q = b.value(key);
    return p == q ? "" : to_string(p).substr(0, 60) + " against " + to_string(q).substr(0, 60);
  }
  if (sm::dtype_text(*x) != sm::dtype_text(*y) || !(x->shape == y->shape)) {
    return sm::dtype_text(*x) + " " + to_string(x->shape) + " against " + sm::dtype_text(*y) + " " +
           to_string(y->shape);
  }
  if (!x->unsupported.empty()) {
    return "cannot be compared: " + x->unsupported;
  }
  return std::nullopt;
}

/// How many elements of two tensors of one dtype and shape differ, in words; empty if none.
inline std::string unequal_elements(sm::AnyTensor const& x, sm::AnyTensor const& y) {
  auto const* const p = static_cast<std::byte const*>(x.data());
  auto const* const q = static_cast<std::byte const*>(y.data());
  if (x.bytes() == 0 || std::memcmp(p, q, x.bytes()) == 0) {
    return "";
  }
  std::size_t const size = sm::size_of(x.dtype());
  std::size_t unequal = 0;
  for (std::size_t at = 0; at < x.bytes(); at += size) {
    unequal += std::memcmp(p + at, q + at, size) == 0 ? 0U : 1U;
  }
  return sm::detail::concat(std::to_string(unequal), " of ", std::to_string(x.bytes() / size),
                            " elements differ");
}

/// The keys of the first catalog in which two differ, and in what. Tensors are read many at a time: for a small one, to
/// prepare reading costs more than to read.
template <class A, class B>
std::vector<std::pair<std::string, std::string>> differences(A& a,
                                                             B& b,
                                                             InspectOptions const& options,
                                                             Progress& progress) {
  constexpr std::uint64_t most_bytes = std::uint64_t{256} << 20;  // of each, or one tensor
  std::vector<std::string> const keys = a.keys();
  std::vector<std::string> what(keys.size());
  std::vector<std::size_t> waiting;  // for their elements
  std::uint64_t bytes = 0;
  auto const compare = [&] {
    std::vector<std::string> names;
    for (std::size_t const i : waiting) {
      names.push_back(keys[i]);
    }
    sm::StateDict const x = read_tensors(a, names);
    sm::StateDict const y = read_tensors(b, names);
    for (std::size_t const i : waiting) {
      what[i] = unequal_elements(x.at(keys[i]).tensor(), y.at(keys[i]).tensor());
    }
    waiting.clear();
    bytes = 0;
    progress.at(a.bytes_read() + b.bytes_read());
  };
  for (std::size_t i = 0; i < keys.size(); ++i) {
    std::optional<std::string> const known =
        b.contains(keys[i]) ? difference_at(a, b, keys[i]) : "only in " + options.path;
    if (known) {
      what[i] = *known;
      continue;
    }
    std::uint64_t const more = bytes_of(*a.tensor(keys[i]));
    if (!waiting.empty() && bytes + more > most_bytes) {
      compare();
    }
    waiting.push_back(i);
    bytes += more;
  }
  compare();
  std::vector<std::pair<std::string, std::string>> found;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (!what[i].empty()) {
      found.emplace_back(keys[i], what[i]);
    }
  }
  return found;
}

/// What was found, and what could not be.
inline std::string verdict(sm::VerifyReport const& report) {
  std::string const damaged = std::to_string(report.damage.size()) + " damaged";
  if (report.has_checksums) {
    return damaged;
  }
  return (report.damage.empty() ? "names, sizes and places are sound" : damaged) +
         "; this format has no checksums, changed elements cannot be seen";
}

}  // namespace detail

/// Prints a table of everything in a checkpoint, and what of it cannot be read. Reads no tensor data.
inline int run_inspect(InspectOptions const& options) {
  return sm::with_catalog(options.path, [&](auto& catalog) {
    auto rows = detail::rows_of(catalog);
    if (!options.key.empty()) {
      if (!catalog.contains(options.key)) {
        std::string const near = sm::nearest(options.key, catalog.keys());
        throw sm::KeyError(sm::detail::concat(
            options.path, " has no \"", sm::escaped(options.key), '"',
            near.empty() ? "" : sm::detail::concat("; the nearest is \"", sm::escaped(near), '"')));
      }
      std::erase_if(rows, [&](detail::Row const& row) { return row.name != options.key; });
    }
    if (options.json || options.format == "json") {
      std::printf("%s\n", detail::to_json(rows).dump().c_str());
    } else if (options.format == "svg") {
      std::printf("%s", checkpoint_map(catalog, options.path, options.key).c_str());
    } else {
      detail::print_table(options.path, rows, losses(catalog));
    }
    return 0;
  });
}

namespace detail {

inline nlohmann::ordered_json to_json(std::vector<sm::Damage> const& list) {
  nlohmann::ordered_json result = nlohmann::ordered_json::array();
  for (sm::Damage const& one : list) {
    result.push_back({{"name", one.key}, {"what", one.what}});
  }
  return result;
}

inline int tell(sm::VerifyReport const& report, InspectOptions const& options) {
  if (options.json) {
    nlohmann::ordered_json const all{{"path", options.path},
                                     {"values", report.values},
                                     {"bytes", report.bytes},
                                     {"checksums", report.has_checksums},
                                     {"damage", to_json(report.damage)},
                                     {"notes", report.notes},
                                     {"unchecked", to_json(report.unchecked)}};
    std::printf("%s\n", all.dump().c_str());
  } else {
    for (sm::Damage const& one : report.damage) {
      std::printf("DAMAGE %s: %s\n", one.key.c_str(), one.what.c_str());
    }
    for (std::string const& note : report.notes) {
      std::printf("NOTE %s\n", note.c_str());
    }
    for (sm::Damage const& one : report.unchecked) {
      std::printf("NOTE %s: %s\n", one.key.c_str(), one.what.c_str());
    }
    std::printf("%s: %zu values, %s read, %s\n", options.path.c_str(), report.values,
                readable(report.bytes).c_str(), verdict(report).c_str());
  }
  return report.damage.empty() ? 0 : 1;
}

}  // namespace detail

/// Reads every byte of a checkpoint and checks it. Every damage is told with its place.
/// @returns 1 if there is damage.
inline int run_verify(InspectOptions const& options) {
  try {
    return sm::with_catalog(options.path, [&](auto& catalog) {
      Progress progress("verify", total_bytes(catalog), options.progress);
      sm::VerifyReport const report =
          sm::verify(catalog, [&] { progress.at(catalog.bytes_read()); });
      progress.finish();
      return detail::tell(report, options);
    });
  } catch (sm::CorruptError const& error) {  // so damaged that nothing can be listed
    sm::VerifyReport report;
    report.damage.push_back({error.path(), error.what()});
    return detail::tell(report, options);
  }
}

/// Compares two checkpoints, whatever their formats, tensor by tensor.
/// @returns 1 if they differ.
inline int run_diff(InspectOptions const& options) {
  return sm::with_catalog(options.path, [&](auto& a) {
    return sm::with_catalog(options.other, [&](auto& b) {
      Progress progress("diff", total_bytes(a) + total_bytes(b), options.progress);
      auto found = detail::differences(a, b, options, progress);
      for (std::string const& key : b.keys()) {
        if (!a.contains(key)) {
          found.emplace_back(key, "only in " + options.other);
        }
      }
      progress.finish();
      if (options.json) {
        nlohmann::ordered_json list = nlohmann::ordered_json::array();
        for (auto const& [key, what] : found) {
          list.push_back({{"name", key}, {"what", what}});
        }
        std::printf("%s\n", list.dump().c_str());
      } else {
        for (auto const& [key, what] : found) {
          std::printf("%s: %s\n", key.c_str(), what.c_str());
        }
        std::printf("%zu values compared, %zu differ\n", a.keys().size(), found.size());
      }
      return found.empty() ? 0 : 1;
    });
  });
}

}  // namespace tool
