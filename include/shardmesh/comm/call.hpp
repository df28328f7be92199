// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <shardmesh/core/error.hpp>
#include <shardmesh/core/fingerprint.hpp>
#include <shardmesh/core/text.hpp>

namespace shardmesh {
inline namespace v0 {

/// How closely ranks compare their calls where comparing costs time (NCCL; ranks that are threads, and
/// those that talk by sockets or MPI, compare every call whatever is asked for).
enum class Checks : std::uint8_t {
  /// In the background: ranks that made different calls get an error within two rounds of the
  /// watchdog, less than half a second. The call itself pays nothing measurable.
  watched,
  /// Before each exchange: every call waits for all ranks. For hunting a mistake.
  full,
};

/// What a rank is about to do together with the others, and the arguments that must be the same on
/// all of them. Every meeting of ranks carries one; ranks whose calls differ get a MismatchError that
/// names both sides.
///
/// Made on the stack for one call; costs no allocation. The words for the arguments are asked for only
/// where ranks differ.
class Call {
 public:
  /// A call without arguments to compare.
  /// @param operation  a literal, the name that the user called: "barrier", "redistribute".
  constexpr Call(char const* operation) noexcept
      : operation_(operation), fingerprint_(Fingerprint().add(operation_).value()) {}

  /// @param arguments  stands for everything that must be the same on all ranks.
  /// @param describe   `describe()` returns the arguments in words; must live as long as the call.
  template <class Describe>
  constexpr Call(char const* operation, Fingerprint arguments, Describe const& describe) noexcept
      : operation_(operation),
        fingerprint_(Fingerprint(arguments).add(std::string_view(operation)).value()),
        context_(std::addressof(describe)),
        describe_([](void const* context) -> std::string {
          return (*static_cast<Describe const*>(context))();
        }) {}

  [[nodiscard]] constexpr char const* operation() const noexcept { return operation_.data(); }
  /// Of the operation and its arguments.
  [[nodiscard]] constexpr std::uint64_t fingerprint() const noexcept { return fingerprint_; }
  /// The arguments in words; empty if there are none.
  [[nodiscard]] std::string arguments() const {
    return describe_ == nullptr ? std::string() : describe_(context_);
  }

 private:
  std::string_view operation_;  // ends with a zero, being a literal
  std::uint64_t fingerprint_;
  void const* context_ = nullptr;
  std::string (*describe_)(void const*) = nullptr;
};

namespace detail {

/// Words of another rank, fit for an error: ranks that differ may take anything for words. What is no
/// text becomes `\xNN`, and what lies beyond `most` bytes "...".
[[nodiscard]] inline std::string readable(std::string_view text, std::size_t most = 4000) {
  std::string result;
  bool const has_letters = is_utf8(text);
  for (char const c : text.substr(0, most)) {
    bool const is_plain = c == '\n' || c == '"' || c == '\\' || (c >= ' ' && c <= '~');
    bool const is_letter = has_letters && static_cast<unsigned char>(c) >= 0x80;
    result += is_plain || is_letter ? std::string(1, c) : escaped({&c, 1});
  }
  return text.size() > most ? result + "..." : result;
}

/// @throws InvalidArgument for a communicator that stands for no group.
inline void require_group(bool there, char const* operation) {
  if (!there) {
    throw InvalidArgument(
        std::string("shardmesh::") + operation +
        ": this communicator is empty: it was made by default, or by a split with "
        "a negative color, and has no ranks; ask `if (comm)` before its calls");
  }
}

/// A call in words, as ranks send it to each other once they know that they differ.
struct CallText {
  std::string operation;
  std::string arguments;

  CallText() = default;
  CallText(std::string name, std::string words)
      : operation(std::move(name)), arguments(std::move(words)) {}
  explicit CallText(Call const& call)
      : CallText(call.operation(), readable(call.arguments(), std::string_view::npos)) {}

  [[nodiscard]] std::string packed() const { return operation + '\n' + arguments; }
  [[nodiscard]] static CallText unpack(std::string_view text) {
    std::size_t const end = text.find('\n');
    return {readable(text.substr(0, end)),
            end == std::string_view::npos ? std::string()
                                          : readable(text.substr(end + 1), std::string_view::npos)};
  }
};

/// The first rank whose fingerprint is not rank 0's; 0 if there is none.
[[nodiscard]] inline std::size_t first_other(std::vector<std::uint64_t> const& fingerprints) {
  for (std::size_t rank = 1; rank < fingerprints.size(); ++rank) {
    if (fingerprints[rank] != fingerprints[0]) {
      return rank;
    }
  }
  return 0;
}

/// Of two lists that are separated by semicolons, what is left of both from the first item on that is
/// not the same, if they are long; the item in `a`.
[[nodiscard]] inline std::string differing_part(std::string const& a, std::string const& b) {
  constexpr std::size_t readable = 400;
  if (a.size() <= readable && b.size() <= readable) {
    return a;
  }
  std::size_t same = 0;
  std::size_t item = 0;
  while (same < a.size() && same < b.size() && a[same] == b[same]) {
    item = a[same] == ';' ? same + 1 : item;
    ++same;
  }
  std::string const shown = a.substr(item, readable);
  return (item > 0 ? "..." : "") + shown + (item + readable < a.size() ? "..." : "");
}

/// The sentence for ranks that met for different calls.
/// @param world_a, world_b  in the numbering of the whole job.
[[nodiscard]] inline std::string mismatch_text(int world_a,
                                               CallText const& a,
                                               int world_b,
                                               CallText const& b) {
  std::string const first = "rank " + std::to_string(world_a);
  std::string const second = ", rank " + std::to_string(world_b);
  if (a.operation == b.operation) {
    return "shardmesh::" + a.operation + ": ranks disagree; " + first + " has " +
           differing_part(a.arguments, b.arguments) + second + " has " +
           differing_part(b.arguments, a.arguments) +
           "; all ranks must pass the same arguments in the same order";
  }
  auto const words = [](CallText const& one) {
    return one.operation + (one.arguments.empty() ? "" : " (" + one.arguments + ")");
  };
  return "shardmesh: ranks made different calls: " + first + " is in " + words(a) + second +
         " is in " + words(b) + "; every rank must make the same calls";
}

}  // namespace detail

}  // namespace v0
}  // namespace shardmesh
