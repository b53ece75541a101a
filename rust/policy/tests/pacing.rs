// SPDX-License-Identifier: GPL-2.0

//! What pacing promises.
//!
//! Most of it is checked in a small guest that does what chance says: it allocates, frees and lets
//! time pass, and all that may be hinted is hinted at once.

use page_hinting_policy::pacing::*;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const GRANULE: u64 = 512;
const BLOCK: u64 = 2 * GRANULE;
/// Time within which what is allocated again is reuse for certain, and the window at its longest.
const HORIZON_NS: u64 = 93 * SECOND;
const WINDOW_NS: u64 = 4_800 * MS;
/// The thread looks that often in any case.
const TRICKLE_NS: u64 = 2 * SECOND;

const TERMS: Terms = Terms {
    budget_permille: 10,
    granule_pages: GRANULE,
    price_ns: 750_000,
    block_pages: BLOCK,
    cycle_pages: CYCLE_KB / 4,
};

/// A guest, in granules.
struct Guest {
    terms: Terms,
    pacing: Pacing,
    now: u64,
    used: u64,
    unhinted: u64,
    offline: u64,
    min: u64,
    reused: u64,
    hinted: u64,
    decision: Decision,
    /// When how much was hinted that was not used again, the latest last.
    hints: Vec<(u64, u64)>,
    /// What reuse has cost.
    cost_ns: u64,
    /// The most that was hinted lately at a look without debt.
    burst: u64,
}

impl Guest {
    /// A guest whose memory is all hinted.
    fn new(terms: Terms, granules: u64) -> Self {
        let mut guest = Self {
            terms,
            pacing: Pacing::new(),
            now: SECOND,
            used: 0,
            unhinted: 0,
            offline: granules,
            min: 0,
            reused: 0,
            hinted: 0,
            decision: Decision {
                pages: 0,
                again_ns: 0,
                paced: false,
                busy: false,
            },
            hints: Vec::new(),
            cost_ns: 0,
            burst: 0,
        };
        guest.look();
        guest
    }

    fn allocate(&mut self, granules: u64) {
        let warm = granules.min(self.unhinted);
        let cold = (granules - warm).min(self.offline);

        self.unhinted -= warm;
        self.offline -= cold;
        self.used += warm + cold;
        self.reused += cold;
        let mut left = cold;
        while let Some((at, hinted)) = self.hints.last_mut() {
            let part = left.min(*hinted);

            if self.now - *at < HORIZON_NS {
                self.cost_ns += part * self.terms.price_ns;
            }
            *hinted -= part;
            left -= part;
            if *hinted != 0 {
                break;
            }
            self.hints.pop();
        }
    }

    fn free(&mut self, granules: u64) {
        let freed = granules.min(self.used);

        self.min = self.min.min(self.unhinted);
        self.used -= freed;
        self.unhinted += freed;
    }

    /// One look of the thread, and what it then hints. True if that was something.
    fn look_once(&mut self) -> bool {
        let look = Look {
            now_ns: self.now,
            reused: self.reused,
            hinted: self.hinted * GRANULE,
            free: (self.unhinted + self.offline) * GRANULE,
            backlog: self.unhinted * GRANULE,
            backlog_min: self.min * GRANULE,
        };
        self.decision = self.pacing.look(&look, &self.terms);

        let hinted = self.unhinted.min(self.decision.pages / GRANULE);
        self.unhinted -= hinted;
        self.offline += hinted;
        self.hinted += hinted;
        if hinted != 0 {
            self.hints.push((self.now, hinted));
        }
        self.min = self.unhinted;
        if self.pacing.balance_ns() >= 0 {
            let hints = self.hints.iter().rev();
            let lately = hints.take_while(|hint| self.now - hint.0 < 105 * SECOND);
            self.burst = self.burst.max(lately.map(|hint| hint.1).sum());
        }
        hinted != 0
    }

    fn look(&mut self) {
        while self.look_once() {}
    }

    /// Lets time pass, and the thread look when it wants to.
    fn pass(&mut self, ns: u64) {
        let end = self.now + ns;

        loop {
            let next = self.now + self.decision.again_ns.clamp(MS, TRICKLE_NS);
            self.now = next.min(end);
            if self.now == end {
                break;
            }
            self.look();
        }
    }

