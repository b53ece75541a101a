// SPDX-License-Identifier: GPL-2.0

//! A fleet of guests on hosts that have less memory than was sold.
//!
//! Guests of 4 GiB are busy by day and idle by night. Jobs come by chance, more of them when it is
//! day for the guest. A job takes memory and keeps it for some minutes; one in five takes and frees
//! it again and again while it lasts. Each guest has its own seed, so that all hinters see the same
//! jobs.

use crate::guest::{self, Host, MS, Op, SECOND, Workload};
use crate::hinter::Kind;
use crate::memory::{Memory, mib};
use anyhow::Result;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp, LogNormal, Normal};
use serde::Serialize;
use std::collections::VecDeque;
use std::f64::consts::TAU;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const HOUR: u64 = 3600 * SECOND;
/// Memory of a guest, zone by zone.
const ZONES: [u64; 2] = [mib(1024), mib(3072)];
const PIECE: u64 = mib(64);
/// Memory of the fleet is summed up over this time.
pub const BIN_NS: u64 = 60 * SECOND;

#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub guests: u64,
    pub hours: u64,
    pub seed: u64,
}

/// What a hinter did for the fleet.
#[derive(Clone, Debug, Serialize)]
pub struct Fleet {
    pub hinter: String,
    /// Memory that the hosts have behind guests, GiB, mean of each minute.
    pub resident_gib: Vec<f64>,
    /// Of that, what guests use.
    pub used_gib: Vec<f64>,
    /// Memory sold.
    pub sold_gib: f64,
    /// CPUs that did nothing but wait for reuse, on average.
    pub reuse_cpus: f64,
    pub hinted_gib: f64,
}

impl Fleet {
    pub fn peak_gib(&self) -> f64 {
        self.resident_gib.iter().copied().fold(0.0, f64::max)
    }

    pub fn mean_gib(&self) -> f64 {
        self.resident_gib.iter().sum::<f64>() / self.resident_gib.len().max(1) as f64
    }
}

/// What a guest does all day.
struct Jobs {
    rng: ChaCha8Rng,
    /// When it is noon for the guest, in nanoseconds.
    noon: f64,
    ops: VecDeque<Op>,
    /// A job that goes in a cycle: granules, gap, end.
    cycle: Option<(u64, u64, u64)>,
    begun: bool,
}

impl Jobs {
    fn new(seed: u64) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let noon = Normal::new(12.0, 1.5)?.sample(&mut rng) * HOUR as f64;

        Ok(Self {
            rng,
            noon,
            ops: VecDeque::new(),
            cycle: None,
            begun: false,
        })
    }

    /// Jobs in an hour: one at night, thirteen at noon.
    fn rate(&self, now: u64) -> f64 {
        let phase = (now as f64 - self.noon) / (24 * HOUR) as f64;

        7.0 + 6.0 * (TAU * phase).cos()
    }

    fn exp_ns(&mut self, mean_s: f64) -> u64 {
        let seconds: f64 = Exp::new(1.0 / mean_s).map_or(mean_s, |d| d.sample(&mut self.rng));

        (seconds * SECOND as f64) as u64
    }

    fn pieces(&mut self, op: fn(usize, u64) -> Op, granules: u64) {
        for i in 0..granules.div_ceil(PIECE) {
            self.ops.push_back(op(0, PIECE.min(granules - i * PIECE)));
        }
    }

    fn plan(&mut self, now: u64) {
        if let Some((granules, gap, end)) = self.cycle {
            self.pieces(Op::Allocate, granules);
            self.pieces(Op::Free, granules);
            self.ops.push_back(Op::Wait(gap));
            if now >= end {
                self.cycle = None;
            }
            return;
        }
        if !self.begun {
            // What the guest needs whatever it does.
            self.begun = true;
            let base = self.rng.random_range(mib(512)..=mib(1536));
            self.ops.push_back(Op::Allocate(1, base));
        }
        let wait = self.exp_ns(3600.0 / self.rate(now));
        let size: f64 = LogNormal::new(300f64.ln(), 1.0).map_or(300.0, |d| d.sample(&mut self.rng));
        let granules = mib((size as u64).clamp(32, 2048));

        self.ops.push_back(Op::Wait(wait));
        if self.rng.random_bool(0.2) {
            let gap = self.rng.random_range(200..10_000) * MS;
            let end = now + wait + self.exp_ns(120.0);
            self.cycle = Some((granules, gap, end));
        } else {
            let keep = self.exp_ns(300.0);
            self.pieces(Op::Allocate, granules);
            self.ops.push_back(Op::Wait(keep));
            self.pieces(Op::Free, granules);
        }
    }
}

