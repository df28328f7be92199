// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// A rank's state in a stream: what goes in comes out, and damage does not get in.
#include <shardmesh/checkpoint/dcp_index.hpp>
#include <shardmesh/checkpoint/stream.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/tensor/distribute.hpp>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <sstream>
#include <streambuf>

#include <doctest/doctest.h>

#include "../support/checkpoints.hpp"
#include "../support/errors.hpp"

namespace stream_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.stream");

namespace {

/// Sharded, strided, replicated, plain and empty tensors, and plain values; `first` shifts all.
template <class Mesh>
sm::StateDict state_of(Mesh const& mesh, int first) {
  sm::StateDict dict;
  auto const add = [&](std::string const& name, sm::Shape const& shape, sm::PlacementList list) {
    sm::Tensor<float> whole(shape);
    std::iota(whole.span().begin(), whole.span().end(), static_cast<float>(first));
    dict.insert(std::vector<sm::PathElement>{"model", name},
                sm::distribute(whole, mesh, list, sm::DataSource::own));
  };
  add("rows", {5, 3}, {sm::Replicate{}, sm::Shard{0}});
  add("columns", {3, 7}, {sm::Shard{1}, sm::Shard{1}});
  add("strided", {9, 2}, {sm::Placement::strided(0, 2), sm::Shard{0}});
  add("few", {1, 2}, {sm::Shard{0}, sm::Shard{0}});
  add("whole", {2, 2}, {sm::Replicate{}, sm::Replicate{}});
  add("empty", {0, 4}, {sm::Shard{0}, sm::Replicate{}});
  sm::Tensor<std::int64_t> step(sm::Shape{});
  step.span()[0] = first;
  dict.insert({"optim", sm::index_t{0}, "step"}, step);
  dict.insert(std::vector<sm::PathElement>{"optim", "lr"}, sm::Value(0.1 * first));
  dict.insert(std::vector<sm::PathElement>{"optim", "names"},
              sm::Value(sm::Value::List{sm::Value("a"), sm::Value(first)}));
  return dict;
}

/// On one rank a 1 x 1 mesh: everything is whole.
template <class Body>
void alone(Body body) {
  sm::launch(sm::threads{1},
             [&](auto& world) { body(sm::device_mesh(world, {1, 1}, {"a", "b"})); });
}

std::string stream_of(sm::StateDict const& dict) {
  std::ostringstream out;
  sm::save_stream(out, dict);
  return out.str();
}

/// What loading `bytes` into `dict` says; `dict` must then be as it was.
template <class E>
std::string refusal(std::string const& bytes, sm::StateDict& dict) {
  sm::StateDict const before = sm::offloaded(dict);
  std::istringstream in(bytes);
  std::string const said = test::error_of<E>([&] { sm::load_stream(in, dict); });
  CHECK(sm::difference(before, dict) == "");
  return said;
}

/// Takes a few bytes and then no more.
class FullBuffer : public std::streambuf {
 public:
  explicit FullBuffer(std::streamsize room) : room_(room) {}

 protected:
  std::streamsize xsputn(char const*, std::streamsize count) override {
    std::streamsize const taken = std::min(room_, count);
    room_ -= taken;
    return taken;
  }

 private:
  std::streamsize room_;
};

}  // namespace

TEST_CASE("each rank's state goes through a stream and comes back") {
  for (auto const& [rows, columns] : {std::pair{1, 1}, {2, 2}, {3, 2}}) {
    sm::launch(sm::threads{rows * columns}, [&](auto& world) {
      auto const mesh = sm::device_mesh(world, {rows, columns}, {"a", "b"});
      sm::StateDict const saved = state_of(mesh, 3);
      std::stringstream stream;
      sm::save_stream(stream, saved);
      stream << "what follows";
      sm::StateDict dict = state_of(mesh, 100);
      CHECK(sm::difference(dict, saved) != "");
      sm::load_stream(stream, dict);
      CHECK(sm::difference(dict, saved) == "");
      std::string rest;
      std::getline(stream, rest);
      CHECK(rest == "what follows");
    });
  }
}

