// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <shardmesh/core/error.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

using Deadline = std::chrono::steady_clock::time_point;

/// Thrown inside the socket code when the other side has gone.
struct ConnectionClosed {};
/// Thrown inside the socket code when a deadline has passed.
struct DeadlinePassed {};

/// A TCP socket; closed with its owner.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  Socket(Socket const&) = delete;
  Socket& operator=(Socket const&) = delete;
  ~Socket() {
    if (descriptor_ >= 0) {
      ::close(descriptor_);
    }
  }

  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  [[nodiscard]] bool is_open() const noexcept { return descriptor_ >= 0; }

  /// Waits until the socket can be read (or written).
  /// @throws DeadlinePassed
  void wait_for(short events, Deadline deadline) const {
    while (true) {
      auto const left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0) {
        throw DeadlinePassed{};
      }
      pollfd entry{descriptor_, events, 0};
      int const ready =
          ::poll(&entry, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 1000)));
      if (ready > 0) {
        return;
      }
      if (ready < 0 && errno != EINTR) {
        throw ConnectionClosed{};
      }
    }
  }

  /// @throws DeadlinePassed, ConnectionClosed
  void send_all(std::span<std::byte const> bytes, Deadline deadline) const {
    while (!bytes.empty()) {
      ssize_t const count =
          ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count > 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(count));
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        wait_for(POLLOUT, deadline);
      } else if (errno != EINTR) {
        throw ConnectionClosed{};
      }
    }
  }

  /// @throws DeadlinePassed, ConnectionClosed
  void receive_all(std::span<std::byte> bytes, Deadline deadline) const {
    while (!bytes.empty()) {
      ssize_t const count = ::recv(descriptor_, bytes.data(), bytes.size(), MSG_DONTWAIT);
      if (count > 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(count));
      } else if (count == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        throw ConnectionClosed{};
      } else if (errno != EINTR) {
        wait_for(POLLIN, deadline);
      }
    }
  }

  void no_delay() const {
    int const on = 1;
    ::setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }

  /// Bytes that the other side's system has not confirmed yet.
  [[nodiscard]] int unsent() const {
    int bytes = 0;
    return ::ioctl(descriptor_, TIOCOUTQ, &bytes) == 0 ? bytes : 0;
  }

  /// The address of this end, e.g. "127.0.0.1".
  [[nodiscard]] std::string local_address() const {
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    char text[INET_ADDRSTRLEN] = "127.0.0.1";
    if (::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
      ::inet_ntop(AF_INET, &address.sin_addr, text, sizeof(text));
    }
    return text;
  }

  /// @param port     0 takes a free one.
  /// @param address  of this host, on which to listen; "0.0.0.0" for all of them.
  /// @throws CommError
  [[nodiscard]] static Socket listen(int port, std::string const& address = "127.0.0.1") {
    Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    int const on = 1;
    ::setsockopt(socket.descriptor_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_in where{};
    where.sin_family = AF_INET;
    ::inet_pton(AF_INET, address.c_str(), &where.sin_addr);
    where.sin_port = htons(static_cast<std::uint16_t>(port));
    if (::bind(socket.descriptor_, reinterpret_cast<sockaddr*>(&where), sizeof(where)) != 0 ||
        ::listen(socket.descriptor_, 1024) != 0) {
      throw CommError("shardmesh: rank 0 cannot listen on port " + std::to_string(port) + ": " +
                      std::strerror(errno) + "; set MASTER_PORT to a free port");
    }
    return socket;
  }

  [[nodiscard]] int port() const {
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    ::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.sin_port);
  }

  /// A connection that waits to be taken; closed if there is none.
  [[nodiscard]] Socket accept() const {
    Socket socket(::accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC));
    if (socket.is_open()) {
      socket.no_delay();
    }
    return socket;
  }

  /// Connects, again and again until someone listens.
  /// @throws TimeoutError if nobody does in time; CommError if the name has no address.
  [[nodiscard]] static Socket connect(std::string const& host, int port, Deadline deadline) {
    addrinfo hints{};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
      throw CommError("shardmesh: \"" + host + "\" has no address; look at MASTER_ADDR");
    }
    sockaddr_in address{};
    std::memcpy(&address, found->ai_addr, sizeof(address));
    ::freeaddrinfo(found);
    while (std::chrono::steady_clock::now() < deadline) {
      Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      if (socket.connects_to(address, deadline)) {
        socket.no_delay();
        return socket;
      }
      ::usleep(20'000);
    }
    throw TimeoutError("shardmesh: nobody listens on " + host + ":" + std::to_string(port) +
                       "; start rank 0, and look at MASTER_ADDR and MASTER_PORT");
  }

 private:
  /// @pre the socket does not block: a host that does not answer must not outlast the deadline.
  [[nodiscard]] bool connects_to(sockaddr_in const& address, Deadline deadline) const {
    auto const* const raw = reinterpret_cast<sockaddr const*>(&address);
    if (::connect(descriptor_, raw, sizeof(address)) == 0) {
      return true;
    }
    if (errno != EINPROGRESS) {
      return false;
    }
    try {
      wait_for(POLLOUT, deadline);
    } catch (DeadlinePassed const&) {
      return false;
    }
    int error = 0;
    socklen_t size = sizeof(error);
    return ::getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
  }

  int descriptor_ = -1;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
