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
//! unhinted one, and a block of its own migratetype before one of another. A fuse bounds what that
//! costs.
//!
//! No kernel types, no allocation. Sizes are in pages, times in nanoseconds. Arithmetic saturates.

use core::ops::{
    DerefMut,
    Range, //
};

use crate::policy::ZoneView;

/// Parts of `hold` that are told apart.
const SLOTS: usize = 16;

/// Looks in a `hold` while memory is kept or may come to be.
///
/// A guest that goes on in a loop pays for each. Ten of them let the worst simulated workload cost
/// more than 2.5 times the optimum, if 5 % of the allocations bypass unhinted memory.
const LOOKS: u64 = 12;

/// Shortest and longest time between two of these looks.
pub const LOOK_NS: Range<u64> = 10_000_000..100_000_000;

/// Largest level, in KiB.
///
/// A level has one bit, which any part of it sets and clears. With levels of 1 GiB, a burst of
/// 200 MiB every 10 s was kept each time.
pub const LEVEL_KB_MAX: u64 = 64 * 1024;

/// Levels of a word.
const WORD: u64 = u64::BITS as u64;

/// Words of levels that a zone has at least, whatever its size is now: 1 TiB in levels of 64 MiB.
pub const WORDS_MIN: usize = 256;

/// Words of levels for a zone of so many KiB.
///
/// A zone that grows beyond what its words were made for gets larger levels.
pub fn words(zone_kb: u64) -> usize {
    // CAST: No more than memory that exists needs.
    WORDS_MIN.max(zone_kb.div_ceil(LEVEL_KB_MAX * WORD) as usize)
}

/// The conditions of a decision. When they change, what was seen before counts no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// For how long memory that recurs is kept; 0 for no pacing.
    pub hold_ns: u64,
    /// Lowest order that is hinted: [`ZoneView::eligible`] counts blocks from that order up.
    pub min_order: u32,
    /// The order of what the host brings back for one touch: the smallest level.
    pub granule_order: u32,
    /// The least that is worth keeping.
    pub worth_pages: u64,
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
    /// The order of a level.
    order: u32,
    /// The last look: when it was, what the zone had and what of it was in use, and
    /// [`ZoneView::offline_used`].
    now_ns: u64,
    managed: u64,
    used: u64,
    offline_used: u64,
    /// The lows since then, as in [`ZoneView`].
    eligible_low: u64,
    unhinted_low: u64,
    /// The least that was in use since it was the most.
    least: u64,
    /// The most that was in use in each part of `hold`, the oldest first.
    most: [u64; SLOTS],
    /// Pages of allocations that bypassed unhinted memory, and since when they are counted.
    bypassed: u64,
    bypassed_since_ns: u64,
    /// When the fuse blew last.
    blown_ns: Option<u64>,
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

    /// Takes in the lows of a view that is taken between two looks: the next view has new ones.
    pub fn note(&mut self, view: &ZoneView<'_>) {
        if let Some(seen) = &mut self.seen {
            seen.eligible_low = seen.eligible_low.min(view.eligible_low);
            seen.unhinted_low = seen.unhinted_low.min(view.unhinted_low);
        }
    }

    /// Takes in what the thread sees and decides how much may be hinted of `backlog`: pages that
    /// are not Offline, in blocks that the zone can spare.
    ///
    /// `now_ns` is the time, of a monotonic clock. To be called before blocks are taken.
    pub fn look(
        &mut self,
        now_ns: u64,
        view: &ZoneView<'_>,
        backlog: u64,
        terms: &Terms,
    ) -> Decision {
        if terms.hold_ns == 0 {
            self.forget();
            return Decision {
                pages: backlog,
                kept: 0,
                again_ns: u64::MAX,
            };
        }
        self.note(view);
        let order = level_order(view.managed, terms, self.recurs.len());
        let used = view.managed.saturating_sub(view.eligible);
        let before = self.seen.take();
        let mut seen = before
            .filter(|seen| seen.terms == *terms && seen.order == order)
            .unwrap_or_else(|| {
                self.recurs.fill(0);
                Seen::new(now_ns, view, terms, order)
            });

        // Memory that came to the zone since the last look was not in use before, nor is memory
        // in use that has left it.
        let managed = view.managed.min(seen.managed);
        let peak = managed.saturating_sub(seen.eligible_low).max(used);
        // By the time of the last look: an idle time that ended since then was shorter than it
        // seems now.
        let recent = seen.most();
        let again = seen.used..peak.min(recent);
        // Use that grows falls a little again and again: each time that would mark a level.
        if recent.saturating_sub(seen.least) >= seen.worth() {
            self.mark(touched(&again, order), true);
        }
        self.mark(covered(seen.used.max(recent)..peak, order), false);

        seen.advance(now_ns, peak);
        let kept = if seen.is_blown(view, again.end.saturating_sub(again.start)) {
            backlog
        } else {
            self.recurring(used..seen.most(), order).min(backlog)
        };
        if peak >= recent {
            seen.least = used;
        }
        seen.end(view);
        self.seen = Some(seen);
        seen.decide(backlog, kept)
    }

    /// Says of levels whether they recur.
    fn mark(&mut self, levels: Range<u64>, recurs: bool) {
        for level in levels {
            // CAST: `level_order()` makes no more levels than the words have bits for.
            let Some(word) = self.recurs.get_mut((level / WORD) as usize) else {
                return;
            };
            let bit = 1 << (level % WORD);
            *word = if recurs { *word | bit } else { *word & !bit };
        }
    }

    /// Pages of a range that recur.
    fn recurring(&self, range: Range<u64>, order: u32) -> u64 {
        let parts = touched(&range, order).map_while(|level| {
            // CAST: As above.
            let word = self.recurs.get((level / WORD) as usize)?;
            let start = level << order;
            // The first and the last level may be in the range in part.
            let end = start.saturating_add(1 << order).min(range.end);
            let pages = end.saturating_sub(start.max(range.start));

            Some(pages.saturating_mul(word >> (level % WORD) & 1))
        });

        parts.fold(0, u64::saturating_add)
    }
}

