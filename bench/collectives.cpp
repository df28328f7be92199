// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// What a collective through shardmesh costs beside the same call of NCCL in the same program, on all
// GPUs of this machine as threads: time of the host for a small message, and bandwidth for a big one.
//   collectives [FILE]   prints a table, writes it as JSON to FILE; exits with 77 with fewer than 2 GPUs
// The two take turns call by call, each on a communicator of its own. Host time: median of 1,000
// calls of 4 KiB, the slowest rank's. Bandwidth: calls on 1 GiB between two events, median of 10, the
// slowest rank's, as "bus bandwidth": what a link must carry for it, (n-1)/n of the bytes of the
// result, twice for all_reduce.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <shardmesh/comm/nccl/launch.hpp>
#include <shardmesh/memory/buffer.hpp>

namespace sm = shardmesh;

namespace {

using World = sm::NcclCommunicator<sm::ThreadsCommunicator>;
using Clock = std::chrono::steady_clock;

constexpr std::size_t small = std::size_t{4} << 10;
constexpr std::size_t big = std::size_t{1} << 30;
constexpr int calls = 1000;
constexpr int runs = 10;

struct Line {
  int gpus = 0;
  std::string collective;
  double host_raw = 0;  // microseconds
  double host_ours = 0;
  double bus_raw = 0;  // GB/s
  double bus_ours = 0;
};

double median(std::vector<double> values) {
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double worst(World const& world, double mine) {
  auto const all = sm::all_gather_value(world, mine);
  return *std::max_element(all.begin(), all.end());
}

/// A communicator as a program without shardmesh makes it.
class RawComm {
 public:
  explicit RawComm(World const& world) {
    ncclUniqueId id{};
    if (world.rank() == 0) {
      sm::nccl::check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    }
    id = sm::all_gather_value(world, id)[0];
    sm::nccl::check(ncclCommInitRank(&comm_, world.size(), id, world.rank()), "ncclCommInitRank");
  }
  RawComm(RawComm const&) = delete;
  RawComm& operator=(RawComm const&) = delete;
  ~RawComm() { ncclCommDestroy(comm_); }
  [[nodiscard]] ncclComm_t get() const { return comm_; }

 private:
  ncclComm_t comm_ = nullptr;
};

class Timer {
 public:
  Timer() {
    sm::cuda::check(cudaEventCreate(&start_), "cudaEventCreate");
    sm::cuda::check(cudaEventCreate(&stop_), "cudaEventCreate");
  }
  Timer(Timer const&) = delete;
  Timer& operator=(Timer const&) = delete;
  ~Timer() {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
  }

  /// Seconds that the device takes for what `f` enqueues.
  template <class F>
  double operator()(cudaStream_t stream, F&& f) {
    cudaEventRecord(start_, stream);
    f();
    cudaEventRecord(stop_, stream);
    sm::cuda::check(cudaEventSynchronize(stop_), "cudaEventSynchronize");
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, start_, stop_);
    return static_cast<double>(milliseconds) / 1e3;
  }

 private:
  cudaEvent_t start_ = nullptr;
  cudaEvent_t stop_ = nullptr;
};

/// One rank's side of the benchmark.
class Bench {
 public:
  explicit Bench(World const& world) : world_(world), raw_(world), send_(big), receive_(big) {
    sm::cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                    "cudaStreamCreateWithFlags");
    sm::CudaMemory::fill_zero(send_.data(), big);
    sm::CudaStream{}.synchronize();
  }
  Bench(Bench const&) = delete;
  Bench& operator=(Bench const&) = delete;
  ~Bench() { cudaStreamDestroy(stream_); }

