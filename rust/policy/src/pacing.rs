// SPDX-License-Identifier: GPL-2.0

//! Pacing: how much of the unhinted memory may be hinted now.
//!
//! Offline memory that is allocated costs a fault in the host. Had as much not been hinted shortly
//! before, that would have been allocated in its place; so as much as was hinted lately is reuse,
//! whichever blocks it were, and that is what is bounded here, by two mechanisms:
//!
//! - A budget, for what cannot be foreseen. Each reuse costs its price, out of an account into
//!   which flows a share of one CPU's time. While the account is in debt nothing is hinted, but for
//!   what lies unused for long: that goes as fast as the inflow could pay if all of it were used
//!   again.
//! - A reserve, for what can. Once reuse has shown that memory goes in a cycle, as much of it as
//!   the cycle takes is kept back, and it is hinted when the cycle has not taken it for a window.
//!
//! With no debt and no cycle everything is hinted at once.
//!
//! No kernel types and no state but [`Pacing`], which is of constant size. Sizes are in pages,
//! times in nanoseconds, costs in picoseconds: what a nanosecond brings in at one permille is
//! exactly one. Arithmetic saturates, so that no input can overflow.

/// A part of the time after a hint in which allocating as much counts as reuse, in nanoseconds.
///
/// What the host has had for longer was worth its fault.
const LATELY_NS: u64 = 6_250_000_000;

/// Parts of that time: with the window it is 93 to 105 seconds.
const LATELY: usize = 16;

/// For how long the account saves up, in nanoseconds of inflow: what a burst may spend at once.
pub const SAVING_NS: u64 = 60_000_000_000;

/// The least that is called a cycle, in KiB: as much as is worth waking up for.
///
/// Less than two granules never is, nor what costs less than [`CHEAP`].
pub const CYCLE_KB: u64 = 16 * 1024;

/// What part of the inflow within a window reuse in it may cost before it is taken for a cycle.
///
/// What is cheaper is not worth keeping memory back: it can go on like that for ever.
const CHEAP: u64 = 4;

/// Times [`CYCLE_KB`] that are a cycle however cheap they are: the price may be wrong.
const CYCLE_MOST: u64 = 8;

/// For how long free memory must not have fallen before it is hinted in debt, in nanoseconds.
///
/// A slow cycle would use it again. It gets more for its money if the debt is repaid and then all
/// is hinted at once, early in the pause.
pub const QUIET_NS: u64 = 30_000_000_000;

/// How often to look while a cycle goes on or something is kept back, in nanoseconds.
pub const LOOK_NS: u64 = 100_000_000;

/// A part of the window, in nanoseconds.
const SLOT_NS: u64 = 600_000_000;

/// Parts of the window: it covers 4.2 to 4.8 seconds.
const SLOTS: usize = 8;

/// Parts of the window that go at one look at most while a cycle goes on.
///
/// Looks come every 2 s at least, unless the thread had no CPU; what nobody looked at then is no
/// time in which nothing was used, so that a cycle is not over because of it. The window is longer
/// by then than it is said to be.
const SLOTS_A_LOOK: u64 = 4;

/// The window at its longest, in nanoseconds.
const WINDOW_NS: u64 = SLOTS as u64 * SLOT_NS;

/// What the account and the price are subject to: the knobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Share of one CPU's time that reuse may cost, in permille; 0 is no pacing.
    pub budget_permille: u64,
    /// What the host brings back for the first touch, in pages.
    pub granule_pages: u64,
    /// What bringing back a granule costs, in nanoseconds.
    pub price_ns: u64,
    /// The largest block that there can be, in pages.
    pub block_pages: u64,
    /// [`CYCLE_KB`] in pages.
    pub cycle_pages: u64,
}

impl Terms {
    fn granule(&self) -> u64 {
        self.granule_pages.max(1)
    }

