// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include <mpi.h>

#include <shardmesh/comm/detail/activity.hpp>
#include <shardmesh/comm/detail/presence.hpp>
#include <shardmesh/comm/mpi/detail/check.hpp>

namespace shardmesh {
inline namespace v0 {
namespace detail {

/// A communicator on which the jobs on one communicator of the host program send words about
/// themselves, a tag for each job.
///
/// A word may still be on its way when all calls of its job are over. Were its communicator freed then,
/// MPI could give the number to a new one, and the word would arrive there. So this one is made once, and
/// is never freed: the host's communicator keeps it as an attribute.
class MpiWordChannel {
 public:
  /// @returns that of the host's communicator; null before `keep`.
  [[nodiscard]] static MpiWordChannel* of(MPI_Comm host) {
    void* found = nullptr;
    int there = 0;
    mpi_check(MPI_Comm_get_attr(host, key(), static_cast<void*>(&found), &there),
              "MPI_Comm_get_attr");
    return there != 0 ? static_cast<MpiWordChannel*>(found) : nullptr;
  }
  /// @param comm  a new duplicate of the host's.
  static MpiWordChannel* keep(MPI_Comm host, MPI_Comm comm) {
    mpi_check(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    auto made = std::make_unique<MpiWordChannel>(comm);
    mpi_check(MPI_Comm_set_attr(host, key(), made.get()), "MPI_Comm_set_attr");
    return made.release();  // the attribute's
  }

  explicit MpiWordChannel(MPI_Comm comm) : comm_(comm) {}

  [[nodiscard]] MPI_Comm comm() const noexcept { return comm_; }
  /// Jobs begin in the same order on all ranks, so that they agree on it.
  [[nodiscard]] int next_tag(int most) noexcept { return jobs_++ % most; }

 private:
  static int key() {
    static int const made = [] {
      int key = MPI_KEYVAL_INVALID;
      mpi_check(MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, &forget, &key, nullptr),
                "MPI_Comm_create_keyval");
      return key;
    }();
    return made;
  }
  static int forget(MPI_Comm /*host*/, int /*key*/, void* channel, void* /*extra*/) {
    std::unique_ptr<MpiWordChannel> const gone(static_cast<MpiWordChannel*>(channel));
    return MPI_SUCCESS;
  }

  MPI_Comm comm_;
  int jobs_ = 0;
};

/// What the ranks of a job say of what they do: asked by those that wait for them, or unasked where
/// nobody could answer. So nothing travels while nobody waits for long.
///
/// To be called by whoever has the right to call MPI.
class MpiWords {
 public:
  using Time = Presence::Time;

  MpiWords(MpiWordChannel& channel, int size, int most_tag)
      : comm_(channel.comm()),
        tag_(channel.next_tag(most_tag)),
        presence_(static_cast<std::size_t>(size)),
        is_asked_(static_cast<std::size_t>(size), false),
        sent_(std::make_unique<std::list<Sent>>()) {}
  MpiWords(MpiWords const&) = delete;
  MpiWords(MpiWords&&) = delete;
  MpiWords& operator=(MpiWords const&) = delete;
  MpiWords& operator=(MpiWords&&) = delete;
  /// What is still on its way is left alone, with its memory.
  ~MpiWords() {
    int over = 0;
    MPI_Finalized(&over);
    if (over == 0) {
      forget_sent();
      if (!sent_->empty()) {
        [[maybe_unused]] auto const* const left = sent_.release();
      }
    }
  }

  [[nodiscard]] Presence& of(int rank) { return presence_[static_cast<std::size_t>(rank)]; }

  /// Asks a rank what it does, unless it still owes an answer: one that cannot answer is not
  /// buried in questions.
  void ask(int rank) {
    std::vector<bool>::reference asked = is_asked_[static_cast<std::size_t>(rank)];
    if (!asked) {
      send(rank, Word{});
      asked = true;
    }
  }

  void tell(int rank, Activity::State const& mine) {
    Word word;
    word.is_answer = true;
    word.works = mine.working;
    word.hops = mine.hops;
    word.progress = mine.progress;
    std::copy_n(mine.what.begin(), std::min(mine.what.size(), word.what.size() - 1),
                word.what.begin());
    send(rank, word);
  }

  /// Takes what has arrived, and answers those that ask.
  void hear(Time now, Activity const& mine) {
    int there = 0;
    MPI_Status status{};
    while (MPI_Iprobe(MPI_ANY_SOURCE, tag_, comm_, &there, &status) == MPI_SUCCESS && there != 0) {
      Word word;
      mpi_check(MPI_Recv(&word, static_cast<int>(sizeof(word)), MPI_BYTE, status.MPI_SOURCE, tag_,
                         comm_, MPI_STATUS_IGNORE),
                "MPI_Recv");
      Presence& other = of(status.MPI_SOURCE);
      other.heard(now);
      if (word.is_answer) {
        is_asked_[static_cast<std::size_t>(status.MPI_SOURCE)] = false;
        word.what.back() = '\0';
        other.told(now, word.works ? Presence::Place::working : Presence::Place::elsewhere,
                   {word.works, word.progress, word.what.data(), word.hops});
      } else {
        tell(status.MPI_SOURCE, mine.state());
      }
    }
    forget_sent();
  }

 private:
  /// A question, or what a rank says of itself. Short, so that it goes out without the receiver's help.
  struct Word {
    bool is_answer = false;
    bool works = false;
    std::int32_t hops = 0;
    std::uint64_t progress = 0;
    std::array<char, 128> what{};
  };
  struct Sent {
    MPI_Request request = MPI_REQUEST_NULL;
    Word word;
  };

  void send(int rank, Word const& word) {
    Sent& sent = sent_->emplace_back();
    sent.word = word;
    if (MPI_Isend(&sent.word, static_cast<int>(sizeof(word)), MPI_BYTE, rank, tag_, comm_,
                  &sent.request) != MPI_SUCCESS) {
      sent_->pop_back();  // then nothing is heard of this rank
    }
  }

  void forget_sent() {
    sent_->remove_if([](Sent& one) {
      int done = 0;
      return MPI_Test(&one.request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done != 0;
    });
  }

  MPI_Comm comm_;
  int tag_;
  std::vector<Presence> presence_;  // by rank
  std::vector<bool> is_asked_;
  std::unique_ptr<std::list<Sent>> sent_;
};

}  // namespace detail
}  // namespace v0
}  // namespace shardmesh
