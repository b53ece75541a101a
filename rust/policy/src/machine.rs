// SPDX-License-Identifier: GPL-2.0

//! What the hinting thread does next, as a state machine: inputs in, an [`Action`] out.
//!
//! The thread asks [`Machine::next`] what to do, does it, reports what came of it where an action
//! says so, and asks again. A *turn* begins when the thread wakes up: it looks at all zones, and
//! begins a *pass* if there is something to hint. A pass hands over one request after the other
//! until there is nothing left, and may go on for several turns, as the host's answers allow.
//!
//! No kernel types, no allocation. Sizes are in pages, times in nanoseconds unless the name says
//! milliseconds. Arithmetic saturates.

use core::ops::DerefMut;

use crate::{
    levels::{
        Levels,
        Terms, //
    },
    policy::{
        self,
        Knob,
        Knobs,
        Unhinted,
        ZoneView, //
    },
};

/// What the thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the core which blocks wake the thread, and how large the host's pages are.
    Watermark(Watermark),
    /// Have those blocks wake the thread again.
    Rearm,
    /// Put what the per-CPU lists hold on the free lists.
    Drain,
    /// Forget what the host was told, so that all of it is hinted once more.
    Forget,
    /// Call [`Machine::look`] for each zone.
    Look,
    /// Fill a request from zone after zone with what [`Machine::share`] allows, hand it over, and
    /// call [`Machine::requested`].
    Request,
    /// A pass is over: tell those who wait for that.
    Passed,
    /// A flush and those before it are over: done, or not to be had as there is no device.
    Flushed { flush: u64, done: bool },
    /// Sleep until woken, or until so many milliseconds have passed.
    Sleep { ms: u32 },
}

/// When the core wakes the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    Never,
    /// When the unhinted blocks of an order from this up reach so many pages in a zone.
    Blocks {
        min_order: u32,
        pages: u64,
    },
}

/// What the core is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    pub wake: Wake,
    /// The order of the host's pages: no smaller block keeps its tag when a part of it is used.
    pub granule_order: u32,
}

/// What came of [`Action::Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The host has got so many pages.
    Submitted { pages: u64 },
    /// The host has all that it may have at a time; there may be more when it has answered.
    Full,
    /// Nothing could be taken, and the host has nothing.
    Nothing,
    /// There is no device, or it took no more. What was taken for it is back on the free lists.
    Failed,
    /// The same, as somebody waits for what is out. That is over soon.
    Held,
}

/// What the thread knows when it asks what to do.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// The time, of a monotonic clock.
    pub now_ns: u64,
    pub knobs: Knobs,
    pub device: Option<Device>,
    /// The latest flush that somebody waits for.
    pub flush: Option<u64>,
    /// How often the host has asked for memory, ever; may wrap.
    pub asks: u64,
}

/// The reporting device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Lowest order that it takes.
    pub min_order: u32,
    /// Whether the host has something to acknowledge.
    pub in_flight: bool,
}

/// The state of a zone.
#[derive(Clone, Debug)]
pub struct Zone<W> {
    levels: Levels<W>,
    /// Pages that may still be taken, by the last look.
    spare: u64,
}

impl<W: DerefMut<Target = [u64]>> Zone<W> {
    /// A zone that nobody has looked at. [`crate::levels::words`] says how many words it needs.
    pub fn new(words: W) -> Self {
        Self {
            levels: Levels::new(words),
            spare: 0,
        }
    }
}

/// What the machine does within a turn, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begin,
    Rearm,
    Drain,
    Look,
    Decide,
    Request,
    Sleep { most_ms: u32 },
}

/// Until woken, or until it is time to look for what is below the watermark.
const REST: Step = Step::Sleep {
    most_ms: policy::TRICKLE_MS,
};

/// Until there may be blocks again, or the device takes them.
const RETRY: Step = Step::Sleep {
    most_ms: policy::RETRY_MS,
};

