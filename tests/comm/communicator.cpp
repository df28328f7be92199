// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/communicator.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/sockets.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/comm/working.hpp>

#include "ranks.hpp"

namespace communicator_test {

namespace sm = shardmesh;

using World = sm::ThreadsCommunicator;

static_assert(sm::Communicator<sm::ThreadsCommunicator>);
static_assert(sm::Communicator<sm::SocketCommunicator>);
static_assert(!sm::Communicator<int>);
static_assert(World::shared_address_space && World::moves<sm::HostMemory>);
static_assert(!sm::SocketCommunicator::shared_address_space);
static_assert(sm::SocketCommunicator::moves<sm::HostMemory>);

namespace {

/// A space that the processor cannot read: sockets do not move it.
struct Remote {
  static constexpr bool host_accessible = false;
};
static_assert(!sm::SocketCommunicator::moves<Remote>);

struct Pair {
  std::int64_t number = 0;
  double half = 0.0;
};

}  // namespace

TEST_SUITE_BEGIN("comm.communicator");

TEST_CASE("communicator: a default one is an empty handle") {
  CHECK_FALSE(static_cast<bool>(World()));
  CHECK(World().size() == 0);
  CHECK_FALSE(static_cast<bool>(sm::SocketCommunicator()));
  CHECK(sm::SocketCommunicator().size() == 0);
}

TEST_CASE_TEMPLATE("communicator: calls of an empty handle are errors that say so",
                   Comm,
                   World,
                   sm::SocketCommunicator) {
  Comm const empty;
  std::string const words = ": this communicator is empty: it was made by default, or by a split "
                            "with a negative color, and "
                            "has no ranks; ask `if (comm)` before its calls";
  auto const error = [](auto call) { return test::error_of<sm::InvalidArgument>(call); };
  CHECK(error([&] { empty.barrier(); }) == "shardmesh::barrier" + words);
  CHECK(error([&] { static_cast<void>(empty.all_gather({})); }) == "shardmesh::all_gather" + words);
  CHECK(error([&] { static_cast<void>(empty.split(0, 0)); }) == "shardmesh::split" + words);
  CHECK(error([&] { empty.template exchange<sm::HostMemory>({}, {}); }) ==
        "shardmesh::exchange" + words);
  CHECK(error([&] { static_cast<void>(empty.world_ranks()); }) == "shardmesh::world_ranks" + words);
  CHECK(error([&] { sm::Working(empty, "works"); }) == "shardmesh::activity" + words);
}

TEST_CASE("what ranks that differ take for words is shown as bytes, and letters as letters") {
  using sm::detail::readable;
  CHECK(readable("a \"name\", C:\\dir\nnext line") == "a \"name\", C:\\dir\nnext line");
  CHECK(readable("Gr\xc3\xb6\xc3\x9f"
                 "e") == "Gr\xc3\xb6\xc3\x9f"
                         "e");
  CHECK(readable({"\x1b[2J\0\x7f", 6}) == "\\x1b[2J\\x00\\x7f");
  CHECK(readable("\xff\xc3\xb6") == "\\xff\\xc3\\xb6");
  CHECK(readable("abcdef", 3) == "abc...");
  std::string const raw("\x01\0\0\x1b[31m", 8);
  std::string const shown = "\\x01\\x00\\x00\\x1b[31m";
  sm::launch(sm::threads{2}, [&](World& world) {
    CHECK(test::error_of<sm::Error>([&] {
            sm::throw_together<sm::Error>(world, world.rank() == 1 ? raw : "");
          }) == shown + " [rank 1]");
    CHECK(test::contains(test::error_of<sm::MismatchError>([&] {
                           sm::check_agreement(world, "job", world.rank() == 1 ? raw : "good");
                         }),
                         "rank 1 has " + shown));
  });
}

TEST_CASE("all_gather_value: every rank gets everybody's value, by rank, at 1 to 8 ranks") {
  for (int ranks = 1; ranks <= 8; ++ranks) {
    sm::launch(sm::threads{ranks}, [ranks](World& world) {
      auto const all = sm::all_gather_value(world, Pair{10 * world.rank(), world.rank() / 2.0});
      REQUIRE(static_cast<int>(all.size()) == ranks);
      for (int rank = 0; rank < ranks; ++rank) {
        CHECK(all[static_cast<std::size_t>(rank)].number == 10 * rank);
        CHECK(all[static_cast<std::size_t>(rank)].half == rank / 2.0);
      }
    });
  }
}

TEST_CASE("all_gather_text: texts of different lengths, empty ones and zero bytes included") {
  for (int ranks = 1; ranks <= 8; ++ranks) {
    sm::launch(sm::threads{ranks}, [ranks](World& world) {
      auto const text_of = [](int rank) {
        return std::string(static_cast<std::size_t>(rank * rank), rank == 2 ? '\0' : 'x');
      };
      auto const all = sm::all_gather_text(world, text_of(world.rank()));
      REQUIRE(static_cast<int>(all.size()) == ranks);
      for (int rank = 0; rank < ranks; ++rank) {
        CHECK(all[static_cast<std::size_t>(rank)] == text_of(rank));
      }
    });
  }
}

TEST_CASE("all_gather_value: ranks with values of other sizes get an error that names the rank") {
  sm::launch(sm::threads{4}, [](World& world) {
    // The group of the ranks 3 and 1: messages name ranks of the job.
    World const group = world.split(world.rank() % 2, -world.rank());
    std::string const error = test::error_of<sm::MismatchError>([&] {
      if (world.rank() == 1) {
        static_cast<void>(sm::all_gather_value(group, std::array<char, 3>{}));
      } else {
        static_cast<void>(sm::all_gather_value(group, world.rank()));
      }
    });
    std::string const three = "shardmesh::all_gather_value: rank 1 sent 3 bytes instead of 4; all "
                              "ranks must make the same call";
    std::string const one = "shardmesh::all_gather_value: rank 3 sent 4 bytes instead of 3; all "
                            "ranks must make the same call";
    CHECK(error == (world.rank() == 1 ? one : world.rank() == 3 ? three : "no error"));
    world.barrier();
  });
}

TEST_CASE("check_agreement: equal texts pass; a different one is shown on every rank") {
  sm::launch(sm::threads{4}, [](World& world) {
    CHECK_NOTHROW(sm::check_agreement(world, "test", "shape (2, 2)"));
    World const group = world.split(world.rank() % 2, world.rank());
    std::string const mine = world.rank() == 3 ? "shape (3)" : "shape (2)";
    std::string const error =
        test::error_of<sm::MismatchError>([&] { sm::check_agreement(group, "test", mine); });
    CHECK(error == (world.rank() % 2 == 0
                        ? "no error"
                        : "shardmesh::test: ranks disagree; rank 1 has shape (2), rank 3 has shape "
                          "(3); all ranks must pass the same arguments in the same order"));
    world.barrier();
  });
}

TEST_CASE("throw_together: all ranks throw the first rank's problem") {
  sm::launch(sm::threads{5}, [](World& world) {
    CHECK_NOTHROW(sm::throw_together<sm::ShapeError>(world, ""));
    std::string const problem = world.rank() >= 3 ? "no file " + std::to_string(world.rank()) : "";
    CHECK(test::error_of<sm::ShapeError>(
              [&] { sm::throw_together<sm::ShapeError>(world, problem); }) == "no file 3 [rank 3]");
    // In a group the message names the rank of the job, not that of the group.
    World const group = world.split(world.rank() / 3, 0);
    CHECK(test::error_of<sm::KeyError>([&] { sm::throw_together<sm::KeyError>(group, problem); }) ==
          (world.rank() < 3 ? "no error" : "no file 3 [rank 3]"));
    world.barrier();
  });
}

TEST_SUITE_END();

}  // namespace communicator_test
