// SPDX-License-Identifier: GPL-2.0

//! Pacing by levels of use: how much of a zone's unhinted memory may be hinted now.
//!
//! The memory in use is a stack of levels: level `x` is in use while more than `x` is. An
//! allocation takes the lowest idle level, whichever block it gets, because the allocator prefers
//! blocks that are not hinted. A level that becomes idle is hinted at once, unless its last idle
//! time was shorter than `hold`: then it recurs, and is kept until it has been idle for `hold`. So
//!
//! - nothing is kept for longer than `hold`;
//! - what is not known to recur is hinted at once;
//! - what recurs faster than `hold` costs one refault, and none from then on;
//! - what recurs slower costs one refault each time, and the host has the memory meanwhile.
//!
//! This is ski rental, level by level. If `hold` is the time for which keeping memory costs as much
//! as bringing it back, the cost is at most three times that of an optimum that knows the future,
//! plus one refault for each level.
//!
//! The stack is a model: the allocator takes a small Offline block before it splits a larger
//! unhinted one, and a block of its own migratetype before one of another. [`Fuse`] bounds what
//! that costs.
//!
//! No kernel types, no allocation. Sizes are in pages, times in nanoseconds. Arithmetic saturates.

use core::{
    num::NonZero,
    ops::{
        DerefMut,
        Range, //
    },
};

/// Parts of `hold` that are told apart.
const SLOTS: usize = 16;

/// Time between two looks while memory is kept or may come to be: [`SLOTS`] looks in a `hold`, but
/// no more often than every 10 ms, and no less often than every 100 ms.
pub const LOOK_NS: Range<u64> = 10_000_000..100_000_000;

/// Largest level, in KiB.
///
/// A level has one bit, which any part of it sets and clears. With levels of 1 GiB, a burst of
/// 200 MiB every 10 s was kept each time.
pub const LEVEL_KB_MAX: u64 = 64 * 1024;

/// Words of levels that a zone has at least, whatever its size is now: 1 TiB in levels of 64 MiB.
pub const WORDS_MIN: usize = 256;

/// Words of levels for a zone of so many KiB.
///
/// A zone that grows beyond what its words were made for gets larger levels.
pub const fn words(zone_kb: u64) -> usize {
    let words = zone_kb.div_ceil(LEVEL_KB_MAX).div_ceil(u64::BITS as u64);

    // CAST: No more than memory that exists needs.
    if words as usize > WORDS_MIN {
        words as usize
    } else {
        WORDS_MIN
    }
}

/// The conditions of a decision. When they change, what was seen before counts no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// For how long memory that recurs is kept; 0 for no pacing.
    pub hold_ns: u64,
    /// Lowest order that is hinted: [`Look`] counts blocks from that order up.
    pub min_order: u32,
    /// What the host brings back for one touch: the smallest level.
    pub granule_pages: u64,
    /// The least that is worth keeping.
    pub worth_pages: u64,
}

/// What the thread sees of a zone, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The time, of a monotonic clock.
    pub now_ns: u64,
    /// Pages of the zone.
    pub managed: u64,
    /// Pages in free blocks of the hinted orders, Offline or not, and pages that are out.
    pub eligible: u64,
    /// The least of `eligible` since the last look.
    pub eligible_low: u64,
    /// Pages that can be hinted: not Offline, in blocks that the zone can spare.
    pub backlog: u64,
    /// The least of all pages that are not Offline, in free blocks of the hinted orders, since the
    /// last look.
    pub unhinted_low: u64,
    /// Offline pages that were allocated, ever; may wrap.
    pub offline_used: u64,
}

/// What may be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Pages that may be hinted now.
    pub pages: u64,
    /// Pages that are kept: the rest of the backlog.
    pub kept: u64,
    /// In how many nanoseconds to look again, even if nothing else asks for it; [`u64::MAX`] for
    /// never.
    pub again_ns: u64,
}

/// The state of a zone. Each bit of `W` is a level: whether its last idle time was shorter than
/// `hold`.
#[derive(Clone, Debug)]
pub struct Levels<W> {
    recurs: W,
    seen: Option<Seen>,
}

/// What was seen so far.
#[derive(Clone, Copy, Debug)]
struct Seen {
    terms: Terms,
    /// Pages of a level.
    level: NonZero<u64>,
    /// The last look: when it was, what the zone had and what of it was in use.
    now_ns: u64,
    managed: u64,
    used: u64,
    /// The most that was in use in each part of `hold`, the oldest first.
    most: [u64; SLOTS],
    fuse: Fuse,
}

