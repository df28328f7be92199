// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include <shardmesh/core/algorithm.hpp>
#include <shardmesh/layout/layout.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A stretch of one tensor dimension that two ranks have in common.
struct Share {
  Interval part;       ///< the global indices
  index_t here = 0;    ///< place of the first in the local tensor of the rank that asks
  index_t there = 0;   ///< place of the first in the peer's
  index_t extent = 0;  ///< of the peer's local tensor in this dimension
  Coordinate at;       ///< of the peer along the mesh dimensions that cut this one; 0 elsewhere
};

/// Coordinates that peers must have; -1 where any will do.
using Fixed = Coordinate;

/// Finds who holds what of a stretch of tensor dimension `dim`: inverts the chunk rule cut by cut, so
/// that only peers with a share are visited. Strided cuts, of which a rank has stretches everywhere,
/// are tried coordinate by coordinate.
class ShareFinder {
 public:
  constexpr ShareFinder(Layout const& layout, std::size_t dim, Fixed const& fixed)
      : layout_(layout), dim_(dim), fixed_(fixed) {
    for (Cut const& one : layout.order()) {
      if (static_cast<std::size_t>(one.tensor_dim) == dim) {
        cuts_.push_back(one);
        is_strided_ = is_strided_ || one.split_factor > 1;
      }
    }
  }

  /// Appends the shares that peers have of `window`, which lies at `here` in the asking rank's tensor.
  /// Those of one peer are in ascending order.
  constexpr void find(Interval window, index_t here, std::vector<Share>& out) const {
    Coordinate const origin(layout_.mesh().size(), 0);
    std::vector<Part> parts{{{0, layout_.shape()[dim_]}, origin}};
    for (Cut const& cut : cuts_) {
      std::vector<Part> next;
      for (Part const& part : parts) {
        split(part, cut, window, next);
      }
      parts = std::move(next);
    }
    for (Part const& part : parts) {
      if (is_strided_) {
        index_t position = 0;
        std::vector<Interval> const ranges = layout_.ranges(dim_, part.at);
        index_t const extent = total(ranges);
        for (Interval const& range : ranges) {
          add(range, position, extent, part.at, window, here, out);
          position += range.size();
        }
      } else {
        add(part.range, 0, part.range.size(), part.at, window, here, out);
      }
    }
  }

 private:
  struct Part {
    Interval range;  // unless the cuts are strided
    Coordinate at;
  };

  constexpr void split(Part const& part,
                       Cut const& cut,
                       Interval window,
                       std::vector<Part>& out) const {
    auto const m = static_cast<std::size_t>(cut.mesh_dim);
    index_t const count = layout_.mesh()[m];
    index_t first = 0;
    index_t last = count - 1;
    if (!is_strided_) {
      index_t const lo = larger(window.lo, part.range.lo) - part.range.lo;
      index_t const hi = smaller(window.hi, part.range.hi) - part.range.lo;
      if (lo >= hi) {
        return;
      }
      index_t const size = ceil_div(part.range.size(), count);
      first = lo / size;
      last = (hi - 1) / size;
    }
    if (fixed_[m] >= 0) {
      first = larger(first, fixed_[m]);
      last = smaller(last, fixed_[m]);
    }
    for (index_t c = first; c <= last; ++c) {
      Part& next = out.emplace_back(part);
      next.at[m] = c;
      if (!is_strided_) {
        Interval const inner = chunk(part.range.size(), count, c);
        next.range = {part.range.lo + inner.lo, part.range.lo + inner.hi};
      }
    }
  }

  static constexpr void add(Interval range,
                            index_t position,
                            index_t extent,
                            Coordinate const& at,
                            Interval window,
                            index_t here,
                            std::vector<Share>& out) {
    index_t const lo = larger(range.lo, window.lo);
    index_t const hi = smaller(range.hi, window.hi);
    if (lo < hi) {
      out.push_back({{lo, hi}, here + lo - window.lo, position + lo - range.lo, extent, at});
    }
  }

  Layout const& layout_;
  std::size_t dim_;
  Fixed const& fixed_;
  ShardOrder cuts_;
  bool is_strided_ = false;
};

/// What the rank at a coordinate of one layout has in common with the ranks of another, as a product over
/// tensor dimensions: a box is one share of each dimension. Boxes of one peer are in row-major order,
/// which is the same seen from both sides.
class SharedBoxes {
  template <class F>
  constexpr void for_each_share(index_t number, F f) const {
    for (std::size_t d = shares_.size(); d-- > 0;) {
      auto const size = static_cast<index_t>(shares_[d].size());
      f(d, shares_[d][static_cast<std::size_t>(number % size)]);
      number /= size;
    }
  }

 public:
  /// @param here, coordinate  the layout and the position of the rank that asks.
  /// @param there, fixed      the layout of the peers, and the coordinates that they must have.
  constexpr SharedBoxes(Layout const& here,
                        Coordinate const& coordinate,
                        Layout const& there,
                        Fixed const& fixed)
      : there_(there) {
    std::size_t const dims = here.shape().size();
    shares_.resize(dims);
    for (std::size_t d = 0; d < dims; ++d) {
      ShareFinder const finder(there, d, fixed);
      index_t position = 0;
      for (Interval const& range : here.ranges(d, coordinate)) {
        finder.find(range, position, shares_[d]);
        position += range.size();
      }
      count_ *= static_cast<index_t>(shares_[d].size());
      local_shape_.push_back(position);
    }
  }

  [[nodiscard]] constexpr index_t count() const noexcept { return count_; }

  /// The local shape of the rank that asks.
  [[nodiscard]] constexpr Shape const& local_shape() const noexcept { return local_shape_; }

  /// A box that the rank shares with peers.
  struct Common {
    Box box;
    Shape here;         ///< its place in the local tensor of the rank that asks
    Shape there;        ///< its place in the peer's
    Shape there_shape;  ///< local shape of the peer
  };
  /// @pre 0 <= number < count().
  [[nodiscard]] constexpr Common box(index_t number) const {
    Common result;
    std::size_t const dims = shares_.size();
    result.box.offset = result.box.extent = result.here = result.there = result.there_shape =
        Shape(dims, 0);
    for_each_share(number, [&](std::size_t d, Share const& share) {
      result.box.offset[d] = share.part.lo;
      result.box.extent[d] = share.part.size();
      result.here[d] = share.here;
      result.there[d] = share.there;
      result.there_shape[d] = share.extent;
    });
    return result;
  }

  /// Puts the coordinates along the dimensions that cut of those who have box `number` into `at`.
  constexpr void locate(index_t number, Coordinate& at) const {
    for_each_share(number, [&](std::size_t d, Share const& share) {
      for (Cut const& cut : there_.order()) {
        if (static_cast<std::size_t>(cut.tensor_dim) == d) {
          auto const m = static_cast<std::size_t>(cut.mesh_dim);
          at[m] = share.at[m];
        }
      }
    });
  }

 private:
  Layout const& there_;
  std::vector<std::vector<Share>> shares_;  // by tensor dimension
  Shape local_shape_;
  index_t count_ = 1;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
