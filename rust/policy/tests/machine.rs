// SPDX-License-Identifier: GPL-2.0

//! What the machine has the thread do, in a guest of one zone with blocks of 2 and 4 MiB.

use page_hinting_policy::levels::WORDS_MIN;
use page_hinting_policy::machine::*;
use page_hinting_policy::*;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
/// Pages of a block of order 9, and of the guest: 4 GiB.
const G: u64 = 512;
const MANAGED: u64 = 2048 * G;
const MIB: u64 = 256;

/// A guest, and a host that answers at once unless it is told not to.
struct Guest {
    machine: Machine<Vec<Zone<Vec<u64>>>>,
    input: Input,
    /// Unhinted blocks by order.
    unhinted: [usize; 11],
    offline: u64,
    eligible_low: u64,
    unhinted_low: u64,
    offline_used: u64,
    in_flight: u64,
    /// What the zone cannot spare.
    reserve: u64,
    /// Blocks of order 10 in a second zone, which can spare none.
    spared: usize,
    /// The watermark, and whether it wakes the thread.
    watermark: Wake,
    armed: bool,
    /// What a request meets, if not the host.
    trouble: Option<Outcome>,
    /// The host does not answer.
    silent: bool,
    actions: Vec<(u64, Action)>,
    /// When the sleep ends.
    due: u64,
}

impl Guest {
    fn new() -> Self {
        Self {
            machine: Machine::new(vec![Zone::new(vec![0; WORDS_MIN]); 2], 0, 7),
            input: Input {
                now_ns: 0,
                knobs: Knobs::new(10, 4),
                device: Some(Device {
                    min_order: 0,
                    in_flight: false,
                }),
                flush: None,
                asks: 7,
            },
            unhinted: [0; 11],
            offline: MANAGED,
            eligible_low: MANAGED,
            unhinted_low: 0,
            offline_used: 0,
            in_flight: 0,
            reserve: 1000,
            spared: 0,
            watermark: Wake::Never,
            armed: false,
            trouble: None,
            silent: false,
            actions: Vec::new(),
            due: 0,
        }
    }

    fn backlog(&self) -> u64 {
        self.unhinted
            .iter()
            .enumerate()
            .map(|(order, n)| (*n as u64) << order)
            .sum()
    }

    fn eligible(&self) -> u64 {
        self.backlog() + self.offline + self.in_flight
    }

    /// Allocates, what is unhinted first; and frees blocks of an order.
    fn allocate(&mut self, pages: u64) {
        let mut left = pages;
        for order in (9..=10).rev() {
            let blocks = (left >> order).min(self.unhinted[order] as u64);
            self.unhinted[order] -= blocks as usize;
            left -= blocks << order;
        }
        self.offline -= left;
        self.offline_used += left;
        self.eligible_low = self.eligible_low.min(self.eligible());
        self.unhinted_low = self.unhinted_low.min(self.backlog());
    }

    fn free(&mut self, pages: u64, order: usize) {
        self.unhinted[order] += (pages >> order) as usize;
        if let Wake::Blocks { min_order, pages } = self.watermark {
            let enough = (min_order as usize..11).any(|i| (self.unhinted[i] as u64) << i >= pages);
            if self.armed && enough {
                self.armed = false;
                self.run();
            }
        }
    }

    fn look(&mut self, share: Option<(u32, u64)>) -> u64 {
        let view = ZoneView {
            spare: (self.backlog() + self.offline).saturating_sub(self.reserve),
            managed: MANAGED,
            isolated: self.in_flight,
            largest_block: 1024,
            unhinted: &self.unhinted,
            eligible: self.eligible(),
            eligible_low: self.eligible_low.min(self.eligible()),
            unhinted_low: self.unhinted_low.min(self.backlog()),
            offline_used: self.offline_used,
        };
        self.eligible_low = view.eligible;
        self.unhinted_low = self.backlog();
        match share {
            Some((order, isolated)) => self.machine.share(0, order, &view, isolated),
            None => {
                self.machine.look(0, &view, self.input.now_ns);
                0
            }
        }
    }

    fn look_at_second_zone(&mut self) {
        let pages = (self.spared as u64) << 10;
        let mut unhinted = [0; 11];
        unhinted[10] = self.spared;
        let view = ZoneView {
            spare: 0,
            managed: pages,
            largest_block: 1024,
            unhinted: &unhinted,
            eligible: pages,
            eligible_low: pages,
            unhinted_low: pages,
            ..ZoneView::default()
        };
        self.machine.look(1, &view, self.input.now_ns);
    }