TEST_CASE("a stream serves any rank whose parts it holds, and no other") {
  std::string whole;
  alone([&](auto const& mesh) { whole = stream_of(state_of(mesh, 3)); });
  sm::launch(sm::threads{4}, [&](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"a", "b"});
    sm::StateDict dict = state_of(mesh, 100);
    std::istringstream in(whole);
    sm::load_stream(in, dict);
    CHECK(sm::difference(dict, state_of(mesh, 3)) == "");
    std::string const part = sm::all_gather_text(world, stream_of(dict))[0];
    if (world.rank() == 3) {
      CHECK(refusal<sm::CorruptError>(part, dict).find("a rank that held other parts") !=
            std::string::npos);
    }
  });
}

TEST_CASE("streams that end early, are none, or lack what is wanted change nothing") {
  alone([](auto const& mesh) {
    sm::StateDict dict = state_of(mesh, 100);
    std::string const bytes = stream_of(state_of(mesh, 3));
    for (std::size_t length = 0; length < bytes.size(); length += 97) {
      CHECK(refusal<sm::CorruptError>(bytes.substr(0, length), dict).find("more are needed") !=
            std::string::npos);
    }
    CHECK(refusal<sm::CorruptError>("PK" + bytes, dict).find("another format") !=
          std::string::npos);
    std::string huge = bytes;
    huge[8 + 7] = '\x7f';
    CHECK(refusal<sm::CorruptError>(huge, dict).find("CRC does not fit") != std::string::npos);
    std::string damaged = bytes;
    damaged[20 + 40] ^= 1;
    CHECK(refusal<sm::CorruptError>(damaged, dict).find("CRC does not fit") != std::string::npos);
    sm::StateDict more = state_of(mesh, 100);
    more.insert("more", sm::Value(1));
    CHECK(refusal<sm::KeyError>(bytes, more).find("the stream has no \"more\"") !=
          std::string::npos);
    sm::StateDict other;
    other.insert(std::vector<sm::PathElement>{"model", "whole"},
                 sm::Tensor<float>(sm::Shape{3, 2}));
    CHECK(refusal<sm::ShapeError>(bytes, other).find("(2, 2)") != std::string::npos);
    sm::StateDict type;
    type.insert(std::vector<sm::PathElement>{"model", "whole"},
                sm::Tensor<double>(sm::Shape{2, 2}));
    CHECK(refusal<sm::InvalidArgument>(bytes, type).find("float32") != std::string::npos);
  });
}

TEST_CASE("every flipped bit of a stream is seen, or changes nothing") {
  alone([](auto const& mesh) {
    sm::StateDict const saved = state_of(mesh, 3);
    std::string bytes = stream_of(saved);
    long seen = 0;
    for (std::size_t at = 0; at < bytes.size(); at += 5) {
      auto const bit = static_cast<char>(1 << (at % 8));
      bytes[at] ^= bit;
      sm::StateDict dict = state_of(mesh, 100);
      sm::StateDict const before = sm::offloaded(dict);
      std::istringstream in(bytes);
      try {
        sm::load_stream(in, dict);
        CHECK(sm::difference(dict, saved) == "");
      } catch (sm::Error const&) {
        CHECK(sm::difference(before, dict) == "");
        ++seen;
      }
      bytes[at] ^= bit;
    }
    CHECK(seen > 100);
  });
}

TEST_CASE("a stream that takes no more, and a partial tensor, are errors") {
  alone([](auto const& mesh) {
    for (std::streamsize room : {0, 10, 30, 3000}) {
      FullBuffer buffer(room);
      std::ostream out(&buffer);
      CHECK(test::error_of<sm::IoError>([&] {
              sm::save_stream(out, state_of(mesh, 1));
            }).find("took no more bytes") != std::string::npos);
    }
    sm::StateDict partial;
    partial.insert(
        "p", test::unset_tensor(sm::DType::float32, {2}, mesh, {sm::Partial<>{}, sm::Replicate{}}));
    std::ostringstream out;
    CHECK_THROWS_WITH_AS(sm::save_stream(out, partial), doctest::Contains("redistribute it"),
                         sm::InvalidArgument);
    CHECK(out.str().empty());
  });
}

TEST_SUITE_END();

}  // namespace stream_test
