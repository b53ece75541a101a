// SPDX-License-Identifier: GPL-2.0

//! Looks for the pattern of use that is worst for a hinter, by chance and by climbing.

use crate::guest::{Host, MS, SECOND};
use crate::hinter::Kind;
use crate::load::{Load, Step};
use crate::memory::mib;
use crate::merit::{Row, play};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Granules in use, and for how long, again and again.
pub type Pattern = Vec<(u64, u64)>;

/// What a pattern does in some seconds, and nothing for a minute after that.
pub fn load(pattern: &[(u64, u64)], seconds: u64) -> Load {
    let mut steps = Vec::new();
    let (mut now, mut used) = (SECOND, 0);
    let mut set = |now, want: u64| {
        steps.push(Step {
            at: now,
            object: 0,
            granules: want as i64 - used as i64,
        });
        used = want;
    };

    while now < seconds * SECOND {
        for (want, ns) in pattern {
            set(now, *want);
            now += ns;
        }
    }
    set(now, 0);
    Load {
        name: format!("{pattern:?}"),
        zones: vec![mib(2048)],
        until: now + 60 * SECOND,
        steps,
    }
}

/// Cost over optimum in the long run, without what is paid once at the beginning and the end.
pub fn ratio(host: &Host, kind: Kind, worth: usize, pattern: &[(u64, u64)]) -> f64 {
    let cycle: u64 = pattern.iter().map(|(_, ns)| ns).sum();
    let seconds = (cycle * 20 / SECOND).clamp(100, 3600);
    let [once, twice] = [1, 2].map(|n| play(host, &load(pattern, n * seconds), kind, 0, 0));
    let more = |of: fn(&Row, usize) -> f64| of(&twice, worth) - of(&once, worth);
    let optimum = more(|row, worth| row.optimum[worth]);

    // Where the optimum pays next to nothing, hinting is no question.
    if optimum < 64.0 {
        return 0.0;
    }
    more(|row, worth| row.cost[worth]) / optimum
}

/// A random time between 20 ms and 30 s, as often in one power of two as in another.
fn any_ns(rng: &mut ChaCha8Rng) -> u64 {
    (rng.random_range(0.02f64.ln()..30f64.ln()).exp() * 1e9) as u64
}

/// A start of a search: a level in use and idle, or any levels.
fn start(rng: &mut ChaCha8Rng, number: usize) -> Pattern {
    let steps = 2 + number / 2 % 3 * 2;
    let mut size = |i| match (number % 2, i % 2) {
        (0, 0) => mib(256),
        (0, _) => 0,
        _ => rng.random_range(0..mib(1024)),
    };
    let sizes: Vec<u64> = (0..steps).map(&mut size).collect();

    sizes.into_iter().map(|size| (size, any_ns(rng))).collect()
}

/// The worst ratio that was found, and its pattern.
pub fn search(host: &Host, kind: Kind, worth: usize, seed: u64, tries: usize) -> (f64, Pattern) {
    const STARTS: usize = 6;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut worst = (0.0, Pattern::new());

    for number in 0..STARTS {
        let mut pattern = start(&mut rng, number);
        let mut most = ratio(host, kind, worth, &pattern);
        for _ in 0..tries / STARTS {
            let mut other = pattern.clone();
            let i = rng.random_range(0..other.len());
            other[i].1 = match rng.random_bool(0.3) {
                true => any_ns(&mut rng),
                false => ((other[i].1 as f64 * rng.random_range(0.7..1.4)) as u64).max(MS),
            };
            let new = ratio(host, kind, worth, &other);
            if new > most {
                (most, pattern) = (new, other);
            }
        }
        if most > worst.0 {
            worst = (most, pattern);
        }
    }
    worst
}
