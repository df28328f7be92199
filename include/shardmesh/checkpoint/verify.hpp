// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/metric_note.hpp>
#include <shardmesh/checkpoint/format/pickle_names.hpp>
#include <shardmesh/checkpoint/manifest.hpp>
#include <shardmesh/checkpoint/storage/directory.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/core/value.hpp>

namespace shardmesh {
inline namespace v0 {

/// What is wrong with one value of a checkpoint.
struct Damage {
  std::string key;
  std::string what;  ///< with file and byte
};

/// What `verify` has read and found.
struct VerifyReport {
  std::size_t values = 0;   ///< tensors and plain values
  std::uint64_t bytes = 0;  ///< read
  std::vector<Damage> damage;
  std::vector<std::string> notes;  ///< what could not be checked, or may be a loss; no damage
  /// What could be checked in part only: tensors of element types that are not known, of which places
  /// and checksums were checked, as far as the format has them. No damage.
  std::vector<Damage> unchecked;
  /// False for a format without checksums: that changed elements cannot be seen.
  bool has_checksums = true;
};

namespace detail {

/// Notes a value that would do harm where it is unpickled.
inline void verify_value(Value const& value, std::string const& key, VerifyReport& report) {
  if (std::string const name = format::harmful_name(value); !name.empty()) {
    report.notes.push_back(concat("the value \"", escaped(key), "\" is a pickle that imports ",
                                  name,
                                  ": whoever loads it with PyTorch may run what somebody has put "
                                  "there; save refuses it"));
  }
}

/// Reads one box, or checks what can be checked of it.
/// @returns its bytes.
template <class C>
[[nodiscard]] std::uint64_t verify_box(C& catalog,
                                       std::string const& key,
                                       StoredTensor const& stored,
                                       std::size_t i) {
  if constexpr (requires { catalog.check_box(key, i); }) {
    if (!stored.unsupported.empty()) {
      return catalog.check_box(key, i);
    }
  }
  return catalog.read_box(key, i).bytes.size();
}

/// Boxes are known to be disjoint and inside the tensor; do they fill it?
inline void verify_coverage(std::string const& key,
                            std::string const& where,
                            StoredTensor const& stored,
                            VerifyReport& report) {
  if (stored.boxes.empty() && !stored.unsupported.empty()) {
    return;  // it has more dimensions than can be told
  }
  index_t held = 0;
  for (Box const& box : stored.boxes) {
    held += box.volume();
  }
  if (held != volume(stored.shape)) {
    report.damage.push_back({key, where + ": the items hold " + std::to_string(held) + " of the " +
                                      std::to_string(volume(stored.shape)) + " elements of " +
                                      to_string(stored.shape)});
  }
}

/// PyTorch makes a flat name by joining a path with dots, and stores both; one that does not give the
/// other was damaged.
template <class C>
void verify_paths(C const& catalog, VerifyReport& report) {
  if constexpr (requires { catalog.metadata(); }) {
    for (auto const& entry : catalog.metadata().entries) {
      std::string const joined = flat_key(entry.path);
      if (joined != entry.fqn) {
        report.damage.push_back(
            {entry.fqn, concat(catalog.describe(), "/.metadata: the path \"", escaped(joined),
                               "\" is not that of the name \"", escaped(entry.fqn), '"')});
      }
    }
  }
}

/// Files that a manifest lists must be there and as they were written, every byte of them; so must the
/// metric, which has a checksum of its own. A manifest that another save has left says nothing of them.
template <class C>
void verify_files(C const& catalog, VerifyReport& report) {
  if constexpr (requires { catalog.metadata(); }) {
    Directory const& directory = catalog.directory();
    auto const check = [&report](std::string const& name, auto&& fault_of) {
      try {
        if (std::string fault = fault_of(); !fault.empty()) {
          report.damage.push_back({name, std::move(fault)});
        }
      } catch (Error const& error) {
        report.damage.push_back({name, error.what()});
      }
    };
    std::vector<FileDigest> files;
    check(std::string(manifest_name), [&] {
      files = find_manifest(directory).value_or(files);
      File const metadata = directory.open_file(".metadata");
      if (!files.empty() && !is_manifest_of(files, metadata.read(0, metadata.size()))) {
        report.notes.push_back(
            directory.path_of(std::string(manifest_name)) +
            " is of another save than .metadata: another program has saved into this directory "
            "since. Each item was checked by its own CRC, other bytes were not; the file can be "
            "removed");
        files.clear();
      }
      return std::string();
    });
    for (FileDigest const& one : files) {
      check(one.name, [&] { return digest_fault(directory, one); });
    }
    check(std::string(metric_name), [&] {
      static_cast<void>(find_metric(directory.path()));
      return std::string();
    });
  }
}

/// What a catalog knows to be lost, and what it has no means to see.
template <class C>
void verify_catalog(C const& catalog, VerifyReport& report) {
  if constexpr (requires { catalog.lost_files(); }) {
    for (auto const& [name, what] : catalog.lost_files()) {
      report.damage.push_back({name, what});
    }
    for (std::string const& note : catalog.notes()) {
      report.notes.push_back(note);
    }
  }
  if constexpr (requires { catalog.has_checksums(); }) {
    report.has_checksums = catalog.has_checksums();
  }
}

}  // namespace detail

/// Reads every item of a checkpoint and checks it: CRCs, bounds, dtypes and shapes against what the
/// catalog says, and that the items of each tensor fill it. Where `save` has left a manifest, every
/// byte of every file is checked; a manifest that PyTorch, say, has left there when it saved over the
/// directory is noted, and not used.
/// Nothing is thrown for damage; all of it is reported, also that of files that are missing or cannot be
/// read.
///
/// Not seen: damaged elements in safetensors files, a format without checksums (`has_checksums`); the
/// loss of the files of the last ranks of PyTorch's sharded safetensors, which say nowhere how many
/// they are or how large the tensors were (those of `save_safetensors_by_rank` do); without a manifest also
/// bytes that carry no data (padding; fields of zip headers that are stored twice or mean
/// nothing, such as times), and a name in `.metadata` that was altered where its path is the name.
///
/// @param progress  called after each value.
template <Catalog C, class Progress>
[[nodiscard]] VerifyReport verify(C& catalog, Progress&& progress) {
  VerifyReport report;
  for (std::string const& key : catalog.keys()) {
    if (std::string const* const problem = problem_of(catalog, key)) {
      report.damage.push_back({key, *problem});
      ++report.values;
      progress();
      continue;
    }
    StoredTensor const* const stored = catalog.tensor(key);
    std::size_t const items = stored == nullptr ? 1 : stored->boxes.size();
    for (std::size_t i = 0; i < items; ++i) {
      try {
        if (stored == nullptr) {
          detail::verify_value(catalog.value(key), key, report);
        } else if (!stored->boxes[i].empty()) {
          report.bytes += detail::verify_box(catalog, key, *stored, i);
        }
      } catch (Error const& error) {
        report.damage.push_back({key, error.what()});
      }
    }
    if (stored != nullptr && !stored->unsupported.empty()) {
      report.unchecked.push_back({key, "not checked: " + stored->unsupported});
    }
    if (stored != nullptr) {
      detail::verify_coverage(key, catalog.describe(), *stored, report);
    }
    ++report.values;
    progress();
  }
  detail::verify_paths(catalog, report);
  detail::verify_files(catalog, report);
  detail::verify_catalog(catalog, report);
  return report;
}

template <Catalog C>
[[nodiscard]] VerifyReport verify(C& catalog) {
  return verify(catalog, [] {});
}

}  // namespace v0
}  // namespace shardmesh
