// SPDX-License-Identifier: GPL-2.0

//! Loads: what a guest allocates and frees, and when, whoever hints.

use crate::fleet;
use crate::guest::{Host, MS, SECOND};
use crate::memory::mib;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::f64::consts::TAU;

/// Memory is touched and freed in pieces of this many granules.
const PIECE: u64 = 8;

/// Granules that an object gets, or loses if it is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub at: u64,
    pub object: usize,
    pub granules: i64,
}

#[derive(Clone, Debug)]
pub struct Load {
    pub name: String,
    /// Sizes of the guest's zones, in granules.
    pub zones: Vec<u64>,
    pub until: u64,
    pub steps: Vec<Step>,
}

/// Zones of a guest of so many MiB, the lowest first: memory above 3 GiB is a zone of its own, which
/// allocations try first. What the kernel and the programs use for themselves is left out.
pub fn zones(size_mib: u64) -> Vec<u64> {
    match size_mib.checked_sub(3072) {
        None | Some(0) => vec![mib(size_mib - 128)],
        Some(above) => vec![mib(3072 - 128), mib(above)],
    }
}

/// Writes the steps of one program, one after the other.
pub struct Script {
    host: Host,
    rng: ChaCha8Rng,
    pub now: u64,
    steps: Vec<Step>,
}

impl Script {
    pub fn new(host: &Host, seed: u64) -> Self {
        Self {
            host: *host,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: 0,
            steps: Vec::new(),
        }
    }

    fn step(&mut self, object: usize, granules: i64) {
        if granules != 0 {
            self.steps.push(Step {
                at: self.now,
                object,
                granules,
            });
        }
    }

    pub fn touch(&mut self, object: usize, granules: u64) {
        for from in (0..granules).step_by(PIECE as usize) {
            let piece = PIECE.min(granules - from);
            self.step(object, piece as i64);
            self.now += piece * self.host.touch_ns;
        }
    }

    pub fn free(&mut self, object: usize, granules: u64) {
        for from in (0..granules).step_by(PIECE as usize) {
            let piece = PIECE.min(granules - from);
            self.step(object, -(piece as i64));
            self.now += piece * self.host.free_ns;
        }
    }

    pub fn wait(&mut self, ns: u64) {
        self.now += ns;
    }

    /// Waits for a time between two by chance.
    fn wait_from(&mut self, least: u64, most: u64) {
        self.now += self.rng.random_range(least..most);
    }

    /// Touches some granules in pieces, with a pause of up to that long after each.
    fn grow(&mut self, object: usize, granules: u64, pause: u64) {
        for from in (0..granules).step_by(PIECE as usize) {
            self.touch(object, PIECE.min(granules - from));
            self.wait_from(0, pause);
        }
    }

    pub fn load(mut self, name: &str, size_mib: u64, until: u64) -> Load {
        self.steps.sort_by_key(|step| step.at);
        Load {
            name: name.into(),
            zones: zones(size_mib),
            until,
            steps: self.steps,
        }
    }

    /// The same, with the end so long after the last step.
    fn load_after(self, name: &str, size_mib: u64, seconds: u64) -> Load {
        let until = self.now + seconds * SECOND;

        self.load(name, size_mib, until)
    }
}

fn log_uniform(rng: &mut impl Rng, least: u64, most: u64) -> u64 {
    rng.random_range((least as f64).ln()..(most as f64).ln())
        .exp() as u64
}

/// Touches memory and frees it, once.
pub fn burst(host: &Host, size_mib: u64) -> Load {
    let mut script = Script::new(host, 0);

    script.wait(SECOND);
    script.touch(0, mib(size_mib));
    script.wait(100 * MS);
    script.free(0, mib(size_mib));
    script.load(&format!("burst {size_mib} MiB"), 4096, 40 * SECOND)
}

/// Touches memory, frees it, pauses, and so on for some time. A pause is up to 30 ms longer by
/// chance, so that nothing that comes at regular times goes in step with it.
pub fn churn(host: &Host, seed: u64, size_mib: u64, gap_ms: u64, seconds: u64) -> Load {
    let mut script = Script::new(host, seed);

    while script.now < seconds * SECOND {
        script.touch(0, mib(size_mib));
        script.free(0, mib(size_mib));
        script.wait_from(gap_ms * MS, (gap_ms + 30) * MS);
    }
    let name = format!("churn {size_mib} MiB, {gap_ms} ms");
    script.load(&name, 2048, seconds * SECOND)
}