    fn request(&mut self) -> Outcome {
        if let Some(trouble) = self.trouble {
            return trouble;
        }
        if self.in_flight >= 16 * MIB {
            return Outcome::Full;
        }
        let mut pages = 0;
        for order in (self.machine.lowest_order()..=10).rev() {
            let share = self.look(Some((order, self.in_flight + pages)));
            let blocks = (share >> order)
                .min(self.unhinted[order as usize] as u64)
                .min(4);
            self.unhinted[order as usize] -= blocks as usize;
            self.in_flight += blocks << order;
            pages += blocks << order;
            self.machine.took(0, blocks << order);
        }
        match pages {
            0 if self.in_flight != 0 => Outcome::Full,
            0 => Outcome::Nothing,
            pages => Outcome::Submitted { pages },
        }
    }

    /// Has the thread run until it sleeps.
    fn run(&mut self) {
        for _ in 0..10_000 {
            if !self.silent {
                self.offline += std::mem::take(&mut self.in_flight);
            }
            if let Some(device) = &mut self.input.device {
                device.in_flight = self.in_flight != 0;
            }
            let action = self.machine.next(&self.input);
            self.actions.push((self.input.now_ns, action));
            match action {
                Action::Watermark(watermark) => self.watermark = watermark.wake,
                Action::Rearm => self.armed = true,
                Action::Look => {
                    self.look(None);
                    self.look_at_second_zone();
                }
                Action::Request => {
                    let outcome = self.request();
                    self.machine.requested(outcome, self.input.now_ns);
                }
                Action::Flushed { .. } => self.input.flush = None,
                Action::Sleep { ms } => {
                    self.due = self.input.now_ns + u64::from(ms) * MS;
                    // It does not, if the host has answered.
                    if self.silent || self.in_flight == 0 {
                        return;
                    }
                }
                Action::Forget => {
                    self.unhinted[10] += (self.offline >> 10) as usize;
                    self.offline &= (1 << 10) - 1;
                }
                Action::Drain | Action::Passed => {}
            }
        }
        panic!(
            "the thread spins: {:?}",
            &self.actions[self.actions.len() - 30..]
        );
    }

    fn pass(&mut self, ms: u64) {
        let end = self.input.now_ns + ms * MS;

        while self.due <= end {
            self.input.now_ns = self.due.max(self.input.now_ns);
            self.run();
        }
        self.input.now_ns = end;
    }

    /// A guest at rest, whose memory is all hinted.
    fn at_rest() -> Self {
        let mut guest = Self::new();
        guest.run();
        guest.pass(10_000);
        guest.actions.clear();
        guest
    }

    /// The same, but the zone can spare nothing now.
    fn sparing_nothing() -> Self {
        Self {
            reserve: u64::MAX,
            ..Self::at_rest()
        }
    }

    fn set(&mut self, knob: Knob, value: u64) {
        self.input.knobs = self.input.knobs.with(knob, value).unwrap();
        self.run();
    }

    /// When actions of a kind came, in milliseconds from `since`.
    fn times(&self, since: u64, kind: fn(&Action) -> bool) -> Vec<u64> {
        let actions = self.actions.iter().filter(|(_, action)| kind(action));
        actions.map(|(at, _)| (at - since) / MS).collect()
    }

    fn cycle(&mut self, pages: u64, ms: u64) {
        self.allocate(pages);
        self.pass(ms);
        self.free(pages, 10);
        self.pass(ms);
    }

    /// A cycle whose memory is kept.
    fn keep() -> Self {
        let mut guest = Self::at_rest();
        for _ in 0..4 {
            guest.cycle(256 * MIB, 50);
        }
        assert_eq!(guest.machine.kept(), 256 * MIB);
        guest.actions.clear();
        guest
    }
}

fn is_drain(action: &Action) -> bool {
    *action == Action::Drain
}

fn is_request(action: &Action) -> bool {
    *action == Action::Request
}

fn is_rearm(action: &Action) -> bool {
    *action == Action::Rearm
}

fn is_look(action: &Action) -> bool {
    *action == Action::Look
}

