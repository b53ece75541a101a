// SPDX-License-Identifier: GPL-2.0

//! A fleet of guests on hosts that have less memory than was sold.
//!
//! Guests of 4 GiB are busy by day and idle by night. Jobs come by chance, more of them when it is
//! day for the guest. A job takes memory and keeps it for some minutes; one in five takes and frees
//! it again and again while it lasts. Each guest has its own seed, so that all hinters see the same
//! jobs.

use crate::guest::{self, Host, MS, SECOND};
use crate::hinter::Kind;
use crate::load::{Load, Script};
use crate::memory::{Memory, gib_s, mib};
use crate::meter::{Meter, WORTHS};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};
use serde::Serialize;
use std::f64::consts::TAU;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const HOUR: u64 = 3600 * SECOND;
/// Memory of a guest, in MiB. What its kernel uses is left out.
const GUEST_MIB: u64 = 4096;
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
    /// CPUs that did nothing but wait for refaults, on average.
    pub refault_cpus: f64,
    pub hinted_gib: f64,
    /// Cost over that of the optimum, for each of [`WORTHS`].
    pub ratio: [f64; WORTHS.len()],
}

impl Fleet {
    pub fn peak_gib(&self) -> f64 {
        self.resident_gib.iter().copied().fold(0.0, f64::max)
    }

    pub fn mean_gib(&self) -> f64 {
        self.resident_gib.iter().sum::<f64>() / self.resident_gib.len().max(1) as f64
    }
}

/// What hinters did for the fleet.
pub fn table(fleets: &[Fleet]) -> String {
    let mut text = format!(
        "{:<24} {:>10} {:>10} {:>12} {:>12} {:>10} {:>24}\n",
        "hinter", "mean", "peak", "sold / peak", "refaults", "hinted", "cost / optimum, worth 1 s"
    );

    for fleet in fleets {
        text += &format!(
            "{:<24} {:>6.2} TiB {:>6.2} TiB {:>12.2} {:>7.1} CPUs {:>6.0} TiB {:>24.2}\n",
            fleet.hinter,
            fleet.mean_gib() / 1024.0,
            fleet.peak_gib() / 1024.0,
            fleet.sold_gib / fleet.peak_gib(),
            fleet.refault_cpus,
            fleet.hinted_gib / 1024.0,
            fleet.ratio[1]
        );
    }
    text
}

/// The seed of a guest. By the golden ratio, so that neighbours have nothing in common.
pub fn guest_seed(seed: u64, guest: u64) -> u64 {
    seed ^ guest.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn exp_ns(rng: &mut ChaCha8Rng, mean_s: f64) -> u64 {
    let times: f64 = Exp1.sample(rng);

    (times * mean_s * SECOND as f64) as u64
}

/// What a guest does all day.
pub fn day(host: &Host, name: &str, seed: u64, hours: u64) -> Load {
    let until = hours * HOUR;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut script = Script::new(host, seed);
    let normal: f64 = StandardNormal.sample(&mut rng);
    let noon = 12.0 + 1.5 * normal;

    // What the guest needs whatever it does.
    script.touch(1, rng.random_range(mib(512)..=mib(1536)));
    while script.now < until {
        // Jobs in an hour: one at night, thirteen at noon.
        let hour = script.now as f64 / HOUR as f64;
        let rate = 7.0 + 6.0 * (TAU * (hour - noon) / 24.0).cos();
        script.wait(exp_ns(&mut rng, 3600.0 / rate));

        let normal: f64 = StandardNormal.sample(&mut rng);
        let size = mib((300.0 * normal.exp()).clamp(32.0, 2048.0) as u64);
        let (keep, gap, end) = if rng.random_bool(0.2) {
            let gap = rng.random_range(200..10_000) * MS;
            (0, gap, script.now + exp_ns(&mut rng, 120.0))
        } else {
            (exp_ns(&mut rng, 300.0), 0, script.now)
        };
        loop {
            script.touch(0, size);
            script.wait(keep);
            script.free(0, size);
            script.wait(gap);
            if script.now >= end {
                break;
            }
        }
    }
    script.load(name, GUEST_MIB + 128, until)
}

/// Sums of some guests: granules times nanoseconds for each bin, and the totals.
#[derive(Clone, Default)]
struct Sums {
    resident: Vec<u128>,
    used: Vec<u128>,
    refaults: u64,
    hinted: u64,
    cost: [f64; WORTHS.len()],
    optimum: [f64; WORTHS.len()],
}

fn add<T: std::ops::AddAssign + Copy>(to: &mut [T], from: &[T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += *from;
    }
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
        while from < to {
            let bin = from / BIN_NS;
            let end = to.min((bin + 1) * BIN_NS);
            let span = u128::from(end - from);
            self.resident[bin as usize] += span * u128::from(memory.used() + memory.kept());
            self.used[bin as usize] += span * u128::from(memory.used());
            from = end;
        }
    }

    fn guest(&mut self, host: &Host, load: &Load, kind: Kind) {
        let mut memory = Memory::offline(&load.zones, 0);
        let mut meter = Meter::default();

        guest::run(
            load,
            &mut memory,
            &mut *kind.build(host, &load.zones),
            0,
            &mut |from, to, memory| {
                self.watch(from, to, memory);
                meter.watch(from, to, memory);
            },
        );
        self.refaults += memory.offline_used();
        self.hinted += memory.hinted;
        add(&mut self.cost, &meter.cost(&memory));
        add(&mut self.optimum, &meter.optimum);
    }

    fn add(&mut self, other: &Self) {
        add(&mut self.resident, &other.resident);
        add(&mut self.used, &other.used);
        add(&mut self.cost, &other.cost);
        add(&mut self.optimum, &other.optimum);
        self.refaults += other.refaults;
        self.hinted += other.hinted;
    }
}

