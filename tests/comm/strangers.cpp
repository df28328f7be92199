// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Whoever is not of the job: takes no rank's place, holds nobody up, changes and reads nothing.
#include <shardmesh/comm/job_secret.hpp>

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>
#include <shardmesh/comm/sockets.hpp>
#include <shardmesh/comm/spawn.hpp>

#include "ranks.hpp"

namespace strangers_test {

namespace sm = shardmesh;

using sm::JobSecret;
using sm::SocketCommunicator;
using sm::detail::Challenge;
using sm::detail::Deadline;
using sm::detail::FrameKind;
using sm::detail::Hello;
using sm::detail::Link;
using sm::detail::Proof;
using sm::detail::SipHash;
using sm::detail::SipWords;
using sm::detail::Socket;
using test::contains;
using test::error_of;
using test::milliseconds;

namespace {

Deadline late() {
  return std::chrono::steady_clock::now() + test::patience;
}

Socket visit(int port) {
  return Socket::connect("127.0.0.1", port, late());
}

template <class T>
void say(Socket const& socket, T const& words) {
  socket.send_all(std::as_bytes(std::span(&words, 1)), late());
}

/// Reads until the other side ends the connection. @returns how many bytes came before.
std::size_t hear_all(Socket const& socket) {
  std::array<std::byte, 1> one{};
  std::size_t count = 0;
  try {
    while (true) {
      socket.receive_all(one, late());
      ++count;
    }
  } catch (sm::detail::ConnectionClosed const&) {
    return count;
  }
}

Hello hello_of(std::uint32_t rank, std::uint32_t size) {
  Hello hello;
  hello.rank = rank;
  hello.size = size;
  return hello;
}

/// Two ranks that gather once, while `strangers(port)` does what it likes before rank 1 comes.
/// @returns what went wrong.
template <class Strangers>
std::string gather_beside(Strangers strangers, test::milliseconds timeout = test::patience) {
  int const port = test::free_port();
  std::array<std::string, 2> errors;
  auto const gather = [&](int rank) {
    errors[static_cast<std::size_t>(rank)] = error_of<sm::Error>([&] {
      SocketCommunicator const world("127.0.0.1", port, rank, 2, timeout, test::secret);
      CHECK(sm::all_gather_value(world, 5 + rank) == std::vector<int>{5, 6});
    });
  };
  std::jthread rank_0([&] { gather(0); });
  auto const held = strangers(port);
  gather(1);
  rank_0.join();
  return test::first_other({errors[0], errors[1]}, "no error");
}

/// What rank 0 of two says of a rank 1 with the job's secret that does `deed(link)`, then gathers.
template <class Deed>
std::string error_of_rank_0(Deed deed) {
  int const port = test::free_port();
  std::jthread const other([&] {
    Link link = test::join_as(port, 1, 2);
    deed(link);
    hear_all(link.socket());
  });
  return error_of<sm::CommError>([&] {
    SocketCommunicator const world("127.0.0.1", port, 0, 2, test::patience, test::secret);
    static_cast<void>(world.all_gather(std::vector<std::byte>(3)));
  });
}

/// The bytes that a rank with the job's secret puts on the wire for frames.
template <class Queue>
std::vector<std::byte> on_the_wire(sm::detail::LinkKeys keys, Queue queue) {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  Socket const reader(ends[1]);
  Link link{Socket(ends[0]), keys};
  queue(link);
  link.send();
  std::vector<std::byte> bytes(1 << 16);
  ssize_t const count = ::recv(reader.descriptor(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  return bytes;
}

/// How many frames a link takes of some bytes; -1 if it refuses them.
int frames_in(sm::detail::LinkKeys keys, std::span<std::byte const> bytes) {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  Socket const writer(ends[1]);
  Link link{Socket(ends[0]), keys};
  writer.send_all(bytes, late());
  int frames = 0;
  try {
    while (link.receive() > 0) {
      for (; link.has_frame(); ++frames) {
        static_cast<void>(link.take());
      }
    }
  } catch (sm::detail::NoFrame const&) {
    return -1;
  }
  return frames;
}

constexpr sm::detail::LinkKeys one_side{{1, 2}, {3, 4}, {5, 6}};
constexpr sm::detail::LinkKeys other_side{{3, 4}, {1, 2}, {5, 6}};

}  // namespace

TEST_SUITE_BEGIN("comm.strangers");

TEST_CASE("SipHash-2-4: what its authors, and OpenSSL, make of 0, 1, 2, ...") {
  struct Row {
    std::size_t length;
    std::uint64_t of_64;
    SipWords of_128;
  };
  // openssl mac -macopt hexkey:000102...0f -macopt size:8 (or 16) -in FILE SIPHASH
  Row const rows[] = {
      {0, 0x726fdb47dd0e0e31, {0xe6a825ba047f81a3, 0x930255c71472f66d}},
      {1, 0x74f839c593dc67fd, {0x44af996bd8c187da, 0x45fc229b11597634}},
      {2, 0x0d6c8009d9a94f5a, {0xc75da4a48d227781, 0xe4ff0af6de8ba3fc}},
      {7, 0xab0200f58b01d137, {0x53c1dbd8beebf1a1, 0x3982f01fa64ab8c0}},
      {8, 0x93f5f5799a932462, {0x61f55862baa9623b, 0xb49714f364e2830f}},
      {15, 0xa129ca6149be45e5, {0x11a8b03399e99354, 0xd9c3cf970fec087e}},
      {16, 0x3f2acc7f57c29bdb, {0xbb54b067caa4e26e, 0x77052385bf1533fd}},
      {63, 0x958a324ceb064572, {0x4a83502f77d15051, 0x7cbd3f979a063e50}},
  };
  SipWords const key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
  std::array<std::byte, 63> message{};
  for (std::size_t i = 0; i < message.size(); ++i) {
    message[i] = static_cast<std::byte>(i);
  }
  for (Row const& row : rows) {
    auto const bytes = std::span<std::byte const>(message).first(row.length);
    CHECK(SipHash(key).add(bytes).finish() == row.of_64);
    CHECK(SipHash(key, SipHash::Bits::b128).add(bytes).finish_both() == row.of_128);
    for (std::size_t first = 0; first <= row.length; ++first) {  // in two pieces of any lengths
      CHECK(SipHash(key).add(bytes.first(first)).add(bytes.subspan(first)).finish() == row.of_64);
    }
  }
}

TEST_CASE("strangers: eight bytes take no rank's place") {
  CHECK(gather_beside([](int port) {
          Socket socket = visit(port);
          std::uint32_t const hello[2] = {0x534d6573, 1};  // all that was asked for once
          say(socket, hello);
          return socket;
        }) == "");
}

TEST_CASE("strangers: silent ones, gone ones and those of other programs hold nobody up") {
  auto const timeout = 4 * test::patience;
  auto const elapsed = test::time_of([&] {
    CHECK(gather_beside(
              [](int port) {
                std::vector<Socket> held;
                for (int i = 0; i < 100; ++i) {
                  held.push_back(visit(port));
                }
                static_cast<void>(visit(port));
                std::array<char, 40> words{};
                std::memcpy(words.data(), "GET / HTTP/1.1", 14);
                say(held[0], words);
                say(held[1], hello_of(2, 2));
                say(held[2], hello_of(0, 2));
                say(held[3], hello_of(1, 3));
                say(held[4], std::array<char, 7>{});
                return held;
              },
              timeout) == "");
  });
  CHECK(elapsed < timeout / 4);  // what each of them was once waited for
}

TEST_CASE("strangers: who knows the greeting but not the secret is not let in") {
  CHECK(gather_beside([](int port) {
          Socket socket = visit(port);
          say(socket, hello_of(1, 2));
          Challenge challenge;
          socket.receive_all(std::as_writable_bytes(std::span(&challenge, 1)), late());
          say(socket, Proof{challenge.code});  // rank 0's own answer does not do either
          CHECK(hear_all(socket) == 0);
          return socket;
        }) == "");
}

TEST_CASE("strangers: a greeting that was heard and is repeated opens nothing") {
  int const port = test::free_port();
  Hello hello = hello_of(1, 2);
  JobSecret::fill_random(hello.nonce);
  Proof proof;
  auto const greet = [&](Socket const& socket, bool knows) {
    say(socket, hello);
    Challenge challenge;
    socket.receive_all(std::as_writable_bytes(std::span(&challenge, 1)), late());
    if (knows) {
      sm::detail::Handshake handshake(test::secret);
      handshake.agree(hello, challenge);
      CHECK(challenge.code == handshake.code_of_rank_0());
      proof.code = handshake.code_of_other();
    }
    say(socket, proof);
  };
  {
    std::jthread const rank_0([&] {
      static_cast<void>(error_of<sm::CommError>([&] {
        SocketCommunicator const world("127.0.0.1", port, 0, 2, test::patience, test::secret);
        world.barrier();
      }));
    });
    greet(visit(port), true);  // let in, and gone
  }
  CHECK(proof.code != SipWords{});
  std::string error;
  std::jthread rank_0([&] {
    error = error_of<sm::CommError>([&] {
      SocketCommunicator const world("127.0.0.1", port, 0, 2, test::patience, test::secret);
      CHECK(sm::all_gather_value(world, 5) == std::vector<int>{5, 6});
    });
  });
  Socket const again = visit(port);
  greet(again, false);
  CHECK(hear_all(again) == 0);
  SocketCommunicator const world("127.0.0.1", port, 1, 2, test::patience, test::secret);
  CHECK(sm::all_gather_value(world, 6) == std::vector<int>{5, 6});
  rank_0.join();
  CHECK(error == "no error");
}

TEST_CASE("strangers: another secret is an error that says so, on both sides") {
  CHECK(test::in_time(milliseconds(500), [](milliseconds timeout) {
          int const port = test::free_port();
          std::string of_rank_0;
          std::jthread rank_0([&] {
            of_rank_0 = error_of<sm::TimeoutError>(
                [&] { SocketCommunicator("127.0.0.1", port, 0, 2, timeout, test::secret); });
          });
          std::string const of_rank_1 = error_of<sm::CommError>([&] {
            SocketCommunicator("127.0.0.1", port, 1, 2, timeout,
                               JobSecret("another secret of a job"));
          });
          rank_0.join();
          bool const good =
              contains(of_rank_0, "rank 1 did not connect within") &&
              contains(of_rank_0, "somebody came as rank 1 without the job's secret: "
                                  "SHARDMESH_JOB_SECRET must be the same on all ranks") &&
              contains(of_rank_1, "rank 0 at 127.0.0.1:" + std::to_string(port) +
                                      " does not know this job's secret");
          return good ? "" : of_rank_0 + "; " + of_rank_1;
        }) == "");
}

TEST_CASE("strangers: bytes that are no frame are refused, those that announce 16 GiB too") {
  std::string const words = "shardmesh: rank 1 sent something that is no message of this program";
  CHECK(error_of_rank_0([](Link const& link) {
          say(link.socket(), std::array<std::uint64_t, 6>{77, 0, 0, 0, 0, 0});
        }) == words);
  CHECK(error_of_rank_0([](Link const& link) {
          say(link.socket(), std::array<std::uint64_t, 6>{0, 0, std::uint64_t{1} << 34, 0, 0, 0});
        }) == words);
  // With the right code, but of a kind or a length that there is not.
  struct Odd {
    int kind;
    std::size_t bytes;
  };
  for (Odd const odd : {Odd{6, 0}, Odd{3, 70'000}, Odd{4, 70'000}}) {
    std::vector<std::byte> const payload(odd.bytes);
    CHECK(error_of_rank_0([&](Link& link) {
            link.queue(static_cast<FrameKind>(odd.kind), 0, 0, payload);
            link.send();
          }) == words);
  }
}

TEST_CASE("strangers: memory grows with what arrives, not with what is announced" *
          doctest::skip(test::sanitized)) {
  auto const peak = [] {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;  // KiB
  };
  int const port = test::free_port();
  auto const before = peak();
  std::jthread const other([&] {
    // A rank of the job itself, which says that 16 GiB come, sends a few bytes of them, and ends.
    constexpr std::size_t announced = std::size_t{1} << 34;
    void* const zeros =
        ::mmap(nullptr, announced, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    Link link = test::join_as(port, 1, 2);
    link.queue(FrameKind::offer, 0, 0, {static_cast<std::byte const*>(zeros), announced}, 0);
    CHECK(link.send() > 1000);
    link = Link();
    ::munmap(zeros, announced);
  });
  static_cast<void>(error_of<sm::CommError>([&] {
    SocketCommunicator const world("127.0.0.1", port, 0, 2, test::patience, test::secret);
    world.barrier();
  }));
  CHECK(peak() - before < 64 * 1024);
}

TEST_CASE("strangers: frames that are changed, injected, left out, repeated or turned round") {
  std::array<std::byte, 40> payload{};
  payload.fill(std::byte{7});
  auto const wire = on_the_wire(one_side, [&](Link& link) {
    link.queue(FrameKind::offer, 0, 9, payload);
    link.queue(FrameKind::offer, 1, 9, payload);
  });
  std::size_t const frame = wire.size() / 2;
  REQUIRE(frame == 48 + payload.size());
  CHECK(frames_in(other_side, wire) == 2);
  int unnoticed = 0;
  for (std::size_t bit = 0; bit < 8 * wire.size(); ++bit) {
    auto changed = wire;
    changed[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    unnoticed += frames_in(other_side, changed) == -1 ? 0 : 1;
  }
  CHECK(unnoticed == 0);
  auto const first = std::span(wire).first(frame);
  auto const second = std::span(wire).subspan(frame);
  auto const joined = [](auto const& a, auto const& b) {
    std::vector<std::byte> both(a.begin(), a.end());
    both.insert(both.end(), b.begin(), b.end());
    return both;
  };
  CHECK(frames_in(other_side, second) == -1);                 // the first is missing
  CHECK(frames_in(other_side, joined(first, first)) == -1);   // repeated
  CHECK(frames_in(other_side, joined(second, first)) == -1);  // in another order
  CHECK(frames_in(one_side, wire) == -1);                     // sent back to where it came from
  auto const foreign = on_the_wire(
      {{7, 8}, {}, {5, 6}}, [&](Link& link) { link.queue(FrameKind::offer, 1, 9, payload); });
  CHECK(frames_in(other_side, joined(first, foreign)) == -1);  // injected
}

TEST_CASE(
    "strangers: processes of one job have a secret of their own, and listen to this host alone" *
    doctest::skip(!SHARDMESH_TEST_MAY_FORK)) {
  char const* const before = std::getenv(JobSecret::variable);
  std::string const outer = before == nullptr ? "" : before;
  auto const status = sm::spawn_processes(2, [&outer] {
    auto const secret = JobSecret::from_environment();
    return secret && secret->text().size() == 32 && secret->text() != outer ? 0 : 1;
  });
  CHECK(status == std::vector<int>{0, 0});
  CHECK(Socket::listen(0).local_address() == "127.0.0.1");
  CHECK(JobSecret::random().text() != JobSecret::random().text());
}

TEST_CASE("strangers: a secret must be long enough, and ranks on several hosts must have one") {
  CHECK(contains(error_of<sm::InvalidArgument>([] { JobSecret("fifteen letters"); }),
                 "the job's secret has 15 bytes, at least 16 are wanted"));
  char const* const before = std::getenv(JobSecret::variable);
  std::string const outer = before == nullptr ? "" : before;
  ::unsetenv(JobSecret::variable);
  CHECK(contains(error_of<sm::InvalidArgument>(
                     [] { SocketCommunicator("10.1.2.3", 29500, 1, 2, milliseconds(300)); }),
                 "export SHARDMESH_JOB_SECRET=$(openssl rand -hex 16)"));
  ::setenv(JobSecret::variable, "short", 1);
  CHECK(contains(error_of<sm::InvalidArgument>(
                     [] { SocketCommunicator("127.0.0.1", 29500, 1, 2, milliseconds(300)); }),
                 "the job's secret has 5 bytes"));
  ::unsetenv(JobSecret::variable);
  if (before != nullptr) {
    ::setenv(JobSecret::variable, outer.c_str(), 1);
  }
}

TEST_CASE("strangers: the secret of a user's local jobs is the user's alone, and made once") {
  namespace fs = std::filesystem;
  std::string pattern = (fs::temp_directory_path() / "shardmesh-XXXXXX").string();
  std::string const top = ::mkdtemp(pattern.data());
  std::string const place = top + "/secrets";
  std::vector<std::string> texts(8);
  {
    std::vector<std::jthread> threads;
    for (std::string& text : texts) {
      threads.emplace_back([&] { text = JobSecret::of_this_user(place).text(); });
    }
  }
  CHECK(texts[0].size() == 32);
  CHECK(test::first_other(texts, texts[0]) == "");
  struct stat status{};
  REQUIRE(::stat((place + "/job_secret").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777U) == 0600U);
  CHECK(std::distance(fs::directory_iterator(place), {}) == 1);
  auto const refused = [&] {
    return error_of<sm::CommError>([&] { static_cast<void>(JobSecret::of_this_user(place)); });
  };
  ::chmod(place.c_str(), 0755);
  CHECK(contains(refused(), "which is not this user's alone; or set SHARDMESH_JOB_SECRET"));
  ::chmod(place.c_str(), 0700);
  ::chmod((place + "/job_secret").c_str(), 0644);
  CHECK(contains(refused(), "job_secret, which is not this user's alone"));
  fs::remove(place + "/job_secret");
  fs::create_symlink("/etc/hostname", place + "/job_secret");
  CHECK(contains(refused(), "job_secret, which is not this user's alone"));
  fs::remove(place + "/job_secret");
  std::ofstream(place + "/job_secret") << "short";
  ::chmod((place + "/job_secret").c_str(), 0600);
  CHECK(contains(refused(), "is too short: remove it"));
  fs::remove_all(top);
}

TEST_SUITE_END();

}  // namespace strangers_test
