// SPDX-License-Identifier: GPL-2.0

//! A guest in virtual time: a workload, its memory and who hints it.

use crate::hinter::Hinter;
use crate::memory::Memory;
use serde::Serialize;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MS;

/// How long things take, in nanoseconds for a granule.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Host {
    /// To touch a granule that the host has memory behind.
    pub touch_ns: u64,
    /// What it takes longer if the host has to bring it back: the cost of a reuse.
    pub reuse_ns: u64,
    /// What the policy is told that it costs.
    pub stated_price_ns: u64,
    /// To free a granule.
    pub free_ns: u64,
    /// For the host to acknowledge a granule.
    pub ack_ns: u64,
}

impl Host {
    /// A guest without KVM: it touches 512 MiB in 640 ms, 190 ms more if they are Offline, frees
    /// them in 30 ms, and has a hint of 2 GiB acknowledged in 20 ms.
    pub const TCG: Self = Self {
        touch_ns: 2_500_000,
        reuse_ns: 742_000,
        stated_price_ns: 750_000,
        free_ns: 117_000,
        ack_ns: 20_000,
    };

    pub fn hint_ns(&self, granules: u64) -> u64 {
        self.ack_ns * granules
    }
}

/// What a workload does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Allocate and touch granules for an object.
    Allocate(usize, u64),
    /// Free granules of an object.
    Free(usize, u64),
    /// Do nothing with memory for so long.
    Wait(u64),
    /// Do nothing with memory until then.
    Until(u64),
}

/// A program that uses memory. It runs slower when it has to wait for the host.
pub trait Workload {
    /// What it does next, at this time; [`None`] when it is done.
    fn next(&mut self, now: u64) -> Option<Op>;
}

impl<F: FnMut(u64) -> Option<Op>> Workload for F {
    fn next(&mut self, now: u64) -> Option<Op> {
        self(now)
    }
}

/// What came of a run. Amounts are granules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Offline memory and free memory, times nanoseconds.
    pub offline_ns: u128,
    pub free_ns: u128,
    pub reused: u64,
    pub hinted: u64,
    /// Time in which the workload touched and freed memory.
    pub busy_ns: u64,
    /// Of that, time that it waited for reuse.
    pub reuse_ns: u64,
    /// What it did not get.
    pub denied: u64,
    /// It has nothing more to do.
    pub done: bool,
    /// When the workload last freed more than a granule, and how much it was: all
    /// frees that are less than half a second apart.
    pub freed_ns: u64,
    pub last_freed: u64,
}

/// Lets a workload run until a time. `watch` is told how the memory was, and from when to when.
pub fn run(
    host: &Host,
    memory: &mut Memory,
    hinter: &mut dyn Hinter,
    workload: &mut dyn Workload,
    until: u64,
    watch: &mut dyn FnMut(u64, u64, &Memory),
) -> Outcome {
    let mut out = Outcome::default();
    let (reused, hinted) = (memory.reused, memory.hinted);
    let mut now = 0;
    let mut work = 0;

    while now < until {
        let next = work.min(hinter.due()).clamp(now, until);

        if next > now {
            let span = u128::from(next - now);
            out.offline_ns += span * u128::from(memory.offline_now());
            out.free_ns += span * u128::from(memory.free());
            watch(now, next, memory);
            now = next;
        }
        if now >= until {
            break;
        }
        if hinter.due() <= now {
            hinter.act(now, memory);
            continue;
        }
        work = match workload.next(now) {
            None => {
                out.done = true;
                u64::MAX
            }
            Some(Op::Wait(ns)) => now + ns,
            Some(Op::Until(then)) => then.max(now),
            Some(Op::Allocate(object, granules)) => {
                let (got, reused) = memory.allocate(object, granules);
                let ns = got * host.touch_ns + reused * host.reuse_ns;

                out.denied += granules - got;
                out.busy_ns += ns;
                out.reuse_ns += reused * host.reuse_ns;
                now + ns
            }
            Some(Op::Free(object, granules)) => {
                let freed = memory.release(object, granules);
                let ns = freed * host.free_ns;

                if freed > 1 {
                    // What is freed in one go counts from its end.
                    if now - out.freed_ns > SECOND / 2 {
                        out.last_freed = 0;
                    }
                    out.last_freed += freed;
                    out.freed_ns = now;
                }
                out.busy_ns += ns;
                hinter.freed(now, memory);
                now + ns
            }
        };
    }
    out.reused = memory.reused - reused;
    out.hinted = memory.hinted - hinted;
    out
}