/// Runs the fleet with hinters, on all CPUs. `done` is told of each guest.
pub fn run(host: &Host, config: &Config, kinds: &[Kind], done: &(dyn Fn() + Sync)) -> Vec<Fleet> {
    let bins = (config.hours * HOUR).div_ceil(BIN_NS) as usize;
    let next = AtomicU64::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from);

    let work = || {
        let mut sums = vec![Sums::new(bins); kinds.len()];

        loop {
            let guest = next.fetch_add(1, Ordering::Relaxed);
            if guest >= config.guests {
                return sums;
            }
            let load = day(host, "fleet", guest_seed(config.seed, guest), config.hours);
            for (sums, kind) in sums.iter_mut().zip(kinds) {
                sums.guest(host, &load, *kind);
            }
            done();
        }
    };
    let mut all = vec![Sums::new(bins); kinds.len()];
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(part) => all
                    .iter_mut()
                    .zip(&part)
                    .for_each(|(sums, part)| sums.add(part)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });

    let fleet = |(kind, sums): (&Kind, Sums)| {
        let series = |bins: &[u128]| bins.iter().map(|bin| gib_s(*bin) / 60.0).collect();
        Fleet {
            hinter: kind.name(),
            resident_gib: series(&sums.resident),
            used_gib: series(&sums.used),
            sold_gib: (config.guests * GUEST_MIB) as f64 / 1024.0,
            refault_cpus: (sums.refaults * host.refault_ns) as f64 / (config.hours * HOUR) as f64,
            hinted_gib: sums.hinted as f64 / mib(1024) as f64,
            ratio: std::array::from_fn(|i| sums.cost[i] / sums.optimum[i]),
        }
    };
    kinds.iter().zip(all).map(fleet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Config = Config {
        guests: 4,
        hours: 6,
        seed: 1,
    };

    #[test]
    fn the_same_seed_gives_the_same_fleet() {
        let run = |seed| {
            let fleets = run(
                &Host::TCG,
                &Config { seed, ..SMALL },
                &[Kind::DEFAULT],
                &|| (),
            );
            (fleets[0].resident_gib.clone(), fleets[0].refault_cpus)
        };

        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn nobody_has_less_than_is_used_or_more_than_was_sold() {
        for fleet in run(&Host::TCG, &SMALL, &Kind::ALL, &|| ()) {
            assert_eq!(fleet.resident_gib.len(), 360);
            for (resident, used) in fleet.resident_gib.iter().zip(&fleet.used_gib) {
                assert!(
                    used <= resident && *resident <= fleet.sold_gib,
                    "{}",
                    fleet.hinter
                );
            }
        }
    }
}
