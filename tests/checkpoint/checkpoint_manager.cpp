// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Which checkpoints stay, and that the last good one always does.
#include <shardmesh/checkpoint/checkpoint_manager.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <set>

#include <doctest/doctest.h>
#include <shardmesh/checkpoint/async_saver.hpp>
#include <shardmesh/checkpoint/load.hpp>
#include <shardmesh/checkpoint/verify.hpp>
#include <shardmesh/comm/threads.hpp>

#include "../support/checkpoints.hpp"
#include "../support/killed.hpp"
#include "../support/sanitizers.hpp"

namespace checkpoint_manager_test {

namespace sm = shardmesh;

TEST_SUITE_BEGIN("checkpoint.manager");

namespace {

sm::StateDict state_of(std::int64_t step) {
  sm::StateDict dict;
  sm::Tensor<std::int64_t> tensor({50});
  std::fill(tensor.span().begin(), tensor.span().end(), step);
  dict.insert("w", tensor);
  dict.insert("step", sm::Value(step));
  return dict;
}

std::vector<std::int64_t> steps_of(std::vector<sm::KeptCheckpoint> const& list) {
  std::vector<std::int64_t> steps;
  for (sm::KeptCheckpoint const& one : list) {
    steps.push_back(one.step);
  }
  return steps;
}

using Steps = std::vector<std::int64_t>;

}  // namespace

TEST_CASE("the rules against a plain reading of them") {
  std::mt19937 random(11);
  for (int i = 0; i < 300; ++i) {
    std::vector<sm::KeptCheckpoint> all;
    std::int64_t step = 0;
    for (auto left = random() % 12; left > 0; --left) {
      step += 1 + static_cast<std::int64_t>(random() % 4);
      std::optional<double> metric;
      if (random() % 3 != 0) {
        metric = random() % 9 == 0 ? std::numeric_limits<double>::quiet_NaN()
                                   : static_cast<double>(random() % 5);
      }
      all.push_back({step, "", metric, !metric && random() % 2 == 0});
    }
    sm::Retention const rules{random() % 4, static_cast<std::int64_t>(random() % 5), random() % 4,
                              random() % 2 == 0};
    std::set<std::int64_t> kept;
    for (std::size_t n = 0; n < all.size(); ++n) {
      std::size_t better = 0;
      for (std::size_t m = 0; m < all.size(); ++m) {
        if (all[n].metric && all[m].metric) {
          double const mine = rules.lower_is_better ? *all[n].metric : -*all[n].metric;
          double const other = rules.lower_is_better ? *all[m].metric : -*all[m].metric;
          better += other < mine || (other == mine && m > n) ? 1 : 0;
        }
      }
      bool const ranked = all[n].metric && !std::isnan(*all[n].metric) && better < rules.best;
      bool const unknown = all[n].metric_lost && rules.best > 0;
      if (n + std::max<std::size_t>(1, rules.last) >= all.size() || ranked || unknown ||
          (rules.every > 0 && all[n].step % rules.every == 0)) {
        kept.insert(all[n].step);
      }
    }
    for (sm::KeptCheckpoint const& one : sm::not_retained(all, rules)) {
      CHECK(kept.count(one.step) == 0);
    }
    CHECK(sm::not_retained(all, rules).size() == all.size() - kept.size());
  }
}

TEST_CASE("the last two, every tenth and the best stay; all ranks see the same") {
  test::Scratch const scratch;
  sm::launch(sm::threads{3}, [&](auto& world) {
    sm::CheckpointManager manager(world, scratch / "deep/run/",
                                  {.last = 2, .every = 10, .best = 1});
    CHECK_FALSE(manager.latest().has_value());
    CHECK_FALSE(manager.best().has_value());
    double const losses[] = {9, 8, 2, 7, 6, 5, 5};
    for (int i = 0; i < 7; ++i) {
      manager.save(5 * i, state_of(5 * i), losses[i]);
    }
    CHECK(steps_of(manager.list()) == Steps{0, 10, 20, 25, 30});
    CHECK(manager.best()->step == 10);
    CHECK(manager.best()->metric == 2.0);
    manager.note_metric(25, 1.5);
    CHECK(manager.best()->step == 25);
    sm::StateDict dict = state_of(-1);
    sm::load(world, manager.latest()->path, dict);
    CHECK(sm::difference(dict, state_of(30)) == "");
    sm::CheckpointManager other(world, scratch / "deep/run",
                                {.last = 1, .best = 1, .lower_is_better = false});
    CHECK(other.best()->step == 0);
    other.tidy();
    CHECK(steps_of(other.list()) == Steps{0, 30});
    CHECK_THROWS_WITH_AS(other.save(-1, dict), doctest::Contains("is negative"),
                         sm::InvalidArgument);
    sm::AsyncSaver saver(world);
    saver.save(other.path_of(40), state_of(40)).wait();
    other.tidy();
    CHECK(steps_of(other.list()) == Steps{0, 40});
  });
}

TEST_CASE("what was interrupted is removed, what is somebody else's stays") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::CheckpointManager manager(world, scratch / "run");
    manager.save(3, state_of(3));
    if (world.rank() == 0) {
      for (char const* const name :
           {"step-4.tmp-77", ".trash-2", "step-5", "step-06", "notes", "step-x.tmp-1"}) {
        sm::PosixStorage::make_directory(scratch / "run/" + name);
        test::spit(scratch / "run/" + name + "/__0_0.distcp", "half");
      }
      test::spit(scratch / "run/step-06/.metadata", "not ours: no such name is written");
      test::spit(scratch / "run/step-3/.metric", "rubbish");
    }
    world.barrier();
    sm::CheckpointManager again(world, scratch / "run");
    CHECK(steps_of(again.list()) == Steps{3});
    CHECK_FALSE(again.best().has_value());
    CHECK(again.list().front().metric_lost);
  });
  auto names = sm::PosixStorage::list(scratch / "run");
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"notes", "step-06", "step-3", "step-5", "step-x.tmp-1"});
}

