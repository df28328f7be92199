// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

// A stand-in for NCCL and the CUDA runtime without a GPU, for tests of what happens when ranks do not
// come: it moves no data, but knows which operations all ranks of a group have entered. Included by
// one source; what it defines takes the place of the libraries' functions.

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "fake_memory.hpp"

namespace fake {

/// An operation of a group: done when all ranks have entered it.
struct Operation {
  int missing = 0;
};

/// What one rank has given to a stream.
struct Work {
  std::shared_ptr<Operation> operation;
  std::shared_ptr<bool> aborted;  // of the rank's family
};

struct Event {
  Work work;
};

struct World {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::pair<std::string, int>, std::shared_ptr<Operation>> operations;
  std::map<std::pair<std::thread::id, cudaStream_t>, Work> streams;
  std::set<ncclComm*> alive;
  int ids = 0;
  int events_made = 0;
  int aborts = 0;
  // How it behaves; set before ranks start.
  bool connecting_blocks = false;  ///< the host waits in NCCL until all ranks have come
  bool completes = true;           ///< operations that all ranks have entered get done
  bool alone = false;              ///< other ranks are processes that this one does not see
  bool reports_error = false;      ///< communicators report an asynchronous error
};

inline World& world() {
  static World instance;
  return instance;
}

/// @pre the lock is held.
inline bool done(Work const& work) {
  return !work.operation || *work.aborted || (work.operation->missing == 0 && world().completes);
}

}  // namespace fake

struct ncclComm {
  std::string group;
  int rank = 0;
  int size = 1;
  bool blocking = true;
  bool share = false;
  int operations = 0;
  int splits = 0;
  /// One that does not block: how often it is still to be asked until it is ready.
  int busy = 0;
  /// The communicator that it has split off, and where it will be found once this one is ready.
  ncclComm* unborn = nullptr;
  ncclComm** birthplace = nullptr;
  std::shared_ptr<bool> aborted = std::make_shared<bool>(false);
};

namespace fake {

inline thread_local int depth = 0;
inline thread_local ncclComm* grouped = nullptr;
inline thread_local cudaStream_t grouped_stream = nullptr;

/// Enters the next operation of a communicator.
/// @pre the lock is held.
inline Work enter(ncclComm& comm, std::string const& kind) {
  auto& operation = world().operations[{comm.group + kind, comm.operations++}];
  if (!operation) {
    operation = std::make_shared<Operation>(Operation{comm.size});
  }
  --operation->missing;
  world().changed.notify_all();
  return {operation, comm.aborted};
}

inline ncclResult_t wait(std::unique_lock<std::mutex>& lock, Work const& work) {
  if (!world().alone) {
    world().changed.wait(lock, [&] { return *work.aborted || work.operation->missing == 0; });
  }
  return *work.aborted ? ncclInternalError : ncclSuccess;
}

/// As NCCL: "attempt to use communicator before the previous operation returned ncclSuccess".
/// @pre the lock is held.
inline bool refuses(ncclComm const& comm) {
  return comm.busy > 0;
}

inline ncclResult_t enqueue(ncclComm* comm, cudaStream_t stream) {
  std::unique_lock lock(world().mutex);
  if (refuses(*comm)) {
    return ncclInvalidArgument;
  }
  Work const work = enter(*comm, "");
  if (world().connecting_blocks) {
    if (ncclResult_t const status = wait(lock, work); status != ncclSuccess) {
      return status;
    }
  }
  world().streams[{std::this_thread::get_id(), stream}] = work;
  comm->busy = comm->blocking ? 0 : 2;
  return comm->blocking ? ncclSuccess : ncclInProgress;
}

inline ncclResult_t call(ncclComm* comm, cudaStream_t stream) {
  if (depth > 0) {
    grouped = comm;
    grouped_stream = stream;
    return ncclSuccess;
  }
  return enqueue(comm, stream);
}

inline ncclComm* make(std::string group, int rank, int size, ncclConfig_t const& config) {
  auto* const comm = new ncclComm;
  comm->group = std::move(group);
  comm->rank = rank;
  comm->size = size;
  comm->blocking = config.blocking != 0;
  comm->share = config.splitShare == 1;
  world().alive.insert(comm);
  return comm;
}

inline ncclResult_t end(ncclComm* comm) {
  std::lock_guard const lock(world().mutex);
  ncclResult_t const status = world().alive.erase(comm) == 1 ? ncclSuccess : ncclInvalidArgument;
  if (status == ncclSuccess) {
    delete comm;
  }
  return status;
}

}  // namespace fake

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::lock_guard const lock(fake::world().mutex);
  *id = {};
  std::string const text = "job" + std::to_string(++fake::world().ids);
  std::memcpy(id->internal, text.data(), text.size());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(
    ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  std::unique_lock lock(fake::world().mutex);
  *comm = fake::make(id.internal, rank, size, *config);
  return fake::wait(lock, fake::enter(**comm, "init"));
}