impl<W: DerefMut<Target = [u64]>> Levels<W> {
    /// Nothing was seen yet. At least one word is needed, or nothing is ever kept.
    pub fn new(words: W) -> Self {
        Self {
            recurs: words,
            seen: None,
        }
    }

    /// Forgets what was seen.
    pub fn forget(&mut self) {
        self.seen = None;
    }

    /// Takes in what the thread sees and decides how much may be hinted.
    ///
    /// To be called before blocks are taken.
    pub fn look(&mut self, look: &Look, terms: &Terms) -> Decision {
        let level = level(look.managed, terms, self.recurs.len());
        let before = self
            .seen
            .take()
            .filter(|seen| seen.terms == *terms && seen.level == level);
        let (mut seen, low) = match before {
            Some(seen) => (seen, look.eligible_low),
            None => {
                self.recurs.fill(0);
                (Seen::new(look, terms, level), look.eligible)
            }
        };

        let now_ns = look.now_ns.max(seen.now_ns);
        let used = look.managed.saturating_sub(look.eligible);
        // Memory that came to the zone since the last look was not in use before, nor is memory
        // in use that has left it.
        let peak = look.managed.min(seen.managed).saturating_sub(low).max(used);
        // By the time of the last look: an idle time that ended since then was shorter than it
        // seems now.
        let recent = seen.most();
        mark(
            &mut self.recurs,
            touched(seen.used..peak.min(recent), level),
            true,
        );
        mark(
            &mut self.recurs,
            covered(seen.used.max(recent)..peak, level),
            false,
        );

        seen.advance(now_ns, peak);
        seen.managed = look.managed;
        seen.used = used;
        let idle = used..seen.most();
        let blown = seen.fuse.look(now_ns, look, terms);
        self.seen = Some(seen);

        let kept = if blown {
            look.backlog
        } else {
            self.recurring(&idle, level).min(look.backlog)
        };
        decide(look.backlog, kept, &idle, terms)
    }

    /// Pages of a range that recur.
    fn recurring(&self, range: &Range<u64>, level: NonZero<u64>) -> u64 {
        let levels = touched(range.clone(), level);
        let level = level.get();
        let part = |i: u64| {
            let start = i.saturating_mul(level).max(range.start);
            let end = i.saturating_add(1).saturating_mul(level).min(range.end);
            end.saturating_sub(start)
        };
        let mut pages = 0u64;

        for (word, mask, first) in words_of(&levels, self.recurs.len()) {
            let bits = self.recurs.get(word).map_or(0, |word| *word & mask);
            pages = pages.saturating_add(u64::from(bits.count_ones()).saturating_mul(level));
            // The first and the last level may be in the range in part.
            for i in [levels.start, levels.end.saturating_sub(1)] {
                let bit = i.checked_sub(first).filter(|bit| *bit < WORD);
                if bit.is_some_and(|bit| bits >> bit & 1 != 0) {
                    pages = pages.saturating_sub(level.saturating_sub(part(i)));
                }
                if levels.end - levels.start == 1 {
                    break;
                }
            }
        }
        pages
    }
}

impl Seen {
    /// As if all had been as it is for ever.
    fn new(look: &Look, terms: &Terms, level: NonZero<u64>) -> Self {
        let used = look.managed.saturating_sub(look.eligible);

        Self {
            terms: *terms,
            level,
            now_ns: look.now_ns,
            managed: look.managed,
            used,
            most: [used; SLOTS],
            fuse: Fuse::new(look),
        }
    }

    /// The most that was in use within `hold`.
    fn most(&self) -> u64 {
        self.most.iter().copied().max().unwrap_or(0)
    }

    /// Lets the oldest parts of `hold` go, and enters a peak in the newest.
    fn advance(&mut self, now_ns: u64, peak: u64) {
        let slot_ns = (self.terms.hold_ns / SLOTS as u64).max(1);
        let gone = (now_ns / slot_ns).saturating_sub(self.now_ns / slot_ns);
        // CAST: At most `SLOTS`.
        let gone = gone.min(SLOTS as u64) as usize;

        self.most.rotate_left(gone);
        for most in self.most.iter_mut().rev().take(gone) {
            *most = 0;
        }
        let [.., newest] = &mut self.most;
        *newest = peak.max(*newest);
        self.now_ns = now_ns;
    }
}

