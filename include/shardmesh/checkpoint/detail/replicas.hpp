// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include <shardmesh/checkpoint/detail/agree.hpp>
#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/detail/save_offer.hpp>
#include <shardmesh/checkpoint/format/bytes.hpp>
#include <shardmesh/checkpoint/save_plan.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/error.hpp>
#include <shardmesh/state/checksum.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// 64 bits that stand for a run of bytes. Four lanes, so that one core keeps up with its memory; each
/// step can be undone, so runs that differ in one word never agree.
[[nodiscard]] inline std::uint64_t fingerprint(format::ByteSpan bytes) noexcept {
  std::array<std::uint64_t, 4> lanes{1, 2, 3, 4};
  std::size_t at = 0;
  for (; at + 32 <= bytes.size(); at += 32) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(words.data(), bytes.data() + at, 32);
    for (std::size_t i = 0; i < 4; ++i) {
      lanes[i] = (lanes[i] ^ words[i]) * 0x9e3779b97f4a7c15U;
      lanes[i] ^= lanes[i] >> 32;
    }
  }
  std::uint64_t total = hash_bytes(bytes.size(), bytes.data() + at, bytes.size() - at);
  for (std::uint64_t const lane : lanes) {
    total = mix(total ^ lane) + 0x9e3779b97f4a7c15U;
  }
  return total;
}

[[nodiscard]] inline std::uint64_t fingerprint(SaveItem const& item, SaveSource const& source) {
  return item.dtype
             ? fingerprint(box_elements(*source.tensor, source.local, item.box.extent).span())
             : fingerprint(source.value);
}

/// (place in the plan, fingerprint) of what this rank offers of the doubtful items, as text.
[[nodiscard]] inline std::string pack_fingerprints(SaveOffer const& offer,
                                                   std::vector<PlacedItem> const& plan) {
  std::unordered_map<std::string, std::size_t> doubtful;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    if (plan[i].doubtful) {
      doubtful.emplace(item_id(plan[i].item), i);
    }
  }
  Packer out;
  for (std::size_t i = 0; i < offer.items.size(); ++i) {
    auto const found = doubtful.find(item_id(offer.items[i]));
    if (found != doubtful.end()) {
      out.number(found->second);
      out.number(fingerprint(offer.items[i], offer.sources[i]));
    }
  }
  return std::move(out).finish();
}

[[noreturn]] inline void throw_unlike(char const* operation,
                                      SaveItem const& item,
                                      int rank,
                                      int other) {
  std::string const what =
      item.dtype ? "tensors of shape " + to_string(item.shape) + " with different elements"
                 : "different plain values";
  throw MismatchError(
      std::string(operation) + ": ranks " + std::to_string(rank) + " and " + std::to_string(other) +
      " hold " + what + " under the key \"" + item.key +
      "\", of which a checkpoint could keep one; give what is each rank's own a name that says "
      "whose it is (\"" +
      item.key + ".rank" + std::to_string(other) +
      "\"), or make it the same on all ranks before the save");
}

/// The first offer of an item.
struct Offered {
  int rank = -1;
  std::uint64_t fingerprint = 0;
};

/// A checkpoint holds one value for a key. Where several ranks offer one and are not parts of one mesh,
/// which keeps its replicas equal, their bytes are compared: nothing is lost because another rank used
/// the same name. Costs nothing for keys that one rank has, or one mesh; else each of those ranks reads
/// what it offers once.
/// @throws MismatchError on every rank.
/// @collective over `comm`, with equal plans.
template <Communicator Comm>
void refuse_unlike(Comm const& comm,
                   char const* operation,
                   SaveOffer const& offer,
                   std::vector<PlacedItem> const& plan) {
  bool any = false;
  for (PlacedItem const& one : plan) {
    any = any || one.doubtful;
  }
  if (!any) {
    return;
  }
  std::string mine;
  together(comm, operation, [&] { mine = pack_fingerprints(offer, plan); });
  std::vector<std::string> const all = all_gather_text(comm, mine, call_of(operation));
  std::vector<Offered> first(plan.size());
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    for (Unpacker in(all[rank]); !in.at_end();) {
      auto const item = static_cast<std::size_t>(in.number());
      std::uint64_t const bits = in.number();
      Offered& known = first.at(item);
      known = known.rank < 0 ? Offered{static_cast<int>(rank), bits} : known;
      if (bits != known.fingerprint) {
        std::vector<int> const world = comm.world_ranks();
        throw_unlike(operation, plan[item].item, world[static_cast<std::size_t>(known.rank)],
                     world[rank]);
      }
    }
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