#[test]
fn a_zone_that_can_spare_nothing_does_not_keep_the_watermark_from_waking() {
    let mut guest = Guest::new();
    guest.spared = 3072 / 4;
    guest.run();
    guest.pass(10_000);
    assert!(guest.armed);
    guest.free(64 * MIB, 10);
    assert_eq!(guest.backlog(), 0, "hinted at once, not at the next look");
}

#[test]
fn what_is_freed_does_not_wake_the_thread_if_no_zone_can_spare_it() {
    let mut guest = Guest::sparing_nothing();
    guest.allocate(256 * MIB);
    let since = guest.input.now_ns;

    for _ in 0..100 {
        guest.free(2 * MIB, 9);
        guest.pass(10);
    }
    assert!(guest.times(since, is_rearm).len() <= 2);
    guest.reserve = 1000;
    guest.pass(2000);
    assert_eq!(guest.backlog(), 0);
}

#[test]
fn much_is_hinted_at_once_after_a_zone_could_spare_nothing() {
    let mut guest = Guest::sparing_nothing();
    guest.allocate(256 * MIB);
    guest.pass(5000);
    guest.reserve = 1000;
    guest.free(256 * MIB, 10);
    assert_eq!(guest.backlog(), 0, "hinted at once, not at the next look");
}

#[test]
fn what_is_futile_is_looked_at_within_two_seconds_whatever_woke_the_thread() {
    let mut guest = Guest::sparing_nothing();
    guest.free(32 * MIB, 10);
    guest.pass(1900);
    guest.set(Knob::FlushTimeoutMs, 5000);
    guest.reserve = 1000;
    guest.pass(200);
    assert_eq!(guest.backlog(), 0);
}

#[test]
fn the_hosts_word_ends_what_is_futile() {
    let mut guest = Guest::sparing_nothing();
    guest.free(32 * MIB, 10);
    guest.pass(100);
    guest.reserve = 1000;
    guest.input.asks += 1;
    guest.run();
    assert_eq!(guest.backlog(), 0);
}

#[test]
fn at_rest_the_thread_looks_every_two_seconds() {
    let mut guest = Guest::at_rest();
    let since = guest.input.now_ns;

    guest.pass(10_000);
    assert_eq!(guest.times(since, is_look).len(), 5);
    assert_eq!(guest.times(since, is_request).len(), 0);
}

#[test]
fn largest_blocks_go_at_once_and_smaller_ones_later() {
    let mut guest = Guest::at_rest();

    guest.allocate(96 * MIB);
    guest.free(32 * MIB, 10);
    assert_eq!(guest.backlog(), 0);
    guest.free(32 * MIB, 9);
    assert_eq!(guest.backlog(), 32 * MIB, "{:?}", guest.actions);
    guest.pass(90);
    assert_eq!(guest.backlog(), 32 * MIB);
    guest.pass(10);
    assert_eq!(guest.backlog(), 0);
}

/// They wait for others to merge with, and what is freed meanwhile does not wake the thread.
#[test]
fn waiting_blocks_do_not_wake_the_thread() {
    let mut guest = Guest::at_rest();
    guest.allocate(96 * MIB);
    guest.free(32 * MIB, 9);
    let since = guest.input.now_ns;

    for _ in 0..20 {
        guest.free(MIB * 2, 9);
        guest.pass(2);
    }
    // What was freed before the thread knew of them wakes it once more.
    assert!(
        guest.times(since, is_look).len() <= 3,
        "{:?}",
        guest.actions
    );
    guest.pass(60);
    assert_eq!(guest.backlog(), 0);
}

#[test]
fn a_little_goes_within_two_seconds() {
    let mut guest = Guest::at_rest();

    guest.allocate(8 * MIB);
    guest.free(8 * MIB, 10);
    assert_eq!(guest.backlog(), 8 * MIB);
    guest.pass(2000);
    assert_eq!(guest.backlog(), 0);
}

/// 20 ms after much was hinted, however short a time after the last burst.
#[test]
fn the_lists_are_drained_soon_after_much() {
    let mut guest = Guest::at_rest();
    let since = guest.input.now_ns;

    guest.allocate(1024 * MIB);
    guest.free(512 * MIB, 10);
    guest.pass(300);
    guest.free(512 * MIB, 10);
    guest.pass(600);
    assert_eq!(guest.times(since, is_drain), [20, 320]);
}

