// SPDX-License-Identifier: GPL-2.0

//! What pacing by levels promises.

use page_hinting_policy::levels::*;
use page_hinting_policy::ZoneView;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// Pages of a granule, and of the guest: the unit below is the granule.
const G: u64 = 512;
const GRANULES: u64 = 4096;
const TERMS: Terms = Terms {
    hold_ns: SECOND,
    min_order: 9,
    granule_order: 9,
    worth_pages: 8 * G,
};

/// A zone, in granules, whose memory is all hinted at first. All that may be hinted is hinted at
/// once.
struct Zone {
    levels: Levels<Vec<u64>>,
    terms: Terms,
    now: u64,
    used: u64,
    used_most: u64,
    unhinted: u64,
    unhinted_low: u64,
    refaults: u64,
    offline_used: u64,
    decision: Decision,
}

impl Zone {
    fn new(terms: Terms) -> Self {
        let mut zone = Self {
            levels: Levels::new(vec![0; WORDS_MIN]),
            terms,
            now: SECOND,
            used: 0,
            used_most: 0,
            unhinted: 0,
            unhinted_low: 0,
            refaults: 0,
            offline_used: 0,
            decision: Decision::default(),
        };
        zone.look();
        zone
    }

    fn set(&mut self, used: u64) {
        if used > self.used {
            let warm = (used - self.used).min(self.unhinted);
            self.take(warm, used - self.used - warm);
        } else {
            self.unhinted += self.used - used;
            self.used = used;
        }
    }

    /// Allocates so many granules that are not hinted, and so many that are.
    fn take(&mut self, warm: u64, offline: u64) {
        self.unhinted -= warm;
        self.used += warm + offline;
        self.refaults += offline;
        self.offline_used += offline * G;
        self.used_most = self.used_most.max(self.used);
        self.unhinted_low = self.unhinted_low.min(self.unhinted);
    }

    fn look(&mut self) {
        self.decision = self.levels.look(
            self.now,
            &ZoneView {
                managed: GRANULES * G,
                eligible: (GRANULES - self.used) * G,
                eligible_low: (GRANULES - self.used_most) * G,
                unhinted_low: self.unhinted_low * G,
                offline_used: self.offline_used,
                ..ZoneView::default()
            },
            self.unhinted * G,
            &self.terms,
        );
        assert_eq!(self.decision.pages + self.decision.kept, self.unhinted * G);
        self.unhinted -= self.decision.pages / G;
        self.unhinted_low = self.unhinted;
        self.used_most = self.used;
    }

    /// Lets time pass, and looks when it is asked for, and every two seconds.
    fn pass(&mut self, ns: u64) {
        let end = self.now + ns;

        while self.now < end {
            self.now = end.min(self.now + self.decision.again_ns.min(2 * SECOND));
            self.look();
        }
    }

    /// Uses granules for a time and then none of them for another.
    fn cycle(&mut self, granules: u64, busy_ns: u64, idle_ns: u64) {
        let base = self.used;

        self.set(base + granules);
        self.pass(busy_ns);
        self.set(base);
        self.look();
        self.pass(idle_ns);
    }
}

#[test]
fn a_burst_is_hinted_at_once() {
    let mut zone = Zone::new(TERMS);

    zone.set(2000);
    zone.pass(100 * MS);
    zone.set(0);
    zone.look();
    assert_eq!(zone.unhinted, 0);
}

/// It is no cycle, nor is what was used for the first time after much of it was hinted.
#[test]
fn a_burst_that_refaults_is_hinted_at_once() {
    let mut zone = Zone::new(TERMS);

    zone.cycle(1000, 100 * MS, 5 * SECOND);
    zone.set(1500);
    zone.pass(100 * MS);
    zone.set(0);
    zone.look();
    assert_eq!((zone.unhinted, zone.refaults), (0, 2500));
}

/// What recurred before the burst is kept, and no more.
#[test]
fn a_burst_after_a_cycle_is_hinted_but_for_the_cycle() {
    let mut zone = Zone::new(TERMS);

    for _ in 0..5 {
        zone.cycle(100, 50 * MS, 50 * MS);
    }
    zone.cycle(2000, 500 * MS, 0);
    assert_eq!(zone.unhinted, 100);
    zone.pass(SECOND + 100 * MS);
    assert_eq!(zone.unhinted, 0);
}