    /// As [`Self::pass`], and the thread looks in the end, as when a watermark has woken it.
    fn pass_and_look(&mut self, ns: u64) {
        self.pass(ns);
        self.look();
    }

    fn trickle_ns(&self) -> u64 {
        let slot = 600 * MS * self.terms.budget_permille / 1000;

        slot.max(self.terms.price_ns * (BLOCK / GRANULE))
    }

    /// How long all may take that is unhinted now if nothing is allocated any more: until no look
    /// of the window has seen it used, and the debt is repaid, or all has trickled after a quiet
    /// time. Then one look more.
    fn bound_ns(&self) -> u64 {
        let debt_ns = self.pacing.balance_ns().min(0).unsigned_abs() + 1;
        let inflow = |ns: u64| ns * 1000 / self.terms.budget_permille;
        let blocks = (self.unhinted + 1) * self.terms.price_ns;
        // Each time that it looks it has waited for as much as the largest block costs.
        let looks = self.unhinted * LOOK_NS;

        inflow(debt_ns)
            .min(WINDOW_NS + QUIET_NS + inflow(blocks).max(looks))
            .max(WINDOW_NS)
            + 2 * LOOK_NS
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate(u64),
    Free(u64),
    /// Milliseconds.
    Pass(u64),
    Look,
}

const SIZE: u64 = 2000;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..=SIZE).prop_map(Step::Allocate),
        (1..=SIZE).prop_map(Step::Free),
        (1..=40u64).prop_map(Step::Allocate),
        (1..=40u64).prop_map(Step::Free),
        (1..1000u64).prop_map(Step::Pass),
        (1..60_000u64).prop_map(Step::Pass),
        Just(Step::Look),
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    (1..=1000u64, 1_000..2_000_000u64).prop_map(|(budget_permille, price_ns)| Terms {
        budget_permille,
        price_ns,
        ..TERMS
    })
}

impl Guest {
    fn step(&mut self, step: Step) {
        match step {
            Step::Allocate(granules) => self.allocate(granules),
            Step::Free(granules) => self.free(granules),
            Step::Pass(ms) => self.pass(ms * MS),
            Step::Look => self.look(),
        }
    }

    /// A cycle: allocates piece by piece for a time, frees at once, pauses.
    fn cycle(&mut self, granules: u64, busy_ms: u64, gap_ms: u64) {
        for _ in 0..8 {
            self.allocate(granules / 8);
            self.pass(busy_ms * MS / 8);
        }
        self.free(granules / 8 * 8);
        self.look();
        self.pass(gap_ms * MS);
    }
}

#[test]
fn what_is_free_at_first_and_used_once_is_no_reuse() {
    let mut guest = Guest::new(TERMS, 0);
    guest.used = SIZE;
    guest.free(SIZE);
    guest.pacing = Pacing::new();
    guest.look();
    assert_eq!(guest.offline, SIZE);

    // It is used seconds after its hint, and freed: all is hinted at once.
    guest.pass(SECOND);
    guest.allocate(SIZE / 2);
    guest.pass(SECOND);
    guest.free(SIZE / 2);
    assert_eq!(guest.unhinted, SIZE / 2);
    guest.look();
    assert_eq!(guest.unhinted, 0);
    assert!(!guest.decision.paced);

    // The second time it is.
    guest.allocate(SIZE / 2);
    guest.free(SIZE / 2);
    guest.look();
    assert_eq!(guest.unhinted, SIZE / 2);
    assert!(guest.decision.paced);
}

#[test]
fn without_a_budget_all_is_hinted_and_nothing_kept() {
    let mut guest = Guest::new(TERMS, SIZE);

    for _ in 0..10 {
        guest.cycle(SIZE, 100, 100);
    }
    assert!(guest.decision.paced && guest.unhinted == SIZE);
    guest.terms.budget_permille = 0;
    guest.look();
    assert_eq!(guest.unhinted, 0);
    for _ in 0..10 {
        guest.cycle(SIZE, 100, 100);
        assert_eq!(guest.unhinted, 0);
    }
    guest.terms.budget_permille = 10;
    guest.look();
    assert_eq!(guest.pacing.balance_ns(), 600 * MS as i64);
}

