// SPDX-License-Identifier: GPL-2.0

//! What hinting costs, and what it would cost an optimum that knows the future.
//!
//! The unit of cost is the price of one refaulted granule. Memory is worth a time: keeping a granule
//! from the host for that long costs as much as one refault. Memory in use is a stack of levels of a
//! granule each. The optimum hints a level at once if the level will stay idle for longer than memory
//! is worth, or for good, and keeps it otherwise. The first use of a level costs everybody the same
//! and is left out.

use crate::guest::SECOND;
use crate::memory::Memory;

/// What memory is worth, in nanoseconds.
pub const WORTHS: [u64; 4] = [SECOND / 4, SECOND, 2 * SECOND, 4 * SECOND];

/// Names for tables and pictures.
pub const WORTH_NAMES: [&str; 4] = ["0.25 s", "1 s", "2 s", "4 s"];

#[derive(Clone, Debug, Default)]
pub struct Meter {
    used: u64,
    /// The idle levels, from the highest down: up to which level, and since when.
    idle: Vec<(u64, u64)>,
    /// The most that was in use.
    pub most: u64,
    /// Cost of the optimum, for each of [`WORTHS`].
    pub optimum: [f64; WORTHS.len()],
    /// Granules times nanoseconds that were free and not with the host, in use, and free but used
    /// before.
    pub kept: u128,
    pub in_use: u128,
    pub free: u128,
}

impl Meter {
    /// The memory was like that from when to when.
    pub fn watch(&mut self, from: u64, to: u64, memory: &Memory) {
        let span = u128::from(to - from);

        self.set_used(from, memory.used());
        self.kept += span * u128::from(memory.kept());
        self.in_use += span * u128::from(self.used);
        self.free += span * u128::from(self.most - self.used);
    }

    fn set_used(&mut self, now: u64, used: u64) {
        if used < self.used {
            self.idle.push((self.used, now));
        }
        let mut from = self.used;
        while let Some((to, since)) = self.idle.last_mut().filter(|_| from < used) {
            let upto = used.min(*to);
            let idle = (now - *since) as f64;

            for (optimum, worth) in self.optimum.iter_mut().zip(WORTHS) {
                *optimum += (upto - from) as f64 * (idle / worth as f64).min(1.0);
            }
            if upto == *to {
                self.idle.pop();
            }
            from = upto;
        }
        self.most = self.most.max(used);
        self.used = used;
    }

    /// Granules that were refaulted after their first use.
    pub fn refaults(&self, memory: &Memory) -> u64 {
        memory.offline_used().saturating_sub(self.most)
    }

    /// What hinting has cost, for each of [`WORTHS`].
    pub fn cost(&self, memory: &Memory) -> [f64; WORTHS.len()] {
        WORTHS.map(|worth| self.refaults(memory) as f64 + self.kept as f64 / worth as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_optimum_is_that_of_each_level() {
        const S: u64 = SECOND;
        let mut meter = Meter::default();

        // 4 to 10 are idle from 1 s, 0 to 4 from 2 s.
        for (now, used) in [(0, 10), (S, 4), (2 * S, 0), (2 * S + S / 2, 6)] {
            meter.set_used(now, used);
        }
        // 4 for half a second, 2 for one and a half.
        assert_eq!(meter.optimum[1], 4.0 * 0.5 + 2.0);
        assert_eq!(meter.optimum[3], 4.0 * 0.125 + 2.0 * 0.375);
        meter.set_used(3 * S, 0);
        meter.set_used(4 * S, 12);
        // 6 for one second, 4 for three, 2 for the first time.
        assert_eq!(meter.optimum[1], 4.0 + 6.0 + 4.0);
        assert_eq!(meter.most, 12);
    }
}
