// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// How shapes, meshes, placements and element types are written on a command line: as PyTorch prints them, as the
// library prints them, or short.

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <shardmesh/core/dtype.hpp>
#include <shardmesh/core/nearest.hpp>
#include <shardmesh/core/text.hpp>
#include <shardmesh/layout/layout.hpp>

namespace tool {

namespace sm = shardmesh;

/// The most ranks of a mesh that is shown; a plan for one rank costs little, a list of all does not.
inline constexpr sm::index_t most_ranks = 65536;

[[noreturn]] inline void refuse(std::string const& what,
                                std::string const& text,
                                char const* wanted) {
  throw sm::InvalidArgument(sm::detail::concat(what, " \"", sm::escaped(text), "\" ", wanted));
}

/// `; did you mean "Shard"?`, or nothing.
template <class Words>
std::string did_you_mean(std::string const& word, Words const& words) {
  std::string const near = sm::nearest(word, words, sm::typing_error(word.size()));
  return near.empty() ? "." : sm::detail::concat("; did you mean \"", near, "\"?");
}

/// `text` without blanks, and without the brackets around the whole.
inline std::string without_brackets(std::string_view text) {
  std::string bare;
  std::copy_if(text.begin(), text.end(), std::back_inserter(bare),
               [](char c) { return std::isspace(static_cast<unsigned char>(c)) == 0; });
  bool const round = bare.size() > 1 && bare.front() == '(' && bare.back() == ')';
  bool const square = bare.size() > 1 && bare.front() == '[' && bare.back() == ']';
  return round || square ? bare.substr(1, bare.size() - 2) : bare;
}

/// The parts between separators that stand in no brackets; a separator at the end is allowed, as in "(7,)".
inline std::vector<std::string> parts_of(std::string const& text, std::string_view separators) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (char const c : text) {
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    if (depth == 0 && separators.find(c) != std::string_view::npos) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  if (parts.back().empty()) {
    parts.pop_back();
  }
  return parts;
}

/// A number with a sign; false for anything else.
inline bool read_number(std::string const& text, sm::index_t& number) {
  std::size_t const digits = text.empty() || text.front() != '-' ? 0 : 1;
  if (text.size() == digits || text.size() > 18 ||
      text.find_first_not_of("0123456789", digits) != std::string::npos) {
    return false;
  }
  number = std::stoll(text);
  return true;
}

/// "7,5", "7x5", "(7, 5)", "[7, 5]"; "" and "()" are 0-d.
/// @throws InvalidArgument for anything else.
inline sm::Shape parse_shape(std::string const& text, char const* option) {
  sm::Shape shape;
  for (std::string const& part : parts_of(without_brackets(text), ",xX*")) {
    sm::index_t extent = 0;
    if (!read_number(part, extent) || extent < 0) {
      refuse(option, text, "is no list of numbers; write for example 7,5");
    }
    shape.push_back(extent);
  }
  return shape;
}

/// The same for a mesh: at least one dimension, and not more ranks than can be shown.
inline sm::Shape parse_mesh(std::string const& text, char const* option) {
  if (text.empty()) {
    throw sm::InvalidArgument(
        sm::detail::concat(option, " is missing; write for example ", option, " 2,2"));
  }
  sm::Shape const mesh = parse_shape(text, option);
  if (mesh.empty()) {
    refuse(option, text, "has no dimension; write for example 2,2");
  }
  sm::index_t ranks = 1;
  for (sm::index_t const extent : mesh) {
    if (extent == 0) {
      refuse(option, text, "has a dimension without ranks");
    }
    if (extent > most_ranks || ranks * extent > most_ranks) {
      refuse(option, text, "has more than 65536 ranks, which nobody could look at");
    }
    ranks *= extent;
  }
  return mesh;
}

/// One placement: "R", "S0", "P", "SS0:2", or as the library and PyTorch print them: "Replicate()", "Shard(dim=0)",
/// "Partial(avg)", "StridedShard(0, split_factor=2)", "_StridedShard(dim=0, sf=2)".
/// @throws InvalidArgument for anything else.
inline sm::Placement parse_placement(std::string const& text) {
  constexpr char const* wanted =
      "is no placement; write R, S<dim>, P or SS<dim>:<split factor>, or as in Shard(0)";
  std::string bare = without_brackets(text);
  std::size_t const open = std::min(bare.find('('), bare.size());
  std::string name = bare.substr(0, open);
  std::vector<std::string> arguments;
  if (open < bare.size()) {
    if (bare.back() != ')') {
      refuse("placement", text, wanted);
    }
    arguments = parts_of(bare.substr(open + 1, bare.size() - open - 2), ",");
  } else {  // S0, SS0:2: what follows the letters
    std::size_t const digits = std::min(name.find_first_of("-0123456789"), name.size());
    if (digits < name.size()) {
      arguments = parts_of(name.substr(digits), ":");
      name.resize(digits);
    }
  }
  for (std::string& argument : arguments) {  // "dim=0"
    std::size_t const equals = argument.find('=');
    argument.erase(0, equals == std::string::npos ? 0 : equals + 1);
  }
  auto const number = [&](std::size_t i, sm::index_t least) {
    sm::index_t value = 0;
    if (i >= arguments.size() || !read_number(arguments[i], value) || value < least ||
        value > 1'000'000'000) {
      refuse("placement", text, wanted);
    }
    return value;
  };
  auto const takes = [&](std::size_t least, std::size_t most) {
    if (arguments.size() < least || arguments.size() > most) {
      refuse("placement", text, wanted);
    }
  };
  if (name == "R" || name == "Replicate") {
    takes(0, 0);
    return sm::Replicate{};
  }
  if (name == "S" || name == "Shard") {
    takes(1, 1);
    return sm::Shard{static_cast<int>(number(0, -1'000'000'000))};
  }
  if (name == "SS" || name == "StridedShard" || name == "_StridedShard") {
    takes(2, 2);
    return sm::Placement::strided(static_cast<int>(number(0, -1'000'000'000)), number(1, 1));
  }
  if (name == "P" || name == "Partial") {
    takes(0, 1);
    for (sm::ReduceOp const op : {sm::ReduceOp::sum, sm::ReduceOp::avg, sm::ReduceOp::max,
                                  sm::ReduceOp::min, sm::ReduceOp::product}) {
      if (arguments.empty() || arguments[0] == to_string(op)) {
        return sm::Placement::partial(op);
      }
    }
  }
  std::string const near =
      sm::nearest(name,
                  std::vector<std::string>{"Replicate", "Shard", "StridedShard", "Partial", "R",
                                           "S", "SS", "P"},
                  name.size() < 2 ? 0 : sm::typing_error(name.size()));
  if (!near.empty()) {
    refuse("placement", text,
           sm::detail::concat("is no placement; did you mean ", near, bare.substr(name.size()), "?")
               .c_str());
  }
  refuse("placement", text, wanted);
}

/// "S0,R", "(Shard(0), Replicate)".
inline sm::PlacementList parse_placements(std::string const& text) {
  sm::PlacementList list;
  for (std::string const& part : parts_of(without_brackets(text), ",")) {
    list.push_back(parse_placement(part));
  }
  return list;
}

/// PyTorch's names of element types, and fp64, fp32, fp16, bf16.
/// @throws InvalidArgument for anything else.
inline sm::DType parse_dtype(std::string const& text) {
  std::string const name = text == "fp64"   ? "float64"
                           : text == "fp32" ? "float32"
                           : text == "fp16" ? "float16"
                           : text == "bf16" ? "bfloat16"
                                            : text;
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    if (info.name == name) {
      return info.dtype;
    }
  }
  std::vector<std::string> names{"fp64", "fp32", "fp16", "bf16"};
  for (sm::DTypeInfo const& info : sm::dtype_table) {
    names.emplace_back(info.name);
  }
  refuse("--dtype", text,
         ("is not known; write for example float32 or bf16" + did_you_mean(text, names)).c_str());
}

}  // namespace tool
