// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#include <shardmesh/comm/environment.hpp>

#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "ranks.hpp"

namespace environment_test {

namespace sm = shardmesh;

using test::contains;
using test::error_of;

namespace {

using Map = std::map<std::string, std::string>;

/// Sets the variables of launchers to those given and no others; puts them back with its end.
class Variables {
 public:
  explicit Variables(Map const& wanted) {
    for (char const* name :
         {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE", "SLURM_NODEID",
          "SLURM_STEP_NODELIST", "SLURM_JOB_ID", "SLURM_STEP_ID"}) {
      keep(name);
    }
    for (auto const& names : sm::detail::launchers) {
      for (char const* name : {names.rank, names.size, names.local_rank, names.local_size}) {
        keep(name);
      }
    }
    for (auto const& [name, value] : wanted) {
      ::setenv(name.c_str(), value.c_str(), 1);
    }
  }
  Variables(Variables const&) = delete;
  Variables& operator=(Variables const&) = delete;
  ~Variables() {
    for (auto const& [name, value] : before_) {
      if (value) {
        ::setenv(name.c_str(), value->c_str(), 1);
      } else {
        ::unsetenv(name.c_str());
      }
    }
  }

 private:
  void keep(char const* name) {
    char const* const value = std::getenv(name);
    before_[name] = value == nullptr ? std::nullopt : std::optional<std::string>(value);
    ::unsetenv(name);
  }