TEST_CASE("rank 0's metric counts, whatever the others give") {
  test::Scratch const scratch;
  sm::launch(sm::threads{3}, [&](auto& world) {
    sm::CheckpointManager manager(world, scratch / "run", {.last = 9});
    using Metric = std::optional<double>;
    manager.save(1, state_of(1), world.rank() == 0 ? Metric(0.1) : std::nullopt);
    manager.save(2, state_of(2), world.rank() == 0 ? std::nullopt : Metric(0.2));
    manager.save(3, state_of(3), 0.3 + world.rank());
    auto const all = manager.list();
    REQUIRE(all.size() == 3);
    CHECK(all[0].metric == 0.1);
    CHECK_FALSE(all[1].metric.has_value());
    CHECK(all[2].metric == 0.3);
    manager.save(3, state_of(4));  // replaced, and with it its metric
    CHECK_FALSE(manager.latest()->metric.has_value());
  });
}

TEST_CASE("a metric is read as it was written, or is lost; where the best stay, so does that one") {
  double const values[] = {0, -0.0, 1.0 / 3, -1e300, 5e-324, INFINITY};
  for (double const value : values) {
    auto const back = sm::detail::read_metric(sm::detail::write_metric(value));
    CHECK(back == value);
    CHECK(std::signbit(*back) == std::signbit(value));
  }
  CHECK(std::isnan(*sm::detail::read_metric(sm::detail::write_metric(NAN))));
  std::string const text = sm::detail::write_metric(12.5);
  for (std::size_t at = 0; at < text.size(); ++at) {
    CHECK_FALSE(sm::detail::read_metric(text.substr(0, at)).has_value());
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = text;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      CHECK_FALSE(sm::detail::read_metric(damaged).has_value());
    }
  }
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::CheckpointManager manager(world, scratch / "run", {.last = 1, .best = 1});
    manager.save(1, state_of(1), 3.0);
    if (world.rank() == 0) {
      test::spit(manager.path_of(1) + "/.metric", "3 ");
      sm::DcpCatalog<> catalog(manager.path_of(1));
      sm::VerifyReport const report = sm::verify(catalog);
      REQUIRE(report.damage.size() == 1);
      CHECK(report.damage[0].key == ".metric");
      CHECK(report.damage[0].what.find("note_metric") != std::string::npos);
    }
    world.barrier();
    manager.save(2, state_of(2), 5.0);
    manager.save(3, state_of(3), 7.0);
    CHECK(steps_of(manager.list()) == Steps{1, 2, 3});
    CHECK(manager.list().front().metric_lost);
    CHECK(manager.best()->step == 2);
    manager.note_metric(1, 9.0);
    manager.tidy();
    CHECK(steps_of(manager.list()) == Steps{2, 3});
  });
}