    /// The price of a granule, and of the largest block.
    fn price(&self) -> u64 {
        self.price_ns.saturating_mul(1000).max(1)
    }

    fn block_price(&self) -> u64 {
        let granules = self.block_pages.div_ceil(self.granule()).max(1);

        self.price().saturating_mul(granules)
    }

    /// Pages reused within a window that show a cycle.
    fn cycle(&self) -> u64 {
        let cheap = self.inflow(WINDOW_NS) / CHEAP / self.price();

        self.granule()
            .saturating_mul(cheap)
            .min(self.cycle_pages.saturating_mul(CYCLE_MOST))
            .max(self.cycle_pages)
            .max(self.granule().saturating_mul(2))
    }

    /// What flows in within a time.
    fn inflow(&self, ns: u64) -> u64 {
        ns.saturating_mul(self.budget_permille)
    }
}

/// What the thread sees when it looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The time, of a monotonic clock.
    pub now_ns: u64,
    /// Granules of Offline memory that were allocated, ever.
    pub reused: u64,
    /// Pages that were hinted, ever, those which are out for it included.
    pub hinted: u64,
    /// Free pages of the orders that are hinted, those which are Offline or isolated included.
    pub free: u64,
    /// Free pages of those orders that are not hinted: now, and the least since the last look.
    ///
    /// Looks alone would miss how low the backlog goes in between. It is lowest before a free, so
    /// it is enough to look there.
    pub backlog: u64,
    pub backlog_min: u64,
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How many pages may be hinted now; [`u64::MAX`] if all.
    pub pages: u64,
    /// When to look again even if nothing else makes the thread look; [`u64::MAX`] for never.
    pub again_ns: u64,
    /// Hinting is held back: `paced` in the status.
    pub paced: bool,
    /// A cycle goes on, or there is debt: hinting would be held back if there were anything.
    pub busy: bool,
}

impl Decision {
    const ALL: Self = Self {
        pages: u64::MAX,
        again_ns: u64::MAX,
        paced: false,
        busy: false,
    };
}

/// What was seen in a part of the window.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Least backlog.
    backlog_min: u64,
    /// Least and most free memory.
    free_min: u64,
    free_max: u64,
    /// The largest fall of free memory.
    fall: u64,
    /// Pages that were hinted and are not taken for reused.
    hinted: u64,
    /// Granules reused that were hinted within the window.
    reused: u64,
}

impl Slot {
    const EMPTY: Self = Self {
        backlog_min: u64::MAX,
        free_min: u64::MAX,
        free_max: 0,
        fall: 0,
        hinted: 0,
        reused: 0,
    };
}

/// The state of the control loop.
#[derive(Clone, Copy, Debug)]
pub struct Pacing {
    last: Option<Look>,
    /// The account; below zero it is in debt.
    balance: i64,
    /// What flowed in and was not spent on hints: up to a slot's worth, or the largest block's.
    trickle: u64,
    /// Pages yet to be hinted of those that were free at the start.
    exempt: u64,
    /// Pages that were hinted before the window and are not taken for reused, the earliest first.
    lately: [u64; LATELY],
    /// The window, the oldest part first.
    slots: [Slot; SLOTS],
    /// A cycle goes on.
    holding: bool,
    /// Pages reused within the window, or since the cycle was seen: what it is known to take.
    taken: u64,
    /// When free memory last fell by as much as shows a cycle.
    fell_ns: u64,
}

impl Default for Pacing {
    fn default() -> Self {
        Self::new()
    }
}

impl Pacing {
    /// Before the first look.
    pub const fn new() -> Self {
        Self {
            last: None,
            balance: 0,
            trickle: 0,
            exempt: 0,
            lately: [0; LATELY],
            slots: [Slot::EMPTY; SLOTS],
            holding: false,
            taken: 0,
            fell_ns: 0,
        }
    }

    /// The account, in nanoseconds of reuse that can be paid for; below zero it is in debt.
    pub fn balance_ns(&self) -> i64 {
        self.balance / 1000
    }

