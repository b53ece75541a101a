// SPDX-License-Identifier: GPL-2.0

//! Who hints: the module with its policy, and a model of mm/page_reporting.

use crate::guest::{Host, MS};
use crate::memory::{GRANULE_PAGES, Memory, mib};
use page_hinting_policy::pacing::{CYCLE_KB, Decision, Look, Pacing, Terms};
use page_hinting_policy::{
    DRAIN_MS, DRAIN_SOON_MS, FOLLOW_UP_MS, Knob, Knobs, MUCH_KB, MUCH_PART, TRICKLE_MS,
};

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

/// The module: its thread as rust/thread.rs has it, with the policy itself.
pub struct Module {
    host: Host,
    pacing: Pacing,
    terms: Terms,
    /// Granules: the high watermark, and the most that is out at a time.
    watermark: u64,
    batch: u64,
    due: u64,
    /// Something is out.
    out: bool,
    /// A free may wake the thread.
    armed: bool,
    /// When it last looked for what stays below the watermark.
    rested: u64,
    /// It hints, whatever the watermark is, until there is nothing left.
    hinting: bool,
    /// The watermark began that; something was hinted. Then there is a look soon after it.
    is_due: bool,
    found: bool,
    follow_up: u64,
    /// When the per-CPU lists, which are not modelled, would have been drained, and what had been
    /// hinted by then.
    drained: (u64, u64),
}

impl Module {
    pub fn new(host: &Host, budget_permille: u64) -> Self {
        let knobs = Knobs::new(9, 10, 4);

        Self {
            host: *host,
            pacing: Pacing::new(),
            terms: Terms {
                budget_permille,
                granule_pages: GRANULE_PAGES,
                price_ns: host.stated_price_ns,
                block_pages: BLOCK * GRANULE_PAGES,
                cycle_pages: CYCLE_KB / 4,
            },
            watermark: mib(knobs.get(Knob::HighWatermarkKb) / 1024),
            batch: mib(knobs.get(Knob::BatchKb) / 1024),
            due: 0,
            out: false,
            armed: true,
            rested: 0,
            hinting: false,
            is_due: false,
            found: false,
            follow_up: u64::MAX,
            drained: (0, 0),
        }
    }

    /// Whether much was hinted since then.
    fn is_much(&self, memory: &Memory) -> bool {
        let managed = memory.free() + memory.used();

        memory.hinted - self.drained.1 >= (managed / MUCH_PART).max(mib(MUCH_KB / 1024))
    }

    fn look(&mut self, now: u64, memory: &mut Memory) -> Decision {
        let low = memory.low();
        let look = Look {
            now_ns: now,
            reused: memory.reused,
            hinted: memory.hinted * GRANULE_PAGES,
            free: memory.free() * GRANULE_PAGES,
            backlog: memory.unhinted() * GRANULE_PAGES,
            backlog_min: low * GRANULE_PAGES,
        };

        self.pacing.look(&look, &self.terms)
    }

    fn take(&self, memory: &mut Memory, granules: u64) -> u64 {
        let mut left = granules.min(self.batch);

        for zone in 0..memory.zones.len() {
            left -= memory.isolate(zone, left);
        }
        granules.min(self.batch) - left
    }
}

impl Hinter for Module {
    fn due(&self) -> u64 {
        self.due
    }

    fn act(&mut self, now: u64, memory: &mut Memory) {
        if self.out {
            memory.acknowledge();
            self.out = false;
        }
        let trickle = u64::from(TRICKLE_MS) * MS;
        let rested = now - self.rested >= trickle;
        let decision = self.look(now, memory);

        if rested {
            self.rested = now;
        }
        let follow_up = u64::from(FOLLOW_UP_MS) * MS;
        let rest = now >= self.follow_up;
        if rest {
            self.follow_up = u64::MAX;
            let drain = self.drained.0 + u64::from(DRAIN_MS) * MS;
            if decision.busy {
                // A cycle uses what its CPUs have.
            } else if now >= drain || self.is_much(memory) {
                self.drained = (now, memory.hinted);
            } else {
                self.follow_up = drain;
            }
        }
        if !self.hinting {
            // While it is paced, what is decided takes the place of the watermark.
            let is_due = memory
                .zones
                .iter()
                .any(|zone| zone.unhinted >= self.watermark);
            let all = decision.paced || rested || rest;
            self.hinting = all || is_due;
            self.found = false;
            self.is_due = is_due && !all;
            if self.is_due {
                self.follow_up = self.follow_up.min(now + follow_up);
            }
        }
        if self.hinting {
            let taken = self.take(memory, decision.pages / GRANULE_PAGES);

            if taken != 0 {
                self.out = true;
                self.armed = false;
                self.found = true;
                self.due = now + self.host.hint_ns(taken);
                return;
            }
            self.hinting = false;
            if self.found && !decision.busy && self.is_much(memory) {
                self.follow_up = self.follow_up.min(now + u64::from(DRAIN_SOON_MS) * MS);
            } else if self.found && self.is_due {
                self.follow_up = self.follow_up.min(now + follow_up);
            }
        }
        self.armed = !decision.paced;
        // A look at nothing would change nothing.
        self.due = match memory.unhinted() {
            0 => u64::MAX,
            _ => now + decision.again_ns.min(trickle),
        };
        self.due = self.due.min(self.follow_up);
    }

    fn freed(&mut self, now: u64, memory: &Memory) {
        if self.armed
            && memory
                .zones
                .iter()
                .any(|zone| zone.unhinted >= self.watermark)
        {
            self.armed = false;
            self.due = self.due.min(now + WAKE_NS);
        }
    }
}

/// Blocks of a report, and their size in granules: free memory is in blocks of the largest order.
const CAPACITY: u64 = 32;
const BLOCK: u64 = 2;

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

    /// Reports that a list gets in a pass.
    fn reports(memory: &Memory, zone: usize) -> u64 {
        let blocks = memory.zones[zone].free().div_ceil(BLOCK);

        blocks.div_ceil(CAPACITY * 16) + 1
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
            // The list of zones goes from the lowest, which allocations try last.
            let zone = memory.zones.len() - 1;
            self.at = Some((zone, Self::reports(memory, zone)));
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
            self.at = zone
                .checked_sub(1)
                .map(|zone| (zone, Self::reports(memory, zone)));
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
    /// The module, with a budget in permille.
    Module(u64),
    /// page_reporting, with a delay in milliseconds.
    Reporting(u64),
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Off,
        Kind::Module(10),
        Kind::Module(0),
        Kind::Reporting(2000),
        Kind::Reporting(250),
        Kind::Reporting(100),
        Kind::Reporting(0),
    ];

    pub fn build(self, host: &Host) -> Box<dyn Hinter> {
        match self {
            Kind::Off => Box::new(Off),
            Kind::Module(permille) => Box::new(Module::new(host, permille)),
            Kind::Reporting(delay_ms) => Box::new(Reporting::new(host, delay_ms)),
        }
    }

    pub fn name(self) -> String {
        match self {
            Kind::Off => "off".into(),
            Kind::Module(0) => "module, not paced".into(),
            Kind::Module(permille) => format!("module, {permille} permille"),
            Kind::Reporting(delay_ms) => format!("page_reporting, {delay_ms} ms"),
        }
    }
}
