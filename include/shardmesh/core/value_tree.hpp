// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/core/value.hpp>

namespace shardmesh {
inline namespace v0 {

/// The element of a list or dict that a step of a path names, or nullptr.
[[nodiscard]] inline Value const* element_of(Value const& container, PathElement const& step) {
  if (auto const* list = container.get<Value::List>(); list != nullptr && !step.is_key()) {
    auto const at = static_cast<std::size_t>(step.index());
    return at < list->size() ? &(*list)[at] : nullptr;
  }
  if (auto const* dict = container.get<Value::Dict>(); dict != nullptr && step.is_key()) {
    for (auto const& [name, value] : *dict) {
      if (name == step.key()) {
        return &value;
      }
    }
  }
  return nullptr;
}

/// Puts nested lists and dicts together of their elements. PyTorch stores each element of a nested
/// container as a value of its own, with its path. A container whose elements all have an index is a
/// list, every other one a dict in the order of its elements. An index that nothing was given for is
/// None, as in PyTorch: what stood there was an empty dict, of which nothing is stored.
///
/// Its functions are templates, so that they are compiled only where they are called.
class ValueTree {
 public:
  ValueTree() = default;

  /// @throws InvalidArgument if a place is given twice, a list has far more gaps than elements, or
  ///         the path is longer than 64 steps.
  template <class Step = PathElement>
  void add(std::vector<Step> const& path, Value value) {
    if (path.size() > most_depth) {
      throw InvalidArgument("shardmesh::ValueTree: a value is nested deeper than " +
                            std::to_string(most_depth));
    }
    if (nodes_.empty()) {
      nodes_.emplace_back();
    }
    std::size_t at = 0;
    for (Step const& step : path) {
      at = child(at, step);
    }
    if (nodes_[at].is_leaf || !nodes_[at].children.empty()) {
      fail(path);
    }
    nodes_[at].leaf = std::move(value);
    nodes_[at].is_leaf = true;
    ++count_;
  }

  /// What was put together; None if nothing was given.
  template <class Whole = Value>
  [[nodiscard]] Whole finish() && {
    std::size_t gaps = 1024 + 16 * count_;
    return nodes_.empty() ? Whole() : value_of<Whole>(0, gaps);
  }

 private:
  static constexpr std::size_t most_depth = 64;

  struct Node {
    bool is_leaf = false;
    bool is_list = true;  ///< so far
    Value leaf;
    std::vector<std::pair<PathElement, std::size_t>> children;
    detail::KeyMap<std::size_t> by_step;
  };

  template <class Step>
  [[noreturn]] static void fail(std::vector<Step> const& path) {
    std::string text;
    for (Step const& step : path) {
      text += text.empty() ? "" : ".";
      text += to_string(step);
    }
    throw InvalidArgument("shardmesh::ValueTree: \"" + text +
                          "\" is given twice, or whole and in parts");
  }

  template <class Step>
  std::size_t child(std::size_t parent, Step const& step) {
    std::string const key = detail::concat(step.is_key() ? "k" : "i", to_string(step));
    if (std::size_t const* const known = nodes_[parent].by_step.find(key)) {
      return *known;
    }
    if (nodes_[parent].is_leaf) {
      fail(std::vector<Step>{step});
    }
    nodes_.emplace_back();
    std::size_t const made = nodes_.size() - 1;
    nodes_[parent].children.emplace_back(step, made);
    nodes_[parent].by_step.add(key, made);
    nodes_[parent].is_list = nodes_[parent].is_list && !step.is_key();
    return made;
  }

  /// @param gaps  how many elements may still be made for which nothing was given: a small file must
  ///              not ask for a large list.
  template <class Whole>
  [[nodiscard]] Whole value_of(std::size_t at, std::size_t& gaps) {
    if (nodes_[at].is_leaf || nodes_[at].children.empty()) {
      return std::move(nodes_[at].leaf);
    }
    if (!nodes_[at].is_list) {
      Value::Dict dict;
      for (auto const& [step, node] : nodes_[at].children) {
        dict.emplace_back(to_string(step), value_of<Whole>(node, gaps));
      }
      return dict;
    }
    Value::List list;
    for (auto const& [step, node] : nodes_[at].children) {
      auto const index = static_cast<std::size_t>(step.index());
      if (index >= list.size()) {
        std::size_t const more = index - list.size();
        if (more > gaps) {
          throw InvalidArgument("shardmesh::ValueTree: element " + std::to_string(index) +
                                " is stored of a list that has only " +
                                std::to_string(nodes_[at].children.size()) + " elements");
        }
        gaps -= more;
        list.resize(index + 1);
      }
      list[index] = value_of<Whole>(node, gaps);
    }
    return list;
  }

  std::vector<Node> nodes_;  // the root first
  std::size_t count_ = 0;
};

}  // namespace v0
}  // namespace shardmesh
