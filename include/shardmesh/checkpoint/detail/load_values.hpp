// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/stage.hpp>
#include <shardmesh/checkpoint/load_options.hpp>
#include <shardmesh/checkpoint/stored.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/state/live_sections.hpp>
#include <shardmesh/state/number.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/state/value_finder.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A catalog as a `ValueFinder` looks at it.
template <Catalog C>
struct CatalogSource {
  C const* catalog;

  [[nodiscard]] std::string describe() const { return catalog->describe(); }
  [[nodiscard]] std::vector<std::string> keys() const { return catalog->keys(); }
  [[nodiscard]] bool contains(std::string const& key) const { return catalog->contains(key); }
  [[nodiscard]] index_t elements(std::string const& key) const {
    if (problem_of(*catalog, key) != nullptr) {
      return 1;  // whoever wants it hears why it cannot be read; nothing is inside it
    }
    StoredTensor const* const tensor = catalog->tensor(key);
    return tensor == nullptr ? index_t{-1} : volume(tensor->shape);
  }
  [[nodiscard]] std::vector<PathElement> path(std::string const& key) const {
    if constexpr (requires { catalog->path(key); }) {
      return catalog->path(key);
    } else {
      return {PathElement(key)};
    }
  }
};

/// Reads a plain value; a tensor of one element as the number that it is.
/// @throws InvalidArgument for an element that is no plain number.
template <Catalog C>
[[nodiscard]] Value read_plain(C& catalog, std::string const& key) {
  StoredTensor const* const tensor = catalog.tensor(key);
  if (tensor == nullptr) {
    return catalog.value(key);
  }
  for (std::size_t i = 0; i < tensor->boxes.size(); ++i) {
    if (tensor->boxes[i].volume() == 1) {
      StoredBox const data = catalog.read_box(key, i);
      if (auto const number = number_of(tensor->dtype, data.bytes.data() + data.first)) {
        return *number;
      }
    }
  }
  throw InvalidArgument("shardmesh::load: " + std::string(catalog.describe()) + ": \"" + key +
                        "\" is a tensor of " + std::string(to_string(tensor->dtype)) +
                        ", the state dict has a plain number, which it cannot be");
}

/// Is an entry whose key is stored loaded as a tensor? A 0-d tensor may be stored as a plain number; any
/// other is an error that `stage_tensor` throws.
template <Catalog C>
[[nodiscard]] bool loads_as_tensor(C const& catalog, StateEntry const& entry) {
  return entry.is_tensor() &&
         (catalog.tensor(entry.key) != nullptr || !entry.tensor().shape().empty());
}

/// The plain values of a load on one rank: the dict's own, those of optimizers, and numbers for 0-d
/// tensors.
template <Catalog C>
class LoadValues {
 public:
  /// @param dict  must outlive the object.
  LoadValues(C const& catalog, StateDict const& dict)
      : catalog_(&catalog), finder_(CatalogSource<C>{&catalog}, "shardmesh::load") {
    for (LiveSection& section : live_sections(dict)) {
      auto keys = finder_.keys_of(section);
      note(keys.values);
      sections_.push_back({std::move(section), std::move(keys.values), std::move(keys.tensors)});
    }
  }

  /// Notes that the value of an entry, one of the dict's own or the number in a 0-d tensor, is to be
  /// loaded.
  /// @returns false if it is not stored.
  [[nodiscard]] bool want(StateEntry const& entry, std::size_t position) {
    if (entry.is_tensor() && !entry.tensor().shape().empty()) {
      return false;
    }
    ValuePlace place = entry.is_tensor() ? finder_.number_place_of(entry) : finder_.place_of(entry);
    if (place.keys.empty()) {
      return false;
    }
    note(place.keys);
    wanted_.push_back({&entry, position, std::move(place)});
    return true;
  }

  /// What must be read, each once.
  [[nodiscard]] std::vector<std::string> const& keys() const noexcept { return keys_.keys(); }

