// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// What a soak does, over and over: each action draws its ranks, meshes and states, and returns what is wrong.

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <shardmesh/checkpoint/load_any.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>
#include <shardmesh/memory/host_pool.hpp>

#include "../disk/recorder.hpp"
#include "../support/checkpoint_disagreements.hpp"
#include "../support/redistribute_cases.hpp"
#include "store.hpp"
#include "training.hpp"
#include "truth.hpp"

namespace soak {

class Actions {
 public:
  /// @param root    an empty directory.
  /// @param mutant  a mistake to make, so that it can be seen that it is found: "leak", "pool", "descriptor", "byte".
  Actions(std::string root, std::string mutant)
      : root_(std::move(root)), mutant_(std::move(mutant)) {}

  struct Action {
    char const* name;
    std::string (Actions::*run)(Random&);
    long done = 0;
  };
  [[nodiscard]] std::vector<Action>& all() { return all_; }

  /// Does one of them.
  [[nodiscard]] std::string round(Random& random) {
    Action& action = all_[below(random, all_.size())];
    ++action.done;
    ++rounds_;
    if (mutant_ == "leak") {
      kept_.emplace_back(64, 'x');
    }
    if (mutant_ == "pool" && rounds_ == 200) {
      static_cast<void>(sm::host_pool().allocate(1));
    }
    if (mutant_ == "descriptor" && rounds_ == 200) {
      kept_files_.emplace_back("/dev/null");
    }
    std::string fault = (this->*action.run)(random);
    return fault.empty() ? fault : std::string(action.name) + ": " + fault;
  }

  [[nodiscard]] long refused() const { return refused_; }

 private:
  /// A place for a new checkpoint: a fresh one, or one that is replaced.
  Slot& next_slot(Random& random) {
    if (slots_.size() < most_slots) {
      slots_.push_back({});
      return slots_.back();
    }
    return one_of_slots(random);
  }
  Slot& one_of_slots(Random& random) { return slots_[below(random, slots_.size())]; }

  /// What the slot will be: DCP over DCP, and so on, where it is replaced.
  [[nodiscard]] Slot planned(Random& random, Slot const& now) {
    Slot slot = now;
    if (slot.path.empty()) {
      slot.form = static_cast<Form>(below(random, form_names.size()));
      slot.path = root_ + "/" + std::to_string(slots_.size()) +
                  (slot.form == Form::file ? ".safetensors" : "");
    } else if (slot.form == Form::dcp || slot.form == Form::background) {
      slot.form = below(random, 2) == 0 ? Form::dcp : Form::background;
    }
    bool const has_values = slot.form == Form::dcp || slot.form == Form::background;
    slot.holds = random_state(random, ++version_, has_values);
    return slot;
  }

  [[nodiscard]] std::string training(Random& random) { return train(random, root_ + "/training"); }

  [[nodiscard]] std::string save(Random& random) {
    Slot& place = next_slot(random);
    place = planned(random, place);
    std::string fault =
        save_to(place, random_world(random), mutant_ == "byte" && place.holds.version % 10 == 0);
    return fault.empty() ? load_from(place, random_world(random))
                         : form_names[static_cast<std::size_t>(place.form)] + (": " + fault);
  }

  [[nodiscard]] std::string load(Random& random) {
    if (slots_.empty()) {
      return {};
    }
    Slot const& slot = one_of_slots(random);
    if (below(random, 4) == 0) {
      sm::VerifyReport const report =
          sm::with_catalog(slot.path, [](auto& catalog) { return sm::verify(catalog); });
      if (!report.damage.empty()) {
        return "verify: " + report.damage.front().what;
      }
    }
    return load_from(slot, random_world(random));
  }

  /// What one checkpoint holds becomes another, of whatever format, by other ranks.
  [[nodiscard]] std::string convert(Random& random) {
    if (slots_.empty()) {
      return {};
    }
    Slot const from = one_of_slots(random);
    Slot to = planned(random, {});
    to.path = root_ + "/converted" + (to.form == Form::file ? ".safetensors" : "");
    to.holds = from.holds;
    to.holds.has_values =
        from.holds.has_values && (to.form == Form::dcp || to.form == Form::background);
    WorldSpec const world = random_world(random);
    std::string fault = on_ranks(world, [&](World& comm, auto const& mesh) {
      sm::StateDict dict = state_on(from.holds, world, mesh, false);
      sm::load_any(comm, from.path, dict);
      write(comm, to, dict);
      return std::string();
    });
    fault = fault.empty() ? load_from(to, random_world(random)) : fault;
    std::filesystem::remove_all(to.path);
    return fault;
  }