#[test]
fn a_cycle_costs_one_refault_and_ends_within_hold() {
    for idle_ms in [0, 10, 100, 500, 850] {
        let mut zone = Zone::new(TERMS);
        for _ in 0..50 {
            zone.cycle(300, 100 * MS, idle_ms * MS);
        }
        // The first use, and one refault.
        assert!(zone.refaults <= 600, "{} at {idle_ms} ms", zone.refaults);
        let ended = zone.now - idle_ms * MS;
        while zone.unhinted != 0 && zone.now < ended + 5 * SECOND {
            zone.pass(10 * MS);
        }
        let kept_ms = (zone.now - ended) / MS;
        assert!((900..=1110).contains(&kept_ms), "{kept_ms} ms");
    }
}

#[test]
fn a_slower_cycle_is_hinted_each_time() {
    let mut zone = Zone::new(TERMS);

    for _ in 0..50 {
        zone.cycle(300, 100 * MS, 1300 * MS);
        assert_eq!(zone.unhinted, 0);
    }
    assert_eq!(zone.refaults, 50 * 300);
    assert_eq!(zone.decision.kept, 0);
}

#[test]
fn hold_0_keeps_nothing_and_begins_afresh() {
    let mut zone = Zone::new(TERMS);

    for _ in 0..5 {
        zone.cycle(300, 50 * MS, 50 * MS);
    }
    assert_eq!(zone.unhinted, 300);
    zone.terms.hold_ns = 0;
    zone.look();
    assert_eq!((zone.unhinted, zone.decision.again_ns), (0, u64::MAX));
    zone.terms = TERMS;
    zone.look();
    zone.set(300);
    zone.look();
    zone.set(0);
    zone.look();
    assert_eq!(zone.unhinted, 0);
}

/// `min_order`, `hold_ms` and `host_granule_kb` do; `enabled` calls `forget`.
#[test]
fn new_terms_and_forgetting_begin_afresh() {
    for change in 0..4 {
        let mut zone = Zone::new(TERMS);
        for _ in 0..5 {
            zone.cycle(300, 50 * MS, 50 * MS);
        }
        assert_eq!(zone.unhinted, 300);
        match change {
            0 => zone.terms.hold_ns *= 2,
            1 => zone.terms.granule_order = 0,
            2 => zone.terms.min_order = 0,
            _ => zone.levels.forget(),
        }
        zone.look();
        assert_eq!(zone.unhinted, 0, "{change}");
    }
}

/// Deflated memory was not in use, and inflated memory is not used again.
#[test]
fn a_balloon_is_no_use_of_memory() {
    let mut levels = Levels::new(vec![0; WORDS_MIN]);
    let used = 1000;
    let mut low = 0;

    for i in 0..20 {
        let managed = if i % 2 == 0 { GRANULES } else { 1500 } * G;
        let eligible = managed - used * G;
        let decision = levels.look(
            i * 300 * MS,
            &ZoneView {
                managed,
                eligible,
                eligible_low: eligible.min(low),
                ..ZoneView::default()
            },
            eligible,
            &TERMS,
        );
        low = eligible;
        assert_eq!((decision.kept, decision.again_ns), (0, u64::MAX));
    }
}

/// While a burst grows, some of it is freed and used again between two looks.
#[test]
fn growth_with_small_falls_is_no_cycle() {
    let mut zone = Zone::new(TERMS);

    for _ in 0..200 {
        zone.set(zone.used + 6);
        zone.set(zone.used - 3);
        zone.pass(10 * MS);
    }
    zone.set(0);
    zone.look();
    assert_eq!((zone.decision.kept, zone.unhinted), (0, 0));
}

/// What bypasses unhinted memory all the time costs that every second `hold`.
#[test]
fn the_fuse_ends_hinting_for_one_hold_in_two() {
    let mut zone = Zone::new(TERMS);
    let mut held_ms = 0;

    for _ in 0..1000 {
        zone.set(zone.used.saturating_sub(20));
        zone.take(0, 20);
        zone.set(zone.used - 20);
        zone.look();
        // As much as is used recurs, so it is kept in any case.
        held_ms += if zone.unhinted > 20 { 10 } else { 0 };
        zone.now += 10 * MS;
    }
    assert!((4500..=5500).contains(&held_ms), "{held_ms} ms of 10 s");
    zone.pass(SECOND + 100 * MS);
    assert_eq!(zone.unhinted, 0);
}