  /// Checks what was read and finds a place for it.
  /// @param value_of  gives the value of each of `keys()`.
  /// @param staged    by position; the tensors that will be loaded are in it already.
  /// @param miss      hears of a key that is not there and why.
  /// @throws InvalidArgument, naming the key, for a value that its place cannot hold.
  template <class ValueOf, class Miss>
  void stage(StateDict const& dict,
             ValueOf const& value_of,
             DTypePolicy policy,
             CheckpointReport& report,
             std::vector<Staged>& staged,
             Miss const& miss) {
    for (Wanted const& one : wanted_) {
      auto value = finder_.value(*one.entry, one.place, value_of);
      if (!value) {
        miss(one.entry->key, std::string());
      } else if (one.entry->is_tensor()) {
        stage_number(*one.entry, *value, policy, report, staged[one.position]);
      } else {
        staged[one.position].value = std::move(*value);
      }
    }
    KeyList loaded;
    std::size_t position = 0;
    for (StateEntry const& entry : dict) {
      if (staged[position++].tensor) {
        loaded.add(entry.key);
      }
    }
    for (Section& one : sections_) {
      LiveLoad load;
      load.prefix = one.section.prefix;
      load.wanted = one.section.wanted;
      load.found = finder_.found(one.section, one.keys, value_of);
      for (auto const& [key, link] : one.section.tensors) {
        if (loaded.contains(key)) {
          load.tensors.emplace_back(link.group, link.name);
        }
      }
      plans_.push_back(one.section.owner->prepare(load));
      for (LiveLoad::Missing const& missing : load.missing) {
        miss(missing.key, missing.why);
      }
      for (std::string const& key : one.keys) {
        if (!load.asks_for(key)) {
          unused_.push_back(key);
        }
      }
      std::copy_if(
          one.tensors.begin(), one.tensors.end(), std::back_inserter(left_out_),
          [&](std::string const& key) { return load.asks_for(key) && !dict.contains(key); });
    }
  }

  /// Of what was read for optimizers, the keys that none of them has asked for.
  [[nodiscard]] std::vector<std::string> const& unused() const noexcept { return unused_; }

  /// Tensors of several elements in the groups that optimizers have asked for: nobody can take them.
  [[nodiscard]] std::vector<std::string> const& left_out() const noexcept { return left_out_; }

  /// The dict with what the optimizers will have by then; nothing if it has that already.
  [[nodiscard]] std::optional<StateDict> dict_after(StateDict const& dict) const {
    return up_to_date(dict, [this](LiveSection const& section) {
      for (std::size_t i = plans_.size(); i-- > 0;) {
        if (sections_[i].section.owner == section.owner) {
          return plans_[i]->places();
        }
      }
      return section.owner->places();
    });
  }

  /// Gives the optimizers what was found for them.
  void apply() noexcept {
    for (auto const& plan : plans_) {
      plan->apply();
    }
  }

 private:
  struct Wanted {
    StateEntry const* entry;
    std::size_t position;
    ValuePlace place;
  };
  struct Section {
    LiveSection section;
    std::vector<std::string> keys;
    std::vector<std::string> tensors;
  };

  void note(std::vector<std::string> const& keys) {
    for (std::string const& key : keys) {
      keys_.add(key);
    }
  }

  void stage_number(StateEntry const& entry,
                    Value const& number,
                    DTypePolicy policy,
                    CheckpointReport& report,
                    Staged& staged) {
    AnyTensor const& tensor = entry.tensor();
    std::string const place = catalog_->describe() + ": \"" + entry.key + "\"";
    refuse_partial_target(place, tensor);
    staged.tensor.emplace(tensor, tensor.dtype(), place, policy, memory_);
    if (!staged.tensor->put_number(number) && policy == DTypePolicy::warn) {
      report.cast.push_back(entry.key + ": " + std::string(number.kind()) + " to " +
                            std::string(to_string(tensor.dtype())));
    }
  }

  C const* catalog_;
  ValueFinder<CatalogSource<C>> finder_;
  std::vector<Wanted> wanted_;
  std::vector<Section> sections_;
  KeyList keys_;
  std::vector<std::string> unused_;
  std::vector<std::string> left_out_;
  std::vector<std::unique_ptr<LivePlan>> plans_;
  HostBuckets memory_;  // of numbers in tensors
};

/// What remains to be done of a load once everything is read and checked: to make it may fail, to apply it
/// allocates nothing and cannot, but for a device that fails in the copy to it.
template <Catalog C>
class ReadyLoad {
 public:
  /// @param dict  must outlive the object.
  ReadyLoad(std::vector<Staged> staged, LoadValues<C> values, StateDict& dict)
      : staged_(std::move(staged)), values_(std::move(values)), dict_(&dict) {
    auto part = staged_.begin();
    for (StateEntry const& entry : dict) {
      if (part->value) {
        own_.emplace_back(entry.key, std::move(*part->value));
      }
      ++part;
    }
    after_ = values_.dict_after(dict);
  }

  /// Overwrites tensors, plain values and optimizers.
  void apply() {
    static_assert(std::is_nothrow_move_assignable_v<StateDict> &&
                  std::is_nothrow_move_constructible_v<Value>);
    for (Staged const& one : staged_) {
      if (one.tensor) {
        one.tensor->apply();
      }
    }
    values_.apply();
    if (after_) {
      *dict_ = std::move(*after_);
    }
    for (auto& [key, value] : own_) {
      dict_->set(key, std::move(value));
    }
  }

 private:
  std::vector<Staged> staged_;
  LoadValues<C> values_;
  StateDict* dict_;
  std::vector<std::pair<std::string, Value>> own_;
  std::optional<StateDict> after_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