/// Bounds the refaults of allocations that bypass unhinted memory.
///
/// Where Offline memory of a zone is used while the zone's unhinted memory did not run out, keeping
/// more of it elsewhere does not help, so the zone is not hinted for one `hold`. That is at most
/// every second `hold`, and not for less than 8 granules, however little is worth keeping.
#[derive(Clone, Copy, Debug)]
struct Fuse {
    /// Since when refaults are counted, and the pages.
    since_ns: u64,
    bypassed: u64,
    /// [`Look::offline_used`] of the last look.
    offline_used: u64,
    blown_ns: Option<u64>,
}

impl Fuse {
    fn new(look: &Look) -> Self {
        Self {
            since_ns: look.now_ns,
            bypassed: 0,
            offline_used: look.offline_used,
            blown_ns: None,
        }
    }

    /// Whether the zone is not to be hinted now.
    fn look(&mut self, now_ns: u64, look: &Look, terms: &Terms) -> bool {
        let used = look.offline_used.wrapping_sub(self.offline_used);
        let over = |since_ns: u64, holds| {
            now_ns.saturating_sub(since_ns) >= terms.hold_ns.saturating_mul(holds)
        };

        self.offline_used = look.offline_used;
        if over(self.since_ns, 1) {
            self.since_ns = now_ns;
            self.bypassed = 0;
        }
        self.bypassed = self.bypassed.saturating_add(used.min(look.unhinted_low));
        let much = terms.worth_pages.max(terms.granule_pages.saturating_mul(8));
        if self.bypassed >= much.max(1) && self.blown_ns.is_none_or(|at| over(at, 2)) {
            self.blown_ns = Some(now_ns);
        }
        self.blown_ns.is_some_and(|at| !over(at, 1))
    }
}

/// What follows if so much were to be kept.
fn decide(backlog: u64, kept: u64, idle: &Range<u64>, terms: &Terms) -> Decision {
    let worth = terms.worth_pages.max(1);
    let kept = if terms.hold_ns == 0 || kept < worth {
        0
    } else {
        kept
    };
    // When a level that is idle is used again is of interest, too.
    let watched = kept != 0 || (terms.hold_ns != 0 && idle.end.saturating_sub(idle.start) >= worth);

    Decision {
        pages: backlog.saturating_sub(kept),
        kept,
        again_ns: if watched {
            (terms.hold_ns / SLOTS as u64).clamp(LOOK_NS.start, LOOK_NS.end)
        } else {
            u64::MAX
        },
    }
}

/// Levels of a word.
const WORD: u64 = u64::BITS as u64;

/// Pages of a level: a granule, doubled until the words have a bit for each level.
fn level(managed: u64, terms: &Terms, words: usize) -> NonZero<u64> {
    let granule = NonZero::new(terms.granule_pages).unwrap_or(NonZero::<u64>::MIN);
    let levels = (words as u64).saturating_mul(WORD).max(1);
    let granules = managed.div_ceil(granule.get()).div_ceil(levels);

    granule.saturating_mul(
        granules
            .checked_next_power_of_two()
            .and_then(NonZero::new)
            .unwrap_or(NonZero::<u64>::MIN),
    )
}

/// The levels that any page of a range is in.
fn touched(pages: Range<u64>, level: NonZero<u64>) -> Range<u64> {
    if pages.is_empty() {
        return 0..0;
    }
    pages.start / level..pages.end.div_ceil(level.get())
}

/// The levels that a range has half of, at least.
fn covered(pages: Range<u64>, level: NonZero<u64>) -> Range<u64> {
    let round = |pages: u64| pages.saturating_add(level.get() / 2) / level;

    round(pages.start)..round(pages.end)
}

/// Each word that has some of the levels: its index, the bits of those levels, and its first level.
fn words_of(levels: &Range<u64>, words: usize) -> impl Iterator<Item = (usize, u64, u64)> {
    let end = levels.end.min((words as u64).saturating_mul(WORD));
    let start = levels.start.min(end);

    (start / WORD..end.div_ceil(WORD)).map(move |word| {
        let first = word * WORD;
        let low = start.saturating_sub(first);
        let high = (end - first).min(WORD);
        // Not empty, as the word has one of the levels at least.
        let mask = u64::MAX >> (WORD - high.max(1)) & u64::MAX << low.min(WORD - 1);

        // CAST: Less than the number of words.
        (word as usize, mask, first)
    })
}

/// Says of levels whether they recur.
fn mark(words: &mut [u64], levels: Range<u64>, recurs: bool) {
    if levels.is_empty() {
        return;
    }
    for (word, mask, _) in words_of(&levels, words.len()) {
        if let Some(word) = words.get_mut(word) {
            *word = if recurs { *word | mask } else { *word & !mask };
        }
    }
}
