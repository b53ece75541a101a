// SPDX-License-Identifier: GPL-2.0

//! Assembling requests: which blocks go to the host next.

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
    zone::Zone, //
};

/// Why [`hint`] stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nothing is left that is worth hinting, or that can be spared.
    Done,
    /// The host has all that it may have at a time.
    Full,
}

/// Hands unhinted memory to the host, until there is none or the host has enough.
pub(crate) fn hint(knobs: &Knobs, stats: &Stats) -> Stop {
    loop {
        let state = queue::State::now();
        if !state.has_device() {
            return Stop::Done;
        }

        let ranges = policy::request_ranges(state.capacity(), state.room());
        if ranges == 0 {
            return Stop::Full;
        }
        let Some(mut request) = Isolated::new() else {
            return Stop::Full;
        };

        fill(
            &mut request,
            knobs,
            knobs.min_order().max(state.min_order()),
            ranges,
        );
        if request.is_empty() {
            // More may be had once the host has returned some.
            return if state.in_flight() {
                Stop::Full
            } else {
                Stop::Done
            };
        }

        stats.submitting();
        if request.submit().is_err() {
            // The blocks are back on the free lists, and found there next time.
            stats.failed();
            return Stop::Done;
        }
    }
}

/// Takes blocks into a request: zone by zone, the highest order first.
fn fill(request: &mut Isolated, knobs: &Knobs, min_order: u32, ranges: u32) {
    let batch = kb_to_pages(knobs.get(Knob::BatchKb));
    let low = kb_to_pages(knobs.get(Knob::LowWatermarkKb));

    for zone in Zone::all() {
        let info = zone.info();

        for area in info.unhinted(min_order) {
            if !area.exceeds(low) {
                continue;
            }

            // What was taken changes both; free memory changes anyway.
            let (isolated, _) = queue::isolated();
            let room = zone.info().room();
            let pages = room
                .budget(batch, isolated)
                .min(area.pages().saturating_sub(low));

            // A block that does not fit stays, and the lock with it.
            if pages >> area.order != 0 {
                request.take(zone, area.order, pages, ranges);
            }
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

/// Whether any free area has blocks that `condition` asks for, and that its zone can spare.
///
/// A zone that can spare not even one block, as `ZONE_DMA` with its large reserve, is nothing to
/// wake up for.
fn any_area(knobs: &Knobs, min_order: u32, condition: impl Fn(Unhinted) -> bool) -> bool {
    let batch = kb_to_pages(knobs.get(Knob::BatchKb));

    Zone::all().any(|zone| {
        let info = zone.info();
        let bound = info.room().bound(batch);

        let mut areas = info.unhinted(min_order);

        areas.any(|area| bound >> area.order != 0 && condition(area))
    })
}

/// Whether a free area has enough to begin hinting.
pub(crate) fn is_due(knobs: &Knobs, min_order: u32) -> bool {
    let high = kb_to_pages(knobs.get(Knob::HighWatermarkKb));

    any_area(knobs, min_order, |area| area.reaches(high))
}

/// Whether a free area has more than is left alone.
pub(crate) fn is_left(knobs: &Knobs, min_order: u32) -> bool {
    let low = kb_to_pages(knobs.get(Knob::LowWatermarkKb));

    any_area(knobs, min_order, |area| area.exceeds(low))
}
