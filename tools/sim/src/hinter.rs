// SPDX-License-Identifier: GPL-2.0

//! Who hints: the module with its policy, and a model of mm/page_reporting.

use crate::guest::{Host, MS};
use crate::memory::{GRANULE_KB, GRANULE_PAGES, Memory};
use page_hinting_policy::levels;
use page_hinting_policy::machine::{Action, Device, Input, Machine, Outcome, Wake, Zone};
use page_hinting_policy::{Knob, Knobs, ZoneView};

/// From the free that wakes a thread or a worker to its first look.
const WAKE_NS: u64 = 50_000;

/// Something that hints.
pub trait Hinter {
    /// When it next has something to do; [`u64::MAX`] for never.
    fn due(&self) -> u64;
    /// Does it.
    fn act(&mut self, now: u64, memory: &mut Memory);
    /// Memory was freed.
    fn freed(&mut self, now: u64, memory: &Memory);
}

/// Nobody hints.
pub struct Off;

impl Hinter for Off {
    fn due(&self) -> u64 {
        u64::MAX
    }

    fn act(&mut self, _: u64, _: &mut Memory) {}

    fn freed(&mut self, _: u64, _: &Memory) {}
}

/// The largest order, 4 MiB, and its size in granules. Free memory is in such blocks.
const MAX_ORDER: usize = 10;
const BLOCK: u64 = 2;

/// The module: its state machine, with its actions carried out as rust/thread.rs does.
pub struct Module {
    host: Host,
    knobs: Knobs,
    machine: Machine<Vec<Zone<Vec<u64>>>>,
    watermark: Wake,
    /// A free may wake the thread.
    armed: bool,
    due: u64,
    /// When the host acknowledges what is out.
    ack: Option<u64>,
}

impl Module {
    pub fn new(host: &Host, zones: &[u64], hold_ms: u64) -> Self {
        let knobs = Knobs::new(MAX_ORDER as u32, 4);
        let zone = |granules: &u64| Zone::new(vec![0; levels::words(granules * GRANULE_KB)]);

        Self {
            host: *host,
            knobs: knobs.with(Knob::HoldMs, hold_ms).unwrap_or(knobs),
            machine: Machine::new(zones.iter().map(zone).collect(), 0, 0),
            watermark: Wake::Never,
            armed: false,
            due: 0,
            ack: None,
        }
    }

    /// Blocks of a zone that are not Offline, by order.
    fn unhinted(memory: &Memory, zone: usize) -> [usize; MAX_ORDER + 1] {
        let granules = memory.zones[zone].unhinted;
        let mut blocks = [0; MAX_ORDER + 1];

        blocks[MAX_ORDER] = (granules / BLOCK) as usize;
        blocks[MAX_ORDER - 1] = (granules % BLOCK) as usize;
        blocks
    }

    /// What the thread sees of a zone. The caller is to begin new lows, as the kernel does. The
    /// watermarks of reclaim are not modelled.
    fn view<'a>(memory: &Memory, zone: usize, unhinted: &'a [usize]) -> ZoneView<'a> {
        let zone = &memory.zones[zone];

        ZoneView {
            spare: (zone.unhinted + zone.offline) * GRANULE_PAGES,
            managed: (zone.free() + zone.used) * GRANULE_PAGES,
            isolated: zone.isolated * GRANULE_PAGES,
            largest_block: BLOCK * GRANULE_PAGES,
            unhinted,
            eligible: zone.free() * GRANULE_PAGES,
            eligible_low: zone.free_low * GRANULE_PAGES,
            unhinted_low: zone.unhinted_low * GRANULE_PAGES,
            offline_used: zone.offline_used * GRANULE_PAGES,
        }
    }

    fn look(&mut self, now: u64, memory: &mut Memory) {
        for i in 0..memory.zones.len() {
            let unhinted = Self::unhinted(memory, i);

            self.machine.look(i, &Self::view(memory, i, &unhinted), now);
            memory.restart_lows(i);
        }
    }

    /// Fills a request, from the lowest zone up. A request is as large as it may be, where the
    /// module hands over several in a row.
    fn request(&mut self, now: u64, memory: &mut Memory) -> Outcome {
        let mut taken = 0;

        for i in 0..memory.zones.len() {
            for order in (self.machine.lowest_order()..=MAX_ORDER as u32).rev() {
                let unhinted = Self::unhinted(memory, i);
                let isolated = memory.isolated() * GRANULE_PAGES;
                let view = Self::view(memory, i, &unhinted);
                let share = self.machine.share(i, order, &view, isolated);
                memory.restart_lows(i);
                let block = 1 << order;
                let granules = memory.isolate(i, share / block * block / GRANULE_PAGES);

                self.machine.took(i, granules * GRANULE_PAGES);
                taken += granules;
            }
        }
        if taken != 0 {
            let begin = self.ack.unwrap_or(now);
            self.ack = Some(begin + self.host.hint_ns(taken));
            return Outcome::Submitted {
                pages: taken * GRANULE_PAGES,
            };
        }
        match self.ack {
            Some(_) => Outcome::Full,
            None => Outcome::Nothing,
        }
    }
}

