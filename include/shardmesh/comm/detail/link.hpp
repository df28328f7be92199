// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include <shardmesh/comm/detail/siphash.hpp>
#include <shardmesh/comm/detail/socket.hpp>
#include <shardmesh/core/counters.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// Thrown inside the socket code for bytes that are no frame.
struct NoFrame {};

/// What a frame is: what a rank brings to a call; what rank 0 brings back (an index with everything
/// small, then what is big, from each rank a part); why a rank ends; what a rank does; that it leaves.
enum class FrameKind : std::uint64_t { offer, index, part, failure, beat, leave };

/// A message between two ranks of a group.
struct Frame {
  FrameKind kind{};
  std::uint64_t number = 0;  ///< of the call or the rank; of a beat: progress
  std::uint64_t call = 0;    ///< fingerprint; of a beat: the place
  std::uint64_t tag = 0;     ///< of the bytes, see `Link::tag_of`
  std::vector<std::byte> bytes;
};

/// What the two ends of a connection have agreed on when they met.
struct LinkKeys {
  SipWords send;     ///< for headers, in this direction and on this connection alone
  SipWords receive;  ///< the other end's `send`
  SipWords payload;  ///< of the group, so that rank 0 passes parts on without a look at their bytes
};

/// One end of a connection: frames both ways, of which nothing waits for the other side. A thread
/// queues, then lets `send` and `receive` do what the connection takes and gives.
///
/// Each header carries a code of itself, of its number on the connection and of its payload's code:
/// what is injected, changed, left out, repeated or swapped on the way is no frame.
class Link {
 public:
  using Bytes = std::vector<std::byte>;

  Link() = default;
  Link(Socket socket, LinkKeys keys) : socket_(std::move(socket)), keys_(keys) {}

  [[nodiscard]] bool is_open() const noexcept { return socket_.is_open(); }
  [[nodiscard]] int descriptor() const noexcept { return socket_.descriptor(); }
  [[nodiscard]] Socket const& socket() const noexcept { return socket_; }
  /// Nothing more will come.
  [[nodiscard]] bool has_ended() const noexcept { return ended_; }
  /// The other side has said that it leaves.
  [[nodiscard]] bool has_left() const noexcept { return left_; }
  /// Everything that was queued is on its way, or never will be.
  [[nodiscard]] bool is_idle() const noexcept { return cut_ || queue_.empty(); }

  /// The code of a payload: the same for all connections of a group.
  [[nodiscard]] std::uint64_t tag_of(std::span<std::byte const> bytes) const noexcept {
    return bytes.empty() ? 0 : SipHash(keys_.payload).add(bytes).finish();
  }

  void queue(FrameKind kind,
             std::uint64_t number,
             std::uint64_t call,
             std::span<std::byte const> bytes) {
    queue(kind, number, call, bytes, tag_of(bytes));
  }
  /// @param bytes  not copied unless they are few: must stay until the link is idle or dropped.
  /// @param tag    their code, where it is known already.
  void queue(FrameKind kind,
             std::uint64_t number,
             std::uint64_t call,
             std::span<std::byte const> bytes,
             std::uint64_t tag) {
    Header header{static_cast<std::uint64_t>(kind), number, bytes.size(), call, tag, 0};
    header.code = code_of(keys_.send, frames_sent_++, header);
    append(std::as_bytes(std::span(&header, 1)));
    if (bytes.size() <= few) {
      append(bytes);
    } else {
      queue_.push_back({{}, bytes, 0});
    }
  }

  /// Sends what the connection takes. @returns how many bytes.
  std::size_t send() {
    std::size_t sent = 0;
    while (!is_idle()) {
      Piece& piece = queue_.front();
      auto const left = piece.bytes().subspan(piece.sent);
      ssize_t const count =
          ::send(socket_.descriptor(), left.data(), left.size(),
                 MSG_NOSIGNAL | MSG_DONTWAIT | (queue_.size() > 1 ? MSG_MORE : 0));
      if (count > 0) {
        sent += static_cast<std::size_t>(count);
        counts().socket_sent_bytes.add(static_cast<std::size_t>(count));
        piece.sent += static_cast<std::size_t>(count);
        if (piece.sent == piece.bytes().size()) {
          queue_.pop_front();
        }
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        break;
      } else if (errno != EINTR) {
        cut_ = true;  // what has arrived before is still to be read: it may say why
      }
    }
    return sent;
  }

  /// Forgets what cannot be sent any more, with the memory that it lies in.
  void drop() {
    cut_ = cut_ || !queue_.empty();
    queue_.clear();
  }