/// Why a turn looks for blocks that the watermark does not tell of, or that may still merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It does not: the watermark, the host's answer or a writer woke the thread.
    Woken,
    /// Memory is kept, and some of it may be due.
    Kept,
    /// It is time to look for the rest.
    Rest,
    /// It is time to look for blocks that waited for others to merge with: more may be on the way.
    Deferred,
}

/// Which blocks a pass takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Those of the largest order, which can't merge any more.
    Largest,
    All,
}

/// Whether blocks are being handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Idle,
    Running {
        scope: Scope,
        /// The watermark started this pass, directly or through smaller blocks that waited.
        by_watermark: bool,
        /// Something was handed over.
        found: bool,
    },
}

/// Whether the watermark is to wake the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Armed,
    /// Not until the follow-up: enough is there in smaller blocks, which wait for that.
    Deferred,
    /// Not until the periodic look: the watermark is reached, but nothing can be taken.
    Futile,
}

/// What the last look at all zones has found.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    managed: u64,
    /// Pages that are kept: in all zones, and the most in one.
    kept: u64,
    kept_most: u64,
    /// A zone can spare a block.
    spares: bool,
    /// An area reaches the watermark, whatever its zone can spare.
    full: bool,
    /// An area that its zone can spare a block of reaches the watermark, kept or not.
    reached: bool,
    /// An area that may be taken from does; with blocks of the largest order alone.
    due: bool,
    due_largest: bool,
    /// An area has more than is left alone.
    left: bool,
}

/// What is to be hinted in this turn.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Most pages isolated or in flight.
    batch: u64,
    /// What is left alone of each free area, and what is enough to begin.
    low: u64,
    high: u64,
    min_order: u32,
    /// The largest order, or the largest that fits into a batch.
    largest: u32,
    /// What makes it worth it to drain the lists again, in any guest.
    much: u64,
    /// By how much the watermark that wakes the thread changes with what is kept.
    step: u64,
    terms: Terms,
    flush: Option<u64>,
}

/// The machine. `Z` has a [`Zone`] for each zone that there may be.
#[derive(Debug)]
pub struct Machine<Z> {
    zones: Z,
    step: Step,
    cause: Cause,
    plan: Option<Plan>,
    pass: Pass,
    watch: Watch,
    watermark: Option<Watermark>,
    granule_order: u32,
    found: Found,
    /// When it last looked for what is below the watermark.
    looked_ns: u64,
    /// When to look for a rest of what the watermark has told, or [`NEVER`].
    follow_up_ns: u64,
    /// The same, soon after the last pass of much.
    soon_ns: u64,
    /// When to look again for what is kept, or [`NEVER`].
    look_ns: u64,
    /// When something was kept last.
    kept_ns: Option<u64>,
    /// When the per-CPU lists were drained last to follow up, and pages handed over since then.
    drained_ns: Option<u64>,
    undrained: u64,
    asks: u64,
    /// Until when the host's word counts, and how long until it has all hinted once more.
    asked_ns: u64,
    rehint_ns: u64,
    /// What is still to be told of a pass that is over.
    news: [Option<Action>; 2],
}

/// The time of what is not to come.
const NEVER: u64 = u64::MAX;