TEST_CASE("a step before the newest is refused on every rank; to go back is to forget") {
  test::Scratch const scratch;
  sm::launch(sm::threads{3}, [&](auto& world) {
    sm::CheckpointManager manager(world, scratch / "run", {.last = 3});
    for (std::int64_t const step : {10, 20, 30}) {
      manager.save(step, state_of(step));
    }
    std::string said;
    try {
      manager.save(15, state_of(15));
    } catch (sm::Error const& error) {
      said = error.what();
    }
    CHECK(said.find("step 15 is older than the newest") != std::string::npos);
    CHECK(said.find("of step 30") != std::string::npos);
    CHECK(said.find("forget_after") != std::string::npos);
    CHECK(steps_of(manager.list()) == Steps{10, 20, 30});
    manager.save(30, state_of(31));
    sm::StateDict dict = state_of(-1);
    sm::load(world, manager.latest()->path, dict);
    CHECK(sm::difference(dict, state_of(31)) == "");
    manager.forget_after(10);
    CHECK(steps_of(manager.list()) == Steps{10});
    manager.save(15, state_of(15));
    CHECK(steps_of(manager.list()) == Steps{10, 15});
    manager.forget_after(15);
    CHECK(steps_of(manager.list()) == Steps{10, 15});
    manager.forget_after(-1);
    CHECK(manager.list().empty());
  });
  CHECK(sm::PosixStorage::list(scratch / "run").empty());
}

TEST_CASE("a save that fails removes nothing") {
  test::Scratch const scratch;
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::CheckpointManager manager(world, scratch / "run");
    manager.save(1, state_of(1));
    sm::StateDict bad = state_of(2);
    bad.insert("odd", sm::Value(sm::Value::List{sm::Value(sm::Value::Opaque{})}));
    CHECK_THROWS_AS(manager.save(2, bad), sm::Error);
    CHECK(steps_of(manager.list()) == Steps{1});
  });
  test::spit(scratch / "file", "");
  sm::launch(sm::threads{2}, [&](auto& world) {
    CHECK_THROWS_AS(sm::CheckpointManager(world, scratch / "file"), sm::Error);
  });
}

#if SHARDMESH_TEST_MAY_FORK
TEST_CASE("killed at random moments, the newest complete checkpoint loads") {
  test::Scratch const scratch;
  std::mt19937 random(5);
  std::int64_t last = 0;
  auto const save_for_ever = [&](int acknowledge) {
    sm::launch(sm::threads{2}, [&](auto& world) {
      sm::CheckpointManager manager(world, scratch / "run", {.last = 2});
      for (std::int64_t step = last + 1;; ++step) {
        manager.save(step, state_of(step), 1.0);
        if (world.rank() == 0) {
          test::acknowledge(acknowledge, static_cast<int>(step));
        }
      }
    });
  };
  unsigned const longest = test::two_steps(save_for_ever);
  test::fs::remove_all(scratch / "run");
  for (int i = 0; i < 25; ++i) {
    // One of four is killed while it starts or saves for the first time, the others at work.
    test::Moment const moment{i % 4 == 0 ? 0 : 1, static_cast<unsigned>(random() % longest)};
    std::int64_t const acknowledged = test::kill_in(moment, save_for_ever).last;
    auto const list = sm::detail::list_checkpoints(scratch / "run");
    if (list.empty()) {
      CHECK(last == 0);
      CHECK(acknowledged == 0);
      continue;
    }
    CHECK(list.back().step >= std::max(last, acknowledged));
    last = list.back().step;
    for (sm::KeptCheckpoint const& one : list) {
      CHECK(one.metric == 1.0);
    }
    sm::launch(sm::threads{1}, [&](auto& world) {
      sm::StateDict dict = state_of(-1);
      sm::load(world, list.back().path, dict);
      CHECK(sm::difference(dict, state_of(last)) == "");
    });
  }
  CHECK(last > 0);
  sm::launch(sm::threads{2}, [&](auto& world) {
    sm::CheckpointManager manager(world, scratch / "run", {.last = 2});
    manager.save(last + 1, state_of(last + 1));
  });
  CHECK(sm::PosixStorage::list(scratch / "run").size() == 2);
}
#endif

TEST_SUITE_END();

}  // namespace checkpoint_manager_test