  std::map<std::string, std::optional<std::string>> before_;
};

sm::Environment read(Map const& variables) {
  Variables const set(variables);
  return sm::read_environment();
}

std::string error_with(Map const& variables) {
  return error_of<sm::InvalidArgument>([&] { static_cast<void>(read(variables)); });
}

/// "launcher rank/size local_rank/local_size address:port".
std::string place(Map const& variables) {
  sm::Environment const e = read(variables);
  return e.launcher + " " + std::to_string(e.rank) + "/" + std::to_string(e.size) + " " +
         std::to_string(e.local_rank) + "/" + std::to_string(e.local_size) + " " + e.address + ":" +
         std::to_string(e.port);
}

}  // namespace

TEST_SUITE_BEGIN("comm.environment");

/// What srun sets for task 7 of 16, on the third of four nodes.
Map slurm_task() {
  return {{"SLURM_PROCID", "7"},
          {"SLURM_NTASKS", "40"},  // of the allocation
          {"SLURM_STEP_NUM_TASKS", "16"},
          {"SLURM_LOCALID", "3"},
          {"SLURM_NODEID", "2"},
          {"SLURM_STEP_TASKS_PER_NODE", "3(x2),4,6"},
          {"SLURM_STEP_NODELIST", "rack[3-5,9]-node[01-16],login"},
          {"SLURM_JOB_ID", "1001234"},
          {"SLURM_STEP_ID", "3"}};
}

TEST_CASE("environment: what each launcher sets is read") {
  Map const torchrun{{"RANK", "5"},
                     {"WORLD_SIZE", "8"},
                     {"LOCAL_RANK", "1"},
                     {"LOCAL_WORLD_SIZE", "4"},
                     {"MASTER_ADDR", "node7"},
                     {"MASTER_PORT", "1234"}};
  Map const open_mpi{{"OMPI_COMM_WORLD_RANK", "3"},
                     {"OMPI_COMM_WORLD_SIZE", "4"},
                     {"OMPI_COMM_WORLD_LOCAL_RANK", "3"},
                     {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"}};
  Map const mpich{
      {"PMI_RANK", "2"}, {"PMI_SIZE", "6"}, {"MPI_LOCALRANKID", "2"}, {"MPI_LOCALNRANKS", "6"}};
  CHECK(place({}) == "none 0/1 0/1 127.0.0.1:29500");
  CHECK(place(torchrun) == "torchrun 5/8 1/4 node7:1234");
  CHECK(place(open_mpi) == "Open MPI 3/4 3/4 127.0.0.1:29500");
  CHECK(place(mpich) == "MPICH 2/6 2/6 127.0.0.1:29500");
  CHECK(place(slurm_task()) == "Slurm 7/16 3/4 rack3-node01:22343");
  // The launcher that was called last, inside the allocation of the other, wins.
  Map both = slurm_task();
  both.insert(torchrun.begin(), torchrun.end());
  CHECK(place(both) == "torchrun 5/8 1/4 node7:1234");
}

TEST_CASE("environment: without local numbers all ranks are on one host") {
  CHECK(place({{"RANK", "2"}, {"WORLD_SIZE", "3"}}) == "torchrun 2/3 2/3 127.0.0.1:29500");
  CHECK(place({{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}}) == "MPICH 0/1 0/1 127.0.0.1:29500");
}

TEST_CASE("environment: who says that all ranks are on one host, and who does not") {
  auto const one_host = [](Map const& variables) { return read(variables).one_host; };
  CHECK(one_host({}));
  CHECK(one_host({{"RANK", "2"}, {"WORLD_SIZE", "3"}}));
  CHECK(one_host({{"RANK", "1"},
                  {"WORLD_SIZE", "2"},
                  {"LOCAL_RANK", "1"},
                  {"LOCAL_WORLD_SIZE", "2"},
                  {"MASTER_ADDR", "node7"}}));
  CHECK(!one_host({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "node7"}}));
  CHECK(!one_host(slurm_task()));
  // Then they meet at an address that only this host has, whatever MASTER_ADDR says.
  Variables const set({{"RANK", "0"},
                       {"WORLD_SIZE", "1"},
                       {"LOCAL_RANK", "0"},
                       {"LOCAL_WORLD_SIZE", "1"},
                       {"MASTER_ADDR", "no.such.host.invalid"},
                       {"MASTER_PORT", std::to_string(test::free_port())}});
  CHECK(sm::detail::connect(sm::read_environment(), test::patience).size() == 1);
}

TEST_CASE("environment: torchrun listens on its port itself, ours follows from it") {
  Map set{{"RANK", "0"},         {"WORLD_SIZE", "2"},     {"LOCAL_RANK", "0"},
          {"MASTER_ADDR", "::"}, {"MASTER_PORT", "4000"}, {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
  CHECK(place(set) == "torchrun 0/2 0/2 :::4001");
  set["MASTER_PORT"] = "32766";
  CHECK(place(set) == "torchrun 0/2 0/2 :::32767");
  set["MASTER_PORT"] = "32767";
  CHECK(place(set) == "torchrun 0/2 0/2 :::16384");
  set["MASTER_PORT"] = "39872";
  CHECK(place(set) == "torchrun 0/2 0/2 :::23489");
  set["MASTER_PORT"] = "65536";
  CHECK(contains(error_with(set), "MASTER_PORT=65536 is no port"));
  set["MASTER_PORT"] = "65535";
  set["TORCHELASTIC_USE_AGENT_STORE"] = "False";
  CHECK(place(set) == "torchrun 0/2 0/2 :::65535");
}

TEST_CASE("environment: a shell in an allocation of Slurm is no task of it") {
  CHECK(place({{"SLURM_NTASKS", "16"}, {"SLURM_JOB_ID", "7"}}) == "none 0/1 0/1 127.0.0.1:29500");
  // Tasks of versions that do not number the step's.
  CHECK(place({{"SLURM_PROCID", "7"}, {"SLURM_NTASKS", "8"}, {"SLURM_LOCALID", "7"}}) ==
        "Slurm 7/8 7/8 127.0.0.1:29500");
}

TEST_CASE("environment: MASTER_ADDR and MASTER_PORT stand above what Slurm says") {
  Map set = slurm_task();
  set["MASTER_ADDR"] = "10.0.0.7";
  set["MASTER_PORT"] = "777";
  CHECK(place(set) == "Slurm 7/16 3/4 10.0.0.7:777");
  set["SLURM_STEP_TASKS_PER_NODE"] = "16";
  set["SLURM_NODEID"] = "0";
  set.erase("MASTER_ADDR");
  CHECK(place(set) == "Slurm 7/16 3/16 127.0.0.1:777");
}

TEST_CASE("environment: srun with an MPI plugin sets both; the hosts are still Slurm's") {
  Map set = slurm_task();
  set["PMI_RANK"] = "7";
  set["PMI_SIZE"] = "16";
  set["MPI_LOCALRANKID"] = "3";
  set["MPI_LOCALNRANKS"] = "4";
  CHECK(place(set) == "MPICH 7/16 3/4 rack3-node01:22343");
  // mpiexec inside a step is another job, and knows no hosts.
  set["PMI_RANK"] = "3";
  CHECK(contains(error_with(set), "ranks are on several hosts"));
}

TEST_CASE("environment: ranks on several hosts need an address, the error says how to give it") {
  CHECK(error_with({{"OMPI_COMM_WORLD_RANK", "3"},
                    {"OMPI_COMM_WORLD_SIZE", "4"},
                    {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                    {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}) ==
        "shardmesh: ranks are on several hosts (OMPI_COMM_WORLD_SIZE=4, "
        "OMPI_COMM_WORLD_LOCAL_SIZE=2), but MASTER_ADDR is not set; set it to an address of rank "
        "0's host on all ranks, with mpirun -x MASTER_ADDR=host (Open MPI) or -genv MASTER_ADDR "
        "host (MPICH)");
  CHECK(contains(error_with({{"PMI_RANK", "0"},
                             {"PMI_SIZE", "6"},
                             {"MPI_LOCALRANKID", "0"},
                             {"MPI_LOCALNRANKS", "3"},
                             {"MASTER_ADDR", ""}}),
                 "(PMI_SIZE=6, MPI_LOCALNRANKS=3), but MASTER_ADDR=;"));
}

TEST_CASE("environment: lists of hosts and tasks as Slurm writes them") {
  using sm::detail::first_slurm_host;
  using sm::detail::slurm_tasks_on_node;
  CHECK(first_slurm_host("node7") == "node7");
  CHECK(first_slurm_host("a,b,c") == "a");
  CHECK(first_slurm_host("node[003-005,010],gpu7") == "node003");
  CHECK(first_slurm_host("node[7,9-11]x,gpu7") == "node7x");
  CHECK(first_slurm_host("rack[3-5]-node[01,02]") == "rack3-node01");
  CHECK(first_slurm_host("node[12") == "node12");
  CHECK(first_slurm_host("").empty());
  std::vector<int> tasks;
  for (int node = 0; node < 6; ++node) {
    tasks.push_back(slurm_tasks_on_node("4(x2),3,12(x3)", node).value_or(-1));
  }
  CHECK(tasks == std::vector<int>{4, 4, 3, 12, 12, 12});
  CHECK(!slurm_tasks_on_node("4(x2),3", 3));
  for (char const* bad : {"", "x", "4(x", "4(x0)", "4;3", "(x2)", "99999999999"}) {
    CHECK(!slurm_tasks_on_node(bad, 1));
  }
}

TEST_CASE("environment: half a set of variables is an error that shows both halves") {
  CHECK(error_with({{"RANK", "1"}}) ==
        "shardmesh: the variables of torchrun are inconsistent: RANK=1, WORLD_SIZE is not set; "
        "both must be set, and the rank be below the size");
  CHECK(contains(error_with({{"WORLD_SIZE", "2"}}), "RANK is not set, WORLD_SIZE=2"));
  CHECK(contains(error_with({{"OMPI_COMM_WORLD_RANK", "1"}}),
                 "of Open MPI are inconsistent: OMPI_COMM_WORLD_RANK=1, OMPI_COMM_WORLD_SIZE is "
                 "not set"));
  CHECK(contains(error_with({{"PMI_SIZE", "2"}}), "PMI_RANK is not set, PMI_SIZE=2"));
  CHECK(contains(error_with({{"SLURM_PROCID", "2"}}), "SLURM_PROCID=2, SLURM_NTASKS is not set"));
  CHECK(contains(error_with({{"SLURM_STEP_NUM_TASKS", "2"}}),
                 "SLURM_PROCID is not set, SLURM_STEP_NUM_TASKS=2"));
}

TEST_CASE("environment: numbers that contradict each other are an error") {
  CHECK(contains(error_with({{"RANK", "2"}, {"WORLD_SIZE", "2"}}), "RANK=2, WORLD_SIZE=2"));
  CHECK(contains(error_with({{"PMI_RANK", "0"}, {"PMI_SIZE", "0"}}), "PMI_RANK=0, PMI_SIZE=0"));
  CHECK(error_with(
            {{"RANK", "2"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "2"}, {"LOCAL_WORLD_SIZE", "2"}}) ==
        "shardmesh: the variables of torchrun are inconsistent: LOCAL_RANK=2, LOCAL_WORLD_SIZE=2; "
        "the local rank must be below the local size");
}

TEST_CASE("environment: a variable that is no number is an error that shows it") {
  for (std::string const text : {"two", "", "1x", "-1", "1.5", "99999999999999999999"}) {
    std::string const error = error_with({{"RANK", text}, {"WORLD_SIZE", "4"}});
    CHECK(contains(error, "the variable RANK is \"" + text + "\", which is no number"));
    CHECK(contains(error, "start the program by torchrun, mpirun or srun, or unset it"));
  }
  CHECK(contains(error_with({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4(x2)"}}),
                 "SLURM_NTASKS is \"4(x2)\""));
  CHECK(error_with({{"SLURM_PROCID", "0"},
                    {"SLURM_STEP_NUM_TASKS", "4"},
                    {"SLURM_STEP_TASKS_PER_NODE", "four"}}) ==
        "shardmesh: the variables of Slurm are inconsistent: SLURM_STEP_TASKS_PER_NODE=four, "
        "SLURM_NODEID is not set; the first must list the tasks of each node, as in 4(x2),3");
  CHECK(contains(error_with({{"RANK", "0"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "a"}}),
                 "LOCAL_RANK is \"a\""));
}

TEST_CASE("environment: a port must be one") {
  CHECK(place({{"MASTER_PORT", "65535"}}) == "none 0/1 0/1 127.0.0.1:65535");
  for (std::string const port : {"0", "65536", "70000"}) {
    CHECK(error_with({{"MASTER_PORT", port}}) == "shardmesh: the variable MASTER_PORT=" + port +
                                                     " is no port; give a free one from 1 to "
                                                     "65535");
  }
  CHECK(contains(error_with({{"MASTER_PORT", "http"}}), "MASTER_PORT is \"http\""));
}

TEST_CASE("environment: a launch without a launcher is a job of one") {
  Variables const none({{"MASTER_PORT", std::to_string(test::free_port())}});
  int calls = 0;
  sm::launch(sm::environment{}, [&calls](sm::SocketCommunicator const& world) {
    CHECK(world.size() == 1);
    CHECK(sm::all_gather_value(world, 3) == std::vector<int>{3});
    ++calls;
  });
  CHECK(calls == 1);
}

TEST_SUITE_END();

}  // namespace environment_test