  std::vector<Line> run() {
    auto const n = static_cast<std::size_t>(world_.size());
    auto const share = [n](std::size_t bytes) { return bytes / n / 4 * 4; };
    std::vector<Line> lines;
    lines.push_back(measure(
        "all_reduce", 2,
        [&](std::size_t bytes) {
          return ncclAllReduce(send_.data(), receive_.data(), bytes / 4, ncclFloat32, ncclSum,
                               raw_.get(), stream_);
        },
        [&](std::size_t bytes) {
          world_.all_reduce(sm::DType::float32, sm::ReduceOp::sum, send_.data(), receive_.data(),
                            bytes / 4, sm::CudaStream{stream_});
        }));
    lines.push_back(measure(
        "all_gather", 1,
        [&](std::size_t bytes) {
          return ncclAllGather(send_.data(), receive_.data(), share(bytes) / 4, ncclFloat32,
                               raw_.get(), stream_);
        },
        [&](std::size_t bytes) {
          world_.all_gather(sm::DType::float32, send_.data(), receive_.data(), share(bytes) / 4,
                            sm::CudaStream{stream_});
        }));
    lines.push_back(measure(
        "reduce_scatter", 1,
        [&](std::size_t bytes) {
          return ncclReduceScatter(send_.data(), receive_.data(), share(bytes) / 4, ncclFloat32,
                                   ncclSum, raw_.get(), stream_);
        },
        [&](std::size_t bytes) {
          world_.reduce_scatter(sm::DType::float32, sm::ReduceOp::sum, send_.data(),
                                receive_.data(), share(bytes) / 4, sm::CudaStream{stream_});
        }));
    std::vector<sm::Message> sends;
    std::vector<sm::Message> receives;
    lines.push_back(measure(
        "exchange", 1,
        [&](std::size_t bytes) {
          messages(share(bytes), sends, receives);
          ncclGroupStart();
          for (std::size_t i = 0; i < sends.size(); ++i) {
            ncclSend(sends[i].data, sends[i].bytes, ncclUint8, sends[i].peer, raw_.get(), stream_);
            ncclRecv(receives[i].data, receives[i].bytes, ncclUint8, receives[i].peer, raw_.get(),
                     stream_);
          }
          return ncclGroupEnd();
        },
        [&](std::size_t bytes) {
          messages(share(bytes), sends, receives);
          world_.exchange<sm::CudaMemory>(sends, receives, sm::CudaStream{stream_});
        }));
    return lines;
  }

 private:
  /// One message of `bytes` to and from each other rank.
  void messages(std::size_t bytes,
                std::vector<sm::Message>& sends,
                std::vector<sm::Message>& receives) const {
    sends.clear();
    receives.clear();
    for (int peer = 0; peer < world_.size(); ++peer) {
      if (peer != world_.rank()) {
        std::size_t const at = bytes * static_cast<std::size_t>(peer);
        sends.push_back({peer, static_cast<std::byte*>(send_.data()) + at, bytes});
        receives.push_back({peer, static_cast<std::byte*>(receive_.data()) + at, bytes});
      }
    }
  }

  /// @param rounds how often the bytes of the result pass a link of each rank, but for 1/n.
  template <class Raw, class Ours>
  Line measure(std::string collective, int rounds, Raw&& raw, Ours&& ours) {
    auto const call_raw = [&](std::size_t bytes) { sm::nccl::check(raw(bytes), "NCCL"); };
    for (int i = 0; i < 5; ++i) {  // connections are made by the first calls
      call_raw(big);
      ours(big);
      synchronize();
    }
    std::vector<double> host[2];
    for (int i = 0; i < calls; ++i) {
      for (int turn = 0; turn < 2; ++turn) {
        bool const mine = (turn + i) % 2 == 1;
        auto const start = Clock::now();
        if (mine) {
          ours(small);
        } else {
          call_raw(small);
        }
        std::chrono::duration<double, std::micro> const time = Clock::now() - start;
        host[mine ? 1 : 0].push_back(time.count());
      }
      if (i % 20 == 19) {  // a full queue would be measured otherwise
        synchronize();
      }
    }
    std::vector<double> device[2];
    Timer timer;
    for (int i = 0; i < runs; ++i) {
      for (int turn = 0; turn < 2; ++turn) {
        bool const mine = (turn + i) % 2 == 1;
        synchronize();
        device[mine ? 1 : 0].push_back(timer(stream_,
                                             [&] {
                                               for (int repeat = 0; repeat < 3; ++repeat) {
                                                 if (mine) {
                                                   ours(big);
                                                 } else {
                                                   call_raw(big);
                                                 }
                                               }
                                             }) /
                                       3);
      }
    }
    double const n = world_.size();
    double const carried = rounds * (n - 1) / n * static_cast<double>(big) / 1e9;
    Line line{world_.size(), std::move(collective), 0, 0, 0, 0};
    line.host_raw = worst(world_, median(host[0]));
    line.host_ours = worst(world_, median(host[1]));
    line.bus_raw = carried / worst(world_, median(device[0]));
    line.bus_ours = carried / worst(world_, median(device[1]));
    return line;
  }

