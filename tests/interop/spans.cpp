// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/interop/mdspan.hpp>
#include <shardmesh/interop/ranges.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <memory>
#include <numeric>
#include <vector>

#if __has_include(<version>)
#include <version>
#endif
#ifdef __cpp_lib_mdspan
#include <mdspan>
#endif

#include <doctest/doctest.h>

#include "../support/errors.hpp"

namespace spans_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;

namespace {

// What of an mdspan is used, as the standard names it; the real ones are in cuda_doors.cu and, where the
// standard library has it, below.
template <class I, std::size_t... E>
struct Extents {
  using index_type = I;
  std::array<I, sizeof...(E)> values{};
  template <std::convertible_to<I>... V>
    requires(sizeof...(V) == sizeof...(E))
  explicit Extents(V... v) : values{static_cast<I>(v)...} {}
};
constexpr std::size_t open = static_cast<std::size_t>(-1);

/// Row-major, or column-major where that is asked for.
template <bool Right>
struct Layout {
  template <class X>
  struct mapping {
    X extents;
    explicit mapping(X const& x) : extents(x) {}
    [[nodiscard]] auto stride(std::size_t d) const {
      typename X::index_type product = 1;
      std::size_t const rank = extents.values.size();
      for (std::size_t k = 0; k < rank; ++k) {
        if (Right ? k > d : k < d) {
          product = static_cast<typename X::index_type>(product * extents.values[k]);
        }
      }
      return product;
    }
  };
};

template <class T, class X, class L = Layout<true>>
struct Span;
template <class T, class I, std::size_t... E, class L>
struct Span<T, Extents<I, E...>, L> {
  using element_type = T;
  using index_type = I;
  using extents_type = Extents<I, E...>;
  using layout_type = L;
  using mapping_type = typename L::template mapping<extents_type>;
  Span(T* data, mapping_type const& map) : data_(data), map_(map) {}
  [[nodiscard]] static constexpr std::size_t rank() { return sizeof...(E); }
  [[nodiscard]] static constexpr std::size_t static_extent([[maybe_unused]] std::size_t d) {
    return std::array<std::size_t, sizeof...(E) + 1>{E..., 0}[d];
  }
  [[nodiscard]] T* data_handle() const { return data_; }
  [[nodiscard]] I extent(std::size_t d) const { return map_.extents.values[d]; }
  [[nodiscard]] I stride(std::size_t d) const { return map_.stride(d); }
  [[nodiscard]] mapping_type const& mapping() const { return map_; }

 private:
  T* data_;
  mapping_type map_;
};

using Matrix = Span<float, Extents<sm::index_t, open, open>>;

sm::Tensor<float> counting(sm::Shape const& shape) {
  sm::Tensor<float> tensor(shape);
  std::iota(tensor.span().begin(), tensor.span().end(), 0.0F);
  return tensor;
}

}  // namespace

TEST_SUITE_BEGIN("interop.spans");

TEST_CASE("to_mdspan: the local part of a distributed tensor, and back, at its address") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    auto const x = sm::distribute(counting({5, 4}), mesh, sm::placements<sm::Shard<0>>);
    auto const m = sm::to_mdspan<Matrix>(x);
    CHECK(m.data_handle() == x.to_local().data());
    CHECK(m.extent(0) == (world.rank() == 0 ? 3 : 2));
    CHECK(m.extent(1) == 4);
    CHECK(m.stride(0) == 4);
    auto const back = sm::from_local(sm::from_mdspan(m), mesh, sm::placements<sm::Shard<0>>);
    CHECK(back.shape() == sm::Shape{5, 4});
    CHECK(back.to_local().data() == x.to_local().data());
    auto const read = sm::to_mdspan<Span<float const, Extents<int, open, 4>>>(x);
    CHECK(read.data_handle() == x.to_local().data());
  });
}