    /// Takes in what the thread sees and decides how much may be hinted.
    ///
    /// To be called before blocks are taken. What is hinted after it is to be subtracted from what
    /// may be.
    pub fn look(&mut self, look: &Look, terms: &Terms) -> Decision {
        if terms.budget_permille == 0 {
            // When it is switched on it starts afresh.
            *self = Self::new();
            return Decision::ALL;
        }
        let Some(last) = self.last else {
            self.start(look, terms);
            return Decision::ALL;
        };

        // The clock is not expected to go backwards, nor the counters, but for memory that leaves
        // the guest with what was counted for it.
        let now_ns = look.now_ns.max(last.now_ns);
        let look = &Look { now_ns, ..*look };

        self.advance(&last, look);
        self.account(&last, look, terms);
        self.record(&last, look);
        self.last = Some(*look);
        self.decide(look, terms)
    }

    /// The first look: the account is full. What is free already was not freed by any cycle, and
    /// that it gets used once is no reuse.
    fn start(&mut self, look: &Look, terms: &Terms) {
        self.balance = Self::full(terms);
        self.exempt = look.backlog;
        self.last = Some(*look);
        self.record(look, look);
    }

    fn full(terms: &Terms) -> i64 {
        i64::try_from(terms.inflow(SAVING_NS)).unwrap_or(i64::MAX)
    }

    /// Lets the oldest parts of the window and of the time before it go.
    fn advance(&mut self, last: &Look, look: &Look) {
        let parts = |ns| look.now_ns / ns - last.now_ns / ns;
        let most = if self.holding {
            SLOTS_A_LOOK
        } else {
            SLOTS as u64
        };
        let gone = parts(SLOT_NS).min(most);
        let [.., newest] = &mut self.lately;

        // CAST: It is small.
        for slot in self.slots.iter().take(gone as usize) {
            *newest = newest.saturating_add(slot.hinted);
        }
        shift(&mut self.slots, gone, Slot::EMPTY);
        shift(&mut self.lately, parts(LATELY_NS), 0);
    }

    /// Books inflow, hints and reuse since the last look.
    fn account(&mut self, last: &Look, look: &Look, terms: &Terms) {
        let inflow = terms.inflow(look.now_ns - last.now_ns);
        let hinted = look.hinted.saturating_sub(last.hinted);
        let exempt = hinted.min(self.exempt);

        self.exempt -= exempt;
        let [.., slot] = &mut self.slots;
        slot.hinted = slot.hinted.saturating_add(hinted - exempt);
        let reused = self.reuse(look.reused.saturating_sub(last.reused), terms);

        self.balance = self
            .balance
            .saturating_add_unsigned(inflow)
            .min(Self::full(terms))
            .saturating_sub_unsigned(reused.saturating_mul(terms.price()));
        self.trickle = self
            .trickle
            .saturating_add(inflow)
            .min(terms.inflow(SLOT_NS).max(terms.block_price()))
            .saturating_sub(hinted.saturating_mul(terms.price()) / terms.granule());
    }

    /// Takes allocated granules off what was hinted lately, the latest first, and returns how many
    /// there were.
    fn reuse(&mut self, allocated: u64, terms: &Terms) -> u64 {
        let pages = allocated.saturating_mul(terms.granule());
        let mut left = pages;
        let mut take = |hinted: &mut u64| {
            let part = left.min(*hinted);

            *hinted -= part;
            left -= part;
            left
        };

        let mut beyond = pages;
        for slot in self.slots.iter_mut().rev() {
            beyond = take(&mut slot.hinted);
        }
        for hinted in self.lately.iter_mut().rev() {
            take(hinted);
        }

        let [.., slot] = &mut self.slots;
        let recent = (pages - beyond).div_ceil(terms.granule());
        slot.reused = slot.reused.saturating_add(recent);
        self.taken = self
            .taken
            .saturating_add(recent.saturating_mul(terms.granule()));
        (pages - left).div_ceil(terms.granule())
    }

