// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

/// Draws a loss for each step as SVG.
inline void write_loss_curve(std::string const& file, std::vector<float> const& losses) {
  constexpr float left = 50, top = 20, width = 420, height = 220;
  float const most = std::ceil(*std::max_element(losses.begin(), losses.end()) * 2) / 2;
  auto const x = [&](std::size_t i) {
    return left + width * static_cast<float>(i) / static_cast<float>(losses.size() - 1);
  };
  auto const y = [&](float loss) { return top + height * (1 - loss / most); };
  std::ofstream out(file);
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 500 290\" width=\"500\" "
         "height=\"290\""
         " font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">\n"
      << "<rect width=\"500\" height=\"290\" fill=\"#fff\"/>\n";
  for (int i = 0; i <= 5; ++i) {  // lines across, labelled left
    float const loss = most * static_cast<float>(i) / 5;
    out << "<path d=\"M" << left << ' ' << y(loss) << " h" << width << "\" stroke=\"#ddd\"/>"
        << "<text x=\"" << left - 8 << "\" y=\"" << y(loss) + 4 << "\" text-anchor=\"end\">"
        << static_cast<float>(static_cast<int>(loss * 100 + 0.5F)) / 100 << "</text>\n";
  }
  out << "<path fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\" d=\"";
  for (std::size_t i = 0; i < losses.size(); ++i) {
    out << (i == 0 ? 'M' : 'L') << x(i) << ' ' << y(losses[i]) << ' ';
  }
  out << "\"/>\n<text x=\"" << left << "\" y=\"" << top + height + 20
      << "\">step 1</text><text x=\"" << left + width << "\" y=\"" << top + height + 20
      << "\" text-anchor=\"end\">step " << losses.size() << "</text>\n<text x=\""
      << left + width / 2 << "\" y=\"" << top + height + 36
      << "\" text-anchor=\"middle\">training loss</text>\n</svg>\n";
  if (!out.flush()) {
    throw std::runtime_error(file + " cannot be written");
  }
}