TEST_CASE("to_mdspan, from_mdspan: what does not fit is refused and says why") {
  auto const x = counting({3, 4});
  auto const error = [](auto f) { return test::error_of<sm::ShapeError>(f); };
  using Line = Span<float, Extents<int, open>>;
  using Fixed = Span<float, Extents<int, open, 5>>;
  using Small = Span<float, Extents<signed char, open, open>>;
  using Columns = Span<float, Extents<int, open, open>, Layout<false>>;
  CHECK(error([&] { (void)sm::to_mdspan<Line>(x); }).find("ask for 2") != std::string::npos);
  CHECK(error([&] { (void)sm::to_mdspan<Fixed>(x); }).find("fixes dimension 1 to 5") !=
        std::string::npos);
  CHECK(sm::to_mdspan<Small>(x).extent(1) == 4);
  CHECK(error([] { (void)sm::to_mdspan<Small>(counting({16, 16})); }).find("256 elements") !=
        std::string::npos);
  CHECK(error([&] { (void)sm::to_mdspan<Columns>(x); }).find("layout_right") != std::string::npos);
  CHECK(sm::to_mdspan<Columns>(counting({1, 4})).extent(1) == 4);
  Columns const columns(x.data(), Columns::mapping_type(Columns::extents_type(3, 4)));
  CHECK(error([&] { (void)sm::from_mdspan(columns); }).find("strides (1, 3) are not row-major") !=
        std::string::npos);
}

TEST_CASE("from_mdspan: an owner is kept") {
  auto const owner = std::make_shared<std::vector<float>>(12, 1.0F);
  sm::Tensor<float> x;
  {
    Matrix const m(owner->data(), Matrix::mapping_type(Matrix::extents_type(3, 4)));
    x = sm::from_mdspan(m, owner);
  }
  CHECK(owner.use_count() == 2);
  CHECK(x.data() == owner->data());
  x = {};
  CHECK(owner.use_count() == 1);
}

#ifdef __cpp_lib_mdspan
TEST_CASE("std::mdspan") {
  auto const x = counting({3, 4});
  using Standard = std::mdspan<float, std::dextents<sm::index_t, 2>>;
  CHECK(sm::from_mdspan(sm::to_mdspan<Standard>(x)).data() == x.data());
  CHECK(sm::to_mdspan<Standard>(x).extent(1) == 4);
}
#endif

TEST_CASE("ranges: elements and rows of local parts") {
  sm::launch(sm::threads{2}, [](World& world) {
    auto const mesh = sm::device_mesh(world, {2});
    auto const x = sm::distribute(counting({5, 4}), mesh, sm::placements<sm::Shard<0>>);
    CHECK(sm::elements(x).data() == x.to_local().data());
    CHECK(std::ranges::max(sm::elements(x)) == (world.rank() == 0 ? 11.0F : 19.0F));
    CHECK(sm::elements<float>(sm::AnyTensor(x)).size() == sm::elements(x).size());
    float first = world.rank() == 0 ? 0.0F : 12.0F;
    int count = 0;
    for (auto const row : sm::rows(x)) {
      CHECK(row.size() == 4);
      CHECK(row[0] == first);
      first += 4;
      ++count;
    }
    CHECK(count == (world.rank() == 0 ? 3 : 2));
  });
  CHECK(sm::rows(counting({})).size() == 1);
  CHECK(sm::rows(counting({3, 0})).size() == 0);
  CHECK(test::error_of<sm::InvalidArgument>([] {
          (void)sm::elements<int>(sm::AnyTensor(counting({2})));
        }).find("float32, asked for as int32") != std::string::npos);
}

TEST_CASE("from_range: the elements of a vector or a span are a tensor's") {
  std::vector<float> values(12);
  auto const x = sm::from_range(values, {3, 4});
  CHECK(x.data() == values.data());
  CHECK(sm::from_range(std::span(values).subspan(4, 4), {4}).data() == values.data() + 4);
  auto const kept = std::make_shared<std::vector<float>>(2);
  auto const y = sm::from_range(*kept, {2}, kept);
  CHECK(kept.use_count() == 2);
  CHECK(test::error_of<sm::ShapeError>([&] {
          (void)sm::from_range(values, {5});
        }).find("needs 5 elements, the range has 12") != std::string::npos);
}

TEST_SUITE_END();

}  // namespace spans_test