    /// Records a look in the newest part of the window.
    fn record(&mut self, last: &Look, look: &Look) {
        let [.., slot] = &mut self.slots;
        let backlog_min = look.backlog_min.min(look.backlog);
        let free_min = look.free.saturating_sub(look.backlog - backlog_min);

        slot.fall = slot
            .fall
            .max(last.free.max(slot.free_max).saturating_sub(free_min));
        slot.free_max = slot.free_max.max(look.free);
        slot.free_min = slot.free_min.min(free_min);
        slot.backlog_min = slot.backlog_min.min(backlog_min);
    }

    /// Unhinted memory that was there all through the window.
    fn cold(&self) -> u64 {
        self.slots
            .iter()
            .fold(u64::MAX, |min, slot| min.min(slot.backlog_min))
    }

    /// The largest fall of free memory in the window: what a cycle took of it.
    fn demand(&self) -> u64 {
        let mut peak = 0u64;

        self.slots.iter().fold(0, |demand, slot| {
            let fall = slot.fall.max(peak.saturating_sub(slot.free_min));

            peak = peak.max(slot.free_max);
            fall.max(demand)
        })
    }

    /// Granules reused within the window.
    fn reused(&self) -> u64 {
        self.slots
            .iter()
            .fold(0u64, |sum, slot| sum.saturating_add(slot.reused))
    }

    /// Whether the reuse within the window shows a cycle.
    fn cycles(&self, terms: &Terms) -> bool {
        self.reused().saturating_mul(terms.granule()) >= terms.cycle()
    }

    fn decide(&mut self, look: &Look, terms: &Terms) -> Decision {
        let in_debt = self.balance < 0;
        let demand = self.demand();

        if !self.holding {
            self.taken = self.reused().saturating_mul(terms.granule());
        }
        // No more than is known to be needed again: a guest that takes much for good may use a
        // little again on the way. Tops between looks are missed: a quarter more than was seen.
        let needed = demand.min(self.taken);
        let kept = needed.saturating_add(needed / 4);
        let reserve = look.backlog.saturating_sub(self.cold()).min(kept);

        if demand >= terms.cycle_pages {
            self.fell_ns = look.now_ns;
        }
        self.holding = self.cycles(terms) || (self.holding && demand >= terms.cycle_pages);
        if !self.holding && !in_debt {
            return Decision::ALL;
        }

        let mut pages = look.backlog.saturating_sub(reserve);
        let mut wait_ns = 0;
        if in_debt {
            // Whole granules, as many as the inflow could pay for.
            let granules = self.trickle / terms.price();
            let missing = terms.block_price().saturating_sub(self.trickle);
            let quiet_ns = look.now_ns - self.fell_ns;

            if quiet_ns < QUIET_NS {
                pages = 0;
                wait_ns = QUIET_NS - quiet_ns;
            } else {
                pages = pages.min(granules.saturating_mul(terms.granule()));
                wait_ns = missing.div_ceil(terms.budget_permille);
            }
            // The debt may be repaid before.
            let debt = self.balance.unsigned_abs();
            wait_ns = wait_ns.min(debt.div_ceil(terms.budget_permille));
        }
        let paced = pages < look.backlog;
        Decision {
            pages,
            again_ns: if paced {
                wait_ns.max(LOOK_NS)
            } else {
                u64::MAX
            },
            paced,
            busy: true,
        }
    }
}

/// Lets that many of the oldest parts of a window go.
fn shift<T: Copy, const N: usize>(window: &mut [T; N], parts: u64, empty: T) {
    // CAST: At most `N`.
    let parts = parts.min(N as u64) as usize;

    window.rotate_left(parts);
    for part in window.iter_mut().rev().take(parts) {
        *part = empty;
    }
}