impl Hinter for Module {
    fn due(&self) -> u64 {
        self.due
    }

    fn act(&mut self, now: u64, memory: &mut Memory) {
        if self.ack.is_some_and(|ack| ack <= now) {
            memory.acknowledge();
            self.ack = None;
        }
        loop {
            let input = Input {
                now_ns: now,
                knobs: self.knobs,
                device: Some(Device {
                    min_order: 0,
                    in_flight: self.ack.is_some(),
                }),
                flush: None,
                asks: 0,
            };
            match self.machine.next(&input) {
                Action::Watermark(watermark) => self.watermark = watermark.wake,
                Action::Rearm => self.armed = true,
                Action::Look => self.look(now, memory),
                Action::Request => {
                    let outcome = self.request(now, memory);
                    self.machine.requested(outcome, now);
                }
                // The per-CPU lists are not modelled, and nobody waits.
                Action::Drain | Action::Forget | Action::Passed | Action::Flushed { .. } => (),
                Action::Sleep { ms } => {
                    self.due = now + u64::from(ms) * MS;
                    self.due = self.due.min(self.ack.unwrap_or(u64::MAX));
                    return;
                }
            }
        }
    }

    fn freed(&mut self, now: u64, memory: &Memory) {
        let Wake::Blocks { min_order, pages } = self.watermark else {
            return;
        };
        let reaches = |zone| {
            let unhinted = Self::unhinted(memory, zone);
            let view = Self::view(memory, zone, &unhinted);
            let mut areas = view.areas(min_order);

            areas.any(|area| area.blocks != 0 && area.reaches(pages))
        };

        if self.armed && (0..memory.zones.len()).any(reaches) {
            self.armed = false;
            self.due = self.due.min(now + WAKE_NS);
        }
    }
}

/// Blocks of a report.
const CAPACITY: u64 = 32;

/// A model of mm/page_reporting.c.
///
/// A free begins a pass after the delay. A pass goes through the zones, in each through the list,
/// and reports 32 blocks at a time; it leaves a list after one report more than there are 32 blocks
/// in a sixteenth of it, and if it leaves any it comes again after the delay.
pub struct Reporting {
    host: Host,
    delay_ns: u64,
    due: u64,
    requested: bool,
    /// The zone that a pass is at, and the reports that it may still make there.
    at: Option<(usize, u64)>,
}

impl Reporting {
    pub fn new(host: &Host, delay_ms: u64) -> Self {
        Self {
            host: *host,
            delay_ns: delay_ms * MS,
            due: u64::MAX,
            requested: false,
            at: None,
        }
    }

    /// A zone, and the reports that it gets in a pass; nothing behind the last zone.
    fn visit(memory: &Memory, zone: usize) -> Option<(usize, u64)> {
        let blocks = memory.zones.get(zone)?.free().div_ceil(BLOCK);

        Some((zone, blocks.div_ceil(CAPACITY * 16) + 1))
    }
}

impl Hinter for Reporting {
    fn due(&self) -> u64 {
        self.due
    }

