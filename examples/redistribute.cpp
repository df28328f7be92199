// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
//
// Redistribution: who holds what before and after, who sends whom what and what it costs, and that
// it arrives.
#include <cstdio>
#include <numeric>

#include <shardmesh/shardmesh.hpp>

namespace sm = shardmesh;

int main() {
  // A layout knows no process and no memory: who holds what can be asked anywhere.
  sm::Layout const rows({6, 4}, {2, 2}, {sm::Replicate{}, sm::Shard{0}});
  sm::Layout const blocks({6, 4}, {2, 2}, {sm::Shard{0}, sm::Shard{1}});
  std::printf("From\n%sto\n%s", sm::picture(rows).c_str(), sm::picture(blocks).c_str());

  // So can how it gets there: a plan is a value, the same on every rank.
  sm::Plan const plan = sm::make_plan(rows, blocks);
  std::printf("%s", sm::explain(plan, sm::dtype_of<float>).c_str());
  sm::PlanCost const cost = sm::cost_of(plan, sizeof(float));
  std::printf("%td bytes travel; no plan gets by with fewer than %td into one rank\n\n", cost.moved,
              cost.least_received);

  sm::launch(sm::threads{4}, [](auto& world) {
    auto const mesh = sm::device_mesh(world, {2, 2}, {"a", "b"});
    sm::Tensor<float> whole({6, 4});
    std::iota(whole.span().begin(), whole.span().end(), 0.0F);

    // What the compiler knows, it checks: redistribute(x, placements<Partial<>, ...>) does not
    // compile here.
    auto const x = sm::distribute(whole, mesh, sm::placements<sm::Replicate, sm::Shard<0>>);
    auto const y = sm::redistribute(x, sm::placements<sm::Shard<0>, sm::Shard<1>>);

    // Each rank has added up a part of what the loss needs: the terms of a sum are a placement as
    // well.
    float local = 0;
    for (float const value : y.to_local().span()) {
      local += value;
    }
    sm::Tensor<float> term({1});
    term.span()[0] = local;
    auto const terms = sm::from_local(term, mesh, sm::placements<sm::Partial<>, sm::Partial<>>);
    auto const sum = sm::redistribute(terms, sm::placements<sm::Replicate, sm::Replicate>);

    auto const back = sm::full_tensor(y);
    if (world.rank() == 0) {
      std::printf("rank 0 now holds %td elements; the sum over all ranks is %g\n",
                  y.to_local().size(), double{sum.to_local().span()[0]});
    }
    for (std::size_t i = 0; i < whole.span().size(); ++i) {
      if (back.span()[i] != whole.span()[i]) {
        throw sm::InvalidArgument("an element came back as another one");
      }
    }
  });
}