/// Nor is what costs less than a quarter of 4.8 s of inflow, 12 ms, unless it is eight times as
/// much, whatever it costs.
#[test]
fn less_than_the_watermark_or_what_is_cheap_is_no_cycle() {
    for (price_ns, granules, cycle) in [
        (TERMS.price_ns, 1, false),
        (TERMS.price_ns, 15, false),
        (TERMS.price_ns, 16, true),
        (4 * TERMS.price_ns, 7, false),
        (4 * TERMS.price_ns, 8, true),
        (TERMS.price_ns / 2, 31, false),
        (TERMS.price_ns / 2, 32, true),
        (TERMS.price_ns / 8, 63, false),
        (TERMS.price_ns / 8, 64, true),
        (0, 63, false),
        (0, 64, true),
    ] {
        let mut guest = Guest::new(Terms { price_ns, ..TERMS }, SIZE);

        guest.allocate(granules);
        guest.free(granules);
        guest.look();
        assert_eq!(guest.unhinted, 0);
        guest.allocate(granules);
        guest.pass(100 * MS);
        guest.free(granules);
        guest.look();
        assert_eq!(guest.unhinted != 0, cycle, "{granules} of {price_ns} ns");
    }
}

#[test]
fn one_large_granule_is_no_cycle() {
    // One granule is more than any amount that is a cycle, and dearer than what is cheap.
    let terms = Terms {
        granule_pages: 512 * GRANULE,
        price_ns: 20_000_000,
        ..TERMS
    };
    let look = |now_ns, reused, hinted, backlog| Look {
        now_ns,
        reused,
        hinted,
        free: 1 << 20,
        backlog,
        backlog_min: 0,
    };

    for (granules, cycle) in [(1, false), (2, true)] {
        let mut pacing = Pacing::new();

        pacing.look(&look(0, 0, 0, 0), &terms);
        pacing.look(&look(SECOND, 0, 1 << 20, 0), &terms);
        let decision = pacing.look(&look(2 * SECOND, granules, 1 << 20, 5000), &terms);
        assert_eq!(decision.paced, cycle, "{granules}");
    }
}

#[test]
fn a_clock_that_goes_back_pays_nothing() {
    let mut guest = Guest::new(TERMS, SIZE);

    for _ in 0..4 {
        guest.cycle(SIZE, 100, 10_000);
    }
    guest.look();
    let balance = guest.pacing.balance_ns();
    assert!(balance < 0);
    let now = guest.now;
    for back in 0..100 {
        guest.now = now - back * SECOND / 200;
        guest.look();
    }
    assert!(guest.pacing.balance_ns() <= balance);
    guest.now = now;
    guest.look();
    assert!(guest.pacing.balance_ns() <= balance);
}

/// As happens where the thread gets no CPU for seconds.
#[test]
fn a_cycle_outlasts_looks_that_are_missed() {
    let mut guest = Guest::new(TERMS, SIZE);

    for _ in 0..10 {
        guest.cycle(800, 200, 200);
    }
    assert!(guest.decision.busy);
    let hinted = guest.hinted;

    // It goes on meanwhile, and is at its low when there is a look, and at its top at the next.
    for _ in 0..4 {
        guest.allocate(800);
        guest.look();
        guest.now += 7 * SECOND;
        guest.free(800);
        guest.look();
        assert!(guest.decision.paced);
    }
    assert_eq!(guest.hinted, hinted);
}