#[test]
fn the_fuse_is_for_what_bypasses_unhinted_memory() {
    let blown_on = |terms: &Terms, unhinted_low, used| {
        let mut levels = Levels::new(vec![0; WORDS_MIN]);
        let mut view = ZoneView {
            managed: GRANULES * G,
            eligible: GRANULES * G,
            eligible_low: GRANULES * G,
            offline_used: u64::MAX - 3,
            ..ZoneView::default()
        };
        let mut now = SECOND;
        // So much was in use before, and is now again.
        for used in [0, 50] {
            view.eligible_low = (GRANULES - used) * G;
            assert_eq!(levels.look(now, &view, 100 * G, terms).kept, 0);
            now += 10 * MS;
        }
        view.unhinted_low = unhinted_low * G;
        view.offline_used = view.offline_used.wrapping_add(used * G);
        let mut held_ms = 0;
        for _ in 0..500 {
            let decision = levels.look(now, &view, 100 * G, terms);
            // Else what recurs is kept, 50 granules at most.
            if decision.kept == 100 * G {
                held_ms += 10;
            }
            view.eligible_low = view.eligible;
            now += 10 * MS;
        }
        held_ms
    };

    let blown = |unhinted_low, used| blown_on(&TERMS, unhinted_low, used);

    assert_eq!(blown(50, 50), 1000);
    // However little is worth keeping.
    let little = Terms {
        worth_pages: 1,
        ..TERMS
    };
    assert_eq!(
        (blown_on(&little, 50, 7), blown_on(&little, 50, 8)),
        (0, 1000)
    );
    // It ran out, or nothing Offline was used, or little of either.
    assert_eq!(blown(0, 50), 0);
    assert_eq!(blown(50, 0), 0);
    assert_eq!(blown(7, 50), 0);
    assert_eq!(blown(50, 7), 0);
}

#[test]
fn levels_are_small_and_have_room_to_grow() {
    assert_eq!(words(0), WORDS_MIN);
    assert_eq!(words(1 << 30), WORDS_MIN);
    assert_eq!(words(16 << 30), 16 * WORDS_MIN);
}

#[test]
fn without_words_nothing_is_kept() {
    let mut levels = Levels::new(Vec::new());
    let view = ZoneView {
        managed: G,
        ..ZoneView::default()
    };

    assert_eq!(levels.look(0, &view, G, &TERMS).pages, G);
}

/// Numbers of all sizes.
fn any_size() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        0u64..10_000,
        any::<u64>().prop_map(|x| x >> 24),
        any::<u64>()
    ]
}

proptest! {
    /// No more is kept than was in use in addition within `hold`, whatever the guest does.
    #[test]
    fn nothing_is_kept_that_was_not_used_for_hold(
        hold_ms in prop::sample::select(vec![100u64, 1000, 4000]),
        ops in prop::collection::vec((0u64..4, 0u64..4096, 0u64..300), 1..300),
    ) {
        let hold = hold_ms * MS;
        let mut zone = Zone::new(Terms { hold_ns: hold, ..TERMS });
        let mut history = vec![(0, zone.now)];

        for (what, granules, ms) in ops {
            zone.set(match what {
                0 => granules,
                1 => zone.used.saturating_sub(granules % 64),
                2 => (zone.used + granules % 64).min(GRANULES),
                _ => zone.used,
            });
            let end = zone.now + ms * MS;
            loop {
                zone.pass((end - zone.now).min(10 * MS));
                history.push((zone.used, zone.now));
                // A look is at most 100 ms after the last one.
                let since = zone.now.saturating_sub(hold + 110 * MS);
                let from = history.iter().rposition(|(_, at)| *at <= since).unwrap_or(0);
                let most = history[from..].iter().map(|(used, _)| *used).max().unwrap_or(0);
                prop_assert!(zone.unhinted <= most - zone.used);
                if zone.now == end {
                    break;
                }
            }
        }
        zone.pass(hold + 2100 * MS);
        prop_assert_eq!(zone.unhinted, 0);
    }

    #[test]
    fn any_input_is_taken(
        looks in prop::collection::vec(prop::array::uniform7(any_size()), 1..50),
        terms in prop::array::uniform2(any_size()), granule_order in any::<u32>(),
        words in 0usize..5,
    ) {
        let mut levels = Levels::new(vec![0; words]);
        let [hold_ns, worth_pages] = terms;
        let terms = Terms { hold_ns, min_order: 0, granule_order, worth_pages };

        for [now_ns, managed, eligible, eligible_low, backlog, unhinted_low, offline_used] in looks {
            let view = ZoneView {
                managed, eligible, eligible_low, unhinted_low, offline_used, ..ZoneView::default()
            };
            let decision = levels.look(now_ns, &view, backlog, &terms);
            prop_assert_eq!(u128::from(decision.pages) + u128::from(decision.kept), u128::from(backlog));
            prop_assert!(decision.again_ns >= LOOK_NS.start);
        }
    }
}
