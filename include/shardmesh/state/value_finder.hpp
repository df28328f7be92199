// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/log.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/core/value_tree.hpp>
#include <shardmesh/state/live_sections.hpp>
#include <shardmesh/state/state_value.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Where a plain value is found among what is stored.
struct ValuePlace {
  enum class How : unsigned char {
    itself,  ///< under its own key
    inside,  ///< in a container that is stored whole, as PyTorch 2.3 did; outermost first
    parts,   ///< its elements are stored, each under a key of its own
  };
  How how = How::itself;
  std::vector<std::string> keys;  ///< none: nowhere
};

/// Says of what stands among the options of an optimizer, and was left out of a load that ignores what it does not
/// know, that it is lost with the next save: other options that are unknown are carried along.
inline void warn_of_left_out(std::string_view call, std::vector<std::string> const& keys) noexcept {
  for (std::string const& key : keys) {
    say(LogLevel::warning, [&] {
      return concat(call, ": \"", escaped(key),
                    "\" is a tensor of several elements among the options of an optimizer, which "
                    "only carries plain values along: it is not loaded, and will be missing in the "
                    "next save; keep it in a state of its own");
    });
  }
}

/// Finds plain values of a state dict among stored keys, whether containers were stored whole or
/// element by element.
///
/// @tparam Source  what is stored: `keys()`, `contains(key)`, `describe()` for messages, `elements(key)`
///                 (of a tensor, -1 for a plain value), `path(key)` ({key} if it is not known).
template <class Source>
class ValueFinder {
 public:
  /// @param who  the call, for messages.
  ValueFinder(Source source, std::string who) : source_(std::move(source)), who_(std::move(who)) {}

  /// @throws KeyError if there are tensors where the state dict has a plain value.
  [[nodiscard]] ValuePlace place_of(StateEntry const& entry) {
    if (source_.contains(entry.key)) {
      if (!is_number(entry.key)) {
        refuse("\"" + escaped(entry.key) + "\" is a tensor, the state dict has a plain value");
      }
      return {ValuePlace::How::itself, {entry.key}};
    }
    ValuePlace place{ValuePlace::How::inside, containers(entry.path, 1)};
    if (place.keys.empty()) {
      place = {ValuePlace::How::parts, below(entry.key + ".")};
      for (std::string const& key : place.keys) {
        if (!is_number(key)) {
          refuse("\"" + escaped(key) + "\" is a tensor, the state dict has the plain value \"" +
                 escaped(entry.key) + "\"; make a state dict with the names that were saved");
        }
      }
    }
    return place;
  }

  /// The number for a 0-d tensor that is not stored as one.
  [[nodiscard]] ValuePlace number_place_of(StateEntry const& entry) const {
    if (source_.contains(entry.key)) {
      return {ValuePlace::How::itself, {entry.key}};
    }
    return {ValuePlace::How::inside, containers(entry.path, 1)};
  }

  /// @param value_of  gives the value that is stored under a key.
  /// @returns nothing if it is in none of the containers.
  template <class ValueOf>
  [[nodiscard]] std::optional<Value> value(StateEntry const& entry,
                                           ValuePlace const& place,
                                           ValueOf const& value_of) const {
    if (place.how == ValuePlace::How::parts) {
      return put_together(entry, place.keys, value_of);
    }
    for (std::string const& key : place.keys) {
      Value const& stored = value_of(key);
      if (place.how == ValuePlace::How::itself) {
        return stored;
      }
      if (Value const* const part = inside(stored, key, entry.path)) {
        return *part;
      }
    }
    return std::nullopt;
  }

  /// The keys under which values of an object may be stored.
  struct ObjectKeys {
    std::vector<std::string> values;
    std::vector<std::string> tensors;  ///< of several elements: no value, so nothing takes them
  };
  [[nodiscard]] ObjectKeys keys_of(LiveSection const& section) {
    if (section.wanted.keys().empty()) {
      return {};
    }
    ObjectKeys keys{containers(section.path, 0), {}};
    std::string const root = section.prefix + section.owner->root();
    if (source_.contains(root)) {
      (is_number(root) ? keys.values : keys.tensors).push_back(root);
    }
    for (std::string& key : below(root + ".")) {
      (is_number(key) ? keys.values : keys.tensors).push_back(std::move(key));
    }
    return keys;
  }

  /// What is stored of an object, as of `LiveLoad::found`.
  /// @throws InvalidArgument if a value is stored twice.
  template <class ValueOf>
  [[nodiscard]] Value::Dict found(LiveSection const& section,
                                  std::vector<std::string> const& keys,
                                  ValueOf const& value_of) const {
    std::string const root = section.owner->root();
    ValueTree tree;
    for (std::string const& key : keys) {
      if (key.size() >= section.prefix.size() + root.size()) {
        tree.add(rest_of(key, section.prefix), value_of(key));
        continue;
      }
      Value const& whole = value_of(key);
      Value const* const part = inside(whole, key, section.path);
      auto const* const dict = part == nullptr ? nullptr : part->template get<Value::Dict>();
      for (std::size_t i = 0; dict != nullptr && i < dict->size(); ++i) {
        auto const& [name, value] = (*dict)[i];
        if (name == root || name.starts_with(root + ".")) {
          tree.add({name}, value);
        }
      }
    }
    Value const whole = std::move(tree).finish();
    auto const* const dict = whole.get<Value::Dict>();
    return dict == nullptr ? Value::Dict{} : *dict;
  }