  /// Reads what has arrived, a few MiB at most: other connections want to be looked at, too.
  /// @returns how many bytes.
  /// @throws NoFrame
  std::size_t receive() {
    std::size_t received = 0;
    while (!ended_ && arrived_.size() < most_frames && received < 4 * step) {
      std::span<std::byte> const room = make_room();
      ssize_t const count = ::recv(socket_.descriptor(), room.data(), room.size(), MSG_DONTWAIT);
      if (count > 0) {
        received += static_cast<std::size_t>(count);
        counts().socket_received_bytes.add(static_cast<std::size_t>(count));
        if (in_payload_) {
          digest_.add(room.first(static_cast<std::size_t>(count)));
        }
        filled_ += static_cast<std::size_t>(count);
        finish_what_is_full();
      } else if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        break;
      } else if (count == 0 || errno != EINTR) {
        ended_ = true;
      }
    }
    return received;
  }

  [[nodiscard]] bool has_frame() const noexcept { return !arrived_.empty(); }
  /// @pre there is one.
  [[nodiscard]] Frame take() {
    Frame frame = std::move(arrived_.front());
    arrived_.pop_front();
    return frame;
  }

  /// Says goodbye and waits until the other side's kernel has everything: to close a connection with
  /// unread bytes in it takes back what is still on its way.
  void close(Deadline deadline) noexcept {
    try {
      while (is_open() && !ended_ && !cut_ && std::chrono::steady_clock::now() < deadline) {
        send();
        if (is_idle() && socket_.unsent() == 0) {
          break;
        }
        static_cast<void>(receive());
        arrived_.clear();
        ::usleep(500);
      }
    } catch (...) {  // closed as it is
    }
    drop();
    socket_ = Socket();
  }

 private:
  struct Header {
    std::uint64_t kind;
    std::uint64_t number;
    std::uint64_t bytes;
    std::uint64_t call;
    std::uint64_t tag;
    std::uint64_t code;  ///< of everything above, and of the number of frames before it
  };
  /// Bytes to send: own ones, or those of somebody else.
  struct Piece {
    Bytes own;
    std::span<std::byte const> others;
    std::size_t sent = 0;
    [[nodiscard]] std::span<std::byte const> bytes() const {
      return own.empty() ? others : std::span<std::byte const>(own);
    }
  };
  static constexpr std::size_t few = 4096;
  static constexpr std::size_t most_frames = 16;  // that nobody has asked for yet
  static constexpr std::uint64_t most_bytes = std::uint64_t{1} << 36;
  static constexpr std::uint64_t most_words = std::uint64_t{1} << 16;  // of a beat, of a failure
  static constexpr std::size_t step = std::size_t{1} << 20;
  static constexpr std::size_t believed = std::size_t{64} << 20;

  [[nodiscard]] static std::uint64_t code_of(SipWords key,
                                             std::uint64_t frames_before,
                                             Header const& header) noexcept {
    std::uint64_t const words[] = {frames_before, header.kind, header.number,
                                   header.bytes,  header.call, header.tag};
    return SipHash(key).add(std::as_bytes(std::span(words))).finish();
  }

  /// To the last piece, if nothing of it has gone and it is our own.
  void append(std::span<std::byte const> bytes) {
    if (queue_.empty() || queue_.back().sent > 0 || queue_.back().own.empty()) {
      if (bytes.empty()) {
        return;
      }
      queue_.emplace_back();
    }
    queue_.back().own.insert(queue_.back().own.end(), bytes.begin(), bytes.end());
  }

  /// Where the next bytes go. Memory grows with what arrives: a header alone gets address space for
  /// `believed` bytes, and memory for one step.
  [[nodiscard]] std::span<std::byte> make_room() {
    if (!in_payload_) {
      return std::as_writable_bytes(std::span(&header_, 1)).subspan(filled_);
    }
    Bytes& bytes = frame_.bytes;
    auto const wanted = static_cast<std::size_t>(header_.bytes);
    if (filled_ == bytes.size()) {
      bytes.reserve(std::min(wanted, std::max(believed, 2 * filled_)));
      bytes.resize(std::min({wanted, filled_ + step, std::max(bytes.capacity(), filled_ + 1)}));
    }
    return std::span(bytes).subspan(filled_);
  }

  void finish_what_is_full() {
    if (!in_payload_ && filled_ == sizeof(header_)) {
      check_header();
      frame_ = {
          static_cast<FrameKind>(header_.kind), header_.number, header_.call, header_.tag, {}};
      digest_ = SipHash(keys_.payload);
      in_payload_ = true;
      filled_ = 0;
    }
    if (in_payload_ && filled_ == header_.bytes) {
      in_payload_ = false;
      filled_ = 0;
      if (header_.tag != (header_.bytes == 0 ? 0 : digest_.finish())) {
        throw NoFrame{};
      }
      left_ = left_ || frame_.kind == FrameKind::leave;
      if (frame_.kind != FrameKind::leave) {
        arrived_.push_back(std::move(frame_));
      }
    }
  }

  void check_header() {
    if (header_.code != code_of(keys_.receive, frames_received_++, header_)) {
      throw NoFrame{};
    }
    bool const known = header_.kind <= static_cast<std::uint64_t>(FrameKind::leave);
    bool const words = header_.kind >= static_cast<std::uint64_t>(FrameKind::failure);
    if (!known || header_.bytes > (words ? most_words : most_bytes)) {
      throw NoFrame{};
    }
  }

  Socket socket_;
  LinkKeys keys_;
  std::deque<Piece> queue_;
  std::uint64_t frames_sent_ = 0;
  bool cut_ = false;  // takes nothing more
  // What is being received.
  Header header_{};
  Frame frame_;
  SipHash digest_{SipWords{}};
  std::uint64_t frames_received_ = 0;
  bool in_payload_ = false;
  std::size_t filled_ = 0;  // bytes of the header, then of the payload
  std::deque<Frame> arrived_;
  bool ended_ = false;
  bool left_ = false;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
