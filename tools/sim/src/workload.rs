// SPDX-License-Identifier: GPL-2.0

//! Synthetic workloads of one guest.

use crate::guest::{MS, Op, SECOND, Workload};
use crate::memory::mib;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;

/// Memory is touched and freed in pieces of this many granules.
const PIECE: u64 = 8;

/// Touches or frees all of an amount, piece by piece.
fn pieces(op: fn(usize, u64) -> Op, object: usize, granules: u64) -> impl Iterator<Item = Op> {
    (0..granules.div_ceil(PIECE)).map(move |i| op(object, PIECE.min(granules - i * PIECE)))
}

/// A list of what to do, made of rounds.
struct Rounds<F> {
    ops: VecDeque<Op>,
    /// Appends the next round that begins at this time; false if there is none.
    next: F,
}

impl<F: FnMut(u64, &mut VecDeque<Op>) -> bool> Workload for Rounds<F> {
    fn next(&mut self, now: u64) -> Option<Op> {
        if self.ops.is_empty() && !(self.next)(now, &mut self.ops) {
            return None;
        }
        self.ops.pop_front()
    }
}

fn rounds(next: impl FnMut(u64, &mut VecDeque<Op>) -> bool + 'static) -> Box<dyn Workload> {
    Box::new(Rounds {
        ops: VecDeque::new(),
        next,
    })
}

/// Touches memory and frees it, once.
pub fn burst(size_mib: u64) -> Box<dyn Workload> {
    let mut done = false;

    rounds(move |_, ops| {
        if std::mem::replace(&mut done, true) {
            return false;
        }
        ops.push_back(Op::Wait(SECOND));
        ops.extend(pieces(Op::Allocate, 0, mib(size_mib)));
        ops.push_back(Op::Wait(100 * MS));
        ops.extend(pieces(Op::Free, 0, mib(size_mib)));
        true
    })
}

/// Touches memory, frees it, pauses, and so on for some time. A pause is up to 30 ms longer by
/// chance, so that nothing that comes at regular times goes in step with it.
pub fn churn(seed: u64, size_mib: u64, gap_ms: u64, for_ns: u64) -> Box<dyn Workload> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);

    rounds(move |now, ops| {
        if now >= for_ns {
            return false;
        }
        ops.extend(pieces(Op::Allocate, 0, mib(size_mib)));
        ops.extend(pieces(Op::Free, 0, mib(size_mib)));
        ops.push_back(Op::Wait(gap_ms * MS + rng.random_range(0..30 * MS)));
        true
    })
}

/// A cycle of 64 MiB goes on for some time, and in the middle of it a burst is freed that took what
/// had been hinted long ago.
pub fn burst_in_churn(seed: u64, size_mib: u64, for_ns: u64) -> Box<dyn Workload> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut begun, mut freed) = (false, false);

    rounds(move |now, ops| {
        if now >= for_ns {
            return false;
        }
        if !std::mem::replace(&mut begun, true) {
            ops.extend(pieces(Op::Allocate, 1, mib(size_mib)));
        } else if now >= for_ns / 2 && !std::mem::replace(&mut freed, true) {
            ops.extend(pieces(Op::Free, 1, mib(size_mib)));
        }
        ops.extend(pieces(Op::Allocate, 0, mib(64)));
        ops.extend(pieces(Op::Free, 0, mib(64)));
        ops.push_back(Op::Wait(rng.random_range(0..40 * MS)));
        true
    })
}

/// The working set grows steadily, and shrinks as steadily.
pub fn ramp(size_mib: u64, up_ns: u64, down_ns: u64) -> Box<dyn Workload> {
    let granules = mib(size_mib);
    let mut done = false;

    rounds(move |_, ops| {
        if std::mem::replace(&mut done, true) {
            return false;
        }
        for i in 0..granules {
            ops.push_back(Op::Until(up_ns / granules * i));
            ops.push_back(Op::Allocate(0, 1));
        }
        for i in 0..granules {
            ops.push_back(Op::Until(up_ns + down_ns / granules * i));
            ops.push_back(Op::Free(0, 1));
        }
        true
    })
}

/// A build, again and again: it configures, compiles, links, and is idle.
pub fn build(seed: u64, for_ns: u64) -> Box<dyn Workload> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut phase = 0;

    rounds(move |now, ops| {
        if now >= for_ns {
            return false;
        }
        match phase % 4 {
            // Configure: one small process after the other.
            0 => {
                for _ in 0..100 {
                    let size = rng.random_range(2..=mib(32));
                    ops.extend(pieces(Op::Allocate, 0, size));
                    ops.push_back(Op::Wait(rng.random_range(20..200) * MS));
                    ops.extend(pieces(Op::Free, 0, size));
                }
            }
            // Compile: two compilers at a time, which grow as they work; a file is read now and
            // then, and stays in the page cache.
            1 => {
                let mut held = [0; 2];

                for i in 0..240 {
                    let size = rng.random_range(mib(20)..=mib(250));

                    ops.extend(pieces(Op::Free, i % 2, held[i % 2]));
                    held[i % 2] = size;
                    for piece in pieces(Op::Allocate, i % 2, size) {
                        ops.push_back(piece);
                        ops.push_back(Op::Wait(rng.random_range(0..40) * MS));
                    }
                    if i % 8 == 0 {
                        ops.push_back(Op::Allocate(2, mib(8)));
                    }
                    ops.push_back(Op::Wait(rng.random_range(100..1500) * MS));
                }
                for (object, size) in held.into_iter().enumerate() {
                    ops.extend(pieces(Op::Free, object, size));
                }
            }
            // Link: one large process.
            2 => {
                let size = rng.random_range(mib(800)..=mib(1400));

                for piece in pieces(Op::Allocate, 0, size) {
                    ops.push_back(piece);
                    ops.push_back(Op::Wait(rng.random_range(0..100) * MS));
                }
                ops.push_back(Op::Wait(3 * SECOND));
                ops.extend(pieces(Op::Free, 0, size));
            }
            // Idle: somebody looks at the result, and then drops the page cache.
            _ => {
                ops.push_back(Op::Wait(rng.random_range(60..180) * SECOND));
                ops.push_back(Op::Free(2, mib(240)));
                ops.push_back(Op::Wait(10 * SECOND));
            }
        }
        phase += 1;
        true
    })
}