/// A cycle of 64 MiB goes on for some time, and in the middle of it a burst is freed that took
/// memory hinted long ago.
fn burst_in_churn(host: &Host, seed: u64) -> Load {
    let mut script = Script::new(host, seed);

    script.touch(1, mib(2048));
    for end in [25 * SECOND, 50 * SECOND] {
        while script.now < end {
            script.touch(0, mib(64));
            script.free(0, mib(64));
            script.wait_from(0, 40 * MS);
        }
        // Nothing is left of it the second time.
        if end == 25 * SECOND {
            script.free(1, mib(2048));
        }
    }
    script.load("burst in churn", 4096, 60 * SECOND)
}

/// The working set grows steadily for a minute, and shrinks as steadily.
fn ramp(host: &Host) -> Load {
    let mut script = Script::new(host, 0);
    let granules = mib(1500);

    for (i, change) in (0..granules)
        .map(|_| 1)
        .chain((0..granules).map(|_| -1))
        .enumerate()
    {
        script.now = 60 * SECOND / granules * i as u64;
        script.step(0, change);
    }
    script.load("ramp 1500 MiB", 2048, 180 * SECOND)
}

/// A build, again and again: it configures, compiles, links, and is idle.
fn builds(host: &Host, seed: u64) -> Load {
    let mut script = Script::new(host, seed);
    let until = 3600 * SECOND;

    while script.now < until {
        // Configure: one small process after the other.
        for _ in 0..100 {
            let size = script.rng.random_range(2..=mib(32));
            script.touch(0, size);
            script.wait_from(20 * MS, 200 * MS);
            script.free(0, size);
        }
        // Compile: two compilers at a time, which grow as they work. A file is read now and then,
        // and stays in the page cache.
        let mut held = [0; 2];
        for i in 0..240 {
            let size = script.rng.random_range(mib(20)..=mib(250));
            script.free(i % 2, std::mem::replace(&mut held[i % 2], size));
            script.grow(i % 2, size, 40 * MS);
            if i % 8 == 0 {
                script.touch(2, mib(8));
            }
            script.wait_from(100 * MS, 1500 * MS);
        }
        for (object, size) in held.into_iter().enumerate() {
            script.free(object, size);
        }
        // Link: one large process.
        let size = script.rng.random_range(mib(800)..=mib(1400));
        script.grow(0, size, 100 * MS);
        script.wait(3 * SECOND);
        script.free(0, size);
        // Idle: somebody looks at the result, and then drops the page cache.
        script.wait_from(60 * SECOND, 180 * SECOND);
        script.free(2, mib(240));
        script.wait(10 * SECOND);
    }
    script.load("builds", 4096, until)
}

/// Calls of functions: of 64 to 512 MiB, 30 ms to 3 s long, after pauses of 1 ms to 100 s.
fn faas(host: &Host, seed: u64, streams: usize) -> Load {
    let until = 3600 * SECOND;
    let mut all = Script::new(host, 0);

    for stream in 0..streams {
        let mut script = Script::new(host, seed * 100 + stream as u64);
        loop {
            let pause = log_uniform(&mut script.rng, MS, 100 * SECOND);
            script.wait(pause);
            if script.now + 10 * SECOND > until {
                break;
            }
            let size = script.rng.random_range(mib(64)..=mib(512));
            let long = log_uniform(&mut script.rng, 30 * MS, 3 * SECOND);
            script.touch(stream, size);
            script.wait(long);
            script.free(stream, size);
        }
        all.steps.append(&mut script.steps);
    }
    all.load(
        &format!("faas, {streams} streams"),
        4096,
        until + 60 * SECOND,
    )
}

/// A heap that grows and is collected.
fn jvm(host: &Host, size_mib: u64, grows_ms: u64, seconds: u64) -> Load {
    let mut script = Script::new(host, 0);
    let granules = mib(size_mib);

    while script.now < seconds * SECOND {
        for _ in 0..granules {
            script.step(0, 1);
            script.wait(grows_ms * MS / granules);
        }
        script.free(0, granules);
    }
    script.load_after(&format!("jvm {size_mib} MiB, {grows_ms} ms"), 2048, 60)
}