 private:
  [[noreturn]] void refuse(std::string const& what) const {
    throw KeyError(who_ + ": " + std::string(source_.describe()) + ": " + what);
  }

  [[nodiscard]] bool is_number(std::string const& key) const {
    auto const elements = source_.elements(key);
    return elements < 0 || elements == 1;
  }

  /// The plain values that are stored of what a path leads through, outermost first.
  /// @param own  so many steps at its end are not asked for.
  [[nodiscard]] std::vector<std::string> containers(std::vector<PathElement> const& path,
                                                    std::size_t own) const {
    std::vector<std::string> keys;
    std::string prefix;
    for (std::size_t depth = 0; depth + own < path.size(); ++depth) {
      prefix += depth == 0 ? "" : ".";
      prefix += to_string(path[depth]);
      if (source_.contains(prefix) && source_.elements(prefix) < 0) {
        keys.push_back(prefix);
      }
    }
    return keys;
  }

  /// What a path leads to in the value that is stored of its first steps, `key`; or nullptr.
  [[nodiscard]] static Value const* inside(Value const& stored,
                                           std::string const& key,
                                           std::vector<PathElement> const& path) {
    Value const* part = &stored;
    std::string prefix;
    for (std::size_t depth = 0; depth < path.size() && part != nullptr; ++depth) {
      if (prefix.size() >= key.size() && depth > 0) {
        part = element_of(*part, path[depth]);
      }
      prefix += depth == 0 ? "" : ".";
      prefix += to_string(path[depth]);
    }
    return part;
  }

  /// The stored keys that start with `prefix`, in the order in which they are stored.
  [[nodiscard]] std::vector<std::string> below(std::string const& prefix) {
    if (sorted_.empty()) {
      std::size_t position = 0;
      for (std::string const& key : source_.keys()) {
        sorted_.emplace_back(key, position++);
      }
      std::sort(sorted_.begin(), sorted_.end());
    }
    std::vector<std::pair<std::size_t, std::string const*>> found;
    for (auto at =
             std::lower_bound(sorted_.begin(), sorted_.end(), std::pair(prefix, std::size_t{0}));
         at != sorted_.end() && at->first.starts_with(prefix); ++at) {
      found.emplace_back(at->second, &at->first);
    }
    std::sort(found.begin(), found.end());
    std::vector<std::string> keys;
    for (auto const& [position, key] : found) {
      keys.push_back(*key);
    }
    return keys;
  }

  /// The steps of a stored key's path that follow those whose key is `prefix`; one step, if the path
  /// is not known.
  [[nodiscard]] std::vector<PathElement> rest_of(std::string const& key,
                                                 std::string const& prefix) const {
    std::vector<PathElement> const path = source_.path(key);
    std::size_t length = 0;  // of the key of the steps so far, with a dot
    for (std::size_t depth = 0; depth < path.size() && length <= prefix.size(); ++depth) {
      if (length == prefix.size()) {
        return {path.begin() + static_cast<std::ptrdiff_t>(depth), path.end()};
      }
      length += to_string(path[depth]).size() + 1;
    }
    return {PathElement(key.substr(prefix.size()))};
  }

  /// Steps that are not known but for their key: digits are an index.
  [[nodiscard]] static std::vector<PathElement> split(std::string_view text) {
    std::vector<PathElement> path;
    while (true) {
      std::size_t const dot = std::min(text.find('.'), text.size());
      std::string_view const part = text.substr(0, dot);
      index_t index = 0;
      auto const [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
      bool const is_index = error == std::errc{} && end == part.data() + part.size() &&
                            index >= 0 && std::to_string(index) == part;
      path.push_back(is_index ? PathElement(index) : PathElement(std::string(part)));
      if (dot == text.size()) {
        return path;
      }
      text.remove_prefix(dot + 1);
    }
  }

  template <class ValueOf>
  [[nodiscard]] std::optional<Value> put_together(StateEntry const& entry,
                                                  std::vector<std::string> const& keys,
                                                  ValueOf const& value_of) const {
    if (keys.empty()) {
      return std::nullopt;
    }
    ValueTree tree;
    std::string const prefix = entry.key + ".";
    for (std::string const& key : keys) {
      bool const is_known = source_.path(key).size() > 1;
      tree.add(is_known ? rest_of(key, prefix) : split(key.substr(prefix.size())), value_of(key));
    }
    return std::move(tree).finish();
  }

  Source source_;
  std::string who_;
  std::vector<std::pair<std::string, std::size_t>> sorted_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