  /// Every conversion of some placements into some others, partial sums among them.
  [[nodiscard]] std::string reshard(Random& random) {
    auto const seed = static_cast<unsigned>(random());
    int const ranks = 1 + static_cast<int>(below(random, 6));
    std::vector<std::string> wrong(static_cast<std::size_t>(ranks));
    sm::launch(sm::threads{ranks}, [&](World& comm) {
      auto const report = test::run_matrix<sm::HostMemory>(comm, seed, 211);
      wrong[static_cast<std::size_t>(comm.rank())] = report.first_wrong;
    });
    return first_of(wrong);
  }

  /// Two actions that may not meet, one by the last rank, or calls that agree.
  [[nodiscard]] std::string disagree(Random& random) {
    int const ranks = 2 + static_cast<int>(below(random, 3));
    std::uint64_t const draw = random();
    std::vector<std::string> faults(static_cast<std::size_t>(ranks));
    bool const files = draw % 3 == 0;
    std::string const folder = root_ + "/disagree";
    sm::launch(sm::threads{ranks}, [&](World& comm) {
      Random own(draw);
      bool const last = comm.rank() + 1 == ranks;
      std::string& fault = faults[static_cast<std::size_t>(comm.rank())];
      if (files) {
        test::save_before(comm, folder);
        auto const actions = test::checkpoint_actions<World>(folder);
        std::size_t const a = below(own, actions.size());
        std::size_t const b = (a + 1 + below(own, actions.size() - 1)) % actions.size();
        fault = fault_of_files(actions[last ? b : a], comm);
      } else {
        fault = test::false_alarm(comm, 3);
        auto const actions = test::all_actions<World>();
        std::size_t const a = below(own, actions.size());
        std::size_t const b = (a + 1 + below(own, actions.size() - 1)) % actions.size();
        if (fault.empty()) {
          fault = test::fault_of(actions[last ? b : a], comm);
        }
      }
    });
    std::filesystem::remove_all(folder);
    return first_of(faults);
  }

  [[nodiscard]] static std::string fault_of_files(test::DisagreementAction<World> const& action,
                                                  World const& comm) {
    test::DisagreementWorld<World> const world(comm);
    try {
      action.run(world);
    } catch (sm::MismatchError const& error) {
      return test::fault_of_mismatch(error.what());
    } catch (sm::ShapeError const& error) {
      return test::fault_of_save(error.what());
    } catch (std::exception const& error) {
      return std::string("another kind of error: ") + error.what();
    }
    return action.name + ": no error";
  }

  /// One call of the file system fails in a save over a checkpoint: the old state is there, or the new one.
  [[nodiscard]] std::string fail_save(Random& random) {
    if (slots_.empty()) {
      return {};
    }
    Slot& slot = one_of_slots(random);
    if (slot.form == Form::by_rank) {
      return {};
    }
    Slot const next = planned(random, slot);
    WorldSpec const world = random_world(random);
    static std::vector<int> const codes{EIO, ENOSPC, EDQUOT, EACCES, EROFS, 0};
    test::recorder.begin(root_);
    test::recorder.fail(static_cast<long>(below(random, 120)), one_of(random, codes),
                        below(random, 2) == 0);
    std::string said;
    std::string fault;
    try {
      fault = save_to(next, world);
    } catch (sm::Error const& error) {
      said = error.what();
    }
    auto const [calls, struck] = test::recorder.faults();
    test::recorder.fail(-1, 0, false);
    test::recorder.end();
    test::recorder.forget();  // what it has kept would look like a leak
    refused_ += said.empty() ? 0 : 1;
    if (!said.empty() && (struck == 0 || said.find(root_) == std::string::npos)) {
      return (struck == 0 ? "refused without a reason: " : "names no path: ") + said;
    }
    WorldSpec const other = random_world(random);
    if (!said.empty() && fault_or_error([&] { return load_from(slot, other); }).empty()) {
      return fault;  // the old state
    }
    slot = next;
    std::string const held = fault_or_error([&] { return load_from(slot, other); });
    return fault.empty() && !held.empty() ? held + " (the save said: " + said + ")" : fault;
  }