  void synchronize() const {
    sm::CudaStream{stream_}.synchronize();
    world_.barrier();
  }

  World const& world_;
  RawComm raw_;
  sm::Buffer<sm::CudaMemory> send_;
  sm::Buffer<sm::CudaMemory> receive_;
  cudaStream_t stream_ = nullptr;
};

void print(std::vector<Line> const& lines) {
  std::printf("%4s  %-15s %9s %9s %6s   %9s %9s %6s\n", "GPUs", "collective", "host raw",
              "shardmesh", "ratio", "bus raw", "shardmesh", "ratio");
  for (Line const& one : lines) {
    std::printf("%4d  %-15s %6.2f us %6.2f us %6.3f   %5.1f GB/s %4.1f GB/s %6.4f\n", one.gpus,
                one.collective.c_str(), one.host_raw, one.host_ours, one.host_ours / one.host_raw,
                one.bus_raw, one.bus_ours, one.bus_ours / one.bus_raw);
  }
}

void write(char const* path, std::vector<Line> const& lines, std::string const& versions) {
  std::FILE* const file = std::fopen(path, "w");
  if (file == nullptr) {
    throw sm::IoError(path, errno, std::string("collectives: cannot write ") + path);
  }
  char date[16] = {};
  std::time_t const now = std::time(nullptr);
  std::strftime(date, sizeof(date), "%Y-%m-%d", std::gmtime(&now));
  char const* const commit = std::getenv("SHARDMESH_COMMIT");
  cudaDeviceProp properties{};
  cudaGetDeviceProperties(&properties, 0);
  std::fprintf(file,
               "{\n \"benchmark\": \"collectives\",\n \"date\": \"%s\",\n \"commit\": \"%s\",\n "
               "\"gpu\": \"%s\",\n \"versions\": \"%s\",\n \"calls\": %d,\n \"results\": [",
               date, commit == nullptr ? "unknown" : commit, properties.name, versions.c_str(),
               calls);
  for (Line const& one : lines) {
    std::fprintf(file,
                 "%s\n  {\"gpus\": %d, \"collective\": \"%s\", \"host_us\": {\"nccl\": %.3f, "
                 "\"shardmesh\": %.3f}, \"bus_GBs\": {\"nccl\": %.2f, \"shardmesh\": %.2f}}",
                 &one == lines.data() ? "" : ",", one.gpus, one.collective.c_str(), one.host_raw,
                 one.host_ours, one.bus_raw, one.bus_ours);
  }
  std::fprintf(file, "\n ]\n}\n");
  std::fclose(file);
}

}  // namespace

int main(int argc, char** argv) {
  sm::cuda::prepare_process();
  int const devices = sm::cuda::device_count();
  if (devices < 2) {
    std::printf("SKIP: needs 2 GPUs, here are %d\n", devices);
    return 77;
  }
  try {
    int nccl = 0;
    ncclGetVersion(&nccl);
    std::string const versions = "NCCL " + std::to_string(nccl / 10000) + "." +
                                 std::to_string(nccl / 100 % 100) + "." +
                                 std::to_string(nccl % 100);
    std::vector<Line> lines;
    for (int ranks = 2; ranks <= devices; ranks = ranks == devices ? ranks + 1 : devices) {
      sm::launch(sm::nccl_threads{ranks}, [&](World& world) {
        auto const found = Bench(world).run();
        if (world.rank() == 0) {
          lines.insert(lines.end(), found.begin(), found.end());
        }
      });
    }
    std::printf("%s, threads, %d calls of 4 KiB, 1 GiB\n", versions.c_str(), calls);
    print(lines);
    if (argc > 1) {
      write(argv[1], lines, versions);
    }
  } catch (std::exception const& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
