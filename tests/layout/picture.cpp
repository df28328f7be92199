// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/layout/picture.hpp>

#include <algorithm>
#include <string>

#include <doctest/doctest.h>
#include <shardmesh/layout/placements.hpp>

namespace picture_test {

namespace sm = shardmesh;

using sm::Layout;
using sm::picture;
using sm::Placement;
using sm::PlacementList;

namespace {

bool contains(std::string const& text, std::string const& part) {
  return text.find(part) != std::string::npos;
}

std::ptrdiff_t lines(std::string const& text) {
  return std::count(text.begin(), text.end(), '\n');
}

}  // namespace

TEST_SUITE_BEGIN("layout.picture");

TEST_CASE("picture: uneven blocks of a matrix, rows down and columns to the right") {
  CHECK(picture(Layout({7, 5}, {2, 2}, sm::placements<sm::Shard<0>, sm::Shard<1>>)) ==
        "(7, 5) on mesh (2, 2) as (Shard(0), Shard(1))\n"
        "       0:3      3:5   \n"
        "    +--------+--------+\n"
        "0:4 | rank 0 | rank 1 |\n"
        "    |        |        |\n"
        "    +--------+--------+\n"
        "4:7 | rank 2 | rank 3 |\n"
        "    +--------+--------+\n");
}

TEST_CASE("picture: a vector is one column; a rank without elements does not appear") {
  CHECK(picture(Layout({5}, {4}, sm::placements<sm::Shard<0>>)) == "(5) on mesh (4) as (Shard(0))\n"
                                                                   "    +--------+\n"
                                                                   "0:2 | rank 0 |\n"
                                                                   "    |        |\n"
                                                                   "    +--------+\n"
                                                                   "2:4 | rank 1 |\n"
                                                                   "    |        |\n"
                                                                   "    +--------+\n"
                                                                   "4:5 | rank 2 |\n"
                                                                   "    +--------+\n"
                                                                   "rank 3 holds nothing\n");
}

TEST_CASE("picture: replicas share a block") {
  CHECK(picture(Layout({4, 6}, {2, 2}, sm::placements<sm::Replicate, sm::Shard<1>>),
                {.lines_per_block = 1}) == "(4, 6) on mesh (2, 2) as (Replicate, Shard(1))\n"
                                           "         0:3         3:6    \n"
                                           "    +-----------+-----------+\n"
                                           "0:4 | ranks 0 2 | ranks 1 3 |\n"
                                           "    +-----------+-----------+\n");
}

TEST_CASE("picture: a strided shard shows every piece") {
  CHECK(picture(Layout({7}, {2}, PlacementList{Placement::strided(0, 2)}),
                {.lines_per_block = 1}) == "(7) on mesh (2) as (StridedShard(0, split_factor=2))\n"
                                           "    +--------+\n"
                                           "0:2 | rank 0 |\n"
                                           "    +--------+\n"
                                           "2:4 | rank 1 |\n"
                                           "    +--------+\n"
                                           "4:6 | rank 0 |\n"
                                           "    +--------+\n"
                                           "6:7 | rank 1 |\n"
                                           "    +--------+\n");
}

TEST_CASE("picture: of three dimensions two are drawn if the third is whole") {
  CHECK(picture(Layout({2, 3, 4}, {2}, sm::placements<sm::Shard<2>>)) ==
        "(2, 3, 4) on mesh (2) as (Shard(2))\n"
        "dimensions 0 (down) and 2 (right); the others are whole\n"
        "       0:2      2:4   \n"
        "    +--------+--------+\n"
        "0:2 | rank 0 | rank 1 |\n"
        "    |        |        |\n"
        "    +--------+--------+\n");
}

TEST_CASE("picture: what cannot be drawn is listed by rank") {
  using sm::Shard;
  CHECK(picture(Layout({1, 2, 2}, {2, 1, 2}, sm::placements<Shard<0>, Shard<1>, Shard<2>>)) ==
        "(1, 2, 2) on mesh (2, 1, 2) as (Shard(0), Shard(1), Shard(2))\n"
        "rank 0 at (0, 0, 0): (1, 2, 1) [0:1, 0:2, 0:1]\n"
        "rank 1 at (0, 0, 1): (1, 2, 1) [0:1, 0:2, 1:2]\n"
        "rank 2 at (1, 0, 0): (0, 2, 1)\n"
        "rank 3 at (1, 0, 1): (0, 2, 1)\n");
  CHECK(picture(Layout({}, {2}, sm::placements<sm::Replicate>)) == "() on mesh (2) as (Replicate)\n"
                                                                   "rank 0 at (0): () []\n"
                                                                   "rank 1 at (1): () []\n");
  CHECK(picture(Layout({0, 4}, {2}, sm::placements<Shard<1>>)) ==
        "(0, 4) on mesh (2) as (Shard(1))\n"
        "rank 0 at (0): (0, 2)\n"
        "rank 1 at (1): (0, 2)\n");
}

TEST_CASE("picture: ranks without elements are named") {
  CHECK(picture(Layout({5}, {4}, sm::placements<sm::Shard<0>>), {.lines_per_block = 1}) ==
        "(5) on mesh (4) as (Shard(0))\n"
        "    +--------+\n"
        "0:2 | rank 0 |\n"
        "    +--------+\n"
        "2:4 | rank 1 |\n"
        "    +--------+\n"
        "4:5 | rank 2 |\n"
        "    +--------+\n"
        "rank 3 holds nothing\n");
  CHECK(contains(picture(Layout({2}, {4}, sm::placements<sm::Shard<0>>)),
                 "ranks 2 3 hold nothing\n"));
}

TEST_CASE("picture: a wide one is folded") {
  CHECK(picture(Layout({2, 6}, {3}, sm::placements<sm::Shard<1>>),
                {.lines_per_block = 1, .most_width = 23}) == "(2, 6) on mesh (3) as (Shard(1))\n"
                                                             "       0:2      2:4   \n"
                                                             "    +--------+--------+\n"
                                                             "0:2 | rank 0 | rank 1 |\n"
                                                             "    +--------+--------+\n"
                                                             "\n"
                                                             "       4:6   \n"
                                                             "    +--------+\n"
                                                             "0:2 | rank 2 |\n"
                                                             "    +--------+\n");
  sm::PictureStyle const tiny{.lines_per_block = 1, .most_width = 1};
  CHECK(lines(picture(Layout({2, 6}, {3}, sm::placements<sm::Shard<1>>), tiny)) == 1 + 3 * 4 + 2);
}

TEST_CASE("picture: big tensors do not make it bigger") {
  Layout const layout({1'000'000'000, 3}, {2}, sm::placements<sm::Shard<0>>);
  CHECK(picture(layout, {.lines_per_block = 1}) == "(1000000000, 3) on mesh (2) as (Shard(0))\n"
                                                   "                        0:3   \n"
                                                   "                     +--------+\n"
                                                   "0:500000000          | rank 0 |\n"
                                                   "                     +--------+\n"
                                                   "500000000:1000000000 | rank 1 |\n"
                                                   "                     +--------+\n");
}

TEST_CASE("picture: of big meshes only the first ranks are listed, the others counted") {
  Layout const layout({4096}, {1024}, sm::placements<sm::Shard<0>>);
  std::string const text = picture(layout);
  CHECK(lines(text) == 1 + 64 + 1);
  CHECK(contains(text, "rank 63 at (63): (4) [252:256]\nand 960 more ranks\n"));
  CHECK(lines(picture(layout, {.most_ranks = 2})) == 1 + 2 + 1);
  // As many blocks as fit are still drawn.
  CHECK(contains(picture(Layout({32}, {32}, sm::placements<sm::Shard<0>>)), "31:32 | rank 31"));
  CHECK(contains(picture(Layout({33}, {33}, sm::placements<sm::Shard<0>>)), "rank 32 at (32)"));
}

TEST_CASE("picture: of many owners and many pieces only the first are named") {
  CHECK(contains(picture(Layout({3}, {8}, sm::placements<sm::Replicate>)),
                 "| ranks 0 1 2 3 4 5 6 7 |"));
  CHECK(contains(picture(Layout({3}, {512}, sm::placements<sm::Replicate>)),
                 "| ranks 0 1 2 3 4 5 6 ... 511 (512) |"));
  CHECK(contains(picture(Layout({80}, {2}, PlacementList{Placement::strided(0, 20)})),
                 "rank 1 at (1): (40) [2:4] [6:8] [10:12] [14:16] [18:20] [22:24] [26:28] [30:32] "
                 "and 12 more\n"));
}

TEST_CASE("picture: colours wrap the cells, one for each set of owners") {
  sm::PictureStyle const color{.color = true, .lines_per_block = 1};
  CHECK(picture(Layout({4}, {2, 2}, sm::placements<sm::Shard<0>, sm::Replicate>), color) ==
        "(4) on mesh (2, 2) as (Shard(0), Replicate)\n"
        "    +-----------+\n"
        "0:2 |\x1b[30;48;5;153m ranks 0 1 \x1b[0m|\n"
        "    +-----------+\n"
        "2:4 |\x1b[30;48;5;223m ranks 2 3 \x1b[0m|\n"
        "    +-----------+\n");
  // Sets whose first ranks are 0 and 8 are neighbours; they must not look alike.
  std::string const text =
      picture(Layout({4}, {2, 8}, sm::placements<sm::Shard<0>, sm::Replicate>), color);
  CHECK(contains(text, "\x1b[30;48;5;153m"));
  CHECK(contains(text, "223m ranks 8 9"));
  CHECK_FALSE(contains(picture(Layout({4}, {2}, sm::placements<sm::Shard<0>>)), "\x1b"));
}

TEST_SUITE_END();

}  // namespace picture_test