impl Workload for Jobs {
    fn next(&mut self, now: u64) -> Option<Op> {
        while self.ops.is_empty() {
            self.plan(now);
        }
        self.ops.pop_front()
    }
}

/// Sums of some guests: granules times nanoseconds for each bin, and the totals.
#[derive(Clone, Default)]
struct Sums {
    resident: Vec<u128>,
    used: Vec<u128>,
    reuse_ns: u64,
    hinted: u64,
}

impl Sums {
    fn new(bins: usize) -> Self {
        Self {
            resident: vec![0; bins],
            used: vec![0; bins],
            ..Self::default()
        }
    }

    /// The memory was like that from when to when.
    fn watch(&mut self, mut from: u64, to: u64, memory: &Memory) {
        let used = memory.used();
        let resident = used + memory.free() - memory.offline_now();

        while from < to {
            let bin = from / BIN_NS;
            let end = to.min((bin + 1) * BIN_NS);
            let span = u128::from(end - from);
            self.resident[bin as usize] += span * u128::from(resident);
            self.used[bin as usize] += span * u128::from(used);
            from = end;
        }
    }

    fn add(&mut self, other: &Self) {
        let add = |to: &mut [u128], from: &[u128]| {
            for (to, from) in to.iter_mut().zip(from) {
                *to += from;
            }
        };

        add(&mut self.resident, &other.resident);
        add(&mut self.used, &other.used);
        self.reuse_ns += other.reuse_ns;
        self.hinted += other.hinted;
    }
}

/// Runs the fleet with a hinter, on all CPUs. `done` is told of each guest.
pub fn run(host: &Host, config: &Config, kind: Kind, done: &(dyn Fn() + Sync)) -> Result<Fleet> {
    let until = config.hours * HOUR;
    let bins = until.div_ceil(BIN_NS) as usize;
    let next = AtomicU64::new(0);
    let workers = thread::available_parallelism()?.get();

    let work = || -> Result<Sums> {
        let mut sums = Sums::new(bins);

        loop {
            let guest = next.fetch_add(1, Ordering::Relaxed);
            if guest >= config.guests {
                return Ok(sums);
            }
            let mut memory = Memory::offline(&ZONES);
            let mut hinter = kind.build(host);
            // The golden ratio: neighbouring seeds are to have nothing in common.
            let seed = config.seed ^ guest.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut jobs = Jobs::new(seed)?;
            let outcome = guest::run(
                host,
                &mut memory,
                &mut *hinter,
                &mut jobs,
                until,
                &mut |from, to, memory| sums.watch(from, to, memory),
            );
            sums.reuse_ns += outcome.reuse_ns;
            sums.hinted += outcome.hinted;
            done();
        }
    };
    let mut sums = Sums::new(bins);
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(part) => sums.add(&part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })?;

    let gib = |granules: f64| granules / mib(1024) as f64;
    let series = |bins: &[u128]| {
        let bin = |sum: &u128| gib(*sum as f64 / BIN_NS as f64);
        bins.iter().map(bin).collect()
    };
    Ok(Fleet {
        hinter: kind.name(),
        resident_gib: series(&sums.resident),
        used_gib: series(&sums.used),
        sold_gib: gib((config.guests * ZONES.iter().sum::<u64>()) as f64),
        reuse_cpus: sums.reuse_ns as f64 / until as f64,
        hinted_gib: gib(sums.hinted as f64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Config = Config {
        guests: 8,
        hours: 6,
        seed: 1,
    };

    #[test]
    fn the_same_seed_gives_the_same_fleet() {
        let run = |seed| {
            let config = Config { seed, ..SMALL };
            let fleet = run(&Host::TCG, &config, Kind::Module(10), &|| ()).unwrap();
            (fleet.resident_gib, fleet.reuse_cpus)
        };

        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn nobody_has_less_than_is_used_or_more_than_was_sold() {
        for kind in Kind::ALL {
            let fleet = run(&Host::TCG, &SMALL, kind, &|| ()).unwrap();

            assert_eq!(fleet.resident_gib.len(), 360);
            for (resident, used) in fleet.resident_gib.iter().zip(&fleet.used_gib) {
                assert!(
                    used <= resident && *resident <= fleet.sold_gib,
                    "{}",
                    kind.name()
                );
            }
        }
    }
}