    fn act(&mut self, now: u64, memory: &mut Memory) {
        memory.acknowledge();
        if self.at.is_none() {
            self.requested = false;
            self.at = Self::visit(memory, 0);
        }
        while let Some((zone, reports)) = self.at {
            if reports != 0 {
                let taken = memory.isolate(zone, CAPACITY * BLOCK);

                if taken != 0 {
                    self.at = Some((zone, reports - 1));
                    self.due = now + self.host.hint_ns(taken);
                    return;
                }
            } else if memory.zones[zone].unhinted != 0 {
                self.requested = true;
            }
            self.at = Self::visit(memory, zone + 1);
        }
        self.due = if self.requested {
            now + self.delay_ns + WAKE_NS
        } else {
            u64::MAX
        };
    }

    fn freed(&mut self, now: u64, _: &Memory) {
        self.requested = true;
        if self.at.is_none() && self.due == u64::MAX {
            self.due = now + self.delay_ns + WAKE_NS;
        }
    }
}

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Off,
    /// The module, with its knob `hold_ms`.
    Module(u64),
    /// page_reporting, with a delay in milliseconds.
    Reporting(u64),
}

impl Kind {
    /// The module at its defaults.
    pub const DEFAULT: Kind = Kind::Module(1000);

    pub const ALL: [Kind; 7] = [
        Kind::DEFAULT,
        Kind::Module(0),
        Kind::Reporting(2000),
        Kind::Reporting(250),
        Kind::Reporting(100),
        Kind::Reporting(0),
        Kind::Off,
    ];

    /// One for a guest with these zones.
    pub fn build(self, host: &Host, zones: &[u64]) -> Box<dyn Hinter> {
        match self {
            Kind::Off => Box::new(Off),
            Kind::Module(hold_ms) => Box::new(Module::new(host, zones, hold_ms)),
            Kind::Reporting(delay_ms) => Box::new(Reporting::new(host, delay_ms)),
        }
    }

    pub fn name(self) -> String {
        match self {
            Kind::Off => "off".into(),
            Kind::Module(hold_ms) => format!("module, {hold_ms} ms"),
            Kind::Reporting(delay_ms) => format!("page_reporting, {delay_ms} ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{self, SECOND};
    use crate::load;

    /// Seconds from the end of a burst of 2 GiB until no more than a share of it is left.
    fn burst(kind: Kind, left: f64) -> f64 {
        let load = load::burst(&Host::TCG, 2048);
        let mut memory = Memory::offline(&load.zones, 0);
        let freed = load.steps.last().unwrap().at;
        let most = load
            .steps
            .iter()
            .filter(|step| step.granules > 0)
            .map(|step| step.granules);
        let most = most.sum::<i64>() as f64;
        let mut until = freed;

        guest::run(
            &load,
            &mut memory,
            &mut *kind.build(&Host::TCG, &load.zones),
            0,
            &mut |_, to, memory| {
                if memory.kept() as f64 > most * left {
                    until = until.max(to);
                }
            },
        );
        (until - freed) as f64 / SECOND as f64
    }

    /// What page_reporting was measured to do with 2 GiB in a guest of 4 GiB without KVM: at its
    /// default delay half is returned after 4 s, 95 % after 8.1 s; at 250 ms after 0.54 and 1.1 s.
    #[test]
    fn the_model_of_page_reporting_is_as_fast_as_the_real_one() {
        for (delay, half, most) in [(2000, 4.0, 8.1), (250, 0.54, 1.1), (0, 0.02, 0.02)] {
            let [a, b] = [0.5, 0.05].map(|left| burst(Kind::Reporting(delay), left));
            let near = |a: f64, b: f64| (a - b).abs() <= 0.25 * b + 0.02;
            assert!(near(a, half) && near(b, most), "{delay}: {a:?} {b:?}");
        }
    }

    #[test]
    fn the_module_returns_a_burst_at_once() {
        let [most, all] = [0.05, 0.01].map(|left| burst(Kind::DEFAULT, left));

        assert!(most <= 0.05 && all <= 0.2, "{most} {all}");
    }
}
