// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What comes over the network: frames on a connection, and what ranks say that they send.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include <sys/socket.h>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/comm/detail/link.hpp>
#include <shardmesh/comm/detail/offers.hpp>
#include <shardmesh/comm/detail/socket.hpp>

namespace fuzz {

namespace sm = shardmesh;

/// Two ends of a connection.
inline std::array<sm::detail::Socket, 2> connection() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) != 0) {
    std::abort();
  }
  return {sm::detail::Socket(ends[0]), sm::detail::Socket(ends[1])};
}

/// Takes numbers and pieces off an input.
struct Script {
  sm::format::ByteSpan left;

  std::size_t number(std::size_t end) {
    std::size_t value = 0;
    for (std::size_t i = 0; i < 2 && !left.empty(); ++i) {
      value = value * 256 + std::to_integer<std::size_t>(left[0]);
      left = left.subspan(1);
    }
    return end == 0 ? 0 : value % end;
  }
  sm::format::ByteSpan piece(std::size_t bytes) {
    auto const taken = left.first(std::min(bytes, left.size()));
    left = left.subspan(taken.size());
    return taken;
  }
};

/// A rank sends frames; on their way, bytes of the stream are changed, left out, repeated or injected. What arrives as a frame must
/// be the next one that was sent.
inline void frames(sm::format::ByteSpan input) {
  using sm::detail::Frame;
  using sm::detail::FrameKind;
  Script script{input};
  sm::detail::LinkKeys const keys{{1, 2}, {3, 4}, {5, 6}};
  auto [from, wire] = connection();
  sm::detail::Link sender(std::move(from), {keys.send, keys.receive, keys.payload});
  std::vector<Frame> sent;
  for (std::size_t count = script.number(6); sent.size() < count;) {
    auto const kind = static_cast<FrameKind>(script.number(4));
    auto const bytes = script.piece(script.number(600));
    sent.push_back(
        {kind, script.number(65536), script.number(65536), 0, {bytes.begin(), bytes.end()}});
    sender.queue(kind, sent.back().number, sent.back().call, sent.back().bytes);
  }
  sender.send();
  std::vector<std::byte> stream(std::size_t{1} << 16);
  ssize_t const length = ::recv(wire.descriptor(), stream.data(), stream.size(), MSG_DONTWAIT);
  stream.resize(static_cast<std::size_t>(std::max<ssize_t>(length, 0)));

  for (std::size_t edits = script.number(4); edits > 0; --edits) {
    std::size_t const at = script.number(stream.size() + 1);
    auto const place = stream.begin() + static_cast<std::ptrdiff_t>(at);
    std::size_t const bytes = std::min(script.number(200), stream.size() - at);
    auto const end = place + static_cast<std::ptrdiff_t>(bytes);
    auto const piece = script.piece(bytes);
    switch (script.number(4)) {
      case 0:
        std::copy(piece.begin(), piece.end(), place);
        break;
      case 1:
        stream.erase(place, end);
        break;
      case 2:
        stream.insert(place, piece.begin(), piece.end());
        break;
      default: {
        std::vector<std::byte> const again(place, end);
        stream.insert(end, again.begin(), again.end());
      }
    }
  }

  auto [to, reader] = connection();
  if (::send(to.descriptor(), stream.data(), stream.size(), MSG_DONTWAIT) !=
      static_cast<ssize_t>(stream.size())) {
    std::abort();
  }
  to = sm::detail::Socket();
  sm::detail::Link receiver(std::move(reader), {keys.receive, keys.send, keys.payload});
  std::size_t arrived = 0;
  try {
    while (!receiver.has_ended() || receiver.has_frame()) {
      static_cast<void>(receiver.receive());
      for (; receiver.has_frame(); ++arrived) {
        Frame const frame = receiver.take();
        if (arrived >= sent.size() || frame.kind != sent[arrived].kind ||
            frame.number != sent[arrived].number || frame.call != sent[arrived].call ||
            frame.bytes != sent[arrived].bytes) {
          std::abort();
        }
      }
    }
  } catch (sm::detail::NoFrame const&) {
  }
}

/// What four ranks say of the messages of an exchange.
inline void offers(sm::format::ByteSpan input) {
  Script script{input};
  std::vector<std::vector<std::byte>> all;
  for (int rank = 0; rank < 4; ++rank) {
    auto const piece = script.piece(script.number(400));
    all.emplace_back(piece.begin(), piece.end());
  }
  sm::detail::Offers const checked(all, {0, 1, 2, 3});
  for (int rank = 0; rank < 4; ++rank) {
    std::size_t next = checked.sends(rank).size();
    for (std::size_t const match : checked.match(rank)) {
      sm::Message const wanted = checked.message(rank, next++);
      auto const sends = checked.sends(wanted.peer);
      if (match >= sends.size() || sends[match].peer != rank ||
          sends[match].bytes != wanted.bytes) {
        std::abort();
      }
    }
    if (checked.data_of(rank).size() + next * sizeof(sm::Message) >
        all[static_cast<std::size_t>(rank)].size()) {
      std::abort();
    }
  }
}

}  // namespace fuzz