/// In debt, what is quiet goes by the trickle's worth: a slot's inflow or the largest block.
#[test]
fn what_is_quiet_trickles_in_debt() {
    for budget_permille in [1, 10, 100] {
        let terms = Terms {
            budget_permille,
            price_ns: 50_000_000,
            ..TERMS
        };
        let mut guest = Guest::new(terms, SIZE);

        // However long nothing was hinted before.
        guest.pass_and_look(3600 * SECOND);
        guest.allocate(SIZE);
        guest.free(SIZE);
        guest.look();
        guest.allocate(SIZE);
        guest.free(SIZE);
        guest.look();
        assert!(guest.pacing.balance_ns() < 0 && guest.unhinted == SIZE);
        guest.pass_and_look(QUIET_NS);
        assert_eq!(guest.unhinted, SIZE, "{budget_permille}");

        let most = guest.trickle_ns() / terms.price_ns;
        let mut hinted = Vec::new();
        while hinted.iter().sum::<u64>() < 10 {
            let before = guest.unhinted;
            guest.now += guest.decision.again_ns;
            guest.look();
            assert!(guest.pacing.balance_ns() < 0);
            hinted.push(before - guest.unhinted);
            assert!(hinted.len() < 100, "{budget_permille}: {hinted:?}");
        }
        let top = hinted.iter().copied().max();
        assert!(top <= Some(most), "{budget_permille}: {hinted:?}");
    }
}

