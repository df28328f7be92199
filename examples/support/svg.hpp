// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// Pictures as SVG: rectangles with a title, text, arrows; colours; sizes for people.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

#include <shardmesh/core/index.hpp>
#include <shardmesh/core/text.hpp>

namespace tool {

namespace sm = shardmesh;

/// Text as XML has it.
inline std::string in_xml(std::string const& text) {
  std::string result;
  for (char const c : text) {
    if (c == '<' || c == '>' || c == '&' || c == '"') {
      result += sm::detail::concat("&#", std::to_string(static_cast<int>(c)), ';');
    } else {
      result += c;
    }
  }
  return result;
}

/// "1.5 MiB".
inline std::string in_words(sm::index_t bytes) {
  constexpr std::array<char const*, 6> units{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), value < 10 && unit > 0 ? "%.1f %s" : "%.0f %s", value,
                units[unit]);
  return text.data();
}

class Svg {
 public:
  void rect(
      double x, double y, double w, double h, std::string const& fill, std::string const& title) {
    body_ += sm::detail::concat("<rect x=\"", num(x), "\" y=\"", num(y), "\" width=\"", num(w),
                                "\" height=\"", num(h), "\" fill=\"", fill,
                                "\" stroke=\"#fff\"><title>", title, "</title></rect>\n");
    grow(x + w, y + h);
  }
  /// @param anchor  start, middle or end.
  void text(double x, double y, std::string const& words, char const* anchor, int size = 12) {
    body_ +=
        sm::detail::concat("<text x=\"", num(x), "\" y=\"", num(y), "\" text-anchor=\"", anchor,
                           "\" font-size=\"", std::to_string(size), "\">", words, "</text>\n");
    double const width = 0.62 * size * static_cast<double>(words.size());
    grow(x + (*anchor == 's' ? width : *anchor == 'm' ? width / 2 : 0), y + 4);
  }
  void arrow(double x1, double x2, double y) {
    body_ += sm::detail::concat("<path d=\"M", num(x1), ' ', num(y), " H", num(x2),
                                " m-8 -5 l8 5 l-8 5\" fill=\"none\" "
                                "stroke=\"#333\" stroke-width=\"2\"/>\n");
  }
  [[nodiscard]] std::string done() const {
    std::string const w = num(width_ + 20);
    std::string const h = num(height_ + 20);
    return sm::detail::concat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", w, "\" height=\"", h,
        "\" viewBox=\"0 0 ", w, ' ', h,
        "\" font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" "
        "fill=\"#fff\"/>\n",
        body_, "</svg>\n");
  }

 private:
  static std::string num(double value) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.1f", value);
    return text.data();
  }
  void grow(double x, double y) {
    width_ = std::max(width_, x);
    height_ = std::max(height_, y);
  }

  std::string body_;
  double width_ = 0;
  double height_ = 0;
};

/// Colours far apart for neighbours: steps of the golden angle around the circle of hues.
inline std::string color_of(int rank) {
  return sm::detail::concat("hsl(", std::to_string((rank * 137) % 360), ",60%,",
                            std::to_string(72 - rank % 3 * 8), "%)");
}

}  // namespace tool
