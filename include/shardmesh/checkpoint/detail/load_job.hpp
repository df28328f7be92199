// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/detail/load_values.hpp>
#include <shardmesh/checkpoint/detail/load_wishes.hpp>
#include <shardmesh/checkpoint/detail/open_places.hpp>
#include <shardmesh/checkpoint/detail/packer.hpp>
#include <shardmesh/checkpoint/detail/stage.hpp>
#include <shardmesh/checkpoint/detail/tied.hpp>
#include <shardmesh/checkpoint/detail/unit_reader.hpp>
#include <shardmesh/checkpoint/detail/unused_keys.hpp>
#include <shardmesh/checkpoint/format/bytes_item.hpp>
#include <shardmesh/checkpoint/format/crc32.hpp>
#include <shardmesh/checkpoint/load_options.hpp>
#include <shardmesh/checkpoint/load_plan.hpp>
#include <shardmesh/comm/communicator.hpp>
#include <shardmesh/core/key_map.hpp>
#include <shardmesh/memory/host_block.hpp>
#include <shardmesh/memory/host_buckets.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A load on one rank: what it wants, reads, passes on and takes.
/// @tparam C  `AnyCatalog`. A template, so that a program that loads nothing compiles nothing of it.
template <Catalog C>
class LoadJob {
 public:
  /// Checks the state dict against the catalog. No communication.
  /// @param ties  of all ranks.
  LoadJob(C& catalog,
          StateDict const& dict,
          LoadOptions const& options,
          CheckpointReport& report,
          std::vector<Tie> const& ties)
      : catalog_(catalog),
        dict_(dict),
        options_(options),
        report_(report),
        keys_(catalog.keys()),
        plain_(catalog, dict) {
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      numbers_.emplace(keys_[i], i);
      stored_.push_back(catalog_.tensor(keys_[i]));
    }
    positions_.resize(keys_.size(), nowhere);
    staged_.resize(dict.size());
    std::vector<bool> missed(dict.size(), false);
    std::size_t position = 0;
    for (StateEntry const& entry : dict) {
      missed[position] = !entry.is_live() && !want(entry, position);
      ++position;
    }
    forgive_tied(
        dict, ties, [this](std::string const& key) { return numbers_.count(key) > 0; }, missed);
    position = 0;
    std::vector<std::string> missing;
    for (StateEntry const& entry : dict) {
      if (missed[position++]) {
        missing.push_back(entry.key);
      }
    }
    if (options_.missing == KeyPolicy::error && !missing.empty()) {
      throw_missing(missing.front(), catalog_, keys_, "", {missing.begin() + 1, missing.end()});
    }
    for (std::string const& key : missing) {
      miss(key, "");
    }
    for (std::string const& key : plain_.keys()) {
      wishes_.values.push_back(numbers_.at(key));
    }
    auto const by_key = [](auto const& a, auto const& b) { return a.key < b.key; };
    std::sort(wishes_.tensors.begin(), wishes_.tensors.end(), by_key);
    std::sort(wishes_.values.begin(), wishes_.values.end());
    wishes_.values.erase(std::unique(wishes_.values.begin(), wishes_.values.end()),
                         wishes_.values.end());
    source_ = {fingerprint_of_numbers(keys_, stored_), catalog.identity(), catalog.describe()};
  }

  /// @collective over `comm`.
  template <Communicator Comm>
  void make_plan(Comm const& comm) {
    std::vector<Source> sources;
    for (std::string const& text : all_gather_text(comm, pack_wishes(wishes_, source_), "load")) {
      all_.push_back(unpack_wishes(text, sources.emplace_back()));
    }
    refuse_other_sources(comm, sources);
    std::uint64_t unit = 0;
    if (catalog_.reads_parts()) {
      unit = std::min<std::uint64_t>(std::uint64_t{16} << 20, options_.round_bytes);
    }
    plan_ = plan_load(stored_, all_, unit, options_.round_bytes);
    index_.emplace(all_, keys_.size());
    find_unexpected();
  }

  [[nodiscard]] LoadPlan const& plan() const noexcept { return plan_; }

  /// Reads this rank's plain values; those that others want too are returned, packed.
  [[nodiscard]] std::string read_values(int rank) {
    Packer out;
    for (ReadValue const& one : plan_.values) {
      if (one.reader != rank) {
        continue;
      }
      Value value = read_plain(catalog_, keys_[one.key]);
      if (one.wanted_by.size() > 1) {
        out.number(one.key);
        out.text(format::as_text(format::write_bytes_item(value)));
      }
      values_.add(keys_[one.key], std::move(value));
    }
    return std::move(out).finish();
  }

  [[nodiscard]] bool shares_values() const {
    return std::any_of(plan_.values.begin(), plan_.values.end(),
                       [](ReadValue const& one) { return one.wanted_by.size() > 1; });
  }

  /// Takes what `read_values` returned on all ranks.
  void take_values(std::vector<std::string> const& shared) {
    for (std::string const& text : shared) {
      for (Unpacker in(text); !in.at_end();) {
        auto const key = static_cast<std::size_t>(in.number());
        std::string const archive = in.text();
        if (std::binary_search(wishes_.values.begin(), wishes_.values.end(), key) &&
            values_.find(keys_[key]) == nullptr) {
          values_.add(keys_[key], format::read_bytes_item(format::as_bytes(archive)));
        }
      }
    }
  }

  /// Checks the plain values that were read, those of optimizers, too.
  void stage_values() {
    plain_.stage(
        dict_, [this](std::string const& key) -> Value const& { return values_.at(key); },
        options_.dtype, report_, staged_,
        [this](std::string const& key, std::string const& why) { miss(key, why); });
  }

  /// Finds what was read for optimizers of which none, on any rank, knows what to do with it, and what of
  /// their groups cannot be loaded.
  /// @collective over `comm`, unless unexpected keys are ignored and all that is stored is wanted.
  template <Communicator Comm>
  void find_unused(Comm const& comm) {
    bool const ignores = options_.unexpected == KeyPolicy::ignore;
    if (ignores && !may_leave_out(stored_, all_)) {
      return;
    }
    std::vector<KeyUse> mine(keys_.size(), KeyUse::unseen);
    for (std::size_t const key : wishes_.values) {
      mine[key] = KeyUse::used;
    }
    for (std::string const& key : plain_.unused()) {
      mine[numbers_.at(key)] = KeyUse::unused;
    }
    for (std::string const& key : plain_.left_out()) {
      mine[numbers_.at(key)] = KeyUse::left_out;
    }
    std::vector<KeyUse> const any = use_on_any_rank(comm, mine);
    for (std::size_t key = 0; key < keys_.size(); ++key) {
      if (any[key] == (ignores ? KeyUse::left_out : KeyUse::unused)) {
        (ignores ? left_out_ : report_.unexpected).push_back(keys_[key]);
      }
    }
    refuse_unexpected();
  }

  /// Keys that are ignored, but will be missing in the next save: the same on every rank.
  [[nodiscard]] std::vector<std::string> take_left_out() noexcept { return std::move(left_out_); }

  /// Compares what has been read under several names of one tensor.
  void compare_tied() const { check_tied(dict_, staged_, catalog_.describe()); }

  /// Messages of a round, one for each pair of ranks, in the order of its units.
  struct Traffic {
    std::vector<HostBlock> buffers;
    std::vector<Message> sends;
    std::vector<Message> receives;
  };

  /// Does any rank pass anything on in this round?
  [[nodiscard]] bool is_shared(std::vector<std::size_t> const& round) const {
    return std::any_of(round.begin(), round.end(),
                       [this](std::size_t i) { return plan_.units[i].wanted_by.size() > 1; });
  }

  /// Reads this rank's units of a round, takes its own part and packs those of the others.
  void read_round(std::vector<std::size_t> const& round,
                  int rank,
                  int ranks,
                  Traffic& traffic,
                  std::atomic<std::uint64_t>& done) {
    std::vector<std::uint64_t> sizes(static_cast<std::size_t>(ranks), 0);
    for (std::size_t const i : round) {
      ReadUnit const& unit = plan_.units[i];
      for (int const receiver : unit.wanted_by) {
        if (unit.reader == rank && receiver != rank) {
          sizes[static_cast<std::size_t>(receiver)] +=
              wanted_bytes(unit, index_->boxes(unit.key, receiver));
        }
      }
    }
    std::vector<std::byte*> next(static_cast<std::size_t>(ranks), nullptr);
    for (int receiver = 0; receiver < ranks; ++receiver) {
      auto const size = static_cast<std::size_t>(sizes[static_cast<std::size_t>(receiver)]);
      if (size > 0) {
        HostBlock const& buffer = traffic.buffers.emplace_back(size);
        next[static_cast<std::size_t>(receiver)] = buffer.data();
        traffic.sends.push_back({receiver, buffer.data(), size});
      }
    }
    read_units(round, rank, done, [&](ReadUnit const& unit, int receiver, ReadTask& task) {
      for (Box const& box : index_->boxes(unit.key, receiver)) {
        if (auto const common = intersect(box, unit.part)) {
          std::byte*& at = next[static_cast<std::size_t>(receiver)];
          task.places.push_back({at, *common, byte_strides(common->extent, size_of(unit.dtype))});
          at += static_cast<std::size_t>(common->volume()) * size_of(unit.dtype);
        }
      }
    });
  }

  /// The addresses of what this rank stages, for `take_places`.
  [[nodiscard]] std::string pack_places() {
    return OpenPlaces::pack(
        wishes_, [this](std::size_t key) -> StagedTensor const& { return staged_of(key); });
  }
  /// Takes what `pack_places` returned on all ranks.
  /// @returns as `OpenPlaces::take`.
  [[nodiscard]] bool take_places(std::vector<std::string> const& all) {
    return places_.take(all, all_);
  }
  /// Reads all of this rank's units into the places of all that want them.
  /// @pre take_places returned true, and nobody frees them.
  void read_into_places(int rank, std::atomic<std::uint64_t>& done) {
    std::vector<std::size_t> all(plan_.units.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    read_units(all, rank, done, [&](ReadUnit const& unit, int receiver, ReadTask& task) {
      auto const& places = places_.of(receiver, unit.key);
      std::copy_if(places.begin(), places.end(), std::back_inserter(task.places),
                   [&unit](StagedPlace const& place) {
                     return intersect(place.box, unit.part).has_value();
                   });
    });
  }

  /// Notes what the others read for this rank.
  /// @returns bytes.
  std::uint64_t count_received(std::vector<std::size_t> const& round, int rank) const {
    std::uint64_t bytes = 0;
    for (std::size_t const i : round) {
      ReadUnit const& unit = plan_.units[i];
      if (unit.reader != rank && wants(unit, rank)) {
        bytes += wanted_bytes(unit, index_->boxes(unit.key, rank));
      }
    }
    report_.bytes_received += bytes;
    return bytes;
  }

  /// Makes room for what the others will send in a round.
  void expect_round(std::vector<std::size_t> const& round,
                    int rank,
                    int ranks,
                    Traffic& traffic) const {
    std::vector<std::uint64_t> in(static_cast<std::size_t>(ranks), 0);
    for (std::size_t const i : round) {
      ReadUnit const& unit = plan_.units[i];
      if (unit.reader != rank && wants(unit, rank)) {
        in[static_cast<std::size_t>(unit.reader)] +=
            wanted_bytes(unit, index_->boxes(unit.key, rank));
      }
    }
    for (int sender = 0; sender < ranks; ++sender) {
      if (std::uint64_t const bytes = in[static_cast<std::size_t>(sender)]; bytes > 0) {
        auto& buffer = traffic.buffers.emplace_back(static_cast<std::size_t>(bytes));
        traffic.receives.push_back({sender, buffer.data(), buffer.size()});
      }
    }
  }

  /// Takes what has arrived.
  void unpack_round(std::vector<std::size_t> const& round, int rank, Traffic const& traffic) {
    for (Message const& message : traffic.receives) {
      auto const* at = static_cast<std::byte const*>(message.data);
      for (std::size_t const i : round) {
        ReadUnit const& unit = plan_.units[i];
        if (unit.reader != message.peer || !wants(unit, rank)) {
          continue;
        }
        StagedTensor& staged = staged_of(unit.key);
        for (Piece const& piece : staged.pieces()) {
          if (auto const common = intersect(piece.box, unit.part)) {
            staged.place(piece, *common, at, byte_strides(common->extent, size_of(unit.dtype)));
            at += static_cast<std::size_t>(common->volume()) * size_of(unit.dtype);
          }
        }
      }
    }
  }

  /// @param dict  that the job was made for.
  [[nodiscard]] ReadyLoad<C> ready(StateDict& dict) && {
    return {std::move(staged_), std::move(plain_), dict};
  }

 private:
  static constexpr auto nowhere = static_cast<std::size_t>(-1);

  /// @pre this rank wants the tensor of that number.
  [[nodiscard]] StagedTensor& staged_of(std::size_t key) {
    return staged_.at(positions_.at(key)).tensor.value();
  }

  /// @returns false if there is nothing to load.
  [[nodiscard]] bool want(StateEntry const& entry, std::size_t position) {
    auto const number = numbers_.find(entry.key);
    if (number == numbers_.end() || !loads_as_tensor(catalog_, entry)) {
      return plain_.want(entry, position);
    }
    auto& staged = staged_[position].tensor;
    staged.emplace(
        stage_tensor(catalog_, entry.key, entry.tensor(), options_.dtype, report_, memory_));
    positions_[number->second] = position;
    wishes_.tensors.push_back({number->second, staged->boxes()});
    return true;
  }

  void miss(std::string const& key, std::string const& why) {
    if (options_.missing == KeyPolicy::error) {
      throw_missing(key, catalog_, keys_, why);
    }
    if (options_.missing != KeyPolicy::ignore) {
      report_.missing.push_back(key);
    }
  }

  void find_unexpected() {
    if (options_.unexpected == KeyPolicy::ignore) {
      return;
    }
    std::vector<char> wanted(keys_.size(), 0);
    for (LoadWishes const& one : all_) {
      for (LoadWishes::Tensor const& tensor : one.tensors) {
        wanted[tensor.key] = 1;
      }
      for (std::size_t const key : one.values) {
        wanted[key] = 1;
      }
    }
    for (std::size_t key = 0; key < keys_.size(); ++key) {
      if (wanted[key] == 0) {
        report_.unexpected.push_back(keys_[key]);
      }
    }
    refuse_unexpected();
  }

  void refuse_unexpected() const {
    if (options_.unexpected == KeyPolicy::error && !report_.unexpected.empty()) {
      throw KeyError("shardmesh::load: " + catalog_.describe() + " has " +
                     std::to_string(report_.unexpected.size()) +
                     " keys that no state dict has, the first is \"" + report_.unexpected.front() +
                     "\"; load them too, or with another KeyPolicy for unexpected keys");
    }
  }

  [[nodiscard]] static bool wants(ReadUnit const& unit, int rank) {
    return std::binary_search(unit.wanted_by.begin(), unit.wanted_by.end(), rank);
  }

  /// Reads those of some units that are this rank's: into what it stages itself, and where
  /// `send(unit, receiver, task)` says for the others.
  template <class Send>
  void read_units(std::vector<std::size_t> const& numbers,
                  int rank,
                  std::atomic<std::uint64_t>& done,
                  Send const& send) {
    std::vector<ReadTask> tasks;
    for (std::size_t const i : numbers) {
      ReadUnit const& unit = plan_.units[i];
      if (unit.reader != rank) {
        continue;
      }
      ReadTask& task = tasks.emplace_back();
      task.unit = &unit;
      for (int const receiver : unit.wanted_by) {
        if (receiver != rank) {
          send(unit, receiver, task);
          continue;
        }
        StagedTensor& staged = staged_of(unit.key);
        if (!staged.takes_as_stored()) {
          task.converts = &staged;
          continue;
        }
        for (Piece const& piece : staged.pieces()) {
          if (intersect(piece.box, unit.part)) {
            task.places.push_back(staged.place_of(piece));
          }
        }
      }
    }
    UnitReader<C>(catalog_, keys_, options_.threads).read(tasks, done);
  }

  C& catalog_;
  StateDict const& dict_;
  LoadOptions options_;
  CheckpointReport& report_;
  std::vector<std::string> keys_;
  std::unordered_map<std::string, std::size_t> numbers_;  ///< of keys
  std::vector<StoredTensor const*> stored_;               ///< by number
  std::vector<Staged> staged_;                            ///< by position in the state dict
  std::vector<std::size_t> positions_;  ///< in the state dict, by key; or `nowhere`
  LoadValues<C> plain_;
  KeyMap<Value> values_;
  std::vector<std::string> left_out_;
  LoadWishes wishes_;
  Source source_;
  std::vector<LoadWishes> all_;  ///< by rank
  std::optional<WishIndex> index_;
  LoadPlan plan_;
  HostBuckets memory_;  ///< of what is staged
  OpenPlaces places_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
