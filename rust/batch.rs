// SPDX-License-Identifier: GPL-2.0

//! Assembling requests: which blocks go to the host next.

use kernel::error::code::EAGAIN;

use crate::{
    block::Isolated,
    kb_to_pages,
    policy::{
        self,
        Knob,
        Knobs,
        Unhinted, //
    },
    queue,
    stats::Stats,
    thread::InThread,
    zone::{
        self,
        Zone, //
    },
};

/// What is to be hinted.
pub(crate) struct Plan {
    /// Most memory isolated or in flight, in pages.
    batch: u64,
    /// What is left alone of each free area, in pages.
    low: u64,
    /// Lowest order.
    min_order: u32,
    /// How much at most, in pages.
    pages: u64,
}

impl Plan {
    /// What the knobs ask for and the device takes.
    pub(crate) fn new(knobs: &Knobs, state: &queue::State) -> Self {
        Self {
            batch: kb_to_pages(knobs.get(Knob::BatchKb)),
            low: kb_to_pages(knobs.get(Knob::LowWatermarkKb)),
            min_order: knobs.min_order().max(state.min_order()),
            pages: u64::MAX,
        }
    }

    /// The lowest order of it.
    pub(crate) fn min_order(&self) -> u32 {
        self.min_order
    }

    /// Whether anything is.
    pub(crate) fn is_any(&self) -> bool {
        self.pages != 0
    }

    /// Of it `pages` at most.
    pub(crate) fn up_to(self, pages: u64) -> Self {
        Self { pages, ..self }
    }

    /// Of it the blocks of the largest order, which can't merge any more; or of the largest that
    /// fits into a batch, if that is less.
    pub(crate) fn largest(&self) -> Self {
        let order = self.batch.max(1).ilog2().min(zone::MAX_PAGE_ORDER);

        Self {
            min_order: order.max(self.min_order),
            ..*self
        }
    }

    /// Nothing of it left alone.
    pub(crate) fn all(self) -> Self {
        Self { low: 0, ..self }
    }
}

/// What came of [`hint`].
#[derive(PartialEq, Eq)]
pub(crate) enum Pass {
    /// The host has all that it may have at a time; there may be more.
    Full,
    /// There is no more that can be spared, and the host has nothing; or the plan is fulfilled.
    Over,
    /// There is no device, or it took no more. What was taken for it is back on the free lists.
    Failed,
    /// The same, as somebody waits for what is out.
    Held,
}

/// Hands unhinted memory to the host, until there is none that can be spared or the host has
/// enough. Adds to `submitted` how much, in pages.
pub(crate) fn hint(plan: &Plan, submitted: &mut u64, stats: &Stats, token: &InThread) -> Pass {
    loop {
        let state = queue::State::now();
        let ranges = policy::request_ranges(state.capacity(), state.room());

        // The device may have changed to one that takes less.
        if !state.has_device() || state.min_order() > plan.min_order {
            return Pass::Failed;
        }
        if *submitted >= plan.pages {
            return Pass::Over;
        }
        if ranges == 0 {
            return Pass::Full;
        }
        let Some(mut request) = Isolated::new(token) else {
            return Pass::Full;
        };

        fill(&mut request, plan, plan.pages - *submitted, ranges);
        if request.is_empty() {
            // More may be had once the host has returned some, or nobody waits for it any more.
            return if state.in_flight() {
                Pass::Full
            } else if state.held() || queue::State::now().held() {
                Pass::Held
            } else {
                Pass::Over
            };
        }

        let pages = request.pages();
        match request.submit() {
            Ok(()) => {
                stats.submitted();
                *submitted = submitted.saturating_add(pages);
            }
            // Somebody needs the memory now, which is no fault of the device.
            Err(e) if e == EAGAIN => return Pass::Held,
            Err(_) => {
                stats.submitted();
                stats.failed();
                return Pass::Failed;
            }
        }
    }
}

/// Takes up to `pages` into a request: zone by zone, the highest order first.
fn fill(request: &mut Isolated, plan: &Plan, pages: u64, ranges: u32) {
    for zone in Zone::all() {
        let info = zone.info();

        for area in info.unhinted(plan.min_order) {
            if !area.exceeds(plan.low) {
                continue;
            }

            // What was taken changes both; free memory changes anyway.
            let (isolated, _) = queue::isolated();
            let room = zone.info().room();
            let pages = room
                .budget(plan.batch, isolated)
                .min(area.pages().saturating_sub(plan.low))
                .min(pages.saturating_sub(request.pages()));

            request.take(zone, area.order, pages, ranges);
        }
    }
}

/// The unhinted memory of all zones from `min_order` up, in pages.
pub(crate) fn backlog(min_order: u32) -> u64 {
    Zone::all().fold(0, |sum, zone| {
        zone.info()
            .unhinted(min_order)
            .fold(sum, |sum: u64, area| sum.saturating_add(area.pages()))
    })
}

/// Free memory of the orders from `min_order` up.
#[derive(Default)]
pub(crate) struct Free {
    /// Of zones that can spare some: what is not hinted, in pages.
    pub(crate) backlog: u64,
    /// The least that was since it was asked for last.
    pub(crate) backlog_min: u64,
    /// All of it, and what is isolated, in pages.
    pub(crate) total: u64,
    /// Pages that the guest has, free or not.
    pub(crate) managed: u64,
}

impl Free {
    /// As it is now. For the thread alone, as it begins the time anew that `backlog_min` is of.
    pub(crate) fn now(plan: &Plan, _: &InThread) -> Self {
        let mut free = Self::default();

        for zone in Zone::all() {
            let info = zone.info();
            let room = info.room();
            let low = zone.take_low();

            free.managed = free.managed.saturating_add(room.managed);
            free.total = free.total.saturating_add(room.isolated);
            for area in info.unhinted(plan.min_order) {
                if room.fits(plan.batch, area.order) {
                    free.backlog = free.backlog.saturating_add(area.pages());
                    free.backlog_min = free.backlog_min.saturating_add(low.pages(area.order));
                }
                if let Some(all) = zone.area(area.order) {
                    let pages = (all.nr_free as u64).saturating_mul(1 << area.order);

                    free.total = free.total.saturating_add(pages);
                }
            }
        }
        free
    }
}

/// Whether any free area has blocks that `condition` asks for, and that its zone can spare.
///
/// A zone that can spare not even one block, as `ZONE_DMA` with its large reserve, is nothing to
/// wake up for.
fn any_area(plan: &Plan, condition: impl Fn(Unhinted) -> bool) -> bool {
    Zone::all().any(|zone| {
        let info = zone.info();
        let room = info.room();
        let mut areas = info.unhinted(plan.min_order);

        areas.any(|area| room.fits(plan.batch, area.order) && condition(area))
    })
}

/// Whether a free area has enough to begin hinting.
pub(crate) fn is_due(plan: &Plan, knobs: &Knobs) -> bool {
    let high = kb_to_pages(knobs.get(Knob::HighWatermarkKb));

    any_area(plan, |area| area.reaches(high) && area.exceeds(plan.low))
}

/// Whether a free area has more than is left alone.
pub(crate) fn is_left(plan: &Plan) -> bool {
    any_area(plan, |area| area.exceeds(plan.low))
}