proptest! {
    /// Over any time, reuse costs no more than flows in, what the account can save up, and one
    /// burst: what had been hinted lately when the account was last without debt.
    #[test]
    fn never_over_the_budget_by_more_than_a_burst(
        terms in terms(), steps in prop::collection::vec(step(), 0..300),
    ) {
        let mut guest = Guest::new(terms, SIZE);
        let mut least = 0i128;

        for step in steps {
            let before = guest.cost_ns;
            guest.step(step);
            let flowed = i128::from(guest.now - SECOND) * i128::from(terms.budget_permille) / 1000;
            let saved = i128::from(SAVING_NS * terms.budget_permille / 1000);
            let burst = i128::from(guest.burst * terms.price_ns + guest.trickle_ns());

            least = least.min(i128::from(before) - flowed);
            prop_assert!(i128::from(guest.cost_ns) - flowed - least <= saved + burst + 1);
        }
    }

    /// The same where it hurts most: all that is hinted is used at once, for a long time.
    #[test]
    fn nor_if_all_that_is_hinted_is_used_again(
        terms in terms(), granules in 1..SIZE, every_ms in 50..5_000u64,
    ) {
        let mut guest = Guest::new(terms, granules);

        for _ in 0..500 {
            guest.allocate(granules);
            guest.free(granules);
            guest.look();
            guest.pass(every_ms * MS);
            // Whatever is not hinted would be used first: away with it.
            guest.allocate(guest.unhinted);
        }
        let flowed = (guest.now - SECOND) * terms.budget_permille / 1000;
        let saved = SAVING_NS * terms.budget_permille / 1000;
        prop_assert!(guest.cost_ns
            <= flowed + saved + guest.burst * terms.price_ns + guest.trickle_ns());
        prop_assert!(guest.burst <= granules);
    }

    /// When nothing is allocated any more all is hinted, within the time that is stated.
    #[test]
    fn nothing_stays_unhinted(
        terms in terms(), steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut guest = Guest::new(terms, SIZE);

        for step in steps {
            guest.step(step);
        }
        guest.look();
        let end = guest.now + guest.bound_ns();
        while guest.unhinted != 0 {
            prop_assert!(guest.now < end, "{} are left", guest.unhinted);
            // Nothing else makes the thread look, but that it does so every two seconds.
            prop_assert!(guest.decision.paced && guest.decision.again_ns <= end);
            guest.now += guest.decision.again_ns.min(TRICKLE_NS);
            guest.look();
        }
        // And then nobody looks more often than ever.
        guest.look();
        prop_assert!(!guest.decision.paced);
        prop_assert_eq!(guest.decision.again_ns, u64::MAX);
    }

    /// Without debt that takes less than ten seconds.
    #[test]
    fn an_idle_guest_without_debt_is_empty_in_ten_seconds(
        steps in prop::collection::vec(step(), 0..200), granules in 1..SIZE,
    ) {
        let mut guest = Guest::new(TERMS, SIZE);

        for step in steps {
            guest.step(step);
        }
        // As long as nothing is hinted, nothing is reused.
        while guest.pacing.balance_ns() < 0 {
            guest.allocate(SIZE);
            guest.pass_and_look(10 * SECOND);
        }
        guest.allocate(granules);
        guest.free(SIZE);
        guest.look();
        prop_assume!(guest.pacing.balance_ns() >= 0);
        guest.pass_and_look(10 * SECOND);
        prop_assert_eq!(guest.unhinted, 0);
    }

    /// A cycle that is not cheap pays for one reuse, and for no second one, if its pause and twice
    /// its use fit into the window.
    #[test]
    fn a_cycle_is_recognised_after_its_first_reuse(
        granules in 16..=400u64, busy_ms in 8..1000u64, gap_ms in 0..2000u64,
        rounds in 2..30,
    ) {
        let mut guest = Guest::new(TERMS, SIZE);

        for round in 0..rounds {
            guest.cycle(granules, busy_ms, gap_ms);
            // It is not debt that holds it back.
            prop_assert!(guest.pacing.balance_ns() >= 0);
            let reuses = if round == 0 { 0 } else { 1 };
            prop_assert!(guest.cost_ns <= reuses * granules * TERMS.price_ns, "{}", round);
        }
    }

    /// What was hinted long ago and is then used, and freed, is hinted at once. So is a burst
    /// while a small cycle goes on, but for a quarter more than the cycle takes.
    #[test]
    fn a_burst_goes_at_once(granules in 1..SIZE, small in 1..5u64, cycles in 0..40) {
        let mut guest = Guest::new(TERMS, 2 * SIZE);

        guest.allocate(granules);
        guest.pass(10 * SECOND);
        for _ in 0..cycles {
            guest.cycle(16 * small, 200, 100);
        }
        // The cycle's memory is in use or not.
        guest.free(granules);
        guest.look();
        prop_assert!(guest.unhinted <= 20 * small);
        if cycles == 0 {
            prop_assert_eq!(guest.unhinted, 0);
        }
    }

    /// A larger budget or a lower price never allows less.
    #[test]
    fn monotone_in_the_knobs(
        looks in prop::collection::vec(
            (0..5_000 * MS, 0..100u64, 0..100 * GRANULE, 0..SIZE * GRANULE, 0..SIZE * GRANULE, 0..SIZE),
            1..100,
        ),
        terms in terms(), more in 0..1000u64, less in 0..2_000_000u64,
    ) {
        let other = Terms {
            budget_permille: terms.budget_permille + more,
            price_ns: terms.price_ns.saturating_sub(less),
            ..terms
        };
        let (mut strict, mut lax) = (Pacing::new(), Pacing::new());
        let mut look = Look::default();
        // Nothing is free at first, so that all that is hinted counts.
        strict.look(&look, &terms);
        lax.look(&look, &other);

        for (ns, reused, hinted, backlog, offline, down) in looks {
            look.now_ns += ns;
            look.reused += reused;
            look.hinted += hinted;
            look.free = backlog + offline;
            look.backlog = backlog;
            look.backlog_min = backlog.saturating_sub(down);

            let (a, b) = (strict.look(&look, &terms), lax.look(&look, &other));
            prop_assert!(a.pages <= b.pages, "{:?} {:?}", a, b);
            prop_assert!(a.paced || !b.paced);
            prop_assert!(strict.balance_ns() <= lax.balance_ns());
        }
    }

    /// No input overflows, and what comes out makes sense.
    #[test]
    fn any_input_is_taken(
        looks in prop::collection::vec(any::<[u64; 6]>(), 0..50),
        terms in any::<[u64; 5]>(), shifts in any::<[u8; 5]>(),
    ) {
        let mut pacing = Pacing::new();
        // Small values too.
        let at = |i: usize| terms[i] >> (shifts[i] % 64);
        let terms = Terms {
            budget_permille: at(0),
            granule_pages: at(1),
            price_ns: at(2),
            block_pages: at(3),
            cycle_pages: at(4),
        };

        for [now_ns, reused, hinted, free, backlog, backlog_min] in looks {
            let look = Look { now_ns, reused, hinted, free, backlog, backlog_min };
            let decision = pacing.look(&look, &terms);

            prop_assert!(decision.paced == (decision.pages < backlog) || decision.pages == u64::MAX);
            prop_assert!(decision.again_ns >= LOOK_NS);
            prop_assert!(decision.paced || decision.again_ns == u64::MAX);
        }
    }
}

#[test]
fn the_state_is_small() {
    assert!(size_of::<Pacing>() <= 640);
}