  /// A load of which a call fails tells all ranks, and changes nothing.
  [[nodiscard]] std::string fail_load(Random& random) {
    if (slots_.empty()) {
      return {};
    }
    Slot const& slot = one_of_slots(random);
    WorldSpec const world = random_world(random);
    std::vector<int> const codes{EIO, EACCES, 0};
    test::recorder.begin(root_);
    test::recorder.fail(static_cast<long>(below(random, 60)), one_of(random, codes),
                        below(random, 2) == 0);
    std::vector<int> told(static_cast<std::size_t>(world.ranks));
    std::string fault = on_ranks(world, [&](World& comm, auto const& mesh) {
      sm::StateDict dict = state_on(slot.holds, world, mesh, false);
      StateSpec wanted = slot.holds;
      try {
        sm::load_any(comm, slot.path, dict);
      } catch (sm::Error const&) {
        told[static_cast<std::size_t>(comm.rank())] = 1;
        wanted.version = 0;
      }
      return fault_of_state(dict, wanted, world, mesh);
    });
    test::recorder.fail(-1, 0, false);
    test::recorder.end();
    test::recorder.forget();  // what it has kept would look like a leak
    refused_ += told[0];
    for (int const one : told) {
      if (one != told[0]) {
        return "some ranks were told and some were not";
      }
    }
    return fault;
  }

  /// A bit of a file is flipped, or the file is cut off: the load is refused, or what is loaded is right.
  [[nodiscard]] std::string damage(Random& random) {
    if (slots_.empty()) {
      return {};
    }
    Slot slot = one_of_slots(random);
    std::string const copy = root_ + "/damaged" + (slot.form == Form::file ? ".safetensors" : "");
    std::filesystem::copy(slot.path, copy, std::filesystem::copy_options::recursive);
    slot.path = copy;
    std::vector<std::string> files;
    if (slot.form == Form::file) {
      files = {copy};
    } else {
      for (auto const& entry : std::filesystem::directory_iterator(copy)) {
        files.push_back(entry.path());
      }
    }
    std::sort(files.begin(), files.end());
    std::string const& file = one_of(random, files);
    std::string bytes = test::slurp(file);
    bool const whole_header_counts =
        slot.form == Form::dcp || slot.form == Form::background || file.ends_with(".json");
    if (!bytes.empty() && whole_header_counts) {
      std::size_t const at = below(random, bytes.size());
      if (below(random, 4) == 0) {
        bytes.resize(at);
      } else {
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(random, 8)));
      }
      test::spit(file, bytes);
    } else if (!bytes.empty()) {
      test::spit(file, bytes.substr(0, below(random, bytes.size())));
    }
    std::string fault;
    try {
      fault = load_from(slot, random_world(random));
    } catch (sm::Error const&) {
      ++refused_;
    }
    std::filesystem::remove_all(copy);
    return fault.empty() ? fault : file + " was damaged, and loads: " + fault;
  }

  /// A rank fails while others wait for it: all get to know.
  [[nodiscard]] std::string fail_rank(Random& random) {
    WorldSpec world = random_world(random);
    world.ranks = std::max(world.ranks, 2);
    int const broken = static_cast<int>(below(random, static_cast<std::size_t>(world.ranks)));
    std::size_t const after = below(random, 4);
    std::vector<std::string> faults(static_cast<std::size_t>(world.ranks));
    std::string const said = test::error_of<std::runtime_error>([&] {
      sm::launch(sm::threads{world.ranks}, [&](World& comm) {
        std::string& fault = faults[static_cast<std::size_t>(comm.rank())];
        for (std::size_t i = 0; i < after; ++i) {
          comm.barrier();
        }
        if (comm.rank() == broken) {
          throw std::runtime_error("this rank has failed");
        }
        fault = "was told nothing";
        try {
          for (;;) {
            static_cast<void>(sm::all_gather_value(comm, 1));
          }
        } catch (sm::RankFailed const& error) {
          fault = error.rank() == broken ? "" : "another rank is blamed";
        }
      });
    });
    std::string const fault = first_of(faults);
    return fault.empty() && said.find("this rank has failed") == std::string::npos
               ? "the launch said: " + said
               : fault;
  }

  static constexpr std::size_t most_slots = 6;
  std::string root_;
  std::string mutant_;
  std::vector<Slot> slots_;
  std::uint64_t version_ = 0;
  long refused_ = 0;
  long rounds_ = 0;
  std::vector<std::string> kept_;
  std::vector<std::ifstream> kept_files_;
  std::vector<Action> all_{{"train, save, resume on other ranks", &Actions::training},
                           {"save", &Actions::save},
                           {"load, verify", &Actions::load},
                           {"convert", &Actions::convert},
                           {"reshard", &Actions::reshard},
                           {"disagree", &Actions::disagree},
                           {"save with a failing disk", &Actions::fail_save},
                           {"load with a failing disk", &Actions::fail_load},
                           {"load what is damaged", &Actions::damage},
                           {"a rank fails", &Actions::fail_rank}};
};

}  // namespace soak