#[test]
fn a_cycle_keeps_the_lists() {
    let mut guest = Guest::keep();
    let since = guest.input.now_ns;

    for _ in 0..90 {
        guest.cycle(256 * MIB, 50);
    }
    assert!(
        guest.times(since, is_drain).len() <= 2,
        "{:?}",
        guest.times(since, is_drain)
    );
    assert_eq!(guest.times(since, is_request).len(), 0);
}

#[test]
fn what_is_kept_does_not_wake_the_thread_but_more_does() {
    let mut guest = Guest::keep();
    let Wake::Blocks { pages, .. } = guest.watermark else {
        panic!("{:?}", guest.watermark);
    };

    assert_eq!(pages, (256 + 16) * MIB);
    guest.allocate(1024 * MIB);
    guest.pass(10);
    guest.free(1024 * MIB, 10);
    assert_eq!(guest.backlog(), 256 * MIB);
    // Once it is over, it wakes as before.
    guest.pass(1100);
    assert_eq!((guest.backlog(), guest.machine.kept()), (0, 0));
    guest.allocate(16 * MIB);
    guest.free(16 * MIB, 10);
    assert_eq!(guest.backlog(), 0);
}

#[test]
fn nothing_is_kept_after_the_switch_of_a_knob() {
    for (knob, value) in [
        (Knob::HoldMs, 2000),
        (Knob::HoldMs, 0),
        (Knob::HostGranuleKb, 4),
        (Knob::MinOrder, 0),
    ] {
        let mut guest = Guest::keep();
        guest.set(knob, value);
        guest.pass(100);
        assert_eq!((guest.backlog(), guest.machine.kept()), (0, 0), "{knob:?}");
    }

    let mut guest = Guest::keep();
    guest.set(Knob::Enabled, 0);
    assert_eq!((guest.watermark, guest.machine.kept()), (Wake::Never, 0));
    assert_eq!(guest.backlog(), 256 * MIB);
    guest.set(Knob::Enabled, 1);
    guest.pass(100);
    assert_eq!(guest.backlog(), 0);
}

#[test]
fn the_hosts_word_is_heard_for_a_minute() {
    let mut guest = Guest::keep();

    guest.input.asks += 1;
    guest.run();
    assert_eq!(guest.backlog(), 0);
    for _ in 0..590 {
        guest.cycle(256 * MIB, 50);
        assert_eq!(guest.machine.kept(), 0);
    }
    guest.pass(2000);
    for _ in 0..4 {
        guest.cycle(256 * MIB, 50);
    }
    assert_eq!(guest.machine.kept(), 256 * MIB);
}

#[test]
fn a_flush_is_neither_paced_nor_off() {
    for enabled in [1, 0] {
        let mut guest = Guest::keep();

        guest.set(Knob::Enabled, enabled);
        assert_eq!(guest.backlog(), 256 * MIB);
        guest.input.flush = Some(3);
        guest.run();
        assert_eq!(guest.backlog(), 0);
        let flushed = Action::Flushed {
            flush: 3,
            done: true,
        };
        assert!(guest.actions.iter().any(|(_, action)| *action == flushed));
    }
}

#[test]
fn a_flush_ends_after_the_host_has_answered() {
    let mut guest = Guest::at_rest();

    guest.allocate(4 * MIB);
    guest.free(4 * MIB, 9);
    guest.silent = true;
    guest.input.flush = Some(1);
    guest.pass(3000);
    assert!(guest.input.flush.is_some());
    guest.silent = false;
    guest.run();
    assert_eq!((guest.input.flush, guest.backlog()), (None, 0));
}

#[test]
fn without_a_device_a_flush_fails() {
    let mut guest = Guest::at_rest();

    guest.input.device = None;
    guest.input.flush = Some(1);
    guest.run();
    let failed = Action::Flushed {
        flush: 1,
        done: false,
    };
    assert!(guest.actions.iter().any(|(_, action)| *action == failed));
    assert_eq!(guest.watermark, Wake::Never);
}

/// The host is asked four times a second, and nothing spins.
#[test]
fn a_silent_host_is_looked_at() {
    let mut guest = Guest::at_rest();
    guest.silent = true;
    guest.allocate(256 * MIB);
    guest.free(256 * MIB, 10);
    let since = guest.input.now_ns;
    guest.actions.clear();

    guest.pass(10_000);
    let looks = guest.times(since, is_look).len();
    assert!((38..=70).contains(&looks), "{looks}");
    guest.silent = false;
    guest.run();
    guest.pass(200);
    assert_eq!(guest.backlog(), 0);
}

