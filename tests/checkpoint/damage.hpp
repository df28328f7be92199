// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// For tests of the file formats: bytes written by hand, what was thrown, damage at every byte.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/format/pickle_cursor.hpp>
#include <shardmesh/core/error.hpp>

#include "../support/sample.hpp"

namespace test {

using shardmesh::format::Bytes;
using shardmesh::format::ByteSpan;

inline Bytes bytes_of(std::string_view text) {
  ByteSpan const bytes = shardmesh::format::as_bytes(text);
  return Bytes(bytes.begin(), bytes.end());
}

/// Bytes from hexadecimal digits; spaces are passed over.
inline Bytes unhex(std::string_view digits) {
  constexpr std::string_view values = "0123456789abcdef";
  Bytes bytes;
  bool high = true;
  for (char const digit : digits) {
    if (digit == ' ') {
      continue;
    }
    auto const value = static_cast<unsigned char>(values.find(digit));
    if (high) {
      bytes.push_back(static_cast<std::byte>(value << 4));
    } else {
      bytes.back() |= static_cast<std::byte>(value);
    }
    high = !high;
  }
  return bytes;
}

inline std::string hex(ByteSpan bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  for (std::byte const byte : bytes) {
    text += digits[std::to_integer<std::size_t>(byte) >> 4];
    text += digits[std::to_integer<std::size_t>(byte) & 15U];
  }
  return text;
}

/// `bytes` with the first run of them that reads `from` replaced; empty if there is none.
inline Bytes replaced(ByteSpan bytes, std::string_view from, std::string_view to) {
  std::string text(shardmesh::format::as_text(bytes));
  std::size_t const at = text.find(from);
  return at == std::string::npos ? Bytes{} : bytes_of(text.replace(at, from.size(), to));
}

/// What a call threw.
struct Failure {
  std::string kind;  ///< the class; empty if nothing was thrown
  std::string what;
  std::string path;          ///< of a CorruptError or IoError
  std::uint64_t offset = 0;  ///< of a CorruptError

  [[nodiscard]] bool says(std::string_view part) const { return what.find(part) != what.npos; }
  /// Is it a CorruptError whose message names file and byte?
  [[nodiscard]] bool is_located() const {
    return (kind == "CorruptError" || kind == "PickleRefused") &&
           says("[" + path + ", byte " + std::to_string(offset) + "]");
  }
};

/// Calls `f`. What is no shardmesh error passes through, and fails the test.
template <class F>
Failure failure_of(F f) {
  try {
    f();
  } catch (shardmesh::format::PickleRefused const& error) {
    return {"PickleRefused", error.what(), error.path(), error.offset()};
  } catch (shardmesh::CorruptError const& error) {
    return {"CorruptError", error.what(), error.path(), error.offset()};
  } catch (shardmesh::IoError const& error) {
    return {"IoError", error.what(), error.path(), 0};
  } catch (shardmesh::UnsupportedError const& error) {
    return {"UnsupportedError", error.what(), "", 0};
  } catch (shardmesh::ShapeError const& error) {
    return {"ShapeError", error.what(), "", 0};
  } catch (shardmesh::InvalidArgument const& error) {
    return {"InvalidArgument", error.what(), "", 0};
  } catch (shardmesh::MismatchError const& error) {
    return {"MismatchError", error.what(), "", 0};
  } catch (shardmesh::Error const& error) {
    return {"Error", error.what(), "", 0};
  }
  return {};
}

/// Reads `whole` cut off before each `step`-th byte. Every cut must be found, with its file and a
/// byte that is not behind the cut. Returns the first that is not, in words.
template <class F>
std::string unseen_truncation(ByteSpan whole, std::size_t step, F read) {
  for (std::size_t size = 0; size < whole.size(); size += step) {
    Bytes const cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    Failure const failure = failure_of([&] { read(cut); });
    if (!failure.is_located() || failure.offset > size) {
      return "cut at " + std::to_string(size) + ": \"" + failure.kind + "\" " + failure.what;
    }
  }
  return {};
}

/// What became of reading damaged copies.
struct Damage {
  std::size_t refused = 0;
  std::size_t read = 0;
  std::string problem;  ///< the first failure that was neither corruption nor lack of support
};

/// Reads `whole` with the bits of `mask` flipped in each byte that `where` steps on.
template <class F>
Damage flip_bits(ByteSpan whole, Stride where, std::byte mask, F read) {
  Damage damage;
  for (std::size_t at = where.first; at < whole.size(); at += where.step) {
    Bytes bytes(whole.begin(), whole.end());
    bytes[at] ^= mask;
    Failure const failure = failure_of([&] { read(bytes); });
    ++(failure.kind.empty() ? damage.read : damage.refused);
    if (!failure.kind.empty() && !failure.is_located() && failure.kind != "UnsupportedError" &&
        damage.problem.empty()) {
      damage.problem = "byte " + std::to_string(at) + ": " + failure.kind + " " + failure.what;
    }
  }
  return damage;
}

}  // namespace test