impl Seen {
    /// As if all had been as it is for ever.
    fn new(now_ns: u64, view: &ZoneView<'_>, terms: &Terms, order: u32) -> Self {
        let used = view.managed.saturating_sub(view.eligible);

        Self {
            terms: *terms,
            order,
            now_ns,
            managed: view.managed,
            used,
            offline_used: view.offline_used,
            least: used,
            eligible_low: view.eligible,
            unhinted_low: 0,
            most: [used; SLOTS],
            bypassed: 0,
            bypassed_since_ns: now_ns,
            blown_ns: None,
        }
    }

    /// Ends a look: what follows is seen against this view.
    fn end(&mut self, view: &ZoneView<'_>) {
        self.managed = view.managed;
        self.used = view.managed.saturating_sub(view.eligible);
        self.least = self.least.min(self.used);
        self.offline_used = view.offline_used;
        self.eligible_low = u64::MAX;
        self.unhinted_low = u64::MAX;
    }

    /// The most that was in use within `hold`.
    fn most(&self) -> u64 {
        self.most.iter().copied().max().unwrap_or(0)
    }

    /// The least that is worth keeping, in pages.
    fn worth(&self) -> u64 {
        self.terms.worth_pages.max(1)
    }

    /// Lets the oldest parts of `hold` go, and enters a peak in the newest.
    fn advance(&mut self, now_ns: u64, peak: u64) {
        let now_ns = now_ns.max(self.now_ns);
        let slot_ns = (self.terms.hold_ns / SLOTS as u64).max(1);
        let gone = (now_ns / slot_ns).saturating_sub(self.now_ns / slot_ns);

        for _ in 0..gone.min(SLOTS as u64) {
            self.most.rotate_left(1);
            let [.., newest] = &mut self.most;
            *newest = 0;
        }
        let [.., newest] = &mut self.most;
        *newest = peak.max(*newest);
        self.now_ns = now_ns;
    }

    /// The fuse, which bounds the refaults of allocations that bypass unhinted memory: whether the
    /// zone is not to be hinted now.
    ///
    /// Where Offline memory of a zone is used while the zone's unhinted memory did not run out,
    /// keeping more of it elsewhere does not help, so the zone is not hinted for one `hold`. Of
    /// that counts what is no more than was in use within `hold`, `again` pages since the last
    /// look: growth refaults in any case. That is at most every second `hold`, and not for less
    /// than 8 granules, however little is worth keeping.
    fn is_blown(&mut self, view: &ZoneView<'_>, again: u64) -> bool {
        let used = view.offline_used.wrapping_sub(self.offline_used);
        let Self { terms, now_ns, .. } = *self;
        let over = |since_ns: u64, holds| {
            now_ns.saturating_sub(since_ns) >= terms.hold_ns.saturating_mul(holds)
        };

        if over(self.bypassed_since_ns, 1) {
            self.bypassed_since_ns = now_ns;
            self.bypassed = 0;
        }
        let bypassed = used.min(self.unhinted_low).min(again);
        self.bypassed = self.bypassed.saturating_add(bypassed);
        let granule = 1u64.checked_shl(terms.granule_order).unwrap_or(u64::MAX);
        let much = self.worth().max(granule.saturating_mul(8));
        if self.bypassed >= much && self.blown_ns.is_none_or(|at| over(at, 2)) {
            self.blown_ns = Some(now_ns);
        }
        self.blown_ns.is_some_and(|at| !over(at, 1))
    }

    /// What follows if so much were to be kept.
    fn decide(&self, backlog: u64, kept: u64) -> Decision {
        let kept = if kept < self.worth() { 0 } else { kept };
        // When a level that is idle is used again is of interest, too.
        let watched = kept != 0 || self.most().saturating_sub(self.used) >= self.worth();

        Decision {
            pages: backlog.saturating_sub(kept),
            kept,
            again_ns: if watched {
                (self.terms.hold_ns / LOOKS).clamp(LOOK_NS.start, LOOK_NS.end)
            } else {
                u64::MAX
            },
        }
    }
}

/// The order of a level: a granule, doubled until the words have a bit for each level.
fn level_order(managed: u64, terms: &Terms, words: usize) -> u32 {
    let levels = (words as u64).saturating_mul(WORD).max(1);
    let pages = managed.div_ceil(levels).checked_next_power_of_two();

    pages
        .map_or(u64::BITS, u64::ilog2)
        .max(terms.granule_order)
        .min(u64::BITS - 1)
}

/// The levels that any page of a range is in.
fn touched(pages: &Range<u64>, order: u32) -> Range<u64> {
    if pages.is_empty() {
        return 0..0;
    }
    pages.start >> order..(pages.end.saturating_sub(1) >> order).saturating_add(1)
}

/// The levels that a range has half of, at least.
fn covered(pages: Range<u64>, order: u32) -> Range<u64> {
    let round = |pages: u64| pages.saturating_add((1 << order) / 2) >> order;

    round(pages.start)..round(pages.end)
}