impl<W, Z> Machine<Z>
where
    W: DerefMut<Target = [u64]>,
    Z: DerefMut<Target = [Zone<W>]>,
{
    /// Begins. `asks` is how often the host has asked for memory until now.
    pub fn new(zones: Z, now_ns: u64, asks: u64) -> Self {
        Self {
            zones,
            step: Step::Begin,
            cause: Cause::Woken,
            plan: None,
            pass: Pass::Idle,
            watch: Watch::Armed,
            watermark: None,
            granule_order: 0,
            found: Found::default(),
            looked_ns: now_ns,
            follow_up_ns: NEVER,
            soon_ns: NEVER,
            look_ns: NEVER,
            kept_ns: None,
            drained_ns: None,
            undrained: 0,
            asks,
            asked_ns: 0,
            rehint_ns: 0,
            news: [None; 2],
        }
    }

    /// Pages that are kept, by the last look.
    pub fn kept(&self) -> u64 {
        self.found.kept
    }

    /// What to do next.
    pub fn next(&mut self, input: &Input) -> Action {
        loop {
            if let Some(action) = self.news.iter_mut().find_map(Option::take) {
                return action;
            }
            let action = match self.step {
                Step::Begin => self.begin(input),
                Step::Rearm => self.rearm(),
                Step::Drain => self.drain(input),
                Step::Look => {
                    self.found = Found::default();
                    self.look_ns = NEVER;
                    self.step = Step::Decide;
                    Some(Action::Look)
                }
                Step::Decide => {
                    self.decide(input);
                    None
                }
                Step::Request => Some(Action::Request),
                Step::Sleep { most_ms } => self.sleep(input, most_ms),
            };
            if let Some(action) = action {
                return action;
            }
        }
    }

    /// Begins a turn: why, and with which plan.
    fn begin(&mut self, input: &Input) -> Option<Action> {
        self.hear(input);
        self.granule_order = input.knobs.granule_order();
        let Some(device) = input.device else {
            self.stop();
            // Nobody asks for it again.
            return input
                .flush
                .map(|flush| Action::Flushed { flush, done: false })
                .inspect(|_| self.step = Step::Begin);
        };
        if !input.knobs.enabled() && input.flush.is_none() {
            self.stop();
            return None;
        }

        self.plan = Some(self.plan(input, &device));
        self.cause = self.cause(input.now_ns);
        self.step = Step::Rearm;
        None
    }

    /// Takes in whether the host has asked for memory. It may have memory behind what it was told
    /// of, as after a migration: nobody in the guest knows.
    fn hear(&mut self, input: &Input) {
        if input.asks == self.asks {
            return;
        }
        self.asks = input.asks;
        self.asked_ns = input.now_ns.saturating_add(ms(policy::ASKED_MS));
        self.look_ns = input.now_ns;
        self.watch = Watch::Armed;
        if input.now_ns >= self.rehint_ns {
            self.rehint_ns = input.now_ns.saturating_add(ms(policy::REHINT_MS));
            self.news = [Some(Action::Forget), None];
        }
    }

    /// Nothing is hinted. What happens meanwhile is no news to the pacing.
    fn stop(&mut self) {
        self.zones.iter_mut().for_each(|zone| {
            zone.levels.forget();
            zone.spare = 0;
        });
        self.plan = None;
        self.pass = Pass::Idle;
        self.watch = Watch::Armed;
        self.found = Found::default();
        self.follow_up_ns = NEVER;
        self.soon_ns = NEVER;
        self.look_ns = NEVER;
        self.kept_ns = None;
        self.step = Step::Rearm;
    }

    fn plan(&self, input: &Input, device: &Device) -> Plan {
        let knobs = &input.knobs;
        let batch = knobs.pages(Knob::BatchKb);
        let high = knobs.pages(Knob::HighWatermarkKb);
        let min_order = knobs.min_order().max(device.min_order);
        let hold_ms = if input.now_ns < self.asked_ns {
            0
        } else {
            knobs.get(Knob::HoldMs)
        };

        Plan {
            batch,
            low: match input.flush {
                Some(_) => 0,
                None => knobs.pages(Knob::LowWatermarkKb),
            },
            high,
            min_order,
            largest: batch.max(1).ilog2().min(knobs.max_order()).max(min_order),
            terms: Terms {
                hold_ns: hold_ms.saturating_mul(NS_PER_MS),
                min_order,
                granule_order: knobs.granule_order(),
                worth_pages: high.min(knobs.kb_to_pages(policy::WORTH_KB)),
            },
            much: knobs.kb_to_pages(policy::MUCH_KB),
            step: knobs.kb_to_pages(policy::WORTH_KB),
            flush: input.flush,
        }
    }

    /// Why this turn is, and what ends with it.
    fn cause(&mut self, now_ns: u64) -> Cause {
        let follows = self.follow_up_ns.min(self.soon_ns) <= now_ns;
        let rested = self.is_rested(now_ns);
        let deferred = self.watch == Watch::Deferred;

        if follows {
            // Taken, so that it does not go on by itself for ever.
            self.follow_up_ns = NEVER;
            self.soon_ns = NEVER;
            // What goes on has not come to an end, as more and more is freed or the host is slow.
            if let Pass::Running { scope, .. } = &mut self.pass {
                *scope = Scope::All;
            }
        }
        if (rested && self.watch == Watch::Futile) || (deferred && self.follow_up_ns == NEVER) {
            self.watch = Watch::Armed;
        }

        if follows && deferred {
            Cause::Deferred
        } else if follows || rested {
            Cause::Rest
        } else if self.look_ns <= now_ns && self.found.kept != 0 {
            Cause::Kept
        } else {
            Cause::Woken
        }
    }

    /// Has what is freed from now on wake the thread. Not during a pass, which the host's answers
    /// drive.
    fn rearm(&mut self) -> Option<Action> {
        let watermark = self.wanted_watermark();

        if self.watermark != Some(watermark) {
            self.watermark = Some(watermark);
            return Some(Action::Watermark(watermark));
        }
        if self.plan.is_none() {
            self.step = REST;
            return None;
        }
        self.step = if self.pass == Pass::Idle && self.cause == Cause::Rest {
            Step::Drain
        } else {
            Step::Look
        };
        (self.pass == Pass::Idle && self.watch == Watch::Armed).then_some(Action::Rearm)
    }

    /// Drains the per-CPU lists: what they hold is free, and at rest nobody needs it there. To
    /// follow up, if they were a moment ago, a moment later.
    fn drain(&mut self, input: &Input) -> Option<Action> {
        let rested = self.is_rested(input.now_ns);
        let busy = self.is_busy(input.now_ns);
        let wait_ns = match (busy, rested) {
            (true, _) => ms(policy::DRAIN_BUSY_MS),
            (false, true) => 0,
            (false, false) => ms(policy::DRAIN_MS),
        };
        let due_ns = self.drained_ns.map_or(0, |at| at.saturating_add(wait_ns));

        self.step = Step::Look;
        if rested {
            self.looked_ns = input.now_ns;
        }
        if input.now_ns >= due_ns || (!busy && self.is_much()) {
            // One at rest is no reason to leave aside what comes next.
            if busy || !rested {
                self.drained_ns = Some(input.now_ns);
                self.undrained = 0;
            }
            return Some(Action::Drain);
        }
        if !busy {
            self.follow_up_ns = self.follow_up_ns.min(due_ns);
        }
        None
    }

    /// Whether it is time to look for what is below the watermark.
    fn is_rested(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.looked_ns) >= ms(policy::TRICKLE_MS)
    }

    /// Whether memory is kept, or was a moment ago: a cycle goes on.
    fn is_busy(&self, now_ns: u64) -> bool {
        let hold_ns = self.plan.map_or(0, |plan| plan.terms.hold_ns);

        self.kept_ns
            .is_some_and(|at| now_ns.saturating_sub(at) < hold_ns)
    }

    /// Whether so much was handed over since the lists were drained that it is worth it in any case.
    fn is_much(&self) -> bool {
        let much = self.plan.map_or(u64::MAX, |plan| plan.much);

        self.undrained >= much.max(self.found.managed / policy::MUCH_PART)
    }

    /// Has it look for a rest a moment later.
    fn follow_up(&mut self, now_ns: u64) {
        let at_ns = now_ns.saturating_add(ms(policy::FOLLOW_UP_MS));

        self.follow_up_ns = self.follow_up_ns.min(at_ns);
    }

    /// For [`Action::Look`]: takes in what there is of a zone. `zone` is its number in `Z`.
    pub fn look(&mut self, zone: usize, view: &ZoneView<'_>, now_ns: u64) {
        let (Some(plan), Some(zone)) = (self.plan, self.zones.get_mut(zone)) else {
            return;
        };
        let areas = view.areas(plan.min_order);
        let mut unhinted = areas.clone().filter(|area| area.exceeds(plan.low));
        let full = unhinted.any(|area| area.reaches(plan.high));
        let areas = areas.filter(|area| view.fits(plan.batch, area.order));
        let backlog = areas.clone().map(Unhinted::pages);
        let backlog = backlog.fold(0, u64::saturating_add);
        let decision = zone.levels.look(now_ns, view, backlog, &plan.terms);
        let found = &mut self.found;

        zone.spare = match plan.flush {
            Some(_) => u64::MAX,
            None => decision.pages,
        };
        self.look_ns = self.look_ns.min(now_ns.saturating_add(decision.again_ns));
        found.managed = found.managed.saturating_add(view.managed);
        found.kept = found.kept.saturating_add(decision.kept);
        found.kept_most = found.kept_most.max(decision.kept);
        found.spares |= view.fits(plan.batch, plan.min_order);
        found.full |= full;
        for area in areas.filter(|area| area.exceeds(plan.low)) {
            let spare = area.up_to(zone.spare);
            let due = spare.reaches(plan.high);

            found.reached |= area.reaches(plan.high.saturating_add(decision.kept));
            found.left |= spare.blocks != 0;
            found.due |= due;
            found.due_largest |= due && area.order >= plan.largest;
        }
    }

    /// Begins a pass if it is time to: for the largest blocks if the watermark says so, for all if
    /// this turn's cause does.
    fn decide(&mut self, input: &Input) {
        let found = self.found;
        let flush = self.plan.and_then(|plan| plan.flush);

        if found.kept != 0 {
            self.kept_ns = Some(input.now_ns);
        }
        if self.pass == Pass::Idle {
            let all = flush.is_some() || (self.cause != Cause::Woken && found.left);
            let due = found.due && self.watch != Watch::Futile;

            self.pass = match (all, due && found.due_largest) {
                (false, false) => Pass::Idle,
                (all, _) => Pass::Running {
                    scope: if all { Scope::All } else { Scope::Largest },
                    by_watermark: !all || self.cause == Cause::Deferred,
                    found: false,
                },
            };
            let idle = self.pass == Pass::Idle;
            self.watch = match self.watch {
                Watch::Futile => Watch::Futile,
                _ if idle && due => Watch::Deferred,
                // Each free would find the same.
                _ if idle && (found.reached || (found.full && !found.spares)) => Watch::Futile,
                _ => Watch::Armed,
            };
            if self.watch == Watch::Deferred || (!idle && !all) {
                self.follow_up(input.now_ns);
            }
        }
        self.step = match self.pass {
            Pass::Idle => REST,
            Pass::Running { .. } => Step::Request,
        };
    }

    /// For [`Action::Request`]: the lowest order to take. Higher orders come first.
    pub fn lowest_order(&self) -> u32 {
        match (self.plan, self.pass) {
            (Some(plan), Pass::Running { scope, .. }) => match (scope, plan.flush) {
                (Scope::Largest, None) => plan.largest,
                _ => plan.min_order,
            },
            _ => u32::MAX,
        }
    }

    /// For [`Action::Request`]: how many pages of that order may be taken from a zone now, with
    /// `isolated` pages out of all zones together. What is taken is to be told to [`Self::took`].
    pub fn share(&mut self, zone: usize, order: u32, view: &ZoneView<'_>, isolated: u64) -> u64 {
        let (Some(plan), Some(zone)) = (self.plan, self.zones.get_mut(zone)) else {
            return 0;
        };
        zone.levels.note(view);
        match view.areas(order).next() {
            Some(area) if area.exceeds(plan.low) => view
                .budget(plan.batch, isolated)
                .min(area.pages().saturating_sub(plan.low))
                .min(zone.spare),
            _ => 0,
        }
    }

    /// So many pages were taken from a zone.
    pub fn took(&mut self, zone: usize, pages: u64) {
        if let Some(zone) = self.zones.get_mut(zone) {
            zone.spare = zone.spare.saturating_sub(pages);
        }
    }

    /// For [`Action::Request`]: what came of it. True if it is the first of a pass that was handed
    /// over.
    pub fn requested(&mut self, outcome: Outcome, now_ns: u64) -> bool {
        let Pass::Running { found, .. } = &mut self.pass else {
            return false;
        };

        match outcome {
            Outcome::Submitted { pages } => {
                self.undrained = self.undrained.saturating_add(pages);
                return !core::mem::replace(found, true);
            }
            Outcome::Full => self.step = REST,
            Outcome::Nothing | Outcome::Failed | Outcome::Held => self.end(now_ns, outcome),
        }
        false
    }

    /// Ends the pass, and a flush if there is nothing left.
    fn end(&mut self, now_ns: u64, outcome: Outcome) {
        let Pass::Running {
            by_watermark,
            found,
            ..
        } = self.pass
        else {
            return;
        };
        let flush = self.plan.and_then(|plan| plan.flush);

        self.pass = Pass::Idle;
        if found {
            self.watch = Watch::Armed;
        } else if self.found.due && outcome != Outcome::Held {
            // To be woken again would be no use.
            self.watch = Watch::Futile;
        }
        if found && by_watermark {
            self.follow_up(now_ns);
        }
        if found && !self.is_busy(now_ns) && self.is_much() {
            self.soon_ns = now_ns.saturating_add(ms(policy::DRAIN_SOON_MS));
        }
        if found || flush.is_some() {
            let done = flush.filter(|_| outcome == Outcome::Nothing);

            self.looked_ns = now_ns;
            self.news = [
                Some(Action::Passed),
                done.map(|flush| Action::Flushed { flush, done: true }),
            ];
        }
        self.step = match outcome {
            Outcome::Failed if flush.is_some() => RETRY,
            Outcome::Held => RETRY,
            // At once: what was freed meanwhile did not wake the thread.
            _ => Step::Begin,
        };
    }

    /// The blocks that are to wake the thread. Not those that are kept, or each free would; in
    /// steps, so that it seldom changes.
    fn wanted_watermark(&self) -> Watermark {
        let wake = self.plan.map_or(Wake::Never, |plan| {
            let kept = self.found.kept_most.checked_next_multiple_of(plan.step);

            Wake::Blocks {
                min_order: plan.min_order,
                pages: kept.unwrap_or(u64::MAX).saturating_add(plan.high),
            }
        });

        Watermark {
            wake,
            granule_order: self.granule_order,
        }
    }

    /// Ends the turn.
    fn sleep(&mut self, input: &Input, most_ms: u32) -> Option<Action> {
        if self.watermark != Some(self.wanted_watermark()) {
            // What was freed since the look may be enough by now.
            self.cause = Cause::Woken;
            self.step = Step::Rearm;
            return None;
        }
        self.step = Step::Begin;

        let in_flight = input.device.is_some_and(|device| device.in_flight);
        let check_ms = if in_flight {
            policy::STALL_CHECK_MS
        } else {
            most_ms
        };
        let rest_ns = match self.watch {
            Watch::Futile => self.looked_ns.saturating_add(ms(policy::TRICKLE_MS)),
            _ => NEVER,
        };
        let at_ns = self
            .follow_up_ns
            .min(self.soon_ns)
            .min(self.look_ns)
            .min(rest_ns);
        let left_ms = at_ns.saturating_sub(input.now_ns).div_ceil(NS_PER_MS);
        let left_ms = u32::try_from(left_ms).unwrap_or(u32::MAX).max(1);
        Some(Action::Sleep {
            ms: left_ms.min(most_ms).min(check_ms),
        })
    }
}

const NS_PER_MS: u64 = 1_000_000;

fn ms(ms: u32) -> u64 {
    u64::from(ms).saturating_mul(NS_PER_MS)
}
