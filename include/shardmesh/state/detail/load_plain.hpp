// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/key_map.hpp>
#include <shardmesh/core/value.hpp>
#include <shardmesh/state/detail/load_source.hpp>
#include <shardmesh/state/live_sections.hpp>
#include <shardmesh/state/state_dict.hpp>
#include <shardmesh/state/value_finder.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// The plain values of a load from another state dict: the dict's own, and those of optimizers.
/// @tparam Sources  `LoadSources`; a template, so that it is compiled only where a state is loaded.
template <class Sources>
class LoadPlain {
 public:
  /// @param sources  must outlive the object.
  explicit LoadPlain(Sources const& sources)
      : sources_(&sources), finder_(SourceKeys{&sources}, "shardmesh::load_state_dict") {}

  /// What there is for an entry, a plain value or a 0-d tensor whose number is no tensor; nothing if it
  /// is missing.
  /// @throws KeyError, InvalidArgument if there are tensors that are no numbers.
  [[nodiscard]] std::optional<Value> find(StateEntry const& entry) {
    ValuePlace const place =
        entry.is_tensor() ? finder_.number_place_of(entry) : finder_.place_of(entry);
    read(place.keys);
    for (std::string const& key : place.keys) {
      used_.add(key);
    }
    return finder_.value(entry, place, ValueOf{read_});
  }

  /// Notes what the dict gets.
  void put(std::string const& key, Value value) { values_.emplace_back(key, std::move(value)); }

  /// Lets an optimizer check what there is for it.
  /// @param loads  does the load replace the tensor of this key?
  /// @returns what it misses.
  /// @throws InvalidArgument if a value makes no sense.
  template <class Loads>
  [[nodiscard]] std::vector<LiveLoad::Missing> prepare(LiveSection const& section,
                                                       Loads const& loads) {
    LiveLoad load;
    load.prefix = section.prefix;
    load.wanted = section.wanted;
    auto const all = finder_.keys_of(section);
    std::vector<std::string> const& keys = all.values;
    read(keys);
    load.found = finder_.found(section, keys, ValueOf{read_});
    for (auto const& [key, link] : section.tensors) {
      if (loads(key)) {
        load.tensors.emplace_back(link.group, link.name);
      }
    }
    plans_.push_back({section.owner.get(), section.owner->prepare(load)});
    for (std::string const& key : keys) {
      if (load.asks_for(key)) {
        used_.add(key);
      }
    }
    std::copy_if(all.tensors.begin(), all.tensors.end(), std::back_inserter(left_out_),
                 [&load](std::string const& key) { return load.asks_for(key); });
    return std::move(load.missing);
  }

  /// Tensors of several elements in the groups that optimizers have asked for: nobody can take them.
  [[nodiscard]] std::vector<std::string> left_out(StateDict const& into) const {
    std::vector<std::string> keys;
    std::copy_if(left_out_.begin(), left_out_.end(), std::back_inserter(keys),
                 [&into](std::string const& key) { return !into.contains(key); });
    return keys;
  }

  /// Is it the source of a value with another key?
  [[nodiscard]] bool uses(std::string const& key) const { return used_.contains(key); }

  /// The dict with its new plain values, and with what the optimizers will have after `apply`.
  [[nodiscard]] StateDict dict_after(StateDict const& into) const {
    StateDict next = into;
    for (auto const& [key, value] : values_) {
      next.set(key, value);
    }
    auto current = up_to_date(next, [this](LiveSection const& section) {
      for (std::size_t i = plans_.size(); i-- > 0;) {
        if (plans_[i].owner == section.owner.get()) {
          return plans_[i].plan->places();
        }
      }
      return section.owner->places();
    });
    return current ? *std::move(current) : next;
  }

  /// Gives the optimizers what was found for them.
  void apply() const noexcept {
    for (Prepared const& one : plans_) {
      one.plan->apply();
    }
  }

 private:
  struct Prepared {
    LiveValues const* owner;
    std::unique_ptr<LivePlan> plan;
  };
  struct ValueOf {
    KeyMap<Value> const& read;
    Value const& operator()(std::string const& key) const { return read.at(key); }
  };

  void read(std::vector<std::string> const& keys) {
    for (std::string const& key : keys) {
      LoadSource const& source = sources_->by_key.at(key);
      std::optional<Value> number = source.is_tensor ? source.number() : source.value;
      if (!number) {
        throw InvalidArgument("shardmesh::load_state_dict: \"" + key + "\" is a tensor of " +
                              std::string(to_string(source.dtype)) +
                              ", which cannot become the plain number that is wanted; take the "
                              "full state first, or save it as a number");
      }
      read_.add(key, std::move(*number));
    }
  }

  Sources const* sources_;
  ValueFinder<SourceKeys> finder_;
  KeyMap<Value> read_;
  KeyList used_;
  std::vector<std::string> left_out_;
  std::vector<std::pair<std::string, Value>> values_;
  std::vector<Prepared> plans_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
