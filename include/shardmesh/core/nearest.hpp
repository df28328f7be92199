// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace shardmesh {
inline namespace v0 {

/// How many letters must be put in, left out, replaced, or swapped with their neighbour to make `b` of `a`
/// (the optimal string alignment distance); `most` if it is that many or more.
[[nodiscard]] inline std::size_t edit_distance(std::string_view a,
                                               std::string_view b,
                                               std::size_t most = std::string_view::npos) {
  if (std::max(a.size(), b.size()) - std::min(a.size(), b.size()) >= most) {
    return most;
  }
  std::vector<std::size_t> before(b.size() + 1);  // the row before the last, the last, this one
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before.swap(last);
    last.swap(row);
    row[0] = i;
    std::size_t least = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] =
          std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
      least = std::min(least, row[j]);
    }
    if (least > most) {
      return most;
    }
  }
  return std::min(row.back(), most);
}

/// The word that is nearest to `word`, for "did you mean": one that only has more, or fewer, steps in front
/// ("weight", "model.weight") before any other, else the one of the least `edit_distance`, the first of equals.
/// @param most  of a distance that is still near.
/// @returns "" if none is near.
template <class Words>
[[nodiscard]] std::string nearest(std::string const& word,
                                  Words const& words,
                                  std::size_t most = std::string_view::npos) {
  auto const ends_with_steps = [](std::string_view longer, std::string_view shorter) {
    return longer.size() > shorter.size() + 1 && longer.ends_with(shorter) &&
           longer[longer.size() - shorter.size() - 1] == '.';
  };
  std::size_t best = most == std::string_view::npos ? most : most + 1;
  std::string found;
  for (auto const& other : words) {
    std::string_view const view = other;
    if (ends_with_steps(view, word) || ends_with_steps(word, view)) {
      return std::string(view);
    }
    if (std::size_t const distance = edit_distance(word, view, best); distance < best) {
      best = distance;
      found = view;
    }
  }
  return found;
}

/// How far a typing error in a word of this length may go.
[[nodiscard]] constexpr std::size_t typing_error(std::size_t length) noexcept {
  return length < 3 ? 1 : length < 8 ? 2 : 3;
}

}  // namespace v0
}  // namespace shardmesh