/// A cache that follows the day, here of an hour, and goes up and down a little all the time.
fn cache(host: &Host, seed: u64) -> Load {
    let mut script = Script::new(host, seed);
    let mut used = 0;

    for i in 0..7200 * 4 {
        let phase = f64::from(i) / 4.0 / 3600.0 * TAU;
        let jitter = script.rng.random_range(-4.0..4.0);
        let want = (mib(1024) as f64 * (1.0 - 0.7 * phase.cos()) + jitter) as i64;
        script.now = i as u64 * SECOND / 4;
        script.step(0, want - used);
        used = want;
    }
    script.load("cache by day", 4096, 7200 * SECOND)
}

/// An agent's sandbox: it runs something of 1 to 2 GiB every 10 to 60 s.
fn agent(host: &Host, seed: u64) -> Load {
    let mut script = Script::new(host, seed);

    while script.now < 3510 * SECOND {
        script.wait_from(10 * SECOND, 60 * SECOND);
        let size = script.rng.random_range(mib(1024)..=mib(2048));
        script.touch(0, size);
        script.wait_from(SECOND / 2, 8 * SECOND);
        script.free(0, size);
    }
    script.load_after("agent", 4096, 60)
}

/// Requests that come in batches: twenty, 100 ms apart, then a pause of about 15 s.
fn batches(host: &Host, seed: u64) -> Load {
    let mut script = Script::new(host, seed);

    while script.now < 1800 * SECOND {
        for _ in 0..20 {
            script.touch(0, mib(256));
            script.free(0, mib(256));
            script.wait_from(50 * MS, 150 * MS);
        }
        script.wait_from(15 * SECOND / 2, 45 * SECOND / 2);
    }
    script.load_after("batches 256 MiB, 15 s", 2048, 60)
}

/// Pauses of 0.5 and 10 s alternately.
fn alternate(host: &Host) -> Load {
    let mut script = Script::new(host, 0);

    while script.now < 600 * SECOND {
        for pause in [SECOND / 2, 10 * SECOND] {
            script.touch(0, mib(512));
            script.free(0, mib(512));
            script.wait(pause);
        }
    }
    script.load_after("pauses 0.5 and 10 s", 2048, 60)
}

/// A cycle on a base that grows for four minutes, and falls.
fn growing(host: &Host) -> Load {
    let mut script = Script::new(host, 0);
    let mut base = 0;

    while script.now < 600 * SECOND {
        script.touch(0, mib(64));
        script.free(0, mib(64));
        script.wait(20 * MS);
        let want = mib(5) * (script.now / SECOND % 240);
        script.touch(1, want.saturating_sub(base));
        script.free(1, base.saturating_sub(want));
        base = want;
    }
    script.load_after("cycle on a growing base", 2048, 60)
}

/// A program that grows to 2 GiB while it takes and frees a little all the time, stays, and ends.
fn jitter(host: &Host, seed: u64) -> Load {
    let mut script = Script::new(host, seed);

    while script.now < 1200 * SECOND {
        let mut used = 0;
        while used < mib(2048) {
            let more = script.rng.random_range(mib(8)..=mib(48));
            let less = script.rng.random_range(0..mib(16)).min(more);
            script.touch(0, more);
            script.wait_from(0, 200 * MS);
            script.free(0, less);
            script.wait_from(0, 200 * MS);
            used += more - less;
        }
        script.wait_from(30 * SECOND, 60 * SECOND);
        script.free(0, used);
        script.wait_from(30 * SECOND, 90 * SECOND);
    }
    script.load_after("grows with jitter, ends", 4096, 60)
}

/// All of them.
pub fn all(host: &Host, seed: u64) -> Vec<Load> {
    let mut all = vec![burst(host, 2048), burst_in_churn(host, seed)];

    for (size, seconds, gaps) in [
        (64, 60, &[0, 20, 200, 1000][..]),
        (512, 60, &[0, 20, 200, 1000]),
        (512, 600, &[3000, 7000, 20_000, 60_000]),
        (1500, 600, &[20_000]),
    ] {
        all.extend(
            gaps.iter()
                .map(|gap| churn(host, seed, size, *gap, seconds)),
        );
    }
    all.extend([ramp(host), builds(host, seed)]);
    for guest in 1..=3 {
        let name = format!("fleet guest {guest}");
        all.push(fleet::day(host, &name, fleet::guest_seed(seed, guest), 24));
    }
    all.extend([
        faas(host, seed, 1),
        faas(host, seed, 4),
        jvm(host, 1024, 5000, 600),
        jvm(host, 256, 500, 120),
        cache(host, seed),
        agent(host, seed),
        batches(host, seed),
        alternate(host),
        growing(host),
        jitter(host, seed),
    ]);
    all
}