#[test]
fn trouble_is_not_tried_again_and_again() {
    for (trouble, most) in [
        (Outcome::Failed, 10),
        (Outcome::Nothing, 10),
        (Outcome::Held, 110),
    ] {
        let mut guest = Guest::at_rest();
        guest.trouble = Some(trouble);
        guest.allocate(256 * MIB);
        let since = guest.input.now_ns;
        for _ in 0..100 {
            guest.free(2 * MIB, 10);
            guest.pass(20);
        }
        let requests = guest.times(since, is_request).len();
        assert!(requests <= most, "{trouble:?}: {requests}");
        guest.trouble = None;
        guest.pass(2200);
        assert_eq!(guest.backlog(), 0, "{trouble:?}");
    }
}

#[test]
fn low_watermark_is_left_alone() {
    let mut guest = Guest::at_rest();

    guest.set(Knob::LowWatermarkKb, 8192);
    guest.allocate(64 * MIB);
    guest.free(64 * MIB, 10);
    guest.pass(3000);
    assert_eq!(guest.backlog(), 8 * MIB);
}

#[test]
fn a_device_may_take_larger_blocks_only() {
    let mut guest = Guest::at_rest();

    guest.set(Knob::MinOrder, 0);
    guest.input.device = Some(Device {
        min_order: 10,
        in_flight: false,
    });
    guest.run();
    let blocks = |watermark| matches!(watermark, Wake::Blocks { min_order: 10, .. });
    assert!(blocks(guest.watermark), "{:?}", guest.watermark);
}

#[test]
fn the_hosts_word_has_all_hinted_once_more_but_not_each_time() {
    let mut guest = Guest::at_rest();
    let forgets = |guest: &Guest| guest.times(0, |action| *action == Action::Forget).len();

    guest.pass(3000);
    for (pause_ms, times) in [(0, 1), (60_000, 1), (599_000, 2), (0, 2)] {
        guest.pass(pause_ms);
        guest.input.asks += 1;
        guest.run();
        guest.pass(1000);
        assert_eq!(forgets(&guest), times, "after {pause_ms} ms");
        assert_eq!(guest.backlog(), 0);
    }
}

proptest! {
    /// Whatever the guest does, all that is free is hinted within `hold_ms` + 2.2 s of the last
    /// free, and the thread never spins.
    #[test]
    fn nothing_stays_unhinted(
        hold_ms in prop::sample::select(vec![0u64, 10, 1000, 5000]),
        ops in prop::collection::vec((0u64..4, 1u64..256, 0u64..200), 1..200),
    ) {
        let mut guest = Guest::new();
        guest.run();
        guest.set(Knob::HoldMs, hold_ms);
        let mut used = 0;

        for (what, blocks, ms) in ops {
            let pages = blocks * 1024;
            match what {
                0 if used + pages < MANAGED - 1024 * MIB => {
                    guest.allocate(pages);
                    used += pages;
                }
                1 | 2 => {
                    let pages = pages.min(used);
                    guest.free(pages, 8 + what as usize);
                    used -= pages;
                }
                _ => guest.pass(ms),
            }
        }
        guest.pass(hold_ms + 2200);
        prop_assert_eq!(guest.backlog(), 0);
        prop_assert_eq!(guest.machine.kept(), 0);
    }

    #[test]
    fn any_knobs_and_events_are_taken(
        events in prop::collection::vec((0u32..9, any::<u64>(), 0u64..3000), 1..100),
    ) {
        let mut guest = Guest::new();
        guest.run();
        for (what, value, ms) in events {
            let knobs = [Knob::Enabled, Knob::HoldMs, Knob::MinOrder, Knob::HostGranuleKb];
            match what {
                0..=3 => {
                    let value = value % 2048;
                    if let Ok(knobs) = guest.input.knobs.with(knobs[what as usize], value) {
                        guest.input.knobs = knobs;
                    }
                }
                4 => guest.input.flush = Some(value),
                5 => guest.input.asks = value,
                6 => guest.input.device = (value % 2 == 0).then_some(Device {
                    min_order: 9,
                    in_flight: false,
                }),
                7 => guest.trouble = [None, Some(Outcome::Held), Some(Outcome::Failed)][value as usize % 3],
                _ => {
                    guest.allocate(64 * MIB);
                    guest.free(64 * MIB, 10);
                }
            }
            guest.run();
            guest.pass(ms);
        }
    }
}