ncclResult_t ncclCommSplit(
    ncclComm_t parent, int color, int key, ncclComm_t* comm, ncclConfig_t* config) {
  std::unique_lock lock(fake::world().mutex);
  if (fake::refuses(*parent)) {
    return ncclInvalidArgument;
  }
  fake::Work const work = fake::enter(*parent, "split");
  ++parent->splits;
  ncclResult_t const status = fake::wait(lock, work);
  if (status == ncclSuccess && color >= 0) {
    // Groups of the tests are whole, or split into equal parts by key.
    ncclComm* const child = fake::make(parent->group + "/" + std::to_string(parent->splits) + "." +
                                           std::to_string(color),
                                       key, parent->size, *config);
    if (parent->share) {
      child->aborted = parent->aborted;
    }
    if (parent->blocking) {
      *comm = child;
    } else {  // as NCCL 2.28: says success, and is not done
      parent->unborn = child;
      parent->birthplace = comm;
      parent->busy = 2;
    }
  }
  return status;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* status) {
  std::lock_guard const lock(fake::world().mutex);
  if (comm->busy > 0 && --comm->busy == 0 && comm->unborn != nullptr) {
    *comm->birthplace = std::exchange(comm->unborn, nullptr);
  }
  *status = comm->busy > 0 ? ncclInProgress : ncclSuccess;
  if (fake::world().reports_error && comm->blocking) {
    *status = ncclRemoteError;
  }
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  {
    std::lock_guard const lock(fake::world().mutex);
    *comm->aborted = true;
    ++fake::world().aborts;
    fake::world().changed.notify_all();
  }
  return fake::end(comm);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  return fake::end(comm);
}

ncclResult_t ncclGroupStart() {
  ++fake::depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  --fake::depth;
  ncclComm* const comm = std::exchange(fake::grouped, nullptr);
  return comm == nullptr ? ncclSuccess : fake::enqueue(comm, fake::grouped_stream);
}

ncclResult_t ncclSend(
    void const*, std::size_t, ncclDataType_t, int, ncclComm_t comm, cudaStream_t stream) {
  return fake::call(comm, stream);
}
ncclResult_t ncclRecv(
    void*, std::size_t, ncclDataType_t, int, ncclComm_t comm, cudaStream_t stream) {
  return fake::call(comm, stream);
}
ncclResult_t ncclAllReduce(void const*,
                           void*,
                           std::size_t,
                           ncclDataType_t,
                           ncclRedOp_t,
                           ncclComm_t comm,
                           cudaStream_t stream) {
  return fake::call(comm, stream);
}
ncclResult_t ncclReduceScatter(void const*,
                               void*,
                               std::size_t,
                               ncclDataType_t,
                               ncclRedOp_t,
                               ncclComm_t comm,
                               cudaStream_t stream) {
  return fake::call(comm, stream);
}
ncclResult_t ncclAllGather(
    void const*, void*, std::size_t, ncclDataType_t, ncclComm_t comm, cudaStream_t stream) {
  return fake::call(comm, stream);
}
ncclResult_t ncclBroadcast(
    void const*, void*, std::size_t, ncclDataType_t, int, ncclComm_t comm, cudaStream_t stream) {
  return fake::call(comm, stream);
}
char const* ncclGetErrorString(ncclResult_t status) {
  return status == ncclRemoteError ? "remote process exited" : "an error of the stand-in";
}
char const* ncclGetLastError(ncclComm_t) {
  return "no details";
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 8;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
char const* cudaGetErrorName(cudaError_t) {
  return "error";
}
char const* cudaGetErrorString(cudaError_t) {
  return "an error of the stand-in";
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) {
  return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  std::lock_guard const lock(fake::world().mutex);
  ++fake::world().events_made;
  *event = reinterpret_cast<cudaEvent_t>(new fake::Event);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<fake::Event*>(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  std::lock_guard const lock(fake::world().mutex);
  reinterpret_cast<fake::Event*>(event)->work =
      fake::world().streams[{std::this_thread::get_id(), stream}];
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  std::lock_guard const lock(fake::world().mutex);
  return fake::done(reinterpret_cast<fake::Event*>(event)->work) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  std::lock_guard const lock(fake::world().mutex);
  fake::world().streams[{std::this_thread::get_id(), stream}] =
      reinterpret_cast<fake::Event*>(event)->work;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  std::unique_lock lock(fake::world().mutex);
  fake::Work const work = fake::world().streams[{std::this_thread::get_id(), stream}];
  fake::world().changed.wait(lock, [&] { return fake::done(work); });
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(new int);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete reinterpret_cast<int*>(stream);
  return cudaSuccess;
}

}  // extern "C"
